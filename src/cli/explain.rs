//! `rules check` and `rules explain`: what [`super::rules`] does, with the analysis behind it.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;

use super::rules::{self, Knowledge};
use super::{Check, Explain, Outcome, Spoken, report};
use crate::analysis::sql::analyze;
use crate::analysis::{AnalyzerLimits, Catalog};
use crate::facts::{Facts, Relation};
use crate::name::Protocol;
use crate::policy::{Allowed, Credential, Decision, Login, RuleSet, SourceFile};
use crate::reload::{self, Files, Language};

/// `portcullis rules check`.
pub(super) fn check(command: &Check, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let Some(folder) = folder(&command.directory, command.schema.as_deref())? else {
        return Ok(Outcome::Problems);
    };
    let Some(world) = World::of(&folder) else { return Ok(Outcome::Problems) };
    let known = world.catalog("check");
    let relations: Vec<&Relation> =
        known.iter().flat_map(Catalog::relations).map(|relation| &**relation).collect();
    let found = rules::check(
        &folder,
        Knowledge {
            analyze: &|text, login| world.understand(text, login),
            language: &world.language,
            relations: &relations,
            predicates: &|set: &RuleSet| match reload::predicates(set) {
                Ok(predicates) => known
                    .iter()
                    .flat_map(|catalog| reload::impossible(set, &predicates, catalog))
                    .collect(),
                Err(problems) => problems,
            },
        },
    );
    writeln!(out, "{found}")?;
    Ok(if found.passed() { Outcome::Fine } else { Outcome::Problems })
}

/// `portcullis rules explain`.
pub(super) fn explain(command: Explain, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let Some(folder) = folder(&command.rules, command.schema.as_deref())? else {
        return Ok(Outcome::Problems);
    };
    let Some(world) = World::of(&folder) else { return Ok(Outcome::Problems) };
    let vocabulary = world.language.vocabulary();
    let compiled = RuleSet::compile_for(&folder.rules, folder.identities.as_ref(), vocabulary);
    let compiled = compiled.and_then(|(set, warnings)| {
        let predicates = reload::predicates(&set)?;
        Ok((set, predicates, warnings))
    });
    let (set, predicates, warnings) = match compiled {
        Ok(compiled) => compiled,
        Err(problems) => {
            report(&problems);
            return Ok(Outcome::Problems);
        }
    };
    report(&warnings);
    let Explain { user, database, application, address, datasource, default_deny, .. } = command;
    let protocol = match command.protocol {
        Spoken::Postgresql => Protocol::POSTGRESQL,
        Spoken::Redis => Protocol::REDIS,
    };
    let login = Login {
        datasource: datasource.into(),
        protocol,
        default_deny,
        database: database.unwrap_or_else(|| user.clone()),
        user,
        address,
        application,
        credential: Credential::default(),
    };
    let catalog = world.catalog(&login.database);
    let statement = command.statement.as_str();
    let understand = |text: &str, login: &Login| world.understand(text, login);
    let found = rules::explain(&set, login, statement, &understand);
    writeln!(out, "{found}")?;
    match &found.decision {
        Decision::Allow(Allowed { governances, .. }) if !governances.is_empty() => {
            let catalog = catalog.context("rules on relations need a schema: give `--schema`")?;
            let parsed = analyze(statement, Some(&catalog), &reload::default_path(), &world.limits);
            match parsed.rewrite(statement, &catalog, governances, &predicates) {
                Ok(Some(rewritten)) => writeln!(out, "sent:     {}", rewritten.text)?,
                Ok(None) => writeln!(out, "sent:     unchanged")?,
                Err(why) => {
                    writeln!(out, "refused:  {} ({})", why.message, why.code)?;
                    if let Some(hint) = why.hint {
                        writeln!(out, "  hint:   {hint}")?;
                    }
                }
            }
        }
        Decision::Allow(Allowed { values, .. }) if !values.is_empty() => {
            writeln!(out, "sent:     unchanged; values in the reply are masked")?;
        }
        Decision::Allow(Allowed { tenancy: Some(tenancy), .. }) => {
            writeln!(out, "sent:     with its names behind `{}`", tenancy.prefix)?;
        }
        Decision::Allow(_) => writeln!(out, "sent:     unchanged")?,
        Decision::Deny(_) => writeln!(out, "sent:     nothing")?,
    }
    Ok(Outcome::Fine)
}

/// What is known beside the rules.
struct World<'a> {
    schema: Option<&'a SourceFile>,
    limits: AnalyzerLimits,
    language: Language,
}

impl<'a> World<'a> {
    /// `None` when the schema is not understood; the problem is reported.
    fn of(folder: &'a Files) -> Option<Self> {
        let (schema, language) = (folder.schema.as_ref(), Language::without_configuration());
        let world = Self { schema, limits: AnalyzerLimits::default(), language };
        if let Some(schema) = world.schema
            && let Err(problems) = reload::catalog(schema, "check")
        {
            report(&problems);
            return None;
        }
        Some(world)
    }

    fn catalog(&self, database: &str) -> Option<Catalog> {
        self.schema.and_then(|schema| reload::catalog(schema, database).ok())
    }

    fn understand(&self, text: &str, login: &Login) -> Facts {
        if login.protocol == Protocol::REDIS {
            return self.language.command(text);
        }
        let catalog = self.catalog(&login.database);
        analyze(text, catalog.as_ref(), &reload::default_path(), &self.limits).facts
    }
}

/// Reads a folder, with another schema file if one is given. `None`: problems were reported.
fn folder(directory: &Path, schema: Option<&Path>) -> anyhow::Result<Option<Files>> {
    let mut files = match Files::read(directory) {
        Ok(files) => files,
        Err(problems) => {
            report(&problems);
            return Ok(None);
        }
    };
    if let Some(path) = schema {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("read schema {name}"))?;
        files.schema = Some(SourceFile { name, text });
    }
    Ok(Some(files))
}
