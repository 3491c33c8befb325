//! Hostile bytes are refused where PostgreSQL refuses them, and what follows is the same: each case
//! is sent to the server itself and through the proxy, whole and split at many places.
//!
//! Where the server hangs up without a word (a length that cannot be) the proxy may say why first.
//! Of a message that is refused here not one byte reaches the server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::{Portcullis, Setup};
use crate::pg::Postgres;
use crate::raw::{
    CANCEL_REQUEST, PROTOCOL_3_0, SSL_REQUEST, execute, frame, parse, query, startup_packet, sync,
    untyped_packet,
};
use crate::recorder::{Recorder, contains};

/// Occurs in refused messages and nowhere else.
const MARK: &[u8] = b"xyzzy_smuggled";

/// What is sent, and what must be true of it.
struct Case {
    name: &'static str,
    before: Before,
    bytes: Vec<u8>,
    /// The server may see nothing of it.
    refused: bool,
    /// What follows the hostile bytes.
    after: After,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The first bytes of a connection.
    Nothing,
    /// A login.
    Login,
    /// A login, and `begin`.
    Transaction,
    /// A login, and Parse of a good statement without a Sync.
    Batch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// Sync and a query: shows whether the connection lives.
    Probe,
    /// The end of what the client says: the message is not complete.
    End,
}

fn cstr(text: &[u8]) -> Vec<u8> {
    [text, b"\0"].concat()
}

fn lying(tag: u8, declared: i32, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &declared.to_be_bytes(), body].concat()
}

/// `select 'mark'` with this behind the terminator.
fn marked(tail: &[u8]) -> Vec<u8> {
    [b"select '", MARK, b"'\0", tail].concat()
}

fn in_each_state(name: &'static str, bytes: &[u8]) -> [Case; 3] {
    [Before::Login, Before::Transaction, Before::Batch].map(|before| Case {
        name,
        before,
        bytes: bytes.to_vec(),
        refused: contains(bytes, MARK),
        after: After::Probe,
    })
}

/// Messages whose frame is whole and whose content is not what it must be.
fn malformed_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let unterminated = [b"select '", MARK, b"'"].concat();
    let with = |head: &[u8], tail: &[u8]| [head, MARK, tail].concat();
    vec![
        ("query without terminator", frame(b'Q', &unterminated)),
        (
            "query with a second query behind its terminator",
            frame(b'Q', &marked(b"drop table t\0")),
        ),
        ("query with one byte behind its terminator", frame(b'Q', &marked(b"\0"))),
        ("empty query body", frame(b'Q', b"")),
        ("parse without body", frame(b'P', b"")),
        ("parse with a name only", frame(b'P', &cstr(MARK))),
        ("parse without terminator", frame(b'P', &[b"\0", &unterminated[..]].concat())),
        ("parse without count", frame(b'P', &[b"\0", &marked(b"")[..]].concat())),
        ("parse with half a count", frame(b'P', &[b"\0", &marked(b"\0")[..]].concat())),
        ("parse with a missing type", frame(b'P', &[b"\0", &marked(b"\0\x01")[..]].concat())),
        (
            "parse with types missing",
            frame(b'P', &[b"\0", &marked(b"\xff\xff\0\0\0\x17")[..]].concat()),
        ),
        ("parse with bytes left", frame(b'P', &[b"\0", &marked(b"\0\0Q")[..]].concat())),
        ("bind without body", frame(b'B', b"")),
        ("bind with an unterminated portal", frame(b'B', MARK)),
        ("bind with an unterminated statement", frame(b'B', &with(b"\0", b""))),
        ("describe without body", frame(b'D', b"")),
        ("describe of an unknown kind", frame(b'D', &with(b"X", b"\0"))),
        ("describe without terminator", frame(b'D', &with(b"S", b""))),
        ("describe with bytes left", frame(b'D', &with(b"S", b"\0\0"))),
        ("close without body", frame(b'C', b"")),
        ("close of an unknown kind", frame(b'C', &with(b"X", b"\0"))),
        ("close without terminator", frame(b'C', &with(b"P", b""))),
        ("close with bytes left", frame(b'C', &with(b"P", b"\0x"))),
        ("execute without body", frame(b'E', b"")),
        ("execute without terminator", frame(b'E', MARK)),
        ("execute without a row count", frame(b'E', &with(b"", b"\0"))),
        ("execute with a short row count", frame(b'E', &with(b"", b"\0\0\0\0"))),
        ("execute with bytes left", frame(b'E', &with(b"", b"\0\0\0\0\0Q"))),
        ("flush with a body", frame(b'H', MARK)),
        ("sync with a body", frame(b'S', MARK)),
        ("copy data out of place", frame(b'd', b"stray")),
        ("copy done out of place", frame(b'c', b"")),
        ("copy done with a body out of place", frame(b'c', b"stray")),
        ("copy fail out of place", frame(b'f', b"stray")),
    ]
}

