//! One walk over the tree of a text, with scopes: which relations, functions and operators it names
//! and in which role. Every child of every node is visited; a node kind that is not
//! modelled inside a query makes the text not understood.

use std::sync::Arc;

use crate::analysis::catalog::Resolved;
use crate::analysis::{Catalog, SearchPath};
use crate::facts::{Action, FunctionUse, Verb, Why};

use super::functions;
use super::model::{Block, Model, Named, Reference, Role, Target};
use super::scope::Scopes;
use super::tree::{Group, Kind, Node};
use super::{SessionEffect, always_true};

/// The walk's state.
pub(super) struct Walker<'t, 'c> {
    pub(super) catalog: Option<&'c Catalog>,
    /// The path in force for the statement being walked.
    pub(super) path: SearchPath,
    pub(super) model: Model<'t>,
    scopes: Scopes<'t>,
    /// The statement sets the search path by `set_config`, or may do so.
    pub(super) path_lost: bool,
}

/// Where a FROM item stands.
#[derive(Clone, Copy)]
struct Place {
    block: usize,
    nullable: bool,
}

/// Walks every statement of a text.
pub(super) fn walk<'t>(
    statements: &'t [Node],
    catalog: Option<&Catalog>,
    path: &SearchPath,
) -> Result<Model<'t>, Why> {
    let mut walker = Walker {
        catalog,
        path: path.clone(),
        model: Model::default(),
        scopes: Scopes::default(),
        path_lost: false,
    };
    for raw in statements {
        let Some(statement) = raw.child("stmt") else { continue };
        walker.path_lost = false;
        let effect = walker.statement(statement)?;
        let settles = matches!(effect, SessionEffect::None | SessionEffect::Ddl);
        let effect =
            if settles && walker.path_lost { SessionEffect::SearchPathUncertain } else { effect };
        // The rest of this text is decided before this statement has run.
        match &effect {
            SessionEffect::None
            | SessionEffect::Begin
            | SessionEffect::Prepare { .. }
            | SessionEffect::Fetch { .. }
            | SessionEffect::Deallocate { .. } => {}
            SessionEffect::EndTransaction
            | SessionEffect::RollbackTo
            | SessionEffect::SetSearchPath { .. }
            | SessionEffect::SearchPathUncertain
            | SessionEffect::Execute { .. }
            | SessionEffect::DiscardAll
            | SessionEffect::Ddl => walker.path = SearchPath::Uncertain,
        }
        walker.model.effects.push(effect);
    }
    walker.attributes();
    if walker.model.actions.is_empty() {
        walker.act(Verb::Empty);
    }
    Ok(walker.model)
}

