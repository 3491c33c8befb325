//! Logging in through the proxy with the same credentials as without it.

use std::process::Output;

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::pg::{Hba, PASSWORD, Postgres, check_accepted, check_refused, psql};
use crate::raw::{GSSENC_REQUEST, Raw, SSL_REQUEST, startup_packet, untyped_packet};
use crate::recorder::{Recorder, contains};

/// One login by psql: the outcome's standard output or error text.
fn login(port: u16, user: &str, password: &str, sslmode: &str) -> Output {
    psql(port, user, "demo")
        .env("PGPASSWORD", password)
        .env("PGSSLMODE", sslmode)
        .args(["-Atq", "-c", "select current_user"])
        .output()
        .unwrap()
}

/// A datasource's `tls:` with a certificate made for this test.
fn with_tls(mut setup: Setup, mode: &str) -> (Setup, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    setup.datasource_extra = format!(
        "\x20   tls: {{mode: {mode}, certificate: \"{}\", key: \"{}\"}}\n",
        certificate.display(),
        key.display()
    );
    (setup, folder)
}

#[test]
fn trusted_user_logs_in() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    check_accepted(&login(proxy.port(), "support", "", "disable"), "support");
}

#[test]
fn scram_and_md5_are_relayed() {
    for (hba, user) in [(Hba::Scram, "support"), (Hba::Md5, "md5user"), (Hba::Md5, "support")] {
        let server = Postgres::with_hba(hba);
        let proxy = Portcullis::start(&Setup::open(server.address()));
        check_accepted(&login(proxy.port(), user, PASSWORD, "disable"), user);
        check_refused(
            &login(proxy.port(), user, "wrong", "disable"),
            "password authentication failed",
        );
        // The server's own code reaches the client and the audit trail.
        let trail = proxy.finish().join("\n");
        assert!(trail.contains("28P01"), "{hba:?}: {trail}");
        assert!(!trail.contains(PASSWORD), "the password is in the audit trail");
    }
}

#[test]
fn scram_works_over_tls_and_plus_is_not_offered() {
    let server = Postgres::with_hba(Hba::Scram);
    let (setup, _files) = with_tls(Setup::open(server.address()), "allowed");
    let proxy = Portcullis::start(&setup);
    // Channel binding cannot hold through a proxy; a client that prefers it must fall back.
    check_accepted(&login(proxy.port(), "support", PASSWORD, "require"), "support");
    let demanding = psql(proxy.port(), "support", "demo")
        .env("PGSSLMODE", "require")
        .env("PGCHANNELBINDING", "require")
        .args(["-c", "select 1"])
        .output()
        .unwrap();
    assert!(!demanding.status.success(), "channel binding must not be claimed");
}

#[test]
fn cleartext_password_needs_tls() {
    let server = Postgres::with_hba(Hba::Password);
    let (setup, _files) = with_tls(Setup::open(server.address()), "allowed");
    let recorder = Recorder::start(setup.upstream);
    let proxy = Portcullis::start(&Setup { upstream: recorder.address(), ..setup });
    check_accepted(&login(proxy.port(), "support", PASSWORD, "require"), "support");
    let refused = login(proxy.port(), "support", PASSWORD, "disable");
    assert!(!refused.status.success(), "a password went over a plain connection");
    assert!(String::from_utf8_lossy(&refused.stderr).to_lowercase().contains("tls"));
}

#[test]
fn required_tls_refuses_plain_clients() {
    let server = Postgres::start();
    let (setup, _files) = with_tls(Setup::open(server.address()), "required");
    let proxy = Portcullis::start(&setup);
    check_accepted(&login(proxy.port(), "support", "", "require"), "support");
    let mut raw = Raw::connect(proxy.address());
    raw.send_bytes(&startup_packet(&[("user", "support"), ("database", "demo")]));
    let reply = raw.reply();
    assert_eq!(reply.code(), "28000", "{:?}", reply.errors);
}

