//! What is remembered of API keys while the process runs: their rate, and when they were used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::policy::Throttles;

/// Shared by all datasources: a key's budget is one, wherever it is used.
#[derive(Debug, Default)]
pub struct KeyDesk {
    /// How often each key was used lately. Survives reloads.
    pub throttles: Throttles,
    uses: Mutex<BTreeMap<Arc<str>, KeyUse>>,
}

/// What became of one key. Never the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUse {
    /// Whose it was when it was last used.
    pub user: String,
    /// Logins since the process started.
    pub logins: u64,
    /// When the last of them was, microseconds since the Unix epoch; 0 if there was none.
    pub last_login_us: u64,
    /// Logins that were refused although the key was the right one: revoked, expired, from another
    /// address, for another user or database, too often.
    pub refused: u64,
    /// When the last of these was; 0 if there was none.
    pub last_refused_us: u64,
}

impl KeyDesk {
    /// The key opened.
    pub fn used(&self, prefix: &Arc<str>, user: &str, wall_us: u64) {
        self.note(prefix, |key| {
            user.clone_into(&mut key.user);
            key.logins = key.logins.saturating_add(1);
            key.last_login_us = wall_us;
        });
    }

    /// Somebody held the key, and was refused.
    pub fn refused(&self, prefix: &Arc<str>, wall_us: u64) {
        self.note(prefix, |key| {
            key.refused = key.refused.saturating_add(1);
            key.last_refused_us = wall_us;
        });
    }

    /// What is remembered of a key.
    pub fn of(&self, prefix: &str) -> Option<KeyUse> {
        self.uses().get(prefix).cloned()
    }

    fn note(&self, prefix: &Arc<str>, change: impl FnOnce(&mut KeyUse)) {
        let mut uses = self.uses();
        if uses.len() >= KEYS_MAX && !uses.contains_key(prefix) {
            let seen = |key: &KeyUse| key.last_login_us.max(key.last_refused_us);
            let oldest = uses.iter().min_by_key(|(_, key)| seen(key)).map(|(p, _)| Arc::clone(p));
            oldest.map(|prefix| uses.remove(&prefix));
        }
        change(uses.entry(Arc::clone(prefix)).or_default());
    }

    fn uses(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, KeyUse>> {
        // Counters: each is valid whatever became of the others.
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most keys remembered. Only keys of the identities file get here, so this is reached by replacing
/// keys for a long time.
const KEYS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_counted_and_bounded() {
        let desk = KeyDesk::default();
        let prefix = |n: usize| Arc::<str>::from(format!("key{n:06}"));
        desk.used(&prefix(0), "app", 10);
        desk.used(&prefix(0), "app", 20);
        desk.refused(&prefix(0), 30);
        let first = desk.of("key000000").unwrap();
        assert_eq!((first.logins, first.last_login_us), (2, 20));
        assert_eq!((first.refused, first.last_refused_us), (1, 30));
        assert_eq!(desk.of("other"), None);
        for n in 1..=KEYS_MAX {
            desk.used(&prefix(n), "app", 100);
        }
        assert_eq!(desk.uses().len(), KEYS_MAX);
        assert_eq!(desk.of("key000000"), None, "the one that was not used for longest");
    }
}
