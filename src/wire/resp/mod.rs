//! The protocol of Redis and its relatives, versions 2 and 3 (RESP2, RESP3).
//!
//! All scanners are resumable: a call looks at bytes it has not seen, and what it needs to go
//! on is a few numbers. None recurses, and none reserves memory for what a peer announces.

pub mod element;
pub mod encode;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod inline;
pub mod reply;
pub mod request;
#[cfg(test)]
mod tests;

/// Version of the protocol, of which a connection has one at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// What every connection begins with.
    #[default]
    Resp2,
    /// With types for what was written as text before, and pushes between replies.
    Resp3,
}

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

/// A value that is passed on or dropped as it arrives, and the line end behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Bytes of the value still to come.
    value: usize,
    /// Bytes of the line end still to come.
    closing: u8,
}

impl Tail {
    /// A value of this length of which nothing has arrived.
    pub fn of(value: usize) -> Self {
        Self { value, closing: 2 }
    }

    /// Bytes of the value still to come.
    pub fn value(self) -> usize {
        self.value
    }

    /// Whether all of it has been taken.
    pub fn is_over(self) -> bool {
        self.value == 0 && self.closing == 0
    }

    /// How many of these bytes are its own; `None` if it does not end as a line does.
    pub fn take(&mut self, buf: &[u8]) -> Option<usize> {
        let mut taken = self.value.min(buf.len());
        self.value -= taken;
        while let (0, 1 | 2, Some(byte)) = (self.value, self.closing, buf.get(taken)) {
            let expected = if self.closing == 2 { b'\r' } else { b'\n' };
            if *byte != expected {
                return None;
            }
            self.closing -= 1;
            taken += 1;
        }
        Some(taken)
    }
}
