//! Standing up: thousands of idle sessions, slow and hostile clients, peers that vanish. Memory of
//! the process stays within named limits, and other sessions keep their latency.
//!
//! Bounds are on memory and on ratios between medians, never on absolute times. The figures for
//! `docs` come from `benches/standing.sh`, which runs [`figures`] with more sessions.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fake::FakeServer;
use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::pg::{Hba, PASSWORD, Postgres};
use crate::raw::{
    Raw, SSL_REQUEST, bind, execute, frame, parse, query, startup_packet, sync, untyped_packet,
};

/// What an idle session may cost, its share of everything included.
const IDLE_BYTES_MAX: u64 = 20 * 1024;

/// Sessions of the test that runs every time.
const IDLE: usize = 2000;

fn limited(upstream: SocketAddr, limits: &str) -> Portcullis {
    let mut setup = Setup::open(upstream);
    setup.extra = format!("limits: {{{limits}}}\n");
    Portcullis::start(&setup)
}

/// Latencies of one statement after the other, sorted.
fn latencies(raw: &mut Raw, statements: usize) -> Vec<Duration> {
    let mut all: Vec<_> = (0..statements)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(raw.query("select 1").value(), "1");
            began.elapsed()
        })
        .collect();
    all.sort_unstable();
    all
}

fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

/// Others may be slowed down by sharing two cores, not by waiting in line.
#[track_caller]
fn keeps_its_latency(alone: &[Duration], beside: &[Duration]) {
    let (alone, beside) = (median(alone).max(Duration::from_micros(500)), median(beside));
    assert!(beside < alone * 20, "{beside:?} beside, {alone:?} alone");
}

/// What a run with idle sessions measured.
#[derive(Debug)]
struct Figures {
    bytes_per_session: u64,
    alone: Vec<Duration>,
    beside: Vec<Duration>,
}

