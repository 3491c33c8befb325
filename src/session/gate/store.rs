//! Commands of a key-value store: what they touch in, plan out.
//!
//! Two commands that use keys alike as far as any rule can tell ([`Fits`]) share a plan, so that
//! deciding a command seen before is a comparison. Plans are kept by the session that made them:
//! they are few, and nobody waits for a lock.

use std::collections::HashMap;
use std::sync::Arc;

use super::expiry::{Ended, Endings};
use super::refusal::refusal_of;
use super::{Refusal, Words};
use crate::analysis::redis::{Args, Command, CommandId, Uses};
use crate::event::{CommandRecord, RecordedMask, RecordedVerdict};
use crate::facts::{
    Certainty, ChannelMode, ChannelUse, Exposure, Facts, KeyMode, KeyUse, ScriptUse, StoreFacts,
    Unnamed,
};
use crate::obligation::{Bound, Bounded};
use crate::policy::{Allowed, Counted, Decision, DenyReason, Fits, IdentityClass, Limit};
use crate::session::Turn;
use crate::session::resp::reshape::KeyMasks;

/// What happens to commands that are alike.
#[derive(Debug)]
pub struct StorePlan {
    /// Forward or refuse.
    pub verdict: StoreVerdict,
    /// For the audit trail.
    pub record: Arc<CommandRecord>,
    /// Limits to charge before forwarding, each time.
    pub limits: Vec<Limit>,
    /// What values of keys owe, by the keys' kind ([`Plans::kind`]); kinds that owe nothing are
    /// absent.
    pub values: Vec<(usize, KeyMasks)>,
    /// Bounds on the arguments, to be compared each time ([`StorePlan::within_bounds`]).
    pub bounds: Vec<Bound>,
    /// What commands are made to say of expiry, if anything.
    pub(super) endings: Option<Endings>,
}

/// Whether a command goes to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreVerdict {
    /// It does.
    Forward,
    /// It does not.
    Refuse(Refusal),
    /// It does not, only because nobody opened its door.
    Closed(Refusal),
}

impl StorePlan {
    /// What is decided about what is no command the proxy knows, or cannot be understood.
    pub fn refused(name: Option<&Command>, refusal: Refusal) -> Self {
        let verdict = recorded(&refusal);
        let record = match name {
            Some(command) => CommandRecord { verdict, ..CommandRecord::new(&command.fact) },
            None => CommandRecord::unknown(verdict),
        };
        let record = CommandRecord { rules: refusal.rule.iter().cloned().collect(), ..record };
        Self {
            verdict: StoreVerdict::Refuse(refusal),
            record: Arc::new(record),
            limits: Vec::new(),
            values: Vec::new(),
            bounds: Vec::new(),
            endings: None,
        }
    }

    /// What becomes of a command that does not say the expiry rules want it to; `None` where it goes
    /// on as it is, if it is within the bounds.
    pub fn end(&self, command: (&Command, &(impl Args + ?Sized)), now_ms: u64) -> Option<Ended> {
        self.endings.as_ref()?.end(command, now_ms)
    }

    /// Compares a command with what rules let its arguments be.
    ///
    /// # Errors
    /// The first bound that is exceeded, worded for the client.
    pub fn within_bounds(
        &self,
        (command, args): (&Command, &(impl Args + ?Sized)),
        uses: &Uses,
        aside: Aside,
    ) -> Result<(), Refusal> {
        let Aside { streamed, now_ms, ended_ms } = aside;
        self.bounds.iter().try_for_each(|bound| {
            let found = match bound.what {
                Bounded::PatternBytes => longest(args, patterns(uses), streamed),
                Bounded::ArgumentBytes => longest(args, plain(args, uses), streamed),
                Bounded::Arguments => count(plain(args, uses).count()),
                Bounded::ExpiryMs => {
                    ended_ms.unwrap_or_else(|| command.expiry(args).expiry.left_ms(now_ms))
                }
                Bounded::ExpiryPutInMs | Bounded::ExpiryLoweredMs => 0,
            };
            if found <= bound.max {
                return Ok(());
            }
            Err(exceeded(bound, found, command))
        })
    }
}

/// What a bound is compared with besides arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aside {
    /// Length of a last argument whose bytes are not at hand.
    pub streamed: Option<usize>,
    /// Unix time in milliseconds.
    pub now_ms: u64,
    /// The expiry it was made to say, in milliseconds from now ([`StorePlan::end`]).
    pub ended_ms: Option<u64>,
}

/// Everything of a command that a decision may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PlanKey {
    command: CommandId,
    unnamed: Unnamed,
    /// Which of the scripts that rules list it runs, if it runs one.
    script: Option<Fits>,
    keys: Vec<KeyKind>,
    channels: Vec<ChannelKind>,
}

