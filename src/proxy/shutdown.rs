//! Stopping in two stages: drain, then end.
//!
//! ```text
//! Running ──SIGTERM, SIGINT──► Draining ──drain_timeout or a second signal──► Ending
//! ```
//! While draining, idle sessions end at once and the others when they become idle. At `Ending`
//! every session gets its last words and is closed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// How far the process is with stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Not at all.
    Running,
    /// No new connections; sessions end when they are idle.
    Draining,
    /// Sessions end now.
    Ending,
}

/// The stage, shared by everything that must know of it.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    stage: AtomicU8,
    changed: Arc<Notify>,
}

impl Shutdown {
    /// The stage now.
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Running,
            1 => Stage::Draining,
            _ => Stage::Ending,
        }
    }

    /// Moves on to `stage`; never back.
    pub(crate) fn advance(&self, stage: Stage) {
        let number = match stage {
            Stage::Running => 0,
            Stage::Draining => 1,
            Stage::Ending => 2,
        };
        self.stage.fetch_max(number, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// Waits until the process is at `stage` or further. Cancel safe.
    pub(crate) async fn reached(&self, stage: Stage) {
        loop {
            let changed = self.changed.notified();
            if self.stage() >= stage {
                return;
            }
            changed.await;
        }
    }
}

/// One connection's view of the stage: costs an atomic load per turn, not a lock.
#[derive(Debug)]
pub(crate) struct StageWatch {
    seen: Stage,
    /// The registration that wakes the task, and the waker it holds.
    armed: Option<(Pin<Box<OwnedNotified>>, Waker)>,
}

impl Default for StageWatch {
    fn default() -> Self {
        Self { seen: Stage::Running, armed: None }
    }
}

impl StageWatch {
    /// The stage now; makes sure that the task is woken when it changes.
    pub(crate) fn poll(&mut self, shutdown: &Shutdown, cx: &mut Context<'_>) -> Stage {
        let same_task = self.armed.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker()));
        if !same_task || shutdown.stage() != self.seen {
            self.arm(shutdown, cx);
        }
        self.seen
    }

    fn arm(&mut self, shutdown: &Shutdown, cx: &mut Context<'_>) {
        loop {
            // Registered before the stage is read: a change in between is not lost.
            let mut changed = Box::pin(Arc::clone(&shutdown.changed).notified_owned());
            self.seen = shutdown.stage();
            if changed.as_mut().poll(cx) == Poll::Pending {
                self.armed = Some((changed, cx.waker().clone()));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_watch_is_woken_at_each_stage_and_never_goes_back() {
        let shutdown = Shutdown::default();
        let mut watch = StageWatch::default();
        for stage in [Stage::Draining, Stage::Ending] {
            let seen = std::future::poll_fn(|cx| match watch.poll(&shutdown, cx) {
                seen if seen >= stage => Poll::Ready(seen),
                _ => Poll::Pending,
            });
            let (seen, ()) = tokio::join!(seen, async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                shutdown.advance(stage);
            });
            assert_eq!(seen, stage);
        }
        shutdown.advance(Stage::Draining);
        assert_eq!(shutdown.stage(), Stage::Ending);
        shutdown.reached(Stage::Draining).await;
    }
}
