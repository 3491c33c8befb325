//! What the events of all records have in common: what was decided, and its words.

use super::super::RecordedVerdict;
use super::super::json::Json;
use super::{Effect, ID_BYTES_MAX, PATH_BYTES_MAX, REASON_BYTES_MAX, RULES};
use crate::name::RuleId;

/// A record's part of its events, escaped once.
#[derive(Debug)]
pub(super) struct Parts {
    /// What the event is about.
    pub(super) subject: Box<[u8]>,
    /// The member `enrichments`: what is masked and filtered.
    pub(super) enrichments: Box<[u8]>,
    /// The member `policy`; empty when no rule shaped the decision.
    pub(super) policy: Box<[u8]>,
    /// The members `status_code` and `status_detail` of a refusal.
    pub(super) refusal: Box<[u8]>,
    /// Our own members of the decision.
    pub(super) own: Box<[u8]>,
    pub(super) judgement: Judgement,
    /// A part did not fit its bound.
    pub(super) cut: bool,
}

impl Parts {
    /// What was done, and for which rule: from the effect to the enrichments.
    pub(super) fn decided(&self, json: &mut Json<'_>, limited_by: Option<&RuleId>) {
        let judgement = self.judgement.or_limited(limited_by);
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
                json.members(&self.policy);
                json.members(&self.refusal);
            }
        }
        json.members(&self.enrichments);
    }
}

/// Writes parts, and remembers whether one did not fit its bound.
#[derive(Debug, Default)]
pub(super) struct Scribe {
    pub(super) cut: bool,
}

impl Scribe {
    pub(super) fn part(&mut self, write: impl FnOnce(&mut Json<'_>)) -> Box<[u8]> {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        write(&mut json);
        self.cut |= json.is_cut();
        out.into()
    }
}

/// The rules that shaped a decision, and those that would have.
pub(super) fn rule_lists(json: &mut Json<'_>, rules: &[RuleId], observed: &[RuleId]) {
    for (key, rules) in [("rules", rules), ("observed", observed)] {
        if !rules.is_empty() {
            json.list(key, rules.iter(), RULES, |json, rule| {
                json.item_text(&rule.0, ID_BYTES_MAX);
            });
        }
    }
}

/// A mask as an enrichment: of what, and by which function for which class.
pub(super) fn mask_enrichment(
    json: &mut Json<'_>,
    (name, value): (&'static str, &str),
    (function, class): (&'static str, Option<&str>),
) {
    json.word("name", name);
    json.text("value", value, PATH_BYTES_MAX);
    json.word("type", "mask");
    json.object("data", |json| {
        json.word("fn", function);
        if let Some(class) = class {
            json.text("class", class, ID_BYTES_MAX);
        }
    });
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

/// What a decision amounts to, for whoever words or counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Allowed as it was asked.
    Allowed,
    /// Allowed, but a rule in mode shadow or warn would have acted.
    Observed,
    /// Allowed, with values masked.
    Masked,
    /// Allowed, with rows left out.
    Filtered,
    /// Allowed, but asked of the server in other words than the client's.
    Rewritten,
    /// Refused.
    Denied,
    /// Refused by a limit.
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

    /// The same, unless a limit refuses it at this moment.
    #[must_use]
    pub fn or_limited(self, limited_by: Option<&RuleId>) -> Self {
        limited_by.map_or(self, |_| Self::Limited)
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Observed => "observed",
            Self::Masked => "masked",
            Self::Filtered => "filtered",
            Self::Rewritten => "rewritten",
            Self::Denied => "refused",
            Self::Limited => "rate-limited",
        }
    }

    pub(super) fn effect(self) -> Effect {
        match self {
            Self::Allowed => Effect::ALLOWED,
            Self::Observed => Effect::LOGGED,
            Self::Masked | Self::Filtered | Self::Rewritten => Effect::CORRECTED,
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
            Self::Allowed | Self::Filtered | Self::Rewritten => 1,
            Self::Observed | Self::Masked => 2,
            Self::Denied | Self::Limited => 3,
        };
        own.max(least)
    }
}
