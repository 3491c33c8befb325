//! Who is connected now, for the admin port: listed, and ended on request.
//!
//! Every connection has an [`Entry`] from the moment it is accepted. Its own task is the only
//! writer of the counters, so they are plain relaxed stores; the map is touched when a connection
//! comes and goes and when somebody lists. Deliberately absent: statements and their texts, which
//! are in the audit trail and nowhere else.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use dashmap::DashMap;

use crate::admin::SessionReport;
use crate::event::{Event, EventKind, Now, SessionRecord};
use crate::metrics::Direction;
use crate::session::Phase;
use crate::session::auth::{Method, PasswordKind};

/// The connections of the process, by the id of their session.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: DashMap<Box<str>, Arc<Entry>>,
}

/// One connection as others see it.
#[derive(Debug)]
pub(crate) struct Entry {
    uid: Box<str>,
    datasource: Arc<str>,
    began: Now,
    live: Live,
    /// Written during the login only.
    login: Mutex<Login>,
}

/// What every turn writes or looks at: one line of the cache.
#[derive(Debug)]
#[repr(align(64))]
struct Live {
    phase: AtomicU8,
    /// Somebody asked for its end.
    ended: AtomicBool,
    /// When the phase began, monotonic microseconds.
    since_us: AtomicU64,
    statements: AtomicU64,
    from_client: AtomicU64,
    to_client: AtomicU64,
}

/// What a login makes known.
#[derive(Debug, Default)]
struct Login {
    record: Option<Arc<SessionRecord>>,
    method: Option<&'static str>,
    tls: Option<&'static str>,
    /// Wakes the connection's task, so that it looks at `ended`.
    waker: Option<Waker>,
}

/// A connection's own hold on its entry; the entry leaves the registry with it.
#[derive(Debug)]
pub(crate) struct Registered {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
    phase: Phase,
    /// The waker the entry holds.
    waker: Option<Waker>,
    /// The record the entry holds.
    known: Option<Arc<SessionRecord>>,
}

impl Registry {
    /// Enters a connection that was just accepted.
    pub(crate) fn enter(
        self: &Arc<Self>,
        uid: &str,
        datasource: &Arc<str>,
        now: Now,
    ) -> Registered {
        let entry = Arc::new(Entry {
            uid: uid.into(),
            datasource: Arc::clone(datasource),
            began: now,
            live: Live {
                phase: AtomicU8::new(code(Phase::Login)),
                ended: AtomicBool::new(false),
                since_us: AtomicU64::new(now.mono_us),
                statements: AtomicU64::new(0),
                from_client: AtomicU64::new(0),
                to_client: AtomicU64::new(0),
            },
            login: Mutex::default(),
        });
        self.entries.insert(uid.into(), Arc::clone(&entry));
        Registered {
            registry: Arc::clone(self),
            entry,
            phase: Phase::Login,
            waker: None,
            known: None,
        }
    }

    /// Everybody, in the order of their coming.
    pub(crate) fn list(&self, now: Now) -> Vec<SessionReport> {
        let mut list: Vec<_> = self.entries.iter().map(|entry| entry.report(now)).collect();
        // Ids begin with the time.
        list.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        list
    }

    /// Whether there is such a session.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.entries.contains_key(uid)
    }

    /// Asks a session to end; `false` if there is none.
    pub(crate) fn end(&self, uid: &str) -> bool {
        let Some(entry) = self.entries.get(uid).map(|entry| Arc::clone(&entry)) else {
            return false;
        };
        entry.end();
        true
    }

    /// Has every connection look at what has changed for all of them: the rules.
    pub(crate) fn wake(&self) {
        for entry in &self.entries {
            if let Some(waker) = &entry.login().waker {
                waker.wake_by_ref();
            }
        }
    }

    /// Asks the sessions to end that came with an API key of this prefix, for this user, where
    /// `withdrawn` says so; how many they are.
    pub(crate) fn end_of_keys(&self, withdrawn: impl Fn(&str, &str) -> bool) -> usize {
        let by_key = Method::Password(PasswordKind::ApiKey).name();
        let came_with = |entry: &Entry| {
            let login = entry.login();
            let record = login.record.as_ref().filter(|_| login.method == Some(by_key))?;
            Some((record.subject.clone()?, record.user.clone()))
        };
        let entries: Vec<_> = self.entries.iter().map(|entry| Arc::clone(&entry)).collect();
        let gone = entries.iter().filter(|entry| {
            came_with(entry).is_some_and(|(prefix, user)| withdrawn(&prefix, &user))
        });
        gone.map(|entry| entry.end()).count()
    }
}

impl Entry {
    fn end(&self) {
        self.live.ended.store(true, Ordering::Release);
        let waker = self.login().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn login(&self) -> MutexGuard<'_, Login> {
        // Each field is valid by itself, whatever a panic interrupted.
        self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, now: Now) -> SessionReport {
        let login = self.login();
        let record = login.record.as_deref();
        let named =
            |name: fn(&SessionRecord) -> &String| record.map(name).cloned().unwrap_or_default();
        SessionReport {
            uid: self.uid.to_string(),
            datasource: self.datasource.to_string(),
            user: named(|record| &record.user),
            database: named(|record| &record.database),
            application: named(|record| &record.application),
            client: record.and_then(|record| record.client).map(|client| client.to_string()),
            tls: login.tls.map(str::to_owned),
            method: login.method.map(str::to_owned),
            phase: word(self.live.phase.load(Ordering::Relaxed)).to_owned(),
            phase_s: seconds_since(now, self.live.since_us.load(Ordering::Relaxed)),
            age_s: seconds_since(now, self.began.mono_us),
            began_us: self.began.wall_us,
            statements: self.live.statements.load(Ordering::Relaxed),
            bytes_from_client: self.live.from_client.load(Ordering::Relaxed),
            bytes_to_client: self.live.to_client.load(Ordering::Relaxed),
        }
    }
}

