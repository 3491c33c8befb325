//! The one place that calls policy: text in, plan out.

use std::sync::Arc;

use crate::analysis::sql::{Predicates, Rewritten, SessionEffect};
use crate::event::StatementRecord;
use crate::name::RuleId;
use crate::policy::{IdentityClass, Limit, RuleSet};

/// A rule set in force, with everything derived from it.
#[derive(Debug)]
pub struct ActiveRules {
    /// The compiled rules.
    pub set: RuleSet,
    /// The filters' predicates, parsed.
    pub predicates: Predicates,
    /// SHA-256 over the files, hex.
    pub digest: String,
    /// Counts up with each accepted set in this process, from 1.
    pub generation: u64,
}

/// What happens to one text (one or several statements) of one identity class.
#[derive(Debug)]
pub struct Plan {
    /// Forward, rewrite or refuse.
    pub verdict: Verdict,
    /// For the audit trail.
    pub record: Arc<StatementRecord>,
    /// Limits to charge before forwarding, each time.
    pub limits: Vec<Limit>,
    /// What the text does to the session, statement by statement.
    pub effects: Vec<SessionEffect>,
    /// How many statements the text holds.
    pub statements: usize,
    /// Touches a governed relation: errors and notices are reduced to what cannot hold a value.
    pub governed: bool,
    /// Only reads (no write, no user code): parse-analysis errors cannot carry data.
    pub read_only: bool,
    /// Warnings for the client, one NOTICE each (rules in `mode: warn`).
    pub warnings: Vec<String>,
}

/// Forward, rewrite or refuse.
#[derive(Debug)]
pub enum Verdict {
    /// The client's own bytes go on unchanged.
    Forward,
    /// This text goes instead.
    Rewrite(Rewritten),
    /// Nothing goes.
    Refuse(Refusal),
}

/// What a client is told of a refusal. An allow-list: fixed texts, names of rules and constructs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE.
    pub code: &'static str,
    /// One line; names the rule where there is one.
    pub message: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
    /// 1-based character position in the client's text, for syntax errors.
    pub position: Option<u32>,
    /// The rule that refused.
    pub rule: Option<RuleId>,
}

/// Everything a plan depends on besides the text and the rules.
#[derive(Debug)]
pub struct Scope<'a> {
    /// Rules that concern this identity.
    pub class: &'a IdentityClass,
    /// Database of the connection.
    pub database: &'a str,
    /// Schemas searched for unqualified names.
    pub path: &'a crate::analysis::SearchPath,
}

/// Decided plans, shared by all sessions, bounded in bytes.
#[derive(Debug)]
pub struct PlanCache {}

impl PlanCache {
    /// Bounded in bytes.
    pub fn new(_bytes_max: u64) -> Self {
        Self {}
    }
}
