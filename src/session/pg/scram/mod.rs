//! SCRAM with SHA-256 (RFC 5802, RFC 7677) and its channel binding (RFC 5929), both ends of it.
//!
//! `server` is what a client of ours speaks to, `client` what our own logins at a server use.
//! Messages come from peers that may be hostile on either side: every message has a longest length,
//! attributes are read in their one allowed order, base64 is strict, and whatever is not exactly a
//! message of the exchange is an error. Nothing here does I/O, waits, or takes long: the one slow
//! function, [`salted_password`], is called by whoever can afford it.
//!
//! Deliberately absent: SHA-1, authorization identities, extensions, and the offer to try again.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::policy::ScramVerifier;

pub mod client;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod message;
pub mod server;
#[cfg(test)]
mod tests;

/// Name of the mechanism.
pub const MECHANISM: &[u8] = b"SCRAM-SHA-256";

/// Name of the mechanism with channel binding.
pub const MECHANISM_PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";

/// Longest message of an exchange we read (PostgreSQL's `PG_MAX_SASL_MESSAGE_LENGTH`).
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// Why an exchange fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramError {
    /// Not a message of the exchange; the word says what about it.
    Malformed(&'static str),
    /// An extension or an authorization identity that we do not do.
    NotSupported(&'static str),
    /// Channel binding was given up although both could have it, or does not hold.
    ChannelBinding(&'static str),
    /// The iteration count is outside of what we do.
    Iterations,
    /// The proof, or the signature, does not hold.
    WrongProof,
}

/// The keys derived from a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// What a client proves to have.
    pub client_key: [u8; 32],
    /// What a server proves to have.
    pub server_key: [u8; 32],
}

impl Keys {
    /// The keys of a salted password.
    pub fn of(salted_password: &[u8; 32]) -> Self {
        Self {
            client_key: hmac(salted_password, &[b"Client Key"]),
            server_key: hmac(salted_password, &[b"Server Key"]),
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

/// What an exchange gives away to the end that has the verifier: the keys, and what they were
/// derived with. They hold wherever the same verifier is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The keys.
    pub keys: Keys,
    /// The salt of the verifier.
    pub salt: Vec<u8>,
    /// Its rounds.
    pub iterations: u32,
}

/// What is to be stored for a password.
pub fn verifier(password: &[u8], salt: Vec<u8>, iterations: u32) -> ScramVerifier {
    let Keys { client_key, server_key } = Keys::of(&salted_password(password, &salt, iterations));
    ScramVerifier { iterations, salt, stored_key: sha256(&client_key), server_key }
}

/// `Hi` of RFC 5802: PBKDF2 with HMAC-SHA-256 and one block of output. Takes `iterations` rounds:
/// some milliseconds for 4096.
pub fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let keyed = keyed(&prepared(password));
    let round = |input: &[&[u8]]| -> [u8; 32] {
        let mut mac = keyed.clone();
        input.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    };
    let mut last = round(&[salt, &1_u32.to_be_bytes()]);
    let mut sum = last;
    for _ in 1..iterations {
        last = round(&[&last]);
        sum.iter_mut().zip(last).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

/// A password as both ends agree to spell it: by SASLprep, or as it is where that does not apply.
fn prepared(password: &[u8]) -> Cow<'_, [u8]> {
    let text = std::str::from_utf8(password).ok();
    match text.and_then(|text| stringprep::saslprep(text).ok()) {
        Some(text) if !text.is_empty() => match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
        Some(_) | None => Cow::Borrowed(password),
    }
}

/// HMAC-SHA-256 over the parts in order.
pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // A key of exactly one block cannot be of a wrong length; shorter ones are filled up with
    // zeros and longer ones hashed, as RFC 2104 defines it.
    let mut block = [0; 64];
    let hashed;
    let key = if key.len() > block.len() {
        hashed = sha256(key);
        &hashed[..]
    } else {
        key
    };
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    Hmac::new(&block.into())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let mut result = *a;
    result.iter_mut().zip(b).for_each(|(to, from)| *to ^= from);
    result
}
