//! Words about commands, keys and channels.

use super::*;
use crate::facts::CommandUse;
use crate::policy::Vocabulary;

fn command(name: &str, categories: &[&str], door: bool) -> Arc<CommandUse> {
    let categories = categories.iter().map(|one| Arc::from(*one)).collect();
    let (ends, unruled) = (name == "set", name == "quit");
    Arc::new(CommandUse { name: name.into(), categories, door, ends, unruled })
}

fn vocabulary() -> Vocabulary {
    Vocabulary::default().with_commands(&[
        command("get", &["read", "string"], false),
        command("set", &["write", "string"], false),
        command("client", &["connection"], false),
        command("client|list", &["connection", "admin", "dangerous"], true),
        command("flushall", &["write", "dangerous"], true),
        command("quit", &["connection"], false),
    ])
}

const KEY_LABELS: &str = "classification:
  - {keys: ['customer:*'], fields: [email], class: EMAIL, level: confidential}
  - {keys: ['card:*'], paths: ['$.pan'], class: CARD, level: restricted}
  - {keys: ['both:*'], columns: [public.t.both], class: BOTH, level: public}
";

fn compiled(rule: &str, vocabulary: &Vocabulary) -> Result<(RuleSet, String), String> {
    let text = format!("version: 1\n{KEY_LABELS}rules:\n  - {{id: a, {rule}}}\n");
    RuleSet::compile_for(&[file("r.yaml", &text)], None, vocabulary)
        .map(|(set, warnings)| (set, lines(&warnings)))
        .map_err(|problems| lines(&problems))
}

#[track_caller]
fn check(rule: &str, expected: &str) {
    match (compiled(rule, &vocabulary()), expected) {
        (Ok((_, warnings)), "") => assert_eq!(warnings, "", "{rule}"),
        (Ok(_), expected) => panic!("accepted: {rule}\n expected {expected}"),
        (Err(found), "") => panic!("{rule}: {found}"),
        (Err(found), expected) => {
            assert!(found.contains(expected), "{rule}\n expected {expected}\n found {found}");
        }
    }
}

#[test]
fn every_word_about_commands_is_read() {
    for matched in [
        "commands: [get, SET, client, 'client|list', 'client|*', '@read', '@doors']",
        "commands: ['*'], except_commands: ['@dangerous']",
        "keys: ['session:*'], except_keys: ['session:0']",
        "reads: ['a:*'], writes: ['b:*'], protocol: redis",
        "channels: ['news:*'], except_channels: ['news:x']",
        "classes: [EMAIL], keys: ['*']",
    ] {
        check(&format!("match: {{{matched}}}, deny: true"), "");
        check(&format!("match: {{{matched}}}, limit: {{rate: 1/s}}"), "");
    }
    for masked in [
        "keys: ['customer:*']",
        "keys: ['customer:*'], except_keys: ['customer:0'], fields: [email, 'phone*']",
        "keys: ['customer:*'], paths: ['$.a.b', '$.c[*]']",
        "keys: ['customer:*'], fields: [profile], paths: ['$.email']",
        "classes: [EMAIL]",
        "classes: [EMAIL], except_keys: ['customer:0']",
    ] {
        check(&format!("match: {{{masked}}}, mask: nullify"), "");
    }
    for allowed in [
        "commands: ['@read', client]",
        "keys: ['a:*'], reads: ['b:*'], writes: ['c:*'], channels: [news]",
        "commands: ['@doors']",
        "commands: [get], statements: [select]",
    ] {
        check(&format!("match: {{users: [u]}}, allow: {{{allowed}}}"), "");
    }
}

#[test]
fn what_nobody_knows_is_an_error() {
    for (words, expected) in [
        ("commands: [gte]", "r.yaml:7:32: error: unknown command `gte`, did you mean `get`?"),
        ("commands: ['client|lst']", "unknown command `client|lst`, did you mean `client|list`?"),
        ("commands: ['client|']", "unknown command `client|`"),
        ("commands: ['xclient|*']", "no command is known that is `xclient|*`"),
        ("commands: ['@raed']", "unknown category `@raed`, did you mean `read`?"),
        ("commands: ['@re*']", "`@re*` is not a category"),
        ("except_commands: [gte]", "unknown command `gte`"),
    ] {
        check(&format!("match: {{{words}}}, deny: true"), expected);
    }
    check("match: {}, allow: {commands: [gte]}", "unknown command `gte`");
    // What was not told knows nothing.
    for word in ["get", "'@read'", "'*'", "'@doors'"] {
        let rule = format!("match: {{commands: [{word}]}}, deny: true");
        assert!(compiled(&rule, &Vocabulary::default()).is_err(), "{word}");
    }
}

