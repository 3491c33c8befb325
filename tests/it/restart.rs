//! Draining, and restarts that no client notices.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::pg::Postgres;
use crate::raw::{Raw, frame, query, startup_packet};

const LOGIN: [(&str, &str); 2] = [("user", "app"), ("database", "demo")];

/// Clients that connect for each question.
const CLIENTS: usize = 8;

/// Successors that take over under load.
const RESTARTS: usize = 5;

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    served: AtomicUsize,
    longest_us: AtomicUsize,
}

impl Load {
    /// Connects, asks and leaves until told to stop. Anything unexpected fails the test.
    fn run(&self, address: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let mut raw = Raw::login(address, "app");
            assert_eq!(raw.query("select 1").value(), "1");
            raw.send_bytes(&frame(b'X', &[]));
            let took = usize::try_from(began.elapsed().as_micros()).unwrap();
            self.longest_us.fetch_max(took, Ordering::Relaxed);
            self.served.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Restarts again and again while clients come and go; `restart` gets the process in service.
    fn over_restarts(address: SocketAddr, what: &str, mut restart: impl FnMut()) {
        let load = Self::default();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| load.run(address))).collect();
            let finished = || clients.iter().any(|client| client.is_finished());
            for _ in 0..RESTARTS {
                let before = load.served.load(Ordering::Relaxed);
                wait_until("clients are served", SOON, || {
                    finished() || load.served.load(Ordering::Relaxed) > before + 100
                });
                restart();
            }
            load.stop.store(true, Ordering::Relaxed);
        });
        let longest = Duration::from_micros(load.longest_us.into_inner().try_into().unwrap());
        println!(
            "{what}: {RESTARTS} restarts under {CLIENTS} clients, {} connections, 0 failed, \
             the longest took {longest:?}",
            load.served.into_inner()
        );
    }
}

#[test]
fn a_socket_of_the_service_manager_outlives_the_process() {
    let server = Postgres::start();
    let setup = Setup::open(server.address());
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut serving = Portcullis::start_activated(&setup, &socket);
    Load::over_restarts(socket.local_addr().unwrap(), "socket activation", || {
        serving.signal("TERM");
        let status = serving.wait(SOON).expect("drains");
        assert!(status.success(), "{}", serving.log());
        serving = Portcullis::start_activated(&setup, &socket);
    });
}

#[test]
fn a_shared_port_is_handed_over() {
    let server = Postgres::start();
    let mut setup = Setup::open(server.address());
    setup.listen = "{address: \"127.0.0.1:{port}\", reuse_port: true}".into();
    let mut serving = Portcullis::start(&setup);
    Load::over_restarts(serving.address(), "reuse_port", || {
        let successor = serving.start_beside(&setup);
        let mut leaving = std::mem::replace(&mut serving, successor);
        leaving.signal("TERM");
        let status = leaving.wait(SOON).expect("drains");
        assert!(status.success(), "{}", leaving.log());
    });
}

#[test]
fn a_handed_over_socket_that_no_entry_has_ends_the_start() {
    let server = Postgres::start();
    let mut setup = Setup::open(server.address());
    setup.listen = "\"127.0.0.2:{port}\"".into();
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ended = std::panic::catch_unwind(|| Portcullis::start_activated(&setup, &socket));
    let said = ended.expect_err("it does not start");
    let said = said.downcast_ref::<String>().unwrap();
    assert!(said.contains("that no `listen` has"), "{said}");
}

fn draining(proxy: &Portcullis) {
    proxy.signal("TERM");
    wait_until("it is not ready", SOON, || proxy.admin("GET", "/readyz").0 == 503);
    // The port is closed: nobody new comes in.
    wait_until("the port is closed", SOON, || TcpStream::connect(proxy.address()).is_err());
}

#[test]
fn transactions_and_copies_finish_while_draining() {
    let server = Postgres::start();
    let mut proxy = Portcullis::start(&Setup::open(server.address()));
    server.admin("create table kept (n int); grant all on kept to app");
    let mut transaction = Raw::login(proxy.address(), "app");
    transaction.query("begin");
    let mut copying = Raw::login(proxy.address(), "app");
    copying.send_bytes(&query("copy kept from stdin"));
    while copying.read().expect("the COPY begins").tag != b'G' {}
    draining(&proxy);
    for _ in 0..100 {
        copying.send_bytes(&frame(b'd', b"7\n"));
    }
    copying.send_bytes(&frame(b'c', &[]));
    assert_eq!(copying.reply().tags, ["COPY 100"]);
    assert_eq!(copying.reply().code(), "57P01");
    assert_eq!(transaction.query("insert into kept values (8)").tags, ["INSERT 0 1"]);
    assert_eq!(transaction.query("commit").tags, ["COMMIT"]);
    assert_eq!(transaction.reply().code(), "57P01");
    assert!(proxy.wait(SOON).expect("ends after the last transaction").success());
    assert_eq!(server.admin("select count(*) from kept").trim(), "101");
}

#[test]
fn a_login_under_way_is_served_once_more() {
    let server = Postgres::start();
    let mut proxy = Portcullis::start(&Setup::open(server.address()));
    let mut late = Raw::connect(proxy.address());
    late.send_bytes(&[0, 0, 0, 8, 4, 210, 22, 47]);
    assert_eq!(late.read_byte(), Some(b'N'));
    draining(&proxy);
    late.send_bytes(&startup_packet(&LOGIN));
    while late.read().expect("the login goes on").tag != b'Z' {}
    assert_eq!(late.query("select 1").value(), "1");
    assert_eq!(late.reply().code(), "57P01");
    assert!(proxy.wait(SOON).expect("ends").success());
}

#[test]
fn every_idle_session_is_told() {
    let server = Postgres::start();
    let mut proxy = Portcullis::start(&Setup::open(server.address()));
    let mut idle: Vec<Raw> = (0..100).map(|_| Raw::login(proxy.address(), "app")).collect();
    let began = Instant::now();
    draining(&proxy);
    for raw in &mut idle {
        assert_eq!(raw.reply().code(), "57P01");
    }
    assert!(proxy.wait(SOON).expect("ends").success());
    println!("{} idle sessions ended in {:?}", idle.len(), began.elapsed());
}
