//! Doors: what is asked of a server without a text that could be analysed.
//!
//! They are closed to everybody until a rule opens them ([`Verb::is_door`]), and judged by the same
//! policy as statements, from facts made here.

use super::{Draft, Plan, Refusal, Verdict, Words, refusal_of};
use crate::facts::{Action, Certainty, Facts, FunctionUse, SettingChange, Verb};
use crate::policy::{Decision, IdentityClass};
use crate::session::Turn;

/// One door.
#[derive(Clone, Debug)]
pub enum Door {
    /// A function called by message; `None` asks whether any may be.
    FunctionCall(Option<FunctionUse>),
    /// A connection for replication.
    Replication,
}

/// Plans the use of a door. Not kept: each is rare, and cheap to decide.
pub fn plan_door(turn: Turn<'_>, class: &IdentityClass, door: Door) -> Plan {
    let (facts, told) = match door {
        Door::Replication => (facts(Verb::Replication), Some("replication connection".to_owned())),
        Door::FunctionCall(None) => (facts(Verb::FunctionCall), None),
        Door::FunctionCall(Some(function)) => {
            let schema = function.schema.as_deref().unwrap_or_default();
            let told = format!("function call {schema}.{}", function.name);
            let mut facts = facts(Verb::FunctionCall);
            if &*function.name == "set_config" {
                // Its arguments are not read, so what it sets is not known.
                facts.settings.push(SettingChange { name: "".into(), value: None, local: false });
            }
            facts.functions.push(function);
            (facts, Some(told))
        }
    };
    let text = told.clone().unwrap_or_default();
    let draft = Draft::new(text.as_bytes(), told, &facts);
    match turn.rules.set.decide(class, &facts) {
        Decision::Deny(denial) => draft.refuse(refusal_of(denial)),
        Decision::Allow(allowed) if allowed.governances.is_empty() => {
            let plan = draft.allow(Verdict::Forward, allowed);
            Plan { statements: 1, scrub: class.governed, ..plan }
        }
        // No relation is among the facts; this arm keeps a change there from opening anything.
        Decision::Allow(_) => draft.refuse(Refusal {
            code: "0A000",
            message: "rows under rules cannot be reached this way".to_owned(),
            hint: None,
            position: None,
            rule: None,
            words: Words::Ours,
        }),
    }
}

fn facts(verb: Verb) -> Facts {
    Facts {
        certainty: Certainty::Known,
        actions: vec![Action { verb, without_where: false }],
        accesses: Vec::new(),
        functions: Vec::new(),
        settings: Vec::new(),
        store: crate::facts::StoreFacts::default(),
    }
}
