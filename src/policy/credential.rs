//! What a login proved itself with, as far as a decision depends on it: API keys as the identities
//! file stores them, and what a token may assert. Only data: nothing here sees a key or a token.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::diagnostic::{Diagnostic, Span};
use super::predicate::{LOGIN_VALUES, is_name};
use super::rule::inside;
use super::source::{bounded, kept, network, one_or_many, rate_of, shown_text};
use super::yaml::{MapReader, Node, Problems};
use super::{Counted, Limit, instant};
use crate::name::{Glob, RuleId};

/// What a login proved itself with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credential {
    /// A password, a certificate, a socket: it says who it is and nothing more.
    #[default]
    Name,
    /// The API key with this prefix.
    ApiKey(Arc<str>),
    /// A token that asserts this.
    Token(Arc<Asserted>),
}

/// What a token says of its holder. Only what the identities file lists under `claims` counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asserted {
    /// Roles.
    pub roles: BTreeSet<Arc<str>>,
    /// Attributes by name.
    pub attributes: BTreeMap<Arc<str>, Arc<str>>,
}

/// An API key as stored: everything but the key.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public part: how it is found, and what logs and records name.
    pub prefix: Arc<str>,
    /// Whose it is.
    pub user: Arc<str>,
    /// SHA-256 of the whole key. Not slow to compute: the key holds 256 random bits.
    pub sha256: [u8; 32],
    /// Operator's words.
    pub description: Option<Box<str>>,
    /// It was taken back.
    pub revoked: bool,
    /// It ends here, microseconds since the Unix epoch.
    not_after_us: Option<u64>,
    /// Where it may be used from; empty is everywhere.
    allowed_ips: Vec<IpNet>,
    /// How many logins in how many microseconds.
    rate: Option<(u64, u64)>,
    scopes: Scopes,
}

/// What a key is restricted to, and what it brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Scopes {
    /// Empty is every one.
    datasources: Vec<Glob>,
    /// Empty is every one.
    databases: Vec<Glob>,
    roles: Vec<Arc<str>>,
}

/// What tokens may assert, as the identities file allows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) attributes: BTreeSet<Arc<str>>,
    pub(crate) roles: BTreeSet<Arc<str>>,
}

// === impl ApiKey ===

impl ApiKey {
    /// Whether it has ended at this time (microseconds since the Unix epoch).
    pub fn expired(&self, wall_us: u64) -> bool {
        self.not_after_us.is_some_and(|end| wall_us >= end)
    }

    /// Whether it may be used from here. A client without an address is inside no network.
    pub fn admits_address(&self, address: Option<IpAddr>) -> bool {
        self.allowed_ips.is_empty() || inside(&self.allowed_ips, address, false)
    }

    /// Whether its scopes cover this database.
    pub fn admits_database(&self, datasource: &str, database: &str) -> bool {
        let within = |globs: &[Glob], name: &str| {
            globs.is_empty() || globs.iter().any(|glob| glob.matches(name))
        };
        within(&self.scopes.datasources, datasource) && within(&self.scopes.databases, database)
    }

    /// The limit on its logins. No rule can have this id: rules' ids hold no colon.
    pub fn limit(&self) -> Option<Limit> {
        let (count, per_us) = self.rate?;
        let rule = RuleId(format!("key:{}", self.prefix).into());
        Some(Limit {
            rule,
            of: Counted::Uses,
            count,
            per_us,
            subject: Arc::clone(&self.user),
            enforced: true,
        })
    }

    /// Roles its holder has beyond those of the user.
    pub(crate) fn roles(&self) -> &[Arc<str>] {
        &self.scopes.roles
    }

    /// Reads the `keys` of one entry of the identities file.
    pub(crate) fn read_all(node: &Node, user: &str, problems: &mut Problems) -> Vec<Self> {
        let nodes = bounded(node, problems);
        nodes.iter().filter_map(|node| key(node, user, problems)).collect()
    }
}

impl fmt::Debug for ApiKey {
    /// Leaves the digest out: it opens nothing, and nothing needs it in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("prefix", &self.prefix)
            .field("user", &self.user)
            .field("revoked", &self.revoked)
            .finish_non_exhaustive()
    }
}

fn key(node: &Node, user: &str, problems: &mut Problems) -> Option<ApiKey> {
    let mut map = MapReader::new(node, problems)?;
    let prefix = map.required("prefix", problems).and_then(|node| prefix(node, problems));
    let sha256 = map.required("sha256", problems).and_then(|node| sha256(node, problems));
    let description = map.optional("description").and_then(|node| shown_text(node, problems));
    let revoked = map.optional("revoked").and_then(|node| node.bool(problems)).unwrap_or(false);
    let not_after_us = map.optional("not_after").and_then(|node| not_after(node, problems));
    let allowed_ips = map.optional("allowed_ips").map(|node| networks(node, problems));
    let rate = map.optional("rate").and_then(|node| {
        node.string(problems).and_then(|text| kept(rate_of(text), &node.span, problems))
    });
    let scopes = map.optional("scopes").map(|node| scopes(node, problems));
    map.finish(problems);
    Some(ApiKey {
        prefix: prefix?,
        user: user.into(),
        sha256: sha256?,
        description,
        revoked,
        not_after_us,
        allowed_ips: allowed_ips.unwrap_or_default(),
        rate,
        scopes: scopes.unwrap_or_default(),
    })
}

