//! Crashes and broken surroundings: the others carry on, nothing hangs, every message is clear.

use std::time::{Duration, Instant};

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::pg::{Postgres, expect_success, pgbench};
use crate::raw::{Raw, query};
use crate::recorder::Recorder;

const SLEEP: &str = "select pg_sleep(20)";

#[test]
fn a_crashed_server_ends_its_sessions_clearly_and_new_ones_work_again() {
    let mut server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    let mut busy = Raw::login(proxy.address(), "app");
    let mut idle = Raw::login(proxy.address(), "app");
    busy.send_bytes(&query(SLEEP));
    let began = Instant::now();
    server.crash();
    for raw in [&mut busy, &mut idle] {
        let reply = raw.reply();
        assert_eq!(reply.status, 0, "the connection ends");
        let code = reply.code().to_owned();
        assert!(code.is_empty() || code.starts_with("08") || code.starts_with("57P"), "{code}");
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    // Without a server: a clear FATAL at once, not a hang and not a silent close.
    let parameters = [("user", "app"), ("database", "demo")];
    let error = Raw::try_login(proxy.address(), &parameters).unwrap_err();
    assert!(error.code().starts_with("08"), "{error:?}");
    server.restart();
    assert_eq!(Raw::login(proxy.address(), "app").query("select 1").value(), "1");
    drop(proxy);
}

#[test]
fn a_killed_proxy_leaves_no_statement_behind() {
    let server = Postgres::start();
    let mut proxy = Portcullis::start(&Setup::open(server.address()));
    let mut raw = Raw::login(proxy.address(), "app");
    raw.query("begin");
    raw.query("delete from orders");
    raw.send_bytes(&query("select pg_sleep(2)"));
    proxy.signal("KILL");
    proxy.wait(SOON).expect("killed");
    assert_eq!(raw.reply().status, 0, "the client sees the end at once");
    // The server notices, rolls back and frees its backend.
    wait_until("the backend is gone", Duration::from_secs(30), || {
        server.admin("select count(*) from pg_stat_activity where usename = 'app'").trim() == "0"
    });
    assert_ne!(server.admin("select count(*) from orders").trim(), "0");
}

#[test]
fn a_client_that_dies_in_mid_statement_disturbs_nobody() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    let mut bystander = Raw::login(proxy.address(), "app");
    for _ in 0..20 {
        let mut dying = Raw::login(proxy.address(), "app");
        dying.send_bytes(&query("select repeat('x', 1000) from generate_series(1, 200000)"));
        drop(dying);
        assert_eq!(bystander.query("select 1").value(), "1");
    }
    wait_until("their server connections are gone", Duration::from_secs(30), || {
        let sql = "select count(*) from pg_stat_activity where usename = 'app'";
        server.admin(sql).trim() == "1"
    });
}

#[test]
fn a_killed_pgbench_leaves_the_others_running() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    let arguments = ["-n", "-S", "-c", "4", "-T", "3", "demo"];
    let survivor = pgbench(proxy.port(), "app").args(arguments).spawn().unwrap();
    let mut victim = pgbench(proxy.port(), "app").args(arguments).spawn().unwrap();
    wait_until("both are busy", SOON, || proxy.metric("portcullis_client_connections") > 7.5);
    victim.kill().unwrap();
    victim.wait().unwrap();
    expect_success(&survivor.wait_with_output().unwrap(), "the other pgbench");
}

#[test]
fn a_cut_network_ends_the_session_within_its_timeout() {
    let server = Postgres::start();
    let recorder = Recorder::start(server.address());
    let proxy = Portcullis::start(&Setup::open(recorder.address()));
    let mut raw = Raw::login(proxy.address(), "app");
    raw.send_bytes(&query(SLEEP));
    recorder.cut();
    let began = Instant::now();
    assert_eq!(raw.reply().status, 0);
    assert!(began.elapsed() < SOON);
}

#[test]
fn a_silent_client_is_disconnected_at_the_login_deadline() {
    let server = Postgres::start();
    let mut setup = Setup::open(server.address());
    setup.extra = "limits: {login_timeout: 1s}\n".into();
    let proxy = Portcullis::start(&setup);
    let mut raw = Raw::connect(proxy.address());
    raw.send_bytes(&[0, 0]);
    let began = Instant::now();
    while raw.read_byte().is_some() {}
    let waited = began.elapsed();
    assert!(waited < SOON && waited > Duration::from_millis(500), "{waited:?}");
}

#[test]
fn terminate_drains() {
    let server = Postgres::start();
    let mut proxy = Portcullis::start(&Setup::open(server.address()));
    let mut idle = Raw::login(proxy.address(), "app");
    let mut busy = Raw::login(proxy.address(), "app");
    busy.send_bytes(&query("select pg_sleep(2), 'done'"));
    server.wait_for_statement("pg_sleep(2)");
    proxy.signal("TERM");
    // Idle sessions hear why and end; running statements finish; nobody new comes in.
    let told = idle.reply();
    assert_eq!((told.code(), told.status), ("57P01", 0));
    let finished = busy.reply();
    assert_eq!(finished.code(), "", "{:?}", finished.errors);
    assert_eq!(finished.rows.len(), 1);
    let status = proxy.wait(SOON).expect("ends after the last statement");
    assert!(status.success(), "{status}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let server = Postgres::start();
    let mut proxy = Portcullis::start(&Setup::open(server.address()));
    let mut busy = Raw::login(proxy.address(), "app");
    busy.send_bytes(&query(SLEEP));
    proxy.signal("TERM");
    wait_until("it drains", SOON, || proxy.admin("GET", "/readyz").0 != 200);
    proxy.signal("TERM");
    proxy.wait(SOON).expect("ends although a statement runs");
}

#[test]
fn the_drain_has_a_deadline() {
    let server = Postgres::start();
    let mut setup = Setup::open(server.address());
    setup.extra = "limits: {drain_timeout: 1s}\n".into();
    let mut proxy = Portcullis::start(&setup);
    let mut busy = Raw::login(proxy.address(), "app");
    busy.send_bytes(&query(SLEEP));
    proxy.signal("TERM");
    let reply = busy.reply();
    assert_eq!(reply.status, 0);
    proxy.wait(SOON).expect("ends at the deadline");
}

#[test]
fn a_full_disk_under_the_audit_file_is_refused_or_waited_for_but_never_ignored() {
    let server = Postgres::start();
    let recorder = Recorder::start(server.address());
    let mut setup = Setup::open(recorder.address());
    setup.audit =
        "{file: /dev/full, queue_events: 256, when_full: refuse, wait_deadline: 200ms}".into();
    let proxy = Portcullis::start_unready(&setup);
    let mut ran = 0_usize;
    // The queue takes a few, then statements must stop.
    let stopped = (0..500).any(|_| {
        let login = Raw::try_login(proxy.address(), &[("user", "app"), ("database", "demo")]);
        let Ok(mut raw) = login else { return true };
        let reply = raw.query("select 'unrecorded'");
        ran += usize::from(!reply.rows.is_empty());
        reply.rows.is_empty()
    });
    assert!(stopped, "{ran} statements ran although nothing could be recorded");
    wait_until("/readyz says so", SOON, || {
        let (status, detail) = proxy.admin("GET", "/readyz");
        status == 503 && detail.contains("audit")
    });
    assert!(proxy.metric("portcullis_audit_sink_failures_total") > 0.5);
    assert!(proxy.log().to_lowercase().contains("no space left"), "{}", proxy.log());
}
