//! When a connection has had its time: one alarm for all of its limits.
//!
//! ```text
//! login_timeout ──login over──► client_idle_timeout, idle_in_transaction_timeout,
//!                               statement_timeout, transaction_timeout, session_lifetime
//! ```
//! What a limit is measured from (a [`Mark`] in time) moves with every statement; the alarm does
//! not. It is set forward only when a limit falls due before it would ring, and looks again when it
//! rings: a session that is busy all the time touches the timer a few times per limit, not per
//! statement. Deliberately absent: any knowledge of what the statements are.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use crate::config::SessionLimits;
use crate::metrics::Limit;
use crate::session::{EndCause, Phase, Progress};

/// The limits of one connection, and its alarm.
#[derive(Debug)]
pub(crate) struct Deadlines {
    /// Rings no later than the first limit falls due; absent when none ever does.
    alarm: Option<Pin<Box<Sleep>>>,
    /// When it rings.
    rings_us: u64,
    /// When the first login must be over; when the session must.
    ends_us: u64,
    /// How far the first login is.
    entry: Entry,
    /// How long a login anew may take.
    login_timeout: Duration,
    /// Where the session stood when it was last looked at.
    stood: Standing,
    /// Since when it has stood so, but for bytes that changed nothing.
    since_us: u64,
    /// When the client or the server was last heard of.
    heard_us: u64,
    /// When the transaction began.
    transaction_us: u64,
    /// When what is in flight became the oldest.
    statement_us: u64,
    /// When a cancel was sent for it.
    cancelled_us: Option<u64>,
    /// When the session has something to record.
    settles_us: Option<u64>,
}

/// How far the first login of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// It is not over.
    Waiting,
    /// It is, whatever becomes of the session: a client may log in anew, as somebody else.
    Over,
}

/// Where a session stands, as far as its limits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The phase.
    pub(crate) phase: Phase,
    /// How far the server has come.
    pub(crate) progress: Progress,
    /// Statements decided so far.
    pub(crate) decided: u64,
}

/// What a limit asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The connection ends.
    End(EndCause),
    /// What is in flight is to be cancelled.
    Cancel,
    /// The session is to record what is due.
    Settle,
}

impl Due {
    /// The limit that was reached; `None` if it is none.
    pub(crate) fn limit(self) -> Option<Limit> {
        Some(match self {
            Self::Settle => return None,
            Self::Cancel => Limit::Statement,
            Self::End(EndCause::StatementTimeout) => Limit::CancelGrace,
            Self::End(EndCause::IdleTimeout) => Limit::ClientIdle,
            Self::End(EndCause::IdleInTransaction) => Limit::IdleInTransaction,
            Self::End(EndCause::TransactionTimeout) => Limit::Transaction,
            Self::End(EndCause::Lifetime) => Limit::Lifetime,
            // The others are no limits of this module.
            Self::End(
                EndCause::LoginTimeout
                | EndCause::ClientGone
                | EndCause::ServerGone
                | EndCause::Shutdown
                | EndCause::Operator
                | EndCause::AuditUnavailable
                | EndCause::AddressRefused
                | EndCause::HeaderRefused
                | EndCause::TooManyLogins
                | EndCause::TooManyClients,
            ) => Limit::Login,
        })
    }
}

impl Deadlines {
    /// Of a connection accepted at `now_us`.
    pub(crate) fn of_login(timeout: Duration, now_us: u64) -> Self {
        let ends_us = after(now_us, timeout);
        let progress = Progress { statements: 0, transactions: 0, in_flight: false };
        Self {
            alarm: Some(Box::pin(tokio::time::sleep(timeout))),
            rings_us: ends_us,
            ends_us,
            entry: Entry::Waiting,
            login_timeout: timeout,
            stood: Standing { phase: Phase::Login, progress, decided: 0 },
            since_us: now_us,
            heard_us: now_us,
            transaction_us: now_us,
            statement_us: now_us,
            cancelled_us: None,
            settles_us: None,
        }
    }

    /// Whether the first login is not over.
    pub(crate) fn in_login(&self) -> bool {
        self.entry == Entry::Waiting
    }

    /// The login is over. `lot` (any number of the session's own) spreads the ends of sessions that
    /// began together.
    pub(crate) fn logged_in(&mut self, limits: &SessionLimits, lot: u8, now_us: u64) {
        self.alarm = None;
        self.entry = Entry::Over;
        self.ends_us = match limits.session_lifetime {
            Some(lifetime) => {
                after(now_us, lifetime - lifetime / JITTER_PART * u32::from(lot) / 255)
            }
            None => u64::MAX,
        };
        self.heard_us = now_us;
    }

