//! With no rule in the way, clients must not notice the proxy.

use std::fmt::Write as _;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::pg::{Postgres, expect_success, pgbench, psql};
use crate::raw::{self, Raw, bind, describe_portal, execute, frame, parse, query, sync};

fn scene() -> (Postgres, Portcullis) {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    (server, proxy)
}

fn run_psql(port: u16, command: &str) -> (String, String) {
    let Output { stdout, stderr, .. } =
        psql(port, "app", "demo").args(["-c", command]).output().unwrap();
    let text =
        |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&port.to_string(), "PORT");
    (text(stdout), text(stderr))
}

#[test]
fn psql_shows_the_same_through_the_proxy() {
    let (server, proxy) = scene();
    let commands = [
        r"\d+",
        r"\dt",
        r"\dt+ *.*",
        r"\df pg_catalog.lo*",
        r"\l",
        r"\du",
        r"\dn+",
        r"\d customers",
        r"\d+ orders",
        r"\di",
        r"\dp",
        r"\dT",
        r"\dx",
        r"\sf pg_catalog.lpad(text, integer)",
        r"\encoding",
        "select * from customers order by id",
        "select count(*), sum(amount) from orders",
        "select 1/0",
        "select * from nowhere",
        "table orders limit 3",
        "explain (costs off) select * from customers where id = 7",
        "do $$ begin raise notice 'hello'; end $$",
        "show server_version",
        "select 1; select 2; select 3",
        "",
        ";",
        "-- only a comment",
    ];
    for command in commands {
        let direct = run_psql(server.port(), command);
        let proxied = run_psql(proxy.port(), command);
        assert_eq!(proxied, direct, "{command}");
    }
}

#[test]
fn pgbench_runs_without_a_failure() {
    let (_server, proxy) = scene();
    for protocol in ["simple", "extended", "prepared"] {
        for arguments in [["-t", "40"], ["-St", "100"]] {
            let output = pgbench(proxy.port(), "app")
                .args(["-n", "-c", "16", "-j", "2", "-M", protocol])
                .args(arguments)
                .arg("demo")
                .output()
                .unwrap();
            let text = expect_success(&output, protocol);
            assert!(text.contains("failed transactions: 0"), "{protocol}: {text}");
        }
    }
}

#[test]
fn a_thousand_queries_in_one_write_are_answered_in_order() {
    let (_server, proxy) = scene();
    let mut raw = Raw::login(proxy.address(), "app");
    let bytes: Vec<u8> = (0..1000).flat_map(|n| query(&format!("select {n}"))).collect();
    raw.send_bytes(&bytes);
    for n in 0..1000 {
        assert_eq!(raw.reply().value(), n.to_string());
    }
}

#[test]
fn portals_return_rows_in_portions() {
    let (_server, proxy) = scene();
    let mut raw = Raw::login(proxy.address(), "app");
    raw.query("begin");
    let bytes = [
        parse("s", "select g from generate_series(1, 5) g"),
        bind("p", "s", &[], false),
        describe_portal("p"),
        execute("p", 2),
        execute("p", 2),
        execute("p", 2),
        sync(),
    ]
    .concat();
    raw.send_bytes(&bytes);
    let reply = raw.reply();
    assert_eq!(reply.sequence, "12TDDsDDsDCZ", "{:?}", reply.errors);
    assert_eq!(reply.status, b'T');
}

#[test]
fn flush_brings_answers_before_sync() {
    let (_server, proxy) = scene();
    let mut raw = Raw::login(proxy.address(), "app");
    raw.send_bytes(&[parse("f", "select 'early'"), frame(b'H', &[])].concat());
    assert_eq!(raw.read().unwrap().tag, b'1');
    raw.send_bytes(&[bind("", "f", &[], false), execute("", 0), frame(b'H', &[])].concat());
    let tags: Vec<u8> = (0..3).map(|_| raw.read().unwrap().tag).collect();
    assert_eq!(tags, b"2DC");
    raw.send_bytes(&sync());
    assert_eq!(raw.reply().sequence, "Z");
}

#[test]
fn copy_out_gives_the_same_bytes() {
    let (server, proxy) = scene();
    for statement in [
        "copy customers to stdout",
        "copy customers to stdout (format csv, header, delimiter ';', quote '\"')",
        "copy customers to stdout (format binary)",
        "copy (select id, notes from customers order by id desc) to stdout",
    ] {
        let ours = Raw::login(proxy.address(), "app").query(statement);
        let theirs = Raw::login(server.address(), "app").query(statement);
        assert_eq!(ours.code(), "", "{statement}: {:?}", ours.errors);
        assert_eq!(ours.copied, theirs.copied, "{statement}");
        assert_eq!(ours.tags, theirs.tags);
    }
}

