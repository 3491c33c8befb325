//! The one place that calls policy: text in, plan out.
//!
//! A plan is everything decided about one text for one class of identities. It is kept under a key
//! that holds every input of the decision ([`ScopeKey`] and the text), so that a statement seen
//! before costs one look-up. What depends on time (rate limits) is never part of a plan.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::{Equivalent, Weighter, sync::Cache};
use sha2::{Digest, Sha256};

use crate::analysis::sql::{self, CannotEnforce, Parsed, Predicates, Rewritten, SessionEffect};
use crate::analysis::{AnalyzerLimits, Catalog, Dialect, SearchPath, Strings};
use crate::event::{RecordedVerdict, StatementRecord};
use crate::facts::{Certainty, Facts, Verb, Why};
use crate::name::hex;
use crate::policy::{Allowed, Counted, Decision, Exceeded, IdentityClass, Limit, RuleSet};
use crate::session::Turn;

mod doors;
mod expiry;
mod refusal;
mod store;

use refusal::{NOT_UNDERSTOOD, no_catalog, not_understood, refusal_of, unknown_relation};

pub use doors::{Door, plan_door};
pub use expiry::Ended;
pub(crate) use refusal::NOT_UTF8;
pub use refusal::{Refusal, Words};
pub use store::{Aside, NOPERM, Plans, StorePlan, StoreVerdict, admit_command, store_refusal};

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
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a plan, read one by one")]
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
    /// Touches a governed relation.
    pub governed: bool,
    /// Only reads (no write, no user code): parse-analysis errors cannot carry data.
    pub read_only: bool,
    /// Errors and notices of it may hold a value the client must not see: they are reduced.
    pub scrub: bool,
    /// Warnings for the client, one NOTICE each (rules in `mode: warn`).
    pub warnings: Vec<String>,
    /// Refused because the catalog does not know a relation: a fresher one may. The session reads
    /// it again and plans once more.
    pub wants_catalog: bool,
    /// ASCII without a backslash: the same text to every server, whatever its encoding and its
    /// rules for string literals.
    pub plain_text: bool,
}

impl Plan {
    /// The text that goes to the server, if any; `original` is the client's.
    pub fn outgoing<'a>(&'a self, original: &'a [u8]) -> Option<&'a [u8]> {
        match &self.verdict {
            Verdict::Forward => Some(original),
            Verdict::Rewrite(rewritten) => Some(rewritten.text.as_bytes()),
            Verdict::Refuse(_) => None,
        }
    }

    /// The plan for a message that is refused unread.
    pub fn of_refusal(refusal: Refusal, bytes: usize) -> Self {
        let mut draft = Draft::new(&[], None, &Facts::unknown(Why::TooLong));
        draft.record.text_bytes = bytes;
        draft.refuse(refusal)
    }

    /// Only ends a transaction or changes settings, however the server reads string literals.
    pub fn only_ends_or_sets(&self) -> bool {
        let harmless = [Verb::Rollback, Verb::Set, Verb::Discard, Verb::Empty];
        self.plain_text && self.record.verbs.iter().all(|verb| harmless.contains(verb))
    }

    /// Whether a statement of this kind stands in this text.
    pub fn has(&self, verb: Verb) -> bool {
        self.record.verbs.contains(&verb)
    }

    /// Whether SQL PREPARE of this name stands in this text.
    pub fn prepares_name(&self, wanted: &str) -> bool {
        let names_it = |effect: &SessionEffect| matches!(effect, SessionEffect::Prepare { name } if name == wanted);
        self.effects.iter().any(names_it)
    }

    /// Refused because a construct, or a name, was not understood.
    pub fn is_not_understood(&self) -> bool {
        matches!(
            &self.verdict,
            Verdict::Refuse(refusal)
                if refusal.code == NOT_UNDERSTOOD && refusal.words == Words::Ours
        )
    }

    /// Whether SQL PREPARE stands in this text.
    pub fn prepares(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, SessionEffect::Prepare { .. }))
    }
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

/// Everything a plan depends on besides the text and the rules' predicates.
#[derive(Debug)]
pub struct Scope<'a> {
    /// Rules that concern this identity.
    pub class: &'a IdentityClass,
    /// Database of the connection.
    pub database: &'a str,
    /// Schemas searched for unqualified names.
    pub path: &'a SearchPath,
    /// How the server reads text.
    pub dialect: Dialect,
    /// Digest of all of the above and of the catalog; see [`ScopeKey::new`].
    pub key: ScopeKey,
}

