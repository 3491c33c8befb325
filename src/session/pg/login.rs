//! At the server: from the connection to the first ReadyForQuery.
//!
//! Either the server authenticates the client and what both say is passed on (`relayed`), or the
//! client has proved to us who it is and we log in for it (`account`).

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::account::{self, OwnLogin, is_about_settings, told};
use super::ready::{Backend as BackendState, Ready};
use super::relay::Relay;
use super::relayed::{self, Relayed};
use super::scope::ScopeTracker;
use super::scram::Learned;
use super::{Call, Denied, PgConfig, State, close_with, fatal};
use crate::session::auth::{
    Account, Attempt, Proof, Reply, Report as LoginReport, ServerLeg, Transport,
};
use crate::session::{CancelKey, Effect, Outbox, SECRET_BYTES};
use crate::wire::error::WireError;
use crate::wire::pg::error::{Report, sqlstate};
use crate::wire::pg::frame::{self, Backend, Frontend, HEAD_BYTES, Head};
use crate::wire::pg::message;
use crate::wire::pg::startup::Startup;
use crate::wire::reader::Reader;

/// The server is being connected to.
#[derive(Debug)]
pub(super) struct Connecting {
    startup: Startup,
    attempt: Attempt,
    /// Taken when the connection stands.
    scope: Option<ScopeTracker>,
    way: Way,
    /// What the client proved itself by.
    method: &'static str,
}

/// Who authenticates.
#[derive(Debug)]
enum Way {
    /// The server does.
    Relayed(Transport),
    /// We did, and log in with this account once the shell has named it.
    Ours { account: Option<Account>, learned: Option<Learned> },
}

impl Connecting {
    pub(super) fn relayed(
        startup: Startup,
        attempt: Attempt,
        transport: Transport,
        scope: ScopeTracker,
    ) -> Self {
        let way = Way::Relayed(transport);
        Self { startup, attempt, scope: Some(scope), way, method: "trust" }
    }

    pub(super) fn ours(
        startup: Startup,
        attempt: Attempt,
        (method, scope): (&'static str, ScopeTracker),
        learned: Option<Learned>,
    ) -> Self {
        let way = Way::Ours { account: None, learned };
        Self { startup, attempt, scope: Some(scope), way, method }
    }

    /// The shell's answer about the account; `None` if it is none to what was asked.
    pub(super) fn account(&mut self, call: &mut Call<'_>, reply: Reply) -> Option<Option<State>> {
        let Way::Ours { account: account @ None, learned: _ } = &mut self.way else { return None };
        match reply {
            Reply::Account(named) => {
                call.journal.amend(|record| record.account = Some(named.user.clone()));
                *account = Some(named);
                call.out.effects.push(Effect::Connect);
                Some(None)
            }
            Reply::Unavailable(why) => {
                let denial = told("", &self.attempt.database).because(why);
                Some(Some(refused(call, self.method, &denial)))
            }
            Reply::Admitted { .. }
            | Reply::Throttled { .. }
            | Reply::Granted(_)
            | Reply::Refused(_)
            | Reply::Derived(_) => None,
        }
    }

    /// The connection stands: starts up. `None` if nobody asked for one yet.
    pub(super) fn connected(
        &mut self,
        config: &PgConfig,
        (secret, leg): ([u8; SECRET_BYTES], ServerLeg),
        out: &mut Outbox,
    ) -> Option<Login> {
        let way = match &mut self.way {
            Way::Relayed(transport) => Asks::Relayed(Relayed::new(*transport)),
            Way::Ours { account, learned } => {
                let account = account.take()?;
                self.startup.set("user", &account.user);
                // Without it the server would take the account's name for the database's.
                self.startup.set("database", &self.attempt.database);
                let iterations_max = config.authentication.iterations_max;
                let login = OwnLogin::new(account, learned.take(), leg, iterations_max);
                Asks::Ours(Box::new(login))
            }
        };
        out.to_server.encode(|out| message::startup(out, &self.startup));
        Some(Login {
            attempt: self.attempt.clone(),
            scope: self.scope.take(),
            secret: secret.iter().copied().take(self.startup.secret_bytes()).collect(),
            way,
            method: self.method,
            authenticated: false,
            backend: BackendState::default(),
            replication: self.startup.is_replication(),
        })
    }
}

/// The server has the StartupMessage.
#[derive(Debug)]
pub(super) struct Login {
    attempt: Attempt,
    scope: Option<ScopeTracker>,
    /// Ours, for the client to cancel with.
    secret: Vec<u8>,
    way: Asks,
    method: &'static str,
    authenticated: bool,
    backend: BackendState,
    /// Bytes are relayed after the login.
    replication: bool,
}

/// Whom the server asks.
#[derive(Debug)]
enum Asks {
    /// The client.
    Relayed(Relayed),
    /// Us.
    Ours(Box<OwnLogin>),
}

/// What follows from an Authentication message.
enum Next {
    Wait,
    Authenticated,
    Denied(Denied),
}

impl Login {
    pub(super) fn wants_server(&self) -> bool {
        match &self.way {
            Asks::Relayed(_) => true,
            Asks::Ours(login) => login.wants_server(),
        }
    }

