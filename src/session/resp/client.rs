//! What the client asks: one command after the other is judged, then passed on or refused.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};

use super::answers::{Answer, answer};
use super::entering::DEFAULT_USER;
use super::pending::Expect;
use super::reshape::{Errors, Job, KeyMasks};
use super::runs::Fate;
use super::talk::{Core, Multi, Mute, Streamed};
use super::words::{self, EXEC_ABORT, NO_AUTH};
use super::{RespConfig, Talk};
use crate::analysis::redis::{Answered, Args, Command, Found, Role};
use crate::session::gate::{
    Aside, Ended, NOPERM, Refusal, StorePlan, StoreVerdict, Words, admit_command, store_refusal,
};
use crate::session::journal::Call;
use crate::wire::resp::request::{Arguments, Form, Refused, RequestLimits, Scan};

impl Args for Arguments<'_> {
    fn len(&self) -> usize {
        Arguments::len(self)
    }

    fn get(&self, at: usize) -> Option<&[u8]> {
        Arguments::get(self, at)
    }
}

/// What becomes of a command's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// They go to the server.
    Forward,
    /// It is written anew for the server, with the prefix of a tenant or another expiry.
    Rewrite,
    /// They do not.
    Drop,
    /// The command is looked at again when what is in flight is answered.
    Wait,
}

impl Talk {
    pub(super) fn feed_client(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        input: &mut BytesMut,
    ) -> Result<(), Refused> {
        let result = self.commands(call, config, input);
        self.core.close_run(call);
        result
    }

    fn commands(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        input: &mut BytesMut,
    ) -> Result<(), Refused> {
        let owed = call.journal.owed;
        self.core.follow(call, config);
        while !input.is_empty() && self.core.wants_client(config) {
            let newly_owed = call.journal.owed.saturating_sub(owed);
            if call.out.events.len() + newly_owed + EVENTS_OF_A_COMMAND > call.out.room {
                break;
            }
            if self.scanner.is_streaming() {
                if !self.stream(call, input)? {
                    break;
                }
                continue;
            }
            let alike = self.core.repeat(input);
            if alike > 0 {
                call.out.to_server.take_from(input, alike);
                continue;
            }
            self.core.repeated.forget();
            if self.core.who.is_none() && !self.core.tried_unasked {
                self.core.enter_unasked(call, config);
                continue;
            }
            let (len, form) = match self.next(call, input)? {
                Next::Wait => break,
                Next::Again => continue,
                Next::Command(len, whole) => (len, whole),
            };
            let args = self.scanner.args(input);
            match (self.core.command(call, config, &args), form) {
                (Step::Wait, _) => break,
                (Step::Forward, Whole::Command(Form::Inline)) => {
                    call.out.to_server.encode(|out| words::from_line(out, &args));
                    input.advance(len);
                }
                (Step::Forward, Whole::Command(Form::Array)) => {
                    let (command, rest) = input.split_at(len.min(input.len()));
                    self.core.remember(command);
                    let alike = self.core.repeat(rest);
                    call.out.to_server.take_from(input, len + alike);
                }
                (Step::Forward, Whole::Head) => {
                    call.out.to_server.take_from(input, len);
                    self.core.streamed = Streamed::Forwarded;
                }
                (Step::Rewrite, whole) => {
                    let streamed = self.core.announced.filter(|_| whole == Whole::Head);
                    let core = &mut self.core;
                    call.out.to_server.encode(|out| core.write_anew(out, &args, streamed));
                    input.advance(len);
                    self.core.streamed = Streamed::Forwarded;
                }
                (Step::Drop, _) => {
                    input.advance(len);
                    self.core.streamed = Streamed::Dropped;
                }
            }
        }
        Ok(())
    }

    /// Passes on what has come of a long argument; whether that was anything.
    fn stream(&mut self, call: &mut Call<'_>, input: &mut BytesMut) -> Result<bool, Refused> {
        let passed = self.scanner.pass(input).inspect_err(|_refused| {
            if self.core.streamed == Streamed::Forwarded {
                // The server waits for the rest of a command that will not come.
                self.core.pending.forget_last();
            }
        })?;
        match self.core.streamed {
            Streamed::Forwarded => {
                call.out.to_server.take_from(input, passed);
                if !self.scanner.is_streaming() {
                    self.core.write_behind(call);
                }
            }
            Streamed::Dropped => input.advance(passed),
        }
        Ok(passed > 0)
    }

