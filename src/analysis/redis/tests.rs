use proptest::prelude::*;

use super::*;

fn args(line: &str) -> Vec<&[u8]> {
    line.split(' ').map(|word| if word == "\"\"" { &b""[..] } else { word.as_bytes() }).collect()
}

#[track_caller]
fn found<'a>(table: &'a Table, line: &str) -> &'a Command {
    match table.find(args(line).as_slice()) {
        Found::Command(command) => command,
        other @ (Found::Unknown | Found::UnknownSubcommand(_)) => panic!("{line}: {other:?}"),
    }
}

fn letter(mode: KeyMode) -> &'static str {
    match mode {
        KeyMode::Read => "r",
        KeyMode::Write => "w",
        KeyMode::ReadWrite => "rw",
    }
}

/// What a command uses, in short: `1:r:Shown`, `news:Publish`, `Reached`.
#[track_caller]
fn used(line: &str) -> String {
    let table = Table::builtin();
    let args = args(line);
    let mut uses = Uses::default();
    if let Err(error) = found(&table, line).uses(args.as_slice(), &mut uses) {
        return error.to_string();
    }
    let mut words: Vec<String> = Vec::new();
    for KeyAt { at, mode, exposure } in uses.keys {
        let key = str::from_utf8(args[at]).unwrap();
        words.push(format!("{key}:{}:{exposure:?}", letter(mode)));
    }
    for ChannelAt { at, mode } in uses.channels {
        words.push(format!("{}:{mode:?}", str::from_utf8(args[at]).unwrap()));
    }
    for at in uses.patterns {
        words.push(format!("{}:pattern", str::from_utf8(args[at]).unwrap()));
    }
    if uses.unnamed != Unnamed::Untouched {
        words.push(format!("{:?}", uses.unnamed));
    }
    words.join(" ")
}

fn shape(line: &str) -> Shape {
    found(&Table::builtin(), line).shape(args(line).as_slice())
}

#[test]
fn every_command_is_generated_and_reviewed() {
    let table = Table::builtin();
    let names = |text: &'static str| -> Vec<&str> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split('\t').next().unwrap()).collect()
    };
    let generated = names(include_str!("commands.tsv"));
    assert_eq!(names(include_str!("reviewed.tsv")), generated);
    let known: Vec<_> = table.commands().iter().map(|command| &*command.fact.name).collect();
    assert_eq!(known, generated, "one of the lines says nothing");
    for (number, command) in table.commands().iter().enumerate() {
        assert_eq!(usize::from(command.id.0), number);
        assert_eq!(table.command(command.id).unwrap().fact, command.fact);
        let line = command.fact.name.replace('|', " ");
        assert_eq!(found(&table, &line).id, command.id, "{line}");
        assert_eq!(found(&table, &line.to_uppercase()).id, command.id, "{line}");
    }
}

#[test]
fn what_the_table_does_not_know_is_unknown() {
    let table = Table::builtin();
    let unknown = |line: &str| matches!(table.find(args(line).as_slice()), Found::Unknown);
    assert!(unknown("") && unknown("gett k") && unknown("get\0 k") && unknown("client|list"));
    assert!(unknown(&"g".repeat(24)) && unknown(&"g".repeat(100)) && unknown("list"));
    assert!(matches!(table.find([].as_slice()), Found::Unknown));
    for line in ["CLIENT LIST\0", "client get", "CLIENT ", "client kill|", "command |"] {
        let found = table.find(args(line).as_slice());
        assert!(matches!(found, Found::UnknownSubcommand("client" | "command")), "{line}");
    }
    assert_eq!(&*found(&table, "Object enCoding k").fact.name, "object|encoding");
    assert_eq!(&*found(&table, "CLIENT").fact.name, "client");
    assert_eq!(&*found(&table, "COMMAND").fact.name, "command");
    assert_eq!(&*found(&table, "get client").fact.name, "get");
}

#[test]
fn arity_fits_where_one_server_takes_it() {
    let table = Table::builtin();
    let fits = |line: &str, args| found(&table, line).arity_fits(args);
    assert!(fits("get k", 2) && !fits("get k", 1) && !fits("get k", 3));
    assert!(fits("del k", 2) && fits("del k", 200) && !fits("del k", 1));
    assert!(fits("zrank k", 3) && fits("zrank k", 4) && !fits("zrank k", 2));
    assert!(fits("command getkeys", 3) && !fits("command getkeys", 2));
    assert!(!fits("client", 1) && fits("command", 1));
}

