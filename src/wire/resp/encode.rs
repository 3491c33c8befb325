//! Writing commands and replies.

use bytes::BytesMut;

use super::Protocol;
use super::element::Blob;

/// A command, from its arguments.
pub fn command<'a>(out: &mut BytesMut, args: impl ExactSizeIterator<Item = &'a [u8]>) {
    header(out, b'*', args.len());
    args.for_each(|argument| bulk(out, argument));
}

/// The head of an array of so many elements.
pub fn array(out: &mut BytesMut, count: usize) {
    header(out, b'*', count);
}

/// The head of a map of so many pairs, which is an array of twice as many elements in version 2.
pub fn map(out: &mut BytesMut, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', pairs.saturating_mul(2)),
        Protocol::Resp3 => header(out, b'%', pairs),
    }
}

/// The head of a message that answers no command.
pub fn push(out: &mut BytesMut, protocol: Protocol, count: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', count),
        Protocol::Resp3 => header(out, b'>', count),
    }
}

/// `+text`
pub fn simple(out: &mut BytesMut, text: &str) {
    line(out, b'+', text.as_bytes());
}

/// `-text`, which begins with a word in capitals.
pub fn error(out: &mut BytesMut, text: &[u8]) {
    line(out, b'-', text);
}

/// `:number`
pub fn integer(out: &mut BytesMut, number: i64) {
    out.extend_from_slice(b":");
    if number < 0 {
        out.extend_from_slice(b"-");
    }
    digits(out, number.unsigned_abs());
    out.extend_from_slice(b"\r\n");
}

/// `$` with these bytes.
pub fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    blob(out, Blob::Bulk, bytes);
}

/// Nothing, in the place of a value.
pub fn null(out: &mut BytesMut, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// A text for people, which version 2 has no type for.
pub fn verbatim(out: &mut BytesMut, protocol: Protocol, text: &[u8]) {
    match protocol {
        Protocol::Resp2 => bulk(out, text),
        Protocol::Resp3 => blob(out, Blob::Verbatim, &[b"txt:", text].concat()),
    }
}

/// A type with a length.
pub fn blob(out: &mut BytesMut, kind: Blob, bytes: &[u8]) {
    let kind = match kind {
        Blob::Bulk => b'$',
        Blob::Error => b'!',
        Blob::Verbatim => b'=',
    };
    header(out, kind, bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The first line of what has a length or a count.
fn header(out: &mut BytesMut, kind: u8, count: usize) {
    out.extend_from_slice(&[kind]);
    digits(out, u64::try_from(count).unwrap_or(u64::MAX));
    out.extend_from_slice(b"\r\n");
}

/// A line: what would end it early becomes a blank.
fn line(out: &mut BytesMut, kind: u8, text: &[u8]) {
    out.extend_from_slice(&[kind]);
    let start = out.len();
    out.extend_from_slice(text);
    for byte in out.iter_mut().skip(start) {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn digits(out: &mut BytesMut, mut number: u64) {
    let mut text = [b'0'; 20];
    let mut used = 0;
    for place in text.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(text.get(text.len() - used..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis_protocol::resp2::{decode::decode as decode2, types::OwnedFrame as Frame2};
    use redis_protocol::resp3::{decode::complete::decode as decode3, types::OwnedFrame as Frame3};

    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        write(&mut out);
        out
    }

    /// As another reader of version 2 reads it.
    fn read2(write: impl FnOnce(&mut BytesMut)) -> Frame2 {
        let out = written(write);
        let (frame, len) = decode2(&out).unwrap().unwrap();
        assert_eq!(len, out.len());
        frame
    }

    /// As another reader of version 3 reads it.
    fn read3(write: impl FnOnce(&mut BytesMut)) -> Frame3 {
        let out = written(write);
        let (frame, len) = decode3(&out).unwrap().unwrap();
        assert_eq!(len, out.len());
        frame
    }

    #[test]
    fn nothing_and_aggregates_in_the_words_of_the_version() {
        assert_eq!(read2(|out| null(out, Protocol::Resp2)), Frame2::Null);
        assert_eq!(read3(|out| null(out, Protocol::Resp3)), Frame3::Null);
        let pair = |protocol, head: fn(&mut BytesMut, Protocol, usize), count| {
            move |out: &mut BytesMut| {
                head(out, protocol, count);
                bulk(out, b"a");
                integer(out, -7);
            }
        };
        let two = Frame2::Array(vec![Frame2::BulkString(b"a".to_vec()), Frame2::Integer(-7)]);
        assert_eq!(read2(pair(Protocol::Resp2, map, 1)), two);
        assert_eq!(read2(pair(Protocol::Resp2, push, 2)), two);
        assert_eq!(read2(pair(Protocol::Resp2, |out, _, count| array(out, count), 2)), two);
        assert!(
            matches!(read3(pair(Protocol::Resp3, map, 1)), Frame3::Map { data, .. } if data.len() == 1)
        );
        assert!(
            matches!(read3(pair(Protocol::Resp3, push, 2)), Frame3::Push { data, .. } if data.len() == 2)
        );
        let text = read3(|out| verbatim(out, Protocol::Resp3, b"a"));
        assert!(matches!(text, Frame3::VerbatimString { data, .. } if data == b"a"));
        assert_eq!(
            read2(|out| verbatim(out, Protocol::Resp2, b"a")),
            Frame2::BulkString(b"a".to_vec())
        );
    }

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(&written(|out| error(out, b"ERR a\r\nb"))[..], b"-ERR a  b\r\n");
        assert_eq!(&written(|out| simple(out, "a\nb"))[..], b"+a b\r\n");
    }

    proptest! {
        #[test]
        fn another_reader_reads_what_was_written(
            words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
            number: i64,
        ) {
            let frame = read2(|out| command(out, words.iter().map(Vec::as_slice)));
            let expected = words.iter().cloned().map(Frame2::BulkString).collect();
            prop_assert_eq!(frame, Frame2::Array(expected));
            prop_assert_eq!(read2(|out| integer(out, number)), Frame2::Integer(number));
            let blobs = read3(|out| blob(out, Blob::Error, &words[0]));
            let is_same = matches!(blobs, Frame3::BlobError { data, .. } if data == words[0]);
            prop_assert!(is_same);
        }
    }
}
