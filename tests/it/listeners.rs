//! Who may come in, over what, and what happens to those who may not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::harness::{Portcullis, SOON, Setup, command, free_port, wait_until};
use crate::pg::{Hba, Postgres, expect_success, psql};
use crate::raw::{Raw, cancel, query, startup_packet};

const LOGIN: [(&str, &str); 2] = [("user", "app"), ("database", "demo")];
const REJECTED: &str = "portcullis_client_connections_rejected_total";

#[test]
fn a_listener_admits_its_networks_only() {
    let server = Postgres::start();
    let mut setup = Setup::open(server.address());
    setup.listen = "{address: \"127.0.0.1:{port}\", allow: [127.0.0.2, 127.0.1.0/24]}".into();
    let proxy = Portcullis::start(&setup);
    for inside in [[127, 0, 0, 2], [127, 0, 1, 77]] {
        let raw = Raw::connect_from(inside, proxy.address()).log_in(&LOGIN);
        assert_eq!(raw.unwrap().query("select 1").value(), "1");
    }
    // Refused before a byte is read, with an error that any client shows.
    let mut silent = Raw::connect_from([127, 0, 2, 1], proxy.address());
    let reply = silent.reply();
    assert_eq!((reply.code(), reply.sequence.as_str()), ("28000", "E"));
    let error = Raw::connect(proxy.address()).log_in(&LOGIN).unwrap_err();
    assert_eq!(error.code(), "28000");
    // While it asks for TLS, libpq trusts no text and says only that there was an error.
    for (mode, expected) in [
        ("disable", "does not admit clients from your address"),
        ("prefer", "server sent an error response during SSL exchange"),
    ] {
        let output = psql(proxy.port(), "app", "demo").env("PGSSLMODE", mode).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(expected), "{mode}: {said}");
    }
    assert!(proxy.metric(REJECTED) > 2.5);
    // Not one of them reached the server.
    let lines = proxy.finish();
    let failed: Vec<_> = lines.iter().filter(|line| line.contains("login.failed")).collect();
    assert!(failed.len() >= 4, "{failed:#?}");
    assert!(failed.iter().any(|line| line.contains("127.0.2.1") && line.contains("28000")));
}

#[test]
fn unix_sockets_serve_psql_and_carry_their_mode() {
    let server = Postgres::with_hba(Hba::Scram);
    let mut setup = Setup::open(server.address());
    setup.listen = "[{unix: \"{folder}/.s.PGSQL.{port}\", mode: \"0600\"}, \
                    \"127.0.0.1:{port}\"]"
        .into();
    let proxy = Portcullis::start(&setup);
    let socket = proxy.folder().join(format!(".s.PGSQL.{}", proxy.port()));
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let folder = proxy.folder().to_str().unwrap().to_owned();
    let mut local = psql(proxy.port(), "app", "demo");
    local.args(["-h", &folder, "-Atqc", "select 1"]);
    assert_eq!(expect_success(&local.output().unwrap(), "psql over a Unix socket").trim(), "1");
    // Large results go through as over TCP.
    let mut large = psql(proxy.port(), "app", "demo");
    large.args(["-h", &folder, "-Atqc", "select repeat('x', 3000000)"]);
    assert_eq!(expect_success(&large.output().unwrap(), "3 MB").trim().len(), 3_000_000);
    let lines = proxy.finish();
    assert!(
        lines.iter().any(|line| line.contains("session.opened") && line.contains("local socket"))
    );
    assert!(!socket.exists(), "removed at the end");
}

#[test]
fn a_left_behind_socket_is_replaced_and_a_living_one_is_not() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let mut setup = Setup::open(server.address());
    setup.listen = format!("[{{unix: \"{}\"}}, \"127.0.0.1:{{port}}\"]", socket.to_str().unwrap());
    let mut killed = Portcullis::start(&setup);
    killed.signal("KILL");
    killed.wait(SOON).expect("killed");
    assert!(socket.exists(), "a killed process removes nothing");
    let living = Portcullis::start(&setup);
    // A second process finds the first one answering and leaves its socket alone.
    let other = tempfile::tempdir().unwrap();
    let config = setup.write(other.path(), free_port(), free_port());
    let output = command().args(["run", "--config"]).arg(&config).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("another process listens there"), "{said}");
    let mut local = Command::new("sh");
    local.args(["-c", "test -S \"$0\""]).arg(&socket);
    assert!(local.status().unwrap().success());
    wait_until("the first one still serves", SOON, || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    drop(living);
}

