//! API keys: made here, stored as their SHA-256 in the identities file, shown as a password.
//!
//! ```text
//! pk_4k2mzq8w9t_<43 letters and digits>
//!    └ prefix ┘  └ secret: 256 random bits ┘
//! ```
//! The prefix is public: a key is looked up, logged and revoked by it. A fast hash is enough, since
//! nobody guesses 256 bits. Whatever is wrong with a key, the client is told the same; the reason
//! goes to the audit trail. A prefix nobody has costs the same hash and the same comparison.

use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::event::Now;
use crate::name::hex;
use crate::policy::{Login, RuleSet, Throttles, is_prefix};

/// A key that was just made. The only time it exists in the open.
pub struct NewKey {
    /// The whole key.
    pub key: String,
    /// Its public part.
    pub prefix: String,
    /// What is stored, lower-case hex.
    pub sha256: String,
}

/// Why a key does not open the door. For the audit trail, never for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not of the form of a key.
    Malformed,
    /// No key has this prefix, or it is another key. Not told apart: who reads the trail learns
    /// nothing more by it.
    Unknown,
    /// A key of another user.
    OtherUser,
    /// It was taken back.
    Revoked,
    /// It has ended.
    Expired,
    /// Not from this address.
    Address,
    /// Not for this database.
    Scope,
    /// Used too often.
    Rate,
}

impl Refused {
    /// The word in the audit trail.
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed => "not of the form of an API key",
            Self::Unknown => "unknown API key",
            Self::OtherUser => "API key of another user",
            Self::Revoked => "API key revoked",
            Self::Expired => "API key expired",
            Self::Address => "API key not allowed from this address",
            Self::Scope => "API key not for this database",
            Self::Rate => "API key used too often",
        }
    }
}

/// Judges a key. On success its prefix; the second value of a refusal is the prefix of the key that
/// was really held, so that its use is seen by an operator although it did not open.
///
/// # Errors
/// The key does not open the door for this login now.
pub fn verify(
    rules: &RuleSet,
    throttles: &Throttles,
    login: &Login,
    presented: &[u8],
    now: Now,
) -> Result<Arc<str>, (Refused, Option<Arc<str>>)> {
    let digest: [u8; 32] = Sha256::digest(presented).into();
    let prefix = prefix_of(presented);
    let stored = prefix.and_then(|prefix| rules.key(prefix));
    // Compared with something in any case: an unknown prefix costs what a known one does.
    let expected = stored.map_or([0; 32], |key| key.sha256);
    let same = bool::from(digest.ct_eq(&expected));
    if prefix.is_none() {
        return Err((Refused::Malformed, None));
    }
    let Some(key) = stored.filter(|_| same) else {
        return Err((Refused::Unknown, None));
    };
    let refused = if *key.user != *login.user {
        Some(Refused::OtherUser)
    } else if key.revoked {
        Some(Refused::Revoked)
    } else if key.expired(now.wall_us) {
        Some(Refused::Expired)
    } else if !key.admits_address(login.address) {
        Some(Refused::Address)
    } else if !key.admits_database(&login.datasource, &login.database) {
        Some(Refused::Scope)
    } else if key.limit().is_some_and(|limit| throttles.take(&limit, 1, now.mono_us).is_err()) {
        // Charged last: only who holds the key can use its budget up.
        Some(Refused::Rate)
    } else {
        None
    };
    let prefix = Arc::clone(&key.prefix);
    match refused {
        None => Ok(prefix),
        Some(reason) => Err((reason, Some(prefix))),
    }
}

/// The prefix of a text of the form of a key.
fn prefix_of(presented: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(presented).ok()?;
    let (prefix, secret) = text.strip_prefix(MARK)?.split_once('_')?;
    let formed = secret.len() == SECRET_CHARS && secret.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_prefix(prefix) && formed).then_some(prefix)
}

impl NewKey {
    /// Makes a key.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn generate() -> anyhow::Result<Self> {
        let prefix = random_text(PREFIX_ALPHABET, PREFIX_CHARS)?;
        let secret = random_text(SECRET_ALPHABET, SECRET_CHARS)?;
        let key = format!("{MARK}{prefix}_{secret}");
        let sha256 = hex(&Sha256::digest(key.as_bytes()));
        Ok(Self { key, prefix, sha256 })
    }
}

impl std::fmt::Debug for NewKey {
    /// Leaves the key out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Characters drawn evenly: bytes beyond the last whole multiple of the alphabet are thrown away.
fn random_text(alphabet: &[u8], chars: usize) -> anyhow::Result<String> {
    let random = SystemRandom::new();
    let even = (256 / alphabet.len()) * alphabet.len();
    let mut text = String::with_capacity(chars);
    while text.len() < chars {
        let mut bytes = [0u8; 64];
        random
            .fill(&mut bytes)
            .map_err(|_unspecified| anyhow::anyhow!("the system's random source failed"))?;
        let fair = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < even);
        let drawn = fair.filter_map(|byte| alphabet.get(byte % alphabet.len()));
        text.extend(drawn.take(chars - text.len()).map(|byte| char::from(*byte)));
    }
    Ok(text)
}

