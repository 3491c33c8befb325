//! Which masks a value owes, and carrying them out.

use std::sync::Arc;

use crate::mask::{Domain, HIDDEN, Mask, Masked, Masker};
use crate::name::Glob;
use crate::obligation::{JsonPath, MaskFn, ValueMask};

/// The masks of a key, ready for use: made once for each plan, shared by every reply under it.
#[derive(Clone, Debug)]
pub struct KeyMasks(Arc<[Ready]>);

/// One mask.
#[derive(Debug)]
pub(super) struct Ready {
    fields: Option<Arc<[Glob]>>,
    path: Option<JsonPath>,
    function: MaskFn,
    /// By class or rule, so that a person has one token in every store.
    domain: Domain,
}

impl KeyMasks {
    /// Of these masks; none at all is a key that owes nothing.
    pub fn new(masks: &[ValueMask]) -> Self {
        let ready = masks.iter().map(|mask| {
            let ValueMask { pattern: _, fields, path, function, class, rule } = mask;
            Ready {
                fields: fields.clone(),
                path: path.clone(),
                function: function.clone(),
                domain: Domain::of(class.as_deref(), rule),
            }
        });
        let mut ready: Vec<_> = ready.collect();
        ready.sort_by(|left, right| left.function.cmp(&right.function));
        Self(ready.into())
    }

    /// Whether a key with them owes nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Weakest first.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Ready> {
        self.0.iter()
    }
}

/// The field a value is in.
#[derive(Clone, Copy, Debug)]
pub(super) enum FieldName<'a> {
    /// In none: the key has no fields, or the value is all of them.
    None,
    /// In one, and nobody can tell in which.
    Unknown,
    Named(&'a [u8]),
}

impl FieldName<'_> {
    /// Whether a mask on these fields is for it.
    fn is_of(self, fields: &[Glob]) -> bool {
        match self {
            Self::None => false,
            Self::Unknown => true,
            Self::Named(name) => match std::str::from_utf8(name) {
                // `?` is one byte elsewhere and one character to who wrote it: either will do.
                Ok(text) => {
                    fields.iter().any(|field| field.matches_bytes(name) || field.matches(text))
                }
                // What is no text may be what a pattern of characters means, in another encoding.
                Err(_) => true,
            },
        }
    }
}

/// What is done to one value.
#[derive(Debug)]
pub(super) enum Program<'a> {
    Nothing,
    /// One mask over all of it.
    Whole(&'a Ready),
    /// Masks inside of it, weakest first: what two of them name is as the stronger one leaves it.
    Paths(Vec<&'a Ready>),
}

impl<'a> Program<'a> {
    /// What these masks do to a value of this field.
    pub(super) fn new(masks: impl Iterator<Item = &'a Ready>, field: FieldName<'_>) -> Self {
        let mut whole: Option<&Ready> = None;
        let mut paths: Vec<&Ready> = Vec::new();
        for mask in masks {
            let Ready { fields, path, function, domain: _ } = mask;
            if fields.as_ref().is_some_and(|fields| !field.is_of(fields)) {
                continue;
            }
            match path {
                Some(_) => paths.push(mask),
                None if whole.is_none_or(|other| other.function < *function) => whole = Some(mask),
                None => {}
            }
        }
        match whole {
            Some(mask) => Self::Whole(mask),
            None if paths.is_empty() => Self::Nothing,
            None => Self::Paths(strongest_by_path(paths)),
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Whether the result does not depend on the value.
    pub(super) fn is_constant(&self) -> bool {
        match self {
            Self::Whole(mask) => is_constant(&mask.function),
            Self::Nothing | Self::Paths(_) => false,
        }
    }

    /// The masked form of a value replaces what is in `out`.
    pub(super) fn apply(
        &self,
        masker: &Masker,
        value: Value<'_>,
        out: &mut Vec<u8>,
        spare: &mut Vec<u8>,
    ) -> Masked {
        out.clear();
        match (self, value) {
            (Self::Whole(mask), Value::Text(text)) => {
                masker.apply(&mask.function, &mask.domain, text, out)
            }
            (Self::Whole(mask), Value::Untold) if is_constant(&mask.function) => {
                masker.apply(&mask.function, &mask.domain, b"", out)
            }
            (Self::Paths(masks), Value::Text(text)) => {
                out.extend_from_slice(text);
                for mask in masks {
                    let Ready { path: Some(path), function, domain, .. } = mask else { continue };
                    std::mem::swap(out, spare);
                    out.clear();
                    let mask = Mask { function, domain };
                    let Masked::Value = masker.apply_at(path, mask, spare, out) else {
                        return Masked::Null;
                    };
                }
                Masked::Value
            }
            (Self::Nothing | Self::Whole(_) | Self::Paths(_), Value::Text(_) | Value::Untold) => {
                out.extend_from_slice(HIDDEN);
                Masked::Value
            }
        }
    }
}

/// A value to be masked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Text(&'a [u8]),
    /// One that is too long to be held, or of a type with two values only, where a token tells as much
    /// as the value.
    Untold,
}

/// Of masks on one path only the strongest.
fn strongest_by_path(mut masks: Vec<&Ready>) -> Vec<&Ready> {
    masks.sort_by(|left, right| (&left.path, &left.function).cmp(&(&right.path, &right.function)));
    masks.reverse();
    masks.dedup_by(|left, right| left.path == right.path);
    masks.sort_by(|left, right| left.function.cmp(&right.function));
    masks
}

fn is_constant(function: &MaskFn) -> bool {
    match function {
        MaskFn::Constant(_) | MaskFn::Nullify => true,
        MaskFn::TruncateDate(_)
        | MaskFn::Bucket { .. }
        | MaskFn::Partial { .. }
        | MaskFn::PartialEmail { .. }
        | MaskFn::PanBinLast4 { .. }
        | MaskFn::FpeFf1(_)
        | MaskFn::HashKeyed
        | MaskFn::TokenHmac(_) => false,
    }
}
