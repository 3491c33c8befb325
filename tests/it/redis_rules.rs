//! Rules about commands, from the file to the running proxy and the command line.

use std::fs;
use std::net::SocketAddr;
use std::process::Output;

use crate::harness::{Portcullis, SOON, Setup, command, free_port, portcullis, wait_until};
use crate::pg::expect_success;
use crate::redis::{RawRedis, Redis, Reply};

/// `run --check` of a Redis datasource with these rules and more lines of the configuration.
fn checked(rules: &str, extra: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mask.key"), "a secret of 32 bytes or more, for tests").unwrap();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut setup = Setup::redis(nowhere);
    setup.rules = vec![("rules.yaml".into(), format!("version: 1\nrules:\n{rules}\n"))];
    setup.extra = extra.to_owned();
    let config = setup.write(folder.path(), free_port(), free_port());
    portcullis(["run", "--check", "--config", config.to_str().unwrap()])
}

#[track_caller]
fn refused(rules: &str, extra: &str, expected: &str) {
    let output = checked(rules, extra);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{rules}: {text}");
    assert!(text.contains(expected), "{rules}: {text}");
}

const KEYS: &str = "mask_keys: [{version: 1, file: \"{folder}/mask.key\"}]\n";
const TOKENS: &str = "  - {id: r, match: {keys: 'c:*'}, mask: token_hmac}";

#[test]
fn a_rule_speaks_of_commands_that_exist() {
    let deny = |word: &str| format!("  - {{id: r, match: {{commands: [{word}]}}, deny: true}}");
    expect_success(&checked(&deny("flushall"), ""), "a known command");
    expect_success(&checked(&deny("client|list"), ""), "a subcommand");
    refused(&deny("flushal"), "", "unknown command `flushal`, did you mean `flushall`?");
    refused(&deny("client|lisst"), "", "unknown command `client|lisst`");
    refused(&deny("'@dangerouss'"), "", "unknown category `@dangerouss`");
}

#[test]
fn a_keyed_mask_wants_a_key() {
    refused(TOKENS, "", "`token_hmac` needs a key, and there is none");
    expect_success(&checked(TOKENS, KEYS), "with a key");
    // Without a configuration nobody knows whether there is one.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("r.yaml"), format!("version: 1\nrules:\n{TOKENS}\n")).unwrap();
    let place = folder.path().to_str().unwrap();
    expect_success(&portcullis(["rules", "check", place]), "rules check");
}

#[test]
fn a_reload_with_an_unknown_command_changes_nothing() {
    let server = Redis::with_settings(&[]);
    let mut setup = Setup::redis(server.address());
    setup.rules = vec![(
        "rules.yaml".into(),
        "version: 1\nrules:\n  - {id: r, match: {commands: [set]}, deny: true}\n".into(),
    )];
    let proxy = Portcullis::start(&setup);
    let mut client = RawRedis::connect(proxy.address());
    assert!(!client.command(&["SET", "k", "v"]).error().is_empty());
    proxy.write_rules(
        "rules.yaml",
        "version: 1\nrules:\n  - {id: r, match: {commands: [sett]}, deny: true}\n",
    );
    wait_until("the reload is refused", SOON, || {
        proxy.admin("GET", "/readyz").1.contains("unknown command `sett`")
    });
    assert!(!client.command(&["SET", "k", "v"]).error().is_empty());
    proxy.write_rules("rules.yaml", "version: 1\nrules: []\n");
    wait_until("the next one holds", SOON, || client.command(&["SET", "k", "v"]) == Reply::ok());
}

