//! What the server answers: matched with what is pending, passed on in runs.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::Call;
use super::catalog_load::Purpose;
use super::pending::{Expect, InFlight};
use super::ready::{Ready, Skip};
use super::scrub;
use crate::analysis::sql::SessionEffect;
use crate::facts::Verb;
use crate::session::gate::Plan;
use crate::session::{Outbox, Turn};
use crate::wire::error::WireError;
use crate::wire::pg::error::{Report, Severity, sqlstate};
use crate::wire::pg::frame::{self, Backend, HEAD_BYTES, Head};
use crate::wire::pg::message::tag_rows;

/// What becomes of a server's frame.
enum Fate {
    /// The client gets it as it is.
    Pass,
    /// The client gets nothing.
    Drop,
    /// The client gets this instead.
    Replace(Bytes),
}

/// Bytes at the front of the input that are passed on together, as soon as something else has to
/// happen.
#[derive(Default)]
struct Run(usize);

impl Run {
    fn flush(&mut self, input: &mut BytesMut, out: &mut Outbox) {
        out.to_client.take_from(input, std::mem::take(&mut self.0));
    }
}

impl Ready {
    pub(super) fn feed_server(
        &mut self,
        call: &mut Call<'_>,
        input: &mut BytesMut,
    ) -> Result<(), WireError> {
        let mut run = Run::default();
        let result = self.frames(call, &mut run, input);
        run.flush(input, call.out);
        result
    }

    fn frames(
        &mut self,
        call: &mut Call<'_>,
        run: &mut Run,
        input: &mut BytesMut,
    ) -> Result<(), WireError> {
        let streamed = self.server_remaining.min(input.len());
        self.server_remaining -= streamed;
        run.0 = streamed;
        while let Some(head) = frame::peek(input.get(run.0..).unwrap_or_default())? {
            let kind = Backend::from_tag(head.tag)?;
            let available = input.len() - run.0;
            if self.streams(kind) {
                self.count(kind, head);
                let now = head.len.min(available);
                self.server_remaining = head.len - now;
                run.0 += now;
                continue;
            }
            if head.len > SERVER_FRAME_BYTES_MAX {
                return Err(WireError::TooLong);
            }
            if available < head.len {
                break;
            }
            let body = input.get(run.0 + HEAD_BYTES..run.0 + head.len).unwrap_or_default();
            match self.frame(call, kind, head, body)? {
                Fate::Pass => run.0 += head.len,
                Fate::Drop => {
                    run.flush(input, call.out);
                    input.advance(head.len);
                }
                Fate::Replace(bytes) => {
                    run.flush(input, call.out);
                    call.out.to_client.extend(&bytes);
                    input.advance(head.len);
                }
            }
            if self.has_local() || self.held_ready {
                run.flush(input, call.out);
                self.flush_local(call.out);
                self.release_ready(call);
            }
        }
        Ok(())
    }

    /// Frames that need no look inside and belong to the client: rows, copy data, and the result
    /// of a function call.
    fn streams(&mut self, kind: Backend) -> bool {
        let rows = matches!(kind, Backend::DataRow | Backend::CopyData);
        let result = kind == Backend::FunctionCallResponse;
        match self.pending.head() {
            Some(Expect::Query(flight)) if result => flight.plan.has(Verb::FunctionCall),
            Some(Expect::Query(_) | Expect::Execute(_)) => rows,
            _ => false,
        }
    }

    fn count(&mut self, kind: Backend, head: Head) {
        if let Some(Expect::Query(flight) | Expect::Execute(flight)) = self.pending.head() {
            flight.answering |= kind == Backend::FunctionCallResponse;
            flight.bytes += u64::try_from(head.len).unwrap_or(0);
            if kind == Backend::DataRow {
                flight.streamed_rows += 1;
            }
        }
        if kind == Backend::FunctionCallResponse {
            self.pending.answered();
        }
    }