    /// When the session has something to record, if it has.
    pub(crate) fn settles(&mut self, at_us: Option<u64>) {
        self.settles_us = at_us;
    }

    /// Peers were heard of, and this is where the session stands now.
    pub(crate) fn heard(&mut self, standing: Standing, now_us: u64) {
        self.heard_us = now_us;
        if standing == self.stood {
            return;
        }
        let (before, now) = (self.stood, standing);
        self.stood = standing;
        self.since_us = now_us;
        let moved_on = before.progress.statements != now.progress.statements;
        if moved_on || before.progress.in_flight != now.progress.in_flight {
            self.statement_us = now_us;
            self.cancelled_us = None;
        }
        if matches!(before.phase, Phase::Idle | Phase::Listening)
            || before.progress.transactions != now.progress.transactions
        {
            self.transaction_us = now_us;
        }
    }

    /// What is in flight was cancelled; from now on the server has the grace.
    pub(crate) fn cancelled(&mut self, now_us: u64) {
        self.cancelled_us = Some(now_us);
    }

    /// Ready when a limit falls due. The task is woken no later than the first one does.
    pub(crate) fn poll(
        &mut self,
        limits: &SessionLimits,
        now_us: impl Fn() -> u64,
        cx: &mut Context<'_>,
    ) -> Poll<Due> {
        loop {
            let Some((due_us, due)) = self.first(limits) else { return Poll::Pending };
            if self.alarm.is_none() || due_us < self.rings_us {
                self.set(due_us, now_us());
            }
            if let Some(alarm) = &mut self.alarm {
                ready!(alarm.as_mut().poll(cx));
            }
            if due_us <= now_us() {
                return Poll::Ready(due);
            }
            // It rang for what has moved on since.
            self.alarm = None;
        }
    }

    /// The limit that falls due first.
    fn first(&self, limits: &SessionLimits) -> Option<(u64, Due)> {
        let end = |cause| Due::End(cause);
        if self.in_login() {
            return Some((self.ends_us, end(EndCause::LoginTimeout)));
        }
        let of = |limit: Option<Duration>, from_us: u64, due: Due| {
            limit.map(|limit| (after(from_us, limit), due))
        };
        let silent = of(limits.client_idle_timeout, self.heard_us, end(EndCause::IdleTimeout));
        let waiting =
            of(limits.idle_in_transaction_timeout, self.since_us, end(EndCause::IdleInTransaction));
        let transaction =
            of(limits.transaction_timeout, self.transaction_us, end(EndCause::TransactionTimeout));
        let statement = match self.cancelled_us {
            Some(us) => Some((after(us, limits.cancel_grace), end(EndCause::StatementTimeout))),
            None => of(limits.statement_timeout, self.statement_us, Due::Cancel),
        };
        let lifetime_us = match self.stood.phase {
            Phase::Idle | Phase::Listening => self.ends_us,
            Phase::Login | Phase::InTransaction | Phase::Busy | Phase::Closing => {
                self.ends_us.saturating_add(micros(limits.session_lifetime_grace))
            }
        };
        let lifetime = Some((lifetime_us, end(EndCause::Lifetime)));
        let none = None;
        let anew = Some((after(self.since_us, self.login_timeout), end(EndCause::LoginTimeout)));
        let apply = match (self.stood.phase, self.stood.progress.in_flight) {
            (Phase::Closing, _) => [none; 3],
            (Phase::Login, _) => [lifetime, anew, none],
            (Phase::Idle, _) => [lifetime, silent, none],
            // Silence is what a client hears on a quiet channel.
            (Phase::Listening, _) => [lifetime, none, none],
            // A batch without its Sync waits for the client as a transaction does.
            (Phase::InTransaction | Phase::Busy, false) => {
                let sooner = [silent, waiting].into_iter().flatten().min_by_key(|(us, _)| *us);
                [lifetime, sooner, transaction]
            }
            (Phase::InTransaction | Phase::Busy, true) => [lifetime, statement, transaction],
        };
        let settle = self.settles_us.map(|us| (us, Due::Settle));
        apply
            .into_iter()
            .chain([settle])
            .flatten()
            .filter(|(us, _)| *us < u64::MAX)
            .min_by_key(|(us, _)| *us)
    }

    fn set(&mut self, due_us: u64, now_us: u64) {
        let wait = Duration::from_micros(due_us.saturating_sub(now_us));
        self.rings_us = due_us;
        self.alarm = Some(Box::pin(tokio::time::sleep(wait)));
    }
}

fn after(us: u64, limit: Duration) -> u64 {
    us.saturating_add(micros(limit))
}

