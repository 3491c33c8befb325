//! Understanding statements: text → facts; the catalog model; rewriting and checking the rewrite.
//! Never fails: what is not understood is a fact.

#![deny(clippy::wildcard_enum_match_arm)]

use std::sync::Arc;

pub mod catalog;
pub mod redis;
pub mod sql;

pub use catalog::{Catalog, SearchPath};

/// How hostile text is read: within which limits, and as which server would read it.
#[derive(Clone, Copy, Debug)]
pub struct AnalyzerLimits {
    /// Longest statement text in bytes that is analysed; longer ones are refused.
    pub statement_bytes_max: usize,
    /// Most tokens in one text.
    pub tokens_max: usize,
    /// The server's way of reading; the session knows it.
    pub dialect: Dialect,
}

/// How the server at hand reads text, as far as servers and sessions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// What a backslash is in a string literal.
    pub strings: Strings,
    /// Major release of the server: some complaints are worded differently.
    pub release: u16,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { strings: Strings::Standard, release: GRAMMAR_RELEASE }
    }
}

/// What a backslash is in a string literal without a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strings {
    /// Itself: `standard_conforming_strings` is on.
    Standard,
    /// The start of an escape: it is off.
    Escaped,
}

impl Default for AnalyzerLimits {
    fn default() -> Self {
        Self { statement_bytes_max: 1024 * 1024, tokens_max: 200_000, dialect: Dialect::default() }
    }
}

/// Catalogs by database, and limits. Shared by all sessions of a datasource.
#[derive(Debug, Default)]
pub struct Analyzer {
    /// Limits for reading text.
    pub limits: AnalyzerLimits,
    slots: dashmap::DashMap<Arc<str>, Slot>,
}

/// The catalog of one database, and when it has to be read again.
#[derive(Debug, Default)]
struct Slot {
    catalog: Option<Arc<Catalog>>,
    /// Definitions changed since it was read.
    stale: bool,
    /// When somebody last set out to read it; `None` when nobody is reading.
    claimed_at_us: Option<u64>,
}

impl Slot {
    /// Whether the caller is to read the catalog now; remembers that it does.
    fn claim(&mut self, now_us: u64, reload: bool) -> bool {
        let claimed = |at: u64| now_us.saturating_sub(at) < CLAIM_US;
        let due = match &self.catalog {
            // Everybody who needs a first catalog reads it: nothing can be done without.
            None => return true,
            Some(catalog) => {
                let age_us = now_us.saturating_sub(catalog.read_at_us);
                self.stale || age_us > REFRESH_US || (reload && age_us > RELOAD_APART_US)
            }
        };
        if !due || self.claimed_at_us.is_some_and(claimed) {
            return false;
        }
        self.claimed_at_us = Some(now_us);
        true
    }
}

impl Analyzer {
    /// With these limits and no catalog yet.
    pub fn new(limits: AnalyzerLimits) -> Self {
        Self { limits, slots: dashmap::DashMap::new() }
    }

    /// The catalog of a database, if one was read.
    pub fn catalog(&self, database: &str) -> Option<Arc<Catalog>> {
        self.slots.get(database)?.catalog.clone()
    }

    /// Puts a catalog in force; returns it. One that says the same as the one in force leaves that
    /// in place, so that plans made under it stay good.
    pub fn install(&self, catalog: Catalog) -> Arc<Catalog> {
        let catalog = Arc::new(catalog);
        let mut slot = self.slots.entry(Arc::clone(&catalog.database)).or_default();
        *slot = Slot { catalog: Some(Arc::clone(&catalog)), stale: false, claimed_at_us: None };
        catalog
    }

    /// Every catalog in force.
    pub fn catalogs(&self) -> Vec<Arc<Catalog>> {
        self.slots.iter().filter_map(|slot| slot.catalog.clone()).collect()
    }

    /// Definitions in this database changed.
    pub fn mark_stale(&self, database: &str) {
        if let Some(mut slot) = self.slots.get_mut(database) {
            slot.stale = true;
        }
    }

    /// Whether the caller is to read the catalog of this database now: none is known, definitions
    /// changed, or it is old. `true` is a claim: others go on with the old one meanwhile.
    pub fn claim_load(&self, database: &str, now_us: u64) -> bool {
        self.claim(database, now_us, false)
    }

    /// The same for a caller who met a relation the catalog does not know.
    pub fn claim_reload(&self, database: &str, now_us: u64) -> bool {
        self.claim(database, now_us, true)
    }

    fn claim(&self, database: &str, now_us: u64, reload: bool) -> bool {
        // Read access first: this is asked before every statement.
        let fresh = self.slots.get(database).is_some_and(|slot| {
            let age_us = |catalog: &Arc<Catalog>| now_us.saturating_sub(catalog.read_at_us);
            !slot.stale && slot.catalog.as_ref().is_some_and(|c| age_us(c) <= REFRESH_US)
        });
        if fresh && !reload {
            return false;
        }
        self.slots.entry(Arc::from(database)).or_default().claim(now_us, reload)
    }

    /// Who claimed the reading could not do it; the next one may.
    pub fn load_failed(&self, database: &str) {
        if let Some(mut slot) = self.slots.get_mut(database) {
            slot.claimed_at_us = None;
        }
    }
}

/// The PostgreSQL release whose grammar is built in.
const GRAMMAR_RELEASE: u16 = 18;
/// A catalog older than this is read again when a statement needs one.
const REFRESH_US: u64 = 30_000_000;
/// A claim is void after this: its session may have ended.
const CLAIM_US: u64 = 5_000_000;
/// Unknown names make the catalog be read again at most this often.
const RELOAD_APART_US: u64 = 1_000_000;
