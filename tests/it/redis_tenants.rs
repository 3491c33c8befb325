//! Two tenants behind one proxy on one server, and the same two on servers of their own: asked the
//! same at random, they get the same answers, and nothing of one ever shows to the other.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::harness::{Portcullis, Setup};
use crate::redis::{RawRedis, Redis, Reply, encode};
use commands::{Agree, Command, Dice, channel, command, key, pattern, stands_alone, value};

mod commands;

const TENANTS: [(&str, &str); 2] = [("alice", "acme"), ("bob", "globex")];
/// Commands of one run.
const STEPS: usize = 1500;

fn server() -> Redis {
    Redis::with_settings(&["user alice on >pw ~* &* +@all", "user bob on >pw ~* &* +@all"])
}

/// A client of one side, and one that listens.
struct Client {
    main: RawRedis,
    /// Changes keys that the first one watches.
    other: RawRedis,
    listener: RawRedis,
}

impl Client {
    fn connect(address: SocketAddr, user: &str, protocol: &str) -> Self {
        let login = || {
            let mut connection = RawRedis::connect(address);
            let hello = connection.command(&["HELLO", protocol, "AUTH", user, "pw"]);
            assert!(!matches!(hello, Reply::Error(_)), "{hello:?}");
            connection
        };
        Self { main: login(), other: login(), listener: login() }
    }
}

/// One tenant on both sides.
struct Tenant {
    sides: [Client; 2],
    /// What was asked lately, for whoever has to find out why the sides differ.
    asked: VecDeque<String>,
}

impl Tenant {
    /// The same to both; their answer, if it is one.
    fn ask(&mut self, command: &Command) -> Reply {
        let shown: Vec<_> =
            command.words.iter().map(|word| word.escape_ascii().to_string()).collect();
        self.asked.push_back(shown.join(" "));
        if self.asked.len() > 30 {
            self.asked.pop_front();
        }
        let bytes = encode(&command.words);
        self.same(command.agree, |side| {
            side.main.send(&bytes);
            side.main.reply()
        })
    }

    #[track_caller]
    fn same(&mut self, agree: Agree, mut what: impl FnMut(&mut Client) -> Reply) -> Reply {
        let [ours, theirs] = &mut self.sides;
        let (ours, theirs) = (what(ours), what(theirs));
        let (ours, theirs) = (comparable(ours, agree), comparable(theirs, agree));
        assert!(
            ours == theirs,
            "behind the proxy: {}\nalone:            {}\nasked last:\n  {}",
            shown(&ours),
            shown(&theirs),
            self.asked.iter().map(String::as_str).collect::<Vec<_>>().join("\n  ")
        );
        theirs
    }

    fn words(&mut self, words: &[&[u8]], agree: Agree) -> Reply {
        let words = words.iter().map(|word| word.to_vec()).collect();
        self.ask(&Command { words, agree })
    }

    fn transaction(&mut self, dice: &mut Dice, step: usize) {
        if dice.one_in(2) {
            let watched = key(dice);
            self.words(&[b"WATCH", &watched], Agree::Exactly);
            if dice.one_in(2) {
                let other = if dice.one_in(2) { key(dice) } else { watched };
                let words = [&b"SET"[..], &other, b"changed"].map(<[u8]>::to_vec);
                self.same(Agree::Exactly, |side| side.other.command(&words));
            }
        }
        self.words(&[b"MULTI"], Agree::Exactly);
        let mut agree = Agree::Exactly;
        for _ in 0..dice.below(6) {
            let inside = command(dice, step);
            if stands_alone(&inside) {
                continue;
            }
            if inside.agree != Agree::Exactly {
                agree = Agree::Loosely;
            }
            self.ask(&Command { agree: Agree::Exactly, ..inside });
        }
        let end: &[u8] = if dice.one_in(5) { b"DISCARD" } else { b"EXEC" };
        self.words(&[end], agree);
    }

    /// All pages of a SCAN: the pages differ, what is on them does not.
    fn scan(&mut self, dice: &mut Dice) {
        let (matching, count) = (pattern(dice), dice.pick(&["1", "3", "1000"]));
        let kind = dice.pick(&["string", "list", "stream", ""]);
        self.asked.push_back(format!("SCAN … {} {count} {kind}", matching.escape_ascii()));
        self.same(Agree::InAnyOrder, |side| {
            let mut found = Vec::new();
            let mut cursor = b"0".to_vec();
            loop {
                let mut words = vec![&b"SCAN"[..], &cursor, b"COUNT", count.as_bytes()];
                words.extend([&b"MATCH"[..], &matching]);
                if !kind.is_empty() {
                    words.extend([&b"TYPE"[..], kind.as_bytes()]);
                }
                let Reply::Array(Some(page)) = side.main.command(&words) else { panic!("no page") };
                let [Reply::Bulk(Some(next)), Reply::Array(Some(keys))] = &page[..] else {
                    panic!("{page:?}")
                };
                found.extend(keys.clone());
                cursor.clone_from(next);
                if cursor == b"0" {
                    found.sort_by_key(|key| format!("{key:?}"));
                    found.dedup();
                    return Reply::Array(Some(found));
                }
            }
        });
    }

    fn subscribe(&mut self, dice: &mut Dice) {
        let (word, name) = match dice.below(5) {
            0 => ("SUBSCRIBE", channel(dice)),
            1 => ("UNSUBSCRIBE", channel(dice)),
            2 => ("PSUBSCRIBE", pattern(dice)),
            3 => ("PUNSUBSCRIBE", pattern(dice)),
            _ => ("SSUBSCRIBE", channel(dice)),
        };
        self.asked.push_back(format!("{word} {}", name.escape_ascii()));
        let words = [word.as_bytes().to_vec(), name];
        self.same(Agree::Exactly, |side| side.listener.command(&words));
    }

