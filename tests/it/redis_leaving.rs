//! How a Redis hears that a client leaves, or gives something up.

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::recorder::Recorder;
use crate::redis::{RawRedis, Redis, Reply, encode};
use crate::redis_fixture::{Logins, server_with_account};
use crate::redis_standing::{assert_nothing_popped, vanish_while_waiting};

#[test]
fn the_server_knows_that_a_client_is_gone_before_the_client_has_its_answer() {
    let server = Redis::with_settings(&[]);
    let proxy = Portcullis::start(&Setup::redis_trusted(server.address()));
    let mut admin = server.admin();
    for _ in 0..100 {
        let mut client = RawRedis::connect(proxy.address());
        assert_eq!(client.command(&["CLIENT", "SETNAME", "leaving"]), Reply::ok());
        assert_eq!(client.command(&["QUIT"]), Reply::ok());
        let Reply::Bulk(Some(list)) = admin.command(&["CLIENT", "LIST"]) else { panic!("no list") };
        let list = String::from_utf8(list).unwrap();
        assert!(!list.contains("name=leaving"), "{list}");
        assert!(client.closed().is_empty());
    }
}

#[test]
fn a_session_that_said_quit_is_recorded_to_its_end() {
    let server = Redis::with_settings(&[]);
    let proxy = Portcullis::start(&Setup::redis(server.address()));
    let mut client = RawRedis::connect(proxy.address());
    client.send(&[encode(&["SET", "k", "v"]), encode(&["QUIT"])].concat());
    assert_eq!(client.closed(), b"+OK\r\n+OK\r\n");
    wait_until("the session has ended", SOON, || {
        proxy.audit_lines().iter().any(|line| line.contains("session.closed"))
    });
    let trail = proxy.audit_lines().join("\n");
    assert!(trail.contains("\"end\":\"client\""), "{trail}");
    // The decision, and what came of it.
    assert_eq!(trail.matches("\"query_string\":\"SET\"").count(), 2, "{trail}");
}

#[test]
fn a_client_that_said_quit_and_vanishes_leaves_nothing_waiting() {
    let server = Redis::with_settings(&[]);
    let proxy = Portcullis::start(&Setup::redis(server.address()));
    let ask = [encode(&["BLPOP", "jobs", "0"]), encode(&["QUIT"])].concat();
    vanish_while_waiting(&proxy, RawRedis::connect(proxy.address()), &ask);
    assert_nothing_popped(&server);
}

#[test]
fn before_the_login_quit_is_answered_without_the_server() {
    let server = server_with_account();
    let recorder = Recorder::start(server.address());
    let known = "  - {user: support, roles: [reader]}\n";
    let Logins { certified, setup } = Logins::new(recorder.address(), "{method: password}", known);
    let proxy = Portcullis::start(&setup);
    let mut client = certified.connect(proxy.address());
    assert_eq!(client.command(&["QUIT"]), Reply::ok());
    assert!(client.closed().is_empty());
    assert!(recorder.to_server().is_empty());
}

#[test]
fn who_watches_a_server_sees_the_end_of_a_transaction_that_was_given_up() {
    let server = Redis::with_settings(&[]);
    let proxy = Portcullis::start(&Setup::redis_trusted(server.address()));
    let mut watching = server.admin();
    assert_eq!(watching.command(&["MONITOR"]), Reply::ok());
    let mut client = RawRedis::connect(proxy.address());
    assert_eq!(client.command(&["multi"]), Reply::ok());
    assert!(client.command(&["nosuch"]).error().starts_with("ERR unknown command"));
    assert!(client.command(&["exec"]).error().starts_with("EXECABORT "));
    let mut seen = || loop {
        let Reply::Simple(line) = watching.reply() else { panic!("no line") };
        if !line.contains("\"PING\"") {
            return line;
        }
    };
    assert!(seen().ends_with(" \"multi\""));
    assert!(seen().contains(" \"exec\""));
}
