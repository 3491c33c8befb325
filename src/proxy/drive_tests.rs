//! The driver, driven: a toy protocol, streams in memory, no ports.
#![expect(clippy::disallowed_methods, reason = "the tests' own peers, awaited to their end")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex,
};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::admission::{Admission, Admissions};
use super::cancel::{self, CancelRegistry};
use super::clock::Clock;
use super::drive::Connection;
use super::end::End;
use super::seat::TURN_EVENTS;
use super::shared::{Datasource, DriveLimits, Reach, Shared};
use super::shutdown::{Shutdown, Stage};
use super::toy::Toy;
use super::uid::Birth;
use super::upstream::{Dial, Dialed, Place};
use crate::admin::Status;
use crate::analysis::{Analyzer, sql::Predicates};
use crate::audit::{AuditConfig, Queue, Sink, Target, WhenFull, Writer, start_with};
use crate::config::{SessionLimits, TcpLimits};
use crate::event::{Event, EventKind};
use crate::metrics::{Build, DatasourceLabels, Metrics};
use crate::policy::{RuleSet, Throttles};
use crate::session::gate::{ActiveRules, PlanCache};
use crate::tls::Acceptor;

mod limits;

/// Servers that live in memory: the test gets the other end of each connection.
struct Memory {
    servers: Option<mpsc::Sender<DuplexStream>>,
    pipe_bytes: usize,
}

impl Dial for Memory {
    type Stream = DuplexStream;

    async fn dial(&self) -> io::Result<Dialed<DuplexStream>> {
        let Some(servers) = &self.servers else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let (ours, theirs) = duplex(self.pipe_bytes);
        servers.try_send(theirs).map_err(io::Error::other)?;
        Ok(Dialed { stream: ours, tls: None, place: Place::default() })
    }

    async fn dial_again(&self, _place: Place) -> io::Result<Dialed<DuplexStream>> {
        self.dial().await
    }
}

struct Bench {
    datasource: Arc<Datasource<Memory>>,
    servers: mpsc::Receiver<DuplexStream>,
    queue: Queue,
    writer: Writer,
    written: Written,
    tasks: JoinSet<End>,
}

/// A sink that keeps what is written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<Event>>>);

impl Sink for Written {
    fn write(&mut self, batch: &[Event]) -> io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(batch);
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn audit(queue_events: usize, when_full: WhenFull) -> AuditConfig {
    let wait_deadline = Duration::from_millis(200);
    AuditConfig { target: Target::Stdout, queue_events, when_full, wait_deadline }
}

/// Clients that may be logged in at a time.
const CLIENTS: usize = 50;

fn limits() -> DriveLimits {
    DriveLimits {
        read_bytes_max: 16 * 1024,
        high_water_bytes: 64 * 1024,
        held_bytes_max: 128 * 1024,
        login_timeout: Duration::from_secs(5),
        tcp: TcpLimits {
            keepalive: Duration::from_secs(60),
            user_timeout: Duration::from_secs(60),
        },
        cancel_timeout: Duration::from_secs(5),
        flush_timeout: Duration::from_millis(300),
        drain_grace: Duration::ZERO,
    }
}

impl Bench {
    fn new(limits: DriveLimits) -> Self {
        Self::with(limits, &audit(1000, WhenFull::Wait), true)
    }

    fn timed(sessions: SessionLimits) -> Self {
        let mut bench = Self::new(limits());
        let datasource = Arc::get_mut(&mut bench.datasource).expect("nobody has it yet");
        datasource.limits = sessions;
        bench
    }

    fn with(limits: DriveLimits, audit: &AuditConfig, reachable: bool) -> Self {
        Self::build((limits, reachable), audit, None)
    }

    fn with_tls(tls: Acceptor) -> Self {
        let tls = Arc::new(ArcSwap::from_pointee(tls));
        Self::build((limits(), true), &audit(1000, WhenFull::Wait), Some(tls))
    }

