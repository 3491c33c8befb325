//! The client's text → the text that may run: each governed relation becomes a subquery that holds
//! only the rows and the masked columns this identity may see. PostgreSQL then resolves everything
//! else (`*`, whole rows, functional notation, common table expressions) over governed data.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::analysis::Catalog;
use crate::analysis::catalog::Table;
use crate::name::RelationPath;
use crate::obligation::{Governance, RowFilter};

use super::edits::{self, Edit, Rewritten};
use super::fence::Fence;
use super::model::{Model, Reference, Role};
use super::parse::{self, Token};
use super::predicate::Predicates;
use super::quote::quote_ident;
use super::statements::shows_estimates;
use super::tree::{Kind, Node};
use super::verify::{self, Change};
use super::{Parsed, mask, walk, write};

/// An obligation that cannot be carried out for a statement. The statement is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CannotEnforce {
    /// Names the construct and the relation; lower case, no value of the statement.
    pub message: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
    /// SQLSTATE: 0A000 for what is not supported, 42501 for what is not allowed.
    pub code: &'static str,
}

impl CannotEnforce {
    /// Something this version does not do.
    pub(super) fn unsupported(message: String) -> Self {
        Self { message, hint: None, code: "0A000" }
    }

    /// Something that must not happen.
    pub(super) fn forbidden(message: String) -> Self {
        Self { message, hint: None, code: "42501" }
    }

    /// With a way out.
    pub(super) fn hint(self, hint: &str) -> Self {
        Self { hint: Some(hint.to_owned()), ..self }
    }
}

/// What each relation owes.
pub(super) struct Governed<'a> {
    by_path: HashMap<&'a RelationPath, &'a Governance>,
    predicates: &'a Predicates,
}

impl<'a> Governed<'a> {
    /// What a relation owes, if anything.
    pub(super) fn of(&self, table: &Table) -> Option<&'a Governance> {
        self.by_path.get(&table.relation.path).copied()
    }

    /// Whether the stored value of a column must not be seen: it is masked, or generated from a
    /// column that is.
    pub(super) fn hides(governance: &Governance, table: &Table, name: &str) -> bool {
        let masked = |name: &str| governance.masks.iter().any(|mask| *mask.column == *name);
        let generated =
            || table.column(name).is_some_and(|column| table.is_generated_from(column, &masked));
        masked(name) || generated()
    }

    /// All filters of a relation as one condition over `alias`.
    pub(super) fn filter(
        &self,
        governance: &Governance,
        alias: &str,
    ) -> Result<Option<String>, CannotEnforce> {
        let mut conditions = Vec::with_capacity(governance.filters.len());
        for filter in &governance.filters {
            let predicate = self.predicate(filter)?;
            let sql = predicate.sql(alias, &filter.values).ok_or_else(|| {
                CannotEnforce::forbidden(format!(
                    "the filter of rule `{}` needs an attribute this identity does not have",
                    filter.rule
                ))
            })?;
            conditions.push(sql);
        }
        Ok((!conditions.is_empty()).then(|| conditions.join(" AND ")))
    }

    /// The parsed predicate of a filter.
    pub(super) fn predicate(
        &self,
        filter: &RowFilter,
    ) -> Result<&'a super::predicate::Predicate, CannotEnforce> {
        self.predicates.of(filter).ok_or_else(|| {
            CannotEnforce::unsupported(format!(
                "the filter of rule `{}` is not the one that was compiled",
                filter.rule
            ))
        })
    }
}

/// Everything a rewrite looks at.
pub(super) struct Rewriter<'a, 't> {
    pub(super) tokens: &'a [Token],
    pub(super) model: &'a Model<'t>,
    pub(super) governed: &'a Governed<'a>,
    pub(super) fence: Fence<'a, 't>,
    needs_fence: bool,
    pub(super) statements: &'t [Node],
    /// Every name and constant of the text: a column that is not among them is not asked for.
    texts: HashSet<&'t str>,
    /// Some star or natural join asks for columns nobody names.
    starred: bool,
    system_columns: Vec<&'static str>,
}

