//! Ways around the rules, and who finds them closed.

use super::*;

const MASK: &str = "match: {users: [g], classes: [EMAIL]}, mask: nullify";
/// Concerns everybody, governs nobody.
const CONCERNS: &str = "match: {statements: [delete], without: where}, deny: true";

/// `g` is refused as a side door; `app`, whom a rule merely concerns, is not.
#[track_caller]
fn check_closed(words: &str, message: &str) {
    check(&[MASK, CONCERNS], "g", words, &format!("side door: {message}"));
    check(&[MASK, CONCERNS], "app", words, "allow");
}

#[track_caller]
fn check_open(words: &str) {
    check(&[MASK, CONCERNS], "g", words, "allow");
}

#[test]
fn every_statement_is_either_closed_or_open() {
    let closed = "create_table create_table_as create_view create_index create_function create \
                  alter_table alter drop refresh grant role set_role do call admin \
                  copy_server_file listen lock vacuum prepare_transaction";
    for verb in closed.split_whitespace() {
        check_closed(verb, &format!("`{verb}` is not available under rules"));
        let named = format!("match: {{users: [g]}}, allow: {{statements: [{verb}, select]}}");
        check(&[MASK, &named], "g", verb, "allow");
    }
    let listed = |verb: &Verb| closed.split_whitespace().any(|name| name == verb.name());
    for verb in Verb::ALL.iter().filter(|verb| !verb.is_door() && !listed(verb)) {
        check_open(verb.name());
    }
}

#[test]
fn a_group_opens_no_side_door() {
    for group in ["ddl", "misc"] {
        let allow = format!("match: {{users: [g]}}, allow: {{statements: [{group}]}}");
        let verb = if group == "ddl" { "drop" } else { "lock" };
        check(&[MASK, &allow], "g", verb, "side door");
    }
}

#[test]
fn functions_need_a_rule_that_names_them() {
    check_closed("select user:f", "`f` is not available to you under these rules");
    check_closed("select danger:set_config", "`set_config` is not available");
    check_closed("select call:lower user:public.f", "`public.f`");
    check_open("select call:lower");
    let allow = |names: &str| format!("match: {{users: [g]}}, allow: {{functions: [{names}]}}");
    check(&[MASK, &allow("f")], "g", "select user:f", "allow");
    check(&[MASK, &allow("f")], "g", "select user:public.f", "allow");
    check(&[MASK, &allow("'f_*'")], "g", "select user:f_x", "allow");
    check(&[MASK, &allow("public.f")], "g", "select user:public.f", "allow");
    // An unqualified call may end in another schema.
    check(&[MASK, &allow("public.f")], "g", "select user:f", "side door");
    check(&[MASK, &allow("g")], "g", "select user:f", "side door");
    let shadow = "match: {users: [g]}, mode: shadow, allow: {functions: [f]}";
    check(&[MASK, shadow], "g", "select user:f", "side door");
}

#[test]
fn definitions_of_governed_relations_stay_closed() {
    check_closed("truncate define:customers", "the definition of `public.customers`");
    check_open("truncate define:orders");
    let named = "match: {users: [g]}, allow: {statements: [select, lock, alter_table, truncate]}";
    check(&[MASK, named], "g", "lock define:customers", "side door: the definition of");
    check(&[MASK, named], "g", "alter_table define:customers_2024", "side door");
    check(&[MASK, named], "g", "lock define:orders", "allow");
    let partly =
        "match: {users: [g], relations: [public.orders], statements: [select]}, filter: a = 1";
    check(&[partly], "g", "truncate define:orders", "side door: the definition of");
}

#[test]
fn views_over_governed_relations_need_rules_of_their_own() {
    check_closed(
        "select read:customers_view",
        "view `public.customers_view` reads `public.customers`",
    );
    let own = "match: {users: [g], columns: [public.customers_view.mail]}, mask: nullify";
    check(&[MASK, own], "g", "select read:customers_view", "allow customers_view.mail=nullify");
    // A glob that happens to match the view says nothing about what the view shows.
    let glob = "match: {users: [g], relations: ['public.*']}, filter: a = 1";
    check(&[MASK, glob], "g", "select read:customers_view", "side door: view");
    let named = "match: {users: [g], relations: [public.customers_view]}, filter: a = 1";
    check(&[MASK, named], "g", "select read:customers_view", "allow customers_view[]");
    let partly = "match: {users: [g], relations: [public.customers], statements: [delete]}, \
                  filter: a = 1";
    check(&[partly], "g", "select read:customers_view", "side door");
}

