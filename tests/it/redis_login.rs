//! Logins of Redis clients that end at the proxy, and those that are passed on.

use std::fs;

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::recorder::{Recorder, contains};
use crate::redis::{RawRedis, Redis, Reply};
use crate::redis_fixture::{ACCOUNT_PASSWORD, Logins, secured, server_with_account, verifier};
use crate::tokens::{Signer, check_silence, new_key};

const PASSWORD: &str = "the-password-of-support";

fn password_login(upstream: std::net::SocketAddr) -> Logins {
    let identities =
        format!("  - {{user: support, login: {{scram: \"{}\"}}}}\n", verifier(PASSWORD));
    Logins::new(upstream, "{method: password}", &identities)
}

#[track_caller]
fn refused(client: &mut RawRedis, user: &str, password: &str) {
    let answer = client.command(&["AUTH", user, password]);
    assert!(answer.error().starts_with("WRONGPASS "), "{answer:?}");
}

#[test]
fn a_password_ends_at_the_proxy_and_another_account_serves() {
    let server = server_with_account();
    let recorder = Recorder::start(server.address());
    let Logins { certified, setup } = password_login(recorder.address());
    let proxy = Portcullis::start(&setup);
    let mut client = certified.connect(proxy.address());
    assert!(client.command(&["GET", "k"]).error().starts_with("NOAUTH "));
    refused(&mut client, "support", "wrong-one");
    refused(&mut client, "nobody", PASSWORD);
    let hello = client.command(&["HELLO", "3", "AUTH", "support", "wrong-two"]);
    assert!(hello.error().starts_with("WRONGPASS "), "{hello:?}");
    assert!(recorder.to_server().is_empty(), "a client without a proof reached the server");
    assert_eq!(client.command(&["AUTH", "support", PASSWORD]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "v"]), Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::text("v"));
    let mut newer = certified.connect(proxy.address());
    let Reply::Map(_) = newer.command(&["HELLO", "3", "AUTH", "support", PASSWORD]) else {
        panic!("no greeting")
    };
    assert_eq!(newer.command(&["GET", "none"]), Reply::Null);
    let sent = recorder.to_server();
    assert!(contains(&sent, ACCOUNT_PASSWORD.as_bytes()), "the account's login");
    assert!(!contains(&sent, b"support"), "the client's name reached the server");
    drop((client, newer));
    let trail = wait_for_ends(&proxy, 2);
    assert!(trail.contains("\"upstream_user\":\"app\""), "{trail}");
    check_silence(proxy, &[PASSWORD, ACCOUNT_PASSWORD, "wrong-one", "wrong-two"]);
}

/// The audit trail once so many sessions have ended.
fn wait_for_ends(proxy: &Portcullis, sessions: usize) -> String {
    let closed = || {
        let lines = proxy.audit_lines();
        lines.iter().filter(|line| line.contains("session.closed")).count()
    };
    wait_until("the sessions have ended", SOON, || closed() >= sessions);
    proxy.audit_lines().join("\n")
}

#[test]
fn a_password_is_not_taken_in_plain_text() {
    let server = server_with_account();
    let recorder = Recorder::start(server.address());
    let proxy = Portcullis::start(&password_login(recorder.address()).setup);
    let mut client = RawRedis::connect(proxy.address());
    let answer = client.command(&["AUTH", "support", PASSWORD]);
    assert!(answer.error().contains("TLS"), "{answer:?}");
    assert!(recorder.to_server().is_empty());
}

#[test]
fn guesses_are_slowed_down() {
    let server = server_with_account();
    let Logins { certified, mut setup } = password_login(server.address());
    setup.extra = "limits: {login_failures: 3}\n".into();
    let proxy = Portcullis::start(&setup);
    let try_in =
        |password: &str| certified.connect(proxy.address()).command(&["AUTH", "support", password]);
    for wrong in ["wrong-one", "wrong-two", "wrong-three", "wrong-four"] {
        assert!(try_in(wrong).error().starts_with("WRONGPASS "));
    }
    let slowed = try_in(PASSWORD);
    assert!(slowed.error().contains("too many failed logins"), "{slowed:?}");
    wait_until("it is over", SOON, || try_in(PASSWORD) == Reply::ok());
}

