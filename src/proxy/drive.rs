//! Drives one session: reads, feeds, writes, and carries out what the session asks for.
//!
//! One task per connection and both directions in one loop, without a channel between them:
//!
//! ```text
//!         ┌──────── flush both queues ◄────────┐
//!         ▼                                    │
//!   effect asked for? ──► carry it out ────────┤
//!         │ no                                 │
//!         ▼                                    │
//!   server, client: read once ─► feed ─────────┘   nothing ready: sleep
//! ```
//! Backpressure: the server is read while `to_client` is below the high-water mark, the client
//! while *both* queues are, because a refused statement is answered without the server. Places in
//! the audit queue are held before a client's bytes are fed; a full queue slows the client.
//! Deliberately absent: locks, per-connection tasks beyond this one, and any knowledge of what the
//! bytes mean.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use tokio::time::Sleep;
use tracing::{debug, info, warn};

use super::admission::{Admission, Taken};
use super::cancel::CancelGuard;
use super::deadlines::{Deadlines, Due, Standing};
use super::end::End;
use super::leg::{Leg, LegStream, Stream, poll_drain};
use super::registry::Registered;
use super::seat::{Full, Seat};
use super::shared::Datasource;
use super::shutdown::{Stage, StageWatch};
use super::uid::Birth;
use super::upstream::{Dial, Place};
use crate::config::OnClientGone;
use crate::metrics::{ConnectionGuard, DatasourceMetrics, Direction, RejectReason};
use crate::session::gate::ActiveRules;
use crate::session::{Answer, Effect, EndCause, Outbox, Phase, ProtocolError, Session, Side};

/// One connection with its session.
pub(crate) struct Connection<S, C, D: Dial> {
    pub(super) session: S,
    pub(super) birth: Birth,
    pub(super) datasource: Arc<Datasource<D>>,
    /// The rules, kept at hand so that a turn touches no counter all connections share; each asks
    /// whether they are still in force.
    rules: Cache<Arc<ArcSwap<ActiveRules>>, Arc<ActiveRules>>,
    pub(super) client: Leg<LegStream<C>>,
    /// `None` until the session asks for it, and once it is closed.
    pub(super) server: Option<Leg<D::Stream>>,
    pub(super) out: Outbox,
    pub(super) cancel: Option<CancelGuard>,
    /// How the admin port sees this connection.
    pub(super) seen: Registered,
    /// Which server it is, so that a cancel goes to the same.
    pub(super) place: Place,
    pub(super) admission: Admission,
    /// No client's place was left when the login was over.
    overbooked: Option<Taken>,
    seat: Seat,
    stage: StageWatch,
    newcomer: Newcomer,
    pub(super) deadlines: Deadlines,
    /// When the session last took something in, monotonic microseconds.
    turned_us: u64,
    /// A cancel on its way to the server. Until the server has taken it, nothing else is sent: it
    /// would be hit instead.
    pub(super) stopping: Option<Stopping>,
    traffic: Traffic,
    _counted: ConnectionGuard,
}

/// Bytes read and not yet added to the metrics: shared counters are touched once per many turns.
#[derive(Default)]
struct Traffic {
    from_client: u64,
    from_server: u64,
}

