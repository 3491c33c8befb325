//! Words about commands, keys and channels.

use std::sync::Arc;

use super::matching::kept;
use super::one_or_many;
use crate::name::Glob;
use crate::obligation::{Bounded, JsonPath};
use crate::policy::decision::Counted;
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::rule::{Effect, Object};
use crate::policy::store::{CommandPattern, Places, StoreAllow};
use crate::policy::yaml::{MapReader, Node, Problems};

/// One glob, or a list of them.
pub(super) fn globs(node: &Node, problems: &mut Problems) -> Vec<Glob> {
    one_or_many(node, problems).into_iter().map(|(text, _)| Glob::new(text)).collect()
}

/// `fields` and `paths`.
pub(super) fn places(map: &mut MapReader<'_>, problems: &mut Problems) -> Places {
    let fields = map.optional("fields").map(|node| globs(node, problems));
    let paths = map.optional("paths").map(|node| one_or_many(node, problems));
    let paths = paths.unwrap_or_default().into_iter();
    Places {
        fields: fields.map(Arc::from),
        paths: paths.filter_map(|(text, span)| kept(path(text), span, problems)).collect(),
    }
}

/// A path with its text.
pub(super) fn path(text: &str) -> Result<(JsonPath, Box<str>), String> {
    JsonPath::parse(text).map(|path| (path, text.into()))
}

/// What an allow rule lists of commands.
pub(super) fn allow(map: &mut MapReader<'_>, problems: &mut Problems) -> StoreAllow {
    let commands = map.optional("commands").map(|node| commands(node, problems));
    let scripts = map.optional("scripts").map(|node| scripts(node, problems));
    let functions = map.optional("library_functions").map(|node| functions(node, problems));
    let mut listed = |key| map.optional(key).map(|node| globs(node, problems));
    StoreAllow {
        commands,
        keys: listed("keys"),
        reads: listed("reads"),
        writes: listed("writes"),
        channels: listed("channels"),
        scripts,
        functions,
        only_doors: false,
    }
}

fn scripts(node: &Node, problems: &mut Problems) -> Vec<Arc<str>> {
    let digest = |text: &str| {
        let hexadecimal = text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let wrong = || format!("`{text}` is not the SHA-1 of a script: 40 hexadecimal digits");
        hexadecimal.then(|| text.to_ascii_lowercase().into()).ok_or_else(wrong)
    };
    let texts = one_or_many(node, problems).into_iter();
    texts.filter_map(|(text, span)| kept(digest(text), span, problems)).collect()
}

fn functions(node: &Node, problems: &mut Problems) -> Vec<Arc<str>> {
    let name = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let named = !text.is_empty() && text.bytes().all(plain);
        let wrong = || format!("`{text}` is no name of a function: letters, digits, underscores");
        named.then(|| text.into()).ok_or_else(wrong)
    };
    let texts = one_or_many(node, problems).into_iter();
    texts.filter_map(|(text, span)| kept(name(text), span, problems)).collect()
}

/// `values: {bytes_max, arguments_max}`.
pub(super) fn values(node: &Node, problems: &mut Problems) -> Option<Vec<(Bounded, u64)>> {
    let mut map = MapReader::new(node, problems)?;
    let bytes = map.optional("bytes_max").map(|node| node.bytes(problems));
    let arguments = map.optional("arguments_max").map(|node| node.u64(problems));
    map.unsupported(&["elements_max"], problems);
    map.finish(problems);
    if bytes.is_none() && arguments.is_none() {
        problems.error(&node.span, "`values` needs `bytes_max` or `arguments_max`");
        return None;
    }
    let mut bounds = Vec::new();
    for (what, max) in [(Bounded::ArgumentBytes, bytes), (Bounded::Arguments, arguments)] {
        if let Some(max) = max {
            bounds.push((what, max?));
        }
    }
    Some(bounds)
}

/// `patterns: {length_max}`.
pub(super) fn patterns(node: &Node, problems: &mut Problems) -> Option<Vec<(Bounded, u64)>> {
    let mut map = MapReader::new(node, problems)?;
    let length = map.required("length_max", problems).and_then(|node| node.u64(problems));
    map.finish(problems);
    Some(vec![(Bounded::PatternBytes, length?)])
}

