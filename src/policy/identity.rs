//! Who is asking: the login, and the roles and attributes `identities.yaml` adds to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::credential::{ApiKey, Claims, Credential};
use super::decision::Denial;
use super::diagnostic::{Diagnostic, Span};
use super::fits::ClassPatterns;
use super::pattern::Names;
use super::predicate::{LOGIN_VALUES, is_name};
use super::rule::{CountedBy, inside};
use super::source::{SourceFile, bounded, kept, network, one_or_many, shown_text, version};
use super::verifier::ScramVerifier;
use super::yaml::{Document, MapReader, Node, Problems};
use crate::name::{Glob, Protocol};
use crate::obligation::Tenancy;

mod access;
#[cfg(test)]
mod tests;

pub use access::NotAdmitted;
use access::{Access, Verifiers};

/// Who is asking, as the session knows it after login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Datasource (configuration name).
    pub datasource: Arc<str>,
    /// Which protocol its sessions speak.
    pub protocol: Protocol,
    /// `default: deny` in the datasource's configuration.
    pub default_deny: bool,
    /// Authenticated user.
    pub user: String,
    /// Database asked for.
    pub database: String,
    /// Client address, if the socket has one.
    pub address: Option<IpAddr>,
    /// Application name at login. The client chooses it: good for housekeeping, not for safety.
    pub application: String,
    /// What it proved itself with.
    pub credential: Credential,
}

/// A login with the roles and attributes the identities file gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The login itself.
    pub login: Login,
    /// Roles, sorted.
    pub roles: Vec<Arc<str>>,
    /// Attributes by name, e.g. `tenant`.
    pub attributes: BTreeMap<Arc<str>, Arc<str>>,
    /// The API key it came with is no longer among the identities' or was revoked: it may do
    /// nothing any more.
    pub withdrawn: bool,
}

/// The rules that concern one identity, computed once per session and rules generation.
#[derive(Clone, Debug)]
pub struct IdentityClass {
    /// SHA-256 (first 16 bytes) over everything a decision depends on for this identity: the rule
    /// set's digest, which rules concern it, the attribute values those rules use, defaults.
    /// Two identities with the same digest get the same decision for every text.
    pub digest: [u8; 16],
    /// Some rule concerns this identity, other than one that only opens doors
    /// ([`crate::facts::Verb::is_door`], [`crate::facts::CommandUse::door`]), its datasource's default is deny, or its credential was
    /// withdrawn.
    pub concerned: bool,
    /// Under a mask, a filter, a relation-level deny or an allow list: side doors (functions,
    /// views, statistics, session settings) are closed for it.
    pub governed: bool,
    /// The identity itself.
    pub identity: Identity,
    /// Indexes into the rule set of the rules that concern it, ascending.
    pub(crate) rules: Vec<usize>,
    /// Patterns of keys and channels that its decisions depend on.
    pub(crate) patterns: Arc<ClassPatterns>,
    /// Where the names of its keys and channels are at the server, or why that cannot be said.
    pub(crate) tenancy: Result<Option<Arc<Tenancy>>, Denial>,
}

impl IdentityClass {
    /// Whether neither it nor the other one is concerned, and the same doors are open to both.
    pub fn is_as_free_as(&self, other: &Self) -> bool {
        !self.concerned && !other.concerned && self.rules == other.rules
    }

    /// Where the names of its keys and channels are at the server; `None`: where the client says, or
    /// nowhere, for then every command that names any is refused.
    pub fn tenancy(&self) -> Option<&Arc<Tenancy>> {
        self.tenancy.as_ref().ok().and_then(Option::as_ref)
    }
}

/// The identities file, frozen.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    entries: Vec<Entry>,
    keys: BTreeMap<Arc<str>, ApiKey>,
    claims: Claims,
    verifiers: Verifiers,
}

#[derive(Debug)]
struct Entry {
    span: Span,
    user: Glob,
    databases: Names,
    applications: Names,
    networks: Vec<IpNet>,
    roles: Vec<Arc<str>>,
    attributes: BTreeMap<Arc<str>, Arc<str>>,
    keys: Vec<ApiKey>,
    access: Option<Access>,
}

