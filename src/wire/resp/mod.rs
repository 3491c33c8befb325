//! The protocol of Redis and its relatives, versions 2 and 3 (RESP2, RESP3).
//!
//! Both scanners are resumable: a call looks at bytes it has not seen, and what it needs to go
//! on is a few numbers. Neither recurses, and neither reserves memory for what a peer announces.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod inline;
pub mod reply;
pub mod request;
#[cfg(test)]
mod tests;

/// A decimal number as the server reads it: no plus, no leading zero, nothing around it.
fn number(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] => return (!negative).then_some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(*digit - b'0');
        // Counted below zero, where there is one number more.
        value = value.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// Longest line of a request or of a reply's head, as in the server.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
