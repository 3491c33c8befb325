//! Replies still to come, and the audit trail's runs of commands they complete.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::answers::Reduce;
use super::reshape::Job;
use crate::analysis::redis::Subscribed;
use crate::event::{CommandRun, EventKind, RunResult, StoreError};
use crate::session::gate::StorePlan;
use crate::session::journal::Call;
use crate::wire::resp::Protocol;

/// What is to happen to the next reply.
#[derive(Debug)]
pub(super) enum Expect {
    /// So many replies go to the client as they are.
    Plain(u64),
    /// One reply is rewritten on its way.
    Shaped(Box<Job>),
    /// The server owes nothing: these bytes are for the client.
    Local(Bytes),
    /// So many confirmations of channels that are asked for.
    Subscribes {
        /// Of which kind.
        kind: Subscribed,
        /// How many are still to come.
        left: usize,
    },
    /// As many confirmations as channels are named; `None`: as are subscribed to.
    Unsubscribes {
        /// Of which kind.
        kind: Subscribed,
        /// How many are still to come, once that is known.
        left: Option<usize>,
    },
    /// MULTI.
    Multi,
    /// MULTI, whose reply the client does not want: a transaction begins here.
    MultiUnheard,
    /// EXEC: the replies to all commands of the transaction in one.
    Exec,
    /// DISCARD of the client's.
    Discard,
    /// A DISCARD of ours; the client gets these bytes.
    Abort(Bytes),
    /// SELECT of this database.
    Select(u32),
    /// HELLO without a login: this version of the protocol, if it goes well.
    Hello(Option<Protocol>),
    /// One reply of which the client sees a part.
    Reduced(Reduce),
    /// RESET.
    Reset,
    /// MONITOR.
    Monitor,
    /// The server is asked to let a client in.
    Login,
}

impl Expect {
    /// Whether the client is not read before this is answered: what it asks next depends on it.
    fn holds_client(&self) -> bool {
        match self {
            Self::Select(_) | Self::Hello(_) | Self::Reset | Self::Login => true,
            Self::Plain(_)
            | Self::Shaped(_)
            | Self::Local(_)
            | Self::Subscribes { .. }
            | Self::Unsubscribes { .. }
            | Self::Multi
            | Self::MultiUnheard
            | Self::Exec
            | Self::Discard
            | Self::Abort(_)
            | Self::Reduced(_)
            | Self::Monitor => false,
        }
    }
}

/// Replies in order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Expect>,
    holding: usize,
    runs: VecDeque<Run>,
    /// Commands the server is done with.
    done: u64,
}

/// Commands in a row that were decided alike and forwarded.
#[derive(Debug)]
struct Run {
    run: CommandRun,
    /// Number of the decision's event.
    decision: u64,
    /// Commands not answered yet.
    left: u64,
    began_us: u64,
    result: RunResult,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Entries, of which each holds a bounded number of bytes.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the client must not be read on.
    pub(super) fn holds_client(&self) -> bool {
        self.holding > 0
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn head(&mut self) -> Option<&mut Expect> {
        self.queue.front_mut()
    }

    pub(super) fn push(&mut self, expect: Expect) {
        self.holding += usize::from(expect.holds_client());
        if let (Some(Expect::Plain(count)), Expect::Plain(more)) = (self.queue.back_mut(), &expect)
        {
            *count += more;
            return;
        }
        self.queue.push_back(expect);
    }

    pub(super) fn pop(&mut self) -> Option<Expect> {
        let expect = self.queue.pop_front()?;
        self.holding -= usize::from(expect.holds_client());
        Some(expect)
    }

    /// One of the plain replies at the head has come.
    pub(super) fn pop_plain(&mut self) {
        if let Some(Expect::Plain(count)) = self.queue.front_mut() {
            *count -= 1;
            if *count == 0 {
                self.queue.pop_front();
            }
        }
    }

    /// Commands were decided alike and forwarded.
    pub(super) fn forwarded(&mut self, call: &mut Call<'_>, run: CommandRun, decision: u64) {
        call.journal.owed += 1;
        self.runs.push_back(Run {
            left: run.count,
            run,
            decision,
            began_us: call.turn.now.mono_us,
            result: RunResult::default(),
        });
    }

    /// Bytes went to the client for the command at the head.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Some(run) = self.runs.front_mut() {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            run.result.bytes = run.result.bytes.saturating_add(bytes);
        }
    }

    /// The command at the head was answered with this error.
    pub(super) fn failed(&mut self, error: StoreError) {
        if let Some(run) = self.runs.front_mut() {
            run.result.failed += 1;
            run.result.error.get_or_insert(error);
        }
    }

    /// The command at the head was answered.
    pub(super) fn answered(&mut self, call: &mut Call<'_>) {
        self.done += 1;
        let Some(run) = self.runs.front_mut() else { return };
        run.left = run.left.saturating_sub(1);
        if run.left == 0
            && let Some(run) = self.runs.pop_front()
        {
            run.complete(call);
        }
    }

    /// Nothing will be answered any more: what is known is recorded.
    pub(super) fn abandon(&mut self, call: &mut Call<'_>) {
        self.queue.clear();
        self.holding = 0;
        for mut run in std::mem::take(&mut self.runs) {
            run.run.count = run.run.count.saturating_sub(run.left);
            if run.run.count > 0 {
                run.complete(call);
            } else {
                call.journal.owed = call.journal.owed.saturating_sub(1);
            }
        }
    }
}

impl Run {
    fn complete(self, call: &mut Call<'_>) {
        let Self { run, decision, left: _, began_us, mut result } = self;
        result.duration_us = call.turn.now.mono_us.saturating_sub(began_us);
        call.journal.owed = call.journal.owed.saturating_sub(1);
        let kind = EventKind::CommandsCompleted { run, decision, result };
        call.journal.push(call.turn.now, kind, call.out);
    }
}

/// A run that is growing while one piece of the client's input is read.
#[derive(Debug)]
pub(super) struct Growing {
    pub(super) plan: Arc<StorePlan>,
    pub(super) limited_by: Option<crate::name::RuleId>,
    pub(super) fate: Fate,
    pub(super) count: u64,
}

/// What becomes of the commands of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They go to the server, which answers them.
    Answered,
    /// They go to the server, and the client wants no replies.
    Mute,
    /// They do not go to the server.
    Kept,
}

impl Growing {
    /// Records the run; what was forwarded owes an outcome.
    pub(super) fn close(self, call: &mut Call<'_>, pending: &mut Pending, database: u32) {
        let Self { plan, limited_by, fate, count } = self;
        let run = CommandRun {
            record: Arc::clone(&plan.record),
            generation: call.turn.rules.generation,
            database,
            count,
        };
        let kind = EventKind::CommandsDecided { run: run.clone(), limited_by };
        let decision = call.journal.push(call.turn.now, kind, call.out);
        match fate {
            Fate::Answered => pending.forwarded(call, run, decision),
            Fate::Mute => {
                let result = RunResult::default();
                let kind = EventKind::CommandsCompleted { run, decision, result };
                call.journal.push(call.turn.now, kind, call.out);
            }
            Fate::Kept => {}
        }
    }
}
