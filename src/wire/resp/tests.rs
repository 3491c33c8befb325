use proptest::prelude::*;

use super::fuzz::{Found, Reading, TIGHT, fuzz_frames, read, write};
use super::request::{Refused, RequestLimits, Scan, Scanner};

fn args(words: &[&str]) -> Found {
    Found::Command(words.iter().map(|word| word.as_bytes().to_vec()).collect())
}

fn logged_in(data: &[u8]) -> Reading {
    read(data, usize::MAX, RequestLimits::LOGGED_IN)
}

#[test]
fn arrays_lines_and_nothings_in_one_pipeline() {
    let data =
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*0\r\nPING\r\n\r\n*-1\r\n  \nset 'a b' \"\\x41\\n\"\n";
    let reading = logged_in(data);
    assert_eq!(reading.found, [args(&["GET", "k"]), args(&["PING"]), args(&["set", "a b", "A\n"])]);
    assert_eq!((reading.refused, reading.left), (None, 0));
}

#[test]
fn what_is_no_command_ends_the_connection() {
    let cases: [(&[u8], Refused); 15] = [
        (b"*x\r\n", Refused::MultibulkLength),
        (b"*+1\r\n", Refused::MultibulkLength),
        (b"*01\r\n", Refused::MultibulkLength),
        (b"*99999999999999999999\r\n", Refused::MultibulkLength),
        (b"*1048577\r\n", Refused::MultibulkLength),
        (b"*1\r\nGET\r\n", Refused::ExpectedBulk(b'G')),
        (b"*1\r\n\r\n", Refused::ExpectedBulk(b'\r')),
        (b"*1\r\n$-1\r\n", Refused::BulkLength),
        (b"*1\r\n$536870913\r\n", Refused::BulkLength),
        (b"*1\r\n$4\r\nPINGxx", Refused::LineEnd),
        (b"*1\rx", Refused::LineEnd),
        (b"GET \"a\n", Refused::Quotes),
        (b"GET 'a'b\n", Refused::Quotes),
        (b"POST / HTTP/1.1\r\n", Refused::OtherProtocol),
        (b"*2\r\n$5\r\nhost:\r\n$1\r\na\r\n", Refused::OtherProtocol),
    ];
    for (data, refused) in cases {
        let shown = data.escape_ascii().to_string();
        assert_eq!(logged_in(data).refused, Some(refused), "{shown}");
        let before = logged_in(&[b"PING\r\n", data].concat());
        assert_eq!(before.found, [args(&["PING"])], "{shown}: what came before it is served");
    }
}

#[test]
fn before_a_login_little_is_taken() {
    let read = |data: &[u8]| read(data, usize::MAX, RequestLimits::BEFORE_LOGIN).refused;
    assert_eq!(read(b"*11\r\n"), Some(Refused::UnauthenticatedMultibulkLength));
    assert_eq!(read(b"*1\r\n$16385\r\n"), Some(Refused::UnauthenticatedBulkLength));
    assert_eq!(read(b"*10\r\n$16384\r\n"), None);
}

#[test]
fn lines_have_an_end() {
    for (start, refused) in [
        (&b"*"[..], Refused::MultibulkLine),
        (b"*1\r\n$", Refused::BulkLine),
        (b"GET ", Refused::InlineLine),
    ] {
        let data = [start, &b"1".repeat(64 * 1024 + 1)].concat();
        assert_eq!(logged_in(&data).refused, Some(refused));
    }
}

#[test]
fn a_long_last_argument_is_streamed() {
    let value = [b'v'; 60];
    let mut data = write(&[b"SET".to_vec(), b"k".to_vec()]);
    data.splice(..4, *b"*3\r\n");
    data.extend_from_slice(b"$60\r\n");
    data.extend_from_slice(&value);
    data.extend_from_slice(b"\r\nPING\r\n");
    let reading = read(&data, usize::MAX, TIGHT);
    let head = Found::Head(vec![b"SET".to_vec(), b"k".to_vec()], 60);
    assert_eq!(reading.found, [head, args(&["PING"])]);
    assert_eq!((reading.streamed, reading.refused), (62, None));
}

#[test]
fn a_long_argument_in_the_middle_costs_its_command_only() {
    let long = |at: usize| {
        let mut words = vec![b"SET".to_vec(), b"k".to_vec(), b"v".to_vec(), b"EX".to_vec()];
        words[at] = vec![b'x'; 60];
        [write(&words), b"PING\r\n".to_vec()].concat()
    };
    for at in 0..3 {
        let reading = read(&long(at), usize::MAX, TIGHT);
        assert_eq!(reading.found, [Found::TooLong, args(&["PING"])], "argument {at}");
    }
}

#[test]
fn memory_follows_what_has_arrived() {
    let mut scanner = Scanner::new(RequestLimits::LOGGED_IN);
    let data = b"*1048576\r\n$536870912\r\nx";
    // The announced argument is longer than is held: it is dropped as it comes.
    assert_eq!(scanner.scan(data), Ok(Scan::Drop(data.len())));
    assert_eq!(scanner.args(b"").iter().len(), 0);
}

#[test]
fn arguments_are_counted_before_they_arrive() {
    let mut scanner = Scanner::new(TIGHT);
    let data = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$60\r\n";
    assert_eq!(scanner.scan(data), Ok(Scan::Head { len: data.len(), last: 60 }));
    let args = scanner.args(data);
    assert_eq!((args.len(), args.get(1), args.get(2)), (3, Some(&b"k"[..]), None));
    assert!(scanner.is_streaming());
}

#[test]
fn the_corpus_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/resp_frames");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        fuzz_frames(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 10, "only {files} inputs were found");
}

/// Something like a command, or a piece of one.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::collection::vec(prop::sample::select(&b"aB*$\r\n\"'\\ x0"[..]), 0..70);
    let words = prop::collection::vec(word.clone(), 1..5);
    prop_oneof![
        8 => words.prop_map(|words| write(&words)),
        2 => word.prop_map(|word| [&word[..], b"\r\n"].concat()),
        1 => prop::sample::select(vec!["*", "$", "\r\n", "*2\r\n", "*-1\r\n", "$3\r\n", "$-1\r\n"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

proptest! {
    #[test]
    fn holds_for_any_bytes(data in prop::collection::vec(any::<u8>(), 0..256)) {
        fuzz_frames(&data);
    }

    #[test]
    fn holds_for_streams_of_commands(pieces in prop::collection::vec(piece(), 0..8)) {
        fuzz_frames(&pieces.concat());
    }

    /// Another reader of the same protocol finds the same arguments.
    #[test]
    fn agrees_with_another_reader(
        words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..6),
    ) {
        use redis_protocol::resp2::{decode::decode, types::OwnedFrame};
        let data = write(&words);
        let (frame, len) = decode(&data).unwrap().unwrap();
        let OwnedFrame::Array(items) = frame else { panic!("{frame:?}") };
        let theirs: Vec<Vec<u8>> = items
            .into_iter()
            .map(|item| match item {
                OwnedFrame::BulkString(bytes) => bytes,
                other => panic!("{other:?}"),
            })
            .collect();
        prop_assert_eq!(len, data.len());
        prop_assert_eq!(&theirs, &words);
        let other_protocol = matches!(words[0].to_ascii_lowercase().as_slice(), b"post" | b"host:");
        if !other_protocol {
            prop_assert_eq!(logged_in(&data).found, [Found::Command(theirs)]);
        }
    }
}
