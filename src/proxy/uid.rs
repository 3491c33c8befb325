//! Unique ids and secrets of sessions, from the random source of the TLS provider.

use anyhow::Context as _;

use crate::event::Now;
use crate::session::SECRET_BYTES;

/// Fresh randomness of one session.
#[derive(Clone, Debug)]
pub(crate) struct Birth {
    /// 26 characters, ordered by time (a ULID): 48 bits of milliseconds, 80 random bits.
    pub(crate) uid: String,
    /// For the session's cancel key.
    pub(crate) secret: [u8; SECRET_BYTES],
}

impl Birth {
    /// A number of this session's own, evenly spread.
    pub(crate) fn lot(&self) -> u8 {
        self.uid.bytes().fold(0, |lot: u8, byte| lot.wrapping_mul(31).wrapping_add(byte))
    }

    /// Draws.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub(crate) fn draw(now: Now) -> anyhow::Result<Self> {
        let (mut random, mut secret) = ([0u8; 10], [0u8; SECRET_BYTES]);
        let system = rustls::crypto::ring::default_provider().secure_random;
        system
            .fill(&mut random)
            .and_then(|()| system.fill(&mut secret))
            .map_err(|error| anyhow::anyhow!("the system's random source failed: {error:?}"))
            .context("draw a session id")?;
        let [a, b, c, d, e, f, g, h, i, j] = random;
        let entropy = [0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h, i, j];
        let bits = (u128::from(now.wall_us / 1000) << 80) | u128::from_be_bytes(entropy);
        Ok(Self { uid: crockford(bits), secret })
    }
}

/// Crockford's base 32, most significant digit first.
fn crockford(bits: u128) -> String {
    (0..26u32)
        .rev()
        .map(|digit| {
            let value = usize::try_from((bits >> (digit * 5)) & 31).unwrap_or_default();
            ALPHABET.get(value).copied().map_or('0', char::from)
        })
        .collect()
}

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ids_sort_later_and_none_repeats() {
        let at = |ms: u64| Birth::draw(Now { wall_us: ms * 1000, mono_us: 0 }).unwrap();
        let (first, twin, later) =
            (at(1_700_000_000_000), at(1_700_000_000_000), at(1_900_000_000_000));
        assert_eq!(first.uid.len(), 26);
        assert!(first.uid < later.uid);
        assert_ne!(first.uid, twin.uid);
        assert_eq!(crockford(0), "0".repeat(26));
        assert_eq!(crockford(u128::MAX), format!("7{}", "Z".repeat(25)));
    }
}
