//! The effect of a rule: exactly one of those in [`EFFECTS`].

use std::collections::BTreeMap;

use super::matching::{kept, relation, verbs};
use super::{one_or_many, shown_text, store};
use crate::facts::Verb;
use crate::obligation::{Alphabet, DateUnit, MaskFn, Token};
use crate::policy::decision::Counted;
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::pattern::FunctionPattern;
use crate::policy::predicate;
use crate::policy::prefix::Prefix;
use crate::policy::rule::{Allow, CountedBy, Effect, Filter, Mask, Object, Rate};
use crate::policy::yaml::{self, Entry, MapReader, Node, Problems, Value};

/// Keys of which a rule has exactly one.
const EFFECTS: [&str; 9] =
    ["mask", "filter", "allow", "deny", "limit", "prefix", "values", "patterns", "ttl"];

/// Reads the one effect of a rule.
pub(super) fn read(map: &mut MapReader<'_>, problems: &mut Problems) -> Option<Effect> {
    let found: Vec<(&str, &Entry)> =
        EFFECTS.into_iter().filter_map(|key| map.entry(key).map(|entry| (key, entry))).collect();
    let (key, node) = match found.as_slice() {
        [(key, entry)] => (*key, &entry.value),
        [] => {
            let message = format!("a rule needs one of {}", EFFECTS.join(", "));
            problems.error(map.span(), message);
            return None;
        }
        [_, (second, entry), ..] => {
            let message = format!("a second effect `{second}`; a rule has exactly one");
            problems.push(
                Diagnostic::error(&entry.key_span, message)
                    .with_help("write it as a rule of its own"),
            );
            return None;
        }
    };
    match key {
        "mask" => mask(node, problems).map(Effect::Mask),
        "filter" => filter(node, problems).map(Effect::Filter),
        "allow" => allow(node, problems).map(|allow| Effect::Allow(Box::new(allow))),
        "deny" => deny(node, problems),
        "prefix" => prefix(node, problems).map(Effect::Prefix),
        "values" => store::values(node, problems).map(Effect::Bounds),
        "ttl" => store::ttl(node, problems).map(Effect::Bounds),
        "patterns" => store::patterns(node, problems).map(Effect::Bounds),
        _ => limit(node, problems).map(Effect::Limit),
    }
}

/// Compares a mask by class with the classes matched: neither may name one the other leaves out.
pub(super) fn fits_classes(span: &Span, object: &Object, mask: &Mask, problems: &mut Problems) {
    let Mask::ByClass(functions) = mask else { return };
    let classes = &object.classes;
    if classes.any.is_empty() {
        problems.error(span, "a mask by class needs `classes` in its match");
        return;
    }
    for glob in &classes.any {
        if !functions.keys().any(|class| glob.matches(class)) {
            let message = format!("class `{}` is matched but has no mask function", glob.as_str());
            problems.error(span, message);
        }
    }
    for class in functions.keys().filter(|class| !classes.admits(class)) {
        let known = classes.any.iter().map(|glob| glob.as_str());
        let message = format!("class `{class}` has a mask function but is not matched");
        problems.push(Diagnostic::error(span, message).suggest(class, known));
    }
}

// === mask ===

fn mask(node: &Node, problems: &mut Problems) -> Option<Mask> {
    let Value::Map(entries) = &node.value else {
        return function(node, problems).map(Mask::All);
    };
    if let [only] = entries.as_slice()
        && (FUNCTIONS.contains(&&*only.key) || LATER.contains(&&*only.key))
    {
        return function(node, problems).map(Mask::All);
    }
    if entries.is_empty() {
        problems.error(&node.span, "a mask by class needs at least one class");
        return None;
    }
    let read: BTreeMap<Box<str>, MaskFn> = entries
        .iter()
        .filter_map(|entry| Some((entry.key.clone(), function(&entry.value, problems)?)))
        .collect();
    (read.len() == entries.len()).then_some(Mask::ByClass(read))
}

const FUNCTIONS: [&str; 10] = [
    "nullify",
    "constant",
    "token_hmac",
    "hash_keyed",
    "fpe_ff1",
    "pan_bin_last4",
    "partial_email",
    "partial",
    "bucket",
    "truncate_date",
];

/// Functions of later releases.
const LATER: [&str; 6] =
    ["default", "ip_prefix", "json_paths", "last4", "phone_last", "bucket_edges"];

/// Most characters a partial mask keeps at one end.
const KEPT_CHARS_MAX: u64 = 1_000;
/// Longest constant in characters.
const CONSTANT_CHARS_MAX: usize = 1_000;

