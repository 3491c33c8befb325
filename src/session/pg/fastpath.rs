//! The fast-path function call: a function by its OID, with arguments, without a text.
//!
//! Closed until a rule opens it, and then judged by the function's name, which the server is asked
//! for. Its arguments are passed on unread, and so is its result.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;

use super::Call;
use super::catalog_load::Purpose;
use super::client::Handled;
use super::pending::Expect;
use super::ready::Ready;
use super::refusals::{in_failed_transaction, not_in_pipeline, unknown_function};
use crate::facts::FunctionUse;
use crate::session::gate::{self, Door, Plan, Refusal, Verdict};
use crate::wire::error::WireError;
use crate::wire::pg::frame::{HEAD_BYTES, Head};

/// What is known of functions by OID.
#[derive(Debug, Default)]
pub(super) struct Fastpath {
    /// Functions of the system itself: their OIDs mean the same for as long as the server lives.
    known: HashMap<u32, FunctionUse>,
    /// The server's answer for the message at hand.
    answer: Option<(u32, Option<FunctionUse>)>,
}

enum Found {
    Function(FunctionUse),
    Missing,
    /// The server is being asked, or has to answer something else first.
    Wait,
    /// The server cannot be asked in the middle of a pipeline.
    NotNow,
}

impl Fastpath {
    /// The server said what an OID stands for; `None`: nothing.
    pub(super) fn learn(&mut self, oid: u32, function: Option<FunctionUse>) {
        self.answer = Some((oid, function));
    }

    fn answered(&mut self, oid: u32) -> Option<Found> {
        if let Some(function) = self.known.get(&oid) {
            return Some(Found::Function(function.clone()));
        }
        let (_, function) = self.answer.take().filter(|(asked, _)| *asked == oid)?;
        let Some(function) = function else { return Some(Found::Missing) };
        if oid < FIRST_USER_OID && self.known.len() < KNOWN_MAX {
            self.known.insert(oid, function.clone());
        }
        Some(Found::Function(function))
    }
}

impl Ready {
    pub(super) fn function_call(
        &mut self,
        call: &mut Call<'_>,
        head: Head,
        input: &mut BytesMut,
    ) -> Result<Handled, WireError> {
        // Closed whatever the function: the server is not even asked.
        let any = self.call_plan(call, None);
        if let Verdict::Refuse(refusal) = &any.verdict {
            return Ok(self.refuse_call(call, (&any, refusal), head, input));
        }
        let body = input.get(HEAD_BYTES..head.len.min(input.len())).unwrap_or_default();
        let oid = match body.first_chunk() {
            Some(oid) => u32::from_be_bytes(*oid),
            None if input.len() < head.len => return Ok(Handled::Wait),
            None => return Err(WireError::Truncated),
        };
        let plan = match self.function_of(call, oid) {
            Ok(Found::Function(function)) => self.call_plan(call, Some(function)),
            Ok(Found::Wait) => return Ok(Handled::Wait),
            Ok(Found::Missing) => {
                return Ok(self.refuse_call(call, (&any, &unknown_function(oid)), head, input));
            }
            Ok(Found::NotNow) => {
                return Ok(self.refuse_call(call, (&any, &not_in_pipeline()), head, input));
            }
            Err(refusal) => return Ok(self.refuse_call(call, (&any, &refusal), head, input)),
        };
        let verdict = match &plan.verdict {
            Verdict::Refuse(refusal) => Err(refusal.clone()),
            Verdict::Forward | Verdict::Rewrite(_) => self.admit(call.turn, &plan),
        };
        if let Err(refusal) = verdict {
            return Ok(self.refuse_call(call, (&plan, &refusal), head, input));
        }
        self.push_warnings(&plan);
        self.pass(head, input, call.out);
        let mut flight = Self::in_flight(call, Arc::new(plan), false);
        // It ends a batch as Query does.
        self.batch_open = false;
        flight.batch = self.batch;
        self.batch += 1;
        self.pending.push(Expect::Query(flight));
        Ok(Handled::Yes)
    }

    fn call_plan(&mut self, call: &Call<'_>, function: Option<FunctionUse>) -> Plan {
        let class = self.scope.current(call.turn).class;
        gate::plan_door(call.turn, class, Door::FunctionCall(function))
    }

    fn refuse_call(
        &mut self,
        call: &mut Call<'_>,
        (plan, refusal): (&Plan, &Refusal),
        head: Head,
        input: &mut BytesMut,
    ) -> Handled {
        self.refuse_query(call, plan, refusal);
        self.drop_message(head, input)
    }

    /// What the OID stands for, as the server says.
    fn function_of(&mut self, call: &mut Call<'_>, oid: u32) -> Result<Found, Refusal> {
        if let Some(found) = self.fastpath.answered(oid) {
            return Ok(found);
        }
        if self.batch_open {
            return Ok(Found::NotNow);
        }
        if !self.pending.is_empty() {
            return Ok(Found::Wait);
        }
        if self.status == b'E' {
            return Err(in_failed_transaction());
        }
        self.inject(Purpose::Function(oid), call.out);
        Ok(Found::Wait)
    }
}

/// OIDs below it are given at the server's own making (`FirstNormalObjectId`).
const FIRST_USER_OID: u32 = 16_384;
/// libpq calls about fifteen; more than this is asked for each time.
const KNOWN_MAX: usize = 256;
