//! Deriving keys from passwords, away from the threads that drive connections.
//!
//! A server may ask for many rounds: some hundred milliseconds of work. It is done on as many
//! threads as there are cores at most, and its result is kept, because the same account logs in
//! again and again.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::session::auth::Secret;
use crate::session::pg::scram;

/// Derives, a bounded number at a time.
#[derive(Debug)]
pub struct Derivation {
    places: Arc<Semaphore>,
    known: Cache<[u8; 32], [u8; 32]>,
}

impl Default for Derivation {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { places: Arc::new(Semaphore::new(cores)), known: Cache::new(KNOWN_MAX) }
    }
}

impl Derivation {
    /// The salted password of an account of ours.
    pub async fn salted_password(
        &self,
        password: Secret,
        salt: Vec<u8>,
        iterations: u32,
    ) -> Option<[u8; 32]> {
        let key = {
            let mut digest = Sha256::new();
            digest.update(iterations.to_be_bytes());
            digest.update(u64::try_from(salt.len()).ok()?.to_be_bytes());
            digest.update(&salt);
            digest.update(password.bytes());
            digest.finalize().into()
        };
        if let Some(known) = self.known.get(&key) {
            return Some(known);
        }
        let salted = self.derive(password, salt, iterations).await?;
        self.known.insert(key, salted);
        Some(salted)
    }

    /// The same, keeping nothing: for passwords of clients, most of which may be guesses.
    pub async fn derive(
        &self,
        password: Secret,
        salt: Vec<u8>,
        iterations: u32,
    ) -> Option<[u8; 32]> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let work = move || {
            let salted = scram::salted_password(password.bytes(), &salt, iterations);
            drop(place);
            salted
        };
        tokio::task::spawn_blocking(work).await.ok()
    }
}

/// Accounts whose keys are kept.
const KNOWN_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_what_was_derived() {
        let derivation = Derivation::default();
        for _ in 0..2 {
            for (password, salt, iterations) in
                [("a", "x", 1), ("a", "xy", 1), ("b", "x", 1), ("a", "x", 2)]
            {
                let found = derivation
                    .salted_password(Secret::new(password.into()), salt.into(), iterations)
                    .await;
                let expected =
                    scram::salted_password(password.as_bytes(), salt.as_bytes(), iterations);
                assert_eq!(found, Some(expected));
            }
        }
        assert_eq!(derivation.known.len(), 4);
    }
}
