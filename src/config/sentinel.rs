//! `upstream: {sentinels: …, master: …}`: the servers that know which Redis is the primary.

use super::accounts::{WrittenPassword, check_password, read_password};
use super::source::{Spanned, one_or_more, string};
use crate::auth::accounts::PasswordSource;
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::yaml::{MapReader, Node, Problems, Value};

/// What Sentinels are asked.
#[derive(Clone, Debug)]
pub struct SentinelGroup {
    /// The name they know the primary by.
    pub master: String,
    /// Their ACL user; `None` with a password means `default`.
    pub user: Option<String>,
    /// Its password.
    pub password: PasswordSource,
}

/// The group as written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) at: Span,
    master: Option<Spanned<String>>,
    user: Option<Spanned<String>>,
    password: WrittenPassword,
}

/// `upstream`, either servers or Sentinels; the addresses are of one or the other.
pub(super) fn read_upstream(
    node: &Node,
    problems: &mut Problems,
) -> (Vec<Spanned<String>>, Option<Written>) {
    match &node.value {
        Value::Map(_) => {}
        Value::List(_) | Value::Scalar { .. } | Value::Null => {
            return (one_or_more(node, problems), None);
        }
    }
    let Some(mut map) = MapReader::new(node, problems) else { return (Vec::new(), None) };
    let sentinels = map.required("sentinels", problems).map(|n| one_or_more(n, problems));
    let master = map.required("master", problems).and_then(|n| string(n, problems));
    let user = map.optional("user").and_then(|n| string(n, problems));
    let password = read_password(&mut map, problems);
    map.finish(problems);
    let written = Written { at: node.span.clone(), master, user, password };
    (sentinels.unwrap_or_default(), Some(written))
}

/// Checks the group; `None` when something is missing (a problem says so).
pub(super) fn check(
    written: Written,
    base: &std::path::Path,
    problems: &mut Problems,
) -> Option<SentinelGroup> {
    let Written { at, master, user, password } = written;
    let master = master?;
    // It is sent as one word, and shown in the log.
    if !master.value.bytes().all(|byte| byte.is_ascii_graphic()) {
        problems.error(&master.at, "a primary's name is one word of ASCII characters");
    }
    let password = check_password(password, base, problems)?;
    if user.is_some() && !password.is_some() {
        problems.push(
            Diagnostic::error(&at, "a user of the Sentinels has a password")
                .with_help("give `password_file` or `password_env`, or take `user` out"),
        );
    }
    Some(SentinelGroup { master: master.value, user: user.map(|user| user.value), password })
}
