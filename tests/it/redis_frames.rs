//! Our reading of a client's bytes beside that of a live Redis: the same words, the same refusals.

use portcullis::wire::resp::reply::{End, Part, Replies};
use portcullis::wire::resp::request::{Refused, RequestLimits, Scan, Scanner};

use crate::redis::{RawRedis, Redis, Reply};

fn ours(data: &[u8], limits: RequestLimits) -> Result<Vec<Vec<u8>>, Refused> {
    let mut scanner = Scanner::new(limits);
    let scan = scanner.scan(data)?;
    assert!(matches!(scan, Scan::Command { .. }), "{scan:?} of {}", data.escape_ascii());
    Ok(scanner.args(data).iter().map(<[u8]>::to_vec).collect())
}

/// What the client is told, and that nothing comes behind it.
fn told(refused: Refused) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    refused.encode(&mut out);
    out.to_vec()
}

#[test]
fn lines_of_text_have_the_words_the_server_finds() {
    let server = Redis::with_settings(&[]);
    let tails: [&[u8]; 22] = [
        b"a b  c",
        b"\ta\t b\t",
        b"'a b' c",
        b"\"a\\x41\\x4g\\n\\r\\t\\b\\a\\\\\\q\"",
        b"'it\\'s' 'a\\n'",
        b"\"\" ''",
        b"a\"b\"",
        b"a'b' c",
        b"\"a\"b",
        b"'a'b",
        b"\"open",
        b"'open",
        b"\"open\\\"",
        b"\\x41",
        b"\xff\xfe",
        b"a\x0bb",
        b"a\x0cb",
        b"a\x01b",
        b"\x0b\x0ca",
        b"\"a\" \x0b\"b\"",
        b"\"a\"\x0bb",
        b"a\r b",
    ];
    for tail in tails {
        let line = [b"EVAL 'return ARGV' 0 ", tail, b"\r\n"].concat();
        let mut client = RawRedis::connect(server.address());
        client.send(&line);
        match (client.reply(), ours(&line, RequestLimits::LOGGED_IN)) {
            (Reply::Array(Some(theirs)), Ok(words)) => {
                let words = words.into_iter().skip(3).map(|word| Reply::Bulk(Some(word)));
                assert_eq!(theirs, words.collect::<Vec<_>>(), "{}", tail.escape_ascii());
            }
            (Reply::Error(text), Err(refused)) => {
                assert_eq!(format!("-{text}\r\n").as_bytes(), told(refused));
                assert!(client.closed().is_empty(), "{}", tail.escape_ascii());
            }
            (theirs, ours) => panic!("{}: {theirs:?}, we read {ours:?}", tail.escape_ascii()),
        }
    }
}

#[test]
fn what_ends_a_connection_ends_it_with_the_servers_words() {
    let open = Redis::with_settings(&[]);
    let closed = Redis::with_settings(&["requirepass pw"]);
    let long = |start: &[u8]| [start, &b"1".repeat(64 * 1024 + 1)].concat();
    let everywhere: [Vec<u8>; 11] = [
        b"*x\r\n".into(),
        b"*+1\r\n".into(),
        b"*01\r\n".into(),
        b"*99999999999999999999\r\n".into(),
        b"*1\r\nGET\r\n".into(),
        b"*1\r\n\r\n".into(),
        b"*1\r\n$-1\r\n".into(),
        b"*1\r\n$99999999999\r\n".into(),
        long(b"*"),
        long(b"*1\r\n$"),
        long(b"GET "),
    ];
    let before_login: [Vec<u8>; 2] = [b"*11\r\n".into(), b"*1\r\n$16385\r\n".into()];
    let cases = everywhere.iter().map(|data| (&open, RequestLimits::LOGGED_IN, data));
    let stricter = before_login.iter().map(|data| (&closed, RequestLimits::BEFORE_LOGIN, data));
    for (server, limits, data) in cases.chain(stricter) {
        let shown = data[..data.len().min(20)].escape_ascii().to_string();
        let refused = ours(data, limits).unwrap_err();
        let mut client = RawRedis::connect(server.address());
        client.send(data);
        let theirs = client.reply_bytes();
        assert_eq!(
            theirs.escape_ascii().to_string(),
            told(refused).escape_ascii().to_string(),
            "{shown}"
        );
        assert!(client.closed().is_empty(), "{shown}");
    }
}

#[test]
fn a_browser_is_told_nothing() {
    let server = Redis::with_settings(&[]);
    for data in [&b"POST / HTTP/1.1\r\n"[..], b"host: a\r\n", b"*1\r\n$4\r\npost\r\n"] {
        assert!(told(ours(data, RequestLimits::LOGGED_IN).unwrap_err()).is_empty());
        let mut client = RawRedis::connect(server.address());
        client.send(data);
        assert!(client.closed().is_empty());
    }
}

#[test]
fn replies_end_where_the_server_ends_them() {
    let server = Redis::with_settings(&["enable-debug-command yes"]);
    let kinds = [
        "string", "integer", "double", "null", "array", "set", "map", "attrib", "verbatim", "true",
        "false", "bignum",
    ];
    for version in ["2", "3"] {
        let mut client = RawRedis::connect(server.address());
        client.command(&["HELLO", version]);
        client.command(&["HSET", "h", "f", "v"]);
        let mut commands: Vec<Vec<&str>> = vec![
            vec!["COMMAND"],
            vec!["COMMAND", "DOCS"],
            vec!["INFO"],
            vec!["CONFIG", "GET", "*"],
            vec!["HGETALL", "h"],
            vec!["GET", "absent"],
            vec!["NO", "SUCH"],
            vec!["EVAL", "local t = {} for i = 1, 80 do t = {t} end return t", "0"],
        ];
        commands.extend(kinds.map(|kind| vec!["DEBUG", "PROTOCOL", kind]));
        for command in commands {
            client.send(&crate::redis::encode(&command));
            let bytes = client.reply_bytes();
            let mut replies = Replies::default();
            let part = replies.next(&bytes).unwrap();
            assert_eq!(part, Part { len: bytes.len(), end: End::Reply }, "{command:?}");
        }
        if version == "3" {
            client.send(&crate::redis::encode(&["DEBUG", "PROTOCOL", "push"]));
            let bytes = client.reply_bytes();
            assert_eq!(Replies::default().next(&bytes).unwrap().end, End::Push);
        }
    }
}
