//! The replies a client (or the session itself) waits for, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::catalog_load::Injected;
use super::statements::{Portal, Prepared};
use crate::analysis::sql::SessionEffect;
use crate::facts::Verb;
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
        /// What it stands for now.
        made: Arc<Prepared>,
        /// Put in by the session itself: the client does not hear of its success.
        own: bool,
    },
    /// BindComplete.
    Bind {
        /// Portal name.
        name: Bytes,
        /// What the name stood for before.
        prior: Option<Portal>,
        /// What it stands for now.
        made: Portal,
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
    /// ReadyForQuery for the Sync that ended this batch.
    Sync(u64),
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
        /// The batch it is in.
        batch: u64,
    },
    /// Nothing from the server: these bytes are due for the client now.
    Local(Bytes),
    /// CloseComplete of a message the session put in itself; swallowed.
    Swallow,
    /// Everything up to ReadyForQuery of a query the session put in itself; swallowed.
    Injected(Box<Injected>),
}

impl Expect {
    /// The plan of the statement the server is working on for this reply.
    pub(super) fn plan(&self) -> Option<&Arc<Plan>> {
        match self {
            Self::Query(flight) | Self::Execute(flight) => Some(&flight.plan),
            Self::Parse { made, .. } => Some(&made.plan),
            Self::Bind { made, .. } => Some(&made.statement.plan),
            Self::Describe(plan) => plan.as_ref(),
            Self::CloseStatement { .. }
            | Self::ClosePortal { .. }
            | Self::Sync(_)
            | Self::CopyEnd
            | Self::Poison { .. }
            | Self::Local(_)
            | Self::Swallow
            | Self::Injected(_) => None,
        }
    }

    /// Stands for work of the server that has a time limit of its own.
    fn is_statement(&self) -> bool {
        match self {
            Self::Query(_) | Self::Execute(_) | Self::Poison { .. } | Self::Injected(_) => true,
            Self::Parse { .. }
            | Self::Bind { .. }
            | Self::Describe(_)
            | Self::CloseStatement { .. }
            | Self::ClosePortal { .. }
            | Self::Sync(_)
            | Self::CopyEnd
            | Self::Local(_)
            | Self::Swallow => false,
        }
    }

    fn moves_path(&self) -> bool {
        let flight = match self {
            Self::Query(flight) | Self::Execute(flight) => flight,
            Self::Parse { .. }
            | Self::Bind { .. }
            | Self::Describe(_)
            | Self::CloseStatement { .. }
            | Self::ClosePortal { .. }
            | Self::Sync(_)
            | Self::CopyEnd
            | Self::Poison { .. }
            | Self::Local(_)
            | Self::Swallow
            | Self::Injected(_) => return false,
        };
        flight.plan.effects.iter().any(|effect| match effect {
            SessionEffect::SetSearchPath { .. }
            | SessionEffect::SearchPathUncertain
            | SessionEffect::RollbackTo
            | SessionEffect::DiscardAll => true,
            SessionEffect::None
            | SessionEffect::Begin
            | SessionEffect::EndTransaction
            | SessionEffect::Prepare { .. }
            | SessionEffect::Execute { .. }
            | SessionEffect::Fetch { .. }
            | SessionEffect::Deallocate { .. }
            | SessionEffect::Ddl => false,
        })
    }
}

/// Whether a statement asks the client for copy data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyIn {
    /// There is no COPY FROM STDIN in it.
    Never,
    /// It will, unless it fails.
    Awaited,
    /// It did, and it does so once.
    Begun,
}

impl CopyIn {
    pub(super) fn of(plan: &Plan, extended: bool) -> Self {
        // A text of the extended protocol is one statement; one of the other may hold both kinds.
        let from_client = !extended || !plan.has(Verb::CopyServerFile);
        if plan.has(Verb::CopyFrom) && from_client { Self::Awaited } else { Self::Never }
    }
}

/// A statement that was forwarded and has not completed.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Its COPY FROM STDIN.
    pub copy_in: CopyIn,
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
    /// Rows or copy data of the present statement are on their way: errors are of execution.
    pub answering: bool,
    /// The batch it is in.
    pub batch: u64,
    /// Which of the text's statements completes next.
    pub statement: usize,
    /// What its SQL PREPARE statements will have prepared.
    pub prepares: Option<Arc<Prepared>>,
}

