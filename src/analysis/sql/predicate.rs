//! Row-filter predicates: a small, listed part of SQL, parsed once at load and printed by us.
//!
//! People write them in rule files, so `sqlparser` is good enough to read them; its printer is
//! never used. Everything that is not listed here is refused with its place. Values of the identity
//! enter as quoted constants, never as text.

use std::collections::HashMap;
use std::sync::Arc;

use crate::analysis::Catalog;
use crate::name::{RelationPath, RuleId};
use crate::obligation::RowFilter;

use super::quote::{quote_ident, quote_literal};

mod read;

/// Longest predicate in bytes.
const PREDICATE_BYTES_MAX: usize = 4 * 1024;

/// Deepest nesting of a predicate.
const NESTING_MAX: usize = 40;

/// The predicates of a rule set's filters, parsed at load.
#[derive(Debug, Default)]
pub struct Predicates {
    by_rule: HashMap<RuleId, Predicate>,
}

/// One filter's predicate.
#[derive(Debug)]
pub(super) struct Predicate {
    /// As written, to notice a filter of another generation of rules.
    text: Box<str>,
    condition: Condition,
    /// Columns with the place where each is first named.
    columns: Vec<(Box<str>, usize)>,
}

/// A condition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// All of them.
    And(Vec<Condition>),
    /// Any of them.
    Or(Vec<Condition>),
    /// The opposite.
    Not(Box<Condition>),
    /// `left op right`; the operator as PostgreSQL names it (`=`, `~~`).
    Compare(Operand, &'static str, Operand),
    /// Equal to one of these.
    In(Operand, Vec<Operand>),
    /// Between two values, both included.
    Between(Operand, Operand, Operand),
    /// IS NULL.
    IsNull(Operand),
    /// A boolean column or constant.
    Holds(Operand),
}

/// A value in a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// A column of the relation.
    Column(Box<str>),
    /// A string constant.
    Text(String),
    /// A number as written.
    Number(String),
    /// A truth value.
    Flag(bool),
    /// An attribute of the identity.
    Identity(Box<str>),
    /// A cast to this type of `pg_catalog`.
    Cast(Box<Operand>, &'static str),
    /// A call of this function of `pg_catalog`, or COALESCE.
    Call(&'static str, Vec<Operand>),
}

/// One condition of a conjunction that pins a column to a constant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pinned {
    /// The column.
    pub(super) column: Box<str>,
    /// The constant's text.
    pub(super) value: String,
}

impl Predicates {
    /// Parses the filters of a rule set.
    ///
    /// # Errors
    /// Every filter that is not understood: its rule, the byte offset in its text, and why.
    pub fn compile<'f>(
        filters: impl Iterator<Item = (RuleId, &'f str)>,
    ) -> Result<Self, Vec<(RuleId, usize, String)>> {
        let mut by_rule = HashMap::new();
        let mut problems = Vec::new();
        for (rule, text) in filters {
            match Predicate::parse(text) {
                Ok(predicate) => {
                    by_rule.insert(rule, predicate);
                }
                Err((offset, message)) => problems.push((rule, offset, message)),
            }
        }
        if problems.is_empty() { Ok(Self { by_rule }) } else { Err(problems) }
    }

    /// Checks that a relation has every column a rule's filter names.
    ///
    /// # Errors
    /// Each column it does not have: byte offset in the filter's text, and why.
    pub fn check(
        &self,
        rule: &RuleId,
        catalog: &Catalog,
        relation: &RelationPath,
    ) -> Result<(), Vec<(usize, String)>> {
        let (Some(predicate), Some(table)) =
            (self.by_rule.get(rule), catalog.table(&relation.schema, &relation.name))
        else {
            return Ok(());
        };
        let missing: Vec<_> = predicate
            .columns
            .iter()
            .filter(|(column, _)| table.column(column).is_none())
            .map(|(column, at)| (*at, format!("{relation} has no column `{column}`")))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// The predicate a filter obligation means.
    pub(super) fn of(&self, filter: &RowFilter) -> Option<&Predicate> {
        self.by_rule.get(&filter.rule).filter(|predicate| *predicate.text == *filter.predicate)
    }
}

impl Predicate {
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let read::Read { condition, columns } = read::condition(text)?;
        Ok(Self { text: text.into(), condition, columns })
    }

