//! PostgreSQL protocol 3 sessions.
//!
//! ```text
//! Greeting ──StartupMessage──► Admitting ──relay──────────► Connecting ──Connected──► Login ──► Ready
//!    ▲  │ SSLRequest               └──► Challenge ──Granted──►──┘
//!    └──┘
//! ```
//! and from each of them to `Closed`. `Greeting` lives in `greeting`, `Admitting` in `admission`,
//! `Challenge` in `challenge`, `Login` in `login`, `Ready` in `ready` with its two halves `client` (what
//! the client asks) and `server` (what the server answers). A replication connection becomes a `relay`
//! instead of `Ready`.

use std::sync::Arc;

use bytes::BytesMut;

use crate::event::{Now, SessionRecord, Upstream};
use crate::session::auth::{Authentication, ServerLeg};
use crate::session::gate::{Refusal, Words};
use crate::session::journal::{Call, Journal};
use crate::session::{
    Answer, Capabilities, Effect, EndCause, Outbox, Phase, Progress, ProtocolError, Session,
    SessionSeed, Side, TlsMode, Turn,
};
use crate::wire::error::WireError;
use crate::wire::pg::error::{Report, Severity};

mod account;
#[cfg(test)]
mod account_tests;
mod admission;
mod catalog_load;
mod challenge;
mod client;
mod copying;
mod fastpath;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod greeting;
mod login;
mod malformed;
mod pending;
mod ready;
mod refusals;
mod relay;
mod relayed;
mod scope;
pub mod scram;
mod scrub;
mod server;
mod statements;
mod streamed;

/// What is the same for all sessions of one datasource.
#[derive(Clone, Debug)]
pub struct PgConfig {
    /// Name in the configuration.
    pub datasource: Arc<str>,
    /// `default: deny`.
    pub default_deny: bool,
    /// TLS on the client leg.
    pub tls: TlsMode,
    /// How clients prove who they are.
    pub authentication: Authentication,
    /// Server address as configured, for the record.
    pub server: (String, u16),
    /// Most replies a client may be waiting for; above it the client is not read.
    pub pending_replies_max: usize,
    /// Most prepared statements one session may hold.
    pub prepared_statements_max: usize,
    /// Longest Query or Parse message in bytes; the longest that is buffered whole.
    pub inspected_bytes_max: usize,
}

/// One proxied PostgreSQL connection.
#[derive(Debug)]
pub struct PgSession {
    config: Arc<PgConfig>,
    state: State,
    journal: Journal,
}

#[derive(Debug)]
enum State {
    /// Before the StartupMessage.
    Greeting(greeting::Greeting),
    /// The shell is asked whether the client may try.
    Admitting(Box<admission::Candidate>),
    /// The client proves to us who it is.
    Challenge(Box<challenge::Challenge>),
    /// The server is being connected to.
    Connecting(Box<login::Connecting>),
    /// Authentication is relayed.
    Login(Box<login::Login>),
    /// Statements flow.
    Ready(Box<ready::Ready>),
    /// Replication: bytes flow.
    Relay(Box<relay::Relay>),
    /// Only flushing is left.
    Closed,
}

impl State {
    /// Whether words of ours may go to the client now: it is between two frames.
    fn may_speak(&self) -> bool {
        match self {
            Self::Relay(relay) => relay.may_speak(),
            Self::Ready(ready) => ready.server_remaining == 0,
            Self::Greeting(_)
            | Self::Admitting(_)
            | Self::Challenge(_)
            | Self::Connecting(_)
            | Self::Login(_)
            | Self::Closed => true,
        }
    }

    /// The session ends: outcomes still owed are recorded.
    fn abandon(self, call: &mut Call<'_>) {
        match self {
            Self::Ready(mut ready) => ready.abandon(call),
            Self::Relay(mut relay) => relay.abandon(call),
            Self::Greeting(_)
            | Self::Admitting(_)
            | Self::Challenge(_)
            | Self::Connecting(_)
            | Self::Login(_)
            | Self::Closed => {}
        }
    }
}