/// What every key begins with, so that scanners for leaked secrets find it.
const MARK: &str = "pk_";
/// 36^10: enough that two keys of one file do not meet.
const PREFIX_CHARS: usize = 10;
/// 62^43 is more than 2^256.
const SECRET_CHARS: usize = 43;
const PREFIX_ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const SECRET_ALPHABET: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Credential, SourceFile};

    fn rules(key: &NewKey, rest: &str) -> RuleSet {
        let text = format!(
            "version: 1\nidentities:\n  - {{user: app, keys: [{{prefix: {}, sha256: {}, {rest}}}]}}",
            key.prefix, key.sha256
        );
        let file = SourceFile { name: "identities.yaml".to_owned(), text };
        RuleSet::compile(&[], Some(&file)).unwrap().0
    }

    fn login() -> Login {
        Login {
            datasource: "shop".into(),
            protocol: crate::name::Protocol::POSTGRESQL,
            default_deny: false,
            user: "app".to_owned(),
            database: "orders".to_owned(),
            address: Some("10.1.2.3".parse().unwrap()),
            application: String::new(),
            credential: Credential::Name,
        }
    }

    const NOW: Now = Now { wall_us: 1_790_000_000_000_000, mono_us: 5_000_000 };

    fn judge(rules: &RuleSet, login: &Login, key: &str) -> Result<Arc<str>, Refused> {
        let throttles = Throttles::default();
        verify(rules, &throttles, login, key.as_bytes(), NOW).map_err(|(reason, _)| reason)
    }

    #[test]
    fn a_new_key_opens_and_no_two_are_alike() {
        let (key, other) = (NewKey::generate().unwrap(), NewKey::generate().unwrap());
        assert_ne!(key.key, other.key);
        assert_ne!(key.prefix, other.prefix);
        assert_eq!(key.key.len(), 3 + 10 + 1 + 43);
        assert!(!format!("{key:?}").contains(&key.key));
        assert_eq!(judge(&rules(&key, ""), &login(), &key.key).as_deref(), Ok(&*key.prefix));
    }

    #[test]
    fn a_draw_uses_the_whole_alphabet_evenly() {
        let text = random_text(SECRET_ALPHABET, 62_000).unwrap();
        for letter in SECRET_ALPHABET {
            let count = text.bytes().filter(|byte| byte == letter).count();
            assert!((800..1200).contains(&count), "{}: {count}", char::from(*letter));
        }
    }

    #[test]
    fn every_reason_to_refuse() {
        let key = NewKey::generate().unwrap();
        let whole = key.key.as_str();
        let mut last = whole.to_owned();
        let wrong = if last.pop() == Some('A') { 'B' } else { 'A' };
        last.push(wrong);
        let other = NewKey::generate().unwrap();
        let check = |rest: &str, login: Login, presented: &str, reason: Refused| {
            assert_eq!(judge(&rules(&key, rest), &login, presented), Err(reason), "{rest}");
        };
        check("", login(), "hunter2", Refused::Malformed);
        check("", login(), "", Refused::Malformed);
        check("", login(), "pk_short_x", Refused::Malformed);
        check("", login(), &whole.to_uppercase(), Refused::Malformed);
        check("", login(), &format!("{whole}x"), Refused::Malformed);
        check("", login(), &last, Refused::Unknown);
        check("", login(), &other.key, Refused::Unknown);
        check("", Login { user: "root".to_owned(), ..login() }, whole, Refused::OtherUser);
        check("revoked: true", login(), whole, Refused::Revoked);
        check("not_after: 2026-09-20", login(), whole, Refused::Expired);
        check("allowed_ips: 192.0.2.0/24", login(), whole, Refused::Address);
        let local = Login { address: None, ..login() };
        check("allowed_ips: 0.0.0.0/0", local, whole, Refused::Address);
        check("scopes: 'database:payroll'", login(), whole, Refused::Scope);
        check("scopes: 'datasource:other'", login(), whole, Refused::Scope);
    }

    #[test]
    fn only_the_holder_uses_up_a_keys_rate() {
        let key = NewKey::generate().unwrap();
        let set = rules(&key, "rate: 2/min");
        let throttles = Throttles::default();
        let mut forged = key.key.clone();
        let wrong = if forged.pop() == Some('A') { 'B' } else { 'A' };
        forged.push(wrong);
        let at = |text: &str, mono_us: u64| {
            let now = Now { mono_us, ..NOW };
            verify(&set, &throttles, &login(), text.as_bytes(), now)
        };
        for _ in 0..10 {
            assert_eq!(at(&forged, 0), Err((Refused::Unknown, None)));
        }
        assert!(at(&key.key, 0).is_ok());
        assert!(at(&key.key, 0).is_ok());
        let prefix: Arc<str> = key.prefix.as_str().into();
        assert_eq!(at(&key.key, 0), Err((Refused::Rate, Some(prefix))));
        assert!(at(&key.key, 30_000_000).is_ok());
        // The counter belongs to the key, not to the rules in force.
        let reloaded = rules(&key, "rate: 2/min, description: x");
        let now = Now { mono_us: 30_000_000, ..NOW };
        assert!(verify(&reloaded, &throttles, &login(), key.key.as_bytes(), now).is_err());
    }
}
