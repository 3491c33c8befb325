//! Time limits against a real server: what is over its time is stopped, and nothing else is.

use std::time::{Duration, Instant};

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::pg::Postgres;
use crate::raw::{Raw, bind, execute, extended, frame, parse, query, sync};

fn limited(server: &Postgres, limits: &str) -> Portcullis {
    let mut setup = Setup::open(server.address());
    setup.extra = format!("limits: {{{limits}}}\n");
    Portcullis::start(&setup)
}

#[test]
fn a_client_cannot_raise_the_statement_timeout() {
    let server = Postgres::start();
    let proxy = limited(&server, "statement_timeout: 300ms");
    let options = [("user", "app"), ("database", "demo"), ("options", "-c statement_timeout=0")];
    let mut raw = Raw::try_login(proxy.address(), &options).unwrap();
    for set in ["set statement_timeout = 0", "set statement_timeout = '1h'"] {
        assert_eq!(raw.query(set).code(), "");
        let began = Instant::now();
        let reply = raw.query("select pg_sleep(30)");
        assert_eq!((reply.code(), reply.status), ("57014", b'I'), "{set}");
        let message = reply.errors[0].get(b'M');
        assert_eq!(message, "canceling statement due to statement timeout");
        assert!(began.elapsed() < SOON);
        // The extended protocol, and the transaction's state is the server's own.
        assert_eq!(raw.query("begin").code(), "");
        let reply = raw.extended("select pg_sleep($1::int)", &["30"], false);
        assert_eq!((reply.code(), reply.status), ("57014", b'E'));
        assert_eq!(raw.query("rollback").code(), "");
    }
    // A lower one of the client's own holds.
    raw.query("set statement_timeout = '20ms'");
    let reply = raw.query("select pg_sleep(0.2)");
    assert_eq!(reply.code(), "57014");
    assert_eq!(reply.errors[0].get(b'H'), "", "the server's own words");
    raw.query("set statement_timeout = 0");
    // Nor by spreading it over one text.
    let reply = raw.query(&"select pg_sleep(0.1);".repeat(20));
    assert_eq!((reply.code(), reply.status), ("57014", b'I'));
    assert_ne!(reply.errors[0].get(b'H'), "", "the proxy's words");
    assert!(proxy.metric("portcullis_limits_reached_total") > 3.5);
}

#[test]
fn a_pipeline_loses_what_is_over_its_time_and_goes_on_after_the_sync() {
    let server = Postgres::start();
    let proxy = limited(&server, "statement_timeout: 400ms");
    let mut raw = Raw::login(proxy.address(), "app");
    let run = |sql: &str| [parse("", sql), bind("", "", &[], false), execute("", 0)].concat();
    // Three that take their time, together more than the limit: each with its Sync, in one go.
    let within = [run("select pg_sleep(0.25)"), sync()].concat().repeat(3);
    raw.send_bytes(&within);
    assert_eq!([raw.reply(), raw.reply(), raw.reply()].map(|one| one.code().to_owned()), [""; 3]);
    let over = [run("select 1"), run("select pg_sleep(30)"), run("select 2"), sync()].concat();
    raw.send_bytes(&[over, extended("select 3", &[], false)].concat());
    let reply = raw.reply();
    assert_eq!((reply.code(), reply.rows.len()), ("57014", 1), "the third is skipped");
    assert_eq!(raw.reply().value(), "3");
}

#[test]
fn what_follows_a_statement_at_its_limit_is_never_hit() {
    let server = Postgres::start();
    let proxy = limited(&server, "statement_timeout: 100ms");
    let mut raw = Raw::login(proxy.address(), "app");
    let mut hit = 0;
    for round in 0..40 {
        // Around the limit: sometimes the cancel comes too late.
        let reply = raw.query(&format!("select pg_sleep({})", 0.09 + f64::from(round) * 0.0005));
        hit += u32::from(reply.code() == "57014");
        for _ in 0..3 {
            assert_eq!(raw.query("select 1").value(), "1", "round {round}");
        }
    }
    assert!(hit > 0, "the limit was never reached");
}

