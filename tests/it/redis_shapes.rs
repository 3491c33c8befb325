//! What the table says of values and names in replies, beside the replies of a live Redis.
//!
//! Every line of the corpus runs against every type of value, in both protocols, over two sets of
//! values: what the table calls a value must be where a canary is, and what it says a command does
//! not let out must not make a difference to the reply.

use std::collections::{BTreeMap, BTreeSet};

use portcullis::analysis::redis::{Args, Command, Found, Shape, Table, Uses};
use portcullis::facts::{Exposure, Unnamed};

use crate::redis::{RawRedis, Redis, Reply, encode};
use crate::redis_table::has as has_command;

/// Types of values, and whether `{key#1}` is an element of it.
pub(crate) const TYPES: [&str; 9] =
    ["string", "number", "hash", "list", "set", "zset", "stream", "hyperloglog", "geo"];

/// One of two sets of values, alike in everything but the values: their length (on one side of the 64
/// bytes at which a server begins to keep them another way, which shows in the order of fields), their
/// order, what they are as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    First,
    Second,
}

impl Values {
    fn canary(self, key: &str, field: &str, number: usize) -> String {
        match self {
            Self::First => format!("{number}canary/{key}/{field}/"),
            Self::Second => format!("{}-canary/{key}/{field}/{}", 9 - number, "x".repeat(20)),
        }
    }

    fn number(self, number: usize) -> String {
        match self {
            Self::First => format!("741174110{number}"),
            Self::Second => format!("98229822330{}", 9 - number),
        }
    }

    /// Commands that set both keys of every type; those called `twin` have the first set of values
    /// always.
    pub(crate) fn seeds(self) -> Vec<Vec<String>> {
        let twins = Self::First.seeds_of("twin");
        let empty = vec!["FLUSHALL".to_owned()];
        [empty].into_iter().chain(self.seeds_of("key")).chain(twins).collect()
    }

    fn seeds_of(self, name: &str) -> Vec<Vec<String>> {
        let mut seeds = Vec::new();
        let mut add = |words: &[&str]| {
            seeds.push(words.iter().map(|word| (*word).to_owned()).collect());
        };
        let key = |kind: &str| format!("{name}:{kind}");
        let canary = |kind: &str, field: &str, n| self.canary(&key(kind), field, n);
        add(&["SET", &key("string"), &canary("string", "", 1)]);
        add(&["SET", &key("number"), &self.number(1)]);
        let (one, two) = (canary("hash", "field-1", 1), canary("hash", "field-2", 2));
        let number = self.number(3);
        add(&["HSET", &key("hash"), "field-1", &one, "field-2", &two, "number", &number]);
        for n in 1..4 {
            add(&["RPUSH", &key("list"), &canary("list", "", n)]);
            add(&["SADD", &key("set"), &canary("set", "", n)]);
            add(&["ZADD", &key("zset"), &self.number(n), &canary("zset", "", n)]);
            add(&["PFADD", &key("hyperloglog"), &canary("hyperloglog", "", n)]);
            let longitude = match self {
                Self::First => format!("1{n}.5"),
                Self::Second => format!("2{}.25", 9 - n),
            };
            add(&["GEOADD", &key("geo"), &longitude, "52", &canary("geo", "", n)]);
        }
        let stream = key("stream");
        for (id, n) in [("1-1", 1), ("2-1", 3)] {
            let (one, two) = (canary("stream", "field-1", n), canary("stream", "field-2", n + 1));
            add(&["XADD", &stream, id, "field-1", &one, "field-2", &two]);
        }
        add(&["XGROUP", "CREATE", &stream, "group", "0"]);
        add(&["XGROUP", "CREATE", &stream, "fresh", "0"]);
        add(&["XREADGROUP", "GROUP", "group", "someone", "STREAMS", &stream, ">"]);
        seeds
    }
}

/// A line of the corpus.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    tag: &'static str,
    pub(crate) text: &'static str,
}

pub(crate) fn corpus() -> impl Iterator<Item = Line> {
    let lines = include_str!("../corpus/redis_canary.tsv").lines();
    lines.filter(|line| !line.starts_with('#')).map(|line| {
        let (tag, text) = line.split_once('\t').expect("a tag and a line");
        assert!(["-", "random", "time"].contains(&tag), "{line}");
        Line { tag, text }
    })
}

