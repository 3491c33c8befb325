//! Parser events → tree.

use std::collections::HashSet;

use saphyr_parser::{Event, ScalarStyle};

use super::{Document, Entry, Node, Problems, Value};
use crate::policy::diagnostic::{Diagnostic, Span};

/// Builds the tree from events, without recursion.
pub(super) struct Builder {
    start: Span,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    pub(super) problems: Problems,
}

/// A collection whose end has not come yet.
enum Open {
    List { span: Span, items: Vec<Node> },
    Map { span: Span, entries: Vec<Entry>, keys: HashSet<Box<str>>, key: Option<(Box<str>, Span)> },
}

impl Builder {
    pub(super) fn new(start: Span) -> Self {
        let problems = Problems::default();
        Self { start, open: Vec::new(), root: None, documents: 0, problems }
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// A problem after which reading on makes no sense.
    pub(super) fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
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

    /// The tree, if there was no problem.
    pub(super) fn finish(self) -> Result<Node, Vec<Diagnostic>> {
        let Self { start, open: _, root, documents: _, problems } = self;
        if !problems.list.is_empty() {
            return Err(problems.list);
        }
        Ok(root.unwrap_or(Node { span: start, value: Value::Null }))
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