impl Parsed {
    /// Carries out what the relations of the text owe. `None` when there is nothing to change.
    ///
    /// # Errors
    /// An obligation that cannot be carried out for this statement, or a result that could not be
    /// verified.
    pub fn rewrite(
        &self,
        text: &str,
        catalog: &Catalog,
        governances: &[Governance],
        predicates: &Predicates,
    ) -> Result<Option<Rewritten>, CannotEnforce> {
        let owing = governances.iter().filter(|g| !g.masks.is_empty() || !g.filters.is_empty());
        let governed =
            Governed { by_path: owing.map(|g| (&g.relation.path, g)).collect(), predicates };
        if governed.by_path.is_empty() {
            return Ok(None);
        }
        if self.catalog != Some(catalog.digest) {
            return Err(CannotEnforce::unsupported(
                "the catalog changed while the statement was decided".to_owned(),
            )
            .hint("send the statement again"));
        }
        parse::on_deep_stack(text, || self.rewrite_governed(text, catalog, &governed))
            .unwrap_or_else(|| {
                Err(CannotEnforce::unsupported("the statement is too complex".to_owned()))
            })
    }

    fn rewrite_governed(
        &self,
        text: &str,
        catalog: &Catalog,
        governed: &Governed<'_>,
    ) -> Result<Option<Rewritten>, CannotEnforce> {
        let lost =
            || CannotEnforce::unsupported("the statement was not understood again".to_owned());
        let statements = parse::parse(text, &self.limits).map_err(|_why| lost())?;
        let model = walk::walk(&statements, Some(catalog), &self.path).map_err(|_why| lost())?;
        let tokens = parse::scan(text).ok_or_else(lost)?;
        let parameters = parameters(&statements);
        let fence = Fence { model: &model, governed, catalog, parameters: &parameters };
        let rewriter = Rewriter {
            tokens: &tokens,
            model: &model,
            governed,
            needs_fence: fence.is_needed(),
            fence,
            statements: &statements,
            texts: texts(&statements),
            starred: statements.iter().any(|statement| statement.any(&mut asks_for_all)),
            system_columns: Vec::new(),
        };
        let changes = rewriter.changes()?;
        if changes.is_empty() {
            return Ok(None);
        }
        let edits = changes.iter().flat_map(|(_, edits)| edits.iter().cloned()).collect();
        let rewritten = edits::apply(text, edits).ok_or_else(verify::failed)?;
        let changes: Vec<Change> = changes.into_iter().map(|(change, _)| change).collect();
        let check = verify::Check { catalog, path: &self.path, governed, limits: &self.limits };
        check.verify(statements, &changes, &rewritten.text)?;
        Ok(Some(rewritten))
    }
}

