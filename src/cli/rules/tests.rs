use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::facts::{Access, AccessMode, Action, Certainty, Verb, Why};
use crate::name::{Protocol, RelationPath};

fn demo() -> Files {
    Files::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/demo")).unwrap()
}

fn relation(schema: &str, name: &str, columns: &[&str]) -> Relation {
    Relation {
        path: RelationPath { database: "demo".into(), schema: schema.into(), name: name.into() },
        lineage: Vec::new(),
        columns: columns.iter().map(|column| Arc::from(*column)).collect(),
        reads_through: Vec::new(),
        system: schema == "pg_catalog",
        sensitive_system: schema == "pg_catalog",
    }
}

/// The demo's relations, written out: this test stands without the analysis.
fn relations() -> Vec<Relation> {
    let customers = ["id", "tenant_id", "name", "email", "card_no", "birth_date", "city", "notes"];
    let orders = ["id", "tenant_id", "customer_id", "amount", "status", "placed_at"];
    vec![
        relation("public", "customers", &customers),
        relation("public", "orders", &orders),
        relation("pg_catalog", "pg_stats", &["tablename"]),
    ]
}

/// Enough understanding for the demo's tests: words and names, nothing else.
fn analyze(text: &str, login: &Login) -> Facts {
    if login.protocol == Protocol::REDIS {
        return Language::without_configuration().command(text);
    }
    let verbs = ["explain", "select", "insert", "update", "delete"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let found: Vec<Verb> =
        verbs.iter().filter(|verb| words.contains(verb)).filter_map(|v| Verb::parse(v)).collect();
    let mode = match found.last() {
        Some(Verb::Insert) => AccessMode::Insert,
        Some(Verb::Update) => AccessMode::Update,
        Some(Verb::Delete) => AccessMode::Delete,
        Some(_) => AccessMode::Read,
        None => return Facts::unknown(Why::Construct("no verb".to_owned())),
    };
    let without_where = !words.contains(&"where");
    let accesses = relations()
        .into_iter()
        .filter(|relation| text.contains(&*relation.path.name))
        .map(|relation| Access { relation: Arc::new(relation), mode });
    Facts {
        certainty: Certainty::Known,
        actions: found.into_iter().map(|verb| Action { verb, without_where }).collect(),
        accesses: accesses.collect(),
        functions: Vec::new(),
        settings: Vec::new(),
        store: crate::facts::StoreFacts::default(),
    }
}

fn checked(folder: &Files) -> Report {
    let relations = relations();
    let relations: Vec<&Relation> = relations.iter().collect();
    check(
        folder,
        Knowledge {
            analyze: &analyze,
            language: &Language::without_configuration(),
            relations: &relations,
            predicates: &|_| Vec::new(),
        },
    )
}

#[test]
fn the_demo_rules_pass_their_own_tests() {
    let report = checked(&demo());
    assert!(report.passed(), "{report}");
    assert!(report.diagnostics.is_empty(), "{report}");
    assert_eq!(report.cases, 19);
}

/// Every demo rule is needed by some test: without the rule, a test fails.
#[test]
fn every_demo_rule_is_covered_by_a_test() {
    let ids = rule_ids(&demo());
    assert_eq!(checked(&demo()).rules.unwrap().len(), ids.len());
    // A rule that is in shadow mode already cannot be missed by a test.
    for id in ids.iter().filter(|id| *id != "watch-large-changes") {
        let mut folder = demo();
        let head = format!("- id: {id}\n");
        for file in &mut folder.rules {
            file.text = file.text.replace(&head, &format!("{head}    mode: shadow\n"));
        }
        let report = checked(&folder);
        assert!(!report.failures.is_empty(), "no test needs rule {id}: {report}");
    }
}

fn rule_ids(folder: &Files) -> Vec<String> {
    let lines = folder.rules.iter().flat_map(|file| file.text.lines());
    lines.filter_map(|line| line.strip_prefix("  - id: ")).map(str::to_owned).collect()
}

#[test]
fn a_typing_error_in_a_column_is_found() {
    let mut folder = demo();
    for file in &mut folder.rules {
        file.text = file.text.replace("public.customers.email", "public.customers.emial");
    }
    let report = checked(&folder);
    let text = report.to_string();
    assert!(!report.passed());
    assert!(
        text.contains(
            "error: column `emial` not found in `public.customers`, did you mean `email`?"
        ),
        "{text}"
    );
}

#[test]
fn a_failing_test_and_a_broken_file_are_not_accepted() {
    let mut folder = demo();
    for file in &mut folder.rules {
        file.text =
            file.text.replace("masked: {card_no: pan_bin_last4}", "masked: {card_no: nullify}");
    }
    let text = checked(&folder).to_string();
    assert!(text.contains("test failed: support never sees a full card number"), "{text}");
    assert!(text.contains("expected `card_no` masked by `nullify`, got `pan_bin_last4`"), "{text}");
    folder.rules[0].text.push_str("rulez: []\n");
    let text = checked(&folder).to_string();
    assert!(text.contains("unknown key `rulez`, did you mean `rules`?"), "{text}");
    assert!(text.contains("not accepted: 3 files, 0 rules"), "{text}");
}

#[test]
fn explaining_names_who_and_why() {
    let report = checked(&demo());
    let login = Login {
        datasource: "demo".into(),
        protocol: Protocol::POSTGRESQL,
        default_deny: false,
        user: "support".to_owned(),
        database: "demo".to_owned(),
        address: None,
        application: String::new(),
        credential: crate::policy::Credential::default(),
    };
    let text =
        explain(&report.rules.unwrap(), login, "select email from customers", &analyze).to_string();
    for expected in [
        "who:      support on demo (demo)",
        "roles:    support",
        "has:      tenant=acme",
        "governed: yes",
        "decision: allowed",
        "mask    public.customers.email partial_email (rule mask-support-pii)",
        "filter  public.customers where tenant_id = :identity.tenant (rule support-own-tenant)",
        "matched          mask-support-pii (mask, enforce)",
        "no match         no-unbounded-dml (deny, enforce)",
        "does not concern analyst-rate (limit, enforce)",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}
