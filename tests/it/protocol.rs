//! Versions of the protocol, and cancel keys: each leg speaks its own.

use std::net::SocketAddr;

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::pg::Postgres;
use crate::raw::{self, CANCEL_REQUEST, Message, PROTOCOL_3_0, Raw, query, untyped_packet};
use crate::recorder::{Recorder, contains};

struct Scene {
    server: Postgres,
    recorder: Recorder,
    proxy: Portcullis,
}

impl Scene {
    fn new() -> Self {
        let server = Postgres::start();
        let recorder = Recorder::start(server.address());
        let proxy = Portcullis::start(&Setup::open(recorder.address()));
        Self { server, recorder, proxy }
    }

    /// Logs in with this minor version and these further parameters.
    fn login(&self, minor: u32, more: &[u8]) -> Login {
        let mut raw = Raw::connect(self.proxy.address());
        let parameters = [b"user\0app\0database\0demo\0", more, b"\0"].concat();
        raw.send_bytes(&untyped_packet(PROTOCOL_3_0 + minor, &parameters));
        let mut greeting = Vec::new();
        loop {
            let message = raw.read().expect("the login goes on");
            assert_ne!(message.tag, b'E', "{}", message.body.escape_ascii());
            let ready = message.tag == b'Z';
            greeting.push(message);
            if ready {
                break;
            }
        }
        let body = |tag| {
            let mut found = greeting.iter().filter(|message: &&Message| message.tag == tag);
            found.next().map(|message| message.body.clone())
        };
        Login { key: body(b'K').expect("a key"), negotiated: body(b'v'), raw }
    }

    fn cancels_forwarded(&self) -> bool {
        contains(&self.recorder.to_server(), &CANCEL_REQUEST.to_be_bytes())
    }

    fn running(&self) -> String {
        let text = "select count(*) from pg_stat_activity where usename = 'app' \
                    and state = 'active'";
        self.server.admin(text).trim().to_owned()
    }
}

struct Login {
    raw: Raw,
    /// Body of BackendKeyData.
    key: Vec<u8>,
    /// Body of NegotiateProtocolVersion.
    negotiated: Option<Vec<u8>>,
}

/// A cancel request with this key, until the connection is closed.
fn cancel(address: SocketAddr, key: &[u8]) {
    let mut raw = Raw::connect(address);
    raw.send_bytes(&untyped_packet(CANCEL_REQUEST, key));
    assert_eq!(raw.read_byte(), None, "a cancel request gets no answer");
}

#[test]
fn minor_versions_and_unknown_options_are_negotiated() {
    let scene = Scene::new();
    let answer = |version: u32, options: &[&str]| {
        let count = u32::try_from(options.len()).unwrap();
        let names = options.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat());
        let head = [version.to_be_bytes(), count.to_be_bytes()].concat();
        Some(head.into_iter().chain(names).collect::<Vec<u8>>())
    };
    let v = |minor: u32| PROTOCOL_3_0 + minor;
    let option = b"_pq_.test\x001\0";
    for (minor, more, expected, secret) in [
        (0, &b""[..], None, 4),
        (1, b"", None, 4),
        (2, b"", None, 32),
        (9999, b"", answer(v(2), &[]), 32),
        (0, option, answer(v(0), &["_pq_.test"]), 4),
        (2, option, answer(v(2), &["_pq_.test"]), 32),
        (9999, option, answer(v(2), &["_pq_.test"]), 32),
    ] {
        let mut login = scene.login(minor, more);
        assert_eq!(login.negotiated, expected, "3.{minor}");
        let (pid, key) = login.key.split_at(4);
        assert_eq!(key.len(), secret, "3.{minor}");
        let backend = login.raw.query("select pg_backend_pid()").value();
        assert_eq!(u32::from_be_bytes(pid.try_into().unwrap()).to_string(), backend);
    }
    // The server is always spoken to as it has been since 7.4.
    assert!(!contains(&scene.recorder.to_server(), &v(2).to_be_bytes()));
    assert!(!contains(&scene.recorder.to_server(), b"_pq_."));
}