#[test]
fn sensitive_system_relations_are_closed() {
    check_closed("select read:pg_stats", "`pg_catalog.pg_stats` shows other people's data");
    check_closed("update update_of:pg_class", "`pg_catalog.pg_class` is a system relation");
    check_closed("select read:stats_view", "view `public.stats_view` reads `pg_catalog.pg_stats`");
    check_open("select read:pg_class");
}

#[test]
fn a_relation_level_deny_and_an_allow_list_govern() {
    let deny = "match: {users: [g], relations: [public.salaries]}, deny: true";
    check(&[deny], "g", "select user:f", "side door");
    let list = "match: {users: [g]}, allow: {statements: [select]}";
    check(&[list], "g", "select user:f", "side door");
    let statements = "match: {users: [g], statements: [delete]}, deny: true";
    check(&[statements], "g", "select user:f", "allow");
}

#[test]
fn settings_that_change_how_text_is_read_are_closed_for_everybody_concerned() {
    let cases = [
        ("standard_conforming_strings=off", false),
        ("standard_conforming_strings=on", true),
        ("standard_conforming_strings", true),
        ("client_encoding=LATIN1", false),
        ("client_encoding=LATIN9", false),
        ("client_encoding=UTF8", true),
        ("client_encoding=utf-8", true),
        ("client_encoding=utf_8", true),
        ("client_encoding='utf-8'", true),
        ("client_encoding=\"UTF8\"", true),
        ("client_encoding=Unicode", true),
        ("client_encoding='latin-1'", false),
        ("client_encoding=utf-16", false),
        ("client_encoding=''", false),
        ("client_encoding", true),
        ("backslash_quote=on", false),
        ("backslash_quote", true),
        ("quote_all_identifiers=on", false),
        ("transform_null_equals=on", false),
        ("?", false),
        ("?=on", false),
        ("*", true),
        ("search_path=public", true),
        ("work_mem=1GB", true),
    ];
    for (setting, open) in cases {
        let words = format!("set set:{setting}");
        let expected = if open { "allow" } else { "side door" };
        check(&[CONCERNS], "app", &words, expected);
        check(&[MASK], "g", &words, expected);
        check(&[MASK], "app", &words, "allow");
    }
}

#[test]
fn a_computed_value_is_not_a_default() {
    let words = "select danger:set_config set:standard_conforming_strings";
    check(&[CONCERNS], "app", words, "side door: `standard_conforming_strings`");
    check(&[CONCERNS], "app", "select danger:set_config set:search_path", "allow");
}

#[test]
fn settings_that_change_who_one_is_are_closed_for_the_governed() {
    for name in ["role", "session_authorization", "row_security", "session_replication_role"] {
        check_closed(&format!("set set:{name}=x"), &format!("`{name}` cannot be changed"));
    }
    let named = "match: {users: [g]}, allow: {statements: [select, set_role]}";
    check(&[MASK, named], "g", "set_role set:role=x", "allow");
    check(&[MASK, named], "g", "set_role set:row_security=off", "side door");
}

/// What pools and drivers send between two users of one connection.
const RESETS: &[&str] = &[
    "select close unlisten set danger:pg_advisory_unlock_all set:*",
    "select danger:pg_catalog.pg_advisory_unlock_all",
    "discard set:*",
    "set set:*",
    "set set:work_mem=1MB",
    "show",
    "close",
    "unlisten",
    "deallocate",
];

