//! What must hold for any bytes: the entry point of the fuzzer and of its corpus in the tests.

use bytes::{BufMut, BytesMut};

use super::error::{fields, put_field, sqlstate};
use super::frame::{self, Backend, Frontend, HEAD_BYTES, Head};
use super::message::{self, ParseBody, Target};
use super::startup::{self, Request};
use crate::wire::error::WireError;

/// Reads `data` as frames of either side and as a first packet, and checks that
/// - frames found in pieces are the frames found at once, with the same error at their end,
/// - what a reader understood, written again, is what it was read from, byte for byte.
///
/// # Panics
/// If one of them does not hold.
pub fn fuzz_frames(data: &[u8]) {
    let whole = frames_in_pieces(data, usize::MAX);
    for piece in [1, 2, 7, 64] {
        assert_eq!(frames_in_pieces(data, piece), whole, "in pieces of {piece}");
    }
    for (head, body) in whole.0 {
        assert_eq!(head.len, HEAD_BYTES + body.len(), "a frame is as long as it says");
        let (_, _) = (Frontend::from_tag(head.tag), Backend::from_tag(head.tag));
        check_body(&body);
    }
    check_body(data);
    check_first_packet(data);
}

/// Every frame that is complete, and what stopped the reading.
type Frames = (Vec<(Head, Vec<u8>)>, Option<WireError>);

fn frames_in_pieces(data: &[u8], piece: usize) -> Frames {
    let mut buf = BytesMut::new();
    let mut found = Vec::new();
    for part in data.chunks(piece) {
        buf.extend_from_slice(part);
        loop {
            match frame::peek(&buf) {
                Ok(Some(head)) if buf.len() >= head.len => {
                    let frame = buf.split_to(head.len);
                    found.push((head, frame.iter().skip(HEAD_BYTES).copied().collect()));
                }
                Ok(_) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

fn check_body(body: &[u8]) {
    if let Ok(ParseBody { name, text, parameter_types }) = ParseBody::read(body) {
        same(body, |out| message::parse(out, name, text, parameter_types));
    }
    if let Ok(text) = message::query_text(body) {
        same(body, |out| message::query(out, text));
    }
    if let Ok(Target::Statement(name)) = Target::read(body) {
        same(body, |out| message::close_statement(out, name));
    }
    if let Ok(portal) = message::execute_portal(body) {
        assert!(!portal.contains(&0), "a name ends at its terminator");
    }
    if let Ok(values) = message::data_row(body) {
        let bytes: usize = values.iter().flatten().map(Vec::len).sum();
        assert_eq!(2 + 4 * values.len() + bytes, body.len(), "a row is its values");
    }
    if let Ok(fields) = fields(body) {
        same(body, |out| {
            message::framed(out, b'E', |out| {
                fields.iter().for_each(|(letter, text)| put_field(out, *letter, text));
                out.put_u8(0);
            });
        });
    }
    assert!(sqlstate(body).iter().all(u8::is_ascii_alphanumeric), "a SQLSTATE is a word");
    message::tag_rows(body);
}

/// The body of the frame `write` appends is `body`, and its length field is right.
fn same(body: &[u8], write: impl FnOnce(&mut BytesMut)) {
    let mut out = BytesMut::new();
    write(&mut out);
    let head = frame::peek(&out).ok().flatten().map(|head| head.len);
    assert_eq!(head, Some(out.len()), "the length field covers the frame");
    assert_eq!(out.get(HEAD_BYTES..), Some(body), "written again it is the same");
}

fn check_first_packet(data: &[u8]) {
    let packet = match startup::peek(data) {
        Ok(Some(len)) => data.get(..len),
        Ok(None) | Err(_) => None,
    };
    let Some(packet) = packet else { return };
    let Ok(Request::Startup(read)) = startup::parse(packet) else { return };
    read.settings();
    let ours = |(name, _): &(Vec<u8>, Vec<u8>)| !name.starts_with(b"_pq_.");
    if read.minor == 0 && read.parameters.iter().all(ours) {
        let mut out = BytesMut::new();
        message::startup(&mut out, &read);
        assert_eq!(&out[..], packet, "a start-up written again is the same");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corpus_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/pg_frames");
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz_frames(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 10, "only {files} inputs were found");
    }

    /// Something like a frame: a known letter, a length that mostly fits, a body that mostly does.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let text = || prop::collection::vec(any::<u8>(), 0..12);
        let body = prop::collection::vec(
            prop_oneof![
                text(),
                text().prop_map(|text| [&text[..], &[0]].concat()),
                any::<u16>().prop_map(|n| (n % 4).to_be_bytes().to_vec()),
                any::<i32>().prop_map(|n| (n % 8).to_be_bytes().to_vec()),
            ],
            0..4,
        );
        let tag = prop::sample::select(&b"BCdcfDEHFPpQSXRK23CWGHDIEVvnNAt1sZTy"[..]);
        let lie = prop_oneof![9 => Just(0_i32), 1 => -6..6_i32];
        (tag, body, lie).prop_map(|(tag, body, lie)| {
            let body = body.concat();
            let len = i32::try_from(body.len()).unwrap() + 4 + lie;
            [&[tag][..], &len.to_be_bytes(), &body].concat()
        })
    }

    proptest! {
        #[test]
        fn holds_for_any_bytes(data in prop::collection::vec(any::<u8>(), 0..256)) {
            fuzz_frames(&data);
        }

        #[test]
        fn holds_for_streams_of_frames(frames in prop::collection::vec(frame(), 0..12)) {
            fuzz_frames(&frames.concat());
        }

        #[test]
        fn holds_for_start_ups(
            names in prop::collection::vec("[a-z_]{0,6}", 0..6),
            minor in 0..3_u16,
            cut in 0..4_usize,
        ) {
            let body: Vec<u8> = names.iter().flat_map(|name| [name.as_bytes(), &[0]].concat()).collect();
            let len = u32::try_from(8 + body.len()).unwrap();
            let packet = [&len.to_be_bytes()[..], &[0, 3], &minor.to_be_bytes(), &body].concat();
            fuzz_frames(&packet[..packet.len() - cut]);
        }
    }
}
