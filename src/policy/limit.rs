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
    /// (rule, subject) → when the bucket is full again, microseconds of the monotonic clock.
    arrivals: DashMap<(Arc<str>, Arc<str>), u64>,
    /// When full buckets were last dropped.
    purged_us: AtomicU64,
}

/// Most buckets kept. Above it full ones are dropped, and while all are in use new subjects wait.
const SUBJECTS_MAX: usize = 100_000;
/// Full buckets are looked for at most this often: the search is linear.
const PURGE_EVERY_US: u64 = 1_000_000;

impl Throttles {
    /// Takes one from the limit's budget.
    ///
    /// # Errors
    /// The budget is used up; the value says in how many microseconds one will be there.
    pub fn take(&self, limit: &Limit, mono_us: u64) -> Result<(), u64> {
        let key = (Arc::clone(&limit.rule.0), Arc::clone(&limit.subject));
        // Each permission costs this much of the window; at least one, or it would cost nothing.
        let cost_us = (limit.per_us / u64::from(limit.count.max(1))).max(1);
        if self.arrivals.len() >= SUBJECTS_MAX && !self.arrivals.contains_key(&key) {
            self.purge(mono_us);
            if self.arrivals.len() >= SUBJECTS_MAX {
                return Err(cost_us);
            }
        }
        let mut arrival = self.arrivals.entry(key).or_insert(mono_us);
        let from = (*arrival).max(mono_us);
        let budget_us = limit.per_us.saturating_sub(cost_us);
        let ahead_us = from.saturating_sub(mono_us);
        if ahead_us > budget_us {
            // A limit that a reload tightened may find more taken than its window holds.
            return Err(ahead_us.saturating_sub(budget_us));
        }
        *arrival = from.saturating_add(cost_us);
        Ok(())
    }

    fn purge(&self, mono_us: u64) {
        let last = self.purged_us.load(Ordering::Relaxed);
        if last != 0 && mono_us.saturating_sub(last) < PURGE_EVERY_US {
            return;
        }
        let now = mono_us.max(1);
        if self.purged_us.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.arrivals.retain(|_, arrival| *arrival > mono_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::RuleId;

    fn limit(count: u32, per_us: u64, subject: &str) -> Limit {
        let rule = RuleId("r".into());
        Limit { rule, count, per_us, subject: subject.into(), enforced: true }
    }

    #[test]
    fn gives_the_count_at_once_and_then_evenly() {
        let throttles = Throttles::default();
        let limit = limit(10, 1_000_000, "maria");
        for _ in 0..10 {
            assert_eq!(throttles.take(&limit, 5_000_000), Ok(()));
        }
        assert_eq!(throttles.take(&limit, 5_000_000), Err(100_000));
        assert_eq!(throttles.take(&limit, 5_099_999), Err(1));
        assert_eq!(throttles.take(&limit, 5_100_000), Ok(()));
        assert_eq!(throttles.take(&limit, 5_100_000), Err(100_000));
        for _ in 0..10 {
            assert_eq!(throttles.take(&limit, 7_000_000), Ok(()));
        }
        assert!(throttles.take(&limit, 7_000_000).is_err());
    }

    #[test]
    fn subjects_do_not_share_a_budget() {
        let throttles = Throttles::default();
        assert_eq!(throttles.take(&limit(1, 1000, "a"), 0), Ok(()));
        assert_eq!(throttles.take(&limit(1, 1000, "b"), 0), Ok(()));
        assert!(throttles.take(&limit(1, 1000, "a"), 0).is_err());
    }

    #[test]
    fn subjects_are_bounded_and_full_buckets_make_room() {
        let throttles = Throttles::default();
        let each = |n: usize| limit(1, 1_000, &n.to_string());
        for n in 0..SUBJECTS_MAX {
            assert_eq!(throttles.take(&each(n), 10), Ok(()));
        }
        assert!(throttles.take(&each(SUBJECTS_MAX), 10).is_err(), "all are in use");
        assert!(throttles.take(&each(0), 10).is_err(), "known subjects keep their state");
        assert_eq!(throttles.take(&each(SUBJECTS_MAX), 2_000_000), Ok(()));
        assert!(throttles.arrivals.len() < 10);
    }
}