/// `ttl: {max}`, which refuses what is longer, `{cap}`, which lowers it, `{default}`, which puts one in
/// where there is none, or `{required: true}`.
pub(super) fn ttl(node: &Node, problems: &mut Problems) -> Option<Vec<(Bounded, u64)>> {
    let mut map = MapReader::new(node, problems)?;
    let yes: &[(&str, ())] = &[("true", ())];
    let required = map.optional("required").map(|node| node.one_of(yes, problems));
    let max = map.optional("max").map(|node| milliseconds(node, problems));
    let cap = map.optional("cap").map(|node| said(node, problems));
    let default = map.optional("default").map(|node| said(node, problems));
    map.finish(problems);
    let wrong = match (max, cap, default, required) {
        (None, None, None, None) => "`ttl` needs `max`, `cap`, `default` or `required: true`",
        (Some(_), Some(_), _, _) => "`max` refuses a longer expiry and `cap` lowers it: write one",
        (_, _, Some(_), Some(_)) => {
            "`required` refuses a command without an expiry and `default` puts one in: write one"
        }
        (Some(Some(most)), _, Some(Some(default)), _)
        | (_, Some(Some(most)), Some(Some(default)), _)
            if default > most =>
        {
            "`default` is longer than the rule lets an expiry be"
        }
        (_, _, _, _) => "",
    };
    if !wrong.is_empty() {
        problems.error(&node.span, wrong);
        return None;
    }
    if [max, cap, default, required.map(|yes| yes.map(|()| 0))].contains(&Some(None)) {
        // What is wrong with it has been told.
        return None;
    }
    let (max, cap, default) = (max.flatten(), cap.flatten(), default.flatten());
    // No expiry at all is more than any number.
    let most = max.or(cap).unwrap_or(u64::MAX).min(u64::MAX - 1);
    let mut bounds = vec![(Bounded::ExpiryMs, most)];
    bounds.extend(cap.map(|ms| (Bounded::ExpiryLoweredMs, ms)));
    // Without an end is longer than any cap.
    let put_in = default.or(cap.filter(|_| required.is_none()));
    bounds.extend(put_in.map(|ms| (Bounded::ExpiryPutInMs, ms)));
    Some(bounds)
}

fn milliseconds(node: &Node, problems: &mut Problems) -> Option<u64> {
    let duration = node.duration(problems)?;
    Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// An expiry that a command is made to say.
fn said(node: &Node, problems: &mut Problems) -> Option<u64> {
    let ms = milliseconds(node, problems)?;
    if ms == 0 || ms > SAID_MS_MAX {
        problems.error(&node.span, "an expiry that is put in is from 1ms to 36500d");
        return None;
    }
    Some(ms)
}

/// Longest expiry that a command is made to say: servers refuse what they cannot add to their clock.
const SAID_MS_MAX: u64 = 36_500 * 24 * 60 * 60 * 1_000;

fn commands(node: &Node, problems: &mut Problems) -> Vec<CommandPattern> {
    let texts = one_or_many(node, problems).into_iter();
    texts
        .filter_map(|(text, span)| kept(CommandPattern::parse(text, span), span, problems))
        .collect()
}

/// Refuses words that mean nothing, or something else than they seem to, for an effect.
pub(super) fn fits_effect(span: &Span, object: &Object, effect: &Effect, problems: &mut Problems) {
    let store = &object.store;
    match effect {
        Effect::Prefix(_) if object.says_nothing() => return,
        Effect::Prefix(_) => {
            let message = "the match of a prefix says whom; it holds for every key and channel";
            problems.error(span, message);
            return;
        }
        Effect::Bounds(_) if object.about_statements() => {
            problems
                .error(span, "`values`, `patterns` and `ttl` are about commands, not statements");
            return;
        }
        Effect::Limit(rate) if rate.of != Counted::Uses && object.about_statements() => {
            problems.error(span, "bytes and arguments are counted of commands, not of statements");
            return;
        }
        Effect::Bounds(_)
        | Effect::Mask(_)
        | Effect::Filter(_)
        | Effect::Allow(_)
        | Effect::Deny { .. }
        | Effect::Limit(_) => {}
    }
    if store.is_empty() {
        return;
    }
    if object.about_statements() {
        problems.push(
            Diagnostic::error(span, "a rule is about statements or about commands, not about both")
                .with_help("write two rules"),
        );
    }
    match effect {
        Effect::Mask(_) => fits_mask(span, object, problems),
        Effect::Filter(_) => {
            problems.error(span, "a filter stands on relations; keys have no rows to filter");
        }
        // What stands in its match is refused where allow rules are checked.
        Effect::Allow(_) => {}
        Effect::Deny { .. } | Effect::Limit(_) | Effect::Prefix(_) | Effect::Bounds(_) => {
            if !store.places.is_empty() {
                let message = "`fields` and `paths` belong to a mask: \
                               what a command names is its keys";
                problems.error(span, message);
            }
        }
    }
}

fn fits_mask(span: &Span, object: &Object, problems: &mut Problems) {
    let store = &object.store;
    if !store.commands.is_empty() || !store.except_commands.is_empty() {
        problems.push(
            Diagnostic::error(span, "a mask on values holds for every command")
                .with_help("leave `commands` out, so that no command goes around it"),
        );
    }
    if !store.reads.is_empty() || !store.writes.is_empty() || store.about_channels() {
        problems.error(span, "a mask on values is matched by `keys` and `except_keys`");
    }
    if object.wants_labels() && !store.places.is_empty() {
        problems.push(
            Diagnostic::error(span, "the classification says which fields and paths carry a class")
                .with_help("leave `fields` and `paths` out, or the class"),
        );
    }
}
