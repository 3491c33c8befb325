//! A logged-in session: the state both directions share.
//!
//! The client half ([`super::client`]) forwards, rewrites or refuses; the server half
//! ([`super::server`]) matches replies with [`Pending`]. Whether a refusal is answered by us or by
//! making the server fail ("poison") depends on what the server already knows, see
//! [`Ready::can_answer_locally`].

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::catalog_load::{Injected, Purpose};
use super::copying::Copying;
use super::fastpath::Fastpath;
use super::pending::{CopyIn, Expect, InFlight, Pending};
use super::refusals::{
    cursor_outdated, portal_of_bind, reading_in_doubt, too_many_statements, unknown_statement,
};
use super::scope::ScopeTracker;
use super::statements::{Names, Prepared};
use super::{Call, PgConfig, encode_refusal};
use crate::analysis::sql::SessionEffect;
use crate::analysis::{Dialect, SearchPath, Strings};
use crate::event::EventKind;
use crate::facts::Verb;
use crate::session::gate::{self, Plan, Refusal, Words};
use crate::session::{Outbox, Phase, Progress, Turn};
use crate::wire::error::WireError;
use crate::wire::pg::encoding::Encoding;
use crate::wire::pg::message;
use crate::wire::reader::Reader;

/// A logged-in session.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a session, not one state")]
pub(super) struct Ready {
    pub(super) config: Arc<PgConfig>,
    pub(super) scope: ScopeTracker,
    pub(super) backend: Backend,
    pub(super) pending: Pending,
    pub(super) names: Names,
    pub(super) fastpath: Fastpath,
    /// Transaction status of the last ReadyForQuery: `I`, `T` or `E`.
    pub(super) status: u8,
    /// Something was forwarded since the last Sync: the server is inside a batch.
    pub(super) batch_open: bool,
    /// Number of the batch that is being filled: counts Syncs and Queries.
    pub(super) batch: u64,
    /// Number of the last portal.
    pub(super) portals: u64,
    /// The server was told to send what it has, because the client waits at its limit.
    pub(super) flushed: bool,
    /// After a refusal in the extended protocol.
    pub(super) skip: Skip,
    /// What the server does with messages on account of a COPY FROM STDIN.
    pub(super) copying: Copying,
    /// Bytes of a long client message still to be passed on (or dropped, while skipping).
    pub(super) client_remaining: Remaining,
    /// Bytes of a long server message still to be passed on.
    pub(super) server_remaining: usize,
    /// Queries of our own in flight: the client waits.
    pub(super) injected: usize,
    /// A ReadyForQuery that is held back until the injected queries are done.
    pub(super) held_ready: bool,
    /// Session setup: the authentication method, until the opening is recorded.
    opening: Option<&'static str>,
    /// The server was asked something for the message at hand; it is not asked again for it.
    asked: bool,
    /// An error of this batch, for telling a rollback from a commit.
    pub(super) batch_failed: bool,
    /// DDL passed: other sessions' catalogs are stale once it is committed.
    pub(super) ddl_seen: bool,
    /// The server sent a FATAL error itself.
    pub(super) fatal_seen: bool,
    pub(super) closing: bool,
    /// Times the server was outside of a transaction.
    pub(super) transactions: u64,
    /// What is in flight ran over its time; up to the next ReadyForQuery a cancel is ours.
    pub(super) overdue: bool,
    /// Whether what is in flight was let through under the rules that concern the session now.
    oversight: Oversight,
}

/// Since when rules concern the session, as far as it decides how its next text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oversight {
    /// None does.
    None,
    /// A reload extended rules to it while statements were in flight that were free to change how
    /// text is read; the server tells of that at its next ReadyForQuery.
    InDoubt,
    /// Nothing in flight is older than the rules.
    Full,
}

impl Oversight {
    fn of(concerned: bool) -> Self {
        if concerned { Self::Full } else { Self::None }
    }
}

/// What to do with client messages until the next Sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    /// Handle them.
    No,
    /// Drop them and answer the Sync ourselves: the server knows nothing of this batch.
    AnswerSync,
    /// Drop them and forward the Sync: the server is skipping too.
    ForwardSync,
}

/// The rest of a client message that is longer than what was read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remaining {
    /// Pass this many bytes on.
    Pass(usize),
    /// Drop this many bytes.
    Drop(usize),
}

