//! From the admitted StartupMessage to the first ReadyForQuery: relayed authentication.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::ready::{Backend as BackendState, Ready};
use super::relay::Relay;
use super::scope::ScopeTracker;
use super::{Call, Denied, PgConfig, State, close_with, fatal};
use crate::session::auth::{Attempt, Proof, Report as LoginReport, Transport};
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
    transport: Transport,
    /// Taken when the connection stands.
    scope: Option<ScopeTracker>,
}

impl Connecting {
    pub(super) fn new(
        startup: Startup,
        attempt: Attempt,
        transport: Transport,
        scope: ScopeTracker,
    ) -> Self {
        Self { startup, attempt, transport, scope: Some(scope) }
    }

    pub(super) fn connected(&mut self, secret: [u8; SECRET_BYTES], out: &mut Outbox) -> Login {
        out.to_server.encode(|out| message::startup(out, &self.startup));
        Login {
            attempt: self.attempt.clone(),
            transport: self.transport,
            scope: self.scope.take(),
            secret: secret.iter().copied().take(self.startup.secret_bytes()).collect(),
            expected: Expected::Nothing,
            method: "trust",
            authenticated: false,
            backend: BackendState::default(),
            replication: self.startup.is_replication(),
        }
    }
}

/// Authentication is relayed between client and server.
#[derive(Debug)]
pub(super) struct Login {
    attempt: Attempt,
    transport: Transport,
    scope: Option<ScopeTracker>,
    /// Ours, for the client to cancel with.
    secret: Vec<u8>,
    expected: Expected,
    method: &'static str,
    authenticated: bool,
    backend: BackendState,
    /// Bytes are relayed after the login.
    replication: bool,
}

/// What the client may send now.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Nothing,
    Password,
}

impl Login {
    pub(super) fn feed_server(
        &mut self,
        call: &mut Call<'_>,
        config: &Arc<PgConfig>,
        input: &mut BytesMut,
    ) -> Result<Option<State>, WireError> {
        while let Some(head) = frame::peek(input)? {
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
            match (kind, &self.expected) {
                (Frontend::Terminate, _) | (Frontend::Password, Expected::Password) => {}
                // A client may not speak before it is asked: what it says waits for its turn.
                (_, Expected::Nothing) => break,
                (_, Expected::Password) => return Err(WireError::UnexpectedMessage(head.tag)),
            }
            if head.len > kind.bytes_max() {
                return Err(WireError::TooLong);
            }
            if input.len() < head.len {
                break;
            }
            if kind == Frontend::Terminate {
                out.to_server.take_from(input, head.len);
                out.effects.push(Effect::Close);
                return Ok(Some(State::Closed));
            }
            out.to_server.take_from(input, head.len);
            self.expected = Expected::Nothing;
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
        let Call { turn, journal, out } = call;
        let body = input.get(HEAD_BYTES..head.len).unwrap_or_default();
        match (Backend::from_tag(head.tag)?, self.authenticated) {
            (Backend::Authentication, false) => {
                if let Some(refused) = self.authentication(body, out)? {
                    journal.login_failed(turn.now, refused.code, Some(self.method), out);
                    let hint = refused.hint.as_deref();
                    close_with(&Report { hint, ..fatal(refused.code, &refused.message) }, out);
                    return Ok(Some(State::Closed));
                }
                input.advance(head.len);
            }
            (Backend::ErrorResponse, _) => {
                let code = String::from_utf8_lossy(&sqlstate(body)).into_owned();
                journal.login_failed(turn.now, &code, Some(self.method), out);
                if !self.authenticated && WRONG_PROOF.contains(&code.as_str()) {
                    self.report(Proof::Failed, out);
                }
                out.to_client.take_from(input, head.len);
                out.effects.push(Effect::Close);
                return Ok(Some(State::Closed));
            }
            (Backend::NoticeResponse, _) => out.to_client.take_from(input, head.len),
            (Backend::ParameterStatus, true) => {
                self.backend.parameter_status(body)?;
                out.to_client.take_from(input, head.len);
            }
            (Backend::BackendKeyData, true) => {
                self.backend_key(body, out)?;
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

    fn report(&self, proof: Proof, out: &mut Outbox) {
        let report = LoginReport { attempt: self.attempt.clone(), proof };
        out.effects.push(Effect::ReportLogin(Box::new(report)));
    }

    /// Relays one Authentication message, or says why not.
    fn authentication(
        &mut self,
        body: &[u8],
        out: &mut Outbox,
    ) -> Result<Option<Denied>, WireError> {
        let mut reader = Reader::new(body);
        let kind = reader.u32()?;
        let relay = |out: &mut Outbox| {
            out.to_client.encode(|out| message::framed(out, b'R', |out| out.extend(body)));
        };
        match kind {
            0 => {
                reader.finish()?;
                self.authenticated = true;
                self.report(Proof::Held, out);
                relay(out);
                return Ok(None);
            }
            3 => {
                self.method = "cleartext";
                if !self.transport.is_confidential() {
                    let hint = Some("connect with sslmode=require, or use scram-sha-256");
                    let message = "the server asks for the password in clear text, \
                                   which is relayed over TLS only";
                    return Ok(Some(Denied::new("28000", message, hint)));
                }
            }
            5 => self.method = "md5",
            10 => {
                self.method = "SCRAM-SHA-256";
                return self.sasl_mechanisms(reader, out);
            }
            11 => {}
            // The last SASL message needs no answer.
            12 => {
                relay(out);
                return Ok(None);
            }
            _ => {
                let hint = Some("use scram-sha-256, md5 or password over TLS in pg_hba.conf");
                let message = "the server asks for an authentication method that is not relayed";
                return Ok(Some(Denied::new("28000", message, hint)));
            }
        }
        relay(out);
        self.expected = Expected::Password;
        Ok(None)
    }

    /// Offers SCRAM-SHA-256 only: SCRAM-SHA-256-PLUS binds to the server's certificate, which the
    /// client does not see through a proxy.
    fn sasl_mechanisms(
        &mut self,
        mut reader: Reader<'_>,
        out: &mut Outbox,
    ) -> Result<Option<Denied>, WireError> {
        let mut offered = false;
        loop {
            match reader.cstr()? {
                b"" => break,
                b"SCRAM-SHA-256" => offered = true,
                _ => {}
            }
        }
        reader.finish()?;
        if !offered {
            let message = "the server offers no SASL mechanism that can be relayed";
            return Ok(Some(Denied::new("28000", message, Some("offer SCRAM-SHA-256"))));
        }
        out.to_client.encode(|out| message::authentication_sasl(out, &[b"SCRAM-SHA-256"]));
        self.expected = Expected::Password;
        Ok(None)
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

/// Longest secret a server may give (protocol 3.2).
const SERVER_SECRET_BYTES_MAX: usize = 256;

/// Longest frame of a server during login: errors, parameters, authentication exchanges.
const LOGIN_FRAME_BYTES_MAX: usize = 64 * 1024;

/// What a server says of a wrong password, and of a user it does not let in.
const WRONG_PROOF: [&str; 2] = ["28P01", "28000"];