/// Digest of everything a plan depends on besides its text: identity class (which holds the rule
/// set's digest), database, catalog, search path, the server's way of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopeKey([u8; 16]);

impl ScopeKey {
    /// Computed when one of the inputs changes, not per statement.
    pub fn new(
        turn: Turn<'_>,
        class: &IdentityClass,
        database: &str,
        path: &SearchPath,
        dialect: Dialect,
    ) -> Self {
        let catalog = turn.analyzer.catalog(database);
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            // Lengths keep ("ab", "c") and ("a", "bc") apart.
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(bytes);
        };
        part(&class.digest);
        part(database.as_bytes());
        part(catalog.as_ref().map_or(&[][..], |catalog| &catalog.digest));
        match path {
            SearchPath::Known(schemas) => schemas.iter().for_each(|name| part(name.as_bytes())),
            SearchPath::Uncertain => part(&[0xff]),
        }
        let Dialect { strings, release } = dialect;
        let strings = match strings {
            Strings::Standard => 0,
            Strings::Escaped => 1,
        };
        let [high, low] = release.to_be_bytes();
        hash.update([strings, high, low]);
        Self(first_16(&hash.finalize()))
    }
}

/// Decided plans, shared by all sessions, bounded in bytes.
#[derive(Debug)]
pub struct PlanCache {
    cache: Cache<PlanKey, Arc<Plan>, PlanWeight>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl PlanCache {
    /// Holds plans worth about `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        let entries = usize::try_from(bytes_max / PLAN_BYTES_EXPECTED).unwrap_or(usize::MAX);
        Self {
            cache: Cache::with_weighter(entries.max(16), bytes_max, PlanWeight),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// Look-ups answered from the cache, and those that had to plan, since the start.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// How many plans are kept.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether no plan is kept.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }
}

/// Plans a text: from the cache, or by analysing, deciding and rewriting it.
pub fn plan(turn: Turn<'_>, scope: &Scope<'_>, text: &[u8]) -> Arc<Plan> {
    let key = PlanKeyRef { scope: scope.key, text };
    if let Some(plan) = turn.plans.cache.get(&key) {
        turn.plans.hits.fetch_add(1, Ordering::Relaxed);
        return plan;
    }
    turn.plans.misses.fetch_add(1, Ordering::Relaxed);
    let plan = Arc::new(make_plan(turn, scope, text));
    // A text that was not understood, or waits for a catalog, is not worth a place.
    if text.len() <= CACHED_TEXT_BYTES_MAX && !plan.wants_catalog && plan.statements > 0 {
        let key = PlanKey { scope: scope.key, text: text.into() };
        turn.plans.cache.insert(key, Arc::clone(&plan));
    }
    plan
}

/// Charges the plan's limits.
///
/// # Errors
/// The limit that is used up, worded for the client.
pub fn admit(turn: Turn<'_>, plan: &Plan) -> Result<(), Refusal> {
    charge(turn, &plan.limits, &|_| 1)
}

/// Charges each limit with as many of what it counts as are asked for, or none if one refuses: those
/// who share a budget are not to pay for what somebody is refused.
fn charge(
    turn: Turn<'_>,
    limits: &[Limit],
    amount: &dyn Fn(Counted) -> u64,
) -> Result<(), Refusal> {
    for (at, limit) in limits.iter().enumerate() {
        let asked = amount(limit.of);
        if asked == 0 {
            continue;
        }
        let Err(exceeded) = turn.throttles.take(limit, asked, turn.now.mono_us) else { continue };
        if !limit.enforced {
            continue;
        }
        for earlier in limits.iter().take(at).filter(|earlier| earlier.enforced) {
            let taken = amount(earlier.of);
            if taken > 0 {
                turn.throttles.give_back(earlier, taken);
            }
        }
        let (told, hint) = match exceeded {
            Exceeded::For { us } => {
                ("rate limit reached", Some(format!("retry in {} s", us.div_ceil(1_000_000))))
            }
            Exceeded::Always => ("this is more at once than the limit ever gives", None),
        };
        return Err(Refusal {
            code: "53400",
            message: format!("rule `{}`: {told}", limit.rule),
            hint,
            position: None,
            rule: Some(limit.rule.clone()),
            words: Words::Ours,
        });
    }
    Ok(())
}

/// Whether planning for this class needs a catalog that is missing or too old. `true` is a claim:
/// the caller reads it; sessions that ask meanwhile go on with the old one.
pub fn needs_catalog(turn: Turn<'_>, scope: &Scope<'_>) -> bool {
    scope.class.concerned && turn.analyzer.claim_load(scope.database, turn.now.mono_us)
}

fn make_plan(turn: Turn<'_>, scope: &Scope<'_>, text: &[u8]) -> Plan {
    let Ok(text) = std::str::from_utf8(text) else {
        let facts = Facts::unknown(Why::NotUtf8);
        let draft = Draft::new(text, None, &facts);
        return match turn.rules.set.decide(scope.class, &facts) {
            Decision::Deny(denial) => draft.refuse(refusal_of(denial)),
            // Policy denies what was not understood; this arm keeps that true by construction.
            Decision::Allow(_) => draft.refuse(not_understood(&Why::NotUtf8)),
        };
    };
    // Whom no rule concerns may use names that are ambiguous to us: the path was never asked for.
    let concerned = scope.class.concerned;
    let catalog = concerned.then(|| turn.analyzer.catalog(scope.database)).flatten();
    let limits = AnalyzerLimits { dialect: scope.dialect, ..turn.analyzer.limits };
    let parsed = sql::analyze(text, catalog.as_deref(), scope.path, &limits);
    // Of a text that is no statement nobody knows which words are values, and the scanner for
    // literals knows the standard reading alone.
    let understood = parsed.facts.certainty == Certainty::Known;
    let scannable = understood && scope.dialect.strings == Strings::Standard;
    let normalized = if scannable { sql::normalize(text) } else { None };
    let draft = Draft::new(text.as_bytes(), normalized, &parsed.facts);
    let plan = judge(turn, scope, (text, &parsed), catalog.as_deref(), draft);
    let quiet = plan.record.verbs.iter().all(|verb| errors_hold_no_data(*verb));
    Plan {
        effects: parsed.effects.clone(),
        statements: parsed.statements,
        read_only: parsed.read_only,
        scrub: plan.governed || (scope.class.governed && !(parsed.read_only && quiet)),
        plain_text: text.is_ascii() && !text.contains('\\'),
        ..plan
    }
}

/// Verbs that read no row but of relations named in the text, and run no constraint or trigger.
fn errors_hold_no_data(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::Select
            | Verb::Show
            | Verb::Set
            | Verb::Explain
            | Verb::Begin
            | Verb::Savepoint
            | Verb::Rollback
            | Verb::Deallocate
            | Verb::Discard
            | Verb::Empty
    )
}

fn judge(
    turn: Turn<'_>,
    scope: &Scope<'_>,
    (text, parsed): (&str, &Parsed),
    catalog: Option<&Catalog>,
    draft: Draft,
) -> Plan {
    let understood = parsed.facts.certainty == Certainty::Known;
    if understood && scope.class.concerned && catalog.is_none() && !parsed.facts.names_nothing() {
        return Plan { wants_catalog: true, ..draft.refuse(no_catalog(scope.database)) };
    }
    if understood
        && scope.class.governed
        && let Some(name) = parsed.unknown_relations.first()
    {
        return Plan { wants_catalog: true, ..draft.refuse(unknown_relation(name)) };
    }
    let allowed = match turn.rules.set.decide(scope.class, &parsed.facts) {
        Decision::Deny(denial) => return draft.refuse(refusal_of(denial)),
        Decision::Allow(allowed) => allowed,
    };
    if allowed.governances.is_empty() {
        return draft.allow(Verdict::Forward, allowed);
    }
    let Some(catalog) = catalog else { return draft.refuse(no_catalog(scope.database)) };
    match parsed.rewrite(text, catalog, &allowed.governances, &turn.rules.predicates) {
        Ok(None) => draft.allow(Verdict::Forward, allowed),
        Ok(Some(rewritten)) => draft.allow(Verdict::Rewrite(rewritten), allowed),
        Err(CannotEnforce { message, hint, code }) => {
            let rule = allowed.rules.first().cloned();
            draft.refuse(Refusal { code, message, hint, position: None, rule, words: Words::Ours })
        }
    }
}

/// A plan in the making: what the audit trail records whatever the verdict will be.
struct Draft {
    record: StatementRecord,
}

impl Draft {
    fn new(text: &[u8], normalized: Option<String>, facts: &Facts) -> Self {
        let mut verbs: Vec<Verb> = Vec::new();
        for action in &facts.actions {
            if !verbs.contains(&action.verb) {
                verbs.push(action.verb);
            }
        }
        if verbs.is_empty() {
            verbs.push(Verb::Empty);
        }
        let mut relations: Vec<String> = Vec::new();
        for access in &facts.accesses {
            let name = access.relation.path.to_string();
            if !relations.contains(&name) {
                relations.push(name);
            }
        }
        let fingerprint = match &normalized {
            Some(normalized) => format!("fp:{}", hex_16(&Sha256::digest(normalized.as_bytes()))),
            None => format!("sha256:{}", hex(&Sha256::digest(text))),
        };
        let record = StatementRecord {
            normalized,
            fingerprint,
            text_bytes: text.len(),
            verbs,
            relations,
            verdict: RecordedVerdict::Allowed,
            rules: Vec::new(),
            observed: Vec::new(),
            masked: Vec::new(),
            filtered: Vec::new(),
            json: crate::event::Prepared::default(),
        };
        Self { record }
    }