#[test]
fn a_copy_that_stands_still_ends_the_session() {
    let server = Postgres::start();
    let proxy = limited(&server, "statement_timeout: 300ms, cancel_grace: 300ms");
    let mut raw = Raw::login(proxy.address(), "app");
    raw.query("create temp table t (a int)");
    raw.send_bytes(&query("copy t from stdin"));
    assert_eq!(raw.read().unwrap().tag, b'G');
    raw.send_bytes(&frame(b'd', b"1\n"));
    // The server reads copy data and looks at cancels between messages only.
    let reply = raw.reply();
    assert_eq!((reply.code(), reply.status), ("57014", 0));
    wait_until("the server's side is gone", SOON, || {
        server.admin("select count(*) from pg_stat_activity where usename = 'app'").trim() == "0"
    });
}

#[test]
fn a_transaction_that_waits_or_lasts_too_long_is_ended() {
    let server = Postgres::start();
    let waits = limited(&server, "idle_in_transaction_timeout: 300ms");
    let mut raw = Raw::login(waits.address(), "app");
    raw.query("begin");
    raw.query("lock table orders");
    // Half a message every now and then is no statement.
    raw.send_bytes(b"Q\0\0");
    let reply = raw.reply();
    assert_eq!((reply.code(), reply.status), ("25P03", 0));
    assert_eq!(Raw::login(waits.address(), "app").query("delete from orders").code(), "");
    // A batch without its Sync holds locks as well.
    let mut raw = Raw::login(waits.address(), "app");
    let open = [parse("", "select 1"), bind("", "", &[], false), execute("", 0), frame(b'H', &[])];
    raw.send_bytes(&open.concat());
    let reply = raw.reply();
    assert_eq!((reply.rows.len(), reply.code(), reply.status), (1, "25P03", 0));

    let lasts = limited(&server, "transaction_timeout: 700ms");
    let mut raw = Raw::login(lasts.address(), "app");
    let began = Instant::now();
    // Outside of a transaction time does not add up.
    while began.elapsed() < Duration::from_millis(1500) {
        assert_eq!(raw.query("select pg_sleep(0.1)").code(), "");
    }
    raw.query("begin");
    let ended = (0..100).map(|_| raw.query("select pg_sleep(0.1)")).find(|one| one.status != b'T');
    let ended = ended.expect("ended in the end");
    assert_eq!((ended.code(), ended.status), ("25P04", 0));
}

#[test]
fn a_session_has_a_lifetime() {
    let server = Postgres::start();
    let proxy = limited(&server, "session_lifetime: 1s");
    let mut raw = Raw::login(proxy.address(), "app");
    raw.query("begin");
    // It ends when it is idle, not in the middle of a transaction.
    let reply = raw.query("select pg_sleep(1.2)");
    assert_eq!((reply.code(), reply.status), ("", b'T'));
    assert_eq!(raw.query("commit").tags, ["COMMIT"]);
    let reply = raw.reply();
    assert_eq!((reply.code(), reply.status), ("57P01", 0));
}

#[test]
fn a_client_that_is_gone_takes_its_statement_along_if_so_configured() {
    let server = Postgres::start();
    let running = || {
        let sql = "select count(*) from pg_stat_activity where usename = 'app' \
                   and state = 'active' and query like '%pg_sleep(600)%'";
        server.admin(sql).trim().to_owned()
    };
    let proxy = limited(&server, "on_client_gone: cancel");
    let mut raw = Raw::login(proxy.address(), "app");
    raw.send_bytes(&query("select pg_sleep(600)"));
    wait_until("it runs", SOON, || running() == "1");
    drop(raw);
    wait_until("it is cancelled", SOON, || running() == "0");
}
