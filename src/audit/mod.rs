//! Where audit events go: a bounded queue, one writer thread, one sink.
//!
//! ```text
//! session ── reserve ──► Permit ── push ──► inbox ──► writer thread ──► Sink (file, stdout)
//!               ▲                                          │
//!               └──────── places come free ────────────────┘
//! ```
//!
//! **Reserve before you forward.** A connection holds places for the events a turn may produce
//! before the turn begins, so a full queue slows clients down (or refuses them) instead of losing a
//! record. Reserving and giving back are atomics, pushing is an append under a short lock; no system
//! call is made for an event while the writer is busy or gathering a batch.
//!
//! When the sink fails (full disk, I/O error) the writer keeps the batch and tries again, for as
//! long as it takes: the queue fills up, and `when_full` decides what clients see. Only
//! `drop_and_count` loses events, and it says in the trail itself how many.
//!
//! Deliberately absent: syncing to disk for each event. What the process accepted and the kernel
//! took survives a crash of the process, not a crash of the machine; see `docs/AUDIT.md`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;

use crate::admin::Status;
use crate::event::Instance;
use crate::metrics::Metrics;

mod file;
mod queue;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

pub use queue::{Permit, Queue};
pub use sink::Sink;

use file::{Device, Rotating, Rotation};
use queue::Shared;
use sink::Lines;
use writer::Patience;

/// The audit part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Where the events go.
    pub target: Target,
    /// Places in the queue: events reserved, waiting or being written.
    pub queue_events: usize,
    /// What a client sees when the queue is full.
    pub when_full: WhenFull,
    /// How long `WhenFull::Wait` waits before it becomes a refusal.
    pub wait_deadline: Duration,
}

/// Where audit events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One JSON object a line, appended to a file that is rotated by size.
    File {
        /// The file; rotated ones get `.1`, `.2` …, the greatest being the oldest.
        path: PathBuf,
        /// Size in bytes above which it is rotated.
        rotate_bytes: u64,
        /// How many rotated files are kept, at least 1.
        keep: u32,
    },
    /// One JSON object a line, to standard output.
    Stdout,
}

/// What happens to a statement when no place for its events is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The client waits until the deadline, then is refused.
    Wait,
    /// The client is refused at once.
    Refuse,
    /// The statement runs; its events are dropped and counted, and the trail tells how many.
    DropAndCount,
}

/// Fewest places a queue may have: the turns of a few connections must fit.
pub const QUEUE_EVENTS_MIN: usize = 64;

/// Opens the sink and starts the writer.
///
/// # Errors
/// The file cannot be opened, is in use by another process, or a number is out of range.
pub fn start(
    config: &AuditConfig,
    instance: Instance,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
) -> anyhow::Result<(Queue, Writer)> {
    anyhow::ensure!(
        config.queue_events >= QUEUE_EVENTS_MIN,
        "audit queue of {} events is too small, at least {QUEUE_EVENTS_MIN} are needed",
        config.queue_events
    );
    let sink: Box<dyn Sink> = match &config.target {
        Target::File { path, rotate_bytes, keep } => {
            let rotation = Rotation { rotate_bytes: *rotate_bytes, keep: *keep };
            let file = Rotating::open(path, rotation)
                .with_context(|| format!("open audit file `{}`", path.display()))?;
            Box::new(Lines::new(instance, file))
        }
        Target::Stdout => {
            let output = Device::stdout().context("open standard output for audit events")?;
            Box::new(Lines::new(instance, output))
        }
    };
    let shared = Shared::new(config, metrics);
    let writer = spawn(Arc::clone(&shared), sink, status, Patience::default())?;
    Ok((Queue::new(shared), writer))
}

/// A queue of any size whose sink is a test's.
#[cfg(test)]
pub(crate) fn start_with(
    config: &AuditConfig,
    sink: Box<dyn Sink>,
    metrics: Arc<Metrics>,
) -> (Queue, Writer) {
    let shared = Shared::new(config, metrics);
    let status = Arc::new(Status::default());
    let writer = spawn(Arc::clone(&shared), sink, status, Patience::default()).expect("a writer");
    (Queue::new(shared), writer)
}

fn spawn(
    shared: Arc<Shared>,
    sink: Box<dyn Sink>,
    status: Arc<Status>,
    patience: Patience,
) -> anyhow::Result<Writer> {
    let (finished, done) = oneshot::channel();
    let thread = writer::Thread::new(Arc::clone(&shared), sink, status, patience);
    std::thread::Builder::new()
        .name("audit-writer".to_owned())
        .spawn(move || {
            // Nobody waits for the answer when the process ends without closing.
            drop(finished.send(thread.run()));
        })
        .context("start the audit writer")?;
    Ok(Writer { shared, done })
}

/// The running writer. Dropping it leaves it running; [`Writer::close`] ends it.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    done: oneshot::Receiver<std::io::Result<()>>,
}

impl Writer {
    /// Writes everything pushed so far, syncs it to disk, and ends the writer. Events pushed
    /// afterwards are lost: end the sessions first. Not cancel safe.
    ///
    /// # Errors
    /// The sink kept failing for some seconds, or the writer panicked; events may be lost.
    pub async fn close(self) -> std::io::Result<()> {
        self.shared.close();
        self.done.await.unwrap_or_else(|_| Err(std::io::Error::other("the audit writer panicked")))
    }
}
