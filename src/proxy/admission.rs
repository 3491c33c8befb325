//! Admissions for clients: those who are logging in, and those who are in.
//!
//! The two are counted apart, so that whoever only connects and stays silent can never take the
//! place of somebody who can log in:
//!
//! ```text
//! accept ──LoginPlace──► … ──login──► ClientPlace      no client place left: 53300
//!            │ one address holds too many: 53300
//!            └ none left: the listener waits, clients wait in the system's queue
//! ```
//! A cancel request takes a login place only, so it gets through when every client place is taken.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::auth::origin::Owner;

/// All places of the process.
#[derive(Debug)]
pub(crate) struct Admissions {
    logins: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    logins_per_origin: usize,
    /// How many login places each origin holds now; no entry for none.
    by_origin: Mutex<HashMap<Origin, usize>>,
}

/// What one person can be expected to have one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// Whoever owns this address.
    Address(Owner),
    /// A user of this machine, behind a Unix socket.
    User(u32),
}

/// One connection's place, first for its login, then for its session.
#[derive(Debug)]
pub(crate) struct Admission {
    all: Arc<Admissions>,
    /// When the login must be over.
    pub(super) deadline: Instant,
    held: Held,
}

#[derive(Debug)]
enum Held {
    LoggingIn { _place: OwnedSemaphorePermit, _of_origin: Option<OriginPlace> },
    In { _place: OwnedSemaphorePermit },
    Out,
}

#[derive(Debug)]
struct OriginPlace {
    all: Arc<Admissions>,
    origin: Origin,
}

/// Every client place is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken;

// === impl Admissions ===

impl Admissions {
    /// This many at a time.
    pub(super) fn new(clients: usize, logins: usize, logins_per_origin: usize) -> Arc<Self> {
        Arc::new(Self {
            logins: Arc::new(Semaphore::new(logins.min(Semaphore::MAX_PERMITS))),
            clients: Arc::new(Semaphore::new(clients.min(Semaphore::MAX_PERMITS))),
            logins_per_origin,
            by_origin: Mutex::default(),
        })
    }

    /// A place to log in on, as soon as there is one. Cancel safe. `None` never comes: the
    /// semaphore is not closed.
    pub(super) async fn login(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.logins).acquire_owned().await.ok()
    }

    /// A place to log in on, if there is one now.
    #[cfg(test)]
    pub(super) fn try_login(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.logins).try_acquire_owned().ok()
    }

    /// Whether a listener that wants a place to log in on would wait.
    pub(super) fn logins_taken(&self) -> bool {
        self.logins.available_permits() == 0
    }

    fn counted(&self) -> MutexGuard<'_, HashMap<Origin, usize>> {
        // A panic while counting leaves a count that is off by one at most.
        self.by_origin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Origin ===

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self::Address(Owner::of(Some(address)))
    }
}

// === impl Admission ===

impl Admission {
    /// A client that was accepted on this place just now.
    pub(super) fn new(
        all: Arc<Admissions>,
        place: OwnedSemaphorePermit,
        login_timeout: Duration,
    ) -> Self {
        let held = Held::LoggingIn { _place: place, _of_origin: None };
        // Moves with the clock of the runtime, which tests may pause.
        Self { all, deadline: Instant::now() + login_timeout, held }
    }

    /// What is left of the time for the login.
    pub(super) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Counts the client among its origin's; `false` when those are too many already.
    pub(super) fn comes_from(&mut self, origin: Origin) -> bool {
        let mut counted = self.all.counted();
        let count = counted.entry(origin).or_default();
        if *count >= self.all.logins_per_origin {
            return false;
        }
        *count += 1;
        drop(counted);
        if let Held::LoggingIn { _of_origin, .. } = &mut self.held {
            *_of_origin = Some(OriginPlace { all: Arc::clone(&self.all), origin });
        }
        true
    }

    /// Whether a client that logs in now would find a place. It may be gone when it has.
    pub(super) fn has_room(&self) -> bool {
        self.all.clients.available_permits() > 0
    }

    /// The login is over: its place is free for the next, and a client's place is taken.
    pub(super) fn logged_in(&mut self) -> Result<(), Taken> {
        let taken = Arc::clone(&self.all.clients).try_acquire_owned();
        let (held, result) = match taken {
            Ok(place) => (Held::In { _place: place }, Ok(())),
            Err(_none_left) => (Held::Out, Err(Taken)),
        };
        self.held = held;
        result
    }
}

impl Drop for OriginPlace {
    fn drop(&mut self) {
        let mut counted = self.all.counted();
        if let Some(count) = counted.get_mut(&self.origin) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counted.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn arrives(places: &Arc<Admissions>, from: &str) -> (Admission, bool) {
        let place = places.login().await.unwrap();
        let mut admission = Admission::new(Arc::clone(places), place, Duration::from_secs(1));
        let origin = Origin::from(from.parse::<IpAddr>().unwrap());
        let counted = admission.comes_from(origin);
        (admission, counted)
    }

    #[tokio::test]
    async fn an_origin_has_its_share_of_logins_and_gets_it_back() {
        let places = Admissions::new(10, 10, 2);
        let (first, ok) = arrives(&places, "10.0.0.1").await;
        let (second, also) = arrives(&places, "::ffff:10.0.0.1").await;
        assert!(ok && also);
        let (refused, more) = arrives(&places, "10.0.0.1").await;
        assert!(!more);
        assert!(arrives(&places, "10.0.0.2").await.1, "others are not concerned");
        drop(refused);
        assert!(!arrives(&places, "10.0.0.1").await.1, "the refused one held none");
        drop(first);
        assert!(arrives(&places, "10.0.0.1").await.1);
        drop(second);
        // A /64 is one origin.
        let _six = (arrives(&places, "2001:db8::1").await, arrives(&places, "2001:db8::2").await);
        assert!(!arrives(&places, "2001:db8::3").await.1);
        assert!(arrives(&places, "2001:db8:0:1::3").await.1);
        drop(_six);
        assert!(places.counted().is_empty(), "nothing is kept of those who left");
    }

    #[tokio::test]
    async fn who_is_in_frees_the_place_for_logins() {
        let places = Admissions::new(1, 1, 1);
        let (mut first, _) = arrives(&places, "10.0.0.1").await;
        assert!(places.logins_taken() && first.has_room());
        assert_eq!(first.logged_in(), Ok(()));
        let (mut second, counted) = arrives(&places, "10.0.0.1").await;
        assert!(counted && !second.has_room());
        assert_eq!(second.logged_in(), Err(Taken));
        drop(first);
        assert!(!places.logins_taken() && second.has_room());
    }
}
