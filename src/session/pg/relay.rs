//! A replication connection: bytes both ways, once a rule has opened that door.
//!
//! Its commands are in a grammar of its own and reach all rows, so nothing in it is parsed and no
//! identity under rules gets one. Frames are counted, never held: so that a frame that is none
//! ends the connection, and the last words of the proxy do not land in the middle of one.

use std::sync::Arc;

use bytes::BytesMut;

use super::pending::InFlight;
use super::ready::Ready;
use super::scope::ScopeTracker;
use super::{Call, State, close_with, fatal};
use crate::session::gate::{self, Door, Plan, Verdict};
use crate::session::{Effect, Turn};
use crate::wire::error::WireError;
use crate::wire::pg::error::Report;
use crate::wire::pg::frame::{self, Backend, Frontend};
use crate::wire::pg::message;
use crate::wire::queue::ByteQueue;

/// A replication connection.
#[derive(Debug)]
pub(super) struct Relay {
    scope: ScopeTracker,
    /// Rules the door was last found open under.
    generation: u64,
    /// Taken when the outcome is recorded.
    flight: Option<InFlight>,
    /// Bytes of the client's last frame still to come.
    from_client: usize,
    /// Bytes of the server's last frame still to come.
    from_server: usize,
}

impl Relay {
    /// The server is ready: opens the session and records the decision that it may be used.
    pub(super) fn begin(
        call: &mut Call<'_>,
        mut scope: ScopeTracker,
        method: &'static str,
    ) -> State {
        let plan = judge(call.turn, &mut scope);
        if let Verdict::Refuse(refusal) = &plan.verdict {
            // The rules changed during the login.
            call.journal.login_failed(call.turn.now, refusal.code, (Some(method), None), call.out);
            close_with(&fatal(refusal.code, &refusal.message), call.out);
            return State::Closed;
        }
        call.journal.opened(call.turn.now, method, call.out);
        let flight = Ready::in_flight(call, Arc::new(plan), false);
        call.out.to_client.encode(|out| message::ready_for_query(out, b'I'));
        State::Relay(Box::new(Self {
            scope,
            generation: call.turn.rules.generation,
            flight: Some(flight),
            from_client: 0,
            from_server: 0,
        }))
    }

    pub(super) fn feed_client(
        &mut self,
        call: &mut Call<'_>,
        input: &mut BytesMut,
    ) -> Result<Option<State>, WireError> {
        if let Some(ended) = self.follow_rules(call) {
            return Ok(Some(ended));
        }
        loop {
            pass(&mut self.from_client, input, &mut call.out.to_server);
            let Some(head) = frame::peek(input)? else { return Ok(None) };
            let kind = Frontend::from_tag(head.tag)?;
            if head.len > kind.bytes_max() {
                return Err(WireError::TooLong);
            }
            self.from_client = head.len;
            if kind == Frontend::Terminate {
                pass(&mut self.from_client, input, &mut call.out.to_server);
                call.out.effects.push(Effect::Close);
                self.abandon(call);
                call.journal.closed(call.turn.now, "client", call.out);
                return Ok(Some(State::Closed));
            }
        }
    }

    pub(super) fn feed_server(
        &mut self,
        call: &mut Call<'_>,
        input: &mut BytesMut,
    ) -> Result<Option<State>, WireError> {
        if let Some(ended) = self.follow_rules(call) {
            return Ok(Some(ended));
        }
        loop {
            pass(&mut self.from_server, input, &mut call.out.to_client);
            let Some(head) = frame::peek(input)? else { return Ok(None) };
            let kind = Backend::from_tag(head.tag)?;
            self.from_server = head.len;
            if let Some(flight) = &mut self.flight
                && matches!(kind, Backend::CopyData | Backend::DataRow)
            {
                flight.bytes += u64::try_from(head.len).unwrap_or(0);
            }
        }
    }

    /// Ends a connection that rules loaded meanwhile do not allow any more.
    fn follow_rules(&mut self, call: &mut Call<'_>) -> Option<State> {
        if self.generation == call.turn.rules.generation {
            return None;
        }
        self.generation = call.turn.rules.generation;
        let plan = judge(call.turn, &mut self.scope);
        let Verdict::Refuse(refusal) = &plan.verdict else { return None };
        if self.may_speak() {
            let report =
                Report { hint: refusal.hint.as_deref(), ..fatal(refusal.code, &refusal.message) };
            call.out.to_client.encode(|out| report.encode(out));
        }
        call.out.effects.push(Effect::Close);
        self.abandon(call);
        call.journal.closed(call.turn.now, "policy", call.out);
        Some(State::Closed)
    }

    /// The client is between two frames of the server.
    pub(super) fn may_speak(&self) -> bool {
        self.from_server == 0
    }

    /// The connection ends: what came of it is recorded.
    pub(super) fn abandon(&mut self, call: &mut Call<'_>) {
        if let Some(flight) = self.flight.take() {
            Ready::completed(call, &flight);
        }
    }
}

/// Whether the door is open to this identity now.
pub(super) fn judge(turn: Turn<'_>, scope: &mut ScopeTracker) -> Plan {
    gate::plan_door(turn, scope.current(turn).class, Door::Replication)
}

fn pass(remaining: &mut usize, input: &mut BytesMut, to: &mut ByteQueue) {
    let now = (*remaining).min(input.len());
    to.take_from(input, now);
    *remaining -= now;
}