fn prefix(node: &Node, problems: &mut Problems) -> Option<Arc<str>> {
    let text = node.string(problems)?;
    if is_prefix(text) {
        return Some(text.into());
    }
    problems.push(
        Diagnostic::error(&node.span, "a key's prefix is 6 to 32 lower-case letters and digits")
            .with_help("the part between the first two `_` of the key"),
    );
    None
}

/// Whether a text can be the name of an attribute.
pub fn is_attribute_name(text: &str) -> bool {
    is_name(text) && !LOGIN_VALUES.contains(&text)
}

/// Whether a text can be a key's prefix.
pub fn is_prefix(text: &str) -> bool {
    (6..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn sha256(node: &Node, problems: &mut Problems) -> Option<[u8; 32]> {
    let text = node.string(problems)?;
    let digits = text.bytes().map(|byte| char::from(byte).to_digit(16));
    let digits: Option<Vec<u32>> = digits.collect();
    let mut digest = [0; 32];
    if let Some(digits) = digits.filter(|digits| digits.len() == 64) {
        for (to, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let value = pair.iter().fold(0, |value, digit| value * 16 + digit);
            *to = u8::try_from(value).unwrap_or_default();
        }
        return Some(digest);
    }
    // Not shown: it may be the key itself.
    problems.push(
        Diagnostic::error(&node.span, "expected the SHA-256 of the key in 64 hexadecimal digits")
            .with_help("make key and entry with `portcullis auth new-key --user NAME`"),
    );
    None
}

fn not_after(node: &Node, problems: &mut Problems) -> Option<u64> {
    let text = node.string(problems)?;
    let time = instant::instant_us(text);
    if time.is_none() {
        problems.push(
            Diagnostic::error(&node.span, format!("`{text}` is not a date or a time")).with_help(
                "`2027-01-31` (good until that day ends, UTC) or `2027-01-31T18:00:00Z`",
            ),
        );
    }
    time
}

fn networks(node: &Node, problems: &mut Problems) -> Vec<IpNet> {
    let texts = one_or_many(node, problems).into_iter();
    texts.filter_map(|(text, span)| kept(network(text, span), span, problems)).collect()
}

fn scopes(node: &Node, problems: &mut Problems) -> Scopes {
    let mut found = Scopes::default();
    for (text, span) in one_or_many(node, problems) {
        match text.split_once(':') {
            Some((_, "")) => problems.error(span, format!("scope `{text}` names nothing")),
            Some(("datasource", name)) => found.datasources.push(Glob::new(name)),
            Some(("database", name)) => found.databases.push(Glob::new(name)),
            Some(("role", name)) => found.roles.push(name.into()),
            Some(_) | None => unknown_scope(text, span, problems),
        }
    }
    found
}

/// A scope that nothing enforces would look like a restriction.
fn unknown_scope(text: &str, span: &Span, problems: &mut Problems) {
    let help = match text {
        "read-only" | "readonly" | "read_only" | "read" => {
            "what a key may do is a rule's matter: give it a role (`role:reader`) and write an \
             allow rule with `statements: [read]` for that role"
        }
        _ => "one of: datasource:NAME, database:NAME, role:NAME",
    };
    problems.push(Diagnostic::error(span, format!("unknown scope `{text}`")).with_help(help));
}

// === impl Claims ===

impl Claims {
    /// What of the asserted attributes counts.
    pub(crate) fn declared<'a>(
        &self,
        asserted: &'a Asserted,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<str>)> {
        asserted.attributes.iter().filter(|(name, _)| self.attributes.contains(*name))
    }

    /// Reads the `claims` of the identities file.
    pub(crate) fn read(node: &Node, problems: &mut Problems) -> Self {
        let mut found = Self::default();
        let Some(mut map) = MapReader::new(node, problems) else { return found };
        let attributes = map.optional("attributes").map(|node| one_or_many(node, problems));
        for (name, span) in attributes.unwrap_or_default() {
            if LOGIN_VALUES.contains(&name) {
                let message = format!("`{name}` is a value of the login and cannot be asserted");
                problems.error(span, message);
            } else if !is_name(name) {
                problems.error(span, format!("`{name}` is not an attribute name"));
            } else {
                found.attributes.insert(name.into());
            }
        }
        let roles = map.optional("roles").map(|node| one_or_many(node, problems));
        found.roles.extend(roles.unwrap_or_default().iter().map(|(role, _)| Arc::from(*role)));
        map.finish(problems);
        found
    }
}

#[cfg(test)]
mod tests;
