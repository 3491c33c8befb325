//! Rules on a child alone: whoever reads its parent reads its rows, past the rule.
//!
//! A rule on a parent covers its children. The reverse cannot hold when a decision is made, for an
//! access names the parent and facts do not say which children lie under it. So such a rule is
//! reported as soon as a catalog shows who inherits from whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::diagnostic::Diagnostic;
use super::rule::{Effect, Rule, Selected};
use super::ruleset::RuleSet;
use crate::facts::{Relation, Verb};
use crate::name::RelationPath;
use crate::obligation::MaskFn;

/// What a rule holds back of a relation.
#[derive(Default)]
struct Hold<'a> {
    /// Rows, whatever their columns.
    rows: bool,
    /// Columns; without a function where the rule refuses them.
    columns: BTreeMap<&'a str, Option<&'a MaskFn>>,
}

impl RuleSet {
    /// Rules that hold back less of a parent than of its child; one finding for each rule and
    /// parent. Masks and filters are errors. A deny is a warning: refusing to name a partition
    /// is sound by itself, and only its author knows whether that was all.
    pub(super) fn lost_through_parents(&self, relations: &[&Relation]) -> Vec<Diagnostic> {
        let known: HashMap<&RelationPath, &Relation> =
            relations.iter().map(|relation| (&relation.path, *relation)).collect();
        let mut children: Vec<&Relation> =
            relations.iter().copied().filter(|relation| !relation.lineage.is_empty()).collect();
        children.sort_by(|a, b| a.path.cmp(&b.path));
        let mut found = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.enforced()) {
            let mut reported: BTreeSet<&RelationPath> = BTreeSet::new();
            for child in &children {
                let held = self.hold(rule, child);
                for path in &child.lineage {
                    let lost = match known.get(path) {
                        Some(parent) => held.exceeds(&self.hold(rule, parent), parent),
                        // What is not known cannot be said to be covered.
                        None => held.rows || !held.columns.is_empty(),
                    };
                    if lost && reported.insert(path) {
                        found.push(finding(rule, child, path));
                    }
                }
            }
        }
        found
    }

    fn hold<'a>(&'a self, rule: &'a Rule, relation: &'a Relation) -> Hold<'a> {
        let object = &rule.object;
        let rows = || Hold {
            rows: object.fits_relation(relation, &self.labels),
            columns: BTreeMap::new(),
        };
        let selected = || object.select(relation, &self.labels).into_iter();
        match &rule.effect {
            Effect::Mask(mask) => {
                let mut hold = Hold::default();
                for Selected { index: _, column, label } in selected() {
                    let Some(function) = mask.function(label) else { continue };
                    let strongest = hold.columns.entry(&**column).or_default();
                    *strongest = (*strongest).max(Some(function));
                }
                hold
            }
            Effect::Filter(_) => rows(),
            Effect::Deny { .. } if !reaches_children(rule) => Hold::default(),
            Effect::Deny { .. } if object.wants_columns() => Hold {
                rows: false,
                columns: selected().map(|selected| (&**selected.column, None)).collect(),
            },
            Effect::Deny { .. } => rows(),
            Effect::Allow(_) | Effect::Limit(_) | Effect::Prefix(_) | Effect::Bounds(_) => {
                Hold::default()
            }
        }
    }
}

impl Hold<'_> {
    /// Whether something that is held back of a child shows in its parent.
    fn exceeds(&self, of_parent: &Hold<'_>, parent: &Relation) -> bool {
        let shown = |column: &str| parent.columns.iter().any(|name| &**name == column);
        let weaker = |column: &str, function: &Option<&MaskFn>| {
            of_parent.columns.get(column).is_none_or(|held| held < function)
        };
        (self.rows && !of_parent.rows)
            || self.columns.iter().any(|(column, held)| shown(column) && weaker(column, held))
    }
}

/// Whether the rule is about a statement that, named on a parent, works on its children, too.
fn reaches_children(rule: &Rule) -> bool {
    let reaching = [Verb::Select, Verb::Update, Verb::Delete, Verb::Merge, Verb::Truncate];
    reaching.into_iter().any(|verb| rule.object.statements.admits(verb))
}

fn finding(rule: &Rule, child: &Relation, parent: &RelationPath) -> Diagnostic {
    let (id, child) = (&rule.id, &child.path);
    match &rule.effect {
        Effect::Deny { .. } => Diagnostic::warning(
            &rule.span,
            format!("rule `{id}` denies `{child}` but not its parent `{parent}`, through which its rows can be reached"),
        )
        .with_help(format!("to keep them from everybody it concerns, deny `{parent}` or filter it")),
        Effect::Mask(_) | Effect::Filter(_) | Effect::Allow(_) | Effect::Limit(_) | Effect::Prefix(_) | Effect::Bounds(_) => {
            Diagnostic::error(
                &rule.span,
                format!("rule `{id}` governs `{child}` but not its parent `{parent}`, through which it can be read"),
            )
            .with_help(format!("put the rule, or the class it matches, on `{parent}`: that covers its children"))
        }
    }
}

#[cfg(test)]
mod tests;
