//! Who owes what: masks, filters, limits, deny rules, allow lists.

use super::*;
use crate::facts::SyntaxError;

const MASK: &str = "match: {roles: [support], classes: [EMAIL, CARD]}, mask: {EMAIL: partial_email, CARD: nullify}";
const FILTER: &str = "match: {relations: [public.customers, public.orders], roles: [support]}, \
     filter: 'tenant_id = :identity.tenant'";

#[test]
fn nobody_is_concerned_without_rules() {
    check(&[], "app", "delete! delete_from:customers user:f", "allow");
    let set = set(&[MASK]);
    let class = set.classify(set.identify(login("app")));
    assert!(!class.concerned && !class.governed && class.rules.is_empty());
    let class = set.classify(set.identify(login("support")));
    assert!(class.concerned && class.governed);
}

#[test]
fn what_was_not_understood_is_refused_for_everybody() {
    let set = set(&[]);
    for why in [
        Why::NotUtf8,
        Why::TooLong,
        Why::TooComplex,
        Why::Construct("XMLTABLE".to_owned()),
        Why::Syntax(Box::new(SyntaxError { position: Some(3), ..SyntaxError::default() })),
    ] {
        let class = set.classify(set.identify(login("app")));
        let decision = set.decide(&class, &Facts::unknown(why.clone()));
        assert!(
            matches!(&decision, Decision::Deny(d) if d.reason == DenyReason::NotUnderstood(why)),
            "{decision:?}"
        );
    }
}

#[test]
fn masks_follow_classes_columns_and_levels() {
    let masked = "allow customers.email=partial_email customers.card_no=nullify";
    check(&[MASK], "support", "select read:customers", masked);
    check(&[MASK], "support", "select read:orders", "allow");
    check(&[MASK], "app", "select read:customers", "allow");
    check(&[MASK], "support", "update update_of:customers", masked);
    check(&[MASK], "support", "delete delete_from:customers", masked);
    check(&[MASK], "support", "insert insert_into:customers", masked);
    check(
        &["match: {columns: ['*.customers.notes']}, mask: nullify"],
        "app",
        "select read:customers",
        "allow customers.notes=nullify",
    );
    check(
        &["match: {levels: [restricted]}, mask: {constant: x}"],
        "app",
        "select read:customers",
        "allow customers.card_no=constant",
    );
    check(
        &["match: {classes: ['*'], except_classes: [CARD], except_users: [root]}, mask: nullify"],
        "app",
        "select read:customers",
        "allow customers.email=nullify",
    );
}

#[test]
fn partitions_are_governed_as_their_root() {
    let masked = "allow customers_2024.email=partial_email customers_2024.card_no=nullify \
                  customers_2024[tenant=acme]";
    check(&[MASK, FILTER], "support", "select read:customers_2024", masked);
}

#[test]
fn the_strongest_mask_wins_whatever_the_order() {
    let weak = "match: {columns: [public.customers.email]}, mask: {partial: {prefix: 1}}";
    let strong = "match: {columns: ['public.*.email']}, mask: nullify";
    for rules in [[weak, strong], [strong, weak]] {
        check(&rules, "app", "select read:customers", "allow customers.email=nullify");
    }
}

#[test]
fn each_relation_owes_once_however_often_it_is_used() {
    let set = set(&[MASK]);
    let decision =
        decide(&set, login("support"), "select update read:customers update_of:customers");
    let Decision::Allow(allowed) = decision else { panic!("{decision:?}") };
    assert_eq!(allowed.governances.len(), 1);
    assert_eq!(allowed.rules, [RuleId("r0".into())]);
    let mask = &allowed.governances[0].masks[0];
    assert_eq!(mask.class.as_deref(), Some("EMAIL"));
    assert_eq!(mask.function, MaskFn::PartialEmail { keep_domain: false });
}

#[test]
fn rules_that_change_what_is_seen_are_named_first() {
    let allow = "match: {roles: [support]}, allow: {statements: [select]}";
    let functions = "match: {roles: [support]}, allow: {functions: [f]}";
    let set = set(&[allow, FILTER, functions, MASK]);
    let decision = decide(&set, login("support"), "select read:customers user:f");
    let Decision::Allow(allowed) = decision else { panic!("{decision:?}") };
    let ids: Vec<&str> = allowed.rules.iter().map(|rule| &*rule.0).collect();
    assert_eq!(ids, ["r1", "r3", "r0", "r2"]);
}