impl PgSession {
    /// A session that has seen no byte yet. `now` is when the connection was accepted.
    pub fn new(config: Arc<PgConfig>, seed: SessionSeed, now: Now) -> Self {
        let upstream = Upstream {
            datasource: Arc::clone(&config.datasource),
            product: "PostgreSQL",
            protocol: "pg",
            server: config.server.clone(),
        };
        let record = SessionRecord::accepted(seed.uid, seed.client, now.wall_us, upstream);
        Self {
            config,
            state: State::Greeting(greeting::Greeting::new(seed.local)),
            journal: Journal::new(record),
        }
    }

    fn step(
        &mut self,
        turn: Turn<'_>,
        from: Side,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), WireError> {
        let mut call = Call { turn, journal: &mut self.journal, out };
        let next = match (&mut self.state, from) {
            (State::Greeting(greeting), Side::Client) => {
                greeting.feed(&mut call, &self.config, input)?
            }
            (State::Challenge(challenge), Side::Client) => challenge.feed(&mut call, input)?,
            (State::Login(login), Side::Client) => login.feed_client(&mut call, input)?,
            (State::Login(login), Side::Server) => {
                login.feed_server(&mut call, &self.config, input)?
            }
            (State::Ready(ready), Side::Client) => ready.feed_client(&mut call, input)?,
            (State::Ready(ready), Side::Server) => {
                ready.feed_server(&mut call, input)?;
                None
            }
            (State::Relay(relay), Side::Client) => relay.feed_client(&mut call, input)?,
            (State::Relay(relay), Side::Server) => relay.feed_server(&mut call, input)?,
            // Nothing is connected: these bytes cannot come.
            (
                State::Greeting(_)
                | State::Admitting(_)
                | State::Challenge(_)
                | State::Connecting(_),
                _,
            ) => None,
            (State::Closed, _) => {
                input.clear();
                None
            }
        };
        if let Some(next) = next {
            self.state = next;
        }
        Ok(())
    }
}

impl Session for PgSession {
    const CAPABILITIES: Capabilities = Capabilities { rewrite_masks: true, row_filters: true };

    fn feed(
        &mut self,
        turn: Turn<'_>,
        from: Side,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), ProtocolError> {
        self.step(turn, from, input, out).map_err(|kind| {
            let text = format!("protocol violation by the {}: {kind}", from.word());
            // The shell asks nothing more of a session that failed: what it owes is due now.
            let state = std::mem::replace(&mut self.state, State::Closed);
            if state.may_speak() {
                close_with(&fatal("08P01", &text), out);
            } else {
                out.effects.push(Effect::Close);
            }
            state.abandon(&mut Call { turn, journal: &mut self.journal, out });
            self.journal.closed(turn.now, "protocol", out);
            ProtocolError { side: from, kind }
        })
    }