/// A function as a name, or as a mapping of one name to its arguments.
fn function(node: &Node, problems: &mut Problems) -> Option<MaskFn> {
    let (name, arguments) = match &node.value {
        Value::Scalar { text, .. } => (&**text, None),
        Value::Map(entries) => match entries.as_slice() {
            [Entry { key, value, .. }] => (&**key, Some(value)),
            _ => {
                problems.error(&node.span, "expected one mask function with its arguments");
                return None;
            }
        },
        Value::Null | Value::List(_) => {
            problems.error(&node.span, "expected a mask function");
            return None;
        }
    };
    match (name, arguments) {
        ("nullify", None) => Some(MaskFn::Nullify),
        ("constant", Some(value)) => constant(value, problems),
        ("partial", arguments) => partial(arguments, problems),
        ("partial_email", arguments) => partial_email(arguments, problems),
        ("pan_bin_last4", arguments) => pan_bin_last4(arguments, problems),
        ("truncate_date", Some(unit)) => unit.one_of(UNITS, problems).map(MaskFn::TruncateDate),
        ("bucket", Some(arguments)) => bucket(arguments, problems),
        ("hash_keyed", None) => Some(MaskFn::HashKeyed),
        ("token_hmac", arguments) => token_hmac(arguments, problems),
        ("fpe_ff1", arguments) => fpe_ff1(arguments, problems),
        _ => {
            problems.push(no_function(&node.span, name, arguments.is_some()));
            None
        }
    }
}

const UNITS: &[(&str, DateUnit)] = &[
    ("day", DateUnit::Day),
    ("month", DateUnit::Month),
    ("quarter", DateUnit::Quarter),
    ("year", DateUnit::Year),
];

fn no_function(span: &Span, name: &str, with_arguments: bool) -> Diagnostic {
    if LATER.contains(&name) {
        let message = format!("mask function `{name}` is not enforced yet by this version");
        return Diagnostic::error(span, message);
    }
    if !FUNCTIONS.contains(&name) {
        return Diagnostic::error(span, format!("unknown mask function `{name}`"))
            .suggest(name, FUNCTIONS)
            .with_help(format!("one of: {}", FUNCTIONS.join(", ")));
    }
    if with_arguments {
        return Diagnostic::error(span, format!("mask function `{name}` takes no arguments"));
    }
    Diagnostic::error(span, format!("mask function `{name}` needs arguments"))
        .with_help("for instance {constant: x}, {truncate_date: month}, {bucket: {width: 10}}")
}

fn constant(node: &Node, problems: &mut Problems) -> Option<MaskFn> {
    let text = node.string(problems)?;
    if text.chars().count() > CONSTANT_CHARS_MAX || text.contains('\0') {
        problems
            .error(&node.span, format!("a constant has at most {CONSTANT_CHARS_MAX} characters"));
        return None;
    }
    Some(MaskFn::Constant(text.into()))
}

fn partial(arguments: Option<&Node>, problems: &mut Problems) -> Option<MaskFn> {
    let (mut prefix, mut suffix, mut fill) = (Some(0), Some(0), Some('*'));
    if let Some(node) = arguments {
        let mut map = MapReader::new(node, problems)?;
        prefix = map.optional("prefix").map_or(prefix, |node| kept_chars(node, problems));
        suffix = map.optional("suffix").map_or(suffix, |node| kept_chars(node, problems));
        fill = map.optional("char").map_or(fill, |node| one_char(node, problems));
        map.finish(problems);
    }
    Some(MaskFn::Partial { prefix: prefix?, suffix: suffix?, fill: fill? })
}

fn kept_chars(node: &Node, problems: &mut Problems) -> Option<u32> {
    let count = node.u64(problems)?;
    if count > KEPT_CHARS_MAX {
        problems.error(&node.span, format!("at most {KEPT_CHARS_MAX} characters can be kept"));
        return None;
    }
    u32::try_from(count).ok()
}

fn one_char(node: &Node, problems: &mut Problems) -> Option<char> {
    let mut chars = node.string(problems)?.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) if !c.is_control() => Some(c),
        _ => {
            problems.error(&node.span, "expected one character");
            None
        }
    }
}

fn partial_email(arguments: Option<&Node>, problems: &mut Problems) -> Option<MaskFn> {
    let mut keep_domain = Some(false);
    if let Some(node) = arguments {
        let mut map = MapReader::new(node, problems)?;
        keep_domain = map.optional("keep_domain").map_or(keep_domain, |node| node.bool(problems));
        map.finish(problems);
    }
    Some(MaskFn::PartialEmail { keep_domain: keep_domain? })
}

