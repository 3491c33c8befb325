//! Why a decision came out as it did, through the very path that decides.

use std::collections::BTreeMap;
use std::fmt;

use super::decide::Trace;
use super::decision::{Counted, Decision};
use super::identity::{Identity, IdentityClass};
use super::rule::Mode;
use super::ruleset::RuleSet;
use crate::facts::Facts;
use crate::name::RuleId;
use crate::obligation::{Bound, Bounded};

/// A decision with everything that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Who asked.
    pub identity: Identity,
    /// Side doors are closed for the identity.
    pub governed: bool,
    /// The answer.
    pub decision: Decision,
    /// Every rule of the set, by id.
    pub considered: Vec<Considered>,
}

/// One rule's part in a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The rule.
    pub rule: RuleId,
    /// Where it stands, `file:line:column`.
    pub place: String,
    /// `mask`, `filter`, `allow`, `deny` or `limit`.
    pub effect: &'static str,
    /// Whether it acts.
    pub mode: Mode,
    /// What its author says it is for.
    pub description: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Controls of standards it serves.
    pub controls: Vec<String>,
    /// Whether it concerns the identity.
    pub concerns: bool,
    /// Whether it matched; `None` when it was not looked at.
    pub matched: Option<bool>,
}

/// Remembers which rules were looked at.
#[derive(Default)]
struct Recording {
    seen: BTreeMap<RuleId, bool>,
}

impl Trace for Recording {
    fn considered(&mut self, rule: &RuleId, matched: bool) {
        self.seen.insert(rule.clone(), matched);
    }
}

impl RuleSet {
    /// Decides and tells why.
    pub fn explain(&self, class: &IdentityClass, facts: &Facts) -> Explanation {
        let mut recording = Recording::default();
        let decision = self.decide_traced(class, facts, &mut recording);
        let considered = self.rules.iter().enumerate().map(|(index, rule)| Considered {
            rule: rule.id.clone(),
            place: rule.span.to_string(),
            effect: rule.effect.name(),
            mode: rule.mode,
            description: rule.description.as_deref().map(str::to_owned),
            owner: rule.owner.as_deref().map(str::to_owned),
            controls: rule.controls.iter().map(|control| control.to_string()).collect(),
            concerns: class.rules.contains(&index),
            matched: recording.seen.get(&rule.id).copied(),
        });
        Explanation {
            identity: class.identity.clone(),
            governed: class.governed,
            decision,
            considered: considered.collect(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, governed, decision, considered } = self;
        let login = &identity.login;
        writeln!(f, "who:      {} on {} ({})", login.user, login.database, login.datasource)?;
        let roles: Vec<&str> = identity.roles.iter().map(|role| &**role).collect();
        writeln!(f, "roles:    {}", or_none(&roles.join(", ")))?;
        let attributes: Vec<String> =
            identity.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        writeln!(f, "has:      {}", or_none(&attributes.join(", ")))?;
        writeln!(f, "governed: {}", if *governed { "yes" } else { "no" })?;
        write_decision(f, decision)?;
        writeln!(f, "rules:")?;
        for rule in considered {
            write!(f, "{rule}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Considered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, place, effect, mode, description, owner, controls, concerns, matched } =
            self;
        let state = match (concerns, matched) {
            (false, _) => "does not concern",
            (true, Some(true)) => "matched",
            (true, Some(false)) => "no match",
            (true, None) => "not reached",
        };
        writeln!(f, "  {state:16} {rule} ({effect}, {}) {place}", mode.name())?;
        if *matched == Some(true) {
            let mut notes: Vec<&str> = description.iter().map(String::as_str).collect();
            notes.extend(owner.iter().map(String::as_str));
            notes.extend(controls.iter().map(String::as_str));
            if !notes.is_empty() {
                writeln!(f, "  {:16} {}", "", notes.join(" · "))?;
            }
        }
        Ok(())
    }
}

fn write_decision(f: &mut fmt::Formatter<'_>, decision: &Decision) -> fmt::Result {
    match decision {
        Decision::Deny(denial) => {
            write!(f, "decision: denied: {}", denial.message)?;
            if let Some(rule) = &denial.rule {
                write!(f, " (rule {rule})")?;
            }
            writeln!(f)?;
            if let Some(hint) = &denial.hint {
                writeln!(f, "  hint:   {hint}")?;
            }
        }
        Decision::Allow(allowed) => {
            writeln!(f, "decision: allowed")?;
            for governance in &allowed.governances {
                let path = &governance.relation.path;
                for mask in &governance.masks {
                    let function = mask.function.name();
                    writeln!(
                        f,
                        "  mask    {path}.{} {function} (rule {})",
                        mask.column, mask.rule
                    )?;
                }
                for filter in &governance.filters {
                    writeln!(
                        f,
                        "  filter  {path} where {} (rule {})",
                        filter.predicate, filter.rule
                    )?;
                }
            }
            for mask in allowed.values.iter().flat_map(|governance| &governance.masks) {
                let function = mask.function.name();
                writeln!(f, "  mask    {} {function} (rule {})", mask.pattern, mask.rule)?;
            }
            if let Some(tenancy) = &allowed.tenancy {
                writeln!(f, "  prefix  {} (rule {})", tenancy.prefix, tenancy.rule)?;
            }
            for bound in &allowed.bounds {
                let Bound { what, max, rule } = bound;
                let what = match what {
                    Bounded::PatternBytes => format!("at most {max} bytes of a pattern"),
                    Bounded::ArgumentBytes => format!("at most {max} bytes of an argument"),
                    Bounded::Arguments => format!("at most {max} arguments"),
                    Bounded::ExpiryMs if *max >= u64::MAX - 1 => "must expire".to_owned(),
                    Bounded::ExpiryMs => format!("at most {max} ms to expiry"),
                    Bounded::ExpiryPutInMs => format!("expires after {max} ms if not told"),
                    Bounded::ExpiryLoweredMs => format!("a longer expiry becomes {max} ms"),
                };
                writeln!(f, "  {what} (rule {rule})")?;
            }
            for limit in &allowed.limits {
                let seconds = limit.per_us / 1_000_000;
                let of = match limit.of {
                    Counted::Uses => "",
                    Counted::Bytes => " bytes",
                    Counted::Arguments => " arguments",
                };
                writeln!(f, "  limit   {}{of} in {seconds} s (rule {})", limit.count, limit.rule)?;
            }
            for warning in &allowed.warnings {
                writeln!(f, "  warning {warning}")?;
            }
        }
    }
    Ok(())
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
