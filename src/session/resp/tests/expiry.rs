//! Expiries put in and lowered: what goes to the server, byte for byte.

use super::super::fuzz::{Run, World};
use crate::event::{Event, EventKind, RecordedVerdict};
use crate::session::Side;

const RULES: &str = "version: 1
rules:
  - {id: put-in, match: {writes: ['d:*']}, ttl: {default: 1h, max: 1d}}
  - {id: capped, match: {writes: ['c:*']}, ttl: {cap: 1d}}
  - {id: said-and-capped, match: {writes: ['r:*']}, ttl: {cap: 1d, required: true}}
  - {id: long-default, match: {writes: ['b:*']}, ttl: {default: 2h}}
  - {id: short-max, match: {writes: ['b:*']}, ttl: {max: 1500ms}}
  - {id: mask, match: {keys: ['*:pii']}, mask: {constant: HIDDEN}}
  - {id: tenants, match: {networks: [10.0.0.0/8]}, prefix: 't:'}
";

/// As an array of bulk strings, from a line of words.
pub(super) fn array(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let bulks = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), bulks.collect::<String>())
}

/// What the server got of these commands, one after the other.
fn sent(rules: &str, lines: &[&str]) -> String {
    let world = World::with_rules(rules).expect("rules");
    let mut run = Run::new(&world);
    for line in lines {
        run.feed(Side::Client, array(line).as_bytes());
    }
    String::from_utf8_lossy(&run.to_server).into_owned()
}

#[track_caller]
fn check(line: &str, server_gets: &str) {
    let expected = if server_gets.is_empty() { String::new() } else { array(server_gets) };
    assert_eq!(sent(RULES, &[line]), expected, "{line}");
}

#[test]
fn an_expiry_is_put_in_where_there_is_none() {
    for (line, server_gets) in [
        ("SET d:1 v", "SET d:1 v EX 3600"),
        ("set d:1 v nx get", "set d:1 v nx get EX 3600"),
        ("set d:1 v xx", "set d:1 v xx EX 3600"),
        ("set d:1 EX", "set d:1 EX EX 3600"),
        ("set d:1 v ex 5", "set d:1 v ex 5"),
        ("set d:1 v ex 86401", ""),
        ("set d:1 v xx keepttl", "set d:1 v xx keepttl"),
        ("set c:1 v", "set c:1 v EX 86400"),
        ("set r:1 v", ""),
        ("set other v", "set other v"),
        // The shortest of all rules holds.
        ("set b:1 v", "set b:1 v PX 1500"),
        // Nothing is put into what has no place for it, and what leaves none is refused.
        ("setnx d:1 v", ""),
        ("getset d:1 v", ""),
        ("mset d:1 v other v", ""),
        ("persist d:1", ""),
        ("rename other d:1", ""),
        ("copy other d:1", ""),
        ("sunionstore d:1 a b", ""),
        ("sort other store d:1", ""),
        ("getex d:1 persist", ""),
        ("getex d:1", "getex d:1"),
        ("hset d:1 f v", "hset d:1 f v"),
    ] {
        check(line, server_gets);
    }
}

#[test]
fn a_longer_expiry_is_lowered() {
    for (line, server_gets) in [
        ("set c:1 v ex 86400", "set c:1 v ex 86400"),
        ("set c:1 v ex 86401", "set c:1 v EX 86400"),
        ("set c:1 v PX 86400001 nx", "set c:1 v EX 86400 nx"),
        ("set c:1 v exat 9999999999", "set c:1 v EX 86400"),
        ("set c:1 v pxat 1700000000001", "set c:1 v pxat 1700000000001"),
        ("setex c:1 86401 v", "SETEX c:1 86400 v"),
        ("psetex c:1 86400001 v", "SETEX c:1 86400 v"),
        ("expire c:1 9223372036854775807 gt", "EXPIRE c:1 86400 gt"),
        ("expireat c:1 9999999999", "EXPIRE c:1 86400"),
        ("getex c:1 ex 86401", "getex c:1 EX 86400"),
        ("set r:1 v ex 86401", "set r:1 v EX 86400"),
        ("expire other 9999999999", "expire other 9999999999"),
        ("expire d:1 9999999999", ""),
    ] {
        check(line, server_gets);
    }
}