    fn refuse(mut self, refusal: Refusal) -> Plan {
        self.record.verdict = RecordedVerdict::Denied {
            code: refusal.code.to_owned(),
            // The grammar's message quotes the text it stumbled over: not for the record.
            reason: match refusal.words {
                Words::Grammar { .. } => "syntax error".to_owned(),
                Words::Ours | Words::Servers => refusal.message.clone(),
            },
        };
        self.record.rules = refusal.rule.iter().cloned().collect();
        self.into_plan(Verdict::Refuse(refusal))
    }

    fn allow(mut self, verdict: Verdict, allowed: Allowed) -> Plan {
        let governed = !allowed.governances.is_empty();
        if matches!(verdict, Verdict::Rewrite(_)) {
            self.record.verdict = RecordedVerdict::Modified;
        }
        for governance in &allowed.governances {
            let relation = governance.relation.path.to_string();
            self.record.masked.extend(governance.masks.iter().map(|mask| {
                let column = format!("{relation}.{}", mask.column);
                (column, mask.function.name(), mask.class.clone())
            }));
            let filters = governance.filters.iter();
            self.record.filtered.extend(filters.map(|f| (relation.clone(), f.rule.clone())));
        }
        self.record.rules = allowed.rules;
        self.record.observed = allowed.observed;
        let plan = self.into_plan(verdict);
        Plan { governed, limits: allowed.limits, warnings: allowed.warnings, ..plan }
    }

