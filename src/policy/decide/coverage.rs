//! Allow lists and the datasource's default.
//!
//! An identity under an allow list may do only what its lists say: each statement is listed by a
//! rule, and each relation by a rule that also lists a statement which uses it in that way. So two
//! lists (`select` on `orders`, `insert` on `log`) never add up to `insert` on `orders`.

use super::Question;
use crate::facts::{Access, AccessMode, Verb};
use crate::policy::decision::{Denial, DenyReason};
use crate::policy::rule::{Allow, Effect, Rule};

impl<'a> Question<'a> {
    /// Refuses what no list covers.
    pub(super) fn check_coverage(&self) -> Result<(), Denial> {
        let lists: Vec<&Allow> =
            self.lists().filter(|(rule, _)| rule.enforced()).map(|(_, allow)| allow).collect();
        if lists.is_empty() && !self.class.identity.login.default_deny {
            return Ok(());
        }
        self.uncovered(&lists).map_or(Ok(()), Err)
    }

    /// Whether an allow rule lets something of this text through.
    pub(super) fn uses(&self, allow: &Allow) -> bool {
        if let Some(command) = &self.facts.store.command {
            return self.uses_for_command(allow, command);
        }
        let function = || {
            let mut called = self.facts.functions.iter();
            called.any(|function| allow.functions.iter().any(|pattern| pattern.names(function)))
        };
        if !allow.is_list() {
            let mut verbs = self.facts.actions.iter().map(|action| action.verb);
            return function() || verbs.any(|verb| verb.is_door() && allow.named.contains(&verb));
        }
        let listed = self.facts.actions.iter().any(|action| allow.lists(action.verb));
        let covered = || self.facts.accesses.iter().any(|access| self.covers(allow, access));
        (listed && (allow.relations.is_none() || covered())) || function()
    }

    /// Lists that are not enforced and, together with the enforced ones, would have refused this
    /// text.
    pub(super) fn observed_lists(&self) -> Vec<&'a Rule> {
        let (enforced, watched): (Vec<_>, Vec<_>) =
            self.lists().partition(|(rule, _)| rule.enforced());
        if watched.is_empty() {
            return Vec::new();
        }
        let all: Vec<&Allow> = enforced.iter().chain(&watched).map(|(_, allow)| *allow).collect();
        match self.uncovered(&all) {
            Some(_) => watched.into_iter().map(|(rule, _)| rule).collect(),
            None => Vec::new(),
        }
    }

    /// Allow rules that list statements or relations.
    fn lists(&self) -> impl Iterator<Item = (&'a Rule, &'a Allow)> {
        self.rules.iter().filter_map(|rule| match &rule.effect {
            Effect::Allow(allow) if allow.is_list() => Some((*rule, &**allow)),
            Effect::Allow(_)
            | Effect::Mask(_)
            | Effect::Filter(_)
            | Effect::Deny { .. }
            | Effect::Limit(_)
            | Effect::Prefix(_)
            | Effect::Bounds(_) => None,
        })
    }

    fn uncovered(&self, lists: &[&Allow]) -> Option<Denial> {
        if self.facts.store.command.is_some() {
            return self.uncovered_command(lists);
        }
        let listed = |verb: Verb| {
            always_allowed(verb, lists)
                || lists.iter().any(|allow| allow.lists(verb))
                || (verb.is_door() && self.opened(verb))
                || (verb == Verb::Select && !lists.is_empty() && self.only_resets())
        };
        if let Some(action) = self.facts.actions.iter().find(|action| !listed(action.verb)) {
            let verb = action.verb.name();
            let message = format!("no rule allows you `{verb}` here");
            return Some(Denial::new(DenyReason::NotAllowed, message).with_hint(way_out(lists)));
        }
        let covered = |access: &Access| {
            // Catalogs are what tools read to find their way; side doors judge the sensitive ones.
            access.relation.system || lists.iter().any(|allow| self.covers(allow, access))
        };
        let access = self.facts.accesses.iter().find(|access| !covered(access))?;
        let message = format!("no rule allows you this on `{}`", access.relation.path);
        Some(Denial::new(DenyReason::NotAllowed, message))
    }

    /// Whether one list covers the relation used in this way.
    fn covers(&self, allow: &Allow, access: &Access) -> bool {
        let Access { relation, mode } = access;
        let relations = allow.relations.as_ref();
        let about_statements = allow.statements.is_some() || relations.is_some();
        let listed = about_statements
            && relations.is_none_or(|list| list.iter().any(|pattern| pattern.matches(relation)));
        listed && self.lists_mode(allow, *mode)
    }

    /// Whether the list has every statement of the text that can use a relation in this way. All
    /// of them, because facts do not say which statement of a text uses which relation.
    fn lists_mode(&self, allow: &Allow, mode: AccessMode) -> bool {
        let users = |wanted: &[Verb]| {
            let mut verbs = self.facts.actions.iter().map(|action| action.verb);
            let mut present = verbs.clone().any(|verb| wanted.contains(&verb));
            present &= verbs.all(|verb| !wanted.contains(&verb) || allow.lists(verb));
            present
        };
        let all = || {
            let mut verbs = self.facts.actions.iter().map(|action| action.verb);
            verbs.all(|verb| allow.lists(verb) || always_allowed(verb, &[allow]))
        };
        match mode {
            AccessMode::Read => allow.lists(Verb::Select) || all(),
            AccessMode::Insert => users(&[Verb::Insert, Verb::Merge, Verb::CopyFrom]),
            AccessMode::Update => users(&[Verb::Update, Verb::Merge]),
            AccessMode::Delete => users(&[Verb::Delete, Verb::Merge]),
            AccessMode::Define => all(),
        }
    }
}

