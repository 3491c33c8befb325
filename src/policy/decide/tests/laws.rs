//! What holds whatever the rules say.

use proptest::prelude::*;

use super::*;

const RULES: &[&str] = &[
    "match: {roles: [support], classes: [EMAIL, CARD]}, mask: {EMAIL: partial_email, CARD: nullify}",
    "match: {columns: ['public.*.email']}, mask: {partial: {prefix: 2}}",
    "match: {relations: [public.orders]}, filter: 'tenant_id = :identity.tenant'",
    "match: {users: ['*'], relations: ['public.c*']}, filter: 'owner = :identity.user'",
    "match: {roles: [analyst]}, allow: {statements: [select, lock]}",
    "match: {users: [app]}, allow: {relations: [public.orders, public.customers], functions: [f]}",
    "match: {roles: [analyst]}, limit: {rate: 30/min}",
    "match: {statements: [select], relations: [public.orders]}, mode: shadow, limit: {rate: 1/s}",
    "match: {classes: [CARD]}, mode: warn, mask: nullify",
];

const DENIES: &[&str] = &[
    "match: {statements: [update, delete], without: where}, deny: true",
    "match: {relations: [public.orders]}, deny: true",
    "match: {users: [app], functions: [f]}, deny: true",
    "match: {roles: [support], levels: [restricted]}, deny: {message: no}",
];

const WORDS: &[&str] = &[
    "select",
    "delete!",
    "update",
    "insert",
    "lock",
    "read:customers",
    "read:orders",
    "read:customers_view",
    "read:customers_2024",
    "update_of:orders",
    "insert_into:customers",
    "define:orders",
    "user:f",
    "danger:set_config",
    "set:client_encoding=latin1",
];

fn subset(all: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(all, 0..=all.len())
}

fn users() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["app", "support", "analyst", "torn"])
}

/// One file for each rule, ids as given, in the order given.
fn compiled(rules: &[(usize, &str)]) -> RuleSet {
    let mut files = vec![file("labels.yaml", LABELS.to_owned())];
    for (position, (id, rule)) in rules.iter().enumerate() {
        let text = format!("version: 1\nrules:\n  - {{id: rule-{id}, {rule}}}\n");
        files.push(file(&format!("{position}.yaml"), text));
    }
    let identities = file("identities.yaml", IDENTITIES.to_owned());
    RuleSet::compile(&files, Some(&identities)).unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn order_of_rules_and_files_never_matters(
        rules in proptest::sample::subsequence((0..RULES.len() + DENIES.len()).collect::<Vec<_>>(), 0..=9),
        seed in proptest::collection::vec(any::<u32>(), 13),
        words in subset(WORDS),
        user in users(),
    ) {
        let all: Vec<&str> = RULES.iter().chain(DENIES).copied().collect();
        let ordered: Vec<(usize, &str)> = rules.iter().map(|id| (*id, all[*id])).collect();
        let mut shuffled = ordered.clone();
        shuffled.sort_by_key(|(id, _)| seed[*id]);
        let words = words.join(" ");
        prop_assert_eq!(
            decide(&compiled(&ordered), login(user), &words),
            decide(&compiled(&shuffled), login(user), &words)
        );
    }

    #[test]
    fn a_deny_rule_never_widens(
        rules in subset(RULES),
        deny in proptest::sample::select(DENIES),
        words in subset(WORDS),
        user in users(),
    ) {
        let mut numbered: Vec<(usize, &str)> = rules.into_iter().enumerate().collect();
        let words = words.join(" ");
        let before = decide(&compiled(&numbered), login(user), &words);
        numbered.push((99, deny));
        let after = decide(&compiled(&numbered), login(user), &words);
        match (before, after) {
            (_, Decision::Deny(_)) => {}
            (Decision::Allow(before), Decision::Allow(after)) => {
                prop_assert_eq!(before.governances, after.governances);
                prop_assert_eq!(before.limits, after.limits);
            }
            (Decision::Deny(denial), Decision::Allow(_)) => {
                prop_assert!(false, "{} was lifted", denial.message);
            }
        }
    }

    #[test]
    fn equal_digests_mean_equal_decisions(
        rules in subset(RULES),
        words in subset(WORDS),
        one in users(),
        other in users(),
    ) {
        let numbered: Vec<(usize, &str)> = rules.into_iter().enumerate().collect();
        let set = compiled(&numbered);
        let class = |user: &str| set.classify(set.identify(login(user)));
        let (one, other) = (class(one), class(other));
        let facts = facts(&words.join(" "));
        if one.digest == other.digest {
            prop_assert_eq!(set.decide(&one, &facts), set.decide(&other, &facts));
        }
    }

    #[test]
    fn explaining_agrees_with_deciding(
        rules in subset(RULES),
        words in subset(WORDS),
        user in users(),
    ) {
        let numbered: Vec<(usize, &str)> = rules.into_iter().enumerate().collect();
        let set = compiled(&numbered);
        let class = set.classify(set.identify(login(user)));
        let facts = facts(&words.join(" "));
        let explained = set.explain(&class, &facts);
        prop_assert_eq!(&explained.decision, &set.decide(&class, &facts));
        for considered in &explained.considered {
            prop_assert_eq!(considered.concerns, considered.matched.is_some());
        }
    }
}

#[test]
fn the_digest_sees_every_input_of_a_decision() {
    let digest = |rules: &[&str], login: Login| {
        let set = set(rules);
        set.classify(set.identify(login)).digest
    };
    let base = || login("app");
    let none: &[&str] = &[];
    // Identities no rule tells apart share plans.
    assert_eq!(digest(none, base()), digest(none, login("other")));
    let address = || Login { address: Some("192.0.2.8".parse().unwrap()), ..base() };
    assert_eq!(digest(none, base()), digest(none, address()));
    let filter = "match: {relations: [public.orders]}, filter: 'a = :identity.address'";
    assert_eq!(digest(&[filter], base()), digest(&[filter], login("other")));
    let differing = [
        (none, base(), Login { default_deny: true, ..base() }),
        (none, base(), Login { datasource: "other".into(), ..base() }),
        (none, base(), Login { database: "other".into(), ..base() }),
        (&[filter][..], base(), address()),
        (&["match: {users: [app]}, limit: {rate: 1/s}"][..], base(), login("other")),
        (&["match: {users: ['*']}, limit: {rate: 1/s}"][..], base(), login("other")),
        (&["match: {users: ['*']}, limit: {rate: 1/s, by: client.ip}"][..], base(), address()),
        (
            &["match: {relations: [public.orders]}, filter: 'a = :identity.application'"][..],
            base(),
            Login { application: "x".to_owned(), ..base() },
        ),
        (
            &["match: {relations: [public.orders]}, filter: 'a = :identity.tenant'"][..],
            login("support"),
            login("app"),
        ),
    ];
    for (rules, one, other) in differing {
        assert_ne!(digest(rules, one.clone()), digest(rules, other.clone()), "{one:?} {other:?}");
    }
    assert_ne!(digest(none, base()), digest(&[filter], base()));
}

#[test]
fn a_class_of_another_rule_set_decides_nothing() {
    let old = set(RULES);
    let class = old.classify(old.identify(login("support")));
    let decision = set(&[]).decide(&class, &facts("select read:orders"));
    assert!(matches!(decision, Decision::Deny(_)), "{decision:?}");
}
