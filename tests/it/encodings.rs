//! Client encodings: whom no rule concerns uses any, byte for byte; under rules only UTF-8.

use crate::harness::{Portcullis, Setup};
use crate::pg::Postgres;
use crate::raw::{Raw, Reply, frame};
use crate::recorder::{Recorder, contains};

fn login(address: std::net::SocketAddr, user: &str, database: &str, encoding: &str) -> Raw {
    let parameters = [("user", user), ("database", database), ("client_encoding", encoding)];
    Raw::try_login(address, &parameters).unwrap()
}

/// A query of any bytes.
fn query(raw: &mut Raw, text: &[u8]) -> Reply {
    raw.send_bytes(&frame(b'Q', &[text, b"\0"].concat()));
    raw.reply()
}

#[test]
fn latin1_bytes_survive() {
    let server = Postgres::start();
    server.admin("create database latin template template0 encoding 'LATIN1'");
    server.admin("create database bytes template template0 encoding 'SQL_ASCII'");
    let recorder = Recorder::start(server.address());
    let proxy = Portcullis::start(&Setup::open(recorder.address()));
    for (database, encoding) in [("demo", "LATIN1"), ("latin", "LATIN1"), ("bytes", "SQL_ASCII")] {
        let mut through = login(proxy.address(), "app", database, encoding);
        let mut direct = login(server.address(), "app", database, encoding);
        recorder.clear();
        let text = b"select 'caf\xe9' as \"\xe0\xe8\", 1 as n\xe9";
        let (ours, theirs) = (query(&mut through, text), query(&mut direct, text));
        assert_eq!(ours.code(), "", "{database}: {:?}", ours.errors);
        assert_eq!(ours.rows, theirs.rows, "{database}");
        assert_eq!(ours.rows[0][0].as_deref(), Some(&b"caf\xe9"[..]), "{database}");
        assert!(contains(&recorder.to_server(), text), "{database}: other bytes were sent");
        // Positions count characters, whoever finds the error.
        for text in [&b"select '\xe9\xe9\xe9', nowhere"[..], b"select '\xe9\xe9\xe9' frm x y z"] {
            let (ours, theirs) = (query(&mut through, text), query(&mut direct, text));
            for letter in [b'C', b'P'] {
                let (ours, theirs) = (ours.errors[0].get(letter), theirs.errors[0].get(letter));
                assert_eq!(ours, theirs, "{database}: {}", text.escape_ascii());
            }
        }
    }
}

#[test]
fn second_bytes_that_look_like_syntax_are_none() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    let cases: [(&str, &[u8]); 7] = [
        ("SJIS", b"\x83\x5c"),
        ("SJIS", b"\xb1"),
        ("BIG5", b"\xa5\x5c"),
        ("GBK", b"\x81\x5c"),
        ("UHC", b"\xb0\xa1"),
        ("GB18030", b"\x81\x30\x89\x38"),
        ("EUC_JP", b"\xa4\xa2"),
    ];
    for (encoding, character) in cases {
        let mut through = login(proxy.address(), "app", "demo", encoding);
        let mut direct = login(server.address(), "app", "demo", encoding);
        for text in [
            [b"select '", character, b"', 'x'"].concat(),
            [b"select E'", character, b"\\'', 'x'"].concat(),
            [b"select '", character, b"' frm x y z"].concat(),
        ] {
            let (ours, theirs) = (query(&mut through, &text), query(&mut direct, &text));
            let of = |reply: &Reply| {
                let position = reply.errors.first().map(|error| error.get(b'P').to_owned());
                (reply.code().to_owned(), position, reply.rows.clone())
            };
            assert_eq!(of(&ours), of(&theirs), "{encoding} {}", text.escape_ascii());
        }
    }
}

#[test]
fn under_rules_nothing_but_utf8_is_read() {
    let server = Postgres::start();
    // Not asked for by the client: a default of the role, which no start-up check sees.
    server.admin("alter role support set client_encoding = 'SJIS'");
    let recorder = Recorder::start(server.address());
    let proxy = Portcullis::start(&Setup::demo(recorder.address()));
    let mut raw = Raw::login(proxy.address(), "support");
    recorder.clear();
    let reply = query(&mut raw, b"select '\x83\x5c' /* xyzzy */");
    assert_eq!(reply.code(), "0A000", "{:?}", reply.errors);
    assert!(reply.errors[0].get(b'M').contains("client_encoding"), "{:?}", reply.errors);
    assert!(!contains(&recorder.to_server(), b"xyzzy"));
}
