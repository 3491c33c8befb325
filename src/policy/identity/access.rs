//! `login:` of an identity: whether a login is let in at all, and what proves that it is the user.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::Glob;
use crate::policy::diagnostic::Diagnostic;
use crate::policy::instant::instant_us;
use crate::policy::rule::inside;
use crate::policy::source::{kept, network, one_or_many};
use crate::policy::verifier::ScramVerifier;
use crate::policy::yaml::{MapReader, Node, Problems};

/// Why a login is not let in although its proof may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The identity is revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// The client is outside of its networks.
    Network,
}

impl NotAdmitted {
    /// For the audit trail.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Revoked => "the identity is revoked",
            Self::Expired => "the identity's not_after has passed",
            Self::Network => "the address is outside of the identity's networks",
        }
    }
}

/// One `login:`.
#[derive(Debug, Default)]
pub(super) struct Access {
    networks: Vec<IpNet>,
    not_after_us: Option<u64>,
    revoked: bool,
    pub(super) scram: Option<ScramVerifier>,
}

impl Access {
    /// Whether a login from here is let in now. A client without an address is in no network.
    pub(super) fn admits(&self, address: Option<IpAddr>, now_us: u64) -> Result<(), NotAdmitted> {
        let Self { networks, not_after_us, revoked, scram: _ } = self;
        if *revoked {
            return Err(NotAdmitted::Revoked);
        }
        if not_after_us.is_some_and(|end_us| now_us >= end_us) {
            return Err(NotAdmitted::Expired);
        }
        if !networks.is_empty() && !inside(networks, address, false) {
            return Err(NotAdmitted::Network);
        }
        Ok(())
    }

    pub(super) fn read(node: &Node, user: &Glob, problems: &mut Problems) -> Option<Self> {
        let mut map = MapReader::new(node, problems)?;
        let networks = map.optional("networks").map(|node| one_or_many(node, problems));
        let networks = networks.unwrap_or_default().into_iter();
        let networks =
            networks.filter_map(|(text, span)| kept(network(text, span), span, problems)).collect();
        let not_after_us = map.optional("not_after").and_then(|node| not_after(node, problems));
        let revoked = map.optional("revoked").and_then(|node| node.bool(problems));
        let scram = map.optional("scram").and_then(|node| scram(node, user, problems));
        map.finish(problems);
        Some(Self { networks, not_after_us, revoked: revoked.unwrap_or(false), scram })
    }
}

fn not_after(node: &Node, problems: &mut Problems) -> Option<u64> {
    let text = node.string(problems)?;
    let read = instant_us(text);
    if read.is_none() {
        problems.push(
            Diagnostic::error(&node.span, format!("`{text}` is no day or time"))
                .with_help("write `2027-01-31` (that day included) or `2027-01-31T17:00:00Z`"),
        );
    }
    read
}

fn scram(node: &Node, user: &Glob, problems: &mut Problems) -> Option<ScramVerifier> {
    let text = node.string(problems)?;
    if !user.is_literal() {
        problems.push(
            Diagnostic::error(&node.span, "a verifier belongs to one user")
                .with_help("write the user's name out, without `*` and `?`"),
        );
    }
    // The text is not repeated: it may be a password that somebody put here by mistake.
    let read = text.parse().ok();
    if read.is_none() {
        problems.push(
            Diagnostic::error(&node.span, "this is no verifier, `SCRAM-SHA-256$…`")
                .with_help("`portcullis auth scram-verifier` makes one from a password"),
        );
    }
    read
}

/// The verifiers of all identities by user, and what most of them look like.
#[derive(Debug)]
pub(super) struct Verifiers {
    by_user: HashMap<Box<str>, ScramVerifier>,
    usual: (u32, usize),
}

impl Default for Verifiers {
    fn default() -> Self {
        Self { by_user: HashMap::new(), usual: USUAL }
    }
}

impl Verifiers {
    pub(super) fn new(by_user: HashMap<Box<str>, ScramVerifier>) -> Self {
        let mut counts: HashMap<(u32, usize), usize> = HashMap::new();
        for verifier in by_user.values() {
            *counts.entry((verifier.iterations, verifier.salt.len())).or_default() += 1;
        }
        // The shape decides between equals, so that the answer does not change at every start.
        let usual = counts.into_iter().max_by_key(|(shape, count)| (*count, *shape));
        Self { by_user, usual: usual.map_or(USUAL, |(shape, _)| shape) }
    }

    pub(super) fn get(&self, user: &str) -> Option<&ScramVerifier> {
        self.by_user.get(user)
    }

    /// Iterations and salt length that a made-up verifier must have to look like the others.
    pub(super) fn usual(&self) -> (u32, usize) {
        self.usual
    }
}

/// What servers make by default: 4096 rounds, 16 bytes of salt.
const USUAL: (u32, usize) = (4096, 16);