fn pan_bin_last4(arguments: Option<&Node>, problems: &mut Problems) -> Option<MaskFn> {
    let mut bin = Some(6);
    if let Some(node) = arguments {
        let mut map = MapReader::new(node, problems)?;
        let sizes = [("6", 6), ("8", 8)];
        bin = map.optional("bin").map_or(bin, |node| node.one_of(&sizes, problems));
        map.finish(problems);
    }
    Some(MaskFn::PanBinLast4 { bin: bin? })
}

fn bucket(node: &Node, problems: &mut Problems) -> Option<MaskFn> {
    let mut map = MapReader::new(node, problems)?;
    let width_node = map.required("width", problems);
    let width = width_node.and_then(|node| node.u64(problems));
    let offset = map.optional("offset").map_or(Some(0), |node| node.i64(problems));
    map.finish(problems);
    if let (Some(0), Some(node)) = (width, width_node) {
        problems.error(&node.span, "a bucket needs a width greater than zero");
        return None;
    }
    Some(MaskFn::Bucket { width: width?, offset: offset? })
}

fn token_hmac(arguments: Option<&Node>, problems: &mut Problems) -> Option<MaskFn> {
    let (mut length, mut prefix, mut at) = (Some(Token::LENGTH.into()), Some(""), None);
    if let Some(node) = arguments {
        let mut map = MapReader::new(node, problems)?;
        length = map.optional("len").map_or(length, |node| node.u64(problems));
        prefix = map.optional("prefix").map_or(prefix, |node| node.string(problems));
        map.finish(problems);
        at = Some(&node.span);
    }
    // A length that is no byte is too long, and is told so.
    let length = u8::try_from(length?).unwrap_or(u8::MAX);
    match (Token::new(length, prefix?), at) {
        (Ok(token), _) => Some(MaskFn::TokenHmac(token)),
        (Err(message), Some(at)) => {
            problems.error(at, message);
            None
        }
        (Err(_), None) => None,
    }
}

fn fpe_ff1(arguments: Option<&Node>, problems: &mut Problems) -> Option<MaskFn> {
    let mut alphabet = Some(Alphabet::Digits);
    if let Some(node) = arguments {
        let mut map = MapReader::new(node, problems)?;
        let all = [Alphabet::Digits, Alphabet::LowerAlphanumeric, Alphabet::Alphanumeric];
        let names = all.map(|alphabet| (alphabet.name(), alphabet));
        alphabet = map.optional("alphabet").map_or(alphabet, |node| node.one_of(&names, problems));
        map.finish(problems);
    }
    alphabet.map(MaskFn::FpeFf1)
}

// === filter, allow, deny, limit ===

fn filter(node: &Node, problems: &mut Problems) -> Option<Filter> {
    let text = node.string(problems)?;
    if text.len() > PREDICATE_BYTES_MAX {
        problems.error(&node.span, format!("a filter has at most {PREDICATE_BYTES_MAX} bytes"));
        return None;
    }
    let references = kept(predicate::references(text), &node.span, problems)?;
    Some(Filter { predicate: text.into(), span: node.span.clone(), references })
}

/// Longest filter in bytes.
const PREDICATE_BYTES_MAX: usize = 16 * 1024;

fn allow(node: &Node, problems: &mut Problems) -> Option<Allow> {
    let mut map = MapReader::new(node, problems)?;
    let texts = |node: Option<&'_ Node>, problems: &mut Problems| {
        node.map(|node| {
            let texts = one_or_many(node, problems).into_iter();
            texts.map(|(text, span)| (text.to_owned(), span.clone())).collect::<Vec<_>>()
        })
    };
    let statements = texts(map.optional("statements"), problems);
    let relations = texts(map.optional("relations"), problems);
    let functions = texts(map.optional("functions"), problems);
    let store = store::allow(&mut map, problems);
    map.finish(problems);
    let about_statements = statements.is_some() || relations.is_some() || functions.is_some();
    if !about_statements && !store.is_written() {
        let needs = "`allow` needs `statements`, `relations` or `functions`, \
                     or `commands`, `keys`, `reads`, `writes`, `channels`, `scripts` or `library_functions`";
        problems.error(&node.span, needs);
        return None;
    }
    let words: Option<Vec<(&str, &Span)>> = statements
        .as_ref()
        .map(|list| list.iter().map(|(text, span)| (text.as_str(), span)).collect());
    let named = words.iter().flatten().filter_map(|(text, _)| Verb::parse(text)).collect();
    Some(Allow {
        statements: words.map(|words| verbs(&words, problems)),
        named,
        relations: relations.map(|list| {
            let read = |(text, span): &(String, Span)| kept(relation(text, span), span, problems);
            list.iter().filter_map(read).collect()
        }),
        functions: functions
            .unwrap_or_default()
            .iter()
            .filter_map(|(text, span)| kept(FunctionPattern::parse(text), span, problems))
            .collect(),
        store,
    })
}

