//! Masks inside a JSON text, without building a tree.
//!
//! One pass over the bytes with a stack of a fixed depth. What is not masked is copied as it
//! stands, so numbers keep their digits and objects their order; a member that stands twice is
//! masked twice, because readers differ in which of the two they take. The text is checked to its
//! last byte before anything of it is shown.

use super::{HIDDEN, Mask, Masked, Masker};
use crate::obligation::{JsonPath, JsonStep, MaskFn};

/// Longest text that is read. A longer one is masked whole.
const BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting that is read.
const DEPTH_MAX: usize = 64;

pub(super) fn apply(
    masker: &Masker,
    path: &JsonPath,
    mask: Mask<'_>,
    value: &[u8],
    out: &mut Vec<u8>,
) -> Masked {
    let start = out.len();
    let walked = std::str::from_utf8(value)
        .ok()
        .filter(|text| text.len() <= BYTES_MAX)
        .and_then(|text| Walk::new(text, path, masker, mask).run(out));
    if walked.is_none() {
        // Not even a constant or a token: the reader would take it for the leaf's.
        out.truncate(start);
        out.extend_from_slice(HIDDEN);
    }
    Masked::Value
}

/// What may stand next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Value,
    /// Directly after `[`.
    ValueOrEnd,
    /// Directly after `{`.
    KeyOrEnd,
    Key,
    CommaOrEnd,
    /// Nothing but white space.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
}

/// A container the walk is inside of.
#[derive(Clone, Copy, Debug)]
struct Level {
    kind: Kind,
    /// The path leads to this container.
    on_path: bool,
    /// The next value is what the path's next step names.
    named: bool,
    /// Elements before the next one.
    elements: u32,
}

struct Walk<'a> {
    text: &'a str,
    at: usize,
    /// Everything before was written, in its own form or masked.
    written: usize,
    steps: &'a [JsonStep],
    masker: &'a Masker,
    mask: Mask<'a>,
    levels: [Level; DEPTH_MAX],
    depth: usize,
    /// A container that is masked as a whole: where it begins, and the depth around it.
    hidden: Option<(usize, usize)>,
}

impl<'a> Walk<'a> {
    fn new(text: &'a str, path: &'a JsonPath, masker: &'a Masker, mask: Mask<'a>) -> Self {
        let level = Level { kind: Kind::Array, on_path: false, named: false, elements: 0 };
        Self {
            text,
            at: 0,
            written: 0,
            steps: path.steps(),
            masker,
            mask,
            levels: [level; DEPTH_MAX],
            depth: 0,
            hidden: None,
        }
    }

    /// `None` if the text is not JSON; what was appended then means nothing.
    fn run(mut self, out: &mut Vec<u8>) -> Option<()> {
        let mut next = Next::Value;
        loop {
            self.skip_space();
            let Some(byte) = self.peek() else { break };
            next = match (next, byte) {
                (Next::Value | Next::ValueOrEnd, b'{') => self.open(Kind::Object, out)?,
                (Next::Value | Next::ValueOrEnd, b'[') => self.open(Kind::Array, out)?,
                (Next::ValueOrEnd, b']') | (Next::KeyOrEnd, b'}') => self.close(byte, out)?,
                (Next::Value | Next::ValueOrEnd, _) => self.scalar(byte, out)?,
                (Next::Key | Next::KeyOrEnd, b'"') => self.key()?,
                (Next::CommaOrEnd, b',') => self.comma()?,
                (Next::CommaOrEnd, _) => self.close(byte, out)?,
                (Next::Key | Next::KeyOrEnd | Next::Nothing, _) => return None,
            };
        }
        if next != Next::Nothing {
            return None;
        }
        self.copy_to(self.text.len(), out)
    }

    // === containers ===

    fn open(&mut self, kind: Kind, out: &mut Vec<u8>) -> Option<Next> {
        let reached = self.reached();
        if reached == Reached::Leaf {
            self.copy_to(self.at, out)?;
            self.hidden = Some((self.at, self.depth));
        }
        let on_path = reached == Reached::Way;
        let level = Level { kind, on_path, named: false, elements: 0 };
        *self.levels.get_mut(self.depth)? = level;
        self.depth = self.depth.checked_add(1)?;
        self.at = self.at.checked_add(1)?;
        self.name_element();
        Some(match kind {
            Kind::Object => Next::KeyOrEnd,
            Kind::Array => Next::ValueOrEnd,
        })
    }