    fn publish(&mut self, dice: &mut Dice) {
        let word: &[u8] = if dice.one_in(4) { b"SPUBLISH" } else { b"PUBLISH" };
        let (name, text) = (channel(dice), value(dice));
        let Reply::Integer(heard) = self.words(&[word, &name, &text], Agree::Exactly) else {
            return;
        };
        // In any order: a message may come once for the channel and once for each pattern.
        self.same(Agree::InAnyOrder, |side| {
            Reply::Array(Some((0..heard).map(|_| side.listener.reply()).collect()))
        });
        self.words(&[b"PUBSUB", b"NUMSUB", &name, b"c"], Agree::Exactly);
    }
}

/// An answer as a person reads it.
fn shown(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(Some(bytes)) => format!("\"{}\"", bytes.escape_ascii()),
        Reply::Array(Some(items)) | Reply::Set(items) | Reply::Map(items) | Reply::Push(items) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        other => format!("{other:?}"),
    }
}

/// An answer without what two servers need not agree on.
fn comparable(reply: Reply, agree: Agree) -> Reply {
    let each = |items: Vec<Reply>| -> Vec<Reply> {
        let mut items: Vec<_> = items.into_iter().map(|item| comparable(item, agree)).collect();
        if matches!(agree, Agree::InAnyOrder | Agree::Loosely) {
            items.sort_by_key(|item| format!("{item:?}"));
        }
        items
    };
    match reply {
        // So long a time is none of the numbers that are asked for.
        Reply::Integer(left)
            if matches!(agree, Agree::ButForTime | Agree::Loosely) && left > 50_000 =>
        {
            Reply::Integer(50_000)
        }
        // Of a name that begins like a prefix, an error keeps what is behind it.
        Reply::Error(text) => Reply::Error(text.replace("t:acme:", "").replace("t:globex:", "")),
        Reply::Array(Some(items)) => Reply::Array(Some(each(items))),
        Reply::Map(items) => Reply::Map(each(items)),
        Reply::Set(items) => Reply::Set(each(items)),
        other => other,
    }
}

/// Asks both tenants at random, in turn as the dice fall.
fn run(seed: u64, protocol: &str, addresses: [[SocketAddr; 2]; 2]) {
    eprintln!("seed {seed}, RESP{protocol}");
    let mut dice = Dice::new(seed);
    let mut tenants: Vec<Tenant> = TENANTS
        .iter()
        .zip(addresses)
        .map(|((user, _), sides)| Tenant {
            sides: sides.map(|address| Client::connect(address, user, protocol)),
            asked: VecDeque::new(),
        })
        .collect();
    for step in 0..STEPS {
        let tenant = dice.below(tenants.len());
        let tenant = &mut tenants[tenant];
        match dice.below(40) {
            0 | 1 => tenant.transaction(&mut dice, step),
            2 => tenant.scan(&mut dice),
            3 => tenant.subscribe(&mut dice),
            4 => tenant.publish(&mut dice),
            _ => {
                let command = command(&mut dice, step);
                tenant.ask(&command);
            }
        }
    }
}

const SEEDS: [u64; 3] = [1, 2, 12];

#[test]
fn servers_alone_agree_with_each_other() {
    let servers: Vec<_> = (0..4).map(|_| server()).collect();
    let at = |server: usize| servers[server].address();
    for protocol in ["2", "3"] {
        for server in &servers {
            assert_eq!(server.admin().command(&["FLUSHALL"]), Reply::ok());
        }
        run(SEEDS[0], protocol, [[at(0), at(1)], [at(2), at(3)]]);
    }
}

#[test]
fn tenants_of_one_server_live_as_if_alone() {
    let shared = server();
    let alone = [server(), server()];
    let mut setup = Setup::with_rules(
        shared.address(),
        "version: 1\nrules:\n  - id: tenants\n    match: {protocol: redis, roles: [tenant]}\n    \
         prefix: \"t:{identity.tenant}:\"\n",
    );
    setup.protocol = "redis";
    let identities = TENANTS.map(|(user, tenant)| {
        format!("  - {{user: {user}, roles: [tenant], attributes: {{tenant: {tenant}}}}}\n")
    });
    let identities = format!("version: 1\nidentities:\n{}", identities.concat());
    setup.rules.push(("identities.yaml".into(), identities));
    let proxy = Portcullis::start(&setup);
    for seed in SEEDS {
        for protocol in ["2", "3"] {
            for server in [&shared, &alone[0], &alone[1]] {
                assert_eq!(server.admin().command(&["FLUSHALL"]), Reply::ok());
            }
            let sides = |server: &Redis| [proxy.address(), server.address()];
            run(seed, protocol, [sides(&alone[0]), sides(&alone[1])]);
            everything_is_behind_a_prefix(&shared);
        }
    }
}

fn everything_is_behind_a_prefix(server: &Redis) {
    let Reply::Array(Some(keys)) = server.admin().command(&["KEYS", "*"]) else {
        panic!("no keys")
    };
    assert!(!keys.is_empty());
    for key in keys {
        let Reply::Bulk(Some(name)) = key else { panic!("{key:?}") };
        assert!(name.starts_with(b"t:acme:") || name.starts_with(b"t:globex:"), "{name:?}");
    }
}