/// Active sessions' latencies without and with idle ones beside them; what an idle one costs.
fn measure(idle: usize, active: usize, statements: usize) -> Figures {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let server = FakeServer::start();
    let proxy = limited(server.address(), "clients: 20000, logins: 50");
    let mut busy: Vec<_> = (0..active).map(|_| Raw::login(proxy.address(), "app")).collect();
    let mut run = || -> Vec<Duration> {
        let threads = 4.min(active);
        let mut all: Vec<Duration> = std::thread::scope(|scope| {
            let parts: Vec<_> = busy
                .chunks_mut(active.div_ceil(threads))
                .map(|part| {
                    scope.spawn(move || {
                        (0..statements)
                            .flat_map(|_| {
                                part.iter_mut()
                                    .flat_map(|raw| latencies(raw, 1))
                                    .collect::<Vec<_>>()
                            })
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
        });
        all.sort_unstable();
        all
    };
    run();
    let alone = run();
    let before = proxy.resident_bytes();
    let mut sessions: Vec<_> = (0..idle).map(|_| Raw::login(proxy.address(), "app")).collect();
    let after = proxy.resident_bytes();
    let beside = run();
    let seen = proxy.metric("portcullis_client_connections");
    assert!(seen > (idle + active) as f64 - 0.5, "{seen}");
    for raw in sessions.iter_mut().step_by(97) {
        assert_eq!(raw.query("select 1").value(), "1");
    }
    let bytes_per_session = after.saturating_sub(before) / idle as u64;
    Figures { bytes_per_session, alone, beside }
}

#[test]
fn idle_sessions_cost_little_and_slow_nobody_down() {
    let Figures { bytes_per_session, alone, beside } = measure(IDLE, 20, 20);
    assert!(bytes_per_session <= IDLE_BYTES_MAX, "{bytes_per_session} bytes a session");
    keeps_its_latency(&alone, &beside);
}

/// Prints what `benches/standing.sh` is after.
#[test]
#[ignore = "a measurement"]
fn figures() {
    let number = |name: &str, default: usize| {
        std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
    };
    let (idle, active) = (number("IDLE", 9700), number("ACTIVE", 100));
    let Figures { bytes_per_session, alone, beside } =
        measure(idle, active, number("STATEMENTS", 200));
    let at = |sorted: &[Duration], percent: usize| {
        sorted[(sorted.len() - 1) * percent / 100].as_micros()
    };
    println!("idle sessions {idle}, active {active}, statements {}", beside.len());
    println!("resident memory per idle session: {bytes_per_session} bytes");
    for (name, sorted) in [("alone", &alone), ("beside", &beside)] {
        println!("{name}: p50 {} us, p99 {} us", at(sorted, 50), at(sorted, 99));
    }
}

#[test]
fn slow_starters_end_at_the_login_timeout_wherever_they_are() {
    let server = Postgres::with_hba(Hba::Scram);
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("c.pem"), files.path().join("k.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut setup = Setup::open(server.address());
    setup.datasource_extra =
        format!("\x20   tls: {{mode: allowed, certificate: {certificate:?}, key: {key:?}}}\n");
    setup.extra = "limits: {login_timeout: 2s}\n".into();
    let proxy = Portcullis::start(&setup);
    let startup = startup_packet(&[("user", "app"), ("database", "demo")]);
    let hello: Vec<u8> = [&[0x16, 3, 1, 2, 0][..], &[1; 512]].concat();
    let before = proxy.resident_bytes();
    let mut slow = Vec::new();
    for _ in 0..50 {
        // Nothing at all; the start-up packet; the password; the TLS handshake.
        slow.push((Raw::connect(proxy.address()), Vec::new()));
        slow.push((Raw::connect(proxy.address()), startup.clone()));
        let mut asked = Raw::connect(proxy.address());
        asked.send_bytes(&startup);
        assert_eq!(asked.read().unwrap().tag, b'R');
        slow.push((asked, frame(b'p', &[b'x'; 200])));
        let mut secure = Raw::connect(proxy.address());
        secure.send_bytes(&untyped_packet(SSL_REQUEST, &[]));
        assert_eq!(secure.read_byte(), Some(b'S'));
        slow.push((secure, hello.clone()));
    }
    let began = Instant::now();
    let mut open: Vec<_> = slow.iter_mut().map(|(raw, rest)| (raw, rest.iter())).collect();
    let grown = std::cell::Cell::new(0);
    wait_until("all of them are gone", SOON, || {
        // A byte of each now and then; the proxy ends them all the same.
        open.retain_mut(|(raw, rest)| {
            let sent = rest.next().is_none_or(|byte| raw.try_send(&[*byte]));
            sent && !raw.is_closed()
        });
        grown.set(grown.get().max(proxy.resident_bytes().saturating_sub(before)));
        std::thread::sleep(Duration::from_millis(80));
        open.is_empty()
    });
    // One deadline for all of it: a handshake does not start it anew.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(grown.get() < 200 * 64 * 1024, "{} bytes", grown.get());
    let url = format!(
        "host=127.0.0.1 port={} user=app dbname=demo password={PASSWORD} sslmode=disable",
        proxy.port()
    );
    let output =
        std::process::Command::new("psql").args([&url, "-Atc", "select 1"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(proxy.metric("portcullis_limits_reached_total") > 199.5);
}

#[test]
fn a_server_that_never_answers_a_login_is_given_up() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = limited(silent.local_addr().unwrap(), "login_timeout: 500ms");
    let parameters = [("user", "app"), ("database", "demo")];
    let error = Raw::try_login(proxy.address(), &parameters).unwrap_err();
    assert_eq!(error.code(), "08006");
    drop(silent);
}

/// Sends for ever on a thread of its own, and never reads.
fn flood(mut stream: TcpStream, piece: Vec<u8>) -> Arc<Mutex<u64>> {
    let sent = Arc::new(Mutex::new(0));
    let counting = Arc::clone(&sent);
    stream.set_write_timeout(None).unwrap();
    std::thread::spawn(move || {
        while stream.write_all(&piece).is_ok() {
            *counting.lock().unwrap() += piece.len() as u64;
        }
    });
    sent
}

/// Waits until a flood stands still.
fn stands_still(sent: &Arc<Mutex<u64>>) -> u64 {
    let (mut last, mut since) = (0, Instant::now());
    wait_until("the flood stands still", Duration::from_secs(60), || {
        let now = *sent.lock().unwrap();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(700)
    });
    last
}

const REFUSING: &str = "version: 1
rules:
  - id: no-unbounded-dml
    match: {statements: [delete], without: where}
    deny: {message: \"DELETE needs a WHERE clause\"}
";

#[test]
fn refused_statements_of_a_client_that_never_reads_stay_within_high_water() {
    let server = Postgres::start();
    let mut setup = Setup::with_rules(server.address(), REFUSING);
    setup.extra = "limits: {high_water: 1MiB}\n".into();
    let proxy = Portcullis::start(&setup);
    let mut other = Raw::login(proxy.address(), "support");
    latencies(&mut other, 50);
    let alone = latencies(&mut other, 200);
    let mut floods = Vec::new();
    let before = proxy.resident_bytes();
    for _ in 0..4 {
        let raw = Raw::login(proxy.address(), "app");
        floods.push(flood(raw.into_stream(), query("delete from orders").repeat(100)));
    }
    let beside = latencies(&mut other, 200);
    for sent in &floods {
        stands_still(sent);
    }
    let grown = proxy.resident_bytes().saturating_sub(before);
    // Each: what waits for the client, one read, and what the allocator keeps.
    assert!(grown < 4 * 3 * 1024 * 1024 + (8 << 20), "{grown} bytes");
    keeps_its_latency(&alone, &beside);
    keeps_its_latency(&alone, &latencies(&mut other, 200));
}

#[test]
fn tiny_messages_and_prepared_statements_without_end_stay_within_their_limits() {
    let server = Postgres::start();
    let proxy = limited(server.address(), "pending_replies: 4096, prepared_statements: 1000");
    let mut other = Raw::login(proxy.address(), "support");
    let before = proxy.resident_bytes();
    // Nobody reads the answers.
    let syncs = flood(Raw::login(proxy.address(), "app").into_stream(), sync().repeat(5000));
    let run = [parse("", "select 1"), bind("", "", &[], false), execute("", 0), sync()].concat();
    let statements = flood(Raw::login(proxy.address(), "app").into_stream(), run.repeat(100));
    stands_still(&syncs);
    stands_still(&statements);
    assert_eq!(other.query("select 1").value(), "1");
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 2 * 3 * 1024 * 1024 + (16 << 20), "{grown} bytes");

    let mut hoarder = Raw::login(proxy.address(), "app");
    let mut refused = 0;
    for round in 0..20 {
        let many: Vec<u8> = (0..100)
            .flat_map(|n| [parse(&format!("s{round}_{n}"), "select 1"), sync()].concat())
            .collect();
        hoarder.send_bytes(&many);
        refused += (0..100).filter(|_| hoarder.reply().code() == "54000").count();
    }
    assert_eq!(refused, 1000, "half of them");
}

#[test]
fn a_message_trickled_byte_by_byte_costs_what_has_arrived() {
    let server = Postgres::start();
    let proxy = limited(server.address(), "");
    let mut raw = Raw::login(proxy.address(), "app");
    assert_eq!(raw.extended("select $1", &["x"], false).code(), "");
    let before = proxy.resident_bytes();
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut one = Raw::login(proxy.address(), "app");
        // Half a gigabyte is announced, a little comes.
        one.send_bytes(&parse("", "select $1"));
        one.send_bytes(&[b'B', 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x1f, 0xff, 0xff, 0]);
        for byte in [b'x'; 64] {
            one.send_bytes(&[byte]);
        }
        streams.push(one);
    }
    assert_eq!(raw.extended("select $1", &["y"], false).value(), "y");
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 100 * 64 * 1024, "{grown} bytes");
}

#[test]
fn a_slow_reader_of_a_huge_result_holds_high_water_and_gets_all_of_it() {
    let server = Postgres::start();
    let proxy = limited(server.address(), "high_water: 1MiB");
    let mut other = Raw::login(proxy.address(), "support");
    let alone = latencies(&mut other, 100);
    let before = proxy.resident_bytes();
    let mut slow = Raw::login(proxy.address(), "app");
    slow.send_bytes(&query("select repeat('x', 1000) from generate_series(1, 60000)"));
    wait_until("the server waits for the client", Duration::from_secs(30), || {
        let sql = "select count(*) from pg_stat_activity where usename = 'app' \
                   and wait_event = 'ClientWrite'";
        server.admin(sql).trim() == "1"
    });
    keeps_its_latency(&alone, &latencies(&mut other, 100));
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    assert_eq!(slow.reply().rows.len(), 60_000);
}
