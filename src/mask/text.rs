//! Masks of texts, character by character as databases count them: one Unicode scalar value.

/// What `email` shows of the domain.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown {
    /// All of it.
    Domain,
    /// What follows its last dot.
    LastLabel,
}

/// Longest text searched for the digits of a card number, in characters.
const PAN_CHARACTERS_MAX: usize = 64;
/// Fewest digits of a card number.
const PAN_DIGITS_MIN: usize = 13;
/// Digits shown at its end.
const PAN_SUFFIX: usize = 4;

/// Keeps both ends, if there is something between them.
pub(super) fn partial(value: &str, kept: (u32, u32), fill: char, out: &mut Vec<u8>) {
    let (Ok(prefix), Ok(suffix)) = (usize::try_from(kept.0), usize::try_from(kept.1)) else {
        return all(value, fill, out);
    };
    let length = value.chars().count();
    let middle = length.saturating_sub(prefix.saturating_add(suffix));
    if middle == 0 {
        return all(value, fill, out);
    }
    for (at, c) in value.chars().enumerate() {
        let shown = at < prefix || at >= prefix.saturating_add(middle);
        push(if shown { c } else { fill }, out);
    }
}

/// First character, stars of one width, and what is shown of the domain.
pub(super) fn email(value: &str, shown: Shown, out: &mut Vec<u8>) {
    let Some((local, domain)) = address(value) else { return all(value, '*', out) };
    let mut characters = local.chars();
    let first = characters.next();
    // A local part of one character would be shown whole.
    if let (Some(first), Some(_)) = (first, characters.next()) {
        push(first, out);
    }
    match shown {
        Shown::Domain => {
            out.extend_from_slice(b"***@");
            out.extend_from_slice(domain.as_bytes());
        }
        Shown::LastLabel => {
            out.extend_from_slice(b"***@***.");
            let label = domain.rsplit_once('.').map_or("", |(_, label)| label);
            out.extend_from_slice(label.as_bytes());
        }
    }
}

/// Local part and domain of what looks like an address.
fn address(value: &str) -> Option<(&str, &str)> {
    let (local, domain) = value.split_once('@')?;
    let (host, label) = domain.rsplit_once('.')?;
    let space = |byte: u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let odd = domain.contains('@') || value.bytes().any(space);
    let empty = local.is_empty() || host.is_empty() || label.is_empty();
    (!odd && !empty).then_some((local, domain))
}

/// Leading and last digits; separators stay, other characters do not.
pub(super) fn pan(value: &str, bin: u8, out: &mut Vec<u8>) {
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let long = value.chars().nth(PAN_CHARACTERS_MAX).is_some();
    if long || digits < PAN_DIGITS_MIN || !matches!(bin, 6 | 8) {
        return all(value, '*', out);
    }
    let last_shown = digits.saturating_sub(PAN_SUFFIX);
    let mut seen = 0_usize;
    for c in value.chars() {
        let shown = if c.is_ascii_digit() {
            let at = seen;
            seen = seen.saturating_add(1);
            at < usize::from(bin) || at >= last_shown
        } else {
            matches!(c, '-' | ' ' | '.' | '/')
        };
        push(if shown { c } else { '*' }, out);
    }
}

/// As many fill characters as the value has.
fn all(value: &str, fill: char, out: &mut Vec<u8>) {
    for _ in value.chars() {
        push(fill, out);
    }
}

fn push(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}
