//! The rewritten text is not trusted because we wrote it: it is parsed again and compared with the
//! tree the client's text must have become.
//!
//! The expected tree is the original one with each change made *on the tree*, where each inserted
//! query was parsed alone. A splice that ends a string early, swallows a token or hits
//! the wrong place gives another tree, and the statement is refused. After that the new text is
//! walked again: no governed relation may be read outside of our own subqueries.

use crate::analysis::{AnalyzerLimits, Catalog, SearchPath};

use super::model::Role;
use super::parse;
use super::rewrite::{CannotEnforce, Governed};
use super::tree::{Kind, Node, Value};
use super::walk;

/// One change, as it shows in the tree.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// The relation at this place became this query.
    Read {
        /// Byte offset of the relation's name in the client's text.
        location: usize,
        /// The query without brackets.
        query: String,
    },
    /// The COPY of the relation at this place became a COPY of this query.
    Copy {
        /// Byte offset of the relation's name in the client's text.
        location: usize,
        /// The query without brackets.
        query: String,
    },
    /// The column name at this place lost its schema.
    Unqualified {
        /// Byte offset of the name in the client's text.
        location: usize,
    },
    /// The write to the relation at this place has this condition instead.
    Where {
        /// Byte offset of the relation's name in the client's text.
        location: usize,
        /// The condition, with [`CLIENT_CONDITION`] where the client's own stands.
        condition: String,
    },
}

/// Stands for the client's condition in [`Change::Where`]; no client can use that parameter,
/// because messages of the protocol count parameters in 16 bits.
pub(super) const CLIENT_CONDITION: &str = "$2147483647";

const CLIENT_PARAMETER: i64 = 2_147_483_647;

/// The refusal of a rewrite that is not what it must be.
pub(super) fn failed() -> CannotEnforce {
    CannotEnforce::unsupported("the rewritten statement could not be verified".to_owned())
}

/// What is needed to look at a rewritten text.
pub(super) struct Check<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) path: &'a SearchPath,
    pub(super) governed: &'a Governed<'a>,
    pub(super) limits: &'a AnalyzerLimits,
}

impl Check<'_> {
    /// Compares the rewritten text with what the changes make of the original statements.
    pub(super) fn verify(
        &self,
        original: Vec<Node>,
        changes: &[Change],
        rewritten: &str,
    ) -> Result<(), CannotEnforce> {
        let limits = AnalyzerLimits { statement_bytes_max: usize::MAX, ..*self.limits };
        let mut expected = Expected { changes, made: vec![false; changes.len()], limits: &limits };
        let mut statements = Vec::with_capacity(original.len());
        for statement in original {
            statements.push(expected.node(statement)?);
        }
        let parsed = parse::parse(rewritten, &limits).map_err(|_why| failed())?;
        let same = expected.made.iter().all(|made| *made)
            && parsed.len() == statements.len()
            && parsed.iter().zip(&statements).all(|(new, old)| new.matches(old));
        if !same {
            return Err(failed());
        }
        self.count(&parsed, changes)
    }

    /// Every governed relation that is read is one of ours.
    fn count(&self, parsed: &[Node], changes: &[Change]) -> Result<(), CannotEnforce> {
        let model = walk::walk(parsed, Some(self.catalog), self.path).map_err(|_why| failed())?;
        let read = model
            .references
            .iter()
            .filter(|reference| matches!(reference.role, Role::Read | Role::CopyTo(_)))
            .filter(|reference| {
                reference.table().is_some_and(|table| self.governed.of(table).is_some())
            })
            .count();
        let ours = changes
            .iter()
            .filter(|change| match change {
                Change::Read { .. } | Change::Copy { .. } => true,
                Change::Where { .. } | Change::Unqualified { .. } => false,
            })
            .count();
        if read == ours { Ok(()) } else { Err(failed()) }
    }
}

/// Makes the changes on the original tree.
struct Expected<'a> {
    changes: &'a [Change],
    /// Which of them were met; a tree may repeat a part of the text.
    made: Vec<bool>,
    limits: &'a AnalyzerLimits,
}

