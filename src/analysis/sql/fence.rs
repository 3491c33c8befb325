//! Which conditions of a client may run on rows a filter removes: only those that cannot tell.
//!
//! The planner is free to run a client's condition before ours, and an error it raises tells about
//! the row it ran on. A comparison the server itself calls leakproof tells nothing. When every
//! condition of the text is such a one, no fence is needed; otherwise the governed subquery gets
//! `OFFSET 0`, which the planner never looks through, and *copies* of the client's leakproof
//! conditions on that relation, so that an index look-up stays one.

use crate::analysis::Catalog;
use crate::analysis::catalog::{Column, TypeClass};

use super::model::{Block, Model, Reference};
use super::quote::{quote_ident, quote_literal};
use super::rewrite::Governed;
use super::tree::{Kind, Node};

/// Looks at conditions with the columns of their level in view.
pub(super) struct Fence<'a, 't> {
    pub(super) model: &'a Model<'t>,
    pub(super) governed: &'a Governed<'a>,
    pub(super) catalog: &'a Catalog,
    /// How often each parameter stands in the text.
    pub(super) parameters: &'a [(i64, usize)],
}

/// The comparisons the server calls leakproof for the types of [`TypeClass::is_leakproof`].
const COMPARISONS: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];

impl<'t> Fence<'_, 't> {
    /// Whether some condition of the text may tell about rows a filter removes.
    pub(super) fn is_needed(&self) -> bool {
        !self.model.blocks.iter().enumerate().all(|(index, block)| self.is_tight(index, block))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "an allow-list: the rest counts as telling")]
    fn is_tight(&self, index: usize, block: &Block<'t>) -> bool {
        match block.node.kind {
            Kind::SelectStmt | Kind::UpdateStmt | Kind::DeleteStmt => {}
            Kind::MergeStmt => return false,
            // Its parts are levels of their own, or it has no condition on rows that exist.
            _ => return true,
        }
        let conditions = ["where_clause", "having_clause"]
            .into_iter()
            .filter_map(|field| block.node.child(field))
            .chain(block.join_conditions.iter().copied());
        !block.implicit_joins && conditions.into_iter().all(|one| self.is_leakproof(one, index))
    }

    /// Whether a condition of this level tells nothing but its result.
    #[expect(clippy::wildcard_enum_match_arm, reason = "an allow-list: the rest counts as telling")]
    pub(super) fn is_leakproof(&self, condition: &Node, block: usize) -> bool {
        match condition.kind {
            Kind::BoolExpr => condition.nodes("args").all(|arm| self.is_leakproof(arm, block)),
            Kind::NullTest => {
                condition.child("arg").is_some_and(|arg| self.column(arg, block).is_some())
            }
            Kind::BooleanTest => condition.child("arg").is_some_and(|arg| self.is_flag(arg, block)),
            Kind::ColumnRef => self.is_flag(condition, block),
            Kind::AConst => true,
            Kind::AExpr => self.is_leakproof_comparison(condition, block),
            _ => false,
        }
    }

    fn is_flag(&self, node: &Node, block: usize) -> bool {
        self.column(node, block).is_some_and(|(_, column)| column.ty.class == TypeClass::Bool)
    }

    fn is_leakproof_comparison(&self, node: &Node, block: usize) -> bool {
        if self.copied(node, block).is_some() {
            return true;
        }
        let (Some(left), Some(right)) = (node.child("lexpr"), node.child("rexpr")) else {
            return false;
        };
        let (Some((_, left)), Some((_, right))) =
            (self.column(left, block), self.column(right, block))
        else {
            return false;
        };
        let (left, right) = (left.ty.class, right.ty.class);
        let same = left == right
            || left.is_integer() && right.is_integer()
            || is_varying(left) && is_varying(right);
        self.comparison(node).is_some_and(|form| matches!(form, Form::Plain(_)))
            && same
            && left.is_leakproof()
    }

    /// The conditions of its level that are comparisons of one of its columns with constants, as
    /// SQL over `alias`, to be repeated where the rows are read.
    pub(super) fn copies(&self, reference: &Reference<'t>, alias: &str) -> Vec<String> {
        let Some(block) = self.model.blocks.get(reference.block) else { return Vec::new() };
        let mut copies = Vec::new();
        let mut open: Vec<&Node> = block.node.child("where_clause").into_iter().collect();
        while let Some(condition) = open.pop() {
            if is_and(condition) {
                open.extend(condition.nodes("args"));
                continue;
            }
            let copied = self.copied(condition, reference.block);
            if let Some((owner, sql)) = copied
                && std::ptr::eq(owner.node, reference.node)
                && copies.len() < COPIES_MAX
                && !self.has_repeated_parameter(condition)
            {
                copies.push(sql.over(alias));
            }
        }
        copies
    }

    /// A parameter that stands elsewhere, too, gets its type from there; repeating it earlier in
    /// the text could change that.
    fn has_repeated_parameter(&self, condition: &Node) -> bool {
        condition.any(&mut |node| {
            node.kind == Kind::ParamRef
                && self
                    .parameters
                    .iter()
                    .any(|(number, count)| *number == node.int("number") && *count > 1)
        })
    }

    /// A comparison of one column with constants, and the relation it belongs to.
    fn copied(&self, node: &Node, block: usize) -> Option<(&Reference<'t>, Comparison)> {
        if node.kind != Kind::AExpr {
            return None;
        }
        let (left, right) = (node.child("lexpr")?, node.child("rexpr")?);
        let form = self.comparison(node)?;
        let (column, value, swapped) = match self.column(left, block) {
            Some(found) => (found, right, false),
            None => (self.column(right, block)?, left, true),
        };
        let (owner, column) = column;
        let class = column.ty.class;
        if !class.is_leakproof() {
            return None;
        }
        let one = |value: &Node| constant(value, class);
        let values = match form {
            Form::Plain(operator) => {
                return Some((
                    owner,
                    Comparison {
                        column: column.name.as_ref().into(),
                        swapped,
                        kind: Repeated::Plain(operator, one(value)?),
                    },
                ));
            }
            Form::Any if swapped => return None,
            Form::Any => {
                return Some((
                    owner,
                    Comparison {
                        column: column.name.as_ref().into(),
                        swapped,
                        kind: Repeated::Any(any_operand(value, class)?),
                    },
                ));
            }
            Form::In | Form::Between if swapped => return None,
            Form::In | Form::Between => {
                value.nodes("items").map(one).collect::<Option<Vec<_>>>()?
            }
        };
        let kind = match (form, values.as_slice()) {
            (Form::In, _) => Repeated::In(values),
            (Form::Between, [low, high]) => Repeated::Between(low.clone(), high.clone()),
            (Form::Between | Form::Plain(_) | Form::Any, _) => return None,
        };
        Some((owner, Comparison { column: column.name.as_ref().into(), swapped, kind }))
    }

    /// The form of a comparison, when it uses the server's own operators.
    fn comparison(&self, node: &Node) -> Option<Form> {
        use pg_query::protobuf::AExprKind;
        let names = node.strings("name");
        let kind: AExprKind = node.variant("kind")?;
        if matches!(kind, AExprKind::AexprBetween) {
            let own = ["<=", ">="].iter().any(|name| self.catalog.has_operator(name));
            return (!own).then_some(Form::Between);
        }
        let name = match names.as_slice() {
            [name] if !self.catalog.has_operator(name) => *name,
            ["pg_catalog", name] => *name,
            _ => return None,
        };
        let operator = COMPARISONS.into_iter().find(|known| *known == name)?;
        match kind {
            AExprKind::AexprOp => Some(Form::Plain(operator)),
            AExprKind::AexprIn if operator == "=" => Some(Form::In),
            AExprKind::AexprOpAny if operator == "=" => Some(Form::Any),
            AExprKind::Undefined
            | AExprKind::AexprIn
            | AExprKind::AexprOpAny
            | AExprKind::AexprOpAll
            | AExprKind::AexprDistinct
            | AExprKind::AexprNotDistinct
            | AExprKind::AexprNullif
            | AExprKind::AexprLike
            | AExprKind::AexprIlike
            | AExprKind::AexprSimilar
            | AExprKind::AexprBetween
            | AExprKind::AexprNotBetween
            | AExprKind::AexprBetweenSym
            | AExprKind::AexprNotBetweenSym => None,
        }
    }

    /// The column of a relation of this level that a name means, unless it is masked. A name that
    /// could mean anything else means nothing here.
    fn column(&self, node: &Node, block: usize) -> Option<(&Reference<'t>, &Column)> {
        if node.kind != Kind::ColumnRef || node.nodes("fields").any(|f| f.kind == Kind::AStar) {
            return None;
        }
        if self.model.blocks.get(block)?.hides_names {
            return None;
        }
        let level = || self.model.references.iter().filter(|r| r.block == block);
        let names = node.strings("fields");
        let (owner, name) = match names.as_slice() {
            [name] => {
                if !self.model.blocks.get(block)?.plain {
                    return None;
                }
                // Every relation of the level must be known by its columns to exclude it.
                let known = |r: &Reference<'_>| {
                    !r.renames_columns() && r.table().is_some_and(|t| !t.columns.is_empty())
                };
                if !level().all(known) {
                    return None;
                }
                let mut owners =
                    level().filter(|r| r.table().is_some_and(|t| t.column(name).is_some()));
                (owners.next().filter(|_| owners.next().is_none())?, name)
            }
            [qualifier, name] => {
                let mut owners = level().filter(|r| r.visible_name() == *qualifier);
                (owners.next().filter(|_| owners.next().is_none())?, name)
            }
            [schema, qualifier, name] => {
                let same = |r: &&Reference<'_>| {
                    !r.node.has("alias")
                        && r.table().is_some_and(|t| {
                            *t.relation.path.schema == **schema
                                && *t.relation.path.name == **qualifier
                        })
                };
                let mut owners = level().filter(same);
                (owners.next().filter(|_| owners.next().is_none())?, name)
            }
            _ => return None,
        };
        if owner.renames_columns() {
            return None;
        }
        let table = owner.table()?;
        let masked = self
            .governed
            .of(table)
            .is_some_and(|governance| Governed::hides(governance, table, name));
        if masked { None } else { Some((owner, table.column(name)?)) }
    }
}

