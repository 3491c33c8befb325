//! What must hold for any reply: the entry point of the fuzzer and of its corpus in the tests.

use bytes::{Buf as _, BytesMut};

use super::{Errors, Job, KeyMasks, Owed, Reshaper, Step, With};
use crate::analysis::redis::Shape;
use crate::mask::Masker;
use crate::name::{Glob, RuleId};
use crate::obligation::{JsonPath, MaskFn, ValueMask};
use crate::wire::queue::ByteQueue;
use crate::wire::resp::Protocol;
use crate::wire::resp::element::Malformed;
use crate::wire::resp::reply::{End, Replies};

/// Reads `data` as what a reply owes (two bytes) and as the reply, and checks that
/// - the client gets the same however the bytes arrive,
/// - a reply ends where [`Replies`] finds its end, and what cannot be followed is found alike, but
///   that it may nest deeper there,
/// - what the client gets is one whole reply again,
/// - where everything is a value under a mask, no byte of a value comes through.
///
/// # Panics
/// If one of them does not hold.
pub fn fuzz_reshape(data: &[u8]) {
    let Some((choice, data)) = data.split_first_chunk() else { return };
    let (owed, hides) = owed(*choice);
    let whole = reshape(&owed, data, usize::MAX);
    for piece in [1, 2, 7, 64] {
        assert_eq!(reshape(&owed, data, piece), whole, "in pieces of {piece}");
    }
    if whole.as_ref().is_err_and(|malformed| *malformed == Malformed::TooDeep) {
        // What is only passed on may nest deeper than what is read.
        return;
    }
    let taken = whole.as_ref().map(|shown| shown.as_ref().map(|(_, taken)| *taken));
    assert_eq!(taken.map_err(|malformed| *malformed), end(data), "the same end");
    let Ok(Some((shown, _))) = whole else { return };
    assert_eq!(end(&shown), Ok(Some(shown.len())), "one whole reply");
    let comes_through = shown.contains(&CANARY);
    assert!(hides == Hides::Some || !comes_through, "a byte of a value comes through");
}

/// No number, type, constant or word of ours has it.
const CANARY: u8 = b'Z';

/// Whether everything is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hides {
    All,
    Some,
}

/// What the client gets for the first reply, and how many bytes of it there were; `None` if it is
/// not over.
fn reshape(owed: &Owed, data: &[u8], piece: usize) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
    let masker = Masker::default();
    let with = With { masker: &masker, protocol: Protocol::Resp3 };
    let mut reshaper = Reshaper::default();
    let (mut input, mut out, mut arrived) = (BytesMut::new(), ByteQueue::default(), 0);
    for part in data.chunks(piece) {
        input.extend_from_slice(part);
        arrived += part.len();
        if reshaper.feed(owed, with, &mut input, &mut out)? == Step::Done {
            assert!(reshaper.is_between(), "a reply is over");
            let shown = out.copy_to_bytes(out.remaining());
            return Ok(Some((shown.to_vec(), arrived - input.len())));
        }
        assert!(out.len() <= arrived * 8 + 1024, "bounded by what has arrived");
    }
    Ok(None)
}

/// Where the first reply or push ends.
fn end(data: &[u8]) -> Result<Option<usize>, Malformed> {
    let part = Replies::default().next(data)?;
    Ok((part.end != End::Open).then_some(part.len))
}

