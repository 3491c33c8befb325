//! Logins that end at the proxy, which logs in at the server with an account of its own.

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use crate::harness::{Portcullis, Setup, command, user_id};
use crate::pg::{Hba, PASSWORD, Postgres, check_accepted, check_refused, expect_success, psql};
use crate::pki::Authority;
use crate::raw::{Fields, Raw, frame, startup_packet};
use crate::recorder::{Recorder, contains};

fn login(port: u16, user: &str, password: &str) -> Output {
    psql(port, user, "demo")
        .env("PGPASSWORD", password)
        .env("PGSSLMODE", "disable")
        .args(["-Atq", "-c", "select current_user"])
        .output()
        .unwrap()
}

/// What the server stores for a user.
fn verifier(server: &Postgres, user: &str) -> String {
    let sql = format!("select rolpassword from pg_authid where rolname = '{user}'");
    server.admin(&sql).trim().to_owned()
}

/// A proxy whose clients prove themselves by SCRAM against `identities.yaml`, and which logs in as
/// `app` for them.
fn scram_setup(server: &Postgres, upstream: std::net::SocketAddr) -> (Setup, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let mut setup = Setup::open(upstream);
    setup.datasource_extra = format!(
        "\x20   authentication: [{{method: scram-sha-256}}]\n\
         \x20   upstream_login: [{{user: app, password_file: \"{}\"}}]\n",
        file.display()
    );
    let verifier = verifier(server, "support");
    setup.rules.push((
        "identities.yaml".into(),
        format!("version: 1\nidentities:\n  - {{user: support, roles: [support], login: {{scram: \"{verifier}\"}}}}\n"),
    ));
    (setup, folder)
}

#[test]
fn scram_ends_at_the_proxy_and_another_account_serves() {
    let server = Postgres::with_hba(Hba::Scram);
    let recorder = Recorder::start(server.address());
    let (setup, files) = scram_setup(&server, recorder.address());
    let proxy = Portcullis::start(&setup);
    // Nobody who has not proved anything reaches the server.
    let wrong = "password authentication failed for user \"support\"";
    check_refused(&login(proxy.port(), "support", "wrong"), wrong);
    let unknown = "password authentication failed for user \"nobody\"";
    check_refused(&login(proxy.port(), "nobody", PASSWORD), unknown);
    assert!(recorder.to_server().is_empty(), "a client without a proof reached the server");
    check_accepted(&login(proxy.port(), "support", PASSWORD), "app");
    assert!(!contains(&recorder.to_server(), b"support"), "the client's name reached the server");
    // A password of ours is read when it is needed.
    server.admin("set password_encryption = 'scram-sha-256'; alter role app password 'new'");
    let neutral = login(proxy.port(), "support", PASSWORD);
    check_refused(&neutral, "the proxy could not log in to the database server");
    assert!(!String::from_utf8_lossy(&neutral.stderr).contains("\"app\""), "{neutral:?}");
    assert!(proxy.log().contains("the account of `upstream_login` was of no use"));
    assert!(proxy.log().contains("password authentication failed for user"), "the server's words");
    fs::write(files.path().join("app.password"), "new").unwrap();
    check_accepted(&login(proxy.port(), "support", PASSWORD), "app");
    let elsewhere = psql(proxy.port(), "support", "nowhere").env("PGPASSWORD", PASSWORD).output();
    check_refused(&elsewhere.unwrap(), "database \"nowhere\" does not exist");
    let trail = proxy.finish().join("\n");
    assert!(trail.contains("\"upstream_user\":\"app\""), "{trail}");
    assert!(trail.contains("the password is wrong, or no such user"), "{trail}");
    assert!(!trail.contains(PASSWORD));
}

#[test]
fn every_password_the_server_asks_for_can_be_given() {
    for (hba, account) in [(Hba::Md5, "md5user"), (Hba::Password, "app"), (Hba::Trust, "analyst")] {
        let server = Postgres::with_hba(hba);
        let (mut setup, _files) = scram_setup(&server, server.address());
        setup.datasource_extra =
            setup.datasource_extra.replace("user: app", &format!("user: {account}"));
        let proxy = Portcullis::start(&setup);
        check_accepted(&login(proxy.port(), "support", PASSWORD), account);
    }
}

