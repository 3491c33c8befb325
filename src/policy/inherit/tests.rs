use std::sync::Arc;

use super::*;
use crate::policy::SourceFile;

const LABELS: &str = "version: 1
classification:
  - {columns: [public.managers.email], class: OWN, level: restricted}
  - {columns: [public.staff.email], class: ROOT, level: restricted}
";

fn path(name: &str) -> RelationPath {
    RelationPath { database: "demo".into(), schema: "public".into(), name: name.into() }
}

fn relation(name: &str, lineage: &[&str], columns: &[&str]) -> Relation {
    Relation {
        path: path(name),
        lineage: lineage.iter().map(|name| path(name)).collect(),
        columns: columns.iter().map(|column| Arc::from(*column)).collect(),
        reads_through: Vec::new(),
        system: false,
        sensitive_system: false,
    }
}

/// The findings for a set of one rule, given as the inside of a flow mapping without its id.
fn found(rule: &str) -> String {
    let text = format!("{LABELS}rules:\n  - {{id: x, {rule}}}\n");
    let file = SourceFile { name: "r.yaml".to_owned(), text };
    let (set, _warnings) = RuleSet::compile(&[file], None).unwrap();
    let relations = [
        relation("staff", &[], &["id", "email"]),
        relation("managers", &["staff"], &["id", "email", "bonus"]),
        relation("directors", &["managers", "staff"], &["id", "email", "bonus"]),
    ];
    let known: Vec<&Relation> = relations.iter().collect();
    let found = set.check_against(&known);
    found.iter().map(|found| format!("{}: {}\n", found.severity.name(), found.message)).collect()
}

#[track_caller]
fn check(rule: &str, expected: &[&str]) {
    let found = found(rule);
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines, expected, "{rule}");
}

const PAST_STAFF: &str = "error: rule `x` governs `public.managers` but not its parent \
                          `public.staff`, through which it can be read";

#[test]
fn a_mask_or_filter_on_a_child_alone_is_an_error() {
    let past_staff = |child: &str| PAST_STAFF.replace("managers", child);
    let directors = past_staff("directors");
    check("match: {columns: [public.managers.email]}, mask: nullify", &[&directors]);
    check("match: {classes: [OWN]}, mask: nullify", &[&directors]);
    check("match: {relations: [public.managers]}, filter: id = 1", &[&directors]);
    check("match: {columns: ['public.m*.*']}, mask: nullify", &[&directors]);
    check(
        "match: {columns: [public.managers.email], except_relations: [public.directors]}, \
         mask: nullify",
        &[PAST_STAFF],
    );
    check(
        "match: {relations: [public.directors]}, filter: id = 1",
        &[&directors.replace("staff", "managers"), &directors],
    );
}

#[test]
fn a_rule_on_the_parent_covers_its_children() {
    check("match: {columns: [public.staff.email]}, mask: nullify", &[]);
    check("match: {columns: ['public.*.email']}, mask: nullify", &[]);
    check("match: {classes: [ROOT, OWN]}, mask: {ROOT: nullify, OWN: nullify}", &[]);
    check("match: {relations: [public.staff]}, filter: id = 1", &[]);
    check("match: {relations: [public.staff, public.managers]}, filter: id = 1", &[]);
}

#[test]
fn a_weaker_mask_on_the_parent_covers_nothing() {
    let weaker = "match: {classes: [ROOT, OWN]}, mask: {ROOT: partial_email, OWN: nullify}";
    check(weaker, &[&PAST_STAFF.replace("managers", "directors")]);
    check("match: {classes: [ROOT, OWN]}, mask: {ROOT: nullify, OWN: partial_email}", &[]);
}

#[test]
fn a_column_the_parent_does_not_have_is_not_read_through_it() {
    check("match: {columns: [public.managers.bonus]}, mask: nullify", &[]);
    check("match: {columns: [public.managers.bonus]}, deny: true", &[]);
    check(
        "match: {columns: [public.directors.bonus]}, mask: nullify",
        &["error: rule `x` governs `public.directors` but not its parent `public.managers`, \
           through which it can be read"],
    );
}

#[test]
fn a_deny_on_a_child_alone_is_a_warning() {
    let warning = "warning: rule `x` denies `public.directors` but not its parent `public.staff`, \
                   through which its rows can be reached";
    check("match: {relations: [public.managers]}, deny: true", &[warning]);
    check("match: {columns: [public.managers.email]}, deny: true", &[warning]);
    check("match: {relations: [public.staff]}, deny: true", &[]);
    check("match: {relations: [public.managers], statements: [insert]}, deny: true", &[]);
}

#[test]
fn rules_that_hold_nothing_back_are_fine() {
    check("match: {columns: [public.managers.email]}, mode: shadow, mask: nullify", &[]);
    check("match: {users: [a]}, allow: {relations: [public.managers]}", &[]);
    check("match: {relations: [public.managers]}, limit: {rate: 1/s}", &[]);
}
