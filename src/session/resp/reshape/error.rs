//! Errors in replies.

use bytes::BytesMut;

use crate::event::StoreError;
use crate::wire::resp::encode;

/// What is shown of an error's text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Text<'a> {
    /// All but this prefix of names of keys, wherever it stands.
    Without(&'a [u8]),
    /// Its first word, if it is one of the server's own.
    Word,
}

/// Behind the first word, where the server's text is not shown.
pub(super) const WITHHELD: &str = "the text of this error is withheld because it can hold values";

impl Text<'_> {
    /// Appends an error line for this text, which is given without the byte of its type.
    pub(super) fn write(self, text: &[u8], out: &mut BytesMut) {
        match self {
            Self::Without(prefix) => encode::error(out, &without(text, prefix)),
            Self::Word => encode::error(out, word(text).as_bytes()),
        }
    }
}

fn word(text: &[u8]) -> String {
    let word = match StoreError::of(text).word() {
        "OTHER" => "ERR",
        word => word,
    };
    format!("{word} {WITHHELD}")
}

fn without(text: &[u8], prefix: &[u8]) -> Vec<u8> {
    let (mut shown, mut rest) = (Vec::new(), text);
    while let Some((first, behind)) = rest.split_first() {
        match rest.strip_prefix(prefix).filter(|_| !prefix.is_empty()) {
            Some(behind) => rest = behind,
            None => {
                shown.push(*first);
                rest = behind;
            }
        }
    }
    shown
}