    fn resume(
        &mut self,
        turn: Turn<'_>,
        answer: Answer,
        out: &mut Outbox,
    ) -> Result<(), ProtocolError> {
        let unasked = ProtocolError { side: Side::Server, kind: WireError::UnexpectedBytes };
        let next = match (&mut self.state, answer) {
            (State::Greeting(greeting), Answer::TlsStarted(peer)) => {
                greeting.tls_started(peer);
                None
            }
            (State::Connecting(connecting), Answer::Connected { secret, tls, local }) => {
                let leg = ServerLeg { tls, local };
                let login = connecting.connected(&self.config, (secret, leg), out);
                Some(State::Login(Box::new(login.ok_or(unasked)?)))
            }
            (State::Connecting(connecting), Answer::Authenticate(reply)) => {
                let mut call = Call { turn, journal: &mut self.journal, out };
                connecting.account(&mut call, *reply).ok_or(unasked)?
            }
            (State::Login(login), Answer::Authenticate(reply)) => {
                login.derived(&reply, out).ok_or(unasked)?;
                None
            }
            (State::Admitting(_), Answer::Authenticate(reply)) => {
                let state = std::mem::replace(&mut self.state, State::Closed);
                let State::Admitting(candidate) = state else { return Err(unasked) };
                let mut call = Call { turn, journal: &mut self.journal, out };
                Some(candidate.admitted(&mut call, &self.config, *reply).ok_or(unasked)?)
            }
            (State::Challenge(challenge), Answer::Authenticate(reply)) => {
                let mut call = Call { turn, journal: &mut self.journal, out };
                Some(challenge.judged(&mut call, *reply).ok_or(unasked)?)
            }
            (State::Connecting(_), Answer::ConnectFailed) => {
                self.journal.login_failed(turn.now, "08001", (None, None), out);
                let report = Report {
                    hint: Some("the proxy could not reach the database server; see its log"),
                    detail: Some(&self.journal.request_id()),
                    ..fatal("08001", "could not connect to the database server")
                };
                close_with(&report, out);
                Some(State::Closed)
            }
            _ => return Err(unasked),
        };
        if let Some(next) = next {
            self.state = next;
        }
        Ok(())
    }

    fn end(&mut self, turn: Turn<'_>, cause: EndCause, out: &mut Outbox) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        let silent = match &state {
            State::Closed => true,
            State::Ready(ready) => ready.server_said_fatal() || !state.may_speak(),
            State::Greeting(_)
            | State::Admitting(_)
            | State::Challenge(_)
            | State::Connecting(_)
            | State::Login(_)
            | State::Relay(_) => !state.may_speak(),
        };
        state.abandon(&mut Call { turn, journal: &mut self.journal, out });
        let (code, message, word) = match cause {
            EndCause::ClientGone => (None, "", "client"),
            EndCause::ServerGone => {
                (Some("08006"), "the database server closed the connection", "server")
            }
            EndCause::Shutdown => {
                (Some("57P01"), "terminating connection because the proxy is stopping", "shutdown")
            }
            EndCause::LoginTimeout => (Some("08006"), "login took too long", "timeout"),
            EndCause::IdleTimeout => {
                (Some("57P05"), "the session was idle for too long", "timeout")
            }
            EndCause::IdleInTransaction => (
                Some("25P03"),
                "terminating connection due to idle-in-transaction timeout",
                "timeout",
            ),
            EndCause::StatementTimeout => (
                Some("57014"),
                "terminating connection: the statement ran over its time and did not stop",
                "timeout",
            ),
            EndCause::TransactionTimeout => {
                (Some("25P04"), "terminating connection due to transaction timeout", "timeout")
            }
            EndCause::Lifetime => {
                (Some("57P01"), "terminating connection: its lifetime is over", "timeout")
            }
            EndCause::Operator => {
                (Some("57P01"), "terminating connection due to administrator command", "operator")
            }
            EndCause::AuditUnavailable => {
                (Some("57P03"), "the audit trail cannot take more records", "audit")
            }
            EndCause::AddressRefused => {
                (Some("28000"), "this listener does not admit clients from your address", "refused")
            }
            EndCause::HeaderRefused => {
                (Some("08P01"), "the load balancer sent no valid PROXY protocol header", "refused")
            }
            EndCause::TooManyLogins => {
                (Some("53300"), "too many clients of your address are logging in", "refused")
            }
            EndCause::TooManyClients => {
                (Some("53300"), "sorry, too many clients already", "refused")
            }
        };
        if let (Some(code), false) = (code, silent) {
            let request_id = self.journal.request_id();
            let report = Report { detail: Some(&request_id), ..fatal(code, message) };
            out.to_client.encode(|out| report.encode(out));
        }
        if let (Some(code), true) = (code, cause.is_refusal() && !self.journal.opened) {
            self.journal.login_failed(turn.now, code, (None, None), out);
        }
        self.journal.closed(turn.now, word, out);
    }

    fn wants(&self, side: Side) -> bool {
        match (&self.state, side) {
            (State::Greeting(greeting), Side::Client) => greeting.wants_client(),
            (State::Challenge(challenge), Side::Client) => challenge.wants_client(),
            (State::Login(login), Side::Server) => login.wants_server(),
            (State::Login(_), Side::Client)
            | (State::Relay(_), _)
            | (State::Ready(_), Side::Server) => true,
            (State::Ready(ready), Side::Client) => ready.wants_client(),
            (
                State::Greeting(_)
                | State::Admitting(_)
                | State::Challenge(_)
                | State::Connecting(_)
                | State::Closed,
                _,
            ) => false,
        }
    }

    fn phase(&self) -> Phase {
        match &self.state {
            State::Greeting(_)
            | State::Admitting(_)
            | State::Challenge(_)
            | State::Connecting(_)
            | State::Login(_) => Phase::Login,
            State::Ready(ready) => ready.phase(),
            State::Relay(_) => Phase::Busy,
            State::Closed => Phase::Closing,
        }
    }

    fn cancellable(&self) -> bool {
        match &self.state {
            State::Ready(ready) => ready.cancellable(),
            State::Relay(_) => true,
            State::Greeting(_)
            | State::Admitting(_)
            | State::Challenge(_)
            | State::Connecting(_)
            | State::Login(_)
            | State::Closed => false,
        }
    }

    fn progress(&self) -> Progress {
        match &self.state {
            State::Ready(ready) => ready.progress(),
            State::Relay(_)
            | State::Greeting(_)
            | State::Admitting(_)
            | State::Connecting(_)
            | State::Challenge(_)
            | State::Login(_)
            | State::Closed => Progress::default(),
        }
    }

    fn overdue(&mut self) {
        match &mut self.state {
            State::Ready(ready) => ready.overdue = true,
            State::Relay(_)
            | State::Greeting(_)
            | State::Admitting(_)
            | State::Connecting(_)
            | State::Challenge(_)
            | State::Login(_)
            | State::Closed => {}
        }
    }

    fn record(&self) -> Option<&Arc<SessionRecord>> {
        Some(&self.journal.record)
    }

    fn settles_at(&self) -> Option<u64> {
        None
    }

    fn settle(&mut self, _turn: Turn<'_>, _out: &mut Outbox) {}

    fn owed_events(&self) -> usize {
        match &self.state {
            // The opening (or its failure), and the end.
            State::Greeting(_)
            | State::Admitting(_)
            | State::Challenge(_)
            | State::Connecting(_)
            | State::Login(_) => 2,
            State::Ready(_) | State::Relay(_) => self.journal.owed + 1,
            State::Closed => self.journal.owed,
        }
    }
}

