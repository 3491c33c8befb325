//! Commands of key-value stores.

use proptest::prelude::*;

use super::*;
use crate::facts::{
    ChannelMode, ChannelUse, CommandUse, Exposure, KeyMode, KeyUse, KnownBy, ScriptUse, StoreFacts,
    Unnamed,
};
use crate::name::Protocol;
use crate::policy::Vocabulary;

mod effects;

/// Commands these tests know: name, categories, and a star for a door.
const COMMANDS: &[(&str, &str)] = &[
    ("get", "read string"),
    ("set", "write string"),
    ("strlen", "read string"),
    ("copy", "write keyspace"),
    ("scan", "read keyspace"),
    ("dbsize", "read keyspace"),
    ("ping", "connection"),
    ("watch", "transaction"),
    ("publish", "pubsub"),
    ("subscribe", "pubsub"),
    ("flushall*", "write dangerous"),
    ("eval*", "scripting"),
    ("evalsha*", "scripting"),
    ("fcall*", "scripting"),
    ("client", "connection"),
    ("client|list*", "connection admin dangerous"),
    ("client|id", "connection"),
];

const LABELS: &str = "version: 1
classification:
  - {keys: ['customer:*'], fields: [email], class: EMAIL, level: confidential}
  - {keys: ['card:*'], paths: ['$.pan', '$.old[*]'], class: CARD, level: restricted}
";

fn commands() -> Vec<Arc<CommandUse>> {
    let made = COMMANDS.iter().map(|(name, categories)| {
        let categories = categories.split(' ').map(Arc::from).collect();
        let door = name.ends_with('*');
        let name = name.trim_end_matches('*').into();
        Arc::new(CommandUse { name, categories, door, ends: false, unruled: false })
    });
    made.collect()
}

fn store_set(rules: &[&str]) -> RuleSet {
    let mut text = LABELS.to_owned();
    if !rules.is_empty() {
        text.push_str("rules:\n");
    }
    for (index, rule) in rules.iter().enumerate() {
        text.push_str(&format!("  - {{id: r{index}, {rule}}}\n"));
    }
    let vocabulary = Vocabulary::default().with_commands(&commands()).with_mask_keys();
    match RuleSet::compile_for(&[file("rules.yaml", text)], None, &vocabulary) {
        Ok((set, _warnings)) => set,
        Err(problems) => {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", list.join("\n"))
        }
    }
}

/// Facts from a small notation, one word each: the command, then `r=key`, `w=key`, `rw=key` with
/// `!` (nothing shown), `~` (derived) or `>` (copied) behind, `pub=channel`, `sub=channel`,
/// `psub=pattern`, and `*listed`, `*counted`, `*changed`, `*reached`.
fn store_facts(words: &str) -> Facts {
    let mut words = words.split_whitespace();
    let name = words.next().unwrap();
    let mut commands = commands().into_iter();
    let command = commands.find(|command| &*command.name == name).unwrap();
    let mut store = StoreFacts { command: Some(command), ..StoreFacts::default() };
    for word in words {
        if let Some(unnamed) = word.strip_prefix('*') {
            store.unnamed = match unnamed {
                "listed" => Unnamed::Listed,
                "counted" => Unnamed::Counted,
                "changed" => Unnamed::Changed,
                "reached" => Unnamed::Reached,
                other => panic!("{other}"),
            };
            continue;
        }
        let (kind, text) = word.split_once('=').unwrap();
        let known_by = match kind {
            "script" => Some(KnownBy::Digest),
            "function" => Some(KnownBy::Name),
            _ => None,
        };
        if let Some(known_by) = known_by {
            store.script = Some(ScriptUse { name: text.as_bytes().into(), known_by });
            continue;
        }
        let mode = match kind {
            "r" => KeyMode::Read,
            "w" => KeyMode::Write,
            "rw" => KeyMode::ReadWrite,
            kind => {
                let mode = match kind {
                    "pub" => ChannelMode::Publish,
                    "sub" => ChannelMode::Subscribe,
                    "psub" => ChannelMode::SubscribePattern,
                    other => panic!("{other}"),
                };
                store.channels.push(ChannelUse { name: text.as_bytes().into(), mode });
                continue;
            }
        };
        let (text, exposure) = match text.strip_suffix(['!', '~', '>']) {
            Some(text) if word.ends_with('!') => (text, Exposure::Hidden),
            Some(text) if word.ends_with('~') => (text, Exposure::Derived),
            Some(text) => (text, Exposure::Copied),
            None => (text, Exposure::Shown),
        };
        store.keys.push(KeyUse { key: text.as_bytes().into(), mode, exposure });
    }
    Facts { store, ..facts("") }
}

