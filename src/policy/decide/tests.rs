use std::sync::Arc;

use super::*;
use crate::facts::{Action, FunctionClass, FunctionUse, SettingChange, Verb};
use crate::name::RelationPath;
use crate::obligation::MaskFn;
use crate::policy::Credential;
use crate::policy::{Identity, Login, SourceFile};

mod laws;
mod obligations;
mod side_doors;
mod store;

// === the world of these tests ===

/// Classification every test set begins with.
const LABELS: &str = "version: 1
classification:
  - {columns: ['public.customers.email', '*.backup_?.email'], class: EMAIL, level: confidential}
  - {columns: ['public.customers.card_no'], class: CARD, level: restricted}
";

const IDENTITIES: &str = "version: 1
identities:
  - {user: support, roles: [support], attributes: {tenant: acme}}
  - {user: analyst, roles: [analyst]}
  - {user: torn, roles: [support], attributes: {tenant: acme}}
  - {user: torn, roles: [support], attributes: {tenant: globex}}
  - {user: '*', networks: [10.0.0.0/8], roles: [inside]}
";

fn relation(schema: &str, name: &str, columns: &[&str]) -> Relation {
    Relation {
        path: path(schema, name),
        lineage: Vec::new(),
        columns: columns.iter().map(|column| Arc::from(*column)).collect(),
        reads_through: Vec::new(),
        system: schema == "pg_catalog",
        sensitive_system: name == "pg_stats",
    }
}

fn path(schema: &str, name: &str) -> RelationPath {
    RelationPath { database: "demo".into(), schema: schema.into(), name: name.into() }
}

fn known(name: &str) -> Relation {
    match name {
        "customers" => {
            relation("public", "customers", &["id", "tenant_id", "email", "card_no", "notes"])
        }
        "customers_2024" => Relation {
            path: path("public", "customers_2024"),
            lineage: vec![path("public", "customers")],
            ..known("customers")
        },
        "customers_view" => Relation {
            path: path("public", "customers_view"),
            reads_through: vec![Arc::new(known("customers"))],
            ..relation("public", "customers_view", &["id", "mail"])
        },
        "stats_view" => Relation {
            reads_through: vec![Arc::new(known("pg_stats"))],
            ..relation("public", "stats_view", &["tablename"])
        },
        "pg_class" | "pg_stats" => relation("pg_catalog", name, &["oid"]),
        other => relation("public", other, &["id", "tenant_id", "amount"]),
    }
}

/// Facts from a small notation, one word each: `select`, `delete!` (without WHERE),
/// `read:customers`, `define:orders`, `call:f`, `user:public.f`, `danger:f`, `set:name=value`,
/// `set:name` (default or computed).
fn facts(words: &str) -> Facts {
    let mut facts = Facts {
        certainty: Certainty::Known,
        actions: Vec::new(),
        accesses: Vec::new(),
        functions: Vec::new(),
        settings: Vec::new(),
        store: crate::facts::StoreFacts::default(),
    };
    for word in words.split_whitespace() {
        let (kind, rest) = word.split_once(':').unwrap_or((word, ""));
        match kind {
            "read" => access(&mut facts, rest, AccessMode::Read),
            "insert_into" => access(&mut facts, rest, AccessMode::Insert),
            "update_of" => access(&mut facts, rest, AccessMode::Update),
            "delete_from" => access(&mut facts, rest, AccessMode::Delete),
            "define" => access(&mut facts, rest, AccessMode::Define),
            "call" if !rest.is_empty() => call(&mut facts, rest, FunctionClass::Pure),
            "user" => call(&mut facts, rest, FunctionClass::User),
            "danger" => call(&mut facts, rest, FunctionClass::Dangerous),
            "set" if !rest.is_empty() => {
                let (name, value) = match rest.split_once('=') {
                    Some((name, value)) => (name, Some(value.into())),
                    None => (rest, None),
                };
                let name = if name == "?" { "" } else { name };
                facts.settings.push(SettingChange { name: name.into(), value, local: false });
            }
            verb => {
                let name = verb.trim_end_matches('!');
                let parsed = Verb::parse(name).unwrap_or_else(|| panic!("no verb {name}"));
                facts.actions.push(Action { verb: parsed, without_where: verb.ends_with('!') });
            }
        }
    }
    facts
}