/// Frames that cannot be, and other messages that end the connection.
fn impossible_frames() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("length 0", lying(b'Q', 0, MARK)),
        ("length 3", lying(b'Q', 3, MARK)),
        ("length -1", lying(b'Q', -1, MARK)),
        ("most negative length", lying(b'Q', i32::MIN, MARK)),
        ("length of 2 GB", lying(b'Q', i32::MAX, MARK)),
        ("length of 1 GB", lying(b'P', 0x3fff_ffff, MARK)),
        ("long sync", lying(b'S', 10_001, MARK)),
        ("long flush", lying(b'H', 10_001, MARK)),
        ("long execute", lying(b'E', 20_000, MARK)),
        ("long describe", lying(b'D', 20_000, MARK)),
        ("long close", lying(b'C', 20_000, MARK)),
        ("unknown letter", frame(b'!', MARK)),
        ("zero for a letter", frame(0, MARK)),
        ("a letter of the server", frame(b'Z', MARK)),
        ("a password out of turn", frame(b'p', MARK)),
        ("a start-up in the middle", untyped_packet(PROTOCOL_3_0, b"user\0xyzzy_smuggled\0\0")),
        ("a cancel in the middle", untyped_packet(CANCEL_REQUEST, b"xyzzy_smuggled")),
    ]
}

/// First packets.
fn first_packets() -> Vec<(&'static str, Vec<u8>)> {
    let startup = |rest: &[u8]| untyped_packet(PROTOCOL_3_0, rest);
    let user = b"user\0app\0";
    vec![
        ("start-up without parameters", startup(b"\0")),
        ("start-up without its last terminator", startup(user)),
        ("start-up with an unterminated value", startup(b"user\0xyzzy_smuggled")),
        ("start-up with an unterminated name", startup(b"xyzzy_smuggled")),
        ("start-up with a name and no value", startup(b"user\0xyzzy_smuggled\0database\0\0")),
        ("start-up with bytes left", startup(b"user\0xyzzy_smuggled\0\0select")),
        ("start-up with two terminators", startup(b"user\0xyzzy_smuggled\0\0\0")),
        ("empty start-up", startup(b"")),
        ("length 0", [0; 4].to_vec()),
        ("length 7", [0, 0, 0, 7, 0, 3, 0].to_vec()),
        ("length -1", [0xff; 8].to_vec()),
        ("too long a start-up", [&20_000_u32.to_be_bytes()[..], &[0, 3, 0, 0]].concat()),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("version 4", untyped_packet(0x0004_0000, b"user\0xyzzy_smuggled\0\0")),
        ("a cancel with a short key", untyped_packet(CANCEL_REQUEST, b"\0\0\0\x07abc")),
        ("a cancel without a key", untyped_packet(CANCEL_REQUEST, b"")),
        (
            "SSLRequest twice",
            [untyped_packet(SSL_REQUEST, b""), untyped_packet(SSL_REQUEST, b"")].concat(),
        ),
        (
            "a start-up behind SSLRequest",
            [untyped_packet(SSL_REQUEST, b""), startup_packet(&[("user", "xyzzy_smuggled")])]
                .concat(),
        ),
    ]
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bytes) in malformed_bodies() {
        cases.extend(in_each_state(name, &bytes));
    }
    let single = |before, after| {
        move |(name, bytes): (&'static str, Vec<u8>)| Case {
            name,
            before,
            bytes,
            refused: true,
            after,
        }
    };
    cases.extend(impossible_frames().into_iter().map(single(Before::Login, After::Probe)));
    cases.extend(first_packets().into_iter().map(single(Before::Nothing, After::End)));
    for (name, bytes) in [
        ("half a head", b"Q\0\0".to_vec()),
        ("half a query", lying(b'Q', 100, b"select 'xyzzy_smuggled")),
        ("half a parse", lying(b'P', 100, b"\0select 'xyzzy_smuggled")),
    ] {
        cases.push(single(Before::Login, After::End)((name, bytes)));
    }
    let bad = frame(b'P', &[b"\0", &marked(b"")[..]].concat());
    let runs = [bad, parse("", "select 'xyzzy_smuggled'"), execute("", 0)].concat();
    cases
        .push(single(Before::Login, After::Probe)(("what follows a bad message is skipped", runs)));
    cases
}