    fn into_plan(self, verdict: Verdict) -> Plan {
        Plan {
            verdict,
            record: Arc::new(self.record),
            limits: Vec::new(),
            effects: Vec::new(),
            statements: 0,
            governed: false,
            read_only: false,
            scrub: true,
            warnings: Vec::new(),
            wants_catalog: false,
            plain_text: false,
        }
    }
}

/// The key as kept.
#[derive(Debug, PartialEq, Eq)]
struct PlanKey {
    scope: ScopeKey,
    text: Box<[u8]>,
}

/// The key as looked up, without a copy of the text.
struct PlanKeyRef<'a> {
    scope: ScopeKey,
    text: &'a [u8],
}

impl Hash for PlanKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        PlanKeyRef { scope: self.scope, text: &self.text }.hash(state);
    }
}

impl Hash for PlanKeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.scope.hash(state);
        self.text.hash(state);
    }
}

impl Equivalent<PlanKey> for PlanKeyRef<'_> {
    fn equivalent(&self, key: &PlanKey) -> bool {
        self.scope == key.scope && *self.text == *key.text
    }
}

/// Weighs a plan by the texts it keeps and a fixed share for the rest.
#[derive(Clone, Debug)]
struct PlanWeight;

impl Weighter<PlanKey, Arc<Plan>> for PlanWeight {
    fn weight(&self, key: &PlanKey, plan: &Arc<Plan>) -> u64 {
        let rewritten = plan.outgoing(&[]).map_or(0, <[u8]>::len);
        let normalized = plan.record.normalized.as_ref().map_or(0, String::len);
        let texts = key.text.len() + rewritten + normalized;
        PLAN_BYTES_FIXED + u64::try_from(texts).unwrap_or(u64::MAX / 2)
    }
}

fn first_16(digest: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    out
}

/// 16 hex digits: the first eight bytes.
fn hex_16(digest: &[u8]) -> String {
    hex(digest.get(..8).unwrap_or(digest))
}

/// Longer texts are analysed each time: one of them would push out hundreds of small ones.
const CACHED_TEXT_BYTES_MAX: usize = 16 * 1024;
/// What a plan weighs beside its texts: the record, vectors, the cache's own entry.
const PLAN_BYTES_FIXED: u64 = 1024;
/// For sizing the cache's table.
const PLAN_BYTES_EXPECTED: u64 = 2048;

#[cfg(test)]
mod tests;
