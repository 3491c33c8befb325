//! From the first byte to the first ReadyForQuery: encryption, start-up, relayed authentication.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::ready::{Backend as BackendState, Ready};
use super::scope::ScopeTracker;
use super::{Call, Journal, PgConfig, State, TlsMode, close_with, fatal};
use crate::facts::{Certainty, Facts, SettingChange};
use crate::policy::{Decision, DenyReason, Login as PolicyLogin};
use crate::session::{CancelKey, Effect, Outbox, Turn};
use crate::wire::error::WireError;
use crate::wire::pg::error::{Report, sqlstate};
use crate::wire::pg::frame::{self, Backend, Frontend, HEAD_BYTES, Head};
use crate::wire::pg::message;
use crate::wire::pg::startup::{self, Request, Startup};
use crate::wire::reader::Reader;

/// Before the StartupMessage.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    tls: Tls,
    gss_asked: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Tls {
    /// Not asked for yet.
    #[default]
    NotAsked,
    /// Asked for and declined.
    Declined,
    /// `S` was answered; the handshake runs.
    Starting,
    /// The client leg is encrypted.
    Started,
}

impl Greeting {
    pub(super) fn wants_client(&self) -> bool {
        self.tls != Tls::Starting
    }

    pub(super) fn tls_started(&mut self) {
        self.tls = Tls::Started;
    }

    pub(super) fn feed(
        &mut self,
        call: &mut Call<'_>,
        config: &PgConfig,
        input: &mut BytesMut,
    ) -> Result<Option<State>, WireError> {
        while self.tls != Tls::Starting
            && let Some(len) = startup::peek(input)?
            && input.len() >= len
        {
            let packet = input.split_to(len);
            match startup::parse(&packet)? {
                Request::Tls => self.tls_requested(config, input, call.out)?,
                Request::GssEncryption => {
                    if std::mem::replace(&mut self.gss_asked, true) {
                        return Err(WireError::UnexpectedBytes);
                    }
                    call.out.to_client.extend(b"N");
                }
                Request::Cancel { pid, secret } => {
                    call.out.effects.push(Effect::Cancel(CancelKey { pid, secret }));
                    return Ok(Some(State::Closed));
                }
                Request::Startup(startup) => {
                    return Ok(Some(self.started(call, config, startup)));
                }
                Request::Unsupported { major } => {
                    let text = format!("unsupported frontend protocol {major}: only 3 is served");
                    close_with(&fatal("0A000", &text), call.out);
                    return Ok(Some(State::Closed));
                }
            }
        }
        Ok(None)
    }

    fn tls_requested(
        &mut self,
        config: &PgConfig,
        input: &BytesMut,
        out: &mut Outbox,
    ) -> Result<(), WireError> {
        if self.tls != Tls::NotAsked {
            return Err(WireError::UnexpectedBytes);
        }
        if config.tls == TlsMode::Off {
            self.tls = Tls::Declined;
            out.to_client.extend(b"N");
            return Ok(());
        }
        // What is already here came in plain text: taking it for encrypted is an injection.
        if !input.is_empty() {
            return Err(WireError::UnexpectedBytes);
        }
        self.tls = Tls::Starting;
        out.to_client.extend(b"S");
        out.effects.push(Effect::StartTls);
        Ok(())
    }

    fn started(&self, call: &mut Call<'_>, config: &PgConfig, startup: Startup) -> State {
        let encrypted = self.tls == Tls::Started;
        let admitted = admit_startup(config, call.turn, call.journal, &startup, encrypted);
        let out = &mut *call.out;
        match admitted {
            Ok(scope) => {
                if startup.minor > 0 || unknown_options(&startup).next().is_some() {
                    let options: Vec<&[u8]> = unknown_options(&startup).collect();
                    out.to_client.encode(|out| message::negotiate_protocol_version(out, &options));
                }
                out.effects.push(Effect::Connect);
                State::Connecting(Box::new(Connecting { startup, encrypted, scope: Some(scope) }))
            }
            Err(denial) => {
                call.journal.login_failed(call.turn.now, denial.code, None, out);
                let Denied { code, message, hint } = &denial;
                let report = Report { hint: hint.as_deref(), ..fatal(code, message) };
                close_with(&report, out);
                State::Closed
            }
        }
    }
}