    fn frame(
        &mut self,
        call: &mut Call<'_>,
        kind: Backend,
        head: Head,
        body: &[u8],
    ) -> Result<Fate, WireError> {
        match kind {
            Backend::ParameterStatus => {
                self.backend.parameter_status(body)?;
                self.scope.follow_dialect(self.backend.dialect());
                return Ok(Fate::Pass);
            }
            Backend::NotificationResponse => return Ok(Fate::Pass),
            Backend::NoticeResponse => return Ok(self.notice(body)),
            Backend::ErrorResponse => return self.error(call, body),
            Backend::ReadyForQuery => return self.ready(call, head, body),
            Backend::CopyInResponse => self.copy_begins(head)?,
            // Replication only.
            Backend::CopyBothResponse
            | Backend::Authentication
            | Backend::BackendKeyData
            | Backend::FunctionCallResponse
            | Backend::NegotiateProtocolVersion => {
                return Err(WireError::UnexpectedMessage(head.tag));
            }
            Backend::BindComplete
            | Backend::CloseComplete
            | Backend::CommandComplete
            | Backend::CopyData
            | Backend::CopyDone
            | Backend::CopyOutResponse
            | Backend::DataRow
            | Backend::EmptyQueryResponse
            | Backend::NoData
            | Backend::ParameterDescription
            | Backend::ParseComplete
            | Backend::PortalSuspended
            | Backend::RowDescription => {}
        }
        self.reply(call, kind, head, body)
    }

    fn reply(
        &mut self,
        call: &mut Call<'_>,
        kind: Backend,
        head: Head,
        body: &[u8],
    ) -> Result<Fate, WireError> {
        let unexpected = Err(WireError::UnexpectedMessage(head.tag));
        let done = match (self.pending.head(), kind) {
            (Some(Expect::Injected(injected)), Backend::DataRow) => {
                injected.row(body)?;
                return Ok(Fate::Drop);
            }
            (Some(Expect::Injected(_)), Backend::RowDescription) => return Ok(Fate::Drop),
            (Some(Expect::Injected(_)), Backend::CommandComplete | Backend::EmptyQueryResponse) => {
                self.pending.answered();
                return Ok(Fate::Drop);
            }
            (Some(Expect::Swallow), Backend::CloseComplete)
            | (Some(Expect::Parse { own: true, .. }), Backend::ParseComplete) => {
                self.pending.pop();
                return Ok(Fate::Drop);
            }
            (Some(Expect::Parse { .. }), Backend::ParseComplete)
            | (Some(Expect::Bind { .. }), Backend::BindComplete)
            | (
                Some(Expect::CloseStatement { .. } | Expect::ClosePortal { .. }),
                Backend::CloseComplete,
            )
            | (Some(Expect::Describe(_)), Backend::RowDescription | Backend::NoData) => true,
            (Some(Expect::Describe(_)), Backend::ParameterDescription) => false,
            (Some(Expect::Query(flight)), Backend::CommandComplete) => {
                let effect = complete_statement(flight, body);
                let prepared = flight.prepares.clone();
                self.pending.step();
                self.pending.answered();
                self.apply(call.turn, effect, prepared, body);
                false
            }
            (Some(Expect::Execute(flight)), Backend::CommandComplete) => {
                let effect = complete_statement(flight, body);
                let prepared = flight.prepares.clone();
                self.pending.step();
                self.apply(call.turn, effect, prepared, body);
                true
            }
            (Some(Expect::Execute(flight)), Backend::PortalSuspended) => {
                flight.rows = flight.streamed_rows;
                true
            }
            (Some(Expect::Execute(_)), Backend::EmptyQueryResponse) => true,
            (Some(Expect::Query(_)), Backend::EmptyQueryResponse) => {
                self.pending.answered();
                false
            }
            (Some(Expect::Query(flight)), Backend::RowDescription)
            | (
                Some(Expect::Query(flight) | Expect::Execute(flight)),
                Backend::CopyInResponse | Backend::CopyOutResponse | Backend::CopyDone,
            ) => {
                flight.answering = true;
                false
            }
            _ => return unexpected,
        };
        if done && let Some(Expect::Execute(flight)) = self.pending.pop() {
            Self::completed(call, &flight);
        }
        Ok(Fate::Pass)
    }

    /// A statement succeeded: follow what it did to the session.
    fn apply(
        &mut self,
        turn: Turn<'_>,
        effect: Option<SessionEffect>,
        prepared: Option<Arc<super::statements::Prepared>>,
        tag: &[u8],
    ) {
        let Some(effect) = effect else { return };
        match &effect {
            SessionEffect::EndTransaction => {
                self.scope.settle();
                self.transaction_ended(turn, !tag.starts_with(b"ROLLBACK"));
            }
            SessionEffect::Prepare { name } => {
                if prepared.is_some() {
                    self.names.set_statement(&Bytes::copy_from_slice(name.as_bytes()), prepared);
                }
            }
            SessionEffect::Deallocate { name: Some(name) } => {
                self.names.set_statement(&Bytes::copy_from_slice(name.as_bytes()), None);
            }
            SessionEffect::Deallocate { name: None } => self.names.forget_statements(),
            SessionEffect::DiscardAll => {
                self.names.forget_statements();
                self.names.forget_cursors();
            }
            SessionEffect::Ddl => self.ddl_seen = true,
            SessionEffect::None
            | SessionEffect::Begin
            | SessionEffect::RollbackTo
            | SessionEffect::SetSearchPath { .. }
            | SessionEffect::SearchPathUncertain
            | SessionEffect::Execute { .. }
            | SessionEffect::Fetch { .. } => {}
        }
        self.scope.apply(&effect);
    }