fn store_login() -> Login {
    Login { protocol: Protocol::REDIS, ..login("app") }
}

fn decided(set: &RuleSet, login: Login, facts: &Facts) -> Decision {
    set.decide(&set.classify(set.identify(login)), facts)
}

#[track_caller]
fn check_as(rules: &[&str], login: Login, words: &str, expected: &str) {
    let found = summary(&decided(&store_set(rules), login, &store_facts(words)));
    let whole = expected.starts_with("allow");
    assert!(
        if whole { found == expected } else { found.starts_with(expected) },
        "{words}\n expected {expected}\n found    {found}"
    );
}

#[track_caller]
fn check(rules: &[&str], words: &str, expected: &str) {
    check_as(rules, store_login(), words, expected);
}

#[test]
fn without_rules_all_but_doors_is_open() {
    for words in ["get r=a", "set w=a!", "scan *listed", "copy r=a> w=b!", "subscribe psub=*"] {
        check(&[], words, "allow");
    }
    for name in ["flushall *changed", "eval *reached", "client|list"] {
        check(&[], name, "closed door: `");
    }
    let denying = Login { default_deny: true, ..store_login() };
    check_as(&[], denying.clone(), "get r=a", "not allowed: no rule allows you `get`");
    check_as(&[], denying, "ping", "not allowed: no rule allows you `ping`");
}

#[test]
fn doors_are_opened_by_their_own_name_or_by_the_word_for_all() {
    for (allowed, words, expected) in [
        ("[flushall]", "flushall *changed", "allow"),
        ("[flushall]", "get r=a", "allow"),
        ("[flushall]", "eval *reached", "closed door"),
        ("['@doors']", "eval *reached", "allow"),
        ("['@doors']", "client|list", "allow"),
        ("['@doors']", "get r=a", "allow"),
        ("['@dangerous']", "flushall *changed", "closed door"),
        ("['*']", "flushall *changed", "closed door"),
        ("['client|*']", "client|list", "closed door"),
        ("[client]", "client|list", "closed door"),
        ("['client|list']", "client|list", "allow"),
        ("['*', '@doors']", "eval *reached", "allow"),
        ("[get, flushall]", "flushall *changed", "allow"),
        ("[get, flushall]", "set w=a!", "not allowed"),
    ] {
        check(&[&format!("match: {{}}, allow: {{commands: {allowed}}}")], words, expected);
    }
    let opened = "match: {}, allow: {commands: [flushall]}";
    check(&[opened, "match: {commands: ['@doors']}, deny: true"], "flushall *changed", "rule r1");
    check(&[&format!("{opened}, mode: shadow")], "flushall *changed", "closed door");
    let denying = Login { default_deny: true, ..store_login() };
    check_as(&[opened], denying.clone(), "flushall *changed", "allow");
    check_as(&[opened], denying, "get r=a", "not allowed");
}

