//! COPY FROM STDIN with everything a client may send at the wrong moment: afterwards replies are in
//! step with what was asked.

use crate::harness::{Portcullis, Setup};
use crate::pg::Postgres;
use crate::raw::{Raw, bind, execute, frame, parse, query, sync};

struct Scene {
    server: Postgres,
    proxy: Portcullis,
}

impl Scene {
    fn new() -> Self {
        let server = Postgres::start();
        server.admin("create table numbers (n int); grant all on numbers to app");
        let proxy = Portcullis::start(&Setup::open(server.address()));
        Self { server, proxy }
    }

    /// A connection to the server and one through the proxy.
    fn both(&self) -> [Raw; 2] {
        [self.server.address(), self.proxy.address()].map(|address| Raw::login(address, "app"))
    }
}

fn copy_by_messages(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[], false), execute("", 0), sync()].concat()
}

fn read_to(raw: &mut Raw, tag: u8) -> String {
    let mut sequence = String::new();
    while let Some(message) = raw.read() {
        sequence.push(char::from(message.tag));
        if message.tag == tag {
            break;
        }
    }
    sequence
}

/// Replies up to that of `select 'last'`, as their letters.
fn to_the_last(raw: &mut Raw) -> String {
    let mut sequence = String::new();
    loop {
        let reply = raw.reply();
        assert_ne!(reply.status, 0, "the session goes on: {sequence}");
        sequence += &reply.sequence;
        if reply.rows.iter().flatten().any(|value| value.as_deref() == Some(b"last")) {
            return sequence;
        }
    }
}

#[test]
fn syncs_behind_bad_copy_data_leave_replies_in_step() {
    let scene = Scene::new();
    let bad = frame(b'd', b"bad\n");
    let rest = [query("set application_name = 'a'"), query("select 'last'")].concat();
    let tails = [[&bad[..], &sync(), &rest].concat(), [&bad[..], &sync(), &sync(), &rest].concat()];
    for copy in [query("copy numbers from stdin"), copy_by_messages("copy numbers from stdin")] {
        for tail in &tails {
            let [direct, proxied] = scene.both().map(|mut raw| {
                raw.send_bytes(&copy);
                let begun = read_to(&mut raw, b'G');
                raw.send_bytes(tail);
                (begun, to_the_last(&mut raw))
            });
            assert_eq!(direct, proxied);
        }
    }
}

#[test]
fn everything_at_once_around_a_copy_that_fails_ends_in_step() {
    let scene = Scene::new();
    let mut raw = Raw::login(scene.proxy.address(), "app");
    for sql in ["copy numbers from stdin", "copy numbers from stdin (freeze)"] {
        let data = [frame(b'd', b"bad\n"), sync(), frame(b'c', b""), sync()].concat();
        let last = query("select 'last'");
        raw.send_bytes(&[copy_by_messages(sql), data, query("select 1"), last].concat());
        let sequence = to_the_last(&mut raw);
        assert!(sequence.ends_with("TDCZTDCZ"), "{sequence}");
        let value = raw.query("select 'in step'").value();
        assert_eq!(value, "in step");
    }
}

#[test]
fn a_copy_that_fails_before_it_reads_is_a_plain_error() {
    let scene = Scene::new();
    let replies = scene.both().map(|mut raw| {
        raw.send_bytes(&copy_by_messages("copy numbers from stdin (freeze)"));
        let reply = raw.reply();
        assert_eq!(raw.query("select 'in step'").value(), "in step");
        (reply.sequence.clone(), reply.code().to_owned())
    });
    assert_eq!(replies[0], replies[1]);
    assert!(replies[0].0.ends_with("GEZ"), "{replies:?}");
}

#[test]
fn a_statement_in_the_middle_of_a_copy_is_not_executed() {
    let scene = Scene::new();
    let mut raw = Raw::login(scene.proxy.address(), "app");
    raw.send_bytes(&query("copy numbers from stdin"));
    assert_eq!(read_to(&mut raw, b'G'), "G");
    raw.send_bytes(&[frame(b'd', b"1\n"), query("select 'eaten'")].concat());
    assert_eq!(raw.reply().code(), "08P01");
    assert_eq!(raw.query("select count(*) from numbers").value(), "0");
}

#[test]
fn a_malformed_sync_behind_a_batch_that_fails_is_answered() {
    let scene = Scene::new();
    let mut raw = Raw::login(scene.proxy.address(), "app");
    let failing = [parse("", "select 1/0"), bind("", "", &[], false), execute("", 0)].concat();
    raw.send_bytes(&[failing, frame(b'S', b"x")].concat());
    let reply = raw.reply();
    assert_eq!((reply.code(), reply.status), ("22012", b'I'));
    assert_eq!(raw.query("select 'in step'").value(), "in step");
}