fn access(facts: &mut Facts, name: &str, mode: AccessMode) {
    facts.accesses.push(Access { relation: Arc::new(known(name)), mode });
}

fn call(facts: &mut Facts, name: &str, class: FunctionClass) {
    let (schema, name) = match name.split_once('.') {
        Some((schema, name)) => (Some(schema.into()), name),
        None => (None, name),
    };
    facts.functions.push(FunctionUse { schema, name: name.into(), class });
}

fn file(name: &str, text: String) -> SourceFile {
    SourceFile { name: name.to_owned(), text }
}

/// A set of these rules (each the inside of a YAML flow mapping but for the id) and the
/// identities above.
fn set(rules: &[&str]) -> RuleSet {
    let mut text = LABELS.to_owned();
    if !rules.is_empty() {
        text.push_str("rules:\n");
    }
    for (index, rule) in rules.iter().enumerate() {
        text.push_str(&format!("  - {{id: r{index}, {rule}}}\n"));
    }
    let identities = file("identities.yaml", IDENTITIES.to_owned());
    match RuleSet::compile(&[file("rules.yaml", text)], Some(&identities)) {
        Ok((set, _warnings)) => set,
        Err(problems) => {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", list.join("\n"))
        }
    }
}

fn login(user: &str) -> Login {
    Login {
        datasource: "main".into(),
        protocol: crate::name::Protocol::POSTGRESQL,
        default_deny: false,
        user: user.to_owned(),
        database: "demo".to_owned(),
        address: Some("192.0.2.7".parse().unwrap()),
        application: "reports".to_owned(),
        credential: Credential::default(),
    }
}

fn decide(set: &RuleSet, login: Login, words: &str) -> Decision {
    let identity: Identity = set.identify(login);
    set.decide(&set.classify(identity), &facts(words))
}

/// One line for a decision, so that tests are tables.
fn summary(decision: &Decision) -> String {
    match decision {
        Decision::Deny(Denial { reason, rule, message, hint: _ }) => {
            let kind = match reason {
                DenyReason::Rule => "rule",
                DenyReason::NotAllowed => "not allowed",
                DenyReason::NotUnderstood(_) => "not understood",
                DenyReason::SideDoor => "side door",
                DenyReason::ClosedDoor => "closed door",
                DenyReason::MissingAttribute => "missing attribute",
            };
            let rule = rule.as_ref().map(|rule| format!(" {rule}")).unwrap_or_default();
            format!("{kind}{rule}: {message}")
        }
        Decision::Allow(allowed) => {
            let mut parts = vec!["allow".to_owned()];
            for governance in &allowed.governances {
                let name = &governance.relation.path.name;
                parts.extend(
                    governance
                        .masks
                        .iter()
                        .map(|mask| format!("{name}.{}={}", mask.column, mask.function.name())),
                );
                parts.extend(governance.filters.iter().map(|filter| {
                    let values = filter.values.iter().map(|(n, v)| format!("{n}={v}"));
                    format!("{name}[{}]", values.collect::<Vec<_>>().join(","))
                }));
            }
            for governance in &allowed.values {
                let key = governance.key;
                let masks = governance.masks.iter();
                parts.extend(masks.map(|m| format!("{key}:[{}]={}", m.pattern, m.function.name())));
            }
            parts.extend(allowed.limits.iter().map(|l| format!("{}:{}", l.rule, l.subject)));
            parts.extend(allowed.observed.iter().map(|rule| format!("?{rule}")));
            parts.extend(allowed.warnings.iter().map(|warning| format!("!{warning}")));
            parts.join(" ")
        }
    }
}

/// Decides for `user` and compares the beginning of the summary; `allow` alone must be all.
#[track_caller]
fn check(rules: &[&str], user: &str, words: &str, expected: &str) {
    check_login(rules, login(user), words, expected);
}

#[track_caller]
fn check_login(rules: &[&str], login: Login, words: &str, expected: &str) {
    let found = summary(&decide(&set(rules), login, words));
    let whole = expected.starts_with("allow");
    assert!(
        if whole { found == expected } else { found.starts_with(expected) },
        "{words}\n expected {expected}\n found    {found}"
    );
}