impl Registered {
    /// Whether somebody asked for the end; makes sure that the task is woken when somebody does.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> bool {
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
            self.entry.login().waker = Some(cx.waker().clone());
        }
        self.entry.live.ended.load(Ordering::Acquire)
    }

    /// Notes where the session stands; since `now_us`, if that changed.
    pub(crate) fn stands(&mut self, phase: Phase, now_us: u64) {
        if self.phase != phase {
            self.phase = phase;
            self.entry.live.phase.store(code(phase), Ordering::Relaxed);
            self.entry.live.since_us.store(now_us, Ordering::Relaxed);
        }
    }

    /// Notes who the session is. Asked on every turn, so nothing is locked while that stays the same.
    pub(crate) fn identify(&mut self, record: Option<&Arc<SessionRecord>>) {
        let same = match (&self.known, record) {
            (Some(known), Some(record)) => Arc::ptr_eq(known, record),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !same {
            self.known = record.cloned();
            self.entry.login().record = record.cloned();
        }
    }

    /// The client leg is TLS, of this version.
    pub(crate) fn secured(&self, version: &'static str) {
        self.entry.login().tls = Some(version);
    }

    /// Counts the statements among a turn's events, and learns how the client logged in.
    pub(crate) fn observe(&self, events: &[Event]) {
        let mut statements = 0;
        for event in events {
            match &event.kind {
                EventKind::Decision { .. } => statements += 1,
                EventKind::CommandsDecided { run, .. } => statements += run.count,
                EventKind::CommandsCompleted { result, .. } => statements += result.later,
                EventKind::SessionOpened { method } => self.entry.login().method = Some(method),
                EventKind::LoginFailed { .. }
                | EventKind::SessionClosed { .. }
                | EventKind::Outcome { .. }
                | EventKind::Reload { .. }
                | EventKind::Lifecycle { .. }
                | EventKind::Operator { .. }
                | EventKind::Gap { .. } => {}
            }
        }
        add(&self.entry.live.statements, statements);
    }

    /// Statements counted so far.
    pub(crate) fn statements(&self) -> u64 {
        self.entry.live.statements.load(Ordering::Relaxed)
    }

    /// Counts bytes.
    pub(crate) fn moved(&self, direction: Direction, bytes: u64) {
        match direction {
            Direction::FromClient => add(&self.entry.live.from_client, bytes),
            Direction::ToClient => add(&self.entry.live.to_client, bytes),
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.entries.remove(&*self.entry.uid);
    }
}

/// The connection's task is the only writer: no locked instruction is needed.
fn add(counter: &AtomicU64, n: u64) {
    if n > 0 {
        counter.store(counter.load(Ordering::Relaxed).saturating_add(n), Ordering::Relaxed);
    }
}

fn seconds_since(now: Now, us: u64) -> f64 {
    std::time::Duration::from_micros(now.mono_us.saturating_sub(us)).as_secs_f64()
}

fn code(phase: Phase) -> u8 {
    match phase {
        Phase::Login => 0,
        Phase::Idle => 1,
        Phase::InTransaction => 2,
        Phase::Busy => 3,
        Phase::Closing => 4,
        Phase::Listening => 5,
    }
}

fn word(code: u8) -> &'static str {
    match code {
        0 => "login",
        1 => "idle",
        2 => "in_transaction",
        3 => "busy",
        5 => "listening",
        _ => "closing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(mono_us: u64) -> Now {
        Now { wall_us: 1_000_000 + mono_us, mono_us }
    }

    #[test]
    fn an_entry_tells_what_its_connection_does_and_leaves_with_it() {
        let registry = Arc::new(Registry::default());
        let mut held = registry.enter("01B", &"shop".into(), at(0));
        let other = registry.enter("01A", &"shop".into(), at(5));
        held.stands(Phase::Busy, 2_000_000);
        held.stands(Phase::Busy, 3_000_000);
        held.moved(Direction::FromClient, 7);
        held.moved(Direction::FromClient, 3);
        held.secured("TLSv1.3");
        let list = registry.list(at(3_000_000));
        assert_eq!(list.iter().map(|one| one.uid.as_str()).collect::<Vec<_>>(), ["01A", "01B"]);
        let busy = &list[1];
        assert_eq!((&*busy.phase, busy.phase_s, busy.age_s), ("busy", 1.0, 3.0));
        assert_eq!((busy.bytes_from_client, busy.tls.as_deref()), (10, Some("TLSv1.3")));
        assert_eq!(list[0].phase, "login");
        drop((held, other));
        assert!(registry.list(at(0)).is_empty());
    }

    #[test]
    fn an_end_is_for_one_session() {
        let registry = Arc::new(Registry::default());
        let mut held = registry.enter("01A", &"shop".into(), at(0));
        let mut other = registry.enter("01B", &"shop".into(), at(0));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(!held.poll_ended(&mut cx));
        assert!(!registry.end("01C"));
        assert!(registry.end("01A"));
        assert!(held.poll_ended(&mut cx));
        assert!(!other.poll_ended(&mut cx));
    }
}
