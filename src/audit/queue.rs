//! The bounded queue between sessions and the writer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{AuditConfig, WhenFull};
use crate::event::{Event, EventKind, Now};
use crate::metrics::Metrics;

/// How long the writer gathers events before it writes: long enough that a busy system makes one
/// system call for many events, short enough that `tail -f` shows them at once.
const LINGER: Duration = Duration::from_millis(2);

/// Events that end the gathering early.
const GATHERED_EVENTS_MAX: usize = 1024;

/// The sessions' end of the queue; cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Shared>);

impl Queue {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Reserves places for this many events, or tells that they are not free now. With
    /// [`WhenFull::DropAndCount`] it always succeeds.
    pub fn try_reserve(&self, places: usize) -> Option<Permit> {
        let mut permit = Permit { shared: Arc::clone(&self.0), backed: 0, unbacked: 0 };
        permit.grow(places).then_some(permit)
    }

    /// Reserves places for this many events, waiting until they are free. More places than the
    /// queue has are never free. Cancel safe.
    pub async fn reserve(&self, places: usize) -> Permit {
        loop {
            if let Some(permit) = self.try_reserve(places) {
                return permit;
            }
            self.space(places).await;
        }
    }

    /// Resolves when this many places were free for a moment: try to reserve them then. Cancel safe;
    /// the future borrows nothing, so that a connection can keep it across turns.
    pub fn space(&self, places: usize) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.0);
        async move {
            let _waiting = Waiting::begin(&shared);
            loop {
                let freed = shared.freed.notified();
                tokio::pin!(freed);
                // Registered before looking, so that places freed in between are not missed.
                freed.as_mut().enable();
                if shared.is_free(places) {
                    return;
                }
                freed.await;
            }
        }
    }

    /// Hands events over, in order; each uses a place of the permit.
    pub fn push(&self, permit: &mut Permit, events: impl IntoIterator<Item = Event>) {
        let mut events = events.into_iter().peekable();
        if events.peek().is_some() {
            self.0.push(permit, events);
        }
    }

    /// Whether so few places are taken that nobody needs to give any back.
    pub fn has_plenty(&self) -> bool {
        self.0.used.load(Ordering::Relaxed) <= self.0.capacity / 4
    }

    /// What a client sees when the queue is full.
    pub fn when_full(&self) -> WhenFull {
        self.0.when_full
    }

    /// How long [`WhenFull::Wait`] waits.
    pub fn wait_deadline(&self) -> Duration {
        self.0.wait_deadline
    }
}

/// Places in the queue; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    /// Places taken in the queue.
    backed: usize,
    /// Places promised although the queue was full; their events are dropped and counted.
    unbacked: usize,
}

impl Permit {
    /// How many events may still be pushed.
    pub fn len(&self) -> usize {
        self.backed + self.unbacked
    }

    /// Whether no event may be pushed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reserves more places into this permit; `false` (and no change) when they are not free.
    #[must_use]
    pub fn grow(&mut self, places: usize) -> bool {
        if self.shared.take(places) {
            self.backed += places;
            return true;
        }
        let promised = self.shared.when_full == WhenFull::DropAndCount;
        if promised {
            self.unbacked += places;
        }
        promised
    }

    /// Gives back all places above `places`.
    pub fn shrink(&mut self, places: usize) {
        drop(self.split(self.len().saturating_sub(places)));
    }

    /// Moves up to `places` into a permit of their own.
    #[must_use]
    pub fn split(&mut self, places: usize) -> Self {
        // Promises first: whoever keeps the permit keeps the real places.
        let unbacked = self.unbacked.min(places);
        let backed = self.backed.min(places - unbacked);
        self.unbacked -= unbacked;
        self.backed -= backed;
        Self { shared: Arc::clone(&self.shared), backed, unbacked }
    }

    /// Takes over the places of another permit of the same queue.
    pub fn merge(&mut self, mut other: Self) {
        self.backed += std::mem::take(&mut other.backed);
        self.unbacked += std::mem::take(&mut other.unbacked);
    }

    /// Uses one place; `false` when the event has none and is to be dropped.
    fn use_place(&mut self) -> bool {
        if self.backed > 0 {
            self.backed -= 1;
            return true;
        }
        if self.unbacked > 0 {
            self.unbacked -= 1;
            // The queue may have room again.
            return self.shared.take(1);
        }
        // More events than reserved is a bug of the session. The trail stays whole all the same:
        // the event is accepted beyond the bound.
        self.shared.used.fetch_add(1, Ordering::SeqCst);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.release(self.backed);
    }
}

