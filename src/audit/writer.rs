//! The thread that writes: batch after batch, each until it is through.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::queue::Shared;
use super::sink::Sink;
use crate::admin::Status;
use crate::event::Event;

/// Most events handed to the sink at once; bounds its buffer, and frees places soon.
const BATCH_EVENTS_MAX: usize = 1024;

/// How the writer waits for a sink that fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The first wait; doubled each time.
    pub(super) backoff_min: Duration,
    /// The longest wait.
    pub(super) backoff_max: Duration,
    /// How long a sink may go on failing once the process stops.
    pub(super) closing: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            closing: Duration::from_secs(5),
        }
    }
}

/// The writer's state.
pub(super) struct Thread {
    shared: Arc<Shared>,
    sink: Box<dyn Sink>,
    health: Health,
    patience: Patience,
}

impl Thread {
    pub(super) fn new(
        shared: Arc<Shared>,
        sink: Box<dyn Sink>,
        status: Arc<Status>,
        patience: Patience,
    ) -> Self {
        Self { shared, sink, health: Health { status, failing: false }, patience }
    }

    /// Writes until asked to finish, then what is left.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut batch = Vec::new();
        loop {
            let closing = self.shared.next_batch(&mut batch);
            if batch.is_empty() && closing {
                return self.sink.close();
            }
            for events in batch.chunks(BATCH_EVENTS_MAX) {
                for event in events {
                    self.shared.metrics.observe(event);
                }
                self.write(events)?;
                self.shared.metrics.audit.written(events.len());
                self.shared.release(events.len());
            }
            batch.clear();
        }
    }

    /// Tries until the sink took the batch. Nothing is lost while the process runs; once it stops,
    /// a sink that keeps failing is given up.
    fn write(&mut self, events: &[Event]) -> io::Result<()> {
        let mut backoff = self.patience.backoff_min;
        let mut waited_closing = Duration::ZERO;
        loop {
            let Err(error) = self.sink.write(events) else {
                self.health.wrote();
                return Ok(());
            };
            self.shared.metrics.audit.sink_failures.inc();
            self.health.failed(&error);
            if self.shared.pause(backoff) {
                if waited_closing >= self.patience.closing {
                    let events = self.shared.places_used();
                    tracing::error!(%error, events, "audit events lost: the sink kept failing");
                    return Err(error);
                }
                waited_closing += backoff;
                // Somebody waits for the process to end.
                backoff = self.patience.backoff_min;
            } else {
                backoff = (backoff * 2).min(self.patience.backoff_max);
            }
        }
    }
}

/// Tells the world when writing begins to fail and when it works again, once each.
struct Health {
    status: Arc<Status>,
    failing: bool,
}

impl Health {
    fn failed(&mut self, error: &io::Error) {
        self.status.set_audit(Err(error.to_string()));
        if !self.failing {
            self.failing = true;
            tracing::error!(%error, "audit events cannot be written; they are kept and tried again");
        }
    }

    fn wrote(&mut self) {
        if self.failing {
            self.failing = false;
            self.status.set_audit(Ok(()));
            tracing::info!("audit events are written again");
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        // However the writer ends: from now on nothing is written.
        self.status.set_audit(Err("the audit writer has ended".to_owned()));
    }
}
