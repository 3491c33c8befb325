//! Where replies end, as servers send them in RESP2 and RESP3.
//!
//! [`Replies::next`] counts elements instead of building them: nesting is a stack of numbers with a
//! maximum, so neither depth nor an announced count costs memory, and a long value is passed on as it
//! arrives. What an element holds is not looked at here.

use super::element::{Aggregate, Head, Heads};
use super::{Tail, number};

pub use super::element::Malformed;

/// What the beginning of the server's bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// So many bytes belong to what is under way: pass them on, the next call begins behind them.
    pub len: usize,
    /// Whether something ended with them.
    pub end: End,
}

/// Whether a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// More bytes are needed.
    Open,
    /// A reply to a command ended.
    Reply,
    /// A push ended, which answers no command.
    Push,
}

/// Finds the ends of replies. Calls are given the bytes behind those the last call spoke of.
#[derive(Debug, Default)]
pub struct Replies {
    /// Elements still to come, outermost first; empty between two replies.
    open: Vec<u64>,
    /// A value under way.
    tail: Tail,
    heads: Heads,
    push: bool,
}

impl Replies {
    /// Whether the bytes before this were whole replies: words of ours may come next.
    pub fn is_between(&self) -> bool {
        self.open.is_empty() && self.heads.is_between()
    }

    /// How many whole replies of one line or one value `buf` begins with, at most `max`, and their
    /// bytes: strings, numbers, values and nulls, no errors and nothing that holds others. Looks at
    /// none where a reply is under way. Others follow, or the same again, for [`Self::next`].
    pub fn simple(&self, buf: &[u8], max: u64) -> (u64, usize) {
        let (mut count, mut at) = (0, 0);
        if !self.is_between() {
            return (count, at);
        }
        // What begins with the same line ends after as many bytes: only the first is parsed.
        let mut known: Option<(Start, usize)> = None;
        while count < max
            && let Some(rest) = buf.get(at..)
        {
            let len = match known {
                Some((start, len))
                    if start.begins(rest) && rest.get(len - 2..len) == Some(b"\r\n") =>
                {
                    len
                }
                _ => {
                    let Some(Simple { line, len }) = simple_reply(rest) else { break };
                    known = Start::of(rest, line).map(|start| (start, len));
                    len
                }
            };
            at += len;
            count += 1;
        }
        (count, at)
    }

    /// Looks at the beginning of `buf`, up to the end of one reply or push.
    ///
    /// # Errors
    /// What no server sends.
    pub fn next(&mut self, buf: &[u8]) -> Result<Part, Malformed> {
        let mut at = 0;
        loop {
            let rest = buf.get(at..).unwrap_or_default();
            at += self.tail.take(rest).ok_or(Malformed::LineEnd)?;
            if !self.tail.is_over() {
                return Ok(Part { len: at, end: End::Open });
            }
            if let Some(end) = self.close() {
                return Ok(Part { len: at, end });
            }
            let rest = buf.get(at..).unwrap_or_default();
            let Some(line) = self.heads.line(rest)? else {
                return Ok(Part { len: at, end: End::Open });
            };
            at += line.len() + 2;
            self.head(Head::of(line)?)?;
        }
    }

    /// Leaves what has no more elements; what ended, if that was all.
    fn close(&mut self) -> Option<End> {
        if self.open.is_empty() {
            return None;
        }
        while self.open.last() == Some(&0) {
            self.open.pop();
        }
        if !self.open.is_empty() {
            return None;
        }
        Some(if std::mem::take(&mut self.push) { End::Push } else { End::Reply })
    }

    /// Counts the element that begins with this.
    fn head(&mut self, head: Head) -> Result<(), Malformed> {
        let is_push = matches!(head, Head::Aggregate(Aggregate::Push, _));
        if self.open.is_empty() {
            self.push = is_push;
            self.open.push(1);
        } else if is_push {
            return Err(Malformed::Misplaced);
        }
        match head {
            Head::Line(_) | Head::Null => self.count_one(),
            Head::Blob(_, len) => {
                self.tail = Tail::of(len);
                self.count_one()
            }
            // Attributes stand in front of an element and are none.
            Head::Aggregate(Aggregate::Attribute, _) if self.push => Err(Malformed::Misplaced),
            Head::Aggregate(Aggregate::Attribute, elements) => self.enter(elements),
            Head::Aggregate(
                Aggregate::Array | Aggregate::Set | Aggregate::Map | Aggregate::Push,
                elements,
            ) => {
                self.count_one()?;
                self.enter(elements)
            }
        }
    }

