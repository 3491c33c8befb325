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

/// A text that was parsed.
#[derive(Debug)]
pub struct Parsed {
    /// What the text is and touches.
    pub facts: crate::facts::Facts,
}

/// Understands a text.
pub fn analyze(
    _text: &str,
    _catalog: Option<&super::Catalog>,
    _path: &super::SearchPath,
    _limits: &super::AnalyzerLimits,
) -> Parsed {
    let why = crate::facts::Why::Construct("everything".to_owned());
    Parsed { facts: crate::facts::Facts::unknown(why) }
}

impl Predicates {
    /// Parses filters.
    ///
    /// # Errors
    /// Rule, byte offset in its predicate, and message, of each that cannot be used.
    pub fn compile<'a>(
        _filters: impl Iterator<Item = (crate::name::RuleId, &'a str)>,
    ) -> Result<Self, Vec<(crate::name::RuleId, usize, String)>> {
        Ok(Self {})
    }
}

/// Why a text cannot be rewritten.
#[derive(Debug)]
pub struct CannotEnforce {
    /// What is in the way.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
    /// SQLSTATE.
    pub code: &'static str,
}

impl Parsed {
    /// The text with obligations carried out; `None` when there is nothing to change.
    ///
    /// # Errors
    /// Something in the text cannot be rewritten.
    pub fn rewrite(
        &self,
        _text: &str,
        _catalog: &super::Catalog,
        _governances: &[crate::obligation::Governance],
        _predicates: &Predicates,
    ) -> Result<Option<Rewritten>, CannotEnforce> {
        Ok(None)
    }
}
