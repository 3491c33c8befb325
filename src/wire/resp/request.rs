//! Commands, as clients send them: arrays of bulk strings, and lines of text.
//!
//! [`Scanner::scan`] looks at the beginning of what the client sent and says how many bytes the
//! first command has; where its arguments are is kept as spans in a vector that is used again.
//! Nothing is copied, so that a command nobody touches is forwarded as the client's own bytes. A
//! line of text has its quotes taken off into a buffer of its own, and has to be written anew.
//!
//! Where the server is lenient and another server might read something else (a line that ends in a
//! carriage return and any byte), this is strict: two readings of one stream are a way around rules.

use super::inline::split;
use super::{LINE_BYTES_MAX, Tail, number};

/// What a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Most arguments of one command, its name included.
    pub args_max: usize,
    /// Longest argument in bytes.
    pub bulk_bytes_max: usize,
    /// Longest command in bytes that is held whole, but for a last argument that is streamed.
    pub held_bytes_max: usize,
    /// A last argument with which its command would be longer than this is streamed.
    pub unstreamed_bytes_max: usize,
    /// Whether these are the limits of a client that has not logged in, which are told apart in the
    /// message.
    pub stage: Stage,
}

/// Whether a client has logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not yet.
    BeforeLogin,
    /// It has, or need not.
    LoggedIn,
}

impl RequestLimits {
    /// For clients that have not logged in; what the server allows.
    pub const BEFORE_LOGIN: Self = Self {
        args_max: 10,
        bulk_bytes_max: 16 * 1024,
        held_bytes_max: 256 * 1024,
        unstreamed_bytes_max: 256 * 1024,
        stage: Stage::BeforeLogin,
    };
    /// For clients that have.
    pub const LOGGED_IN: Self = Self {
        // The server reads up to 2^31; each costs it memory before the command is looked at.
        args_max: 1024 * 1024,
        // The server's own default, proto-max-bulk-len.
        bulk_bytes_max: 512 * 1024 * 1024,
        held_bytes_max: 8 * 1024 * 1024,
        unstreamed_bytes_max: 1024 * 1024,
        stage: Stage::LoggedIn,
    };
}

/// Where an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

/// What the beginning of the buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// A part of a command: more bytes are needed.
    Incomplete,
    /// So many bytes that are no command, or a part of one that is refused: drop them and go on.
    Drop(usize),
    /// A whole command of so many bytes.
    Command {
        /// Bytes.
        len: usize,
        /// How it is written.
        form: Form,
    },
    /// A command whose last argument is too long to be held: so many bytes in front of that
    /// argument's own. They are complete; what follows is asked for with [`Scanner::pass`].
    Head {
        /// Bytes.
        len: usize,
        /// Length of the last argument.
        last: usize,
    },
    /// The last of a command that was too long: drop so many bytes, and answer with an error.
    TooLong(usize),
}

/// How a command is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As an array, which can be passed on as it is.
    Array,
    /// As a line of text.
    Inline,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The number of arguments is no number, or too high.
    MultibulkLength,
    /// It is too high before a login.
    UnauthenticatedMultibulkLength,
    /// The line with the number of arguments does not end.
    MultibulkLine,
    /// An argument does not begin as one.
    ExpectedBulk(u8),
    /// The length of an argument is no number, or too high.
    BulkLength,
    /// It is too high before a login.
    UnauthenticatedBulkLength,
    /// The line with the length of an argument does not end.
    BulkLine,
    /// A line, or an argument, does not end where it should.
    LineEnd,
    /// A command in text is too long.
    InlineLine,
    /// A command in text holds an open quote.
    Quotes,
    /// A command in text holds a zero, which ends it for the server.
    Zero,
    /// A browser was made to speak to us: HTTP. It is told nothing.
    OtherProtocol,
}

