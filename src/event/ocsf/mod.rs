//! The OCSF 1.8.0 form of each event: which class, which activity, which attributes.
//!
//! | event | class / activity |
//! |---|---|
//! | decision, outcome | 6005 Datastore Activity, activity of the verb |
//! | commands decided, completed | 6005, activity of the command |
//! | session opened, login failed | 3002 Authentication / 1 Logon |
//! | session closed | 6005 / 99 Disconnect |
//! | rules loaded or refused | 3004 Entity Management / 3 Update |
//! | session ended by an operator | 3004 / 4 Delete |
//! | process started, stopped | 6002 Application Lifecycle / 3 Start, 4 Stop |
//! | gap | 2004 Detection Finding / 1 Create |
//!
//! What OCSF has no attribute for stands under `unmapped.portcullis`, whose `schema` counts up
//! when a field changes its meaning.

mod command;
mod parts;
mod process;
mod session;
mod statement;

pub use command::CommandJson;
pub use parts::Judgement;
pub use process::Instance;
pub use session::SessionJson;
pub use statement::StatementJson;

use super::json::{Bounds, Json};
use super::{Event, EventKind, Now, SessionRecord};

/// The version of the schema every event names.
const OCSF_VERSION: &str = "1.8.0";

/// The version of our own fields under `unmapped.portcullis`.
const SCHEMA: &str = "1";

/// Longest statement text in an event, encoded bytes: enough to recognise any statement a person
/// wrote.
pub(super) const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Longest name a client chooses (user, application, database), encoded bytes. PostgreSQL keeps
/// 63 bytes of each; six bytes are the most an escaped one needs.
const NAME_BYTES_MAX: usize = 384;

/// Longest `schema.table` or `schema.table.column`, encoded bytes.
const PATH_BYTES_MAX: usize = 1024;

/// Longest reason of a refusal, encoded bytes.
const REASON_BYTES_MAX: usize = 1024;

/// Longest id (session, instance, rule, fingerprint), encoded bytes.
const ID_BYTES_MAX: usize = 256;

/// Roles of a user.
const ROLES: Bounds = Bounds { items_max: 64, bytes_max: 2 * 1024 };

/// Relations of a statement.
const RELATIONS: Bounds = Bounds { items_max: 64, bytes_max: 4 * 1024 };

/// Masked columns and filtered relations of a statement.
const ENRICHMENTS: Bounds = Bounds { items_max: 256, bytes_max: 10 * 1024 };

/// Rules of a statement, each of the two lists.
const RULES: Bounds = Bounds { items_max: 64, bytes_max: 1024 };

/// An event is never longer than this, in bytes; the bounds above add up to less.
#[cfg(test)]
pub(super) const EVENT_BYTES_MAX: usize = 32 * 1024;

impl Event {
    /// Appends the event as one JSON object without a line end, in OCSF 1.8.0.
    ///
    /// `sequence` numbers the lines an instance writes, from 1; a hole in it is a lost line.
    pub fn write_json(&self, instance: &Instance, sequence: u64, out: &mut Vec<u8>) {
        let frame = Frame { event: self, instance, sequence };
        Json::new(out).whole(|json| frame.write(json));
    }
}

/// One event on its way to bytes.
struct Frame<'a> {
    event: &'a Event,
    instance: &'a Instance,
    sequence: u64,
}

