//! The audit record: who asked what, what was decided, what came of it.
//!
//! Events hold shared fragments (`Arc`) that are prepared once per session and once per plan, so
//! that recording a statement on the hot path copies a few words and allocates nothing large.
//!
//! [`Event::write_json`] is the canonical form: one OCSF 1.8.0 object. What a session or a plan
//! contributes to it is escaped once and kept beside the record ([`Prepared`]), so that writing an
//! event is a handful of copies and integers. Deliberately absent: any field that could hold a
//! literal of a statement, a parameter, or a value of a row.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

mod command;
mod json;
mod ocsf;
#[cfg(test)]
pub(crate) mod tests;

pub use command::{
    CommandClass, CommandRecord, CommandRun, RecordedExpiry, RecordedMask, RunResult, StoreError,
};
pub use ocsf::{CommandJson, Instance, Judgement, SessionJson, StatementJson};

/// Wall-clock and monotonic time of one turn, taken once by the shell and passed as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since the Unix epoch.
    pub wall_us: u64,
    /// Microseconds since the process started; never goes back.
    pub mono_us: u64,
}

/// What stays the same for all events of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Unique id of the session, given by the shell.
    pub uid: String,
    /// Name of the datasource in the configuration.
    pub datasource: Arc<str>,
    /// Database product behind the proxy, e.g. `PostgreSQL`.
    pub product: &'static str,
    /// Protocol word for the event, e.g. `pg`.
    pub protocol: &'static str,
    /// Authenticated user, as the client named it.
    pub user: String,
    /// Roles from the identities file.
    pub roles: Vec<Arc<str>>,
    /// Account used at the server where that is not the client's own login; known once it is used.
    pub account: Option<String>,
    /// Whom the proof itself names: the subject of a token, the prefix of a key, a certificate's
    /// fingerprint.
    pub subject: Option<String>,
    /// Database asked for.
    pub database: String,
    /// `application_name` at login.
    pub application: String,
    /// Client address; `None` for a socket without one.
    pub client: Option<SocketAddr>,
    /// Server address behind the proxy as configured, `host:port`.
    pub server: (String, u16),
    /// When the session began, microseconds since the Unix epoch.
    pub began_us: u64,
    /// The record's part of each event, made on first use; start with `Prepared::default()`.
    pub json: Prepared<SessionJson>,
}

/// What stays the same for all events of one plan. Holds no literal of the statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementRecord {
    /// Text with every literal replaced by `?`; `None` when the text could not be normalised.
    pub normalized: Option<String>,
    /// Stable fingerprint of the normalised text, `fp:` and 16 hex digits; of the raw bytes
    /// (`sha256:`…) when it could not be normalised.
    pub fingerprint: String,
    /// Length of the original text in bytes.
    pub text_bytes: usize,
    /// Verbs in the text, in order, deduplicated (at least one; `Empty` for no statement).
    pub verbs: Vec<crate::facts::Verb>,
    /// Relations the text names, `schema.name`, deduplicated, governed ones first.
    pub relations: Vec<String>,
    /// What was decided.
    pub verdict: RecordedVerdict,
    /// Rules that shaped the decision, enforced ones.
    pub rules: Vec<crate::name::RuleId>,
    /// Rules in mode shadow or warn that would have acted.
    pub observed: Vec<crate::name::RuleId>,
    /// Masked columns: (`schema.table.column`, mask function, class).
    pub masked: Vec<(String, &'static str, Option<Arc<str>>)>,
    /// Filtered relations: (`schema.table`, rule).
    pub filtered: Vec<(String, crate::name::RuleId)>,
    /// The record's part of each event, made on first use; start with `Prepared::default()`.
    pub json: Prepared<StatementJson>,
}

impl SessionRecord {
    /// A session that has just been accepted: nothing is known of its client but the address.
    pub fn accepted(
        uid: String,
        client: Option<SocketAddr>,
        began_us: u64,
        upstream: Upstream,
    ) -> Self {
        let Upstream { datasource, product, protocol, server } = upstream;
        Self {
            uid,
            datasource,
            product,
            protocol,
            user: String::new(),
            roles: Vec::new(),
            account: None,
            subject: None,
            database: String::new(),
            application: String::new(),
            client,
            server,
            began_us,
            json: Prepared::default(),
        }
    }
}

/// What all sessions of one listener have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Name of the datasource in the configuration.
    pub datasource: Arc<str>,
    /// Database product behind the proxy.
    pub product: &'static str,
    /// Protocol word for the event.
    pub protocol: &'static str,
    /// Server address behind the proxy as configured.
    pub server: (String, u16),
}

impl StatementRecord {
    /// The record of a statement that was allowed, but is refused at this moment (a limit, a
    /// session state).
    pub fn denied(&self, code: &str, reason: &str, rule: Option<&crate::name::RuleId>) -> Self {
        Self {
            verdict: RecordedVerdict::Denied { code: code.to_owned(), reason: reason.to_owned() },
            rules: rule.into_iter().cloned().collect(),
            ..self.clone()
        }
    }
}

/// A value derived from the record it sits in, made on first use.
///
/// It is no part of the record's identity: all are equal, and a clone starts empty, because the
/// clone may be changed before it is used.
pub struct Prepared<T>(OnceLock<T>);