/// Keys that no rule tells apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct KeyKind {
    fits: Fits,
    mode: KeyMode,
    exposure: Exposure,
}

/// Channels that no rule tells apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ChannelKind {
    fits: Fits,
    mode: ChannelMode,
}

/// Plans of one session, for one class of identities under one set of rules.
#[derive(Debug, Default)]
pub struct Plans {
    plans: HashMap<PlanKey, Arc<StorePlan>>,
    /// The last one asked for: clients repeat themselves.
    last: Option<(PlanKey, Arc<StorePlan>)>,
    /// For asking, used again.
    asked: Option<PlanKey>,
    /// The kind of each key of the last command, by its place among the keys.
    kinds: Vec<usize>,
    /// A key of each kind, by its place among the keys; the same for channels.
    examples: (Vec<usize>, Vec<usize>),
}

impl Plans {
    /// The class or the rules have changed.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The kind of a key of the command that was planned last, by its place among the keys.
    pub fn kind(&self, key: usize) -> Option<usize> {
        self.kinds.get(key).copied()
    }

    /// Plans a command, of which `uses` says what it touches.
    pub fn plan(
        &mut self,
        turn: Turn<'_>,
        class: &IdentityClass,
        (command, args): (&Command, &(impl Args + ?Sized)),
        uses: &Uses,
    ) -> Arc<StorePlan> {
        self.ask(turn, class, (command, args), uses);
        let Some(asked) = &self.asked else {
            return Arc::new(StorePlan::refused(Some(command), key_not_at_hand()));
        };
        if let Some((key, plan)) = &self.last
            && key == asked
        {
            return Arc::clone(plan);
        }
        let plan = match self.plans.get(asked) {
            Some(plan) => Arc::clone(plan),
            None => {
                let facts = self.facts((command, args), uses);
                let plan = Arc::new(decide(turn, class, command, &facts));
                if self.plans.len() >= PLANS_MAX {
                    self.plans.clear();
                }
                self.plans.insert(asked.clone(), Arc::clone(&plan));
                plan
            }
        };
        self.last = Some((asked.clone(), Arc::clone(&plan)));
        plan
    }

    /// Makes the key of the plan; leaves none where a key's bytes are not at hand.
    fn ask(
        &mut self,
        turn: Turn<'_>,
        class: &IdentityClass,
        (command, args): (&Command, &(impl Args + ?Sized)),
        uses: &Uses,
    ) {
        let mut key = self.asked.take().unwrap_or_else(|| PlanKey {
            command: command.id,
            unnamed: uses.unnamed,
            script: None,
            keys: Vec::new(),
            channels: Vec::new(),
        });
        key.command = command.id;
        key.unnamed = uses.unnamed;
        key.keys.clear();
        key.channels.clear();
        self.kinds.clear();
        self.examples.0.clear();
        self.examples.1.clear();
        let rules = &turn.rules.set;
        key.script = match uses.script.map(|(at, known_by)| (args.get(at), known_by)) {
            Some((Some(name), known_by)) => Some(rules.script_fits(class, name, known_by)),
            Some((None, _)) => return,
            None => None,
        };
        for (place, used) in uses.keys.iter().enumerate() {
            let Some(name) = args.get(used.at) else { return };
            let fits = rules.key_fits(class, name);
            let kind = KeyKind { fits, mode: used.mode, exposure: used.exposure };
            let found = key.keys.iter().position(|known| *known == kind);
            self.kinds.push(found.unwrap_or(key.keys.len()));
            if found.is_none() {
                key.keys.push(kind);
                self.examples.0.push(place);
            }
        }
        for (place, used) in uses.channels.iter().enumerate() {
            let Some(name) = args.get(used.at) else { return };
            let kind =
                ChannelKind { fits: rules.channel_fits(class, name, used.mode), mode: used.mode };
            if !key.channels.contains(&kind) {
                key.channels.push(kind);
                self.examples.1.push(place);
            }
        }
        self.asked = Some(key);
    }

    /// Facts with one key and one channel of each kind.
    fn facts(&self, (command, args): (&Command, &(impl Args + ?Sized)), uses: &Uses) -> Facts {
        let name = |at: usize| Arc::from(args.get(at).unwrap_or_default());
        let keys = self.examples.0.iter().filter_map(|place| uses.keys.get(*place));
        let channels = self.examples.1.iter().filter_map(|place| uses.channels.get(*place));
        let keys = keys.map(|used| KeyUse {
            key: name(used.at),
            mode: used.mode,
            exposure: used.exposure,
        });
        let channels = channels.map(|used| ChannelUse { name: name(used.at), mode: used.mode });
        Facts {
            certainty: Certainty::Known,
            actions: Vec::new(),
            accesses: Vec::new(),
            functions: Vec::new(),
            settings: Vec::new(),
            store: StoreFacts {
                command: Some(Arc::clone(&command.fact)),
                keys: keys.collect(),
                channels: channels.collect(),
                unnamed: uses.unnamed,
                script: uses.script.map(|(at, known_by)| ScriptUse { name: name(at), known_by }),
            },
        }
    }
}

