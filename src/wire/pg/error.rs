//! ErrorResponse and NoticeResponse: fields of one letter and a text.

use bytes::BytesMut;

use super::message::framed;
use crate::wire::error::WireError;
use crate::wire::reader::Reader;

/// How bad it is. `Fatal` ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
    /// Nothing failed.
    Warning,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
        }
    }
}

/// The fields we send ourselves.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// How bad.
    pub severity: Severity,
    /// SQLSTATE.
    pub code: &'a str,
    /// One line.
    pub message: &'a str,
    /// More, for instance the request id.
    pub detail: Option<&'a str>,
    /// The way out.
    pub hint: Option<&'a str>,
    /// 1-based position in characters of the client's text.
    pub position: Option<u32>,
}

impl Report<'_> {
    /// Appends an ErrorResponse, or a NoticeResponse for a warning.
    pub fn encode(&self, out: &mut BytesMut) {
        let tag = if self.severity == Severity::Warning { b'N' } else { b'E' };
        let position = self.position.map(|position| position.to_string());
        framed(out, tag, |out| {
            put_field(out, b'S', self.severity.word().as_bytes());
            put_field(out, b'V', self.severity.word().as_bytes());
            put_field(out, b'C', self.code.as_bytes());
            put_field(out, b'M', self.message.as_bytes());
            let rest = [(b'D', self.detail), (b'H', self.hint), (b'P', position.as_deref())];
            for (letter, text) in rest {
                if let Some(text) = text {
                    put_field(out, letter, text.as_bytes());
                }
            }
            out.extend_from_slice(&[0]);
        });
    }
}

/// Appends one field. Zero bytes cannot occur in a text on the wire and are left out.
pub fn put_field(out: &mut BytesMut, letter: u8, text: &[u8]) {
    out.extend_from_slice(&[letter]);
    for part in text.split(|byte| *byte == 0) {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[0]);
}

/// The fields of an ErrorResponse or NoticeResponse body, in order, unknown letters included.
///
/// # Errors
/// A field without terminator, or bytes after the end.
pub fn fields(body: &[u8]) -> Result<Vec<(u8, &[u8])>, WireError> {
    let mut reader = Reader::new(body);
    let mut fields = Vec::new();
    loop {
        match reader.byte()? {
            0 => {
                reader.finish()?;
                return Ok(fields);
            }
            letter => fields.push((letter, reader.cstr()?)),
        }
    }
}

/// The SQLSTATE of a body; `XX000` if it has none (a server is not to be trusted with that).
pub fn sqlstate(body: &[u8]) -> [u8; 5] {
    let found = fields(body).ok().and_then(|fields| {
        let code = fields.iter().find(|(letter, _)| *letter == b'C')?.1;
        code.try_into().ok().filter(|code: &[u8; 5]| code.iter().all(u8::is_ascii_alphanumeric))
    });
    found.unwrap_or(*b"XX000")
}
