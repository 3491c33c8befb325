//! Commands at random, from templates, so that two sides can be asked the same.

/// A small generator with a seed: the same commands every time.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below this one (splitmix64).
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(super) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// How much of an answer two servers must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agree {
    /// All of it.
    Exactly,
    /// All but the order of elements.
    InAnyOrder,
    /// All but how many seconds are left.
    ButForTime,
    /// All but both: the answers of a transaction.
    Loosely,
}

#[derive(Debug)]
pub(super) struct Command {
    pub(super) words: Vec<Vec<u8>>,
    pub(super) agree: Agree,
}

/// One command; `step` grows, for identifiers of entries in streams.
pub(super) fn command(dice: &mut Dice, step: usize) -> Command {
    let template = dice.pick(TEMPLATES);
    let (agree, template) = match template.split_at(1) {
        ("~", rest) => (Agree::InAnyOrder, rest),
        ("@", rest) => (Agree::ButForTime, rest),
        _ => (Agree::Exactly, template),
    };
    let words = template.split(' ').map(|word| fill(word, dice, step)).collect();
    Command { words, agree }
}

/// Whether it is left out of transactions: it ends them, may wait, or is refused there by the proxy
/// at once, as a choice of a database and a word that is no option.
pub(super) fn stands_alone(command: &Command) -> bool {
    let name = command.words[0].as_slice();
    name.starts_with(b"B") && !name.starts_with(b"BIT")
        || matches!(name, b"EXEC" | b"DISCARD" | b"SELECT")
        || command.words.iter().any(|word| word == b"BLOCK" || word == b"NOSUCH")
}

pub(super) fn key(dice: &mut Dice) -> Vec<u8> {
    let kind = dice.pick(&["s", "h", "l", "e", "z", "x", "g", "p", "k"]);
    typed_key(kind, dice)
}

pub(super) fn channel(dice: &mut Dice) -> Vec<u8> {
    dice.pick(&["c", "d", "cd", "t:acme:c", "*", "c[d]"]).as_bytes().to_vec()
}

pub(super) fn pattern(dice: &mut Dice) -> Vec<u8> {
    dice.pick(PATTERNS).as_bytes().to_vec()
}

pub(super) fn value(dice: &mut Dice) -> Vec<u8> {
    match dice.below(12) {
        0 => b"x".repeat(dice.below(400)),
        1 => b"\0\r\n$3\r\n\xff".to_vec(),
        2 => b"t:acme:s0".to_vec(),
        3 => Vec::new(),
        4 => b"hello world".to_vec(),
        number => number.to_string().into_bytes(),
    }
}

fn typed_key(kind: &str, dice: &mut Dice) -> Vec<u8> {
    // Names that look like another tenant's, like patterns, like no text.
    let odd: [&[u8]; 8] =
        [b"", b"*", b"t:acme:s0", b"t:globex:s0", b"k[0]", b"\xc3\xa9\r\n", b"{s}0", b"t:"];
    match dice.below(20) {
        0 => odd[dice.below(odd.len())].to_vec(),
        1 => key(dice),
        number => format!("{kind}{}", number % 4).into_bytes(),
    }
}

fn fill(word: &str, dice: &mut Dice, step: usize) -> Vec<u8> {
    let Some(kind) = word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) else {
        return word.as_bytes().to_vec();
    };
    match kind {
        "k" => key(dice),
        "s" | "h" | "l" | "e" | "z" | "x" | "g" | "p" => typed_key(kind, dice),
        "v" => value(dice),
        "f" => format!("f{}", dice.below(5)).into_bytes(),
        "m" => format!("m{}", dice.below(6)).into_bytes(),
        "n" => dice.below(20).to_string().into_bytes(),
        "i" => format!("-{}", dice.below(4))
            .trim_start_matches("-0")
            .replace('-', if dice.one_in(2) { "-" } else { "" })
            .into_bytes(),
        "id" => format!("{}-1", step + 1).into_bytes(),
        "old" => format!("{}-1", step.saturating_sub(dice.below(40))).into_bytes(),
        "pattern" => pattern(dice),
        "c" => channel(dice),
        "db" => dice.pick(&["0", "0", "0", "1", "16"]).as_bytes().to_vec(),
        other => panic!("{other} is no kind of word"),
    }
}

const PATTERNS: &[&str] = &[
    "*", "s*", "?1", "[sh]*", "\\*", "*[*", "t:*", "", "[^s]*", "k*", "t:acme:*", "*:*", "c*", "[",
    "a\\",
];