impl Frame<'_> {
    fn write(&self, json: &mut Json<'_>) {
        match &self.event.kind {
            EventKind::SessionOpened { method } => self.session_opened(json, method),
            EventKind::LoginFailed { code, method, reason } => {
                self.login_failed(json, code, (*method, *reason));
            }
            EventKind::SessionClosed { end } => self.session_closed(json, end),
            EventKind::Decision { statement, generation, limited_by, extended } => {
                let form = statement::Form::of(*extended, *generation);
                self.decision(json, statement, limited_by.as_ref(), form);
            }
            EventKind::Outcome {
                statement,
                generation,
                decision,
                rows,
                bytes,
                duration_us,
                error,
                extended,
            } => {
                let form = statement::Form::of(*extended, *generation);
                let result = statement::Completion {
                    decision: *decision,
                    rows: *rows,
                    bytes: *bytes,
                    duration_us: *duration_us,
                    error: error.as_ref(),
                };
                self.outcome(json, statement, result, form);
            }
            EventKind::CommandsDecided { run, limited_by } => {
                self.commands_decided(json, run, limited_by.as_ref());
            }
            EventKind::CommandsCompleted { run, decision, result } => {
                self.commands_completed(json, run, (*decision, *result));
            }
            EventKind::Reload { generation, digest, problems, trigger } => {
                let rules = process::Rules { generation: *generation, digest, problems: *problems };
                self.reload(json, rules, trigger);
            }
            EventKind::Lifecycle { phase } => self.lifecycle(json, phase),
            EventKind::Operator { action, target, by, right } => {
                self.operator(json, action, process::Request { target, by, right });
            }
            EventKind::Gap { dropped, since_us } => self.gap(json, *dropped, *since_us),
        }
    }

    /// Class, activity, time and severity.
    fn head(&self, json: &mut Json<'_>, kind: Kind) {
        let Kind { class, activity, severity } = kind;
        json.integer("activity_id", u64::from(activity));
        json.integer("category_uid", class / 1000);
        json.integer("class_uid", class);
        json.integer("type_uid", class * 100 + u64::from(activity));
        json.integer("time", millis(self.event.at));
        json.integer("severity_id", u64::from(severity));
    }

    /// `metadata` and `device`. `decision` is the number of the decision an outcome belongs to.
    fn metadata(&self, json: &mut Json<'_>, code: &'static str, trail: Trail) {
        json.object("metadata", |json| {
            json.members(&self.instance.metadata);
            json.word("event_code", code);
            self.uid(json, "uid", self.event.number);
            if let Some(decision) = trail.decision {
                self.uid(json, "original_event_uid", decision);
            }
            json.integer("sequence", self.sequence);
            if trail.cut {
                json.flag("is_truncated", true);
            }
        });
        json.members(&self.instance.device);
    }

    /// `<session uid>.<number>`; events of the process itself count by line.
    fn uid(&self, json: &mut Json<'_>, key: &str, number: u64) {
        let mut digits = Vec::with_capacity(20);
        match &self.event.session {
            Some(session) => {
                super::json::integer(&mut digits, number);
                json.joined(key, &[&session.prepared().uid, b".", &digits]);
            }
            None => {
                super::json::integer(&mut digits, self.sequence);
                json.joined(key, &[&self.instance.uid, b".", &digits]);
            }
        }
    }

    /// Our own fields.
    fn unmapped(&self, json: &mut Json<'_>, members: impl FnOnce(&mut Json<'_>)) {
        json.object("unmapped", |json| {
            json.object("portcullis", |json| {
                json.word("schema", SCHEMA);
                json.integer("time_us", self.event.at.wall_us);
                members(json);
            });
        });
    }

    fn session(&self) -> Option<&SessionRecord> {
        self.event.session.as_deref()
    }
}

/// Class, activity and severity of an event.
#[derive(Clone, Copy)]
struct Kind {
    class: u64,
    activity: u8,
    severity: u8,
}

/// What an event's metadata says besides its identity.
#[derive(Clone, Copy, Default)]
struct Trail {
    /// Number of the decision this event completes.
    decision: Option<u64>,
    /// A part did not fit its bound.
    cut: bool,
}

/// What was done: `action_id`, `disposition_id` and `status_id`.
#[derive(Clone, Copy)]
struct Effect {
    action: u64,
    disposition: u64,
    status: u64,
}

impl Effect {
    const ALLOWED: Self = Self { action: 1, disposition: 1, status: SUCCESS };
    const BLOCKED: Self = Self { action: 2, disposition: 2, status: FAILURE };
    const REJECTED: Self = Self { action: 2, disposition: 25, status: FAILURE };
    const UNAUTHORIZED: Self = Self { action: 2, disposition: 26, status: FAILURE };
    const LOGGED: Self = Self { action: 3, disposition: 17, status: SUCCESS };
    const ALERTED: Self = Self { action: 3, disposition: 19, status: 1 };
    const CORRECTED: Self = Self { action: 4, disposition: 11, status: SUCCESS };

    fn write(self, json: &mut Json<'_>) {
        json.integer("action_id", self.action);
        json.integer("disposition_id", self.disposition);
        json.integer("status_id", self.status);
    }
}

/// `status_id` of what went well.
const SUCCESS: u64 = 1;

/// `status_id` of what did not.
const FAILURE: u64 = 2;

/// Milliseconds since the Unix epoch, as OCSF counts time.
fn millis(at: Now) -> u64 {
    at.wall_us / 1000
}