#[test]
fn denies_fit_commands_keys_and_channels() {
    for (matched, words, denied) in [
        ("commands: [GET]", "get r=a", true),
        ("commands: [GET]", "set w=a!", false),
        ("commands: ['@read']", "get r=a", true),
        ("commands: [client]", "client|id", true),
        ("commands: ['cl*']", "client|id", true),
        ("commands: ['*'], except_commands: ['@read']", "get r=a", false),
        ("except_commands: ['@read']", "set w=a!", true),
        ("keys: ['s:*']", "get r=s:1", true),
        ("keys: ['s:*']", "get r=a r=s:1", true),
        ("keys: ['s:*']", "get r=a", false),
        ("keys: ['s:*']", "set w=s:1!", true),
        ("reads: ['s:*']", "set w=s:1!", false),
        ("reads: ['s:*']", "set rw=s:1", true),
        ("writes: ['s:*']", "get r=s:1", false),
        ("writes: ['s:*']", "set rw=s:1", true),
        ("reads: ['a:*'], writes: ['b:*']", "copy r=a:1> w=b:1!", true),
        ("reads: ['a:*'], writes: ['b:*']", "copy r=b:1> w=a:1!", false),
        ("keys: ['s:*'], except_keys: ['s:0']", "get r=s:0", false),
        ("keys: ['s:*'], except_keys: ['s:0']", "get r=s:0 r=s:1", true),
        ("except_keys: ['s:*']", "get r=s:0", false),
        ("except_keys: ['s:*']", "get r=s:0 r=a", true),
        ("except_keys: ['s:*']", "ping", false),
        ("channels: ['n:*']", "publish pub=n:1", true),
        ("channels: ['n:*']", "subscribe psub=*", true),
        ("channels: ['n:*']", "subscribe psub=m:*", false),
        ("channels: ['n:*'], except_channels: ['n:ok*']", "subscribe psub=n:ok:*", false),
        ("channels: ['n:*'], except_channels: ['n:ok*']", "subscribe psub=n:*", true),
        ("classes: [EMAIL]", "get r=customer:1", true),
        ("classes: [EMAIL]", "get r=card:1", false),
        ("levels: [restricted]", "get r=card:1", true),
        ("classes: [EMAIL], keys: ['customer:1*']", "get r=customer:2", false),
        ("statements: [select]", "get r=a", false),
        ("relations: ['*']", "get r=a", false),
        ("except_relations: [a.b]", "get r=a", false),
        ("functions: ['*']", "get r=a", false),
        ("", "get r=a", true),
        ("protocol: postgresql", "get r=a", false),
    ] {
        let rule = format!("match: {{{matched}}}, deny: true");
        check(&[&rule], words, if denied { "rule r0" } else { "allow" });
        // A limit matches as a deny does.
        let rule = format!("match: {{{matched}}}, limit: {{rate: 1/s}}");
        check(&[&rule], words, if denied { "allow r0:app" } else { "allow" });
    }
}

#[test]
fn rules_about_commands_say_nothing_of_statements() {
    for matched in ["commands: [get]", "keys: ['*']", "except_keys: [a]", "channels: ['*']"] {
        let set = store_set(&[&format!("match: {{{matched}}}, deny: true")]);
        let found = summary(&decide(&set, login("app"), "select read:customers user:f"));
        assert_eq!(found, "allow", "{matched}");
    }
    let set = store_set(&["match: {keys: ['*']}, mask: nullify"]);
    assert_eq!(summary(&decide(&set, login("app"), "select read:customers user:f")), "allow");
    // A list closes all it does not name.
    let set = store_set(&["match: {}, allow: {commands: [get]}"]);
    for words in ["select", "select read:customers", "fetch read:customers"] {
        let found = summary(&decide(&set, login("app"), words));
        assert!(found.starts_with("not allowed"), "{words}: {found}");
    }
    let set = store_set(&["match: {protocol: redis}, allow: {commands: [get]}"]);
    assert_eq!(summary(&decide(&set, login("app"), "select")), "allow");
    let rule = "match: {}, allow: {statements: [select]}";
    check(&[rule], "get r=a", "not allowed: no rule allows you `get` here");
}

#[test]
fn keys_that_are_no_text_are_judged() {
    let set = store_set(&["match: {keys: ['s:*']}, deny: true"]);
    let key = |key: &[u8]| {
        let mut facts = store_facts("get r=x");
        facts.store.keys[0].key = key.into();
        summary(&decided(&set, store_login(), &facts))
    };
    assert!(key(b"s:\xff\xfe").starts_with("rule r0"));
    assert!(key(b"s:\0").starts_with("rule r0"));
    assert_eq!(key(b"\xffs:"), "allow");
}

