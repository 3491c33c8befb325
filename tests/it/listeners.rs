//! Who may come in, over what, and what happens to those who may not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::harness::{Portcullis, SOON, Setup, command, free_port, wait_until};
use crate::pg::{Hba, Postgres, expect_success, psql};
use crate::raw::Raw;

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
