use std::fs;
use std::path::Path;

use super::*;
use crate::audit::{Target, WhenFull};

pub(super) const GOOD: &str = "\
version: 1
datasources:
  - name: demo
    protocol: postgresql
    listen: 127.0.0.1:6432
    upstream: 127.0.0.1:5432
    default: allow
rules: {directory: rules}
audit: {file: audit.jsonl}
";

/// A folder with what the files name.
pub(super) fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("rules")).unwrap();
    dir
}

fn problems(text: &str, base: &Path) -> Vec<String> {
    match Config::parse("p.yaml", text, base) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(diagnostics) => diagnostics.iter().map(ToString::to_string).collect(),
    }
}

/// Each text is `GOOD` with one change; the expectation is how the first problem begins.
#[track_caller]
pub(super) fn check(from: &str, to: &str, expected: &str) {
    assert!(GOOD.contains(from), "`{from}` is not in the good file");
    let dir = folder();
    let found = problems(&GOOD.replace(from, to), dir.path());
    let first = found.first().map(|found| found.replace(&dir.path().display().to_string(), "."));
    assert!(first.as_deref().unwrap_or("").starts_with(expected), "{found:#?}");
}

#[test]
fn a_short_file_is_enough() {
    let dir = folder();
    let (config, warnings) = Config::parse("p.yaml", GOOD, dir.path()).unwrap();
    assert!(warnings.is_empty());
    let [demo] = &config.datasources[..] else { panic!("{config:?}") };
    assert_eq!(&*demo.name, "demo");
    let at = ListenAt::Tcp("127.0.0.1:6432".parse().unwrap());
    let (allow, proxies, port) = (Vec::new(), Vec::new(), Port::Own);
    assert_eq!(demo.listen, [Listen { at, allow, proxies, port }]);
    assert_eq!(demo.upstream, [ServerAddress { host: "127.0.0.1".to_owned(), port: 5432 }]);
    assert_eq!(demo.target, TargetServer::Any);
    assert!(!demo.default_deny);
    assert_eq!(config.admin.listen, "127.0.0.1:9464".parse().unwrap());
    assert_eq!(config.rules.directory, dir.path().join("rules"));
    assert_eq!(config.limits.clients, 10_000);
    assert_eq!(config.limits.sessions, SessionLimits::default());
    let path = dir.path().join("audit.jsonl");
    assert_eq!(config.audit.target, Target::File { path, rotate_bytes: 64 << 20, keep: 8 });
}

