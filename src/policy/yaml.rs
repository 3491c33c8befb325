//! Reading YAML so that every problem of a file is reported at once, with its place.
//!
//! [`Document::parse`] turns text into a small tree of [`Node`]s that know where they stand;
//! [`MapReader`] and the scalar readers of [`Node`] take typed values out of it. A reader that
//! finds a problem notes it in [`Problems`] and gives `None`; the caller carries on, so that one
//! run shows all problems. Deliberately absent: anchors, aliases, tags and several documents in
//! one file; they hide what a reviewer should see.

use std::sync::Arc;
use std::time::Duration;

use saphyr_parser::Parser;

use super::diagnostic::{Diagnostic, Severity, Span};

mod build;
mod read;
mod scalar;

use build::Builder;
pub use read::MapReader;

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
        builder.finish()
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

/// A length of time as [`Node::duration`] reads it, for texts that hold one.
pub(crate) fn duration_of(text: &str) -> Option<Duration> {
    scalar::duration(text)
}

/// A size as [`Node::bytes`] reads it, for texts that hold one.
pub(crate) fn bytes_of(text: &str) -> Option<u64> {
    scalar::bytes(text)
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

#[cfg(test)]
mod tests;
