//! Several servers: which one a session gets, and what happens when they come and go.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::harness::{Portcullis, READY_TIMEOUT, SOON, Setup, free_port, wait_until};
use crate::pg::Postgres;
use crate::raw::{Raw, query};

const PARAMETERS: [(&str, &str); 2] = [("user", "app"), ("database", "demo")];
const IN_RECOVERY: &str = "select pg_is_in_recovery()::text";

fn list(servers: &[SocketAddr], more: &str) -> Setup {
    let mut setup = Setup::open(servers[0]);
    let quoted: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    setup.upstream_text = Some(format!("[{}]", quoted.join(", ")));
    setup.datasource_extra = more.lines().map(|line| format!("\x20   {line}\n")).collect();
    setup
}

fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// What the server that a new session gets says of itself; `None` when there is none.
fn in_recovery(proxy: &Portcullis) -> Option<String> {
    let mut raw = Raw::try_login(proxy.address(), &PARAMETERS).ok()?;
    Some(raw.query(IN_RECOVERY).value())
}

#[test]
fn the_first_server_that_is_reached_serves() {
    let (first, second) = (Postgres::start(), Postgres::start());
    let port = |proxy: &Portcullis| {
        Raw::login(proxy.address(), "app").query("select inet_server_port()").value()
    };
    let proxy = Portcullis::start(&list(&[first.address(), second.address()], ""));
    assert_eq!(port(&proxy), first.port().to_string());
    let proxy = Portcullis::start(&list(&[nowhere(), second.address()], ""));
    assert_eq!(port(&proxy), second.port().to_string());
}

/// A server that takes connections and says nothing costs one session its connect timeout, and
/// those after it nothing.
#[test]
fn a_dead_server_at_the_head_delays_one_session_only() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = Postgres::start();
    let servers = [silent.local_addr().unwrap(), server.address()];
    let mut setup = list(&servers, "upstream_tls: {mode: prefer}");
    setup.extra = "limits: {connect_timeout: 2s}\n".into();
    let proxy = Portcullis::start(&setup);
    let timed = || {
        let began = Instant::now();
        Raw::login(proxy.address(), "app");
        began.elapsed()
    };
    let first = timed();
    assert!(first >= Duration::from_secs(2) && first < SOON, "{first:?}");
    for _ in 0..5 {
        let next = timed();
        assert!(next < Duration::from_secs(2), "{next:?}");
    }
}

/// However long the list is, a client waits for its login no longer than `login_timeout`; and what
/// was being tried then counts as dead.
#[test]
fn a_login_is_over_at_its_deadline_whatever_is_tried() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = Postgres::start();
    let servers = [silent.local_addr().unwrap(), server.address()];
    let mut setup = list(&servers, "upstream_tls: {mode: prefer}");
    setup.extra = "limits: {connect_timeout: 1h, login_timeout: 1s}\n".into();
    let proxy = Portcullis::start(&setup);
    let began = Instant::now();
    let error = Raw::try_login(proxy.address(), &PARAMETERS).unwrap_err();
    assert!(began.elapsed() < SOON && error.code().starts_with("08"), "{error:?}");
    Raw::login(proxy.address(), "app");
}

#[test]
fn without_any_server_the_error_is_clear_and_all_is_well_when_one_is_back() {
    let mut server = Postgres::start();
    let absent = nowhere();
    let proxy = Portcullis::start(&list(&[absent, server.address()], ""));
    let mut session = Raw::login(proxy.address(), "app");
    server.crash();
    let told = session.reply();
    assert_eq!(told.status, 0, "the session ends");
    let error = Raw::try_login(proxy.address(), &PARAMETERS).unwrap_err();
    assert_eq!(error.code(), "08001", "{error:?}");
    let both = format!("{absent}: Connection refused");
    assert!(proxy.log().contains(&both), "{}", proxy.log());
    server.restart();
    assert!(in_recovery(&proxy).is_some());
}

#[test]
fn sessions_follow_the_primary() {
    let trust = "host replication postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 trust\n";
    let mut primary = Postgres::with_files(trust, &[], "");
    let standby = Postgres::standby_of(&primary);
    // The wrong one first, so that order alone cannot be right.
    let catalog = "catalog: {user: postgres, databases: demo}\ntarget_session_attrs: ";
    let servers = [standby.address(), primary.address()];
    let start = |target: &str| Portcullis::start(&list(&servers, &format!("{catalog}{target}")));
    for (target, expected) in [
        ("any", "true"),
        ("read-write", "false"),
        ("read-only", "true"),
        ("standby", "true"),
        ("prefer-standby", "true"),
    ] {
        assert_eq!(in_recovery(&start(target)).as_deref(), Some(expected), "{target}");
    }
    let proxy = start("primary");
    let mut session = Raw::login(proxy.address(), "app");
    assert_eq!(session.query(IN_RECOVERY).value(), "false");
    session.send_bytes(&query("select pg_sleep(60)"));
    primary.crash();
    let told = session.reply();
    assert!(told.status == 0 && (told.code().is_empty() || told.code() != "00000"), "{told:?}");
    // A standby is no substitute.
    let error = Raw::try_login(proxy.address(), &PARAMETERS).unwrap_err();
    assert_eq!(error.code(), "08001", "{error:?}");
    standby.admin("select pg_promote()");
    wait_until("the promoted server serves", READY_TIMEOUT, || {
        in_recovery(&proxy).as_deref() == Some("false")
    });
}
