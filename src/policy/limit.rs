//! Rate limits: one number per (rule, subject), the theoretical arrival time of GCRA.
//!
//! A bucket is full again when that time has passed, and then holds nothing worth keeping; so old
//! entries can be dropped without changing any answer. Time is a value: nothing here reads a clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use super::decision::Limit;

/// Rate-limit counters, shared by all sessions; they survive a reload.
#[derive(Debug, Default)]
pub struct Throttles {
    /// (rule, subject) → when the bucket is full again, nanoseconds of the monotonic clock: a byte of
    /// many costs less than a microsecond.
    arrivals: DashMap<(Arc<str>, Arc<str>), u64>,
    /// When full buckets were last dropped.
    purged_us: AtomicU64,
}

/// Why a limit gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The budget is used up.
    For {
        /// When there will be enough, in microseconds.
        us: u64,
    },
    /// More is asked for than the limit gives in its whole window.
    Always,
}

/// Most buckets kept. Above it full ones are dropped, and while all are in use new subjects wait.
const SUBJECTS_MAX: usize = 100_000;
/// Full buckets are looked for at most this often: the search is linear.
const PURGE_EVERY_US: u64 = 1_000_000;

impl Throttles {
    /// Takes so many from the limit's budget.
    ///
    /// # Errors
    /// The budget is used up, or never so large; nothing is taken.
    pub fn take(&self, limit: &Limit, amount: u64, mono_us: u64) -> Result<(), Exceeded> {
        if amount > limit.count {
            return Err(Exceeded::Always);
        }
        let key = key(limit);
        let (now_ns, per_ns) = (mono_us.saturating_mul(1_000), window_ns(limit));
        let cost_ns = cost_ns(limit, amount);
        if self.arrivals.len() >= SUBJECTS_MAX && !self.arrivals.contains_key(&key) {
            self.purge(mono_us);
            if self.arrivals.len() >= SUBJECTS_MAX {
                return Err(Exceeded::For { us: cost_ns.div_ceil(1_000) });
            }
        }
        let mut arrival = self.arrivals.entry(key).or_insert(now_ns);
        let from = (*arrival).max(now_ns);
        let budget_ns = per_ns.saturating_sub(cost_ns);
        let ahead_ns = from.saturating_sub(now_ns);
        if ahead_ns > budget_ns {
            // A limit that a reload tightened may find more taken than its window holds.
            return Err(Exceeded::For { us: (ahead_ns - budget_ns).div_ceil(1_000) });
        }
        *arrival = from.saturating_add(cost_ns);
        Ok(())
    }

    /// Gives back what was taken: it came to nothing.
    pub fn give_back(&self, limit: &Limit, amount: u64) {
        if let Some(mut arrival) = self.arrivals.get_mut(&key(limit)) {
            *arrival = arrival.saturating_sub(cost_ns(limit, amount));
        }
    }

    fn purge(&self, mono_us: u64) {
        let last = self.purged_us.load(Ordering::Relaxed);
        if last != 0 && mono_us.saturating_sub(last) < PURGE_EVERY_US {
            return;
        }
        let now = mono_us.max(1);
        if self.purged_us.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.arrivals.retain(|_, arrival| *arrival > mono_us.saturating_mul(1_000));
        }
    }
}

fn key(limit: &Limit) -> (Arc<str>, Arc<str>) {
    (Arc::clone(&limit.rule.0), Arc::clone(&limit.subject))
}

fn window_ns(limit: &Limit) -> u64 {
    limit.per_us.saturating_mul(1_000)
}