    /// Looks for the next command; what is none is taken away.
    fn next(&mut self, call: &mut Call<'_>, input: &mut BytesMut) -> Result<Next, Refused> {
        self.scanner.limit_to(match &self.core.who {
            Some(_) => RequestLimits::LOGGED_IN,
            None => RequestLimits::BEFORE_LOGIN,
        });
        self.core.announced = None;
        Ok(match self.scanner.scan(input)? {
            Scan::Incomplete => Next::Wait,
            Scan::Drop(bytes) => {
                input.advance(bytes);
                if self.scanner.is_between() {
                    self.core.nothing_asked();
                }
                Next::Again
            }
            Scan::TooLong(bytes) => {
                input.advance(bytes);
                let text = "a command whose arguments but the last are longer than 8 MB is not \
                            judged, and refused";
                self.core.refuse(call, &store_refusal(NOPERM, text));
                Next::Again
            }
            Scan::Command { len, form } => Next::Command(len, Whole::Command(form)),
            Scan::Head { len, last } => {
                self.core.announced = Some(last);
                Next::Command(len, Whole::Head)
            }
        })
    }
}

/// What the client's bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Too little of a command.
    Wait,
    /// Nothing any more.
    Again,
    /// A command of so many bytes.
    Command(usize, Whole),
}

/// How much of a command is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    /// All of it.
    Command(Form),
    /// All but its last argument.
    Head,
}

impl Core {
    fn command(&mut self, call: &mut Call<'_>, config: &RespConfig, args: &Arguments<'_>) -> Step {
        self.last_role = None;
        self.amended = None;
        let command = match config.table.find(args) {
            Found::Command(command) => command,
            Found::Unknown => return self.unknown(call, None, &words::unknown_command(args)),
            Found::UnknownSubcommand(container) => {
                return self.unknown(call, None, &words::unknown_subcommand(args, container));
            }
        };
        if !command.arity_fits(args.len()) {
            let text = words::wrong_arity(&command.fact.name);
            return self.unknown(call, Some(command), &text);
        }
        let held = args.get(args.len().saturating_sub(1)).is_some();
        match command.role {
            Role::Quit | Role::Auth | Role::Hello | Role::Reset if !held => {
                return self.unknown(call, Some(command), "ERR an argument is too long");
            }
            Role::Quit => return self.quit(call, config),
            Role::Auth => return self.auth(call, config, args),
            Role::Hello => return self.hello(call, config, args),
            Role::Reset => return self.reset_asked(call),
            Role::Plain
            | Role::Select
            | Role::Multi
            | Role::Exec
            | Role::Discard
            | Role::Subscribe(_)
            | Role::Unsubscribe(_)
            | Role::ClientReply
            | Role::Answered(_)
            | Role::Monitor
            | Role::Never => {}
        }
        let Some(who) = &self.who else {
            return self.tell_refused(call, Some(command), NO_AUTH);
        };
        self.last_role = Some(command.role);
        let mut uses = std::mem::take(&mut self.uses);
        let understood = command.uses(args, &mut uses);
        let plan = match &understood {
            Ok(()) => self.plans.plan(call.turn, who.class(), (command, args), &uses),
            Err(not) => {
                let refusal = store_refusal("ERR", not.to_string());
                let refusal = Refusal { words: Words::Servers, ..refusal };
                Arc::new(StorePlan::refused(Some(command), refusal))
            }
        };
        self.uses = uses;
        self.carry_out(call, (command, args), plan)
    }

