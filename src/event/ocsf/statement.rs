//! Events of a statement: what was decided, and what came of it.

use crate::facts::{Verb, VerbClass};
use crate::name::RuleId;

use super::super::StatementRecord;
use super::super::json::Json;
use super::parts::{Judgement, Parts, Scribe, mask_enrichment, policy, rule_lists};
use super::process::members;
use super::{
    ENRICHMENTS, Frame, ID_BYTES_MAX, Kind, PATH_BYTES_MAX, RELATIONS, RULES, TEXT_BYTES_MAX, Trail,
};

/// A plan's part of its events, escaped once.
#[derive(Debug)]
pub struct StatementJson {
    /// Of these, the subject is the members `table`, `type_id` and `query_info`.
    parts: Parts,
    /// The verb the event goes by.
    verb: Verb,
}

/// How a statement came, and the rules it was decided under.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Word of the sub-protocol, with its dot.
    protocol: &'static str,
    generation: u64,
}

impl Form {
    pub(super) fn of(extended: bool, generation: u64) -> Self {
        Self { protocol: if extended { ".extended" } else { ".simple" }, generation }
    }
}

/// What came of a statement that was forwarded.
#[derive(Clone, Copy)]
pub(super) struct Completion<'a> {
    /// Number of the decision event.
    pub(super) decision: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) duration_us: u64,
    /// The server's SQLSTATE.
    pub(super) error: Option<&'a [u8; 5]>,
}

impl Frame<'_> {
    pub(super) fn decision(
        &self,
        json: &mut Json<'_>,
        statement: &StatementRecord,
        limited_by: Option<&RuleId>,
        form: Form,
    ) {
        let StatementJson { parts, verb } = statement.prepared();
        let judgement = parts.judgement.or_limited(limited_by);
        let severity = judgement.severity(least(*verb));
        self.head(json, Kind { class: 6005, activity: activity(*verb), severity });
        self.message(json, *verb, judgement.word());
        let cut = parts.cut || self.trail().cut;
        self.metadata(json, "statement.decided", Trail { decision: None, cut });
        self.who(json);
        json.members(&parts.subject);
        parts.decided(json, limited_by);
        self.own_fields(json, |json| {
            self.form(json, form, judgement);
            json.flag("forwarded", !judgement.refuses());
            json.members(&parts.own);
        });
    }

    pub(super) fn outcome(
        &self,
        json: &mut Json<'_>,
        statement: &StatementRecord,
        result: Completion<'_>,
        form: Form,
    ) {
        let StatementJson { parts, verb } = statement.prepared();
        let mut effect = parts.judgement.effect();
        let severity = parts.judgement.severity(least(*verb));
        self.head(json, Kind { class: 6005, activity: activity(*verb), severity });
        let word = if result.error.is_some() { "failed" } else { "completed" };
        self.message(json, *verb, word);
        let cut = parts.cut || self.trail().cut;
        self.metadata(json, "statement.completed", Trail { decision: Some(result.decision), cut });
        self.who(json);
        json.members(&parts.subject);
        if result.error.is_some() {
            effect.status = super::FAILURE;
        }
        effect.write(json);
        if let Some(code) = result.error.and_then(|code| std::str::from_utf8(code).ok()) {
            json.text("status_code", code, ID_BYTES_MAX);
        }
        json.members(&parts.policy);
        json.integer("duration", result.duration_us / 1000);
        self.own_fields(json, |json| {
            self.form(json, form, parts.judgement);
            json.word("class", verb.class().name());
            json.integer("rows", result.rows);
            json.integer("bytes", result.bytes);
            json.integer("duration_us", result.duration_us);
        });
    }

    /// `"message":"select masked"`; a verb nobody has an activity for is named beside it.
    fn message(&self, json: &mut Json<'_>, verb: Verb, word: &'static str) {
        if activity(verb) == OTHER {
            json.word("activity_name", verb.name());
        }
        json.joined("message", &[verb.name().as_bytes(), b" ", word.as_bytes()]);
    }

    fn form(&self, json: &mut Json<'_>, form: Form, judgement: Judgement) {
        let protocol = self.session().map_or("", |session| session.protocol);
        json.joined("protocol", &[protocol.as_bytes(), form.protocol.as_bytes()]);
        json.integer("rules_generation", form.generation);
        json.word("decision", judgement.word());
    }
}

// === impl StatementRecord ===

impl StatementRecord {
    fn prepared(&self) -> &StatementJson {
        self.json.get_or_make(|| self.prepare())
    }

    fn prepare(&self) -> StatementJson {
        let judgement = self.judgement();
        let mut scribe = Scribe::default();
        let parts = Parts {
            subject: scribe.part(|json| self.subject(json)),
            enrichments: scribe.part(|json| self.enrichments(json)),
            refusal: scribe.part(|json| super::parts::refusal(json, &self.verdict)),
            own: scribe.part(|json| self.own(json)),
            policy: self.policy(judgement),
            judgement,
            cut: scribe.cut,
        };
        StatementJson { parts, verb: self.leading_verb() }
    }

    /// The verb with the greatest consequence names the event: `EXPLAIN DELETE` is a delete.
    fn leading_verb(&self) -> Verb {
        let rank = |verb: &Verb| BY_CONSEQUENCE.iter().position(|id| *id == activity(*verb));
        self.verbs.iter().copied().min_by_key(|verb| rank(verb)).unwrap_or(Verb::Empty)
    }

    /// What the decision amounts to.
    pub fn judgement(&self) -> Judgement {
        Judgement::of(&self.verdict, (!self.masked.is_empty(), !self.observed.is_empty()))
    }