fn micros(limit: Duration) -> u64 {
    u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)
}

/// A session ends up to this part of its lifetime early.
const JITTER_PART: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    fn limits() -> SessionLimits {
        let some = |s| Some(Duration::from_secs(s));
        SessionLimits {
            client_idle_timeout: some(1000),
            idle_in_transaction_timeout: some(50),
            statement_timeout: some(10),
            transaction_timeout: some(100),
            session_lifetime: some(10_000),
            ..SessionLimits::default()
        }
    }

    fn standing(phase: Phase, statements: u64, in_flight: bool) -> Standing {
        let progress = Progress { statements, transactions: 0, in_flight };
        Standing { phase, progress, decided: 0 }
    }

    /// A session that logged in at second 0 and was heard of in these states.
    fn first(states: &[(u64, Standing)]) -> (u64, Due) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        let mut deadlines = Deadlines::of_login(Duration::from_secs(10), 0);
        deadlines.logged_in(&limits(), 0, 0);
        for (s, standing) in states {
            deadlines.heard(*standing, s * S);
        }
        let (us, due) = deadlines.first(&limits()).unwrap();
        (us / S, due)
    }

    #[test]
    fn each_phase_has_its_limit() {
        let (idle, busy, waits) = (Phase::Idle, Phase::Busy, Phase::InTransaction);
        let end = Due::End;
        let began = (0, standing(idle, 0, false));
        assert_eq!(first(&[began]), (1000, end(EndCause::IdleTimeout)));
        let runs = (5, standing(busy, 0, true));
        assert_eq!(first(&[began, runs]), (15, Due::Cancel));
        // The second of a pipeline has its own time.
        assert_eq!(first(&[began, runs, (9, standing(busy, 1, true))]), (19, Due::Cancel));
        // Rows on the way change nothing.
        assert_eq!(first(&[began, runs, (14, standing(busy, 0, true))]), (15, Due::Cancel));
        let left = (8, standing(waits, 1, false));
        assert_eq!(first(&[began, runs, left]), (58, end(EndCause::IdleInTransaction)));
        // Half a message is not a statement.
        assert_eq!(
            first(&[began, runs, left, (57, standing(waits, 1, false))]),
            (58, end(EndCause::IdleInTransaction))
        );
        // A batch without Sync is a transaction that waits.
        assert_eq!(
            first(&[began, runs, (8, standing(busy, 1, false))]),
            (58, end(EndCause::IdleInTransaction))
        );
        // Who listens may wait for long.
        let listens = (8, standing(Phase::Listening, 1, false));
        assert_eq!(first(&[began, runs, listens]), (10_000, end(EndCause::Lifetime)));
        // The transaction as a whole: from when the session was last idle.
        let again = (103, standing(busy, 1, true));
        assert_eq!(first(&[began, runs, left, again]), (105, end(EndCause::TransactionTimeout)));
    }

    #[test]
    fn a_login_anew_has_its_own_time_and_the_lifetime_goes_on() {
        let began = (0, standing(Phase::Idle, 0, false));
        let anew = (500, standing(Phase::Login, 0, false));
        assert_eq!(first(&[began, anew]), (510, Due::End(EndCause::LoginTimeout)));
        let again = (505, standing(Phase::Idle, 0, false));
        let silent = (2000, standing(Phase::Listening, 1, false));
        let lifetime = (10_000, Due::End(EndCause::Lifetime));
        assert_eq!(first(&[began, anew, again, silent]), lifetime);
        let late = (9995, standing(Phase::Login, 1, false));
        assert_eq!(first(&[began, anew, again, late]).1, Due::End(EndCause::LoginTimeout));
    }

    #[test]
    fn a_lifetime_ends_when_idle_and_in_the_end_anyhow() {
        let end = Due::End(EndCause::Lifetime);
        let idle = (9999, standing(Phase::Idle, 7, false));
        assert_eq!(first(&[(0, standing(Phase::Idle, 0, false)), idle]), (10_000, end));
        let grace = limits().session_lifetime_grace.as_secs();
        let begun = (9999, standing(Phase::Idle, 0, false));
        let runs = (10_029, standing(Phase::Busy, 0, true));
        assert_eq!(first(&[begun, runs]), (10_000 + grace, end));
    }

    #[test]
    fn lots_spread_the_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        let ends = |lot| {
            let mut deadlines = Deadlines::of_login(Duration::from_secs(1), 0);
            deadlines.logged_in(&limits(), lot, 0);
            deadlines.ends_us / S
        };
        assert_eq!((ends(0), ends(255)), (10_000, 9000));
    }
}
