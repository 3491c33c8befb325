//! Redis datasources and the keys of masks, as people write them.

use std::fs;
use std::path::Path;

use super::tests::folder;
use super::{Config, Protocol};
use crate::policy::{Diagnostic, Severity};
use crate::tls::UpstreamTls;

const GOOD: &str = "\
version: 1
datasources:
  - name: cache
    protocol: redis
    listen: 127.0.0.1:6380
    upstream: 127.0.0.1:6379
    default: allow
rules: {directory: rules}
audit: {file: audit.jsonl}
";

fn parse(folder: &Path, more: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let more = format!("default: allow\n{more}");
    Config::parse("p.yaml", &GOOD.replace("default: allow\n", &more), folder)
}

/// The errors of the good file with more lines in its datasource.
fn errors(folder: &Path, more: &str) -> Vec<String> {
    let found = match parse(folder, more) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(found) => found,
    };
    let errors = found.iter().filter(|one| one.severity == Severity::Error);
    errors.map(|one| one.message.clone()).collect()
}

#[test]
fn a_redis_is_served_with_every_login_it_can_have() {
    let dir = folder();
    fs::write(dir.path().join("password"), "s3cret").unwrap();
    let more = "    authentication:
      - {method: password, users: app}
      - {method: api-key, users: batch}
      - {method: peer, transport: local}
      - {method: reject, users: root}
      - {method: relay}
    upstream_login: [{users: app, user: cache, password_file: password}, {}]
    limits: {statement_timeout: 5s, client_idle_timeout: 1h, session_lifetime: 8h}
";
    let (config, _) = parse(dir.path(), more).unwrap();
    let [cache] = &config.datasources[..] else { panic!("{config:?}") };
    assert_eq!(cache.protocol, Protocol::Redis);
    assert_eq!(cache.authentication.entries.len(), 5);
}

