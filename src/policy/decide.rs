//! Rules that concern an identity + facts of a text → [`Decision`].
//!
//! Cannot fail: doubt is a denial. The order is fixed and independent of files: what was not
//! understood, deny rules, allow lists and the datasource's default, side doors, and last what the
//! relations owe. Looks only at the rules [`RuleSet::classify`] found, whatever else the set holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decision::{Allowed, Counted, Decision, Denial, DenyReason, Limit};
use super::identity::IdentityClass;
use super::rule::{Effect, Filter, Mask, Mode, Object, Rule, Selected};
use super::ruleset::RuleSet;
use crate::facts::{Access, AccessMode, Certainty, CommandUse, Facts, Relation, Why};
use crate::name::RuleId;
use crate::obligation::{ColumnMask, Governance, RowFilter};

mod coverage;
mod side_doors;
mod store;
#[cfg(test)]
mod tests;

use store::bounds;

/// Watches an evaluation. `()` watches nothing and compiles away.
pub trait Trace {
    /// A rule that concerns the identity was looked at.
    fn considered(&mut self, _rule: &RuleId, _matched: bool) {}
}

impl Trace for () {}

impl RuleSet {
    /// Decides.
    pub fn decide(&self, class: &IdentityClass, facts: &Facts) -> Decision {
        self.decide_traced(class, facts, &mut ())
    }

    /// Decides, showing each rule to the trace: the one path of enforcing and explaining.
    pub fn decide_traced(
        &self,
        class: &IdentityClass,
        facts: &Facts,
        trace: &mut impl Trace,
    ) -> Decision {
        match &facts.certainty {
            Certainty::Unknown(why) => return Decision::Deny(not_understood(why)),
            Certainty::Known => {}
        }
        // Doors are closed without any rule.
        let door = |command: &Arc<CommandUse>| command.door;
        let at_door = facts.actions.iter().any(|action| action.verb.is_door())
            || facts.store.command.as_ref().is_some_and(door);
        if !class.concerned && !at_door {
            return Decision::Allow(Allowed::default());
        }
        if class.identity.withdrawn {
            let message = "the API key of this session was withdrawn";
            let denial = Denial::new(DenyReason::NotAllowed, message);
            return Decision::Deny(denial.with_hint("reconnect with a key that is in force"));
        }
        let rules: Vec<&Rule> = class.rules.iter().filter_map(|i| self.rules.get(*i)).collect();
        if rules.len() != class.rules.len() {
            // The class belongs to another generation: never guess.
            return Decision::Deny(Denial::new(DenyReason::NotAllowed, "the rules have changed"));
        }
        let question = Question { set: self, class, facts, rules };
        match question.answer(trace) {
            Ok(allowed) => Decision::Allow(allowed),
            Err(denial) => Decision::Deny(denial),
        }
    }
}

/// One text asked about by one identity.
struct Question<'a> {
    set: &'a RuleSet,
    class: &'a IdentityClass,
    facts: &'a Facts,
    /// Rules that concern the identity, by id.
    rules: Vec<&'a Rule>,
}