/// A login that the proxy refuses itself.
struct Denied {
    code: &'static str,
    message: String,
    hint: Option<String>,
    /// For the audit trail.
    reason: Option<&'static str>,
}

impl Denied {
    fn new(code: &'static str, message: &str, hint: Option<&str>) -> Self {
        Self { code, message: message.to_owned(), hint: hint.map(str::to_owned), reason: None }
    }

    fn because(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

fn fatal<'a>(code: &'a str, message: &'a str) -> Report<'a> {
    let severity = Severity::Fatal;
    Report { severity, code, message, detail: None, hint: None, position: None }
}

fn close_with(report: &Report<'_>, out: &mut Outbox) {
    out.to_client.encode(|out| report.encode(out));
    out.effects.push(Effect::Close);
}

/// Appends the ErrorResponse for a refusal.
fn encode_refusal(refusal: &Refusal, request_id: &str, out: &mut BytesMut) {
    let detail = match refusal.words {
        Words::Ours => Some(request_id),
        Words::Servers => None,
        Words::Grammar { detail } => detail,
    };
    let report = Report {
        severity: Severity::Error,
        code: refusal.code,
        message: &refusal.message,
        detail,
        hint: refusal.hint.as_deref(),
        position: refusal.position,
    };
    report.encode(out);
}
