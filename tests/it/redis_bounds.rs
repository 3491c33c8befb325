//! Rules on what commands bring and run, with a real server behind them.

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::redis::{RawRedis, Redis, Reply};

const RULES: &str = "version: 1
rules:
  - {id: small, match: {writes: ['s:*']}, values: {bytes_max: 4, arguments_max: 3}}
  - {id: short, match: {}, patterns: {length_max: 8}}
  - {id: ends, match: {writes: ['t:*']}, ttl: {max: 1h}}
  - {id: no-x, match: {keys: ['x:*']}, deny: true}
  - {id: own-news, match: {channels: ['*'], except_channels: ['news:*']}, deny: {message: only news}}
";

fn started(server: &Redis, rules: &str) -> Portcullis {
    let mut setup = Setup::redis(server.address());
    setup.rules = vec![("rules.yaml".into(), rules.to_owned())];
    Portcullis::start(&setup)
}

/// Commands through the proxy, each with the word of its refusal or nothing.
fn check(client: &mut RawRedis, cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        let words: Vec<&str> = line.split(' ').collect();
        let reply = client.command(&words);
        let found = match &reply {
            Reply::Error(_) => reply.error().to_owned(),
            _ => String::new(),
        };
        let fits = if expected.is_empty() { found.is_empty() } else { found.contains(expected) };
        assert!(fits, "{line}: expected {expected:?}, found {found:?}");
    }
}

#[test]
fn what_commands_bring_is_bounded() {
    let server = Redis::with_settings(&[]);
    let proxy = started(&server, RULES);
    let mut client = RawRedis::connect(proxy.address());
    check(
        &mut client,
        &[
            ("SET s:1 four", ""),
            ("SET s:1 fives", "NOPERM this command has 5 bytes in an argument, more than 4"),
            ("SET a fives", ""),
            ("RPUSH s:2 a b c", ""),
            ("RPUSH s:2 a b c d", "this command has 4 arguments, more than 3"),
            ("KEYS *", "NOPERM"),
            ("SET t:1 v", "without an expiry"),
            ("SET t:1 v EX 3600", ""),
            ("SET t:1 v PX 3600001", "3600001 ms, longer than 3600000"),
            ("SET t:1 v XX KEEPTTL", ""),
            ("SET t:3 v KEEPTTL", "without an expiry"),
            ("EXPIREAT t:1 9999999999", "longer than"),
            ("PERSIST t:1", "without an expiry"),
            ("RENAME a t:1", "without an expiry"),
            ("HSET t:2 f v", ""),
            ("PUBLISH news:1 m", ""),
            ("PUBLISH mail m", "only news"),
            ("PSUBSCRIBE n*", "only news"),
            ("PSUBSCRIBE news:*long", "10 bytes in a pattern"),
        ],
    );
    // A value that is streamed counts by the length it announces.
    let mut long = b"*3\r\n$3\r\nSET\r\n$3\r\ns:9\r\n$3000000\r\n".to_vec();
    long.resize(long.len() + 3_000_000, b'x');
    long.extend_from_slice(b"\r\n*1\r\n$4\r\nPING\r\n");
    client.send(&long);
    assert!(client.reply().error().contains("3000000 bytes"), "refused by its length");
    assert_eq!(client.reply(), Reply::Simple("PONG".into()), "and passed over");
    assert_eq!(server.admin().command(&["EXISTS", "s:9"]), Reply::Integer(0));
}

#[test]
fn a_listed_script_runs_and_no_other() {
    let server = Redis::with_settings(&[]);
    let load = |body: &str| {
        let Reply::Bulk(Some(digest)) = server.admin().command(&["SCRIPT", "LOAD", body]) else {
            panic!("not loaded")
        };
        String::from_utf8(digest).unwrap()
    };
    let listed = load("return redis.call('incr', KEYS[1])");
    let other = load("return redis.call('incr', 'x:1')");
    let rules = format!("{RULES}  - {{id: counts, match: {{}}, allow: {{scripts: [{listed}]}}}}\n");
    let proxy = started(&server, &rules);
    let mut client = RawRedis::connect(proxy.address());
    check(
        &mut client,
        &[
            (&format!("EVALSHA {listed} 1 n"), ""),
            (&format!("evalsha {} 1 n", listed.to_uppercase()), ""),
            (&format!("EVALSHA {other} 0"), "is not available unless a rule opens it"),
            (&format!("EVALSHA {listed} 1 x:1"), "NOPERM"),
            (&format!("EVALSHA {other} 1 n"), "is not available"),
            ("EVAL return 0", "is not available"),
            ("SCRIPT FLUSH", "is not available"),
        ],
    );
    assert_eq!(client.command(&["GET", "n"]), Reply::text("2"));
    // Taken off the list, it is closed again for whoever is connected.
    proxy.write_rules("rules.yaml", RULES);
    wait_until("the list is gone", SOON, || {
        matches!(client.command(&["EVALSHA", &listed, "1", "n"]), Reply::Error(_))
    });
}

