//! What is closed to everybody until a rule opens it: LOAD, function calls, replication.

use std::process::{Command, Stdio};

use crate::harness::{Portcullis, SOON, Setup, signal, wait_exit, wait_until};
use crate::pg::{Postgres, client_program, expect_success, psql, server_program};
use crate::raw::{Raw, frame};
use crate::recorder::{Recorder, contains};

const OPEN: &str = "version: 1
rules:
  - id: large-objects
    match: {users: [app]}
    allow: {statements: [function_call, load], functions: ['lo_*', loread, lowrite]}
  - id: backups
    match: {users: [postgres]}
    allow: {statements: [replication]}
";

#[test]
fn large_objects_work_where_a_rule_opens_their_functions() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::with_rules(server.address(), OPEN));
    let folder = tempfile::tempdir().unwrap();
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&there, &content).unwrap();
    let import = format!("\\lo_import '{}'", there.display());
    let export = format!("\\lo_export :LASTOID '{}'", back.display());
    let run = |user: &str| {
        let mut psql = psql(proxy.port(), user, "demo");
        psql.args(["-q", "-c", &import, "-c", &export, "-c", "\\lo_unlink :LASTOID"]);
        psql.output().unwrap()
    };
    expect_success(&run("app"), "large objects");
    assert_eq!(std::fs::read(&back).unwrap(), content);
    let refused = run("support");
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("`function_call` is not available unless a rule opens it"), "{text}");
    let trail = proxy.finish().join("\n");
    assert!(trail.contains("function call pg_catalog.lo_creat"), "the functions are recorded");
}

#[test]
fn a_function_no_rule_names_is_not_called() {
    let server = Postgres::start();
    let recorder = Recorder::start(server.address());
    let proxy = Portcullis::start(&Setup::with_rules(recorder.address(), OPEN));
    let mut raw = Raw::login(proxy.address(), "app");
    for (oid, code) in [(2624_u32, "42501"), (2078, "42501"), (4_000_000_000, "42883")] {
        recorder.clear();
        let body = [&oid.to_be_bytes()[..], b"\0\0\0\x01\0\0\0\x05xyzzy\0\0"].concat();
        raw.send_bytes(&frame(b'F', &body));
        let reply = raw.reply();
        assert_eq!((reply.code(), reply.sequence.as_str()), (code, "EZ"), "function {oid}");
        assert!(!contains(&recorder.to_server(), b"xyzzy"), "the call reached the server");
    }
    assert_eq!(raw.query("select 1").value(), "1");
}

#[test]
fn load_is_refused_until_a_rule_opens_it() {
    let server = Postgres::start();
    let recorder = Recorder::start(server.address());
    let proxy = Portcullis::start(&Setup::with_rules(recorder.address(), OPEN));
    let mut raw = Raw::login(proxy.address(), "support");
    recorder.clear();
    let reply = raw.query("load 'plpgsql'");
    assert_eq!(reply.code(), "42501");
    assert!(reply.errors[0].get(b'H').contains("naming `load`"), "{:?}", reply.errors);
    assert!(recorder.to_server().is_empty());
    // The server itself lets a superuser load it; here it is the server that says no.
    let mut opened = Raw::login(proxy.address(), "app");
    let reply = opened.query("load 'plpgsql'");
    assert!(reply.errors[0].get(b'M').contains("access to library"), "{:?}", reply.errors);
}

#[test]
fn replication_passes_where_a_rule_opens_it() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::with_rules(server.address(), OPEN));
    for database in ["replication=database dbname=demo", "replication=true"] {
        let psql = psql(proxy.port(), "postgres", database)
            .args(["-At", "-c", "IDENTIFY_SYSTEM"])
            .output()
            .unwrap();
        let system = expect_success(&psql, "IDENTIFY_SYSTEM");
        assert_eq!(system.split('|').count(), 4, "{system}");
    }
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("backup");
    let mut backup = client_program("pg_basebackup", proxy.port(), "postgres");
    backup.args(["--no-sync", "-c", "fast", "-X", "stream", "-D"]).arg(&target);
    expect_success(&backup.output().unwrap(), "pg_basebackup");
    let verify = Command::new(server_program("pg_verifybackup")).arg(&target).output().unwrap();
    expect_success(&verify, "pg_verifybackup");
    let trail = proxy.finish().join("\n");
    assert!(trail.contains("replication connection"), "it is recorded");
}

#[test]
fn the_write_ahead_log_flows_through() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::with_rules(server.address(), OPEN));
    let folder = tempfile::tempdir().unwrap();
    let mut receive = client_program("pg_receivewal", proxy.port(), "postgres");
    receive.arg("-D").arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut receive = receive.spawn().unwrap();
    wait_until("the log is received", SOON, || {
        let state = "select count(*) from pg_stat_replication where state = 'streaming'";
        server.admin(state).trim() == "1"
    });
    server.admin("create table walked as select generate_series(1, 1000) as n");
    server.admin("select pg_switch_wal()");
    wait_until("a segment is complete", SOON, || {
        let names = std::fs::read_dir(folder.path()).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.any(|name| name.len() == 24)
    });
    signal(receive.id(), "INT");
    assert!(wait_exit(&mut receive, SOON));
}