/// The messages of a login with this proof, up to its error, with what is random left out.
fn conversation(proxy: &Portcullis, user: &str) -> Vec<(u8, usize, String)> {
    let mut raw = Raw::connect(proxy.address());
    raw.send_bytes(&startup_packet(&[("user", user), ("database", "demo")]));
    let mut heard = Vec::new();
    let first = b"n,,n=,r=abcdefghijklmnopqrstuvwx";
    let opening =
        [&b"SCRAM-SHA-256\0"[..], &u32::try_from(first.len()).unwrap().to_be_bytes(), first]
            .concat();
    let mut answers = 0;
    while let Some(message) = raw.read() {
        let text = match message.tag {
            b'E' => {
                let fields = Fields::parse(&message.body);
                format!("{} {}", fields.get(b'C'), fields.get(b'M').replace(user, "USER"))
            }
            _ => String::new(),
        };
        heard.push((
            message.tag,
            message.body.len() - text.matches("USER").count() * user.len(),
            text,
        ));
        match (message.tag, answers) {
            (b'R', 0) => raw.send_bytes(&frame(b'p', &opening)),
            (b'R', 1) => {
                let challenge = String::from_utf8(message.body[4..].to_vec()).unwrap();
                let nonce = challenge.split(',').next().unwrap().strip_prefix("r=").unwrap();
                let proof = "A".repeat(43);
                raw.send_bytes(&frame(b'p', format!("c=biws,r={nonce},p={proof}=").as_bytes()));
            }
            _ => {}
        }
        answers += 1;
    }
    heard
}

#[test]
fn a_user_that_does_not_exist_hears_what_a_wrong_password_hears() {
    let server = Postgres::with_hba(Hba::Scram);
    let (mut setup, _files) = scram_setup(&server, server.address());
    setup.rules.last_mut().unwrap().1 += &format!(
        "  - {{user: revoked, login: {{revoked: true, scram: \"{}\"}}}}\n",
        verifier(&server, "analyst")
    );
    setup.extra = "limits: {login_delay_max: 0s}\n".to_owned();
    let proxy = Portcullis::start(&setup);
    let known = conversation(&proxy, "support");
    assert_eq!(known.last().unwrap().2, "28P01 password authentication failed for user \"USER\"");
    assert_eq!(known.len(), 3, "{known:?}");
    for other in ["nobody", "revoked"] {
        assert_eq!(conversation(&proxy, other), known, "{other}");
    }
    // The salt of a user that does not exist stays the same, as a real one does.
    let salt = |user: &str| {
        let mut raw = Raw::connect(proxy.address());
        raw.send_bytes(&startup_packet(&[("user", user), ("database", "demo")]));
        raw.read().unwrap();
        let first = [&b"SCRAM-SHA-256\0\0\0\0\x0b"[..], b"n,,n=,r=abc"].concat();
        raw.send_bytes(&frame(b'p', &first));
        let challenge = String::from_utf8(raw.read().unwrap().body[4..].to_vec()).unwrap();
        challenge.split(',').nth(1).unwrap().to_owned()
    };
    assert_eq!(salt("nobody"), salt("nobody"));
    assert_ne!(salt("nobody"), salt("nobody2"));
    check_refused(
        &login(proxy.port(), "revoked", PASSWORD),
        "password authentication failed for user \"revoked\"",
    );
    let trail = proxy.finish().join("\n");
    assert!(trail.contains("the identity is revoked"), "{trail}");
}

