//! What the client asks: each message is forwarded, rewritten or refused.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::pending::Expect;
use super::ready::{Ready, Skip};
use super::refusals::{
    rules_changed, statement_too_long, too_many_statements, unknown_portal, unknown_statement,
};
use super::statements::{Portal, Prepared};
use super::{Call, State};
use crate::facts::Verb;
use crate::session::gate::{self, Plan, Refusal};
use crate::session::{Effect, Outbox, Turn};
use crate::wire::error::WireError;
use crate::wire::pg::error::{Report, Severity};
use crate::wire::pg::frame::{self, Frontend, HEAD_BYTES, Head};
use crate::wire::pg::message::{self, ParseBody, Target};
use crate::wire::reader::Reader;

/// Whether a message was handled or has to wait (for a catalog, for more bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handled {
    Yes,
    Wait,
}

impl Ready {
    pub(super) fn feed_client(
        &mut self,
        call: &mut Call<'_>,
        input: &mut BytesMut,
    ) -> Result<Option<State>, WireError> {
        let owed_before = call.journal.owed;
        loop {
            self.pass_remaining(input, call.out);
            let newly_owed = call.journal.owed.saturating_sub(owed_before);
            // One message pushes at most one event and owes at most one.
            if call.out.events.len() + newly_owed + 2 > call.out.room || !self.wants_client() {
                break;
            }
            // As the server does: a letter that is none is refused before a length is waited for.
            if let Some(tag) = input.first() {
                Frontend::from_tag(*tag)?;
            }
            let Some(head) = frame::peek(input)? else { break };
            self.follow_path();
            let handled = match self.message(call, head, input) {
                Err(error) if error.is_of_content() => self.malformed(call, head, input),
                handled => handled?,
            };
            if handled == Handled::Wait {
                break;
            }
            if self.closing {
                return Ok(Some(State::Closed));
            }
        }
        self.flush_local(call.out);
        self.flush_at_limit(call.out);
        Ok(None)
    }

    /// At the limit the client is not read, and its Sync may be what the server waits for before
    /// it sends its replies.
    fn flush_at_limit(&mut self, out: &mut Outbox) {
        let full = self.pending.len() >= self.config.pending_replies_max;
        if full && !self.flushed {
            out.to_server.encode(|out| message::framed(out, b'H', |_| {}));
        }
        self.flushed = full;
    }

    fn message(
        &mut self,
        call: &mut Call<'_>,
        head: Head,
        input: &mut BytesMut,
    ) -> Result<Handled, WireError> {
        let kind = Frontend::from_tag(head.tag)?;
        if head.len > kind.bytes_max() {
            return Err(WireError::TooLong);
        }
        if let Some(handled) = self.copy_gate(call, kind, (head, input)) {
            return Ok(handled);
        }
        if self.skip != Skip::No && !matches!(kind, Frontend::Sync | Frontend::Terminate) {
            return Ok(self.drop_message(head, input));
        }
        match kind {
            Frontend::CopyData => {
                self.pass(head, input, call.out);
                return Ok(Handled::Yes);
            }
            Frontend::Bind => return self.bind(call, head, input),
            Frontend::Query | Frontend::Parse if head.len > self.config.inspected_bytes_max => {
                return self.too_long(call, kind, head, input);
            }
            Frontend::FunctionCall => return self.function_call(call, head, input),
            Frontend::Password => return Err(WireError::UnexpectedMessage(head.tag)),
            Frontend::Query
            | Frontend::Parse
            | Frontend::Close
            | Frontend::CopyDone
            | Frontend::CopyFail
            | Frontend::Describe
            | Frontend::Execute
            | Frontend::Flush
            | Frontend::Sync
            | Frontend::Terminate => {}
        }
        if input.len() < head.len {
            return Ok(Handled::Wait);
        }
        match kind {
            Frontend::Query => return self.query(call, head, input),
            Frontend::Parse => return self.parse(call, head, input),
            Frontend::Describe => return self.describe(call, head, input),
            Frontend::Execute => return self.execute(call, head, input),
            Frontend::Close => self.close(call, head, input)?,
            Frontend::Flush | Frontend::Sync if head.len > HEAD_BYTES => {
                return Err(WireError::TrailingBytes);
            }
            Frontend::Sync => self.sync(call, head, input),
            Frontend::Flush => call.out.to_server.take_from(input, head.len),
            Frontend::CopyDone | Frontend::CopyFail => self.copy_end(call, head, input),
            Frontend::Terminate => {
                call.out.to_server.take_from(input, head.len);
                call.out.effects.push(Effect::Close);
                self.closing = true;
                self.abandon(call);
                call.journal.closed(call.turn.now, "client", call.out);
            }
            Frontend::Bind | Frontend::CopyData | Frontend::FunctionCall | Frontend::Password => {
                return Err(WireError::UnexpectedMessage(head.tag));
            }
        }
        Ok(Handled::Yes)
    }