#[test]
fn allow_lists_cover_commands_with_their_keys_and_channels() {
    for (allowed, words, expected) in [
        ("commands: [get]", "get r=a", "allow"),
        ("commands: [get]", "set w=a!", "not allowed: no rule allows you `set` here"),
        ("commands: [get]", "ping", "allow"),
        ("commands: [get]", "watch r=a!", "allow"),
        ("commands: [get]", "client|id", "allow"),
        ("commands: [get]", "client|list", "closed door"),
        ("keys: ['a:*']", "get r=a:1", "allow"),
        ("keys: ['a:*']", "set rw=a:1", "allow"),
        ("keys: ['a:*']", "get r=a:1 r=b", "not allowed: no rule allows you `get` on this key"),
        ("keys: ['a:*']", "watch r=b!", "not allowed: no rule allows you `watch` on this key"),
        ("keys: ['a:*']", "publish pub=n", "not allowed: no rule allows you `publish` on this"),
        ("keys: ['a:*']", "scan *listed", "not allowed: `scan` shows names of all keys"),
        ("keys: ['a:*']", "dbsize *counted", "not allowed"),
        ("keys: ['*']", "scan *listed", "allow"),
        ("reads: ['a:*']", "get r=a:1", "allow"),
        ("reads: ['a:*']", "set w=a:1!", "not allowed"),
        ("reads: ['a:*']", "set rw=a:1", "not allowed"),
        ("reads: ['a:*'], writes: ['a:1']", "set rw=a:1", "allow"),
        ("reads: ['*']", "scan *listed", "allow"),
        ("writes: ['*']", "scan *listed", "not allowed"),
        ("channels: ['n:*']", "publish pub=n:1", "allow"),
        ("channels: ['n:*']", "subscribe psub=n:*", "allow"),
        ("channels: ['n:*']", "subscribe psub=*", "not allowed"),
        ("channels: ['n:*']", "get r=a", "not allowed"),
        ("channels: ['n:*']", "ping", "allow"),
        ("commands: [scan]", "scan *listed", "allow"),
        ("commands: [eval]", "eval *reached", "allow"),
        ("commands: [get, eval], keys: ['a:*']", "eval r=a:1 *reached", "not allowed"),
        ("commands: [get, eval], keys: ['*']", "eval *reached", "not allowed"),
        ("commands: [eval], keys: ['*'], channels: ['*']", "eval *reached", "allow"),
    ] {
        check(&[&format!("match: {{}}, allow: {{{allowed}}}")], words, expected);
    }
    // Rules do not mix, and doors ask for keys of a list.
    let two =
        ["match: {}, allow: {commands: [get], keys: [a]}", "match: {}, allow: {commands: [set]}"];
    check(&two, "get r=b", "not allowed");
    check(&two, "set w=b!", "allow");
    let door = ["match: {}, allow: {commands: [flushall]}", "match: {}, allow: {keys: [a]}"];
    check(&door, "flushall *changed", "not allowed: `flushall` changes all keys");
    check(&door, "get r=a", "allow");
    // A list that is only watched is reported.
    let shadow = "match: {}, mode: shadow, allow: {commands: [get]}";
    check(&[shadow], "set w=a!", "allow ?r0");
    check(&[shadow], "get r=a", "allow");
}

#[test]
fn values_are_masked_by_key_field_path_and_class() {
    let by_key = "match: {keys: ['customer:*']}, mask: nullify";
    check(&[by_key], "get r=customer:1", "allow 0:[customer:*]=nullify");
    check(&[by_key], "get r=a", "allow");
    check(&[by_key], "get r=a r=customer:1", "allow 1:[customer:*]=nullify");
    check(&[by_key], "set w=customer:1!", "allow");
    check(&[by_key], "scan *listed", "allow");
    check(&[by_key], "dbsize *counted", "allow");
    let except = "match: {keys: ['customer:*'], except_keys: ['*:0']}, mask: nullify";
    check(&[except], "get r=customer:0 r=customer:1", "allow 1:[customer:*]=nullify");
    let places = "match: {keys: ['c:*'], fields: [email, 'p*'], paths: ['$.a', '$.b']}, \
                  mask: {token_hmac: {prefix: u}}";
    check(
        &[places],
        "get r=c:1",
        "allow 0:[c:* email,p* $.a]=token_hmac 0:[c:* email,p* $.b]=token_hmac",
    );
    let by_class = "match: {classes: [EMAIL, CARD]}, mask: {EMAIL: partial_email, CARD: fpe_ff1}";
    check(&[by_class], "get r=customer:1", "allow 0:[customer:* email]=partial_email");
    check(
        &[by_class],
        "get r=card:1",
        "allow 0:[card:* $.pan]=fpe_ff1 0:[card:* $.old[*]]=fpe_ff1",
    );
    // All masks that concern a key are given; the enforcing side takes the strongest for a value.
    check(
        &[by_key, by_class],
        "get r=customer:1",
        "allow 0:[customer:*]=nullify 0:[customer:* email]=partial_email",
    );
    check(&[&format!("{by_key}, mode: shadow")], "get r=customer:1", "allow ?r0");
    let columns = "match: {columns: ['public.customers.email']}, mask: nullify";
    check(&[columns], "get r=customer:1", "allow");
}