    fn build(
        (limits, reachable): (DriveLimits, bool),
        audit: &AuditConfig,
        tls: Option<Arc<ArcSwap<Acceptor>>>,
    ) -> Self {
        let build = Build { version: "0", commit: "0", started_us: 0 };
        let labels = DatasourceLabels { name: "toy", protocol: "postgresql" };
        let metrics = Metrics::new(build, &[labels]).unwrap();
        let written = Written::default();
        let (queue, writer) = start_with(audit, Box::new(written.clone()), Arc::clone(&metrics));
        let datasource_metrics = Arc::clone(metrics.datasource("toy").unwrap());
        let (sender, servers) = mpsc::channel(16);
        let rules = ActiveRules {
            set: RuleSet::default(),
            predicates: Predicates::default(),
            digest: String::new(),
            generation: 1,
        };
        let shared = Arc::new(Shared {
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            workers: super::workers::Workers::start(1).unwrap(),
            plans: PlanCache::new(1024),
            throttles: Throttles::default(),
            sessions: Arc::default(),
            keys: Arc::default(),
            audit: queue.clone(),
            metrics,
            status: Arc::new(Status::default()),
            clock: Clock::start(),
            admissions: Admissions::new(CLIENTS, 100, 100),
            shutdown: Arc::new(Shutdown::default()),
            limits,
        });
        let datasource = Arc::new(Datasource {
            auth: crate::auth::Authenticator::new(
                crate::auth::Logins::default(),
                ("toy".into(), Arc::clone(&shared.keys)),
                Arc::clone(&shared.rules),
            ),
            shared,
            name: "toy".into(),
            analyzer: Arc::new(Analyzer::default()),
            cancels: Arc::new(CancelRegistry::default()),
            dial: Memory { servers: reachable.then_some(sender), pipe_bytes: 4096 },
            address: "memory".into(),
            reach: Reach::default(),
            metrics: datasource_metrics,
            limits: SessionLimits::default(),
            tls,
        });
        Self { datasource, servers, queue, writer, written, tasks: JoinSet::new() }
    }

    /// A client in front of the driver; its pipe holds 4 KiB.
    fn client(&mut self) -> DuplexStream {
        let (ours, theirs) = duplex(4096);
        let birth = Birth::draw(self.datasource.shared.clock.now()).unwrap();
        let session = Toy::new(&birth);
        let shared = &self.datasource.shared;
        let place = shared.admissions.try_login().unwrap();
        let admission =
            Admission::new(Arc::clone(&shared.admissions), place, shared.limits.login_timeout);
        let datasource = Arc::clone(&self.datasource);
        let connection = Connection::new(session, birth, theirs, datasource, admission);
        self.tasks.spawn(connection.run());
        ours
    }

    /// A logged-in client and its server.
    async fn pair(&mut self) -> (DuplexStream, DuplexStream) {
        let mut client = self.client();
        say(&mut client, "hello\n").await;
        hear(&mut client, "hi\n").await;
        let server = self.servers.recv().await.unwrap();
        (client, server)
    }

    async fn end(&mut self) -> End {
        within(self.tasks.join_next()).await.unwrap().unwrap()
    }

    /// What was recorded, in order.
    async fn recorded(self) -> Vec<&'static str> {
        within(self.writer.close()).await.unwrap();
        let name = |event: &Event| match event.kind {
            EventKind::Lifecycle { phase } => phase,
            _ => "?",
        };
        self.written.0.lock().unwrap().iter().map(name).collect()
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("hangs")
}

async fn say(to: &mut (impl AsyncWrite + Unpin), text: &str) {
    within(to.write_all(text.as_bytes())).await.unwrap();
}

async fn hear(from: &mut (impl AsyncRead + Unpin), expected: &str) {
    let mut got = vec![0; expected.len()];
    within(from.read_exact(&mut got)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&got), expected);
}

/// Everything up to the end of the stream.
async fn rest(mut from: impl AsyncRead + Unpin) -> String {
    let mut got = String::new();
    within(from.read_to_string(&mut got)).await.unwrap();
    got
}

/// Writes for ever, counting what was taken.
fn flood(mut to: DuplexStream, piece: &'static [u8]) -> (JoinHandle<()>, mpsc::Receiver<usize>) {
    let (counter, counts) = mpsc::channel(100_000);
    let task = tokio::spawn(async move {
        while to.write_all(piece).await.is_ok() {
            if counter.try_send(piece.len()).is_err() {
                return;
            }
        }
    });
    (task, counts)
}

/// The sum of what a flood could write before it stood still.
async fn settled(counts: &mut mpsc::Receiver<usize>) -> usize {
    let mut sum = 0;
    while let Ok(Some(n)) = tokio::time::timeout(Duration::from_millis(200), counts.recv()).await {
        sum += n;
    }
    sum
}

