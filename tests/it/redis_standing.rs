//! A Redis datasource in operation: health, metrics, sessions, limits, drains, crashes.

use std::time::Instant;

use crate::harness::{Portcullis, SOON, Setup, free_port, wait_until};
use crate::operator::sessions;
use crate::redis::{RawRedis, Redis, Reply, encode};

fn limited(server: &Redis, limits: &str) -> Portcullis {
    let mut setup = Setup::redis(server.address());
    setup.extra = format!("limits: {{{limits}}}\n");
    Portcullis::start(&setup)
}

fn connected(proxy: &Portcullis) -> RawRedis {
    let mut client = RawRedis::connect(proxy.address());
    assert_eq!(client.command(&["PING"]), Reply::Simple("PONG".into()));
    client
}

#[test]
fn an_operator_sees_a_redis_datasource() {
    let server = Redis::with_settings(&[]);
    let proxy = Portcullis::start(&Setup::redis(server.address()));
    assert!(proxy.log().contains("listening"), "{}", proxy.log());
    let mut idle = connected(&proxy);
    assert_eq!(idle.command(&["SET", "k", "v"]), Reply::ok());
    let mut listening = connected(&proxy);
    let Reply::Array(_) = listening.command(&["SUBSCRIBE", "news"]) else { panic!("no reply") };
    let mut waiting = connected(&proxy);
    waiting.send(b"BLPOP jobs 0\r\n");
    wait_until("all three are seen", SOON, || {
        let phases: Vec<_> = sessions(&proxy, "").iter().map(|one| one["phase"].clone()).collect();
        phases == ["idle", "listening", "busy"]
    });
    assert!(proxy.metric("portcullis_client_connections") > 2.5);
    let (_, metrics) = proxy.admin("GET", "/metrics");
    assert!(metrics.contains("protocol=\"redis\""), "{metrics}");
    assert!(metrics.contains("verb=\"write\"") || metrics.contains("\"write\""), "{metrics}");
    let (status, ready) = proxy.admin("GET", "/readyz");
    assert_eq!(status, 200, "{ready}");
    let uid = sessions(&proxy, "")[1]["uid"].as_str().unwrap().to_owned();
    assert_eq!(proxy.admin("DELETE", &format!("/sessions/{uid}")).0, 202);
    listening.closed();
    assert_eq!(idle.command(&["GET", "k"]), Reply::text("v"), "the others go on");
}

#[test]
fn readiness_knows_whether_a_redis_was_reached() {
    let mut setup = Setup::redis(([127, 0, 0, 1], free_port()).into());
    setup.extra = "limits: {connect_timeout: 1s}\n".into();
    let proxy = Portcullis::start_unready(&setup);
    let mut client = RawRedis::connect(proxy.address());
    let answer = client.command(&["PING"]);
    assert!(!answer.error().contains("127.0.0.1"), "{answer:?}");
    client.closed();
    wait_until("it is told", SOON, || proxy.admin("GET", "/readyz").1.contains("refused"));
    assert!(proxy.log().contains("server not reached"));
}

#[test]
fn a_command_over_its_time_ends_its_session_and_subscribers_stay() {
    let server = Redis::with_settings(&[]);
    let proxy = limited(&server, "statement_timeout: 300ms, client_idle_timeout: 1s");
    let mut listening = connected(&proxy);
    let Reply::Array(_) = listening.command(&["SUBSCRIBE", "news"]) else { panic!("no reply") };
    let mut blocked = connected(&proxy);
    let idle = connected(&proxy);
    let began = Instant::now();
    blocked.send(b"BLPOP jobs 0\r\n");
    let said = blocked.closed();
    assert!(said.starts_with(b"-"), "{}", String::from_utf8_lossy(&said));
    assert!(began.elapsed() < SOON);
    wait_until("the server has let it go", SOON, || blocked_at(&server) == 0);
    assert!(idle.closed().is_empty(), "nobody answers who was not asked");
    server.admin().command(&["PUBLISH", "news", "hello"]);
    let Reply::Array(Some(message)) = listening.reply() else { panic!("no message") };
    assert_eq!(message[2], Reply::text("hello"), "silence is normal on a channel");
    assert!(proxy.metric("portcullis_limits_reached_total") > 1.5);
}

#[test]
fn a_transaction_that_waits_for_its_client_has_a_limit() {
    let server = Redis::with_settings(&[]);
    let proxy = limited(&server, "idle_in_transaction_timeout: 200ms");
    let mut idle = connected(&proxy);
    let mut waiting = connected(&proxy);
    assert_eq!(waiting.command(&["MULTI"]), Reply::ok());
    assert_eq!(waiting.command(&["SET", "k", "v"]), Reply::Simple("QUEUED".into()));
    waiting.closed();
    assert_eq!(idle.command(&["GET", "k"]), Reply::Bulk(None));
}