    fn close(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<Next> {
        let expected = match self.top()?.kind {
            Kind::Object => b'}',
            Kind::Array => b']',
        };
        (byte == expected).then_some(())?;
        self.at = self.at.checked_add(1)?;
        self.depth = self.depth.checked_sub(1)?;
        if let Some((start, depth)) = self.hidden
            && depth == self.depth
        {
            self.hidden = None;
            let whole = self.text.get(start..self.at)?;
            self.write_masked(whole, Written::Container, out);
            self.written = self.at;
        }
        Some(self.after_value())
    }

    fn comma(&mut self) -> Option<Next> {
        self.at = self.at.checked_add(1)?;
        let depth = self.depth.checked_sub(1)?;
        let level = self.levels.get_mut(depth)?;
        level.elements = level.elements.saturating_add(1);
        let kind = level.kind;
        self.name_element();
        Some(match kind {
            Kind::Object => Next::Key,
            Kind::Array => Next::Value,
        })
    }

    /// A key and its colon.
    fn key(&mut self) -> Option<Next> {
        let raw = self.string()?;
        self.skip_space();
        (self.peek() == Some(b':')).then_some(())?;
        self.at = self.at.checked_add(1)?;
        let depth = self.depth.checked_sub(1)?;
        let step = self.steps.get(depth);
        let named = match step {
            Some(JsonStep::Member(name)) => Characters(raw).eq(name.chars().map(Some)),
            Some(JsonStep::EveryMember) => true,
            Some(JsonStep::Element(_) | JsonStep::EveryElement) | None => false,
        };
        self.levels.get_mut(depth)?.named = named;
        Some(Next::Value)
    }

    /// Says whether the next element of an array is on the path.
    fn name_element(&mut self) {
        let Some(depth) = self.depth.checked_sub(1) else { return };
        let Some(level) = self.levels.get_mut(depth) else { return };
        if level.kind == Kind::Object {
            return;
        }
        level.named = match self.steps.get(depth) {
            Some(JsonStep::Element(at)) => *at == level.elements,
            Some(JsonStep::EveryElement) => true,
            Some(JsonStep::Member(_) | JsonStep::EveryMember) | None => false,
        };
    }

    // === values ===

    fn scalar(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<Next> {
        let start = self.at;
        let written = match byte {
            b'"' => {
                self.string()?;
                Written::String
            }
            b'-' | b'0'..=b'9' => {
                self.number()?;
                Written::Number
            }
            _ => self.word()?,
        };
        if self.reached() == Reached::Leaf {
            self.copy_to(start, out)?;
            let raw = self.text.get(start..self.at)?;
            self.write_masked(raw, written, out);
            self.written = self.at;
        }
        Some(self.after_value())
    }

    fn word(&mut self) -> Option<Written> {
        let rest = self.text.get(self.at..)?;
        let words = [("null", Written::Null), ("true", Written::Bool), ("false", Written::Bool)];
        let (word, written) = words.into_iter().find(|(word, _)| rest.starts_with(word))?;
        self.at = self.at.checked_add(word.len())?;
        Some(written)
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at = self.at.checked_add(1)?;
        }
        if self.peek() == Some(b'0') {
            self.at = self.at.checked_add(1)?;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at = self.at.checked_add(1)?;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at = self.at.checked_add(1)?;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at = self.at.checked_add(1)?;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at = self.at.checked_add(1)?;
        }
        (self.at > start).then_some(())
    }

    /// What stands between the quotes, checked, escapes as they are.
    fn string(&mut self) -> Option<&'a str> {
        let start = self.at.checked_add(1)?;
        self.at = start;
        loop {
            let byte = self.peek()?;
            match byte {
                b'"' => break,
                b'\\' => self.at = self.at.checked_add(2)?,
                0..=0x1f => return None,
                _ => self.at = self.at.checked_add(1)?,
            }
        }
        let raw = self.text.get(start..self.at)?;
        self.at = self.at.checked_add(1)?;
        Characters(raw).all(|c| c.is_some()).then_some(raw)
    }

    // === output ===

