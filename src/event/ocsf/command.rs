//! Events of commands to a key-value store: what was decided about a run, and what came of it.

use super::super::command::{CommandClass, CommandRecord, CommandRun, RecordedMask, RunResult};
use super::super::json::Json;
use super::statement::{DELETE, Judgement, OTHER, READ, WRITE, policy};
use super::{ENRICHMENTS, Frame, ID_BYTES_MAX, Kind, PATH_BYTES_MAX, RULES, TEXT_BYTES_MAX, Trail};
use crate::name::RuleId;

/// A record's part of its events, escaped once.
#[derive(Debug)]
pub struct CommandJson {
    /// The members `type_id` and `query_info`.
    subject: Box<[u8]>,
    /// The member `enrichments`: what is masked.
    enrichments: Box<[u8]>,
    /// The member `policy`; empty when no rule shaped the decision.
    policy: Box<[u8]>,
    /// The members `status_code` and `status_detail` of a refusal.
    refusal: Box<[u8]>,
    /// Our own members of the decision.
    own: Box<[u8]>,
    judgement: Judgement,
    /// A part did not fit its bound.
    cut: bool,
}

impl Frame<'_> {
    pub(super) fn commands_decided(
        &self,
        json: &mut Json<'_>,
        run: &CommandRun,
        limited_by: Option<&RuleId>,
    ) {
        let record = &*run.record;
        let prepared = record.prepared();
        let judgement = if limited_by.is_some() { Judgement::Limited } else { prepared.judgement };
        self.opening(json, record, (judgement, judgement.word()));
        let cut = prepared.cut || self.trail().cut;
        self.metadata(json, "commands.decided", Trail { decision: None, cut });
        self.who(json);
        json.members(&prepared.subject);
        json.integer("count", run.count);
        judgement.effect().write(json);
        if judgement.refuses() {
            json.flag("is_alert", true);
        }
        match limited_by {
            Some(rule) => {
                json.object("policy", |json| policy(json, rule, "rate_limit", Judgement::Limited));
                json.word("status_detail", "rate limit exceeded");
            }
            None => {
                json.members(&prepared.policy);
                json.members(&prepared.refusal);
            }
        }
        json.members(&prepared.enrichments);
        self.own_fields(json, |json| {
            self.run(json, run, judgement);
            json.flag("forwarded", !judgement.refuses());
            json.members(&prepared.own);
        });
    }

    pub(super) fn commands_completed(
        &self,
        json: &mut Json<'_>,
        run: &CommandRun,
        (decision, result): (u64, RunResult),
    ) {
        let record = &*run.record;
        let prepared = record.prepared();
        let RunResult { failed, error, bytes, duration_us } = result;
        let word = if failed > 0 { "failed" } else { "completed" };
        self.opening(json, record, (prepared.judgement, word));
        let cut = prepared.cut || self.trail().cut;
        self.metadata(json, "commands.completed", Trail { decision: Some(decision), cut });
        self.who(json);
        json.members(&prepared.subject);
        json.integer("count", run.count);
        let mut effect = prepared.judgement.effect();
        if failed > 0 {
            effect.status = super::FAILURE;
        }
        effect.write(json);
        if let Some(error) = error {
            json.word("status_code", error.word());
        }
        json.members(&prepared.policy);
        json.integer("duration", duration_us / 1000);
        self.own_fields(json, |json| {
            self.run(json, run, prepared.judgement);
            json.word("class", record.class.audited());
            json.integer("failed", failed);
            json.integer("bytes", bytes);
            json.integer("duration_us", duration_us);
        });
    }

    /// Class, activity, severity and message.
    fn opening(
        &self,
        json: &mut Json<'_>,
        record: &CommandRecord,
        (judgement, word): (Judgement, &'static str),
    ) {
        let activity = record.activity();
        let severity = judgement.severity(record.class.severity());
        self.head(json, Kind { class: 6005, activity, severity });
        if activity == OTHER {
            json.text("activity_name", &record.command, ID_BYTES_MAX);
        }
        // Names of commands are the table's, lower-case letters and bars: nothing to escape.
        json.joined("message", &[record.command.as_bytes(), b" ", word.as_bytes()]);
    }

    fn run(&self, json: &mut Json<'_>, run: &CommandRun, judgement: Judgement) {
        json.word("protocol", self.session().map_or("", |session| session.protocol));
        json.integer("rules_generation", run.generation);
        json.word("decision", judgement.word());
        json.integer("database_index", u64::from(run.database));
    }
}

