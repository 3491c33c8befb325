//! Typed values out of the tree.

use std::time::Duration;

use super::{Entry, Node, Problems, Value, scalar};
use crate::policy::diagnostic::{Diagnostic, Span};

/// Takes the keys of one mapping and reports those nobody asked for.
#[derive(Debug)]
pub struct MapReader<'n> {
    span: Span,
    entries: &'n [Entry],
    asked: Vec<&'static str>,
}

// === impl MapReader ===

impl<'n> MapReader<'n> {
    /// Opens a mapping; an absent value (`key:` with nothing after it) is an empty one.
    pub fn new(node: &'n Node, problems: &mut Problems) -> Option<Self> {
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            Value::Scalar { .. } | Value::List(_) => {
                problems.push(node.mismatch("a mapping (`key: value`)"));
                return None;
            }
        };
        Some(Self { span: node.span.clone(), entries, asked: Vec::new() })
    }

    /// Where the mapping begins.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The value of `key`, if written. A key with an empty value counts as written.
    pub fn optional(&mut self, key: &'static str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The key with its value, for messages about the key itself.
    pub fn entry(&mut self, key: &'static str) -> Option<&'n Entry> {
        self.asked.push(key);
        self.entries.iter().find(|entry| &*entry.key == key)
    }

    /// The value of `key`; its absence is a problem.
    pub fn required(&mut self, key: &'static str, problems: &mut Problems) -> Option<&'n Node> {
        let node = self.optional(key);
        if node.is_none() {
            problems.error(&self.span, format!("`{key}` is missing"));
        }
        node
    }

    /// Reports keys that exist in the language but not in this release: an obligation that is
    /// silently left out would be worse than a file that does not load.
    pub fn unsupported(&mut self, keys: &[&'static str], problems: &mut Problems) {
        for key in keys {
            if let Some(entry) = self.entry(key) {
                let message = format!("`{key}` is not enforced yet by this version");
                problems
                    .push(Diagnostic::error(&entry.key_span, message).with_help(
                        "remove it; a rule that is not enforced must not look enforced",
                    ));
            }
        }
    }

    /// Reports every key nobody asked for.
    pub fn finish(self, problems: &mut Problems) {
        for entry in self.entries {
            if self.asked.contains(&&*entry.key) {
                continue;
            }
            let message = format!("unknown key `{}`", entry.key);
            let known = format!("known here: {}", self.asked.join(", "));
            problems.push(
                Diagnostic::error(&entry.key_span, message)
                    .suggest(&entry.key, self.asked.iter().copied())
                    .with_help(known),
            );
        }
    }
}

// === impl Node ===

impl Node {
    /// The entries of a mapping whose keys are not fixed.
    pub fn entries(&self, problems: &mut Problems) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Null | Value::Scalar { .. } | Value::List(_) => {
                problems.push(self.mismatch("a mapping (`key: value`)"));
                None
            }
        }
    }

    /// The items of a list; a single scalar or mapping is *not* taken for a list of one.
    pub fn items(&self, problems: &mut Problems) -> Option<&[Self]> {
        match &self.value {
            Value::List(items) => Some(items),
            Value::Null | Value::Scalar { .. } | Value::Map(_) => {
                problems.push(self.mismatch("a list (`[a, b]`)"));
                None
            }
        }
    }

    /// A text. Numbers and booleans are texts too when a text is asked for.
    pub fn string(&self, problems: &mut Problems) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => {
                problems.push(self.mismatch("a text"));
                None
            }
        }
    }

    /// `true` or `false`, unquoted.
    pub fn bool(&self, problems: &mut Problems) -> Option<bool> {
        let value = self.plain().and_then(|text| text.parse().ok());
        self.or_mismatch(value, "`true` or `false`", problems)
    }

    /// A whole number from zero, unquoted, in decimal digits.
    pub fn u64(&self, problems: &mut Problems) -> Option<u64> {
        let value = self.plain().and_then(scalar::digits);
        self.or_mismatch(value, "a whole number", problems)
    }

    /// A whole number with sign, unquoted, in decimal digits.
    pub fn i64(&self, problems: &mut Problems) -> Option<i64> {
        let value = self.plain().filter(|text| !text.starts_with('+'));
        self.or_mismatch(value.and_then(|text| text.parse().ok()), "a whole number", problems)
    }

    /// A length of time: `250ms`, `5s`, `2min`, `1h`, `1day`. The unit is required.
    pub fn duration(&self, problems: &mut Problems) -> Option<Duration> {
        let value = self.plain().and_then(scalar::duration);
        self.or_mismatch(value, "a duration such as `250ms`, `5s`, `2min`, `1h`", problems)
    }

    /// A size in bytes: `64MiB`, `16KiB`, `1GiB`, `512B`, or a bare number of bytes.
    pub fn bytes(&self, problems: &mut Problems) -> Option<u64> {
        let value = self.plain().and_then(scalar::bytes);
        self.or_mismatch(value, "a size such as `16KiB`, `64MiB`, `1GiB`", problems)
    }

    /// A list of texts, each with its place.
    pub fn strings(&self, problems: &mut Problems) -> Option<Vec<(&str, &Span)>> {
        let items = self.items(problems)?;
        let texts: Vec<_> = items
            .iter()
            .filter_map(|item| item.string(problems).map(|text| (text, &item.span)))
            .collect();
        (texts.len() == items.len()).then_some(texts)
    }

    /// One of the named values.
    pub fn one_of<T: Clone>(&self, names: &[(&str, T)], problems: &mut Problems) -> Option<T> {
        let text = self.string(problems)?;
        if let Some((_, value)) = names.iter().find(|(name, _)| *name == text) {
            return Some(value.clone());
        }
        let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        problems.push(
            Diagnostic::error(&self.span, format!("unknown value `{text}`"))
                .suggest(text, known.iter().copied())
                .with_help(format!("one of: {}", known.join(", "))),
        );
        None
    }

    /// What stands here, for messages: never the value itself, which may be a secret.
    fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar { quoted: true, .. } => "a quoted text",
            Value::Scalar { quoted: false, .. } => "a value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    fn plain(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, quoted: false } => Some(text),
            Value::Scalar { quoted: true, .. } | Value::Null | Value::List(_) | Value::Map(_) => {
                None
            }
        }
    }

    fn or_mismatch<T>(&self, value: Option<T>, wanted: &str, problems: &mut Problems) -> Option<T> {
        if value.is_none() {
            problems.push(self.mismatch(wanted));
        }
        value
    }

    fn mismatch(&self, wanted: &str) -> Diagnostic {
        Diagnostic::error(&self.span, format!("expected {wanted}, found {}", self.kind()))
    }
}
