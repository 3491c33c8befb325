//! Writes to governed relations: which rows they may reach, what they may read of them, and which
//! rows they may make.

use std::sync::Arc;

use crate::analysis::catalog::{Table, TypeClass};
use crate::obligation::Governance;

use super::edits::Edit;
use super::model::{Reference, Role};
use super::predicate::Pinned;
use super::rewrite::{CannotEnforce, Governed, Rewriter};
use super::tree::{Kind, Node};
use super::verify::{self, CLIENT_CONDITION, Change};

/// The changes a write to a governed relation needs.
pub(super) fn write<'t>(
    rewriter: &Rewriter<'_, 't>,
    reference: &Reference<'t>,
    table: &Arc<Table>,
    governance: &Governance,
) -> Result<Option<(Change, Vec<Edit>)>, CannotEnforce> {
    let write = Write { rewriter, reference, table, governance };
    match reference.role {
        Role::Insert(node) => {
            write.refuse_reading(node)?;
            write.new_rows(node)?;
            Ok(None)
        }
        Role::Update(node) => {
            write.refuse_reading(node)?;
            write.assignments(node)?;
            write.guard(node)
        }
        Role::Delete(node) => {
            write.refuse_reading(node)?;
            write.guard(node)
        }
        Role::Read | Role::Merge | Role::CopyTo(_) | Role::CopyFrom | Role::Lock | Role::Define => {
            Err(verify::failed())
        }
    }
}

struct Write<'a, 'r, 't> {
    rewriter: &'a Rewriter<'r, 't>,
    reference: &'a Reference<'t>,
    table: &'a Table,
    governance: &'a Governance,
}

/// Parts of a write that can see the row it changes.
const SEES_TARGET: [&str; 4] =
    ["target_list", "where_clause", "returning_clause", "on_conflict_clause"];

