//! The complaints of the grammar's actions: those that do not say "at or near".

use crate::facts::SyntaxError;

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// The message; one `*` stands for what differs.
    message: &'static str,
    pub(super) code: &'static str,
    pub(super) detail: Option<&'static str>,
    pub(super) hint: Option<&'static str>,
    pub(super) anchor: Anchor,
}

/// Where a complaint points, told from the token with which the grammar had seen enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// Nowhere: servers name no place, or one that is not worked out.
    Nowhere,
    /// That token itself.
    Here,
    /// The last of these words at the token's level of brackets.
    Last(&'static [&'static str]),
    /// The token behind it.
    Behind(&'static [&'static str]),
    /// The first of these words behind the last EXISTS.
    FirstElement(&'static [&'static str]),
    /// The last of these words, in brackets or not.
    LastInside(&'static [&'static str]),
    /// The last number.
    Number,
    /// The last string.
    Text,
    /// The word the message quotes.
    Quoted,
    /// `NOT`, `NO` or `INITIALLY` before the token, else the token.
    Attribute,
    /// The start of the dotted name that ends here.
    Dotted,
    /// The start of the last name with a dot.
    LastDotted,
    /// The start of the name before the last of these words.
    NameBefore(&'static [&'static str]),
}

use Anchor::{
    Attribute, Behind, Dotted, FirstElement, Here, Last, LastDotted, LastInside, NameBefore,
    Nowhere, Number, Quoted, Text,
};

pub(super) fn find(message: &str) -> Option<Known> {
    KNOWN.iter().find(|known| matches(known.message, message)).copied()
}

/// The word a message quotes.
pub(super) fn quoted(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once('"')?;
    Some(rest.rsplit_once('"')?.0)
}

/// Servers of other releases word some complaints differently.
pub(super) fn in_words_of(release: u16, complaint: &mut SyntaxError) {
    if release > 16 && complaint.message == UNSAFE_ESCAPES {
        complaint.detail = Some(UNSAFE_ESCAPES_QUOTED);
    }
    if release < 18 && complaint.message == "constraints cannot be altered to be NOT VALID" {
        complaint.message = "FOREIGN KEY constraints cannot be marked NOT VALID".to_owned();
    }
    if release < 16 && complaint.message.starts_with("unrecognized partitioning strategy") {
        complaint.position = None;
    }
    if release < 16
        && let Some((kind, rest)) = complaint.message.split_once(" integer at or near ")
        && ["invalid hexadecimal", "invalid octal", "invalid binary"].contains(&kind)
    {
        complaint.message = format!("trailing junk after numeric literal at or near {rest}");
    }
}

fn matches(pattern: &str, message: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == message,
        Some((start, end)) => message.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)),
    }
}

const fn known(message: &'static str, code: &'static str, anchor: Anchor) -> Known {
    Known { message, code, detail: None, hint: None, anchor }
}

const fn hinted(
    message: &'static str,
    code: &'static str,
    anchor: Anchor,
    hint: &'static str,
) -> Known {
    Known { message, code, detail: None, hint: Some(hint), anchor }
}

const SYNTAX: &str = "42601";
const UNSUPPORTED: &str = "0A000";
const BAD_VALUE: &str = "22023";
const DUPLICATE: &str = "42710";
const RESERVED: &str = "42939";
const WINDOWING: &str = "42P20";

const FRAME_START: Anchor = Behind(&["rows", "range", "groups", "between"]);
const FRAME_END: Anchor = Behind(&["and"]);

const UNSAFE_ESCAPES: &str = "unsafe use of string constant with Unicode escapes";
const UNSAFE_ESCAPES_QUOTED: &str = "String constants with Unicode escapes cannot be used when \
     \"standard_conforming_strings\" is off.";