    fn write_masked(&self, raw: &str, written: Written, out: &mut Vec<u8>) {
        let text = match written {
            Written::Null => return out.extend_from_slice(b"null"),
            // There is no text a function could keep a part of.
            Written::Container | Written::Bool => None,
            Written::Number => Some(raw),
            Written::String => raw.get(1..raw.len().saturating_sub(1)),
        };
        let start = out.len();
        out.push(b'"');
        let Mask { function, domain } = self.mask;
        let masked = match text {
            Some(text) if text.contains('\\') => {
                let plain: String = Characters(text).flatten().collect();
                self.masker.apply(function, domain, plain.as_bytes(), out)
            }
            Some(text) => self.masker.apply(function, domain, text.as_bytes(), out),
            None if matches!(function, MaskFn::Nullify | MaskFn::Constant(_)) => {
                self.masker.apply(function, domain, b"", out)
            }
            None => {
                out.extend_from_slice(HIDDEN);
                Masked::Value
            }
        };
        match masked {
            Masked::Null => {
                out.truncate(start);
                out.extend_from_slice(b"null");
            }
            // An edge of a bucket is a number again.
            Masked::Value if written == Written::Number && is_number(out, start) => {
                out.remove(start);
            }
            Masked::Value => {
                escape(out, start.saturating_add(1));
                out.push(b'"');
            }
        }
    }

    fn copy_to(&mut self, end: usize, out: &mut Vec<u8>) -> Option<()> {
        if self.hidden.is_none() {
            out.extend_from_slice(self.text.as_bytes().get(self.written..end)?);
            self.written = end;
        }
        Some(())
    }

    // === helpers ===

    /// How far the path has led to the value that begins here.
    fn reached(&self) -> Reached {
        if self.hidden.is_some() {
            return Reached::Off;
        }
        let Some(top) = self.top() else { return Reached::Way };
        if !(top.on_path && top.named) {
            return Reached::Off;
        }
        if self.depth == self.steps.len() { Reached::Leaf } else { Reached::Way }
    }

    fn after_value(&self) -> Next {
        if self.depth == 0 { Next::Nothing } else { Next::CommaOrEnd }
    }

    fn top(&self) -> Option<&Level> {
        self.levels.get(self.depth.checked_sub(1)?)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at = self.at.saturating_add(1);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// Elsewhere.
    Off,
    /// On the way to what is masked.
    Way,
    /// What is masked.
    Leaf,
}

/// The kind of a value that is masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Null,
    Bool,
    Number,
    String,
    Container,
}

/// Whether what was appended behind the quote at `start` is a whole number as JSON has them.
fn is_number(out: &[u8], start: usize) -> bool {
    let text = out.get(start.saturating_add(1)..).unwrap_or_default();
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let zero_first = digits.len() > 1 && digits.first() == Some(&b'0');
    !digits.is_empty() && !zero_first && digits.iter().all(u8::is_ascii_digit)
}

/// Escapes what was appended from `start` on.
fn escape(out: &mut Vec<u8>, start: usize) {
    use std::io::Write as _;
    let special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    if !out.get(start..).unwrap_or_default().iter().any(special) {
        return;
    }
    let plain = out.split_off(start);
    for byte in plain {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => {
                // Writing to a vector cannot fail.
                let _ = write!(out, "\\u{byte:04x}");
            }
            _ => out.push(byte),
        }
    }
}

/// The characters of a string with its escapes undone; `None` for an escape that is none, and
/// nothing after it.
struct Characters<'a>(&'a str);

impl Characters<'_> {
    fn escaped(&mut self) -> Option<char> {
        let mut rest = self.0.chars();
        let kind = rest.next()?;
        self.0 = rest.as_str();
        match kind {
            '"' | '\\' | '/' => Some(kind),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'u' => self.unicode(),
            _ => None,
        }
    }

    fn unicode(&mut self) -> Option<char> {
        let first = self.unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        self.0 = self.0.strip_prefix("\\u")?;
        let second = self.unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second)
    }

    fn unit(&mut self) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(4)?;
        self.0 = rest;
        let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| plain)
    }
}

impl Iterator for Characters<'_> {
    type Item = Option<char>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.0.chars();
        let c = rest.next()?;
        self.0 = rest.as_str();
        if c != '\\' {
            return Some(Some(c));
        }
        let c = self.escaped();
        if c.is_none() {
            self.0 = "";
        }
        Some(c)
    }
}