#[test]
fn words_that_would_do_nothing_are_errors() {
    for (rule, expected) in [
        ("match: {keys: [a], fields: [b]}, deny: true", "`fields` and `paths` belong to a mask"),
        ("match: {commands: [get], keys: [a]}, mask: nullify", "holds for every command"),
        ("match: {keys: [a], reads: [b]}, mask: nullify", "is matched by `keys`"),
        ("match: {reads: [b]}, mask: nullify", "a mask needs"),
        ("match: {except_keys: [b]}, mask: nullify", "a mask needs"),
        ("match: {fields: [b]}, mask: nullify", "a mask needs"),
        ("match: {keys: [a], channels: [b]}, mask: nullify", "is matched by `keys`"),
        ("match: {classes: [EMAIL], fields: [x]}, mask: nullify", "the classification says which"),
        ("match: {keys: [a], columns: [a.b.c]}, mask: nullify", "not about both"),
        ("match: {keys: [a], statements: [select]}, deny: true", "not about both"),
        ("match: {keys: [a], relations: [a.b]}, filter: a = 1", "keys have no rows to filter"),
        ("match: {keys: [a]}, allow: {commands: [get]}", "says whom, not what"),
        ("match: {keys: [a], paths: ['a.b']}, mask: nullify", "is not a path such as"),
        ("match: {keys: []}, deny: true", "an empty list matches nothing"),
        ("match: {}, allow: {keys: []}", "an empty list matches nothing"),
    ] {
        check(rule, expected);
    }
    let label = |words: &str| {
        let text =
            format!("version: 1\nclassification:\n  - {{{words}, class: A, level: public}}\n");
        lines(&RuleSet::compile(&[file("r.yaml", &text)], None).unwrap_err())
    };
    assert!(label("fields: [a]").contains("needs `columns` or `keys`"));
    assert!(label("columns: [a.b.c], fields: [a]").contains("places in values of `keys`"));
}

#[test]
fn masks_that_need_a_key_are_refused_without_one_and_on_columns() {
    let with_keys = vocabulary().with_mask_keys();
    for mask in [
        "token_hmac",
        "{token_hmac: {len: 16, prefix: usr_}}",
        "hash_keyed",
        "fpe_ff1",
        "{fpe_ff1: {alphabet: lower_alphanumeric}}",
    ] {
        let on = |matched: &str| format!("match: {{{matched}}}, mask: {mask}");
        for matched in ["keys: ['a:*']", "classes: [EMAIL]", "classes: [BOTH], keys: ['*']"] {
            assert!(compiled(&on(matched), &with_keys).is_ok(), "{matched} {mask}");
            let found = compiled(&on(matched), &vocabulary()).unwrap_err();
            assert!(found.contains("needs a key, and there is none"), "{found}");
        }
        for matched in ["columns: [a.b.c]", "classes: [BOTH]", "levels: [public]"] {
            let found = compiled(&on(matched), &with_keys).unwrap_err();
            assert!(found.contains("cannot mask columns"), "{matched} {mask}: {found}");
        }
    }
    let by_class = "match: {classes: [EMAIL, BOTH]}, mask: {EMAIL: hash_keyed, BOTH: nullify}";
    assert!(compiled(by_class, &with_keys).is_ok());
    for (mask, expected) in [
        ("{token_hmac: {len: 15}}", "16 to 52 characters"),
        ("{token_hmac: {len: 300}}", "16 to 52 characters"),
        ("{token_hmac: {prefix: 'a b'}}", "a token's prefix"),
        ("{token_hmac: {length: 20}}", "unknown key `length`"),
        ("{fpe_ff1: {alphabet: letters}}", "unknown value `letters`"),
        ("{hash_keyed: {len: 20}}", "takes no arguments"),
    ] {
        check(&format!("match: {{keys: [a]}}, mask: {mask}"), expected);
    }
}

#[test]
fn masks_on_different_fields_do_not_contradict_each_other() {
    let set = |one: &str, other: &str| {
        let text = format!("version: 1\nrules:\n  - {{id: a, {one}}}\n  - {{id: b, {other}}}\n");
        RuleSet::compile(&[file("r.yaml", &text)], None)
            .map_or_else(|problems| lines(&problems), |(_, warnings)| lines(&warnings))
    };
    let email = "match: {keys: ['c:*'], fields: [email]}, mask: partial_email";
    let phone = "match: {keys: ['c:*'], fields: [phone]}, mask: nullify";
    assert_eq!(set(email, phone), "");
    let other = "match: {keys: ['c:*'], fields: [email]}, mask: nullify";
    assert!(set(email, other).contains("match alike but mask `c:* email`"));
}