/// What a reply owes, by two bytes: the shape, and the rest.
fn owed([shape, more]: [u8; 2]) -> (Owed, Hides) {
    let every = |shape: Shape| Shape::Each(Box::new(shape));
    let pairs = |left: Shape, right: Shape| Shape::Pairs(Box::new(left), Box::new(right));
    let (shape, hides) = match shape % 16 {
        0 => (Shape::Value, Hides::All),
        1 => (every(Shape::Value), Hides::All),
        2 => (pairs(Shape::Value, Shape::Value), Hides::All),
        3 => (every(pairs(Shape::Value, every(Shape::Value))), Hides::All),
        4 => (Shape::Tuple([Shape::Value, every(Shape::OfField(1))].into()), Hides::All),
        5 => (Shape::ByKey, Hides::All),
        6 => (Shape::ByField(1), Hides::All),
        7 => (Shape::Tuple([].into()), Hides::All),
        8 => (pairs(every(Shape::ByKey), Shape::OfField(usize::MAX)), Hides::All),
        9 => (Shape::Other, Hides::Some),
        10 => (pairs(Shape::Field, Shape::Value), Hides::Some),
        11 => (Shape::Tuple([Shape::Key, every(Shape::Value)].into()), Hides::Some),
        12 => (Shape::Tuple([Shape::Other, every(Shape::Key)].into()), Hides::Some),
        13 => (pairs(Shape::Value, Shape::Other), Hides::Some),
        14 => (Shape::Field, Hides::Some),
        _ => {
            let entry = [Shape::Other, pairs(Shape::Field, Shape::Value)];
            (pairs(Shape::Key, every(Shape::Tuple(entry.into()))), Hides::Some)
        }
    };
    let masks = [
        mask(None, None, MaskFn::Constant("#".into())),
        mask(Some("a*"), None, MaskFn::Nullify),
        mask(Some("?"), JsonPath::parse("$.a").ok(), MaskFn::Nullify),
        mask(None, JsonPath::parse("$.*").ok(), MaskFn::Constant("-".into())),
    ];
    let (masks, hides) = match more & 3 {
        0 => (&masks[..], hides),
        1 => (masks.get(..1).unwrap_or_default(), hides),
        2 => (masks.get(1..).unwrap_or_default(), Hides::Some),
        _ => (&[][..], Hides::Some),
    };
    let masks = KeyMasks::new(masks);
    let args: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    let mut job = Job::new(&shape, &args[..], args.iter().map(|name| (*name, &masks)));
    job = job.errors(Errors::Scrubbed);
    if more & 4 != 0 {
        job = job.strip(b"a"[..].into());
    }
    if more & 8 == 0 {
        return (Owed::One(job), hides);
    }
    // The error of the transaction itself is the server's.
    (Owed::Exec(vec![Some(job.clone()), None, Some(job)]), Hides::Some)
}

fn mask(field: Option<&str>, path: Option<JsonPath>, function: MaskFn) -> ValueMask {
    let fields = field.map(|field| [Glob::new(field)][..].into());
    let rule = RuleId("rule".into());
    ValueMask { pattern: "*".into(), fields, path, function, class: None, rule }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corpus_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/resp_reshape");
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz_reshape(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 10, "only {files} inputs were found");
    }

    /// A reply with canaries in it.
    fn element() -> impl Strategy<Value = Vec<u8>> {
        let blob = |kinds: &'static [u8]| {
            let text = prop::collection::vec(prop::sample::select(&b"Za{}\"$.:1\r\n"[..]), 0..20);
            (prop::sample::select(kinds), text).prop_map(|(kind, text)| {
                [&[kind], format!("{}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat()
            })
        };
        let leaf = prop_oneof![
            3 => blob(b"$"),
            1 => blob(b"$=!"),
            2 => "[+:#,(-][Za1]{0,8}".prop_map(|line| format!("{line}\r\n").into_bytes()),
            1 => prop::sample::select(vec![&b"_\r\n"[..], b"$-1\r\n", b"*-1\r\n"]).prop_map(Vec::from),
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            (prop::sample::select(&b"***~%|"[..]), prop::collection::vec(inner, 1..6)).prop_map(
                |(kind, mut items)| {
                    let behind = if kind == b'|' { items.pop() } else { None };
                    let is_paired = matches!(kind, b'%' | b'|');
                    if is_paired && items.len() % 2 == 1 {
                        items.pop();
                    }
                    let count = if is_paired { items.len() / 2 } else { items.len() };
                    let head = format!("{}{count}\r\n", char::from(kind));
                    [head.as_bytes(), &items.concat(), &behind.unwrap_or_default()].concat()
                },
            )
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn random_replies_hold(choice: [u8; 2], reply in element()) {
            let data = [&choice[..], &reply].concat();
            fuzz_reshape(&data);
            prop_assert_eq!(end(&reply), Ok(Some(reply.len())), "the reply is one");
        }

        #[test]
        fn random_bytes_hold(
            choice: [u8; 2],
            data in prop::collection::vec(prop::sample::select(&b"*$%|>~+:-_!=1290Z\r\r\n\n"[..]), 0..60),
        ) {
            fuzz_reshape(&[&choice[..], &data].concat());
        }

        #[test]
        fn cut_and_mixed_replies_hold(choice: [u8; 2], reply in element(), at: prop::sample::Index, byte: u8) {
            let mut data = [&choice[..], &reply].concat();
            let at = at.index(data.len());
            data[at] = byte;
            fuzz_reshape(&data);
        }
    }
}
