//! `auth_query:` verifiers that the server stores.
//!
//! What was found is kept for a short time, and so is that nothing was found: otherwise the time a
//! login takes would tell which users exist. A proof that fails makes us forget what is kept, so a
//! changed password works at the second try at the latest.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::accounts::PasswordSource;
use crate::policy::ScramVerifier;
use crate::session::auth::LookedUp;

/// How the server is asked.
#[derive(Clone, Debug)]
pub struct AuthQuery {
    /// Account that may read what the query reads.
    pub user: String,
    /// Its password.
    pub password: PasswordSource,
    /// Database the query runs in.
    pub database: String,
    /// The query: `$1` is the user, the first column of its one row the verifier.
    pub text: String,
}

/// Runs the query over a connection to the server.
pub trait AskServer: Sync {
    /// The first column of the one row for this user, if there is a row.
    fn ask<'a>(
        &'a self,
        query: &'a AuthQuery,
        user: &'a str,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<Option<String>>> + Send + 'a>>;
}

/// The query, and what it gave lately.
#[derive(Debug)]
pub struct Stored {
    /// How the server is asked.
    pub query: AuthQuery,
    kept: Cache<Box<str>, (u64, Option<ScramVerifier>)>,
    /// Rounds and salt length of the verifier found last.
    usual: AtomicU64,
    places: Semaphore,
}

impl Stored {
    /// Nothing was asked yet.
    pub fn new(query: AuthQuery) -> Self {
        Self {
            query,
            kept: Cache::new(KEPT_MAX),
            usual: AtomicU64::new(pack(USUAL)),
            places: Semaphore::new(QUERIES_MAX),
        }
    }

    /// What was found lately.
    pub fn kept(&self, user: &str, now_us: u64) -> Option<LookedUp> {
        let (at_us, found) = self.kept.get(user)?;
        (now_us.saturating_sub(at_us) < KEPT_US).then(|| self.looked_up(found))
    }

    /// Keeps the answer of the server: the text of the verifier, if there is one. A text that is no
    /// verifier, an MD5 hash for instance, is as good as none.
    pub fn keep(&self, user: &str, text: Option<&str>, now_us: u64) -> LookedUp {
        let found: Option<ScramVerifier> = text.and_then(|text| text.parse().ok());
        if let Some(ScramVerifier { iterations, salt, .. }) = &found {
            self.usual.store(pack((*iterations, salt.len())), Ordering::Relaxed);
        }
        self.kept.insert(user.into(), (now_us, found.clone()));
        self.looked_up(found)
    }

    /// Asks the server next time.
    pub fn forget(&self, user: &str) {
        self.kept.remove(user);
    }

    /// Waits for a place to ask the server: logins must not take all its connections.
    pub async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.acquire().await.ok()
    }

    fn looked_up(&self, found: Option<ScramVerifier>) -> LookedUp {
        match found {
            Some(verifier) => LookedUp::Found(verifier),
            None => {
                let (iterations, salt_bytes) = unpack(self.usual.load(Ordering::Relaxed));
                LookedUp::Missing { iterations, salt_bytes }
            }
        }
    }
}

fn pack((iterations, salt_bytes): (u32, usize)) -> u64 {
    let salt_bytes = u32::try_from(salt_bytes).unwrap_or_default();
    (u64::from(iterations) << 32) | u64::from(salt_bytes)
}

fn unpack(packed: u64) -> (u32, usize) {
    let salt_bytes = usize::try_from(packed & u64::from(u32::MAX)).unwrap_or_default();
    (u32::try_from(packed >> 32).unwrap_or_default(), salt_bytes)
}

/// The query where the configuration gives none: what the server itself would go by.
pub const DEFAULT_TEXT: &str = "SELECT rolpassword FROM pg_catalog.pg_authid \
     WHERE rolname = $1 AND rolcanlogin \
     AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())";

/// What servers make by default: 4096 rounds, 16 bytes of salt.
const USUAL: (u32, usize) = (4096, 16);

/// Users whose verifiers, or lack of them, are kept.
const KEPT_MAX: usize = 4096;

/// How long.
const KEPT_US: u64 = 10_000_000;

/// Queries at a time.
const QUERIES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "SCRAM-SHA-256$5000:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn answers_are_kept_for_a_short_time_whether_there_is_one_or_not() {
        let query = AuthQuery {
            user: "reader".to_owned(),
            password: PasswordSource::None,
            database: "postgres".to_owned(),
            text: DEFAULT_TEXT.to_owned(),
        };
        let stored = Stored::new(query);
        let missing = |iterations| LookedUp::Missing { iterations, salt_bytes: 16 };
        assert_eq!(stored.kept("a", 0), None);
        assert_eq!(stored.keep("none", None, 0), missing(4096));
        assert_eq!(stored.keep("a", Some(VERIFIER), 0), LookedUp::Found(VERIFIER.parse().unwrap()));
        assert_eq!(stored.keep("md5", Some("md50123"), 0), missing(5000), "as the last one found");
        assert_eq!(stored.kept("none", KEPT_US - 1), Some(missing(5000)));
        assert!(matches!(stored.kept("a", KEPT_US - 1), Some(LookedUp::Found(_))));
        assert_eq!(stored.kept("none", KEPT_US), None);
        assert_eq!(stored.kept("a", KEPT_US), None);
        stored.forget("none");
        assert_eq!(stored.kept("none", 0), None);
    }
}
