//! The server's end: a client proves to us that it has the password behind a verifier.
//!
//! The same work is done for a user that does not exist: the exchange runs on a made-up verifier
//! ([`Stored::MadeUp`]) and fails at its end, as it does for a wrong password.

use subtle::{Choice, ConstantTimeEq as _};

use super::message::{Attributes, decode, encode, nonce, text};
use super::{Keys, Learned, MECHANISM, MECHANISM_PLUS, ScramError, hmac, sha256, xor};
use crate::policy::ScramVerifier;

/// Whether the client can, or must, bind the exchange to the TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// It cannot: no TLS, or no such hash of our certificate, or the configuration is against it.
    None,
    /// Both mechanisms are offered; the hash of our certificate.
    Offered(Vec<u8>),
    /// Only the one with channel binding is offered.
    Required(Vec<u8>),
}

impl Binding {
    /// The mechanisms to offer, in the order of preference.
    pub fn mechanisms(&self) -> &'static [&'static [u8]] {
        match self {
            Self::None => &[MECHANISM],
            Self::Offered(_) => &[MECHANISM_PLUS, MECHANISM],
            Self::Required(_) => &[MECHANISM_PLUS],
        }
    }
}

/// A verifier, real or not.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Of the user that logs in.
    Real(ScramVerifier),
    /// For a user that has none: no proof holds against it.
    MadeUp(ScramVerifier),
}

impl Stored {
    /// The verifier of a user, or one made up for the user. It is made up in any case, so that it
    /// takes no longer where it is needed.
    pub fn or_made_up(
        found: Option<ScramVerifier>,
        (secret, user): (&[u8; 32], &str),
        like: (u32, usize),
    ) -> Self {
        let made_up = made_up(secret, user, like);
        found.map_or(Self::MadeUp(made_up), Self::Real)
    }

    /// What to check against.
    pub fn verifier(&self) -> &ScramVerifier {
        let (Self::Real(verifier) | Self::MadeUp(verifier)) = self;
        verifier
    }

    /// Whether the client has this key, in the same time for every answer.
    pub fn holds(&self, client_key: &[u8; 32]) -> bool {
        let real = match self {
            Self::Real(_) => Choice::from(1),
            Self::MadeUp(_) => Choice::from(0),
        };
        bool::from(sha256(client_key).ct_eq(&self.verifier().stored_key) & real)
    }
}

/// An exchange after its first two messages.
#[derive(Debug)]
pub struct Exchange {
    stored: Stored,
    /// What the client must send as `c=`, in base64.
    channel: String,
    /// Client's and our part.
    nonce: String,
    /// client-first-message-bare, server-first-message and a comma after each.
    signed: String,
}

impl Exchange {
    /// Reads client-first-message, gives server-first-message. `ours` is our part of the nonce.
    ///
    /// # Errors
    /// Anything but an allowed message for the mechanism the client chose.
    pub fn begin(
        binding: &Binding,
        (mechanism, message): (&[u8], &[u8]),
        stored: Stored,
        ours: &[u8; 18],
    ) -> Result<(Self, Vec<u8>), ScramError> {
        let (header, bare) = split_header(text(message)?)?;
        let bound = bound(binding, mechanism, header)?;
        let mut attributes = Attributes::of(bare);
        attributes.expect('n')?;
        let theirs = nonce(attributes.expect('r')?)?;
        attributes.finish()?;
        let nonce = format!("{theirs}{}", encode(ours));
        let verifier = stored.verifier();
        let first = format!("r={nonce},s={},i={}", encode(&verifier.salt), verifier.iterations);
        let signed = format!("{bare},{first},");
        let channel = encode(&[header.as_bytes(), bound].concat());
        Ok((Self { stored, channel, nonce, signed }, first.into_bytes()))
    }