    /// A command is judged: passes it on, answers it or refuses it.
    fn carry_out(
        &mut self,
        call: &mut Call<'_>,
        (command, args): (&Command, &Arguments<'_>),
        plan: Arc<StorePlan>,
    ) -> Step {
        match (&plan.verdict, command.role) {
            (StoreVerdict::Forward, _) => {}
            (StoreVerdict::Closed(_), Role::Answered(answered)) if self.multi == Multi::None => {
                return self.answer(call, (answered, args), plan);
            }
            (StoreVerdict::Closed(refusal) | StoreVerdict::Refuse(refusal), _) => {
                let refusal = refusal.clone();
                return self.refuse_planned(call, Some(command), (plan, None), &refusal);
            }
        }
        let now_ms = call.turn.now.wall_us / 1_000;
        let ended = plan.end((command, args), now_ms);
        let ended_ms = ended.as_ref().map(|ended| ended.ms);
        let plan = match ended {
            Some(Ended { plan, amended, ms: _ }) => {
                self.amended = Some(amended);
                plan
            }
            None => plan,
        };
        let aside = Aside { streamed: self.announced, now_ms, ended_ms };
        if let Err(refusal) = plan.within_bounds((command, args), &self.uses, aside) {
            let plan = Arc::new(StorePlan::refused(Some(command), refusal.clone()));
            return self.refuse_planned(call, None, (plan, None), &refusal);
        }
        if let Err(refusal) = admit_command(call.turn, &plan, (args, &self.uses), self.announced) {
            let rule = refusal.rule.clone();
            return self.refuse_planned(call, None, (plan, rule), &refusal);
        }
        if let Some(refusal) = self.out_of_place(call, command, args) {
            let plan = Arc::new(StorePlan::refused(Some(command), refusal.clone()));
            return self.refuse_planned(call, None, (plan, None), &refusal);
        }
        match command.role {
            Role::Select => self.select(call, (command, args), plan),
            Role::ClientReply => self.client_reply(call, (command, args), plan),
            Role::Exec if self.multi == Multi::Tainted => {
                self.abort(call, words::error(EXEC_ABORT));
                self.grow(call, plan, Fate::Kept, None);
                Step::Drop
            }
            Role::Multi
            | Role::Exec
            | Role::Discard
            | Role::Plain
            | Role::Answered(_)
            | Role::Monitor
            | Role::Subscribe(_)
            | Role::Unsubscribe(_) => self.forward(call, (command, args), plan),
            Role::Never | Role::Quit | Role::Auth | Role::Hello | Role::Reset => {
                let refusal = store_refusal(NOPERM, "this command is not served through a proxy");
                let plan = Arc::new(StorePlan::refused(Some(command), refusal.clone()));
                self.refuse_planned(call, None, (plan, None), &refusal)
            }
        }
    }

    /// Passes a command on.
    fn forward(
        &mut self,
        call: &mut Call<'_>,
        (command, args): (&Command, &Arguments<'_>),
        plan: Arc<StorePlan>,
    ) -> Step {
        let expect = self.expect((command, args), &plan);
        match command.role {
            Role::Multi if self.multi == Multi::None && !self.only_subscribed() => {
                self.multi = Multi::Open;
                self.done_before_multi = self.runs.done();
            }
            Role::Exec | Role::Discard => self.multi = Multi::None,
            Role::Multi
            | Role::Plain
            | Role::Answered(_)
            | Role::Monitor
            | Role::Subscribe(_)
            | Role::Unsubscribe(_)
            | Role::Select
            | Role::ClientReply
            | Role::Never
            | Role::Quit
            | Role::Auth
            | Role::Hello
            | Role::Reset => {}
        }
        self.await_reply(expect);
        self.grow(call, plan, Fate::Answered, None);
        if self.names_something() || self.amended.is_some() { Step::Rewrite } else { Step::Forward }
    }

    fn expect(&self, (command, args): (&Command, &Arguments<'_>), plan: &StorePlan) -> Expect {
        match command.role {
            Role::Multi => Expect::Multi,
            Role::Exec => Expect::Exec,
            Role::Discard => Expect::Discard,
            Role::Monitor => Expect::Monitor,
            Role::Subscribe(kind) => {
                Expect::Subscribes { kind, left: args.len().saturating_sub(1) }
            }
            Role::Unsubscribe(kind) => {
                let left = args.len().checked_sub(1).filter(|named| *named > 0);
                Expect::Unsubscribes { kind, left }
            }
            Role::Plain
            | Role::Answered(_)
            | Role::Select
            | Role::ClientReply
            | Role::Never
            | Role::Quit
            | Role::Auth
            | Role::Hello
            | Role::Reset => match self.job((command, args), plan) {
                Some(job) => Expect::Shaped(Box::new(job)),
                None => Expect::Plain(1),
            },
        }
    }

    /// What the reply to the command at hand owes.
    fn job(&self, (command, args): (&Command, &Arguments<'_>), plan: &StorePlan) -> Option<Job> {
        let prefix = self.prefix.as_ref().filter(|_| self.names_something());
        if plan.values.is_empty() && prefix.is_none() {
            return None;
        }
        let free = KeyMasks::new(&[]);
        let keys: Vec<_> = self
            .uses
            .keys
            .iter()
            .enumerate()
            .map(|(place, used)| {
                let kind = self.plans.kind(place);
                let found = plan.values.iter().find(|(of, _)| Some(*of) == kind);
                let name = self.at_server(args.get(used.at).unwrap_or_default());
                (name, found.map_or(&free, |(_, masks)| masks))
            })
            .collect();
        let keys = keys.iter().map(|(name, masks)| (&**name, *masks));
        let errors = Errors::of(&command.fact);
        let job = Job::new(&command.shape(args), args, keys).errors(errors);
        Some(match prefix {
            Some(prefix) => job.strip(Arc::clone(prefix)),
            None => job,
        })
    }

    /// What cannot be followed where the connection stands.
    fn out_of_place(
        &self,
        call: &Call<'_>,
        command: &Command,
        args: &Arguments<'_>,
    ) -> Option<Refusal> {
        let blocked = match command.role {
            Role::Subscribe(_) | Role::Unsubscribe(_) | Role::ClientReply | Role::Monitor => true,
            Role::Select => self.multi != Multi::None && self.changes_rules(call, args),
            Role::Plain
            | Role::Multi
            | Role::Exec
            | Role::Discard
            | Role::Answered(_)
            | Role::Never
            | Role::Quit
            | Role::Auth
            | Role::Hello
            | Role::Reset => false,
        };
        let name = &command.fact.name;
        if blocked && self.multi != Multi::None {
            let text = format!("{name} is not served inside MULTI; call it outside");
            return Some(store_refusal("ERR", text));
        }
        if command.role == Role::Plain && self.multi != Multi::None && self.queued.is_full() {
            let text = "this transaction has too many commands whose replies are rewritten";
            return Some(store_refusal("ERR", text));
        }
        let last = args.len().saturating_sub(1);
        let cuts = self.adds_pattern() || self.uses.patterns.contains(&last);
        if self.announced.is_some() && self.prefix.is_some() && cuts {
            // What is added would stand before the argument's own bytes, or is missing there.
            let text = format!("the last argument of this {name} is too long");
            return Some(store_refusal("ERR", text));
        }
        None
    }

    /// Whether other rules may concern the client in the database it asks for.
    fn changes_rules(&self, call: &Call<'_>, args: &Arguments<'_>) -> bool {
        let Some(who) = &self.who else { return true };
        match database(args) {
            Some(number) => !who.class().is_as_free_as(who.in_database(call.turn, number).class()),
            None => who.class().concerned,
        }
    }

    fn select(
        &mut self,
        call: &mut Call<'_>,
        (command, args): (&Command, &Arguments<'_>),
        plan: Arc<StorePlan>,
    ) -> Step {
        let Some(number) = database(args) else {
            return self.forward(call, (command, args), plan);
        };
        if self.multi == Multi::None && !self.is_quiet() {
            return Step::Wait;
        }
        self.await_reply(Expect::Select(number));
        self.grow(call, plan, Fate::Answered, None);
        Step::Forward
    }

    fn client_reply(
        &mut self,
        call: &mut Call<'_>,
        (command, args): (&Command, &Arguments<'_>),
        plan: Arc<StorePlan>,
    ) -> Step {
        let word = args.get(2).unwrap_or_default();
        let is = |known: &str| word.eq_ignore_ascii_case(known.as_bytes());
        if self.only_subscribed() && (is("on") || is("off") || is("skip")) {
            self.reply(call, words::not_while_subscribed(&command.fact.name));
        } else if is("on") {
            self.mute = Mute::No;
            self.say(call, Bytes::from_static(b"+OK\r\n"));
        } else if is("off") {
            self.mute = Mute::Yes;
        } else if is("skip") {
            if self.mute == Mute::No {
                self.mute = Mute::Once;
            }
        } else {
            // The server has the words for it.
            self.await_reply(Expect::Plain(1));
            self.grow(call, plan, Fate::Answered, None);
            return Step::Forward;
        }
        // Whatever the server would do, its replies are followed.
        self.grow(call, plan, Fate::Kept, None);
        Step::Drop
    }

    /// The server will answer the command at hand, whether the client hears it or not.
    pub(super) fn await_reply(&mut self, expect: Expect) {
        if let (Expect::Plain(replies), Mute::No) = (&expect, self.mute) {
            self.pending.push_plain(*replies);
            return;
        }
        let unheard = self.take_mute();
        self.pending.push(if unheard { Expect::Unheard(Box::new(expect)) } else { expect });
    }

    /// Whether the client wants no reply to the command at hand.
    pub(super) fn take_mute(&mut self) -> bool {
        match self.mute {
            Mute::No => false,
            Mute::Once => {
                self.mute = Mute::No;
                true
            }
            Mute::Yes => true,
        }
    }

    /// Answers in the server's place.
    fn answer(
        &mut self,
        call: &mut Call<'_>,
        (answered, args): (Answered, &Arguments<'_>),
        plan: Arc<StorePlan>,
    ) -> Step {
        let user = self.who.as_ref().map_or(DEFAULT_USER, |who| &who.login().user);
        match answer(answered, (user, self.version), args) {
            Answer::Say(bytes) => {
                self.reply(call, bytes);
                self.grow(call, plan, Fate::Kept, None);
                Step::Drop
            }
            Answer::Ask(expect) => {
                self.await_reply(expect);
                self.grow(call, plan, Fate::Answered, None);
                Step::Forward
            }
        }
    }
}

/// The number of the database that SELECT asks for, if it is one.
fn database(args: &Arguments<'_>) -> Option<u32> {
    std::str::from_utf8(args.get(1)?).ok()?.parse().ok()
}

/// Events one command may push or newly owe: the end of the run before it, its own, and outcomes.
const EVENTS_OF_A_COMMAND: usize = 8;