impl Write<'_, '_, '_> {
    fn path(&self) -> &crate::name::RelationPath {
        &self.table.relation.path
    }

    /// The target of a write is the relation itself, not a subquery: nothing in the statement may
    /// look at a masked column of it, by whatever spelling.
    fn refuse_reading(&self, node: &Node) -> Result<(), CannotEnforce> {
        if self.governance.masks.is_empty() {
            return Ok(());
        }
        if let Some(returning) = node.child("returning_clause") {
            if returning.has("options") {
                return Err(self.reads("RETURNING WITH"));
            }
            if returning.any(&mut |node| {
                names_of(node).is_some_and(|(names, star)| star && names.is_empty())
            }) {
                return Err(self.reads("RETURNING *"));
            }
        }
        for part in SEES_TARGET {
            for child in node.child(part).into_iter().chain(node.nodes(part)) {
                let mut found: Option<String> = None;
                child.any(&mut |node| {
                    found = self.masked(node);
                    found.is_some()
                });
                if let Some(name) = found {
                    return Err(self.reads(&name));
                }
            }
        }
        Ok(())
    }

    fn reads(&self, what: &str) -> CannotEnforce {
        CannotEnforce::forbidden(format!(
            "{what} reads a masked column of {}, which a write cannot mask",
            self.path()
        ))
        .hint("name only columns that are not masked")
    }

    /// The spelling by which a node may read a masked column of the target. Generous: a name that
    /// may mean another relation's column counts, too.
    fn masked(&self, node: &Node) -> Option<String> {
        let is_masked = |name: &str| Governed::hides(self.governance, self.table, name);
        if node.kind == Kind::IndexElem {
            let name = node.text("name");
            return is_masked(name).then(|| name.to_owned());
        }
        let (names, star) = names_of(node)?;
        let is_target = |name: &str| {
            // OLD and NEW mean the target in RETURNING from version 18 on.
            name == self.reference.visible_name()
                || name == self.reference.node.text("relname")
                || matches!(name, "old" | "new")
        };
        match (names.as_slice(), star) {
            ([.., qualifier], true) if is_target(qualifier) => Some(format!("{qualifier}.*")),
            ([name], false) if is_target(name) || is_masked(name) => Some((*name).to_owned()),
            ([.., qualifier, name], false) if is_target(qualifier) => {
                // A name that is no column calls a function on the whole row.
                let plain = self.table.column(name).is_some() && !is_masked(name)
                    || matches!(*name, "ctid" | "tableoid" | "xmin" | "xmax" | "cmin" | "cmax");
                (!plain).then(|| format!("{qualifier}.{name}"))
            }
            _ => None,
        }
    }

    /// Rows a filter hides must not be made either.
    fn new_rows(&self, node: &Node) -> Result<(), CannotEnforce> {
        if self.governance.filters.is_empty() {
            return Ok(());
        }
        if node.child("on_conflict_clause").is_some_and(|clause| clause.has("target_list")) {
            return Err(CannotEnforce::forbidden(format!(
                "insert with on conflict do update into {} is not possible under a row filter",
                self.path()
            ))
            .hint("use UPDATE, then INSERT"));
        }
        let source = node.child("select_stmt").filter(|source| source.has("values_lists"));
        let Some(source) = source.filter(|source| !source.has("with_clause")) else {
            return Err(self.not_proven("its rows are not constants in VALUES"));
        };
        let named: Vec<&str> = if node.has("cols") {
            node.nodes("cols").map(|column| column.text("name")).collect()
        } else {
            self.table.columns.iter().map(|column| &*column.name).collect()
        };
        if node.nodes("cols").any(|column| column.has("indirection")) {
            return Err(self.not_proven("a column is written in part"));
        }
        for pinned in self.pinned()? {
            let column = &pinned.column;
            let Some(at) = named.iter().position(|name| **name == **column) else {
                return Err(self.not_proven(&format!("it does not set {column}")));
            };
            for row in source.nodes("values_lists") {
                let value = row.nodes("items").nth(at);
                if value.and_then(|value| self.constant_text(value, column)).as_deref()
                    != Some(&*pinned.value)
                {
                    return Err(self.not_proven(&format!(
                        "it does not set {column} to the constant the filter asks for"
                    )));
                }
            }
        }
        Ok(())
    }

    /// A column a filter looks at keeps the value the filter asks for.
    fn assignments(&self, node: &Node) -> Result<(), CannotEnforce> {
        for assignment in node.nodes("target_list") {
            let column = assignment.text("name");
            let mut concerned = false;
            for filter in &self.governance.filters {
                concerned |=
                    self.rewriter.governed.predicate(filter)?.columns().any(|c| c == column);
            }
            if !concerned {
                continue;
            }
            let value = assignment.child("val").and_then(|value| self.constant_text(value, column));
            let kept = !assignment.has("indirection")
                && self.pinned()?.iter().any(|pinned| {
                    *pinned.column == *column && value.as_deref() == Some(&*pinned.value)
                });
            if !kept {
                return Err(CannotEnforce::forbidden(format!(
                    "{column} of {} decides who may see a row and cannot be changed",
                    self.path()
                )));
            }
        }
        Ok(())
    }

    /// The text of a constant written to a column, also behind a cast to the column's own type.
    fn constant_text(&self, node: &Node, column: &str) -> Option<String> {
        if node.kind != Kind::TypeCast {
            return constant_text(node);
        }
        let ty = node.child("type_name")?;
        // With modifiers the value may be cut.
        if ty.has("typmods") || ty.has("array_bounds") || ty.flag("setof") {
            return None;
        }
        let name = match ty.strings("names").as_slice() {
            ["pg_catalog", name] | [name] => *name,
            _ => return None,
        };
        let cast = TypeClass::of(name);
        let own = self.table.column(column)?.ty.class;
        let varying = |class| matches!(class, TypeClass::Text | TypeClass::Varchar);
        let same = cast.is_leakproof() && cast == own || varying(cast) && varying(own);
        let inner = node.child("arg").filter(|_| same)?;
        let quoted = inner.child("val").is_some_and(|value| value.kind == Kind::String);
        quoted.then(|| constant_text(inner)).flatten()
    }

    /// What all filters together pin, if they are nothing but equalities.
    fn pinned(&self) -> Result<Vec<Pinned>, CannotEnforce> {
        let mut all = Vec::new();
        for filter in &self.governance.filters {
            let predicate = self.rewriter.governed.predicate(filter)?;
            let Some(pinned) = predicate.pinned(&filter.values) else {
                return Err(self.not_proven("the filter is more than equalities"));
            };
            all.extend(pinned);
        }
        Ok(all)
    }

    fn not_proven(&self, why: &str) -> CannotEnforce {
        CannotEnforce::forbidden(format!(
            "a write to {} must prove that its new rows pass the row filter: {why}",
            self.path()
        ))
        .hint("write the filtered column as a constant in the statement")
    }

    /// The condition of an UPDATE or DELETE reaches only rows that pass the filter. A plain AND
    /// would let the planner run the client's condition on the other rows first.
    fn guard(&self, node: &Node) -> Result<Option<(Change, Vec<Edit>)>, CannotEnforce> {
        let alias = self.reference.visible_name();
        let Some(filter) = self.rewriter.governed.filter(self.governance, alias)? else {
            return Ok(None);
        };
        let span = self.rewriter.span(self.reference.node).ok_or_else(verify::failed)?;
        let location = span.name;
        let clause = self.rewriter.clause(span.next);
        let Some(client) = node.child("where_clause") else {
            let text = format!(" WHERE {filter}");
            let edit = Edit { start: clause.end, end: clause.end, text };
            return Ok(Some((Change::Where { location, condition: filter }, vec![edit])));
        };
        if client.kind == Kind::CurrentOfExpr {
            return Err(CannotEnforce::unsupported(format!(
                "where current of on {} is not possible under a row filter",
                self.path()
            ))
            .hint("name the row by its key"));
        }
        let start = clause.condition.ok_or_else(verify::failed)?;
        let fence = &self.rewriter.fence;
        let (before, after) = if fence.is_leakproof(client, self.reference.block) {
            (format!("({filter}) AND ("), ")".to_owned())
        } else {
            let mut before = String::new();
            for copy in fence.copies(self.reference, alias) {
                before.push_str(&copy);
                before.push_str(" AND ");
            }
            (format!("{before}CASE WHEN {filter} THEN ("), ") ELSE false END".to_owned())
        };
        let condition = format!("{before}{CLIENT_CONDITION}{after}");
        let edits = vec![
            Edit { start, end: start, text: format!(" {before}") },
            Edit { start: clause.end, end: clause.end, text: after },
        ];
        Ok(Some((Change::Where { location, condition }, edits)))
    }
}

