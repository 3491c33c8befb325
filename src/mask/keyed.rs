//! Masks made with a key: equal values of one domain get equal results, and nobody without the key
//! can try values until one fits.

use std::fmt;
use std::sync::Arc;

use aes::Aes256;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use fpe::ff1::{FF1, FlexibleNumeralString};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Domain;
use crate::obligation::{Alphabet, Token};

/// A key of the configuration with the number tokens carry.
#[derive(Clone)]
pub struct MaskKey {
    id: u16,
    secret: Arc<Zeroizing<Vec<u8>>>,
}

impl MaskKey {
    /// Fewest bytes of a key: as many as the digest has.
    pub const BYTES_MIN: usize = 32;
    /// Most bytes; more would be another file by mistake.
    pub const BYTES_MAX: usize = 4_096;

    /// Takes a key. What is shorter than [`BYTES_MIN`](Self::BYTES_MIN) is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(id: u16, secret: Zeroizing<Vec<u8>>) -> Result<Self, String> {
        if id == 0 {
            return Err("keys are numbered from 1".to_owned());
        }
        if !(Self::BYTES_MIN..=Self::BYTES_MAX).contains(&secret.len()) {
            let (min, max) = (Self::BYTES_MIN, Self::BYTES_MAX);
            return Err(format!("a mask key has {min} to {max} bytes, not {}", secret.len()));
        }
        Ok(Self { id, secret: Arc::new(secret) })
    }
}

impl fmt::Debug for MaskKey {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is derived from a key, one key for each purpose, ready for use.
#[derive(Clone)]
pub(super) struct Derived(Arc<Keys>);

struct Keys {
    id: u16,
    token: Hmac<Sha256>,
    hash: Hmac<Sha256>,
    ciphers: [(Alphabet, Option<FF1<Aes256>>); 3],
}

/// Fewest values an encryption must choose from: below, all of them could be tried.
const DOMAIN_MIN: u64 = 1_000_000;
/// Most characters that are encrypted; the work grows with their square.
const CHARACTERS_MAX: usize = 64;

impl Derived {
    pub(super) fn new(key: &MaskKey) -> Self {
        let derive = |purpose: &str| derive(&key.secret, purpose);
        let cipher = |alphabet: Alphabet| {
            let radix = u32::try_from(alphabet.characters().len()).ok();
            let key = derive(&format!("fpe_ff1 {}", alphabet.name()));
            (alphabet, radix.and_then(|radix| FF1::new(key.as_slice(), radix).ok()))
        };
        Self(Arc::new(Keys {
            id: key.id,
            token: hmac(derive("token_hmac").as_slice()),
            hash: hmac(derive("hash_keyed").as_slice()),
            ciphers: [Alphabet::Digits, Alphabet::LowerAlphanumeric, Alphabet::Alphanumeric]
                .map(cipher),
        }))
    }

    pub(super) fn hash(&self, domain: &Domain, value: &[u8], out: &mut Vec<u8>) {
        let mut digits = [0; 64];
        HEXLOWER.encode_mut(&digest(&self.0.hash, domain, value), &mut digits);
        out.extend_from_slice(&digits);
    }

    pub(super) fn token(&self, token: &Token, domain: &Domain, value: &[u8], out: &mut Vec<u8>) {
        use std::io::Write as _;
        out.extend_from_slice(token.prefix().as_bytes());
        // Writing to a vector cannot fail.
        let _ = write!(out, "t{}_", self.0.id);
        let mut characters = [0; 52];
        BASE32_NOPAD.encode_mut(&digest(&self.0.token, domain, value), &mut characters);
        characters.make_ascii_lowercase();
        out.extend(characters.iter().take(token.length()));
    }

    /// Encrypts the characters of the alphabet; separators stay. What has too few of them, or
    /// others between them, becomes a token: they would be shown. `None` if there is no cipher.
    pub(super) fn encrypt(
        &self,
        alphabet: Alphabet,
        domain: &Domain,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let Some(numerals) = numerals(alphabet, value) else {
            let token = Token::new(Token::LENGTH, "").ok()?;
            self.token(&token, domain, value, out);
            return Some(());
        };
        let (_, cipher) = self.0.ciphers.iter().find(|(known, _)| *known == alphabet)?;
        let plain = FlexibleNumeralString::from(numerals);
        let encrypted = cipher.as_ref()?.encrypt(domain.bytes(), &plain).ok()?;
        let mut encrypted = Vec::<u16>::from(encrypted).into_iter();
        let characters = alphabet.characters();
        let start = out.len();
        for byte in value {
            let shown = if is_separator(*byte) {
                Some(*byte)
            } else {
                encrypted.next().and_then(|at| characters.get(usize::from(at)).copied())
            };
            let Some(shown) = shown else {
                out.truncate(start);
                return None;
            };
            out.push(shown);
        }
        Some(())
    }
}

impl fmt::Debug for Derived {
    /// Leaves the keys out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derived").field("id", &self.0.id).finish_non_exhaustive()
    }
}

