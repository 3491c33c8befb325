//! `authentication:` of a datasource: who proves who they are in which way.
//!
//! The order of the list is kept: the first entry that fits a login decides. Settings of a method
//! stand beside `method:` in its entry, and a key that the method does not know is an error.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use super::accounts::{WrittenAccounts, WrittenQuery, check_accounts, check_query};
use super::source::{Spanned, TlsMode, one_or_more, string};
use super::tokens::{self, Tokens};
use crate::auth::Logins;
use crate::auth::password::Issuer;
use crate::name::Glob;
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::yaml::{MapReader, Node, Problems};
use crate::session::auth::{
    Authentication, ChannelBinding, Entry as Checked, MapLine, Method, NameMap, PasswordKind,
    Scram, StoredIn, Transport,
};

/// What a datasource says of logins, as written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) entries: Option<Vec<Entry>>,
    pub(super) accounts: Option<WrittenAccounts>,
    pub(super) query: Option<WrittenQuery>,
    pub(super) decoy: Option<Spanned<String>>,
}

impl Written {
    /// Where the accounts at the server are written.
    pub(super) fn accounts_at(&self) -> Option<&Span> {
        self.accounts.as_ref().map(|accounts| &accounts.at)
    }
}

/// What the connection of a client can prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    /// Nothing: there is no TLS.
    Plain,
    /// Whom the client speaks to.
    Tls,
    /// And who the client is: it is asked for a certificate.
    Certificates,
}

impl Leg {
    pub(super) fn of(tls: Option<&super::source::Tls>) -> Self {
        match tls {
            None => Self::Plain,
            Some(tls) if tls.mode == TlsMode::Off => Self::Plain,
            Some(tls) if tls.client_ca.is_some() => Self::Certificates,
            Some(_) => Self::Tls,
        }
    }
}

/// One entry as written.
#[derive(Debug)]
pub(super) struct Entry {
    at: Span,
    method: Option<Method>,
    /// What it says of tokens, if that is its method.
    tokens: Option<Tokens>,
    users: Vec<Spanned<String>>,
    databases: Vec<Spanned<String>>,
    networks: Vec<Spanned<String>>,
    transports: Vec<Spanned<String>>,
    needs_certificate: bool,
}

/// Reads what a datasource says of logins.
pub(super) fn read_all(map: &mut MapReader<'_>, problems: &mut Problems) -> Written {
    let accounts = map.optional("upstream_login");
    Written {
        entries: map.optional("authentication").map(|n| read(n, problems)),
        accounts: accounts.map(|n| super::accounts::read_accounts(n, problems)),
        query: map.optional("auth_query").and_then(|n| super::accounts::read_query(n, problems)),
        decoy: map.optional("decoy_secret_file").and_then(|n| string(n, problems)),
    }
}

fn read(node: &Node, problems: &mut Problems) -> Vec<Entry> {
    let items = node.items(problems).unwrap_or_default();
    if items.is_empty() {
        problems.push(
            Diagnostic::error(&node.span, "the list is empty, so nobody could log in")
                .with_help("leave `authentication` out to let the server authenticate everybody"),
        );
    }
    items.iter().filter_map(|item| entry(item, problems)).collect()
}

fn entry(node: &Node, problems: &mut Problems) -> Option<Entry> {
    let mut map = MapReader::new(node, problems)?;
    let words = [
        ("relay", Word::Relay),
        ("scram-sha-256", Word::Scram),
        ("password", Word::Password(PasswordKind::Stored)),
        ("certificate", Word::Certificate),
        ("peer", Word::Peer),
        ("api-key", Word::Password(PasswordKind::ApiKey)),
        ("jwt", Word::Password(PasswordKind::Jwt)),
        ("reject", Word::Reject),
    ];
    let word = map.required("method", problems).and_then(|n| n.one_of(&words, problems));
    let mut list = |key| map.optional(key).map(|n| one_or_more(n, problems)).unwrap_or_default();
    let (users, databases) = (list("users"), list("databases"));
    let (networks, transports) = (list("networks"), list("transport"));
    let needs = map.optional("client_certificate");
    let needs = needs.and_then(|n| n.one_of(&[("required", ())], problems));
    let method = word.and_then(|word| method(word, &mut map, problems));
    let tokens = (method == Some(Method::Password(PasswordKind::Jwt)))
        .then(|| tokens::read(&mut map, problems));
    map.finish(problems);
    let at = node.span.clone();
    let needs_certificate = needs.is_some();
    Some(Entry { at, method, tokens, users, databases, networks, transports, needs_certificate })
}

