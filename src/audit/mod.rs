//! Where events go: a bounded queue whose places are reserved before a statement is forwarded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::Event;

/// The bounded queue; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    free: AtomicUsize,
    events: Mutex<Vec<Event>>,
    space: tokio::sync::Notify,
}

/// Places in the queue; given back on drop.
#[derive(Debug)]
pub struct Permit {
    inner: Arc<Inner>,
    places: usize,
}

impl Queue {
    /// With this many places.
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Inner {
            free: AtomicUsize::new(places),
            events: Mutex::default(),
            space: tokio::sync::Notify::new(),
        }))
    }

    /// Takes `n` places, all or none.
    pub fn try_reserve(&self, n: usize) -> Option<Permit> {
        let free = &self.0.free;
        let took =
            free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(n));
        took.ok().map(|_| Permit { inner: Arc::clone(&self.0), places: n })
    }

    /// Appends events, one place each.
    pub fn push(&self, permit: &mut Permit, events: impl Iterator<Item = Event>) {
        let mut queue = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            permit.places = permit.places.saturating_sub(1);
            queue.push(event);
        }
    }

    /// Waits until places may have come free.
    pub async fn space(&self) {
        self.0.space.notified().await;
    }

    /// Takes what was pushed and frees its places.
    #[cfg(test)]
    pub(crate) fn take(&self) -> Vec<Event> {
        let events =
            std::mem::take(&mut *self.0.events.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.free.fetch_add(events.len(), Ordering::AcqRel);
        self.0.space.notify_waiters();
        events
    }
}

impl Permit {
    /// Places held.
    pub fn len(&self) -> usize {
        self.places
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.places == 0
    }

    /// Takes up to `n` places out.
    pub fn split(&mut self, n: usize) -> Self {
        let n = n.min(self.places);
        self.places -= n;
        Self { inner: Arc::clone(&self.inner), places: n }
    }

    /// Adds the places of another.
    pub fn merge(&mut self, mut other: Self) {
        self.places += std::mem::take(&mut other.places);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.places > 0 {
            self.inner.free.fetch_add(self.places, Ordering::AcqRel);
            self.inner.space.notify_waiters();
        }
    }
}
