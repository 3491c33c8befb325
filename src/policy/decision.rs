//! The answer for one text.

use std::sync::Arc;

use crate::name::RuleId;
use crate::obligation::{Bound, Governance, KeyGovernance, Tenancy};

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
    /// One entry per key whose values owe something, by place; keys that owe nothing are absent.
    pub values: Vec<KeyGovernance>,
    /// Where the names of its keys and channels are at the server; `None`: where the client says.
    pub tenancy: Option<Arc<Tenancy>>,
    /// Bounds on the arguments of a command, to be compared each time.
    pub bounds: Vec<Bound>,
    /// Limits to charge each time the text runs.
    pub limits: Vec<Limit>,
    /// Enforced rules that shaped the decision: masks and filters first, then allows, each by id.
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
    /// Message for the client: lower case, no full stop, never a value of the statement. A deny
    /// rule's own message stands here as its author wrote it.
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
    /// A command that is closed to everybody, and that no rule opens for this identity.
    ClosedDoor,
    /// A filter needs an attribute this identity does not have.
    MissingAttribute,
}

/// A rate limit that concerns a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The rule.
    pub rule: RuleId,
    /// What is counted.
    pub of: Counted,
    /// How many in `per_us`.
    pub count: u64,
    /// The window in microseconds.
    pub per_us: u64,
    /// Whom it counts for (user name, or whatever `by:` names), already resolved.
    pub subject: Arc<str>,
    /// `true` in mode `enforce`; otherwise only observed.
    pub enforced: bool,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Statements, commands, or logins.
    Uses,
    /// Bytes that commands bring, in arguments that are neither their names nor keys nor channels.
    Bytes,
    /// Such arguments.
    Arguments,
}

impl Denial {
    /// A refusal no single rule speaks.
    pub(crate) fn new(reason: DenyReason, message: impl Into<String>) -> Self {
        Self { reason, rule: None, message: message.into(), hint: None }
    }

    /// The same refusal with a way out.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same refusal, spoken by a rule.
    #[must_use]
    pub(crate) fn by(mut self, rule: &RuleId) -> Self {
        self.rule = Some(rule.clone());
        self
    }
}
