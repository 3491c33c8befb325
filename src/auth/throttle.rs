//! Slows down guessing of passwords: who failed lately waits before the next try.
//!
//! Failures are counted per user *and* address, and per address. Nobody can lock an account for
//! everybody else, because what somebody does from another address never counts against it; and an
//! address shared by many users (a gateway, another proxy) delays only those of them that have not
//! logged in from there lately. A user that does not exist counts as one that does, so the
//! delays tell nothing about which users there are.
//!
//! Deliberately absent: delaying an answer while the connection waits, which would let failures
//! hold client slots.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;

use super::origin::Owner;

/// Memory of failed logins, bounded.
#[derive(Debug)]
pub struct Throttle {
    bounds: Bounds,
    pairs: Cache<(Box<str>, Owner), Arc<Mutex<Tally>>>,
    origins: Cache<Owner, Arc<Mutex<Tally>>>,
}

/// From when on, and for how long, failures delay the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Failures of one user from one address that cost nothing: mistyping.
    pub free_per_user: u32,
    /// Failures from one address that cost nothing.
    pub free_per_address: u32,
    /// The first delay; each further failure doubles it.
    pub delay_s: u64,
    /// The longest delay. Zero turns the throttle off.
    pub delay_max_s: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { free_per_user: 5, free_per_address: 50, delay_s: 1, delay_max_s: 60 }
    }
}

#[derive(Debug, Default)]
struct Tally {
    failures: u32,
    last_failure_us: Option<u64>,
    last_success_us: Option<u64>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new(Bounds::default())
    }
}

impl Throttle {
    /// Nobody has failed yet.
    pub fn new(bounds: Bounds) -> Self {
        let (pairs, origins) = (Cache::new(REMEMBERED_MAX), Cache::new(REMEMBERED_MAX));
        Self { bounds, pairs, origins }
    }

    /// Whether this client may try now.
    ///
    /// # Errors
    /// Seconds until it may.
    pub fn admit(&self, user: &str, address: Option<IpAddr>, now_us: u64) -> Result<(), u64> {
        let origin = Owner::of(address);
        let mut known_here = false;
        let mut wait_us = 0;
        if let Some(tally) = self.pairs.get(&(user.into(), origin)) {
            let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            known_here =
                tally.last_success_us.is_some_and(|at| now_us.saturating_sub(at) < TRUSTED_US);
            wait_us = self.wait_us(&tally, self.bounds.free_per_user, now_us);
        }
        if !known_here && let Some(tally) = self.origins.get(&origin) {
            let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            wait_us = wait_us.max(self.wait_us(&tally, self.bounds.free_per_address, now_us));
        }
        if wait_us == 0 { Ok(()) } else { Err(wait_us.div_ceil(SECOND_US)) }
    }

    /// A proof held. What failed within the last minute counts half from now on, the rest no more:
    /// behind a shared address somebody else may have caused it, and somebody who guesses must not
    /// begin anew with every login of whom he guesses for.
    pub fn succeeded(&self, user: &str, address: Option<IpAddr>, now_us: u64) {
        let tally = tally(&self.pairs, &(user.into(), Owner::of(address)));
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let recent =
            tally.last_failure_us.filter(|at| now_us.saturating_sub(*at) < NOT_FORGIVEN_US);
        *tally = Tally {
            failures: recent.map_or(0, |_| tally.failures / 2),
            last_failure_us: recent,
            last_success_us: Some(now_us),
        };
    }

    /// A proof did not hold.
    pub fn failed(&self, user: &str, address: Option<IpAddr>, now_us: u64) {
        let origin = Owner::of(address);
        for tally in [tally(&self.pairs, &(user.into(), origin)), tally(&self.origins, &origin)] {
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            let forgotten =
                tally.last_failure_us.is_some_and(|at| now_us.saturating_sub(at) >= FORGOTTEN_US);
            tally.failures = if forgotten { 1 } else { tally.failures.saturating_add(1) };
            tally.last_failure_us = Some(now_us);
        }
    }

    /// How long this tally makes its owner wait from now.
    fn wait_us(&self, tally: &Tally, free: u32, now_us: u64) -> u64 {
        let over = tally.failures.saturating_sub(free);
        let Some(last) = tally.last_failure_us.filter(|_| over > 0) else { return 0 };
        let doubled = 1_u64.checked_shl(over - 1).unwrap_or(u64::MAX);
        let delay_s = self.bounds.delay_s.saturating_mul(doubled).min(self.bounds.delay_max_s);
        last.saturating_add(delay_s.saturating_mul(SECOND_US)).saturating_sub(now_us)
    }
}

fn tally<K>(cache: &Cache<K, Arc<Mutex<Tally>>>, key: &K) -> Arc<Mutex<Tally>>
where
    K: std::hash::Hash + Eq + Clone,
{
    let made =
        cache.get_or_insert_with(key, || Ok::<_, std::convert::Infallible>(Default::default()));
    match made {
        Ok(tally) => tally,
        Err(never) => match never {},
    }
}