const KNOWN: &[Known] = &[
    hinted(
        "UNENCRYPTED PASSWORD is no longer supported",
        UNSUPPORTED,
        Last(&["unencrypted"]),
        "Remove UNENCRYPTED to store the password in encrypted form instead.",
    ),
    known("unrecognized role option \"*\"", SYNTAX, Here),
    known(
        "CREATE SCHEMA IF NOT EXISTS cannot include schema elements",
        UNSUPPORTED,
        FirstElement(&["create", "grant"]),
    ),
    known("current database cannot be changed", UNSUPPORTED, Text),
    known("time zone interval must be HOUR or HOUR TO MINUTE", SYNTAX, Nowhere),
    known("column number must be in range from 1 to *", BAD_VALUE, Behind(&["column", "alter"])),
    known("sequence option \"*\" not supported here", SYNTAX, Quoted),
    known(
        "modulus for hash partition provided more than once",
        DUPLICATE,
        LastInside(&["modulus"]),
    ),
    known(
        "remainder for hash partition provided more than once",
        DUPLICATE,
        LastInside(&["remainder"]),
    ),
    known("unrecognized hash partition bound specification \"*\"", SYNTAX, Quoted),
    known("modulus for hash partition must be specified", SYNTAX, Nowhere),
    known("remainder for hash partition must be specified", SYNTAX, Nowhere),
    known("unrecognized partitioning strategy \"*\"", BAD_VALUE, Quoted),
    known("STDIN/STDOUT not allowed with PROGRAM", SYNTAX, Nowhere),
    known("WHERE clause not allowed with COPY TO", SYNTAX, Last(&["where"])),
    known(
        "for a generated column, GENERATED ALWAYS must be specified",
        SYNTAX,
        Behind(&["generated"]),
    ),
    known("MATCH PARTIAL not yet implemented", UNSUPPORTED, Last(&["match"])),
    known(
        "a column list with * is only supported for ON DELETE actions",
        UNSUPPORTED,
        Last(&["on"]),
    ),
    known("CREATE EXTENSION ... FROM is no longer supported", UNSUPPORTED, Last(&["from"])),
    hinted(
        "unrecognized row security option \"*\"",
        SYNTAX,
        Here,
        "Only PERMISSIVE or RESTRICTIVE policies are supported currently.",
    ),
    known("CREATE OR REPLACE CONSTRAINT TRIGGER is not supported", UNSUPPORTED, Nowhere),
    known("constraint declared INITIALLY DEFERRED must be DEFERRABLE", SYNTAX, Attribute),
    known("conflicting constraint properties", SYNTAX, Attribute),
    known("CREATE ASSERTION is not yet implemented", UNSUPPORTED, Nowhere),
    known("aggregates cannot have output arguments", UNSUPPORTED, Nowhere),
    hinted(
        "missing argument",
        SYNTAX,
        Here,
        "Use NONE to denote the missing argument of a unary operator.",
    ),
    known("WITH CHECK OPTION not supported on recursive views", UNSUPPORTED, Last(&["with"])),
    hinted(
        "LIMIT #,# syntax is not supported",
        SYNTAX,
        Last(&["limit"]),
        "Use separate LIMIT and OFFSET clauses.",
    ),
    known("only one DEFAULT value is allowed", SYNTAX, Last(&["default"])),
    known("only one PATH value per column is allowed", SYNTAX, Last(&["path"])),
    known("conflicting or redundant NULL / NOT NULL declarations *", SYNTAX, Attribute),
    known("unrecognized column option \"*\"", SYNTAX, Quoted),
    known("option name \"*\" cannot be used in XMLTABLE", SYNTAX, Quoted),
    known("precision for type float must be at least 1 bit", BAD_VALUE, Number),
    known("precision for type float must be less than 54 bits", BAD_VALUE, Number),
    known("wrong number of parameters on * side of OVERLAPS expression", SYNTAX, Nowhere),
    known("UNIQUE predicate is not yet implemented", UNSUPPORTED, Last(&["unique"])),
    known("cannot use * with WITHIN GROUP", SYNTAX, Last(&["within"])),
    known("frame start cannot be UNBOUNDED FOLLOWING", WINDOWING, FRAME_START),
    known("frame starting from following row cannot end with current row", WINDOWING, FRAME_START),
    known("frame end cannot be UNBOUNDED PRECEDING", WINDOWING, FRAME_END),
    known("frame starting from current row cannot have preceding rows", WINDOWING, FRAME_END),
    known("frame starting from following row cannot have preceding rows", WINDOWING, FRAME_END),
    known("type modifier cannot have parameter name", SYNTAX, Nowhere),
    known("type modifier cannot have ORDER BY", SYNTAX, LastInside(&["order"])),
    known("role name \"*\" is reserved", RESERVED, Here),
    known("* cannot be used as a role name here", RESERVED, Here),
    known("WITH TIES cannot be specified without ORDER BY clause", SYNTAX, Nowhere),
    known(
        "an ordered-set aggregate with a VARIADIC direct argument must have one VARIADIC \
         aggregated argument of the same data type",
        UNSUPPORTED,
        Nowhere,
    ),
    known("multiple ORDER BY clauses not allowed", SYNTAX, Behind(&["by"])),
    known("multiple OFFSET clauses not allowed", SYNTAX, Behind(&["offset"])),
    known("multiple LIMIT clauses not allowed", SYNTAX, Behind(&["limit", "first", "next"])),
    known("multiple limit options not allowed", SYNTAX, Nowhere),
    known("* options cannot be used together", SYNTAX, Nowhere),
    known("multiple WITH clauses not allowed", SYNTAX, Last(&["with"])),
    known("OUT and INOUT arguments aren't allowed in TABLE functions", SYNTAX, Nowhere),
    known("improper qualified name (too many dotted names): *", SYNTAX, Dotted),
    known("multiple COLLATE clauses not allowed", SYNTAX, LastInside(&["collate"])),
    known("* constraints cannot be marked DEFERRABLE", UNSUPPORTED, Nowhere),
    known("* constraints cannot be marked NOT VALID", UNSUPPORTED, Nowhere),
    known("* constraints cannot be marked NO INHERIT", UNSUPPORTED, Nowhere),
    known("* constraints cannot be marked NOT ENFORCED", UNSUPPORTED, Nowhere),
    known("* constraints cannot be marked ENFORCED", UNSUPPORTED, Nowhere),
    known("invalid byte sequence for encoding *", "22021", Nowhere),
    known("constraints cannot be altered to be NOT VALID", UNSUPPORTED, Nowhere),
    Known {
        message: "invalid publication object list",
        code: SYNTAX,
        detail: Some(
            "One of TABLE or TABLES IN SCHEMA must be specified before a standalone table or \
             schema name.",
        ),
        hint: None,
        anchor: Behind(&["for", "add", "set", "drop"]),
    },
    known("invalid table name", SYNTAX, Last(&["current_schema"])),
    known("WHERE clause not allowed for schema", SYNTAX, NameBefore(&["where"])),
    known("column specification not allowed for schema", SYNTAX, NameBefore(&["("])),
    known("invalid schema name", SYNTAX, LastDotted),
    Known {
        message: UNSAFE_ESCAPES,
        code: UNSUPPORTED,
        detail: Some(
            "String constants with Unicode escapes cannot be used when \
             standard_conforming_strings is off.",
        ),
        hint: None,
        anchor: Here,
    },
    known("dropping an enum value is not implemented", UNSUPPORTED, Nowhere),
];
