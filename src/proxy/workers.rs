//! One single-threaded runtime per core, each driving its own share of the connections.
//!
//! A connection stays on the thread it was given: its two sockets, its wake-ups and its memory are
//! never handed to another core. Measured beside one work-stealing runtime: a sixth less CPU per
//! transaction (ADR 0007). Accepting, the admin port and reloads stay on the main runtime.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The threads; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Connections it drives now.
    load: Arc<AtomicUsize>,
    /// Dropped to end the thread.
    _alive: oneshot::Sender<()>,
}

/// A connection's place on a worker, given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    /// Where to spawn the connection.
    pub(crate) runtime: Handle,
    load: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// The system gives no thread or no reactor.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let workers = (0..count.max(1)).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers })
    }

    /// A place on the worker with the fewest connections; `None` only if there is no worker.
    pub(crate) fn place(&self) -> Option<Place> {
        let least = self.workers.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed))?;
        least.load.fetch_add(1, Ordering::Relaxed);
        Some(Place { runtime: least.runtime.clone(), load: Arc::clone(&least.load) })
    }
}

impl Worker {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel();
        std::thread::Builder::new().name(format!("worker-{index}")).stack_size(STACK_BYTES).spawn(
            move || {
                // Ends with an error when the other half is dropped, which is the signal.
                let _ = runtime.block_on(ended);
            },
        )?;
        Ok(Self { runtime: handle, load: Arc::default(), _alive: alive })
    }
}

/// Reserved, not used: statements are parsed on this stack, deep ones on one of their own.
const STACK_BYTES: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_the_least_loaded_worker_and_give_their_place_back() {
        let workers = Workers::start(2).unwrap();
        let loads = || -> Vec<usize> {
            workers.workers.iter().map(|one| one.load.load(Ordering::Relaxed)).collect()
        };
        let places: Vec<Place> = (0..4).map(|_| workers.place().unwrap()).collect();
        assert_eq!(loads(), [2, 2]);
        let first = places.first().unwrap();
        let task = first.runtime.spawn(async { std::thread::current().name().map(str::to_owned) });
        let name = futures_block(task);
        assert!(name.starts_with("worker-"), "{name}");
        drop(places);
        assert_eq!(loads(), [0, 0]);
    }

    fn futures_block(task: tokio::task::JoinHandle<Option<String>>) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(task).unwrap().unwrap()
    }
}
