//! Credentials of ours for the server: `upstream_login:` and `auth_query:`.
//!
//! A password is in a file or in the environment. There is no key for one written into the
//! configuration, which is read by more people and kept in more places than a password should be.

use std::path::Path;

use super::check::warn_if_world_readable;
use super::source::{Spanned, one_or_more, string};
use crate::auth::accounts::{Accounts, Line, PasswordSource};
use crate::auth::query::{AuthQuery, DEFAULT_TEXT};
use crate::name::Glob;
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::yaml::{MapReader, Node, Problems};
use crate::session::auth::Secret;

/// `upstream_login:` as written.
#[derive(Debug)]
pub(super) struct WrittenAccounts {
    pub(super) at: Span,
    lines: Vec<WrittenLine>,
}

#[derive(Debug)]
struct WrittenLine {
    users: Vec<Spanned<String>>,
    databases: Vec<Spanned<String>>,
    user: Option<Spanned<String>>,
    password: WrittenPassword,
}

/// `auth_query:` as written.
#[derive(Debug)]
pub(super) struct WrittenQuery {
    pub(super) at: Span,
    user: Option<Spanned<String>>,
    password: WrittenPassword,
    database: Option<Spanned<String>>,
    query: Option<Spanned<String>>,
}

#[derive(Debug)]
pub(super) struct WrittenPassword {
    file: Option<Spanned<String>>,
    env: Option<Spanned<String>>,
}

impl WrittenAccounts {
    /// Where lines name databases.
    pub(super) fn databases(&self) -> impl Iterator<Item = &Span> {
        self.lines.iter().filter_map(|line| line.databases.first()).map(|first| &first.at)
    }
}

pub(super) fn read_accounts(node: &Node, problems: &mut Problems) -> WrittenAccounts {
    let items = node.items(problems).unwrap_or_default();
    if items.is_empty() {
        problems.push(
            Diagnostic::error(&node.span, "the list is empty, so there is no account")
                .with_help("write `{user: …, password_file: …}`, or leave `upstream_login` out"),
        );
    }
    let lines = items.iter().filter_map(|item| {
        let mut map = MapReader::new(item, problems)?;
        let mut list = |key| map.optional(key).map(|n| one_or_more(n, problems));
        let users = list("users").unwrap_or_default();
        let databases = list("databases").unwrap_or_default();
        let user = map.optional("user").and_then(|n| string(n, problems));
        let password = read_password(&mut map, problems);
        map.finish(problems);
        Some(WrittenLine { users, databases, user, password })
    });
    WrittenAccounts { at: node.span.clone(), lines: lines.collect() }
}

pub(super) fn read_query(node: &Node, problems: &mut Problems) -> Option<WrittenQuery> {
    let mut map = MapReader::new(node, problems)?;
    let user = map.required("user", problems).and_then(|n| string(n, problems));
    let password = read_password(&mut map, problems);
    let database = map.optional("database").and_then(|n| string(n, problems));
    let query = map.optional("query").and_then(|n| string(n, problems));
    map.finish(problems);
    Some(WrittenQuery { at: node.span.clone(), user, password, database, query })
}

pub(super) fn read_password(map: &mut MapReader<'_>, problems: &mut Problems) -> WrittenPassword {
    if let Some(entry) = map.entry("password") {
        problems.push(
            Diagnostic::error(&entry.key_span, "a password is not written into this file")
                .with_help("`password_file: FILE` or `password_env: VARIABLE`"),
        );
    }
    let file = map.optional("password_file").and_then(|n| string(n, problems));
    let env = map.optional("password_env").and_then(|n| string(n, problems));
    WrittenPassword { file, env }
}

pub(super) fn check_accounts(
    written: WrittenAccounts,
    base: &Path,
    problems: &mut Problems,
) -> Accounts {
    let globs = |names: Vec<Spanned<String>>| {
        names.iter().map(|name| Glob::new(&name.value)).collect::<Vec<_>>()
    };
    let lines = written.lines.into_iter().filter_map(|line| {
        let WrittenLine { users, databases, user, password } = line;
        Some(Line {
            users: globs(users),
            databases: globs(databases),
            account: user.map(|user| user.value),
            password: check_password(password, base, problems)?,
        })
    });
    Accounts { lines: lines.collect() }
}

pub(super) fn check_query(
    written: WrittenQuery,
    base: &Path,
    problems: &mut Problems,
) -> Option<AuthQuery> {
    let WrittenQuery { at: _, user, password, database, query } = written;
    if let Some(query) = &query
        && !query.value.contains("$1")
    {
        problems.push(
            Diagnostic::error(&query.at, "the query does not say which user it is about")
                .with_help("write `$1` where the user's name belongs"),
        );
    }
    Some(AuthQuery {
        user: user?.value,
        password: check_password(password, base, problems)?,
        database: database.map_or_else(|| "postgres".to_owned(), |database| database.value),
        text: query.map_or_else(|| DEFAULT_TEXT.to_owned(), |query| query.value),
    })
}

pub(super) fn check_password(
    written: WrittenPassword,
    base: &Path,
    problems: &mut Problems,
) -> Option<PasswordSource> {
    match (written.file, written.env) {
        (Some(_), Some(env)) => {
            problems.error(&env.at, "give `password_file` or `password_env`, not both");
            None
        }
        (Some(file), None) => {
            let path = base.join(&file.value);
            if let Err(error) = std::fs::File::open(&path) {
                let message = format!("password file `{}`: {error}", path.display());
                problems.push(
                    Diagnostic::error(&file.at, message)
                        .with_help("it must be readable by this user and hold the password"),
                );
            }
            warn_if_world_readable(&path, &file.at, problems);
            Some(PasswordSource::File(path))
        }
        (None, Some(env)) => match std::env::var(&env.value) {
            Ok(password) => Some(PasswordSource::Given(Secret::new(password.into_bytes()))),
            Err(_) => {
                let message = format!("environment variable `{}` is not set", env.value);
                problems.error(&env.at, message);
                None
            }
        },
        (None, None) => Some(PasswordSource::None),
    }
}
