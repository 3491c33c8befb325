//! Prepared statements and portals of one session, by name.
//!
//! Names are registered when the message is forwarded, because clients bind before they have seen
//! ParseComplete; an error puts back what the name meant before. The server knows names by their
//! first bytes only (its tables of names have keys of `NAMEDATALEN`), and so does this module: two
//! names that are one there must not be two here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::session::gate::{Plan, ScopeKey};

/// A prepared statement: what the client asked for, and what was decided of it.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The client's text. For a statement of SQL PREPARE: the whole text PREPARE stood in.
    pub text: Bytes,
    /// Raw parameter types of the Parse message.
    pub parameter_types: Bytes,
    /// The decision.
    pub plan: Arc<Plan>,
    /// What the decision depended on; `None` if the server may not hold the statement any more.
    pub key: Option<ScopeKey>,
    /// Made by SQL PREPARE rather than Parse.
    pub by_text: bool,
    /// Its part of what the session holds.
    pub share: Share,
}

/// Bytes of one prepared statement, counted for its session as long as anything refers to it: a
/// name, a portal, or a reply that may yet put it back.
#[derive(Debug)]
pub(super) struct Share {
    bytes: usize,
    held: Arc<AtomicUsize>,
}

impl Share {
    fn new(bytes: usize, held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, held: Arc::clone(held) }
    }

    /// Another one of the same size.
    pub(super) fn again(&self) -> Self {
        Self::new(self.bytes, &self.held)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Prepared {
    /// The same statement, which the server has to be sent again before it is used.
    pub(super) fn lost(&self) -> Arc<Self> {
        let Self { text, parameter_types, plan, key: _, by_text, share } = self;
        Arc::new(Self {
            text: text.clone(),
            parameter_types: parameter_types.clone(),
            plan: Arc::clone(plan),
            key: None,
            by_text: *by_text,
            share: share.again(),
        })
    }
}

/// A portal: a bound statement.
#[derive(Clone, Debug)]
pub(super) struct Portal {
    /// The statement it was bound from.
    pub statement: Arc<Prepared>,
    /// It was executed before, so its limits are charged.
    pub started: bool,
    /// Which of the session's portals it is, in order of binding.
    pub number: u64,
    /// The batch it was bound in: it ends with a transaction that ends then or later.
    pub batch: u64,
}

/// Everything named in one session.
#[derive(Debug, Default)]
pub(super) struct Names {
    statements: HashMap<Bytes, Arc<Prepared>>,
    unnamed_statement: Option<Arc<Prepared>>,
    portals: HashMap<Bytes, Portal>,
    unnamed_portal: Option<Portal>,
    /// Texts with DECLARE in them: what their cursors hold was decided then.
    cursors: Vec<Arc<Prepared>>,
    held: Arc<AtomicUsize>,
}

impl Names {
    /// Counts a statement of this many bytes as held.
    pub(super) fn share(&self, bytes: usize) -> Share {
        Share::new(bytes, &self.held)
    }

    /// Whether a statement of this many bytes may be held, too.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.held.load(Ordering::Relaxed).saturating_add(bytes) <= HELD_BYTES_MAX
    }

    pub(super) fn statement(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        match known(name) {
            [] => self.unnamed_statement.as_ref(),
            name => self.statements.get(name),
        }
    }

    /// Makes `name` stand for `prepared` (or for nothing); returns what it stood for.
    pub(super) fn set_statement(
        &mut self,
        name: &Bytes,
        prepared: Option<Arc<Prepared>>,
    ) -> Option<Arc<Prepared>> {
        if name.is_empty() {
            return std::mem::replace(&mut self.unnamed_statement, prepared);
        }
        match prepared {
            Some(prepared) => self.statements.insert(key(name), prepared),
            None => self.statements.remove(known(name)),
        }
    }

    pub(super) fn statement_count(&self) -> usize {
        self.statements.len()
    }

    pub(super) fn portal(&mut self, name: &[u8]) -> Option<&mut Portal> {
        match known(name) {
            [] => self.unnamed_portal.as_mut(),
            name => self.portals.get_mut(name),
        }
    }

    /// Makes `name` stand for `portal` (or for nothing); returns what it stood for.
    pub(super) fn set_portal(&mut self, name: &Bytes, portal: Option<Portal>) -> Option<Portal> {
        if name.is_empty() {
            return std::mem::replace(&mut self.unnamed_portal, portal);
        }
        match portal {
            Some(portal) => self.portals.insert(key(name), portal),
            None => self.portals.remove(known(name)),
        }
    }

    /// Whether a query of ours would end a portal the client may go on with.
    pub(super) fn has_unnamed_portal(&self) -> bool {
        self.unnamed_portal.is_some()
    }

    pub(super) fn portal_count(&self) -> usize {
        self.portals.len()
    }

    /// A text declares cursors.
    pub(super) fn declared(&mut self, text: Arc<Prepared>) {
        let known = |old: &Arc<Prepared>| old.key == text.key && old.text == text.text;
        if !self.cursors.iter().any(known) {
            self.cursors.push(text);
        }
    }

    pub(super) fn cursor_count(&self) -> usize {
        self.cursors.len()
    }

    /// Everything FETCH may read from: SQL cursors, and portals, which it knows by name, too.
    pub(super) fn fetchable(&self) -> impl Iterator<Item = &Arc<Prepared>> {
        let portals = self.portals.values().chain(&self.unnamed_portal);
        self.cursors.iter().chain(portals.map(|portal| &portal.statement))
    }

    /// A Parse failed or was skipped: its name means again what it meant before, unless a later
    /// message has given it another meaning meanwhile.
    pub(super) fn unparse(
        &mut self,
        name: &Bytes,
        made: &Arc<Prepared>,
        prior: Option<Arc<Prepared>>,
    ) {
        if self.statement(name).is_some_and(|now| Arc::ptr_eq(now, made)) {
            self.set_statement(name, prior);
        }
    }

    /// The same for a Bind.
    pub(super) fn unbind(&mut self, name: &Bytes, made: &Portal, prior: Option<Portal>) {
        if self.portal(name).is_some_and(|now| now.number == made.number) {
            self.set_portal(name, prior);
        }
    }

    /// A Query destroys the unnamed statement and portal.
    pub(super) fn query_started(&mut self) {
        self.unnamed_statement = None;
        self.unnamed_portal = None;
    }

    /// A Query of our own does the same to the server; the client's statement is made up for.
    pub(super) fn query_injected(&mut self) {
        self.unnamed_statement = self.unnamed_statement.take().map(|prepared| prepared.lost());
        self.unnamed_portal = None;
    }

    /// No portal outlives its transaction, and no cursor that is not WITH HOLD.
    /// Portals bound after the batch that ended it were bound in the next one.
    pub(super) fn transaction_ended(&mut self, batch: u64) {
        self.cursors.retain(|cursor| {
            cursor.text.windows(HOLD.len()).any(|word| word.eq_ignore_ascii_case(HOLD))
        });
        self.portals.retain(|_name, portal| portal.batch > batch);
        self.unnamed_portal = self.unnamed_portal.take().filter(|portal| portal.batch > batch);
    }

    /// DEALLOCATE ALL, DISCARD ALL.
    pub(super) fn forget_statements(&mut self) {
        self.statements.clear();
    }

    /// DISCARD ALL.
    pub(super) fn forget_cursors(&mut self) {
        self.cursors.clear();
    }
}