#[test]
fn what_tries_to_be_without_an_end_is_refused() {
    for line in [
        "set d:1 v keepttl",
        "set d:1 v nx keepttl",
        "set d:1 v xx keepttl ex 5",
        "set d:1 v ex 5 ex 99999999",
        "set d:1 v px 1 ex 99999999",
        "SeT d:1 v Ex 9223372036854775808",
        "set d:1 v ex -",
        "set d:1 v ex 1e1",
        "set d:1 v ex",
        "set d:1 v ex\0 5",
        "set d:1 v later",
        "set d:1",
        "hsetex d:1 ex 9 fields 1 f v",
        "msetex 1 d:1 v",
        "restore d:1 0 x",
        "eval return 0",
        "renamenx other d:1",
        "copy other d:1 replace",
        "getex d:1 ex 5 persist",
        "setex d:1 x v",
    ] {
        let world = World::with_rules(RULES).expect("rules");
        let mut run = Run::new(&world);
        run.client(&array(line), "");
        let told = String::from_utf8_lossy(&run.to_client).into_owned();
        assert!(told.starts_with('-') && told.ends_with("\r\n"), "{line}: {told}");
    }
    let refusal = |line: &str| {
        let world = World::with_rules(RULES).expect("rules");
        let mut run = Run::new(&world);
        run.feed(Side::Client, array(line).as_bytes());
        String::from_utf8_lossy(&run.to_client).into_owned()
    };
    assert_eq!(
        refusal("setnx d:1 v"),
        "-NOPERM this command leaves its key without an expiry, or with one that cannot be told; \
         say one in the same command: SET with NX and EX (request s.2)\r\n"
    );
    assert!(refusal("set d:1 v keepttl").contains("XX with KEEPTTL"));
    assert!(refusal("expire d:1 99999").contains("for 99999000 ms, longer than 86400000"));
}

#[test]
fn a_line_of_text_and_a_transaction_are_rewritten_as_well() {
    let world = World::with_rules(RULES).expect("rules");
    let mut run = Run::new(&world);
    run.client(
        "set d:1 \"a b\"\r\n",
        "*5\r\n$3\r\nset\r\n$3\r\nd:1\r\n$3\r\na b\r\n$2\r\nEX\r\n$4\r\n3600\r\n",
    );
    run.server("+OK\r\n", "+OK\r\n");
    let asked = [array("MULTI"), array("set d:1 v"), array("get a"), array("EXEC")].concat();
    let got = [array("MULTI"), array("set d:1 v EX 3600"), array("get a"), array("EXEC")].concat();
    run.client(&asked, &got);
    let answers = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\n1\r\n";
    run.server(answers, answers);
    // A refused one keeps the transaction from running.
    run.client(&[array("MULTI"), array("setnx d:1 v")].concat(), &array("MULTI"));
    run.feed(Side::Server, b"+OK\r\n");
    assert!(run.to_client.starts_with(b"+OK\r\n-NOPERM this command leaves its key"));
    run.to_client.clear();
    run.client(&array("EXEC"), &array("exec abort"));
}

#[test]
fn what_comes_back_is_masked_all_the_same() {
    let world = World::with_rules(RULES).expect("rules");
    let mut run = Run::new(&world);
    run.client(&array("SET d:pii v GET"), &array("SET d:pii v GET EX 3600"));
    run.server("$6\r\ncanary\r\n", "$6\r\nHIDDEN\r\n");
    let first = |event: &Event| {
        let EventKind::CommandsDecided { run, .. } = &event.kind else { return None };
        let rule = run.record.rules.first().map(|rule| rule.0.to_string());
        Some((rule, run.record.expiry.is_some()))
    };
    let found = run.events.iter().find_map(first);
    assert_eq!(found, Some((Some("mask".to_owned()), true)), "the mask is told first");
}