    // === Simple protocol ===

    fn query(
        &mut self,
        call: &mut Call<'_>,
        head: Head,
        input: &mut BytesMut,
    ) -> Result<Handled, WireError> {
        let body = input.get(HEAD_BYTES..head.len).unwrap_or_default();
        let text = message::query_text(body)?;
        let Some(plan) = self.plan(call.turn, text, call.out) else { return Ok(Handled::Wait) };
        let verdict = self.vet(call.turn, &plan).and_then(|()| self.admit(call.turn, &plan));
        if let Err(refusal) = verdict {
            self.refuse_query(call, &plan, &refusal);
            input.advance(head.len);
            return Ok(Handled::Yes);
        }
        self.push_warnings(&plan);
        self.names.query_started();
        let prepares = self.text_statement(call.turn, text, &plan);
        match &plan.verdict {
            gate::Verdict::Rewrite(rewritten) => {
                call.out.to_server.encode(|out| message::query(out, rewritten.text.as_bytes()));
                input.advance(head.len);
            }
            gate::Verdict::Forward | gate::Verdict::Refuse(_) => {
                call.out.to_server.take_from(input, head.len);
            }
        }
        let mut flight = Self::in_flight(call, plan, false);
        flight.prepares = prepares;
        // A Query ends a batch as Sync does.
        self.batch_open = false;
        flight.batch = self.batch;
        self.batch += 1;
        self.pending.push(Expect::Query(flight));
        Ok(Handled::Yes)
    }

    /// The error a client gets for a refused Query, with the transaction in the state the server
    /// would be in.
    pub(super) fn refuse_query(&mut self, call: &mut Call<'_>, plan: &Plan, refusal: &Refusal) {
        let reply = Self::refused(call, plan, refusal, false);
        if self.can_answer_locally() {
            call.out.to_client.extend(&reply);
            call.out.to_client.encode(|out| message::ready_for_query(out, self.status));
            return;
        }
        call.out.to_server.encode(|out| message::query(out, POISON));
        self.names.query_started();
        self.batch_open = false;
        let batch = self.batch;
        self.batch += 1;
        self.pending.push(Expect::Poison { reply, simple: true, failed: false, batch });
    }

    /// What SQL PREPARE in this text will have prepared: it shares its names with Parse. Cursors it
    /// declares are remembered at once.
    fn text_statement(&mut self, turn: Turn<'_>, text: &[u8], plan: &Arc<Plan>) -> TextStatement {
        let declares = plan.has(Verb::Declare);
        if !plan.prepares() && !declares {
            return None;
        }
        let statement = Arc::new(Prepared {
            text: Bytes::copy_from_slice(text),
            parameter_types: Bytes::new(),
            plan: Arc::clone(plan),
            key: Some(self.scope.current(turn).key),
            by_text: true,
            share: self.names.share(text.len()),
        });
        if declares {
            self.names.declared(Arc::clone(&statement));
        }
        plan.prepares().then_some(statement)
    }

    // === Extended protocol ===

    fn parse(
        &mut self,
        call: &mut Call<'_>,
        head: Head,
        input: &mut BytesMut,
    ) -> Result<Handled, WireError> {
        let body = input.get(HEAD_BYTES..head.len).unwrap_or_default();
        let ParseBody { name, text, parameter_types } = ParseBody::read(body)?;
        let Some(plan) = self.plan(call.turn, text, call.out) else { return Ok(Handled::Wait) };
        let vetted = self.vet(call.turn, &plan);
        let verdict = vetted.and_then(|()| self.vet_prepare(name, text.len()));
        if let Err(refusal) = verdict {
            self.refuse_extended(call, &plan, &refusal);
            input.advance(head.len);
            return Ok(Handled::Yes);
        }
        let name = Bytes::copy_from_slice(name);
        let prepared = Arc::new(Prepared {
            text: Bytes::copy_from_slice(text),
            parameter_types: Bytes::copy_from_slice(parameter_types),
            key: Some(self.scope.current(call.turn).key),
            plan,
            by_text: false,
            share: self.names.share(text.len()),
        });
        forward_parse(&name, &prepared, call.out);
        input.advance(head.len);
        let prior = self.names.set_statement(&name, Some(Arc::clone(&prepared)));
        self.batch_open = true;
        self.pending.push(Expect::Parse { name, prior, made: prepared, own: false });
        Ok(Handled::Yes)
    }