#[test]
fn what_goes_around_a_mask_or_a_deny_is_refused() {
    let mask = "match: {keys: ['s:*']}, mask: nullify";
    let deny = "match: {keys: ['s:*']}, deny: true";
    let label = "match: {classes: [EMAIL]}, mask: nullify";
    let label_deny = "match: {classes: [EMAIL]}, deny: true";
    for (rule, words, expected) in [
        (mask, "strlen r=s:1~", "side door r0: `strlen` tells something about values"),
        (mask, "strlen r=a~", "allow"),
        (mask, "copy r=s:1> w=b!", "side door r0: `copy` takes values"),
        (mask, "copy r=a> w=s:1!", "allow"),
        (mask, "scan r=a *reached", "side door r0: `scan` reaches keys that it does not name"),
        (label, "strlen r=customer:1~", "side door"),
        (label, "scan *reached", "side door"),
        (deny, "scan *listed", "side door r0: `scan` shows names of all keys"),
        (deny, "dbsize *counted", "side door"),
        (deny, "scan *changed", "side door"),
        (deny, "scan *reached", "side door"),
        (label_deny, "scan *listed", "side door"),
        ("match: {reads: [s]}, deny: true", "scan *changed", "allow"),
        ("match: {reads: [s]}, deny: true", "scan *listed", "side door"),
        ("match: {writes: [s]}, deny: true", "scan *listed", "allow"),
        ("match: {writes: [s]}, deny: true", "scan *changed", "side door"),
        ("match: {except_keys: ['a:*']}, deny: true", "scan *listed", "side door"),
        ("match: {commands: [get], keys: [s]}, deny: true", "scan *reached", "side door"),
        ("match: {channels: [s]}, deny: true", "scan *listed", "allow"),
        ("match: {channels: [s]}, deny: true", "scan *reached", "side door"),
        ("match: {keys: [s]}, limit: {rate: 1/s}", "scan *reached", "allow"),
        ("match: {columns: [a.b.c]}, mask: nullify", "scan *reached", "allow"),
    ] {
        check(&[rule], words, expected);
        let watched = format!("{rule}, mode: shadow");
        if expected.starts_with("side door") {
            check(&[&watched], words, "allow ?r0");
        }
    }
    // An opened door does not lead around either.
    let opened = "match: {}, allow: {commands: ['@doors']}";
    check(&[mask, opened], "eval *reached", "side door r0");
}

const RULES: &[&str] = &[
    "match: {keys: ['a*']}, mask: nullify",
    "match: {keys: ['*b'], fields: [f]}, mask: partial",
    "match: {classes: [EMAIL]}, mask: nullify",
    "match: {keys: ['*:1'], except_keys: ['b*']}, deny: true",
    "match: {reads: ['?'], writes: ['a*']}, deny: true",
    "match: {levels: [restricted]}, deny: true",
    "match: {channels: ['a*'], except_channels: ['ab*']}, deny: true",
    "match: {}, allow: {reads: ['a*', 'c*'], writes: ['*b'], channels: ['a*']}",
    "match: {}, allow: {commands: [get, subscribe], keys: ['customer:*', '?']}",
    "match: {keys: ['*a']}, limit: {rate: 1/s}",
    "match: {keys: ['a?']}, mode: shadow, deny: true",
];

