//! Stored proofs of who an identity is: values from which the secret itself cannot be computed.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What is stored instead of a password for SCRAM with SHA-256 (RFC 5803), in the spelling of
/// server catalogs: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    /// Rounds of the key derivation, at least one.
    pub iterations: u32,
    /// Salt, at least one byte.
    pub salt: Vec<u8>,
    /// Hash of the client's key.
    pub stored_key: [u8; 32],
    /// The server's key.
    pub server_key: [u8; 32],
}

/// A text that is no verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAVerifier;

impl FromStr for ScramVerifier {
    type Err = NotAVerifier;

    fn from_str(text: &str) -> Result<Self, NotAVerifier> {
        let parts = || {
            let rest = text.strip_prefix("SCRAM-SHA-256$")?;
            let (derivation, keys) = rest.split_once('$')?;
            let (iterations, salt) = derivation.split_once(':')?;
            let (stored_key, server_key) = keys.split_once(':')?;
            // `parse` takes a plus sign.
            let digits = iterations.bytes().all(|byte| byte.is_ascii_digit());
            let iterations = iterations.parse().ok().filter(|n: &u32| digits && *n > 0)?;
            let salt = STANDARD.decode(salt).ok().filter(|salt| fits(salt))?;
            let key = |text: &str| <[u8; 32]>::try_from(STANDARD.decode(text).ok()?).ok();
            let (stored_key, server_key) = (key(stored_key)?, key(server_key)?);
            Some(Self { iterations, salt, stored_key, server_key })
        };
        parts().ok_or(NotAVerifier)
    }
}

fn fits(salt: &[u8]) -> bool {
    (1..=ScramVerifier::SALT_BYTES_MAX).contains(&salt.len())
}

impl ScramVerifier {
    /// Longest salt: some services use 32 bytes, servers 16.
    pub const SALT_BYTES_MAX: usize = 256;
}

impl fmt::Display for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iterations, salt, stored_key, server_key } = self;
        let [salt, stored, server] =
            [&salt[..], stored_key, server_key].map(|bytes| STANDARD.encode(bytes));
        write!(f, "SCRAM-SHA-256${iterations}:{salt}${stored}:{server}")
    }
}

impl fmt::Debug for ScramVerifier {
    /// Leaves the keys out: with them passwords can be guessed without asking anybody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramVerifier")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_read_exactly() {
        let keys = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let good = format!("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${keys}");
        let verifier: ScramVerifier = good.parse().unwrap();
        assert_eq!((verifier.iterations, verifier.salt.len()), (4096, 16));
        assert_eq!(verifier.to_string(), good);
        assert!(!format!("{verifier:?}").contains("WG5d"));
        for (from, to) in [
            ("SCRAM-SHA-256$", "SCRAM-SHA-1$"),
            ("SCRAM-SHA-256$", " SCRAM-SHA-256$"),
            ("4096", "0"),
            ("4096", "+4096"),
            ("4096", "4294967296"),
            ("4096", ""),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "W22ZaJ0SNY7soEsUEjb6gQ"),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "W22ZaJ0SNY7soEsUEjb6gR=="),
            ("tbsT4qY=:", "tbsT4qY=AAAA:"),
            ("tbsT4qY=:", "tbsT4qY=$"),
            ("PwDl2dU=", "PwDl2dU=\n"),
            ("PwDl2dU=", "PwDl2dU=:"),
        ] {
            assert!(good.contains(from));
            assert_eq!(
                good.replacen(from, to, 1).parse(),
                Err::<ScramVerifier, _>(NotAVerifier),
                "{to}"
            );
        }
    }
}
