//! Predicate text → [`Condition`]. An allow-list: what has no arm here is refused.

use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, ObjectNamePart, Spanned, UnaryOperator, Value,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use super::{Condition, NESTING_MAX, Operand, PREDICATE_BYTES_MAX};

/// What is wrong, and at which byte.
type Problem = (usize, String);

/// Placeholder `sqlparser` understands; as long as what it stands for, so places stay right.
const MARK: &str = "$identity_";

/// What people write for an attribute of the identity.
const ATTRIBUTE: &str = ":identity.";

/// A condition and the columns it names, each with the place where it is first named.
pub(super) struct Read {
    pub(super) condition: Condition,
    pub(super) columns: Vec<(Box<str>, usize)>,
}

/// Reads a predicate.
pub(super) fn condition(text: &str) -> Result<Read, Problem> {
    if text.len() > PREDICATE_BYTES_MAX {
        return Err((0, format!("a filter has at most {PREDICATE_BYTES_MAX} bytes")));
    }
    if let Some(at) = text.find('\\') {
        return Err((at, "a filter has no backslashes".to_owned()));
    }
    let nesting = text.bytes().filter(|byte| b"(-+".contains(byte)).count();
    if nesting > NESTING_MAX {
        return Err((0, format!("a filter has at most {NESTING_MAX} brackets")));
    }
    let marked = mark(text)?;
    let dialect = PostgreSqlDialect {};
    let failed = |error: ParserError| {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
            ParserError::RecursionLimitExceeded => "nested too deeply".to_owned(),
        };
        let (message, place) = match message.split_once(" at Line: ") {
            Some((message, place)) => (message.to_owned(), parse_place(place)),
            None => (message, None),
        };
        let (line, column) = place.unwrap_or((1, 1));
        (offset(text, line, column), message)
    };
    let mut parser = Parser::new(&dialect).try_with_sql(&marked).map_err(failed)?;
    let expression = parser.parse_expr().map_err(failed)?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        let at = offset(text, rest.span.start.line, rest.span.start.column);
        return Err((at, format!("nothing may follow the condition, found `{}`", rest.token)));
    }
    let mut reader = Reader { text, columns: Vec::new() };
    let condition = reader.condition(&expression)?;
    Ok(Read { condition, columns: reader.columns })
}

/// Replaces `:identity.name` outside of quotes by a placeholder of the same length.
fn mark(text: &str) -> Result<String, Problem> {
    let mut marked = String::with_capacity(text.len());
    let mut rest = text;
    let mut quote: Option<char> = None;
    while let Some(next) = rest.chars().next() {
        if quote.is_none()
            && let Some(after) = rest.strip_prefix(ATTRIBUTE)
        {
            if !after.starts_with(|c: char| c.is_ascii_alphabetic()) {
                let at = text.len() - rest.len();
                return Err((at, "write the attribute's name after `:identity.`".to_owned()));
            }
            marked.push_str(MARK);
            rest = after;
            continue;
        }
        match quote {
            Some(open) if open == next => quote = None,
            None if matches!(next, '\'' | '"') => quote = Some(next),
            Some(_) | None => {}
        }
        marked.push(next);
        rest = rest.get(next.len_utf8()..).unwrap_or_default();
    }
    Ok(marked)
}

fn parse_place(place: &str) -> Option<(u64, u64)> {
    let (line, column) = place.split_once(", Column: ")?;
    Some((line.trim().parse().ok()?, column.trim().parse().ok()?))
}

/// Byte offset of a line and column, both from 1.
fn offset(text: &str, line: u64, column: u64) -> usize {
    let (mut at_line, mut at_column) = (1, 1);
    for (at, character) in text.char_indices() {
        if at_line == line && at_column == column {
            return at;
        }
        if character == '\n' {
            (at_line, at_column) = (at_line + 1, 1);
        } else {
            at_column += 1;
        }
    }
    if line == 0 { 0 } else { text.len() }
}

struct Reader<'t> {
    text: &'t str,
    columns: Vec<(Box<str>, usize)>,
}