#[derive(Clone, Copy)]
enum Word {
    Relay,
    Scram,
    Certificate,
    Peer,
    Password(PasswordKind),
    Reject,
}

/// Reads the settings that belong to the method.
fn method(word: Word, map: &mut MapReader<'_>, problems: &mut Problems) -> Option<Method> {
    match word {
        Word::Relay => Some(Method::Relay),
        Word::Reject => Some(Method::Reject),
        Word::Password(kind) => Some(Method::Password(kind)),
        Word::Certificate => Some(Method::Certificate(name_map(map, CERTIFICATE_KINDS, problems)?)),
        Word::Peer => Some(Method::Peer(name_map(map, PEER_KINDS, problems)?)),
        Word::Scram => {
            let bindings = [
                ("disable", ChannelBinding::Disable),
                ("prefer", ChannelBinding::Prefer),
                ("require", ChannelBinding::Require),
            ];
            let binding = match map.optional("channel_binding") {
                Some(n) => n.one_of(&bindings, problems)?,
                None => ChannelBinding::default(),
            };
            let places = [("identities", StoredIn::Identities), ("auth_query", StoredIn::Server)];
            let stored = match map.optional("verifiers") {
                Some(n) => n.one_of(&places, problems)?,
                None => StoredIn::Identities,
            };
            Some(Method::Scram(Scram { binding, stored }))
        }
    }
}

const CERTIFICATE_KINDS: &[&str] = &["cn:", "dns:", "email:", "uri:"];
const PEER_KINDS: &[&str] = &["name:", "uid:"];

fn name_map(map: &mut MapReader<'_>, kinds: &[&str], problems: &mut Problems) -> Option<NameMap> {
    let Some(node) = map.optional("map") else { return Some(NameMap::default()) };
    let items = node.items(problems)?;
    if items.is_empty() {
        problems.error(&node.span, "the map is empty, so nobody could log in");
    }
    let lines = items.iter().filter_map(|item| {
        let mut map = MapReader::new(item, problems)?;
        let name = map.required("name", problems).and_then(|n| string(n, problems));
        let users = map.required("users", problems).map(|n| one_or_more(n, problems));
        map.finish(problems);
        let (name, users) = (name?, users?);
        if !kinds.iter().any(|kind| name.value.starts_with(kind)) {
            let message = format!("`{}` does not say what kind of name it is", name.value);
            problems.push(
                Diagnostic::error(&name.at, message)
                    .with_help(format!("begin it with one of {}", kinds.join(" "))),
            );
        }
        let users = users.iter().map(|user| Glob::new(&user.value)).collect();
        Some(MapLine { name: Glob::new(&name.value), users })
    });
    Some(NameMap { lines: lines.collect() })
}

/// Checks what a datasource says of logins; with nothing, every login is relayed.
pub(super) fn check(
    written: Written,
    base: &Path,
    leg: Leg,
    problems: &mut Problems,
) -> Option<(Authentication, Logins)> {
    let Written { entries, accounts, query, decoy } = written;
    let mut entries = entries.unwrap_or_default();
    reachable(&entries, problems);
    possible(&entries, leg, problems);
    serves_a_purpose(&entries, accounts.as_ref(), query.as_ref(), problems);
    let decoy = decoy_secret(decoy, base, problems);
    let accounts = accounts.map(|w| check_accounts(w, base, problems)).unwrap_or_default();
    let query = query.and_then(|written| check_query(written, base, problems));
    let issuers = entries.iter_mut().map(|entry| entry.issuer(base, problems)).collect();
    let entries = entries.into_iter().filter_map(|entry| checked(entry, problems)).collect();
    // Last, so that the problems of everything else are told as well.
    let decoy = decoy?;
    let logins = Logins { accounts, query, issuers, decoy, ..Logins::default() };
    Some((Authentication { entries, decoy, iterations_max: 0 }, logins))
}