/// Most conditions repeated inside one subquery.
const COPIES_MAX: usize = 16;

#[derive(Clone, Copy, Debug)]
enum Form {
    Plain(&'static str),
    In,
    Any,
    Between,
}

/// A client's comparison, to be printed again.
struct Comparison {
    column: Box<str>,
    swapped: bool,
    kind: Repeated,
}

enum Repeated {
    Plain(&'static str, String),
    In(Vec<String>),
    Any(String),
    Between(String, String),
}

impl Comparison {
    fn over(&self, alias: &str) -> String {
        let column = format!("{}.{}", quote_ident(alias), quote_ident(&self.column));
        match &self.kind {
            Repeated::Plain(operator, value) if self.swapped => {
                format!("({value} OPERATOR(pg_catalog.{operator}) {column})")
            }
            Repeated::Plain(operator, value) => {
                format!("({column} OPERATOR(pg_catalog.{operator}) {value})")
            }
            // Any search path that changes `=` is noticed before; IN has no qualified spelling.
            Repeated::In(values) => format!("({column} IN ({}))", values.join(", ")),
            Repeated::Any(array) => format!("({column} OPERATOR(pg_catalog.=) ANY ({array}))"),
            Repeated::Between(low, high) => format!(
                "({column} OPERATOR(pg_catalog.>=) {low} AND {column} OPERATOR(pg_catalog.<=) {high})"
            ),
        }
    }
}

fn is_and(node: &Node) -> bool {
    use pg_query::protobuf::BoolExprType;
    node.kind == Kind::BoolExpr && node.variant("boolop") == Some(BoolExprType::AndExpr)
}

fn is_varying(class: TypeClass) -> bool {
    matches!(class, TypeClass::Text | TypeClass::Varchar)
}

/// A constant or parameter compared with a column of this class, as SQL.
#[expect(clippy::wildcard_enum_match_arm, reason = "an allow-list: the rest counts as telling")]
fn constant(node: &Node, class: TypeClass) -> Option<String> {
    match node.kind {
        Kind::ParamRef => Some(format!("${}", node.int("number"))),
        Kind::AConst => literal(node, class),
        Kind::TypeCast => {
            let ty = node.child("type_name")?;
            if ty.has("typmods") || ty.has("array_bounds") || ty.flag("setof") {
                return None;
            }
            let name = match ty.strings("names").as_slice() {
                ["pg_catalog", name] | [name] => *name,
                _ => return None,
            };
            let cast = TypeClass::of(name);
            let same = cast == class
                || cast.is_integer() && class.is_integer()
                || is_varying(cast) && is_varying(class);
            let inner = constant(node.child("arg")?, cast)?;
            same.then(|| format!("({inner}::pg_catalog.{})", quote_ident(name)))
        }
        _ => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "an allow-list: the rest counts as telling")]
fn literal(node: &Node, class: TypeClass) -> Option<String> {
    let value = node.child("val")?;
    match value.kind {
        Kind::String => Some(quote_literal(value.text("sval"))),
        Kind::Integer if class.is_integer() => Some(format!("({})", value.int("ival"))),
        Kind::Boolean if class == TypeClass::Bool => Some(value.flag("boolval").to_string()),
        _ => None,
    }
}

/// The array of `= ANY (…)`, when it is a parameter, a constant or a list of constants.
#[expect(clippy::wildcard_enum_match_arm, reason = "an allow-list: the rest counts as telling")]
fn any_operand(node: &Node, class: TypeClass) -> Option<String> {
    match node.kind {
        Kind::ParamRef => Some(format!("${}", node.int("number"))),
        Kind::AConst => {
            let value = node.child("val")?;
            (value.kind == Kind::String).then(|| quote_literal(value.text("sval")))
        }
        Kind::AArrayExpr => {
            let all: Option<Vec<String>> =
                node.nodes("elements").map(|one| constant(one, class)).collect();
            let all = all.filter(|all| !all.is_empty())?;
            Some(format!("ARRAY[{}]", all.join(", ")))
        }
        _ => None,
    }
}
