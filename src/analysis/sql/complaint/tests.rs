//! What a PostgreSQL 15 server says of the same texts; `tests/it` compares with a live one.

use crate::analysis::{AnalyzerLimits, Dialect, Strings};
use crate::facts::{SyntaxError, Why};

use super::super::parse;

fn complaint(text: &str, strings: Strings) -> SyntaxError {
    let dialect = Dialect { strings, release: 15 };
    let limits = AnalyzerLimits { dialect, ..AnalyzerLimits::default() };
    match parse::parse(text, &limits) {
        Err(Why::Syntax(error)) => *error,
        other => panic!("{text}: {other:?}"),
    }
}

/// The byte a text is refused at is marked with `^` before it.
fn check(marked: &str, code: &str, message: &str) {
    let text = marked.replacen('^', "", 1);
    let position = marked
        .split_once('^')
        .map(|(before, _)| u32::try_from(before.chars().count()).unwrap() + 1);
    let error = complaint(&text, Strings::Standard);
    assert_eq!((error.code, error.message.as_str()), (code, message), "{text}");
    assert_eq!(error.position, position, "{text}");
}

#[test]
fn the_place_is_the_one_at_which_the_grammar_stops() {
    let near = |what: &str| format!("syntax error at or near \"{what}\"");
    check("^SELEC 1", "42601", &near("SELEC"));
    check("SELECT (1^", "42601", "syntax error at end of input");
    check("SELECT 'a b c', b c ^d FROM d", "42601", &near("d"));
    check("SELECT 'ä', ';' ; SELECT 6 + ^;", "42601", &near(";"));
    check("CREATE TABLE t (a int DEFAULT (100, ^));", "42601", &near(")"));
    check("SELECT '' || ^'x", "42601", "unterminated quoted string at or near \"'x\"");
}

#[test]
fn complaints_without_quoted_words_have_their_code_and_place() {
    check("COPY x TO stdout ^WHERE a IN (SELECT 1 WHERE true)", "42601", COPY_WHERE);
    check("SELECT sum(a) OVER (ROWS ^UNBOUNDED FOLLOWING)", "42P20", FRAME);
    check("CREATE ROLE ^public", "42939", "role name \"public\" is reserved");
    // Servers count a doubled quote once.
    check("SELECT U&'ä'^'\\06'", "42601", "invalid Unicode escape");
    check("SELECT E'\\u0061^\\u61'", "22025", "invalid Unicode escape");
}

#[test]
fn hints_and_details_belong_to_their_message() {
    let error = complaint("DROP OPERATOR === (int4)", Strings::Standard);
    let hint = "Use NONE to denote the missing argument of a unary operator.";
    assert_eq!((error.hint, error.detail), (Some(hint), None));
    let error = complaint("SELECT U&'a'", Strings::Escaped);
    assert_eq!(error.code, "0A000");
    assert!(error.detail.unwrap().ends_with("when standard_conforming_strings is off."));
}

#[test]
fn an_old_server_is_quoted_in_its_own_words() {
    let text = "ALTER TABLE t ALTER CONSTRAINT c NOT VALID";
    let message = complaint(text, Strings::Standard).message;
    assert_eq!(message, "FOREIGN KEY constraints cannot be marked NOT VALID");
    let newest = parse::parse(text, &AnalyzerLimits::default());
    assert!(format!("{newest:?}").contains("constraints cannot be altered to be NOT VALID"));
}

#[test]
fn backslashes_escape_while_the_setting_is_off() {
    let dialect = Dialect { strings: Strings::Escaped, release: 15 };
    let limits = AnalyzerLimits { dialect, ..AnalyzerLimits::default() };
    let text = r"SELECT 'it\'s' AS a, '\\'";
    assert!(parse::parse(text, &limits).is_ok());
    assert!(parse::parse(text, &AnalyzerLimits::default()).is_err());
}

#[test]
fn a_reading_does_not_stay_behind_in_the_scanner() {
    assert_eq!(complaint("SELECT U&'a'", Strings::Escaped).position, Some(8));
    // Under the other reading this would be one unterminated string.
    assert_eq!(parse::scan(r"SELECT '\', 2").map(|tokens| tokens.len()), Some(4));
    assert!(parse::scan(r"SELECT '', 2").is_some());
}

#[test]
fn a_hostile_text_is_not_searched_for_ever() {
    let text = |commas: &str| format!("SELECT ({}, ,)", commas.repeat(20_000));
    let error = complaint(&text("1, "), Strings::Standard);
    assert_eq!(error.position, Some(60_009), "short enough");
    let error = complaint(&text("100, "), Strings::Standard);
    assert_eq!(error.position, None, "every comma might be the one");
}

const COPY_WHERE: &str = "WHERE clause not allowed with COPY TO";
const FRAME: &str = "frame start cannot be UNBOUNDED FOLLOWING";

#[test]
fn a_text_full_of_warnings_is_read_to_its_end() {
    let text = "CREATE GLOBAL TEMP TABLE t (a int);".repeat(3_000);
    assert_eq!(parse::parse(&text, &AnalyzerLimits::default()).map(|all| all.len()), Ok(3_000));
}
