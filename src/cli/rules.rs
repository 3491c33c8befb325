//! `portcullis rules …` without its command line: reading a folder, checking it, explaining.
//!
//! What a statement means and which relations exist is brought by the caller ([`Knowledge`]), so
//! that the same functions serve the command line, the reload and the tests.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::facts::{Facts, Relation};
use crate::policy::{
    Case, CaseFailure, Diagnostic, Explanation, Login, RuleSet, Severity, SourceFile,
};

#[cfg(test)]
mod tests;

/// The key a test's statement stands under in rule files.
pub const STATEMENT_KEY: &str = "sql";
/// The identities file of a rules folder.
pub const IDENTITIES_FILE: &str = "identities.yaml";
/// The file of a rules folder that tells which relations exist when no database can be asked.
pub const SCHEMA_FILE: &str = "schema.sql";
/// Longest file read from a rules folder, in bytes; the reader of rule files has its own limit.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Most rule files in a folder.
const FILES_MAX: usize = 1_000;

/// A rules folder as found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Rule files, sorted by name.
    pub files: Vec<SourceFile>,
    /// `identities.yaml`.
    pub identities: Option<SourceFile>,
    /// `schema.sql`.
    pub schema: Option<SourceFile>,
}

/// What is known beside the rules.
#[derive(Clone, Copy)]
pub struct Knowledge<'a> {
    /// Understands a statement as the connection of this login would.
    pub analyze: &'a dyn Fn(&str, &Login) -> Facts,
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

/// Reads a rules folder: `*.yaml` and `*.yml` by name, the identities file apart. Sub-folders and
/// hidden files are left out.
///
/// # Errors
/// The folder or a file cannot be read, or there is no rule file.
pub fn read_folder(folder: &Path) -> Result<Folder> {
    let listing =
        std::fs::read_dir(folder).with_context(|| format!("read folder {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in listing {
        paths.push(entry.with_context(|| format!("read folder {}", folder.display()))?.path());
    }
    paths.sort();
    let mut found = Folder::default();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if name == IDENTITIES_FILE {
            found.identities = Some(read_file(&path)?);
        } else if name == SCHEMA_FILE {
            found.schema = Some(read_file(&path)?);
        } else if matches!(extension, Some("yaml" | "yml")) && !name.starts_with('.') {
            found.files.push(read_file(&path)?);
        }
        if found.files.len() > FILES_MAX {
            bail!("{}: more than {FILES_MAX} rule files", folder.display());
        }
    }
    if found.files.is_empty() {
        bail!("{}: no rule file (*.yaml) found", folder.display());
    }
    Ok(found)
}

fn read_file(path: &Path) -> Result<SourceFile> {
    let length = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
    if length > FILE_BYTES_MAX {
        bail!("{}: longer than {FILE_BYTES_MAX} bytes", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(SourceFile { name: path.display().to_string(), text })
}

/// Checks a folder: compiles, compares with what exists, runs the tests. Every problem is
/// reported; tests run only when the rules compile.
pub fn check(folder: &Folder, knowledge: Knowledge<'_>) -> Report {
    let mut report = Report { files: folder.files.len(), ..Report::default() };
    let cases = Case::read(&folder.files, STATEMENT_KEY);
    let compiled = RuleSet::compile(&folder.files, folder.identities.as_ref());
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
