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
