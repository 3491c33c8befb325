//! Refusing a command: an error in its place, and no transaction that holds it.

use std::sync::Arc;

use bytes::Bytes;

use super::client::Step;
use super::pending::Expect;
use super::runs::{Fate, Growing};
use super::talk::{Core, Multi, Mute};
use super::words;
use crate::analysis::redis::{Command, Role};
use crate::name::RuleId;
use crate::session::gate::{Refusal, StorePlan, Words, store_refusal};
use crate::session::journal::Call;

impl Core {
    /// What is no command, or none in this form.
    pub(super) fn unknown(
        &mut self,
        call: &mut Call<'_>,
        command: Option<&Command>,
        text: &str,
    ) -> Step {
        let refusal = Refusal { words: Words::Servers, ..store_refusal("ERR", "unknown command") };
        if self.who.is_some() {
            let plan = Arc::new(StorePlan::refused(command, refusal));
            self.grow(call, plan, Fate::Kept, None);
        }
        self.tell_refused(call, command, text)
    }

    /// Answers a refused command, and gives up the transaction it is in: at once if it is EXEC.
    pub(super) fn tell_refused(
        &mut self,
        call: &mut Call<'_>,
        command: Option<&Command>,
        text: &str,
    ) -> Step {
        if command.is_some_and(|command| command.role == Role::Exec) {
            let bytes = words::error(&words::exec_refused(text));
            if self.multi == Multi::None {
                self.reply(call, bytes);
            } else {
                self.abort(call, bytes);
            }
            return Step::Drop;
        }
        match self.multi {
            Multi::None => {}
            Multi::Open | Multi::Tainted => self.multi = Multi::Tainted,
        }
        self.reply(call, words::error(text));
        Step::Drop
    }

    /// Answers the command at hand in the server's place, if the client wants to hear it.
    pub(super) fn reply(&mut self, call: &mut Call<'_>, bytes: Bytes) {
        if !self.take_mute() {
            self.say(call, bytes);
        }
    }

    /// Gives up the transaction at the server; the client gets these bytes.
    pub(super) fn abort(&mut self, call: &mut Call<'_>, bytes: Bytes) {
        self.multi = Multi::None;
        call.out.to_server.extend(words::ABORT);
        self.await_reply(Expect::Abort(bytes));
    }

    pub(super) fn refuse(&mut self, call: &mut Call<'_>, refusal: &Refusal) -> Step {
        let plan = Arc::new(StorePlan::refused(None, refusal.clone()));
        self.refuse_planned(call, None, (plan, None), refusal)
    }

    /// Refuses what was planned so, or what is against it at this moment: then `limited_by` may name
    /// a limit. `command` is given where a refused EXEC is to end its transaction at once.
    pub(super) fn refuse_planned(
        &mut self,
        call: &mut Call<'_>,
        command: Option<&Command>,
        (plan, limited_by): (Arc<StorePlan>, Option<RuleId>),
        refusal: &Refusal,
    ) -> Step {
        // The number of the event that tells of it.
        self.close_run(call);
        let text = words::refusal(refusal, &call.journal.request_id());
        if self.who.is_some() {
            self.grow(call, plan, Fate::Kept, limited_by);
        }
        self.tell_refused(call, command, &text)
    }

    /// Counts a command to the run of those decided alike.
    pub(super) fn grow(
        &mut self,
        call: &mut Call<'_>,
        plan: Arc<StorePlan>,
        fate: Fate,
        limited_by: Option<RuleId>,
    ) {
        if let Some(growing) = &mut self.growing
            && Arc::ptr_eq(&growing.plan, &plan)
            && growing.fate == fate
            && growing.limited_by == limited_by
        {
            growing.count += 1;
            return;
        }
        self.close_run(call);
        self.growing = Some(Growing { plan, limited_by, fate, count: 1 });
    }

    /// An empty line, or an empty array: it is no command, but counts as the next one.
    pub(super) fn nothing_asked(&mut self) {
        if self.mute == Mute::Once {
            self.mute = Mute::No;
        }
    }
}