#[test]
fn prefixes_and_bounds_are_enforced_whole_or_not_at_all() {
    for rule in [
        "match: {roles: [x]}, prefix: 't:{identity.tenant}:'",
        "match: {keys: ['a:*']}, values: {bytes_max: 1MiB}",
        "match: {}, values: {arguments_max: 10}",
        "match: {}, patterns: {length_max: 64}",
        "match: {writes: ['session:*']}, ttl: {max: 30min}",
        "match: {keys: ['session:*']}, ttl: {required: true}",
        "match: {keys: ['session:*']}, ttl: {max: 1h, required: true}",
        "match: {keys: ['session:*']}, ttl: {default: 1h}",
        "match: {keys: ['session:*']}, ttl: {default: 1h, max: 1h}",
        "match: {keys: ['session:*']}, ttl: {default: 1ms, cap: 1h}",
        "match: {keys: ['session:*']}, ttl: {cap: 36500d}",
        "match: {keys: ['session:*']}, ttl: {cap: 1h, required: true}",
        "match: {commands: ['*']}, ttl: {cap: 1h}",
        "match: {commands: ['@string']}, ttl: {cap: 1h}",
    ] {
        check(rule, "");
    }
    for (rule, expected) in [
        ("match: {keys: [a]}, prefix: 'a:'", "the match of a prefix says whom"),
        ("match: {classes: [EMAIL]}, prefix: 'a:'", "the match of a prefix says whom"),
        ("match: {applications: [x]}, prefix: 'a:'", "cannot depend on `applications`"),
        ("match: {}, mode: shadow, prefix: 'a:'", "`prefix` can only be enforced"),
        ("match: {}, mode: warn, values: {bytes_max: 1}", "`values` can only be enforced"),
        ("match: {}, mode: shadow, patterns: {length_max: 1}", "`patterns` can only be enforced"),
        ("match: {}, values: {}", "needs `bytes_max` or `arguments_max`"),
        ("match: {}, values: {elements_max: 3}", "`elements_max` is not enforced yet"),
        ("match: {}, patterns: {}", "`length_max` is missing"),
        ("match: {relations: [a.b]}, values: {bytes_max: 1}", "about commands, not statements"),
        ("match: {}, ttl: {}", "needs `max`, `cap`, `default` or `required: true`"),
        ("match: {}, ttl: {required: false}", "unknown value `false`"),
        ("match: {}, ttl: {max: 1h, cap: 1h}", "`max` refuses a longer expiry and `cap` lowers it"),
        ("match: {}, ttl: {default: 1h, required: true}", "`required` refuses a command without"),
        ("match: {}, ttl: {default: 2h, max: 1h}", "`default` is longer than the rule lets"),
        ("match: {}, ttl: {default: 2h, cap: 1h}", "`default` is longer than the rule lets"),
        ("match: {}, ttl: {default: 0s}", "from 1ms to 36500d"),
        ("match: {}, ttl: {cap: 36501d}", "from 1ms to 36500d"),
        ("match: {}, ttl: {cap: soon}", "a duration such as"),
        ("match: {}, ttl: {default: 1h, over: lower}", "unknown key `over`"),
        ("match: {commands: [quit]}, deny: true", "no rule is asked about quit"),
        ("match: {commands: [quit]}, limit: {rate: 1/s}", "no rule is asked about quit"),
        ("match: {commands: [get, client]}, ttl: {cap: 1h}", "`ttl` would never act"),
        ("match: {commands: ['@write'], except_commands: [set]}, ttl: {max: 1h}", "never act"),
        ("match: {}, mode: shadow, ttl: {cap: 1h}", "`ttl` can only be enforced"),
        ("match: {relations: [a.b]}, ttl: {default: 1h}", "about commands, not statements"),
        ("match: {}, mode: warn, ttl: {max: 1h}", "`ttl` can only be enforced"),
        ("match: {}, allow: {library_functions: ['a*']}", "`a*` is no name of a function"),
        ("match: {}, allow: {library_functions: ['']}", "`` is no name of a function"),
        ("match: {protocol: postgresql}, allow: {library_functions: [a]}", "speaks of commands"),
        ("match: {}, allow: {scripts: [a]}", "`a` is not the SHA-1 of a script"),
    ] {
        check(rule, expected);
    }
    let two = |one: &str, other: &str| {
        let text = format!(
            "version: 1\nrules:\n  - {{id: a, match: {{}}, prefix: '{one}'}}\n  - {{id: b, match: {{}}, prefix: '{other}'}}\n"
        );
        RuleSet::compile(&[file("r.yaml", &text)], None).is_ok()
    };
    assert!(two("a:", "b:") && two("a:{identity.x}:", "a:{identity.x}:"));
    assert!(!two("a:", "a:b:") && !two("a:{identity.x}:", "a:{identity.y}:"));
}
