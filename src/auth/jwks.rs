//! Keys that signatures of tokens are checked with (RFC 7517), and the check itself, by ring.
//!
//! A key knows which algorithms it fits, by its kind: an RSA key can never be taken for the secret
//! of an HMAC, whatever a token's header says. Secret keys never come from a key set, only from a
//! file of ours. Keys of unknown kinds are left out, as the standard asks, so that a publisher can
//! add new ones beside the old.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{hmac, signature};
use serde_json::{Map, Value};

use super::json;

/// Signature algorithms. `none` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS#1 v1.5 with SHA-512.
    Rs512,
    /// RSA-PSS with SHA-256.
    Ps256,
    /// RSA-PSS with SHA-384.
    Ps384,
    /// RSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

/// A set of keys.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// `kid`.
    id: Option<String>,
    /// The only algorithm it is for, where it says so.
    only: Option<Algorithm>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa(signature::RsaPublicKeyComponents<Vec<u8>>),
    /// Uncompressed point.
    P256(Vec<u8>),
    /// Uncompressed point.
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
    Hmac(HmacSecret),
}

/// A shared secret.
struct HmacSecret(Vec<u8>);

/// Why a key set is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKeySet {
    /// Longer than [`KEY_SET_BYTES_MAX`].
    TooLong,
    /// Not a JSON object with a list `keys`.
    Malformed,
    /// More than [`KEYS_MAX`] keys.
    TooMany,
    /// A key's private part is in it.
    Private,
    /// No key in it can check a signature.
    Empty,
}

/// Longest key set in bytes; large publishers have some ten kilobytes.
pub const KEY_SET_BYTES_MAX: usize = 256 * 1024;
/// Most keys in one set.
pub const KEYS_MAX: usize = 100;
/// Shortest shared secret: as long as the shortest hash, as the standard asks.
pub const SECRET_BYTES_MIN: usize = 32;

// === impl Algorithm ===

impl Algorithm {
    /// All, with their names.
    pub const ALL: [(&'static str, Self); 12] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
    ];

    /// The algorithm of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Whether both sides hold the same secret.
    pub fn is_shared_secret(self) -> bool {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => true,
            Self::Rs256
            | Self::Rs384
            | Self::Rs512
            | Self::Ps256
            | Self::Ps384
            | Self::Ps512
            | Self::Es256
            | Self::Es384
            | Self::EdDsa => false,
        }
    }
}

// === impl KeySet ===

impl KeySet {
    /// Reads a published set.
    ///
    /// # Errors
    /// It is none, it is too large, it holds a private key, or nothing in it is of use.
    pub fn parse(text: &[u8]) -> Result<Self, BadKeySet> {
        if text.len() > KEY_SET_BYTES_MAX {
            return Err(BadKeySet::TooLong);
        }
        let set = json::strict_object(text).ok_or(BadKeySet::Malformed)?;
        let list = set.get("keys").and_then(Value::as_array).ok_or(BadKeySet::Malformed)?;
        if list.len() > KEYS_MAX {
            return Err(BadKeySet::TooMany);
        }
        let mut keys = Vec::with_capacity(list.len());
        for item in list {
            let members = item.as_object().ok_or(BadKeySet::Malformed)?;
            if members.contains_key("d") {
                return Err(BadKeySet::Private);
            }
            keys.extend(key(members));
        }
        if keys.is_empty() { Err(BadKeySet::Empty) } else { Ok(Self { keys }) }
    }

    /// The set of one shared secret; `None` if it is too short to be one.
    pub fn of_secret(secret: Vec<u8>) -> Option<Self> {
        let long = secret.len() >= SECRET_BYTES_MIN;
        let material = Material::Hmac(HmacSecret(secret));
        long.then(|| Self { keys: vec![Key { id: None, only: None, material }] })
    }

    /// The keys a token of this header may be signed with: by id where it names one.
    pub fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(move |key| {
            // A shared secret has no id: whatever a token calls it, there is one.
            let named = id.is_none() || key.is_secret() || key.id.as_deref() == id;
            named && key.fits(algorithm)
        })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

// === impl Key ===

impl Key {
    fn is_secret(&self) -> bool {
        matches!(self.material, Material::Hmac(_))
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        if self.only.is_some_and(|only| only != algorithm) {
            return false;
        }
        match (&self.material, algorithm) {
            (
                Material::Rsa(_),
                Algorithm::Rs256
                | Algorithm::Rs384
                | Algorithm::Rs512
                | Algorithm::Ps256
                | Algorithm::Ps384
                | Algorithm::Ps512,
            )
            | (Material::P256(_), Algorithm::Es256)
            | (Material::P384(_), Algorithm::Es384)
            | (Material::Ed25519(_), Algorithm::EdDsa)
            | (Material::Hmac(_), Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512) => true,
            (
                Material::Rsa(_)
                | Material::P256(_)
                | Material::P384(_)
                | Material::Ed25519(_)
                | Material::Hmac(_),
                _,
            ) => false,
        }
    }