// === impl Identity ===

impl Identity {
    /// The value `:identity.NAME` stands for.
    pub(crate) fn value(&self, name: &str) -> Option<Arc<str>> {
        match name {
            "user" => Some(self.login.user.as_str().into()),
            "database" => Some(self.login.database.as_str().into()),
            "application" => Some(self.login.application.as_str().into()),
            "address" => self.login.address.map(|ip| ip.to_canonical().to_string().into()),
            attribute => self.attributes.get(attribute).cloned(),
        }
    }

    /// Whom a limit counts this identity as. Those without the value share one budget.
    pub(crate) fn subject(&self, by: &CountedBy) -> Arc<str> {
        let value = match by {
            CountedBy::User => self.value("user"),
            CountedBy::Address => self.value("address"),
            CountedBy::Database => self.value("database"),
            CountedBy::Attribute(name) => self.value(name),
        };
        value.unwrap_or_else(|| "".into())
    }
}

// === impl Identities ===

impl Identities {
    /// Reads the identities file.
    pub(crate) fn read(file: &SourceFile, problems: &mut Problems) -> Self {
        let root = match Document::parse(&file.name, &file.text) {
            Ok(root) => root,
            Err(list) => {
                problems.extend(list);
                return Self::default();
            }
        };
        let Some(mut map) = MapReader::new(&root, problems) else { return Self::default() };
        version(&mut map, problems);
        let nodes = map.required("identities", problems).map(|node| bounded(node, problems));
        let claims = map.optional("claims").map(|node| Claims::read(node, problems));
        map.finish(problems);
        let mut entries: Vec<Entry> =
            nodes.unwrap_or_default().iter().filter_map(|node| entry(node, problems)).collect();
        warn_of_collisions(&entries, problems);
        let keys = keys_by_prefix(&mut entries, problems);
        let verifiers = verifiers(&mut entries, problems);
        Self { entries, keys, claims: claims.unwrap_or_default(), verifiers }
    }

    /// Whether every `login:` that speaks of this user lets it in from here, now.
    pub(crate) fn admit(&self, login: &Login, now_us: u64) -> Result<(), NotAdmitted> {
        let mut spoken_of = self.entries.iter().filter(|entry| entry.user.matches(&login.user));
        spoken_of.try_for_each(|entry| match &entry.access {
            Some(access) => access.admits(login.address, now_us),
            None => Ok(()),
        })
    }

    /// What the user's password is checked against.
    pub(crate) fn verifier(&self, user: &str) -> Option<&ScramVerifier> {
        self.verifiers.get(user)
    }

    /// Iterations and salt length of most verifiers.
    pub(crate) fn usual_verifier(&self) -> (u32, usize) {
        self.verifiers.usual()
    }

    /// Attaches roles and attributes: all entries that fit are merged. An attribute that two of
    /// them, or an entry and a token, give different values is left out, so that a filter that
    /// needs it refuses.
    pub(crate) fn identify(&self, login: Login) -> Identity {
        let mut roles = BTreeSet::new();
        let mut given = self.written_attributes(&login);
        for entry in self.entries.iter().filter(|entry| entry.fits(&login)) {
            roles.extend(entry.roles.iter().cloned());
        }
        let mut withdrawn = false;
        match &login.credential {
            Credential::Name => {}
            Credential::ApiKey(prefix) => match self.key_in_force(prefix, &login.user) {
                Some(key) => roles.extend(key.roles().iter().cloned()),
                None => withdrawn = true,
            },
            Credential::Token(asserted) => {
                roles.extend(asserted.roles.intersection(&self.claims.roles).cloned());
                for (name, value) in self.claims.declared(asserted) {
                    given.entry(Arc::clone(name)).or_default().insert(Arc::clone(value));
                }
            }
        }
        let single = |(name, values): (Arc<str>, BTreeSet<Arc<str>>)| match values.len() {
            1 => values.into_iter().next().map(|value| (name, value)),
            _ => None,
        };
        Identity {
            login,
            roles: roles.into_iter().collect(),
            attributes: given.into_iter().filter_map(single).collect(),
            withdrawn,
        }
    }

