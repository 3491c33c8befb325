//! What rules name, compared with what exists: a typing error must not open a door.

use std::collections::BTreeSet;

use super::diagnostic::{Diagnostic, Span, nearest};
use super::pattern::{ColumnPattern, RelationPattern};
use super::rule::{Effect, Selected};
use super::ruleset::RuleSet;
use crate::facts::Relation;
use crate::name::{Glob, RuleId};
use crate::obligation::MaskFn;

/// A relation or column pattern of a rule or a classification.
enum Target<'a> {
    Relation(&'a RelationPattern),
    Column(&'a ColumnPattern),
}

impl RuleSet {
    /// Every relation and column pattern as written, with its place.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &Span)> {
        self.all_targets().into_iter().map(|target| {
            let (Target::Relation(pattern)
            | Target::Column(ColumnPattern { relation: pattern, .. })) = target;
            (&*pattern.text, &pattern.span)
        })
    }

    /// Compares every pattern with the relations of the catalogs known so far. A pattern that
    /// matches nothing is an error; one that names a database no relation is given of is left
    /// for later. So is a mask or filter on a child whose rows can be read through a parent it does
    /// not cover.
    pub fn check_against(&self, relations: &[&Relation]) -> Vec<Diagnostic> {
        if relations.is_empty() {
            return Vec::new();
        }
        let targets = self.all_targets();
        let mut found: Vec<Diagnostic> = targets
            .iter()
            .filter_map(|target| match target {
                Target::Relation(pattern) => missing_relation(pattern, relations),
                Target::Column(pattern) => missing_column(pattern, relations),
            })
            .collect();
        found.extend(self.lost_through_parents(relations));
        found.sort();
        found.dedup();
        found
    }

    /// Each mask on each column of a relation, whomever it concerns, with the place of its rule:
    /// for the layer above, which knows whether the column's type can be masked so.
    pub fn masks_on<'a>(
        &'a self,
        relation: &'a Relation,
    ) -> impl Iterator<Item = (&'a str, &'a MaskFn, &'a Span)> {
        self.rules.iter().flat_map(move |rule| {
            let mask = match &rule.effect {
                Effect::Mask(mask) => Some(mask),
                Effect::Filter(_)
                | Effect::Allow(_)
                | Effect::Deny { .. }
                | Effect::Limit(_)
                | Effect::Prefix(_)
                | Effect::Bounds(_) => None,
            };
            let selected = mask.map(|mask| (mask, rule.object.select(relation, &self.labels)));
            selected.into_iter().flat_map(move |(mask, columns)| {
                columns.into_iter().filter_map(move |Selected { column, label, .. }| {
                    Some((&**column, mask.function(label)?, &rule.span))
                })
            })
        })
    }

    /// The rules whose filter is on a relation, whomever it concerns, with where the text begins.
    pub fn filters_on(&self, relation: &Relation) -> impl Iterator<Item = (&RuleId, &str, &Span)> {
        self.rules.iter().filter_map(move |rule| match &rule.effect {
            Effect::Filter(filter) if rule.object.names_relation(relation) => {
                Some((&rule.id, &*filter.predicate, &filter.span))
            }
            Effect::Filter(_)
            | Effect::Mask(_)
            | Effect::Allow(_)
            | Effect::Deny { .. }
            | Effect::Limit(_)
            | Effect::Prefix(_)
            | Effect::Bounds(_) => None,
        })
    }

    fn all_targets(&self) -> Vec<Target<'_>> {
        let labels = self.labels.iter().flat_map(|label| label.columns.iter().map(Target::Column));
        let rules = self.rules.iter().flat_map(|rule| {
            let object = &rule.object;
            let listed = match &rule.effect {
                Effect::Allow(allow) => allow.relations.as_deref().unwrap_or_default(),
                Effect::Mask(_)
                | Effect::Filter(_)
                | Effect::Deny { .. }
                | Effect::Limit(_)
                | Effect::Prefix(_)
                | Effect::Bounds(_) => &[],
            };
            let relations = object.relations.iter().chain(&object.except_relations).chain(listed);
            let columns = object.columns.iter().chain(&object.except_columns);
            relations.map(Target::Relation).chain(columns.map(Target::Column))
        });
        labels.chain(rules).collect()
    }
}

fn missing_relation(pattern: &RelationPattern, relations: &[&Relation]) -> Option<Diagnostic> {
    if unknown_database(pattern, relations) || relations.iter().any(|r| pattern.matches(r)) {
        return None;
    }
    let text = &pattern.text;
    let names: BTreeSet<String> = relations.iter().map(|r| r.path.to_string()).collect();
    let short = short_name(pattern);
    let near = nearest(&short, names.iter().map(String::as_str));
    let problem = Diagnostic::error(&pattern.span, format!("no relation matches `{text}`"));
    Some(with_near(problem, near))
}

fn missing_column(pattern: &ColumnPattern, relations: &[&Relation]) -> Option<Diagnostic> {
    let ColumnPattern { relation, column } = pattern;
    if unknown_database(relation, relations) {
        return None;
    }
    let holders: Vec<&&Relation> = relations.iter().filter(|r| relation.matches(r)).collect();
    if holders.is_empty() {
        return missing_relation(relation, relations);
    }
    if holders.iter().any(|holder| holder.columns.iter().any(|name| column.matches(name))) {
        return None;
    }
    let names: BTreeSet<&str> =
        holders.iter().flat_map(|holder| holder.columns.iter().map(|name| &**name)).collect();
    let near = nearest(column.as_str(), names);
    let message = format!("column `{}` not found in `{}`", column.as_str(), short_name(relation));
    Some(with_near(Diagnostic::error(&relation.span, message), near))
}

fn with_near(mut problem: Diagnostic, near: Option<&str>) -> Diagnostic {
    if let Some(near) = near {
        problem.message.push_str(&format!(", did you mean `{near}`?"));
    }
    problem
}

fn short_name(pattern: &RelationPattern) -> String {
    format!("{}.{}", pattern.schema.as_str(), pattern.name.as_str())
}

/// Whether the pattern names a database whose catalog is not among those given.
fn unknown_database(pattern: &RelationPattern, relations: &[&Relation]) -> bool {
    let known = |glob: &Glob| relations.iter().any(|r| glob.matches(&r.path.database));
    pattern.database.as_ref().is_some_and(|glob| !known(glob))
}