fn decide(turn: Turn<'_>, class: &IdentityClass, command: &Command, facts: &Facts) -> StorePlan {
    let allowed = match turn.rules.set.decide(class, facts) {
        Decision::Allow(allowed) => allowed,
        Decision::Deny(denial) => {
            let closed = denial.reason == DenyReason::ClosedDoor;
            let refusal = Refusal { code: NOPERM, ..refusal_of(denial) };
            let mut plan = StorePlan::refused(Some(command), refusal.clone());
            plan.record = Arc::new(CommandRecord {
                patterns: turn.rules.set.patterns(class, &facts.store),
                ..(*plan.record).clone()
            });
            if closed {
                plan.verdict = StoreVerdict::Closed(refusal);
            }
            return plan;
        }
    };
    let Allowed { governances, values, limits, rules, observed, warnings: _, tenancy, bounds } =
        allowed;
    if tenancy.as_ref() != class.tenancy() {
        // The session goes by the class.
        return StorePlan::refused(Some(command), store_refusal(NOPERM, "the rules have changed"));
    }
    if !governances.is_empty() {
        // No relation is among the facts; this keeps a change there from opening anything.
        return StorePlan::refused(Some(command), key_not_at_hand());
    }
    let masks = values.iter().flat_map(|governance| &governance.masks);
    let masked = masks.map(|mask| RecordedMask {
        pattern: Arc::clone(&mask.pattern),
        function: mask.function.name(),
        class: mask.class.clone(),
    });
    let mut record = CommandRecord {
        rules,
        observed,
        masked: masked.collect(),
        ..CommandRecord::new(&command.fact)
    };
    if !record.masked.is_empty() {
        record.verdict = RecordedVerdict::Modified;
    }
    let plan = StorePlan {
        verdict: StoreVerdict::Forward,
        record: Arc::new(record),
        limits,
        values: values.iter().map(|one| (one.key, KeyMasks::new(&one.masks))).collect(),
        bounds,
        endings: None,
    };
    StorePlan { endings: Endings::of(&plan), ..plan }
}

/// Places of patterns for names of keys or channels.
fn patterns(uses: &Uses) -> impl Iterator<Item = usize> {
    let channels = uses.channels.iter().filter(|used| used.mode == ChannelMode::SubscribePattern);
    uses.patterns.iter().copied().chain(channels.map(|used| used.at))
}

/// Places of arguments that are neither the command's name nor a key nor a channel.
fn plain(args: &(impl Args + ?Sized), uses: &Uses) -> impl Iterator<Item = usize> {
    let mut named: Vec<usize> = uses.keys.iter().map(|used| used.at).collect();
    named.extend(uses.channels.iter().map(|used| used.at));
    named.sort_unstable();
    (1..args.len()).filter(move |at| named.binary_search(at).is_err())
}