#[test]
fn roles_and_doors() {
    let table = Table::builtin();
    let role = |line: &str| found(&table, line).role;
    assert_eq!(role("ssubscribe c"), Role::Subscribe(Subscribed::Shard));
    assert_eq!(role("config get a"), Role::Answered(Answered::ConfigGet));
    assert_eq!(role("acl whoami"), Role::Answered(Answered::WhoAmI));
    for command in table.commands() {
        let name = &*command.fact.name;
        let door = command.fact.door;
        let dangerous = command.fact.categories.iter().any(|category| &**category == "dangerous");
        if dangerous {
            let open = ["keys", "sort", "sort_ro"];
            assert_eq!(door, !open.contains(&name), "{name}");
        }
        if matches!(command.role, Role::Answered(_) | Role::Never | Role::Monitor) {
            assert!(door, "{name}");
        }
        if name.ends_with("|help") {
            assert!(!door, "{name}");
        }
    }
    for name in ["sync", "psync a b", "replconf"] {
        assert_eq!(role(name), Role::Never);
    }
}

/// A value that comes back, whole or in part, was read, whatever flags a specification gives.
#[test]
fn what_shows_values_reads_them() {
    for command in Table::builtin().commands() {
        let Keys::Specs(specs) = &command.keys else { continue };
        for spec in specs {
            let shows = matches!(spec.exposure, Exposure::Shown | Exposure::Copied);
            assert!(!shows || spec.mode.reads(), "{}", command.fact.name);
        }
    }
}

#[test]
fn keys_of_specifications() {
    assert_eq!(used("GET k"), "k:r:Shown");
    assert_eq!(used("MSET a 1 b 2"), "a:w:Hidden b:w:Hidden");
    assert_eq!(used("BLPOP a b 0"), "a:rw:Shown b:rw:Shown");
    assert_eq!(used("BITOP AND d a b"), "d:w:Hidden a:r:Copied b:r:Copied");
    assert_eq!(used("LCS a b LEN"), "a:r:Derived b:r:Derived");
    assert_eq!(used("ZUNIONSTORE d 2 a b WEIGHTS 1 2"), "d:w:Hidden a:r:Copied b:r:Copied");
    assert_eq!(used("BLMPOP 0 2 a b LEFT"), "a:rw:Shown b:rw:Shown");
    assert_eq!(used("EVAL return 1 a x"), "a:rw:Copied Reached");
    assert_eq!(used("EVAL return 0 x"), "Reached");
    assert_eq!(used("MEMORY USAGE k SAMPLES 5"), "k:r:Derived");
    assert_eq!(used("XGROUP CREATE s g $"), "s:w:Hidden");
    assert_eq!(used("XAUTOCLAIM s g c 0 0"), "s:rw:Shown");
    assert_eq!(used("OBJECT ENCODING k"), "k:r:Derived");
    assert_eq!(used("RENAME a b"), "a:rw:Copied b:w:Hidden");
    assert_eq!(used("FLUSHALL"), "Changed");
    assert_eq!(used("RANDOMKEY"), "Counted");
}

#[test]
fn numbers_of_keys_that_do_not_add_up_are_not_understood() {
    let many = "Number of keys can't be greater than number of args";
    for count in ["3", "9223372036854775807", "4294967298"] {
        assert_eq!(used(&format!("ZINTER {count} a b")), many);
        assert_eq!(used(&format!("EVAL s {count} a b")), many);
    }
    for count in
        ["-1", "x", "+1", "01", "1.0", "9223372036854775808", "-0", "\"\"", "18446744073709551617"]
    {
        assert_eq!(used(&format!("LMPOP {count} a LEFT")), "numkeys should be greater than 0");
    }
    assert_eq!(used("FCALL f -1 a"), "Number of keys can't be negative");
    assert_eq!(used("EVALSHA f x a"), "value is not an integer or out of range");
    assert_eq!(used("FCALL f x a"), "Bad number of keys provided");
    assert_eq!(used("FCALL_RO f 9223372036854775808"), "Bad number of keys provided");
    assert_eq!(used("ZUNIONSTORE d 0"), "d:w:Hidden");
    assert_eq!(used("ZUNIONSTORE d"), "wrong number of arguments");
    assert_eq!(used("GET"), "wrong number of arguments");
}

