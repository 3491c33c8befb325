//! What a session's plans depend on: who it is, under which rules, with which search path.

use std::sync::Arc;

use crate::analysis::sql::SessionEffect;
use crate::analysis::{Catalog, Dialect, SearchPath};
use crate::policy::{Identity, IdentityClass, Login};
use crate::session::Turn;
use crate::session::gate::{Scope, ScopeKey};

/// Follows everything that decides how a text of this session is planned.
#[derive(Debug)]
pub(super) struct ScopeTracker {
    login: Login,
    class: IdentityClass,
    /// Generation `class` was computed under.
    generation: u64,
    /// Catalog `key` was computed with.
    catalog: Option<Arc<Catalog>>,
    path: PathTracker,
    dialect: Dialect,
    key: ScopeKey,
    /// Something the key depends on changed.
    stale: bool,
    /// Something in flight may move the search path.
    path_in_doubt: bool,
    /// The key was computed with the path in doubt.
    doubted: bool,
}

impl ScopeTracker {
    pub(super) fn new(turn: Turn<'_>, login: Login) -> Self {
        let class = turn.rules.set.classify(turn.rules.set.identify(login.clone()));
        let path = PathTracker::default();
        let dialect = Dialect::default();
        let key = ScopeKey::new(turn, &class, &login.database, &path.current, dialect);
        let generation = turn.rules.generation;
        Self {
            login,
            class,
            generation,
            catalog: None,
            path,
            dialect,
            key,
            stale: true,
            path_in_doubt: false,
            doubted: false,
        }
    }

    pub(super) fn class(&self) -> &IdentityClass {
        &self.class
    }

    pub(super) fn database(&self) -> &str {
        &self.login.database
    }

    /// Brings everything up to date with the rules and the catalog in force; then the scope.
    pub(super) fn current(&mut self, turn: Turn<'_>) -> Scope<'_> {
        if self.generation != turn.rules.generation {
            self.generation = turn.rules.generation;
            let identity: Identity = turn.rules.set.identify(self.login.clone());
            self.class = turn.rules.set.classify(identity);
            self.stale = true;
        }
        if self.class.concerned {
            let catalog = turn.analyzer.catalog(&self.login.database);
            let same = match (&self.catalog, &catalog) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !same {
                self.catalog = catalog;
                self.stale = true;
            }
        }
        let doubted = self.path_in_doubt && self.class.concerned;
        if std::mem::replace(&mut self.doubted, doubted) != doubted {
            self.stale = true;
        }
        if std::mem::take(&mut self.stale) {
            let database = &self.login.database;
            self.key = ScopeKey::new(turn, &self.class, database, self.path(), self.dialect);
        }
        self.scope()
    }

    /// Whether what is in flight may move the search path before the next text is read.
    pub(super) fn doubt_path(&mut self, in_doubt: bool) {
        self.path_in_doubt = in_doubt;
    }

    /// SETs of the search path depend on how the transaction ends.
    pub(super) fn path_is_unsettled(&self) -> bool {
        self.path.moved
    }

    fn path(&self) -> &SearchPath {
        if self.doubted { &SearchPath::Uncertain } else { &self.path.current }
    }

    fn scope(&self) -> Scope<'_> {
        Scope {
            class: &self.class,
            database: &self.login.database,
            path: self.path(),
            dialect: self.dialect,
            key: self.key,
        }
    }

    /// How the server reads text from now on.
    pub(super) fn follow_dialect(&mut self, dialect: Dialect) {
        if self.dialect != dialect {
            self.dialect = dialect;
            self.stale = true;
        }
    }

    /// The server's own answer to `current_schemas(true)`.
    pub(super) fn learn_path(&mut self, schemas: Vec<Arc<str>>) {
        self.path.current = SearchPath::Known(schemas);
        self.stale = true;
    }

    /// A statement with this effect succeeded.
    pub(super) fn apply(&mut self, effect: &SessionEffect) {
        match effect {
            SessionEffect::SetSearchPath { .. }
            | SessionEffect::SearchPathUncertain
            | SessionEffect::DiscardAll => self.path.move_on(),
            SessionEffect::RollbackTo if self.path.moved => self.path.move_on(),
            SessionEffect::None
            | SessionEffect::Begin
            | SessionEffect::EndTransaction
            | SessionEffect::RollbackTo
            | SessionEffect::Prepare { .. }
            | SessionEffect::Execute { .. }
            | SessionEffect::Fetch { .. }
            | SessionEffect::Deallocate { .. }
            | SessionEffect::Ddl => return,
        }
        self.stale = true;
    }

    /// The transaction (explicit or implicit) ended.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.path.moved) {
            self.path.current = SearchPath::Uncertain;
            self.stale = true;
        }
    }
}

/// The search path: what the server last said it is, until something moves it.
///
/// What a SET makes of it is never worked out here. The server leaves out schemas that do not exist
/// or that the user may not use, and a rollback or the end of a transaction puts back what was:
/// it is asked again, before the next statement outside a transaction.
#[derive(Debug)]
struct PathTracker {
    current: SearchPath,
    /// Something moved it since the transaction began: its end may move it again.
    moved: bool,
}

impl Default for PathTracker {
    fn default() -> Self {
        Self { current: SearchPath::Uncertain, moved: false }
    }
}

impl PathTracker {
    fn move_on(&mut self) {
        *self = Self { current: SearchPath::Uncertain, moved: true };
    }
}