/// Refuses what only PostgreSQL's logins have.
pub(super) fn refuse_foreign(written: &Written, problems: &mut Problems) {
    let Written { entries, accounts, query, decoy } = written;
    let mut refuse = |at: &Span, message: &str, help: &str| {
        problems.push(Diagnostic::error(at, message).with_help(help));
    };
    for entry in entries.iter().flatten() {
        if matches!(entry.method, Some(Method::Scram(_))) {
            let help = "use `password`, which is held against the same verifier, over TLS";
            refuse(&entry.at, "Redis clients send their password: they have no SCRAM", help);
        }
        if let Some(database) = entry.databases.first() {
            refuse(&database.at, NO_DATABASE, "take `databases` out");
        }
    }
    for at in accounts.iter().flat_map(WrittenAccounts::databases) {
        refuse(at, NO_DATABASE, "take `databases` out");
    }
    if let Some(query) = query {
        let help = "keep verifiers in identities.yaml";
        refuse(&query.at, "a Redis server stores no verifiers that could be asked for", help);
    }
    if let Some(decoy) = decoy {
        let help = "take `decoy_secret_file` out";
        refuse(&decoy.at, "Redis clients are shown no salts, so none are made up", help);
    }
}

const NO_DATABASE: &str = "a Redis login names no database";

fn reachable(entries: &[Entry], problems: &mut Problems) {
    let catch_all = entries.iter().position(Entry::fits_everything);
    if let Some(place) = catch_all
        && let Some(unreachable) = entries.get(place + 1)
    {
        let message = "this entry is never reached: the one before it fits every login";
        problems.push(
            Diagnostic::error(&unreachable.at, message)
                .with_help("the first entry that fits decides; put the narrow ones first"),
        );
    }
}

/// Entries that could let nobody in.
fn possible(entries: &[Entry], leg: Leg, problems: &mut Problems) {
    for entry in entries {
        let needs = match &entry.method {
            _ if entry.needs_certificate => Leg::Certificates,
            Some(Method::Certificate(_)) => Leg::Certificates,
            Some(Method::Scram(scram)) if scram.binding == ChannelBinding::Require => Leg::Tls,
            Some(_) | None => Leg::Plain,
        };
        if needs == Leg::Certificates && leg == Leg::Tls {
            problems.push(
                Diagnostic::error(&entry.at, "no client is asked for a certificate")
                    .with_help("give `tls` the authorities that sign them: `client_ca: FILE`"),
            );
        }
        if needs != Leg::Plain && leg == Leg::Plain {
            problems.push(
                Diagnostic::error(&entry.at, "this entry needs TLS, and there is none")
                    .with_help("give the datasource `tls: {mode: required, …}`"),
            );
        }
    }
}

/// Settings that nothing uses, and entries that lack them.
fn serves_a_purpose(
    entries: &[Entry],
    accounts: Option<&WrittenAccounts>,
    query: Option<&WrittenQuery>,
    problems: &mut Problems,
) {
    let asks_server = |entry: &&Entry| matches!(&entry.method, Some(Method::Scram(scram)) if scram.stored == StoredIn::Server);
    match (entries.iter().find(asks_server), query) {
        (Some(entry), None) => problems.push(
            Diagnostic::error(&entry.at, "`verifiers: auth_query` needs `auth_query`")
                .with_help("`auth_query: {user: …, password_file: …}` beside `authentication`"),
        ),
        (None, Some(query)) => problems.push(
            Diagnostic::error(&query.at, "no entry of `authentication` uses `auth_query`")
                .with_help("`{method: scram-sha-256, verifiers: auth_query}`"),
        ),
        (Some(_), Some(_)) | (None, None) => {}
    }
    let ends_here = |entry: &&Entry| match &entry.method {
        Some(Method::Relay | Method::Reject) | None => false,
        Some(Method::Scram(_) | Method::Certificate(_) | Method::Peer(_) | Method::Password(_)) => {
            true
        }
    };
    if let Some(accounts) = accounts
        && !entries.iter().any(|entry| ends_here(&entry))
    {
        let message = "no entry of `authentication` needs `upstream_login`: logins are relayed";
        problems.error(&accounts.at, message);
    }
    let needs_account =
        |entry: &&Entry| ends_here(entry) && !matches!(&entry.method, Some(Method::Scram(_)));
    if let Some(entry) = entries.iter().find(needs_account)
        && accounts.is_none()
    {
        problems.push(
            Diagnostic::error(&entry.at, "the proxy has no account for those who log in like this")
                .with_help("`upstream_login: [{user: …, password_file: …}]`"),
        );
    }
}

