//! The written-down commands beside a live Redis: what the table lacks, nobody can judge.

use std::collections::{BTreeMap, BTreeSet};

use portcullis::analysis::redis::{Command, Found, KeyAt, Table, Uses};
use portcullis::facts::KeyMode;

use crate::redis::{RawRedis, Redis, Reply};

/// What one command is: arity, categories.
#[derive(Debug, PartialEq, Eq)]
struct Described {
    arity: i64,
    categories: BTreeSet<String>,
}

fn words_of(reply: &Reply) -> BTreeSet<String> {
    let (Reply::Array(Some(items)) | Reply::Set(items)) = reply else { panic!("{reply:?}") };
    items
        .iter()
        .map(|item| match item {
            Reply::Simple(word) => word.trim_start_matches('@').to_owned(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn describe(reply: &Reply, found: &mut BTreeMap<String, Described>) {
    let Reply::Array(Some(parts)) = reply else { panic!("{reply:?}") };
    let (Reply::Bulk(Some(name)), Reply::Integer(arity)) = (&parts[0], &parts[1]) else {
        panic!("{parts:?}")
    };
    let described = Described { arity: *arity, categories: words_of(&parts[6]) };
    found.insert(String::from_utf8(name.clone()).unwrap(), described);
    let Reply::Array(Some(subcommands)) = &parts[9] else { panic!("{parts:?}") };
    subcommands.iter().for_each(|subcommand| describe(subcommand, found));
}

/// What the table says of the commands of one server, its own differences included.
fn written(server: &str) -> BTreeMap<String, Described> {
    let table = include_str!("../../src/analysis/redis/commands.tsv");
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let described = lines.filter_map(|line| {
        let columns: Vec<_> = line.split('\t').collect();
        let [name, servers, _since, arity, _flags, categories, _keys, differs] = columns[..] else {
            panic!("{line}")
        };
        let own = |column: &str| {
            let prefix = format!("{server} {column}=");
            differs.split("; ").find_map(|other| other.strip_prefix(&prefix))
        };
        let categories = own("categories").unwrap_or(categories).split(',');
        let described = Described {
            arity: own("arity").unwrap_or(arity).parse().unwrap(),
            categories: categories.filter(|word| *word != "-").map(str::to_owned).collect(),
        };
        servers.split(',').any(|each| each == server).then(|| (name.to_owned(), described))
    });
    described.collect()
}

#[test]
fn the_table_of_commands_is_the_live_servers() {
    let server = Redis::with_settings(&[]);
    let mut client = server.admin();
    let mut theirs = BTreeMap::new();
    let Reply::Array(Some(commands)) = client.command(&["COMMAND"]) else { panic!("no list") };
    commands.iter().for_each(|command| describe(command, &mut theirs));
    let about = String::from_utf8(bulk(&client.command(&["INFO", "server"]))).unwrap();
    let valkey = about.contains("server_name:valkey");
    let ours = written(if valkey { "valkey-8.1" } else { "redis-7.0" });
    assert!(theirs.len() > 300, "{} commands", theirs.len());
    for (name, described) in &theirs {
        assert_eq!(ours.get(name), Some(described), "{name}");
    }
    let gone: Vec<_> = ours.keys().filter(|name| !theirs.contains_key(*name)).collect();
    assert!(gone.is_empty(), "not on the server: {gone:?}");
}

/// Where the server names other modes than the table, and why the table does.
const OTHER_MODES: &[(&str, &str)] = &[
    ("xclaim", "entries come back, although the specification says only `update`"),
    ("xautoclaim", "entries come back, although the specification says only `delete`"),
];

/// Options of the commands whose keys depend on them: each inner list stands or is left out as a
/// whole. `k` is a name of its own each time.
const OPTIONS: &[(&str, &str, &[&str])] = &[
    ("set", "k k", &["NX", "XX", "GET", "KEEPTTL", "EX 5", "PXAT 5"]),
    ("bitfield", "k", &["GET u8 0", "SET u8 0 1", "INCRBY u8 0 1", "OVERFLOW SAT"]),
    ("sort", "k", &["BY k", "LIMIT 0 1", "GET k", "GET #", "ASC", "ALPHA", "STORE k"]),
    ("sort_ro", "k", &["BY nosort", "LIMIT 0 1", "GET k", "DESC", "ALPHA"]),
    ("georadius", "k 1 2 3 km", &["WITHDIST", "COUNT 5", "ANY", "ASC", "STORE k"]),
    ("georadius", "k 1 2 3 km", &["WITHCOORD", "WITHHASH", "DESC", "STOREDIST k"]),
    ("georadiusbymember", "k m 3 km", &["WITHDIST", "COUNT 5", "ANY", "STOREDIST k"]),
    ("xread", "", &["COUNT 1", "BLOCK 5", "STREAMS k k k 0 0 0"]),
    ("xread", "", &["BLOCK 5", "COUNT 1", "STREAMS k $"]),
    ("xreadgroup", "GROUP g c", &["COUNT 1", "BLOCK 5", "NOACK", "STREAMS k k > >"]),
    ("xreadgroup", "GROUP streams streams", &["COUNT 1", "STREAMS k >"]),
    ("migrate", "h 1 k 0 5", &["COPY", "REPLACE", "AUTH p", "AUTH2 u p"]),
    ("migrate", "h 1 - 0 5", &["COPY", "REPLACE", "AUTH p", "AUTH2 u p", "KEYS k k"]),
    ("zrange", "k 0 9", &["BYSCORE", "REV", "LIMIT 0 1", "WITHSCORES"]),
    ("hscan", "k 0", &["MATCH k", "COUNT 5"]),
    ("sscan", "k 0", &["MATCH k", "COUNT 5"]),
    ("zscan", "k 0", &["MATCH k", "COUNT 5"]),
];

/// Lines of one command: its own options if it has any, else words without a meaning, some of them
/// numbers.
fn lines(name: &str) -> Vec<Vec<String>> {
    let options = OPTIONS.iter().filter(|(command, ..)| *command == name);
    let mut lines: Vec<_> =
        options.flat_map(|(_, first, options)| chosen(first, options)).collect();
    if lines.is_empty() {
        for words in 0..9 {
            for number in 0..5 {
                for place in 0..4 {
                    let word = |at| if at == place { number.to_string() } else { format!("w{at}") };
                    lines.push((0..words).map(word).collect());
                }
            }
        }
    }
    for line in &mut lines {
        line.splice(0..0, name.split('|').map(str::to_owned));
    }
    lines
}

/// Every choice of these options.
fn chosen(first: &str, options: &[&str]) -> Vec<Vec<String>> {
    let choices = (0..1_u32 << options.len()).map(|choice| {
        let options = options.iter().enumerate().filter(|(at, _)| choice & (1 << at) != 0);
        let words = std::iter::once(first).chain(options.map(|(_, option)| *option));
        let words = words.flat_map(str::split_whitespace).enumerate();
        let words = words.map(|(at, word)| match word {
            "k" => format!("k{at}"),
            "-" => String::new(),
            word => word.to_owned(),
        });
        words.collect()
    });
    choices.collect()
}

/// Keys as our table finds them; `None` if it does not understand the line.
fn our_keys(command: &Command, line: &[&[u8]], uses: &mut Uses) -> Option<Vec<(Vec<u8>, KeyMode)>> {
    command.uses(line, uses).ok()?;
    let keys = uses.keys.iter().map(|KeyAt { at, mode, .. }| (line[*at].to_vec(), *mode));
    Some(keys.collect())
}

/// What the server's `COMMAND` can say of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    NamesAndModes,
    /// Before 7.0, and in another order.
    Names,
}

/// Keys as the server finds them; `None` if it finds none, or complains.
fn their_keys(
    client: &mut RawRedis,
    tells: Tells,
    line: &[&[u8]],
) -> Option<Vec<(Vec<u8>, KeyMode)>> {
    let question: &[u8] = match tells {
        Tells::NamesAndModes => b"GETKEYSANDFLAGS",
        Tells::Names => b"GETKEYS",
    };
    let words = [&[b"COMMAND", question], line].concat();
    let Reply::Array(Some(keys)) = client.command(&words) else { return None };
    let keys = keys.iter().map(|key| match key {
        Reply::Array(Some(parts)) => (bulk(&parts[0]), mode(&words_of(&parts[1]))),
        name => (bulk(name), KeyMode::Read),
    });
    Some(keys.collect())
}

fn bulk(reply: &Reply) -> Vec<u8> {
    let Reply::Bulk(Some(bytes)) = reply else { panic!("{reply:?}") };
    bytes.clone()
}

fn mode(flags: &BTreeSet<String>) -> KeyMode {
    let writes = ["insert", "update", "delete"].iter().any(|flag| flags.contains(*flag));
    match (flags.contains("access"), writes) {
        (true, true) => KeyMode::ReadWrite,
        (false, true) => KeyMode::Write,
        (_, false) => KeyMode::Read,
    }
}

/// The names alone, in an order of their own.
fn names(keys: &[(Vec<u8>, KeyMode)]) -> Vec<&[u8]> {
    let mut names: Vec<_> = keys.iter().map(|(name, _)| &name[..]).collect();
    names.sort_unstable();
    names
}

/// Whether the live server has a command, or the one that a subcommand belongs to.
pub(crate) fn has(client: &mut RawRedis, name: &str) -> bool {
    let name = name.split('|').next().unwrap();
    let Reply::Array(Some(found)) = client.command(&["COMMAND", "INFO", name]) else {
        panic!("no list")
    };
    matches!(found[..], [Reply::Array(Some(_))])
}

#[test]
fn keys_are_where_the_live_server_finds_them() {
    let server = Redis::with_settings(&[]);
    let mut client = server.admin();
    let table = Table::builtin();
    let mut uses = Uses::default();
    let tells = match client.command(&["COMMAND", "GETKEYSANDFLAGS", "GET", "k"]) {
        Reply::Array(Some(_)) => Tells::NamesAndModes,
        _ => Tells::Names,
    };
    let mut compared: BTreeMap<String, usize> = BTreeMap::new();
    for command in table.commands() {
        let name = &*command.fact.name;
        for line in lines(name) {
            let line: Vec<_> = line.iter().map(String::as_bytes).collect();
            if !command.arity_fits(line.len()) {
                continue;
            }
            let Found::Command(found) = table.find(line.as_slice()) else { continue };
            if found.id != command.id {
                continue;
            }
            let Some(theirs) = their_keys(&mut client, tells, &line) else { continue };
            let shown = line.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>();
            let Some(ours) = our_keys(command, &line, &mut uses) else {
                // GETKEYS reads numbers more loosely than the command does.
                let reply = client.command(&line);
                assert!(matches!(reply, Reply::Error(_)), "not understood: {shown:?}, {reply:?}");
                continue;
            };
            let other_modes = OTHER_MODES.iter().any(|(other, _)| *other == name);
            if tells == Tells::NamesAndModes && !other_modes {
                assert_eq!(ours, theirs, "{shown:?}");
            }
            assert_eq!(names(&ours), names(&theirs), "{shown:?}");
            *compared.entry(name.to_owned()).or_default() += 1;
        }
    }
    let generated = include_str!("../../src/analysis/redis/commands.tsv");
    let missing: Vec<_> = generated
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            let keys = columns[6].split(';').any(|key| key != "-" && !key.starts_with("not_key"));
            let wanted = keys && columns[1].contains("redis-7.0");
            (wanted && !compared.contains_key(columns[0])).then_some(columns[0])
        })
        .filter(|name| has(&mut client, name))
        .collect();
    assert!(missing.is_empty(), "never compared: {missing:?}");
    assert!(compared.values().sum::<usize>() > 3000, "{compared:?}");
}

/// Beginnings of commands whose options decide, and words that may follow in any order: options of
/// this command and of others, their values, and what is neither.
const ANY_ORDER: &[(&str, &str)] = &[
    ("SET k v", "NX XX GET IFEQ KEEPTTL EX PX EXAT PXAT 5 9999999999 v GET"),
    ("BITFIELD k", "GET SET INCRBY OVERFLOW u8 i5 0 7 WRAP SAT"),
    ("BITFIELD k GET u8 0", "GET SET INCRBY OVERFLOW u8 0 7 FAIL"),
    ("SORT k", "BY GET STORE LIMIT ASC DESC ALPHA 5 7 nosort # w_* dst"),
    ("SORT_RO k", "BY GET STORE LIMIT ASC DESC ALPHA 5 7 nosort # w_*"),
    ("GEORADIUS k 1 2 3 km", "STORE STOREDIST COUNT ANY ASC DESC WITHDIST WITHHASH 5 dst"),
    ("GEORADIUSBYMEMBER k m 3 km", "STORE STOREDIST COUNT ANY ASC WITHCOORD 5 dst"),
    ("XREAD", "COUNT BLOCK STREAMS NOACK GROUP 5 7 a b 1-1"),
    ("XREAD STREAMS", "STREAMS a b 5 1-1 $"),
    ("XREADGROUP GROUP g c", "COUNT BLOCK STREAMS NOACK GROUP 5 g a b >"),
    ("XREADGROUP COUNT 5 GROUP g STREAMS", "STREAMS NOACK a b > 1-1"),
    ("MIGRATE 127.0.0.1 1 k 0 5", "COPY REPLACE AUTH AUTH2 KEYS a b"),
    ("MIGRATE 127.0.0.1 1 - 0 5", "COPY REPLACE AUTH AUTH2 KEYS a b"),
    ("SCAN 0", "MATCH COUNT TYPE NOVALUES 5 a* hash"),
    ("HSCAN k 0", "MATCH COUNT TYPE NOVALUES 5 a*"),
    ("SSCAN k 0", "MATCH COUNT TYPE NOVALUES 5 a*"),
    ("ZSCAN k 0", "MATCH COUNT TYPE NOSCORES 5 a*"),
    ("ZRANGE k 5 7", "BYSCORE BYLEX REV LIMIT WITHSCORES 5 7"),
    ("CLIENT TRACKING off", "BCAST PREFIX OPTIN OPTOUT NOLOOP REDIRECT 5 a"),
    ("LMPOP", "LEFT RIGHT COUNT 1 2 3 a b"),
    ("ZINTERSTORE dst", "WEIGHTS AGGREGATE SUM 1 2 3 a b"),
    ("EVAL return", "1 2 3 -1 01 a b"),
];

/// Up to six of these words, the same at each run.
fn any_order(words: &str) -> Vec<Vec<&str>> {
    let words: Vec<_> = words.split(' ').collect();
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 40).unwrap() % below
    };
    (0..1500).map(|_| (0..next(7)).map(|_| words[next(words.len())]).collect()).collect()
}

