//! What a session's plans depend on: who it is, under which rules, with which search path.

use std::sync::Arc;

use crate::analysis::sql::SessionEffect;
use crate::analysis::{Catalog, SearchPath};
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
        let key = ScopeKey::new(turn, &class, &login.database, path.current());
        let generation = turn.rules.generation;
        Self {
            login,
            class,
            generation,
            catalog: None,
            path,
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
            self.key = ScopeKey::new(turn, &self.class, &self.login.database, self.path());
        }
        self.scope()
    }

    /// Whether what is in flight may move the search path before the next text is read.
    pub(super) fn doubt_path(&mut self, in_doubt: bool) {
        self.path_in_doubt = in_doubt;
    }

    /// SETs of the search path depend on how the transaction ends.
    pub(super) fn path_is_unsettled(&self) -> bool {
        self.path.before.is_some()
    }

    fn path(&self) -> &SearchPath {
        if self.doubted { &SearchPath::Uncertain } else { self.path.current() }
    }

    fn scope(&self) -> Scope<'_> {
        Scope {
            class: &self.class,
            database: &self.login.database,
            path: self.path(),
            key: self.key,
        }
    }

    /// The server's own answer to `current_schemas(true)`.
    pub(super) fn learn_path(&mut self, schemas: Vec<Arc<str>>) {
        self.path = PathTracker::known(schemas);
        self.stale = true;
    }

    /// A statement with this effect succeeded.
    pub(super) fn apply(&mut self, effect: &SessionEffect) {
        let user = &self.login.user;
        match effect {
            SessionEffect::SetSearchPath { schemas, local } => {
                self.path.set(resolve(schemas, user), *local);
            }
            SessionEffect::SearchPathUncertain => self.path.set(SearchPath::Uncertain, false),
            SessionEffect::RollbackTo => self.path.savepoint_rolled_back(),
            SessionEffect::DiscardAll => self.path.set(SearchPath::Uncertain, false),
            SessionEffect::None
            | SessionEffect::Begin
            | SessionEffect::EndTransaction
            | SessionEffect::Prepare { .. }
            | SessionEffect::Execute { .. }
            | SessionEffect::Fetch { .. }
            | SessionEffect::Deallocate { .. }
            | SessionEffect::Ddl => return,
        }
        self.stale = true;
    }

    /// The transaction (explicit or implicit) ended.
    pub(super) fn settle(&mut self, committed: bool) {
        self.stale |= self.path.settle(committed);
    }
}

/// The implicit schemas come first, then the list as written, `"$user"` resolved. A schema that
/// does not exist is skipped by the server and matches nothing here.
fn resolve(schemas: &[String], user: &str) -> SearchPath {
    let mut path: Vec<Arc<str>> = Vec::new();
    let implicit = ["pg_temp", "pg_catalog"].into_iter();
    path.extend(implicit.filter(|name| !schemas.iter().any(|s| s == name)).map(Arc::from));
    path.extend(schemas.iter().map(|name| match name.as_str() {
        "$user" => Arc::from(user),
        name => Arc::from(name),
    }));
    SearchPath::Known(path)
}

/// The search path over transactions: a rollback undoes a SET, the end of a transaction undoes a
/// SET LOCAL.
#[derive(Debug)]
struct PathTracker {
    current: SearchPath,
    /// What holds after a rollback; `None` while nothing was set since the transaction began.
    before: Option<SearchPath>,
    /// What holds after a commit.
    after_commit: Option<SearchPath>,
}

impl Default for PathTracker {
    fn default() -> Self {
        Self { current: SearchPath::Uncertain, before: None, after_commit: None }
    }
}

impl PathTracker {
    fn known(schemas: Vec<Arc<str>>) -> Self {
        Self { current: SearchPath::Known(schemas), ..Self::default() }
    }

    fn current(&self) -> &SearchPath {
        &self.current
    }

    fn set(&mut self, path: SearchPath, local: bool) {
        let old = std::mem::replace(&mut self.current, path.clone());
        let before = self.before.get_or_insert(old).clone();
        if local {
            self.after_commit.get_or_insert(before);
        } else {
            self.after_commit = Some(path);
        }
    }

    /// Which of the SETs the savepoint undid is not followed.
    fn savepoint_rolled_back(&mut self) {
        if self.before.is_some() {
            self.set(SearchPath::Uncertain, false);
        }
    }

    /// Whether anything changed.
    fn settle(&mut self, committed: bool) -> bool {
        let (Some(before), after) = (self.before.take(), self.after_commit.take()) else {
            return false;
        };
        self.current = if committed { after.unwrap_or(before) } else { before };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> SearchPath {
        SearchPath::Known(names.iter().map(|name| Arc::from(*name)).collect())
    }

    #[test]
    fn the_path_follows_commits_and_rollbacks() {
        let mut path = PathTracker::known(vec!["public".into()]);
        path.set(known(&["a"]), false);
        assert_eq!(path.current(), &known(&["a"]));
        path.settle(false);
        assert_eq!(path.current(), &known(&["public"]), "a rollback undoes SET");
        path.set(known(&["a"]), false);
        path.set(known(&["b"]), true);
        assert_eq!(path.current(), &known(&["b"]));
        path.settle(true);
        assert_eq!(path.current(), &known(&["a"]), "SET LOCAL ends with the transaction");
        path.set(known(&["c"]), true);
        path.settle(true);
        assert_eq!(path.current(), &known(&["a"]));
        path.set(known(&["d"]), false);
        path.savepoint_rolled_back();
        path.settle(true);
        assert_eq!(path.current(), &SearchPath::Uncertain);
    }

    #[test]
    fn a_written_path_resolves_as_the_server_does() {
        let path = resolve(&["$user".to_owned(), "public".to_owned()], "maria");
        assert_eq!(path, known(&["pg_temp", "pg_catalog", "maria", "public"]));
        let path = resolve(&["public".to_owned(), "pg_catalog".to_owned()], "maria");
        assert_eq!(path, known(&["pg_temp", "public", "pg_catalog"]));
    }
}