#[tokio::test]
async fn statements_go_there_and_back_with_a_decision_and_an_outcome() {
    let mut bench = Bench::new(limits());
    let (mut client, mut server) = bench.pair().await;
    say(&mut client, "one\ntwo\ndeny\n").await;
    hear(&mut server, "one\ntwo\n").await;
    hear(&mut client, "refused\n").await;
    say(&mut server, "1\n2\n").await;
    hear(&mut client, "1\n2\n").await;
    say(&mut client, "bye\n").await;
    assert_eq!(rest(client).await, "bye\n");
    assert_eq!(rest(server).await, "");
    assert_eq!(bench.end().await, End::Session);
    assert_eq!(bench.recorded().await, ["decided", "decided", "denied", "outcome", "outcome"]);
}

#[tokio::test]
async fn a_connection_at_rest_lets_go_of_rules_that_are_in_force_no_more() {
    let mut bench = Bench::new(limits());
    let _pair = bench.pair().await;
    let shared = &bench.datasource.shared;
    let (old, rules) = (Arc::downgrade(&shared.rules.load_full()), RuleSet::default());
    let (predicates, digest) = (Predicates::default(), String::new());
    shared.rules.store(Arc::new(ActiveRules { set: rules, predicates, digest, generation: 2 }));
    assert_eq!(old.strong_count(), 1, "the connection's");
    shared.sessions.wake();
    within(async {
        while old.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_unreachable_server_is_the_sessions_to_tell() {
    let mut bench = Bench::with(limits(), &audit(100, WhenFull::Refuse), false);
    let mut client = bench.client();
    say(&mut client, "hello\n").await;
    assert_eq!(rest(client).await, "unreachable\n");
    assert_eq!(bench.end().await, End::Session);
}

#[tokio::test]
async fn a_client_that_never_reads_stops_its_server() {
    let mut bench = Bench::new(limits());
    let (mut client, server) = bench.pair().await;
    say(&mut client, "give\n").await;
    let (task, mut counts) = flood(server, &[b'x'; 1024]);
    let taken = settled(&mut counts).await;
    // High water, one read beyond it, and the two pipes.
    assert!(taken <= 64 * 1024 + 16 * 1024 + 2 * 4096 + 2048, "took {taken} bytes");
    assert!(taken >= 64 * 1024, "took only {taken} bytes");
    drop(client);
    assert_eq!(bench.end().await, End::Client);
    task.abort();
}

#[tokio::test]
async fn refused_statements_of_a_client_that_never_reads_are_bounded() {
    let mut bench = Bench::new(limits());
    let (client, _server) = bench.pair().await;
    let (reader, writer) = tokio::io::split(client);
    let (far, near) = duplex(64);
    let pump = tokio::spawn(async move {
        let (mut near, mut writer) = (near, writer);
        let _ = tokio::io::copy(&mut near, &mut writer).await;
    });
    let (task, mut counts) = flood(far, b"deny\ndeny\ndeny\ndeny\n");
    let drained = async {
        let mut sum = 0;
        while let Ok(Some(n)) =
            tokio::time::timeout(Duration::from_millis(300), counts.recv()).await
        {
            sum += n;
        }
        sum
    };
    let taken = within(drained).await;
    // Each five bytes are answered with eight: far less than high water went in.
    assert!(taken < 64 * 1024 + 32 * 1024, "took {taken} bytes");
    task.abort();
    pump.abort();
    drop(reader);
}

#[tokio::test]
async fn a_server_that_goes_leaves_what_it_said_and_last_words() {
    let mut bench = Bench::new(limits());
    let (mut client, mut server) = bench.pair().await;
    say(&mut client, "one\n").await;
    hear(&mut server, "one\n").await;
    say(&mut server, "half an ans").await;
    drop(server);
    assert_eq!(rest(client).await, "half an ansend ServerGone\n");
    assert_eq!(bench.end().await, End::Server);
    assert_eq!(bench.recorded().await, ["decided", "lost", "closed"]);
}

#[tokio::test]
async fn a_client_that_goes_in_mid_statement_takes_its_server_along() {
    let mut bench = Bench::new(limits());
    let (mut client, mut server) = bench.pair().await;
    say(&mut client, "one\n").await;
    hear(&mut server, "one\n").await;
    drop(client);
    assert_eq!(rest(server).await, "");
    assert_eq!(bench.end().await, End::Client);
    assert_eq!(bench.recorded().await, ["decided", "lost", "closed"]);
}

#[tokio::test]
async fn malformed_input_ends_its_connection_with_the_sessions_words() {
    let mut bench = Bench::new(limits());
    let (mut client, server) = bench.pair().await;
    say(&mut client, "!\n").await;
    assert_eq!(rest(client).await, "what?\n");
    assert_eq!(rest(server).await, "");
    assert_eq!(bench.end().await, End::Protocol);
}

#[tokio::test]
async fn a_message_without_end_is_not_held_for_ever() {
    let mut bench = Bench::new(limits());
    let (client, _server) = bench.pair().await;
    let (task, mut counts) = flood(client, &[b'x'; 1024]);
    let taken = settled(&mut counts).await;
    assert!(taken <= 128 * 1024 + 16 * 1024 + 8192, "took {taken} bytes");
    assert_eq!(bench.end().await, End::Client);
    task.abort();
}

#[tokio::test]
async fn a_panic_ends_one_connection() {
    let mut bench = Bench::new(limits());
    let (mut other, mut server) = bench.pair().await;
    let mut client = bench.client();
    say(&mut client, "boom\n").await;
    assert_eq!(rest(client).await, "");
    assert!(within(bench.tasks.join_next()).await.unwrap().unwrap_err().is_panic());
    say(&mut other, "one\n").await;
    hear(&mut server, "one\n").await;
}

#[tokio::test]
async fn a_cancel_reaches_the_server_with_the_servers_key() {
    let mut bench = Bench::new(limits());
    let mut stranger = bench.client();
    say(&mut stranger, "cancel nobody\n").await;
    assert_eq!(rest(stranger).await, "");
    assert_eq!(bench.end().await, End::Session);

    let (_client, _server) = bench.pair().await;
    let ours = crate::session::CancelKey { pid: 7, secret: b"known".to_vec() };
    let theirs = crate::session::CancelKey { pid: 7, secret: b"real".to_vec() };
    let target = cancel::Target { key: theirs, place: Place::default() };
    let guard = bench.datasource.cancels.register(ours, target);
    let mut late = bench.client();
    say(&mut late, "cancel known\n").await;
    assert_eq!(rest(late).await, "");
    assert!(bench.servers.try_recv().is_err(), "nothing is in flight: nothing is forwarded");
    guard.set_busy(true);
    let mut canceller = bench.client();
    say(&mut canceller, "cancel known\n").await;
    let mut cancelled = within(bench.servers.recv()).await.unwrap();
    let mut request = [0; 16];
    within(cancelled.read_exact(&mut request)).await.unwrap();
    assert_eq!(request[8..], [0, 0, 0, 7, b'r', b'e', b'a', b'l']);
    drop(cancelled);
    assert_eq!(rest(canceller).await, "");
}

#[tokio::test]
async fn draining_ends_idle_sessions_now_and_busy_ones_when_they_are_idle() {
    let mut bench = Bench::new(limits());
    let (idle, _first) = bench.pair().await;
    let (mut busy, mut server) = bench.pair().await;
    say(&mut busy, "one\n").await;
    hear(&mut server, "one\n").await;
    let shutdown = Arc::clone(&bench.datasource.shared.shutdown);
    shutdown.advance(Stage::Draining);
    assert_eq!(rest(idle).await, "end Shutdown\n");
    assert_eq!(bench.end().await, End::Shutdown);
    say(&mut server, "1\n").await;
    assert_eq!(rest(busy).await, "1\nend Shutdown\n");

    let mut bench = Bench::new(limits());
    let (mut stuck, _server) = bench.pair().await;
    say(&mut stuck, "one\n").await;
    bench.datasource.shared.shutdown.advance(Stage::Ending);
    assert_eq!(rest(stuck).await, "end Shutdown\n");
}

#[tokio::test]
async fn deadlines_of_login_and_silence() {
    let short = Duration::from_millis(60);
    let mut bench = Bench::new(DriveLimits { login_timeout: short, ..limits() });
    let silent = bench.client();
    assert_eq!(rest(silent).await, "end LoginTimeout\n");
    assert_eq!(bench.end().await, End::Timeout);

    let limits = SessionLimits { client_idle_timeout: Some(short), ..SessionLimits::default() };
    let mut bench = Bench::timed(limits);
    let (mut client, mut server) = bench.pair().await;
    say(&mut client, "slow\n").await;
    hear(&mut server, "slow\n").await;
    tokio::time::sleep(short * 3).await;
    say(&mut server, "done\n").await;
    assert_eq!(rest(client).await, "done\nend IdleTimeout\n");
}

#[tokio::test]
async fn a_full_audit_queue_holds_the_client_back_then_ends_it_and_loses_nothing() {
    // Two sessions' last events, one statement's two, and no more than a turn's room.
    let mut bench = Bench::with(limits(), &audit(TURN_EVENTS + 4, WhenFull::Wait), true);
    let queue = bench.queue.clone();
    let (mut client, mut server) = bench.pair().await;
    let hog = queue.try_reserve(TURN_EVENTS).unwrap();
    say(&mut client, "one\n").await;
    let mut one = [0; 4];
    let early = tokio::time::timeout(Duration::from_millis(50), server.read_exact(&mut one)).await;
    assert!(early.is_err(), "forwarded without a place for its record");
    drop(hog);
    hear(&mut server, "one\n").await;
    say(&mut server, "1\n").await;
    hear(&mut client, "1\n").await;
    let _hog = queue.try_reserve(TURN_EVENTS).unwrap();
    say(&mut client, "two\n").await;
    assert_eq!(rest(client).await, "end AuditUnavailable\n");
    assert_eq!(rest(server).await, "");
    assert_eq!(bench.end().await, End::Audit);
    assert_eq!(bench.recorded().await, ["decided", "outcome", "closed"]);
}

#[tokio::test]
async fn idle_sessions_hold_little_beyond_what_they_owe() {
    let mut bench = Bench::with(limits(), &audit(100, WhenFull::Refuse), true);
    let queue = bench.queue.clone();
    let mut pairs = Vec::new();
    for _ in 0..10 {
        pairs.push(bench.pair().await);
    }
    // Each owes one; the room for a turn is kept within a quarter of the queue.
    assert!(queue.try_reserve(100 - 10 - 25 - TURN_EVENTS).is_some());
    assert!(queue.try_reserve(91).is_none());
}

/// A server's and a client's half of TLS.
fn tls() -> (Acceptor, tokio_rustls::TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Acceptor::new(Arc::new(server), made.cert.der()), Arc::new(client).into())
}

#[tokio::test]
async fn a_client_can_go_on_in_tls() {
    let (server, connector) = tls();
    let mut bench = Bench::with_tls(server);
    let mut plain = bench.client();
    say(&mut plain, "tls\n").await;
    hear(&mut plain, "S\n").await;
    let name = "localhost".try_into().unwrap();
    let mut client = within(connector.connect(name, plain)).await.unwrap();
    say(&mut client, "hello\n").await;
    hear(&mut client, "secured\nhi\n").await;
    let mut server = within(bench.servers.recv()).await.unwrap();
    say(&mut client, "one\n").await;
    hear(&mut server, "one\n").await;
    // Longer than a record and than the pipe: written out piece by piece.
    let long = format!("{}\n", "x".repeat(100_000));
    let (_, ()) = tokio::join!(say(&mut server, &long), hear(&mut client, &long));
    say(&mut client, "bye\n").await;
    assert_eq!(rest(client).await, "bye\n");
}

#[tokio::test]
async fn bytes_before_the_handshake_end_the_connection() {
    let mut bench = Bench::with_tls(tls().0);
    let mut client = bench.client();
    say(&mut client, "tls\nhello\n").await;
    let heard = rest(client).await;
    assert!(!heard.contains("secured") && !heard.contains("hi"), "{heard}");
    assert_eq!(bench.end().await, End::Protocol);
}

#[tokio::test]
async fn no_server_is_dialed_for_a_client_without_a_place() {
    let mut bench = Bench::new(limits());
    let mut inside = Vec::new();
    for _ in 0..CLIENTS {
        inside.push(bench.pair().await);
    }
    let mut client = bench.client();
    say(&mut client, "hello\n").await;
    assert_eq!(rest(client).await, "end TooManyClients\n");
    assert_eq!(bench.end().await, End::Refused);
    assert!(bench.servers.try_recv().is_err());
    // A place that is given back is free for the next.
    let (mut leaving, _server) = inside.pop().unwrap();
    say(&mut leaving, "bye\n").await;
    assert_eq!(rest(leaving).await, "bye\n");
    assert_eq!(bench.end().await, End::Session);
    bench.pair().await;
}
