//! Rows or CREATE statements → [`Catalog`], in two steps: relations first, then what views read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::analysis::AnalyzerLimits;
use crate::analysis::sql;
use crate::facts::{Certainty, FunctionClass, FunctionUse, Relation};
use crate::name::RelationPath;

use super::{Catalog, Column, ColumnType, SearchPath, Table, UserFunction, system};

/// Everything that was read, before names are joined up.
#[derive(Debug, Default)]
pub(in crate::analysis) struct Drafts {
    /// Relations by the key their source gives them (an object id, or a qualified name).
    pub(in crate::analysis) relations: Vec<Draft>,
    /// (child, parent) keys, nearest parent first.
    pub(in crate::analysis) parents: Vec<(String, String)>,
    /// Functions outside the system schemas.
    pub(in crate::analysis) functions: Vec<(String, UserFunction)>,
    /// Operator names.
    pub(in crate::analysis) operators: Vec<String>,
    /// Names of types with casts that run a user's function.
    pub(in crate::analysis) casts: Vec<String>,
    /// Names of types to which a user's function casts from another type of the system.
    pub(in crate::analysis) cast_targets: Vec<String>,
    /// Schemas in which view definitions mean unqualified names, after the system's own.
    pub(in crate::analysis) view_path: Vec<Arc<str>>,
    /// Over everything above.
    pub(in crate::analysis) hash: Sha256,
}

/// One relation as read.
#[derive(Debug)]
pub(in crate::analysis) struct Draft {
    pub(in crate::analysis) key: String,
    pub(in crate::analysis) schema: String,
    pub(in crate::analysis) name: String,
    pub(in crate::analysis) columns: Vec<ColumnDraft>,
    /// The query of a view.
    pub(in crate::analysis) definition: Option<String>,
    /// Writes to it run rewrite rules.
    pub(in crate::analysis) write_rules: bool,
}

/// One column as read.
#[derive(Clone, Debug)]
pub(in crate::analysis) struct ColumnDraft {
    pub(in crate::analysis) name: String,
    pub(in crate::analysis) type_schema: String,
    pub(in crate::analysis) type_name: String,
    /// As `format_type` prints it, with modifiers.
    pub(in crate::analysis) formatted: String,
    /// Columns of the same relation its value is generated from.
    pub(in crate::analysis) sources: Vec<String>,
}

/// Rows that are not a catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatalogError {
    /// A row that the catalog query does not give.
    Row,
    /// A name that is not UTF-8.
    NotUtf8,
    /// More rows than a catalog may have.
    TooLarge,
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Row => "unexpected row in the catalog's answer",
            Self::NotUtf8 => "a name in the catalog is not utf-8",
            Self::TooLarge => "the catalog has too many rows",
        })
    }
}

impl std::error::Error for CatalogError {}

/// Most rows of a catalog: hundreds of thousands of relations with their columns.
const ROWS_MAX: usize = 8_000_000;

impl Drafts {
    /// Reads the rows of [`Catalog::QUERY`].
    pub(super) fn from_rows(
        rows: impl Iterator<Item = Vec<Option<Vec<u8>>>>,
    ) -> Result<Self, CatalogError> {
        let mut drafts = Self::default();
        // Columns sort before the relations they belong to.
        let mut columns: HashMap<String, Vec<ColumnDraft>> = HashMap::new();
        for (count, row) in rows.enumerate() {
            if count >= ROWS_MAX {
                return Err(CatalogError::TooLarge);
            }
            let [Some(kind), a, b, c, d, e, f] = drafts.text(row)? else {
                return Err(CatalogError::Row);
            };
            match (kind.as_str(), a, b, c, d, e, f) {
                ("relation", Some(key), Some(schema), Some(name), Some(_), definition, rules) => {
                    let columns = columns.remove(&key).unwrap_or_default();
                    let write_rules = rules.is_some();
                    drafts.relations.push(Draft {
                        key,
                        schema,
                        name,
                        columns,
                        definition,
                        write_rules,
                    });
                }
                ("column", Some(key), Some(_), Some(name), Some(schema), Some(ty), Some(text)) => {
                    columns.entry(key).or_default().push(ColumnDraft {
                        name,
                        type_schema: schema,
                        type_name: ty,
                        formatted: text,
                        sources: Vec::new(),
                    });
                }
                ("generated", Some(key), Some(name), Some(source), None, None, None) => {
                    // Columns sort before what is generated from them.
                    let known = columns.get_mut(&key).ok_or(CatalogError::Row)?;
                    let column = known.iter_mut().find(|column| column.name == name);
                    column.ok_or(CatalogError::Row)?.sources.push(source);
                }
                ("parent", Some(child), Some(parent), Some(_), None, None, None) => {
                    drafts.parents.push((child, parent));
                }
                ("function", Some(_), Some(name), Some(min), Some(max), Some(_), owner) => {
                    let number = |text: String| text.parse().map_err(|_text| CatalogError::Row);
                    let function = UserFunction {
                        arguments_min: number(min)?,
                        arguments_max: number(max)?,
                        extension: owner.is_some(),
                    };
                    drafts.functions.push((name, function));
                }
                ("operator", Some(name), Some(_), None, None, None, None) => {
                    drafts.operators.push(name);
                }
                ("cast", Some(_), Some(name), Some(_), None, None, None) => {
                    drafts.casts.push(name);
                }
                ("cast_to", Some(_), Some(name), Some(_), None, None, None) => {
                    drafts.cast_targets.push(name);
                }
                _ => return Err(CatalogError::Row),
            }
        }
        Ok(drafts)
    }