/// What a peer answered: a letter for each message, with the SQLSTATE of errors and the status of
/// ReadyForQuery; `.` at the end if it hung up.
fn talk(address: SocketAddr, case: &Case, split: usize) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut said = String::new();
    let mut received = Vec::new();
    if case.before != Before::Nothing {
        stream.write_all(&startup_packet(&[("user", "app"), ("database", "demo")])).unwrap();
        assert!(read_until(&mut stream, &mut received, |said| said.ends_with("ZI")), "login");
        received.clear();
    }
    match case.before {
        Before::Transaction => {
            stream.write_all(&query("begin")).unwrap();
            assert!(read_until(&mut stream, &mut received, |said| said.ends_with("ZT")), "begin");
            received.clear();
        }
        Before::Batch => stream.write_all(&parse("fine", "select 1")).unwrap(),
        Before::Nothing | Before::Login => {}
    }
    let (first, second) = case.bytes.split_at(split);
    // A peer that hung up at the first part is what the test looks for.
    let _ = stream.write_all(first).and_then(|()| stream.write_all(second));
    let open = match case.after {
        After::Probe => {
            let _ = stream.write_all(&[sync(), query("select 'probe'")].concat());
            read_until(&mut stream, &mut received, |said| {
                said.contains("probe") && (said.ends_with("ZI") || said.ends_with("ZT"))
                    || said.matches("25P02").count() == 1 && said.ends_with("ZE")
            })
        }
        After::End => {
            let _ = stream.shutdown(Shutdown::Write);
            read_until(&mut stream, &mut received, |_| false)
        }
    };
    said.push_str(&shown(&received));
    if !open {
        said.push('.');
    }
    said
}

/// Reads until the summary of what came is as wanted; `false` if the peer hung up before.
fn read_until(stream: &mut TcpStream, received: &mut Vec<u8>, done: impl Fn(&str) -> bool) -> bool {
    let mut buffer = [0; 4096];
    loop {
        if done(&shown(received)) {
            return true;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return false,
            Err(error) => panic!("{error}; so far {}", shown(received)),
        }
    }
}

fn shown(mut bytes: &[u8]) -> String {
    let mut said = String::new();
    // The one-byte answers to requests for encryption.
    while let Some((b'N', rest)) = bytes.split_first()
        && rest.first() != Some(&0)
    {
        said.push('n');
        bytes = rest;
    }
    while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
        let len =
            usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).unwrap();
        let Some((body, rest)) = rest.split_at_checked(len - 4) else { break };
        bytes = rest;
        match head[0] {
            b'E' => {
                let field = |letter: u8| {
                    let mut fields = body.split(|byte| *byte == 0);
                    let found = fields.find(|field| field.first() == Some(&letter));
                    String::from_utf8_lossy(&found.unwrap_or_default()[1..]).into_owned()
                };
                said.push_str(&format!(" {} {}", field(b'V'), field(b'C')));
            }
            b'Z' => said.push_str(&format!(" Z{}", char::from(body[0]))),
            b'D' => said.push_str(&format!(" {}", String::from_utf8_lossy(&body[6..]))),
            b'S' | b'N' | b'K' | b'R' | b'T' | b'C' => {}
            other => said.push_str(&format!(" {}", char::from(other))),
        }
    }
    said
}

/// Splits that are tried: every byte of short messages, some of long ones.
fn splits(len: usize) -> impl Iterator<Item = usize> {
    (1..len).step_by((len / SPLITS_MAX).max(1))
}

const SPLITS_MAX: usize = 24;

/// The summary without last words: where the server hangs up without any, the proxy says why.
fn unspoken(summary: &str, case: &Case) -> String {
    let silent = summary.replace(" FATAL 08P01.", ".");
    match case.before {
        // Whether a second request was there already when the first was answered decides which of
        // two words the server uses.
        Before::Nothing => silent.replace(" FATAL 0A000.", "."),
        Before::Login | Before::Transaction | Before::Batch => silent,
    }
}

#[test]
fn hostile_bytes_are_refused_where_the_server_refuses_them() {
    let server = Postgres::start();
    let recorder = Recorder::start(server.address());
    let proxy = Portcullis::start(&Setup::open(recorder.address()));
    let (mut failed, mut tried) = (Vec::new(), 0);
    let cases = cases();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    for case in &cases {
        let direct = talk(server.address(), case, 0);
        for split in std::iter::once(0).chain(splits(case.bytes.len())) {
            recorder.clear();
            let through = talk(proxy.address(), case, split);
            tried += 1;
            if through != direct && unspoken(&through, case) != unspoken(&direct, case) {
                failed.push(format!("{} (split {split}): {through}, directly{direct}", case.name));
                break;
            }
            if case.refused && contains(&recorder.to_server(), MARK) {
                failed.push(format!("{} (split {split}): reached the server", case.name));
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n"));
    assert!(tried > 600, "only {tried} conversations");
}
