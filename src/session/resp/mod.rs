//! Sessions of Redis and its relatives (RESP2, RESP3).
//!
//! One connection to the server for each client: what the server keeps about a connection (the
//! database, a transaction, subscriptions, tracking) is the client's own. The client half
//! (`client`) judges each command and passes its bytes on or refuses it in its place; the server half
//! (`server`) matches replies with what is pending; `entering` finds out who the client is.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;

use crate::analysis::redis::Table;
use crate::event::{Now, SessionRecord, Upstream};
use crate::mask::Masker;
use crate::session::auth::{Authentication, ServerLeg};
use crate::session::journal::{Call, Journal};
use crate::session::{
    Alpn, Answer, Capabilities, Effect, EndCause, Outbox, Phase, Progress, ProtocolError, Session,
    SessionSeed, Side, TlsMode, Turn,
};
use crate::wire::error::WireError;
use crate::wire::resp::request::{RequestLimits, Scanner};

mod answers;
mod client;
mod entering;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod identity;
mod listening;
mod pending;
mod refusing;
mod repeated;
pub mod reshape;
mod runs;
mod server;
mod talk;
mod tenant;
#[cfg(test)]
mod tests;
mod unheard;
mod words;

use talk::{Core, Parting};

/// What is the same for all sessions of one datasource.
#[derive(Clone, Debug)]
pub struct RespConfig {
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
    /// The commands that are known.
    pub table: Arc<Table>,
    /// Masks values.
    pub masker: Arc<Masker>,
    /// Most replies a client may be waiting for, runs of like ones counted as one; above it the
    /// client is not read.
    pub pending_replies_max: usize,
}

/// One proxied connection.
#[derive(Debug)]
pub struct RespSession {
    config: Arc<RespConfig>,
    state: State,
    journal: Journal,
}

#[derive(Debug)]
enum State {
    /// Nothing was read.
    Greeting(Box<Talk>),
    /// A TLS handshake runs.
    Securing(Box<Talk>),
    /// Commands flow.
    Talking(Box<Talk>),
    /// Only flushing is left.
    Closed,
}

/// A session that is being served.
#[derive(Debug)]
struct Talk {
    scanner: Scanner,
    core: Core,
}

impl RespSession {
    /// A session that has seen no byte yet. `now` is when the connection was accepted.
    pub fn new(config: Arc<RespConfig>, seed: SessionSeed, now: Now) -> Self {
        let SessionSeed { uid, client, local } = seed;
        let upstream = Upstream {
            datasource: Arc::clone(&config.datasource),
            product: "Redis",
            protocol: "redis",
            server: config.server.clone(),
        };
        let client: Option<SocketAddr> = client;
        let record = SessionRecord::accepted(uid, client, now.wall_us, upstream);
        let scanner = Scanner::new(RequestLimits::BEFORE_LOGIN);
        let talk = Box::new(Talk { scanner, core: Core { local, ..Core::default() } });
        Self { config, state: State::Greeting(talk), journal: Journal::new(record) }
    }

    /// The first byte: TLS or a command.
    fn greet(&mut self, input: &BytesMut, out: &mut Outbox) {
        let State::Greeting(talk) = std::mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        let handshake = input.first() == Some(&TLS_HANDSHAKE);
        self.state = match (self.config.tls, handshake) {
            (TlsMode::Allowed | TlsMode::Required, true) => {
                out.effects.push(Effect::StartDirectTls(Alpn::Unspoken));
                State::Securing(talk)
            }
            (TlsMode::Required, false) if talk.core.tls.is_none() && talk.core.local.is_none() => {
                let text = "ERR this listener serves TLS connections only";
                out.to_client.extend(&words::error(text));
                out.effects.push(Effect::Close);
                State::Closed
            }
            (TlsMode::Off | TlsMode::Allowed | TlsMode::Required, _) => State::Talking(talk),
        };
    }

    fn step(
        &mut self,
        turn: Turn<'_>,
        from: Side,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), WireError> {
        if matches!(self.state, State::Greeting(_)) && from == Side::Client && !input.is_empty() {
            self.greet(input, out);
            if matches!(self.state, State::Closed) {
                let code = "ERR";
                self.journal.login_failed(turn.now, code, (None, Some("no TLS")), out);
            }
        }
        let mut call = Call { turn, journal: &mut self.journal, out };
        match (&mut self.state, from) {
            (State::Talking(talk), Side::Client) => {
                if let Err(refused) = talk.feed_client(&mut call, &self.config, input) {
                    talk.core.leave(&mut call, refused);
                    if talk.core.parting == Parting::Closing {
                        return Err(WireError::BadField);
                    }
                }
                if talk.core.parting != Parting::No {
                    input.clear();
                }
            }
            (State::Talking(talk), Side::Server) => {
                let lost = talk.core.feed_server(&mut call, &self.config, input);
                if lost.is_err() {
                    let text = "ERR the server's reply cannot be followed; the connection ends";
                    if talk.core.may_speak() {
                        call.out.to_client.extend(&words::error(text));
                    }
                    return Err(WireError::BadField);
                }
            }
            (State::Closed, _) => input.clear(),
            (State::Greeting(_) | State::Securing(_), _) => {}
        }
        Ok(())
    }
}

impl Session for RespSession {
    const CAPABILITIES: Capabilities = Capabilities { rewrite_masks: false, row_filters: false };