/// What the server told of itself.
#[derive(Debug)]
pub(super) struct Backend {
    /// `client_encoding` was never anything but UTF-8.
    readable_encoding: bool,
    /// `client_encoding` as last told: how to read texts of a session that no rule concerns.
    encoding: Encoding,
    /// `standard_conforming_strings`, never off so far.
    conforming_strings: bool,
    /// How it reads text now.
    dialect: Dialect,
}

impl Default for Backend {
    fn default() -> Self {
        Self {
            readable_encoding: true,
            encoding: Encoding::Utf8,
            conforming_strings: true,
            dialect: Dialect::default(),
        }
    }
}

impl Backend {
    pub(super) fn parameter_status(&mut self, body: &[u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(body);
        let (name, value) = (reader.cstr()?, reader.cstr()?);
        reader.finish()?;
        match name {
            // A session that was ever unreadable stays so: a RESET or a rollback may bring it back,
            // and is told of only after the next statement was read.
            b"client_encoding" => {
                self.encoding = Encoding::of(value);
                self.readable_encoding &= self.encoding == Encoding::Utf8;
            }
            b"standard_conforming_strings" => {
                let on = value == b"on";
                self.conforming_strings &= on;
                self.dialect.strings = if on { Strings::Standard } else { Strings::Escaped };
            }
            b"server_version" => {
                self.dialect.release = release(value).unwrap_or(self.dialect.release);
            }
            _ => {}
        }
        Ok(())
    }

    /// How the server reads text now.
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A text as it is analysed. The server reads it character by character; where the characters
    /// of its encoding are known, and nothing is rewritten, another text of the same characters is
    /// analysed and the client's own bytes go on.
    pub(super) fn read<'t>(&self, concerned: bool, text: &'t [u8]) -> Cow<'t, [u8]> {
        if concerned || self.encoding == Encoding::Utf8 || text.is_ascii() {
            return Cow::Borrowed(text);
        }
        match self.encoding.stand_in(text) {
            Some(read) => Cow::Owned(read.into_bytes()),
            // Refused as no UTF-8: by chance it might be.
            None => Cow::Borrowed(&[0xff]),
        }
    }

    /// Why a text cannot be trusted to mean to the server what it means to us.
    fn unreadable(&self) -> Option<Refusal> {
        let what = match (self.readable_encoding, self.conforming_strings) {
            (true, true) => return None,
            (false, _) => "client_encoding is or was not UTF8",
            (true, false) => "standard_conforming_strings is or was off",
        };
        Some(Refusal {
            code: "0A000",
            message: format!("{what}, so statements cannot be checked"),
            hint: Some(
                "reconnect with client_encoding = UTF8 and standard_conforming_strings = on"
                    .to_owned(),
            ),
            position: None,
            rule: None,
            words: Words::Ours,
        })
    }
}

