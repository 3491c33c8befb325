//! `bucket` of numbers written as text.

use std::io::Write as _;

use super::digits;

/// Most digits before the point: what is computed with has room for twice as much.
const DIGITS_MAX: usize = 30;

/// Lower edge of the bucket, a whole number. `None` if the text is no plain decimal number:
/// exponents, spaces and signs before a plus are other people's notations.
pub(super) fn bucket(value: &str, width: u64, offset: i64, out: &mut Vec<u8>) -> Option<()> {
    let floor = floor(value)?;
    let (width, offset) = (i128::from(width), i128::from(offset));
    let within = floor.checked_sub(offset)?.checked_rem_euclid(width)?;
    let edge = floor.checked_sub(within)?;
    write!(out, "{edge}").ok()
}

/// The greatest whole number that is not above it.
fn floor(value: &str) -> Option<i128> {
    let (negative, unsigned) = match value.strip_prefix('-') {
        Some(unsigned) => (true, unsigned),
        None => (false, value.strip_prefix('+').unwrap_or(value)),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    if whole.len() > DIGITS_MAX {
        return None;
    }
    let (whole, fraction) = (digits(whole)?, digits(fraction)?);
    let whole: i128 = whole.parse().ok()?;
    if !negative {
        return Some(whole);
    }
    let below = i128::from(fraction.bytes().any(|byte| byte != b'0'));
    whole.checked_neg()?.checked_sub(below)
}