#[test]
fn filters_add_up_and_need_their_values() {
    check(&[FILTER], "support", "select read:orders", "allow orders[tenant=acme]");
    check(&[FILTER], "support", "select read:elsewhere", "allow");
    let mine = "match: {relations: [public.orders]}, filter: 'owner = :identity.user'";
    check(
        &[FILTER, mine],
        "support",
        "select read:orders",
        "allow orders[tenant=acme] orders[user=support]",
    );
    let needs = "match: {relations: [public.orders]}, filter: 'tenant_id = :identity.tenant'";
    check(
        &[needs],
        "app",
        "select read:orders",
        "missing attribute r0: your identity has no `tenant`",
    );
    check(&[needs], "app", "select read:customers", "allow");
    check(&[needs], "torn", "select read:orders", "missing attribute r0");
}

#[test]
fn a_deny_rule_fits_any_part_of_a_text() {
    let unbounded =
        "match: {statements: [update, delete], without: where}, deny: {message: needs a WHERE}";
    check(&[unbounded], "app", "delete! delete_from:orders", "rule r0: needs a WHERE");
    check(&[unbounded], "app", "delete delete_from:orders", "allow");
    check(&[unbounded], "app", "explain update! update_of:orders", "rule r0");
    check(&[unbounded], "app", "select delete delete! read:orders", "rule r0");
    let group = "match: {statements: [ddl], except_statements: [create_index]}, deny: true";
    check(&[group], "app", "drop", "rule r0: a rule refuses this statement");
    check(&[group], "app", "create_index", "allow");
    check(&[group], "app", "create_index drop", "rule r0");
    let table = "match: {relations: [public.salaries], statements: [read]}, deny: true";
    check(&[table], "app", "select read:orders read:salaries", "rule r0");
    check(&[table], "app", "insert insert_into:salaries", "allow");
    let function = "match: {functions: [public.secret]}, deny: true";
    check(&[function], "app", "select user:public.secret", "rule r0");
    check(&[function], "app", "select user:secret", "rule r0");
    check(&[function], "app", "select user:other.secret", "allow");
    let column = "match: {classes: [CARD]}, deny: true";
    check(&[column], "app", "select read:customers", "rule r0");
    check(&[column], "app", "select read:orders", "allow");
    let but = "match: {except_relations: [public.scratch]}, deny: true";
    check(&[but], "app", "select read:scratch", "allow");
    check(&[but], "app", "select read:scratch read:orders", "rule r0");
    check(&[but], "app", "select", "rule r0");
}

#[test]
fn a_deny_rule_on_a_table_is_not_lost_behind_a_view() {
    let table = "match: {relations: [public.customers]}, deny: true";
    check(&[table], "app", "select read:customers_view", "rule r0");
    let but = "match: {relations: [public.customers], except_relations: [public.customers_view]}, \
               deny: true";
    check(&[but], "app", "select read:customers_view", "allow");
    check(&[but], "app", "select read:customers", "rule r0");
}

#[test]
fn deny_wins_over_allow() {
    let allow = "match: {users: [app]}, allow: {statements: [select]}";
    let deny = "match: {relations: [public.orders]}, deny: true";
    check(&[allow, deny], "app", "select read:orders", "rule r1");
    check(&[deny, allow], "app", "select read:orders", "rule r0");
}

#[test]
fn an_allow_list_is_all_an_identity_may_do() {
    let select = "match: {roles: [analyst]}, allow: {statements: [select, explain]}";
    check(&[select], "analyst", "select read:orders", "allow");
    check(
        &[select],
        "analyst",
        "insert insert_into:orders",
        "not allowed: no rule allows you `insert`",
    );
    check(&[select], "analyst", "begin select read:orders commit", "allow");
    check(&[select], "analyst", "empty", "allow");
    check(&[select], "analyst", "prepare", "not allowed");
    check(&[select], "app", "insert insert_into:orders", "allow");
    let tables =
        "match: {roles: [analyst]}, allow: {statements: [select], relations: [public.orders]}";
    check(&[tables], "analyst", "select read:orders", "allow");
    check(
        &[tables],
        "analyst",
        "select read:customers",
        "not allowed: no rule allows you this on `public.customers`",
    );
    check(&[tables], "analyst", "select read:pg_class", "allow");
}

#[test]
fn two_lists_never_add_up_to_more_than_each_says() {
    let read =
        "match: {users: [u]}, allow: {statements: [select, explain], relations: [public.orders]}";
    let log =
        "match: {users: [u]}, allow: {statements: [insert, truncate], relations: [public.log]}";
    let explain = "match: {users: [u]}, allow: {statements: [explain], relations: [public.secret]}";
    let rules = [read, log, explain];
    check(&rules, "u", "select read:orders", "allow");
    check(&rules, "u", "insert insert_into:log", "allow");
    check(&rules, "u", "insert select insert_into:log read:orders", "allow");
    check(&rules, "u", "insert insert_into:orders", "not allowed");
    check(&rules, "u", "select read:log", "not allowed");
    check(&rules, "u", "explain select read:secret", "not allowed");
    check(&rules, "u", "insert truncate insert_into:log define:orders", "not allowed");
}

