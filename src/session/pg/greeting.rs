//! From the first byte to the StartupMessage: encryption, cancel requests, and whether the start-up
//! is admitted at all.

use std::sync::Arc;

use bytes::BytesMut;

use super::login::Connecting;
use super::scope::ScopeTracker;
use super::{Call, Denied, Journal, PgConfig, State, TlsMode, close_with, fatal};
use crate::facts::{Certainty, Facts, SettingChange};
use crate::policy::{Decision, DenyReason, Login as PolicyLogin};
use crate::session::{CancelKey, Effect, Outbox, TlsPeer, Turn};
use crate::wire::error::WireError;
use crate::wire::pg::error::Report;
use crate::wire::pg::message;
use crate::wire::pg::startup::{self, MINOR_NEWEST, Request, Startup};

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
    Started(Box<TlsPeer>),
}

impl Greeting {
    pub(super) fn wants_client(&self) -> bool {
        self.tls != Tls::Starting
    }

    pub(super) fn tls_started(&mut self, peer: TlsPeer) {
        self.tls = Tls::Started(Box::new(peer));
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
                    let from = call.journal.record.client.map(|address| address.ip());
                    let key = CancelKey { pid, secret };
                    call.out.effects.push(Effect::Cancel { key, from });
                    return Ok(Some(State::Closed));
                }
                Request::Startup(startup) => {
                    return Ok(Some(self.started(call, config, startup)));
                }
                Request::Unsupported { major, minor } => {
                    return Ok(Some(unsupported(major, minor, call.out)));
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
        let encrypted = matches!(self.tls, Tls::Started(_));
        let admitted = admit_startup(config, call.turn, call.journal, &startup, encrypted);
        let out = &mut *call.out;
        match admitted {
            Ok(scope) => {
                negotiate(&startup, out);
                out.effects.push(Effect::Connect);
                State::Connecting(Box::new(Connecting::new(startup, encrypted, scope)))
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

fn unsupported(major: u16, minor: u16, out: &mut Outbox) -> State {
    let text = format!(
        "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{MINOR_NEWEST}"
    );
    if major < 3 {
        // Clients before version 3 read an error as a line of text, and know no other form.
        out.to_client.extend(format!("EFATAL:  {text}\n\0").as_bytes());
        out.effects.push(Effect::Close);
    } else {
        close_with(&fatal("0A000", &text), out);
    }
    State::Closed
}

/// Tells the client what we speak if it asked for more: as PostgreSQL 18 does, which takes 3.1 (a
/// number that was never given out) in silence for what it is asked.
fn negotiate(startup: &Startup, out: &mut Outbox) {
    let options: Vec<&[u8]> = unknown_options(startup).collect();
    if startup.minor > MINOR_NEWEST || !options.is_empty() {
        let minor = startup.minor.min(MINOR_NEWEST);
        out.to_client.encode(|out| message::negotiate_protocol_version(out, minor, &options));
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