#[test]
fn a_redis_client_brings_an_api_key() {
    let server = server_with_account();
    let (key, lines) = new_key("batch");
    let (other, _) = new_key("batch");
    let Logins { certified, setup } = Logins::new(server.address(), "{method: api-key}", &lines);
    let proxy = Portcullis::start(&setup);
    let mut client = certified.connect(proxy.address());
    refused(&mut client, "batch", &other);
    refused(&mut client, "other", &key);
    assert_eq!(client.command(&["AUTH", "batch", &key]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "v"]), Reply::ok());
    let revoked = lines.replace('}', ", revoked: true}");
    proxy.write_rules("identities.yaml", &format!("version: 1\nidentities:\n{revoked}"));
    // The session does not outlive its key.
    client.closed();
    check_silence(proxy, &[&key, &other]);
}

#[test]
fn a_redis_client_brings_a_token() {
    let server = server_with_account();
    let signer = Signer::new("a");
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.json");
    fs::write(&keys, signer.published()).unwrap();
    let entry = format!(
        "{{method: jwt, issuer: 'https://id.example', audience: demo, algorithms: [EdDSA], \
         jwks_file: \"{}\"}}",
        keys.display()
    );
    let Logins { certified, setup } =
        Logins::new(server.address(), &entry, "  - {user: somebody}\n");
    let proxy = Portcullis::start(&setup);
    let mut client = certified.connect(proxy.address());
    let (token, old) = (signer.token("ann", "acme", 60), signer.token("ann", "acme", -60));
    refused(&mut client, "ann", &old);
    refused(&mut client, "bob", &token);
    let Reply::Map(_) = client.command(&["HELLO", "3", "AUTH", "ann", &token]) else {
        panic!("no greeting")
    };
    assert_eq!(client.command(&["PING"]), Reply::Simple("PONG".into()));
    check_silence(proxy, &[&token, &old]);
}

#[test]
fn a_relayed_login_is_the_servers_word_and_counts_as_a_guess() {
    let server = Redis::with_settings(&["user app on >pw ~* &* +@all", "user default off"]);
    let recorder = Recorder::start(server.address());
    let mut setup = Setup::redis(recorder.address());
    setup.extra = "limits: {login_failures: 2}\n".into();
    let proxy = Portcullis::start(&setup);
    let mut client = RawRedis::connect(proxy.address());
    assert_eq!(client.command(&["AUTH", "app", "pw"]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "v"]), Reply::ok());
    for _ in 0..3 {
        let answer = RawRedis::connect(proxy.address()).command(&["AUTH", "other", "guess"]);
        assert!(answer.error().starts_with("WRONGPASS "), "{answer:?}");
    }
    recorder.clear();
    let slowed = RawRedis::connect(proxy.address()).command(&["AUTH", "other", "guess"]);
    assert!(slowed.error().contains("too many failed logins"), "{slowed:?}");
    assert!(!contains(&recorder.to_server(), b"guess"), "a guess reached the server");
    let trail = proxy.finish().join("\n");
    assert!(trail.contains("login.failed") && !trail.contains("guess"), "{trail}");
}

#[test]
fn a_certificate_or_the_system_says_who_a_redis_client_may_be() {
    let server = server_with_account();
    let logins = Logins::new(
        server.address(),
        "{method: peer, transport: local, map: [{name: \"uid:*\", users: [here]}]}, \
         {method: certificate}",
        "  - {user: somebody}\n",
    );
    let mut setup = logins.setup;
    setup.listen = "[{unix: \"{folder}/s\"}, \"127.0.0.1:{port}\"]".into();
    setup.datasource_extra = setup.datasource_extra.replace(
        &logins.certified.tls("allowed", ""),
        &logins.certified.tls("mutual", ", client_ca: {ca}"),
    );
    let proxy = Portcullis::start(&setup);
    let own = logins.certified.authority.client("ann");
    let config = logins.certified.client(Some(&own), &[]);
    let mut client = RawRedis::over(secured(proxy.address(), config));
    assert!(client.command(&["PING"]).error().starts_with("NOAUTH "));
    refused(&mut client, "bob", "any");
    assert_eq!(client.command(&["AUTH", "ann", "any"]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "v"]), Reply::ok());
    let mut local = RawRedis::connect_unix(&proxy.folder().join("s"));
    refused(&mut local, "ann", "any");
    assert_eq!(local.command(&["AUTH", "here", "any"]), Reply::ok());
    assert_eq!(local.command(&["GET", "k"]), Reply::text("v"));
    drop((client, local));
    let trail = wait_for_ends(&proxy, 2);
    assert!(trail.contains("certificate") && trail.contains("peer"), "{trail}");
}

