use super::*;
use crate::facts::{Access, AccessMode, Action, Certainty, Relation, Verb};
use crate::name::RelationPath;

const RULES: &str = "version: 1
rules:
  - {id: mask, match: {roles: [staff], columns: [public.t.email]}, mask: nullify}
  - {id: own, match: {roles: [staff], relations: [public.t]}, filter: 'a = :identity.tenant'}
  - {id: stop, match: {users: [bob]}, deny: true}
  - {id: slow, match: {roles: [staff]}, limit: {rate: 1/s}}
";

/// Every statement reads `public.t`.
fn analyze(_text: &str, _login: &Login) -> Facts {
    let relation = Relation {
        path: RelationPath { database: "demo".into(), schema: "public".into(), name: "t".into() },
        lineage: Vec::new(),
        columns: vec!["email".into()],
        reads_through: Vec::new(),
        system: false,
        sensitive_system: false,
    };
    Facts {
        certainty: Certainty::Known,
        actions: vec![Action { verb: Verb::Select, without_where: false }],
        accesses: vec![Access { relation: Arc::new(relation), mode: AccessMode::Read }],
        functions: Vec::new(),
        settings: Vec::new(),
        store: crate::facts::StoreFacts::default(),
    }
}

fn read(test: &str) -> Result<Vec<Case>, Vec<Diagnostic>> {
    let text = format!("{RULES}tests:\n  - {{name: n, {test}}}\n");
    let texts = &[("text", Protocol::POSTGRESQL), ("line", Protocol::REDIS)];
    Case::read(&[SourceFile { name: "r.yaml".to_owned(), text }], texts)
}

/// Runs one test as `who` with this expectation; compares what is wrong, empty for nothing.
#[track_caller]
fn check(who: &str, expect: &str, wrong: &str) {
    let cases = read(&format!("as: {{{who}}}, text: q, expect: {{{expect}}}")).unwrap();
    let file = SourceFile { name: "r.yaml".to_owned(), text: RULES.to_owned() };
    let rules = RuleSet::compile(&[file], None).unwrap().0;
    let failures = Case::run(&rules, &cases, &analyze);
    let found: Vec<&str> = failures.iter().map(|failure| failure.message.as_str()).collect();
    assert_eq!(found.join("|"), wrong, "{who} {expect}");
}

const STAFF: &str = "user: a, roles: [staff], attributes: {tenant: x}";

#[test]
fn expectations_are_compared_with_the_decision() {
    check(
        STAFF,
        "masked: {email: nullify}, filtered: [public.t], limited: slow, allowed: true",
        "",
    );
    check(STAFF, "masked: {public.t.email: nullify}, filtered: [t]", "");
    check(STAFF, "masked: {email: partial}", "expected `email` masked by `partial`, got `nullify`");
    check(STAFF, "masked: {mail: nullify}", "expected `mail` masked, it is not");
    check(STAFF, "masked: {}", "`public.t.email` is masked");
    check(STAFF, "filtered: []", "`public.t` is filtered");
    check(STAFF, "filtered: [public.u]", "expected `public.u` filtered, it is not");
    check(STAFF, "limited: other", "expected limited by `other`, it is not");
    check(STAFF, "denied: true", "expected denied, got allowed");
    check("user: bob", "denied: stop", "");
    check("user: bob", "denied: true", "");
    check("user: bob", "denied: own", "expected denied by `own`, got denied by `stop`");
    check(
        "user: bob",
        "allowed: true",
        "expected allowed, got denied: a rule refuses this statement",
    );
    check("user: c, roles: [staff]", "denied: own", "");
    check("user: c", "allowed: true, masked: {}, filtered: []", "");
    check("user: c, default: deny", "denied: true", "");
    check("user: c, roles: []", "allowed: true", "");
}

#[test]
fn mistakes_in_tests_are_named() {
    let ok = "as: {user: a}, text: q";
    for (test, expected) in [
        ("as: {user: a}, expect: {allowed: true}", "a test has one of `text`, `line`"),
        ("as: {user: a}, statement: q, expect: {allowed: true}", "unknown key `statement`"),
        (&format!("{ok}, expect: {{}}"), "expected either `denied`"),
        (&format!("{ok}, expect: {{denied: true, masked: {{}}}}"), "expected either `denied`"),
        (&format!("{ok}, expect: {{allow: true}}"), "did you mean `allowed`?"),
        ("as: {roles: [a]}, text: q, expect: {allowed: true}", "`user` is missing"),
        ("as: {user: a, address: x}, text: q, expect: {allowed: true}", "expected an IP address"),
    ] {
        let problems = read(test).unwrap_err();
        let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|problem| problem.contains(expected)), "{test}: {found:?}");
    }
}

#[test]
fn a_test_says_what_its_session_speaks_by_its_key() {
    let both = "as: {user: a}, text: q, line: get, expect: {allowed: true}";
    let none = "as: {user: a}, expect: {allowed: true}";
    for wrong in [both, none] {
        let found = read(wrong).unwrap_err();
        assert_eq!(found[0].message, "a test has one of `text`, `line`", "{wrong}");
    }
    let file = SourceFile { name: "r.yaml".to_owned(), text: RULES.to_owned() };
    let rules = RuleSet::compile(&[file], None).unwrap().0;
    for (key, protocol) in [("text", Protocol::POSTGRESQL), ("line", Protocol::REDIS)] {
        let cases = read(&format!("as: {{user: a}}, {key}: q, expect: {{allowed: true}}")).unwrap();
        let heard = std::cell::Cell::new(None);
        let understand = |text: &str, login: &Login| {
            heard.set(Some(login.protocol));
            analyze(text, login)
        };
        let _ = Case::run(&rules, &cases, &understand);
        assert_eq!(heard.get(), Some(protocol));
    }
}