#[test]
fn copy_in_takes_large_data_failures_and_early_syncs() {
    let (_server, proxy) = scene();
    let mut raw = Raw::login(proxy.address(), "app");
    raw.query("create temp table t(id int, filler text)");
    let rows = (0..20_000).fold(String::new(), |mut text, n| {
        writeln!(text, "{n}\t{}", "x".repeat(90)).unwrap();
        text
    });
    let data: Vec<u8> =
        rows.as_bytes().chunks(60_000).flat_map(|chunk| frame(b'd', chunk)).collect();
    raw.send_bytes(&[query("copy t from stdin"), data, frame(b'c', &[])].concat());
    assert_eq!(raw.reply().tags, ["COPY 20000"]);
    // The client gives up half-way.
    let failing = [query("copy t from stdin"), frame(b'd', b"1\ta\n"), frame(b'f', b"enough\0")];
    raw.send_bytes(&failing.concat());
    assert_eq!(raw.reply().code(), "57014");
    // Extended protocol as psycopg and JDBC send it: Sync right behind Execute, before the data.
    let early = [parse("", "copy t from stdin"), bind("", "", &[], false), execute("", 0), sync()];
    raw.send_bytes(&early.concat());
    raw.send_bytes(&[frame(b'd', b"7\tb\n"), frame(b'c', &[]), sync()].concat());
    assert_eq!(raw.reply().tags, ["COPY 1"]);
    assert_eq!(raw.query("select count(*) from t").value(), "20001");
}

#[test]
fn a_cancel_request_stops_its_own_statement_only() {
    let (server, proxy) = scene();
    let mut sleeper = Raw::login(proxy.address(), "app");
    let mut other = Raw::login(proxy.address(), "app");
    assert_ne!(sleeper.key, other.key);
    let began = Instant::now();
    sleeper.send_bytes(&query("select pg_sleep(30)"));
    other.send_bytes(&query("select pg_sleep(3)"));
    // A cancel that comes before its statement does nothing, directly as well.
    wait_until("both statements run", SOON, || {
        let running = "select count(*) from pg_stat_activity \
                       where usename = 'app' and state = 'active'";
        server.admin(running).trim() == "2"
    });
    // A guessed secret and a foreign process id do nothing.
    raw::cancel(proxy.address(), (sleeper.key.0, sleeper.key.1 ^ 1));
    raw::cancel(proxy.address(), (other.key.0, sleeper.key.1));
    raw::cancel(proxy.address(), sleeper.key);
    assert_eq!(sleeper.reply().code(), "57014");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(other.reply().code(), "", "the other statement was cancelled too");
    assert_eq!(sleeper.query("select 1").value(), "1");
}

#[test]
fn notifications_notices_and_settings_come_through() {
    let (_server, proxy) = scene();
    let mut listener = Raw::login(proxy.address(), "app");
    let mut speaker = Raw::login(proxy.address(), "app");
    listener.query("listen door");
    speaker.query("notify door, 'knock'");
    let mut seen = listener.query("select 1").sequence;
    // The notification may arrive on its own, after the statement.
    while !seen.contains('A') {
        seen.push(char::from(listener.read().unwrap().tag));
    }
    let reply = speaker.query("set application_name = 'renamed'");
    assert!(reply.sequence.contains('S'), "no ParameterStatus in {}", reply.sequence);
    let noisy = speaker.query("do $$ begin raise notice 'hello'; end $$");
    assert_eq!(noisy.notices[0].get(b'M'), "hello");
}

#[test]
fn large_values_pass_both_ways_without_being_kept() {
    let (_server, proxy) = scene();
    let mut raw = Raw::login(proxy.address(), "app");
    let reply = raw.query("select repeat('x', 64 * 1024 * 1024)");
    assert_eq!(reply.rows[0][0].as_ref().unwrap().len(), 64 * 1024 * 1024);
    let big = "y".repeat(32 * 1024 * 1024);
    let echoed = raw.extended("select length($1::text)::text", &[&big], false);
    assert_eq!(echoed.value(), (32 * 1024 * 1024).to_string());
    let resident = proxy.metric("process_resident_memory_bytes");
    assert!(resident < 256e6, "{resident} bytes resident after streaming");
}

#[test]
fn a_server_error_leaves_the_session_usable() {
    let (server, proxy) = scene();
    for sql in
        ["select 1/0", "select 'x'::int", "insert into orders values (1)", "abort; select 1/0"]
    {
        let mut ours = Raw::login(proxy.address(), "app");
        let reply = ours.query(sql);
        let theirs = Raw::login(server.address(), "app").query(sql);
        assert_eq!(reply.errors, theirs.errors, "{sql}");
        assert_eq!((reply.sequence, reply.status), (theirs.sequence, theirs.status), "{sql}");
        assert_eq!(ours.query("select 1").value(), "1");
    }
}

#[test]
fn a_hundred_clients_at_once() {
    let (_server, proxy) = scene();
    let mut clients: Vec<Raw> = (0..100).map(|_| Raw::login(proxy.address(), "app")).collect();
    for client in &mut clients {
        client.send_bytes(&query("select pg_backend_pid()"));
    }
    let pids: std::collections::BTreeSet<String> =
        clients.iter_mut().map(|client| client.reply().value()).collect();
    assert_eq!(pids.len(), 100, "every client has a server connection of its own");
    drop(clients);
    wait_until("all connections are closed", SOON, || {
        proxy.metric("portcullis_client_connections") < 0.5
    });
}