/// What so many cost of the window; at least one together, or they would cost nothing.
fn cost_ns(limit: &Limit, amount: u64) -> u64 {
    let per_ns = window_ns(limit);
    let cost = u128::from(per_ns) * u128::from(amount) / u128::from(limit.count.max(1));
    u64::try_from(cost).unwrap_or(per_ns).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::RuleId;
    use crate::policy::decision::Counted;

    fn limit(count: u64, per_us: u64, subject: &str) -> Limit {
        let rule = RuleId("r".into());
        Limit { rule, of: Counted::Uses, count, per_us, subject: subject.into(), enforced: true }
    }

    #[test]
    fn gives_the_count_at_once_and_then_evenly() {
        let throttles = Throttles::default();
        let limit = limit(10, 1_000_000, "maria");
        for _ in 0..10 {
            assert_eq!(throttles.take(&limit, 1, 5_000_000), Ok(()));
        }
        assert_eq!(throttles.take(&limit, 1, 5_000_000), Err(Exceeded::For { us: 100_000 }));
        assert_eq!(throttles.take(&limit, 1, 5_099_999), Err(Exceeded::For { us: 1 }));
        assert_eq!(throttles.take(&limit, 1, 5_100_000), Ok(()));
        assert_eq!(throttles.take(&limit, 1, 5_100_000), Err(Exceeded::For { us: 100_000 }));
        for _ in 0..10 {
            assert_eq!(throttles.take(&limit, 1, 7_000_000), Ok(()));
        }
        assert!(throttles.take(&limit, 1, 7_000_000).is_err());
    }

    #[test]
    fn subjects_do_not_share_a_budget() {
        let throttles = Throttles::default();
        assert_eq!(throttles.take(&limit(1, 1000, "a"), 1, 0), Ok(()));
        assert_eq!(throttles.take(&limit(1, 1000, "b"), 1, 0), Ok(()));
        assert!(throttles.take(&limit(1, 1000, "a"), 1, 0).is_err());
    }

    #[test]
    fn subjects_are_bounded_and_full_buckets_make_room() {
        let throttles = Throttles::default();
        let each = |n: usize| limit(1, 1_000, &n.to_string());
        for n in 0..SUBJECTS_MAX {
            assert_eq!(throttles.take(&each(n), 1, 10), Ok(()));
        }
        assert!(throttles.take(&each(SUBJECTS_MAX), 1, 10).is_err(), "all are in use");
        assert!(throttles.take(&each(0), 1, 10).is_err(), "known subjects keep their state");
        assert_eq!(throttles.take(&each(SUBJECTS_MAX), 1, 2_000_000), Ok(()));
        assert!(throttles.arrivals.len() < 10);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let throttles = Throttles::default();
        let limit = limit(10, 1_000_000, "maria");
        throttles.give_back(&limit, 1);
        assert_eq!(throttles.take(&limit, 7, 0), Ok(()));
        assert_eq!(throttles.take(&limit, 3, 0), Ok(()));
        throttles.give_back(&limit, 3);
        assert!(throttles.take(&limit, 4, 0).is_err());
        assert_eq!(throttles.take(&limit, 3, 0), Ok(()));
    }

    #[test]
    fn bytes_are_taken_as_many_as_they_are() {
        let throttles = Throttles::default();
        // A gigabyte a second: ten bytes cost ten nanoseconds.
        let limit = Limit { of: Counted::Bytes, ..limit(1_000_000_000, 1_000_000, "maria") };
        assert_eq!(throttles.take(&limit, 1_000_000_001, 0), Err(Exceeded::Always));
        assert_eq!(throttles.take(&limit, 999_999_990, 0), Ok(()));
        assert_eq!(throttles.take(&limit, 11, 0), Err(Exceeded::For { us: 1 }));
        assert_eq!(throttles.take(&limit, 10, 0), Ok(()));
        assert_eq!(throttles.take(&limit, 1, 0), Err(Exceeded::For { us: 1 }));
        assert_eq!(throttles.take(&limit, 500_000_000, 500_000), Ok(()));
        assert_eq!(
            throttles.take(&limit, 500_000_000, 500_000),
            Err(Exceeded::For { us: 500_000 })
        );
        // One that takes the whole window has to find all of it.
        assert_eq!(throttles.take(&limit, 1_000_000_000, 1_999_999), Ok(()));
    }
}
