//! `authentication:` of a datasource: who proves who they are in which way.
//!
//! The order of the list is kept: the first entry that fits a login decides. Settings of a method
//! stand beside `method:` in its entry, and a key that the method does not know is an error.

use std::net::IpAddr;

use ipnet::IpNet;

use super::source::{Spanned, one_or_more};
use crate::name::Glob;
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::yaml::{MapReader, Node, Problems};
use crate::session::auth::{Authentication, Entry as Checked, Method, Transport};

/// One entry as written.
#[derive(Debug)]
pub(super) struct Entry {
    at: Span,
    method: Option<Method>,
    users: Vec<Spanned<String>>,
    databases: Vec<Spanned<String>>,
    networks: Vec<Spanned<String>>,
    transports: Vec<Spanned<String>>,
}

/// Reads the list.
pub(super) fn read(node: &Node, problems: &mut Problems) -> Vec<Entry> {
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
    let methods = [("relay", Method::Relay), ("reject", Method::Reject)];
    let method = map.required("method", problems).and_then(|n| n.one_of(&methods, problems));
    let mut list = |key| map.optional(key).map(|n| one_or_more(n, problems)).unwrap_or_default();
    let (users, databases) = (list("users"), list("databases"));
    let (networks, transports) = (list("networks"), list("transport"));
    map.finish(problems);
    Some(Entry { at: node.span.clone(), method, users, databases, networks, transports })
}

/// Checks the list; absent, every login is relayed.
pub(super) fn check(written: Option<Vec<Entry>>, problems: &mut Problems) -> Authentication {
    let entries = written.unwrap_or_default();
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
    let entries = entries.into_iter().filter_map(|entry| checked(entry, problems)).collect();
    Authentication { entries }
}

impl Entry {
    fn fits_everything(&self) -> bool {
        let Self { at: _, method: _, users, databases, networks, transports } = self;
        let any = |names: &[Spanned<String>]| {
            names.is_empty() || names.iter().any(|name| name.value == "*")
        };
        any(users) && any(databases) && networks.is_empty() && transports.is_empty()
    }
}

fn checked(entry: Entry, problems: &mut Problems) -> Option<Checked> {
    let Entry { at: _, method, users, databases, networks, transports } = entry;
    let globs = |names: Vec<Spanned<String>>| {
        names.iter().map(|name| Glob::new(&name.value)).collect::<Vec<_>>()
    };
    Some(Checked {
        users: globs(users),
        databases: globs(databases),
        networks: networks.iter().filter_map(|written| network(written, problems)).collect(),
        transports: transports.iter().filter_map(|written| transport(written, problems)).collect(),
        method: method?,
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