/// One rule set and one key: the token of a value does not depend on where it is found.
#[test]
fn a_masked_value_is_the_token_of_the_configured_key() {
    let server = Redis::with_settings(&[]);
    server.admin().command(&["HSET", "c:1", "email", "ada@example.com", "city", "Ulm"]);
    server.admin().command(&["SET", "c:2", "ada@example.com"]);
    server.admin().command(&["RPUSH", "c:3", "ada@example.com", "bob@example.com"]);
    server.admin().command(&["XADD", "c:4", "1-1", "email", "ada@example.com"]);
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("mask.key");
    fs::write(&key, "a secret of 32 bytes or more, for tests").unwrap();
    fs::write(folder.path().join("next.key"), "another secret of 32 bytes, for tests").unwrap();
    let (key, next) = (key.display(), folder.path().join("next.key"));
    let next = next.display();
    let start = |keys: &str| {
        let mut setup = Setup::redis(server.address());
        setup.rules = vec![(
            "rules.yaml".into(),
            "version: 1\nclassification:\n  - {keys: 'c:*', fields: email, class: EMAIL_ADDRESS, level: confidential}\n  - {keys: ['c:2', 'c:3'], class: EMAIL_ADDRESS, level: confidential}\nrules:\n  - {id: r, match: {classes: EMAIL_ADDRESS}, mask: token_hmac}\n"
                .into(),
        )];
        setup.extra = format!("mask_keys: [{keys}]\n");
        Portcullis::start(&setup)
    };
    let seven = format!("{{version: 7, file: \"{key}\"}}");
    let proxy = start(&seven);
    let mut client = RawRedis::connect(proxy.address());
    let Reply::Bulk(Some(token)) = client.command(&["HGET", "c:1", "email"]) else {
        panic!("no value")
    };
    assert!(token.starts_with(b"t7_"), "{}", String::from_utf8_lossy(&token));
    assert_eq!(client.command(&["GET", "c:2"]), Reply::Bulk(Some(token.clone())));
    assert_eq!(client.command(&["HGET", "c:1", "city"]), Reply::text("Ulm"));
    let Reply::Array(Some(list)) = client.command(&["LRANGE", "c:3", "0", "-1"]) else {
        panic!("no list")
    };
    assert_eq!(list[0], Reply::Bulk(Some(token.clone())));
    assert_ne!(list[1], list[0]);
    // The same under the other version of the protocol, and inside a transaction.
    client.command(&["HELLO", "3"]);
    client.command(&["MULTI"]);
    client.command(&["GET", "c:2"]);
    client.command(&["XRANGE", "c:4", "-", "+"]);
    let exec = format!("{:?}", client.command(&["EXEC"]));
    let shown = format!("{:?}", Reply::Bulk(Some(token.clone())));
    assert_eq!(exec.matches(&shown).count(), 2, "{exec}");
    // A new key is used for everything; the one before is only kept.
    let eight = format!("{{version: 8, file: \"{next}\", current: true}}, {seven}");
    let rotated = start(&eight);
    let Reply::Bulk(Some(other)) =
        RawRedis::connect(rotated.address()).command(&["HGET", "c:1", "email"])
    else {
        panic!("no value")
    };
    assert!(other.starts_with(b"t8_"), "{}", String::from_utf8_lossy(&other));
    assert_ne!(other[3..], token[3..]);
    let again = start(&seven);
    let same = RawRedis::connect(again.address()).command(&["GET", "c:2"]);
    assert_eq!(same, Reply::Bulk(Some(token)), "another proxy with the same key");
    assert!(!proxy.log().contains("a secret of 32"));
}

#[test]
fn the_command_line_explains_commands_and_runs_their_tests() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let write = |expect: &str| {
        let text = format!(
            "version: 1\nrules:\n  \
             - {{id: quiet, match: {{roles: [support], commands: [flushall]}}, deny: true}}\n\
             tests:\n  \
             - {{name: t, as: {{user: a, roles: [support]}}, command: FLUSHALL, \
             expect: {expect}}}\n"
        );
        fs::write(folder.path().join("r.yaml"), text).unwrap();
    };
    write("{denied: quiet}");
    let shown = portcullis(["rules", "check", place]);
    assert!(expect_success(&shown, "check").contains("1 tests, 0 failed"));
    let config = checked(
        "  - {id: r, match: {commands: [flushall]}, deny: true}\ntests:\n  - {name: t, as: {user: a}, command: GET k, expect: {denied: true}}",
        "",
    );
    assert_eq!(config.status.code(), Some(1), "tests run when the proxy starts, too");
    write("{allowed: true}");
    let failed = portcullis(["rules", "check", place]);
    assert_eq!(failed.status.code(), Some(1));
    let explained = portcullis([
        "rules",
        "explain",
        "--rules",
        place,
        "--as",
        "a",
        "--protocol",
        "redis",
        "GET k",
    ]);
    assert!(expect_success(&explained, "explain").contains("sent:     unchanged\n"));
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo");
    let words = ["rules", "explain", "--rules", demo, "--as", "support", "--protocol", "redis"];
    let explained = command().args(words).arg("HGET customer:2 email").output().unwrap();
    let text = expect_success(&explained, "explain");
    assert!(text.contains("values in the reply are masked"), "{text}");
}