#[test]
fn what_a_redis_cannot_honour_is_refused_with_its_reason() {
    let dir = folder();
    fs::write(dir.path().join("decoy"), [7; 32]).unwrap();
    for (line, expected) in [
        ("catalog: {user: reader}", "a Redis server has no catalog"),
        ("target_session_attrs: primary", "Redis servers are not asked"),
        ("authentication: [{method: scram-sha-256}]", "Redis clients send their password"),
        ("authentication: [{method: relay, databases: \"0\"}]", "a Redis login names no database"),
        ("auth_query: {user: reader}", "a Redis server stores no verifiers"),
        ("decoy_secret_file: decoy", "Redis clients are shown no salts"),
        ("limits: {on_client_gone: cancel}", "a Redis server cannot be told to cancel"),
        ("limits: {cancel_grace: 1s}", "a Redis server cannot be told to cancel"),
        ("upstream_tls: {mode: prefer}", "a Redis server is not asked whether it has TLS"),
        ("upstream_tls: {mode: require}", "passwords go to a Redis server in clear text"),
    ] {
        let found = errors(dir.path(), &format!("    {line}\n"));
        assert!(found.iter().any(|one| one.starts_with(expected)), "{line}: {found:?}");
    }
    let login = "    authentication: [{method: password}]
    upstream_login: [{databases: \"0\", user: app}]
";
    assert_eq!(errors(dir.path(), login), ["a Redis login names no database"]);
}

#[test]
fn a_password_of_ours_does_not_cross_a_network_as_it_is() {
    let dir = folder();
    fs::write(dir.path().join("password"), "s3cret").unwrap();
    let with = |server: &str, account: &str| {
        let more = format!(
            "default: allow\n    authentication: [{{method: password}}]\n    \
             upstream_login: [{account}]\n    upstream_tls: {{mode: disable}}\n"
        );
        let text = GOOD.replace("127.0.0.1:6379", server).replace("default: allow\n", &more);
        Config::parse("p.yaml", &text, dir.path()).map(|_| ())
    };
    let found = with("cache.internal:6379", "{password_file: password}").unwrap_err();
    assert!(found.iter().any(|one| one.message.starts_with("a password would go")), "{found:?}");
    with("cache.internal:6379", "{user: app}").unwrap();
    with("localhost:6379", "{password_file: password}").unwrap();
}

#[test]
fn tls_to_a_redis_begins_at_once() {
    let dir = folder();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(dir.path().join("ca.crt"), made.cert.pem()).unwrap();
    let leg = |tls: &str| {
        let (config, _) = parse(dir.path(), &format!("    upstream_tls: {tls}\n")).unwrap();
        config.datasources[0].upstream_tls.clone()
    };
    for tls in ["{ca: ca.crt}", "{mode: verify-ca, ca: ca.crt}", "{mode: require, ca: ca.crt}"] {
        assert!(matches!(leg(tls), UpstreamTls::AtOnce(_)), "{tls}");
    }
    assert!(matches!(leg("{mode: disable}"), UpstreamTls::Plain));
}

#[test]
fn sentinels_are_asked_for_the_primary() {
    let dir = folder();
    fs::write(dir.path().join("password"), "s3cret").unwrap();
    let with = |upstream: &str, more: &str| {
        let text = GOOD.replace("127.0.0.1:6379", upstream);
        let more = format!("default: allow\n{more}");
        Config::parse("p.yaml", &text.replace("default: allow\n", &more), dir.path())
    };
    let plain = "    upstream_tls: {mode: disable}\n";
    let group = "{sentinels: [\"127.0.0.1:26379\", \"localhost:26380\"], master: main";
    let (config, _) =
        with(&format!("{group}, user: proxy, password_file: password}}"), plain).unwrap();
    let [cache] = &config.datasources[..] else { panic!("{config:?}") };
    assert_eq!(cache.upstream.len(), 2);
    assert_eq!(cache.sentinel.as_ref().unwrap().master, "main");
    for (upstream, more, expected) in [
        (format!("{group}}}"), "", "where Sentinels lead is not known"),
        ("{master: main}".to_owned(), plain, "`sentinels` is missing"),
        ("{sentinels: \"a:1\"}".to_owned(), plain, "`master` is missing"),
        (format!("{group}, user: proxy}}"), plain, "a user of the Sentinels has a password"),
        (format!("{group}, master: a b}}"), plain, ""),
        ("{sentinels: \"a:1\", master: a b}".to_owned(), plain, "a primary's name is one word"),
        (
            "{sentinels: \"a.b:1\", master: a, password_file: password}".to_owned(),
            plain,
            "a password would go to another machine",
        ),
    ] {
        let found = with(&upstream, more).unwrap_err();
        let texts: Vec<_> = found.iter().map(|one| one.message.as_str()).collect();
        assert!(texts.iter().any(|one| one.starts_with(expected)), "{upstream}: {texts:?}");
    }
    let text = GOOD.replace("127.0.0.1:6379", &format!("{group}}}")).replace("redis", "postgresql");
    let found = Config::parse("p.yaml", &text, dir.path()).unwrap_err();
    assert_eq!(found[0].message, "Sentinels know Redis servers only");
}

/// The outcome of a `mask_keys:`; where it is good, whether there is a key then.
fn with_keys(folder: &Path, keys: &str) -> Result<bool, Vec<String>> {
    let text = format!("{GOOD}mask_keys: {keys}\n");
    match Config::parse("p.yaml", &text, folder) {
        Ok((config, _)) => Ok(config.masker.has_key()),
        Err(found) => Err(found.iter().map(|one| one.message.clone()).collect()),
    }
}

#[test]
fn one_key_is_current_and_all_are_checked() {
    let dir = folder();
    for (name, text) in [
        ("one", "0123456789abcdef0123456789abcdef\n"),
        ("same", "0123456789abcdef0123456789abcdef"),
        ("two", "another secret of 32 bytes or more"),
        ("short", "0123456789abcdef\n"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let good = |keys| with_keys(dir.path(), keys).unwrap();
    assert!(!parse(dir.path(), "").unwrap().0.masker.has_key());
    assert!(good("[{version: 1, file: one}]"));
    assert!(good("[{version: 2, file: two, current: true}, {version: 1, file: one}]"));
    for (keys, expected) in [
        ("[]", "the list is empty"),
        ("[{version: 1, key: abc}]", "a key is not written into this file"),
        ("[{file: one}]", "`version` is missing"),
        ("[{version: 0, file: one}]", "versions are numbers from 1"),
        ("[{version: 65536, file: one}]", "versions are numbers from 1"),
        ("[{version: 1}]", "say where the key is"),
        ("[{version: 1, file: one, env: KEY}]", "say where the key is"),
        ("[{version: 1, file: none}]", "key file `"),
        ("[{version: 1, env: PORTCULLIS_NO_SUCH_KEY}]", "environment variable `PORTCULLIS_NO"),
        ("[{version: 1, file: short}]", "a mask key has 32 to 4096 bytes, not 16"),
        ("[{version: 1, file: one}, {version: 2, file: two}]", "none of these keys"),
        (
            "[{version: 1, file: one, current: true}, {version: 2, file: two, current: true}]",
            "another key is current already",
        ),
        (
            "[{version: 1, file: one, current: true}, {version: 1, file: two}]",
            "version 1 is there already",
        ),
        (
            "[{version: 1, file: one, current: true}, {version: 2, file: same}]",
            "this is the key of version 1 once more",
        ),
        (
            "[{version: 1, file: one, current: true}, {version: 2, file: short}]",
            "a mask key has 32",
        ),
    ] {
        let found = with_keys(dir.path(), keys).unwrap_err();
        assert!(found.iter().any(|one| one.starts_with(expected)), "{keys}: {found:?}");
    }
}

#[test]
fn a_key_is_never_shown() {
    let dir = folder();
    fs::write(dir.path().join("one"), "0123456789abcdef0123456789abcdef").unwrap();
    let text = format!("{GOOD}mask_keys: [{{version: 1, file: one}}]\n");
    let (config, warnings) = Config::parse("p.yaml", &text, dir.path()).unwrap();
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
    assert!(warnings[0].message.contains("everyone can read it"), "{warnings:?}");
}