impl Line {
    /// Its words for one type. Elements are those of the first set, whichever is in the store.
    pub(crate) fn words(self, kind: &str) -> Vec<String> {
        let field = if kind == "hash" || kind == "stream" { "field-1" } else { "" };
        let [key, twin] = ["key", "twin"].map(|name| format!("{name}:{kind}"));
        let element = |key: &str| match kind {
            "number" => Values::First.number(1),
            _ => Values::First.canary(key, field, 1),
        };
        let word = |word: &str| {
            let word = word.replace("{key}", &key).replace("{twin}", &twin).replace("{dst}", "dst");
            word.replace("{key#1}", &element(&key)).replace("{twin#1}", &element(&twin))
        };
        let mut words = Vec::new();
        for (at, part) in self.text.split('"').enumerate() {
            // What stands between quotes is one word.
            if at % 2 == 1 {
                words.push(word(part));
            } else {
                words.extend(part.split_whitespace().map(word));
            }
        }
        words
    }
}

/// A part of a reply that is no aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaf {
    kind: Kind,
    text: Vec<u8>,
    key: Option<Vec<u8>>,
    field: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Other,
    Value,
    Key,
    Field,
    /// An error, which fits everywhere.
    Error,
}

/// Follows a shape through a reply.
struct Walk<'a> {
    args: &'a [&'a [u8]],
    keys: Vec<&'a [u8]>,
    key: Option<Vec<u8>>,
    field: Option<Vec<u8>>,
    leaves: Vec<Leaf>,
}

impl Walk<'_> {
    fn walk(&mut self, shape: &Shape, reply: &Reply) {
        if let Reply::Error(_) | Reply::BlobError(_) = reply {
            return self.leaf(Kind::Error, reply);
        }
        match (shape, children(reply)) {
            (Shape::Other, None) => self.leaf(Kind::Other, reply),
            (Shape::Key, None) => {
                self.key = text(reply);
                self.leaf(Kind::Key, reply);
            }
            (Shape::Field, None) => {
                self.field = text(reply);
                self.leaf(Kind::Field, reply);
            }
            (Shape::OfField(at), _) => {
                self.field = self.args.get(*at).map(|field| field.to_vec());
                self.walk(&Shape::Value, reply);
            }
            (_, None) => self.leaf(Kind::Value, reply),
            (Shape::Other | Shape::Value, Some(children)) => {
                children.iter().for_each(|child| self.walk(shape, child));
            }
            (Shape::Each(each), Some(children)) => {
                children.iter().for_each(|child| self.walk(each, child));
            }
            (Shape::Tuple(shapes), Some(children)) => {
                for (at, child) in children.iter().enumerate() {
                    self.walk(shapes.get(at).or(shapes.last()).unwrap(), child);
                }
            }
            (Shape::Pairs(first, second), Some(children)) => {
                for (first_child, second_child) in pairs(&children) {
                    self.walk(first, &first_child);
                    self.walk(second, &second_child);
                }
            }
            (Shape::ByKey, Some(children)) => {
                for (at, child) in children.iter().enumerate() {
                    self.key = self.keys.get(at).map(|key| key.to_vec());
                    self.walk(&Shape::Value, child);
                }
            }
            (Shape::ByField(first), Some(children)) => {
                for (at, child) in children.iter().enumerate() {
                    self.walk(&Shape::OfField(first + at), child);
                }
            }
            // An aggregate where a name should be is a value.
            (Shape::Key | Shape::Field, Some(_)) => self.walk(&Shape::Value, reply),
        }
    }

    fn leaf(&mut self, kind: Kind, reply: &Reply) {
        if let Some(text) = text(reply) {
            let (key, field) = (self.key.clone(), self.field.clone());
            self.leaves.push(Leaf { kind, text, key, field });
        }
    }
}

pub(crate) fn children(reply: &Reply) -> Option<Vec<Reply>> {
    match reply {
        Reply::Array(Some(children))
        | Reply::Map(children)
        | Reply::Set(children)
        | Reply::Push(children) => Some(children.clone()),
        _ => None,
    }
}

/// Pairs in any of the ways a server writes them.
fn pairs(children: &[Reply]) -> Vec<(Reply, Reply)> {
    let nested: Option<Vec<_>> = children.iter().map(pair).collect();
    nested.unwrap_or_else(|| {
        let (pairs, rest) = children.as_chunks::<2>();
        assert!(rest.is_empty(), "an odd number: {children:?}");
        pairs.iter().cloned().map(|[first, second]| (first, second)).collect()
    })
}

fn pair(reply: &Reply) -> Option<(Reply, Reply)> {
    let Reply::Array(Some(children)) = reply else { return None };
    let [first, second] = &children[..] else { return None };
    Some((first.clone(), second.clone()))
}