#[test]
fn connections_can_be_reset_whatever_is_listed() {
    let lists = [
        "match: {users: [g]}, allow: {statements: [insert], relations: [public.log]}",
        "match: {users: [g]}, allow: {statements: [select]}",
    ];
    for words in RESETS {
        check_open(words);
        for list in lists {
            check(&[list], "g", words, "allow");
            check(&[MASK, list], "g", words, "allow");
        }
    }
    let denied = "match: {users: [g], functions: [pg_advisory_unlock_all]}, deny: true";
    check(&[lists[1], denied], "g", RESETS[0], "rule r1");
    let denied = "match: {users: [g], statements: [unlisten, discard]}, deny: true";
    check(&[lists[1], denied], "g", "unlisten", "rule r1");
    check(&[lists[1], denied], "g", "discard set:*", "rule r1");
}

#[test]
fn a_reset_opens_nothing_else() {
    let list = "match: {users: [g]}, allow: {statements: [insert], relations: [public.log]}";
    let select = "not allowed: no rule allows you `select`";
    check(&[list], "g", "select danger:pg_advisory_unlock_all read:orders", select);
    check(&[list], "g", "select danger:pg_advisory_unlock_all call:lower", select);
    check(&[list], "g", "select", select);
    check(&[list], "g", "close declare select read:orders", "not allowed");
    check(&[list], "g", "set set:row_security=off", "side door");
    check(&[list], "g", "set_role set:role", "not allowed");
    // Somebody's own function of that name.
    check_closed("select user:pg_advisory_unlock_all", "");
    check_closed("select danger:mine.pg_advisory_unlock_all", "");
    check_closed("select danger:pg_advisory_lock", "");
}

#[test]
fn doors_are_closed_to_everybody_until_a_rule_opens_them() {
    for door in ["load", "function_call call:lo_open", "replication"] {
        let (name, _) = door.split_once(' ').unwrap_or((door, ""));
        let closed = format!("side door: `{name}` is not available unless a rule opens it");
        check(&[], "u", door, &closed);
        let other = "match: {users: [u]}, allow: {functions: [f]}";
        check(&[other], "u", door, &closed);
        let group = "match: {}, allow: {statements: [misc, function, select]}";
        check(&[group], "u", door, "side door");
        let opens = format!("match: {{users: [u]}}, allow: {{statements: [{name}]}}");
        check(&[&opens], "u", door, "allow");
        check(&[&opens], "other", door, &closed);
        let shadow = format!("match: {{}}, mode: shadow, allow: {{statements: [{name}]}}");
        check(&[&shadow], "u", door, &closed);
        let denied = format!("match: {{statements: [{name}]}}, deny: true");
        check(&[&opens, &denied], "u", door, "rule r1");
    }
}

#[test]
fn a_rule_that_only_opens_doors_takes_nothing_away() {
    let opens = "match: {users: [u]}, allow: {statements: [load, replication]}";
    check(&[opens], "u", "create_table", "allow");
    check(&[opens], "u", "select read:orders user:f", "allow");
    check(&[opens], "u", "set set:client_encoding=latin1", "allow");
    check(&[opens], "u", "load set:client_encoding=latin1", "allow");
    let list = "match: {users: [u]}, allow: {statements: [load, select]}";
    check(&[list], "u", "create_table", "not allowed");
    check(&[list], "u", "load", "allow");
}

#[test]
fn functions_narrow_what_function_calls_reach() {
    let opens = "match: {users: [u]}, allow: {statements: [function_call], functions: [lo_open]}";
    check(&[opens], "u", "function_call danger:lo_open", "allow");
    check(&[opens], "u", "function_call danger:lo_get", "side door: no rule opens `lo_get`");
    // Of an identity under rules, only what computes from its arguments is called by message.
    let opens = "match: {users: [g]}, allow: {statements: [function_call]}";
    let named = "match: {users: [g]}, allow: {functions: [f]}";
    check(&[MASK, opens, named], "g", "function_call call:upper", "allow");
    let refused = "side door: `f` cannot be called by message under rules";
    check(&[MASK, opens, named], "g", "function_call user:f", refused);
    check(&[MASK, opens, named], "g", "function_call danger:f", refused);
}

#[test]
fn replication_is_never_open_to_an_identity_under_rules() {
    let opens = "match: {}, allow: {statements: [replication]}";
    check(&[MASK, opens], "g", "replication", "side door: `replication` shows all rows");
    check(&[MASK, opens], "u", "replication", "allow");
}