impl<'t> Walker<'t, '_> {
    pub(super) fn act(&mut self, verb: Verb) {
        let action = Action { verb, without_where: false };
        if !self.model.actions.contains(&action) {
            self.model.actions.push(action);
        }
    }

    /// A SELECT, INSERT, UPDATE, DELETE or MERGE at any level.
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else stands there is refused")]
    pub(super) fn query(&mut self, node: &'t Node) -> Result<(), Why> {
        let with = node.child("with_clause");
        if let Some(with) = with {
            self.with_clause(with)?;
        }
        match node.kind {
            Kind::SelectStmt => self.select(node)?,
            Kind::InsertStmt => self.insert(node)?,
            Kind::UpdateStmt => self.change(node, Verb::Update, Role::Update(node))?,
            Kind::DeleteStmt => self.change(node, Verb::Delete, Role::Delete(node))?,
            Kind::MergeStmt => self.merge(node)?,
            other => return Err(construct(other.name())),
        }
        if with.is_some() {
            self.scopes.leave();
        }
        Ok(())
    }

    /// Enters the scope of a WITH clause; the caller leaves it.
    fn with_clause(&mut self, with: &'t Node) -> Result<(), Why> {
        let recursive = with.flag("recursive");
        let names = with.nodes("ctes").map(|cte| cte.text("ctename"));
        self.scopes.enter(if recursive { names.collect() } else { Vec::new() });
        for part in with.children_except(&[]) {
            if part.kind != Kind::CommonTableExpr {
                return Err(construct(part.kind.name()));
            }
            let query = part.child("ctequery").ok_or_else(|| construct("WITH"))?;
            self.query(query)?;
            let block = self.block(part);
            for child in part.children_except(&["ctequery"]) {
                self.expression(child, block)?;
            }
            if !recursive {
                self.scopes.declare(part.text("ctename"));
            }
        }
        Ok(())
    }

    fn select(&mut self, node: &'t Node) -> Result<(), Why> {
        self.act(Verb::Select);
        let block = self.block(node);
        for arm in ["larg", "rarg"] {
            if let Some(arm) = node.child(arm) {
                self.query(arm)?;
            }
        }
        for item in node.nodes("from_clause") {
            self.source(item, Place { block, nullable: false })?;
        }
        if let Some(into) = node.child("into_clause") {
            self.creates(into, block)?;
        }
        // The names in FOR UPDATE OF are names of FROM items, not of relations.
        let handled =
            ["with_clause", "larg", "rarg", "from_clause", "into_clause", "locking_clause"];
        self.expressions(node, &handled, block)
    }

    pub(super) fn creates(&mut self, into: &'t Node, block: usize) -> Result<(), Why> {
        self.act(Verb::CreateTableAs);
        self.expressions(into, &["rel"], block)
    }

    fn insert(&mut self, node: &'t Node) -> Result<(), Why> {
        self.act(Verb::Insert);
        let block = self.block(node);
        self.target(node, Role::Insert(node), block)?;
        if let Some(source) = node.child("select_stmt") {
            if source.has("values_lists") && !source.has("with_clause") {
                // VALUES as the source reads nothing by itself.
                self.expressions(source, &[], block)?;
            } else {
                self.query(source)?;
            }
        }
        if node.child("on_conflict_clause").is_some_and(|clause| clause.has("target_list")) {
            self.model.actions.push(Action { verb: Verb::Update, without_where: false });
        }
        self.expressions(node, &["with_clause", "relation", "select_stmt"], block)
    }

    fn change(&mut self, node: &'t Node, verb: Verb, role: Role<'t>) -> Result<(), Why> {
        let without_where = node.child("where_clause").is_none_or(always_true);
        self.model.actions.push(Action { verb, without_where });
        let block = self.block(node);
        self.target(node, role, block)?;
        for item in node.nodes("from_clause").chain(node.nodes("using_clause")) {
            self.source(item, Place { block, nullable: false })?;
        }
        self.expressions(node, &["with_clause", "relation", "from_clause", "using_clause"], block)
    }

    fn merge(&mut self, node: &'t Node) -> Result<(), Why> {
        self.act(Verb::Merge);
        let block = self.block(node);
        self.target(node, Role::Merge, block)?;
        if let Some(source) = node.child("source_relation") {
            self.source(source, Place { block, nullable: true })?;
        }
        self.expressions(node, &["with_clause", "relation", "source_relation"], block)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else stands there is refused")]
    fn source(&mut self, item: &'t Node, place: Place) -> Result<(), Why> {
        match item.kind {
            Kind::RangeVar => self.reference(item, Role::Read, place, false),
            Kind::JoinExpr => self.join(item, place),
            Kind::RangeSubselect => {
                self.other_item(item, place.block);
                let query = item.child("subquery").ok_or_else(|| construct("sub-select"))?;
                self.query(query)?;
                self.expressions(item, &["subquery"], place.block)
            }
            Kind::RangeTableSample => {
                let relation = item.child("relation").ok_or_else(|| construct("TABLESAMPLE"))?;
                if relation.kind != Kind::RangeVar {
                    return Err(construct("TABLESAMPLE"));
                }
                // The method is a function, but one only the system can define.
                self.reference(relation, Role::Read, place, true)?;
                self.expressions(item, &["relation", "method"], place.block)
            }
            Kind::RangeFunction | Kind::RangeTableFunc | Kind::JsonTable => {
                self.other_item(item, place.block);
                self.expressions(item, &[], place.block)
            }
            other => Err(construct(other.name())),
        }
    }

    fn other_item(&mut self, item: &'t Node, block: usize) {
        if let Some(block) = self.model.blocks.get_mut(block) {
            block.plain = false;
        }
        if let Some(alias) = item.child("alias") {
            self.model.other_aliases.push(alias.text("aliasname"));
        }
    }

    fn join(&mut self, join: &'t Node, place: Place) -> Result<(), Why> {
        use pg_query::protobuf::JoinType;
        let (left, right) = match join.variant("jointype") {
            Some(JoinType::JoinInner) => (false, false),
            Some(JoinType::JoinLeft) => (false, true),
            Some(JoinType::JoinRight) => (true, false),
            Some(JoinType::JoinFull) => (true, true),
            Some(
                JoinType::Undefined
                | JoinType::JoinSemi
                | JoinType::JoinAnti
                | JoinType::JoinRightSemi
                | JoinType::JoinRightAnti
                | JoinType::JoinUniqueOuter
                | JoinType::JoinUniqueInner,
            )
            | None => return Err(construct("join type")),
        };
        for (side, null) in [("larg", left), ("rarg", right)] {
            let item = join.child(side).ok_or_else(|| construct("join"))?;
            let nullable = place.nullable || null;
            self.source(item, Place { nullable, ..place })?;
        }
        if join.has("using_clause") || join.flag("is_natural") {
            self.operator("=");
        }
        if let Some(block) = self.model.blocks.get_mut(place.block) {
            block.implicit_joins |= join.has("using_clause") || join.flag("is_natural");
            block.join_conditions.extend(join.child("quals"));
            block.hides_names |= join.has("alias");
            block.plain &= !join.has("alias") && !join.has("join_using_alias");
        }
        for alias in [join.child("alias"), join.child("join_using_alias")].into_iter().flatten() {
            self.model.other_aliases.push(alias.text("aliasname"));
        }
        self.expressions(join, &["larg", "rarg"], place.block)
    }

    fn target(&mut self, node: &'t Node, role: Role<'t>, block: usize) -> Result<(), Why> {
        let relation = node.child("relation").ok_or_else(|| construct("write without target"))?;
        self.reference(relation, role, Place { block, nullable: false }, false)
    }

    /// Records a relation, unless the name means a common table expression.
    fn reference(
        &mut self,
        node: &'t Node,
        role: Role<'t>,
        place: Place,
        sampled: bool,
    ) -> Result<(), Why> {
        let Place { block, nullable } = place;
        let name = node.text("relname");
        let is_read = matches!(role, Role::Read);
        if is_read && !node.has("schemaname") && self.scopes.has(name) {
            self.other_item(node, block);
            self.model.other_aliases.push(name);
            return self.expressions(node, &[], block);
        }
        // The grammar repeats the source of `SET (a, b) = (SELECT …)` once per column.
        let place = node.location().ok_or_else(|| construct("relation without a place"))?;
        let known = |reference: &Reference<'_>| {
            reference.node.location() == Some(place) && reference.node.matches(node)
        };
        if self.model.references.iter().any(known) {
            return Ok(());
        }
        let target = self.resolve(node)?;
        if let Target::Table(table) = &target {
            for call in table.calls.clone() {
                self.uses(call);
            }
        }
        self.write_rules(&target, role);
        self.model.references.push(Reference { node, role, target, block, nullable, sampled });
        self.expressions(node, &[], block)
    }

    /// A write runs the rewrite rules of its target, and of the tables it reaches through a view;
    /// what those do is not known here.
    fn write_rules(&mut self, target: &Target, role: Role<'t>) {
        let writes = match role {
            Role::Insert(_) | Role::Update(_) | Role::Delete(_) | Role::Merge => true,
            // COPY runs no rules.
            Role::Read | Role::CopyTo(_) | Role::CopyFrom | Role::Lock | Role::Define => false,
        };
        let (true, Target::Table(table), Some(catalog)) = (writes, target, self.catalog) else {
            return;
        };
        let below = table.relation.reads_through.iter().map(|below| &below.path);
        let ruled: Vec<String> = std::iter::once(&table.relation.path)
            .chain(below)
            .filter(|path| {
                catalog.table(&path.schema, &path.name).is_some_and(|table| table.write_rules)
            })
            .map(ToString::to_string)
            .collect();
        for path in ruled {
            self.uses(functions::defined("rewrite rules of", &path));
        }
    }

    fn resolve(&self, node: &Node) -> Result<Target, Why> {
        let database = node.text("catalogname");
        if self
            .catalog
            .is_some_and(|catalog| !database.is_empty() && database != &*catalog.database)
        {
            return Err(construct("name of another database"));
        }
        let schema = Some(node.text("schemaname")).filter(|schema| !schema.is_empty());
        self.named(schema, node.text("relname"))
    }

    pub(super) fn named(&self, schema: Option<&str>, name: &str) -> Result<Target, Why> {
        let unknown = Named { schema: schema.map(ToOwned::to_owned), name: name.to_owned() };
        let Some(catalog) = self.catalog else { return Ok(Target::Unknown(unknown)) };
        match catalog.resolve(schema, name, &self.path) {
            Resolved::Table(table) => Ok(Target::Table(Arc::clone(table))),
            Resolved::Missing => Ok(Target::Unknown(unknown)),
            Resolved::Ambiguous => Err(Why::Construct(format!(
                "unqualified name `{name}` while the search path is not certain; write schema.{name}"
            ))),
        }
    }

    pub(super) fn block(&mut self, node: &'t Node) -> usize {
        self.model.blocks.push(Block {
            node,
            plain: true,
            hides_names: false,
            join_conditions: Vec::new(),
            implicit_joins: false,
        });
        self.model.blocks.len() - 1
    }

    pub(super) fn expressions(
        &mut self,
        node: &'t Node,
        handled: &[&str],
        block: usize,
    ) -> Result<(), Why> {
        for child in node.children_except(handled) {
            self.expression(child, block)?;
        }
        Ok(())
    }

    /// Anything inside a query that is not itself a query or a FROM item.
    pub(super) fn expression(&mut self, node: &'t Node, block: usize) -> Result<(), Why> {
        match node.kind.group() {
            Group::Query => self.query(node),
            Group::Part => {
                self.names(node);
                self.expressions(node, &[], block)
            }
            Group::Placed | Group::Unknown => Err(construct(node.kind.name())),
        }
    }

    /// The functions and operators a node names itself.
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other part of an expression does")]
    fn names(&mut self, node: &'t Node) {
        self.cast_to(node);
        match node.kind {
            Kind::FuncCall => self.function(node),
            Kind::ColumnRef => {
                let names = node.strings("fields");
                let starred = node.nodes("fields").any(|field| field.kind == Kind::AStar);
                if let ([.., qualifier, name], false) = (names.as_slice(), starred) {
                    self.model.attributes.push((Some(qualifier), name));
                }
            }
            Kind::AIndirection => {
                for name in node.strings("indirection") {
                    self.model.attributes.push((None, name));
                }
            }
            Kind::AExpr => self.operators(node),
            Kind::SubLink => {
                self.operator("=");
                self.named_operator(&node.strings("oper_name"));
            }
            Kind::SortBy => self.named_operator(&node.strings("use_op")),
            Kind::CaseExpr if node.has("arg") => self.operator("="),
            // Older servers read these as calls of functions, which somebody may have defined.
            Kind::JsonFuncExpr => self.may_call(&["json_exists", "json_query", "json_value"]),
            Kind::JsonObjectConstructor => self.may_call(&["json_object"]),
            Kind::JsonArrayConstructor | Kind::JsonArrayQueryConstructor => {
                self.may_call(&["json_array"]);
            }
            Kind::JsonAggConstructor => self.may_call(&["json_objectagg", "json_arrayagg"]),
            Kind::JsonParseExpr => self.may_call(&["json"]),
            Kind::JsonScalarExpr => self.may_call(&["json_scalar"]),
            Kind::JsonSerializeExpr => self.may_call(&["json_serialize"]),
            Kind::TypeName => {
                if let Some(name) = node.strings("names").last()
                    && self.catalog.is_some_and(|catalog| catalog.has_cast(name))
                {
                    self.uses(functions::defined("cast", name));
                }
            }
            _ => {}
        }
    }

    /// Whatever names a type converts to it, also where the grammar has words of its own for that
    /// (XMLSERIALIZE, RETURNING of JSON functions).
    fn cast_to(&mut self, node: &'t Node) {
        let Some(ty) = node.child("type_name").filter(|ty| ty.kind == Kind::TypeName) else {
            return;
        };
        // A quoted constant has no type yet: the type itself reads it. NULL stays NULL.
        let untyped = |arg: &Node| {
            arg.kind == Kind::AConst
                && (arg.flag("isnull") || arg.child("val").is_some_and(|v| v.kind == Kind::String))
        };
        if node.kind == Kind::TypeCast && node.child("arg").is_some_and(untyped) {
            return;
        }
        if let Some(name) = ty.strings("names").last()
            && self.catalog.is_some_and(|catalog| catalog.has_cast_to(name))
        {
            self.uses(functions::defined("cast to", name));
        }
    }

    fn may_call(&mut self, names: &[&str]) {
        for name in names {
            if self.catalog.is_some_and(|catalog| catalog.has_function(name)) {
                self.uses(functions::called(None, name, self.catalog));
            }
        }
    }

    pub(super) fn function(&mut self, call: &'t Node) {
        let names = call.strings("funcname");
        let (schema, name) = match names.as_slice() {
            [.., schema, name] => (Some(*schema), *name),
            [name] => (None, *name),
            [] => return,
        };
        let mut function = functions::called(schema, name, self.catalog);
        if name == "set_config" {
            function.class = self.set_config(call, function.class);
        }
        self.uses(function);
    }

    fn operators(&mut self, node: &'t Node) {
        use pg_query::protobuf::AExprKind;
        if let Some(
            AExprKind::AexprBetween
            | AExprKind::AexprNotBetween
            | AExprKind::AexprBetweenSym
            | AExprKind::AexprNotBetweenSym,
        ) = node.variant("kind")
        {
            ["<", ">", "<=", ">="].into_iter().for_each(|name| self.operator(name));
        } else {
            self.named_operator(&node.strings("name"));
        }
    }

    fn named_operator(&mut self, name: &[&str]) {
        match name {
            [name] => self.operator(name),
            ["pg_catalog", _] | [] => {}
            [.., name] => self.uses(functions::defined("operator", name)),
        }
    }

    fn operator(&mut self, name: &str) {
        if self.catalog.is_some_and(|catalog| catalog.has_operator(name)) {
            self.uses(functions::defined("operator", name));
        }
    }

    pub(super) fn uses(&mut self, function: FunctionUse) {
        if !self.model.functions.contains(&function) {
            self.model.functions.push(function);
        }
    }

    /// Functions called by attribute notation: `x.name` calls `name(x)` when `x` has no such column.
    fn attributes(&mut self) {
        for (qualifier, name) in std::mem::take(&mut self.model.attributes) {
            let Some(function) = functions::called_as_attribute(name, self.catalog) else {
                continue;
            };
            if !qualifier.is_some_and(|qualifier| self.is_column(qualifier, name)) {
                self.uses(function);
            }
        }
    }

    /// Whether `qualifier.name` is a column of a relation, whatever level it stands on.
    fn is_column(&self, qualifier: &str, name: &str) -> bool {
        let mut named = self
            .model
            .references
            .iter()
            .filter(|reference| reference.visible_name() == qualifier)
            .peekable();
        named.peek().is_some()
            && !self.model.other_aliases.contains(&qualifier)
            && named.all(|reference| {
                !reference.renames_columns()
                    && reference.table().is_some_and(|table| table.column(name).is_some())
            })
    }

    /// A statement that is not modelled: whatever relation or function stands anywhere in it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every node is visited; only these name something"
    )]
    pub(super) fn collect(&mut self, node: &'t Node, role: Role<'t>) -> Result<(), Why> {
        match node.kind {
            Kind::RangeVar => {
                let target = self.resolve(node)?;
                self.model.references.push(Reference {
                    node,
                    role,
                    target,
                    block: usize::MAX,
                    nullable: false,
                    sampled: false,
                });
            }
            Kind::FuncCall => self.function(node),
            // ALTER ROLE … SET, ALTER SYSTEM, CREATE FUNCTION … SET.
            Kind::VariableSetStmt => self.setting(node),
            _ => {}
        }
        node.children().into_iter().try_for_each(|child| self.collect(child, role))
    }
}

/// Whether a setting decides whose rights apply; `"$user"` in the search path follows it.
pub(super) fn changes_role(setting: &str) -> bool {
    matches!(setting, "role" | "session_authorization")
}

pub(super) fn construct(name: &str) -> Why {
    Why::Construct(name.to_owned())
}