/// The bytes of a reply that is no aggregate; `None` for a null.
pub(crate) fn text(reply: &Reply) -> Option<Vec<u8>> {
    Some(match reply {
        Reply::Simple(text) | Reply::Error(text) | Reply::Double(text) | Reply::Big(text) => {
            text.clone().into_bytes()
        }
        Reply::Integer(number) => number.to_string().into_bytes(),
        Reply::Boolean(truth) => truth.to_string().into_bytes(),
        Reply::Bulk(bytes) => return bytes.clone(),
        Reply::BlobError(bytes) | Reply::Verbatim(bytes) => bytes.clone(),
        Reply::Null | Reply::Array(None) => return None,
        Reply::Array(Some(_)) | Reply::Map(_) | Reply::Set(_) | Reply::Push(_) => {
            panic!("an aggregate is no leaf")
        }
        Reply::Attributed(..) => panic!("attributes"),
    })
}

fn has(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// Whether a value, or all that a value is recognised by, is in these bytes.
pub(crate) fn is_canary(text: &[u8]) -> bool {
    ["canary", "741174110", "98229822330", "HYLL"].iter().any(|part| has(text, part))
}

/// One command over one set of values.
fn run(client: &mut RawRedis, values: Values, words: &[String]) -> Reply {
    let seeds = values.seeds();
    let mut bytes = Vec::new();
    seeds.iter().for_each(|seed| bytes.extend(encode(seed)));
    bytes.extend(encode(words));
    client.send(&bytes);
    for seed in &seeds {
        let reply = client.reply();
        assert!(!matches!(reply, Reply::Error(_)), "{seed:?}: {reply:?}");
    }
    client.reply()
}

/// What the walk over one reply found wrong.
fn wrong(command: &Command, uses: &Uses, leaf: &Leaf) -> Option<&'static str> {
    let Leaf { kind, text, key, field } = leaf;
    let exposed = uses.keys.iter().map(|key| key.exposure).max();
    if is_canary(text) {
        if exposed == Some(Exposure::Hidden) && uses.unnamed == Unnamed::Untouched {
            return Some("a value of a key that is hidden");
        }
        // Scripts say what they like; they are refused where values are to be masked.
        if *kind == Kind::Error && uses.unnamed != Unnamed::Reached {
            return Some("a value in an error");
        }
        if !matches!(kind, Kind::Value | Kind::Error) {
            return Some("a value in a place for something else");
        }
        let shown = exposed == Some(Exposure::Shown);
        if shown && has(text, "canary") {
            let named = key.as_ref().is_some_and(|key| has(text, str::from_utf8(key).unwrap()));
            if !named {
                return Some("a value of another key than the one at hand");
            }
            let of = field.as_ref().is_none_or(|field| has(text, str::from_utf8(field).unwrap()));
            if !of {
                return Some("a value of another field than the one at hand");
            }
        }
        return None;
    }
    let name = (text.starts_with(b"key:") || text.starts_with(b"twin:")) && !has(text, " ");
    if name && !matches!(kind, Kind::Key) && uses.unnamed != Unnamed::Reached {
        return Some("a key's name in a place for something else");
    }
    if text.starts_with(b"field-") && !matches!(kind, Kind::Field | Kind::Value) {
        return Some("a field's name in a place for something else");
    }
    let known = name || &*command.fact.name == "command|getkeys";
    (*kind == Kind::Key && !known && text != b"dst").then_some("no key's name in the place of one")
}

/// The same reply with everything gone that the shape calls a value.
fn without_values(leaves: &[Leaf], tag: &str) -> Vec<(Kind, Vec<u8>)> {
    let shown = leaves.iter().map(|Leaf { kind, text, .. }| match kind {
        Kind::Value => (*kind, Vec::new()),
        Kind::Key | Kind::Field if tag == "random" => (*kind, Vec::new()),
        Kind::Other if tag == "time" => (*kind, Vec::new()),
        Kind::Key | Kind::Field | Kind::Other | Kind::Error => (*kind, text.clone()),
    });
    shown.collect()
}

#[derive(Debug, Default)]
struct Outcome {
    problems: BTreeSet<String>,
    /// Commands that answered with something else than an error.
    answered: BTreeSet<String>,
    /// Commands in whose replies a value was seen in its place.
    shown: BTreeSet<String>,
    /// Commands of the corpus that the live server does not have.
    absent: BTreeSet<String>,
}

