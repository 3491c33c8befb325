//! The one place that reads clocks. Everything below gets time as a value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::event::Now;

/// The clocks of this process.
///
/// Every turn of every connection asks for the time, so only the monotonic clock is read each time;
/// the wall clock is followed by it and read again after [`WALL_US`]. A step of the wall clock is
/// seen within that time, and between two readings an event is never dated before an earlier one.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    started: Instant,
    wall: Arc<Wall>,
}

/// What the wall clock said when it was read last. Threads may read it at the same time, and each
/// writes what it found: one that is stopped between its two clocks dates events ahead until the next
/// reading.
#[derive(Debug)]
struct Wall {
    /// What it showed when the monotonic clock was at zero, microseconds since 1970.
    zero_us: AtomicU64,
    /// When it was read, monotonic microseconds.
    read_us: AtomicU64,
}

impl Clock {
    /// Begins to count.
    #[expect(clippy::disallowed_methods, reason = "the shell's clock: the one reader")]
    pub(crate) fn start() -> Self {
        let wall = Wall { zero_us: AtomicU64::new(wall_us()), read_us: AtomicU64::new(0) };
        Self { started: Instant::now(), wall: Arc::new(wall) }
    }

    /// Both clocks.
    pub(crate) fn now(&self) -> Now {
        let mono_us = micros(self.started.elapsed());
        if mono_us.saturating_sub(self.wall.read_us.load(Ordering::Relaxed)) >= WALL_US {
            self.wall.zero_us.store(wall_us().saturating_sub(mono_us), Ordering::Relaxed);
            self.wall.read_us.store(mono_us, Ordering::Relaxed);
        }
        let zero_us = self.wall.zero_us.load(Ordering::Relaxed);
        Now { wall_us: zero_us.saturating_add(mono_us), mono_us }
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell's clock: the one reader")]
fn wall_us() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn micros(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(time.subsec_micros()))
}

/// How long the wall clock is followed without being read, microseconds.
const WALL_US: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_on_together_and_the_wall_clock_is_the_systems() {
        let clock = Clock::start();
        let (before, first) = (wall_us(), clock.now());
        let mut last = first;
        while last.mono_us < 2 * WALL_US + 1 {
            let now = clock.now();
            assert!(now.mono_us >= last.mono_us);
            last = now;
        }
        let after = wall_us();
        // Read anew at least twice; a machine whose clock is set meanwhile is not this test's.
        assert!(first.wall_us + 1_000 >= before && last.wall_us <= after + 1_000);
        assert!(last.wall_us + 1_000 >= before + 2 * WALL_US);
    }
}