#[test]
fn a_drain_ends_idle_and_subscribed_clients_and_waits_for_blocked_ones() {
    let server = Redis::with_settings(&[]);
    let mut proxy = limited(&server, "drain_timeout: 30s");
    let idle = connected(&proxy);
    let mut listening = connected(&proxy);
    let Reply::Array(_) = listening.command(&["SUBSCRIBE", "news"]) else { panic!("no reply") };
    let mut waiting = connected(&proxy);
    waiting.send(b"BLPOP jobs 0\r\n");
    wait_until("it waits", SOON, || sessions(&proxy, "").iter().any(|one| one["phase"] == "busy"));
    proxy.signal("TERM");
    assert!(idle.closed().is_empty(), "nobody answers who was not asked");
    listening.closed();
    assert!(!proxy.ready());
    server.admin().command(&["RPUSH", "jobs", "one"]);
    let answer = waiting.reply();
    assert_eq!(answer, Reply::Array(Some(vec![Reply::text("jobs"), Reply::text("one")])));
    waiting.closed();
    assert!(proxy.wait(SOON).expect("drained").success());
    let trail = proxy.audit_lines().join("\n");
    assert!(trail.contains("\"end\":\"shutdown\""), "{trail}");
}

#[test]
fn a_redis_that_dies_ends_its_sessions_clearly() {
    let mut server = Redis::with_settings(&[]);
    let proxy = Portcullis::start(&Setup::redis(server.address()));
    let mut blocked = connected(&proxy);
    let idle = connected(&proxy);
    blocked.send(b"BLPOP jobs 0\r\n");
    wait_until("it waits", SOON, || sessions(&proxy, "").iter().any(|one| one["phase"] == "busy"));
    server.kill();
    let said = blocked.closed();
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    assert!(idle.closed().is_empty(), "nobody answers who was not asked");
    wait_until("all are gone", SOON, || sessions(&proxy, "").is_empty());
    let mut late = RawRedis::connect(proxy.address());
    assert!(!late.command(&["PING"]).error().is_empty());
}

#[test]
fn a_client_that_vanishes_frees_what_it_held_at_the_server() {
    let server = Redis::with_settings(&[]);
    let proxy = Portcullis::start(&Setup::redis(server.address()));
    for _ in 0..20 {
        vanish_while_waiting(&proxy, connected(&proxy), b"BLPOP jobs 0\r\n");
    }
    assert_nothing_popped(&server);
}

/// Asks for what makes the client wait, and goes while it does.
pub(crate) fn vanish_while_waiting(proxy: &Portcullis, mut client: RawRedis, ask: &[u8]) {
    client.send(ask);
    wait_until("it waits", SOON, || sessions(proxy, "").iter().any(|one| one["phase"] == "busy"));
    drop(client);
    wait_until("it is gone", SOON, || sessions(proxy, "").is_empty());
}

/// Nobody who is gone waits for `jobs` at the server.
pub(crate) fn assert_nothing_popped(server: &Redis) {
    let mut behind = server.admin();
    behind.command(&["RPUSH", "jobs", "one"]);
    assert_eq!(behind.command(&["LLEN", "jobs"]), Reply::Integer(1), "popped into nowhere");
}

#[test]
fn a_killed_proxy_leaves_nothing_behind_at_a_redis() {
    let server = Redis::with_settings(&[]);
    let mut proxy = Portcullis::start(&Setup::redis(server.address()));
    let mut waiting = connected(&proxy);
    waiting.send(b"BLPOP jobs 0\r\n");
    let mut queueing = connected(&proxy);
    assert_eq!(queueing.command(&["MULTI"]), Reply::ok());
    assert_eq!(queueing.command(&["SET", "k", "v"]), Reply::Simple("QUEUED".into()));
    wait_until("it waits", SOON, || blocked_at(&server) == 1);
    proxy.signal("KILL");
    proxy.wait(SOON).expect("killed");
    assert!(waiting.closed().is_empty() && queueing.closed().is_empty());
    wait_until("nobody waits any more", SOON, || blocked_at(&server) == 0);
    let mut behind = server.admin();
    assert_eq!(behind.command(&["EXISTS", "k"]), Reply::Integer(0));
    behind.command(&["RPUSH", "jobs", "one"]);
    assert_eq!(behind.command(&["LLEN", "jobs"]), Reply::Integer(1), "popped into nowhere");
}

/// How many clients the server has that are blocked.
fn blocked_at(server: &Redis) -> usize {
    let Reply::Bulk(Some(text)) = server.admin().command(&["INFO", "clients"]) else {
        panic!("no INFO")
    };
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    line.unwrap().parse().unwrap()
}

#[test]
fn nothing_is_done_in_redis_that_cannot_be_recorded() {
    let server = Redis::with_settings(&[]);
    let mut setup = Setup::redis(server.address());
    setup.audit =
        "{file: /dev/full, queue_events: 256, when_full: refuse, wait_deadline: 200ms}".into();
    let proxy = Portcullis::start_unready(&setup);
    // The queue takes a few sessions, then commands must stop.
    let stored = |n: i32| {
        let mut client = RawRedis::connect(proxy.address());
        client.send(&encode(&["SET", &format!("k{n}"), "v"]));
        client.send(&encode(&["QUIT"]));
        client.closed().starts_with(b"+OK")
    };
    let ran = (0..500).take_while(|n| stored(*n)).count();
    assert!(ran < 500, "everything ran although nothing could be recorded");
    assert_eq!(server.admin().command(&["EXISTS", "k499"]), Reply::Integer(0));
    wait_until("/readyz says so", SOON, || {
        let (status, detail) = proxy.admin("GET", "/readyz");
        status == 503 && detail.contains("audit")
    });
}
