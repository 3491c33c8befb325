//! A session's places in the audit queue.
//!
//! Invariant: after every turn the seat holds at least as many places as the session owes events,
//! so an outcome of a statement that was forwarded can always be recorded. As long as the queue has
//! plenty it keeps the room for its next turn as well, which spares all sessions a shared counter;
//! beyond that a session holds nothing: thousands of them must not fill the queue by waiting.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::Sleep;

use crate::audit::{Permit, Queue, WhenFull};
use crate::event::Event;

/// Events one turn may produce or newly owe: the room a session is given.
pub(crate) const TURN_EVENTS: usize = 16;

/// The queue took no more for as long as we may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Places held for one session.
pub(crate) struct Seat {
    queue: Queue,
    held: Option<Permit>,
    wait: Option<Wait>,
}

/// Waiting for places: for the queue to have some, and for the patience to end.
struct Wait {
    space: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    deadline: Pin<Box<Sleep>>,
}

impl Seat {
    /// Holds nothing yet.
    pub(crate) fn new(queue: Queue) -> Self {
        Self { queue, held: None, wait: None }
    }

    /// Places beyond what is owed: what a turn may use.
    pub(crate) fn room(&self, owed: usize) -> usize {
        self.held().saturating_sub(owed)
    }

    /// Holds `owed` places and room for one turn, if the queue has them now.
    pub(crate) fn try_reserve(&mut self, owed: usize) -> bool {
        let missing = owed.saturating_add(TURN_EVENTS).saturating_sub(self.held());
        let held = match &mut self.held {
            _ if missing == 0 => true,
            Some(held) => held.grow(missing),
            None => {
                self.held = self.queue.try_reserve(missing);
                self.held.is_some()
            }
        };
        if held {
            self.wait = None;
        }
        held
    }

    /// Holds `owed` places and room for one turn, waiting for them as long as the patience lasts.
    pub(crate) fn poll_reserve(
        &mut self,
        owed: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Full>> {
        loop {
            if self.try_reserve(owed) {
                return Poll::Ready(Ok(()));
            }
            if self.queue.when_full() != WhenFull::Wait {
                return Poll::Ready(Err(Full));
            }
            let queue = &self.queue;
            let wait = self.wait.get_or_insert_with(|| Wait {
                space: None,
                deadline: Box::pin(tokio::time::sleep(queue.wait_deadline())),
            });
            if wait.deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Full));
            }
            let places = owed.saturating_add(TURN_EVENTS);
            let space = wait.space.get_or_insert_with(|| Box::pin(queue.space(places)));
            ready!(space.as_mut().poll(cx));
            wait.space = None;
        }
    }

    /// Records a turn's events, then gives back what is not owed.
    pub(crate) fn settle(&mut self, events: &mut Vec<Event>, owed: usize) {
        let Some(held) = &mut self.held else { return };
        if !events.is_empty() {
            self.queue.push(held, events.drain(..));
        }
        let kept = if self.queue.has_plenty() { owed.saturating_add(TURN_EVENTS) } else { owed };
        if held.len() > kept {
            held.shrink(kept);
        }
    }

    fn held(&self) -> usize {
        self.held.as_ref().map_or(0, Permit::len)
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("held", &self.held())
            .field("waiting", &self.wait.is_some())
            .finish_non_exhaustive()
    }
}
