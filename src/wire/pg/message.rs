//! Encoders for the few messages the proxy says itself, readers for the ones it must understand.

use bytes::{BufMut, BytesMut};

use super::startup::Startup;
use crate::wire::error::WireError;
use crate::wire::reader::Reader;

/// Appends one frame whose body `write` appends; the length is filled in afterwards.
pub fn framed(out: &mut BytesMut, tag: u8, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    with_length(out, write);
}

fn with_length(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    write(out);
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// StartupMessage of protocol 3.0 with these parameters; `_pq_.` options are left out, as they
/// belong to later minor versions.
pub fn startup(out: &mut BytesMut, startup: &Startup) {
    with_length(out, |out| {
        out.put_u32(0x0003_0000);
        let settings = startup.parameters.iter().filter(|(name, _)| !name.starts_with(b"_pq_."));
        for (name, value) in settings {
            put_cstr(out, name);
            put_cstr(out, value);
        }
        out.put_u8(0);
    });
}

/// CancelRequest.
pub fn cancel_request(out: &mut BytesMut, pid: u32, secret: &[u8]) {
    with_length(out, |out| {
        out.put_u32(80_877_102);
        out.put_u32(pid);
        out.put_slice(secret);
    });
}

/// NegotiateProtocolVersion: version 3 with this minor version holds; `options` are not supported.
/// The field is a whole version number, whatever the manual says: so servers send and libpq reads it.
pub fn negotiate_protocol_version(out: &mut BytesMut, minor: u16, options: &[&[u8]]) {
    framed(out, b'v', |out| {
        out.put_u32(0x0003_0000 | u32::from(minor));
        out.put_u32(u32::try_from(options.len()).unwrap_or(u32::MAX));
        options.iter().for_each(|option| put_cstr(out, option));
    });
}

/// BackendKeyData.
pub fn backend_key_data(out: &mut BytesMut, pid: u32, secret: &[u8]) {
    framed(out, b'K', |out| {
        out.put_u32(pid);
        out.put_slice(secret);
    });
}

/// AuthenticationSASL with these mechanisms.
pub fn authentication_sasl(out: &mut BytesMut, mechanisms: &[&[u8]]) {
    framed(out, b'R', |out| {
        out.put_u32(10);
        mechanisms.iter().for_each(|mechanism| put_cstr(out, mechanism));
        out.put_u8(0);
    });
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut BytesMut) {
    framed(out, b'R', |out| out.put_u32(0));
}

/// AuthenticationCleartextPassword.
pub fn authentication_cleartext(out: &mut BytesMut) {
    framed(out, b'R', |out| out.put_u32(3));
}

/// AuthenticationSASLContinue.
pub fn authentication_sasl_continue(out: &mut BytesMut, data: &[u8]) {
    framed(out, b'R', |out| {
        out.put_u32(11);
        out.put_slice(data);
    });
}

/// AuthenticationSASLFinal.
pub fn authentication_sasl_final(out: &mut BytesMut, data: &[u8]) {
    framed(out, b'R', |out| {
        out.put_u32(12);
        out.put_slice(data);
    });
}

/// PasswordMessage.
pub fn password(out: &mut BytesMut, password: &[u8]) {
    framed(out, b'p', |out| put_cstr(out, password));
}

/// SASLInitialResponse.
pub fn sasl_initial_response(out: &mut BytesMut, mechanism: &[u8], data: &[u8]) {
    framed(out, b'p', |out| {
        put_cstr(out, mechanism);
        out.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
        out.put_slice(data);
    });
}

/// SASLResponse.
pub fn sasl_response(out: &mut BytesMut, data: &[u8]) {
    framed(out, b'p', |out| out.put_slice(data));
}

/// Mechanism and data of a SASLInitialResponse body. PostgreSQL lets a client send no data at
/// first (length -1); no client does, and it is refused.
///
/// # Errors
/// Anything but exactly the fields.
pub fn read_sasl_initial_response(body: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let mut reader = Reader::new(body);
    let mechanism = reader.cstr()?;
    let declared = reader.i32()?;
    let len = usize::try_from(declared).ok().ok_or(WireError::BadLength(declared))?;
    let data = reader.take(len)?;
    reader.finish()?;
    Ok((mechanism, data))
}

/// The password of a PasswordMessage body.
///
/// # Errors
/// Anything but exactly the field.
pub fn read_password(body: &[u8]) -> Result<&[u8], WireError> {
    query_text(body)
}

/// ReadyForQuery with a transaction status (`I`, `T`, `E`).
pub fn ready_for_query(out: &mut BytesMut, status: u8) {
    framed(out, b'Z', |out| out.put_u8(status));
}

/// Query.
pub fn query(out: &mut BytesMut, text: &[u8]) {
    framed(out, b'Q', |out| put_cstr(out, text));
}

/// Parse; `parameter_types` is the raw tail of a Parse message (count and OIDs).
pub fn parse(out: &mut BytesMut, name: &[u8], text: &[u8], parameter_types: &[u8]) {
    framed(out, b'P', |out| {
        put_cstr(out, name);
        put_cstr(out, text);
        out.put_slice(parameter_types);
    });
}

/// Close of a prepared statement.
pub fn close_statement(out: &mut BytesMut, name: &[u8]) {
    framed(out, b'C', |out| {
        out.put_u8(b'S');
        put_cstr(out, name);
    });
}

fn put_cstr(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text);
    out.put_u8(0);
}

