//! Every command that can return, compare, measure or copy a value, against every type of value,
//! through the proxy, as somebody to whom all these values are masked: not one comes back.
//!
//! The cases are `tests/corpus/redis_canary.tsv`, which `redis_shapes` runs against the server itself.

use std::collections::BTreeSet;

use crate::harness::{Portcullis, Setup};
use crate::redis::{RawRedis, Redis, Reply, encode};
use crate::redis_shapes::{Line, TYPES, Values, children, corpus, is_canary, text};

const MASKED: &str = "version: 1
rules:
  - id: mask
    match: {protocol: redis, keys: [\"key:*\", \"twin:*\"]}
    mask: {constant: HIDDEN}
";

/// Whether a value is in a reply, however deep.
fn shows(reply: &Reply) -> bool {
    match children(reply) {
        Some(children) => children.iter().any(shows),
        None => text(reply).is_some_and(|text| is_canary(&text)),
    }
}

/// Whether the reply is the client's own argument again.
fn echoes(words: &[String]) -> bool {
    ["ECHO", "PING", "COMMAND", "PUBLISH"].contains(&words[0].as_str())
}

struct Bench {
    server: Redis,
    proxy: Portcullis,
}

impl Bench {
    fn new(rules: &str) -> Self {
        let server = Redis::with_settings(&[]);
        let setup = Setup { protocol: "redis", ..Setup::with_rules(server.address(), rules) };
        let proxy = Portcullis::start(&setup);
        Self { server, proxy }
    }

    fn connect(&self, version: &str) -> RawRedis {
        let mut client = RawRedis::connect(self.proxy.address());
        let greeting = client.command(&["HELLO", version]);
        assert!(!matches!(greeting, Reply::Error(_)), "{greeting:?}");
        client
    }

    fn seed(&self, admin: &mut RawRedis) {
        let seeds = Values::First.seeds();
        let bytes: Vec<u8> = seeds.iter().flat_map(|seed| encode(seed)).collect();
        admin.send(&bytes);
        for seed in &seeds {
            let reply = admin.reply();
            assert!(!matches!(reply, Reply::Error(_)), "{seed:?}: {reply:?}");
        }
    }

    /// Lines that showed a value, alone or inside a transaction; and how many were answered.
    fn run(&self, version: &str) -> (BTreeSet<String>, usize) {
        let mut admin = self.server.admin();
        let mut client = self.connect(version);
        let (mut shown, mut answered) = (BTreeSet::new(), 0);
        let mut look = |line: Line, kind: &str, words: &[String], reply: &Reply| {
            answered += usize::from(!matches!(reply, Reply::Error(_)));
            if shows(reply) && !echoes(words) {
                shown.insert(format!("{} ({kind}): {reply:?}", line.text));
            }
        };
        for line in corpus() {
            for kind in TYPES {
                let words = line.words(kind);
                self.seed(&mut admin);
                let reply = client.command(&words);
                look(line, kind, &words, &reply);
                client.command(&["UNWATCH"]);
                self.seed(&mut admin);
                client.command(&["MULTI"]);
                client.command(&words);
                let reply = client.command(&["EXEC"]);
                look(line, kind, &words, &reply);
                if !line.text.contains('{') {
                    break;
                }
            }
        }
        (shown, answered)
    }
}

#[track_caller]
fn nothing_is_shown(version: &str) {
    let (shown, answered) = Bench::new(MASKED).run(version);
    let lines: Vec<_> = shown.into_iter().collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    assert!(answered > 1000, "{answered} answers");
}

#[test]
fn no_value_under_a_mask_comes_back_in_resp2() {
    nothing_is_shown("2");
}

#[test]
fn no_value_under_a_mask_comes_back_in_resp3() {
    nothing_is_shown("3");
}

#[test]
fn without_the_mask_the_values_are_seen() {
    let (shown, _) = Bench::new("version: 1\nrules: []\n").run("2");
    assert!(shown.len() > 200, "{} lines", shown.len());
}