    /// A row as text; counts it into the digest.
    fn text(&mut self, row: Vec<Option<Vec<u8>>>) -> Result<[Option<String>; 7], CatalogError> {
        let row = row
            .into_iter()
            .map(|value| value.map(String::from_utf8).transpose())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_utf8| CatalogError::NotUtf8)?;
        for value in &row {
            let value = value.as_deref().unwrap_or_default();
            self.hash.update(value.len().to_be_bytes());
            self.hash.update(value);
        }
        row.try_into().map_err(|_row| CatalogError::Row)
    }

    /// Joins everything up.
    pub(in crate::analysis) fn build(mut self, database: &str, read_at_us: u64) -> Catalog {
        let database: Arc<str> = database.into();
        self.add_system();
        self.inherit_sources();
        let lineage = self.lineage(&database);
        let mut catalog = Catalog {
            database: Arc::clone(&database),
            digest: [0; 16],
            read_at_us,
            tables: Vec::with_capacity(self.relations.len()),
            by_name: HashMap::new(),
            functions: HashMap::new(),
            operators: self.operators.drain(..).map(Into::into).collect::<HashSet<_>>(),
            cast_targets: self.cast_targets.drain(..).map(Into::into).collect::<BTreeSet<_>>(),
            cast_types: self.casts.drain(..).map(Into::into).collect::<BTreeSet<_>>(),
        };
        for (digest, byte) in catalog.digest.iter_mut().zip(self.hash.clone().finalize()) {
            *digest = byte;
        }
        for (name, function) in self.functions.drain(..) {
            catalog.functions.entry(name.into()).or_default().push(function);
        }
        let mut views = Vec::new();
        for (draft, lineage) in std::mem::take(&mut self.relations).into_iter().zip(lineage) {
            let (table, definition) = draft.table(&database, lineage);
            if let Some(definition) = definition {
                views.push((catalog.tables.len(), definition));
            }
            catalog.tables.push(Arc::new(table));
        }
        catalog.index();
        let path = SearchPath::Known(std::mem::take(&mut self.view_path));
        catalog.read_views(&views, &path);
        catalog
    }

    /// Adds the system relations that were not read, which is all of them for a catalog made of
    /// CREATE statements.
    fn add_system(&mut self) {
        if self.relations.iter().any(|draft| draft.schema == "pg_catalog") {
            return;
        }
        self.relations.extend(system::always().map(|(schema, name)| Draft {
            key: format!("{schema}.{name}"),
            schema: schema.to_owned(),
            name: name.to_owned(),
            columns: Vec::new(),
            definition: None,
            write_rules: false,
        }));
    }

    /// Reading a relation shows the rows of its children, which may generate a column from others
    /// than it does itself.
    fn inherit_sources(&mut self) {
        let parents: HashMap<&str, Vec<&str>> = self.parents_by_child();
        let mut inherited: HashMap<String, Vec<(String, String)>> = HashMap::new();
        for draft in &self.relations {
            for column in &draft.columns {
                for source in &column.sources {
                    for ancestor in ancestors(&parents, &draft.key) {
                        let found = inherited.entry(ancestor.to_owned()).or_default();
                        found.push((column.name.clone(), source.clone()));
                    }
                }
            }
        }
        for draft in &mut self.relations {
            for (name, source) in inherited.remove(&draft.key).unwrap_or_default() {
                let column = draft.columns.iter_mut().find(|column| column.name == name);
                let Some(column) = column else { continue };
                if !column.sources.contains(&source) {
                    column.sources.push(source);
                }
            }
        }
    }

    fn parents_by_child(&self) -> HashMap<&str, Vec<&str>> {
        let mut parents: HashMap<&str, Vec<&str>> = HashMap::new();
        for (child, parent) in &self.parents {
            parents.entry(child).or_default().push(parent);
        }
        parents
    }

    /// For each relation the relations it inherits from, nearest first.
    fn lineage(&self, database: &Arc<str>) -> Vec<Vec<RelationPath>> {
        let by_key: HashMap<&str, &Draft> =
            self.relations.iter().map(|draft| (draft.key.as_str(), draft)).collect();
        let parents = self.parents_by_child();
        let path = |key: &str| by_key.get(key).map(|draft| draft.path(database));
        self.relations
            .iter()
            .map(|draft| ancestors(&parents, &draft.key).into_iter().filter_map(path).collect())
            .collect()
    }
}