    fn count_one(&mut self) -> Result<(), Malformed> {
        let left = self.open.last_mut().ok_or(Malformed::Misplaced)?;
        *left = left.checked_sub(1).ok_or(Malformed::Misplaced)?;
        Ok(())
    }

    fn enter(&mut self, elements: u64) -> Result<(), Malformed> {
        if self.open.len() > DEPTH_MAX {
            return Err(Malformed::TooDeep);
        }
        self.open.push(elements);
        Ok(())
    }
}

/// Deepest nesting of a reply that is only passed on; eight bytes each. What a script may nest, which
/// ends with the server's own stack at some thousands, has to come to its end: the error behind it.
pub const DEPTH_MAX: usize = 10_000;

/// The first line of a reply, if it is short: compared as one number.
#[derive(Clone, Copy)]
struct Start {
    line: u64,
    mask: u64,
}

impl Start {
    fn of(buf: &[u8], line: usize) -> Option<Self> {
        let unused = 8_usize.checked_sub(line)?;
        let mask = u64::MAX >> (8 * unused);
        Some(Self { line: first_eight(buf)? & mask, mask })
    }

    fn begins(self, buf: &[u8]) -> bool {
        first_eight(buf).is_some_and(|eight| eight & self.mask == self.line)
    }
}

fn first_eight(buf: &[u8]) -> Option<u64> {
    buf.first_chunk().copied().map(u64::from_le_bytes)
}

/// A whole reply of one line or one value.
struct Simple {
    /// Bytes of its first line, its end included.
    line: usize,
    /// Bytes of all of it.
    len: usize,
}

