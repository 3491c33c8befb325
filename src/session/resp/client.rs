//! What the client asks: one command after the other is judged, then passed on or refused.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};

use super::answers::{Answer, answer};
use super::entering::{DEFAULT_USER, How, Wanted};
use super::pending::{Expect, Fate, Growing};
use super::reshape::{Job, KeyMasks};
use super::talk::{Core, Multi, Mute, Streamed};
use super::words::{self, EXEC_ABORT, NO_AUTH, NO_AUTH_HELLO};
use super::{RespConfig, Talk};
use crate::analysis::redis::{Answered, Args, Command, Found, Role};
use crate::name::RuleId;
use crate::session::Effect;
use crate::session::auth::Secret;
use crate::session::gate::{
    NOPERM, Refusal, StorePlan, StoreVerdict, Words, admit_command, store_refusal,
};
use crate::session::journal::Call;
use crate::wire::resp::Protocol;
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
enum Step {
    /// They go to the server.
    Forward,
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
        self.core.follow_rules(call.turn);
        while !input.is_empty() && self.core.wants_client(config) {
            let newly_owed = call.journal.owed.saturating_sub(owed);
            if call.out.events.len() + newly_owed + EVENTS_OF_A_COMMAND > call.out.room {
                break;
            }
            if self.scanner.is_streaming() {
                let passed = self.scanner.pass(input)?;
                if passed == 0 {
                    break;
                }
                match self.core.streamed {
                    Streamed::Forwarded => call.out.to_server.take_from(input, passed),
                    Streamed::Dropped => input.advance(passed),
                }
                continue;
            }
            if self.core.who.is_none() && !self.core.tried_unasked {
                self.core.enter_unasked(call, config);
                continue;
            }
            let limits = match &self.core.who {
                Some(_) => RequestLimits::LOGGED_IN,
                None => RequestLimits::BEFORE_LOGIN,
            };
            self.scanner.limit_to(limits);
            let (len, form) = match self.scanner.scan(input)? {
                Scan::Incomplete => break,
                Scan::Drop(bytes) => {
                    input.advance(bytes);
                    continue;
                }
                Scan::TooLong(bytes) => {
                    input.advance(bytes);
                    let text = "a command whose arguments but the last are longer than 1 MB is \
                                not judged, and refused";
                    self.core.refuse(call, &store_refusal(NOPERM, text));
                    continue;
                }
                Scan::Command { len, form } => {
                    self.core.announced = None;
                    (len, Whole::Command(form))
                }
                Scan::Head { len, last } => {
                    self.core.announced = Some(last);
                    (len, Whole::Head)
                }
            };
            let args = self.scanner.args(input);
            match (self.core.command(call, config, &args), form) {
                (Step::Wait, _) => break,
                (Step::Forward, Whole::Command(Form::Inline)) => {
                    call.out.to_server.encode(|out| words::from_line(out, &args));
                    input.advance(len);
                }
                (Step::Forward, Whole::Command(Form::Array) | Whole::Head) => {
                    call.out.to_server.take_from(input, len);
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
        let command = match config.table.find(args) {
            Found::Command(command) => command,
            Found::Unknown => return self.unknown(call, words::unknown_command(args)),
            Found::UnknownSubcommand(container) => {
                return self.unknown(call, words::unknown_subcommand(args, container));
            }
        };
        if !command.arity_fits(args.len()) {
            return self.unknown(call, words::wrong_arity(&command.fact.name));
        }
        match command.role {
            Role::Quit => return self.quit(call),
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
            self.say(call, words::error(NO_AUTH));
            return Step::Drop;
        };
        let mut uses = std::mem::take(&mut self.uses);
        let understood = command.uses(args, &mut uses);
        let plan = match &understood {
            Ok(()) => self.plans.plan(call.turn, who.class(), (command, args), &uses),
            Err(not) => {
                Arc::new(StorePlan::refused(Some(command), store_refusal("ERR", not.to_string())))
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
        if let StoreVerdict::Refuse(refusal) = &plan.verdict {
            if let (Role::Answered(answered), false) = (command.role, plan.refused_by_rule()) {
                return self.answer(call, (answered, args), plan);
            }
            let refusal = refusal.clone();
            return self.refuse_planned(call, plan, &refusal, None);
        }
        if let Err(refusal) = plan.within_bounds(args, &self.uses, self.announced) {
            let plan = Arc::new(StorePlan::refused(Some(command), refusal.clone()));
            return self.refuse_planned(call, plan, &refusal, None);
        }
        if let Err(refusal) = admit_command(call.turn, &plan) {
            let rule = refusal.rule.clone();
            return self.refuse_planned(call, plan, &refusal, rule);
        }
        if let Some(refusal) = self.out_of_place(command, args) {
            let plan = Arc::new(StorePlan::refused(Some(command), refusal.clone()));
            return self.refuse_planned(call, plan, &refusal, None);
        }
        match command.role {
            Role::Select => self.select(call, (command, args), plan),
            Role::ClientReply => self.client_reply(call, args, plan),
            Role::Exec if self.multi == Multi::Tainted => {
                self.multi = Multi::None;
                call.out.to_server.extend(b"*1\r\n$7\r\nDISCARD\r\n");
                let fate = if self.take_mute() { Fate::Mute } else { Fate::Kept };
                if fate == Fate::Kept {
                    self.pending.push(Expect::Abort(words::error(EXEC_ABORT)));
                }
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
                self.refuse_planned(call, plan, &refusal, None)
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
        let pushes = matches!(command.role, Role::Subscribe(_) | Role::Unsubscribe(_));
        // Confirmations come whatever the client says about replies.
        let muted = self.take_mute() && !pushes;
        let expect = self.expect((command, args), &plan);
        match command.role {
            Role::Multi if self.multi == Multi::None => self.multi = Multi::Open,
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
        if muted {
            self.grow(call, plan, Fate::Mute, None);
        } else {
            self.pending.push(expect);
            self.grow(call, plan, Fate::Answered, None);
        }
        Step::Forward
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
        if plan.values.is_empty() {
            return None;
        }
        let free = KeyMasks::new(&[]);
        let keys = self.uses.keys.iter().enumerate().map(|(place, used)| {
            let kind = self.plans.kind(place);
            let found = plan.values.iter().find(|(of, _)| Some(*of) == kind);
            (args.get(used.at).unwrap_or_default(), found.map_or(&free, |(_, masks)| masks))
        });
        Some(Job::new(&command.shape(args), args, keys))
    }

    /// What cannot be followed where the connection stands.
    fn out_of_place(&self, command: &Command, args: &Arguments<'_>) -> Option<Refusal> {
        let concerned = self.who.as_ref().is_none_or(|who| who.class().concerned);
        let blocked = match command.role {
            Role::Subscribe(_) | Role::Unsubscribe(_) | Role::ClientReply | Role::Monitor => true,
            Role::Select => concerned,
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
        if command.role == Role::Select && concerned && self.mute != Mute::No {
            let text = "SELECT is not served while CLIENT REPLY is OFF or SKIP; its result decides \
                        which rules hold";
            return Some(store_refusal("ERR", text));
        }
        let _ = args;
        None
    }

    fn select(
        &mut self,
        call: &mut Call<'_>,
        (command, args): (&Command, &Arguments<'_>),
        plan: Arc<StorePlan>,
    ) -> Step {
        let number = args.get(1).and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(number) = number.and_then(|digits| digits.parse().ok()) else {
            return self.forward(call, (command, args), plan);
        };
        if self.multi != Multi::None {
            self.queued.database = Some(number);
            return self.forward(call, (command, args), plan);
        }
        if !self.pending.is_empty() {
            return Step::Wait;
        }
        if self.take_mute() {
            self.close_run(call);
            self.database = number;
            self.grow(call, plan, Fate::Mute, None);
        } else {
            self.pending.push(Expect::Select(number));
            self.grow(call, plan, Fate::Answered, None);
        }
        Step::Forward
    }

    fn client_reply(
        &mut self,
        call: &mut Call<'_>,
        args: &Arguments<'_>,
        plan: Arc<StorePlan>,
    ) -> Step {
        let word = args.get(2).unwrap_or_default();
        if word.eq_ignore_ascii_case(b"on") {
            self.mute = Mute::No;
        } else if word.eq_ignore_ascii_case(b"off") {
            self.mute = Mute::Yes;
            self.grow(call, plan, Fate::Mute, None);
            return Step::Forward;
        } else if word.eq_ignore_ascii_case(b"skip") {
            if self.mute == Mute::No {
                self.mute = Mute::Once;
            }
            self.grow(call, plan, Fate::Mute, None);
            return Step::Forward;
        }
        if self.take_mute() {
            self.grow(call, plan, Fate::Mute, None);
        } else {
            self.pending.push(Expect::Plain(1));
            self.grow(call, plan, Fate::Answered, None);
        }
        Step::Forward
    }

    /// Whether the client wants no reply to the command at hand.
    fn take_mute(&mut self) -> bool {
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
        if self.multi != Multi::None {
            let StoreVerdict::Refuse(refusal) = &plan.verdict else { return Step::Drop };
            let refusal = refusal.clone();
            return self.refuse_planned(call, plan, &refusal, None);
        }
        let user = self.who.as_ref().map_or(DEFAULT_USER, |who| &who.login().user);
        match answer(answered, (user, self.version), args) {
            Answer::Say(bytes) => {
                if !self.take_mute() {
                    self.say(call, bytes);
                }
                self.grow(call, plan, Fate::Kept, None);
                Step::Drop
            }
            Answer::Ask(expect) => {
                if self.take_mute() {
                    self.grow(call, plan, Fate::Mute, None);
                } else {
                    self.pending.push(expect);
                    self.grow(call, plan, Fate::Answered, None);
                }
                Step::Forward
            }
        }
    }

    // === Refusals ===

    /// What is no command, or none in this form.
    fn unknown(&mut self, call: &mut Call<'_>, bytes: Bytes) -> Step {
        let refusal = Refusal { words: Words::Servers, ..store_refusal("ERR", "unknown command") };
        if self.who.is_some() {
            let plan = Arc::new(StorePlan::refused(None, refusal));
            self.grow(call, plan, Fate::Kept, None);
        }
        self.taint();
        if !self.take_mute() {
            self.say(call, bytes);
        }
        Step::Drop
    }

    fn refuse(&mut self, call: &mut Call<'_>, refusal: &Refusal) -> Step {
        let plan = Arc::new(StorePlan::refused(None, refusal.clone()));
        self.refuse_planned(call, plan, refusal, None)
    }

    fn refuse_planned(
        &mut self,
        call: &mut Call<'_>,
        plan: Arc<StorePlan>,
        refusal: &Refusal,
        limited_by: Option<RuleId>,
    ) -> Step {
        // The number of the event that tells of it.
        self.close_run(call);
        let bytes = words::refusal(refusal, &call.journal.request_id());
        if self.who.is_some() {
            self.grow(call, plan, Fate::Kept, limited_by);
        }
        self.taint();
        if !self.take_mute() {
            self.say(call, bytes);
        }
        Step::Drop
    }

    /// A transaction in which a command was refused is not executed.
    fn taint(&mut self) {
        match self.multi {
            Multi::None => {}
            Multi::Open | Multi::Tainted => self.multi = Multi::Tainted,
        }
    }

    /// Counts a command to the run of those decided alike.
    fn grow(
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

    // === Who the client is ===

    fn quit(&mut self, call: &mut Call<'_>) -> Step {
        if !self.pending.is_empty() {
            return Step::Wait;
        }
        call.out.to_client.extend(b"+OK\r\n");
        call.out.effects.push(Effect::Close);
        self.closing = true;
        Step::Drop
    }

    /// Why a command about who the client is cannot be carried out here; `Err(Wait)` if not yet.
    fn may_change(&mut self, call: &mut Call<'_>, name: &'static str) -> Result<(), Step> {
        if self.only_subscribed() {
            self.say(call, words::not_while_subscribed(name));
            return Err(Step::Drop);
        }
        if self.multi != Multi::None {
            let text = format!("{name} is not served inside MULTI; call it outside");
            return Err(self.refuse(call, &store_refusal("ERR", text)));
        }
        if !self.pending.is_empty() {
            return Err(Step::Wait);
        }
        if self.mute != Mute::No {
            // Whether it went well would stay unknown: what follows could run as somebody else.
            let text = format!("ERR {name} needs CLIENT REPLY ON; the connection ends");
            call.out.to_client.extend(&words::error(&text));
            call.out.effects.push(Effect::Close);
            self.closing = true;
            return Err(Step::Drop);
        }
        Ok(())
    }

    fn auth(&mut self, call: &mut Call<'_>, config: &RespConfig, args: &Arguments<'_>) -> Step {
        if let Err(step) = self.may_change(call, "auth") {
            return step;
        }
        let (user, password, how) = match (args.len(), args.get(1), args.get(2)) {
            (2, Some(password), _) => (DEFAULT_USER.as_bytes(), password, How::Password),
            (3, Some(user), Some(password)) => (user, password, How::User),
            _ => {
                self.say(call, words::error("ERR syntax error"));
                return Step::Drop;
            }
        };
        self.enter_as(call, config, (user, password, how))
    }

    fn enter_as(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        (user, password, how): (&[u8], &[u8], How),
    ) -> Step {
        let Ok(user) = std::str::from_utf8(user) else {
            self.say(call, words::error(words::WRONG_PASS));
            return Step::Drop;
        };
        let password = Some(Secret::new(password.to_vec()));
        self.close_run(call);
        self.enter(call, config, Wanted { user: user.to_owned(), password, how });
        Step::Drop
    }

    fn hello(&mut self, call: &mut Call<'_>, config: &RespConfig, args: &Arguments<'_>) -> Step {
        if let Err(step) = self.may_change(call, "hello") {
            return step;
        }
        let asked = match Asked::read(args) {
            Ok(asked) => asked,
            Err(text) => {
                self.say(call, words::error(&text));
                return Step::Drop;
            }
        };
        if let (Some((user, password)), Some(version)) = (asked.login, asked.version) {
            let how = How::Hello { version, name: asked.name.map(<[u8]>::to_vec) };
            return self.enter_as(call, config, (user, password, how));
        }
        if self.who.is_none() {
            self.say(call, words::error(NO_AUTH_HELLO));
            return Step::Drop;
        }
        self.pending.push(Expect::Hello(asked.version));
        Step::Forward
    }

    fn reset_asked(&mut self, call: &mut Call<'_>) -> Step {
        if !self.pending.is_empty() {
            return Step::Wait;
        }
        self.close_run(call);
        if self.server.is_none() {
            self.reset(call);
            call.out.to_client.extend(b"+RESET\r\n");
            return Step::Drop;
        }
        self.pending.push(Expect::Reset);
        Step::Forward
    }
}

/// What a HELLO asks for.
#[derive(Debug, Default)]
struct Asked<'a> {
    version: Option<Protocol>,
    login: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> Asked<'a> {
    /// Reads it as the server does (`helloCommand`); the error is for the client.
    fn read(args: &'a Arguments<'a>) -> Result<Self, String> {
        let mut asked = Self::default();
        let Some(version) = args.get(1) else { return Ok(asked) };
        asked.version = Some(match version {
            b"2" => Protocol::Resp2,
            b"3" => Protocol::Resp3,
            other => {
                let number = std::str::from_utf8(other).ok().and_then(|it| it.parse::<i64>().ok());
                return Err(match number {
                    Some(_) => "NOPROTO unsupported protocol version".to_owned(),
                    None => "ERR Protocol version is not an integer or out of range".to_owned(),
                });
            }
        });
        let mut at = 2;
        while let Some(option) = args.get(at) {
            match (args.get(at + 1), args.get(at + 2)) {
                (Some(user), Some(password)) if option.eq_ignore_ascii_case(b"auth") => {
                    asked.login = Some((user, password));
                    at += 3;
                }
                (Some(name), _) if option.eq_ignore_ascii_case(b"setname") => {
                    asked.name = Some(name);
                    at += 2;
                }
                _ => {
                    let option = String::from_utf8_lossy(option);
                    return Err(format!("ERR Syntax error in HELLO option '{option}'"));
                }
            }
        }
        Ok(asked)
    }
}

/// Events one command may push or newly owe: the end of the run before it, its own, and outcomes.
const EVENTS_OF_A_COMMAND: usize = 8;