    fn transaction_ended(&mut self, turn: Turn<'_>, committed: bool) {
        if std::mem::take(&mut self.ddl_seen) && committed {
            turn.analyzer.mark_stale(self.scope.database());
        }
    }

    fn ready(&mut self, call: &mut Call<'_>, head: Head, body: &[u8]) -> Result<Fate, WireError> {
        let &[status @ (b'I' | b'T' | b'E')] = body else { return Err(WireError::BadField) };
        self.status = status;
        self.copy_ends();
        self.overdue = false;
        let failed = std::mem::take(&mut self.batch_failed);
        let batch = match self.pending.head() {
            Some(Expect::Query(flight)) => flight.batch,
            Some(Expect::Sync(batch) | Expect::Poison { batch, .. }) => *batch,
            // Nothing of the client is in flight behind these.
            _ => self.batch,
        };
        if status == b'I' {
            self.transactions += 1;
            self.scope.settle();
            self.transaction_ended(call.turn, !failed);
            self.names.transaction_ended(batch);
        }
        // A ReadyForQuery that nothing went before is not this statement's: were it taken for it,
        // every later reply would be taken for another's.
        let needs_answer =
            matches!(self.pending.head(), Some(Expect::Query(_) | Expect::Injected(_)));
        if needs_answer && !self.pending.is_answered() {
            return Err(WireError::UnexpectedMessage(head.tag));
        }
        let ends = matches!(
            self.pending.head(),
            Some(
                Expect::Query(_)
                    | Expect::Sync(_)
                    | Expect::Poison { simple: true, failed: true, .. }
                    | Expect::Injected(_)
            )
        );
        if !ends {
            // What it stands before stays: its outcome is recorded when the session ends.
            return Err(WireError::UnexpectedMessage(head.tag));
        }
        match self.pending.pop() {
            Some(Expect::Query(flight)) => {
                Self::completed(call, &flight);
                Ok(Fate::Pass)
            }
            Some(Expect::Sync(_) | Expect::Poison { simple: true, failed: true, .. }) => {
                Ok(Fate::Pass)
            }
            Some(Expect::Injected(injected)) => {
                self.injected = self.injected.saturating_sub(1);
                let own_transaction = injected.opens_transaction();
                if let Some((oid, function)) = injected.function() {
                    self.fastpath.learn(oid, function);
                }
                injected.complete(call.turn, &mut self.scope);
                if own_transaction && status != b'I' {
                    // It failed inside the transaction of its own text.
                    self.inject(Purpose::Rollback, call.out);
                }
                Ok(Fate::Drop)
            }
            _ => Err(WireError::UnexpectedMessage(head.tag)),
        }
    }

    fn notice(&mut self, body: &[u8]) -> Fate {
        match self.pending.head() {
            Some(Expect::Injected(_) | Expect::Swallow) => Fate::Drop,
            head => {
                let plan = head.and_then(|expect| expect.plan().map(Arc::clone));
                if self.scrubs(plan.as_deref()) {
                    return scrub::notice(body).map_or(Fate::Drop, Fate::Replace);
                }
                Fate::Pass
            }
        }
    }