    pub(super) fn feed_server(
        &mut self,
        call: &mut Call<'_>,
        config: &Arc<PgConfig>,
        input: &mut BytesMut,
    ) -> Result<Option<State>, WireError> {
        while self.wants_server()
            && let Some(head) = frame::peek(input)?
        {
            if head.len > LOGIN_FRAME_BYTES_MAX {
                return Err(WireError::TooLong);
            }
            if input.len() < head.len {
                break;
            }
            let next = self.server_frame(call, config, head, input)?;
            if next.is_some() {
                return Ok(next);
            }
        }
        Ok(None)
    }

    pub(super) fn feed_client(
        &mut self,
        call: &mut Call<'_>,
        input: &mut BytesMut,
    ) -> Result<Option<State>, WireError> {
        let out = &mut *call.out;
        while let Some(head) = frame::peek(input)? {
            let kind = Frontend::from_tag(head.tag)?;
            let asked = matches!(&self.way, Asks::Relayed(relayed) if relayed.asked);
            match (kind, asked) {
                (Frontend::Terminate, _) | (Frontend::Password, true) => {}
                // A client may not speak before it is asked: what it says waits for its turn.
                (_, false) => break,
                (_, true) => return Err(WireError::UnexpectedMessage(head.tag)),
            }
            if head.len > kind.bytes_max() {
                return Err(WireError::TooLong);
            }
            if input.len() < head.len {
                break;
            }
            out.to_server.take_from(input, head.len);
            if kind == Frontend::Terminate {
                out.effects.push(Effect::Close);
                return Ok(Some(State::Closed));
            }
            if let Asks::Relayed(relayed) = &mut self.way {
                relayed.asked = false;
            }
        }
        Ok(None)
    }

    fn server_frame(
        &mut self,
        call: &mut Call<'_>,
        config: &Arc<PgConfig>,
        head: Head,
        input: &mut BytesMut,
    ) -> Result<Option<State>, WireError> {
        let body = input.get(HEAD_BYTES..head.len).unwrap_or_default();
        match (Backend::from_tag(head.tag)?, self.authenticated) {
            (Backend::Authentication, false) => {
                match self.authentication(body, call.out)? {
                    Next::Wait => {}
                    Next::Authenticated => self.authenticated = true,
                    Next::Denied(denied) => {
                        return Ok(Some(refused(call, self.method, &denied)));
                    }
                }
                input.advance(head.len);
            }
            (Backend::ErrorResponse, _) => return Ok(Some(self.error(call, head, input))),
            (Backend::NoticeResponse, _) => match &self.way {
                // Before the server has taken the account, a notice can only be about that.
                Asks::Ours(_) if !self.authenticated => input.advance(head.len),
                Asks::Ours(_) | Asks::Relayed(_) => call.out.to_client.take_from(input, head.len),
            },
            (Backend::ParameterStatus, true) => {
                self.backend.parameter_status(body)?;
                call.out.to_client.take_from(input, head.len);
            }
            (Backend::BackendKeyData, true) => {
                self.backend_key(body, call.out)?;
                input.advance(head.len);
            }
            (Backend::ReadyForQuery, true) => {
                input.advance(head.len);
                let Some(scope) = self.scope.take() else {
                    return Err(WireError::UnexpectedMessage(head.tag));
                };
                if self.replication {
                    return Ok(Some(Relay::begin(call, scope, self.method)));
                }
                let backend = std::mem::take(&mut self.backend);
                let mut ready = Ready::new(Arc::clone(config), scope, backend);
                ready.begin(call, self.method);
                return Ok(Some(State::Ready(Box::new(ready))));
            }
            _ => return Err(WireError::UnexpectedMessage(head.tag)),
        }
        Ok(None)
    }

