//! Events of the process itself: rules loaded, started and stopped, lost events.

use super::super::json::{Json, escape};
use super::{Effect, Frame, ID_BYTES_MAX, Kind, NAME_BYTES_MAX, OCSF_VERSION, Trail};

/// Which process writes the trail; its part of each event, escaped once.
#[derive(Clone, Debug)]
pub struct Instance {
    pub(super) uid: Box<[u8]>,
    /// Members of `metadata`.
    pub(super) metadata: Box<[u8]>,
    /// The member `device`.
    pub(super) device: Box<[u8]>,
    /// The member `process`, for the actor of the process's own events.
    process: Box<[u8]>,
    /// Members of `product`, for the application the process is.
    product: Box<[u8]>,
}

impl Instance {
    /// `version` of the product; `hostname` it runs on; `uid` unique to this run of the process
    /// (with a line's number it is the id of the process's own events); `pid` of the process.
    pub fn new(version: &str, hostname: &str, uid: &str, pid: u32) -> Self {
        let product = members(|json| {
            json.word("name", "portcullis");
            json.word("vendor_name", "Portcullis");
            json.text("version", version, ID_BYTES_MAX);
        });
        let mut escaped = Vec::new();
        escape(&mut escaped, uid, ID_BYTES_MAX);
        Self {
            metadata: members(|json| {
                json.word("version", OCSF_VERSION);
                json.object("product", |json| json.members(&product));
                json.word("log_name", "audit");
                json.members(br#""profiles":["security_control","host"]"#);
            }),
            device: members(|json| {
                json.object("device", |json| {
                    json.text("hostname", hostname, NAME_BYTES_MAX);
                    json.text("uid", uid, ID_BYTES_MAX);
                    json.integer("type_id", 99);
                    json.word("type", "Database Proxy");
                });
            }),
            process: members(|json| {
                json.object("process", |json| {
                    json.word("name", "portcullis");
                    json.integer("pid", u64::from(pid));
                });
            }),
            uid: escaped.into(),
            product,
        }
    }
}

/// The rule set in force after a reload.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) generation: u64,
    pub(super) digest: &'a str,
    /// How many problems refused the new set.
    pub(super) problems: usize,
}

/// What an operator asked for.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    /// Id of the session.
    pub(super) target: &'a str,
    /// Who asked.
    pub(super) by: &'a str,
    /// What gave the right.
    pub(super) right: &'static str,
}

impl Frame<'_> {
    pub(super) fn reload(&self, json: &mut Json<'_>, rules: Rules<'_>, trigger: &'static str) {
        let accepted = rules.problems == 0;
        self.head(json, Kind { class: 3004, activity: 3, severity: if accepted { 1 } else { 4 } });
        json.word("message", if accepted { "rule set loaded" } else { "rule set refused" });
        self.metadata(json, "rules.reloaded", Trail::default());
        json.object("actor", |json| json.members(&self.instance.process));
        json.object("entity", |json| {
            json.word("name", "rules");
            json.word("type", "Policy");
            json.integer("type_id", 5);
            json.text("uid", rules.digest, ID_BYTES_MAX);
            let mut generation = Vec::new();
            super::super::json::integer(&mut generation, rules.generation);
            json.joined("version", &[&generation]);
        });
        if accepted {
            Effect::ALLOWED.write(json);
        } else {
            Effect::REJECTED.write(json);
            json.word("status_detail", "the rule set in force before stays in force");
        }
        self.unmapped(json, |json| {
            json.word("trigger", trigger);
            json.integer("rules_generation", rules.generation);
            json.integer("problems", u64::try_from(rules.problems).unwrap_or(u64::MAX));
        });
    }

    pub(super) fn operator(&self, json: &mut Json<'_>, action: &'static str, request: Request<'_>) {
        let Request { target, by, right } = request;
        self.head(json, Kind { class: 3004, activity: 4, severity: 2 });
        json.word("message", "session ended by an operator");
        self.metadata(json, "operator.session_end", Trail::default());
        json.object("actor", |json| json.members(&self.instance.process));
        json.object("entity", |json| {
            json.word("name", "session");
            json.word("type", "Session");
            json.integer("type_id", 99);
            json.text("uid", target, ID_BYTES_MAX);
        });
        Effect::ALLOWED.write(json);
        self.unmapped(json, |json| {
            json.word("action", action);
            json.text("session_uid", target, ID_BYTES_MAX);
            json.text("asked_by", by, NAME_BYTES_MAX);
            json.word("right", right);
        });
    }

    pub(super) fn lifecycle(&self, json: &mut Json<'_>, phase: &'static str) {
        let activity = match phase {
            "start" => 3,
            "stop" => 4,
            _ => 99,
        };
        self.head(json, Kind { class: 6002, activity, severity: 1 });
        json.word("activity_name", phase);
        json.joined("message", &[b"process ", phase.as_bytes()]);
        self.metadata(json, "process.lifecycle", Trail::default());
        json.object("actor", |json| json.members(&self.instance.process));
        json.object("app", |json| json.members(&self.instance.product));
        json.integer("status_id", super::SUCCESS);
        self.unmapped(json, |_| {});
    }

    pub(super) fn gap(&self, json: &mut Json<'_>, dropped: u64, since_us: u64) {
        self.head(json, Kind { class: 2004, activity: 1, severity: 4 });
        json.word("message", "audit events lost: the queue was full");
        self.metadata(json, "audit.gap", Trail::default());
        json.object("finding_info", |json| {
            json.word("title", "Audit events lost");
            self.uid(json, "uid", self.event.number);
        });
        json.flag("is_alert", true);
        json.integer("count", dropped);
        json.integer("start_time", since_us / 1000);
        json.integer("end_time", super::millis(self.event.at));
        Effect::ALERTED.write(json);
        self.unmapped(json, |json| json.integer("dropped", dropped));
    }
}

/// Members encoded ahead of time.
pub(super) fn members(write: impl FnOnce(&mut Json<'_>)) -> Box<[u8]> {
    let mut out = Vec::new();
    write(&mut Json::new(&mut out));
    out.into()
}
