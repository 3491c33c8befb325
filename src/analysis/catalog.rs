//! What the server says exists: relations with columns and types, inheritance, views, user
//! functions and operators, per database.
//!
//! A catalog is read with [`Catalog::QUERY`], built once and never changed; its digest is part of
//! every plan's key. View definitions are read as text and understood by the same analysis as
//! client statements, so a view is governed by what it reads, functions included.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::facts::{FunctionUse, Relation};

mod build;
mod system;
mod types;

pub use build::CatalogError;
pub(in crate::analysis) use build::{ColumnDraft, Draft, Drafts};
pub(in crate::analysis) use types::{ColumnType, TypeClass, is_plain_type};

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
    tables: Vec<Arc<Table>>,
    by_name: HashMap<Arc<str>, Vec<Arc<Table>>>,
    functions: HashMap<Box<str>, Vec<UserFunction>>,
    operators: HashSet<Box<str>>,
    cast_types: BTreeSet<Box<str>>,
    cast_targets: BTreeSet<Box<str>>,
}

/// A relation with what rewriting needs beyond policy's view of it.
#[derive(Debug)]
pub(in crate::analysis) struct Table {
    /// What policy sees.
    pub(in crate::analysis) relation: Arc<Relation>,
    /// Columns in attribute order; empty for system relations.
    pub(in crate::analysis) columns: Vec<Column>,
    /// Functions a view calls that are not plain built-ins; whoever reads the view calls them.
    pub(in crate::analysis) calls: Vec<FunctionUse>,
    /// Writes to it run rewrite rules (CREATE RULE), whose text is not known here.
    pub(in crate::analysis) write_rules: bool,
}

impl Table {
    /// The column of this name.
    pub(in crate::analysis) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| &*column.name == name)
    }

    /// Whether the value of a column is generated from one that `is_hidden`, directly or not.
    pub(in crate::analysis) fn is_generated_from(
        &self,
        column: &Column,
        is_hidden: &impl Fn(&str) -> bool,
    ) -> bool {
        let mut found: Vec<&Arc<str>> = column.sources.iter().collect();
        let mut next = 0;
        while let Some(name) = found.get(next).copied() {
            if is_hidden(name) {
                return true;
            }
            for source in self.column(name).into_iter().flat_map(|column| &column.sources) {
                if !found.contains(&source) {
                    found.push(source);
                }
            }
            next += 1;
        }
        false
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::analysis) struct Column {
    /// Name as the catalog spells it.
    pub(in crate::analysis) name: Arc<str>,
    /// Type; of a domain, the type below it.
    pub(in crate::analysis) ty: ColumnType,
    /// Columns of the same relation its value is generated from (GENERATED ALWAYS AS).
    pub(in crate::analysis) sources: Vec<Arc<str>>,
}

/// A function outside the system schemas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::analysis) struct UserFunction {
    /// Fewest arguments it can be called with.
    pub(in crate::analysis) arguments_min: u32,
    /// Most arguments it can be called with.
    pub(in crate::analysis) arguments_max: u32,
    /// Came with an extension.
    pub(in crate::analysis) extension: bool,
}

/// What a name in a statement means.
#[derive(Debug)]
pub(in crate::analysis) enum Resolved<'c> {
    /// This relation.
    Table(&'c Arc<Table>),
    /// No relation of the catalog.
    Missing,
    /// One of several; which one depends on a search path that is not known.
    Ambiguous,
}

impl Catalog {
    /// The statement that reads a catalog. Every result column is text. It spells every name with
    /// its schema; run it as
    /// `BEGIN; SET LOCAL search_path = pg_catalog, pg_temp; <QUERY>; COMMIT`, so that view
    /// definitions come back with every other schema written out.
    pub const QUERY: &str = include_str!("catalog/query.sql");

