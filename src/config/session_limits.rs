//! How long sessions and statements may last: `limits`, and what a datasource says otherwise.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::bounded;
use super::source::{Spanned, duration};
use crate::policy::diagnostic::Span;
use crate::policy::yaml::{MapReader, Node, Problems};

/// Time limits of a session once it is logged in. `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Longest silence of both peers while nothing is in flight.
    pub client_idle_timeout: Option<Duration>,
    /// Longest wait for the client inside a transaction, or a batch without its Sync.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// Longest time a statement may be the oldest in flight. A batch up to its Sync and a text of
    /// several statements count as one, as far as the server tells nothing in between.
    pub statement_timeout: Option<Duration>,
    /// Longest time outside of the idle phase.
    pub transaction_timeout: Option<Duration>,
    /// Longest time from the login to the end.
    pub session_lifetime: Option<Duration>,
    /// How long a session whose lifetime is over may take to become idle.
    pub session_lifetime_grace: Duration,
    /// How long the server may take to stop a statement it was told to cancel.
    pub cancel_grace: Duration,
    /// What becomes of a statement whose client has gone.
    pub on_client_gone: OnClientGone,
}

/// What becomes of a statement whose client has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnClientGone {
    /// The server finds out by itself, as it would without a proxy: at its next write.
    #[default]
    Leave,
    /// The server is told to cancel it.
    Cancel,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            client_idle_timeout: None,
            idle_in_transaction_timeout: None,
            statement_timeout: None,
            transaction_timeout: None,
            session_lifetime: None,
            session_lifetime_grace: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(5),
            on_client_gone: OnClientGone::Leave,
        }
    }
}

/// As written.
#[derive(Debug, Default)]
pub(super) struct Source {
    client_idle_timeout: Written,
    idle_in_transaction_timeout: Written,
    statement_timeout: Written,
    transaction_timeout: Written,
    session_lifetime: Written,
    session_lifetime_grace: Option<Spanned<Duration>>,
    cancel_grace: Option<Spanned<Duration>>,
    on_client_gone: Option<Spanned<OnClientGone>>,
}

/// A limit that can be lifted.
#[derive(Debug, Default)]
enum Written {
    /// Not mentioned.
    #[default]
    Absent,
    /// `0` or `off`: no limit.
    Off,
    /// A limit.
    Limit(Spanned<Duration>),
}

/// Reads the keys out of a map that may have others.
pub(super) fn read(map: &mut MapReader<'_>, problems: &mut Problems) -> Source {
    let policies = [("leave", OnClientGone::Leave), ("cancel", OnClientGone::Cancel)];
    Source {
        client_idle_timeout: written(map.optional("client_idle_timeout"), problems),
        idle_in_transaction_timeout: written(map.optional("idle_in_transaction_timeout"), problems),
        statement_timeout: written(map.optional("statement_timeout"), problems),
        transaction_timeout: written(map.optional("transaction_timeout"), problems),
        session_lifetime: written(map.optional("session_lifetime"), problems),
        session_lifetime_grace: map
            .optional("session_lifetime_grace")
            .and_then(|n| duration(n, problems)),
        cancel_grace: map.optional("cancel_grace").and_then(|n| duration(n, problems)),
        on_client_gone: map.optional("on_client_gone").and_then(|n| {
            Some(Spanned { value: n.one_of(&policies, problems)?, at: n.span.clone() })
        }),
    }
}

/// The same as a map of its own: a datasource's `limits`.
pub(super) fn read_map(node: &Node, problems: &mut Problems) -> Option<Source> {
    let mut map = MapReader::new(node, problems)?;
    let source = read(&mut map, problems);
    map.finish(problems);
    Some(source)
}

impl Source {
    /// Where it says what becomes of statements that are cancelled.
    pub(super) fn about_cancelling(&self) -> impl Iterator<Item = &Span> {
        let grace = self.cancel_grace.as_ref().map(|written| &written.at);
        let gone = self.on_client_gone.as_ref().map(|written| &written.at);
        [grace, gone].into_iter().flatten()
    }

    /// What is written, over `base`.
    pub(super) fn check(self, base: &SessionLimits, problems: &mut Problems) -> SessionLimits {
        let day = Duration::from_secs(24 * 60 * 60);
        let (brief, second) = (Duration::from_millis(10), Duration::from_secs(1));
        let month = day * 30;
        let mut over = |written, base, bounds| limit(written, base, bounds, problems);
        let client_idle_timeout =
            over(self.client_idle_timeout, base.client_idle_timeout, second..=month);
        let idle_in_transaction_timeout =
            over(self.idle_in_transaction_timeout, base.idle_in_transaction_timeout, brief..=month);
        let statement_timeout = over(self.statement_timeout, base.statement_timeout, brief..=month);
        let transaction_timeout =
            over(self.transaction_timeout, base.transaction_timeout, brief..=month);
        let session_lifetime = over(self.session_lifetime, base.session_lifetime, second..=month);
        let mut grace =
            |written, base| bounded(written, base, brief..=day, problems).unwrap_or(base);
        SessionLimits {
            client_idle_timeout,
            idle_in_transaction_timeout,
            statement_timeout,
            transaction_timeout,
            session_lifetime,
            session_lifetime_grace: grace(self.session_lifetime_grace, base.session_lifetime_grace),
            cancel_grace: grace(self.cancel_grace, base.cancel_grace),
            on_client_gone: self
                .on_client_gone
                .map_or(base.on_client_gone, |written| written.value),
        }
    }
}

fn written(node: Option<&Node>, problems: &mut Problems) -> Written {
    let Some(node) = node else { return Written::Absent };
    // `0` needs no unit.
    match node.string(&mut Problems::default()) {
        Some("0" | "off") => Written::Off,
        _ => duration(node, problems).map_or(Written::Absent, Written::Limit),
    }
}

fn limit(
    written: Written,
    base: Option<Duration>,
    bounds: RangeInclusive<Duration>,
    problems: &mut Problems,
) -> Option<Duration> {
    match written {
        Written::Absent => base,
        Written::Off => None,
        Written::Limit(limit) => {
            let default = *bounds.end();
            bounded(Some(limit), default, bounds, problems)
        }
    }
}