    fn written_attributes(&self, login: &Login) -> BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
        let mut given: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| entry.fits(login)) {
            for (name, value) in &entry.attributes {
                given.entry(Arc::clone(name)).or_default().insert(Arc::clone(value));
            }
        }
        given
    }

    /// The API key with this prefix.
    pub(crate) fn key(&self, prefix: &str) -> Option<&ApiKey> {
        self.keys.get(prefix)
    }

    /// All API keys, by prefix.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &ApiKey> {
        self.keys.values()
    }

    /// An attribute that the login's token gives another value than the entries do.
    pub(crate) fn contradicted(&self, login: &Login) -> Option<Arc<str>> {
        let Credential::Token(asserted) = &login.credential else { return None };
        let written = self.written_attributes(login);
        let differs = |name: &Arc<str>, value: &Arc<str>| {
            written.get(name).is_some_and(|values| values.iter().any(|other| other != value))
        };
        let mut declared = self.claims.declared(asserted);
        declared.find(|(name, value)| differs(name, value)).map(|(name, _)| Arc::clone(name))
    }

    /// Every role some entry, key or token can give.
    pub(crate) fn roles(&self) -> BTreeSet<&str> {
        let written = self.entries.iter().flat_map(|entry| &entry.roles);
        let of_keys = self.keys.values().flat_map(ApiKey::roles);
        written.chain(of_keys).chain(&self.claims.roles).map(|role| &**role).collect()
    }

    /// Every attribute some entry or token can give.
    pub(crate) fn attributes(&self) -> BTreeSet<&str> {
        let written = self.entries.iter().flat_map(|entry| entry.attributes.keys());
        written.chain(&self.claims.attributes).map(|name| &**name).collect()
    }

    /// The key of this prefix, if the user has it still.
    pub(crate) fn key_in_force(&self, prefix: &str, user: &str) -> Option<&ApiKey> {
        self.keys.get(prefix).filter(|key| !key.revoked && *key.user == *user)
    }

    /// Roles that tokens may assert.
    pub(crate) fn claimed_roles(&self) -> &BTreeSet<Arc<str>> {
        &self.claims.roles
    }

    /// Attributes that tokens may assert.
    pub(crate) fn claimed_attributes(&self) -> &BTreeSet<Arc<str>> {
        &self.claims.attributes
    }
}

impl Entry {
    fn fits(&self, login: &Login) -> bool {
        let Self { user, databases, applications, networks, .. } = self;
        user.matches(&login.user)
            && databases.admits(&login.database)
            && applications.admits(&login.application)
            && (networks.is_empty() || inside(networks, login.address, false))
    }

    fn unconditional(&self) -> bool {
        self.databases.any.is_empty()
            && self.applications.any.is_empty()
            && self.networks.is_empty()
    }
}

fn entry(node: &Node, problems: &mut Problems) -> Option<Entry> {
    let mut map = MapReader::new(node, problems)?;
    let user = map.required("user", problems).and_then(|node| node.string(problems));
    let databases = globs(map.optional("database"), problems);
    let applications = globs(map.optional("applications"), problems);
    let networks = map.optional("networks").map(|node| one_or_many(node, problems));
    let networks = networks.unwrap_or_default().into_iter();
    let networks: Vec<IpNet> =
        networks.filter_map(|(text, span)| kept(network(text, span), span, problems)).collect();
    let roles = map.optional("roles").map(|node| one_or_many(node, problems)).unwrap_or_default();
    let attributes = map.optional("attributes").map(|node| attributes(node, problems));
    let keys = map.entry("keys");
    let user = user.map(Glob::new);
    let access = map.optional("login").zip(user.as_ref());
    let access = access.and_then(|(node, user)| {
        let narrowed = !databases.any.is_empty() || !applications.any.is_empty();
        if narrowed || !networks.is_empty() {
            problems.push(
                Diagnostic::error(&node.span, "`login` speaks of the user wherever it logs in")
                    .with_help("put it into an entry without database, networks, applications"),
            );
        }
        Access::read(node, user, problems)
    });
    map.unsupported(&["team", "not_after", "ticket"], problems);
    map.finish(problems);
    let mut entry = Entry {
        span: node.span.clone(),
        access,
        user: user?,
        databases,
        applications,
        networks,
        roles: roles.iter().map(|(text, _)| (*text).into()).collect(),
        attributes: attributes.unwrap_or_default(),
        keys: Vec::new(),
    };
    if let Some(keys) = keys {
        if !entry.user.is_literal() || !entry.unconditional() {
            problems.push(
                Diagnostic::error(&keys.key_span, "keys belong to one user, whatever its login")
                    .with_help(
                        "an entry of its own with `user` written out; a key is narrowed by its \
                         own `allowed_ips` and `scopes`",
                    ),
            );
        }
        entry.keys = ApiKey::read_all(&keys.value, entry.user.as_str(), problems);
    }
    Some(entry)
}