#[test]
fn a_login_anew_has_its_own_time() {
    let server = server_with_account();
    let Logins { certified, mut setup } = password_login(server.address());
    setup.extra = "limits: {login_timeout: 1s}\n".into();
    let proxy = Portcullis::start(&setup);
    let mut client = certified.connect(proxy.address());
    assert_eq!(client.command(&["AUTH", "support", PASSWORD]), Reply::ok());
    let mut left = certified.connect(proxy.address());
    assert_eq!(left.command(&["AUTH", "support", PASSWORD]), Reply::ok());
    // Silence until its time is over: by then that of the first login is long over for both.
    RawRedis::connect(proxy.address()).closed();
    assert_eq!(client.command(&["AUTH", "support", PASSWORD]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "v"]), Reply::ok());
    refused(&mut client, "support", "wrong");
    assert_eq!(client.command(&["GET", "k"]), Reply::text("v"));
    // Who gives its login back has as long as at first.
    assert_eq!(left.command(&["RESET"]), Reply::Simple("RESET".into()));
    left.closed();
    assert_eq!(client.command(&["GET", "k"]), Reply::text("v"));
}

#[test]
fn an_account_that_is_of_no_use_is_told_to_nobody_outside() {
    let server = Redis::with_settings(&["user app on >another ~* &* +@all", "user default off"]);
    let Logins { certified, setup } = password_login(server.address());
    let proxy = Portcullis::start(&setup);
    let answer = certified.connect(proxy.address()).command(&["AUTH", "support", PASSWORD]);
    let text = answer.error();
    assert!(!text.contains("app") && !text.starts_with("WRONGPASS"), "{text}");
    wait_until("the log says why", SOON, || {
        proxy.log().contains("the account of `upstream_login` was of no use")
    });
}

#[test]
fn each_identity_gets_its_account_at_the_server() {
    let server = Redis::with_settings(&[
        "user default off",
        "user reader on >r ~* &* +@read +@connection",
        "user writer on >w ~* &* +@all",
    ]);
    let mut logins = password_login(server.address());
    let folder = logins.certified.folder().to_owned();
    for (name, password) in [("reader", "r"), ("writer", "w")] {
        fs::write(folder.join(name), password).unwrap();
    }
    logins.setup.datasource_extra = logins.certified.tls("required", "")
        + &format!(
            "\x20   authentication: [{{method: password}}]\n\
             \x20   upstream_login:\n\
             \x20     - {{users: support, user: reader, password_file: \"{0}/reader\"}}\n\
             \x20     - {{user: writer, password_file: \"{0}/writer\"}}\n",
            folder.display()
        );
    let both = format!(
        "version: 1\nidentities:\n\
         \x20 - {{user: support, login: {{scram: \"{0}\"}}}}\n\
         \x20 - {{user: app, login: {{scram: \"{0}\"}}}}\n",
        verifier(PASSWORD)
    );
    logins.setup.rules.retain(|(name, _)| name != "identities.yaml");
    logins.setup.rules.push(("identities.yaml".into(), both));
    let proxy = Portcullis::start(&logins.setup);
    let login = |user: &str| {
        let mut client = logins.certified.connect(proxy.address());
        assert_eq!(client.command(&["AUTH", user, PASSWORD]), Reply::ok());
        client
    };
    assert_eq!(login("app").command(&["SET", "k", "v"]), Reply::ok());
    let mut support = login("support");
    assert_eq!(support.command(&["GET", "k"]), Reply::text("v"));
    assert!(support.command(&["SET", "k", "w"]).error().starts_with("NOPERM "));
    // Who becomes somebody else becomes it at the server, too.
    assert_eq!(support.command(&["AUTH", "app", PASSWORD]), Reply::ok());
    assert_eq!(support.command(&["SET", "k", "w"]), Reply::ok());
    let users: Vec<_> = crate::operator::sessions(&proxy, "").into_iter().collect();
    assert!(users.iter().any(|one| one["user"] == "app"), "{users:?}");
}