    fn error(&mut self, call: &mut Call<'_>, body: &[u8]) -> Result<Fate, WireError> {
        let code = sqlstate(body);
        let overdue = code == *b"57014" && self.overdue && !scrub::ends_session(body);
        self.batch_failed = true;
        self.pending.answered();
        let misplaced = self.copy_fails(body, call.out);
        self.fatal_seen |= scrub::ends_session(body);
        let plan = self.pending.head().and_then(|expect| expect.plan().map(Arc::clone));
        // Errors of parse analysis come before the first row is described, or before Execute.
        let analysis = match self.pending.head() {
            Some(Expect::Query(flight)) => !flight.answering,
            Some(Expect::Parse { .. } | Expect::Describe(_)) => true,
            _ => false,
        };
        let extended = match self.pending.head() {
            Some(Expect::Injected(injected)) => {
                injected.failed();
                return Ok(Fate::Drop);
            }
            Some(Expect::Poison { reply, simple, failed, batch: _ }) => {
                *failed = true;
                let reply = reply.clone();
                if !*simple {
                    self.pending.pop();
                    self.skip_batch(call, *b"25P02");
                }
                return Ok(Fate::Replace(reply));
            }
            Some(Expect::Query(flight)) => {
                flight.error = Some(code);
                false
            }
            Some(Expect::Execute(flight)) => {
                flight.error = Some(code);
                true
            }
            Some(
                Expect::Parse { .. }
                | Expect::Describe(_)
                | Expect::Bind { .. }
                | Expect::CloseStatement { .. }
                | Expect::ClosePortal { .. }
                | Expect::Swallow
                | Expect::Sync(_)
                | Expect::CopyEnd
                | Expect::Local(_),
            ) => true,
            // Out of turn: the server ends the session (shutdown, timeout).
            None => false,
        };
        if extended {
            self.skip_batch(call, code);
        }
        if let Some(reply) = misplaced {
            return Ok(Fate::Replace(reply));
        }
        if overdue {
            return Ok(Fate::Replace(statement_timeout(&call.journal.request_id())));
        }
        if !self.scrubs(plan.as_deref()) {
            return Ok(Fate::Pass);
        }
        Ok(Fate::Replace(scrub::error(plan.as_deref(), body, analysis)))
    }

    fn scrubs(&self, plan: Option<&Plan>) -> bool {
        match plan {
            Some(plan) => plan.scrub,
            // Something of ours, at the end of a transaction, or out of turn: for a governed
            // session nothing is told.
            None => self.scope.class().governed,
        }
    }

    /// After an error in the extended protocol the server skips to the next Sync: so do we, and
    /// names mean again what they meant before the skipped messages.
    fn skip_batch(&mut self, call: &mut Call<'_>, code: [u8; 5]) {
        let (skipped, sync_sent) = self.pending.skip_to_sync();
        for expect in skipped {
            match expect {
                Expect::Query(mut flight) | Expect::Execute(mut flight) => {
                    flight.error.get_or_insert(code);
                    Self::completed(call, &flight);
                }
                Expect::Parse { name, prior, made, own: _ } => {
                    self.names.unparse(&name, &made, prior);
                }
                Expect::Bind { name, prior, made } => self.names.unbind(&name, &made, prior),
                Expect::CloseStatement { name, prior } => {
                    if self.names.statement(&name).is_none() {
                        self.names.set_statement(&name, prior);
                    }
                }
                Expect::ClosePortal { name, prior } => {
                    if self.names.portal(&name).is_none() {
                        self.names.set_portal(&name, prior);
                    }
                }
                // A refusal the client never gets: the batch had already failed.
                Expect::Poison { .. }
                | Expect::Describe(_)
                | Expect::Sync(_)
                | Expect::CopyEnd
                | Expect::Local(_)
                | Expect::Swallow
                | Expect::Injected(_) => {}
            }
        }
        // Messages of this batch that are still to come are skipped by the server itself.
        if self.skip == Skip::No && !sync_sent {
            self.skip = Skip::ForwardSync;
        }
    }

    fn has_local(&mut self) -> bool {
        matches!(self.pending.head(), Some(Expect::Local(_) | Expect::CopyEnd))
    }

    /// Sends what is due from us, up to the next reply of the server.
    pub(super) fn flush_local(&mut self, out: &mut Outbox) {
        while self.has_local() {
            if let Some(Expect::Local(bytes)) = self.pending.pop() {
                out.to_client.extend(&bytes);
            }
        }
    }
}

/// What the server says when its own limit is over, and whose limit it is.
fn statement_timeout(request_id: &str) -> Bytes {
    let report = Report {
        severity: Severity::Error,
        code: "57014",
        message: "canceling statement due to statement timeout",
        detail: Some(request_id),
        hint: Some("the limit is the proxy's; SET statement_timeout does not change it"),
        position: None,
    };
    let mut out = BytesMut::new();
    report.encode(&mut out);
    out.freeze()
}

/// Adds the tag's rows; returns what the completed statement does to the session.
fn complete_statement(flight: &mut InFlight, tag: &[u8]) -> Option<SessionEffect> {
    let tag = tag.strip_suffix(&[0]).unwrap_or(tag);
    flight.rows += tag_rows(tag);
    let effect = flight.plan.effects.get(flight.statement).filter(|e| **e != SessionEffect::None);
    flight.statement += 1;
    flight.answering = false;
    effect.cloned()
}

/// Longest server frame that is read whole: descriptions, errors, parameters.
const SERVER_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
