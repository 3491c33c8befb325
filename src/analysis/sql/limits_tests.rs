//! Hostile depth and length: a clean refusal or an answer, never the end of the process.

use super::*;
use crate::facts::Certainty;

fn check(name: &str, text: &str) {
    let parsed = analyze(text, None, &SearchPath::Uncertain, &AnalyzerLimits::default());
    match &parsed.facts.certainty {
        Certainty::Known => {}
        Certainty::Unknown(Why::TooComplex | Why::TooLong) => {}
        Certainty::Unknown(other) => {
            let other = format!("{other:?}");
            panic!("{name}: {}", other.chars().take(200).collect::<String>())
        }
    }
    drop(normalize(text));
}

#[test]
fn hostile_nesting_is_answered_or_refused() {
    // Below and above what runs on the caller's stack, and beyond what the grammar takes.
    for n in [5, 11, 19, 23, 39, 90, 500, 1_400, 5_000, 100_000] {
        let repeat = |unit: &str| unit.repeat(n);
        check("parentheses", &format!("SELECT {}1{}", repeat("("), repeat(")")));
        check("sum", &format!("SELECT 1{}", repeat("+1")));
        check("unary", &format!("SELECT {}1", repeat("- ")));
        check("not", &format!("SELECT {}true", repeat("NOT ")));
        check("casts", &format!("SELECT 1{}", repeat("::int")));
        check("array", &format!("SELECT {}1{}", repeat("ARRAY["), repeat("]")));
        check("union", &format!("SELECT 1{}", repeat(" UNION ALL SELECT 1")));
        check("or", &format!("SELECT a{}", repeat(" OR a")));
        check("concat", &format!("SELECT a{}", repeat(" || a")));
        check("joins", &format!("SELECT 1 FROM a{}", repeat(" JOIN a ON true")));
        let case = format!("SELECT {}1{}", repeat("CASE WHEN true THEN "), repeat(" END"));
        check("case", &case);
        check("sub-selects", &format!("{}SELECT 1{}", repeat("SELECT ("), repeat(")")));
        let from = format!("{}SELECT 1{}", repeat("SELECT * FROM ("), repeat(") x"));
        check("from", &from);
        check("functions", &format!("SELECT {}1{}", repeat("abs("), repeat(")")));
        let with = format!("{}SELECT 1{}", repeat("WITH a AS ("), repeat(") SELECT 1"));
        check("with", &with);
    }
}

#[test]
fn nested_governed_relations_are_answered_or_refused() {
    for n in [5, 11, 19, 23, 39, 90, 400, 5_000] {
        let inner = "SELECT email FROM customers";
        let selects = format!("{}{inner}{}", "SELECT (".repeat(n), ")".repeat(n));
        fuzz_rewrite(selects.as_bytes());
        let union = format!("{inner}{}", format!(" UNION ALL {inner}").repeat(n.min(400)));
        fuzz_rewrite(union.as_bytes());
        let sum = format!("{inner} WHERE 1 = 1{} AND notes IS NULL", "+ 1".repeat(n));
        fuzz_rewrite(sum.as_bytes());
    }
}

#[test]
fn long_texts_are_refused_before_they_are_parsed() {
    let limits =
        AnalyzerLimits { statement_bytes_max: 100, tokens_max: 20, ..AnalyzerLimits::default() };
    let why = |text: &str| analyze(text, None, &SearchPath::Uncertain, &limits).facts.certainty;
    assert_eq!(why(&format!("SELECT '{}'", "x".repeat(100))), Certainty::Unknown(Why::TooLong));
    assert_eq!(why(&format!("SELECT {}1", "1,".repeat(30))), Certainty::Unknown(Why::TooComplex));
    assert_eq!(why("SELECT 1\0"), Certainty::Unknown(Why::NotUtf8));
}