/// A key for one purpose: what one purpose shows says nothing about another.
fn derive(secret: &[u8], purpose: &str) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let info = [b"portcullis mask v1 ", purpose.as_bytes()];
    let expanded = Hkdf::<Sha256>::new(None, secret).expand_multi_info(&info, key.as_mut_slice());
    debug_assert!(expanded.is_ok(), "32 bytes are within what can be derived");
    key
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// The domain's length stands in it, so no value of one domain reads as one of another.
fn digest(keyed: &Hmac<Sha256>, domain: &Domain, value: &[u8]) -> [u8; 32] {
    let mut mac = keyed.clone();
    mac.update(domain.bytes());
    mac.update(value);
    mac.finalize().into_bytes().into()
}

/// The characters to encrypt, as numbers. `None` if they are too few or too many, or if there are
/// other characters than separators.
fn numerals(alphabet: Alphabet, value: &[u8]) -> Option<Vec<u16>> {
    let characters = alphabet.characters();
    let radix = u64::try_from(characters.len()).ok()?;
    let (mut numerals, mut domain) = (Vec::new(), 1_u64);
    for byte in value.iter().filter(|byte| !is_separator(**byte)) {
        let at = characters.iter().position(|known| known == byte)?;
        numerals.push(u16::try_from(at).ok()?);
        domain = domain.saturating_mul(radix);
    }
    (domain >= DOMAIN_MIN && numerals.len() <= CHARACTERS_MAX).then_some(numerals)
}

/// What stands between the groups of numbers and codes, and tells nothing of them.
fn is_separator(byte: u8) -> bool {
    b" -./()+:_".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn rfc_4231_samples() {
        for (key, data, expected) in [
            (
                vec![0x0b; 20],
                b"Hi There".to_vec(),
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?".to_vec(),
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            // The domain comes first in what is digested: as the data it leaves nothing to add.
            let domain = Domain(data.into());
            assert_eq!(digest(&hmac(&key), &domain, b"").to_vec(), unhex(expected));
        }
    }

    #[test]
    fn rfc_5869_samples() {
        let hkdf = Hkdf::<Sha256>::new(Some(&unhex("000102030405060708090a0b0c")), &[0x0b; 22]);
        let mut out = [0; 42];
        hkdf.expand(&unhex("f0f1f2f3f4f5f6f7f8f9"), &mut out).unwrap();
        let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf\
                        34007208d5b887185865";
        assert_eq!(out.to_vec(), unhex(expected));
        let mut out = [0; 42];
        Hkdf::<Sha256>::new(None, &[0x0b; 22]).expand(b"", &mut out).unwrap();
        let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d\
                        9d201395faa4b61a96c8";
        assert_eq!(out.to_vec(), unhex(expected));
    }

    /// The samples of SP 800-38G for AES-256.
    #[test]
    fn ff1_samples() {
        let key = unhex("2b7e151628aed2a6abf7158809cf4f3cef4359d8d580aa4f7f036d6f04fc6a94");
        let tweak = unhex("39383736353433323130");
        let odd_tweak = unhex("3737373770717273373737");
        for (alphabet, tweak, plain, expected) in [
            (Alphabet::Digits, vec![], "0123456789", "6657667009"),
            (Alphabet::Digits, tweak, "0123456789", "1001623463"),
            (Alphabet::LowerAlphanumeric, odd_tweak, "0123456789abcdefghi", "xs8a0azh2avyalyzuwd"),
        ] {
            let radix = u32::try_from(alphabet.characters().len()).unwrap();
            let cipher = FF1::new(&key, radix).unwrap();
            let blank = Derived::new(&MaskKey::new(1, vec![0; 32].into()).unwrap()).0;
            let keys = Keys {
                id: 1,
                token: blank.token.clone(),
                hash: blank.hash.clone(),
                ciphers: [(alphabet, Some(cipher)), (alphabet, None), (alphabet, None)],
            };
            let mut out = Vec::new();
            let domain = Domain(tweak.into());
            Derived(Arc::new(keys)).encrypt(alphabet, &domain, plain.as_bytes(), &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{plain}");
        }
    }
}