    fn subject(&self, json: &mut Json<'_>) {
        if let Some(relation) = self.relations.first() {
            json.object("table", |json| json.text("name", relation, PATH_BYTES_MAX));
        }
        json.integer("type_id", if self.relations.is_empty() { 1 } else { 3 });
        json.object("query_info", |json| {
            let text = self.normalized.as_deref().unwrap_or("");
            json.text("query_string", text, TEXT_BYTES_MAX);
            json.text("uid", &self.fingerprint, ID_BYTES_MAX);
        });
    }

    fn enrichments(&self, json: &mut Json<'_>) {
        let masks = self.masked.iter().map(|(column, function, class)| Enrichment::Mask {
            column,
            function,
            class: class.as_deref(),
        });
        let filters =
            self.filtered.iter().map(|(relation, rule)| Enrichment::Filter { relation, rule });
        let all: Vec<Enrichment<'_>> = masks.chain(filters).collect();
        if !all.is_empty() {
            json.list("enrichments", all.iter(), ENRICHMENTS, |json, enrichment| {
                json.item(|json| enrichment.write(json));
            });
        }
    }

    fn policy(&self, judgement: Judgement) -> Box<[u8]> {
        let rule = self.rules.first().or(self.observed.first());
        let Some(rule) = rule else { return Box::default() };
        let is_filter = self.filtered.iter().any(|(_, filter)| filter == rule);
        let kind = match judgement {
            Judgement::Masked | Judgement::Filtered if is_filter => "row_filter",
            Judgement::Masked => "mask",
            Judgement::Filtered
            | Judgement::Allowed
            | Judgement::Observed
            | Judgement::Denied
            | Judgement::Rewritten
            | Judgement::Limited => "access",
        };
        members(|json| json.object("policy", |json| policy(json, rule, kind, judgement)))
    }

    fn own(&self, json: &mut Json<'_>) {
        json.word("class", self.leading_verb().class().name());
        let verbs = super::Bounds { items_max: Verb::ALL.len(), bytes_max: RULES.bytes_max };
        json.list("commands", self.verbs.iter(), verbs, |json, verb| {
            json.item_text(verb.name(), ID_BYTES_MAX);
        });
        let missing = json.list("relations", self.relations.iter(), RELATIONS, |json, relation| {
            json.item_text(relation, PATH_BYTES_MAX);
        });
        if missing > 0 {
            json.integer("relations_omitted", u64::try_from(missing).unwrap_or(u64::MAX));
        }
        rule_lists(json, &self.rules, &self.observed);
        if !self.masked.is_empty() {
            let masked = u64::try_from(self.masked.len()).unwrap_or(u64::MAX);
            json.integer("masked_columns", masked);
        }
        json.integer("text_bytes", u64::try_from(self.text_bytes).unwrap_or(u64::MAX));
    }
}

/// What a rewrite did to one relation or column.
enum Enrichment<'a> {
    Mask { column: &'a str, function: &'static str, class: Option<&'a str> },
    Filter { relation: &'a str, rule: &'a RuleId },
}

impl Enrichment<'_> {
    fn write(&self, json: &mut Json<'_>) {
        match self {
            Self::Mask { column, function, class } => {
                mask_enrichment(json, ("table.columns", column), (function, *class));
            }
            Self::Filter { relation, rule } => {
                json.word("name", "table");
                json.text("value", relation, PATH_BYTES_MAX);
                json.word("type", "row_filter");
                json.object("data", |json| json.text("rule", &rule.0, ID_BYTES_MAX));
            }
        }
    }
}

/// A change of definitions or privileges is never below a `severity_id` of 2.
fn least(verb: Verb) -> u8 {
    match verb.class() {
        VerbClass::Ddl | VerbClass::Role => 2,
        VerbClass::Read | VerbClass::Write | VerbClass::Function | VerbClass::Misc => 1,
    }
}

pub(super) const READ: u8 = 1;
const UPDATE: u8 = 2;
const QUERY: u8 = 4;
pub(super) const WRITE: u8 = 5;
const CREATE: u8 = 6;
pub(super) const DELETE: u8 = 7;
pub(super) const OTHER: u8 = 99;

/// Activities from the greatest consequence to the least.
const BY_CONSEQUENCE: [u8; 7] = [DELETE, UPDATE, CREATE, WRITE, QUERY, READ, OTHER];

/// `activity_id` of a verb in class 6005.
fn activity(verb: Verb) -> u8 {
    match verb {
        Verb::Select | Verb::CopyTo | Verb::Declare | Verb::Fetch => QUERY,
        Verb::Insert | Verb::CopyFrom | Verb::Set => WRITE,
        Verb::Update
        | Verb::Merge
        | Verb::SetRole
        | Verb::AlterTable
        | Verb::Alter
        | Verb::Refresh
        | Verb::Grant
        | Verb::Role => UPDATE,
        Verb::Delete | Verb::Truncate | Verb::Drop => DELETE,
        Verb::CreateTable
        | Verb::CreateTableAs
        | Verb::CreateView
        | Verb::CreateIndex
        | Verb::CreateFunction
        | Verb::Create => CREATE,
        Verb::Show => READ,
        Verb::CopyServerFile
        | Verb::Explain
        | Verb::Discard
        | Verb::Begin
        | Verb::Commit
        | Verb::Rollback
        | Verb::Savepoint
        | Verb::PrepareTransaction
        | Verb::Lock
        | Verb::Close
        | Verb::Prepare
        | Verb::Execute
        | Verb::Deallocate
        | Verb::Listen
        | Verb::Unlisten
        | Verb::Notify
        | Verb::Do
        | Verb::Call
        | Verb::Load
        | Verb::Vacuum
        | Verb::Admin
        | Verb::FunctionCall
        | Verb::Replication
        | Verb::Empty => OTHER,
    }
}