#[test]
fn tls_and_gss_requests_are_answered_no_without_a_certificate() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    for code in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut raw = Raw::connect(proxy.address());
        raw.send_bytes(&untyped_packet(code, &[]));
        assert_eq!(raw.read_byte(), Some(b'N'));
        // The connection goes on in plain.
        raw.send_bytes(&startup_packet(&[("user", "support"), ("database", "demo")]));
        assert_eq!(raw.reply().status, b'I');
    }
    check_refused(&login(proxy.port(), "support", "", "require"), "does not support SSL");
}

/// Bytes sent ahead of the handshake must not be taken for bytes sent inside it (CVE-2021-3935).
#[test]
fn plaintext_ahead_of_the_tls_handshake_ends_the_connection() {
    let server = Postgres::start();
    let recorder = Recorder::start(server.address());
    let (setup, _files) = with_tls(Setup::open(recorder.address()), "allowed");
    let proxy = Portcullis::start(&setup);
    recorder.clear();
    let mut raw = Raw::connect(proxy.address());
    let mut bytes = untyped_packet(SSL_REQUEST, &[]);
    bytes.extend(startup_packet(&[("user", "support"), ("database", "demo")]));
    raw.send_bytes(&bytes);
    while raw.read_byte().is_some() {}
    assert!(recorder.to_server().is_empty(), "something reached the server");
}

#[test]
fn replication_connections_are_refused() {
    let server = Postgres::start();
    let recorder = Recorder::start(server.address());
    let proxy = Portcullis::start(&Setup::open(recorder.address()));
    recorder.clear();
    for value in ["true", "on", "1", "yes", "tr", "database", "DATABASE", "junk"] {
        let parameters = [("user", "postgres"), ("database", "demo"), ("replication", value)];
        let error = Raw::try_login(proxy.address(), &parameters).unwrap_err();
        assert_eq!(error.code(), "42501", "{value}: {error:?}");
        assert!(error.get(b'H').contains("`replication`"), "{error:?}");
    }
    assert!(recorder.to_server().is_empty(), "a refused login reached the server");
}

#[test]
fn unknown_user_and_database_get_the_servers_own_error() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    for (user, database, code) in [("nobody_here", "demo", "28000"), ("app", "nowhere", "3D000")] {
        let parameters = [("user", user), ("database", database)];
        let error = Raw::try_login(proxy.address(), &parameters).unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        let direct = Raw::try_login(server.address(), &parameters).unwrap_err();
        assert_eq!(error.get(b'M'), direct.get(b'M'));
    }
}

#[test]
fn the_first_authentication_entry_that_fits_decides() {
    let server = Postgres::start();
    let recorder = Recorder::start(server.address());
    let mut setup = Setup::open(recorder.address());
    setup.datasource_extra = "\x20   authentication:\n\
         \x20     - {method: reject, users: [postgres, \"md5*\"]}\n\
         \x20     - {method: relay, networks: [127.0.0.0/8], databases: demo}\n"
        .to_owned();
    let proxy = Portcullis::start(&setup);
    check_accepted(&login(proxy.port(), "support", "", "disable"), "support");
    check_refused(&login(proxy.port(), "md5user", "", "disable"), "no authentication entry admits");
    let elsewhere = psql(proxy.port(), "support", "other").args(["-c", "select 1"]).output();
    check_refused(&elsewhere.unwrap(), "no authentication entry admits user \"support\"");
    for rejected in [&b"md5user"[..], b"other"] {
        assert!(!contains(&recorder.to_server(), rejected), "a rejected login reached the server");
    }
}

#[test]
fn whoever_guesses_passwords_waits_and_nobody_else_does() {
    let server = Postgres::with_hba(Hba::Scram);
    let proxy = Portcullis::start(&Setup::open(server.address()));
    for _ in 0..6 {
        check_refused(
            &login(proxy.port(), "support", "wrong", "disable"),
            "password authentication failed",
        );
    }
    let refused = login(proxy.port(), "support", PASSWORD, "disable");
    check_refused(&refused, "too many failed logins");
    check_refused(&refused, "try again in");
    check_accepted(&login(proxy.port(), "analyst", PASSWORD, "disable"), "analyst");
    wait_until("the delay is over", SOON, || {
        login(proxy.port(), "support", PASSWORD, "disable").status.success()
    });
}
