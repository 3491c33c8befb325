//! Tenants, scripts and bounds.

use super::*;
use crate::obligation::Bounded;
use crate::policy::Counted;

#[test]
fn names_of_a_tenant_stand_behind_a_prefix() {
    let rule = "match: {protocol: redis}, prefix: 't:{identity.tenant}:'";
    let set = store_set(&[rule]);
    let of = |tenant: &str, words: &str| {
        let mut identity = set.identify(store_login());
        if !tenant.is_empty() {
            identity.attributes.insert("tenant".into(), tenant.into());
        }
        set.decide(&set.classify(identity), &store_facts(words))
    };
    for words in ["get r=a", "scan *listed", "publish pub=n", "ping", "subscribe psub=n *counted"] {
        let Decision::Allow(allowed) = of("acme", words) else { panic!("{words}") };
        assert_eq!(&*allowed.tenancy.unwrap().prefix, "t:acme:", "{words}");
        assert_eq!(allowed.rules.len(), usize::from(words != "ping"), "{words}");
    }
    for (tenant, words, expected) in [
        ("acme", "dbsize *counted", "side door r0: `dbsize` tells something about all keys, not"),
        ("acme", "scan *changed", "side door r0"),
        ("acme", "scan *reached", "side door r0"),
        ("", "get r=a", "missing attribute r0: your identity has no `tenant`"),
        ("", "scan *listed", "missing attribute"),
        ("a:b", "get r=a", "missing attribute r0: `tenant` of your identity cannot stand"),
        ("a*", "get r=a", "missing attribute"),
        ("{a}", "publish pub=a", "missing attribute"),
        ("", "ping", "allow"),
    ] {
        let found = summary(&of(tenant, words));
        assert!(found.starts_with(expected), "{tenant} {words}: {found}");
    }
    // Statements and other protocols have no names behind a prefix.
    let Decision::Allow(allowed) = decide(&set, login("app"), "select read:orders") else {
        panic!("refused")
    };
    assert_eq!(allowed.tenancy, None);
    // Who has two has none.
    let two = ["match: {}, prefix: 'a:'", "match: {}, prefix: 'b:'"];
    check(&two, "get r=x", "side door r1: rules `r0` and `r1` differ on your keys");
    check(&two, "ping", "allow");
    let same = ["match: {}, prefix: 'a:'", "match: {}, prefix: 'a:'"];
    check(&same, "get r=x", "allow");
    // No value makes a prefix on which the server tells of every key.
    let set_of_users = store_set(&["match: {}, prefix: '{identity.user}:'"]);
    let as_user = |user: &str| {
        let login = Login { user: user.into(), ..store_login() };
        summary(&decided(&set_of_users, login, &store_facts("subscribe psub=* *counted")))
    };
    assert_eq!(as_user("ada"), "allow");
    assert!(as_user("__keyspace@0__").starts_with("missing attribute"), "{}", as_user("__k"));
    // Tenants do not share plans.
    let class = |tenant: &str| {
        let mut identity = set.identify(store_login());
        identity.attributes.insert("tenant".into(), tenant.into());
        set.classify(identity)
    };
    assert_ne!(class("a").digest, class("b").digest);
}

#[test]
fn a_script_that_is_listed_reaches_its_keys_only() {
    const SHA: &str = "00112233445566778899aabbccddeeff00112233";
    let listed = format!("match: {{}}, allow: {{scripts: [{SHA}]}}");
    let listed = listed.as_str();
    let call = format!("evalsha rw=s:1> *reached script={}", SHA.to_ascii_uppercase());
    let call = call.as_str();
    let other = "evalsha rw=s:1> *reached script=other";
    check(&[], call, "closed door: `evalsha` is not available");
    check(&[listed], call, "allow");
    check(&[listed], other, "closed door");
    check(&[listed], "eval *reached", "closed door");
    check(&[listed], "get r=a", "allow");
    check(&[&format!("{listed}, mode: shadow")], call, "closed door");
    // What it is called with is judged like any key.
    let deny = "match: {keys: ['x:*']}, deny: true";
    check(&[listed, deny], call, "allow");
    check(&[listed, "match: {writes: ['s:*']}, deny: true"], call, "rule r1");
    check(&[listed, "match: {keys: ['x:*']}, mask: nullify"], call, "allow");
    check(&[listed, "match: {keys: ['s:*']}, mask: nullify"], call, "side door r1");
    check(&[listed, "match: {}, allow: {keys: ['s:*']}"], call, "allow");
    check(&[listed, "match: {}, allow: {keys: ['x:*']}"], call, "not allowed");
    check(&[listed, "match: {commands: ['@scripting']}, deny: true"], call, "rule r1");
    check(&[listed, "match: {}, prefix: 'a:'"], call, "allow");
    // Beside a list, the name opens no other script.
    let both = format!("match: {{}}, allow: {{commands: [evalsha], scripts: [{SHA}]}}");
    check(&[&both], call, "allow");
    check(&[&both], other, "closed door");
    // A door opened by name is not vouched for.
    let opened = "match: {}, allow: {commands: [evalsha]}";
    check(&[opened, deny], call, "side door r1");
    // Scripts that rules do not tell apart are decided alike.
    let set = store_set(&[listed]);
    let class = set.classify(set.identify(store_login()));
    let fits = |digest: &str| set.script_fits(&class, digest.as_bytes(), KnownBy::Digest);
    assert_eq!(fits("other"), fits("another"));
    assert_eq!(fits(SHA), fits(&SHA.to_ascii_uppercase()));
    assert_ne!(fits(SHA), fits("other"));
}

