//! PostgreSQL statements: parse, facts, rewrite, verify. The only module that knows `pg_query` and
//! `sqlparser`; their types never leave it, and no tree outlives the call that parsed it.
//!
//! `parse` and `tree` turn text into a uniform tree, `walk` and `statements` find what it names,
//! `facts` words it for policy. `rewrite` splices governed subqueries into the client's own text
//! (`mask`, `fence`, `write`, `edits`), and `verify` parses the result again and compares it with
//! what the original tree says it must be. There is no deparser anywhere: bytes nobody had a reason
//! to change stay the client's.

use crate::facts::{Facts, Why};

use super::{AnalyzerLimits, Catalog, SearchPath};

mod complaint;
mod ddl;
mod edits;
mod facts;
mod fence;
mod functions;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod mask;
mod model;
mod normalize;
mod parse;
mod predicate;
mod qualified;
mod quote;
mod rewrite;
mod scope;
mod statements;
mod tree;
mod verify;
mod walk;
mod write;

pub(super) use ddl::drafts_from_ddl;
pub use edits::Rewritten;
pub use functions::function_called;
#[cfg(any(test, fuzzing))]
pub use fuzz::fuzz_rewrite;
pub use mask::check_mask;
pub use normalize::normalize;
pub use predicate::Predicates;
pub(super) use quote::quote_ident;
pub use rewrite::CannotEnforce;

use tree::{Kind, Node};

/// One text, understood.
#[derive(Debug)]
pub struct Parsed {
    /// What policy decides on.
    pub facts: Facts,
    /// What each statement does to the session, one per statement.
    pub effects: Vec<SessionEffect>,
    /// How many statements the text holds.
    pub statements: usize,
    /// Only reads, and runs no code of users: an error before execution cannot carry data.
    pub read_only: bool,
    /// Relations that are read or written and that the catalog does not have, as written. A text
    /// with any must not run for an identity under rules; a fresh catalog may know them.
    pub unknown_relations: Vec<String>,
    path: SearchPath,
    catalog: Option<[u8; 16]>,
    limits: AnalyzerLimits,
}

/// Understands a text. Never fails: what is not understood is a fact.
///
/// Without a catalog every relation is an unknown one; such facts serve identities no rule governs.
pub fn analyze(
    text: &str,
    catalog: Option<&Catalog>,
    path: &SearchPath,
    limits: &AnalyzerLimits,
) -> Parsed {
    let parsed = |facts, effects: Vec<_>, unknown_relations, read_only| Parsed {
        facts,
        statements: effects.len(),
        effects,
        read_only,
        unknown_relations,
        path: path.clone(),
        catalog: catalog.map(|catalog| catalog.digest),
        limits: *limits,
    };
    let found = parse::on_deep_stack(text, || {
        let statements = parse::parse(text, limits)?;
        let model = walk::walk(&statements, catalog, path)?;
        let facts = facts::facts(&model, catalog);
        let read_only = facts::is_read_only(&facts);
        Ok((facts, read_only, facts::unknown_relations(&model), model.effects))
    });
    match found.unwrap_or(Err(Why::TooComplex)) {
        Ok((facts, read_only, unknown, effects)) => parsed(facts, effects, unknown, read_only),
        Err(why) => parsed(Facts::unknown(why), Vec::new(), Vec::new(), false),
    }
}

/// Whether a condition holds, or may hold, for every row whatever it is: it names no column.
fn always_true(condition: &Node) -> bool {
    use pg_query::protobuf::BoolExprType;
    if condition.kind == Kind::BoolExpr {
        let mut arms = condition.nodes("args");
        match condition.variant("boolop") {
            Some(BoolExprType::AndExpr) => return arms.all(always_true),
            Some(BoolExprType::OrExpr) => return arms.any(always_true),
            Some(BoolExprType::NotExpr | BoolExprType::Undefined) | None => {}
        }
    }
    !condition.any(&mut |node| matches!(node.kind, Kind::ColumnRef | Kind::CurrentOfExpr))
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
    /// FETCH or MOVE of a cursor.
    Fetch {
        /// The cursor's name, case-folded.
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

#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod rewrite_tests;
#[cfg(test)]
mod tests;