/// A Parse message, read completely.
#[derive(Clone, Copy, Debug)]
pub struct ParseBody<'a> {
    /// Statement name, empty for the unnamed one.
    pub name: &'a [u8],
    /// Statement text.
    pub text: &'a [u8],
    /// Raw tail: number of parameter types, and their OIDs.
    pub parameter_types: &'a [u8],
}

impl<'a> ParseBody<'a> {
    /// Reads a Parse body.
    ///
    /// # Errors
    /// Anything but exactly the fields of the message.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let (name, text) = (reader.cstr()?, reader.cstr()?);
        let parameter_types = reader.rest();
        let count = reader.u16()?;
        reader.take(usize::from(count) * 4)?;
        reader.finish()?;
        Ok(Self { name, text, parameter_types })
    }
}

/// The single text of a Query body.
///
/// # Errors
/// A missing terminator, or bytes after it.
pub fn query_text(body: &[u8]) -> Result<&[u8], WireError> {
    let mut reader = Reader::new(body);
    let text = reader.cstr()?;
    reader.finish()?;
    Ok(text)
}

/// What a Describe or Close message speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement.
    Statement(&'a [u8]),
    /// A portal.
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    /// Reads a Describe or Close body.
    ///
    /// # Errors
    /// An unknown kind, or anything but exactly the fields.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let kind = reader.byte()?;
        let name = reader.cstr()?;
        reader.finish()?;
        match kind {
            b'S' => Ok(Self::Statement(name)),
            b'P' => Ok(Self::Portal(name)),
            _ => Err(WireError::BadField),
        }
    }
}

/// The portal of an Execute body.
///
/// # Errors
/// Anything but exactly the fields.
pub fn execute_portal(body: &[u8]) -> Result<&[u8], WireError> {
    let mut reader = Reader::new(body);
    let portal = reader.cstr()?;
    reader.i32()?;
    reader.finish()?;
    Ok(portal)
}

