//! Understanding statements: text → facts; the catalog model; rewriting and checking the rewrite.
//! Never fails: what is not understood is a fact.

#![deny(clippy::wildcard_enum_match_arm)]

use std::sync::Arc;

pub mod catalog;
pub mod sql;

pub use catalog::{Catalog, SearchPath};

/// Limits for reading hostile text.
#[derive(Clone, Copy, Debug)]
pub struct AnalyzerLimits {
    /// Longest statement text in bytes that is analysed; longer ones are refused.
    pub statement_bytes_max: usize,
    /// Most tokens in one text.
    pub tokens_max: usize,
}

impl Default for AnalyzerLimits {
    fn default() -> Self {
        Self { statement_bytes_max: 1024 * 1024, tokens_max: 200_000 }
    }
}

/// Catalogs by database, and limits. Shared by all sessions of a datasource.
#[derive(Debug, Default)]
pub struct Analyzer {
    /// Limits for reading text.
    pub limits: AnalyzerLimits,
    catalogs: dashmap::DashMap<Arc<str>, Arc<Catalog>>,
}

impl Analyzer {
    /// With these limits and no catalog yet.
    pub fn new(limits: AnalyzerLimits) -> Self {
        Self { limits, catalogs: dashmap::DashMap::new() }
    }

    /// The catalog of a database, if one was read.
    pub fn catalog(&self, database: &str) -> Option<Arc<Catalog>> {
        self.catalogs.get(database).map(|entry| Arc::clone(&entry))
    }

    /// Puts a catalog in force; returns it.
    pub fn install(&self, catalog: Catalog) -> Arc<Catalog> {
        let catalog = Arc::new(catalog);
        self.catalogs.insert(Arc::clone(&catalog.database), Arc::clone(&catalog));
        catalog
    }

    /// Every catalog in force.
    pub fn catalogs(&self) -> Vec<Arc<Catalog>> {
        self.catalogs.iter().map(|entry| Arc::clone(entry.value())).collect()
    }
}
