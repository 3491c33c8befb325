//! The audit events of one session: their numbers, and what is owed.

use std::sync::Arc;

use super::{Outbox, Turn};
use crate::event::{Event, EventKind, Now, SessionRecord};

/// What one call of the state machine works with.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) turn: Turn<'a>,
    pub(super) journal: &'a mut Journal,
    pub(super) out: &'a mut Outbox,
}

/// Numbers and pushes the audit events of one session.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) record: Arc<SessionRecord>,
    /// Of the last event pushed.
    number: u64,
    /// `SessionOpened` was pushed, so `SessionClosed` is owed.
    pub(super) opened: bool,
    /// Outcomes still owed.
    pub(super) owed: usize,
}

impl Journal {
    /// Of a session that has just been accepted.
    pub(super) fn new(record: SessionRecord) -> Self {
        Self { record: Arc::new(record), number: 0, opened: false, owed: 0 }
    }

    pub(super) fn push(&mut self, now: Now, kind: EventKind, out: &mut Outbox) -> u64 {
        self.number += 1;
        let session = Some(Arc::clone(&self.record));
        out.events.push(Event { at: now, session, number: self.number, kind });
        self.number
    }

    /// What a client quotes to find its statement in the audit trail: the id of the next event.
    pub(super) fn request_id(&self) -> String {
        format!("request {}.{}", self.record.uid, self.number + 1)
    }

    pub(super) fn opened(&mut self, now: Now, method: &'static str, out: &mut Outbox) {
        self.push(now, EventKind::SessionOpened { method }, out);
        self.opened = true;
    }

    /// `method`, if it came to that; `reason`, where the code does not say it.
    pub(super) fn login_failed(
        &mut self,
        now: Now,
        code: &str,
        (method, reason): (Option<&'static str>, Option<&'static str>),
        out: &mut Outbox,
    ) {
        self.push(now, EventKind::LoginFailed { code: code.to_owned(), method, reason }, out);
    }

    /// Adds what became known about the session.
    pub(super) fn amend(&mut self, change: impl FnOnce(&mut SessionRecord)) {
        let mut record = (*self.record).clone();
        change(&mut record);
        self.record = Arc::new(record);
    }

    pub(super) fn closed(&mut self, now: Now, end: &'static str, out: &mut Outbox) {
        if std::mem::take(&mut self.opened) {
            self.push(now, EventKind::SessionClosed { end }, out);
        }
    }
}