    fn authentication(&mut self, body: &[u8], out: &mut Outbox) -> Result<Next, WireError> {
        match &mut self.way {
            Asks::Relayed(relayed) => {
                let next = relayed.authentication(body, out)?;
                self.method = relayed.method;
                Ok(match next {
                    relayed::Next::Wait => Next::Wait,
                    relayed::Next::Authenticated => {
                        self.report(Proof::Held, out);
                        Next::Authenticated
                    }
                    relayed::Next::Denied(denied) => Next::Denied(denied),
                })
            }
            Asks::Ours(login) => Ok(match login.authentication(body, out)? {
                account::Next::Wait => Next::Wait,
                account::Next::Authenticated => Next::Authenticated,
                account::Next::Failed(why) => {
                    out.effects.push(login.failure(why.to_owned()));
                    Next::Denied(told("", &self.attempt.database))
                }
            }),
        }
    }

    /// The shell has derived the keys; `None` if nobody asked for it.
    pub(super) fn derived(&mut self, reply: &Reply, out: &mut Outbox) -> Option<()> {
        match (&mut self.way, reply) {
            (Asks::Ours(login), Reply::Derived(salted_password)) => {
                login.derived(salted_password, out)
            }
            (Asks::Ours(_) | Asks::Relayed(_), _) => None,
        }
    }

    /// The server ends the login.
    fn error(&mut self, call: &mut Call<'_>, head: Head, input: &mut BytesMut) -> State {
        let body = input.get(HEAD_BYTES..head.len).unwrap_or_default();
        let code = String::from_utf8_lossy(&sqlstate(body)).into_owned();
        let verbatim = match &self.way {
            Asks::Relayed(_) => true,
            Asks::Ours(login) => {
                call.out.effects.push(login.failure(account::words(body)));
                self.authenticated && is_about_settings(&code)
            }
        };
        if !verbatim {
            return refused(call, self.method, &told(&code, &self.attempt.database));
        }
        let method = (Some(self.method), None);
        call.journal.login_failed(call.turn.now, &code, method, call.out);
        if !self.authenticated && WRONG_PROOF.contains(&code.as_str()) {
            self.report(Proof::Failed, call.out);
        }
        call.out.to_client.take_from(input, head.len);
        call.out.effects.push(Effect::Close);
        State::Closed
    }

    fn report(&self, proof: Proof, out: &mut Outbox) {
        let report = LoginReport { attempt: self.attempt.clone(), proof };
        out.effects.push(Effect::ReportLogin(Box::new(report)));
    }

    /// The client gets the real process id (it compares it with notifications and
    /// `pg_backend_pid()`) with a secret of ours, so that it can never cancel but through us.
    fn backend_key(&mut self, body: &[u8], out: &mut Outbox) -> Result<(), WireError> {
        let mut reader = Reader::new(body);
        let pid = reader.u32()?;
        let secret = reader.rest();
        if secret.len() > SERVER_SECRET_BYTES_MAX {
            return Err(WireError::TooLong);
        }
        let theirs = CancelKey { pid, secret: secret.to_vec() };
        let ours = CancelKey { pid, secret: self.secret.clone() };
        out.to_client.encode(|out| message::backend_key_data(out, pid, &self.secret));
        out.effects.push(Effect::RegisterCancel { ours, theirs });
        Ok(())
    }
}

fn refused(call: &mut Call<'_>, method: &'static str, denial: &Denied) -> State {
    let Denied { code, message, hint, reason } = denial;
    call.journal.login_failed(call.turn.now, code, (Some(method), *reason), call.out);
    close_with(&Report { hint: hint.as_deref(), ..fatal(code, message) }, call.out);
    State::Closed
}

/// Longest secret a server may give (protocol 3.2).
const SERVER_SECRET_BYTES_MAX: usize = 256;

/// Longest frame of a server during login: errors, parameters, authentication exchanges.
const LOGIN_FRAME_BYTES_MAX: usize = 64 * 1024;

/// What a server says of a wrong password, and of a user it does not let in.
const WRONG_PROOF: [&str; 2] = ["28P01", "28000"];
