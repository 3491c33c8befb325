//! Masks as SQL over built-in functions.
//!
//! Each mask is an expression of the column's own type that raises no error on any value (an error
//! would tell about the value), gives NULL for NULL, and names every function, operator and type
//! with its schema, so that no search path changes what it means.

use crate::analysis::Catalog;
use crate::analysis::catalog::{ColumnType, TypeClass};
use crate::name::RelationPath;
use crate::obligation::{DateUnit, MaskFn};

use super::quote::quote_literal;

/// Most characters a partial mask may keep on either side.
const KEPT_MAX: u32 = 1_000;

/// Longest text that is searched for digits; anything longer is no card number and masked whole.
const PAN_CHARACTERS_MAX: u32 = 64;

/// Checks at load that a mask can be carried out on a column.
///
/// # Errors
/// What the function cannot do with the column's type, or that there is no such column.
pub fn check_mask(
    catalog: &Catalog,
    relation: &RelationPath,
    column: &str,
    function: &MaskFn,
) -> Result<(), String> {
    let table = catalog.table(&relation.schema, &relation.name);
    match table.and_then(|table| table.column(column)) {
        Some(column) => sql(function, "x", &column.ty).map(|_sql| ()),
        None => Err(format!("{relation} has no column `{column}`")),
    }
}

/// The masked form of the column expression `value`.
///
/// # Errors
/// What the function cannot do with the type.
pub(super) fn sql(function: &MaskFn, value: &str, ty: &ColumnType) -> Result<String, String> {
    let name = function.name();
    let impossible = |reason: &str| Err(format!("{name} {reason}"));
    let text = format!("{value}::pg_catalog.text");
    let target = &ty.sql;
    match function {
        MaskFn::Nullify => Ok(format!("NULL::{target}")),
        MaskFn::Constant(constant) => {
            if !fits(constant, ty) {
                return impossible("cannot give this value in a column of this type");
            }
            let constant = quote_literal(constant);
            Ok(format!(
                "(CASE WHEN {value} IS NULL THEN NULL ELSE {constant}::{target} END)::{target}"
            ))
        }
        MaskFn::Partial { prefix, suffix, fill } => {
            if !ty.class.is_text() {
                return impossible("needs a text column");
            }
            if *prefix > KEPT_MAX || *suffix > KEPT_MAX {
                return impossible("keeps too many characters");
            }
            Ok(format!("({})::{target}", partial(&text, *prefix, *suffix, *fill)))
        }
        MaskFn::PartialEmail { keep_domain } => {
            if !ty.class.is_text() {
                return impossible("needs a text column");
            }
            Ok(back_to_text(&partial_email(&text, *keep_domain), target))
        }
        MaskFn::PanBinLast4 { bin } => {
            if !ty.class.is_text() {
                return impossible("needs a text column; use nullify for numbers");
            }
            if !matches!(bin, 6 | 8) {
                return impossible("keeps 6 or 8 leading digits");
            }
            Ok(back_to_text(&pan(&text, *bin), target))
        }
        MaskFn::TruncateDate(unit) => match date(value, *unit, ty) {
            Some(masked) => Ok(masked),
            None => impossible("needs a date or timestamp column"),
        },
        // The key stays in the proxy: no expression of the server can hold it.
        MaskFn::FpeFf1(_) | MaskFn::HashKeyed | MaskFn::TokenHmac(_) => {
            impossible("needs a key that the server does not have; it works on values of keys only")
        }
        MaskFn::Bucket { width: 0, .. } => impossible("needs a width above zero"),
        MaskFn::Bucket { width, offset } => match bucket(value, *width, *offset, ty) {
            Some(masked) => Ok(masked),
            None => impossible("needs a number column"),
        },
    }
}

/// Whether a constant is certainly a value of the type, whatever the session's settings.
fn fits(constant: &str, ty: &ColumnType) -> bool {
    let number = || {
        let digits = constant.strip_prefix('-').unwrap_or(constant);
        !digits.is_empty()
            && digits.len() <= 15
            && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
            && constant.parse::<f64>().is_ok()
    };
    match ty.class {
        TypeClass::Text | TypeClass::Varchar | TypeClass::Bpchar | TypeClass::Citext => true,
        TypeClass::Int2 => constant.parse::<i16>().is_ok(),
        TypeClass::Int4 => constant.parse::<i32>().is_ok(),
        TypeClass::Int8 => constant.parse::<i64>().is_ok(),
        // With a precision it might not fit; only zero always does.
        TypeClass::Numeric => number() && (!ty.sql.contains('(') || constant == "0"),
        TypeClass::Float4 | TypeClass::Float8 => number(),
        TypeClass::Bool => matches!(constant, "true" | "false"),
        TypeClass::Date | TypeClass::Timestamp | TypeClass::Timestamptz => is_iso_date(constant),
        TypeClass::Uuid => is_uuid(constant),
        TypeClass::Other => false,
    }
}