    /// Reads client-final-message; gives server-final-message and what the proof gave away.
    ///
    /// # Errors
    /// Anything but the message with a proof that holds.
    pub fn finish(self, message: &[u8]) -> Result<(Vec<u8>, Learned), ScramError> {
        let message = text(message)?;
        let split = message.rsplit_once(",p=");
        let (unproven, proof) = split.ok_or(ScramError::Malformed("the proof is missing"))?;
        let mut attributes = Attributes::of(unproven);
        let (channel, nonce) = (attributes.expect('c')?, attributes.expect('r')?);
        attributes.finish()?;
        let proof: [u8; 32] = decode(proof)?
            .try_into()
            .map_err(|_wrong| ScramError::Malformed("the proof has a wrong length"))?;
        if nonce != self.nonce {
            return Err(ScramError::Malformed("the nonce is not the one of this exchange"));
        }
        if channel != self.channel {
            return Err(ScramError::ChannelBinding("the channel binding does not hold"));
        }
        let verifier = self.stored.verifier();
        let signed = [self.signed.as_bytes(), unproven.as_bytes()];
        let client_key = xor(&proof, &hmac(&verifier.stored_key, &signed));
        let holds = self.stored.holds(&client_key);
        let signature = encode(&hmac(&verifier.server_key, &signed));
        if !holds {
            return Err(ScramError::WrongProof);
        }
        let ScramVerifier { iterations, salt, stored_key: _, server_key } = verifier;
        let keys = Keys { client_key, server_key: *server_key };
        let learned = Learned { keys, salt: salt.clone(), iterations: *iterations };
        Ok((format!("v={signature}").into_bytes(), learned))
    }
}

/// The GS2 header with its commas, and the rest.
fn split_header(message: &str) -> Result<(&str, &str), ScramError> {
    let malformed = ScramError::Malformed("the GS2 header is malformed");
    let (flag, rest) = message.split_once(',').ok_or(malformed)?;
    let (identity, bare) = rest.split_once(',').ok_or(malformed)?;
    if !identity.is_empty() {
        return Err(match identity.strip_prefix("a=") {
            Some(_) => ScramError::NotSupported("an authorization identity"),
            None => malformed,
        });
    }
    let header = message.get(..flag.len() + 2).ok_or(malformed)?;
    Ok((header, bare))
}

/// What the exchange is bound to besides the header, if header and mechanism go together.
fn bound<'b>(binding: &'b Binding, mechanism: &[u8], header: &str) -> Result<&'b [u8], ScramError> {
    let plus = match mechanism {
        chosen if chosen == MECHANISM => false,
        chosen if chosen == MECHANISM_PLUS => true,
        _ => return Err(ScramError::Malformed("the mechanism was not offered")),
    };
    let data = match (binding, plus) {
        (Binding::None, false) => None,
        (Binding::Offered(data) | Binding::Required(data), true) => Some(data),
        (Binding::Offered(_), false) if header == "y,," => {
            return Err(ScramError::ChannelBinding(
                "the client supports channel binding and was told that we do not",
            ));
        }
        (Binding::Offered(_), false) => None,
        (Binding::None, true) | (Binding::Required(_), false) => {
            return Err(ScramError::Malformed("the mechanism was not offered"));
        }
    };
    match (data, header) {
        (None, "n,," | "y,,") => Ok(&[]),
        (Some(data), "p=tls-server-end-point,,") => Ok(data),
        (Some(_), other) if other.starts_with("p=") => {
            Err(ScramError::ChannelBinding("unsupported channel binding type"))
        }
        (None | Some(_), _) => {
            Err(ScramError::Malformed("the GS2 header does not go with the mechanism"))
        }
    }
}

/// A verifier for a user that has none: always the same for one user, as a real one is, with the
/// rounds and the salt length that others have.
pub fn made_up(
    secret: &[u8; 32],
    user: &str,
    (iterations, salt_bytes): (u32, usize),
) -> ScramVerifier {
    let part = |what: &[u8]| hmac(secret, &[what, &[0], user.as_bytes()]);
    let blocks = (0_u8..=u8::MAX).flat_map(|number| part(&[b's', number]));
    ScramVerifier {
        iterations,
        salt: blocks.take(salt_bytes).collect(),
        stored_key: part(b"stored key"),
        server_key: part(b"server key"),
    }
}
