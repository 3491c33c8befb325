//! Events of commands to a key-value store: what was decided about a run, and what came of it.

use super::super::command::{
    CommandClass, CommandRecord, CommandRun, RecordedExpiry, RecordedMask, RunResult,
};
use super::super::json::Json;
use super::parts::{Judgement, Parts, Scribe, mask_enrichment, policy, rule_lists};
use super::statement::{DELETE, OTHER, READ, WRITE};
use super::{ENRICHMENTS, Frame, ID_BYTES_MAX, Kind, RULES, TEXT_BYTES_MAX, Trail};
use crate::name::RuleId;

/// A record's part of its events, escaped once. Its subject is the members `type_id` and
/// `query_info`.
#[derive(Debug)]
pub struct CommandJson(Parts);

impl Frame<'_> {
    pub(super) fn commands_decided(
        &self,
        json: &mut Json<'_>,
        run: &CommandRun,
        limited_by: Option<&RuleId>,
    ) {
        let record = &*run.record;
        let CommandJson(parts) = record.prepared();
        let judgement = parts.judgement.or_limited(limited_by);
        self.opening(json, record, (judgement, judgement.word()));
        let cut = parts.cut || self.trail().cut;
        self.metadata(json, "commands.decided", Trail { decision: None, cut });
        self.who(json);
        json.members(&parts.subject);
        json.integer("count", run.count);
        parts.decided(json, limited_by);
        self.own_fields(json, |json| {
            self.run(json, run, judgement);
            json.flag("forwarded", !judgement.refuses());
            json.members(&parts.own);
        });
    }

    pub(super) fn commands_completed(
        &self,
        json: &mut Json<'_>,
        run: &CommandRun,
        (decision, result): (u64, RunResult),
    ) {
        let record = &*run.record;
        let CommandJson(parts) = record.prepared();
        let RunResult { later: _, failed, error, bytes, duration_us } = result;
        let word = if failed > 0 { "failed" } else { "completed" };
        self.opening(json, record, (parts.judgement, word));
        let cut = parts.cut || self.trail().cut;
        self.metadata(json, "commands.completed", Trail { decision: Some(decision), cut });
        self.who(json);
        json.members(&parts.subject);
        json.integer("count", run.count);
        let mut effect = parts.judgement.effect();
        if failed > 0 {
            effect.status = super::FAILURE;
        }
        effect.write(json);
        if let Some(error) = error {
            json.word("status_code", error.word());
        }
        json.members(&parts.policy);
        json.integer("duration", duration_us / 1000);
        self.own_fields(json, |json| {
            self.run(json, run, parts.judgement);
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
        let judgement = self.judgement();
        let mut scribe = Scribe::default();
        CommandJson(Parts {
            subject: scribe.part(|json| self.subject(json)),
            enrichments: scribe.part(|json| self.enrichments(json)),
            policy: scribe.part(|json| self.policy(json, judgement)),
            refusal: scribe.part(|json| super::parts::refusal(json, &self.verdict)),
            own: scribe.part(|json| self.own(json)),
            judgement,
            cut: scribe.cut,
        })
    }

    /// What the decision amounts to.
    pub fn judgement(&self) -> Judgement {
        match Judgement::of(&self.verdict, (!self.masked.is_empty(), !self.observed.is_empty())) {
            // Commands have no rows.
            Judgement::Filtered => Judgement::Rewritten,
            other @ (Judgement::Allowed
            | Judgement::Observed
            | Judgement::Masked
            | Judgement::Rewritten
            | Judgement::Denied
            | Judgement::Limited) => other,
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
        let masks = self.masked.iter().map(Enrichment::Mask);
        let all: Vec<_> = self.expiry.iter().map(Enrichment::Expiry).chain(masks).collect();
        if all.is_empty() {
            return;
        }
        json.list("enrichments", all.into_iter(), ENRICHMENTS, |json, one| {
            json.item(|json| one.write(json));
        });
    }

    fn policy(&self, json: &mut Json<'_>, judgement: Judgement) {
        let Some(rule) = self.rules.first().or(self.observed.first()) else { return };
        let kind = match judgement {
            Judgement::Masked => "mask",
            Judgement::Rewritten => "ttl",
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
        rule_lists(json, &self.rules, &self.observed);
    }
}

/// What is added to, or taken from, what the client asked for.
enum Enrichment<'a> {
    Mask(&'a RecordedMask),
    Expiry(&'a RecordedExpiry),
}

impl Enrichment<'_> {
    fn write(&self, json: &mut Json<'_>) {
        match self {
            Self::Mask(RecordedMask { pattern, function, class }) => {
                mask_enrichment(json, ("value", pattern), (function, class.as_deref()));
            }
            Self::Expiry(RecordedExpiry { ms, rule }) => {
                json.word("name", "expiry");
                json.text("value", &format!("{ms} ms"), ID_BYTES_MAX);
                json.word("type", "ttl");
                json.object("data", |json| json.text("rule", &rule.0, ID_BYTES_MAX));
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