fn is_iso_date(text: &str) -> bool {
    let mut parts = text.split('-').map(|part| (part.len(), part.parse::<u32>()));
    let (year, month, day) = (parts.next(), parts.next(), parts.next());
    parts.next().is_none()
        && matches!(year, Some((4, Ok(1..))))
        && matches!(month, Some((2, Ok(1..=12))))
        // Every month has these days; the rest would need a calendar for no gain.
        && matches!(day, Some((2, Ok(1..=28))))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn length(text: &str) -> String {
    format!("pg_catalog.char_length({text})")
}

fn stars(text: &str, fill: char) -> String {
    format!("pg_catalog.repeat({}, {})", quote_literal(&fill.to_string()), length(text))
}

fn partial(text: &str, prefix: u32, suffix: u32, fill: char) -> String {
    let kept = prefix.saturating_add(suffix);
    let length = length(text);
    let all = stars(text, fill);
    let fill = quote_literal(&fill.to_string());
    format!(
        "CASE WHEN {length} OPERATOR(pg_catalog.<=) {kept} THEN {all} \
         ELSE pg_catalog.left({text}, {prefix}) OPERATOR(pg_catalog.||) \
         pg_catalog.repeat({fill}, {length} OPERATOR(pg_catalog.-) {kept}) \
         OPERATOR(pg_catalog.||) pg_catalog.right({text}, {suffix}) END"
    )
}

/// Regular expressions refuse nondeterministic collations; "C" never does.
fn plain(text: &str) -> String {
    format!("({text} COLLATE pg_catalog.\"C\")")
}

/// Gives a result that went through "C" the database's collation again, so that comparing it
/// with another column is not ambiguous.
fn back_to_text(masked: &str, target: &str) -> String {
    format!("(({masked})::{target} COLLATE pg_catalog.\"default\")")
}

fn partial_email(text: &str, keep_domain: bool) -> String {
    let plain = plain(text);
    let at = format!("pg_catalog.strpos({plain}, '@')");
    let address = quote_literal("^[^@[:space:]]+@[^@[:space:]]+[.][^@.[:space:]]+$");
    let domain = if keep_domain {
        format!("pg_catalog.substr({plain}, {at})")
    } else {
        format!("'@***.' OPERATOR(pg_catalog.||) pg_catalog.regexp_replace({plain}, '^.*[.]', '')")
    };
    let all = stars(text, '*');
    // A local part of one character would be shown whole.
    format!(
        "CASE WHEN {plain} IS NULL THEN NULL \
         WHEN {plain} OPERATOR(pg_catalog.!~) {address} THEN {all} \
         ELSE CASE WHEN {at} OPERATOR(pg_catalog.>) 2 THEN pg_catalog.left({plain}, 1) ELSE '' END \
         OPERATOR(pg_catalog.||) '***' OPERATOR(pg_catalog.||) {domain} END"
    )
}

fn pan(text: &str, bin: u8) -> String {
    let plain = plain(text);
    let digits = format!("pg_catalog.regexp_replace({plain}, '[^0-9]', '', 'g')");
    let all = stars(text, '*');
    // First everything that is no digit and no separator, then each digit with enough digits on
    // both sides of it.
    let letters = format!("pg_catalog.regexp_replace({plain}, '[^-0-9 ./]', '*', 'g')");
    let middle = format!("(?<=(?:[0-9][^0-9]*){{{bin}}})[0-9](?=(?:[^0-9]*[0-9]){{4}})");
    let middle = quote_literal(&middle);
    let digit_count = length(&digits);
    let length = length(text);
    format!(
        "CASE WHEN {length} OPERATOR(pg_catalog.>) {PAN_CHARACTERS_MAX} THEN {all} \
         WHEN {digit_count} OPERATOR(pg_catalog.<) 13 THEN {all} \
         ELSE pg_catalog.regexp_replace({letters}, {middle}, '*', 'g') END"
    )
}

/// Truncation keeps infinity; values near the lower end of the calendar become NULL because
/// truncating them would leave it.
fn date(value: &str, unit: DateUnit, ty: &ColumnType) -> Option<String> {
    let unit = match unit {
        DateUnit::Day => "'day'",
        DateUnit::Month => "'month'",
        DateUnit::Quarter => "'quarter'",
        DateUnit::Year => "'year'",
    };
    let target = &ty.sql;
    let (truncated, low, high) = match ty.class {
        TypeClass::Date => (
            format!(
                "pg_catalog.date_trunc({unit}, {value}::pg_catalog.timestamp)::pg_catalog.date"
            ),
            "'4700-01-01 BC'::pg_catalog.date",
            "'294000-01-01'::pg_catalog.date",
        ),
        TypeClass::Timestamp => (
            format!("pg_catalog.date_trunc({unit}, {value})"),
            "'4700-01-01 00:00:00 BC'::pg_catalog.timestamp",
            "'294000-01-01 00:00:00'::pg_catalog.timestamp",
        ),
        TypeClass::Timestamptz => (
            format!("pg_catalog.date_trunc({unit}, {value}, 'UTC')"),
            "'4700-01-01 00:00:00+00 BC'::pg_catalog.timestamptz",
            "'294000-01-01 00:00:00+00'::pg_catalog.timestamptz",
        ),
        TypeClass::Text
        | TypeClass::Varchar
        | TypeClass::Bpchar
        | TypeClass::Citext
        | TypeClass::Int2
        | TypeClass::Int4
        | TypeClass::Int8
        | TypeClass::Numeric
        | TypeClass::Float4
        | TypeClass::Float8
        | TypeClass::Bool
        | TypeClass::Uuid
        | TypeClass::Other => return None,
    };
    Some(format!(
        "(CASE WHEN NOT pg_catalog.isfinite({value}) THEN {value} \
         WHEN {value} OPERATOR(pg_catalog.<) {low} THEN NULL \
         WHEN {value} OPERATOR(pg_catalog.>) {high} THEN NULL ELSE {truncated} END)::{target}"
    ))
}

fn bucket(value: &str, width: u64, offset: i64, ty: &ColumnType) -> Option<String> {
    let exact = |value: &str| {
        let number = format!("{value}::pg_catalog.\"numeric\"");
        let width = format!("'{width}'::pg_catalog.\"numeric\"");
        let offset = format!("'{offset}'::pg_catalog.\"numeric\"");
        // The remainder has the sign of its first operand; made positive by a second turn. An edge
        // is whole: the value's own number of decimals must not show.
        format!(
            "pg_catalog.trunc({number} OPERATOR(pg_catalog.-) pg_catalog.mod(pg_catalog.mod({number} \
             OPERATOR(pg_catalog.-) {offset}, {width}) OPERATOR(pg_catalog.+) {width}, {width}))"
        )
    };
    let whole = |lowest: i64, name: &str| {
        // The lower edge of the lowest bucket may lie below the type.
        format!(
            "(CASE WHEN {value} IS NULL THEN NULL \
             WHEN {edge} OPERATOR(pg_catalog.<) '{lowest}'::pg_catalog.\"numeric\" \
             THEN '{lowest}'::pg_catalog.{name} ELSE {edge}::pg_catalog.{name} END)",
            edge = exact(value)
        )
    };
    let float = |limit: &str, name: &str| {
        let number = format!("{value}::pg_catalog.float8");
        let width = format!("'{width}'::pg_catalog.float8");
        let offset = format!("'{offset}'::pg_catalog.float8");
        // Not a number and the largest numbers have no edge; the smallest count as zero, because
        // dividing them would underflow.
        format!(
            "(CASE WHEN pg_catalog.abs({number}) OPERATOR(pg_catalog.>) \
             '{limit}'::pg_catalog.float8 THEN NULL ELSE (pg_catalog.floor((\
             CASE WHEN pg_catalog.abs({number}) OPERATOR(pg_catalog.<) \
             '1e-100'::pg_catalog.float8 THEN '0'::pg_catalog.float8 ELSE {number} END \
             OPERATOR(pg_catalog.-) {offset}) OPERATOR(pg_catalog./) {width}) \
             OPERATOR(pg_catalog.*) {width} OPERATOR(pg_catalog.+) {offset})::pg_catalog.{name} END)"
        )
    };
    match ty.class {
        TypeClass::Int2 => Some(whole(i16::MIN.into(), "int2")),
        TypeClass::Int4 => Some(whole(i32::MIN.into(), "int4")),
        TypeClass::Int8 => Some(whole(i64::MIN, "int8")),
        // Without its precision: the lower edge of a negative number may need one digit more.
        TypeClass::Numeric => Some(exact(value)),
        TypeClass::Float4 => Some(float("1e37", "float4")),
        TypeClass::Float8 => Some(float("1e300", "float8")),
        TypeClass::Text
        | TypeClass::Varchar
        | TypeClass::Bpchar
        | TypeClass::Citext
        | TypeClass::Bool
        | TypeClass::Date
        | TypeClass::Timestamp
        | TypeClass::Timestamptz
        | TypeClass::Uuid
        | TypeClass::Other => None,
    }
}