fn longest(
    args: &(impl Args + ?Sized),
    places: impl Iterator<Item = usize>,
    streamed: Option<usize>,
) -> u64 {
    // What is neither at hand nor streamed cannot be known to be short.
    let streamed = streamed.map_or(u64::MAX, count);
    places.map(|at| args.get(at).map_or(streamed, |arg| count(arg.len()))).max().unwrap_or(0)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The words for a bound that is exceeded.
fn exceeded(bound: &Bound, found: u64, command: &Command) -> Refusal {
    let Bound { what, max, rule } = bound;
    let told = |what: &str| (format!("this command has {found} {what}, more than {max}"), None);
    let (message, hint) = match what {
        Bounded::PatternBytes => told("bytes in a pattern"),
        Bounded::ArgumentBytes => told("bytes in an argument"),
        Bounded::Arguments => told("arguments"),
        Bounded::ExpiryMs if found == u64::MAX => (
            "this command leaves its key without an expiry, or with one that cannot be told"
                .to_owned(),
            Some(command.ending_instead().to_owned()),
        ),
        Bounded::ExpiryMs | Bounded::ExpiryPutInMs | Bounded::ExpiryLoweredMs => (
            format!("this command leaves its key for {found} ms, longer than {max}"),
            Some("say a shorter expiry".to_owned()),
        ),
    };
    Refusal { rule: Some(rule.clone()), hint, ..store_refusal(NOPERM, message) }
}

/// Charges the plan's limits with what a command brings; `streamed` is the length of a last argument
/// whose bytes are not at hand.
///
/// # Errors
/// The limit that is used up, worded for the client.
pub fn admit_command(
    turn: Turn<'_>,
    plan: &StorePlan,
    (args, uses): (&(impl Args + ?Sized), &Uses),
    streamed: Option<usize>,
) -> Result<(), Refusal> {
    // What is neither at hand nor streamed is more than any limit gives.
    let bytes = |at| args.get(at).map_or(streamed.map_or(u64::MAX, count), |arg| count(arg.len()));
    let amount = |of| match of {
        Counted::Uses => 1,
        Counted::Bytes => plain(args, uses).map(bytes).fold(0, u64::saturating_add),
        Counted::Arguments => count(plain(args, uses).count()),
    };
    match super::charge(turn, &plan.limits, &amount) {
        Ok(()) => Ok(()),
        Err(refusal) => Err(Refusal { code: NOPERM, ..refusal }),
    }
}

/// A refusal in words of ours.
pub fn store_refusal(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal {
        code,
        message: message.into(),
        hint: None,
        position: None,
        rule: None,
        words: Words::Ours,
    }
}

/// A key that is too long to be held cannot be judged.
fn key_not_at_hand() -> Refusal {
    store_refusal(NOPERM, "a key or channel of this command is too long to be judged")
}

fn recorded(refusal: &Refusal) -> RecordedVerdict {
    let reason = match refusal.words {
        Words::Ours => refusal.message.clone(),
        // They quote the command.
        Words::Servers | Words::Grammar { .. } => "no such command, or not in this form".to_owned(),
    };
    RecordedVerdict::Denied { code: refusal.code.to_owned(), reason }
}

/// First word of the error for what an identity may not do, as the servers' own access lists say it.
pub const NOPERM: &str = "NOPERM";

/// Most plans a session keeps. Rules that tell apart more kinds of keys than this are planned anew.
const PLANS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::redis::{Found, Table};
    use crate::name::RuleId;

    #[test]
    fn arguments_stay_within_bounds() {
        let table = Table::builtin();
        let exceeded = |what: Bounded, max: u64, line: &str, streamed: Option<usize>| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let args = words.as_slice();
            let Found::Command(command) = table.find(args) else { panic!("{line}") };
            let mut uses = Uses::default();
            command.uses(args, &mut uses).unwrap();
            let bounds = vec![Bound { what, max, rule: RuleId("r".into()) }];
            let refused = StorePlan::refused(None, key_not_at_hand());
            let plan = StorePlan { bounds, ..refused };
            let aside = Aside { streamed, now_ms: 1_000_000, ended_ms: None };
            let found = plan.within_bounds((command, args), &uses, aside);
            found.err().map(|refusal| refusal.message).unwrap_or_default()
        };
        for (what, max, line, refused) in [
            (Bounded::PatternBytes, 3, "keys abc", false),
            (Bounded::PatternBytes, 3, "keys abcd", true),
            (Bounded::PatternBytes, 3, "scan 0 match abcd count 10000", true),
            (Bounded::PatternBytes, 3, "psubscribe a abcd", true),
            (Bounded::PatternBytes, 3, "subscribe abcd", false),
            (Bounded::PatternBytes, 3, "get abcd", false),
            (Bounded::ArgumentBytes, 3, "set longer abc", false),
            (Bounded::ArgumentBytes, 3, "set k abcd", true),
            (Bounded::ArgumentBytes, 3, "hset k f abcd", true),
            (Bounded::Arguments, 2, "rpush k a b", false),
            (Bounded::Arguments, 2, "rpush k a b c", true),
            (Bounded::Arguments, 2, "mget a b c d", false),
            (Bounded::ExpiryMs, 5_000, "set k v", true),
            (Bounded::ExpiryMs, 5_000, "set k v ex 5", false),
            (Bounded::ExpiryMs, 5_000, "set k v ex 6", true),
            (Bounded::ExpiryMs, 5_000, "expireat k 1005", false),
            (Bounded::ExpiryMs, 5_000, "expireat k 1006", true),
            (Bounded::ExpiryMs, 5_000, "hset k f v", false),
            (Bounded::ExpiryMs, u64::MAX - 1, "set k v", true),
            (Bounded::ExpiryMs, u64::MAX - 1, "set k v ex 99999999", false),
        ] {
            let found = exceeded(what, max, line, None);
            assert_eq!(!found.is_empty(), refused, "{line}: {found}");
        }
        // One that is streamed counts by its announced length, and by all if that is not known.
        assert_eq!(exceeded(Bounded::ArgumentBytes, 9, "set k abcd", Some(100)), "");
    }
}
