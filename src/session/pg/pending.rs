//! The replies a client (or the session itself) waits for, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::catalog_load::Injected;
use super::statements::{Portal, Prepared};
use crate::session::gate::Plan;

/// One reply that is waited for.
#[derive(Debug)]
pub(super) enum Expect {
    /// Everything up to ReadyForQuery, for a Query.
    Query(InFlight),
    /// ParseComplete. On failure the name means what it meant before.
    Parse {
        /// Statement name.
        name: Bytes,
        /// What the name stood for before.
        prior: Option<Arc<Prepared>>,
    },
    /// BindComplete.
    Bind {
        /// Portal name.
        name: Bytes,
        /// What the name stood for before.
        prior: Option<Portal>,
    },
    /// (ParameterDescription) RowDescription or NoData. Holds the plan for scrubbing an error.
    Describe(Option<Arc<Plan>>),
    /// Rows and CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute(InFlight),
    /// CloseComplete of a statement.
    CloseStatement {
        /// Statement name.
        name: Bytes,
        /// What the name stood for.
        prior: Option<Arc<Prepared>>,
    },
    /// CloseComplete of a portal.
    ClosePortal {
        /// Portal name.
        name: Bytes,
        /// What the name stood for.
        prior: Option<Portal>,
    },
    /// ReadyForQuery for a Sync.
    Sync,
    /// Nothing: marks where the client ended a COPY.
    CopyEnd,
    /// The error of a statement that was made to fail in place of a refused one; `reply` goes to
    /// the client instead.
    Poison {
        /// The refusal, encoded.
        reply: Bytes,
        /// The poison was a Query: ReadyForQuery follows.
        simple: bool,
        /// The error came.
        failed: bool,
    },
    /// Nothing from the server: these bytes are due for the client now.
    Local(Bytes),
    /// ParseComplete or CloseComplete of a message the session put in itself; swallowed.
    Swallow,
    /// Everything up to ReadyForQuery of a query the session put in itself; swallowed.
    Injected(Box<Injected>),
}

/// A statement that was forwarded and has not completed.
#[derive(Debug)]
pub(super) struct InFlight {
    /// What was decided.
    pub plan: Arc<Plan>,
    /// Number of its decision event.
    pub decision: u64,
    /// Generation it was decided under.
    pub generation: u64,
    /// When it was forwarded, monotonic microseconds.
    pub started_us: u64,
    /// Rows so far, from command tags.
    pub rows: u64,
    /// Row messages so far.
    pub streamed_rows: u64,
    /// Bytes of rows and copy data sent to the client so far.
    pub bytes: u64,
    /// SQLSTATE, if it failed.
    pub error: Option<[u8; 5]>,
    /// Sent by Execute rather than Query.
    pub extended: bool,
    /// Which of the text's statements completes next.
    pub statement: usize,
    /// What its SQL PREPARE statements will have prepared.
    pub prepares: Option<Arc<Prepared>>,
}

/// Replies in order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Expect>,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn push(&mut self, expect: Expect) {
        self.queue.push_back(expect);
    }

    pub(super) fn head(&mut self) -> Option<&mut Expect> {
        self.queue.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Expect> {
        self.queue.pop_front()
    }

    /// Takes everything up to the next Sync (which stays), last first: what the server skips
    /// after an error. What has to be put back is put back in that order. `false` if the client
    /// has not sent that Sync yet.
    pub(super) fn skip_to_sync(&mut self) -> (Vec<Expect>, bool) {
        let sync = self.queue.iter().position(|expect| matches!(expect, Expect::Sync));
        let end = sync.unwrap_or(self.queue.len());
        let mut skipped: Vec<Expect> = self.queue.drain(..end).collect();
        skipped.reverse();
        (skipped, sync.is_some())
    }

    /// The server entered COPY IN for the head: until CopyDone or CopyFail it reads and ignores
    /// Sync. Returns whether the client has already sent the end of the COPY, which is used up: a
    /// second COPY of the same text waits for an end of its own.
    pub(super) fn copy_in_started(&mut self) -> bool {
        let end = self.queue.iter().position(|expect| matches!(expect, Expect::CopyEnd));
        let limit = end.unwrap_or(self.queue.len());
        let mut index = 0;
        self.queue.retain(|expect| {
            let ignored = index < limit && matches!(expect, Expect::Sync);
            let used = index == limit;
            index += 1;
            !ignored && !used
        });
        end.is_some()
    }
}