    /// Builds a catalog from the rows of [`Catalog::QUERY`].
    ///
    /// # Errors
    /// A row that the query does not give.
    pub fn from_rows(
        database: &str,
        rows: impl Iterator<Item = Vec<Option<Vec<u8>>>>,
        read_at_us: u64,
    ) -> Result<Self, CatalogError> {
        Ok(Drafts::from_rows(rows)?.build(database, read_at_us))
    }

    /// Builds a catalog from CREATE statements, as rule tests bring them. The digest covers the
    /// text; [`Catalog::read_at_us`] is zero.
    ///
    /// # Errors
    /// The 1-based line of the first statement that is not understood, and why.
    pub fn from_ddl(database: &str, ddl: &str) -> Result<Self, (u32, String)> {
        Ok(super::sql::drafts_from_ddl(ddl)?.build(database, 0))
    }

    /// Every relation, system relations included, in the order of the catalog.
    pub fn relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.tables.iter().map(|table| &table.relation)
    }

    /// The relation of this name.
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Arc<Relation>> {
        self.table(schema, name).map(|table| &table.relation)
    }

    /// A catalog with the system relations every PostgreSQL has, and nothing else.
    pub fn bare(database: &str) -> Self {
        Drafts::default().build(database, 0)
    }

    pub(in crate::analysis) fn table(&self, schema: &str, name: &str) -> Option<&Arc<Table>> {
        self.by_name.get(name)?.iter().find(|table| &*table.relation.path.schema == schema)
    }

    /// What a relation name means under a search path.
    pub(in crate::analysis) fn resolve(
        &self,
        schema: Option<&str>,
        name: &str,
        path: &SearchPath,
    ) -> Resolved<'_> {
        if let Some(schema) = schema {
            return self.table(schema, name).map_or(Resolved::Missing, Resolved::Table);
        }
        match path {
            SearchPath::Known(schemas) => {
                // The server searches its own schema first unless the path names it.
                let implicit = (!schemas.iter().any(|schema| &**schema == "pg_catalog"))
                    .then_some("pg_catalog");
                implicit
                    .into_iter()
                    .chain(schemas.iter().map(|schema| &**schema))
                    .find_map(|schema| self.table(schema, name))
                    .map_or(Resolved::Missing, Resolved::Table)
            }
            SearchPath::Uncertain => match self.by_name.get(name).map(Vec::as_slice) {
                None | Some([]) => Resolved::Missing,
                Some([only]) => Resolved::Table(only),
                Some([_, _, ..]) => Resolved::Ambiguous,
            },
        }
    }

    /// Whether somebody defined a function of this name, not counting extensions: those overload
    /// built-in names for their own types (`replace(citext, …)`) to do the same.
    pub(in crate::analysis) fn has_function(&self, name: &str) -> bool {
        self.functions.get(name).is_some_and(|all| all.iter().any(|f| !f.extension))
    }

    /// Whether a function of this name outside the system schemas takes exactly one argument.
    pub(in crate::analysis) fn has_unary_function(&self, name: &str) -> bool {
        self.functions.get(name).is_some_and(|functions| {
            functions.iter().any(|f| f.arguments_min <= 1 && f.arguments_max >= 1)
        })
    }

    /// Whether somebody defined an operator of this name, not counting extensions.
    pub(in crate::analysis) fn has_operator(&self, name: &str) -> bool {
        self.operators.contains(name)
    }

    /// Whether a cast from or to this type runs a function somebody defined.
    pub(in crate::analysis) fn has_cast(&self, type_name: &str) -> bool {
        self.cast_types.contains(type_name)
    }

    /// Whether a cast *to* this type from another one of the system may run a function somebody
    /// defined: it is the target of such a cast, an array of it, or a type whose parts (fields of a
    /// row) are not known here.
    pub(in crate::analysis) fn has_cast_to(&self, type_name: &str) -> bool {
        !self.cast_targets.is_empty() && {
            let element = type_name.strip_prefix('_').unwrap_or(type_name);
            self.cast_targets.contains(type_name)
                || self.cast_targets.contains(element)
                || !is_plain_type(element)
        }
    }
}