#[test]
fn set() {
    assert_eq!(used("SET k v"), "k:w:Hidden");
    assert_eq!(used("SET k GET NX PX 5"), "k:w:Hidden");
    assert_eq!(used("SET k v get ex 5"), "k:rw:Shown");
    assert_eq!(used("SET k v EX GET"), "k:w:Hidden");
    assert_eq!(used("SET k v IFEQ GET"), "k:rw:Derived");
    assert_eq!(used("SET k v IFEQ x GET"), "k:rw:Derived");
    for odd in ["SET k v EX", "SET k v IFNE x", "SET k v \"\"", "SET k v IFEQ"] {
        assert_eq!(used(odd), "syntax error");
    }
    assert_eq!(shape("SET k GET"), Shape::Other);
    assert_eq!(shape("SET k v NX GET"), Shape::Value);
    assert_eq!(shape("SET k v IFEQ GET"), Shape::Other);
}

#[test]
fn bitfield() {
    assert_eq!(used("BITFIELD k"), "k:r:Derived");
    assert_eq!(used("BITFIELD k GET u8 0 OVERFLOW SAT"), "k:r:Derived");
    assert_eq!(used("BITFIELD k GET u8 0 SET u8 0 1"), "k:rw:Derived");
    assert_eq!(used("BITFIELD k INCRBY u8 0 1"), "k:rw:Derived");
    assert_eq!(used("BITFIELD k GET u8"), "syntax error");
    assert_eq!(used("BITFIELD k PUT u8 0"), "syntax error");
}

#[test]
fn sort() {
    assert_eq!(used("SORT k LIMIT 0 5 ALPHA"), "k:r:Derived");
    assert_eq!(used("SORT k BY nosort GET #"), "k:r:Derived");
    assert_eq!(used("SORT k BY w_*"), "k:r:Derived Reached");
    assert_eq!(used("SORT k GET # GET *->f"), "k:r:Derived Reached");
    assert_eq!(used("SORT k BY STORE STORE d"), "k:r:Copied d:w:Hidden Reached");
    assert_eq!(used("SORT k STORE a STORE b"), "k:r:Copied a:w:Hidden b:w:Hidden");
    for odd in ["SORT k STORE", "SORT k LIMIT 0", "SORT k BY", "SORT k TOP"] {
        assert_eq!(used(odd), "syntax error");
    }
}

#[test]
fn geo_radius() {
    assert_eq!(used("GEORADIUS g 1 2 3 km ASC COUNT 5 ANY"), "g:r:Derived");
    assert_eq!(used("GEORADIUS g 1 2 3 km STORE d"), "g:r:Copied d:w:Hidden");
    assert_eq!(used("GEORADIUSBYMEMBER g m 3 km STOREDIST d"), "g:r:Copied d:w:Hidden");
    assert_eq!(used("GEORADIUSBYMEMBER g m 3 km STORE"), "syntax error");
    assert_eq!(used("GEORADIUSBYMEMBER g STORE 3 km"), "g:r:Derived");
    assert_eq!(used("GEORADIUS_RO g 1 2 3 km"), "g:r:Derived");
}

#[test]
fn streams() {
    assert_eq!(used("XREAD STREAMS a b 0 0"), "a:r:Shown b:r:Shown");
    assert_eq!(used("XREAD COUNT 5 BLOCK 0 streams a $"), "a:r:Shown");
    let group = "XREADGROUP GROUP streams streams NOACK STREAMS a >";
    assert_eq!(used(group), "a:r:Shown");
    assert_eq!(used("XREADGROUP COUNT 1 GROUP g STREAMS STREAMS a >"), "a:r:Shown");
    assert!(used("XREAD STREAMS a b 0").starts_with("Unbalanced"));
    assert!(used("XREAD COUNT 5 STREAMS").starts_with("Unbalanced"));
    assert_eq!(used("XREAD COUNT STREAMS a 0"), "syntax error");
    assert_eq!(used("XREAD COUNT 5 NOACK"), "syntax error");
    let entry = Shape::Tuple(
        [Shape::Other, Shape::Pairs(Box::new(Shape::Field), Box::new(Shape::Value))].into(),
    );
    let entries = Shape::Each(Box::new(entry));
    assert_eq!(shape("XRANGE s - +"), entries);
    assert_eq!(shape("XCLAIM s JUSTID JUSTID 0 1-1"), entries);
    assert_eq!(shape("XCLAIM s g c 0 1-1 LASTID JUSTID"), entries);
    assert_eq!(shape("XCLAIM s g c 0 1-1 JUSTID"), Shape::Other);
    let next = Shape::Tuple([Shape::Other, entries.clone(), Shape::Other].into());
    assert_eq!(shape("XAUTOCLAIM s g c 0 JUSTID"), next);
    assert_eq!(shape("XAUTOCLAIM s g c 0 0 JUSTID"), Shape::Other);
    assert_eq!(shape("XREAD STREAMS s 0"), Shape::Pairs(Box::new(Shape::Key), Box::new(entries)));
}

