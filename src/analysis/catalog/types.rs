//! Column types, as far as masks and comparisons look at them.

use std::sync::Arc;

use crate::analysis::sql::quote_ident;

/// A column's type; a domain is seen as the type below it, as the server's results show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::analysis) struct ColumnType {
    /// How to write it in a cast whatever the search path: `pg_catalog."varchar"(20)`.
    pub(in crate::analysis) sql: Arc<str>,
    /// What kind of value it holds.
    pub(in crate::analysis) class: TypeClass,
}

/// Types that masks and comparisons tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::analysis) enum TypeClass {
    Text,
    Varchar,
    Bpchar,
    /// The case-insensitive text of the extension of that name.
    Citext,
    Int2,
    Int4,
    Int8,
    Numeric,
    Float4,
    Float8,
    Bool,
    Date,
    Timestamp,
    Timestamptz,
    Uuid,
    /// Anything else: only replaced whole.
    Other,
}

impl ColumnType {
    /// The type of this name; `formatted` is what `format_type` says, for its modifiers.
    pub(super) fn named(schema: &str, name: &str, formatted: &str) -> Self {
        let class = if schema == "pg_catalog" { TypeClass::of(name) } else { TypeClass::Other };
        // Elsewhere modifiers may be anything; a mask replaces such values whole.
        let modifiers = if matches!(
            class,
            TypeClass::Varchar
                | TypeClass::Bpchar
                | TypeClass::Numeric
                | TypeClass::Timestamp
                | TypeClass::Timestamptz
        ) {
            formatted
                .find('(')
                .and_then(|from| formatted.get(from..=formatted.find(')')?))
                .unwrap_or("")
        } else {
            ""
        };
        let class =
            if schema != "pg_catalog" && name == "citext" { TypeClass::Citext } else { class };
        let sql = format!("{}.{}{modifiers}", quote_ident(schema), quote_ident(name));
        Self { sql: sql.into(), class }
    }
}

impl TypeClass {
    /// The class of a type of `pg_catalog`.
    pub(in crate::analysis) fn of(name: &str) -> Self {
        match name {
            "text" => Self::Text,
            "varchar" => Self::Varchar,
            "bpchar" => Self::Bpchar,
            "int2" => Self::Int2,
            "int4" => Self::Int4,
            "int8" => Self::Int8,
            "numeric" => Self::Numeric,
            "float4" => Self::Float4,
            "float8" => Self::Float8,
            "bool" => Self::Bool,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            "timestamptz" => Self::Timestamptz,
            "uuid" => Self::Uuid,
            _ => Self::Other,
        }
    }

    /// Values of characters.
    pub(in crate::analysis) fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Varchar | Self::Bpchar | Self::Citext)
    }

    /// Whether comparing two such values with `=`, `<` and their like tells nothing but the
    /// result: the server marks these operators leakproof.
    pub(in crate::analysis) fn is_leakproof(self) -> bool {
        match self {
            Self::Text
            | Self::Varchar
            | Self::Bpchar
            | Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Bool
            | Self::Date
            | Self::Timestamp
            | Self::Timestamptz
            | Self::Uuid => true,
            Self::Citext | Self::Numeric | Self::Float4 | Self::Float8 | Self::Other => false,
        }
    }

    /// Whole numbers, which compare with each other.
    pub(in crate::analysis) fn is_integer(self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8)
    }
}

/// Types of the system without parts of other types, which the grammar leaves without a schema.
pub(in crate::analysis) fn is_plain_type(name: &str) -> bool {
    const TYPES: &[&str] = &[
        "bool",
        "box",
        "bpchar",
        "bytea",
        "cidr",
        "circle",
        "date",
        "daterange",
        "float4",
        "float8",
        "inet",
        "int2",
        "int4",
        "int4range",
        "int8",
        "int8range",
        "interval",
        "json",
        "jsonb",
        "jsonpath",
        "line",
        "lseg",
        "macaddr",
        "macaddr8",
        "money",
        "name",
        "numeric",
        "numrange",
        "oid",
        "path",
        "pg_lsn",
        "point",
        "polygon",
        "regclass",
        "text",
        "time",
        "timestamp",
        "timestamptz",
        "timetz",
        "tsquery",
        "tsrange",
        "tstzrange",
        "tsvector",
        "uuid",
        "varchar",
        "xml",
    ];
    TYPES.contains(&name)
}
