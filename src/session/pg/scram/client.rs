//! The client's end: we prove to a server that we have a password, and it proves that it knows us.

use subtle::ConstantTimeEq as _;

use super::message::{Attributes, decode, encode, nonce, text};
use super::{Keys, MECHANISM, MECHANISM_PLUS, ScramError, hmac, sha256, xor};
use crate::policy::ScramVerifier;

/// What the TLS connection to the server allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding<'a> {
    /// No TLS, or no such hash of the server's certificate.
    Impossible,
    /// The server offers it too; the hash of its certificate.
    Used(&'a [u8]),
    /// The server does not offer it. It is told that we could: if somebody took the offer out,
    /// it notices.
    NotOffered,
}

/// After client-first-message.
#[derive(Debug)]
pub struct Opening {
    header: &'static str,
    bound: Vec<u8>,
    /// Our part of the nonce.
    ours: String,
    /// client-first-message-bare.
    bare: String,
}

/// After server-first-message.
#[derive(Debug)]
pub struct Challenged {
    /// What the keys are derived with.
    pub salt: Vec<u8>,
    /// How many rounds.
    pub iterations: u32,
    /// client-final-message up to the proof.
    unproven: String,
    /// What is signed.
    signed: String,
}

/// After client-final-message.
#[derive(Debug)]
pub struct Closing {
    signature: [u8; 32],
}

impl Opening {
    /// Gives the mechanism to choose and client-first-message.
    pub fn new(binding: Binding<'_>, random: &[u8; 18]) -> (Self, &'static [u8], Vec<u8>) {
        let (mechanism, header, bound) = match binding {
            Binding::Impossible => (MECHANISM, "n,,", &[][..]),
            Binding::NotOffered => (MECHANISM, "y,,", &[][..]),
            Binding::Used(bound) => (MECHANISM_PLUS, "p=tls-server-end-point,,", bound),
        };
        let ours = encode(random);
        // PostgreSQL goes by the user of the StartupMessage; libpq sends an empty name too.
        let bare = format!("n=,r={ours}");
        let message = format!("{header}{bare}").into_bytes();
        (Self { header, bound: bound.to_vec(), ours, bare }, mechanism, message)
    }

    /// Reads server-first-message. More than `iterations_max` rounds are not done for any server.
    ///
    /// # Errors
    /// Anything but the message with a count within bounds.
    pub fn challenged(self, message: &[u8], iterations_max: u32) -> Result<Challenged, ScramError> {
        let message = text(message)?;
        let mut attributes = Attributes::of(message);
        let nonce = nonce(attributes.expect('r')?)?;
        let salt = decode(attributes.expect('s')?)?;
        let iterations = attributes.expect('i')?;
        attributes.finish()?;
        if nonce.strip_prefix(self.ours.as_str()).is_none_or(str::is_empty) {
            return Err(ScramError::Malformed("the nonce does not begin with ours"));
        }
        if !(1..=ScramVerifier::SALT_BYTES_MAX).contains(&salt.len()) {
            return Err(ScramError::Malformed("the salt is empty or too long"));
        }
        let digits = !iterations.is_empty() && iterations.bytes().all(|b| b.is_ascii_digit());
        if !digits {
            return Err(ScramError::Malformed("the iteration count is no number"));
        }
        // A number too long for its type is too large.
        let iterations = iterations.parse().map_err(|_error| ScramError::Iterations)?;
        if !(1..=iterations_max).contains(&iterations) {
            return Err(ScramError::Iterations);
        }
        let channel = encode(&[self.header.as_bytes(), &self.bound].concat());
        let unproven = format!("c={channel},r={nonce}");
        let signed = format!("{},{message},{unproven}", self.bare);
        Ok(Challenged { salt, iterations, unproven, signed })
    }
}

impl Challenged {
    /// Gives client-final-message.
    pub fn prove(self, keys: &Keys) -> (Closing, Vec<u8>) {
        let signed = [self.signed.as_bytes()];
        let signature = hmac(&sha256(&keys.client_key), &signed);
        let proof = encode(&xor(&keys.client_key, &signature));
        let message = format!("{},p={proof}", self.unproven).into_bytes();
        (Closing { signature: hmac(&keys.server_key, &signed) }, message)
    }
}

impl Closing {
    /// Reads server-final-message.
    ///
    /// # Errors
    /// Anything but the message with the signature of a server that knows our verifier.
    pub fn verify(self, message: &[u8]) -> Result<(), ScramError> {
        let mut attributes = Attributes::of(text(message)?);
        match attributes.next()? {
            Some(('v', signature)) => {
                attributes.finish()?;
                let holds = decode(signature)?.ct_eq(&self.signature);
                if bool::from(holds) { Ok(()) } else { Err(ScramError::WrongProof) }
            }
            Some(('e', _)) => Err(ScramError::WrongProof),
            Some(_) | None => Err(ScramError::Malformed("the signature is missing")),
        }
    }
}