    fn feed(
        &mut self,
        turn: Turn<'_>,
        from: Side,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), ProtocolError> {
        self.step(turn, from, input, out).map_err(|kind| {
            let state = std::mem::replace(&mut self.state, State::Closed);
            out.effects.push(Effect::Close);
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
        if let Answer::TlsStarted(peer) = answer {
            let state = std::mem::replace(&mut self.state, State::Closed);
            let State::Securing(mut talk) = state else { return Err(unasked) };
            talk.core.tls = Some(peer);
            self.state = State::Talking(talk);
            return Ok(());
        }
        let State::Talking(talk) = &mut self.state else { return Err(unasked) };
        let mut call = Call { turn, journal: &mut self.journal, out };
        let core = &mut talk.core;
        match answer {
            Answer::TlsStarted(_) => None,
            Answer::Authenticate(reply) => core.told(&mut call, *reply),
            Answer::Connected { secret: _, tls, local } => {
                core.connected(&mut call, ServerLeg { tls, local })
            }
            Answer::ConnectFailed => core.unreachable(&mut call),
        }
        .ok_or(unasked)?;
        Ok(())
    }

    fn end(&mut self, turn: Turn<'_>, cause: EndCause, out: &mut Outbox) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        let speaks = match &state {
            State::Greeting(_) => true,
            State::Securing(_) | State::Closed => false,
            State::Talking(talk) => talk.core.may_answer(),
        };
        let (text, word) = last_words(cause);
        if let (Some(text), true) = (text, speaks) {
            let request = self.journal.request_id();
            out.to_client.extend(&words::error(&format!("ERR {text} ({request})")));
        }
        state.abandon(&mut Call { turn, journal: &mut self.journal, out });
        if cause.is_refusal() && !self.journal.opened {
            self.journal.login_failed(turn.now, "ERR", (None, Some(word)), out);
        }
        self.journal.closed(turn.now, word, out);
    }

    fn wants(&self, side: Side) -> bool {
        match (&self.state, side) {
            (State::Greeting(_), Side::Client) | (State::Talking(_), Side::Server) => true,
            // One that is about to be sent away is read, to see when it is gone.
            (State::Talking(talk), Side::Client) => {
                talk.core.parting == Parting::Leaving || talk.core.wants_client(&self.config)
            }
            (State::Greeting(_), Side::Server) | (State::Securing(_) | State::Closed, _) => false,
        }
    }

    fn phase(&self) -> Phase {
        match &self.state {
            State::Greeting(_) | State::Securing(_) => Phase::Login,
            State::Talking(talk) => talk.core.phase(),
            State::Closed => Phase::Closing,
        }
    }

    fn cancellable(&self) -> bool {
        // The protocol has no way to stop what the server does.
        false
    }

    fn progress(&self) -> Progress {
        match &self.state {
            State::Talking(talk) => talk.core.progress(),
            State::Greeting(_) | State::Securing(_) | State::Closed => Progress::default(),
        }
    }

    fn overdue(&mut self) {}

    fn record(&self) -> Option<&Arc<SessionRecord>> {
        Some(&self.journal.record)
    }

    fn settles_at(&self) -> Option<u64> {
        match &self.state {
            State::Talking(talk) => talk.core.runs.settles_at(),
            State::Greeting(_) | State::Securing(_) | State::Closed => None,
        }
    }

    fn settle(&mut self, turn: Turn<'_>, out: &mut Outbox) {
        if let State::Talking(talk) = &mut self.state {
            talk.core.runs.settle(&mut Call { turn, journal: &mut self.journal, out });
        }
    }

    fn owed_events(&self) -> usize {
        // One identity may end, another begin and end.
        self.journal.owed + 3
    }
}

impl State {
    /// The session ends: outcomes still owed are recorded.
    fn abandon(self, call: &mut Call<'_>) {
        match self {
            Self::Talking(mut talk) => {
                talk.core.close_run(call);
                talk.core.pending.clear();
                talk.core.runs.abandon(call);
            }
            Self::Greeting(_) | Self::Securing(_) | Self::Closed => {}
        }
    }
}

/// What the client is told at the end, if it can still be told, and the trail's word for it.
fn last_words(cause: EndCause) -> (Option<&'static str>, &'static str) {
    match cause {
        EndCause::ClientGone => (None, "client"),
        // As a client without a proxy sees it; drivers connect again and repeat what may be repeated.
        EndCause::ServerGone => (None, "server"),
        EndCause::Shutdown => (Some("the proxy is stopping; reconnect"), "shutdown"),
        EndCause::LoginTimeout => (Some("login took too long"), "timeout"),
        EndCause::IdleTimeout => (Some("the connection was idle for too long"), "timeout"),
        EndCause::IdleInTransaction => {
            (Some("the connection was idle inside MULTI for too long"), "timeout")
        }
        EndCause::StatementTimeout => (Some("the command ran over its time"), "timeout"),
        EndCause::TransactionTimeout => (Some("the transaction took too long"), "timeout"),
        EndCause::Lifetime => (Some("the connection's lifetime is over; reconnect"), "timeout"),
        EndCause::Operator => (Some("an administrator ended the connection"), "operator"),
        EndCause::AuditUnavailable => (Some("the audit trail cannot take more records"), "audit"),
        EndCause::AddressRefused => {
            (Some("this listener does not admit clients from your address"), "refused")
        }
        EndCause::HeaderRefused => {
            (Some("the load balancer sent no valid PROXY protocol header"), "refused")
        }
        EndCause::TooManyLogins => {
            (Some("too many clients of your address are logging in"), "refused")
        }
        EndCause::TooManyClients => (Some("max number of clients reached"), "refused"),
    }
}

/// The type of a TLS record that carries a handshake. No command begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
