//! Heads of a reply's elements: what stands in the line that each begins with.
//!
//! A reader pulls one head after the other and knows what follows: nothing, a value of so many bytes
//! ([`Tail`](super::Tail)), or so many elements. It keeps count of those itself, because what it makes
//! of an element depends on where the element stands.

use super::{LINE_BYTES_MAX, number};

/// How an element begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The line is all of it.
    Line(Line),
    /// Nothing, in the words of either version.
    Null,
    /// A value of this many bytes follows, and a line end.
    Blob(Blob, usize),
    /// So many elements follow. Those of a map and of attributes are counted one by one, names and
    /// values.
    Aggregate(Aggregate, u64),
}

/// Types of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// `+`
    Simple,
    /// `-`
    Error,
    /// `:`
    Integer,
    /// `#`
    Boolean,
    /// `,`
    Double,
    /// `(`
    BigNumber,
}

/// Types with a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blob {
    /// `$`
    Bulk,
    /// `!`
    Error,
    /// `=`: three letters for the format and a colon stand before the text.
    Verbatim,
}

/// Types with a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// `*`
    Array,
    /// `~`
    Set,
    /// `%`
    Map,
    /// `>`
    Push,
    /// `|`: a map that stands in front of an element and is none.
    Attribute,
}

impl Head {
    /// Reads a line, which is given without its end.
    ///
    /// # Errors
    /// What no server sends.
    pub fn of(line: &[u8]) -> Result<Self, Malformed> {
        let (kind, rest) = line.split_first().ok_or(Malformed::Length)?;
        Ok(match kind {
            b'+' => Self::Line(Line::Simple),
            b'-' => Self::Line(Line::Error),
            b':' => Self::Line(Line::Integer),
            b'#' => Self::Line(Line::Boolean),
            b',' => Self::Line(Line::Double),
            b'(' => Self::Line(Line::BigNumber),
            b'_' if rest.is_empty() => Self::Null,
            b'_' => return Err(Malformed::Length),
            // Only these two have nulls of their own, from the time before there was a type.
            b'$' | b'*' if rest == b"-1" => Self::Null,
            b'$' => Self::Blob(Blob::Bulk, length(rest)?),
            b'!' => Self::Blob(Blob::Error, length(rest)?),
            b'=' => Self::Blob(Blob::Verbatim, length(rest)?),
            b'*' => Self::Aggregate(Aggregate::Array, count(rest)?),
            b'~' => Self::Aggregate(Aggregate::Set, count(rest)?),
            b'>' => Self::Aggregate(Aggregate::Push, count(rest)?),
            b'%' => Self::Aggregate(Aggregate::Map, pairs(rest)?),
            b'|' => Self::Aggregate(Aggregate::Attribute, pairs(rest)?),
            other => return Err(Malformed::Type(*other)),
        })
    }
}

/// Finds the line that an element begins with.
#[derive(Debug, Default)]
pub struct Heads {
    /// Bytes of an unfinished line that were searched for its end.
    searched: usize,
}

impl Heads {
    /// Whether no part of a line was seen.
    pub fn is_between(&self) -> bool {
        self.searched == 0
    }

    /// The line at the beginning, without its end; `None` while it has none. The next call is given
    /// what follows it, or the same bytes and more.
    ///
    /// # Errors
    /// If it does not end as lines do, or not soon enough.
    pub fn line<'a>(&mut self, buf: &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
        let unseen = buf.get(self.searched..).unwrap_or_default();
        let Some(place) = unseen.iter().position(|byte| *byte == b'\r') else {
            self.searched = buf.len();
            let endless = self.searched > LINE_BYTES_MAX;
            return if endless { Err(Malformed::LineEnd) } else { Ok(None) };
        };
        self.searched += place;
        if self.searched > LINE_BYTES_MAX {
            return Err(Malformed::LineEnd);
        }
        match buf.get(self.searched + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(buf.get(..std::mem::take(&mut self.searched))),
            Some(_) => Err(Malformed::LineEnd),
        }
    }
}

/// Why a server's bytes cannot be followed. The connection ends: replies could be taken for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No type of RESP begins with this byte.
    Type(u8),
    /// A length or a count is no number, or has no end.
    Length,
    /// A line or a value does not end where it should.
    LineEnd,
    /// Nested deeper than what reads it follows.
    TooDeep,
    /// A push inside of a reply, or attributes with nothing behind them.
    Misplaced,
}

fn count(digits: &[u8]) -> Result<u64, Malformed> {
    number(digits).and_then(|n| u64::try_from(n).ok()).ok_or(Malformed::Length)
}

fn length(digits: &[u8]) -> Result<usize, Malformed> {
    number(digits).and_then(|n| usize::try_from(n).ok()).ok_or(Malformed::Length)
}

fn pairs(digits: &[u8]) -> Result<u64, Malformed> {
    count(digits)?.checked_mul(2).ok_or(Malformed::Length)
}

/// Deepest nesting of a reply that is read element by element. No command nests deeper, and scripts
/// are not run by whom masks concern.
pub const DEPTH_MAX: usize = 100;