/// The part of a name the server tells names apart by.
fn known(name: &[u8]) -> &[u8] {
    name.get(..NAME_BYTES_MAX).unwrap_or(name)
}

fn key(name: &Bytes) -> Bytes {
    name.slice(..name.len().min(NAME_BYTES_MAX))
}

/// Stands in every text that declares a cursor WITH HOLD.
const HOLD: &[u8] = b"hold";
/// Most bytes of prepared statements one session holds. The number of names alone does not bound
/// them: the unnamed statement can be replaced as often as the server does not answer.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// `NAMEDATALEN` less the terminating zero.
const NAME_BYTES_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::gate::{Refusal, Words};

    fn prepared(names: &Names, text: &'static str) -> Arc<Prepared> {
        let refusal = Refusal {
            code: "",
            message: String::new(),
            hint: None,
            position: None,
            rule: None,
            words: Words::Ours,
        };
        Arc::new(Prepared {
            text: text.into(),
            parameter_types: Bytes::new(),
            plan: Arc::new(Plan::of_refusal(refusal, 0)),
            key: None,
            by_text: false,
            share: names.share(text.len()),
        })
    }

    fn portal(statement: Arc<Prepared>, batch: u64) -> Portal {
        Portal { statement, started: false, number: 1, batch }
    }

    #[test]
    fn names_stand_for_what_they_were_last_given() {
        let mut names = Names::default();
        for name in ["", "s"].map(Bytes::from) {
            let (one, two) = (prepared(&names, "one"), prepared(&names, "two"));
            assert!(names.set_statement(&name, Some(one)).is_none());
            let before = names.set_statement(&name, Some(two)).unwrap();
            assert_eq!(
                (&before.text[..], &names.statement(&name).unwrap().text[..]),
                (&b"one"[..], &b"two"[..])
            );
            names.set_statement(&name, Some(before));
            assert_eq!(names.statement(&name).unwrap().text, "one");
            let statement = Arc::clone(names.statement(&name).unwrap());
            names.set_portal(&name, Some(portal(statement, 1)));
            assert!(names.portal(&name).is_some());
        }
        assert_eq!((names.statement_count(), names.portal_count()), (1, 1));
        names.transaction_ended(0);
        assert!(names.portal(b"").is_some(), "it was bound in the next batch");
        names.transaction_ended(1);
        assert!(names.portal(b"").is_none() && names.portal(b"s").is_none());
        names.query_injected();
        assert!(names.statement(b"").is_some(), "it is parsed again when it is used");
        names.query_started();
        assert!(names.statement(b"").is_none() && names.statement(b"s").is_some());
        names.forget_statements();
        assert!(names.statement(b"s").is_none());
    }

    #[test]
    fn names_are_told_apart_by_their_first_bytes() {
        let mut names = Names::default();
        let long = |end: &str| Bytes::from("x".repeat(NAME_BYTES_MAX - 1) + end);
        let one = prepared(&names, "one");
        names.set_statement(&long("ab"), Some(one));
        assert!(names.statement(&long("ac")).is_some(), "one name at the server");
        assert!(names.statement(&long("b")).is_none());
        assert!(names.set_statement(&long("a"), None).is_some());
    }

    #[test]
    fn bytes_are_held_as_long_as_anything_refers_to_them() {
        let mut names = Names::default();
        let (one, two) = (prepared(&names, "12345"), prepared(&names, "123"));
        let name = Bytes::from("s");
        names.set_statement(&name, Some(one));
        let prior = names.set_statement(&name, Some(two));
        assert!(names.has_room(HELD_BYTES_MAX - 8) && !names.has_room(HELD_BYTES_MAX - 7));
        drop(prior);
        assert!(names.has_room(HELD_BYTES_MAX - 3) && !names.has_room(HELD_BYTES_MAX - 2));
        let lost = names.statement(&name).unwrap().lost();
        assert!(!names.has_room(HELD_BYTES_MAX - 5));
        drop(lost);
        names.forget_statements();
        assert!(names.has_room(HELD_BYTES_MAX) && !names.has_room(usize::MAX));
    }
}
