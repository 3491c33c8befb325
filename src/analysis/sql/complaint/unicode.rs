//! Escapes for Unicode characters: `E'\u0061'` is read by the scanner, `U&'\0061'` behind it.

use pg_query::protobuf::Token as Kind;

use super::parse;

/// What the scanner and the code behind it both say.
pub(super) const MESSAGE: &str = "invalid Unicode escape";

/// One malformed escape.
pub(super) struct Bad {
    pub(super) code: &'static str,
    pub(super) hint: &'static str,
    pub(super) place: Option<usize>,
}

/// Which escape [`MESSAGE`] is about.
pub(super) fn find(text: &str, same: &dyn Fn(&str) -> bool) -> Bad {
    if let Some(place) = in_escape_string(text, same) {
        let hint = "Unicode escapes must be \\uXXXX or \\UXXXXXXXX.";
        return Bad { code: "22025", hint, place: Some(place) };
    }
    let place = find_decoded(text, MESSAGE, same);
    Bad { code: "42601", hint: "Unicode escapes must be \\XXXX or \\+XXXXXX.", place }
}

/// The escape of a `U&` string or identifier that a complaint is about.
pub(super) fn find_decoded(
    text: &str,
    message: &str,
    same: &dyn Fn(&str) -> bool,
) -> Option<usize> {
    if !message.starts_with("invalid Unicode") {
        return None;
    }
    let tokens = super::stopped_at(text, same)?;
    let read = |token: &parse::Token| text.get(token.start..token.end);
    let at = tokens.iter().rposition(|t| matches!(t.kind, Kind::Usconst | Kind::Uident))?;
    let escape = match tokens.get(at + 1..)? {
        [word, string, ..] if word.kind == Kind::Uescape => {
            let quoted = read(string)?.strip_prefix('\'')?.strip_suffix('\'')?;
            u8::try_from(quoted.chars().next()?).ok()?
        }
        _ => b'\\',
    };
    let token = tokens.get(at)?;
    let (quote, rest) = read(token)?.get(OPENING_BYTES - 1..)?.split_at_checked(1)?;
    let body = rest.strip_suffix(quote)?.replace(&quote.repeat(2), quote);
    // Servers count in the string without its doubled quotes, too.
    Some(token.start + OPENING_BYTES + bad_escape(body.as_bytes(), escape)?)
}

/// The first malformed `\u` or `\U`: cut off behind it, the text gets the same complaint.
fn in_escape_string(text: &str, same: &dyn Fn(&str) -> bool) -> Option<usize> {
    let escapes: Vec<(usize, usize)> = text
        .match_indices('\\')
        .filter_map(|(at, _)| {
            let (digits_max, rest) = match text.as_bytes().get(at + 1)? {
                b'u' => (4, text.get(at + 2..)?),
                b'U' => (8, text.get(at + 2..)?),
                _ => return None,
            };
            let hex = rest.bytes().take(digits_max).take_while(u8::is_ascii_hexdigit);
            Some((at, at + 2 + hex.count()))
        })
        .collect();
    let before = |(_, end): &(usize, usize)| !text.get(..*end).is_some_and(same);
    let (at, _) = *escapes.get(escapes.partition_point(before))?;
    // A text that is refused without the escape is not refused for it.
    (!text.get(..at).is_some_and(same)).then_some(at)
}

/// Offset of the first escape that is malformed, or where the second half of a pair is missing.
fn bad_escape(body: &[u8], escape: u8) -> Option<usize> {
    let mut at = 0;
    let mut first_half = false;
    while let Some(byte) = body.get(at) {
        if *byte != escape {
            if first_half {
                return Some(at);
            }
            at += 1;
            continue;
        }
        let (value, length) = match body.get(at + 1) {
            Some(next) if *next == escape && first_half => return Some(at),
            Some(next) if *next == escape => {
                at += 2;
                continue;
            }
            Some(b'+') => (hex(body, at + 2, 6), 8),
            _ => (hex(body, at + 1, 4), 5),
        };
        let Some(value) = value else { return Some(at) };
        let (high, low) = ((0xd800..0xdc00).contains(&value), (0xdc00..0xe000).contains(&value));
        if !(1..=0x0010_ffff).contains(&value) || first_half != low {
            return Some(at);
        }
        first_half = high;
        at += length;
    }
    first_half.then_some(at)
}

fn hex(body: &[u8], start: usize, digits: usize) -> Option<u32> {
    let digits = std::str::from_utf8(body.get(start..start + digits)?).ok()?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
    u32::from_str_radix(digits, 16).ok()
}

/// `U&'`.
const OPENING_BYTES: usize = 3;