impl Expected<'_> {
    fn node(&mut self, node: Node) -> Result<Node, CannotEnforce> {
        let change = self.change(&node);
        match (node.kind, change) {
            (Kind::RangeVar, Some(Change::Read { query, .. })) => self.range(&node, &query),
            (Kind::CopyStmt, Some(Change::Copy { query, .. })) => {
                let query = self.statement(&query)?;
                let mut fields = self.fields(node, &["relation", "attlist"])?;
                fields.push(("query", Value::Node(query)));
                Ok(Node::new(Kind::CopyStmt, fields))
            }
            (kind, Some(Change::Where { condition, .. })) => {
                let client = node.child("where_clause").cloned();
                let client = client.map(|client| self.node(client)).transpose()?;
                let condition = self.condition(&condition, client)?;
                let mut fields = self.fields(node, &["where_clause"])?;
                fields.push(("where_clause", Value::Node(condition)));
                Ok(Node::new(kind, fields))
            }
            (Kind::ColumnRef, Some(Change::Unqualified { .. })) => {
                let mut names = node.nodes("fields").cloned();
                names.next().ok_or_else(failed)?;
                let names = names.map(Value::Node).collect();
                Ok(Node::new(Kind::ColumnRef, vec![("fields", Value::List(names))]))
            }
            (_, Some(Change::Read { .. } | Change::Copy { .. } | Change::Unqualified { .. })) => {
                Err(failed())
            }
            (kind, None) => Ok(Node::new(kind, self.fields(node, &[])?)),
        }
    }

    /// The change that concerns this very node.
    fn change(&mut self, node: &Node) -> Option<Change> {
        let target = node.child("relation").and_then(Node::location);
        let concerns = |change: &Change| match change {
            Change::Read { location, .. } => {
                node.kind == Kind::RangeVar && node.location() == Some(*location)
            }
            Change::Copy { location, .. } => {
                node.kind == Kind::CopyStmt && target == Some(*location)
            }
            Change::Unqualified { location } => {
                node.kind == Kind::ColumnRef && node.location() == Some(*location)
            }
            Change::Where { location, .. } => {
                matches!(node.kind, Kind::UpdateStmt | Kind::DeleteStmt)
                    && target == Some(*location)
            }
        };
        let at = self.changes.iter().position(concerns)?;
        if let Some(made) = self.made.get_mut(at) {
            *made = true;
        }
        self.changes.get(at).cloned()
    }

    fn fields(
        &mut self,
        node: Node,
        dropped: &[&str],
    ) -> Result<Vec<(&'static str, Value)>, CannotEnforce> {
        let mut fields = Vec::new();
        for (name, value) in node.into_fields() {
            if !dropped.contains(&name) {
                fields.push((name, self.value(value)?));
            }
        }
        Ok(fields)
    }

    fn value(&mut self, value: Value) -> Result<Value, CannotEnforce> {
        Ok(match value {
            Value::Node(node) => Value::Node(self.node(node)?),
            Value::List(list) => Value::List(
                list.into_iter().map(|value| self.value(value)).collect::<Result<_, _>>()?,
            ),
            Value::Absent | Value::Flag(_) | Value::Int(_) | Value::Text(_) => value,
        })
    }

    fn range(&self, relation: &Node, query: &str) -> Result<Node, CannotEnforce> {
        let name = relation.text("relname").to_owned();
        let alias = relation
            .child("alias")
            .cloned()
            .unwrap_or_else(|| Node::new(Kind::Alias, vec![("aliasname", Value::Text(name))]));
        let fields =
            vec![("subquery", Value::Node(self.statement(query)?)), ("alias", Value::Node(alias))];
        Ok(Node::new(Kind::RangeSubselect, fields))
    }

    /// The condition with the client's own in its place.
    fn condition(&self, sql: &str, client: Option<Node>) -> Result<Node, CannotEnforce> {
        let query = self.statement(&format!("SELECT WHERE {sql}"))?;
        let condition = query.child("where_clause").cloned().ok_or_else(failed)?;
        Ok(match client {
            Some(client) => place(condition, &client),
            None => condition,
        })
    }

    /// A query we wrote, parsed alone.
    fn statement(&self, sql: &str) -> Result<Node, CannotEnforce> {
        let mut parsed = parse::parse(sql, self.limits).map_err(|_why| failed())?;
        match (parsed.pop(), parsed.is_empty()) {
            (Some(raw), true) => raw.child("stmt").cloned().ok_or_else(failed),
            _ => Err(failed()),
        }
    }
}

/// Puts the client's condition where the parameter that stands for it is.
fn place(node: Node, client: &Node) -> Node {
    fn value(of: Value, client: &Node) -> Value {
        match of {
            Value::Node(node) => Value::Node(place(node, client)),
            Value::List(list) => {
                Value::List(list.into_iter().map(|one| value(one, client)).collect())
            }
            Value::Absent | Value::Flag(_) | Value::Int(_) | Value::Text(_) => of,
        }
    }
    if node.kind == Kind::ParamRef && node.int("number") == CLIENT_PARAMETER {
        return client.clone();
    }
    let kind = node.kind;
    let fields = node.into_fields().into_iter().map(|(name, of)| (name, value(of, client)));
    Node::new(kind, fields.collect())
}