fn names() -> impl Strategy<Value = String> {
    prop_oneof!["[abc:1]{0,3}", "(customer|card):[ab1]?", "[ab*?]{0,3}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn keys_and_channels_with_equal_fits_are_decided_alike(
        rules in proptest::sample::subsequence(RULES, 0..=5),
        keys in (names(), names(), names()),
        mode in proptest::sample::select(vec!["r=", "w=", "rw="]),
        exposure in proptest::sample::select(vec!["", "!", "~", ">"]),
        channels in proptest::sample::select(vec!["pub=", "sub=", "psub="]),
    ) {
        let set = store_set(&rules);
        let class = set.classify(set.identify(store_login()));
        let (one, other, beside) = keys;
        let word = |key: &str, with: &str| format!("get {with}{key}{exposure} r={beside}");
        if set.key_fits(&class, one.as_bytes()) == set.key_fits(&class, other.as_bytes()) {
            prop_assert_eq!(
                set.decide(&class, &store_facts(&word(&one, mode))),
                set.decide(&class, &store_facts(&word(&other, mode)))
            );
        }
        let mode = match channels {
            "pub=" => ChannelMode::Publish,
            "sub=" => ChannelMode::Subscribe,
            _ => ChannelMode::SubscribePattern,
        };
        let fits = |name: &str| set.channel_fits(&class, name.as_bytes(), mode);
        if fits(&one) == fits(&other) {
            let word = |name: &str| format!("subscribe {channels}{name}");
            prop_assert_eq!(
                set.decide(&class, &store_facts(&word(&one))),
                set.decide(&class, &store_facts(&word(&other)))
            );
        }
    }

    #[test]
    fn a_deny_of_commands_never_widens(
        rules in proptest::sample::subsequence(RULES, 0..=5),
        deny in proptest::sample::select(RULES.iter().copied().filter(|r| r.ends_with("deny: true")).collect::<Vec<_>>()),
        keys in (names(), names()),
        command in proptest::sample::select(vec!["get", "set", "scan", "eval", "watch"]),
        unnamed in proptest::sample::select(vec!["", "*listed", "*changed", "*reached"]),
    ) {
        let words = format!("{command} r={} w={}! {unnamed}", keys.0, keys.1);
        let facts = store_facts(&words);
        let before = decided(&store_set(&rules), store_login(), &facts);
        let more: Vec<&str> = rules.iter().copied().chain([deny]).collect();
        match (before, decided(&store_set(&more), store_login(), &facts)) {
            (_, Decision::Deny(_)) => {}
            (Decision::Allow(before), Decision::Allow(after)) => {
                prop_assert_eq!(before.values, after.values);
                prop_assert_eq!(before.limits, after.limits);
            }
            (Decision::Deny(denial), Decision::Allow(_)) => {
                prop_assert!(false, "{} was lifted", denial.message);
            }
        }
    }
}

#[test]
fn who_has_no_pattern_has_empty_fits_and_records_name_patterns() {
    let set = store_set(&["match: {commands: [get]}, deny: true"]);
    let class = set.classify(set.identify(store_login()));
    assert!(set.key_fits(&class, b"anything").is_empty());
    assert!(set.patterns(&class, &store_facts("get r=anything").store).is_empty());
    let rules = [
        "match: {keys: ['a:*', '*']}, limit: {rate: 1/s}",
        "match: {}, allow: {channels: ['n:*']}",
    ];
    let set = store_set(&rules);
    let class = set.classify(set.identify(store_login()));
    let patterns = |words: &str| {
        let found = set.patterns(&class, &store_facts(words).store);
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(patterns("get r=a:1"), ["*", "a:*"]);
    assert_eq!(patterns("get r=b"), ["*"]);
    assert_eq!(patterns("subscribe psub=*"), ["n:*"]);
    // More patterns than one word has bits.
    let many: Vec<String> = (0..150).map(|n| format!("'k{n}:*'")).collect();
    let rule = format!("match: {{keys: [{}]}}, deny: true", many.join(", "));
    let set = store_set(&[&rule]);
    let class = set.classify(set.identify(store_login()));
    let fits: std::collections::BTreeSet<String> = (0..150)
        .map(|n| format!("{:?}", set.key_fits(&class, format!("k{n}:x").as_bytes())))
        .collect();
    assert_eq!(fits.len(), 150);
    assert_eq!(set.key_fits(&class, b"z"), crate::policy::Fits::default());
}
