//! A frozen rule set, and which of its rules concern whom.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::credential::ApiKey;
use super::diagnostic::Span;
use super::fits::ClassPatterns;
use super::identity::{Identities, Identity, IdentityClass, Login, NotAdmitted};
use super::prefix;
use super::rule::{CountedBy, Effect, Label, Rule};
use super::verifier::ScramVerifier;
use crate::name::{RuleId, hex};

/// A frozen, compiled rule set. Rules are sorted by id, so that nothing depends on files' order.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub(crate) digest: String,
    pub(crate) rules: Vec<Rule>,
    pub(crate) labels: Vec<Label>,
    pub(crate) identities: Identities,
}

impl RuleSet {
    /// SHA-256 over names and contents of the files, hex; empty for the empty set.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Each filter's rule, predicate text and where the text begins, for the layer that parses it.
    pub fn filters(&self) -> impl Iterator<Item = (&RuleId, &str, &Span)> {
        self.rules.iter().filter_map(|rule| match &rule.effect {
            Effect::Filter(filter) => Some((&rule.id, &*filter.predicate, &filter.span)),
            Effect::Mask(_)
            | Effect::Allow(_)
            | Effect::Deny { .. }
            | Effect::Limit(_)
            | Effect::Prefix(_)
            | Effect::Bounds(_) => None,
        })
    }

    /// Attaches roles and attributes.
    pub fn identify(&self, login: Login) -> Identity {
        self.identities.identify(login)
    }

    /// The API key with this prefix.
    pub fn key(&self, prefix: &str) -> Option<&ApiKey> {
        self.identities.key(prefix)
    }

    /// All API keys, by prefix.
    pub fn keys(&self) -> impl Iterator<Item = &ApiKey> {
        self.identities.keys()
    }

    /// An attribute that the login's token gives another value than the identities file does.
    pub fn contradicted(&self, login: &Login) -> Option<Arc<str>> {
        self.identities.contradicted(login)
    }

    /// Attributes that tokens may assert.
    pub fn claimed_attributes(&self) -> &BTreeSet<Arc<str>> {
        self.identities.claimed_attributes()
    }

    /// Whether a session that came with the API key of this prefix, as this user, may go on.
    pub fn key_in_force(&self, prefix: &str, user: &str) -> bool {
        self.identities.key_in_force(prefix, user).is_some()
    }

    /// Roles that tokens may assert.
    pub fn claimed_roles(&self) -> &BTreeSet<Arc<str>> {
        self.identities.claimed_roles()
    }

    /// Whether the identities file lets this login in from where it is, now.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, login: &Login, now_us: u64) -> Result<(), NotAdmitted> {
        self.identities.admit(login, now_us)
    }

    /// What the password of a user is checked against, where the identities file says it.
    pub fn verifier(&self, user: &str) -> Option<&ScramVerifier> {
        self.identities.verifier(user)
    }

    /// Iterations and salt length that most verifiers have: one for a user who does not exist is
    /// made up alike.
    pub fn usual_verifier(&self) -> (u32, usize) {
        self.identities.usual_verifier()
    }

    /// The rules that concern an identity. Linear in the rules; done once per session and
    /// generation, so that deciding is not.
    pub fn classify(&self, identity: Identity) -> IdentityClass {
        let concerning = self.rules.iter().enumerate().filter(|(_, rule)| rule.concerns(&identity));
        let (indexes, rules): (Vec<usize>, Vec<&Rule>) = concerning.unzip();
        IdentityClass {
            digest: self.class_digest(&identity, &rules),
            concerned: rules.iter().any(|rule| !rule.only_opens_doors())
                || identity.login.default_deny
                || identity.withdrawn,
            governed: rules.iter().any(|rule| rule.governs()),
            tenancy: prefix::tenancy(&rules, &identity),
            identity,
            patterns: Arc::new(ClassPatterns::of(&rules, &self.labels)),
            rules: indexes,
        }
    }

    fn class_digest(&self, identity: &Identity, rules: &[&Rule]) -> [u8; 16] {
        let login = &identity.login;
        let mut digest = FieldDigest::new();
        digest.field(&self.digest);
        digest.field(&login.datasource);
        digest.field(login.protocol.name());
        digest.field(&login.database);
        digest.field(if login.default_deny { "deny" } else { "allow" });
        for rule in rules {
            digest.field(&rule.id.0);
        }
        // Rules' ids cannot spell these two: neither is followed by one.
        digest.field(if identity.withdrawn { "withdrawn:" } else { "in force:" });
        digest.field("values");
        for name in values_used(rules) {
            digest.field(&name);
            match identity.value(&name) {
                Some(value) => {
                    digest.field("some");
                    digest.field(&value);
                }
                None => digest.field("none"),
            }
        }
        digest.first_half()
    }
}

/// Names of all values of the identity that the rules' answers depend on.
fn values_used(rules: &[&Rule]) -> BTreeSet<Arc<str>> {
    let mut names = BTreeSet::new();
    for rule in rules {
        match &rule.effect {
            Effect::Filter(filter) => names.extend(filter.references.iter().cloned()),
            Effect::Prefix(prefix) => names.extend(prefix.references().cloned()),
            Effect::Limit(rate) => {
                names.insert(match &rate.by {
                    CountedBy::User => "user".into(),
                    CountedBy::Address => "address".into(),
                    CountedBy::Database => "database".into(),
                    CountedBy::Attribute(name) => Arc::clone(name),
                });
            }
            Effect::Mask(_) | Effect::Allow(_) | Effect::Deny { .. } | Effect::Bounds(_) => {}
        }
    }
    names
}

/// SHA-256 over texts with their lengths, so that no two lists of texts look alike.
pub(crate) struct FieldDigest(Sha256);

impl FieldDigest {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    pub(crate) fn field(&mut self, text: &str) {
        self.0.update(text.len().to_le_bytes());
        self.0.update(text.as_bytes());
    }

    pub(crate) fn hex(self) -> String {
        hex(&self.0.finalize())
    }

    fn first_half(self) -> [u8; 16] {
        let mut half = [0; 16];
        for (to, from) in half.iter_mut().zip(self.0.finalize()) {
            *to = from;
        }
        half
    }
}