/// Users with addresses, and addresses, that are remembered. Who has the means to fail from more
/// addresses than this pushes the oldest out.
const REMEMBERED_MAX: usize = 32 * 1024;

/// Failures are forgotten when none came for this long.
const FORGOTTEN_US: u64 = 15 * 60 * SECOND_US;

/// For this long after a login, what others do at the same address does not count.
const TRUSTED_US: u64 = 60 * 60 * SECOND_US;

/// Failures as young as this are not forgiven whole for a login.
const NOT_FORGIVEN_US: u64 = 60 * SECOND_US;

const SECOND_US: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = SECOND_US;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn failures(throttle: &Throttle, user: &str, from: &str, times: u32, now_us: u64) {
        (0..times).for_each(|_| throttle.failed(user, ip(from), now_us));
    }

    #[test]
    fn the_delay_doubles_up_to_its_cap_and_ends() {
        let throttle = Throttle::default();
        failures(&throttle, "u", "192.0.2.1", 5, 0);
        assert_eq!(throttle.admit("u", ip("192.0.2.1"), 0), Ok(()));
        for delay in [1, 2, 4, 8, 16, 32, 60, 60] {
            failures(&throttle, "u", "192.0.2.1", 1, 0);
            assert_eq!(throttle.admit("u", ip("192.0.2.1"), 0), Err(delay));
            assert_eq!(throttle.admit("u", ip("192.0.2.1"), delay * S), Ok(()));
        }
    }

    #[test]
    fn nobody_locks_an_account_for_others() {
        let throttle = Throttle::default();
        failures(&throttle, "u", "192.0.2.1", 1000, 0);
        assert!(throttle.admit("u", ip("192.0.2.1"), 0).is_err());
        assert!(throttle.admit("u", ip("::ffff:192.0.2.1"), 0).is_err());
        assert_eq!(throttle.admit("u", ip("192.0.2.2"), 0), Ok(()));
        assert_eq!(throttle.admit("u", None, 0), Ok(()));
    }

    #[test]
    fn an_address_that_tries_many_users_waits_too_but_not_who_is_known_there() {
        let throttle = Throttle::default();
        throttle.succeeded("app", ip("192.0.2.1"), 0);
        for user in 0..60 {
            failures(&throttle, &format!("guess{user}"), "192.0.2.1", 1, S);
        }
        assert_eq!(throttle.admit("other", ip("192.0.2.1"), S), Err(60));
        assert_eq!(throttle.admit("app", ip("192.0.2.1"), S), Ok(()));
        assert_eq!(throttle.admit("other", ip("192.0.2.1"), 61 * S), Ok(()));
        assert_eq!(throttle.admit("other", ip("192.0.2.7"), S), Ok(()));
    }

    #[test]
    fn a_success_forgives_the_user_and_silence_everybody() {
        let throttle = Throttle::default();
        failures(&throttle, "u", "2001:db8::1", 9, 0);
        assert!(throttle.admit("u", ip("2001:db8::2"), 0).is_err(), "the same /64");
        assert_eq!(throttle.admit("u", ip("2001:db8:0:1::1"), 0), Ok(()));
        throttle.succeeded("u", ip("2001:db8::1"), NOT_FORGIVEN_US);
        failures(&throttle, "u", "2001:db8::1", 5, 61 * S);
        assert_eq!(throttle.admit("u", ip("2001:db8::1"), 61 * S), Ok(()));
        failures(&throttle, "u", "2001:db8::1", 5, FORGOTTEN_US + 61 * S);
        assert_eq!(throttle.admit("u", ip("2001:db8::1"), FORGOTTEN_US + 61 * S), Ok(()));
    }

    #[test]
    fn a_login_of_somebody_else_does_not_begin_the_count_anew() {
        let throttle = Throttle::default();
        failures(&throttle, "u", "192.0.2.1", 100, 0);
        throttle.succeeded("u", ip("192.0.2.1"), 59 * S);
        assert_eq!(throttle.admit("u", ip("192.0.2.1"), 59 * S), Err(1), "until a minute is over");
        failures(&throttle, "u", "192.0.2.1", 1, 59 * S);
        assert_eq!(throttle.admit("u", ip("192.0.2.1"), 59 * S), Err(60));
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::default();
        for user in 0..3 * REMEMBERED_MAX {
            throttle.failed(&user.to_string(), None, 0);
        }
        assert!(throttle.pairs.len() <= REMEMBERED_MAX);
    }

    #[test]
    fn a_cap_of_zero_turns_it_off() {
        let throttle = Throttle::new(Bounds { delay_max_s: 0, ..Bounds::default() });
        failures(&throttle, "u", "192.0.2.1", 1000, 0);
        assert_eq!(throttle.admit("u", ip("192.0.2.1"), 0), Ok(()));
    }
}