/// `~`: in any order; `@`: but for the time. Kinds of words in braces: keys of strings (s), hashes
/// (h), lists (l), sets (e), sorted sets (z), streams (x), places (g), counts (p), any (k).
const TEMPLATES: &[&str] = &[
    "SET {s} {v}",
    "SET {s} {n}",
    "SET {s} {v} NX GET",
    "SET {s} {v} EX 100000",
    "SET {s} {v} XX KEEPTTL",
    "SETNX {s} {v}",
    "SETEX {s} 100000 {v}",
    "PSETEX {s} 100000000 {v}",
    "GET {s}",
    "GET {k}",
    "GETSET {s} {v}",
    "GETDEL {s}",
    "GETEX {s} EX 100000",
    "GETEX {s} PERSIST",
    "MSET {s} {v} {k} {v}",
    "MSETNX {s} {v} {s} {v}",
    "MGET {s} {k} {s}",
    "APPEND {s} {v}",
    "STRLEN {s}",
    "GETRANGE {s} {i} {i}",
    "SUBSTR {s} {i} {i}",
    "SETRANGE {s} {n} {v}",
    "INCR {s}",
    "DECR {s}",
    "INCRBY {s} {n}",
    "DECRBY {s} {n}",
    "INCRBYFLOAT {s} 0.5",
    "LCS {s} {s}",
    "LCS {s} {s} IDX WITHMATCHLEN",
    "SETBIT {s} {n} 1",
    "GETBIT {s} {n}",
    "BITCOUNT {s}",
    "BITPOS {s} 1",
    "BITOP XOR {s} {s} {s}",
    "BITFIELD {s} INCRBY u8 0 {n} GET u4 4",
    "BITFIELD_RO {s} GET u8 0",
    "HSET {h} {f} {v} {f} {v}",
    "HSET {h} {f} {n}",
    "HMSET {h} {f} {v}",
    "HSETNX {h} {f} {v}",
    "HGET {h} {f}",
    "HMGET {h} {f} {f} none",
    "~HGETALL {h}",
    "~HKEYS {h}",
    "~HVALS {h}",
    "HLEN {h}",
    "HDEL {h} {f} {f}",
    "HEXISTS {h} {f}",
    "HINCRBY {h} {f} {n}",
    "HINCRBYFLOAT {h} {f} 1.5",
    "HSTRLEN {h} {f}",
    "~HSCAN {h} 0",
    "~HSCAN {h} 0 MATCH {pattern}",
    "RPUSH {l} {v} {v}",
    "LPUSH {l} {v}",
    "LPUSHX {l} {v}",
    "RPUSHX {l} {v}",
    "RPOP {l}",
    "LPOP {l} {n}",
    "LRANGE {l} 0 -1",
    "LRANGE {l} {i} {i}",
    "LINDEX {l} {i}",
    "LINSERT {l} BEFORE {v} {v}",
    "LLEN {l}",
    "LREM {l} {i} {v}",
    "LSET {l} {i} {v}",
    "LTRIM {l} 0 {n}",
    "LPOS {l} {v} COUNT 0",
    "RPOPLPUSH {l} {l}",
    "LMOVE {l} {l} LEFT RIGHT",
    "LMPOP 2 {l} {l} LEFT COUNT 2",
    "BLPOP {l} {l} {k} 0.01",
    "BRPOP {l} 0.01",
    "BRPOPLPUSH {l} {l} 0.01",
    "BLMOVE {l} {l} LEFT LEFT 0.01",
    "BLMPOP 0.01 2 {l} {k} RIGHT",
    "SADD {e} {m} {m}",
    "SADD {e} {n}",
    "SREM {e} {m}",
    "~SMEMBERS {e}",
    "SISMEMBER {e} {m}",
    "SMISMEMBER {e} {m} {m}",
    "SCARD {e}",
    "SMOVE {e} {e} {m}",
    "~SUNION {e} {e}",
    "~SINTER {e} {e}",
    "~SDIFF {e} {e}",
    "SINTERCARD 2 {e} {e}",
    "SUNIONSTORE {e} {e} {e}",
    "SINTERSTORE {e} {e} {e}",
    "SDIFFSTORE {e} {e} {k}",
    "~SPOP {e} 1000",
    "~SRANDMEMBER {e} 1000",
    "~SSCAN {e} 0 COUNT 1000",
    "ZADD {z} {n} {m} {n} {m}",
    "ZADD {z} GT CH {n} {m}",
    "ZADD {z} INCR 1 {m}",
    "ZINCRBY {z} 1.5 {m}",
    "ZREM {z} {m}",
    "ZSCORE {z} {m}",
    "ZMSCORE {z} {m} {m}",
    "ZRANK {z} {m}",
    "ZREVRANK {z} {m}",
    "ZCARD {z}",
    "ZCOUNT {z} {n} +inf",
    "ZRANGE {z} 0 -1 WITHSCORES",
    "ZRANGE {z} 0 50 BYSCORE LIMIT 0 2",
    "ZREVRANGE {z} 0 2",
    "ZRANGEBYSCORE {z} (1 {n} WITHSCORES",
    "ZREMRANGEBYRANK {z} 0 0",
    "ZREMRANGEBYSCORE {z} 0 {n}",
    "ZPOPMIN {z}",
    "ZPOPMAX {z} 2",
    "ZMPOP 2 {z} {z} MIN",
    "BZPOPMIN {z} {k} 0.01",
    "BZMPOP 0.01 2 {z} {z} MAX COUNT 2",
    "ZUNION 2 {z} {z} WITHSCORES",
    "ZINTER 2 {z} {z}",
    "ZDIFF 2 {z} {z}",
    "ZUNIONSTORE {z} 2 {z} {z} WEIGHTS 1 2",
    "ZINTERSTORE {z} 2 {z} {z} AGGREGATE MAX",
    "ZDIFFSTORE {z} 2 {z} {k}",
    "ZRANGESTORE {z} {z} 0 1",
    "ZINTERCARD 2 {z} {z} LIMIT 1",
    "~ZSCAN {z} 0",
    "GEOADD {g} 13.361389 38.115556 {m} 15.087269 37.502669 {m}",
    "GEOPOS {g} {m} none",
    "GEODIST {g} {m} {m} km",
    "GEOHASH {g} {m}",
    "GEOSEARCH {g} FROMMEMBER {m} BYRADIUS 1000 km ASC WITHDIST",
    "GEOSEARCHSTORE {z} {g} FROMLONLAT 13 38 BYBOX 400 400 km ASC",
    "GEORADIUS {g} 13 38 500 km ASC",
    "GEORADIUS {g} 13 38 500 km ASC STORE {z}",
    "GEORADIUSBYMEMBER {g} {m} 500 km ASC STOREDIST {z}",
    "PFADD {p} {m} {v}",
    "PFCOUNT {p} {p}",
    "PFMERGE {p} {p} {p}",
    "XADD {x} {id} {f} {v}",
    "XADD {x} {id} {f} {v} {f} {v}",
    "XADD {x} MAXLEN 5 {id} {f} {v}",
    "XADD {x} NOMKSTREAM {id} {f} {v}",
    "XLEN {x}",
    "XRANGE {x} - + COUNT 3",
    "XREVRANGE {x} + -",
    "XDEL {x} {old}",
    "XTRIM {x} MAXLEN 3",
    "XREAD COUNT 2 STREAMS {x} {x} 0 0",
    "XREAD BLOCK 5 STREAMS {x} $",
    "XREAD STREAMS {x} {old}",
    "XGROUP CREATE {x} g 0 MKSTREAM",
    "XGROUP CREATE {x} g $",
    "XGROUP DESTROY {x} g",
    "XGROUP CREATECONSUMER {x} g one",
    "XGROUP SETID {x} g 0",
    "XREADGROUP GROUP g one COUNT 2 STREAMS {x} >",
    "XREADGROUP GROUP g two STREAMS {x} {x} > >",
    "XREADGROUP GROUP g one STREAMS {x} 0",
    "XACK {x} g {old}",
    "XPENDING {x} g",
    "XAUTOCLAIM {x} g two 0 0 COUNT 2",
    "XCLAIM {x} g two 0 {old} JUSTID",
    "XINFO STREAM {x}",
    "XINFO GROUPS {x}",
    "XSETID {x} 99999999-1",
    "DEL {k} {k}",
    "DEL {s}",
    "UNLINK {k}",
    "EXISTS {k} {k} {k}",
    "TOUCH {k} {k}",
    "TYPE {k}",
    "RENAME {k} {k}",
    "RENAMENX {k} {k}",
    "COPY {k} {k} REPLACE",
    "COPY {k} {k}",
    "COPY {k} {k} DB 1",
    "MOVE {k} 1",
    "EXPIRE {k} 100000",
    "EXPIRE {k} 100000 NX",
    "PEXPIRE {k} 100000000",
    "EXPIREAT {k} 4000000000",
    "PEXPIREAT {k} 4000000000000 GT",
    "@TTL {k}",
    "@PTTL {k}",
    "@EXPIRETIME {k}",
    "PERSIST {k}",
    "OBJECT ENCODING {k}",
    "OBJECT REFCOUNT {l}",
    "DUMP {s}",
    "~KEYS {pattern}",
    "SORT {l} ALPHA",
    "SORT {l}",
    "SORT {z} ALPHA LIMIT 0 2 DESC",
    "SORT {e} ALPHA STORE {l}",
    "SORT_RO {l} ALPHA",
    "SELECT {db}",
    "PING",
    "PING {v}",
    "ECHO {v}",
    "NOSUCH {n} {m}",
    "GET",
    "SET {s}",
    "SET {s} {v} NOSUCH",
    "LPUSH {s} {v}",
    "INCR {h}",
    "XADD {x} 0-0 f v",
    "XADD {x} {old} f",
    "EXPIRE {k} x",
    "ZADD {z} x {m}",
    "HSET {h} {f}",
    "OBJECT NOSUCH {k}",
    "XREADGROUP GROUP nogroup one STREAMS {x} {x} > >",
    "LMPOP 0 {l} LEFT",
    "EXEC",
    "DISCARD",
    "UNWATCH",
];