impl<T> Prepared<T> {
    fn get_or_make(&self, make: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(make)
    }
}

impl<T> Default for Prepared<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Clone for Prepared<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> PartialEq for Prepared<T> {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl<T> Eq for Prepared<T> {}

impl<T> fmt::Debug for Prepared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Prepared" } else { "Unprepared" })
    }
}

/// The verdict as the audit trail words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedVerdict {
    /// Forwarded unchanged.
    Allowed,
    /// Forwarded rewritten (masked, filtered, or with another expiry).
    Modified,
    /// Refused. `code` is the SQLSTATE (or protocol error word), `reason` holds no literal.
    Denied {
        /// SQLSTATE or protocol error word.
        code: String,
        /// Why, without any value of the statement.
        reason: String,
    },
}

impl StatementRecord {
    /// A statement that is allowed and touched by no rule; whoever decides fills in the rest. Of a
    /// long text only what an event can hold is kept, and a little more to tell that it was longer.
    pub fn new(
        fingerprint: String,
        normalized: Option<String>,
        text_bytes: usize,
        verbs: Vec<crate::facts::Verb>,
        relations: Vec<String>,
    ) -> Self {
        let normalized = normalized.map(|mut text| {
            text.truncate(text.ceil_char_boundary(ocsf::TEXT_BYTES_MAX + 1));
            text.shrink_to_fit();
            text
        });
        Self {
            normalized,
            fingerprint,
            text_bytes,
            verbs,
            relations,
            verdict: RecordedVerdict::Allowed,
            rules: Vec::new(),
            observed: Vec::new(),
            masked: Vec::new(),
            filtered: Vec::new(),
            json: Prepared::default(),
        }
    }
}

/// One audit event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened.
    pub at: Now,
    /// Which session; `None` for events of the process itself.
    pub session: Option<Arc<SessionRecord>>,
    /// Number of the event within its session, from 1; with the session uid it is the event's id.
    pub number: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A client logged in and its session began.
    SessionOpened {
        /// Authentication method the server asked for, e.g. `SCRAM-SHA-256`.
        method: &'static str,
    },
    /// A login was refused, by the server or by us.
    LoginFailed {
        /// SQLSTATE.
        code: String,
        /// Authentication method asked for, if it came to that.
        method: Option<&'static str>,
        /// Why, where the code does not say it; the client is not told.
        reason: Option<&'static str>,
    },
    /// The session ended.
    SessionClosed {
        /// Kind of the end (`client`, `server`, `protocol`, `policy`, `audit`, `shutdown`, `timeout`,
        /// `operator`).
        end: &'static str,
    },
    /// A statement was decided, before any byte of it was forwarded.
    Decision {
        /// The statement and its verdict.
        statement: Arc<StatementRecord>,
        /// Rules generation the decision was made under.
        generation: u64,
        /// A limit that refused it, whatever the recorded verdict says.
        limited_by: Option<crate::name::RuleId>,
        /// `true` when sent over the extended protocol.
        extended: bool,
    },
    /// What came of a statement that was forwarded.
    Outcome {
        /// The statement.
        statement: Arc<StatementRecord>,
        /// Rules generation the decision was made under.
        generation: u64,
        /// `number` of the decision event.
        decision: u64,
        /// Rows of the command tag, summed over the text's statements.
        rows: u64,
        /// Bytes sent to the client for it.
        bytes: u64,
        /// From forwarding to completion, microseconds.
        duration_us: u64,
        /// SQLSTATE of the server's error, if it failed.
        error: Option<[u8; 5]>,
        /// `true` when sent over the extended protocol.
        extended: bool,
    },
    /// Commands in a row were decided alike, before any byte of them was forwarded.
    CommandsDecided {
        /// Which.
        run: CommandRun,
        /// A limit that refused them, whatever the recorded verdict says.
        limited_by: Option<crate::name::RuleId>,
    },
    /// What came of commands that were forwarded.
    CommandsCompleted {
        /// Which: all of those of the decision, or some.
        run: CommandRun,
        /// `number` of the decision event.
        decision: u64,
        /// What came of them.
        result: RunResult,
    },
    /// A rule set was loaded or refused.
    Reload {
        /// Generation in force afterwards.
        generation: u64,
        /// SHA-256 of the rule set in force afterwards, hex.
        digest: String,
        /// How many problems refused the new set; zero when it was accepted.
        problems: usize,
        /// What caused it: `start`, `file`, `signal`, `admin`.
        trigger: &'static str,
    },
    /// The process started, stops, or drains.
    Lifecycle {
        /// `start` or `stop`.
        phase: &'static str,
    },
    /// An operator did something to a session.
    Operator {
        /// What: `session.end`.
        action: &'static str,
        /// Id of the session it was done to.
        target: String,
        /// Who asked, as far as is known: the address of the admin port's client.
        by: String,
        /// What gave the right: `token` or `local`.
        right: &'static str,
    },
    /// Events were lost because the queue was full and the configuration says to go on.
    Gap {
        /// How many.
        dropped: u64,
        /// When the first of them happened, microseconds since the Unix epoch; the last happened
        /// at the time of this event.
        since_us: u64,
    },
}
