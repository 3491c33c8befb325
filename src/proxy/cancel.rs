//! Cancel requests: whose key it is, and handing it on to the server.
//!
//! A cancel arrives on a connection of its own with the key a client was given at login. The key
//! holds our secret, so knowing the server's process id is not enough, and the server's own secret
//! never leaves the proxy. A cancel is handed on only while its session has a statement in flight;
//! one that comes late hits nothing. Wrong secrets for a live session are counted by address, and
//! an address that guessed too often is not listened to for a while: a secret of protocol 3.0 has
//! four bytes only. None of this shows to whoever sent it, as every cancel is answered by closing.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use dashmap::DashMap;
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::upstream::{Dial, Place};
use crate::auth::origin::Owner;
use crate::session::CancelKey;
use crate::wire::pg::message;

/// The keys of one datasource's live sessions, by process id.
#[derive(Debug)]
pub(crate) struct CancelRegistry {
    /// More than one per process id only when there are several servers.
    keys: DashMap<u32, Vec<Registration>>,
    guesses: Guesses,
    /// Connections to the server for cancels, beside those of sessions.
    forwarding: Semaphore,
}

#[derive(Debug)]
struct Registration {
    ours: CancelKey,
    theirs: Target,
    busy: Arc<AtomicBool>,
}

/// Where a cancel goes, with the key the server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The server's key.
    pub(crate) key: CancelKey,
    /// The server: another one may have the same process id.
    pub(crate) place: Place,
}

/// Keeps a key registered; dropping it forgets the key.
#[derive(Debug)]
pub(crate) struct CancelGuard {
    registry: Arc<CancelRegistry>,
    ours: CancelKey,
    busy: Arc<AtomicBool>,
}

impl CancelGuard {
    /// Where a cancel of this session goes.
    pub(crate) fn target(&self) -> Option<Target> {
        let held = self.registry.keys.get(&self.ours.pid)?;
        let mine = held.iter().find(|registration| registration.ours == self.ours)?;
        Some(mine.theirs.clone())
    }

    /// Whether a cancel would hit a statement of the client, from now on.
    pub(crate) fn set_busy(&self, busy: bool) {
        // Nothing else is published with it: a cancel races with its statement anyway.
        self.busy.store(busy, Ordering::Relaxed);
    }
}

/// Why a cancel goes nowhere. For the log of this process only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// No live session has this process id.
    NoSession,
    /// The secret is not that of the session.
    WrongSecret,
    /// The session has no statement in flight.
    Idle,
    /// The address guessed wrong too often.
    Throttled,
}

impl Default for CancelRegistry {
    fn default() -> Self {
        Self {
            keys: DashMap::new(),
            guesses: Guesses::default(),
            forwarding: Semaphore::new(FORWARDED_AT_ONCE_MAX),
        }
    }
}

impl CancelRegistry {
    /// Registers a key until the guard is dropped.
    pub(crate) fn register(self: &Arc<Self>, ours: CancelKey, theirs: Target) -> CancelGuard {
        let busy = Arc::new(AtomicBool::new(false));
        let registration = Registration { ours: ours.clone(), theirs, busy: Arc::clone(&busy) };
        self.keys.entry(ours.pid).or_default().push(registration);
        CancelGuard { registry: Arc::clone(self), ours, busy }
    }

    /// The server and its key for one of ours whose session has a statement in flight.
    ///
    /// # Errors
    /// Why the cancel goes nowhere.
    pub(crate) fn find(
        &self,
        key: &CancelKey,
        from: Option<IpAddr>,
        mono_us: u64,
    ) -> Result<Target, Dropped> {
        if self.guesses.used_up(from, mono_us) {
            return Err(Dropped::Throttled);
        }
        let candidates = self.keys.get(&key.pid).ok_or(Dropped::NoSession)?;
        let found = candidates.iter().find(|held| bool::from(held.ours.secret.ct_eq(&key.secret)));
        let Some(held) = found else {
            drop(candidates);
            self.guesses.charge(from, mono_us);
            return Err(Dropped::WrongSecret);
        };
        if !held.busy.load(Ordering::Relaxed) {
            return Err(Dropped::Idle);
        }
        Ok(held.theirs.clone())
    }

    /// Sends a CancelRequest and waits until the server has taken it (it answers by closing).
    ///
    /// # Errors
    /// The server was not reached, or did not close within `patience`; or so many cancels are on
    /// their way that this one did not get its turn.
    pub(crate) async fn forward<D: Dial>(
        &self,
        dial: &D,
        target: &Target,
        patience: Duration,
    ) -> io::Result<()> {
        let handed_over = async {
            let turn = self.forwarding.acquire().await;
            let _held = turn.map_err(|_closed| io::Error::from(io::ErrorKind::NotConnected))?;
            let mut server = dial.dial_again(target.place).await?.stream;
            let mut request = BytesMut::new();
            message::cancel_request(&mut request, target.key.pid, &target.key.secret);
            server.write_all(&request).await?;
            server.flush().await?;
            let mut ignored = [0u8; 64];
            while heard(server.read(&mut ignored).await)? > 0 {}
            Ok(())
        };
        tokio::time::timeout(patience, handed_over)
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some(mut held) = self.registry.keys.get_mut(&self.ours.pid) {
            held.retain(|registration| registration.ours != self.ours);
        }
        self.registry.keys.remove_if(&self.ours.pid, |_, held| held.is_empty());
    }
}

/// PostgreSQL's process for a cancel closes the socket without taking leave in TLS.
fn heard(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        read => read,
    }
}

