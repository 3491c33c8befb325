//! Commands about who the client is, and about the connection itself.

use super::RespConfig;
use super::client::Step;
use super::entering::{DEFAULT_USER, How, Wanted};
use super::pending::Expect;
use super::talk::{Core, Multi, Mute, Parting};
use super::words::{self, NO_AUTH_HELLO};
use crate::session::auth::Secret;
use crate::session::gate::store_refusal;
use crate::session::journal::Call;
use crate::wire::resp::Protocol;
use crate::wire::resp::request::Arguments;

impl Core {
    /// QUIT goes to the server, which so hears of it before whatever another client says once this
    /// one has its answer.
    pub(super) fn quit(&mut self, call: &mut Call<'_>, config: &RespConfig) -> Step {
        self.close_run(call);
        // A client is not read any more once it said QUIT, and one that vanishes while the server
        // makes it wait is to be noticed.
        let waits = self.runs.outstanding().any(|name| config.table.may_block(name));
        if (self.server.is_none() || waits) && !self.is_quiet() {
            return Step::Wait;
        }
        if self.server.is_some() {
            self.await_reply(Expect::Quit);
            return Step::Forward;
        }
        if !self.take_mute() {
            call.out.to_client.extend(b"+OK\r\n");
        }
        self.part(call, "client");
        Step::Drop
    }

    /// Why a command about who the client is cannot be carried out here; `Err(Wait)` if not yet.
    ///
    /// A transaction that is only believed to be open may turn out not to be: what is in flight
    /// comes first.
    pub(super) fn may_change(
        &mut self,
        call: &mut Call<'_>,
        name: &'static str,
    ) -> Result<(), Step> {
        if self.only_subscribed() {
            self.say(call, words::not_while_subscribed(name));
            return Err(Step::Drop);
        }
        if !self.is_quiet() {
            return Err(Step::Wait);
        }
        if self.multi != Multi::None {
            let text = format!("{name} is not served inside MULTI; call it outside");
            return Err(self.refuse(call, &store_refusal("ERR", text)));
        }
        Ok(())
    }

    /// Whether what is subscribed to under one identity would go on under another; then the client
    /// is told.
    fn is_listening(&mut self, call: &mut Call<'_>, name: &'static str) -> bool {
        let listens = self.who.is_some() && (self.subscriptions.any() || self.monitoring);
        if listens {
            let text = format!(
                "{name} is not served while messages are subscribed to; unsubscribe \
                                first, or call RESET"
            );
            self.refuse(call, &store_refusal("ERR", text));
        }
        listens
    }

    /// Ends the connection of a client that wants to be somebody else and no word of it.
    pub(super) fn ends_mute(&mut self, call: &mut Call<'_>, name: &'static str) -> bool {
        if self.mute != Mute::No {
            // Whether it went well would stay unknown: what follows could run as somebody else.
            let text = format!("ERR {name} needs CLIENT REPLY ON; the connection ends");
            call.out.to_client.extend(&words::error(&text));
            self.part(call, "protocol");
        }
        self.parting == Parting::Closing
    }

    pub(super) fn auth(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        args: &Arguments<'_>,
    ) -> Step {
        if let Err(step) = self.may_change(call, "auth") {
            return step;
        }
        if self.ends_mute(call, "auth") || self.is_listening(call, "auth") {
            return Step::Drop;
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

    pub(super) fn enter_as(
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

    pub(super) fn hello(
        &mut self,
        call: &mut Call<'_>,
        config: &RespConfig,
        args: &Arguments<'_>,
    ) -> Step {
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
        let blind = self.mute != Mute::No && (asked.login.is_some() || asked.name.is_some());
        if blind && self.ends_mute(call, "hello") {
            return Step::Drop;
        }
        if let (Some((user, password)), Some(version)) = (asked.login, asked.version) {
            if self.is_listening(call, "hello with auth") {
                return Step::Drop;
            }
            let how = How::Hello { version, name: asked.name.map(<[u8]>::to_vec) };
            return self.enter_as(call, config, (user, password, how));
        }
        if self.who.is_none() {
            self.say(call, words::error(NO_AUTH_HELLO));
            return Step::Drop;
        }
        self.await_reply(Expect::Hello(asked.version));
        Step::Forward
    }

    pub(super) fn reset_asked(&mut self, call: &mut Call<'_>) -> Step {
        if !self.is_quiet() {
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
                let text = std::str::from_utf8(other).unwrap_or_default();
                let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
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
                    // The server would have logged in by then.
                    if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
                        return Err(BAD_NAME.to_owned());
                    }
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

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";