fn check(client: &mut RawRedis, table: &Table, line: Line, kind: &str, found: &mut Outcome) {
    let words = line.words(kind);
    let args: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
    let args = args.as_slice();
    let Found::Command(command) = table.find(args) else { panic!("{words:?}") };
    let name = command.fact.name.to_string();
    assert!(command.arity_fits(args.len()), "{words:?}");
    let mut uses = Uses::default();
    command.uses(args, &mut uses).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    let shape = command.shape(args);
    let mut seen = Vec::new();
    if !has_command(client, &name) {
        found.absent.insert(name);
        return;
    }
    for values in [Values::First, Values::Second] {
        let reply = run(client, values, &words);
        if !matches!(reply, Reply::Error(_)) {
            found.answered.insert(name.clone());
        }
        let keys: Vec<_> = uses.keys.iter().filter_map(|key| Args::get(args, key.at)).collect();
        let key = keys.first().map(|key| key.to_vec());
        let mut walk = Walk { args, keys, key, field: None, leaves: Vec::new() };
        walk.walk(&shape, &reply);
        for leaf in &walk.leaves {
            if let Some(why) = wrong(command, &uses, leaf) {
                found.problems.insert(format!("{} ({kind}): {why}: {reply:?}", line.text));
            }
            if leaf.kind == Kind::Value && is_canary(&leaf.text) {
                found.shown.insert(name.clone());
            }
        }
        seen.push(without_values(&walk.leaves, line.tag));
    }
    // Who sees no value, or only those a mask is put on, learns nothing else of them either.
    let open = |key: Exposure| matches!(key, Exposure::Hidden | Exposure::Shown);
    let tells = |at: usize, exposure| args[at].starts_with(b"key:") && !open(exposure);
    let told = uses.keys.iter().any(|key| tells(key.at, key.exposure));
    let told = told || uses.unnamed == Unnamed::Reached;
    if !told && seen[0] != seen[1] {
        found.problems.insert(format!("{} ({kind}): depends on values: {seen:?}", line.text));
    }
}

fn all(greeting: &[&str]) -> Outcome {
    let server = Redis::with_settings(&[]);
    let mut client = server.admin();
    if !greeting.is_empty() {
        client.command(greeting);
    }
    let table = Table::builtin();
    let mut found = Outcome::default();
    for line in corpus() {
        for kind in TYPES {
            check(&mut client, &table, line, kind, &mut found);
            if !line.text.contains('{') {
                break;
            }
        }
        client.command(&["UNWATCH"]);
    }
    found
}

/// Commands that answer with an error here, and why.
const NEVER_ANSWER: &[(&str, &str)] = &[
    ("evalsha", "no script is loaded"),
    ("evalsha_ro", "no script is loaded"),
    ("fcall", "no function is loaded"),
    ("fcall_ro", "no function is loaded"),
    ("migrate", "there is no other server"),
    ("object|freq", "the server does not count how often keys are used"),
    ("restore", "a serialised value is bytes with a checksum"),
    ("restore-asking", "a serialised value is bytes with a checksum"),
];

fn assert_found(found: &Outcome) {
    let problems: Vec<_> = found.problems.iter().cloned().collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let table = Table::builtin();
    let mut uses = Uses::default();
    let mut asked: BTreeMap<String, Exposure> = BTreeMap::new();
    for line in corpus() {
        let words = line.words("string");
        let args: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        let Found::Command(command) = table.find(args.as_slice()) else { panic!("{words:?}") };
        command.uses(args.as_slice(), &mut uses).unwrap();
        let exposure = uses.keys.iter().map(|key| key.exposure).max().unwrap_or(Exposure::Hidden);
        let most = asked.entry(command.fact.name.to_string()).or_insert(exposure);
        *most = (*most).max(exposure);
    }
    let generated = include_str!("../../src/analysis/redis/commands.tsv");
    for line in generated.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<_> = line.split('\t').collect();
        let keys = columns[6].split(';').any(|key| key != "-" && !key.starts_with("not_key"));
        if keys && columns[1].contains("redis-7.0") {
            assert!(asked.contains_key(columns[0]), "{} is not in the corpus", columns[0]);
        }
    }
    for (name, exposure) in &asked {
        if found.absent.contains(name) {
            continue;
        }
        let silent = NEVER_ANSWER.iter().any(|(other, _)| other == name);
        assert_ne!(found.answered.contains(name), silent, "{name}");
        if *exposure == Exposure::Shown {
            assert!(found.shown.contains(name), "{name} never showed a value");
        }
    }
}

#[test]
fn values_and_names_are_where_the_table_says_in_resp2() {
    assert_found(&all(&[]));
}

#[test]
fn values_and_names_are_where_the_table_says_in_resp3() {
    assert_found(&all(&["HELLO", "3"]));
}
