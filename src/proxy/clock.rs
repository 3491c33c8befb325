//! The one place that reads clocks. Everything below gets time as a value.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::event::Now;

/// The clocks of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    /// Begins to count.
    #[expect(clippy::disallowed_methods, reason = "the shell's clock: the one reader")]
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Both clocks, read once.
    #[expect(clippy::disallowed_methods, reason = "the shell's clock: the one reader")]
    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mono = self.started.elapsed();
        Now {
            wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
            mono_us: u64::try_from(mono.as_micros()).unwrap_or(u64::MAX),
        }
    }
}
