//! How the table of conversations writes bytes.

/// `\r \n \t \0 \\ \" \xHH`, and `{x*N}` for `x` repeated N times.
pub(super) fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(&first) = rest.first() {
        let (bytes, len) = match first {
            b'\\' => escape(&rest[1..]),
            b'{' => repetition(rest).unwrap_or((b"{".to_vec(), 1)),
            other => (vec![other], 1),
        };
        out.extend_from_slice(&bytes);
        rest = &rest[len..];
    }
    out
}

/// What stands behind a backslash, and how long it is with it.
fn escape(text: &[u8]) -> (Vec<u8>, usize) {
    let byte = match text[0] {
        b'r' => b'\r',
        b'n' => b'\n',
        b't' => b'\t',
        b'0' => 0,
        b'x' => {
            let digits = str::from_utf8(&text[1..3]).unwrap();
            return (vec![u8::from_str_radix(digits, 16).unwrap()], 4);
        }
        other @ (b'\\' | b'"') => other,
        other => panic!("\\{} is no escape", char::from(other)),
    };
    (vec![byte], 2)
}

fn repetition(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let end = text.iter().position(|byte| *byte == b'}')?;
    let (what, count) = str::from_utf8(&text[1..end]).ok()?.split_once('*')?;
    Some((what.as_bytes().repeat(count.parse().ok()?), end + 1))
}

/// Words between blanks; those in quotes may hold blanks and escapes.
pub(super) fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = text.trim_ascii();
    while let Some(first) = rest.first() {
        let end;
        if *first == b'"' {
            end = closing_quote(&rest[1..]) + 2;
            words.push(unescaped(&rest[1..end - 1]));
        } else {
            end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
            words.push(rest[..end].to_vec());
        }
        rest = rest[end..].trim_ascii();
    }
    words
}

fn closing_quote(text: &[u8]) -> usize {
    let mut escaped = false;
    let position = text.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    });
    position.unwrap_or_else(|| panic!("no closing quote in {}", text.escape_ascii()))
}

/// The table's way to write these bytes.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        let same = rest.iter().take_while(|other| **other == byte).count();
        let shown = match byte {
            b'\r' => "\\r".into(),
            b'\n' => "\\n".into(),
            b'\t' => "\\t".into(),
            b'\\' => "\\\\".into(),
            b' '..=b'~' => char::from(byte).to_string(),
            other => format!("\\x{other:02x}"),
        };
        let taken = if same >= 100 { same } else { 1 };
        out += &if taken == 1 { shown } else { format!("{{{shown}*{taken}}}") };
        rest = &rest[taken..];
    }
    out
}

#[test]
fn bytes_are_written_and_read_alike() {
    let text = r#"*2\r\n$3\r\nA\\B\r\n\x00\xff "{x*100}{x*}"#;
    let bytes = [&b"*2\r\n$3\r\nA\\B\r\n\0\xff \""[..], &[b'x'; 100], b"{x*}"].concat();
    assert_eq!(unescaped(text.as_bytes()), bytes);
    assert_eq!(escaped(&bytes), text);
    let spoken = words(br#"SET "a b\"" "" "\x00" x"y"#);
    assert_eq!(spoken, [&b"SET"[..], b"a b\"", b"", b"\0", b"x\"y"]);
}