    /// Whether `signature` is this key's for `message`.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        match &self.material {
            Material::Rsa(key) => rsa(algorithm)
                .is_some_and(|parameters| key.verify(parameters, message, signature).is_ok()),
            Material::P256(point) => {
                verified(&signature::ECDSA_P256_SHA256_FIXED, point, message, signature)
            }
            Material::P384(point) => {
                verified(&signature::ECDSA_P384_SHA384_FIXED, point, message, signature)
            }
            Material::Ed25519(key) => verified(&signature::ED25519, key, message, signature),
            Material::Hmac(HmacSecret(secret)) => hmac_of(algorithm).is_some_and(|hash| {
                hmac::verify(&hmac::Key::new(hash, secret), message, signature).is_ok()
            }),
        }
    }
}

fn verified(
    algorithm: &'static dyn signature::VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    signature::UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

fn rsa(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256
        | Algorithm::Es384
        | Algorithm::EdDsa
        | Algorithm::Hs256
        | Algorithm::Hs384
        | Algorithm::Hs512 => None,
    }
}

fn hmac_of(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
        Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
        Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512
        | Algorithm::Es256
        | Algorithm::Es384
        | Algorithm::EdDsa => None,
    }
}

/// A key that can check signatures; anything else in a set is left out.
fn key(members: &Map<String, Value>) -> Option<Key> {
    let text = |name: &str| members.get(name).map(|value| value.as_str());
    if text("use").is_some_and(|word| word != Some("sig")) {
        return None;
    }
    if let Some(operations) = members.get("key_ops") {
        let list = operations.as_array()?;
        if !list.iter().any(|operation| operation.as_str() == Some("verify")) {
            return None;
        }
    }
    let only = match text("alg") {
        // An algorithm that is not known here: the key is not to be used with another.
        Some(name) => Some(Algorithm::parse(name?)?),
        None => None,
    };
    let id = match text("kid") {
        Some(id) => Some(id?.to_owned()),
        None => None,
    };
    Some(Key { id, only, material: material(members)? })
}

fn material(members: &Map<String, Value>) -> Option<Material> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    match (text("kty")?, text("crv")) {
        ("RSA", None) => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            // ring takes 2048 to 8192 bits; a shorter key would only fail later, at every login.
            let fits = (256..=1024).contains(&n.len()) && n.first() != Some(&0) && !e.is_empty();
            fits.then_some(Material::Rsa(signature::RsaPublicKeyComponents { n, e }))
        }
        ("EC", Some("P-256")) => point(&bytes("x")?, &bytes("y")?, 32).map(Material::P256),
        ("EC", Some("P-384")) => point(&bytes("x")?, &bytes("y")?, 48).map(Material::P384),
        ("OKP", Some("Ed25519")) => bytes("x").filter(|key| key.len() == 32).map(Material::Ed25519),
        // `oct` is a shared secret: it has no place in something that is published.
        _ => None,
    }
}

fn point(x: &[u8], y: &[u8], coordinate_bytes: usize) -> Option<Vec<u8>> {
    let right = x.len() == coordinate_bytes && y.len() == coordinate_bytes;
    right.then(|| [&[4u8][..], x, y].concat())
}

// === impl HmacSecret ===

impl std::fmt::Debug for HmacSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HmacSecret")
    }
}

impl Drop for HmacSecret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

// === impl BadKeySet ===

impl std::fmt::Display for BadKeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {KEY_SET_BYTES_MAX} bytes"),
            Self::Malformed => f.write_str("not a JSON object with a list `keys`"),
            Self::TooMany => write!(f, "more than {KEYS_MAX} keys"),
            Self::Private => f.write_str("it holds a private key; publish public keys only"),
            Self::Empty => f.write_str("no key in it can check a signature"),
        }
    }
}

impl std::error::Error for BadKeySet {}

#[cfg(test)]
mod tests;