impl<'a> Question<'a> {
    fn answer(&self, trace: &mut impl Trace) -> Result<Allowed, Denial> {
        let mut matched = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            let hit = self.matches(rule);
            trace.considered(&rule.id, hit);
            if hit {
                matched.push(*rule);
            }
        }
        if let Some(denial) = matched.iter().find_map(|rule| denied_by(rule)) {
            return Err(denial);
        }
        self.check_command_door()?;
        self.check_coverage()?;
        self.check_side_doors()?;
        self.check_command(&matched)?;
        let governances = self.governances(&matched)?;
        Ok(self.allowed(governances, &matched))
    }

    /// Whether the rule has something to say about this text.
    fn matches(&self, rule: &Rule) -> bool {
        match &rule.effect {
            Effect::Limit(rate)
                if rate.of != Counted::Uses && self.facts.store.command.is_none() =>
            {
                false
            }
            Effect::Deny { .. } | Effect::Limit(_) | Effect::Bounds(_) => {
                rule.object.fits(self.facts, &self.set.labels)
            }
            Effect::Prefix(_) => self.names_in_a_store(),
            Effect::Mask(_) | Effect::Filter(_) => {
                let on_rows = || self.row_relations().any(|relation| self.owes(rule, relation));
                (self.fits_statement(&rule.object) && on_rows()) || self.masks_some_key(rule)
            }
            Effect::Allow(allow) => self.uses(allow),
        }
    }

    fn fits_statement(&self, object: &Object) -> bool {
        object.statements.admits_some(&self.facts.actions, object.without_where)
    }

    /// Whether a mask or filter has something to do on the relation, whatever the statement.
    fn owes(&self, rule: &Rule, relation: &Relation) -> bool {
        match &rule.effect {
            Effect::Mask(mask) => {
                let selected = rule.object.select(relation, &self.set.labels);
                selected.iter().any(|column| mask.function(column.label).is_some())
            }
            Effect::Filter(_) => rule.object.fits_relation(relation, &self.set.labels),
            Effect::Allow(_)
            | Effect::Deny { .. }
            | Effect::Limit(_)
            | Effect::Prefix(_)
            | Effect::Bounds(_) => false,
        }
    }

    /// Whether an enforced mask or filter stands on the relation for this identity.
    fn governed(&self, relation: &Relation) -> bool {
        self.rules.iter().any(|rule| rule.enforced() && self.owes(rule, relation))
    }

    /// Whether one of the rules that govern the relation writes its name out.
    fn governed_by_name(&self, relation: &Relation) -> bool {
        self.rules.iter().any(|rule| {
            rule.enforced()
                && self.owes(rule, relation)
                && rule.object.writes_out(relation, &self.set.labels)
        })
    }

    /// Relations whose rows the text uses; a relation used in two ways comes twice.
    fn row_relations(&self) -> impl Iterator<Item = &'a Arc<Relation>> {
        self.facts.accesses.iter().filter_map(|Access { relation, mode }| match mode {
            AccessMode::Read | AccessMode::Insert | AccessMode::Update | AccessMode::Delete => {
                Some(relation)
            }
            AccessMode::Define => None,
        })
    }

    fn governances(&self, matched: &[&Rule]) -> Result<Vec<Governance>, Denial> {
        let mut found: BTreeMap<&crate::name::RelationPath, Governance> = BTreeMap::new();
        for relation in self.row_relations() {
            if found.contains_key(&relation.path) {
                continue;
            }
            let masks = self.masks(relation, matched);
            let filters = self.filters(relation, matched)?;
            if !masks.is_empty() || !filters.is_empty() {
                let governance = Governance { relation: Arc::clone(relation), masks, filters };
                found.insert(&relation.path, governance);
            }
        }
        Ok(found.into_values().collect())
    }

    /// The strongest mask of each column, in column order.
    fn masks(&self, relation: &Relation, matched: &[&Rule]) -> Vec<ColumnMask> {
        let mut strongest: BTreeMap<usize, ColumnMask> = BTreeMap::new();
        for (rule, mask) in matched.iter().filter_map(|rule| enforced_mask(rule)) {
            for Selected { index, column, label } in rule.object.select(relation, &self.set.labels)
            {
                let Some(function) = mask.function(label) else { continue };
                let stronger = strongest.get(&index).is_none_or(|held| held.function < *function);
                if stronger {
                    let candidate = ColumnMask {
                        column: Arc::clone(column),
                        class: label.map(|label| Arc::clone(&label.class)),
                        function: function.clone(),
                        rule: rule.id.clone(),
                    };
                    strongest.insert(index, candidate);
                }
            }
        }
        strongest.into_values().collect()
    }

    fn filters(&self, relation: &Relation, matched: &[&Rule]) -> Result<Vec<RowFilter>, Denial> {
        matched
            .iter()
            .filter(|rule| rule.enforced() && self.owes(rule, relation))
            .filter_map(|rule| match &rule.effect {
                Effect::Filter(filter) => Some(self.filter(rule, filter)),
                Effect::Mask(_)
                | Effect::Allow(_)
                | Effect::Deny { .. }
                | Effect::Limit(_)
                | Effect::Prefix(_)
                | Effect::Bounds(_) => None,
            })
            .collect()
    }

    fn filter(&self, rule: &Rule, filter: &Filter) -> Result<RowFilter, Denial> {
        let value = |name: &Arc<str>| match self.class.identity.value(name) {
            Some(value) => Ok((Arc::clone(name), value)),
            None => {
                let message = format!("your identity has no `{name}`, which a row filter needs");
                Err(Denial::new(DenyReason::MissingAttribute, message)
                    .by(&rule.id)
                    .with_hint(format!("ask for `{name}` to be set in the identities file")))
            }
        };
        Ok(RowFilter {
            predicate: Arc::clone(&filter.predicate),
            values: filter.references.iter().map(value).collect::<Result<_, _>>()?,
            rule: rule.id.clone(),
        })
    }

    fn allowed(&self, governances: Vec<Governance>, matched: &[&Rule]) -> Allowed {
        let mut observed: Vec<&Rule> =
            matched.iter().copied().filter(|rule| would_have_acted(rule)).collect();
        observed.extend(self.observed_lists());
        observed.extend(self.evaded().filter(|rule| !rule.enforced()));
        observed.sort_by(|a, b| a.id.cmp(&b.id));
        observed.dedup_by(|a, b| a.id == b.id);
        let warned = observed.iter().filter(|rule| rule.mode == Mode::Warn);
        Allowed {
            governances,
            values: self.value_masks(matched),
            tenancy: self.tenancy().cloned(),
            bounds: bounds(matched),
            limits: matched.iter().filter_map(|rule| self.limit(rule)).collect(),
            rules: shaping(matched),
            observed: observed.iter().map(|rule| rule.id.clone()).collect(),
            warnings: warned.map(|rule| warning(rule)).collect(),
        }
    }

    fn limit(&self, rule: &Rule) -> Option<Limit> {
        match &rule.effect {
            Effect::Limit(rate) => Some(Limit {
                rule: rule.id.clone(),
                of: rate.of,
                count: rate.count,
                per_us: rate.per_us,
                subject: self.class.identity.subject(&rate.by),
                enforced: rule.enforced(),
            }),
            Effect::Mask(_)
            | Effect::Filter(_)
            | Effect::Allow(_)
            | Effect::Deny { .. }
            | Effect::Prefix(_)
            | Effect::Bounds(_) => None,
        }
    }
}