    fn bind(
        &mut self,
        call: &mut Call<'_>,
        head: Head,
        input: &mut BytesMut,
    ) -> Result<Handled, WireError> {
        // The names come first; the values behind them are streamed, however long they are.
        let body = input.get(HEAD_BYTES..head.len.min(input.len())).unwrap_or_default();
        let mut reader = Reader::new(body);
        let names = reader.cstr().and_then(|portal| Ok((portal, reader.cstr()?)));
        let (portal, statement) = match names {
            Ok(names) => names,
            Err(_) if input.len() < head.len && body.len() < NAMES_BYTES_MAX => {
                return Ok(Handled::Wait);
            }
            Err(error) => return Err(error),
        };
        let prepared = match self.refresh(call, statement) {
            Refreshed::Current(prepared) => prepared,
            Refreshed::Refused(plan, refusal) => {
                self.refuse_extended(call, &plan, &refusal);
                return Ok(self.drop_message(head, input));
            }
            Refreshed::Unknown => {
                let refusal = unknown_statement(statement);
                return Ok(self.refuse_unread(call, &refusal, head, input));
            }
            Refreshed::Wait => return Ok(Handled::Wait),
        };
        if !portal.is_empty() && self.names.portal_count() >= self.config.prepared_statements_max {
            let refusal = too_many_statements();
            return Ok(self.refuse_unread(call, &refusal, head, input));
        }
        let portal = Bytes::copy_from_slice(portal);
        self.pass(head, input, call.out);
        self.portals += 1;
        let (number, batch) = (self.portals, self.batch);
        let made = Portal { statement: prepared, started: false, number, batch };
        let prior = self.names.set_portal(&portal, Some(made.clone()));
        self.batch_open = true;
        self.pending.push(Expect::Bind { name: portal, prior, made });
        Ok(Handled::Yes)
    }

    fn describe(
        &mut self,
        call: &mut Call<'_>,
        head: Head,
        input: &mut BytesMut,
    ) -> Result<Handled, WireError> {
        let body = input.get(HEAD_BYTES..head.len).unwrap_or_default();
        let plan = match Target::read(body)? {
            Target::Statement(name) => match self.refresh(call, name) {
                Refreshed::Current(prepared) => Some(Arc::clone(&prepared.plan)),
                Refreshed::Refused(plan, refusal) => {
                    self.refuse_extended(call, &plan, &refusal);
                    input.advance(head.len);
                    return Ok(Handled::Yes);
                }
                // The server says that it does not exist.
                Refreshed::Unknown => None,
                Refreshed::Wait => return Ok(Handled::Wait),
            },
            Target::Portal(name) => {
                self.names.portal(name).map(|portal| Arc::clone(&portal.statement.plan))
            }
        };
        call.out.to_server.take_from(input, head.len);
        self.batch_open = true;
        self.pending.push(Expect::Describe(plan));
        Ok(Handled::Yes)
    }

    fn execute(
        &mut self,
        call: &mut Call<'_>,
        head: Head,
        input: &mut BytesMut,
    ) -> Result<Handled, WireError> {
        let body = input.get(HEAD_BYTES..head.len).unwrap_or_default();
        let name = message::execute_portal(body)?;
        let Some(portal) = self.names.portal(name) else {
            if name.is_empty() {
                return Ok(self.refuse_unread(call, &unknown_portal(), head, input));
            }
            // A cursor of SQL DECLARE shares its name with portals: judged as FETCH.
            let text = fetch_text(name);
            let Some(plan) = self.plan(call.turn, &text, call.out) else {
                return Ok(Handled::Wait);
            };
            return self.execute_plan(call, (plan, None), true, (head, input));
        };
        let started = std::mem::replace(&mut portal.started, true);
        let statement = Arc::clone(&portal.statement);
        let scope = self.scope.current(call.turn);
        let mut plan = Arc::clone(&statement.plan);
        if statement.key != Some(scope.key) {
            let read = self.backend.read(scope.class.concerned, &statement.text);
            plan = gate::plan(call.turn, &scope, &read);
            if plan.outgoing(&statement.text) != statement.plan.outgoing(&statement.text) {
                let refusal = rules_changed();
                self.refuse_extended(call, &plan, &refusal);
                input.advance(head.len);
                return Ok(Handled::Yes);
            }
        }
        let prepares = self.text_statement(call.turn, &statement.text, &plan);
        self.execute_plan(call, (plan, prepares), !started, (head, input))
    }

