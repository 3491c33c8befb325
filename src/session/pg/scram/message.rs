//! Reading the attributes of a message, `x=value` with commas between them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{MESSAGE_BYTES_MAX, ScramError};

/// The attributes of one message, read from its front.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a> {
    rest: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    /// Of a whole message, or of what is left of one.
    pub(super) fn of(text: &'a str) -> Self {
        Self { rest: Some(text) }
    }

    /// The value of the next attribute, which must be this one.
    pub(super) fn expect(&mut self, name: char) -> Result<&'a str, ScramError> {
        let (found, value) =
            self.next()?.ok_or(ScramError::Malformed("an attribute is missing"))?;
        match found {
            found if found == name => Ok(value),
            'm' => Err(ScramError::NotSupported("a mandatory extension")),
            _ => Err(ScramError::Malformed("attributes are not in their order")),
        }
    }

    /// The next attribute, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<(char, &'a str)>, ScramError> {
        let Some(rest) = self.rest else { return Ok(None) };
        let (attribute, rest) = match rest.split_once(',') {
            Some((attribute, rest)) => (attribute, Some(rest)),
            None => (rest, None),
        };
        self.rest = rest;
        let mut letters = attribute.chars();
        match (letters.next(), letters.next()) {
            (Some(name), Some('=')) if name.is_ascii_alphabetic() => {
                Ok(Some((name, letters.as_str())))
            }
            _ => Err(ScramError::Malformed("an attribute is not a letter, `=` and a value")),
        }
    }

    /// Passes over extensions; none may be left that must be understood.
    pub(super) fn finish(mut self) -> Result<(), ScramError> {
        while let Some((name, _)) = self.next()? {
            if name == 'm' {
                return Err(ScramError::NotSupported("a mandatory extension"));
            }
        }
        Ok(())
    }
}

/// A message as text: short, without zero bytes, UTF-8.
pub(super) fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed("the message is too long"));
    }
    match std::str::from_utf8(message) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) | Err(_) => Err(ScramError::Malformed("the message is no text")),
    }
}

/// A nonce: printable, without a comma (which ended it already), not empty.
pub(super) fn nonce(value: &str) -> Result<&str, ScramError> {
    let printable = !value.is_empty() && value.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    if printable { Ok(value) } else { Err(ScramError::Malformed("the nonce is not printable")) }
}

pub(super) fn decode(value: &str) -> Result<Vec<u8>, ScramError> {
    STANDARD.decode(value).map_err(|_error| ScramError::Malformed("a value is not base64"))
}

pub(super) fn encode(value: &[u8]) -> String {
    STANDARD.encode(value)
}