#[test]
fn other_major_versions_are_refused_as_the_server_refuses_them() {
    let scene = Scene::new();
    for address in [scene.proxy.address(), scene.server.address()] {
        let mut raw = Raw::connect(address);
        raw.send_bytes(&untyped_packet(0x0002_0000, b"user\0app\0\0"));
        while raw.read_byte().is_some() {}
        let text = String::from_utf8_lossy(&raw.received).into_owned();
        assert!(text.starts_with("EFATAL:  unsupported frontend protocol 2.0: "), "{text}");
        assert!(text.ends_with("\n\0"), "{text}");
    }
    for (code, version) in [(0x0004_0000, "4.0"), (0x04d2_162d, "1234.5677")] {
        for address in [scene.proxy.address(), scene.server.address()] {
            let mut raw = Raw::connect(address);
            raw.send_bytes(&untyped_packet(code, b"user\0app\0\0"));
            let reply = raw.reply();
            assert_eq!((reply.code(), reply.sequence.as_str()), ("0A000", "E"), "{version}");
            let said = reply.errors[0].get(b'M');
            assert!(said.contains(&format!("frontend protocol {version}")), "{said}");
        }
    }
}

#[test]
fn a_long_key_cancels_and_a_part_of_it_does_not() {
    let scene = Scene::new();
    let mut login = scene.login(2, b"");
    login.raw.send_bytes(&query("select pg_sleep(30)"));
    wait_until("the statement runs", SOON, || scene.running() == "1");
    let mut wrong = login.key.clone();
    wrong[35] ^= 1;
    for key in [&login.key[..8], &login.key[..35], &wrong, &[&login.key[..], &[0]].concat()] {
        cancel(scene.proxy.address(), key);
    }
    assert!(!scene.cancels_forwarded());
    assert_eq!(scene.running(), "1");
    cancel(scene.proxy.address(), &login.key);
    assert_eq!(login.raw.reply().code(), "57014");
    assert!(scene.cancels_forwarded());
    assert!(!contains(&scene.recorder.to_server(), &login.key[4..]), "our secret stays here");
}

#[test]
fn late_cancel_hits_nothing() {
    let scene = Scene::new();
    let mut raw = Raw::login(scene.proxy.address(), "app");
    assert_eq!(raw.query("select 1").value(), "1");
    raw::cancel(scene.proxy.address(), raw.key);
    assert!(!scene.cancels_forwarded(), "an idle session's cancel went to the server");
    assert_eq!(raw.query("begin").status, b'T');
    raw::cancel(scene.proxy.address(), raw.key);
    assert!(!scene.cancels_forwarded(), "a cancel between two statements went to the server");
    assert_eq!(raw.query("commit").code(), "");
}

#[test]
fn guessing_a_key_is_given_up_before_it_succeeds() {
    let scene = Scene::new();
    let mut raw = Raw::login(scene.proxy.address(), "app");
    raw.send_bytes(&query("select pg_sleep(5)"));
    wait_until("the statement runs", SOON, || scene.running() == "1");
    for guess in 1..=16 {
        raw::cancel(scene.proxy.address(), (raw.key.0, raw.key.1 ^ guess));
    }
    // From an address that guessed so often, not even the right key is taken.
    raw::cancel(scene.proxy.address(), raw.key);
    assert!(!scene.cancels_forwarded());
    assert_eq!(raw.reply().code(), "");
}

#[test]
fn a_storm_of_cancels_stops_what_it_may_and_nothing_else() {
    let scene = Scene::new();
    let mut victim = Raw::login(scene.proxy.address(), "app");
    let mut bystander = Raw::login(scene.proxy.address(), "app");
    victim.send_bytes(&query("select pg_sleep(30)"));
    wait_until("the statement runs", SOON, || scene.running() == "1");
    let (address, key) = (scene.proxy.address(), victim.key);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..25).for_each(|_| raw::cancel(address, key)));
        }
        for round in 0..50 {
            let answer = bystander.query(&format!("select {round}"));
            assert_eq!(answer.value(), round.to_string());
        }
        assert_eq!(victim.reply().code(), "57014");
    });
}