#[test]
fn migrate() {
    assert_eq!(used("MIGRATE h 1 k 0 5 COPY REPLACE"), "k:rw:Copied");
    assert_eq!(used("MIGRATE h 1 \"\" 0 5 AUTH KEYS KEYS a b"), "a:rw:Copied b:rw:Copied");
    assert_eq!(used("MIGRATE h 1 \"\" 0 5 AUTH2 KEYS KEYS"), ":rw:Copied");
    assert_eq!(used("MIGRATE h 1 \"\" 0 5 REPLACE"), ":rw:Copied");
    assert_eq!(used("MIGRATE h 1 k 0 5 KEYS a"), "syntax error");
    assert_eq!(used("MIGRATE h 1 k 0 5 OTHER"), "syntax error");
    assert_eq!(used("MIGRATE h 1"), "wrong number of arguments");
}

#[test]
fn scans() {
    assert_eq!(used("SCAN 0"), "Listed");
    assert_eq!(used("SCAN 0 MATCH a* COUNT 5 TYPE MATCH"), "a*:pattern Listed");
    assert_eq!(used("SCAN 0 MATCH a MATCH b"), "a:pattern b:pattern Listed");
    assert_eq!(used("KEYS a*"), "a*:pattern Listed");
    assert_eq!(used("SCAN 0 MATCH"), "syntax error");
    assert_eq!(used("SCAN 0 OTHER"), "syntax error");
    assert_eq!(used("HSCAN h 0 MATCH f*"), "h:r:Shown");
    assert_eq!(used("SSCAN s 0 COUNT MATCH"), "s:r:Shown");
    assert_eq!(used("SSCAN s 0 MATCH v*"), "s:r:Derived");
    assert_eq!(used("ZSCAN z 0 MATCH v*"), "z:r:Derived");
    let (field, value) = (Box::new(Shape::Field), Box::new(Shape::Value));
    let pairs = Shape::Pairs(field, value);
    assert_eq!(shape("HSCAN h 0"), Shape::Tuple([Shape::Other, pairs.clone()].into()));
    assert_eq!(shape("HSCAN h 0 MATCH NOVALUES"), Shape::Tuple([Shape::Other, pairs].into()));
    let fields = Shape::Each(Box::new(Shape::Field));
    assert_eq!(shape("HSCAN h 0 NOVALUES"), Shape::Tuple([Shape::Other, fields.clone()].into()));
    assert_eq!(shape("HRANDFIELD h 0"), fields);
    assert_eq!(shape("HRANDFIELD h"), Shape::Field);
    assert_eq!(shape("HMGET h a b"), Shape::ByField(2));
}

#[test]
fn zrange() {
    assert_eq!(used("ZRANGE z 0 -1 REV WITHSCORES"), "z:r:Shown");
    assert_eq!(used("ZRANGE z BYSCORE BYLEX"), "z:r:Shown");
    assert_eq!(used("ZRANGE z 0 9 BYSCORE LIMIT 0 1"), "z:r:Derived");
    assert_eq!(used("ZRANGE z [a [b bylex"), "z:r:Derived");
    assert_eq!(used("ZRANGE z 0 9 OTHER"), "syntax error");
}