impl Reader<'_> {
    fn at(&self, expression: &Expr) -> usize {
        let start = expression.span().start;
        offset(self.text, start.line, start.column)
    }

    fn refuse<T>(&self, expression: &Expr, what: &str) -> Result<T, Problem> {
        Err((
            self.at(expression),
            format!(
                "{what} is not possible in a filter; use columns of the relation, constants, comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, IS NULL"
            ),
        ))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "an allow-list: the rest is refused")]
    fn condition(&mut self, expression: &Expr) -> Result<Condition, Problem> {
        let negate = |negated: bool, condition: Condition| {
            if negated { Condition::Not(Box::new(condition)) } else { condition }
        };
        match expression {
            Expr::Nested(inner) => self.condition(inner),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                Ok(Condition::And(self.arms(left, right, &BinaryOperator::And)?))
            }
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                Ok(Condition::Or(self.arms(left, right, &BinaryOperator::Or)?))
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                Ok(Condition::Not(Box::new(self.condition(expr)?)))
            }
            Expr::BinaryOp { left, op, right } => {
                let operator = match op {
                    BinaryOperator::Eq => "=",
                    BinaryOperator::NotEq => "<>",
                    BinaryOperator::Lt => "<",
                    BinaryOperator::LtEq => "<=",
                    BinaryOperator::Gt => ">",
                    BinaryOperator::GtEq => ">=",
                    other => return self.refuse(expression, &format!("the operator `{other}`")),
                };
                Ok(Condition::Compare(self.operand(left)?, operator, self.operand(right)?))
            }
            Expr::InList { expr, list, negated } => {
                let list = list.iter().map(|one| self.operand(one)).collect::<Result<_, _>>()?;
                Ok(negate(*negated, Condition::In(self.operand(expr)?, list)))
            }
            Expr::Between { expr, negated, low, high } => {
                let (low, high) = (self.operand(low)?, self.operand(high)?);
                Ok(negate(*negated, Condition::Between(self.operand(expr)?, low, high)))
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
                let pattern = self.operand(pattern)?;
                Ok(negate(*negated, Condition::Compare(self.operand(expr)?, "~~", pattern)))
            }
            Expr::IsNull(inner) => Ok(Condition::IsNull(self.operand(inner)?)),
            Expr::IsNotNull(inner) => Ok(negate(true, Condition::IsNull(self.operand(inner)?))),
            Expr::Identifier(_) | Expr::Value(_) => Ok(Condition::Holds(self.operand(expression)?)),
            Expr::Exists { .. } | Expr::InSubquery { .. } | Expr::Subquery(_) => {
                self.refuse(expression, "a sub-select")
            }
            other => self.refuse(other, "this expression"),
        }
    }

    /// The arms of a chain of one operator, which the parser nests to the left.
    fn arms(
        &mut self,
        left: &Expr,
        right: &Expr,
        operator: &BinaryOperator,
    ) -> Result<Vec<Condition>, Problem> {
        let mut arms = if let Expr::BinaryOp { left, op, right } = left
            && op == operator
        {
            self.arms(left, right, operator)?
        } else {
            vec![self.condition(left)?]
        };
        arms.push(self.condition(right)?);
        Ok(arms)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "an allow-list: the rest is refused")]
    fn operand(&mut self, expression: &Expr) -> Result<Operand, Problem> {
        match expression {
            Expr::Nested(inner) => self.operand(inner),
            Expr::Identifier(name) => {
                let name = folded(name);
                if !self.columns.iter().any(|(known, _)| *known == name) {
                    self.columns.push((name.clone(), self.at(expression)));
                }
                Ok(Operand::Column(name))
            }
            Expr::CompoundIdentifier(_) => self.refuse(expression, "a qualified name"),
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => Ok(Operand::Text(text.clone())),
                Value::Number(number, false)
                    if number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') =>
                {
                    Ok(Operand::Number(number.clone()))
                }
                Value::Boolean(flag) => Ok(Operand::Flag(*flag)),
                Value::Placeholder(mark) => match mark.strip_prefix(MARK) {
                    Some(name) => Ok(Operand::Identity(name.into())),
                    None => self.refuse(expression, "a parameter"),
                },
                Value::Null => self.refuse(expression, "comparing with NULL"),
                _ => self.refuse(expression, "this kind of constant"),
            },
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match self.operand(expr)? {
                Operand::Number(number) if !number.starts_with('-') => {
                    Ok(Operand::Number(format!("-{number}")))
                }
                _ => self.refuse(expression, "a minus sign before anything but a number"),
            },
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, ..
            } => {
                let Some(ty) = cast_type(data_type) else {
                    return self.refuse(expression, &format!("a cast to {data_type}"));
                };
                Ok(Operand::Cast(Box::new(self.operand(expr)?), ty))
            }
            Expr::TypedString(typed) => {
                let Some(ty) = cast_type(&typed.data_type) else {
                    return self.refuse(expression, "this kind of constant");
                };
                match &typed.value.value {
                    Value::SingleQuotedString(text) => {
                        Ok(Operand::Cast(Box::new(Operand::Text(text.clone())), ty))
                    }
                    _ => self.refuse(expression, "this kind of constant"),
                }
            }
            Expr::Function(function) => self.call(expression, function),
            other => self.refuse(other, "this expression"),
        }
    }

    fn call(&mut self, expression: &Expr, function: &Function) -> Result<Operand, Problem> {
        let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else {
            return self.refuse(expression, "a qualified function");
        };
        let name = folded(name);
        let Some(name) = FUNCTIONS.iter().copied().find(|known| **known == *name) else {
            return self.refuse(expression, &format!("the function `{name}`"));
        };
        let plain = function.over.is_none()
            && function.filter.is_none()
            && function.within_group.is_empty()
            && function.null_treatment.is_none();
        let FunctionArguments::List(list) = &function.args else {
            return self.refuse(expression, "this call");
        };
        if !plain || list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
            return self.refuse(expression, "this call");
        }
        let mut arguments = Vec::with_capacity(list.args.len());
        for argument in &list.args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else {
                return self.refuse(expression, "this call");
            };
            arguments.push(self.operand(argument)?);
        }
        Ok(Operand::Call(name, arguments))
    }
}

/// Functions a filter may call: they compute from their arguments and read no setting.
const FUNCTIONS: [&str; 5] = ["lower", "upper", "coalesce", "date_trunc", "btrim"];

fn folded(name: &Ident) -> Box<str> {
    if name.quote_style.is_some() {
        name.value.as_str().into()
    } else {
        name.value.to_lowercase().into()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "an allow-list: the rest is refused")]
fn cast_type(data_type: &DataType) -> Option<&'static str> {
    use sqlparser::ast::TimezoneInfo;
    Some(match data_type {
        DataType::Text => "text",
        DataType::Varchar(None) | DataType::CharacterVarying(None) => "varchar",
        DataType::Int2(None) | DataType::SmallInt(None) => "int2",
        DataType::Int4(None) | DataType::Int(None) | DataType::Integer(None) => "int4",
        DataType::Int8(None) | DataType::BigInt(None) => "int8",
        DataType::Numeric(sqlparser::ast::ExactNumberInfo::None) => "numeric",
        DataType::Bool | DataType::Boolean => "bool",
        DataType::Uuid => "uuid",
        DataType::Date => "date",
        DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            "timestamp"
        }
        DataType::Timestamp(None, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => "timestamptz",
        _ => return None,
    })
}
