//! Hostile text → statements and tokens, by PostgreSQL's own grammar.
//!
//! The decoder of `pg_query`, our walks and the release of a tree recurse once per level of
//! nesting, so whatever may nest deeply runs on a stack of its own; a tree never leaves the
//! function that asked for it. The grammar gives up on nesting long before this stack does.

use std::thread;

use crate::analysis::AnalyzerLimits;
use crate::facts::Why;

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
    // A token has at least one byte: only a long text can hold too many.
    if text.len() > limits.tokens_max
        && scan(text).is_some_and(|tokens| tokens.len() > limits.tokens_max)
    {
        return Err(Why::TooComplex);
    }
    match pg_query::parse(text, 0) {
        Ok(parsed) => tree::statements(&parsed.protobuf).map_err(|TooDeep| Why::TooComplex),
        Err(pg_query::Error::Parse(message)) if too_complex(&message) => Err(Why::TooComplex),
        Err(pg_query::Error::Parse(message)) => {
            let position = error_position(text, &message);
            Err(Why::Syntax { message, position })
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

/// The 1-based character position of a syntax error. The binding drops the grammar's own position,
/// so it is found again from the token the message quotes, and left out when that is ambiguous.
fn error_position(text: &str, message: &str) -> Option<u32> {
    let place = if message.ends_with("at end of input") {
        text.len()
    } else {
        let near = message.split_once("at or near \"")?.1.strip_suffix('"')?;
        let mut places = text.match_indices(near).map(|(at, _)| at);
        let first = places.next()?;
        if places.next().is_some() {
            return None;
        }
        first
    };
    let characters = text.get(..place)?.chars().count();
    u32::try_from(characters).ok()?.checked_add(1)
}