#[test]
fn channels_and_what_tells_of_keys() {
    assert_eq!(used("PUBLISH news v"), "news:Publish");
    assert_eq!(used("SPUBLISH news v"), "news:Publish");
    assert_eq!(used("SSUBSCRIBE a b"), "a:Subscribe b:Subscribe");
    assert_eq!(used("PSUBSCRIBE a*"), "a*:SubscribePattern");
    assert_eq!(used("PSUBSCRIBE *"), "*:SubscribePattern Counted");
    assert_eq!(used("SUBSCRIBE __keyevent@0__:del"), "__keyevent@0__:del:Subscribe Counted");
    assert_eq!(used("PUNSUBSCRIBE *"), "*:SubscribePattern");
    assert_eq!(used("UNSUBSCRIBE"), "");
    assert_eq!(used("PUBSUB NUMSUB a b"), "a:Subscribe b:Subscribe");
    assert_eq!(used("PUBSUB CHANNELS a*"), "a*:SubscribePattern");
    assert_eq!(used("PUBSUB CHANNELS"), "Counted");
    assert_eq!(used("CLIENT TRACKING on OPTIN NOLOOP"), "");
    assert_eq!(used("CLIENT TRACKING on BCAST PREFIX a"), "Counted");
    assert_eq!(used("CLIENT TRACKING on REDIRECT 5"), "Counted");
    assert_eq!(used("CLIENT TRACKING on PREFIX"), "syntax error");
}

#[test]
fn facts_name_what_is_used() {
    let table = Table::builtin();
    let words = args("COPY a b");
    let copy = found(&table, "COPY a b");
    let mut uses = Uses::default();
    copy.uses(words.as_slice(), &mut uses).unwrap();
    let store = facts(copy, words.as_slice(), &uses).store;
    assert_eq!(&*store.command.unwrap().name, "copy");
    let keys: Vec<_> = store.keys.iter().map(|key| &*key.key).collect();
    assert_eq!(keys, [b"a", b"b"]);
    let nothing = facts(copy, [&b"COPY"[..]].as_slice(), &uses);
    assert_eq!(nothing.certainty, Certainty::Unknown(Why::TooLong));
}

#[test]
fn one_long_command_keeps_no_memory() {
    let table = Table::builtin();
    let mut uses = Uses::default();
    let long = vec![&b"DEL"[..]; 100_000];
    found(&table, "DEL k").uses(long.as_slice(), &mut uses).unwrap();
    assert_eq!(uses.keys.len(), long.len() - 1);
    found(&table, "PING").uses([&b"PING"[..]].as_slice(), &mut uses).unwrap();
    assert!(uses.keys.capacity() < 1000 && uses.keys.is_empty());
}

/// Words that mean something to one command or another, numbers that overflow, and anything else.
fn any_word() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static str> = vec![
        "GET",
        "IFEQ",
        "EX",
        "NX",
        "BY",
        "LIMIT",
        "STORE",
        "STOREDIST",
        "COUNT",
        "STREAMS",
        "GROUP",
        "BLOCK",
        "NOACK",
        "KEYS",
        "AUTH",
        "AUTH2",
        "COPY",
        "MATCH",
        "TYPE",
        "NOVALUES",
        "BYSCORE",
        "BCAST",
        "PREFIX",
        "REDIRECT",
        "SET",
        "INCRBY",
        "OVERFLOW",
        "nosort",
        "#",
        "",
        "0",
        "1",
        "2",
        "3",
        "-1",
        "9223372036854775807",
        "18446744073709551615",
        "JUSTID",
        "WITHVALUES",
    ];
    let word = proptest::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    prop_oneof![4 => word, 1 => proptest::collection::vec(any::<u8>(), 0..4)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn places_are_those_of_arguments(lines in proptest::collection::vec(
        proptest::collection::vec(any_word(), 0..12), 8,
    )) {
        let table = Table::builtin();
        let mut uses = Uses::default();
        for (command, line) in table.commands().iter().flat_map(|command| {
            lines.iter().map(move |line| (command, line))
        }) {
            let mut args: Vec<&[u8]> = command.fact.name.split('|').map(str::as_bytes).collect();
            args.extend(line.iter().map(Vec::as_slice));
            let args = args.as_slice();
            let places = |uses: &Uses| -> Vec<usize> {
                let keys = uses.keys.iter().map(|key| key.at);
                let channels = uses.channels.iter().map(|channel| channel.at);
                keys.chain(channels).chain(uses.patterns.iter().copied()).collect()
            };
            if command.uses(args, &mut uses).is_ok() {
                prop_assert!(places(&uses).iter().all(|at| (1..args.len()).contains(at)), "{args:?}");
                prop_assert_eq!(facts(command, args, &uses).certainty, Certainty::Known);
            }
            let _shape = command.shape(args);
            let once = uses.clone();
            let _again = command.uses(args, &mut uses);
            prop_assert_eq!(once, uses.clone(), "uses are made from nothing");
        }
    }
}