/// What runs, we understand, and with all of the keys that the server finds.
#[test]
fn what_the_live_server_runs_is_understood() {
    let server = Redis::with_settings(&[]);
    let mut client = server.admin();
    let table = Table::builtin();
    let mut uses = Uses::default();
    let (mut ran, mut refused) = (0, 0);
    for (first, words) in ANY_ORDER {
        for words in any_order(words) {
            let line = first.split(' ').map(|word| if word == "-" { "" } else { word });
            let line: Vec<&[u8]> = line.chain(words).map(str::as_bytes).collect();
            let shown = line.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>();
            let Found::Command(command) = table.find(line.as_slice()) else { panic!("{shown:?}") };
            if !command.arity_fits(line.len()) || !has(&mut client, &command.fact.name) {
                continue;
            }
            let ours = our_keys(command, &line, &mut uses);
            let reply = client.command(&line);
            match &reply {
                Reply::Error(text) if !text.starts_with("IOERR") => {
                    refused += 1;
                    continue;
                }
                _ => ran += 1,
            }
            let ours = ours.unwrap_or_else(|| panic!("not understood: {shown:?}: {reply:?}"));
            let theirs = their_keys(&mut client, Tells::Names, &line).unwrap_or_default();
            // Of several destinations the server finds the last.
            let ours = names(&ours);
            for theirs in names(&theirs) {
                assert!(ours.contains(&theirs), "{shown:?}: {ours:?}");
            }
        }
    }
    assert!(ran > 3000 && refused > 3000, "{ran} ran, {refused} were refused");
}
