//! PostgreSQL statements: parse, facts, rewrite, verify. The only module that knows `pg_query` and
//! `sqlparser`; their types never leave it.

/// The predicates of a rule set's filters, parsed at load.
#[derive(Debug, Default)]
pub struct Predicates {}

/// A rewritten text that passed the check against the original.
#[derive(Debug)]
pub struct Rewritten {
    /// What goes to the server.
    pub text: String,
}

impl Rewritten {
    /// The 1-based character position in the client's text for a position in the rewritten one;
    /// `None` when it points into text we inserted.
    pub fn original_position(&self, _position: u32) -> Option<u32> {
        None
    }
}

/// What a statement does to the session, for the state machine to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEffect {
    /// Nothing of interest.
    None,
    /// BEGIN or START TRANSACTION.
    Begin,
    /// COMMIT, ROLLBACK, PREPARE TRANSACTION: the transaction ends.
    EndTransaction,
    /// ROLLBACK TO SAVEPOINT: settings made since are undone.
    RollbackTo,
    /// SET search_path to a constant list (unresolved: `"$user"` may be in it).
    SetSearchPath {
        /// The schemas as written.
        schemas: Vec<String>,
        /// SET LOCAL.
        local: bool,
    },
    /// The search path may have changed in a way that was not followed.
    SearchPathUncertain,
    /// PREPARE name AS …; the text is the statement inside.
    Prepare {
        /// Name, case-folded.
        name: String,
    },
    /// EXECUTE name.
    Execute {
        /// Name, case-folded.
        name: String,
    },
    /// DEALLOCATE name, or all.
    Deallocate {
        /// `None` for ALL.
        name: Option<String>,
    },
    /// DISCARD ALL: forgets prepared statements, settings, cursors, LISTENs.
    DiscardAll,
    /// Changes definitions: catalogs are stale afterwards.
    Ddl,
}