#[test]
fn keys_get_the_expiry_that_rules_put_in_or_lower() {
    let rules = "version: 1
rules:
  - {id: put-in, match: {writes: ['d:*']}, ttl: {default: 1h, max: 1d}}
  - {id: capped, match: {writes: ['c:*']}, ttl: {cap: 10min}}
";
    let server = Redis::with_settings(&[]);
    let proxy = started(&server, rules);
    let mut client = RawRedis::connect(proxy.address());
    let mut admin = server.admin();
    let mut left = |key: &str| match admin.command(&["TTL", key]) {
        Reply::Integer(seconds) => seconds,
        other => panic!("{other:?}"),
    };
    check(
        &mut client,
        &[
            ("SET d:put v", ""),
            ("SET d:said v EX 100", ""),
            ("SET d:long v EX 86401", "longer than"),
            ("SET c:none v", ""),
            ("SET c:past v PXAT 9999999999999", ""),
            ("SETEX c:setex 999999 v", ""),
            ("SET c:moved v EX 5", ""),
            ("EXPIREAT c:moved 9999999999", ""),
            ("SET c:got v EX 5", ""),
            ("GETEX c:got EX 999999", ""),
            ("MULTI", ""),
            ("SET d:queued v", ""),
            ("EXPIRE d:queued 100 GT", ""),
            ("EXEC", ""),
            ("SETNX d:refused v", "SET with NX and EX"),
            ("SET d:refused v KEEPTTL", "XX with KEEPTTL"),
        ],
    );
    for (key, most) in [
        ("d:put", 3600),
        ("d:said", 100),
        ("d:queued", 3600),
        ("c:none", 600),
        ("c:past", 600),
        ("c:setex", 600),
        ("c:moved", 600),
        ("c:got", 600),
    ] {
        let seconds = left(key);
        assert!((most - 60..=most).contains(&seconds), "{key}: {seconds}");
    }
    assert_eq!(left("d:long"), -2, "it is not there");
    assert_eq!(left("d:refused"), -2, "it is not there");
    // The option stands behind a value that is streamed, and the next command behind both.
    let mut long = b"*3\r\n$3\r\nSET\r\n$5\r\nd:big\r\n$3000000\r\n".to_vec();
    long.resize(long.len() + 3_000_000, b'x');
    long.extend_from_slice(b"\r\n*2\r\n$6\r\nSTRLEN\r\n$5\r\nd:big\r\n");
    client.send(&long);
    assert_eq!(client.reply(), Reply::Simple("OK".into()));
    assert_eq!(client.reply(), Reply::Integer(3_000_000));
    assert!((3_540..=3_600).contains(&left("d:big")));
}

#[test]
fn what_all_connections_bring_is_limited_together() {
    let rules = "version: 1
rules:
  - {id: bytes, match: {writes: ['b:*']}, limit: {bytes: 4MiB/day}}
  - {id: few, match: {writes: ['a:*']}, limit: {arguments: 3/day}}
";
    let server = Redis::with_settings(&[]);
    let proxy = started(&server, rules);
    let mut one = RawRedis::connect(proxy.address());
    let mut other = RawRedis::connect(proxy.address());
    check(&mut one, &[("RPUSH a:1 x y", ""), ("RPUSH a:1 x y", "NOPERM rule `few`: rate limit")]);
    check(&mut other, &[("RPUSH a:1 x", ""), ("RPUSH a:1 x", "NOPERM rule `few`: rate limit")]);
    // A value that is streamed is counted, and refused, by the length it announces.
    let mut long = b"*3\r\n$3\r\nSET\r\n$3\r\nb:1\r\n$3000000\r\n".to_vec();
    long.resize(long.len() + 3_000_000, b'x');
    long.extend_from_slice(b"\r\n");
    one.send(&long);
    assert_eq!(one.reply(), Reply::Simple("OK".into()));
    other.send(&long);
    assert!(other.reply().error().contains("rule `bytes`: rate limit"), "the second one");
    check(&mut other, &[("GET a", ""), ("SET b:2 short", ""), ("SET c:1 v", "")]);
}

