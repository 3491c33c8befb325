//! One proxied connection as a state machine: no sockets, no clock, no locks held over a turn.
//!
//! The shell reads bytes, calls [`Session::feed`], writes what the session put into the
//! [`Outbox`], and carries out the [`Effect`]s it asked for. A session is a pure function of its
//! inputs, so it can be driven by scripts and fuzzers exactly as it runs in production.

#![deny(clippy::wildcard_enum_match_arm)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;

use crate::analysis::Analyzer;
use crate::event::{Event, Now, SessionRecord};
use crate::policy::Throttles;
use crate::wire::queue::ByteQueue;

pub mod auth;
pub mod gate;
mod journal;
pub mod pg;
pub mod resp;

/// Which of the two peers bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The application.
    Client,
    /// The database.
    Server,
}

impl Side {
    /// The word for it.
    fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Whether the client leg may or must be TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// No certificate is configured: a client that asks for it is told no.
    Off,
    /// The client chooses.
    Allowed,
    /// A login in plain text is refused.
    Required,
}

/// What is special to one session.
#[derive(Clone, Debug)]
pub struct SessionSeed {
    /// Unique id.
    pub uid: String,
    /// Client address; `None` for a socket without one.
    pub client: Option<SocketAddr>,
    /// Who holds the other end of a Unix socket.
    pub local: Option<PeerCredentials>,
}

/// Everything a session may look at, fixed for one call.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The rules in force.
    pub rules: &'a gate::ActiveRules,
    /// Catalogs and limits for understanding statements.
    pub analyzer: &'a Analyzer,
    /// Decided plans, shared by all sessions.
    pub plans: &'a gate::PlanCache,
    /// Rate limits, shared by all sessions.
    pub throttles: &'a Throttles,
    /// Time of this turn.
    pub now: Now,
}

/// What a session leaves for the shell after a call.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Bytes for the client.
    pub to_client: ByteQueue,
    /// Bytes for the server.
    pub to_server: ByteQueue,
    /// Audit events, in order.
    pub events: Vec<Event>,
    /// Requests to the shell, in order.
    pub effects: Vec<Effect>,
    /// How many audit events this call may push *or newly owe* (see [`Session::owed_events`]).
    /// The shell reserved them in the audit queue before the call; a session that would need more
    /// leaves the rest of its input unconsumed.
    pub room: usize,
}

/// What a session cannot do itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write out `to_client`, then make the client leg TLS. The client's input must be empty at
    /// that point (nothing may be injected before the handshake): the shell checks it and ends the
    /// connection otherwise. Answered with [`Answer::TlsStarted`].
    StartTls,
    /// The client began with a TLS handshake, of which its input holds the first bytes: go on with
    /// it from there. Answered with [`Answer::TlsStarted`].
    StartDirectTls(Alpn),
    /// Find out something about a login. Answered with [`Answer::Authenticate`].
    Authenticate(Box<auth::Request>),
    /// Take note of what became of an attempt to log in. No answer.
    ReportLogin(Box<auth::Report>),
    /// Tell whoever looks after the proxy that an account on the server was of no use. No answer.
    ReportAccount(Box<auth::AccountFailure>),
    /// Connect to the datasource's server. Answered with `Connected` or `ConnectFailed`.
    Connect,
    /// Forward a cancel to whoever holds this key, then close this connection. No answer.
    Cancel {
        /// The key the client showed.
        key: CancelKey,
        /// Where it came from, so that guessing can be slowed down.
        from: Option<IpAddr>,
    },
    /// From now on cancels that carry `ours` go to the server with `theirs`; until the session ends.
    RegisterCancel {
        /// The key the client was given.
        ours: CancelKey,
        /// The key the server gave.
        theirs: CancelKey,
    },
    /// Flush both directions, then close both connections.
    Close,
}

/// Whether those who begin with a TLS handshake name in it the protocol they mean (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// Both must agree on the protocol's name, so that a handshake meant for another service is not
    /// taken for ours.
    Agreed,
    /// This protocol has no name there: none is offered, and what a peer offers is not looked at.
    Unspoken,
}

/// What a TLS handshake established about the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPeer {
    /// The peer's certificate, verified against the configured authorities; `None` if it gave none.
    pub certificate: Option<PeerCertificate>,
    /// `tls-server-end-point` channel binding data of this connection (RFC 5929, section 4): a hash
    /// of the *server's* certificate, ours on the client leg. `None` where it is undefined.
    pub server_end_point: Option<Vec<u8>>,
}

/// Names in a verified certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Common name of the subject, if it has exactly one.
    pub common_name: Option<String>,
    /// Subject alternative names with their kind: `dns:`, `email:`, `uri:` and the name.
    pub alternative_names: Vec<String>,
    /// SHA-256 of the certificate, lower-case hex, for the audit trail.
    pub fingerprint: String,
}

/// Credentials of the process at the other end of a Unix socket, as the kernel tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// User id.
    pub uid: u32,
    /// Name of that user in the system's user database, if it has one.
    pub user: Option<String>,
}

/// The shell's answer to an [`Effect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The client leg is TLS now.
    TlsStarted(TlsPeer),
    /// What was asked about a login.
    Authenticate(Box<auth::Reply>),
    /// The server leg is open. `secret` is fresh randomness for the cancel key of this session.
    Connected {
        /// Random bytes, unpredictable; as many of them as the client's protocol can carry.
        secret: [u8; SECRET_BYTES],
        /// What TLS established about the server; `None` when that leg is plain text.
        tls: Option<TlsPeer>,
        /// Whether nothing leaves this machine on the way to the server.
        local: bool,
    },
    /// The server could not be reached; the text is for the log, not for the client.
    ConnectFailed,
}

