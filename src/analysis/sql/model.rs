//! What a walk over a text found: the material of facts and of rewriting.

use std::sync::Arc;

use crate::analysis::catalog::Table;
use crate::facts::{Action, FunctionUse, SettingChange};

use super::SessionEffect;
use super::tree::Node;

/// Everything found in one text.
#[derive(Debug, Default)]
pub(super) struct Model<'t> {
    /// Every verb, nested ones included.
    pub(super) actions: Vec<Action>,
    /// Every relation named, common table expressions left out.
    pub(super) references: Vec<Reference<'t>>,
    /// Relations a DROP names.
    pub(super) dropped: Vec<Target>,
    /// Every query level.
    pub(super) blocks: Vec<Block<'t>>,
    /// Functions called, deduplicated.
    pub(super) functions: Vec<FunctionUse>,
    /// Settings changed.
    pub(super) settings: Vec<SettingChange>,
    /// What each statement does to the session.
    pub(super) effects: Vec<SessionEffect>,
    /// `x.name` in expressions: the qualifier where there is one, and the name.
    pub(super) attributes: Vec<(Option<&'t str>, &'t str)>,
    /// Names that FROM items other than relations carry.
    pub(super) other_aliases: Vec<&'t str>,
    /// Uses of EXPLAIN: the statement node of each.
    pub(super) explains: Vec<&'t Node>,
}

/// One relation named in a statement.
#[derive(Debug)]
pub(super) struct Reference<'t> {
    /// The `RangeVar`.
    pub(super) node: &'t Node,
    /// In which way it is used.
    pub(super) role: Role<'t>,
    /// What it means.
    pub(super) target: Target,
    /// Index into [`Model::blocks`].
    pub(super) block: usize,
    /// Rows of it may be replaced by nulls of an outer join.
    pub(super) nullable: bool,
    /// Under TABLESAMPLE.
    pub(super) sampled: bool,
}

impl<'t> Reference<'t> {
    /// The name by which expressions of its block see it.
    pub(super) fn visible_name(&self) -> &'t str {
        self.node
            .child("alias")
            .map_or_else(|| self.node.text("relname"), |alias| alias.text("aliasname"))
    }

    /// Whether its columns are renamed (`AS c(a, b)`).
    pub(super) fn renames_columns(&self) -> bool {
        self.node.child("alias").is_some_and(|alias| alias.has("colnames"))
    }

    /// The relation of the catalog, if it is one.
    pub(super) fn table(&self) -> Option<&Arc<Table>> {
        match &self.target {
            Target::Table(table) => Some(table),
            Target::Unknown(_) => None,
        }
    }
}

/// The way a relation is used.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role<'t> {
    /// In FROM or USING of a query.
    Read,
    /// Target of this INSERT.
    Insert(&'t Node),
    /// Target of this UPDATE.
    Update(&'t Node),
    /// Target of this DELETE.
    Delete(&'t Node),
    /// Target of a MERGE.
    Merge,
    /// Of this COPY … TO.
    CopyTo(&'t Node),
    /// Target of a COPY … FROM.
    CopyFrom,
    /// LOCK TABLE: neither reads nor changes.
    Lock,
    /// Its definition is touched, or it stands in a statement that is not modelled.
    Define,
}

/// What a relation name means.
#[derive(Debug)]
pub(super) enum Target {
    /// A relation of the catalog.
    Table(Arc<Table>),
    /// No such relation is known; the name as written.
    Unknown(Named),
}

/// A relation name as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Schema, if written.
    pub(super) schema: Option<String>,
    /// Name.
    pub(super) name: String,
}

/// One query level: a SELECT without set operation, or a write.
#[derive(Debug)]
pub(super) struct Block<'t> {
    /// The statement node.
    pub(super) node: &'t Node,
    /// Its FROM holds relations and unnamed joins only, so an unqualified column of it is a column
    /// of one of these relations.
    pub(super) plain: bool,
    /// A join of it carries an alias: names below that join mean nothing here, and something else
    /// may carry them.
    pub(super) hides_names: bool,
    /// Conditions of its joins; their columns belong to this level.
    pub(super) join_conditions: Vec<&'t Node>,
    /// A NATURAL join or JOIN … USING compares columns nobody wrote as a condition.
    pub(super) implicit_joins: bool,
}