    fn execute_plan(
        &mut self,
        call: &mut Call<'_>,
        (plan, prepares): (Arc<Plan>, TextStatement),
        first: bool,
        (head, input): (Head, &mut BytesMut),
    ) -> Result<Handled, WireError> {
        let vetted = self.vet(call.turn, &plan);
        let verdict =
            if first { vetted.and_then(|()| self.admit(call.turn, &plan)) } else { vetted };
        if let Err(refusal) = verdict {
            self.refuse_extended(call, &plan, &refusal);
            input.advance(head.len);
            return Ok(Handled::Yes);
        }
        self.push_warnings(&plan);
        call.out.to_server.take_from(input, head.len);
        let mut flight = Self::in_flight(call, plan, true);
        flight.prepares = prepares;
        self.batch_open = true;
        self.pending.push(Expect::Execute(flight));
        Ok(Handled::Yes)
    }

    fn close(
        &mut self,
        call: &mut Call<'_>,
        head: Head,
        input: &mut BytesMut,
    ) -> Result<(), WireError> {
        let body = input.get(HEAD_BYTES..head.len).unwrap_or_default();
        let expect = match Target::read(body)? {
            Target::Statement(name) => {
                let name = Bytes::copy_from_slice(name);
                let prior = self.names.set_statement(&name, None);
                Expect::CloseStatement { name, prior }
            }
            Target::Portal(name) => {
                let name = Bytes::copy_from_slice(name);
                let prior = self.names.set_portal(&name, None);
                Expect::ClosePortal { name, prior }
            }
        };
        call.out.to_server.take_from(input, head.len);
        self.batch_open = true;
        self.pending.push(expect);
        Ok(())
    }

    pub(super) fn sync(&mut self, call: &mut Call<'_>, head: Head, input: &mut BytesMut) {
        if std::mem::replace(&mut self.skip, Skip::No) == Skip::AnswerSync {
            input.advance(head.len);
            call.out.to_client.encode(|out| message::ready_for_query(out, self.status));
            return;
        }
        call.out.to_server.take_from(input, head.len);
        self.sync_expected();
    }

    /// A Sync was forwarded.
    pub(super) fn sync_expected(&mut self) {
        self.batch_open = false;
        self.pending.push(Expect::Sync(self.batch));
        self.batch += 1;
    }

    fn copy_end(&mut self, call: &mut Call<'_>, head: Head, input: &mut BytesMut) {
        call.out.to_server.take_from(input, head.len);
        // The mark is for a COPY the server has not begun yet.
        if !self.copy_ends() && !self.pending.is_empty() {
            self.pending.push(Expect::CopyEnd);
        }
    }

    /// The prepared statement as the rules in force would have it.
    fn refresh(&mut self, call: &mut Call<'_>, name: &[u8]) -> Refreshed {
        let Some(prepared) = self.names.statement(name).map(Arc::clone) else {
            return Refreshed::Unknown;
        };
        if prepared.key == Some(self.scope.current(call.turn).key) {
            return Refreshed::Current(prepared);
        }
        let Some(plan) = self.plan(call.turn, &prepared.text, call.out) else {
            return Refreshed::Wait;
        };
        if let Err(refusal) = self.vet(call.turn, &plan) {
            return Refreshed::Refused(plan, refusal);
        }
        let same = prepared.key.is_some()
            && plan.outgoing(&prepared.text) == prepared.plan.outgoing(&prepared.text);
        if !same && prepared.by_text {
            return Refreshed::Refused(plan, rules_changed());
        }
        let renewed = Arc::new(Prepared {
            text: prepared.text.clone(),
            parameter_types: prepared.parameter_types.clone(),
            key: Some(self.scope.current(call.turn).key),
            plan,
            by_text: prepared.by_text,
            share: prepared.share.again(),
        });
        let name = Bytes::copy_from_slice(name);
        self.names.set_statement(&name, Some(Arc::clone(&renewed)));
        if !same {
            if !name.is_empty() {
                call.out.to_server.encode(|out| message::close_statement(out, &name));
                self.pending.push(Expect::Swallow);
            }
            forward_parse(&name, &renewed, call.out);
            // Skipped or failed, it has to be sent again: the server may hold the old text or none.
            let (prior, made) = (Some(prepared.lost()), Arc::clone(&renewed));
            self.pending.push(Expect::Parse { name, prior, made, own: true });
            self.batch_open = true;
        }
        Refreshed::Current(renewed)
    }

