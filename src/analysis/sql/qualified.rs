//! `schema.table.column` over a relation that became a subquery: the schema is taken away.
//!
//! A subquery has no schema, so the server would not find the relation. Without the schema the
//! name means the subquery, provided that nothing else of the text carries the same name; where
//! something does, the statement is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::analysis::catalog::Table;
use crate::obligation::Governance;

use super::edits::Edit;
use super::model::{Reference, Role};
use super::rewrite::{CannotEnforce, Rewriter};
use super::tree::{Kind, Node};
use super::verify::{self, Change};

/// Most names one text may have shortened; each is looked for in the whole tree.
const SHORTENED_MAX: usize = 1_000;

impl<'t> Rewriter<'_, 't> {
    /// The changes that take schemas from column names of relations that are replaced.
    pub(super) fn shorten(
        &self,
        concerned: &[(&Reference<'t>, &Arc<Table>, &Governance)],
    ) -> Result<Vec<(Change, Vec<Edit>)>, CannotEnforce> {
        // The tree may repeat a part of the text.
        let mut places = BTreeSet::new();
        for (reference, table, _) in concerned {
            if !matches!(reference.role, Role::Read) {
                continue;
            }
            let mut refused = false;
            let own = self.is_only_one_named(reference, table);
            for statement in self.statements {
                statement.any(&mut |node| {
                    if is_qualified(node, table) {
                        let three = node.nodes("fields").count() == 3;
                        match node.location().filter(|_| own && three) {
                            Some(place) => {
                                places.insert(place);
                            }
                            None => refused = true,
                        }
                    }
                    refused
                });
            }
            if refused || places.len() > SHORTENED_MAX {
                return Err(CannotEnforce::unsupported(format!(
                    "a column of {} is named with its schema",
                    table.relation.path
                ))
                .hint("use the table's name or an alias: c.column"));
            }
        }
        places.into_iter().map(|place| self.without_schema(place)).collect()
    }

    /// Whether the bare name of a relation means it wherever it stands in the text.
    fn is_only_one_named(&self, reference: &Reference<'t>, table: &Table) -> bool {
        let name = reference.visible_name();
        let same = |other: &Reference<'t>| {
            matches!(other.role, Role::Read)
                && !other.node.has("alias")
                && other.table().is_some_and(|known| known.relation.path == table.relation.path)
        };
        !reference.node.has("alias")
            && !self.model.other_aliases.contains(&name)
            && self.model.references.iter().filter(|r| r.visible_name() == name).all(same)
    }

    /// Removes the first name and the dot after it.
    fn without_schema(&self, location: usize) -> Result<(Change, Vec<Edit>), CannotEnforce> {
        use pg_query::protobuf::Token as Kind;
        let first = self.tokens.partition_point(|token| token.start < location);
        let kind_at = |index: usize| self.tokens.get(index).map(|token| token.kind);
        // U&"…" UESCAPE '…'
        let escaped =
            kind_at(first) == Some(Kind::Uident) && kind_at(first + 1) == Some(Kind::Uescape);
        let dot = first + if escaped { 3 } else { 1 };
        if kind_at(dot) != Some(Kind::Ascii46) {
            return Err(verify::failed());
        }
        let end = self.tokens.get(dot + 1).ok_or_else(verify::failed)?.start;
        let edit = Edit { start: location, end, text: String::new() };
        Ok((Change::Unqualified { location }, vec![edit]))
    }
}

/// Whether a column is named with the schema of this table before it.
fn is_qualified(node: &Node, table: &Table) -> bool {
    let path = &table.relation.path;
    let names = node.strings("fields");
    node.kind == Kind::ColumnRef
        && names.windows(2).enumerate().any(|(at, pair)| {
            // `schema.table` as table and column is no such name.
            let last = at + 2 == names.len();
            let starred = node.nodes("fields").any(|field| field.kind == Kind::AStar);
            matches!(pair, [schema, name] if **schema == *path.schema && **name == *path.name)
                && (!last || starred)
        })
}