/// What the bytes begin with; `None` if that is anything else, or not all of it.
fn simple_reply(buf: &[u8]) -> Option<Simple> {
    let kind = *buf.first()?;
    if !matches!(kind, b'+' | b':' | b'$' | b'_') {
        return None;
    }
    // What is longer is not simple.
    let text = buf.get(1..buf.len().min(64))?;
    let end = text.iter().position(|byte| *byte == b'\r')?;
    let line = end + 3;
    if buf.get(end + 2) != Some(&b'\n') {
        return None;
    }
    if kind != b'$' {
        // A command that is queued is not answered.
        return (buf.get(..2) != Some(b"+Q")).then_some(Simple { line, len: line });
    }
    match number(text.get(..end)?)? {
        -1 => Some(Simple { line, len: line }),
        value => {
            let end = line.checked_add(usize::try_from(value).ok()?)?;
            let len = end.checked_add(2)?;
            (buf.get(end..len) == Some(b"\r\n")).then_some(Simple { line, len })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::LINE_BYTES_MAX;
    use super::super::fuzz::ends;
    use super::*;

    #[track_caller]
    fn whole(data: &str, end: End) {
        for piece in [1, 2, 7, usize::MAX] {
            let twice = [data, data].concat();
            let places = vec![(data.len(), end), (twice.len(), end)];
            assert_eq!(ends(twice.as_bytes(), piece), (places, None), "{data:?} by {piece}");
        }
    }

    #[test]
    fn each_type_ends_where_it_ends() {
        for data in [
            "+OK\r\n",
            "-ERR no\r\n",
            ":-7\r\n",
            "$-1\r\n",
            "$0\r\n\r\n",
            "$4\r\na\r\nb\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            "_\r\n",
            "#t\r\n",
            ",1.5\r\n",
            "(99999999999999999999\r\n",
            "!5\r\nERR x\r\n",
            "=5\r\ntxt:a\r\n",
            "%1\r\n+a\r\n*2\r\n:1\r\n:2\r\n",
            "~2\r\n+a\r\n+b\r\n",
            "|1\r\n+ttl\r\n:3\r\n+OK\r\n",
            "*2\r\n|1\r\n+ttl\r\n:3\r\n+a\r\n+b\r\n",
        ] {
            whole(data, End::Reply);
        }
        whole(">2\r\n+invalidate\r\n*1\r\n+k\r\n", End::Push);
    }

    #[test]
    fn what_cannot_be_followed_is_an_error() {
        let cases: [(&[u8], Malformed); 12] = [
            (b"hello\r\n", Malformed::Type(b'h')),
            (b"$x\r\n", Malformed::Length),
            (b"_x\r\n", Malformed::Length),
            (b"$-2\r\n", Malformed::Length),
            (b"%-1\r\n", Malformed::Length),
            (b"=-1\r\n", Malformed::Length),
            (b"$01\r\na\r\n", Malformed::Length),
            (b"$1\r\nab\r\n", Malformed::LineEnd),
            (b"+a\rb\r\n", Malformed::LineEnd),
            (b"*2\r\n+a\r\n>1\r\n+b\r\n", Malformed::Misplaced),
            (b"\r\n", Malformed::Length),
            (b">1\r\n|1\r\n", Malformed::Misplaced),
        ];
        for (data, malformed) in cases {
            let shown = data.escape_ascii().to_string();
            assert_eq!(ends(data, usize::MAX), (vec![], Some(malformed)), "{shown}");
            assert_eq!(ends(data, 1), (vec![], Some(malformed)), "{shown}");
        }
        assert_eq!(ends(&b"*1\r\n".repeat(9_000), 7).1, None);
        assert_eq!(ends(&b"*1\r\n".repeat(11_000), 7).1, Some(Malformed::TooDeep));
        assert_eq!(ends(&b"|1\r\n".repeat(11_000), 7).1, Some(Malformed::TooDeep));
        let endless = [&b"+"[..], &b"a".repeat(LINE_BYTES_MAX + 1)].concat();
        assert_eq!(ends(&endless, 100).1, Some(Malformed::LineEnd));
    }

    #[test]
    fn an_announced_count_costs_nothing() {
        let data = b"*9223372036854775807\r\n$9223372036854775807\r\nabc";
        assert_eq!(ends(data, usize::MAX), (vec![], None));
        assert_eq!(ends(b"%9223372036854775807\r\n%9223372036854775807\r\n", 3), (vec![], None));
    }

    fn element() -> impl Strategy<Value = Vec<u8>> {
        let bulk = prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| {
            [format!("${}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat()
        });
        let leaf = prop_oneof![
            bulk,
            "[+:#,(-][a-z0-9]{0,8}|_".prop_map(|line| format!("{line}\r\n").into_bytes()),
            Just(b"$-1\r\n".to_vec()),
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            (prop::sample::select(&b"*~%"[..]), prop::collection::vec(inner, 0..6)).prop_map(
                |(kind, mut items)| {
                    if kind == b'%' && items.len() % 2 == 1 {
                        items.pop();
                    }
                    let count = if kind == b'%' { items.len() / 2 } else { items.len() };
                    [&[kind][..], format!("{count}\r\n").as_bytes(), &items.concat()].concat()
                },
            )
        })
    }

    proptest! {
        #[test]
        fn simple_replies_are_those_that_end_there(
            replies in prop::collection::vec(element(), 1..8),
            max in 0..10_u64,
        ) {
            let bytes = replies.concat();
            let (count, len) = Replies::default().simple(&bytes, max);
            let mut slow = Replies::default();
            let mut at = 0;
            for _ in 0..count {
                let part = slow.next(&bytes[at..]).unwrap();
                prop_assert_eq!(part.end, End::Reply);
                at += part.len;
            }
            prop_assert_eq!(at, len);
            prop_assert!(count <= max);
        }

        #[test]
        fn replies_end_where_they_were_written_to_end(
            replies in prop::collection::vec(element(), 1..5),
            piece in 1..40_usize,
        ) {
            let mut place = 0;
            let places: Vec<_> = replies.iter().map(|reply| {
                place += reply.len();
                (place, End::Reply)
            }).collect();
            prop_assert_eq!(ends(&replies.concat(), piece), (places, None));
        }

        #[test]
        fn any_bytes_read_in_pieces_are_the_bytes_at_once(
            data in prop::collection::vec(prop::sample::select(&b"*$%|>~+:-_1290\r\r\n\n"[..]), 0..80),
        ) {
            let whole = ends(&data, usize::MAX);
            for piece in [1, 2, 7] {
                prop_assert_eq!(&ends(&data, piece), &whole);
            }
        }
    }
}