/// Where the condition of a write stands.
struct Clause {
    /// After WHERE, if there is one.
    condition: Option<usize>,
    /// After the last token before RETURNING or the end of the statement.
    end: usize,
}

impl Rewriter<'_, '_> {
    /// Looks for the WHERE of the write whose target ends before token `from`.
    fn clause(&self, from: usize) -> Clause {
        use pg_query::protobuf::Token as Kind;
        let mut depth = 0_usize;
        let mut condition = None;
        let previous = from.checked_sub(1).and_then(|at| self.tokens.get(at));
        let mut end = previous.map_or(0, |token| token.end);
        for token in self.tokens.iter().skip(from) {
            let outside = depth == 0;
            if outside && matches!(token.kind, Kind::Ascii41 | Kind::Ascii59 | Kind::Returning) {
                break;
            }
            if outside && token.kind == Kind::Where && condition.is_none() {
                condition = Some(token.end);
            }
            depth += usize::from(token.kind == Kind::Ascii40);
            depth -= usize::from(token.kind == Kind::Ascii41);
            end = token.end;
        }
        Clause { condition, end }
    }
}

/// The names of a column reference, and whether it ends in a star.
fn names_of(node: &Node) -> Option<(Vec<&str>, bool)> {
    (node.kind == Kind::ColumnRef).then(|| {
        let star = node.nodes("fields").any(|field| field.kind == Kind::AStar);
        (node.strings("fields"), star)
    })
}

/// The text of a plain constant.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other constants are never equal to text")]
fn constant_text(node: &Node) -> Option<String> {
    if node.kind != Kind::AConst {
        return None;
    }
    let value = node.child("val")?;
    match value.kind {
        Kind::String => Some(value.text("sval").to_owned()),
        Kind::Integer => Some(value.int("ival").to_string()),
        Kind::Float => Some(value.text("fval").to_owned()),
        _ => None,
    }
}