#[test]
fn an_option_follows_a_value_that_is_streamed() {
    let value = "x".repeat(3_000_000);
    for (head, behind, server_gets) in [
        (
            "*3\r\n$3\r\nSET\r\n$3\r\nd:1\r\n",
            "$2\r\nEX\r\n$4\r\n3600\r\n",
            "*5\r\n$3\r\nSET\r\n$3\r\nd:1\r\n",
        ),
        (
            "*4\r\n$5\r\nSETEX\r\n$3\r\nc:1\r\n$5\r\n86401\r\n",
            "",
            "*4\r\n$5\r\nSETEX\r\n$3\r\nc:1\r\n$5\r\n86400\r\n",
        ),
    ] {
        for piece in [1_000, 65_536, usize::MAX] {
            let world = World::with_rules(RULES).expect("rules");
            let mut run = Run::new(&world);
            let next = array("GET a");
            let asked = format!("{head}$3000000\r\n{value}\r\n{next}");
            for part in asked.as_bytes().chunks(piece.min(asked.len())) {
                run.feed(Side::Client, part);
            }
            let got = String::from_utf8(std::mem::take(&mut run.to_server)).unwrap();
            let expected = format!("{server_gets}$3000000\r\n{value}\r\n{behind}{next}");
            assert!(got == expected, "{head} by {piece}");
        }
    }
    // One that has no place for it goes nowhere.
    let world = World::with_rules(RULES).expect("rules");
    let mut run = Run::new(&world);
    run.feed(
        Side::Client,
        format!("*3\r\n$5\r\nSETNX\r\n$3\r\nd:1\r\n$3000000\r\n{value}\r\n").as_bytes(),
    );
    assert!(run.to_server.is_empty());
}

#[test]
fn what_is_restored_ends_as_well() {
    let rules = format!("{RULES}  - {{id: door, match: {{}}, allow: {{commands: [restore]}}}}\n");
    for (line, server_gets) in [
        ("restore d:1 0 x", "restore d:1 3600000 x"),
        ("restore d:1 5 x replace", "restore d:1 5 x replace"),
        ("restore c:1 86400001 x", "restore c:1 86400000 x"),
    ] {
        assert_eq!(sent(&rules, &[line]), array(server_gets), "{line}");
    }
    for line in [
        "restore d:1 5 x absttl",
        "restore d:1 0 x replace ABSTTL",
        "restore d:1 no x",
        "restore d:1 -5 x",
    ] {
        assert_eq!(sent(&rules, &[line]), "", "{line}");
    }
}

#[test]
fn a_tenant_s_key_has_its_prefix_and_its_expiry() {
    let rules = RULES.replace("match: {networks: [10.0.0.0/8]}", "match: {}");
    let sent = |lines: &[&str]| sent(&rules, lines);
    assert_eq!(sent(&["set d:1 v"]), array("set t:d:1 v EX 3600"));
    assert_eq!(sent(&["expireat c:1 9999999999"]), array("EXPIRE t:c:1 86400"));
    assert_eq!(sent(&["set d:1 v ex 1"]), array("set t:d:1 v ex 1"));
}

#[test]
fn the_trail_tells_what_was_put_in_and_by_which_rule() {
    let world = World::with_rules(RULES).expect("rules");
    let mut run = Run::new(&world);
    let said = array("set d:1 v ex 5");
    run.client(
        &[said.as_str(), &array("set d:1 v"), &said, &array("set d:2 w")].concat(),
        &[said.as_str(), &array("set d:1 v EX 3600"), &said, &array("set d:2 w EX 3600")].concat(),
    );
    run.server(&"+OK\r\n".repeat(4), &"+OK\r\n".repeat(4));
    let decided = |event: &Event| {
        let EventKind::CommandsDecided { run, .. } = &event.kind else { return None };
        let record = &run.record;
        let expiry = record.expiry.as_ref().map(|expiry| (expiry.ms, expiry.rule.0.to_string()));
        Some((record.verdict.clone(), expiry))
    };
    let decided: Vec<_> = run.events.iter().filter_map(decided).collect();
    let put_in = (RecordedVerdict::Modified, Some((3_600_000, "put-in".to_owned())));
    assert_eq!(decided, [(RecordedVerdict::Allowed, None), put_in], "two runs");
}