impl Refused {
    /// Appends what the client is told, as an error reply.
    pub fn encode(self, out: &mut bytes::BytesMut) {
        let text = match self {
            Self::MultibulkLength => "invalid multibulk length",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::MultibulkLine => "too big mbulk count string",
            Self::ExpectedBulk(_) => "expected '$', got '",
            Self::BulkLength => "invalid bulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
            Self::BulkLine => "too big bulk count string",
            Self::LineEnd => "expected CRLF",
            Self::InlineLine => "too big inline request",
            Self::Quotes => "unbalanced quotes in request",
            Self::Zero => "zero byte in inline request",
            Self::OtherProtocol => return,
        };
        out.extend_from_slice(b"-ERR Protocol error: ");
        out.extend_from_slice(text.as_bytes());
        if let Self::ExpectedBulk(byte) = self {
            let shown = if matches!(byte, b'\r' | b'\n') { b' ' } else { byte };
            out.extend_from_slice(&[shown, b'\'']);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// So many places of arguments are kept room for between two commands; one long command must not
/// hold its memory for as long as its connection lasts.
const SPANS_KEPT_MAX: usize = 4_096;

/// Finds commands in a client's bytes.
///
/// A call is given the same bytes as the last one and what arrived since, until it returns something
/// else than [`Scan::Incomplete`]: then the bytes it spoke of are taken away, by whatever means, and
/// the next call is given those behind them.
#[derive(Debug)]
pub struct Scanner {
    limits: RequestLimits,
    state: State,
    /// Arguments found so far; kept until the next call.
    spans: Vec<Span>,
    /// The words of a line of text, where `spans` points then.
    words: Vec<u8>,
    form: Form,
    /// Bytes of the command that were understood.
    at: usize,
    /// Bytes of the line at `at` that were searched for its end.
    searched: usize,
    /// Arguments the command announced.
    announced: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between two commands.
    Between,
    /// The length of an argument comes next.
    BulkHead,
    /// An argument of this length comes next.
    Bulk(usize),
    /// The bytes of a last argument that is streamed.
    Streamed(Tail),
    /// A command that is too long is being dropped: so many arguments are left, the one under way
    /// included; `None` between two of them.
    Dropping { tail: Option<Tail>, left: usize },
}

impl Scanner {
    /// A scanner that has seen nothing.
    pub fn new(limits: RequestLimits) -> Self {
        Self {
            limits,
            state: State::Between,
            spans: Vec::new(),
            words: Vec::new(),
            form: Form::Array,
            at: 0,
            searched: 0,
            announced: 0,
        }
    }

    /// From the next command on these limits hold.
    pub fn limit_to(&mut self, limits: RequestLimits) {
        self.limits = limits;
    }

    /// Whether nothing of a command has been looked at: bytes of ours may come next.
    pub fn is_between(&self) -> bool {
        self.state == State::Between
    }

    /// Looks at the beginning of `buf`.
    ///
    /// # Errors
    /// What is no command at all: the connection ends.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scan, Refused> {
        match self.state {
            State::Between => match buf.first() {
                None => Ok(Scan::Incomplete),
                Some(b'*') => self.begin(buf),
                Some(_) => self.line_of_text(buf),
            },
            State::BulkHead | State::Bulk(_) => self.arguments(buf),
            State::Streamed(_) => Ok(Scan::Incomplete),
            State::Dropping { tail, left } => self.drop_on(buf, (0, tail, left)),
        }
    }

    /// The arguments of the command that [`Self::scan`] found in these bytes.
    pub fn args<'a>(&'a self, buf: &'a [u8]) -> Arguments<'a> {
        let bytes = match self.form {
            Form::Array => buf,
            Form::Inline => &self.words,
        };
        Arguments { bytes, spans: &self.spans, announced: self.announced }
    }

    /// How many of these bytes belong to the last argument that is being streamed; zero when it is
    /// over.
    ///
    /// # Errors
    /// It does not end where it should.
    pub fn pass(&mut self, buf: &[u8]) -> Result<usize, Refused> {
        let State::Streamed(tail) = &mut self.state else { return Ok(0) };
        let taken = tail.take(buf).ok_or(Refused::LineEnd)?;
        if tail.is_over() {
            self.state = State::Between;
        }
        Ok(taken)
    }

    /// Whether bytes of a streamed argument are still to come.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streamed(_))
    }

    /// The line with the number of arguments.
    fn begin(&mut self, buf: &[u8]) -> Result<Scan, Refused> {
        self.at = 0;
        let Some(end) = self.line_end(buf, Refused::MultibulkLine)? else {
            return Ok(Scan::Incomplete);
        };
        let count = number(buf.get(1..end).unwrap_or_default()).ok_or(Refused::MultibulkLength)?;
        let len = end + 2;
        if count <= 0 {
            return Ok(Scan::Drop(len));
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > self.limits.args_max {
            return Err(match self.limits.stage {
                Stage::BeforeLogin => Refused::UnauthenticatedMultibulkLength,
                Stage::LoggedIn => Refused::MultibulkLength,
            });
        }
        self.announced = count;
        self.spans.clear();
        self.spans.shrink_to(SPANS_KEPT_MAX);
        self.form = Form::Array;
        self.at = len;
        self.state = State::BulkHead;
        self.arguments(buf)
    }

    fn arguments(&mut self, buf: &[u8]) -> Result<Scan, Refused> {
        loop {
            let len = match self.state {
                State::Bulk(len) => len,
                _ => match self.bulk_head(buf)? {
                    None => return Ok(Scan::Incomplete),
                    Some(len) => len,
                },
            };
            let end = self.at.saturating_add(len);
            let after = end.saturating_add(2);
            let last = self.spans.len() + 1 == self.announced && !self.spans.is_empty();
            if after > self.limits.held_bytes_max
                || (last && after > self.limits.unstreamed_bytes_max)
            {
                return self.too_long(buf, len);
            }
            let Some(closing) = buf.get(end..after) else {
                self.state = State::Bulk(len);
                return Ok(Scan::Incomplete);
            };
            if closing != b"\r\n" {
                return Err(Refused::LineEnd);
            }
            self.spans.push(Span { start: self.at, len });
            self.at = after;
            self.state = State::BulkHead;
            if self.spans.len() == self.announced {
                self.state = State::Between;
                return self.found(buf, after);
            }
        }
    }

    fn found(&self, buf: &[u8], len: usize) -> Result<Scan, Refused> {
        let name = self.args(buf).get(0).unwrap_or_default();
        if matches!(name.len(), 4 | 5)
            && (name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:"))
        {
            return Err(Refused::OtherProtocol);
        }
        Ok(Scan::Command { len, form: self.form })
    }

    /// The line with the length of an argument; behind it, `at` is where the argument begins.
    fn bulk_head(&mut self, buf: &[u8]) -> Result<Option<usize>, Refused> {
        let Some(end) = self.line_end(buf, Refused::BulkLine)? else { return Ok(None) };
        let line = buf.get(self.at..end).unwrap_or_default();
        let Some((b'$', digits)) = line.split_first() else {
            return Err(Refused::ExpectedBulk(line.first().copied().unwrap_or(b'\r')));
        };
        let len = number(digits).and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or(Refused::BulkLength)?;
        if len > self.limits.bulk_bytes_max {
            return Err(match self.limits.stage {
                Stage::BeforeLogin => Refused::UnauthenticatedBulkLength,
                Stage::LoggedIn => Refused::BulkLength,
            });
        }
        self.at = end + 2;
        Ok(Some(len))
    }

    /// Where the line at `at` ends: the place of its carriage return, once the byte behind it is
    /// there, too.
    fn line_end(&mut self, buf: &[u8], too_long: Refused) -> Result<Option<usize>, Refused> {
        let from = self.at + self.searched;
        let rest = buf.get(from..).unwrap_or_default();
        let Some(place) = rest.iter().position(|byte| *byte == b'\r') else {
            self.searched += rest.len();
            return if self.searched > LINE_BYTES_MAX { Err(too_long) } else { Ok(None) };
        };
        self.searched += place;
        if self.searched > LINE_BYTES_MAX {
            return Err(too_long);
        }
        let end = from + place;
        match buf.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => {
                self.searched = 0;
                Ok(Some(end))
            }
            Some(_) => Err(Refused::LineEnd),
        }
    }

    /// The argument at `at`, of this length, does not fit.
    fn too_long(&mut self, buf: &[u8], len: usize) -> Result<Scan, Refused> {
        let left = self.announced - self.spans.len();
        let tail = Tail::of(len);
        if left == 1 && !self.spans.is_empty() {
            self.state = State::Streamed(tail);
            return Ok(Scan::Head { len: self.at, last: len });
        }
        self.drop_on(buf, (self.at, Some(tail), left))
    }

    /// Drops what has arrived of a command that is too long. Between calls `at` is zero, where the
    /// bytes that are not dropped begin.
    fn drop_on(
        &mut self,
        buf: &[u8],
        (mut dropped, mut tail, mut left): (usize, Option<Tail>, usize),
    ) -> Result<Scan, Refused> {
        let partly = |dropped| if dropped == 0 { Scan::Incomplete } else { Scan::Drop(dropped) };
        loop {
            self.at = 0;
            if let Some(tail) = &mut tail {
                let rest = buf.get(dropped..).unwrap_or_default();
                dropped += tail.take(rest).ok_or(Refused::LineEnd)?;
                if !tail.is_over() {
                    self.state = State::Dropping { tail: Some(*tail), left };
                    return Ok(partly(dropped));
                }
                left -= 1;
            }
            if left == 0 {
                self.state = State::Between;
                return Ok(Scan::TooLong(dropped));
            }
            self.at = dropped;
            let Some(len) = self.bulk_head(buf)? else {
                self.at = 0;
                self.state = State::Dropping { tail: None, left };
                return Ok(partly(dropped));
            };
            dropped = self.at;
            tail = Some(Tail::of(len));
        }
    }

    fn line_of_text(&mut self, buf: &[u8]) -> Result<Scan, Refused> {
        let rest = buf.get(self.searched..).unwrap_or_default();
        let Some(place) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = buf.len();
            let too_long = buf.len() > LINE_BYTES_MAX;
            return if too_long { Err(Refused::InlineLine) } else { Ok(Scan::Incomplete) };
        };
        let end = self.searched + place;
        self.searched = 0;
        if end > LINE_BYTES_MAX {
            return Err(Refused::InlineLine);
        }
        let line = buf.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.contains(&0) {
            return Err(Refused::Zero);
        }
        self.form = Form::Inline;
        self.spans.clear();
        self.words.clear();
        if !split(line, &mut self.words, &mut self.spans) {
            return Err(Refused::Quotes);
        }
        self.announced = self.spans.len();
        if self.spans.is_empty() {
            return Ok(Scan::Drop(end + 1));
        }
        self.found(buf, end + 1)
    }
}

/// The arguments of one command, where they stand in the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
    announced: usize,
}

impl<'a> Arguments<'a> {
    /// How many the command has, its name included.
    #[expect(clippy::len_without_is_empty, reason = "a command has a name")]
    pub fn len(&self) -> usize {
        self.announced
    }

    /// The bytes of one; `None` behind the end, or where it is streamed.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let Span { start, len } = *self.spans.get(index)?;
        self.bytes.get(start..start.checked_add(len)?)
    }

    /// All that have arrived.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.spans
            .iter()
            .map(move |Span { start, len }| bytes.get(*start..start + len).unwrap_or_default())
    }
}