/// What sessions and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    capacity: usize,
    when_full: WhenFull,
    wait_deadline: Duration,
    /// Places reserved, queued, or in the writer's hands.
    used: AtomicUsize,
    /// Connections that wait for places; while it is zero, giving back is one atomic.
    waiting: AtomicUsize,
    freed: Notify,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    pub(super) metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Inbox {
    events: Vec<Event>,
    writer: Activity,
    /// Events dropped since the writer last looked.
    lost: Option<Lost>,
    closing: bool,
}

/// What the writer is doing, so that a push wakes it only when it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// Parked until the next event.
    Idle,
    /// Gathering a batch; looks again within [`LINGER`].
    Gathering,
    /// Writing, or already woken.
    Busy,
}

#[derive(Clone, Copy, Debug)]
struct Lost {
    events: u64,
    first: Now,
    last: Now,
}

impl Shared {
    pub(super) fn new(config: &AuditConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            capacity: config.queue_events,
            when_full: config.when_full,
            wait_deadline: config.wait_deadline,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            inbox: Mutex::new(Inbox {
                events: Vec::new(),
                writer: Activity::Busy,
                lost: None,
                closing: false,
            }),
            wake: Condvar::new(),
            metrics,
        })
    }

    /// Asks the writer to finish.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }

    /// Waits for events and moves them into `batch`, a report of dropped ones last. Returns whether
    /// the writer is to finish; then an empty batch means that nothing is left.
    pub(super) fn next_batch(&self, batch: &mut Vec<Event>) -> bool {
        let mut inbox = self.lock();
        while inbox.events.is_empty() && inbox.lost.is_none() && !inbox.closing {
            inbox.writer = Activity::Idle;
            inbox = self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        if !inbox.closing && inbox.events.len() < GATHERED_EVENTS_MAX {
            inbox.writer = Activity::Gathering;
            let waited = self.wake.wait_timeout(inbox, LINGER);
            inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        inbox.writer = Activity::Busy;
        std::mem::swap(batch, &mut inbox.events);
        let (lost, closing) = (inbox.lost.take(), inbox.closing);
        drop(inbox);
        if let Some(lost) = lost {
            // The report has no reserved place: it is the writer's own.
            self.used.fetch_add(1, Ordering::SeqCst);
            self.metrics.audit.accepted(1);
            batch.push(lost.into_event());
        }
        closing
    }

    /// Sleeps, or returns early when asked to finish; tells whether that is so.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let inbox = self.lock();
        let (inbox, _) =
            self.wake.wait_timeout(inbox, duration).unwrap_or_else(PoisonError::into_inner);
        inbox.closing
    }

    /// Gives places back.
    pub(super) fn release(&self, places: usize) {
        if places == 0 {
            return;
        }
        self.used.fetch_sub(places, Ordering::SeqCst);
        // Sequentially consistent with `space`: either it sees the places, or we see it wait.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Places in use; once the sessions are gone, events that were not written.
    pub(super) fn places_used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    fn push(&self, permit: &mut Permit, events: impl Iterator<Item = Event>) {
        let mut accepted = 0;
        let mut inbox = self.lock();
        for event in events {
            if permit.use_place() {
                inbox.events.push(event);
                accepted += 1;
            } else {
                self.metrics.observe(&event);
                self.metrics.audit.dropped();
                inbox.lost = Some(Lost::add(inbox.lost, event.at));
            }
        }
        let wake = match inbox.writer {
            Activity::Idle => true,
            Activity::Gathering => inbox.events.len() >= GATHERED_EVENTS_MAX,
            Activity::Busy => false,
        };
        if wake {
            inbox.writer = Activity::Busy;
        }
        // Before the writer can count them as written.
        self.metrics.audit.accepted(accepted);
        drop(inbox);
        if wake {
            self.wake.notify_one();
        }
    }

    fn take(&self, places: usize) -> bool {
        let taken = self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
            used.checked_add(places).filter(|used| *used <= self.capacity)
        });
        taken.is_ok()
    }

    fn is_free(&self, places: usize) -> bool {
        let used = self.used.load(Ordering::SeqCst);
        used.checked_add(places).is_some_and(|used| used <= self.capacity)
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // Nothing that can panic runs between two consistent states.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lost {
    fn add(lost: Option<Self>, at: Now) -> Self {
        let lost = lost.unwrap_or(Self { events: 0, first: at, last: at });
        Self { events: lost.events + 1, last: at, ..lost }
    }

    fn into_event(self) -> Event {
        let Self { events: dropped, first, last } = self;
        let kind = EventKind::Gap { dropped, since_us: first.wall_us };
        Event { at: last, session: None, number: 0, kind }
    }
}

/// Counts a waiting connection while it waits.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
