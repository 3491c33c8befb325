//! `portcullis rules …` without its command line: checking a folder, explaining.
//!
//! What a statement means and which relations exist is brought by the caller ([`Knowledge`]), so
//! that the same functions serve the command line, the reload and the tests.

use std::fmt;

use crate::facts::{Facts, Relation};
use crate::policy::{Case, CaseFailure, Diagnostic, Explanation, Login, RuleSet, Severity};
use crate::reload::{CASE_TEXTS, Files, Language};

#[cfg(test)]
mod tests;

/// What is known beside the rules.
#[derive(Clone, Copy)]
pub struct Knowledge<'a> {
    /// Understands a statement as the connection of this login would.
    pub analyze: &'a dyn Fn(&str, &Login) -> Facts,
    /// What rules may speak of.
    pub language: &'a Language,
    /// Relations that exist; empty when nothing is known of them.
    pub relations: &'a [&'a Relation],
    /// Parses the filters' predicates and reports those that cannot be enforced.
    pub predicates: &'a dyn Fn(&RuleSet) -> Vec<Diagnostic>,
}

impl fmt::Debug for Knowledge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knowledge")
            .field("relations", &self.relations.len())
            .finish_non_exhaustive()
    }
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// The rules, when they compiled.
    pub rules: Option<RuleSet>,
    /// How many rule files were read.
    pub files: usize,
    /// How many tests ran.
    pub cases: usize,
    /// Problems and warnings, by place.
    pub diagnostics: Vec<Diagnostic>,
    /// Tests that failed.
    pub failures: Vec<CaseFailure>,
}

/// Checks a folder: compiles, compares with what exists, runs the tests. Every problem is
/// reported; tests run only when the rules compile.
pub fn check(folder: &Files, knowledge: Knowledge<'_>) -> Report {
    let mut report = Report { files: folder.rules.len(), ..Report::default() };
    let cases = Case::read(&folder.rules, CASE_TEXTS);
    let vocabulary = knowledge.language.vocabulary();
    let compiled = RuleSet::compile_for(&folder.rules, folder.identities.as_ref(), vocabulary);
    let rules = match compiled {
        Ok((rules, warnings)) => {
            report.diagnostics.extend(warnings);
            report.diagnostics.extend((knowledge.predicates)(&rules));
            report.diagnostics.extend(rules.check_against(knowledge.relations));
            Some(rules)
        }
        Err(problems) => {
            report.diagnostics.extend(problems);
            None
        }
    };
    match (cases, &rules) {
        (Ok(cases), Some(rules)) => {
            report.cases = cases.len();
            report.failures = Case::run(rules, &cases, knowledge.analyze);
        }
        (Err(problems), _) => report.diagnostics.extend(problems),
        (Ok(_), None) => {}
    }
    report.diagnostics.sort();
    report.diagnostics.dedup();
    report.rules = rules;
    report
}

/// Explains what these rules make of a statement of this login.
pub fn explain(
    rules: &RuleSet,
    login: Login,
    statement: &str,
    analyze: &dyn Fn(&str, &Login) -> Facts,
) -> Explanation {
    let facts = analyze(statement, &login);
    let class = rules.classify(rules.identify(login));
    rules.explain(&class, &facts)
}

impl Report {
    /// Whether the rules may go into force.
    pub fn passed(&self) -> bool {
        self.rules.is_some() && self.failures.is_empty() && self.errors() == 0
    }

    /// How many of the problems are errors.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.diagnostics {
            writeln!(f, "{problem}")?;
        }
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        let (errors, warnings) = (self.errors(), self.diagnostics.len() - self.errors());
        let rules = self.rules.as_ref().map_or(0, RuleSet::len);
        let Self { files, cases, failures, .. } = self;
        let verdict = if self.passed() { "ok" } else { "not accepted" };
        write!(
            f,
            "{verdict}: {files} files, {rules} rules, {cases} tests, {failed} failed, \
             {errors} errors, {warnings} warnings",
            failed = failures.len(),
        )
    }
}
