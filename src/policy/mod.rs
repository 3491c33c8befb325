//! Rules → [`RuleSet`] → [`Decision`]. Knows no protocol.
//!
//! `source` reads files as written, `compile` checks and freezes them, `decide` answers. The order
//! of files and rules never matters: deny wins over allow, filters add up, the strongest mask and
//! the lowest limit win.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::facts::Facts;
use crate::name::RuleId;
use crate::obligation::Governance;

pub mod diagnostic;
pub mod yaml;

pub use diagnostic::{Diagnostic, Severity, Span};

/// Who is asking, as the session knows it after login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Datasource (configuration name).
    pub datasource: Arc<str>,
    /// `default: deny` in the datasource's configuration.
    pub default_deny: bool,
    /// Authenticated user.
    pub user: String,
    /// Database asked for.
    pub database: String,
    /// Client address, if the socket has one.
    pub address: Option<IpAddr>,
    /// Application name at login.
    pub application: String,
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
}

/// The rules that concern one identity, computed once per session and rules generation.
#[derive(Clone, Debug)]
pub struct IdentityClass {
    /// SHA-256 (first 16 bytes) over everything a decision depends on for this identity: the rule
    /// set's digest, which rules concern it, the attribute values those rules use, defaults.
    /// Two identities with the same digest get the same decision for every text.
    pub digest: [u8; 16],
    /// Some rule concerns this identity at all, or its datasource's default is deny.
    pub concerned: bool,
    /// Under a mask, a filter, a relation-level deny or an allow list: side doors (functions,
    /// views, statistics, session settings) are closed for it.
    pub governed: bool,
    /// The identity itself.
    pub identity: Identity,
    /// Indexes into the rule set of the rules that concern it.
    pub(crate) rules: Vec<usize>,
}

/// A frozen, compiled rule set.
#[derive(Debug, Default)]
pub struct RuleSet {}

/// The answer for one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may run, with these obligations.
    Allow(Allowed),
    /// It may not.
    Deny(Denial),
}

/// What comes with permission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// One entry per relation that owes something; relations that owe nothing are absent.
    pub governances: Vec<Governance>,
    /// Limits to charge each time the text runs.
    pub limits: Vec<Limit>,
    /// Enforced rules that shaped the decision (masks, filters, allows), sorted.
    pub rules: Vec<RuleId>,
    /// Rules in mode `shadow` or `warn` that would have changed it, sorted.
    pub observed: Vec<RuleId>,
    /// One message per `warn` rule that would have acted.
    pub warnings: Vec<String>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The kind of reason.
    pub reason: DenyReason,
    /// The rule, where one denied.
    pub rule: Option<RuleId>,
    /// Message for the client: lower case, no full stop, never a value of the statement.
    pub message: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
}

/// The kind of a denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenyReason {
    /// A deny rule.
    Rule,
    /// No allow rule covers it, or the default is deny.
    NotAllowed,
    /// The text was not understood.
    NotUnderstood(crate::facts::Why),
    /// A side door for an identity under rules: function, view, system relation, setting, verb.
    SideDoor,
    /// A filter needs an attribute this identity does not have.
    MissingAttribute,
}

/// A rate limit that concerns a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The rule.
    pub rule: RuleId,
    /// How many in `per_us`.
    pub count: u32,
    /// The window in microseconds.
    pub per_us: u64,
    /// Whom it counts for (user name, or whatever `by:` names), already resolved.
    pub subject: Arc<str>,
    /// `true` in mode `enforce`; otherwise only observed.
    pub enforced: bool,
}

impl RuleSet {
    /// Attaches roles and attributes.
    pub fn identify(&self, login: Login) -> Identity {
        Identity { login, roles: Vec::new(), attributes: BTreeMap::new() }
    }

    /// The rules that concern an identity.
    pub fn classify(&self, identity: Identity) -> IdentityClass {
        IdentityClass {
            digest: [0; 16],
            concerned: false,
            governed: false,
            identity,
            rules: Vec::new(),
        }
    }

    /// Decides.
    pub fn decide(&self, _class: &IdentityClass, _facts: &Facts) -> Decision {
        Decision::Allow(Allowed::default())
    }
}

/// Rate-limit counters, shared by all sessions; they survive a reload.
#[derive(Debug, Default)]
pub struct Throttles {}

impl Throttles {
    /// Takes one from the limit's budget.
    ///
    /// # Errors
    /// The budget is used up; the value says in how many microseconds one will be there.
    pub fn take(&self, _limit: &Limit, _mono_us: u64) -> Result<(), u64> {
        Ok(())
    }
}