fn enforced_mask<'a>(rule: &&'a Rule) -> Option<(&'a Rule, &'a Mask)> {
    match &rule.effect {
        Effect::Mask(mask) if rule.enforced() => Some((rule, mask)),
        Effect::Mask(_)
        | Effect::Filter(_)
        | Effect::Allow(_)
        | Effect::Deny { .. }
        | Effect::Limit(_)
        | Effect::Prefix(_)
        | Effect::Bounds(_) => None,
    }
}

fn denied_by(rule: &Rule) -> Option<Denial> {
    match &rule.effect {
        Effect::Deny { message } if rule.enforced() => {
            let message = message.as_deref().or(rule.description.as_deref());
            let message = message.unwrap_or("a rule refuses this statement");
            Some(Denial::new(DenyReason::Rule, message).by(&rule.id))
        }
        Effect::Deny { .. }
        | Effect::Mask(_)
        | Effect::Filter(_)
        | Effect::Allow(_)
        | Effect::Limit(_)
        | Effect::Prefix(_)
        | Effect::Bounds(_) => None,
    }
}

/// The matched rules that shaped the permission: who reads a record or a refusal looks at the first,
/// so those that change what is seen come before those that only permit.
fn shaping(matched: &[&Rule]) -> Vec<RuleId> {
    let mut rules: Vec<&Rule> = matched.iter().copied().filter(|rule| shapes(rule)).collect();
    rules.sort_by_key(|rule| (permits(rule), &rule.id));
    rules.into_iter().map(|rule| rule.id.clone()).collect()
}

fn permits(rule: &Rule) -> bool {
    match &rule.effect {
        Effect::Allow(_) => true,
        Effect::Mask(_)
        | Effect::Filter(_)
        | Effect::Deny { .. }
        | Effect::Limit(_)
        | Effect::Prefix(_)
        | Effect::Bounds(_) => false,
    }
}

/// Whether a matched rule shaped the permission itself. Limits are reported on their own.
fn shapes(rule: &Rule) -> bool {
    rule.enforced()
        && match &rule.effect {
            Effect::Mask(_) | Effect::Filter(_) | Effect::Allow(_) | Effect::Prefix(_) => true,
            Effect::Deny { .. } | Effect::Limit(_) | Effect::Bounds(_) => false,
        }
}

/// Whether a matched rule would have changed the decision if it were enforced. Allow lists are
/// judged together ([`Question::observed_lists`]); limits carry their mode themselves.
fn would_have_acted(rule: &Rule) -> bool {
    !rule.enforced()
        && match &rule.effect {
            Effect::Mask(_) | Effect::Filter(_) | Effect::Deny { .. } => true,
            Effect::Allow(_) | Effect::Limit(_) | Effect::Prefix(_) | Effect::Bounds(_) => false,
        }
}

fn warning(rule: &Rule) -> String {
    let text = match &rule.effect {
        Effect::Deny { message } => message.as_deref(),
        Effect::Mask(_)
        | Effect::Filter(_)
        | Effect::Allow(_)
        | Effect::Limit(_)
        | Effect::Prefix(_)
        | Effect::Bounds(_) => None,
    };
    let text = text.or(rule.description.as_deref()).unwrap_or("it would act on this statement");
    format!("rule {}: {text}", rule.id)
}

fn not_understood(why: &Why) -> Denial {
    let message = match why {
        Why::Syntax(error) => error.message.clone(),
        Why::NotUtf8 => "the statement is not valid UTF-8".to_owned(),
        Why::TooLong => "the statement is too long".to_owned(),
        Why::TooComplex => "the statement is too complex".to_owned(),
        Why::Construct(name) => format!("the statement uses what is not understood: {name}"),
    };
    Denial::new(DenyReason::NotUnderstood(why.clone()), message)
}
