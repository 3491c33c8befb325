//! Queries the session puts in itself, over the client's own connection: the search path after
//! login, and the catalog when it is missing or too old. Their replies never reach the client.

use std::sync::Arc;

use crate::analysis::Catalog;
use crate::analysis::sql::function_called;
use crate::facts::FunctionUse;
use crate::session::Turn;
use crate::session::pg::scope::ScopeTracker;
use crate::wire::error::WireError;
use crate::wire::pg::message::data_row;

/// What an injected query asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The schemas searched, implicit ones included.
    SearchPath,
    /// The catalog of the database.
    Catalog,
    /// What the OID of a function stands for.
    Function(u32),
    /// Nothing: ends a transaction in which reading the catalog failed.
    Rollback,
}

/// An injected query in flight.
#[derive(Debug)]
pub(super) struct Injected {
    purpose: Purpose,
    rows: Vec<Vec<Option<Vec<u8>>>>,
    bytes: usize,
    failed: bool,
}

impl Injected {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self { purpose, rows: Vec::new(), bytes: 0, failed: false }
    }

    /// The text to send. Safe under any search path of the connection: names are qualified, and
    /// operators are looked up in pg_catalog only.
    pub(super) fn text(purpose: Purpose) -> String {
        match purpose {
            Purpose::SearchPath => {
                "SELECT pg_catalog.unnest(pg_catalog.current_schemas(true))".to_owned()
            }
            Purpose::Catalog => format!(
                "BEGIN TRANSACTION READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp; {}; COMMIT",
                Catalog::QUERY
            ),
            Purpose::Function(oid) => format!(
                "SELECT n.nspname, p.proname FROM pg_catalog.pg_proc AS p \
                 JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace \
                 WHERE p.oid OPERATOR(pg_catalog.=) '{oid}'::pg_catalog.oid"
            ),
            Purpose::Rollback => "ROLLBACK".to_owned(),
        }
    }

    pub(super) fn row(&mut self, body: &[u8]) -> Result<(), WireError> {
        self.bytes += body.len();
        if self.bytes > INJECTED_BYTES_MAX {
            return Err(WireError::LimitExceeded);
        }
        self.rows.push(data_row(body)?);
        Ok(())
    }

    /// The text begins a transaction of its own, which it ends if all goes well.
    pub(super) fn opens_transaction(&self) -> bool {
        self.purpose == Purpose::Catalog
    }

    pub(super) fn failed(&mut self) {
        self.failed = true;
    }

    /// What the OID asked for stands for, if one was: `None` inside if it does not exist.
    pub(super) fn function(&self) -> Option<(u32, Option<FunctionUse>)> {
        let Purpose::Function(oid) = self.purpose else { return None };
        let text = |value: &Option<Vec<u8>>| String::from_utf8(value.clone()?).ok();
        let named = || match self.rows.first()?.as_slice() {
            [schema, name] => Some(function_called(&text(schema)?, &text(name)?)),
            _ => None,
        };
        Some((oid, named().filter(|_| !self.failed)))
    }

    /// Takes the result over. A failure leaves things as they were: whatever needs the catalog is
    /// refused by the gate then.
    pub(super) fn complete(self, turn: Turn<'_>, scope: &mut ScopeTracker) {
        if self.failed {
            if self.purpose == Purpose::Catalog {
                turn.analyzer.load_failed(scope.database());
            }
            return;
        }
        match self.purpose {
            Purpose::Rollback | Purpose::Function(_) => {}
            Purpose::SearchPath => {
                let name = |row: Vec<Option<Vec<u8>>>| {
                    let text = String::from_utf8(row.into_iter().next()??).ok()?;
                    Some(Arc::from(text))
                };
                let schemas: Option<Vec<Arc<str>>> = self.rows.into_iter().map(name).collect();
                if let Some(schemas) = schemas {
                    scope.learn_path(schemas);
                }
            }
            Purpose::Catalog => {
                let now = turn.now.mono_us;
                match Catalog::from_rows(scope.database(), self.rows.into_iter(), now) {
                    Ok(catalog) => {
                        turn.analyzer.install(catalog);
                    }
                    Err(_) => turn.analyzer.load_failed(scope.database()),
                }
            }
        }
    }
}

/// A catalog of a million columns fits; more is not a catalog.
const INJECTED_BYTES_MAX: usize = 256 * 1024 * 1024;
