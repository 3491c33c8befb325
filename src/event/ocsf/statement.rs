//! Events of a statement: what was decided, and what came of it.

use crate::facts::{Verb, VerbClass};
use crate::name::RuleId;

use super::super::json::Json;
use super::super::{RecordedVerdict, StatementRecord};
use super::process::members;
use super::{
    ENRICHMENTS, Effect, Frame, ID_BYTES_MAX, Kind, PATH_BYTES_MAX, REASON_BYTES_MAX, RELATIONS,
    RULES, TEXT_BYTES_MAX, Trail,
};

/// A plan's part of its events, escaped once.
#[derive(Debug)]
pub struct StatementJson {
    /// The members `table`, `type_id` and `query_info`.
    subject: Box<[u8]>,
    /// The member `enrichments`: masked columns and filtered relations.
    enrichments: Box<[u8]>,
    /// The member `policy`; empty when no rule shaped the decision.
    policy: Box<[u8]>,
    /// The members `status_code` and `status_detail` of a refusal.
    refusal: Box<[u8]>,
    /// Our own members of the decision.
    own: Box<[u8]>,
    /// The verb the event goes by.
    verb: Verb,
    judgement: Judgement,
    /// A part did not fit its bound.
    cut: bool,
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
        let prepared = statement.prepared();
        let judgement = if limited_by.is_some() { Judgement::Limited } else { prepared.judgement };
        let activity = activity(prepared.verb);
        self.head(
            json,
            Kind { class: 6005, activity, severity: judgement.severity(least(prepared.verb)) },
        );
        self.message(json, prepared.verb, judgement.word());
        let cut = prepared.cut || self.trail().cut;
        self.metadata(json, "statement.decided", Trail { decision: None, cut });
        self.who(json);
        json.members(&prepared.subject);
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
            self.form(json, form, judgement);
            json.flag("forwarded", !judgement.refuses());
            json.members(&prepared.own);
        });
    }

    pub(super) fn outcome(
        &self,
        json: &mut Json<'_>,
        statement: &StatementRecord,
        result: Completion<'_>,
        form: Form,
    ) {
        let prepared = statement.prepared();
        let mut effect = prepared.judgement.effect();
        let activity = activity(prepared.verb);
        let severity = prepared.judgement.severity(least(prepared.verb));
        self.head(json, Kind { class: 6005, activity, severity });
        let word = if result.error.is_some() { "failed" } else { "completed" };
        self.message(json, prepared.verb, word);
        let cut = prepared.cut || self.trail().cut;
        self.metadata(json, "statement.completed", Trail { decision: Some(result.decision), cut });
        self.who(json);
        json.members(&prepared.subject);
        if result.error.is_some() {
            effect.status = super::FAILURE;
        }
        effect.write(json);
        if let Some(code) = result.error.and_then(|code| std::str::from_utf8(code).ok()) {
            json.text("status_code", code, ID_BYTES_MAX);
        }
        json.members(&prepared.policy);
        json.integer("duration", result.duration_us / 1000);
        self.own_fields(json, |json| {
            self.form(json, form, prepared.judgement);
            json.word("class", prepared.verb.class().name());
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
        let mut cut = false;
        let mut part = |write: &dyn Fn(&mut Json<'_>)| -> Box<[u8]> {
            let mut out = Vec::new();
            let mut json = Json::new(&mut out);
            write(&mut json);
            cut |= json.is_cut();
            out.into()
        };
        StatementJson {
            subject: part(&|json| self.subject(json)),
            enrichments: part(&|json| self.enrichments(json)),
            refusal: part(&|json| refusal(json, &self.verdict)),
            own: part(&|json| self.own(json)),
            policy: self.policy(judgement),
            verb: self.leading_verb(),
            judgement,
            cut,
        }
    }

    /// The verb with the greatest consequence names the event: `EXPLAIN DELETE` is a delete.
    fn leading_verb(&self) -> Verb {
        let rank = |verb: &Verb| BY_CONSEQUENCE.iter().position(|id| *id == activity(*verb));
        self.verbs.iter().copied().min_by_key(|verb| rank(verb)).unwrap_or(Verb::Empty)
    }

    fn judgement(&self) -> Judgement {
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
        for (key, rules) in [("rules", &self.rules), ("observed", &self.observed)] {
            if !rules.is_empty() {
                json.list(key, rules.iter(), RULES, |json, rule| {
                    json.item_text(&rule.0, ID_BYTES_MAX);
                });
            }
        }
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
                json.word("name", "table.columns");
                json.text("value", column, PATH_BYTES_MAX);
                json.word("type", "mask");
                json.object("data", |json| {
                    json.word("fn", function);
                    if let Some(class) = class {
                        json.text("class", class, ID_BYTES_MAX);
                    }
                });
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

pub(super) fn refusal(json: &mut Json<'_>, verdict: &RecordedVerdict) {
    match verdict {
        RecordedVerdict::Denied { code, reason } => {
            json.text("status_code", code, ID_BYTES_MAX);
            json.text("status_detail", reason, REASON_BYTES_MAX);
        }
        RecordedVerdict::Allowed | RecordedVerdict::Modified => {}
    }
}

pub(super) fn policy(json: &mut Json<'_>, rule: &RuleId, kind: &'static str, judgement: Judgement) {
    json.text("name", &rule.0, ID_BYTES_MAX);
    json.text("uid", &rule.0, ID_BYTES_MAX);
    json.word("type", kind);
    json.flag("is_applied", !matches!(judgement, Judgement::Observed));
}

/// What a decision amounts to, as the trail words it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Judgement {
    Allowed,
    /// Allowed, but a rule in mode shadow or warn would have acted.
    Observed,
    Masked,
    Filtered,
    Denied,
    Limited,
}

impl Judgement {
    /// Of a verdict, with whether something is masked and whether a rule would have acted.
    pub(super) fn of(verdict: &RecordedVerdict, (masked, observed): (bool, bool)) -> Self {
        match verdict {
            RecordedVerdict::Denied { .. } => Self::Denied,
            RecordedVerdict::Modified if !masked => Self::Filtered,
            RecordedVerdict::Modified => Self::Masked,
            RecordedVerdict::Allowed if !observed => Self::Allowed,
            RecordedVerdict::Allowed => Self::Observed,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Observed => "observed",
            Self::Masked => "masked",
            Self::Filtered => "filtered",
            Self::Denied => "refused",
            Self::Limited => "rate-limited",
        }
    }

    pub(super) fn effect(self) -> Effect {
        match self {
            Self::Allowed => Effect::ALLOWED,
            Self::Observed => Effect::LOGGED,
            Self::Masked | Self::Filtered => Effect::CORRECTED,
            Self::Denied => Effect::BLOCKED,
            Self::Limited => Effect::REJECTED,
        }
    }

    pub(super) fn refuses(self) -> bool {
        matches!(self, Self::Denied | Self::Limited)
    }

    /// `severity_id`, at least this.
    pub(super) fn severity(self, least: u8) -> u8 {
        let own = match self {
            Self::Allowed | Self::Filtered => 1,
            Self::Observed | Self::Masked => 2,
            Self::Denied | Self::Limited => 3,
        };
        own.max(least)
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