/// The number of rows a command tag reports: its last word, if that is a number.
pub fn tag_rows(tag: &[u8]) -> u64 {
    let last = tag.rsplit(|byte| *byte == b' ').next().unwrap_or(tag);
    std::str::from_utf8(last).ok().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Values of a DataRow in text format, bounded by the message; `None` for NULL.
///
/// # Errors
/// Anything but exactly the fields.
pub fn data_row(body: &[u8]) -> Result<Vec<Option<Vec<u8>>>, WireError> {
    let mut reader = Reader::new(body);
    let count = reader.u16()?;
    let mut values = Vec::new();
    for _ in 0..count {
        let declared = reader.i32()?;
        values.push(match usize::try_from(declared) {
            Ok(len) => Some(reader.take(len)?.to_vec()),
            Err(_) if declared == -1 => None,
            Err(_) => return Err(WireError::BadLength(declared)),
        });
    }
    reader.finish()?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out);
        out.to_vec()
    }

    #[test]
    fn frames_are_spelled_as_the_protocol_spells_them() {
        let cases: [(Vec<u8>, &[u8]); 10] = [
            (encoded(|out| ready_for_query(out, b'T')), b"Z\0\0\0\x05T"),
            (encoded(|out| query(out, b"SELECT")), b"Q\0\0\0\x0bSELECT\0"),
            (encoded(|out| parse(out, b"s", b"t", &[0, 0])), b"P\0\0\0\x0as\0t\0\0\0"),
            (encoded(|out| close_statement(out, b"s")), b"C\0\0\0\x07Ss\0"),
            (encoded(|out| backend_key_data(out, 7, b"abcd")), b"K\0\0\0\x0c\0\0\0\x07abcd"),
            (encoded(|out| authentication_sasl(out, &[b"X"])), b"R\0\0\0\x0b\0\0\0\x0aX\0\0"),
            (
                encoded(|out| negotiate_protocol_version(out, 2, &[b"_pq_.a"])),
                b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.a\0",
            ),
            (
                encoded(|out| cancel_request(out, 7, b"abcd")),
                b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd",
            ),
            (
                encoded(|out| startup(out, &with(&[("user", "u"), ("_pq_.x", "1")]))),
                b"\0\0\0\x10\0\x03\0\0user\0u\0\0",
            ),
            (encoded(|out| startup(out, &with(&[]))), b"\0\0\0\x09\0\x03\0\0\0"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected, "{}", found.escape_ascii());
        }
    }

    fn with(parameters: &[(&str, &str)]) -> Startup {
        let pair = |(name, value): &(&str, &str)| (name.as_bytes().into(), value.as_bytes().into());
        Startup { minor: 2, parameters: parameters.iter().map(pair).collect() }
    }

    #[test]
    fn a_body_is_read_to_its_end_or_not_at_all() {
        let parse = |body: &[u8]| ParseBody::read(body).err();
        assert_eq!(parse(b""), Some(WireError::MissingTerminator));
        assert_eq!(parse(b"s\0SELECT 1"), Some(WireError::MissingTerminator));
        assert_eq!(parse(b"s\0t\0\0"), Some(WireError::Truncated));
        assert_eq!(parse(b"s\0t\0\0\x01\0\0\0"), Some(WireError::Truncated));
        assert_eq!(parse(b"s\0t\0\xff\xff"), Some(WireError::Truncated));
        assert_eq!(parse(b"s\0t\0\0\0x"), Some(WireError::TrailingBytes));
        assert_eq!(parse(b"s\0t\0\0\x01\0\0\0\x17"), None);
    }

    #[test]
    fn a_name_ends_at_its_terminator() {
        assert_eq!(query_text(b"SELECT 1"), Err(WireError::MissingTerminator));
        assert_eq!(query_text(b"SELECT 1\0DROP\0"), Err(WireError::TrailingBytes));
        assert_eq!(query_text(b"\0"), Ok(&b""[..]));
        assert_eq!(Target::read(b""), Err(WireError::Truncated));
        assert_eq!(Target::read(b"Ss"), Err(WireError::MissingTerminator));
        assert_eq!(Target::read(b"Xs\0"), Err(WireError::BadField));
        assert_eq!(Target::read(b"Ps\0\0"), Err(WireError::TrailingBytes));
        assert_eq!(Target::read(b"Ps\0"), Ok(Target::Portal(b"s")));
        assert_eq!(execute_portal(b"p\0\0\0\0"), Err(WireError::Truncated));
        assert_eq!(execute_portal(b"p\0\xff\xff\xff\xff"), Ok(&b"p"[..]));
    }

    #[test]
    fn a_value_is_as_long_as_it_says() {
        assert_eq!(data_row(b"\0\x02\0\0\0\x01x"), Err(WireError::Truncated));
        assert_eq!(data_row(b"\0\x01\x7f\xff\xff\xffx"), Err(WireError::Truncated));
        assert_eq!(data_row(b"\0\x01\xff\xff\xff\xfe"), Err(WireError::BadLength(-2)));
        assert_eq!(data_row(b"\0\x01\xff\xff\xff\xff"), Ok(vec![None]));
    }

    #[test]
    fn rows_come_from_the_end_of_a_tag() {
        let cases: [(&[u8], u64); 7] = [
            (b"SELECT 5", 5),
            (b"INSERT 0 12", 12),
            (b"BEGIN", 0),
            (b"", 0),
            (b"FETCH 18446744073709551615", u64::MAX),
            (b"FETCH 18446744073709551616", 0),
            (b"COPY \xff", 0),
        ];
        for (tag, rows) in cases {
            assert_eq!(tag_rows(tag), rows, "{}", tag.escape_ascii());
        }
    }
}