/// Takes the keys out of the entries; a prefix is used once, or a key could not be told by it.
fn keys_by_prefix(entries: &mut [Entry], problems: &mut Problems) -> BTreeMap<Arc<str>, ApiKey> {
    let mut keys = BTreeMap::new();
    for entry in entries {
        for key in std::mem::take(&mut entry.keys) {
            let prefix = Arc::clone(&key.prefix);
            if keys.insert(Arc::clone(&prefix), key).is_some() {
                problems.error(&entry.span, format!("a second key has the prefix `{prefix}`"));
            }
        }
    }
    keys
}

/// Takes the verifiers out of the entries; one user has one.
fn verifiers(entries: &mut [Entry], problems: &mut Problems) -> Verifiers {
    let mut by_user = HashMap::new();
    for entry in entries {
        let Some(verifier) = entry.access.as_mut().and_then(|access| access.scram.take()) else {
            continue;
        };
        if by_user.insert(entry.user.as_str().into(), verifier).is_some() {
            let message = format!("`{}` has another verifier already", entry.user.as_str());
            problems.error(&entry.span, message);
        }
    }
    Verifiers::new(by_user)
}

fn globs(node: Option<&Node>, problems: &mut Problems) -> Names {
    let texts = node.map(|node| one_or_many(node, problems)).unwrap_or_default();
    let any = texts.into_iter().map(|(text, _)| Glob::new(text)).collect();
    Names { any, except: Vec::new() }
}

fn attributes(node: &Node, problems: &mut Problems) -> BTreeMap<Arc<str>, Arc<str>> {
    let mut found = BTreeMap::new();
    for entry in node.entries(problems).unwrap_or_default() {
        let key = &*entry.key;
        if LOGIN_VALUES.contains(&key) {
            let message = format!("`{key}` is a value of the login and cannot be an attribute");
            problems.error(&entry.key_span, message);
        } else if !is_name(key) {
            problems.push(
                Diagnostic::error(&entry.key_span, format!("`{key}` is not an attribute name"))
                    .with_help("letters, digits and `_`, beginning with a letter"),
            );
        } else if let Some(value) = shown_text(&entry.value, problems) {
            found.insert(key.into(), value.into());
        }
    }
    found
}

/// Two unconditional entries for one user that contradict each other take the attribute away.
fn warn_of_collisions(entries: &[Entry], problems: &mut Problems) {
    let mut given: BTreeMap<(&str, &str), &Entry> = BTreeMap::new();
    for entry in entries.iter().filter(|e| e.user.is_literal() && e.unconditional()) {
        for (name, value) in &entry.attributes {
            let first = *given.entry((entry.user.as_str(), name)).or_insert(entry);
            if first.attributes.get(name) != Some(value) {
                let user = entry.user.as_str();
                let message = format!("`{user}` is given two values for `{name}` and gets neither");
                problems.push(
                    Diagnostic::warning(&entry.span, message)
                        .with_help(format!("the other entry is at {}", first.span)),
                );
            }
        }
    }
}