impl CommandRecord {
    fn prepared(&self) -> &CommandJson {
        self.json.get_or_make(|| self.prepare())
    }

    fn prepare(&self) -> CommandJson {
        let judgement =
            Judgement::of(&self.verdict, (!self.masked.is_empty(), !self.observed.is_empty()));
        let mut cut = false;
        let mut part = |write: &dyn Fn(&mut Json<'_>)| -> Box<[u8]> {
            let mut out = Vec::new();
            let mut json = Json::new(&mut out);
            write(&mut json);
            cut |= json.is_cut();
            out.into()
        };
        CommandJson {
            subject: part(&|json| self.subject(json)),
            enrichments: part(&|json| self.enrichments(json)),
            policy: part(&|json| self.policy(json, judgement)),
            refusal: part(&|json| super::statement::refusal(json, &self.verdict)),
            own: part(&|json| self.own(json)),
            judgement,
            cut,
        }
    }

    fn activity(&self) -> u8 {
        match self.class {
            _ if REMOVES.contains(&&*self.command) => DELETE,
            CommandClass::Read => READ,
            CommandClass::Write => WRITE,
            CommandClass::PubSub
            | CommandClass::Transaction
            | CommandClass::Script
            | CommandClass::Connection
            | CommandClass::Admin
            | CommandClass::Other => OTHER,
        }
    }

    /// The command with the patterns its keys fitted: `GET session:*`.
    fn subject(&self, json: &mut Json<'_>) {
        json.integer("type_id", 1);
        json.object("query_info", |json| {
            let mut text = self.command.to_ascii_uppercase().replace('|', " ");
            for pattern in &self.patterns {
                text.push(' ');
                text.push_str(pattern);
            }
            json.text("query_string", &text, TEXT_BYTES_MAX);
            json.text("uid", &format!("cmd:{}", self.command), ID_BYTES_MAX);
        });
    }

    fn enrichments(&self, json: &mut Json<'_>) {
        if self.masked.is_empty() {
            return;
        }
        json.list("enrichments", self.masked.iter(), ENRICHMENTS, |json, mask| {
            let RecordedMask { pattern, function, class } = mask;
            json.item(|json| {
                json.word("name", "value");
                json.text("value", pattern, PATH_BYTES_MAX);
                json.word("type", "mask");
                json.object("data", |json| {
                    json.word("fn", function);
                    if let Some(class) = class {
                        json.text("class", class, ID_BYTES_MAX);
                    }
                });
            });
        });
    }

    fn policy(&self, json: &mut Json<'_>, judgement: Judgement) {
        let Some(rule) = self.rules.first().or(self.observed.first()) else { return };
        let kind = match judgement {
            Judgement::Masked => "mask",
            Judgement::Filtered
            | Judgement::Allowed
            | Judgement::Observed
            | Judgement::Denied
            | Judgement::Limited => "access",
        };
        json.object("policy", |json| policy(json, rule, kind, judgement));
    }

    fn own(&self, json: &mut Json<'_>) {
        json.word("class", self.class.audited());
        json.list("commands", std::iter::once(&*self.command), RULES, |json, name| {
            json.item_text(name, ID_BYTES_MAX);
        });
        for (key, rules) in [("rules", &self.rules), ("observed", &self.observed)] {
            if !rules.is_empty() {
                json.list(key, rules.iter(), RULES, |json, rule| {
                    json.item_text(&rule.0, ID_BYTES_MAX);
                });
            }
        }
    }
}

impl CommandClass {
    /// In the words statements are classed by.
    fn audited(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::Script => "FUNCTION",
            Self::PubSub | Self::Transaction | Self::Connection | Self::Admin | Self::Other => {
                "MISC"
            }
        }
    }

    /// `severity_id` whatever was decided: administering the server is never below 2.
    fn severity(self) -> u8 {
        match self {
            Self::Admin => 2,
            Self::Read
            | Self::Write
            | Self::PubSub
            | Self::Transaction
            | Self::Script
            | Self::Connection
            | Self::Other => 1,
        }
    }
}

/// Commands that do nothing but remove.
const REMOVES: [&str; 4] = ["del", "flushall", "flushdb", "unlink"];
