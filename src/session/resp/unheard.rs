//! What replies change, and replies that the client does not want to hear.
//!
//! CLIENT REPLY is carried out here, and the server is told nothing of it: a server that answers
//! where it was believed to be silent, because it refused to be, or the other way round, would have
//! each reply after that taken for another command's.

use bytes::{Buf as _, BytesMut};

use super::pending::Expect;
use super::server::{Go, Lost, QUEUED, line};
use super::talk::{Core, Multi, Queued, UnderWay};
use super::words::ABORTED;
use crate::event::StoreError;
use crate::session::journal::Call;
use crate::wire::resp::reply::{End, Part};

/// What the beginning of a reply tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is an error.
    Failed,
    /// The command was queued.
    Queued,
    /// Anything else.
    Done,
}

impl Outcome {
    pub(super) fn of(reply: &[u8]) -> Self {
        match reply.first() {
            Some(b'-') => Self::Failed,
            Some(b'+') if line(reply) == Some(QUEUED) => Self::Queued,
            _ => Self::Done,
        }
    }
}

impl Core {
    /// What the client asked for has happened at the server, or not. `count` is how many elements
    /// the reply has, if it is an array.
    pub(super) fn took_effect(
        &mut self,
        call: &mut Call<'_>,
        expect: Expect,
        (outcome, count): (Outcome, Option<usize>),
    ) {
        let failed = outcome == Outcome::Failed;
        match expect {
            Expect::Reset if !failed => self.reset(call),
            Expect::Quit if !failed => self.part(call, "client"),
            Expect::Hello(Some(version)) if !failed => self.version = version,
            Expect::Select(database) => match outcome {
                Outcome::Failed => {}
                Outcome::Queued => {
                    self.queued.push(None);
                    self.queued.database = Some(database);
                }
                Outcome::Done => self.choose_database(call.turn, database),
            },
            Expect::Monitor => self.monitoring |= !failed,
            Expect::Multi if failed => {
                // A second one inside a transaction changes nothing.
                if !self.queuing {
                    self.multi = Multi::None;
                }
            }
            Expect::Multi => {
                self.queued = Queued::default();
                self.queuing = true;
            }
            Expect::Discard if failed => {
                // A server that lets this client not run it stays inside.
                if self.queuing {
                    self.multi = Multi::Tainted;
                }
            }
            Expect::Discard | Expect::Abort(_) => drop(self.transaction_over()),
            Expect::Exec => {
                self.executed(call, count);
            }
            Expect::Plain(_) if outcome == Outcome::Queued => self.queued.push(None),
            Expect::Shaped(job) if outcome == Outcome::Queued => self.queued.push(Some(*job)),
            Expect::Reset
            | Expect::Quit
            | Expect::Hello(_)
            | Expect::Plain(_)
            | Expect::Shaped(_)
            | Expect::Local(_)
            | Expect::Subscribes { .. }
            | Expect::Unsubscribes { .. }
            | Expect::Reduced(_)
            | Expect::Login
            | Expect::Unheard(_) => {}
        }
    }

    /// The server is in no transaction any more; what its commands owed.
    pub(super) fn transaction_over(&mut self) -> Queued {
        self.queuing = false;
        std::mem::take(&mut self.queued)
    }

    /// The server has answered EXEC, with an array of so many elements if it is one: then the database
    /// chosen on the way is the client's. What its commands owed.
    pub(super) fn executed(&mut self, call: &Call<'_>, count: Option<usize>) -> Queued {
        let queued = self.transaction_over();
        if let (Some(_), Some(database)) = (count, queued.database) {
            self.choose_database(call.turn, database);
        }
        queued
    }

    /// The beginning of a reply that the client does not want.
    pub(super) fn unheard(
        &mut self,
        call: &mut Call<'_>,
        input: &mut BytesMut,
    ) -> Result<Go, Lost> {
        if matches!(input.first(), Some(b'+' | b'-' | b'*')) && line(input).is_none() {
            return Ok(Go::Wait);
        }
        let head = self.pending.head().map(Expect::answered);
        if matches!(head, Some(Expect::Abort(_))) && !input.starts_with(ABORTED) {
            return Err(Lost::Unasked);
        }
        let count = line(input).and_then(super::server::elements);
        let outcome = Outcome::of(input);
        if outcome == Outcome::Failed && self.pending.head().is_some_and(|it| it.is_recorded()) {
            self.runs.failed(StoreError::of(line(input).unwrap_or_default()));
        }
        self.drop_answer(call, (outcome, count), input)
    }

    /// Drops what has come of it.
    pub(super) fn drop_answer(
        &mut self,
        call: &mut Call<'_>,
        known: (Outcome, Option<usize>),
        input: &mut BytesMut,
    ) -> Result<Go, Lost> {
        let Part { len, end } = self.replies.next(input)?;
        input.advance(len);
        if end == End::Open {
            if len > 0 || !self.replies.is_between() {
                self.under_way = UnderWay::Unheard(known);
            }
            return Ok(Go::Wait);
        }
        let Some(Expect::Unheard(expect)) = self.pending.pop_unheard() else {
            return Err(Lost::Unasked);
        };
        let recorded = expect.is_recorded();
        self.took_effect(call, *expect, known);
        if recorded {
            self.runs.answered(call, 1);
        }
        Ok(Go::On)
    }
}