#[test]
fn proxies_are_believed_where_they_are_trusted_and_nowhere_else() {
    const TRUSTED: [u8; 4] = [127, 0, 0, 9];
    let server = Postgres::start();
    let mut setup = Setup::open(server.address());
    setup.listen = "{address: \"127.0.0.1:{port}\", proxy_protocol_from: 127.0.0.9, \
                    allow: [203.0.113.0/24, 127.0.0.1]}"
        .into();
    setup.extra = "limits: {login_timeout: 2s}\n".into();
    let proxy = Portcullis::start(&setup);
    let announced = |source, header: &[u8]| {
        let mut raw = Raw::connect_from(source, proxy.address());
        raw.send_bytes(header);
        raw
    };
    let v1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 5432\r\n";
    let v2 = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..],
        &[203, 0, 113, 8, 192, 0, 2, 1, 1, 2, 3, 4][..],
    ];
    for header in [&v1[..], &v2.concat()] {
        let mut raw = announced(TRUSTED, header).log_in(&LOGIN).unwrap();
        assert_eq!(raw.query("select 1").value(), "1");
        // In one segment with what follows it.
        let mut asking = announced(TRUSTED, &[header, &SSL_REQUEST].concat());
        assert_eq!(asking.read_byte(), Some(b'N'));
    }
    // A missing header, a health check's, a client that is not admitted: none gets in.
    let startup = startup_packet(&LOGIN);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let other = b"PROXY TCP4 198.51.100.1 192.0.2.1 40000 5432\r\n";
    let unknown = b"PROXY UNKNOWN\r\n";
    for (first, code) in [
        (&startup[..], "08P01"),
        (b"PROXY TCP4 203.0.113.7\r\n", "08P01"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 1", "08P01"),
        (local, "28000"),
        (unknown, "28000"),
        (other, "28000"),
    ] {
        let reply = announced(TRUSTED, first).reply();
        assert_eq!(reply.code(), code, "{}", first.escape_ascii());
    }
    // Others cannot say who they are: their header is no start-up packet.
    for header in [&v1[..], &v2.concat()] {
        let reply = announced([127, 0, 0, 1], &[header, &startup].concat()).reply();
        assert!(!reply.sequence.contains(['R', 'Z']), "{}", reply.sequence);
    }
    assert!(Raw::connect(proxy.address()).log_in(&LOGIN).is_ok(), "as itself it may");
    let lines = proxy.finish();
    let opened: Vec<_> = lines.iter().filter(|line| line.contains("session.opened")).collect();
    assert!(opened[0].contains("203.0.113.7") && opened[1].contains("203.0.113.8"), "{opened:#?}");
    assert!(
        lines.iter().any(|line| line.contains("login.failed") && line.contains("198.51.100.1"))
    );
}

#[test]
fn whoever_only_connects_takes_nobodys_place() {
    let server = Postgres::start();
    let mut setup = Setup::open(server.address());
    setup.extra =
        "limits: {clients: 2, logins: 8, logins_per_address: 3, login_timeout: 20s}\n".into();
    let proxy = Portcullis::start(&setup);
    let hog = [127, 0, 0, 66];
    let silent: Vec<Raw> = (0..3).map(|_| Raw::connect_from(hog, proxy.address())).collect();
    wait_until("they are counted", SOON, || proxy.metric(CONNECTIONS) > 2.5);
    let reply = Raw::connect_from(hog, proxy.address()).reply();
    assert_eq!(reply.code(), "53300");
    // Others log in beside them, as many as there are places; the next is told so.
    let mut first = Raw::login(proxy.address(), "app");
    let second = Raw::login(proxy.address(), "app");
    let refused = Raw::try_login(proxy.address(), &LOGIN).unwrap_err();
    assert_eq!(refused.code(), "53300");
    // A cancel needs no client's place.
    first.send_bytes(&query("select pg_sleep(20)"));
    server.wait_for_statement("pg_sleep(20)");
    cancel(proxy.address(), first.key);
    assert_eq!(first.reply().code(), "57014");
    drop(second);
    wait_until("its place is free", SOON, || Raw::try_login(proxy.address(), &LOGIN).is_ok());
    drop(silent);
    wait_until("so are those of the hog", SOON, || {
        let mut raw = Raw::connect_from(hog, proxy.address());
        raw.send_bytes(&SSL_REQUEST);
        raw.read_byte() == Some(b'N')
    });
}

#[test]
fn the_admin_port_answers_while_clients_have_every_descriptor() {
    let server = Postgres::start();
    let mut setup = Setup::open(server.address());
    setup.descriptors = Some(160);
    setup.extra = "limits: {login_timeout: 60s}\n".into();
    let proxy = Portcullis::start(&setup);
    assert!(proxy.log().contains("which are lowered"), "{}", proxy.log());
    let mut inside: Vec<Raw> = Vec::new();
    while let Ok(raw) = Raw::try_login(proxy.address(), &LOGIN) {
        inside.push(raw);
        assert!(inside.len() < 160);
    }
    assert!(inside.len() > 10, "{}", inside.len());
    // More than all the descriptors, from everywhere: they wait in the system's queue.
    let silent: Vec<Raw> =
        (1..=170).map(|last| Raw::connect_from([127, 0, 9, last], proxy.address())).collect();
    for _ in 0..5 {
        assert_eq!(proxy.admin("GET", "/readyz").0, 200);
        for raw in &mut inside {
            assert_eq!(raw.query("select 1").value(), "1");
        }
    }
    assert!(!proxy.log().contains("accept failed"), "{}", proxy.log());
    drop((silent, inside));
    wait_until("clients get in again", SOON, || Raw::try_login(proxy.address(), &LOGIN).is_ok());
}

const CONNECTIONS: &str = "portcullis_client_connections";

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