#[test]
fn nothing_but_an_exact_exchange_is_answered() {
    let server = Postgres::with_hba(Hba::Scram);
    let recorder = Recorder::start(server.address());
    let (mut setup, _files) = scram_setup(&server, recorder.address());
    setup.extra = "limits: {login_delay_max: 0s}\n".to_owned();
    let proxy = Portcullis::start(&setup);
    let initial = |mechanism: &str, data: &str| {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        frame(b'p', &[mechanism.as_bytes(), b"\0", &length, data.as_bytes()].concat())
    };
    let mut long = initial("SCRAM-SHA-256", "n,,n=,r=abc");
    long.extend(b"trailing");
    for (bytes, code) in [
        (initial("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=abc"), "08P01"),
        (initial("SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=abc"), "08P01"),
        (initial("SCRAM-SHA-256", "n,a=postgres,n=,r=abc"), "0A000"),
        (initial("SCRAM-SHA-256", "n,,m=x,n=,r=abc"), "0A000"),
        (initial("SCRAM-SHA-256", &format!("n,,n=,r={}", "a".repeat(2000))), "08P01"),
        (frame(b'p', b"SCRAM-SHA-256\0\0\0\0\x63n,,n=,r=abc"), "08P01"),
        (frame(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xff"), "08P01"),
        (frame(b'p', b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abcX"), "08P01"),
        (frame(b'p', b"password\0"), "08P01"),
        (frame(b'Q', b"select 1\0"), "08P01"),
        (vec![b'p', 0x7f, 0xff, 0xff, 0xff], "08P01"),
        (vec![b'p', 0xff, 0xff, 0xff, 0xff], "08P01"),
    ] {
        let mut raw = Raw::connect(proxy.address());
        raw.send_bytes(&startup_packet(&[("user", "support"), ("database", "demo")]));
        assert_eq!(raw.read().unwrap().tag, b'R');
        raw.send_bytes(&bytes);
        let error = raw.read().unwrap();
        assert_eq!(error.tag, b'E', "{bytes:?}");
        assert_eq!(Fields::parse(&error.body).code(), code, "{}", bytes.escape_ascii());
        assert!(raw.read().is_none());
    }
    assert!(recorder.to_server().is_empty(), "a hostile client reached the server");
    check_accepted(&login(proxy.port(), "support", PASSWORD), "app");
}

#[test]
fn the_servers_verifiers_serve_without_a_password_of_ours() {
    let server = Postgres::with_hba(Hba::Scram);
    let mut setup = Setup::open(server.address());
    setup.datasource_extra =
        "\x20   authentication: [{method: scram-sha-256, verifiers: auth_query}]\n\
         \x20   auth_query: {user: postgres}\n"
            .to_owned();
    setup.extra = "limits: {login_delay_max: 0s}\n".to_owned();
    let proxy = Portcullis::start(&setup);
    check_accepted(&login(proxy.port(), "support", PASSWORD), "support");
    let wrong = |user: &str, password: &str| {
        let message = format!("password authentication failed for user \"{user}\"");
        check_refused(&login(proxy.port(), user, password), &message);
    };
    wrong("support", "wrong");
    wrong("nobody", PASSWORD);
    wrong("md5user", PASSWORD);
    wrong("x' or 'a'='a", PASSWORD);
    server.admin("set password_encryption = 'scram-sha-256'; alter role support password 'new'");
    let found = login(proxy.port(), "support", "new");
    if !found.status.success() {
        check_accepted(&login(proxy.port(), "support", "new"), "support");
    }
    server.admin("alter role analyst valid until '2020-01-01'; alter role app nologin");
    wrong("analyst", PASSWORD);
    wrong("app", PASSWORD);
}

#[test]
fn an_identity_is_let_in_from_its_networks_only() {
    let server = Postgres::with_hba(Hba::Scram);
    let mut setup = Setup::open(server.address());
    setup.rules.push((
        "identities.yaml".into(),
        "version: 1\nidentities:\n  - {user: support, login: {networks: [192.0.2.0/24]}}\n  \
         - {user: analyst, login: {not_after: 2020-01-01}}\n  \
         - {user: app, login: {networks: [127.0.0.1], not_after: 2999-01-01}}\n"
            .into(),
    ));
    let proxy = Portcullis::start(&setup);
    check_refused(&login(proxy.port(), "support", PASSWORD), "user \"support\" is not admitted");
    check_refused(&login(proxy.port(), "analyst", PASSWORD), "user \"analyst\" is not admitted");
    check_accepted(&login(proxy.port(), "app", PASSWORD), "app");
    let trail = proxy.finish().join("\n");
    for why in ["outside of the identity's networks", "not_after has passed"] {
        assert!(trail.contains(why), "{trail}");
    }
}

#[test]
fn the_owner_of_a_process_on_this_machine_is_proof() {
    let server = Postgres::with_hba(Hba::Trust);
    let mut setup = Setup::open(server.address());
    setup.listen = "[{unix: \"{folder}/.s.PGSQL.{port}\"}, \"127.0.0.1:{port}\"]".to_owned();
    setup.datasource_extra = format!(
        "\x20   authentication:\n\
         \x20     - {{method: peer, map: [{{name: \"uid:{}\", users: [support]}}]}}\n\
         \x20   upstream_login: [{{users: [support]}}]\n",
        user_id()
    );
    let proxy = Portcullis::start(&setup);
    let local = |user: &str| {
        let mut command = psql(proxy.port(), user, "demo");
        command.env("PGHOST", proxy.folder()).args(["-Atq", "-h"]).arg(proxy.folder());
        command.args(["-c", "select current_user"]).output().unwrap()
    };
    check_accepted(&local("support"), "support");
    check_refused(&local("app"), "Peer authentication failed for user \"app\"");
    let remote = login(proxy.port(), "support", "");
    check_refused(&remote, "Peer authentication failed for user \"support\"");
}

#[test]
fn channel_binding_holds_over_tls() {
    let server = Postgres::with_hba(Hba::Scram);
    let (mut setup, folder) = scram_setup(&server, server.address());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    setup.datasource_extra += &format!(
        "\x20   tls: {{mode: allowed, certificate: \"{}\", key: \"{}\"}}\n",
        certificate.display(),
        key.display()
    );
    let run = |setup: &Setup, sslmode: &str, binding: &str| {
        let proxy = Portcullis::start(setup);
        let output = psql(proxy.port(), "support", "demo")
            .env("PGPASSWORD", PASSWORD)
            .env("PGSSLMODE", sslmode)
            .env("PGCHANNELBINDING", binding)
            .args(["-Atq", "-c", "select current_user"])
            .output()
            .unwrap();
        (output, proxy.finish().join("\n"))
    };
    let (output, trail) = run(&setup, "require", "require");
    check_accepted(&output, "app");
    assert!(trail.contains("SCRAM-SHA-256-PLUS"), "{trail}");
    let (output, trail) = run(&setup, "require", "disable");
    check_accepted(&output, "app");
    assert!(!trail.contains("SCRAM-SHA-256-PLUS"), "{trail}");
    setup.datasource_extra = setup
        .datasource_extra
        .replace("scram-sha-256}", "scram-sha-256, channel_binding: require}");
    check_accepted(&run(&setup, "require", "prefer").0, "app");
    check_refused(&run(&setup, "require", "disable").0, "none of the server's SASL");
    check_refused(&run(&setup, "disable", "disable").0, "this login needs TLS");
}

#[test]
fn a_verifier_made_by_the_command_line_serves() {
    let server = Postgres::with_hba(Hba::Trust);
    let mut child = command()
        .args(["auth", "scram-verifier"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all("pässword\n".as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let made = expect_success(&output, "scram-verifier").trim().to_owned();
    assert!(made.starts_with("SCRAM-SHA-256$4096:"), "{made}");
    // The server takes it for what it stores itself.
    server.admin(&format!("alter role analyst password '{made}'"));
    assert_eq!(verifier(&server, "analyst"), made);
    let (mut setup, _files) = scram_setup(&server, server.address());
    setup.rules.last_mut().unwrap().1 +=
        &format!("  - {{user: analyst, login: {{scram: \"{made}\"}}}}\n");
    let proxy = Portcullis::start(&setup);
    check_accepted(&login(proxy.port(), "analyst", "pässword"), "app");
    let wrong = "password authentication failed for user \"analyst\"";
    check_refused(&login(proxy.port(), "analyst", "password"), wrong);
}

#[test]
fn a_certificate_is_proof() {
    let server = Postgres::with_hba(Hba::Trust);
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    ours.write(folder.path(), "ca");
    ours.server(["localhost"]).write(folder.path(), "server");
    let mut setup = Setup::open(server.address());
    let path = folder.path().display();
    let (tls, accounts) = (
        format!(
            "\x20   tls: {{mode: allowed, certificate: \"{path}/server.crt\", \
             key: \"{path}/server.key\", client_ca: \"{path}/ca.crt\"}}\n"
        ),
        "\x20   upstream_login: [{user: app}]\n",
    );
    let run = |proxy: &Portcullis, user: &str, sslmode: &str, name: Option<&str>| {
        let mut command = psql(proxy.port(), user, "demo");
        command.env("PGSSLMODE", sslmode).args(["-Atq", "-c", "select current_user"]);
        command.env("PGSSLCERT", "/nowhere").env("PGSSLKEY", "/nowhere");
        if let Some(name) = name {
            let (certificate, key) = ours.client(name).write(folder.path(), name);
            command.env("PGSSLCERT", certificate).env("PGSSLKEY", key);
        }
        command.output().unwrap()
    };
    setup.datasource_extra =
        format!("{tls}{accounts}\x20   authentication: [{{method: certificate}}]\n");
    let proxy = Portcullis::start(&setup);
    let refused = "certificate authentication failed for user \"support\"";
    check_accepted(&run(&proxy, "support", "require", Some("support")), "app");
    check_refused(&run(&proxy, "support", "require", Some("analyst")), refused);
    check_refused(&run(&proxy, "support", "require", None), refused);
    check_refused(&run(&proxy, "support", "disable", None), refused);
    let trail = proxy.finish().join("\n");
    assert!(trail.contains("\"auth_subject\":\"sha256:"), "{trail}");
    // A map in place of the names' being the same; a certificate besides a password.
    setup.datasource_extra = format!(
        "{tls}{accounts}\x20   authentication:\n\
         \x20     - {{method: certificate, users: support, map: [{{name: \"cn:web-*\", users: support}}]}}\n\
         \x20     - {{method: peer, client_certificate: required}}\n"
    );
    let proxy = Portcullis::start(&setup);
    check_accepted(&run(&proxy, "support", "require", Some("web-1")), "app");
    check_refused(&run(&proxy, "support", "require", Some("support")), refused);
    let needed = "connection requires a valid client certificate";
    check_refused(&run(&proxy, "analyst", "require", None), needed);
    let judged = "Peer authentication failed for user \"analyst\"";
    check_refused(&run(&proxy, "analyst", "require", Some("web-1")), judged);
}
