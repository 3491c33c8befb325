//! Prepared statements and portals of one session, by name.
//!
//! Names are registered when the message is forwarded, because clients bind before they have seen
//! ParseComplete; an error puts back what the name meant before. The server knows names by their
//! first bytes only (its tables of names have keys of `NAMEDATALEN`), and so does this module: two
//! names that are one there must not be two here.

use std::collections::HashMap;
use std::sync::Arc;

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
    /// What the decision depended on.
    pub key: ScopeKey,
    /// Made by SQL PREPARE rather than Parse.
    pub by_text: bool,
}

/// A portal: a bound statement.
#[derive(Clone, Debug)]
pub(super) struct Portal {
    /// The statement it was bound from.
    pub statement: Arc<Prepared>,
    /// It was executed before, so its limits are charged.
    pub started: bool,
}

/// Everything named in one session.
#[derive(Debug, Default)]
pub(super) struct Names {
    statements: HashMap<Bytes, Arc<Prepared>>,
    unnamed_statement: Option<Arc<Prepared>>,
    portals: HashMap<Bytes, Portal>,
    unnamed_portal: Option<Portal>,
}

impl Names {
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

    pub(super) fn portal_count(&self) -> usize {
        self.portals.len()
    }

    /// A Query destroys the unnamed statement and portal.
    pub(super) fn query_started(&mut self) {
        self.unnamed_statement = None;
        self.unnamed_portal = None;
    }

    /// No portal outlives its transaction.
    pub(super) fn transaction_ended(&mut self) {
        self.portals.clear();
        self.unnamed_portal = None;
    }

    /// DEALLOCATE ALL, DISCARD ALL.
    pub(super) fn forget_statements(&mut self) {
        self.statements.clear();
    }
}

/// The part of a name the server tells names apart by.
fn known(name: &[u8]) -> &[u8] {
    name.get(..NAME_BYTES_MAX).unwrap_or(name)
}

fn key(name: &Bytes) -> Bytes {
    name.slice(..name.len().min(NAME_BYTES_MAX))
}

/// `NAMEDATALEN` less the terminating zero.
const NAME_BYTES_MAX: usize = 63;
