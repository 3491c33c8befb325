//! Reading YAML so that every problem of a file is reported at once, with its place.
//!
//! [`Document::parse`] turns text into a small tree of [`Node`]s that know where they stand;
//! [`MapReader`] and the scalar readers of [`Node`] take typed values out of it. A reader that
//! finds a problem notes it in [`Problems`] and gives `None`; the caller carries on, so that one
//! run shows all problems. Deliberately absent: anchors, aliases, tags and several documents in
//! one file; they hide what a reviewer should see.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::diagnostic::{Diagnostic, Severity, Span};

mod scalar;

/// Entry point: one text, one tree.
#[derive(Debug)]
pub struct Document {}

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// What a node can be. Scalars stay text until a typed reader asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing written, `~` or `null`.
    Null,
    /// One scalar. `quoted` scalars are never read as numbers or booleans.
    Scalar {
        /// The text, unescaped.
        text: Box<str>,
        /// Written in quotes or as a block.
        quoted: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order written; keys are unique.
    Map(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Box<str>,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

/// Problems found so far, in the order found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Diagnostic>,
}

/// Takes the keys of one mapping and reports those nobody asked for.
#[derive(Debug)]
pub struct MapReader<'n> {
    span: Span,
    entries: &'n [Entry],
    asked: Vec<&'static str>,
}

// === impl Document ===

impl Document {
    /// Longest file in bytes: rule files are written by hand.
    pub const BYTES_MAX: usize = 1024 * 1024;
    /// Deepest nesting; the deepest file this product reads needs seven.
    pub const DEPTH_MAX: usize = 24;

    /// Reads one document.
    ///
    /// # Errors
    /// The text is too long, too deep, not YAML, or uses what this reader refuses. A syntax error
    /// ends the reading; duplicate keys are all reported.
    pub fn parse(file_name: &str, text: &str) -> Result<Node, Vec<Diagnostic>> {
        let file: Arc<str> = file_name.into();
        let start = Span { file: Arc::clone(&file), line: 1, column: 1 };
        if text.len() > Self::BYTES_MAX {
            let message = format!("file is longer than {} bytes", Self::BYTES_MAX);
            return Err(vec![Diagnostic::error(&start, message)]);
        }
        let mut builder = Builder::new(start);
        for event in Parser::new_from_str(text) {
            let step = match event {
                Ok((event, span)) => builder.take(event, place(&file, span.start)),
                Err(error) => Err(Diagnostic::error(&place(&file, *error.marker()), error.info())),
            };
            if let Err(fatal) = step {
                builder.problems.list.push(fatal);
                return Err(builder.problems.list);
            }
        }
        let Builder { root, start, problems, .. } = builder;
        if !problems.list.is_empty() {
            return Err(problems.list);
        }
        Ok(root.unwrap_or(Node { span: start, value: Value::Null }))
    }
}

fn place(file: &Arc<str>, marker: saphyr_parser::Marker) -> Span {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    // The scanner counts lines from 1 and columns from 0.
    Span {
        file: Arc::clone(file),
        line: count(marker.line()).max(1),
        column: count(marker.col() + 1),
    }
}

/// Builds the tree from events, without recursion.
struct Builder {
    start: Span,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    problems: Problems,
}

/// A collection whose end has not come yet.
enum Open {
    List { span: Span, items: Vec<Node> },
    Map { span: Span, entries: Vec<Entry>, keys: HashSet<Box<str>>, key: Option<(Box<str>, Span)> },
}

impl Builder {
    fn new(start: Span) -> Self {
        let problems = Problems::default();
        Self { start, open: Vec::new(), root: None, documents: 0, problems }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Diagnostic::error(&span, "a second document in one file")
                        .with_help("put it into a file of its own"));
                }
                Ok(())
            }
            Event::Alias(_) => Err(no_anchors(&span)),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_decorations(&span, anchor, tag.is_some())?;
                let quoted = style != ScalarStyle::Plain;
                let null = !quoted && matches!(&*text, "" | "~" | "null");
                let text = text.into_owned().into_boxed_str();
                let value = if null { Value::Null } else { Value::Scalar { text, quoted } };
                self.add(Node { span, value })
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_decorations(&span, anchor, tag.is_some())?;
                self.open(Open::List { span, items: Vec::new() })
            }
            Event::MappingStart(anchor, tag) => {
                refuse_decorations(&span, anchor, tag.is_some())?;
                let (entries, keys) = (Vec::new(), HashSet::new());
                self.open(Open::Map { span, entries, keys, key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { span, items }) => {
                    self.add(Node { span, value: Value::List(items) })
                }
                Some(Open::Map { span, entries, .. }) => {
                    self.add(Node { span, value: Value::Map(entries) })
                }
                None => Err(Diagnostic::error(&span, "a collection ends that never began")),
            },
        }
    }

    fn open(&mut self, open: Open) -> Result<(), Diagnostic> {
        if self.open.len() >= Document::DEPTH_MAX {
            let (Open::List { span, .. } | Open::Map { span, .. }) = &open;
            let message = format!("nested deeper than {} levels", Document::DEPTH_MAX);
            return Err(Diagnostic::error(span, message));
        }
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            let (Open::List { span, .. } | Open::Map { span, .. }) = &open;
            return Err(Diagnostic::error(span, "a key must be a plain name")
                .with_help("quote a value that begins with `{` or `[`"));
        }
        self.open.push(open);
        Ok(())
    }

    fn add(&mut self, node: Node) -> Result<(), Diagnostic> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, keys, key, .. }) => match key.take() {
                Some((key, key_span)) => {
                    if keys.insert(key.clone()) {
                        entries.push(Entry { key, key_span, value: node });
                    } else {
                        self.problems.error(&key_span, format!("key `{key}` is given twice"));
                    }
                }
                None => match node.value {
                    Value::Scalar { text, .. } => *key = Some((text, node.span)),
                    Value::Null | Value::List(_) | Value::Map(_) => {
                        return Err(Diagnostic::error(&node.span, "a key must be a plain name"));
                    }
                },
            },
        }
        Ok(())
    }
}

fn refuse_decorations(span: &Span, anchor: usize, tagged: bool) -> Result<(), Diagnostic> {
    if anchor != 0 {
        return Err(no_anchors(span));
    }
    if tagged {
        return Err(Diagnostic::error(span, "tags (`!name`) are not accepted")
            .with_help("quote a value that begins with `!`"));
    }
    Ok(())
}

fn no_anchors(span: &Span) -> Diagnostic {
    Diagnostic::error(span, "anchors (`&name`) and aliases (`*name`) are not accepted")
        .with_help("write the value out; quote a value that begins with `*` or `&`")
}

/// A length of time as [`Node::duration`] reads it, for texts that hold one.
pub(crate) fn duration_of(text: &str) -> Option<Duration> {
    scalar::duration(text)
}

// === impl Problems ===

impl Problems {
    /// Notes an error.
    pub fn error(&mut self, at: &Span, message: impl Into<String>) {
        self.list.push(Diagnostic::error(at, message));
    }

    /// Notes a warning.
    pub fn warning(&mut self, at: &Span, message: impl Into<String>) {
        self.list.push(Diagnostic::warning(at, message));
    }

    /// Notes a prepared diagnostic.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Notes all of several.
    pub fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        self.list.extend(diagnostics);
    }

    /// Whether an error was noted.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// How many were noted.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, in the order of their places.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.list.sort();
        self.list.dedup();
        self.list
    }
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

#[cfg(test)]
mod tests;