/// Replies in order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Expect>,
    /// How many of the statements among them may move the search path.
    path_moves: usize,
    /// Statements the server is done with: of the client's and of ours.
    done: u64,
    /// The server completed something of the head, or failed it.
    answered: bool,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Counts what the server is done with.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// The server is done with one statement of a Query.
    pub(super) fn step(&mut self) {
        self.done += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn push(&mut self, expect: Expect) {
        self.path_moves += usize::from(expect.moves_path());
        self.queue.push_back(expect);
    }

    pub(super) fn head(&mut self) -> Option<&mut Expect> {
        self.queue.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Expect> {
        let expect = self.queue.pop_front()?;
        self.answered = false;
        self.path_moves -= usize::from(expect.moves_path());
        self.done += u64::from(expect.is_statement());
        Some(expect)
    }

    /// A statement in flight may move the search path: what a later one means is not known yet.
    pub(super) fn moves_path(&self) -> bool {
        self.path_moves > 0
    }

    /// Something in flight may end the transaction, which is implicit or not.
    pub(super) fn ends_transaction(&self, implicit: bool) -> bool {
        self.queue.iter().any(|expect| match expect {
            Expect::Query(flight) | Expect::Execute(flight) => {
                let ends = |effect: &SessionEffect| *effect == SessionEffect::EndTransaction;
                (implicit && !flight.extended) || flight.plan.effects.iter().any(ends)
            }
            Expect::Sync(_) | Expect::Poison { .. } => implicit,
            Expect::Parse { .. }
            | Expect::Bind { .. }
            | Expect::Describe(_)
            | Expect::CloseStatement { .. }
            | Expect::ClosePortal { .. }
            | Expect::CopyEnd
            | Expect::Local(_)
            | Expect::Swallow
            | Expect::Injected(_) => false,
        })
    }

    /// What SQL PREPARE statements in flight will have prepared under this name.
    pub(super) fn prepared(&self, name: &str) -> impl Iterator<Item = &Arc<Prepared>> {
        self.queue.iter().filter_map(move |expect| match expect {
            Expect::Query(flight) | Expect::Execute(flight) => {
                let prepared = flight.prepares.as_ref()?;
                let names_it = |effect: &SessionEffect| {
                    matches!(effect, SessionEffect::Prepare { name: prepared } if prepared == name)
                };
                flight.plan.effects.iter().any(names_it).then_some(prepared)
            }
            Expect::Parse { .. }
            | Expect::Bind { .. }
            | Expect::Describe(_)
            | Expect::CloseStatement { .. }
            | Expect::ClosePortal { .. }
            | Expect::Sync(_)
            | Expect::CopyEnd
            | Expect::Poison { .. }
            | Expect::Local(_)
            | Expect::Swallow
            | Expect::Injected(_) => None,
        })
    }

    /// Takes everything up to the next Sync (which stays), last first: what the server skips
    /// after an error. What has to be put back is put back in that order. `false` if the client
    /// has not sent that Sync yet.
    pub(super) fn skip_to_sync(&mut self) -> (Vec<Expect>, bool) {
        let sync = self.queue.iter().position(|expect| matches!(expect, Expect::Sync(_)));
        let end = sync.unwrap_or(self.queue.len());
        let mut skipped: Vec<Expect> = self.queue.drain(..end).collect();
        skipped.reverse();
        self.answered = false;
        self.path_moves -= skipped.iter().filter(|expect| expect.moves_path()).count();
        // Whatever failed, the next thing the server does has its own time.
        self.done += 1;
        (skipped, sync.is_some())
    }

    /// The head got what an answer cannot be without.
    pub(super) fn answered(&mut self) {
        self.answered = true;
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Whether it is open what the server does with messages behind the last one: it may begin a
    /// COPY, or another one of the same text.
    pub(super) fn awaits_copy(&self) -> bool {
        match self.queue.iter().rev().find(|expect| !matches!(expect, Expect::CopyEnd)) {
            Some(Expect::Query(flight)) => flight.copy_in != CopyIn::Never,
            Some(Expect::Execute(flight)) => flight.copy_in == CopyIn::Awaited,
            _ => false,
        }
    }

    /// The server begins the COPY of the head. Returns whether the client has already sent its
    /// end, which is used up: a second COPY of the same text waits for an end of its own. `None`:
    /// it has none to begin.
    pub(super) fn copy_begins(&mut self) -> Option<bool> {
        match self.queue.front_mut() {
            Some(Expect::Query(flight)) if flight.copy_in != CopyIn::Never => {}
            Some(Expect::Execute(flight)) if flight.copy_in == CopyIn::Awaited => {
                flight.copy_in = CopyIn::Begun;
            }
            _ => return None,
        }
        let end = self.queue.iter().position(|expect| matches!(expect, Expect::CopyEnd));
        Some(end.and_then(|index| self.queue.remove(index)).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::gate::{Refusal, Words};

    /// A statement with one effect.
    fn flight(effect: SessionEffect, extended: bool) -> InFlight {
        let refusal = Refusal {
            code: "",
            message: String::new(),
            hint: None,
            position: None,
            rule: None,
            words: Words::Ours,
        };
        let plan = Plan { effects: vec![effect], ..Plan::of_refusal(refusal, 0) };
        InFlight {
            copy_in: CopyIn::Never,
            plan: Arc::new(plan),
            decision: 0,
            generation: 0,
            started_us: 0,
            rows: 0,
            streamed_rows: 0,
            bytes: 0,
            error: None,
            extended,
            answering: extended,
            batch: 0,
            statement: 0,
            prepares: None,
        }
    }

    /// Replies from one letter each: `Q`uery, `E`xecute, those of a COPY (`K`, `C`), `m`ove of the path, `e`nd of a
    /// transaction, `S`ync, `c`opy end, `D`escribe.
    fn pending(letters: &str) -> Pending {
        let mut pending = Pending::default();
        for letter in letters.chars() {
            pending.push(match letter {
                'Q' => Expect::Query(flight(SessionEffect::None, false)),
                'E' => Expect::Execute(flight(SessionEffect::None, true)),
                'm' => Expect::Execute(flight(SessionEffect::SearchPathUncertain, true)),
                'e' => Expect::Execute(flight(SessionEffect::EndTransaction, true)),
                'C' => Expect::Execute(InFlight {
                    copy_in: CopyIn::Awaited,
                    ..flight(SessionEffect::None, true)
                }),
                'K' => Expect::Query(InFlight {
                    copy_in: CopyIn::Awaited,
                    ..flight(SessionEffect::None, false)
                }),
                'S' => Expect::Sync(0),
                'c' => Expect::CopyEnd,
                'D' => Expect::Describe(None),
                other => panic!("{other}"),
            });
        }
        pending
    }

    fn letters(queue: impl IntoIterator<Item = Expect>) -> String {
        let letter = |expect: Expect| match expect {
            Expect::Query(flight) if flight.copy_in != CopyIn::Never => 'K',
            Expect::Query(_) => 'Q',
            Expect::Execute(flight) if flight.copy_in != CopyIn::Never => 'C',
            Expect::Execute(flight) => match flight.plan.effects.as_slice() {
                [SessionEffect::SearchPathUncertain] => 'm',
                [SessionEffect::EndTransaction] => 'e',
                _ => 'E',
            },
            Expect::Sync(_) => 'S',
            Expect::CopyEnd => 'c',
            Expect::Describe(_) => 'D',
            other @ (Expect::Parse { .. }
            | Expect::Bind { .. }
            | Expect::CloseStatement { .. }
            | Expect::ClosePortal { .. }
            | Expect::Poison { .. }
            | Expect::Local(_)
            | Expect::Swallow
            | Expect::Injected(_)) => panic!("{other:?}"),
        };
        queue.into_iter().map(letter).collect()
    }

    #[test]
    fn an_error_skips_to_the_next_sync() {
        let cases = [
            ("EDES", "EDE", "S", true),
            ("EDSES", "DE", "SES", true),
            ("ED", "DE", "", false),
            ("S", "", "S", true),
            ("", "", "", false),
        ];
        for (before, skipped, after, sync_sent) in cases {
            let mut pending = pending(before);
            let (found, sent) = pending.skip_to_sync();
            assert_eq!((letters(found).as_str(), sent), (skipped, sync_sent), "{before}");
            assert_eq!(letters(pending.queue), after, "{before}");
        }
    }

    #[test]
    fn a_copy_is_awaited_until_it_begins_and_uses_up_its_end() {
        let cases = [
            ("E", false, None, "E"),
            ("EC", true, None, "EC"),
            ("C", true, Some(false), "C"),
            ("Cc", true, Some(true), "C"),
            ("Ccc", true, Some(true), "Cc"),
            ("K", true, Some(false), "K"),
        ];
        for (before, awaited, ended, after) in cases {
            let mut pending = pending(before);
            assert_eq!(pending.awaits_copy(), awaited, "{before}");
            assert_eq!(pending.copy_begins(), ended, "{before}");
            assert_eq!(letters(pending.queue), after, "{before}");
        }
        for (before, again, awaited) in [("C", None, false), ("K", Some(false), true)] {
            let mut pending = pending(before);
            pending.copy_begins();
            assert_eq!(pending.awaits_copy(), awaited, "{before}");
            assert_eq!(pending.copy_begins(), again, "{before}");
        }
    }

    #[test]
    fn what_was_answered_is_forgotten_with_its_head() {
        let mut queue = pending("QQ");
        queue.answered();
        assert!(queue.is_answered());
        queue.pop();
        assert!(!queue.is_answered());
        queue.answered();
        queue.skip_to_sync();
        assert!(!queue.is_answered());
    }

    #[test]
    fn moves_of_the_path_are_counted_until_they_are_answered_or_skipped() {
        let mut queue = pending("EmSmE");
        assert!(queue.moves_path());
        queue.skip_to_sync();
        assert!(queue.moves_path(), "the second is still in flight");
        while queue.moves_path() {
            queue.pop().expect("a reply");
        }
        assert_eq!(letters(queue.queue), "E");
        assert!(!pending("QESe").moves_path());
    }

    #[test]
    fn a_transaction_ends_with_its_statement_or_with_the_batch() {
        let cases = [
            ("", false, false),
            ("E", false, false),
            ("e", true, true),
            ("S", false, true),
            ("Q", false, true),
        ];
        for (queue, explicit, implicit) in cases {
            let pending = pending(queue);
            let found = (pending.ends_transaction(false), pending.ends_transaction(true));
            assert_eq!(found, (explicit, implicit), "{queue}");
        }
    }
}