/// Hands a cancel to the server; over when the server has taken it, or could not be reached.
pub(super) type Stopping = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A client that has just logged in; the alarm is set only when the process drains.
#[derive(Default)]
struct Newcomer {
    since_us: u64,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S: Session, C: Stream, D: Dial> Connection<S, C, D> {
    /// A fresh connection.
    pub(crate) fn new(
        session: S,
        birth: Birth,
        client: C,
        datasource: Arc<Datasource<D>>,
        admission: Admission,
    ) -> Self {
        let shared = &datasource.shared;
        let seat = Seat::new(shared.audit.clone());
        let now = shared.clock.now();
        let deadlines = Deadlines::of_login(admission.remaining(), now.mono_us);
        let mut seen = shared.sessions.enter(&birth.uid, &datasource.name, now);
        seen.identify(session.record());
        Self {
            session,
            birth,
            rules: Cache::new(Arc::clone(&shared.rules)),
            client: Leg::new(LegStream::Plain(client)),
            server: None,
            out: Outbox::default(),
            cancel: None,
            seen,
            place: Place::default(),
            admission,
            overbooked: None,
            seat,
            stage: StageWatch::default(),
            newcomer: Newcomer::default(),
            deadlines,
            turned_us: now.mono_us,
            stopping: None,
            traffic: Traffic::default(),
            _counted: datasource.metrics.connection_opened(),
            datasource,
        }
    }

    /// Runs the connection to its end.
    pub(crate) async fn run(mut self) -> End {
        let end = match self.reserve().await {
            Ok(()) => self.turns().await,
            Err(end) => end,
        };
        debug!(session = self.birth.uid, end = end.name(), "connection ends");
        self.traffic.report(&self.datasource.metrics);
        Box::pin(self.close(end)).await;
        end
    }

    /// Turns the client away before a byte of it is looked at.
    pub(crate) async fn refuse(mut self, cause: EndCause) -> End {
        let end = match self.reserve().await {
            Ok(()) => self.finish(cause),
            Err(end) => end,
        };
        Box::pin(self.close(end)).await;
        end
    }

    async fn turns(&mut self) -> End {
        loop {
            let step = std::future::poll_fn(|cx| self.poll_step(cx)).await;
            let done = match step {
                Ok(effect) => Box::pin(self.carry_out(effect)).await,
                Err(end) => Err(end),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Goes on until the session asks for something or the connection ends.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Effect, End>> {
        // A reload wakes everybody: no connection at rest keeps rules that are in force no more.
        self.rules.load();
        loop {
            // A guess counts before its answer can be read: the next one may come at once.
            self.note_logins();
            self.flush(cx)?;
            if !self.out.effects.is_empty() {
                return Poll::Ready(Ok(self.out.effects.remove(0)));
            }
            self.check_stage(cx)?;
            if self.poll_turn(Side::Server, cx)?.is_ready()
                || self.poll_turn(Side::Client, cx)?.is_ready()
                || self.poll_stopped(cx).is_ready()
            {
                continue;
            }
            self.rest();
            ready!(self.poll_deadlines(cx))?;
        }
    }

    /// Reads a side once and feeds it. Pending: nothing can be done for this side now.
    fn poll_turn(&mut self, side: Side, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if !self.may_take(side) {
            return Poll::Pending;
        }
        let fresh = match side {
            Side::Client => self.client.input.fresh,
            Side::Server => self.server.as_ref().is_some_and(|leg| leg.input.fresh),
        };
        if !fresh {
            match ready!(self.poll_read(side, cx)) {
                Ok(n) if n > 0 => {}
                end => {
                    let error = end.err();
                    debug!(session = self.birth.uid, ?side, ?error, "peer is gone");
                    return Poll::Ready(Err(self.finish(gone(side))));
                }
            }
        }
        let owed = self.session.owed_events();
        // After the login a server's bytes only complete what is owed already: they need not wait.
        let waits = side == Side::Client || self.session.phase() == Phase::Login;
        if !self.seat.try_reserve(owed)
            && waits
            && let Err(Full) = ready!(self.seat.poll_reserve(owed, cx))
        {
            return Poll::Ready(Err(self.finish(EndCause::AuditUnavailable)));
        }
        Poll::Ready(self.feed(side))
    }

    /// One read. The bytes are the session's to see: the input is fresh.
    fn poll_read(&mut self, side: Side, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let max = self.datasource.shared.limits.read_bytes_max;
        let (read, input) = match side {
            Side::Client => {
                let Leg { stream, input, .. } = &mut self.client;
                (ready!(input.poll_read(stream, max, cx)), input)
            }
            Side::Server => {
                let Some(Leg { stream, input, .. }) = &mut self.server else {
                    return Poll::Pending;
                };
                (ready!(input.poll_read(stream, max, cx)), input)
            }
        };
        input.fresh = true;
        if let Ok(n) = read {
            self.traffic.add(side, n, &self.datasource.metrics);
            self.seen.moved(direction(side), u64::try_from(n).unwrap_or(u64::MAX));
        }
        Poll::Ready(read)
    }

    /// Offers a side's input to the session.
    fn feed(&mut self, side: Side) -> Result<(), End> {
        let Self { session, datasource, rules, client, server, out, seat, turned_us, .. } = self;
        let input = match (side, &mut *server) {
            (Side::Client, _) => &mut client.input,
            (Side::Server, Some(server)) => &mut server.input,
            (Side::Server, None) => return Ok(()),
        };
        out.room = seat.room(session.owed_events());
        let before = (input.bytes.len(), out.to_client.len(), out.to_server.len());
        let turn = datasource.turn(rules.load());
        *turned_us = turn.now.mono_us;
        let result = session.feed(turn, side, &mut input.bytes, out);
        let after = (input.bytes.len(), out.to_client.len(), out.to_server.len());
        let progress = before != after || !out.events.is_empty() || !out.effects.is_empty();
        // What is left is offered again only if the session's state may have changed since.
        input.fresh = false;
        let left = input.bytes.len();
        if progress {
            self.offer_leftovers();
        }
        self.settle();
        self.checked(result)?;
        if left > self.datasource.shared.limits.held_bytes_max {
            warn!(session = self.birth.uid, ?side, bytes = left, "a message is too long to hold");
            return Err(self.finish(gone(side)));
        }
        Ok(())
    }

    /// Gives the session the answer to an effect.
    pub(super) async fn resume(&mut self, answer: Answer) -> Result<(), End> {
        self.reserve().await?;
        let Self { session, datasource, rules, out, seat, turned_us, .. } = self;
        out.room = seat.room(session.owed_events());
        let turn = datasource.turn(rules.load());
        *turned_us = turn.now.mono_us;
        let result = session.resume(turn, answer, out);
        self.offer_leftovers();
        self.settle();
        self.checked(result)
    }

    /// Ends the session for a reason of the shell's: its last words are queued, its last events
    /// recorded.
    pub(super) fn finish(&mut self, cause: EndCause) -> End {
        let running = self.session.phase() == Phase::Busy;
        let left = self.what_is_left(cause);
        let Self { session, datasource, rules, out, .. } = self;
        session.end(datasource.turn(rules.load()), cause, out);
        self.settle();
        self.out.effects.clear();
        match left {
            Left::Answer => {}
            Left::Nothing if !running => {}
            // Nobody waits for the answer.
            Left::Nothing => self.server = None,
            Left::Statement => {
                self.stopping = self.cancel_at_server();
                self.server = None;
            }
        }
        match cause {
            EndCause::ClientGone => End::Client,
            EndCause::ServerGone => End::Server,
            EndCause::Shutdown => End::Shutdown,
            EndCause::Operator => End::Operator,
            EndCause::LoginTimeout
            | EndCause::IdleTimeout
            | EndCause::IdleInTransaction
            | EndCause::StatementTimeout
            | EndCause::TransactionTimeout
            | EndCause::Lifetime => End::Timeout,
            EndCause::AuditUnavailable => End::Audit,
            EndCause::AddressRefused
            | EndCause::HeaderRefused
            | EndCause::TooManyLogins
            | EndCause::TooManyClients => End::Refused,
        }
    }

    /// Holds room for one turn, waiting for it as the configuration says.
    async fn reserve(&mut self) -> Result<(), End> {
        let owed = self.session.owed_events();
        let held = std::future::poll_fn(|cx| self.seat.poll_reserve(owed, cx)).await;
        held.map_err(|Full| self.finish(EndCause::AuditUnavailable))
    }

    fn checked(&self, result: Result<(), ProtocolError>) -> Result<(), End> {
        result.map_err(|ProtocolError { side, kind }| {
            warn!(
                session = self.birth.uid,
                datasource = &*self.datasource.name,
                ?side,
                error = %kind,
                "protocol violation, connection closed"
            );
            End::Protocol
        })
    }

    /// Records the turn's events and sets up or ends the timers its phase asks for.
    fn settle(&mut self) {
        self.seen.observe(&self.out.events);
        let logging_in = self.deadlines.in_login();
        self.seen.identify(self.session.record());
        self.seat.settle(&mut self.out.events, self.session.owed_events());
        if let Some(cancel) = &self.cancel {
            cancel.set_busy(self.session.cancellable());
        }
        let standing = Standing {
            phase: self.session.phase(),
            progress: self.session.progress(),
            decided: self.seen.statements(),
        };
        if logging_in && standing.phase != Phase::Login {
            self.newcomer.since_us = self.turned_us;
            if standing.phase != Phase::Closing {
                self.overbooked = self.admission.logged_in().err();
            }
            let lot = self.birth.lot();
            self.deadlines.logged_in(&self.datasource.limits, lot, self.turned_us);
        }
        self.deadlines.heard(standing, self.turned_us);
        self.deadlines.settles(self.session.settles_at());
    }

    /// Bytes left over may be wanted now.
    fn offer_leftovers(&mut self) {
        self.client.input.fresh |= !self.client.input.bytes.is_empty();
        if let Some(server) = &mut self.server {
            server.input.fresh |= !server.input.bytes.is_empty();
        }
    }

    fn may_take(&self, side: Side) -> bool {
        let high = self.datasource.shared.limits.high_water_bytes;
        let below = match side {
            Side::Client => {
                let waiting = self.out.to_client.len().max(self.out.to_server.len());
                waiting < high && self.stopping.is_none()
            }
            Side::Server => self.out.to_client.len() < high,
        };
        below && self.session.wants(side)
    }

    /// Writes what the peers take now.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Self { client, server, out, stopping, .. } = self;
        if let Poll::Ready(Err(error)) =
            poll_drain(&mut client.stream, &mut out.to_client, &mut client.dirty, cx)
        {
            debug!(session = self.birth.uid, %error, "client is gone");
            return Err(self.finish(EndCause::ClientGone));
        }
        let Some(server) = server else { return Ok(()) };
        if !server.broken
            && stopping.is_none()
            && let Poll::Ready(Err(error)) =
                poll_drain(&mut server.stream, &mut out.to_server, &mut server.dirty, cx)
        {
            // Its last words may still be there to be read; the end of the stream follows them.
            debug!(session = self.birth.uid, %error, "server takes no more");
            server.broken = true;
        }
        if server.broken {
            out.to_server = crate::wire::queue::ByteQueue::default();
        }
        Ok(())
    }

    fn check_stage(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if self.seen.poll_ended(cx) {
            return Err(self.finish(EndCause::Operator));
        }
        if self.overbooked.is_some() {
            self.datasource.metrics.connection_rejected(RejectReason::ClientsMax);
            return Err(self.finish(EndCause::TooManyClients));
        }
        let over = match self.stage.poll(&self.datasource.shared.shutdown, cx) {
            Stage::Running => false,
            Stage::Draining => self.rests() && self.newcomer_waited(cx),
            Stage::Ending => true,
        };
        if over { Err(self.finish(EndCause::Shutdown)) } else { Ok(()) }
    }

    /// Whether nothing is cut off when the session ends now.
    fn rests(&self) -> bool {
        match self.session.phase() {
            Phase::Idle | Phase::Listening => true,
            Phase::Login | Phase::InTransaction | Phase::Busy | Phase::Closing => false,
        }
    }

    /// Whether the client, which is idle, had the time to ask something after its login.
    fn newcomer_waited(&mut self, cx: &mut Context<'_>) -> bool {
        let shared = &self.datasource.shared;
        let Newcomer { since_us, alarm } = &mut self.newcomer;
        let known = Duration::from_micros(shared.clock.now().mono_us.saturating_sub(*since_us));
        let left = shared.limits.drain_grace.saturating_sub(known);
        let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
        left.is_zero() || alarm.as_mut().poll(cx).is_ready()
    }

    /// Ready when a limit was reached and something was done about it.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let clock = &self.datasource.shared.clock;
        let now_us = || clock.now().mono_us;
        let due = ready!(self.deadlines.poll(&self.datasource.limits, now_us, cx));
        if let Some(limit) = due.limit() {
            info!(session = self.birth.uid, limit = limit.label(), "a limit was reached");
            self.datasource.shared.metrics.limit_reached(limit);
        }
        match due {
            Due::Settle => {
                let Self { session, datasource, rules, out, .. } = self;
                session.settle(datasource.turn(rules.load()), out);
                self.settle();
                Poll::Ready(Ok(()))
            }
            Due::End(cause) => Poll::Ready(Err(self.finish(cause))),
            // The server gave nothing to cancel it with.
            Due::Cancel if self.cancel.is_none() => {
                Poll::Ready(Err(self.finish(EndCause::StatementTimeout)))
            }
            Due::Cancel => {
                self.session.overdue();
                self.deadlines.cancelled(now_us());
                self.stopping = self.cancel_at_server();
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Ready when a cancel that was on its way has arrived.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stopping) = &mut self.stopping else { return Poll::Pending };
        ready!(stopping.as_mut().poll(cx));
        self.stopping = None;
        Poll::Ready(())
    }

    /// Cancels what the server does for this session; `None` if it gave no key for that.
    fn cancel_at_server(&self) -> Option<Stopping> {
        let theirs = self.cancel.as_ref()?.target()?;
        let datasource = Arc::clone(&self.datasource);
        let uid = self.birth.uid.clone();
        Some(Box::pin(async move {
            let patience = datasource.shared.limits.cancel_timeout;
            let sent = datasource.cancels.forward(&datasource.dial, &theirs, patience).await;
            if let Err(error) = sent {
                warn!(session = uid, %error, "cancel was not delivered");
            }
        }))
    }

    /// What an end for this cause leaves at the server.
    fn what_is_left(&self, cause: EndCause) -> Left {
        let statement = if self.session.cancellable() { Left::Statement } else { Left::Nothing };
        match cause {
            EndCause::Operator
            | EndCause::TransactionTimeout
            | EndCause::Lifetime
            | EndCause::Shutdown => statement,
            EndCause::ClientGone => match self.datasource.limits.on_client_gone {
                OnClientGone::Cancel => statement,
                OnClientGone::Leave => Left::Nothing,
            },
            // It was cancelled in vain.
            EndCause::StatementTimeout => Left::Nothing,
            EndCause::ServerGone
            | EndCause::LoginTimeout
            | EndCause::IdleTimeout
            | EndCause::IdleInTransaction
            | EndCause::AuditUnavailable
            | EndCause::AddressRefused
            | EndCause::HeaderRefused
            | EndCause::TooManyLogins
            | EndCause::TooManyClients => Left::Answer,
        }
    }

    /// Nothing to do for now: tells where the session stands, and gives back memory of a burst when
    /// nothing is in flight.
    fn rest(&mut self) {
        let phase = self.session.phase();
        // It has stood there since its last turn: the clock need not be asked again.
        self.seen.stands(phase, self.turned_us);
        match phase {
            Phase::Idle | Phase::InTransaction | Phase::Listening => {
                self.client.input.rest();
                if let Some(server) = &mut self.server {
                    server.input.rest();
                }
                self.out.to_client.rest();
                self.out.to_server.rest();
            }
            Phase::Login | Phase::Busy | Phase::Closing => {}
        }
    }
}

impl Traffic {
    fn add(&mut self, side: Side, bytes: usize, metrics: &DatasourceMetrics) {
        let counter = match side {
            Side::Client => &mut self.from_client,
            Side::Server => &mut self.from_server,
        };
        *counter = counter.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if *counter >= TRAFFIC_REPORT_BYTES {
            self.report(metrics);
        }
    }

    fn report(&mut self, metrics: &DatasourceMetrics) {
        metrics.moved(Direction::FromClient, std::mem::take(&mut self.from_client));
        metrics.moved(Direction::ToClient, std::mem::take(&mut self.from_server));
    }
}

/// How many bytes a connection keeps to itself before it reports them.
const TRAFFIC_REPORT_BYTES: u64 = 64 * 1024;

/// What an end leaves at the server.
enum Left {
    /// Nothing of use.
    Nothing,
    /// What it may still have to say is for the client.
    Answer,
    /// A statement that is to be cancelled.
    Statement,
}

fn direction(side: Side) -> Direction {
    match side {
        Side::Client => Direction::FromClient,
        Side::Server => Direction::ToClient,
    }
}

fn gone(side: Side) -> EndCause {
    match side {
        Side::Client => EndCause::ClientGone,
        Side::Server => EndCause::ServerGone,
    }
}