/// A cancel key: process id and secret, as in BackendKeyData.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// Process id.
    pub pid: u32,
    /// Secret: 4 bytes in protocol 3.0, up to 256 since 3.2.
    pub secret: Vec<u8>,
}

/// Bytes of a session's own cancel secret: what PostgreSQL 18 gives, and never guessed.
pub const SECRET_BYTES: usize = 32;

/// What a protocol can be asked to do to a reply; compared with a rule set at load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Masks by rewriting the statement.
    pub rewrite_masks: bool,
    /// Row filters by rewriting the statement.
    pub row_filters: bool,
}

/// Where a session stands, for deadlines and draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not logged in yet.
    Login,
    /// Logged in, nothing in flight, no transaction open.
    Idle,
    /// Logged in, nothing in flight, inside a transaction.
    InTransaction,
    /// Logged in, nothing in flight; the client waits for what the server says of its own accord,
    /// for as long as it likes.
    Listening,
    /// A statement is in flight.
    Busy,
    /// `Effect::Close` was asked for; only flushing is left.
    Closing,
}

/// How far the server has come with what it was sent. Counters only grow: the shell measures time
/// from their changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Statements the server is done with and told of: it keeps what it has to say to the end of a
    /// batch, or of a text of several statements, unless that is much.
    pub statements: u64,
    /// Transactions it is done with.
    pub transactions: u64,
    /// It owes a reply.
    pub in_flight: bool,
}

/// Why the shell ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// The client closed or its connection broke.
    ClientGone,
    /// The server closed or its connection broke.
    ServerGone,
    /// The process is stopping.
    Shutdown,
    /// The login took too long.
    LoginTimeout,
    /// The client was silent for longer than the configuration allows.
    IdleTimeout,
    /// The same inside a transaction.
    IdleInTransaction,
    /// A statement ran over its time and the server did not stop it.
    StatementTimeout,
    /// A transaction took longer than the configuration allows.
    TransactionTimeout,
    /// The session is as old as the configuration lets sessions become.
    Lifetime,
    /// An operator asked for it.
    Operator,
    /// The audit trail cannot take more and the configuration says to refuse.
    AuditUnavailable,
    /// The listener does not admit clients from this address.
    AddressRefused,
    /// A trusted proxy did not announce its client with a PROXY protocol header.
    HeaderRefused,
    /// Too many clients of this address are logging in.
    TooManyLogins,
    /// As many clients are logged in as the configuration allows.
    TooManyClients,
}

impl EndCause {
    /// The client was turned away: it never became a session, and the trail holds a failed login.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::AddressRefused
            | Self::HeaderRefused
            | Self::TooManyLogins
            | Self::TooManyClients => true,
            Self::ClientGone
            | Self::ServerGone
            | Self::Shutdown
            | Self::LoginTimeout
            | Self::IdleTimeout
            | Self::IdleInTransaction
            | Self::StatementTimeout
            | Self::TransactionTimeout
            | Self::Lifetime
            | Self::AuditUnavailable
            | Self::Operator => false,
        }
    }
}

/// One protocol's state machine.
pub trait Session {
    /// What this protocol can be asked to do.
    const CAPABILITIES: Capabilities;

    /// Consumes what it can of `input`, leaves the rest, fills `out`. Bytes of an incomplete
    /// message may be left or streamed on. Must not consume client input while [`Session::wants`]
    /// says so.
    ///
    /// # Errors
    /// Malformed input. The session has already queued an error for the client where the protocol
    /// allows one; the shell flushes and closes.
    fn feed(
        &mut self,
        turn: Turn<'_>,
        from: Side,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), ProtocolError>;

    /// Takes the answer to an effect.
    ///
    /// # Errors
    /// An answer nobody asked for.
    fn resume(
        &mut self,
        turn: Turn<'_>,
        answer: Answer,
        out: &mut Outbox,
    ) -> Result<(), ProtocolError>;

    /// The connection ends for `cause`: queue the last words for the client (for instance FATAL
    /// 57P01) and the events still owed. Called at most once.
    fn end(&mut self, turn: Turn<'_>, cause: EndCause, out: &mut Outbox);

    /// Whether the session can take input of this side now. The shell does not read a side that is
    /// not wanted.
    fn wants(&self, side: Side) -> bool;

    /// Where the session stands.
    fn phase(&self) -> Phase;

    /// Whether the server works on something the client asked for, so that a cancel would hit that
    /// and nothing else: not between statements, and not while the session asks the server itself.
    fn cancellable(&self) -> bool;

    /// How far the server has come.
    fn progress(&self) -> Progress;

    /// What is in flight ran over its time and is being cancelled: an error that tells of a cancel
    /// is to tell the client why.
    fn overdue(&mut self);

    /// Who the session is, as far as the login got; another `Arc` when that changed.
    fn record(&self) -> Option<&Arc<SessionRecord>>;

    /// When the session has something to record that nobody's bytes would bring up, on the monotonic
    /// clock in microseconds; [`Session::settle`] is called then.
    fn settles_at(&self) -> Option<u64>;

    /// Records what is due by now.
    fn settle(&mut self, turn: Turn<'_>, out: &mut Outbox);

    /// Events the session will still push for statements already forwarded (their outcomes) and
    /// for its own end. The shell keeps that many places reserved.
    fn owed_events(&self) -> usize;
}

/// Input that breaks the protocol. Carries no text of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// Which side sent it.
    pub side: Side,
    /// What was wrong.
    pub kind: crate::wire::error::WireError,
}