    /// Refuses a message of the extended protocol: the client gets an error and the rest of its
    /// batch is skipped up to Sync.
    pub(super) fn refuse_extended(&mut self, call: &mut Call<'_>, plan: &Plan, refusal: &Refusal) {
        let reply = Self::refused(call, plan, refusal, true);
        self.fail_batch(call, reply);
    }

    fn fail_batch(&mut self, call: &mut Call<'_>, reply: Bytes) {
        if self.can_answer_locally() {
            call.out.to_client.extend(&reply);
            self.skip = Skip::AnswerSync;
            return;
        }
        call.out.to_server.encode(|out| message::parse(out, POISON_NAME, POISON, &[0, 0]));
        let batch = self.batch;
        self.pending.push(Expect::Poison { reply, simple: false, failed: false, batch });
        self.batch_open = true;
        self.skip = Skip::ForwardSync;
    }

    /// Refuses a message that is not a statement we could judge.
    fn refuse_unread(
        &mut self,
        call: &mut Call<'_>,
        refusal: &Refusal,
        head: Head,
        input: &mut BytesMut,
    ) -> Handled {
        let plan = Plan::of_refusal(refusal.clone(), head.len);
        if head.tag == b'F' || head.tag == b'Q' {
            self.refuse_query(call, &plan, refusal);
        } else {
            self.refuse_extended(call, &plan, refusal);
        }
        self.drop_message(head, input)
    }

    fn too_long(
        &mut self,
        call: &mut Call<'_>,
        kind: Frontend,
        head: Head,
        input: &mut BytesMut,
    ) -> Result<Handled, WireError> {
        debug_assert!(matches!(kind, Frontend::Query | Frontend::Parse));
        let refusal = statement_too_long();
        Ok(self.refuse_unread(call, &refusal, head, input))
    }

    /// Rules in mode `warn` speak to the client before the reply of the statement.
    pub(super) fn push_warnings(&mut self, plan: &Plan) {
        if plan.warnings.is_empty() {
            return;
        }
        let mut notices = BytesMut::new();
        for message in &plan.warnings {
            let severity = Severity::Warning;
            let (code, detail, hint, position) = ("01000", None, None, None);
            Report { severity, code, message, detail, hint, position }.encode(&mut notices);
        }
        self.pending.push(Expect::Local(notices.freeze()));
    }
}

/// What a text prepares with SQL PREPARE, if it does.
type TextStatement = Option<Arc<Prepared>>;

enum Refreshed {
    Current(Arc<Prepared>),
    Refused(Arc<Plan>, Refusal),
    Unknown,
    Wait,
}

fn forward_parse(name: &[u8], prepared: &Prepared, out: &mut Outbox) {
    if let Some(text) = prepared.plan.outgoing(&prepared.text) {
        let types = &prepared.parameter_types;
        out.to_server.encode(|out| message::parse(out, name, text, types));
    }
}

/// `FETCH ALL FROM "name"`, for judging an Execute of a cursor.
fn fetch_text(name: &[u8]) -> Vec<u8> {
    let mut text = b"FETCH ALL FROM \"".to_vec();
    for byte in name {
        if *byte == b'"' {
            text.push(b'"');
        }
        text.push(*byte);
    }
    text.push(b'"');
    text
}

/// A text that fails in every PostgreSQL grammar, sent in place of a refused statement when the
/// server has to fail with us. It tells the reader of the server's log what happened.
const POISON: &[u8] = b"portcullis refused this statement";
/// The name of the poisoned Parse: the unnamed statement stays what it was.
const POISON_NAME: &[u8] = b"portcullis_refused";
/// Names of statements and portals end within this many bytes.
const NAMES_BYTES_MAX: usize = 8 * 1024;
