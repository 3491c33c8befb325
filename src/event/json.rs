//! Writing JSON by appending: no tree, no allocation besides the output.
//!
//! Whether a comma is due follows from the last byte written, so pre-encoded members can be copied
//! in anywhere. Keys are constants of this crate and need no escaping.

/// Appends members and items to a buffer.
pub(super) struct Json<'a> {
    out: &'a mut Vec<u8>,
    /// Something did not fit its bound and was left out.
    cut: bool,
}

/// How much of a list is written.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Most items.
    pub(super) items_max: usize,
    /// Most bytes of all items together, as encoded.
    pub(super) bytes_max: usize,
}

impl<'a> Json<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, cut: false }
    }

    /// Whether anything was shortened or left out so far.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// `"key":"value"`, the value cut at `bytes_max` encoded bytes.
    pub(super) fn text(&mut self, key: &str, value: &str, bytes_max: usize) {
        self.key(key);
        self.string(value, bytes_max);
    }

    /// `"key":"value"` for a value known to need no escaping.
    pub(super) fn word(&mut self, key: &str, value: &'static str) {
        self.key(key);
        self.quoted(&[value.as_bytes()]);
    }

    /// `"key":"…"` from parts that need no escaping (constants, or bytes escaped before).
    pub(super) fn joined(&mut self, key: &str, parts: &[&[u8]]) {
        self.key(key);
        self.quoted(parts);
    }

    /// `"key":123`.
    pub(super) fn integer(&mut self, key: &str, value: u64) {
        self.key(key);
        integer(self.out, value);
    }

    /// `"key":true`.
    pub(super) fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// `"key":{…}`.
    pub(super) fn object(&mut self, key: &str, members: impl FnOnce(&mut Self)) {
        self.key(key);
        self.braces(members);
    }

    /// An object that is the whole text.
    pub(super) fn whole(&mut self, members: impl FnOnce(&mut Self)) {
        self.braces(members);
    }

    /// An object as the next item of an array.
    pub(super) fn item(&mut self, members: impl FnOnce(&mut Self)) {
        self.comma();
        self.braces(members);
    }

    /// A string as the next item of an array.
    pub(super) fn item_text(&mut self, value: &str, bytes_max: usize) {
        self.comma();
        self.string(value, bytes_max);
    }

    /// Members encoded before.
    pub(super) fn members(&mut self, encoded: &[u8]) {
        if !encoded.is_empty() {
            self.comma();
            self.out.extend_from_slice(encoded);
        }
    }

    /// `"key":[…]` with as many items as the bounds allow; returns how many were left out.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        items: impl ExactSizeIterator<Item = T>,
        bounds: Bounds,
        mut write: impl FnMut(&mut Self, T),
    ) -> usize {
        self.key(key);
        self.out.push(b'[');
        let start = self.out.len();
        let mut missing = items.len();
        for item in items.take(bounds.items_max) {
            let before = self.out.len();
            write(self, item);
            if self.out.len() - start > bounds.bytes_max {
                self.out.truncate(before);
                break;
            }
            missing -= 1;
        }
        self.out.push(b']');
        self.cut |= missing > 0;
        missing
    }

    fn braces(&mut self, members: impl FnOnce(&mut Self)) {
        self.out.push(b'{');
        members(self);
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn comma(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }

    fn quoted(&mut self, parts: &[&[u8]]) {
        self.out.push(b'"');
        for part in parts {
            self.out.extend_from_slice(part);
        }
        self.out.push(b'"');
    }

    fn string(&mut self, value: &str, bytes_max: usize) {
        self.out.push(b'"');
        self.cut |= !escape(self.out, value, bytes_max);
        self.out.push(b'"');
    }
}

/// Appends `value` escaped, at most `bytes_max` encoded bytes of it, never half a character.
/// Returns whether all of it was written.
pub(super) fn escape(out: &mut Vec<u8>, value: &str, bytes_max: usize) -> bool {
    let start = out.len();
    for c in value.chars() {
        let before = out.len();
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if is_unsafe(c) => escape_code(out, c),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        if out.len() - start > bytes_max {
            out.truncate(before);
            return false;
        }
    }
    true
}

/// Characters that could break a line, steer a terminal or reorder what a person sees: JSON asks
/// only for those below U+0020, but an audit line is also read with `less` and `grep`.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200E}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// `\uXXXX`; every unsafe character is in the basic plane.
fn escape_code(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(b"\\u");
    let code = u32::from(c);
    for shift in [12, 8, 4, 0] {
        let digit = char::from_digit((code >> shift) & 0xF, 16).unwrap_or('0');
        out.extend_from_slice(digit.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Appends a number in decimal digits.
pub(super) fn integer(out: &mut Vec<u8>, mut value: u64) {
    // The longest number has twenty digits.
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        first = at;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}