#[test]
fn a_long_file_is_read_to_its_end() {
    let dir = folder();
    fs::write(dir.path().join("password"), "s3cret\n").unwrap();
    let text = r#"
version: 1
datasources:
  - name: demo
    protocol: postgresql
    listen: ["127.0.0.1:6432", "[::1]:6432"]
    upstream: "[::1]:5432"
    default: deny
    tls: {mode: off}
    catalog: {user: reader, password_file: password, databases: demo, refresh: 5min}
    limits: {client_idle_timeout: off, statement_timeout: 5s, on_client_gone: cancel}
rules: {directory: rules, reload: 5s}
audit: {stdout: true, queue_events: 1000, when_full: drop_and_count, wait_deadline: 1s}
admin: {listen: 0.0.0.0:9999}
limits:
  clients: 5
  login_timeout: 1s
  client_idle_timeout: 10min
  statement_timeout: 30s
  transaction_timeout: 1min
  read_buffer: 64KiB
  plan_cache: 8MiB
log: {format: json, level: "warn,portcullis=debug"}
"#;
    let (config, _) = Config::parse("p.yaml", text, dir.path()).unwrap();
    let demo = &config.datasources[0];
    assert_eq!(demo.listen.len(), 2);
    assert_eq!(demo.upstream[0].host, "::1");
    assert!(demo.default_deny);
    let catalog = demo.catalog.as_ref().unwrap();
    assert_eq!(catalog.password.as_deref(), Some("s3cret"));
    assert!(!format!("{config:?}").contains("s3cret"));
    assert_eq!(config.audit.target, Target::Stdout);
    assert_eq!(config.audit.when_full, WhenFull::DropAndCount);
    let seconds = |s| Some(Duration::from_secs(s));
    assert_eq!(config.limits.sessions.client_idle_timeout, seconds(600));
    assert_eq!(config.limits.sessions.statement_timeout, seconds(30));
    // A datasource says otherwise, in part.
    assert_eq!(
        (demo.limits.client_idle_timeout, demo.limits.statement_timeout),
        (None, seconds(5))
    );
    assert_eq!(demo.limits.transaction_timeout, seconds(60));
    assert_eq!(demo.limits.on_client_gone, OnClientGone::Cancel);
    assert_eq!(config.limits.read_buffer_bytes, 65_536);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn an_empty_list_does_not_mean_everything() {
    let empty = "p.yaml:8:";
    for list in [
        "authentication: [{method: relay, users: []}]",
        "authentication: [{method: relay, databases: []}]",
        "authentication: [{method: relay, networks: []}]",
        "authentication: [{method: relay, transport: []}]",
        "authentication: [{method: peer, map: [{name: 'uid:0', users: []}]}]",
        "upstream_login: []",
        "upstream_login: [{users: [], user: app}]",
        "upstream_login: [{databases: [], user: app}]",
        "catalog: {user: app, databases: []}",
    ] {
        check("default: allow\n", &format!("default: allow\n    {list}\n"), empty);
        let dir = folder();
        let text = GOOD.replace("default: allow\n", &format!("default: allow\n    {list}\n"));
        let found = problems(&text, dir.path());
        assert!(found.iter().any(|found| found.contains("the list is empty")), "{found:?}");
    }
    for key in ["allow", "proxy_protocol_from"] {
        let entry = format!("{{address: '127.0.0.1:6432', {key}: []}}");
        check("127.0.0.1:6432", &entry, "p.yaml:5:");
    }
}

#[test]
fn problems_say_where_and_what() {
    check("version: 1\n", "", "p.yaml:1:1: error: `version` is missing");
    check("version: 1", "version: 2", "p.yaml:1:10: error: this version");
    check("version: 1", "version: [", "p.yaml:");
    check("    default: allow\n", "", "p.yaml:3:5: error: `default` is missing");
    check("allow", "alow", "p.yaml:7:14: error: unknown value `alow`, did you mean `allow`?");
    check("upstream", "upsteam", "p.yaml:3:5: error: `upstream` is missing");
    check("postgresql", "mysql", "p.yaml:4:15: error: unknown value `mysql`");
    check("127.0.0.1:6432", "localhost:6432", "p.yaml:5:13: error: `localhost:6432` is no address");
    check("127.0.0.1:6432", "127.0.0.1:9464", "p.yaml:1:1: error: `127.0.0.1:9464` is in use");
    check("127.0.0.1:5432", "db", "p.yaml:6:15: error: `db` is no server address");
    check("127.0.0.1:5432", "::1:5432", "p.yaml:6:15: error: `::1:5432` is no server address");
    check("directory: rules", "directory: rulez", "p.yaml:8:20: error: rules directory `./rulez`");
    check("audit.jsonl", "none/audit.jsonl", "p.yaml:9:15: error: the folder of `./none/");
    check("file: audit.jsonl", "keep: 4", "p.yaml:9:8: error: say where events go");
    check(
        "allow\n",
        "allow\n    tls: {mode: required}\n",
        "p.yaml:8:10: error: TLS needs `certificate` and `key`",
    );
    check(
        "allow\n",
        "allow\n    catalog: {user: u, password_file: nope}\n",
        "p.yaml:8:39: error: password file `./nope`: No such file",
    );
    check(
        "version: 1",
        "version: 1\nlimits: {clients: 0}",
        "p.yaml:2:19: error: 0 is out of bounds",
    );
    check("version: 1", "version: 1\nlog: {level: \"=x=\"}", "p.yaml:2:14: error: `=x=` is no log");
}

#[test]
fn all_problems_are_reported_at_once() {
    let dir = folder();
    let text = GOOD.replace("allow", "perhaps").replace("6432", "x").replace("rules}", "gone}");
    let found = problems(&text, dir.path());
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn two_datasources_need_two_addresses_and_names() {
    let second = "  - {name: demo, protocol: postgresql, listen: 0.0.0.0:6432, \
                  upstream: db:5432, default: deny}\nrules:";
    check(
        "rules:",
        second,
        "p.yaml:8:12: error: datasource `demo` is there already, at p.yaml:3:11",
    );
    let dir = folder();
    let found = problems(&GOOD.replace("rules:", second), dir.path());
    assert!(found.iter().any(|found| found.contains("`0.0.0.0:6432` is in use")), "{found:#?}");
}

#[test]
fn a_key_must_be_the_certificates() {
    let dir = folder();
    for name in ["a", "b"] {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(dir.path().join(format!("{name}.crt")), made.cert.pem()).unwrap();
        fs::write(dir.path().join(format!("{name}.key")), made.signing_key.serialize_pem())
            .unwrap();
    }
    let with = |certificate: &str, key: &str| {
        let tls =
            format!("allow\n    tls: {{mode: allowed, certificate: {certificate}, key: {key}}}\n");
        Config::parse("p.yaml", &GOOD.replace("allow\n", &tls), dir.path())
    };
    let (config, warnings) = with("a.crt", "a.key").unwrap();
    assert!(config.datasources[0].tls.is_some());
    assert!(warnings[0].message.contains("everyone can read it"), "{warnings:?}");
    for (certificate, key, column, expected) in [
        ("a.crt", "b.key", 51, "is not the key of the certificate"),
        ("a.crt", "none", 51, "No such file"),
        ("a.key", "a.key", 39, "holds no certificate"),
        ("a.crt", "a.crt", 51, "no items found"),
    ] {
        let found = with(certificate, key).unwrap_err();
        let error = found.iter().find(|found| found.severity == Severity::Error).unwrap();
        assert!(error.message.contains(expected), "{error}");
        assert_eq!((error.line, error.column), (8, column), "{error}");
    }
}

#[test]
fn authentication_is_a_list_in_order() {
    use crate::session::auth::{Asked, Method, Transport};
    let dir = folder();
    let list = "allow
    authentication:
      - {method: reject, users: [postgres, \"admin_*\"], transport: [plain, tls]}
      - {method: relay, networks: [10.0.0.0/8, 192.0.2.7]}
";
    let (config, _) = Config::parse("p.yaml", &GOOD.replace("allow\n", list), dir.path()).unwrap();
    let authentication = &config.datasources[0].authentication;
    let choose = |user, address: &str, transport| {
        let address = Some(address.parse().unwrap());
        authentication.choose(&Asked { user, database: "demo", address, transport }).method
    };
    assert_eq!(choose("admin_x", "10.0.0.1", Transport::Tls), Method::Reject);
    assert_eq!(choose("app", "10.0.0.1", Transport::Plain), Method::Relay);
    assert_eq!(choose("app", "192.0.2.7", Transport::Plain), Method::Relay);
    assert_eq!(choose("app", "192.0.2.8", Transport::Plain), Method::Reject);
    let wrong = |list: &str, expected: &str| {
        let list = format!("allow\n    authentication: {list}\n");
        check("allow\n", &list, &format!("p.yaml:8:{expected}"));
    };
    wrong("[]", "21: error: the list is empty");
    wrong("[{users: a}]", "22: error: `method` is missing");
    wrong("[{method: md5}]", "31: error: unknown value `md5`");
    wrong("[{method: relay, password: x}]", "38: error: unknown key `password`");
    wrong("[{method: relay, networks: x}]", "48: error: `x` is no network");
    wrong("[{method: relay, transport: ssl}]", "49: error: unknown value `ssl`");
    wrong("[{method: relay}, {method: reject}]", "39: error: this entry is never reached");
}

/// An `upstream_tls:` in the good file, `$ca` being a certificate there is.
fn with_upstream_tls(written: &str) -> Result<UpstreamTls, String> {
    let dir = folder();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(dir.path().join("ca.crt"), made.cert.pem()).unwrap();
    let text = GOOD.replace("allow\n", &format!("allow\n    upstream_tls: {written}\n"));
    match Config::parse("p.yaml", &text, dir.path()) {
        Ok((config, _)) => Ok(config.datasources[0].upstream_tls.clone()),
        Err(found) => Err(found.first().unwrap().to_string()),
    }
}

#[test]
fn tls_to_the_server_is_what_was_asked_for() {
    let required = |written: &str| {
        let found = with_upstream_tls(written);
        assert!(matches!(found, Ok(UpstreamTls::Required(_))), "{written}: {found:?}");
    };
    required("{mode: require}");
    required("{mode: require, ca: ca.crt}");
    required("{mode: verify-ca, ca: ca.crt}");
    required("{mode: verify-full, ca: ca.crt}");
    required("{ca: ca.crt}");
    assert!(matches!(with_upstream_tls("{mode: disable}"), Ok(UpstreamTls::Plain)));
    assert!(matches!(with_upstream_tls("{mode: prefer}"), Ok(UpstreamTls::Preferred(_))));
}

#[test]
fn tls_to_the_server_that_proves_nothing_is_a_problem() {
    for (written, expected) in [
        ("{mode: verify-ca}", "p.yaml:8:26: error: `verify-ca` needs `ca`"),
        ("{mode: verify-ca, ca: system}", "p.yaml:8:26: error: the system's authorities"),
        ("{mode: require, ca: system}", "p.yaml:8:26: error: the system's authorities"),
        ("{mode: prefer, ca: ca.crt}", "p.yaml:8:26: error: `prefer` verifies nothing"),
        ("{mode: verify-full, ca: none}", "p.yaml:8:43: error: authorities `"),
        ("{mode: require, key: ca.crt}", "p.yaml:8:19: error: `key` needs `certificate`"),
        ("{mode: require, certificate: ca.crt}", "p.yaml:8:19: error: `certificate` needs `key`"),
        ("{mode: allow}", "p.yaml:8:26: error: unknown value `allow`"),
        ("yes", "p.yaml:8:19: error: expected a map"),
    ] {
        let found = with_upstream_tls(written).unwrap_err();
        assert!(found.starts_with(expected), "{written}: {found}");
    }
}

#[test]
fn only_bytes_that_stay_on_the_machine_go_in_plain_text_by_themselves() {
    let dir = folder();
    let upstream = |host: &str| {
        let text = GOOD.replace("upstream: 127.0.0.1:5432", &format!("upstream: \"{host}:5432\""));
        Config::parse("p.yaml", &text, dir.path())
            .map(|(config, _)| matches!(config.datasources[0].upstream_tls, UpstreamTls::Plain))
    };
    for host in ["127.0.0.1", "127.8.0.1", "[::1]", "localhost"] {
        assert!(upstream(host).unwrap(), "{host}");
    }
    for host in ["10.0.0.1", "db.internal", "localhost.example", "[fe80::1]"] {
        // A machine without authorities cannot verify, and says so.
        assert!(!upstream(host).is_ok_and(|plain| plain), "{host}");
    }
}

#[test]
fn other_machines_are_not_served_in_plain_text_unless_that_was_chosen() {
    check("127.0.0.1:6432", "0.0.0.0:6432", "p.yaml:5:13: error: `0.0.0.0:6432` would serve");
    check("127.0.0.1:6432", "\"[::]:6432\"", "p.yaml:5:13: error: `[::]:6432` would serve");
    let dir = folder();
    let chosen = GOOD
        .replace("127.0.0.1:6432", "0.0.0.0:6432")
        .replace("allow\n", "allow\n    tls: {mode: off}\n");
    assert!(Config::parse("p.yaml", &chosen, dir.path()).is_ok());
}

#[test]
fn what_has_no_effect_in_a_mode_is_said() {
    let dir = folder();
    let text = GOOD.replace("allow\n", "allow\n    tls: {mode: off, certificate: a, key: b}\n");
    let (_, warnings) = Config::parse("p.yaml", &text, dir.path()).unwrap();
    let texts: Vec<_> = warnings.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(texts, ["`a` is not used in this mode", "`b` is not used in this mode"]);
    let mutual = "allow\n    tls: {mode: mutual, certificate: a, key: b}\n";
    check("allow\n", mutual, "p.yaml:8:10: error: `mutual` needs `client_ca`");
}

#[test]
fn a_certificate_out_of_its_time_is_a_warning() {
    let dir = folder();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    fs::write(dir.path().join("a.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.path().join("a.key"), key.serialize_pem()).unwrap();
    let tls = "allow\n    tls: {mode: allowed, certificate: a.crt, key: a.key}\n";
    let text = GOOD.replace("allow\n", tls);
    let (_, warnings) = Config::parse("p.yaml", &text, dir.path()).unwrap();
    let expired = warnings.iter().find(|found| found.message.contains("has expired on")).unwrap();
    assert_eq!((expired.line, expired.column), (8, 39), "{expired}");
}

#[test]
fn servers_are_a_list_and_a_role_needs_a_login_to_ask_for_it() {
    let dir = folder();
    let list = GOOD.replace("127.0.0.1:5432", "[\"127.0.0.1:1\", \"[::1]:2\"]");
    let (config, _) = Config::parse("p.yaml", &list, dir.path()).unwrap();
    let shown: Vec<_> = config.datasources[0].upstream.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["127.0.0.1:1", "[::1]:2"]);
    let primary = "allow\n    target_session_attrs: primary\n";
    let expected = "p.yaml:8:27: error: `target_session_attrs` needs `catalog`";
    check("allow\n", primary, expected);
    check("allow\n", "allow\n    target_session_attrs: master\n", "p.yaml:8:27: error: unknown");
    check("127.0.0.1:5432", "[]", "p.yaml:6:15: error: the list is empty");
    check("127.0.0.1:5432", "[\"a:1\", b]", "p.yaml:6:23: error: `b` is no server address");
    let asked = primary.to_owned() + "    catalog: {user: reader}\n";
    let (config, _) =
        Config::parse("p.yaml", &GOOD.replace("allow\n", &asked), dir.path()).unwrap();
    assert_eq!(config.datasources[0].target, TargetServer::Primary);
}

#[test]
fn logins_that_end_here_have_what_they_need() {
    use crate::session::auth::{ChannelBinding, Method, StoredIn};
    let dir = folder();
    fs::write(dir.path().join("pw"), "s3cret").unwrap();
    fs::write(dir.path().join("decoy"), [7; 32]).unwrap();
    let with = |lines: &str| {
        let text = GOOD.replace("allow\n", &format!("allow\n    {lines}\n"));
        Config::parse("p.yaml", &text, dir.path())
    };
    let good =
        "authentication: [{method: scram-sha-256, verifiers: auth_query, channel_binding: disable}]
    auth_query: {user: reader, password_file: pw}
    upstream_login: [{users: \"a*\", user: svc, password_file: pw}, {}]
    decoy_secret_file: decoy";
    let (config, _) = with(good).unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
    let demo = &config.datasources[0];
    let Method::Scram(scram) = &demo.authentication.entries[0].method else { panic!("{shown}") };
    assert_eq!((scram.stored, scram.binding), (StoredIn::Server, ChannelBinding::Disable));
    assert_eq!(demo.logins.accounts.lines.len(), 2);
    assert!(demo.logins.query.as_ref().unwrap().text.contains("pg_authid"));
    let (again, _) = with(good).unwrap();
    assert_eq!(demo.authentication.decoy, again.datasources[0].authentication.decoy);
    let scram = "authentication: [{method: scram-sha-256}]";
    for (lines, expected) in [
        ("authentication: [{method: scram-sha-256, verifiers: auth_query}]", "needs `auth_query`"),
        (&*format!("{scram}\n    auth_query: {{user: r}}"), "no entry of `authentication` uses"),
        ("upstream_login: [{}]", "logins are relayed"),
        ("authentication: [{method: peer}]", "the proxy has no account for those"),
        ("authentication: [{method: password}]", "the proxy has no account for those"),
        ("authentication: [{method: password, verifiers: auth_query}]", "unknown key `verifiers`"),
        ("authentication: [{method: certificate}]\n    upstream_login: [{}]", "needs TLS"),
        // Nothing that is wrong hides what else is.
        (
            "authentication: [{method: peer}]\n    decoy_secret_file: none",
            "the proxy has no account for those",
        ),
        ("authentication: [{method: relay, client_certificate: required}]", "needs TLS"),
        ("authentication: [{method: scram-sha-256, channel_binding: require}]", "needs TLS"),
        (&format!("{scram}\n    upstream_login: [{{password: x}}]"), "a password is not written"),
        (&format!("{scram}\n    upstream_login: [{{password_file: none}}]"), "password file"),
        (
            &format!("{scram}\n    upstream_login: [{{password_env: PORTCULLIS_NONE}}]"),
            "is not set",
        ),
        (&format!("{scram}\n    decoy_secret_file: none"), "No such file"),
        (
            "authentication: [{method: peer, map: [{name: root, users: a}]}]\n    upstream_login: [{}]",
            "what kind of name",
        ),
        ("authentication: [{method: peer, map: []}]\n    upstream_login: [{}]", "the map is empty"),
        ("authentication: [{method: scram-sha-256, map: []}]", "unknown key `map`"),
    ] {
        let found = with(lines).unwrap_err();
        assert!(found.iter().any(|one| one.message.contains(expected)), "{lines}: {found:?}");
    }
}