/// Wrong secrets by address: when the address's budget is whole again, microseconds of the
/// monotonic clock.
#[derive(Debug, Default)]
struct Guesses(DashMap<Owner, u64>);

impl Guesses {
    fn used_up(&self, from: Option<IpAddr>, mono_us: u64) -> bool {
        let budget_us = GUESS_COST_US.saturating_mul(GUESSES_AT_ONCE_MAX.saturating_sub(1));
        let whole_us = self.0.get(&Owner::of(from)).map(|whole| *whole);
        let full = || self.0.len() >= GUESSING_ADDRESSES_MAX;
        match whole_us {
            Some(whole_us) => whole_us.saturating_sub(mono_us) > budget_us,
            // Nothing more could be remembered: nobody may guess until something is forgotten.
            None if full() => {
                self.0.retain(|_, whole| *whole > mono_us);
                full()
            }
            None => false,
        }
    }

    fn charge(&self, from: Option<IpAddr>, mono_us: u64) {
        let mut whole = self.0.entry(Owner::of(from)).or_insert(mono_us);
        *whole = (*whole).max(mono_us).saturating_add(GUESS_COST_US);
    }
}

/// Connections to the server that only carry a cancel, at once: a storm of cancels may not use up
/// the server's connections; each is over as soon as the server has read it.
const FORWARDED_AT_ONCE_MAX: usize = 32;

/// Wrong secrets an address may send at once.
const GUESSES_AT_ONCE_MAX: u64 = 16;

/// One guess more comes back after this time: at 10 a minute, half of all four-byte secrets take
/// four centuries.
const GUESS_COST_US: u64 = 6_000_000;

/// Addresses whose guesses are remembered.
const GUESSING_ADDRESSES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pid: u32, secret: &[u8]) -> CancelKey {
        CancelKey { pid, secret: secret.to_vec() }
    }

    fn target(pid: u32, secret: &[u8]) -> Target {
        Target { key: key(pid, secret), place: Place::default() }
    }

    #[test]
    fn keys_are_found_by_pid_and_secret_until_their_guard_goes() {
        let registry = Arc::new(CancelRegistry::default());
        let first = registry.register(key(7, b"aaaa"), target(7, b"real"));
        let second = registry.register(key(7, b"bbbb"), target(9, b"else"));
        let find = |key: CancelKey| registry.find(&key, None, 0);
        assert_eq!(find(key(7, b"aaaa")), Err(Dropped::Idle), "no statement is in flight");
        first.set_busy(true);
        second.set_busy(true);
        assert_eq!(find(key(7, b"aaaa")), Ok(target(7, b"real")));
        assert_eq!(find(key(7, b"bbbb")), Ok(target(9, b"else")));
        for wrong in [key(7, b"aaab"), key(7, b""), key(7, b"aaaaa")] {
            assert_eq!(find(wrong), Err(Dropped::WrongSecret));
        }
        assert_eq!(find(key(8, b"aaaa")), Err(Dropped::NoSession));
        first.set_busy(false);
        assert_eq!(find(key(7, b"aaaa")), Err(Dropped::Idle));
        drop(first);
        assert_eq!(find(key(7, b"aaaa")), Err(Dropped::WrongSecret));
        assert!(find(key(7, b"bbbb")).is_ok());
        drop(second);
        assert!(registry.keys.is_empty());
    }

    #[test]
    fn an_address_that_guesses_is_not_listened_to_for_a_while() {
        let registry = Arc::new(CancelRegistry::default());
        let guard = registry.register(key(7, b"aaaa"), target(7, b"real"));
        guard.set_busy(true);
        let [v4, v6, neighbour, other] =
            ["192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2"].map(|a| a.parse().ok());
        for from in [v4, v6, None] {
            for _ in 0..GUESSES_AT_ONCE_MAX {
                let found = registry.find(&key(7, b"aaab"), from, 1);
                assert_eq!(found, Err(Dropped::WrongSecret));
            }
            let right = registry.find(&key(7, b"aaaa"), from, 1);
            assert_eq!(
                right,
                Err(Dropped::Throttled),
                "a right guess is not told from a wrong one"
            );
            assert!(registry.find(&key(7, b"aaaa"), from, 1 + GUESS_COST_US).is_ok());
        }
        let late = GUESS_COST_US * 60;
        assert_eq!(registry.find(&key(7, b"aaaa"), neighbour, 1), Err(Dropped::Throttled));
        assert!(registry.find(&key(7, b"aaaa"), other, 1).is_ok());
        assert!(registry.find(&key(7, b"aaaa"), v4, late).is_ok());
        // Keys nobody holds cost nothing: clients send them late.
        for _ in 0..GUESSES_AT_ONCE_MAX * 2 {
            assert_eq!(registry.find(&key(8, b"aaaa"), other, 1), Err(Dropped::NoSession));
        }
    }

    #[test]
    fn when_no_more_addresses_can_be_remembered_nobody_guesses() {
        let guesses = Guesses::default();
        let address = |n: usize| Some(IpAddr::V4(u32::try_from(n).unwrap().into()));
        (0..GUESSING_ADDRESSES_MAX).for_each(|n| guesses.charge(address(n), 0));
        assert!(guesses.used_up(address(GUESSING_ADDRESSES_MAX), 1));
        assert!(!guesses.used_up(address(1), 1), "whoever is remembered has its budget");
        assert!(!guesses.used_up(address(GUESSING_ADDRESSES_MAX), GUESS_COST_US));
        assert!(guesses.0.is_empty(), "what is whole again is forgotten");
    }
}