#[test]
fn a_listed_function_runs_and_no_other() {
    let server = Redis::with_settings(&[]);
    let library = "#!lua name=counting\n\
        redis.register_function('count', function(keys) return redis.call('incr', keys[1]) end)\n\
        redis.register_function('other', function(keys) return redis.call('incr', 'x:1') end)";
    assert_eq!(server.admin().command(&["FUNCTION", "LOAD", library]), Reply::text("counting"));
    let list = "  - {id: counts, match: {}, allow: {library_functions: [count]}}\n";
    let proxy = started(&server, &format!("{RULES}{list}"));
    let mut client = RawRedis::connect(proxy.address());
    check(
        &mut client,
        &[
            ("FCALL count 1 n", ""),
            ("fcall count 1 x:1", "NOPERM"),
            ("FCALL COUNT 1 n", "is not available unless a rule opens it"),
            ("FCALL other 1 n", "is not available unless a rule opens it"),
            ("FCALL_RO other 0", "is not available"),
            ("FCALL count", "wrong number of arguments"),
            ("EVALSHA count 1 n", "is not available"),
            ("FUNCTION LOAD x", "is not available"),
            ("FUNCTION DELETE counting", "is not available"),
        ],
    );
    assert_eq!(client.command(&["GET", "n"]), Reply::text("1"));
    assert_eq!(server.admin().command(&["EXISTS", "x:1"]), Reply::Integer(0));
}

/// What commands on a key begin with.
const BEGINNINGS: &[&str] = &[
    "SET d:k v",
    "GETEX d:k",
    "SETEX d:k 9999999 v",
    "PSETEX d:k 9999999999 v",
    "EXPIRE d:k 99999999",
    "PEXPIREAT d:k 9999999999999",
    "SETNX d:k v",
    "GETSET d:k v",
    "MSET d:k v",
    "PERSIST d:k",
    "RENAME free d:k",
    "COPY free d:k",
    "SORT list STORE d:k",
    "SUNIONSTORE d:k set",
    "BITOP NOT d:k free",
];
/// What may stand behind it.
const WORDS: &[&str] = &[
    "EX",
    "px",
    "EXAT",
    "5",
    "-1",
    "9999999999",
    "KEEPTTL",
    "PERSIST",
    "XX",
    "NX",
    "GET",
    "GT",
    "REPLACE",
    "ex\0",
];

/// Commands of these words, up to three behind a beginning, on a key that ends and on one that
/// is not there: whatever the server makes of it, no key is without an end, or with a later one.
#[test]
fn no_words_leave_a_key_without_an_end() {
    const RULE: &str = "version: 1
rules:
  - {id: ends, match: {writes: ['d:*']}, ttl: {default: 1h, cap: 2h}}
";
    let server = Redis::with_settings(&[]);
    let proxy = started(&server, RULE);
    let mut client = RawRedis::connect(proxy.address());
    let mut admin = server.admin();
    admin.command(&["SADD", "set", "a"]);
    admin.command(&["RPUSH", "list", "1"]);
    let mut passed = 0;
    let mut check = |words: &[&str]| {
        for exists in [true, false] {
            admin.command(&["SET", "free", "1"]);
            admin.command(if exists { &["SET", "d:k", "v", "EX", "60"] } else { &["DEL", "d:k"] });
            passed += usize::from(!matches!(client.command(words), Reply::Error(_)));
            let left = admin.command(&["PTTL", "d:k"]);
            let Reply::Integer(left) = left else { panic!("{words:?}: {left:?}") };
            assert!(left != -1 && left <= 7_200_000, "{words:?}, {exists}: {left}");
        }
    };
    for beginning in BEGINNINGS {
        let mut words: Vec<&str> = beginning.split(' ').collect();
        check(&words);
        let own = words.len();
        for first in WORDS {
            words.truncate(own);
            words.push(first);
            check(&words);
            for second in WORDS {
                words.truncate(own + 1);
                words.push(second);
                check(&words);
                let third = if beginning.starts_with("SET ") { WORDS } else { &[] };
                for third in third {
                    words.truncate(own + 2);
                    words.push(third);
                    check(&words);
                }
            }
        }
    }
    assert!(passed > 100, "{passed} were let through");
}