/// The major release: `15` of `15.18 (Debian 15.18-1)`.
fn release(version: &[u8]) -> Option<u16> {
    let digits = version.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl Ready {
    pub(super) fn new(config: Arc<PgConfig>, mut scope: ScopeTracker, backend: Backend) -> Self {
        scope.follow_dialect(backend.dialect());
        let oversight = Oversight::of(scope.class().concerned);
        Self {
            config,
            scope,
            backend,
            pending: Pending::default(),
            names: Names::default(),
            fastpath: Fastpath::default(),
            status: b'I',
            batch_open: false,
            batch: 0,
            portals: 0,
            flushed: false,
            skip: Skip::No,
            copying: Copying::default(),
            client_remaining: Remaining::Pass(0),
            server_remaining: 0,
            injected: 0,
            held_ready: false,
            opening: None,
            asked: false,
            batch_failed: false,
            ddl_seen: false,
            fatal_seen: false,
            closing: false,
            transactions: 0,
            overdue: false,
            oversight,
        }
    }

    /// The server is ready for the first time: learn what planning needs, then open the session.
    pub(super) fn begin(&mut self, call: &mut Call<'_>, method: &'static str) {
        let turn = call.turn;
        self.held_ready = true;
        self.opening = Some(method);
        if self.scope.class().concerned {
            self.inject(Purpose::SearchPath, call.out);
            if gate::needs_catalog(turn, &self.scope.current(turn)) {
                self.inject(Purpose::Catalog, call.out);
            }
        }
        self.release_ready(call);
    }

    /// Sends the held ReadyForQuery once nothing of ours is in flight.
    pub(super) fn release_ready(&mut self, call: &mut Call<'_>) {
        if self.injected > 0 || !std::mem::take(&mut self.held_ready) {
            return;
        }
        if let Some(method) = self.opening.take() {
            call.journal.opened(call.turn.now, method, call.out);
        }
        call.out.to_client.encode(|out| message::ready_for_query(out, self.status));
    }

    pub(super) fn inject(&mut self, purpose: Purpose, out: &mut Outbox) {
        let text = Injected::text(purpose);
        out.to_server.encode(|out| message::query(out, text.as_bytes()));
        self.pending.push(Expect::Injected(Box::new(Injected::new(purpose))));
        self.injected += 1;
        // A Query destroys the unnamed statement and portal at the server.
        self.names.query_injected();
    }

    /// Before a message of the client is read: whether names mean what they meant.
    pub(super) fn follow_path(&mut self) {
        let implicit = self.status == b'I';
        let settles = self.scope.path_is_unsettled() && self.pending.ends_transaction(implicit);
        self.scope.doubt_path(settles || self.pending.moves_path());
    }

    pub(super) fn wants_client(&self) -> bool {
        self.injected == 0
            && !self.closing
            && !self.holds_for_copy()
            && self.pending.len() < self.config.pending_replies_max
    }

    pub(super) fn server_said_fatal(&self) -> bool {
        self.fatal_seen
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            statements: self.pending.done(),
            transactions: self.transactions,
            in_flight: !self.pending.is_empty(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        if self.closing {
            Phase::Closing
        } else if !self.pending.is_empty() || self.batch_open || self.injected > 0 {
            Phase::Busy
        } else if self.status == b'I' {
            Phase::Idle
        } else {
            Phase::InTransaction
        }
    }

    /// The server works for the client, not for us.
    pub(super) fn cancellable(&self) -> bool {
        self.injected == 0 && (!self.pending.is_empty() || self.batch_open)
    }

    /// Nothing of this session is in flight at the server, and no transaction depends on what we
    /// answer: a refusal needs no help of the server.
    pub(super) fn can_answer_locally(&self) -> bool {
        self.pending.is_empty() && !self.batch_open && self.status != b'T'
    }

    /// The session may put a query of its own in: between statements, outside a transaction.
    pub(super) fn can_inject(&self) -> bool {
        self.pending.is_empty() && !self.batch_open && self.status == b'I'
    }

    /// The same for a question that may be asked inside a transaction, too.
    fn can_ask_path(&self) -> bool {
        let between = self.pending.is_empty() && !self.batch_open;
        between && self.status != b'E' && !self.names.has_unnamed_portal()
    }

    /// Plans a text of the client; `None` if a catalog is being read first and the message must
    /// wait.
    pub(super) fn plan(
        &mut self,
        turn: Turn<'_>,
        text: &[u8],
        out: &mut Outbox,
    ) -> Option<Arc<Plan>> {
        let may_ask = self.can_inject() && !self.asked;
        let scope = self.scope.current(turn);
        let path = may_ask && scope.class.concerned && *scope.path == SearchPath::Uncertain;
        let catalog = may_ask && gate::needs_catalog(turn, &scope);
        if path || catalog {
            self.asked = true;
            if path {
                self.inject(Purpose::SearchPath, out);
            }
            if catalog {
                self.inject(Purpose::Catalog, out);
            }
            return None;
        }
        let read = self.backend.read(scope.class.concerned, text);
        let plan = gate::plan(turn, &scope, &read);
        // Inside a transaction the server is asked only if the answer is needed: a query of ours
        // would be the transaction's first.
        let uncertain = scope.class.concerned && *scope.path == SearchPath::Uncertain;
        if uncertain && plan.is_not_understood() && self.can_ask_path() && !self.asked {
            self.asked = true;
            self.inject(Purpose::SearchPath, out);
            return None;
        }
        if plan.wants_catalog
            && may_ask
            && turn.analyzer.claim_reload(self.scope.database(), turn.now.mono_us)
        {
            self.asked = true;
            self.inject(Purpose::Catalog, out);
            return None;
        }
        self.asked = false;
        Some(plan)
    }

    /// Follows whether rules concern the session, and since when.
    fn watch_oversight(&mut self) {
        let drained = self.pending.is_empty() && !self.batch_open;
        self.oversight = match (self.scope.class().concerned, self.oversight) {
            (true, Oversight::None | Oversight::InDoubt) if !drained => Oversight::InDoubt,
            (concerned, _) => Oversight::of(concerned),
        };
    }

    /// What stands against a plan besides its own verdict.
    pub(super) fn vet(&mut self, turn: Turn<'_>, plan: &Plan) -> Result<(), Refusal> {
        if let gate::Verdict::Refuse(refusal) = &plan.verdict {
            // That the session's encoding is another says more than that the text is not UTF-8.
            let wrong_bytes = refusal.code == gate::NOT_UTF8 && !self.backend.readable_encoding;
            let better = if wrong_bytes { self.backend.unreadable() } else { None };
            return Err(better.unwrap_or_else(|| refusal.clone()));
        }
        self.watch_oversight();
        if !plan.only_ends_or_sets() {
            match self.oversight {
                Oversight::None => {}
                Oversight::InDoubt => return Err(reading_in_doubt()),
                Oversight::Full => self.backend.unreadable().map_or(Ok(()), Err)?,
            }
        }
        if plan.has(Verb::Fetch) {
            self.vet_fetch(turn)?;
        }
        if plan.has(Verb::Declare) {
            let few = self.names.cursor_count() < self.config.prepared_statements_max;
            if !few || !self.names.has_room(plan.record.text_bytes) {
                return Err(too_many_statements());
            }
        }
        for effect in &plan.effects {
            match effect {
                SessionEffect::Execute { name } if plan.prepares_name(name) => {}
                SessionEffect::Execute { name } => self.vet_execute(turn, name)?,
                SessionEffect::Prepare { name } => self.vet_prepare(name.as_bytes(), 0)?,
                SessionEffect::Fetch { name } => self.vet_fetch_of(name)?,
                SessionEffect::None
                | SessionEffect::Begin
                | SessionEffect::EndTransaction
                | SessionEffect::RollbackTo
                | SessionEffect::SetSearchPath { .. }
                | SessionEffect::SearchPathUncertain
                | SessionEffect::Deallocate { .. }
                | SessionEffect::DiscardAll
                | SessionEffect::Ddl => {}
            }
        }
        Ok(())
    }

    /// A statement that is not remembered could not be judged again when it is executed.
    pub(super) fn vet_prepare(&self, name: &[u8], bytes: usize) -> Result<(), Refusal> {
        let known = name.is_empty() || self.names.statement(name).is_some();
        let few = known || self.names.statement_count() < self.config.prepared_statements_max;
        if few && self.names.has_room(bytes) {
            return Ok(());
        }
        Err(too_many_statements())
    }

    /// EXECUTE runs what PREPARE sent: if the rules would send something else today, refuse.
    fn vet_execute(&mut self, turn: Turn<'_>, name: &str) -> Result<(), Refusal> {
        let held = self.names.statement(name.as_bytes()).into_iter();
        let held: Vec<_> = held.chain(self.pending.prepared(name)).map(Arc::clone).collect();
        if held.is_empty() && self.scope.class().concerned {
            // The server may have it: what it would run is not known.
            return Err(unknown_statement(name.as_bytes()));
        }
        if !self.changed(turn, &held) {
            return Ok(());
        }
        Err(Refusal {
            code: "26000",
            message: format!("the rules changed since `{name}` was prepared"),
            hint: Some("DEALLOCATE it and PREPARE it again".to_owned()),
            position: None,
            rule: None,
            words: Words::Ours,
        })
    }

    /// Charges the limits of a plan, and of what its EXECUTEs run.
    pub(super) fn admit(&self, turn: Turn<'_>, plan: &Plan) -> Result<(), Refusal> {
        gate::admit(turn, plan)?;
        for effect in &plan.effects {
            if let SessionEffect::Execute { name } = effect
                && let Some(prepared) = self.names.statement(name.as_bytes())
            {
                gate::admit(turn, &prepared.plan)?;
            }
        }
        Ok(())
    }

    /// FETCH reads what DECLARE, or a Bind, decided: if the rules would send something else today,
    /// refuse. Which cursor a FETCH names is not looked at.
    fn vet_fetch(&mut self, turn: Turn<'_>) -> Result<(), Refusal> {
        let held: Vec<_> = self.names.fetchable().map(Arc::clone).collect();
        if self.changed(turn, &held) { Err(cursor_outdated()) } else { Ok(()) }
    }

    /// A portal runs its statement at the first FETCH as at the first Execute, but only Execute is
    /// recorded and charged as that statement.
    fn vet_fetch_of(&mut self, name: &str) -> Result<(), Refusal> {
        let bound = self.names.portal(name.as_bytes()).is_some();
        if bound && self.scope.class().concerned { Err(portal_of_bind(name)) } else { Ok(()) }
    }

    /// Whether the rules in force would send something else for one of these texts.
    fn changed(&mut self, turn: Turn<'_>, held: &[Arc<Prepared>]) -> bool {
        let scope = self.scope.current(turn);
        held.iter().any(|prepared| {
            prepared.key != Some(scope.key) && {
                let read = self.backend.read(scope.class.concerned, &prepared.text);
                let plan = gate::plan(turn, &scope, &read);
                plan.outgoing(&prepared.text) != prepared.plan.outgoing(&prepared.text)
            }
        })
    }

    /// Records the decision for a statement about to be forwarded.
    pub(super) fn in_flight(call: &mut Call<'_>, plan: Arc<Plan>, extended: bool) -> InFlight {
        let Call { turn, journal, out } = call;
        let generation = turn.rules.generation;
        let kind = EventKind::Decision {
            statement: Arc::clone(&plan.record),
            generation,
            limited_by: None,
            extended,
        };
        let decision = journal.push(turn.now, kind, out);
        journal.owed += 1;
        InFlight {
            copy_in: CopyIn::of(&plan, extended),
            plan,
            decision,
            generation,
            started_us: turn.now.mono_us,
            rows: 0,
            streamed_rows: 0,
            bytes: 0,
            error: None,
            extended,
            answering: extended,
            batch: 0,
            statement: 0,
            prepares: None,
        }
    }

    /// Records a refusal; returns the encoded ErrorResponse.
    pub(super) fn refused(
        call: &mut Call<'_>,
        plan: &Plan,
        refusal: &Refusal,
        extended: bool,
    ) -> Bytes {
        let Call { turn, journal, out } = call;
        let mut reply = BytesMut::new();
        encode_refusal(refusal, &journal.request_id(), &mut reply);
        let statement = match &plan.verdict {
            gate::Verdict::Refuse(_) => Arc::clone(&plan.record),
            // The plan allowed it; something of this moment does not.
            gate::Verdict::Forward | gate::Verdict::Rewrite(_) => {
                Arc::new(plan.record.denied(refusal.code, &refusal.message, refusal.rule.as_ref()))
            }
        };
        let kind = EventKind::Decision {
            statement,
            generation: turn.rules.generation,
            limited_by: refusal.rule.clone().filter(|_| refusal.code == "53400"),
            extended,
        };
        journal.push(turn.now, kind, out);
        reply.freeze()
    }

    /// Records what came of a statement.
    pub(super) fn completed(call: &mut Call<'_>, flight: &InFlight) {
        let Call { turn, journal, out } = call;
        journal.owed = journal.owed.saturating_sub(1);
        let kind = EventKind::Outcome {
            statement: Arc::clone(&flight.plan.record),
            generation: flight.generation,
            decision: flight.decision,
            rows: flight.rows,
            bytes: flight.bytes,
            duration_us: turn.now.mono_us.saturating_sub(flight.started_us),
            error: flight.error,
            extended: flight.extended,
        };
        journal.push(turn.now, kind, out);
    }

    /// The connection ends with replies outstanding: their outcomes are unknown.
    pub(super) fn abandon(&mut self, call: &mut Call<'_>) {
        while let Some(expect) = self.pending.pop() {
            if let Expect::Query(mut flight) | Expect::Execute(mut flight) = expect {
                flight.error.get_or_insert(*b"08006");
                Self::completed(call, &flight);
            }
        }
    }
}
