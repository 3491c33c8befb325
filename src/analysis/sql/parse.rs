//! Hostile text → statements and tokens, by PostgreSQL's own grammar.
//!
//! The decoder of `pg_query`, our walks and the release of a tree recurse once per level of
//! nesting, so whatever may nest deeply runs on a stack of its own; a tree never leaves the
//! function that asked for it. The grammar gives up on nesting long before this stack does.

use std::thread;

use pg_query::ParserOptions;

use crate::analysis::{AnalyzerLimits, Strings};
use crate::facts::Why;

use super::complaint;
use super::tree::{self, Node, TooDeep};

/// One token of the text that is not a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Byte offset of its first byte.
    pub(super) start: usize,
    /// Byte offset after its last byte.
    pub(super) end: usize,
    /// Which token of the grammar.
    pub(super) kind: pg_query::protobuf::Token,
    /// How reserved it is, when it is a keyword.
    pub(super) keyword: pg_query::protobuf::KeywordKind,
}

/// Parses a text into its statements, each a `RawStmt`. Call under [`on_deep_stack`].
pub(super) fn parse(text: &str, limits: &AnalyzerLimits) -> Result<Vec<Node>, Why> {
    if text.len() > limits.statement_bytes_max {
        return Err(Why::TooLong);
    }
    if text.contains('\0') {
        return Err(Why::NotUtf8);
    }
    // A token has at least one byte: only a long text can hold too many. The scanner knows the
    // standard reading of strings only, so under another one bytes stand for tokens.
    if text.len() > limits.tokens_max {
        let few = match limits.dialect.strings {
            Strings::Standard => scan(text).is_none_or(|tokens| tokens.len() <= limits.tokens_max),
            Strings::Escaped => false,
        };
        if !few {
            return Err(Why::TooComplex);
        }
    }
    let strings = limits.dialect.strings;
    match read(text, strings) {
        Ok(parsed) => tree::statements(&parsed.protobuf).map_err(|TooDeep| Why::TooComplex),
        Err(pg_query::Error::Parse(message)) if too_complex(&message) => Err(Why::TooComplex),
        Err(pg_query::Error::Parse(message)) => {
            let same = |beginning: &str| match read(beginning, strings) {
                Err(pg_query::Error::Parse(said)) => said == message,
                Ok(_) | Err(_) => false,
            };
            let error = complaint::describe(text, message.clone(), limits.dialect, &same);
            Err(Why::Syntax(Box::new(error)))
        }
        Err(pg_query::Error::Decode(_)) => Err(Why::TooComplex),
        Err(pg_query::Error::Conversion(_)) => Err(Why::NotUtf8),
        Err(
            pg_query::Error::InvalidJson(_)
            | pg_query::Error::InvalidPointer
            | pg_query::Error::Scan(_)
            | pg_query::Error::IsUtility(_)
            | pg_query::Error::Split(_),
        ) => Err(Why::Construct("a text the parser could not answer for".to_owned())),
    }
}

fn read(text: &str, strings: Strings) -> pg_query::Result<pg_query::ParseResult> {
    match strings {
        Strings::Standard => pg_query::parse(text, ParserOptions::DEFAULT),
        Strings::Escaped => {
            // Its warnings are the server's to give; here they would fill a pipe nobody reads.
            let options = ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS
                | ParserOptions::DISABLE_ESCAPE_STRING_WARNING;
            let parsed = pg_query::parse(text, options);
            // The library keeps the setting for the next scan on this thread: put it back.
            drop(pg_query::parse("", ParserOptions::DEFAULT));
            parsed
        }
    }
}

/// The tokens of a text without its comments; `None` when it cannot be scanned to its end.
pub(super) fn scan(text: &str) -> Option<Vec<Token>> {
    use pg_query::protobuf::Token as Kind;
    let scanned = pg_query::scan(text).ok()?;
    let mut tokens = Vec::with_capacity(scanned.tokens.len());
    for token in scanned.tokens {
        let kind = token.token();
        if matches!(kind, Kind::SqlComment | Kind::CComment) {
            continue;
        }
        tokens.push(Token {
            start: usize::try_from(token.start).ok()?,
            end: usize::try_from(token.end).ok()?,
            kind,
            keyword: token.keyword_kind(),
        });
    }
    Some(tokens)
}

/// Runs `work` where recursion over the tree of `text` cannot exhaust the stack.
pub(super) fn on_deep_stack<R: Send>(text: &str, work: impl FnOnce() -> R + Send) -> Option<R> {
    if !may_nest(text) {
        return Some(work());
    }
    thread::scope(|scope| {
        thread::Builder::new()
            .name("deep-sql".to_owned())
            .stack_size(DEEP_STACK_BYTES)
            .spawn_scoped(scope, work)
            .ok()?
            .join()
            .ok()
    })
}

/// Stack for texts that may nest deeply. Reserved, not touched: a shallow text uses a few pages.
const DEEP_STACK_BYTES: usize = 256 * 1024 * 1024;

/// Longest text that is parsed on the caller's stack.
const SHALLOW_BYTES_MAX: usize = 8 * 1024;

/// Most marks (see [`may_nest`]) for a text to be parsed on the caller's stack. A mark brings up to
/// four nodes; two megabytes of stack hold a thousand nodes in a release build, some forty in
/// a debug build.
const SHALLOW_MARKS_MAX: usize = if cfg!(debug_assertions) { 4 } else { 40 };

/// Whether the tree of a text may be deep, judged generously and in one pass: every level of
/// nesting takes a bracket, an operator or one of the words that combine expressions.
fn may_nest(text: &str) -> bool {
    if text.len() <= SHALLOW_MARKS_MAX {
        return false;
    }
    if text.len() > SHALLOW_BYTES_MAX {
        return true;
    }
    let mut marks = 0_usize;
    for word in text.as_bytes().split(|byte| !byte.is_ascii_alphabetic()) {
        marks += usize::from(NESTING_WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)));
    }
    marks += text.bytes().filter(|byte| b"([+-*/<>=~!@#%^&|`?:".contains(byte)).count();
    marks > SHALLOW_MARKS_MAX
}

/// Words that can add a level to an expression, a query or a join without any bracket.
const NESTING_WORDS: [&[u8]; 23] = [
    b"not",
    b"is",
    b"isnull",
    b"notnull",
    b"collate",
    b"at",
    b"case",
    b"union",
    b"intersect",
    b"except",
    b"join",
    b"select",
    b"and",
    b"or",
    b"like",
    b"ilike",
    b"similar",
    b"between",
    b"in",
    b"operator",
    b"with",
    b"overlaps",
    b"explain",
];

/// What the grammar says when nesting or memory is exhausted.
fn too_complex(message: &str) -> bool {
    ["stack depth", "nested too deeply", "memory exhausted"]
        .iter()
        .any(|said| message.contains(said))
}
