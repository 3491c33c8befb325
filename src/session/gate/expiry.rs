//! Expiries that rules put in, or lower.
//!
//! What a rule makes a command say is decided once for commands that are alike; whether one has to
//! be made to say it is seen from its own arguments. Those that were have a plan of their own, so that
//! the trail tells them from the others.

use std::sync::Arc;

use super::store::StorePlan;
use crate::analysis::redis::{Amended, Args, Command, Expiry};
use crate::event::{CommandRecord, RecordedExpiry, RecordedVerdict};
use crate::obligation::{Bound, Bounded};

/// What commands are made to say of expiry.
#[derive(Debug)]
pub(super) struct Endings {
    /// Where they say none.
    put_in: Option<Ending>,
    /// Where they say a longer one.
    lowered: Option<Ending>,
}

#[derive(Debug)]
struct Ending {
    ms: u64,
    /// The plan of commands that were made to say it.
    plan: Arc<StorePlan>,
}

/// A command that goes to the server with another expiry than the client gave it.
#[derive(Debug)]
pub struct Ended {
    /// What is decided about it.
    pub plan: Arc<StorePlan>,
    /// Its other arguments.
    pub amended: Amended,
    /// The expiry, in milliseconds from now.
    pub ms: u64,
}

impl Endings {
    /// What the bounds of a plan say about commands that are let through; `None` if nothing.
    pub(super) fn of(plan: &StorePlan) -> Option<Self> {
        let shortest = |what: &[Bounded]| {
            let fitting = plan.bounds.iter().filter(|bound| what.contains(&bound.what));
            fitting.min_by_key(|bound| bound.max)
        };
        let made = |bound: &Bound, ms: u64| {
            (ms > 0).then(|| Ending { ms, plan: Arc::new(ended(plan, bound, ms)) })
        };
        let put_in = shortest(&[Bounded::ExpiryPutInMs]).and_then(|bound| {
            // What we put in is never longer than another rule lets it be.
            let all = [Bounded::ExpiryPutInMs, Bounded::ExpiryLoweredMs, Bounded::ExpiryMs];
            made(bound, shortest(&all).map_or(bound.max, |shortest| shortest.max))
        });
        let lowered =
            shortest(&[Bounded::ExpiryLoweredMs]).and_then(|bound| made(bound, bound.max));
        (put_in.is_some() || lowered.is_some()).then_some(Self { put_in, lowered })
    }

    /// What becomes of a command; `None` where it goes on as it is, or cannot be made to say it.
    pub(super) fn end(
        &self,
        (command, args): (&Command, &(impl Args + ?Sized)),
        now_ms: u64,
    ) -> Option<Ended> {
        let said = command.expiry(args);
        let place = said.place?;
        let longer = |ms: u64| self.lowered.as_ref().filter(|ending| ms > ending.ms);
        let Ending { ms, plan } = match said.expiry {
            Expiry::Kept => None,
            Expiry::Removed => self.put_in.as_ref(),
            said @ (Expiry::In(_) | Expiry::At(_)) => longer(said.left_ms(now_ms)),
        }?;
        Some(Ended { plan: Arc::clone(plan), amended: place.say(*ms), ms: *ms })
    }
}

/// The plan of commands that were made to say another expiry.
fn ended(plan: &StorePlan, bound: &Bound, ms: u64) -> StorePlan {
    let StorePlan { verdict, record, limits, values, bounds, endings: _ } = plan;
    let mut rules = record.rules.clone();
    if record.masked.is_empty() {
        // The rule by which it was done comes first; a mask weighs more.
        rules.retain(|rule| *rule != bound.rule);
        rules.insert(0, bound.rule.clone());
    }
    let record = CommandRecord {
        verdict: RecordedVerdict::Modified,
        rules,
        expiry: Some(RecordedExpiry { ms, rule: bound.rule.clone() }),
        ..(**record).clone()
    };
    StorePlan {
        verdict: verdict.clone(),
        record: Arc::new(record),
        limits: limits.clone(),
        values: values.clone(),
        bounds: bounds.clone(),
        endings: None,
    }
}