    /// Columns it names.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(column, _)| &**column)
    }

    /// The condition as SQL over the columns of `alias`; `None` when a value of the identity is
    /// missing.
    pub(super) fn sql(&self, alias: &str, values: &[(Arc<str>, Arc<str>)]) -> Option<String> {
        Printer { alias, values }.condition(&self.condition)
    }

    /// The columns and constants it pins, when it is nothing but a conjunction of `column =
    /// constant`; `None` otherwise.
    pub(super) fn pinned(&self, values: &[(Arc<str>, Arc<str>)]) -> Option<Vec<Pinned>> {
        let conditions = match &self.condition {
            Condition::And(all) => all.as_slice(),
            Condition::Or(_)
            | Condition::Not(_)
            | Condition::Compare(..)
            | Condition::In(..)
            | Condition::Between(..)
            | Condition::IsNull(_)
            | Condition::Holds(_) => std::slice::from_ref(&self.condition),
        };
        conditions
            .iter()
            .map(|condition| {
                let Condition::Compare(left, "=", right) = condition else { return None };
                let (column, value) = match (left, right) {
                    (Operand::Column(column), value) | (value, Operand::Column(column)) => {
                        (column, value)
                    }
                    _ => return None,
                };
                let value = constant(value, values)?;
                Some(Pinned { column: column.clone(), value })
            })
            .collect()
    }
}

/// The text of a constant, casts looked through.
fn constant(operand: &Operand, values: &[(Arc<str>, Arc<str>)]) -> Option<String> {
    match operand {
        Operand::Text(text) | Operand::Number(text) => Some(text.clone()),
        Operand::Identity(name) => value(name, values).map(ToOwned::to_owned),
        Operand::Cast(inner, _) => constant(inner, values),
        Operand::Column(_) | Operand::Flag(_) | Operand::Call(..) => None,
    }
}

fn value<'v>(name: &str, values: &'v [(Arc<str>, Arc<str>)]) -> Option<&'v str> {
    values.iter().find(|(known, _)| &**known == name).map(|(_, value)| &**value)
}

/// Prints with every operator, function and type named by its schema.
struct Printer<'a> {
    alias: &'a str,
    values: &'a [(Arc<str>, Arc<str>)],
}

impl Printer<'_> {
    fn condition(&self, condition: &Condition) -> Option<String> {
        let joined = |all: &[Condition], word: &str| {
            let all: Option<Vec<String>> = all.iter().map(|one| self.condition(one)).collect();
            all.map(|all| format!("({})", all.join(word)))
        };
        Some(match condition {
            Condition::And(all) => joined(all, " AND ")?,
            Condition::Or(any) => joined(any, " OR ")?,
            Condition::Not(inner) => format!("(NOT {})", self.condition(inner)?),
            Condition::Compare(left, operator, right) => {
                let (left, right) = (self.operand(left)?, self.operand(right)?);
                format!("({left} OPERATOR(pg_catalog.{operator}) {right})")
            }
            Condition::In(left, list) => {
                let left = self.operand(left)?;
                let arms: Option<Vec<String>> = list
                    .iter()
                    .map(|one| {
                        let one = self.operand(one)?;
                        Some(format!("{left} OPERATOR(pg_catalog.=) {one}"))
                    })
                    .collect();
                format!("({})", arms?.join(" OR "))
            }
            Condition::Between(value, low, high) => {
                let value = self.operand(value)?;
                let (low, high) = (self.operand(low)?, self.operand(high)?);
                format!(
                    "({value} OPERATOR(pg_catalog.>=) {low} \
                     AND {value} OPERATOR(pg_catalog.<=) {high})"
                )
            }
            Condition::IsNull(value) => format!("({} IS NULL)", self.operand(value)?),
            Condition::Holds(value) => self.operand(value)?,
        })
    }

    fn operand(&self, operand: &Operand) -> Option<String> {
        Some(match operand {
            Operand::Column(name) => format!("{}.{}", quote_ident(self.alias), quote_ident(name)),
            Operand::Text(text) => quote_literal(text),
            Operand::Number(number) if number.starts_with('-') => format!("({number})"),
            Operand::Number(number) => number.clone(),
            Operand::Flag(flag) => flag.to_string(),
            Operand::Identity(name) => quote_literal(value(name, self.values)?),
            Operand::Cast(inner, ty) => {
                format!("({}::pg_catalog.{})", self.operand(inner)?, quote_ident(ty))
            }
            Operand::Call(name, arguments) => {
                let arguments: Option<Vec<String>> =
                    arguments.iter().map(|argument| self.operand(argument)).collect();
                let arguments = arguments?.join(", ");
                match *name {
                    "coalesce" => format!("COALESCE({arguments})"),
                    name => format!("pg_catalog.{name}({arguments})"),
                }
            }
        })
    }
}