fn prefix(node: &Node, problems: &mut Problems) -> Option<Prefix> {
    kept(Prefix::parse(node.string(problems)?), &node.span, problems)
}

fn deny(node: &Node, problems: &mut Problems) -> Option<Effect> {
    if let Value::Scalar { .. } = &node.value {
        let yes = node.one_of(&[("true", ())], problems);
        return yes.map(|()| Effect::Deny { message: None });
    }
    let mut map = MapReader::new(node, problems)?;
    let message = map.required("message", problems).and_then(|node| shown_text(node, problems));
    map.finish(problems);
    message.map(|message| Effect::Deny { message: Some(message) })
}

fn limit(node: &Node, problems: &mut Problems) -> Option<Rate> {
    let mut map = MapReader::new(node, problems)?;
    map.unsupported(&["rows"], problems);
    let counts =
        [("rate", Counted::Uses), ("bytes", Counted::Bytes), ("arguments", Counted::Arguments)];
    let written = counts.map(|(key, of)| map.optional(key).map(|node| (node, of)));
    let rate = match written.into_iter().flatten().collect::<Vec<_>>().as_slice() {
        [(node, of)] => {
            let read = |text| match of {
                Counted::Uses | Counted::Arguments => rate_of(text),
                Counted::Bytes => bytes_rate_of(text),
            };
            let rate = node.string(problems).map(read);
            rate.and_then(|rate| kept(rate, &node.span, problems)).map(|rate| (*of, rate))
        }
        [] => {
            problems.error(&node.span, "`limit` needs one of `rate`, `bytes`, `arguments`");
            None
        }
        [_, (second, _), ..] => {
            problems.push(
                Diagnostic::error(&second.span, "a limit counts one thing")
                    .with_help("write a rule for each"),
            );
            None
        }
    };
    let by = match map.optional("by") {
        Some(node) => kept(counted_by(node.string(problems)?), &node.span, problems),
        None => Some(CountedBy::User),
    };
    map.finish(problems);
    let (of, (count, per_us)) = rate?;
    Some(Rate { of, count, per_us, by: by? })
}

/// `500/s`, `100/10s`, `60/min`, `1000/h`, `20000/day`.
pub(crate) fn rate_of(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("`{text}` is not a rate such as `500/s`, `100/10s`, `60/min`, `1000/h`");
    let (count, per_us) = count_and_window(text, small).ok_or_else(wrong)?;
    if count == 0 || count > per_us {
        return Err(format!("`{text}`: the count must be from 1 to one for each microsecond"));
    }
    Ok((count, per_us))
}

/// `64KiB/s`, `10MiB/min`, `1GiB/day`.
fn bytes_rate_of(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("`{text}` is not a rate such as `64KiB/s`, `10MiB/min`, `1GiB/day`");
    let (count, per_us) = count_and_window(text, yaml::bytes_of).ok_or_else(wrong)?;
    if count == 0 || count / 1_000 > per_us {
        return Err(format!("`{text}`: the size must be from 1 byte to one for each nanosecond"));
    }
    Ok((count, per_us))
}

/// What stands before the stroke, and the window behind it in microseconds.
fn count_and_window(text: &str, read: impl Fn(&str) -> Option<u64>) -> Option<(u64, u64)> {
    let (count, window) = text.split_once('/')?;
    let count = read(count.trim())?;
    let window = window.trim();
    let window = if window.starts_with(|c: char| c.is_ascii_digit()) {
        yaml::duration_of(window)
    } else {
        yaml::duration_of(&format!("1{window}"))
    };
    let per_us = u64::try_from(window?.as_micros()).ok()?;
    (per_us > 0 && per_us <= WINDOW_US_MAX).then_some((count, per_us))
}

fn small(text: &str) -> Option<u64> {
    text.parse::<u32>().ok().map(u64::from)
}

/// Longest window of a limit: 31 days, in microseconds.
const WINDOW_US_MAX: u64 = 31 * 24 * 60 * 60 * 1_000_000;

fn counted_by(text: &str) -> Result<CountedBy, String> {
    match text {
        "identity.user" => Ok(CountedBy::User),
        "client.ip" => Ok(CountedBy::Address),
        "database" => Ok(CountedBy::Database),
        "identity.roles" => Err("a limit cannot count by roles: a login can have several".into()),
        other => other
            .strip_prefix("identity.")
            .filter(|name| predicate::is_name(name))
            .map(|name| CountedBy::Attribute(name.into()))
            .ok_or_else(|| {
                format!("unknown `{other}`; known: identity.user, identity.ATTRIBUTE, client.ip, database")
            }),
    }
}
