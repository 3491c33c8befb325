//! Problems in files people write: where, what, and the way out.

use std::fmt;
use std::sync::Arc;

/// A place in a file, for messages. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// File as the person named it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The file is not taken.
    Error,
    /// The file is taken; a person should look.
    Warning,
}

impl Severity {
    /// The word in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One problem of one file.
///
/// Prints as `rules/pii.yaml:12:5: error: unknown key …`, the help on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// File as the person named it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: lower case, names in backticks, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A problem that keeps the file from being taken.
    pub fn error(at: &Span, message: impl Into<String>) -> Self {
        Self::new(at, Severity::Error, message.into())
    }

    /// A problem a person should look at.
    pub fn warning(at: &Span, message: impl Into<String>) -> Self {
        Self::new(at, Severity::Warning, message.into())
    }

    /// The same problem with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same problem, asking whether the person meant the candidate nearest to `word`, if one
    /// is near enough.
    #[must_use]
    pub fn suggest<'a>(
        mut self,
        word: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        if let Some(near) = nearest(word, candidates) {
            self.message.push_str(&format!(", did you mean `{near}`?"));
        }
        self
    }

    fn new(at: &Span, severity: Severity, message: String) -> Self {
        Self {
            file: at.file.to_string(),
            line: at.line,
            column: at.column,
            severity,
            message,
            help: None,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, severity, message, help } = self;
        write!(f, "{file}:{line}:{column}: {}: {message}", severity.name())?;
        match help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// The candidate most like `word`, if it is near enough to be a typing error.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = word.chars().count().div_ceil(3).clamp(1, 3);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance with swaps of neighbours counted once (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(WORD_CHARS_MAX).collect();
    let right: Vec<char> = right.chars().take(WORD_CHARS_MAX).collect();
    let mut before_previous: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    let mut left_neighbour = None;
    for (row, &l) in left.iter().enumerate() {
        let mut current = Vec::with_capacity(previous.len());
        current.push(row + 1);
        let mut right_neighbour = None;
        for (column, &r) in right.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX);
            let mut best = (at(&previous, column).saturating_add(usize::from(l != r)))
                .min(at(&previous, column + 1).saturating_add(1))
                .min(at(&current, column).saturating_add(1));
            if left_neighbour == Some(r) && right_neighbour == Some(l) {
                let swapped = column.checked_sub(1).map(|index| at(&before_previous, index));
                best = best.min(swapped.unwrap_or(usize::MAX).saturating_add(1));
            }
            current.push(best);
            right_neighbour = Some(r);
        }
        before_previous = std::mem::replace(&mut previous, current);
        left_neighbour = Some(l);
    }
    previous.last().copied().unwrap_or(usize::MAX)
}

/// Longest word compared: the cost is quadratic, and nobody mistypes longer ones by one letter.
const WORD_CHARS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits_and_swaps() {
        let cases = [
            ("", "", 0),
            ("", "abc", 3),
            ("match", "match", 0),
            ("mach", "match", 1),
            ("emial", "email", 1),
            ("kitten", "sitting", 3),
            ("é", "e", 1),
        ];
        for (left, right, expected) in cases {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(nearest("mach", ["mask", "match", "mode"]), Some("match"));
        assert_eq!(nearest("zzz", ["mask", "match"]), None);
        assert_eq!(nearest("match", ["match"]), None, "the word itself is no suggestion");
    }

    #[test]
    fn prints_place_message_and_help() {
        let span = Span { file: "rules/pii.yaml".into(), line: 12, column: 5 };
        let problem = Diagnostic::error(&span, "unknown key `mach`")
            .suggest("mach", ["match"])
            .with_help("x");
        assert_eq!(
            problem.to_string(),
            "rules/pii.yaml:12:5: error: unknown key `mach`, did you mean `match`?\n  help: x"
        );
    }
}
