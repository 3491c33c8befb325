//! Mistakes in the configuration: found before anything listens, with place and way out.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Portcullis, SOON, Setup, command, free_port, portcullis, user_id};
use crate::pg::Postgres;
use crate::raw::Raw;

/// Nothing listens here.
fn nowhere() -> std::net::SocketAddr {
    std::net::SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// Runs with this configuration to the end, which must be exit code 1; returns what it said.
#[track_caller]
fn refused(config: &Path) -> String {
    let mut child = command()
        .args(["run", "--config"])
        .arg(config)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    if !crate::harness::wait_exit(&mut child, SOON) {
        child.kill().unwrap();
        panic!("it runs: {}", fs::read_to_string(config).unwrap());
    }
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text.into_owned()
}

#[track_caller]
fn check(change: impl Fn(String) -> String, expected: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = Setup::open(nowhere()).write(folder.path(), free_port(), free_port());
    let changed = change(fs::read_to_string(&path).unwrap());
    fs::write(&path, changed).unwrap();
    let text = refused(&path);
    for part in expected {
        assert!(text.contains(part), "expected `{part}` in:\n{text}");
    }
}

#[test]
fn mistakes_are_named_with_file_line_and_column() {
    check(|text| text.replace("upstream:", "upsteam:"), &["portcullis.yaml:6:", "upstream"]);
    check(|text| text.replace("default: allow", "default: maybe"), &["portcullis.yaml:7:", "deny"]);
    check(|text| text.replace("    default: allow\n", ""), &["portcullis.yaml:", "default"]);
    check(|text| text.replace("version: 1", "version: 9"), &["portcullis.yaml:1:", "version"]);
    check(|text| text.replace("127.0.0.1:", "127.0.0.1.5:"), &["portcullis.yaml:5:"]);
    check(|text| text.replace("directory: rules", "directory: rulez"), &["rulez"]);
    check(|text| text + "surprise: 1\n", &["surprise"]);
    check(|text| text.replace("rules: {", "rules: ["), &["portcullis.yaml:"]);
    check(|_| String::new(), &["portcullis.yaml"]);
}

#[test]
fn all_mistakes_are_reported_in_one_go() {
    let change = |text: String| text.replace("upstream:", "upsteam:").replace("allow", "maybe");
    check(change, &["upsteam", "maybe"]);
}

#[test]
fn a_missing_file_is_named() {
    let text = refused(Path::new("/nowhere/portcullis.yaml"));
    assert!(text.contains("/nowhere/portcullis.yaml"), "{text}");
}

#[test]
fn broken_rules_at_start_name_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::with_rules(nowhere(), "version: 1\nrules:\n  - id: x\n    mach: {}\n");
    let path = setup.write(folder.path(), free_port(), free_port());
    let text = refused(&path);
    assert!(text.contains("rules.yaml:4:5") && text.contains("match"), "{text}");
}

#[test]
fn a_busy_port_is_named() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    for (listen, admin) in [(port, free_port()), (free_port(), port)] {
        let folder = tempfile::tempdir().unwrap();
        let path = Setup::open(nowhere()).write(folder.path(), listen, admin);
        let text = refused(&path);
        assert!(text.contains(&port.to_string()), "{text}");
        assert!(text.to_lowercase().contains("in use"), "{text}");
    }
}

#[test]
fn an_unreachable_upstream_is_an_error_for_the_client_and_a_line_in_the_log() {
    let setup = Setup::open(nowhere());
    let proxy = Portcullis::start_unready(&setup);
    let parameters = [("user", "app"), ("database", "demo")];
    let error = Raw::try_login(proxy.address(), &parameters).unwrap_err();
    assert!(error.code().starts_with("08"), "{error:?}");
    assert!(!error.get(b'M').is_empty());
    assert!(proxy.log().contains(&setup.upstream.to_string()), "{}", proxy.log());
}

#[test]
fn a_certificate_that_does_not_match_its_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, host) in [("a", "localhost"), ("b", "localhost")] {
        let made = rcgen::generate_simple_self_signed(vec![host.into()]).unwrap();
        fs::write(folder.path().join(format!("{name}.crt")), made.cert.pem()).unwrap();
        fs::write(folder.path().join(format!("{name}.key")), made.signing_key.serialize_pem())
            .unwrap();
    }
    for (certificate, key, word) in [
        ("a.crt", "b.key", "b.key"),
        ("none.crt", "a.key", "none.crt"),
        ("a.key", "a.key", "a.key"),
    ] {
        let mut setup = Setup::open(nowhere());
        setup.datasource_extra =
            format!("\x20   tls: {{mode: allowed, certificate: {certificate}, key: {key}}}\n");
        let path = setup.write(folder.path(), free_port(), free_port());
        let text = refused(&path);
        assert!(text.contains(word) && text.contains("portcullis.yaml:"), "{text}");
    }
}

#[test]
fn two_datasources_on_one_port_are_refused() {
    let again = |text: String| {
        let (head, tail) = text.split_once("rules:").unwrap();
        let (_, first) = head.split_once("datasources:\n").unwrap();
        let second = first.replace("name: demo", "name: again");
        format!("{head}{second}rules:{tail}")
    };
    check(again, &["portcullis.yaml:10:", "in use"]);
}

#[test]
fn an_unwritable_audit_file_is_an_error_at_start() {
    check(
        |text| text.replace("/audit.jsonl", "/no/such/folder/audit.jsonl"),
        &["no/such/folder/audit.jsonl"],
    );
}

#[test]
fn the_audit_file_is_private() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    Raw::login(proxy.address(), "app").query("select 1");
    let metadata = fs::metadata(proxy.folder().join("audit.jsonl")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[test]
fn check_only_validates() {
    let folder = tempfile::tempdir().unwrap();
    let path = Setup::demo(nowhere()).write(folder.path(), free_port(), free_port());
    let output = portcullis(["run", "--check", "--config", path.to_str().unwrap()]);
    crate::pg::expect_success(&output, "run --check");
}

#[test]
fn the_demo_rules_pass_their_own_tests_and_explain_says_why() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo");
    crate::pg::expect_success(&portcullis(["rules", "check", rules]), "rules check");
    let sql = "select email from customers";
    let output = portcullis(["rules", "explain", "--as", "support", "--rules", rules, sql]);
    let text = crate::pg::expect_success(&output, "rules explain");
    assert!(text.contains("partial_email") || text.contains("mask"), "{text}");
    let missing = portcullis(["rules", "check", "/nowhere/rules"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn help_and_version_are_there() {
    for arguments in
        [&["--help"][..], &["run", "--help"], &["rules", "--help"], &["rules", "explain", "--help"]]
    {
        let output = command().args(arguments).output().unwrap();
        let text = crate::pg::expect_success(&output, "--help");
        assert!(text.contains("Usage"), "{text}");
    }
    let version = crate::pg::expect_success(&portcullis(["--version"]), "--version");
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert_eq!(portcullis(["--no-such-option"]).status.code(), Some(2));
}

/// Root passes every permission check, so there is nothing to see as root.
#[test]
fn an_unreadable_configuration_is_named() {
    if user_id() == 0 {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = Setup::open(nowhere()).write(folder.path(), free_port(), free_port());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let text = refused(&path);
    assert!(text.contains("portcullis.yaml"), "{text}");
}