#[test]
fn the_datasource_can_deny_by_default() {
    let strict = |user: &str| Login { default_deny: true, ..login(user) };
    check_login(&[], strict("app"), "select read:orders", "not allowed");
    check_login(&[], strict("app"), "empty", "allow");
    check_login(&[], strict("app"), "begin", "not allowed");
    let allow = "match: {users: [app]}, allow: {statements: [select]}";
    check_login(&[allow], strict("app"), "select read:orders", "allow");
    check_login(&[allow], strict("other"), "select read:orders", "not allowed");
    let functions = "match: {users: [app]}, allow: {functions: [f]}";
    check_login(&[functions], strict("app"), "select user:f", "not allowed");
}

#[test]
fn limits_name_whom_they_count() {
    let user = "match: {statements: [select]}, limit: {rate: 30/min, by: identity.user}";
    let tenant = "match: {roles: [support]}, limit: {rate: 100/10s, by: identity.tenant}";
    let ip = "match: {users: ['*']}, mode: warn, limit: {rate: 5/s, by: client.ip}";
    check(&[user, tenant, ip], "support", "select", "allow r0:support r1:acme r2:192.0.2.7");
    check(&[user], "support", "insert", "allow");
    let set = set(&[user, tenant, ip]);
    let Decision::Allow(allowed) = decide(&set, login("support"), "select") else { panic!() };
    let numbers: Vec<_> = allowed.limits.iter().map(|l| (l.count, l.per_us, l.enforced)).collect();
    assert_eq!(numbers, [(30, 60_000_000, true), (100, 10_000_000, true), (5, 1_000_000, false)]);
    // What commands bring is no statement's.
    check(&["match: {}, limit: {bytes: 1KiB/s}"], "support", "select", "allow");
}

#[test]
fn rules_that_are_not_enforced_change_nothing_and_are_reported() {
    let deny = "match: {statements: [delete]}, mode: shadow, deny: true";
    check(&[deny], "app", "delete delete_from:orders", "allow ?r0");
    check(&[deny], "app", "select read:orders", "allow");
    let warn = "match: {statements: [delete]}, mode: warn, deny: {message: do not}";
    check(&[warn], "app", "delete delete_from:orders", "allow ?r0 !rule r0: do not");
    let mask = "match: {classes: [EMAIL]}, mode: warn, description: mails, mask: nullify";
    check(&[mask], "app", "select read:customers", "allow ?r0 !rule r0: mails");
    let filter = "match: {relations: [public.orders]}, mode: shadow, filter: a = :identity.tenant";
    check(&[filter], "app", "select read:orders user:f", "allow ?r0");
    let list = "match: {users: [app]}, mode: shadow, allow: {statements: [select]}";
    check(&[list], "app", "delete delete_from:orders", "allow ?r0");
    check(&[list], "app", "select read:orders", "allow");
    let set = set(&[deny, mask, filter, list]);
    let class = set.classify(set.identify(login("app")));
    assert!(class.concerned && !class.governed, "what is not enforced closes no side door");
}

#[test]
fn a_match_needs_all_its_criteria() {
    let both = "match: {users: ['s*'], roles: [support], applications: [reports]}, deny: true";
    check(&[both], "support", "select", "rule r0");
    check(&[both], "app", "select", "allow");
    check_login(
        &[both],
        Login { application: "other".to_owned(), ..login("support") },
        "select",
        "allow",
    );
    let but = "match: {databases: [demo], except_roles: [support]}, deny: true";
    check(&[but], "support", "select", "allow");
    check(&[but], "app", "select", "rule r0");
    check(&["match: {database: other}, deny: true"], "app", "select", "allow");
    check(&["match: {datasource: [main, b]}, deny: true"], "app", "select", "rule r0");
}

#[test]
fn an_unknown_address_restricts_and_permits_nothing() {
    let at = |address: Option<&str>| Login {
        address: address.map(|text| text.parse().unwrap()),
        ..login("app")
    };
    let deny = "match: {networks: [203.0.113.0/24]}, deny: true";
    check_login(&[deny], at(Some("203.0.113.9")), "select", "rule r0");
    check_login(&[deny], at(Some("::ffff:203.0.113.9")), "select", "rule r0");
    check_login(&[deny], at(Some("192.0.2.1")), "select", "allow");
    check_login(&[deny], at(None), "select", "rule r0");
    let but = "match: {except_networks: [203.0.113.0/24]}, deny: true";
    check_login(&[but], at(Some("203.0.113.9")), "select", "allow");
    check_login(&[but], at(None), "select", "rule r0");
    let roles = "match: {roles: [inside]}, deny: true";
    check_login(&[roles], at(Some("10.1.2.3")), "select", "rule r0");
    check_login(&[roles], at(None), "select", "allow");
}