/// A start-up that is refused before the server is asked.
struct Denied {
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl Denied {
    fn new(code: &'static str, message: &str, hint: Option<&str>) -> Self {
        Self { code, message: message.to_owned(), hint: hint.map(str::to_owned) }
    }
}

fn unknown_options(startup: &Startup) -> impl Iterator<Item = &[u8]> {
    let names = startup.parameters.iter().map(|(name, _)| name.as_slice());
    names.filter(|name| name.starts_with(b"_pq_."))
}

fn admit_startup(
    config: &PgConfig,
    turn: Turn<'_>,
    journal: &mut Journal,
    startup: &Startup,
    encrypted: bool,
) -> Result<ScopeTracker, Denied> {
    if config.tls == TlsMode::Required && !encrypted {
        let hint = Some("connect with sslmode=require or stronger");
        return Err(Denied::new("28000", "this listener serves TLS connections only", hint));
    }
    let text = |name: &str| startup.get(name).map(|value| String::from_utf8(value.to_vec()));
    let not_utf8 = |_| Denied::new("22021", "user, database and application must be UTF-8", None);
    let user = text("user").transpose().map_err(not_utf8)?.filter(|user| !user.is_empty());
    let Some(user) = user else {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(Denied::new("28000", message, None));
    };
    let database = text("database").transpose().map_err(not_utf8)?;
    let database = database.filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone());
    let application = text("application_name").transpose().map_err(not_utf8)?.unwrap_or_default();
    let mut record = (*journal.record).clone();
    record.user.clone_from(&user);
    record.database.clone_from(&database);
    record.application.clone_from(&application);
    let login = PolicyLogin {
        datasource: Arc::clone(&config.datasource),
        default_deny: config.default_deny,
        user,
        database,
        address: record.client.map(|address| address.ip()),
        application,
    };
    let scope = ScopeTracker::new(turn, login);
    record.roles.clone_from(&scope.class().identity.roles);
    journal.record = Arc::new(record);
    admit_parameters(turn, startup, &scope)?;
    Ok(scope)
}

/// Replication is another grammar; settings in the start-up obey the same policy as SET.
fn admit_parameters(turn: Turn<'_>, startup: &Startup, scope: &ScopeTracker) -> Result<(), Denied> {
    let replication = startup.get("replication").map(<[u8]>::to_ascii_lowercase);
    let off = [&b"false"[..], b"off", b"no", b"0", b"f", b"n", b""];
    if replication.is_some_and(|value| !off.contains(&value.as_slice())) {
        let hint = Some("connect to the database server directly for replication");
        return Err(Denied::new("0A000", "replication connections are not served", hint));
    }
    if !scope.class().concerned {
        return Ok(());
    }
    let Some(settings) = startup.settings() else {
        let hint = Some("use -c name=value only");
        return Err(Denied::new("42501", "startup options hold an unknown switch", hint));
    };
    let change = |(name, value): (String, String)| SettingChange {
        name: name.into(),
        value: Some(value.into()),
        local: false,
    };
    let facts = Facts {
        certainty: Certainty::Known,
        actions: Vec::new(),
        accesses: Vec::new(),
        functions: Vec::new(),
        settings: settings.into_iter().map(change).collect(),
    };
    match turn.rules.set.decide(scope.class(), &facts) {
        Decision::Deny(denial) if denial.reason == DenyReason::SideDoor => {
            Err(Denied { code: "42501", message: denial.message, hint: denial.hint })
        }
        // Allow lists speak of statements; the start-up holds none.
        Decision::Deny(_) | Decision::Allow(_) => Ok(()),
    }
}

/// The server is being connected to.
#[derive(Debug)]
pub(super) struct Connecting {
    startup: Startup,
    encrypted: bool,
    /// Taken when the connection stands.
    scope: Option<ScopeTracker>,
}

impl Connecting {
    pub(super) fn connected(&mut self, secret: [u8; 4], out: &mut Outbox) -> Login {
        out.to_server.encode(|out| message::startup(out, &self.startup));
        Login {
            encrypted: self.encrypted,
            scope: self.scope.take(),
            secret,
            expected: Expected::Nothing,
            method: "trust",
            authenticated: false,
            backend: BackendState::default(),
        }
    }
}

/// Authentication is relayed between client and server.
#[derive(Debug)]
pub(super) struct Login {
    encrypted: bool,
    scope: Option<ScopeTracker>,
    secret: [u8; 4],
    expected: Expected,
    method: &'static str,
    authenticated: bool,
    backend: BackendState,
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
                let backend = std::mem::take(&mut self.backend);
                let mut ready = Ready::new(Arc::clone(config), scope, backend);
                ready.begin(call, self.method);
                return Ok(Some(State::Ready(Box::new(ready))));
            }
            _ => return Err(WireError::UnexpectedMessage(head.tag)),
        }
        Ok(None)
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
                relay(out);
                return Ok(None);
            }
            3 => {
                self.method = "cleartext";
                if !self.encrypted {
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
        let theirs = CancelKey { pid, secret: reader.rest().to_vec() };
        let ours = CancelKey { pid, secret: self.secret.to_vec() };
        out.to_client.encode(|out| message::backend_key_data(out, pid, &self.secret));
        out.effects.push(Effect::RegisterCancel { ours, theirs });
        Ok(())
    }
}

/// Longest frame of a server during login: errors, parameters, authentication exchanges.
const LOGIN_FRAME_BYTES_MAX: usize = 64 * 1024;