/// Keys of what a relation inherits from, nearest first.
fn ancestors<'k>(parents: &HashMap<&'k str, Vec<&'k str>>, key: &str) -> Vec<&'k str> {
    let mut found: Vec<&str> = parents.get(key).cloned().unwrap_or_default();
    let mut next = 0;
    while let Some(key) = found.get(next).copied() {
        for parent in parents.get(key).into_iter().flatten() {
            if !found.contains(parent) {
                found.push(parent);
            }
        }
        next += 1;
    }
    found
}

impl Draft {
    fn path(&self, database: &Arc<str>) -> RelationPath {
        RelationPath {
            database: Arc::clone(database),
            schema: self.schema.as_str().into(),
            name: self.name.as_str().into(),
        }
    }

    fn table(self, database: &Arc<str>, lineage: Vec<RelationPath>) -> (Table, Option<String>) {
        let path = self.path(database);
        let columns: Vec<Column> = self
            .columns
            .into_iter()
            .map(|column| Column {
                name: column.name.into(),
                ty: ColumnType::named(&column.type_schema, &column.type_name, &column.formatted),
                sources: column.sources.into_iter().map(Into::into).collect(),
            })
            .collect();
        let relation = Relation {
            lineage,
            columns: columns.iter().map(|column| Arc::clone(&column.name)).collect(),
            reads_through: Vec::new(),
            system: system::is_system(&self.schema),
            sensitive_system: system::is_sensitive(&self.schema, &self.name),
            path,
        };
        let table = Table {
            relation: Arc::new(relation),
            columns,
            calls: Vec::new(),
            write_rules: self.write_rules,
        };
        (table, self.definition)
    }
}

impl Catalog {
    fn index(&mut self) {
        self.by_name.clear();
        for table in &self.tables {
            let name = Arc::clone(&table.relation.path.name);
            self.by_name.entry(name).or_default().push(Arc::clone(table));
        }
    }

    /// Finds out what each view reads and calls, then what it reads and calls through other views.
    fn read_views(&mut self, views: &[(usize, String)], path: &SearchPath) {
        let direct: HashMap<RelationPath, View> = views
            .iter()
            .filter_map(|(index, definition)| {
                let view = self.tables.get(*index)?;
                Some((view.relation.path.clone(), self.read_view(view, definition, path)))
            })
            .collect();
        let empty = View::default();
        for (index, _) in views {
            let Some(table) = self.tables.get_mut(*index) else { continue };
            let mut reads: Vec<Arc<Relation>> = Vec::new();
            let mut calls: Vec<FunctionUse> = Vec::new();
            let mut visited = vec![table.relation.path.clone()];
            let mut next = 0;
            while let Some(path) = visited.get(next).cloned() {
                let view = direct.get(&path).unwrap_or(&empty);
                for call in &view.calls {
                    if !calls.contains(call) {
                        calls.push(call.clone());
                    }
                }
                for read in &view.reads {
                    if !visited.contains(&read.path) {
                        visited.push(read.path.clone());
                        reads.push(Arc::clone(read));
                    }
                }
                next += 1;
            }
            let relation = Relation { reads_through: reads, ..(*table.relation).clone() };
            *table = Arc::new(Table {
                relation: Arc::new(relation),
                columns: table.columns.clone(),
                calls,
                write_rules: table.write_rules,
            });
        }
        self.index();
    }

    fn read_view(&self, view: &Table, definition: &str, path: &SearchPath) -> View {
        let limits = AnalyzerLimits { statement_bytes_max: usize::MAX, ..Default::default() };
        let parsed = sql::analyze(definition, Some(self), path, &limits);
        if parsed.facts.certainty != Certainty::Known || !parsed.unknown_relations.is_empty() {
            // What it reads is not known: nobody under rules may read through it.
            let name = format!("the definition of {}", view.relation.path);
            let call = FunctionUse { schema: None, name: name.into(), class: FunctionClass::User };
            return View { reads: Vec::new(), calls: vec![call] };
        }
        View {
            reads: parsed.facts.accesses.into_iter().map(|access| access.relation).collect(),
            calls: parsed
                .facts
                .functions
                .into_iter()
                .filter(|call| match call.class {
                    FunctionClass::User | FunctionClass::Dangerous => true,
                    FunctionClass::Pure | FunctionClass::ReadsCatalog => false,
                })
                .collect(),
        }
    }
}

/// What a view's own definition names.
#[derive(Debug, Default)]
struct View {
    reads: Vec<Arc<Relation>>,
    calls: Vec<FunctionUse>,
}
