//! What must hold for any bytes: the entry point of the fuzzer and of its corpus in the tests.

use super::reply::{End, Malformed, Replies};
use super::request::{Form, Refused, RequestLimits, Scan, Scanner, Stage};

/// Reads `data` as commands of a client and as replies of a server, and checks that
/// - commands found in pieces are the commands found at once, with the same refusal at their end,
/// - a command found as an array, written again from its arguments, is found again,
/// - replies end at the same places, however they arrive.
///
/// # Panics
/// If one of them does not hold.
pub fn fuzz_frames(data: &[u8]) {
    let ends = ends(data, usize::MAX);
    for piece in [1, 2, 7, 64] {
        assert_eq!(self::ends(data, piece), ends, "in pieces of {piece}");
    }
    for limits in [RequestLimits::LOGGED_IN, RequestLimits::BEFORE_LOGIN, TIGHT] {
        let whole = read(data, usize::MAX, limits);
        for piece in [1, 2, 7, 64] {
            assert_eq!(read(data, piece, limits), whole, "in pieces of {piece}");
        }
        for found in whole.found {
            if let Found::Command(args) = found {
                let written = write(&args);
                let again = read(&written, usize::MAX, UNBOUNDED).found;
                assert_eq!(again, [Found::Command(args)], "written again");
            }
        }
    }
}

/// Everything a client's bytes were taken for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// In order.
    pub(super) found: Vec<Found>,
    /// Bytes of streamed arguments, with the line ends behind them.
    pub(super) streamed: usize,
    /// What ended it.
    pub(super) refused: Option<Refused>,
    /// Bytes nothing was made of yet.
    pub(super) left: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole command.
    Command(Vec<Vec<u8>>),
    /// One whose last argument, of this length, is streamed.
    Head(Vec<Vec<u8>>, usize),
    /// One that was too long.
    TooLong,
}

/// Reads the bytes as they would arrive in pieces of this length.
pub(super) fn read(data: &[u8], piece: usize, limits: RequestLimits) -> Reading {
    let mut scanner = Scanner::new(limits);
    let mut buf = Vec::new();
    let mut reading = Reading::default();
    for part in data.chunks(piece) {
        buf.extend_from_slice(part);
        if let Err(refused) = take_all(&mut scanner, &mut buf, &mut reading) {
            // How much of a value was passed on before its end was found wrong depends on arrival.
            return Reading { refused: Some(refused), left: 0, streamed: 0, ..reading };
        }
    }
    // A command that is dropped in pieces leaves nothing of what has arrived, or the line it is in.
    reading.left = if scanner.is_between() { buf.len() } else { 0 };
    reading
}

fn take_all(
    scanner: &mut Scanner,
    buf: &mut Vec<u8>,
    reading: &mut Reading,
) -> Result<(), Refused> {
    loop {
        let passed = scanner.pass(buf)?;
        reading.streamed += passed;
        buf.drain(..passed);
        let scan = scanner.scan(buf)?;
        let args = || scanner.args(buf).iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let taken = match scan {
            Scan::Incomplete => return Ok(()),
            Scan::Drop(len) => len,
            Scan::Command { len, form } => {
                let args = args();
                assert!(!args.is_empty(), "a command has a name");
                assert!(form == Form::Inline || write(&args).len() <= len, "nothing is added");
                reading.found.push(Found::Command(args));
                len
            }
            Scan::Head { len, last } => {
                reading.found.push(Found::Head(args(), last));
                len
            }
            Scan::TooLong(len) => {
                reading.found.push(Found::TooLong);
                len
            }
        };
        assert!(taken <= buf.len(), "takes what is there");
        buf.drain(..taken);
    }
}

/// Where replies and pushes end in these bytes, and what stopped the reading.
pub(super) fn ends(data: &[u8], piece: usize) -> (Vec<(usize, End)>, Option<Malformed>) {
    let mut replies = Replies::default();
    let (mut buf, mut place, mut found) = (Vec::new(), 0, Vec::new());
    for part in data.chunks(piece) {
        buf.extend_from_slice(part);
        loop {
            let part = match replies.next(&buf) {
                Ok(part) => part,
                Err(malformed) => return (found, Some(malformed)),
            };
            assert!(part.len <= buf.len(), "takes what is there");
            buf.drain(..part.len);
            place += part.len;
            if part.end == End::Open {
                break;
            }
            found.push((place, part.end));
        }
    }
    (found, None)
}

/// A command as an array.
pub(super) fn write(args: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// So little that small inputs reach the limits.
pub(super) const TIGHT: RequestLimits = RequestLimits {
    args_max: 6,
    bulk_bytes_max: 64,
    held_bytes_max: 48,
    unstreamed_bytes_max: 40,
    stage: Stage::LoggedIn,
};

const UNBOUNDED: RequestLimits = RequestLimits {
    held_bytes_max: usize::MAX,
    unstreamed_bytes_max: usize::MAX,
    ..RequestLimits::LOGGED_IN
};