#[test]
fn a_function_that_is_listed_reaches_its_keys_only() {
    const SHA: &str = "00112233445566778899aabbccddeeff00112233";
    let listed = "match: {}, allow: {library_functions: [take, Give]}";
    let call = "fcall rw=s:1> *reached function=take";
    check(&[], call, "closed door: `fcall` is not available");
    check(&[listed], call, "allow");
    check(&[listed], "fcall rw=s:1> *reached function=Give", "allow");
    for other in ["give", "takes", "tak", "tak?", "TAKE"] {
        let call = format!("fcall rw=s:1> *reached function={other}");
        check(&[listed], &call, "closed door");
    }
    check(&[listed], "get r=a", "allow");
    check(&[&format!("{listed}, mode: shadow")], call, "closed door");
    // A digest is no name, and a name no digest.
    let digest = format!("match: {{}}, allow: {{scripts: [{SHA}]}}");
    check(&[&digest], &format!("fcall *reached function={SHA}"), "closed door");
    let name = format!("match: {{}}, allow: {{library_functions: [{SHA}]}}");
    check(&[&name], &format!("evalsha *reached script={SHA}"), "closed door");
    // What it is called with is judged like any key.
    check(&[listed, "match: {keys: ['x:*']}, deny: true"], call, "allow");
    check(&[listed, "match: {writes: ['s:*']}, deny: true"], call, "rule r1");
    check(&[listed, "match: {keys: ['s:*']}, mask: nullify"], call, "side door r1");
    check(&[listed, "match: {}, allow: {keys: ['x:*']}"], call, "not allowed");
    // Beside a list, the name of the command opens no other function, and every script.
    let both = "match: {}, allow: {commands: [fcall, evalsha], library_functions: [take]}";
    check(&[both], call, "allow");
    check(&[both], "fcall *reached function=other", "closed door");
    check(&[both], &format!("evalsha *reached script={SHA}"), "allow");
    let set = store_set(&[listed]);
    let class = set.classify(set.identify(store_login()));
    let fits = |name: &str| set.script_fits(&class, name.as_bytes(), KnownBy::Name);
    assert_eq!(fits("other"), fits("TAKE"));
    assert_ne!(fits("take"), fits("other"));
}

#[test]
fn bounds_come_with_permission() {
    let rules = [
        "match: {writes: ['s:*']}, values: {bytes_max: 1KiB, arguments_max: 10}",
        "match: {commands: ['@read']}, patterns: {length_max: 64}",
    ];
    let set = store_set(&rules);
    let bounds = |words: &str| match decided(&set, store_login(), &store_facts(words)) {
        Decision::Allow(allowed) => {
            let all = allowed.bounds.iter();
            all.map(|bound| (bound.rule.0.to_string(), bound.max)).collect::<Vec<_>>()
        }
        Decision::Deny(denial) => panic!("{}", denial.message),
    };
    assert_eq!(bounds("set w=s:1!"), [("r0".into(), 1024), ("r0".into(), 10)]);
    assert_eq!(bounds("set w=a!"), []);
    assert_eq!(bounds("scan *listed"), [("r1".into(), 64)]);
    let ttl = store_set(&["match: {writes: ['s:*']}, ttl: {default: 1h, cap: 1d}"]);
    let Decision::Allow(allowed) = decided(&ttl, store_login(), &store_facts("set w=s:1!")) else {
        panic!()
    };
    let found: Vec<_> = allowed.bounds.iter().map(|bound| (bound.what, bound.max)).collect();
    let day = 24 * 3_600_000;
    assert_eq!(
        found,
        [
            (Bounded::ExpiryMs, day),
            (Bounded::ExpiryLoweredMs, day),
            (Bounded::ExpiryPutInMs, 3_600_000)
        ]
    );
}

#[test]
fn limits_on_what_commands_bring_come_with_permission() {
    let set = store_set(&[
        "match: {writes: ['s:*']}, limit: {bytes: 1KiB/s}",
        "match: {}, limit: {arguments: 10/s}",
    ]);
    let limits = |words: &str| match decided(&set, store_login(), &store_facts(words)) {
        Decision::Allow(allowed) => {
            allowed.limits.iter().map(|limit| (limit.of, limit.count)).collect::<Vec<_>>()
        }
        Decision::Deny(denial) => panic!("{}", denial.message),
    };
    assert_eq!(limits("set w=s:1!"), [(Counted::Bytes, 1024), (Counted::Arguments, 10)]);
    assert_eq!(limits("set w=a!"), [(Counted::Arguments, 10)]);
}