/// Statements no list needs to name: nothing at all, and for those who have a list at all the
/// control of their own transaction and the upkeep of their own session, without which drivers and
/// their pools do not work. None of them reaches data: FETCH reads what was allowed at DECLARE, and
/// settings and identities that matter are judged among the side doors.
fn always_allowed(verb: Verb, lists: &[&Allow]) -> bool {
    match verb {
        Verb::Empty => true,
        Verb::Begin
        | Verb::Commit
        | Verb::Rollback
        | Verb::Savepoint
        | Verb::Set
        | Verb::Show
        | Verb::Discard
        | Verb::Deallocate
        | Verb::Close
        | Verb::Fetch
        | Verb::Unlisten => !lists.is_empty(),
        Verb::Select
        | Verb::Insert
        | Verb::Update
        | Verb::Delete
        | Verb::Merge
        | Verb::CopyTo
        | Verb::CopyFrom
        | Verb::CopyServerFile
        | Verb::Truncate
        | Verb::Explain
        | Verb::SetRole
        | Verb::PrepareTransaction
        | Verb::Lock
        | Verb::Declare
        | Verb::Prepare
        | Verb::Execute
        | Verb::Listen
        | Verb::Notify
        | Verb::CreateTable
        | Verb::CreateTableAs
        | Verb::CreateView
        | Verb::CreateIndex
        | Verb::CreateFunction
        | Verb::Create
        | Verb::AlterTable
        | Verb::Alter
        | Verb::Drop
        | Verb::Refresh
        | Verb::Grant
        | Verb::Role
        | Verb::Do
        | Verb::Call
        | Verb::Load
        | Verb::Vacuum
        | Verb::Admin
        | Verb::FunctionCall
        | Verb::Replication => false,
    }
}

/// What may be done instead: the statements the lists name.
fn way_out(lists: &[&Allow]) -> String {
    let mut verbs: Vec<Verb> =
        lists.iter().filter_map(|allow| allow.statements.as_ref()).flatten().copied().collect();
    verbs.sort();
    verbs.dedup();
    if verbs.is_empty() {
        return "ask for an allow rule".to_owned();
    }
    let names: Vec<&str> = verbs.iter().map(|verb| verb.name()).collect();
    format!("allowed: {}", names.join(", "))
}
