//! From files to rules in force: compile, parse the filters, run the embedded tests.

use super::{Files, Language};
use crate::analysis::sql::{Predicates, analyze, check_mask};
use crate::analysis::{AnalyzerLimits, Catalog, SearchPath};
use crate::facts::Facts;
use crate::name::{Protocol, hex};
use crate::policy::{Case, CaseFailure, Diagnostic, Login, RuleSet, SourceFile, Span};
use crate::session::gate::ActiveRules;

/// Makes rules of files. The second value holds warnings.
///
/// # Errors
/// Every problem: of the files, of the filters' predicates, and each test that came out wrong.
pub fn compile(
    files: &Files,
    language: &Language,
    generation: u64,
) -> Result<(ActiveRules, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (set, warnings) =
        RuleSet::compile_for(&files.rules, files.identities.as_ref(), language.vocabulary())?;
    let predicates = predicates(&set)?;
    let failures = run_cases(&set, files, language)?;
    if !failures.is_empty() {
        return Err(failures);
    }
    let digest = hex(&files.digest);
    Ok((ActiveRules { set, predicates, digest, generation }, warnings))
}

/// Parses the filters of a rule set.
///
/// # Errors
/// Every predicate that cannot be used, with its place.
pub fn predicates(set: &RuleSet) -> Result<Predicates, Vec<Diagnostic>> {
    let filters = set.filters().map(|(rule, text, _)| (rule.clone(), text));
    Predicates::compile(filters).map_err(|problems| {
        let found = problems.into_iter().map(|(rule, offset, message)| {
            let filter = set.filters().find(|(filter, _, _)| **filter == rule);
            let at = filter.map_or_else(
                || Span { file: rule.0.clone(), line: 1, column: 1 },
                |(_, text, start)| place(start, text, offset),
            );
            Diagnostic::error(&at, format!("filter of rule `{rule}`: {message}"))
        });
        found.collect()
    })
}

/// What the rules ask of this catalog's columns that cannot be done: a mask on a type it does not
/// fit, a filter on a column that is not there.
pub fn impossible(set: &RuleSet, predicates: &Predicates, catalog: &Catalog) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for relation in catalog.relations().filter(|relation| !relation.system) {
        for (column, function, at) in set.masks_on(relation) {
            if let Err(why) = check_mask(catalog, &relation.path, column, function) {
                let message = format!("cannot mask `{}.{column}`: {why}", relation.path);
                found.push(Diagnostic::error(at, message));
            }
        }
        for (rule, text, start) in set.filters_on(relation) {
            let problems = predicates.check(rule, catalog, &relation.path).err();
            for (offset, message) in problems.into_iter().flatten() {
                found.push(Diagnostic::error(&place(start, text, offset), message));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The schemas a connection searches unless it says otherwise.
pub fn default_path() -> SearchPath {
    SearchPath::Known(vec!["pg_catalog".into(), "public".into()])
}

/// Runs the tests of the files; what came out wrong is a problem like any other.
fn run_cases(
    set: &RuleSet,
    files: &Files,
    language: &Language,
) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let cases = Case::read(&files.rules, CASE_TEXTS)?;
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let schema = files.schema.as_ref();
    // Checked once, so that a broken schema is reported once and not by every test.
    if let Some(schema) = schema {
        catalog(schema, "checked")?;
    }
    let limits = AnalyzerLimits::default();
    let path = default_path();
    let understand = |text: &str, login: &Login| -> Facts {
        if login.protocol == Protocol::REDIS {
            return language.command(text);
        }
        let catalog = schema.and_then(|schema| catalog(schema, &login.database).ok());
        analyze(text, catalog.as_ref(), &path, &limits).facts
    };
    let failures = Case::run(set, &cases, &understand);
    Ok(failures
        .into_iter()
        .map(|CaseFailure { name, span, message }| {
            Diagnostic::error(&span, format!("test `{name}` failed: {message}"))
        })
        .collect())
}

/// The catalog a schema file describes.
///
/// # Errors
/// The first statement that is not understood.
pub fn catalog(schema: &SourceFile, database: &str) -> Result<Catalog, Vec<Diagnostic>> {
    Catalog::from_ddl(database, &schema.text).map_err(|(line, message)| {
        let at = Span { file: schema.name.as_str().into(), line, column: 1 };
        vec![Diagnostic::error(&at, message)]
    })
}

/// The place of a byte of a text that begins at `start`. Folded YAML texts have fewer line breaks
/// than the file, so the column is exact for texts on one line only.
fn place(start: &Span, text: &str, offset: usize) -> Span {
    let head = text.get(..offset).unwrap_or(text);
    let (lines, last) =
        head.split('\n').fold((0u32, ""), |(lines, _), line| (lines.saturating_add(1), line));
    let skipped = lines.saturating_sub(1);
    let columns = u32::try_from(last.chars().count()).unwrap_or(u32::MAX);
    let base = if skipped == 0 { start.column } else { 1 };
    Span {
        file: start.file.clone(),
        line: start.line.saturating_add(skipped),
        column: base.saturating_add(columns),
    }
}

/// The keys a test's statement or command stands under, and what its session speaks then.
pub const CASE_TEXTS: &[(&str, Protocol)] =
    &[("sql", Protocol::POSTGRESQL), ("command", Protocol::REDIS)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_places() {
        let start = Span { file: "f".into(), line: 4, column: 10 };
        for (text, offset, expected) in
            [("abc", 0, "f:4:10"), ("äbc", 2, "f:4:11"), ("a\nbc", 3, "f:5:2"), ("a", 9, "f:4:11")]
        {
            assert_eq!(place(&start, text, offset).to_string(), expected, "{text} {offset}");
        }
    }
}