impl Entry {
    /// Whose tokens it takes.
    fn issuer(&mut self, base: &Path, problems: &mut Problems) -> Option<Arc<Issuer>> {
        let written = |user: &Spanned<String>| !user.value.contains(['*', '?']);
        let users_written = !self.users.is_empty() && self.users.iter().all(written);
        tokens::check(self.tokens.take()?, users_written, base, problems)
    }

    fn fits_everything(&self) -> bool {
        let Self { users, databases, networks, transports, .. } = self;
        let any = |names: &[Spanned<String>]| {
            names.is_empty() || names.iter().any(|name| name.value == "*")
        };
        any(users) && any(databases) && networks.is_empty() && transports.is_empty()
    }
}

fn checked(entry: Entry, problems: &mut Problems) -> Option<Checked> {
    let Entry {
        at: _,
        method,
        tokens: _,
        users,
        databases,
        networks,
        transports,
        needs_certificate,
    } = entry;
    let globs = |names: Vec<Spanned<String>>| {
        names.iter().map(|name| Glob::new(&name.value)).collect::<Vec<_>>()
    };
    Some(Checked {
        users: globs(users),
        databases: globs(databases),
        networks: networks.iter().filter_map(|written| network(written, problems)).collect(),
        transports: transports.iter().filter_map(|written| transport(written, problems)).collect(),
        method: method?,
        needs_certificate,
    })
}

fn network(written: &Spanned<String>, problems: &mut Problems) -> Option<IpNet> {
    let text = written.value.as_str();
    let parsed = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    if parsed.is_none() {
        problems.push(
            Diagnostic::error(&written.at, format!("`{text}` is no network"))
                .with_help("write `10.0.0.0/8`, or one address"),
        );
    }
    parsed
}

fn transport(written: &Spanned<String>, problems: &mut Problems) -> Option<Transport> {
    let known = match written.value.as_str() {
        "local" => Some(Transport::Local),
        "plain" => Some(Transport::Plain),
        "tls" => Some(Transport::Tls),
        _ => None,
    };
    if known.is_none() {
        problems.push(
            Diagnostic::error(&written.at, format!("unknown value `{}`", written.value))
                .with_help("one of `local` (a Unix socket), `plain`, `tls`"),
        );
    }
    known
}

/// What made-up salts come from: a file, so that they stay the same over restarts and are the same
/// on every machine, or a random value of this process.
fn decoy_secret(
    written: Option<Spanned<String>>,
    base: &Path,
    problems: &mut Problems,
) -> Option<[u8; 32]> {
    let Some(written) = written else {
        let drawn = crate::auth::random();
        if drawn.is_err() {
            let at = Span { file: "decoy_secret_file".into(), line: 1, column: 1 };
            problems.error(&at, "the system's random source failed");
        }
        return drawn.ok();
    };
    let path = base.join(&written.value);
    super::check::warn_if_world_readable(&path, &written.at, problems);
    match std::fs::read(&path) {
        Ok(bytes) if bytes.len() >= DECOY_BYTES_MIN => Some(Sha256::digest(&bytes).into()),
        Ok(bytes) => {
            let message = format!("`{}` holds {} bytes only", path.display(), bytes.len());
            problems.push(
                Diagnostic::error(&written.at, message)
                    .with_help("`head -c 32 /dev/urandom > FILE`"),
            );
            None
        }
        Err(error) => {
            problems.error(&written.at, format!("`{}`: {error}", path.display()));
            None
        }
    }
}

/// Fewer bytes could be guessed.
const DECOY_BYTES_MIN: usize = 16;
