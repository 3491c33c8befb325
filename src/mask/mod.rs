//! Masks over values: bytes in, bytes out, whatever protocol brings them.
//!
//! The functions give what the same function gives on a text column of a database, so that one
//! value reads alike wherever it is shown. Nothing here raises an error on a value: an error would
//! tell about it. A value a function does not fit (no number for `bucket`, bytes that are no text)
//! becomes [`HIDDEN`], which is there, tells nothing, and is no NULL: whether something *is* there
//! is hidden by `nullify` alone.
//!
//! Deliberately absent: noise and random values, which repeated reads average out.

#![deny(clippy::wildcard_enum_match_arm)]

use std::fmt;

use crate::name::RuleId;
use crate::obligation::{JsonPath, MaskFn};

mod date;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod json;
mod keyed;
mod number;
#[cfg(test)]
mod tests;
mod text;

#[cfg(any(test, fuzzing))]
pub use fuzz::fuzz_mask;
pub use keyed::MaskKey;

/// What stands for a value that its function does not fit.
pub const HIDDEN: &[u8] = b"****";

/// Carries masks out. Holds the key of the keyed ones, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Masker {
    key: Option<keyed::Derived>,
}

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Masked {
    /// The masked value was appended.
    Value,
    /// Nothing was appended; there is no value to show.
    Null,
}

/// Within which equal values have equal tokens.
///
/// A class names a kind of data, whichever column, key or store it was found in: that is what
/// makes the same person's token the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain(Box<[u8]>);

impl Domain {
    /// The domain of a mask: the class by which the value was found, or the rule's own.
    pub fn of(class: Option<&str>, rule: &RuleId) -> Self {
        let (kind, name) = class.map_or((b'r', &*rule.0), |class| (b'c', class));
        // The length keeps a domain and the value behind it apart.
        let length = u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes();
        Self([&[kind], &length[..], name.as_bytes()].concat().into())
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A function with the domain it is keyed by.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// What to do.
    pub function: &'a MaskFn,
    /// Within which tokens are equal.
    pub domain: &'a Domain,
}

/// Why a mask cannot be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotMask {
    /// The function needs a key and the configuration has none.
    NoKey(&'static str),
}

impl fmt::Display for CannotMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey(function) => {
                write!(f, "{function} needs a key; this proxy has none configured")
            }
        }
    }
}

impl Masker {
    /// With the key that keyed masks are made with.
    pub fn with_key(key: &MaskKey) -> Self {
        Self { key: Some(keyed::Derived::new(key)) }
    }

    /// Whether there is a key for masks that need one.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether the function can be carried out.
    ///
    /// # Errors
    /// Why not.
    pub fn can(&self, function: &MaskFn) -> Result<(), CannotMask> {
        if function.needs_key() && self.key.is_none() {
            return Err(CannotMask::NoKey(function.name()));
        }
        Ok(())
    }

    /// Appends the masked form of a value. A function that cannot be carried out hides it.
    pub fn apply(
        &self,
        function: &MaskFn,
        domain: &Domain,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Masked {
        let fits = match function {
            MaskFn::Nullify => return Masked::Null,
            MaskFn::Constant(constant) => {
                out.extend_from_slice(constant.as_bytes());
                Some(())
            }
            MaskFn::HashKeyed => self.key.as_ref().map(|key| key.hash(domain, value, out)),
            MaskFn::TokenHmac(token) => {
                self.key.as_ref().map(|key| key.token(token, domain, value, out))
            }
            MaskFn::FpeFf1(alphabet) => {
                self.key.as_ref().and_then(|key| key.encrypt(*alphabet, domain, value, out))
            }
            MaskFn::Partial { .. }
            | MaskFn::PartialEmail { .. }
            | MaskFn::PanBinLast4 { .. }
            | MaskFn::Bucket { .. }
            | MaskFn::TruncateDate(_) => {
                std::str::from_utf8(value).ok().and_then(|value| of_text(function, value, out))
            }
        };
        if fits.is_none() {
            out.extend_from_slice(HIDDEN);
        }
        Masked::Value
    }

    /// Appends a JSON text in which what the path names is masked; everything else stays byte for
    /// byte. A text that is not JSON, too deep or too long is masked whole.
    pub fn apply_at(
        &self,
        path: &JsonPath,
        mask: Mask<'_>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Masked {
        json::apply(self, path, mask, value, out)
    }
}

/// The functions that read a text; `None`, with nothing appended, if it is not of their kind.
fn of_text(function: &MaskFn, value: &str, out: &mut Vec<u8>) -> Option<()> {
    match function {
        MaskFn::Partial { prefix, suffix, fill } => {
            text::partial(value, (*prefix, *suffix), *fill, out);
            Some(())
        }
        MaskFn::PartialEmail { keep_domain: true } => {
            text::email(value, text::Shown::Domain, out);
            Some(())
        }
        MaskFn::PartialEmail { keep_domain: false } => {
            text::email(value, text::Shown::LastLabel, out);
            Some(())
        }
        MaskFn::PanBinLast4 { bin } => {
            text::pan(value, *bin, out);
            Some(())
        }
        MaskFn::Bucket { width, offset } => number::bucket(value, *width, *offset, out),
        MaskFn::TruncateDate(unit) => date::truncate(value, *unit, out),
        MaskFn::FpeFf1(_)
        | MaskFn::HashKeyed
        | MaskFn::TokenHmac(_)
        | MaskFn::Constant(_)
        | MaskFn::Nullify => None,
    }
}

/// The text, if it is decimal digits and nothing else.
fn digits(text: &str) -> Option<&str> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then_some(text)
}