impl<'t> Rewriter<'_, 't> {
    /// Every change the text needs, with its edits.
    fn changes(mut self) -> Result<Vec<(Change, Vec<Edit>)>, CannotEnforce> {
        let model = self.model;
        let mut concerned: Vec<(&Reference<'t>, &Arc<Table>, &Governance)> = Vec::new();
        for reference in &model.references {
            let Some(table) = reference.table() else { continue };
            self.refuse_views(table)?;
            if let Some(governance) = self.governed.of(table) {
                concerned.push((reference, table, governance));
            }
        }
        for path in self.governed.by_path.keys() {
            if !concerned.iter().any(|(_, table, _)| table.relation.path == **path) {
                return Err(CannotEnforce::unsupported(format!(
                    "{path} is not named in the statement, so its rules cannot be carried out"
                )));
            }
        }
        self.refuse_explain()?;
        self.system_columns = self.system_columns(&concerned)?;
        let mut changes = self.shorten(&concerned)?;
        for (reference, table, governance) in concerned {
            match reference.role {
                Role::Read => changes.push(self.read(reference, table, governance)?),
                Role::CopyTo(copy) => changes.push(self.copy(copy, reference, table, governance)?),
                Role::Insert(_) | Role::Update(_) | Role::Delete(_) => {
                    changes.extend(write::write(&self, reference, table, governance)?);
                }
                Role::Merge => {
                    return Err(CannotEnforce::forbidden(format!(
                        "merge into {} is not possible under a mask or row filter",
                        table.relation.path
                    ))
                    .hint("use INSERT, UPDATE and DELETE"));
                }
                Role::CopyFrom if !governance.filters.is_empty() => {
                    return Err(CannotEnforce::forbidden(format!(
                        "copy into {} is not possible under a row filter",
                        table.relation.path
                    ))
                    .hint("use INSERT with constant values"));
                }
                Role::CopyFrom | Role::Lock => {}
                Role::Define => {
                    return Err(CannotEnforce::forbidden(format!(
                        "{} is under a mask or row filter and cannot be used in this statement",
                        table.relation.path
                    )));
                }
            }
        }
        Ok(changes)
    }

    /// A view that reads a governed relation shows it as its owner sees it.
    fn refuse_views(&self, table: &Table) -> Result<(), CannotEnforce> {
        if self.governed.of(table).is_some() {
            return Ok(());
        }
        let below = &table.relation.reads_through;
        match below.iter().find(|below| self.governed.by_path.contains_key(&below.path)) {
            None => Ok(()),
            Some(below) => Err(CannotEnforce::forbidden(format!(
                "{} reads {}, which is under a mask or row filter",
                table.relation.path, below.path
            ))
            .hint("read the table itself, or write a rule for the view")),
        }
    }

    /// Estimates and timings tell about rows and values that are not shown.
    fn refuse_explain(&self) -> Result<(), CannotEnforce> {
        match self.model.explains.iter().find_map(|explain| shows_estimates(explain)) {
            None => Ok(()),
            Some(shown) => Err(CannotEnforce::forbidden(format!(
                "explain with {shown} is not possible under a mask or row filter"
            ))
            .hint("use EXPLAIN (COSTS OFF) …")),
        }
    }

    /// System columns the text names; a subquery has none unless it carries them.
    fn system_columns(
        &self,
        concerned: &[(&Reference<'t>, &Arc<Table>, &Governance)],
    ) -> Result<Vec<&'static str>, CannotEnforce> {
        let reads: Vec<_> =
            concerned.iter().filter(|(r, ..)| matches!(r.role, Role::Read)).collect();
        let Some((_, table, _)) = reads.first() else { return Ok(Vec::new()) };
        // A constant that reads like one only carries a column too many.
        let named: Vec<&'static str> =
            SYSTEM_COLUMNS.into_iter().filter(|name| self.texts.contains(name)).collect();
        let referenced = |node: &Node| {
            node.kind == Kind::ColumnRef
                && node.strings("fields").last().is_some_and(|last| named.contains(last))
        };
        if !self.statements.iter().any(|statement| statement.any(&mut |node| referenced(node))) {
            return Ok(Vec::new());
        }
        if self.starred {
            return Err(CannotEnforce::unsupported(format!(
                "system column {} together with * on {}",
                named.first().copied().unwrap_or_default(),
                table.relation.path
            ))
            .hint("name the columns"));
        }
        Ok(named)
    }

    /// The governed query of a relation.
    fn subquery(
        &self,
        reference: &Reference<'t>,
        table: &Table,
        governance: &Governance,
        only: bool,
    ) -> Result<String, CannotEnforce> {
        let path = &table.relation.path;
        if table.columns.is_empty() {
            return Err(CannotEnforce::unsupported(format!("the columns of {path} are not known")));
        }
        let mut columns = Vec::with_capacity(table.columns.len());
        let pruned = self.may_prune(reference, table);
        for column in &table.columns {
            if pruned && !self.texts.contains(&*column.name) {
                continue;
            }
            let name = quote_ident(&column.name);
            let plain = format!("{INNER}.{name}");
            match governance.masks.iter().find(|mask| mask.column == column.name) {
                None if Governed::hides(governance, table, &column.name) => {
                    columns.push(format!("NULL::{} AS {name}", column.ty.sql));
                }
                None => columns.push(plain),
                Some(mask) => {
                    let masked = mask::sql(&mask.function, &plain, &column.ty).map_err(|why| {
                        CannotEnforce::unsupported(format!("{path}.{}: {why}", column.name))
                    })?;
                    columns.push(format!("{masked} AS {name}"));
                }
            }
        }
        if let Some(mask) = governance.masks.iter().find(|m| table.column(&m.column).is_none()) {
            return Err(CannotEnforce::unsupported(format!(
                "{path} has no column {}",
                mask.column
            )));
        }
        columns.extend(self.system_columns.iter().map(|name| format!("{INNER}.{name}")));
        let mut sql = format!(
            "SELECT {} FROM {}{}.{} AS {INNER}",
            columns.join(", "),
            if only { "ONLY " } else { "" },
            quote_ident(&path.schema),
            quote_ident(&path.name)
        );
        if let Some(filter) = self.governed.filter(governance, INNER)? {
            if reference.sampled {
                return Err(CannotEnforce::unsupported(format!("tablesample on {path}")));
            }
            sql.push_str(" WHERE ");
            sql.push_str(&filter);
            if self.needs_fence {
                if !reference.nullable {
                    for copy in self.fence.copies(reference, INNER) {
                        sql.push_str(" AND ");
                        sql.push_str(&copy);
                    }
                }
                sql.push_str(" OFFSET 0");
            }
        }
        Ok(sql)
    }

    /// Whether columns the text does not name can be left out: nothing asks for the whole row.
    fn may_prune(&self, reference: &Reference<'t>, table: &Table) -> bool {
        let visible = reference.visible_name();
        let whole = |node: &Node| {
            node.kind == Kind::ColumnRef
                && match node.strings("fields").as_slice() {
                    [.., qualifier, name] if *qualifier == visible => {
                        table.column(name).is_none() && !SYSTEM_COLUMNS.contains(name)
                    }
                    [.., name] => *name == visible,
                    [] => true,
                }
        };
        !self.starred
            && !reference.renames_columns()
            && matches!(reference.role, Role::Read)
            && !self.statements.iter().any(|s| s.any(&mut |node| whole(node)))
    }

    fn read(
        &self,
        reference: &Reference<'t>,
        table: &Table,
        governance: &Governance,
    ) -> Result<(Change, Vec<Edit>), CannotEnforce> {
        let path = &table.relation.path;
        if reference.sampled {
            return Err(CannotEnforce::unsupported(format!("tablesample on {path}")));
        }
        let only = !reference.node.flag("inh");
        let query = self.subquery(reference, table, governance, only)?;
        let span = self.span(reference.node).ok_or_else(verify::failed)?;
        let alias = if reference.node.has("alias") {
            String::new()
        } else {
            format!(" AS {}", quote_ident(reference.node.text("relname")))
        };
        let select = if span.is_table_command { "SELECT * FROM " } else { "" };
        let edit =
            Edit { start: span.start, end: span.end, text: format!("{select}({query}){alias}") };
        Ok((Change::Read { location: span.name, query }, vec![edit]))
    }

    /// `COPY t (a, b) TO` → `COPY (SELECT a, b FROM (governed) AS t) TO`.
    fn copy(
        &self,
        copy: &Node,
        reference: &Reference<'t>,
        table: &Table,
        governance: &Governance,
    ) -> Result<(Change, Vec<Edit>), CannotEnforce> {
        // COPY of a table leaves out the rows of its children.
        let inner = self.subquery(reference, table, governance, true)?;
        let named = copy.strings("attlist");
        let columns = if named.is_empty() {
            "*".to_owned()
        } else {
            named.iter().map(|name| quote_ident(name)).collect::<Vec<_>>().join(", ")
        };
        let alias = quote_ident(&table.relation.path.name);
        let query = format!("SELECT {columns} FROM ({inner}) AS {alias}");
        let span = self.span(reference.node).ok_or_else(verify::failed)?;
        let end = if named.is_empty() {
            span.end
        } else {
            self.closing(span.end).ok_or_else(verify::failed)?
        };
        let edit = Edit { start: span.start, end, text: format!("({query})") };
        Ok((Change::Copy { location: span.name, query }, vec![edit]))
    }

    /// The tokens of a relation in the text.
    pub(super) fn span(&self, range: &Node) -> Option<Span> {
        use pg_query::protobuf::Token as Kind;
        let name = range.location()?;
        let first = self.tokens.iter().position(|token| token.start == name)?;
        let kind_at = |index: usize| self.tokens.get(index).map(|token| token.kind);
        let mut last = first;
        loop {
            // U&"…" UESCAPE '…'
            if kind_at(last) == Some(Kind::Uident) && kind_at(last + 1) == Some(Kind::Uescape) {
                last += 2;
            }
            if kind_at(last + 1) != Some(Kind::Ascii46) {
                break;
            }
            last += 2;
        }
        if kind_at(last + 1) == Some(Kind::Ascii42) {
            last += 1;
        }
        let mut start = first;
        let before = |index: usize, back: usize| index.checked_sub(back).and_then(kind_at);
        if before(start, 1) == Some(Kind::Only) {
            start -= 1;
        } else if before(start, 1) == Some(Kind::Ascii40) && before(start, 2) == Some(Kind::Only) {
            start -= 2;
            last += 1;
            if kind_at(last) != Some(Kind::Ascii41) {
                return None;
            }
        }
        let is_table_command = before(start, 1) == Some(Kind::Table);
        if is_table_command {
            start -= 1;
        }
        Some(Span {
            name,
            start: self.tokens.get(start)?.start,
            end: self.tokens.get(last)?.end,
            next: last + 1,
            is_table_command,
        })
    }

    /// The end of the brackets that open right after a place.
    fn closing(&self, after: usize) -> Option<usize> {
        use pg_query::protobuf::Token as Kind;
        let open = self.tokens.iter().position(|token| token.start >= after)?;
        if self.tokens.get(open)?.kind != Kind::Ascii40 {
            return None;
        }
        // A column list holds names only.
        let close = self.tokens.iter().skip(open).find(|token| token.kind == Kind::Ascii41)?;
        Some(close.end)
    }
}

/// Where a relation stands in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// Where the grammar says the relation is: its first name.
    pub(super) name: usize,
    /// First byte, ONLY and TABLE included.
    pub(super) start: usize,
    /// Byte after the last one.
    pub(super) end: usize,
    /// Index of the token that follows.
    pub(super) next: usize,
    /// Written as `TABLE name`.
    pub(super) is_table_command: bool,
}

/// The name of a governed relation inside its own subquery.
const INNER: &str = "g";

/// Columns every table has and no star shows.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];

fn texts(statements: &[Node]) -> HashSet<&str> {
    let mut texts = HashSet::new();
    statements.iter().for_each(|statement| statement.texts(&mut texts));
    texts
}

/// Whether a node asks for columns it does not name.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other column is named")]
fn asks_for_all(node: &Node) -> bool {
    match node.kind {
        Kind::AStar => true,
        // The alias of a join renames columns by position and means the whole row.
        Kind::JoinExpr => node.flag("is_natural") || node.has("alias"),
        _ => false,
    }
}

/// How often each parameter stands in the text.
fn parameters(statements: &[Node]) -> Vec<(i64, usize)> {
    let mut counts: HashMap<i64, usize> = HashMap::new();
    for statement in statements {
        statement.any(&mut |node| {
            if node.kind == Kind::ParamRef {
                *counts.entry(node.int("number")).or_default() += 1;
            }
            false
        });
    }
    counts.into_iter().collect()
}
