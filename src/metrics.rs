//! What the process counts, for Prometheus.
//!
//! The children of every label set are resolved at start, so each series exists from start at zero
//! and counting is an atomic add. What a statement or a session did is counted from its audit
//! events, by the audit writer ([`Metrics::observe`]): the hot path counts nothing, and metrics and
//! trail cannot disagree. A gauge that goes down again is a guard with `Drop`.

use std::sync::Arc;

use prometheus::{
    Encoder, Gauge, Histogram, IntCounter, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use crate::event::{
    CommandRun, Event, EventKind, Judgement, RunResult, SessionRecord, StatementRecord,
};

mod labels;
mod registrar;
mod store;
#[cfg(test)]
mod tests;

use labels::{
    AuditResult, Command, Decided, EndKind, ErrorClass, LoginResult, Method, ParseFailure,
    ReloadResult, Source,
};
pub use labels::{Direction, Limit, RejectReason};
use registrar::{Counters, Registrar};

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    datasources: Vec<Arc<DatasourceMetrics>>,
    session_panics: IntCounter,
    sessions_ended: Counters,
    limits_reached: Counters,
    cache_hits: IntCounter,
    cache_misses: IntCounter,
    rules: RulesMetrics,
    certificates: Counters,
    /// The audit queue's.
    pub(crate) audit: AuditMetrics,
}

/// The metrics of one datasource; a listener holds them.
#[derive(Debug)]
pub struct DatasourceMetrics {
    name: Box<str>,
    connections: IntGauge,
    connections_total: IntCounter,
    rejected: Counters,
    auth_attempts: Counters,
    requests: Counters,
    durations: Vec<Histogram>,
    errors: Counters,
    parse_failures: Counters,
    bytes: Counters,
    rows: IntCounter,
    connect_failures: IntCounter,
    catalog_age: Gauge,
    catalog_loads: IntCounter,
    catalog_failures: IntCounter,
}

#[derive(Debug)]
struct RulesMetrics {
    loaded: IntGauge,
    generation: IntGauge,
    info: IntGaugeVec,
    last_success: IntGauge,
    reloads: Counters,
}

/// The audit queue's metrics.
#[derive(Debug)]
pub(crate) struct AuditMetrics {
    events: Counters,
    /// Events accepted and not yet written.
    pub(crate) queued: IntGauge,
    /// Writes that failed.
    pub(crate) sink_failures: IntCounter,
}

/// What a scrape says of the binary.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    /// Version of the product.
    pub version: &'a str,
    /// Commit it was built from.
    pub commit: &'a str,
    /// When the process started, microseconds since the Unix epoch.
    pub started_us: u64,
}

/// A datasource as labels name it.
#[derive(Clone, Copy, Debug)]
pub struct DatasourceLabels<'a> {
    /// Name in the configuration.
    pub name: &'a str,
    /// `postgresql` or `redis`.
    pub protocol: &'a str,
}

/// A rule set that came into force.
#[derive(Clone, Copy, Debug)]
pub struct RulesInForce<'a> {
    /// Number of rules.
    pub rules: usize,
    /// Generation, from 1.
    pub generation: u64,
    /// SHA-256 over the files, hex.
    pub digest: &'a str,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// The metrics library refuses a name; a bug.
    pub fn new(
        build: Build<'_>,
        datasources: &[DatasourceLabels<'_>],
    ) -> prometheus::Result<Arc<Self>> {
        let registry = Registry::new();
        let on = Registrar::new(&registry);
        let info = on.int_gauges(
            "build_info",
            "Constant 1; the labels say what runs",
            &["version", "commit"],
        )?;
        info.get_metric_with_label_values(&[build.version, build.commit])?.set(1);
        let started = on.gauge(
            "start_time_seconds",
            "When the process started, seconds since the Unix epoch",
        )?;
        started.set(seconds(build.started_us));
        on.process()?;
        let families = registrar::Families::new(&on)?;
        let datasources = datasources
            .iter()
            .map(|labels| families.datasource(*labels).map(Arc::new))
            .collect::<prometheus::Result<Vec<_>>>()?;
        let metrics = Self {
            datasources,
            session_panics: on.counter(
                "session_panics_total",
                "Sessions ended by a bug; every one is to be reported",
            )?,
            sessions_ended: on.counters(
                "sessions_ended_total",
                "Sessions ended, by what ended them",
                "end",
                EndKind::ALL.iter().map(|end| end.label()),
            )?,
            limits_reached: on.counters(
                "limits_reached_total",
                "Time limits that were reached, by their key in the configuration",
                "limit",
                Limit::ALL.iter().map(|limit| limit.label()),
            )?,
            cache_hits: on
                .counter("decision_cache_hits_total", "Statements whose decision was cached")?,
            cache_misses: on
                .counter("decision_cache_misses_total", "Statements that had to be decided")?,
            rules: RulesMetrics::new(&on)?,
            certificates: on.counters(
                "certificate_reloads_total",
                "Certificates whose files changed, by what became of them",
                "result",
                ReloadResult::ALL.iter().map(|result| result.label()),
            )?,
            audit: AuditMetrics::new(&on)?,
            registry,
        };
        Ok(Arc::new(metrics))
    }

    /// The metrics of a datasource of the configuration.
    pub fn datasource(&self, name: &str) -> Option<&Arc<DatasourceMetrics>> {
        self.datasources.iter().find(|datasource| &*datasource.name == name)
    }

    /// A session panicked: always a bug.
    pub fn session_panicked(&self) {
        self.session_panics.inc();
    }

    /// A time limit was reached.
    pub fn limit_reached(&self, limit: Limit) {
        self.limits_reached.inc(limit.index());
    }

    /// Brings the cache counters up to these totals.
    pub fn decision_cache(&self, hits_total: u64, misses_total: u64) {
        for (counter, total) in [(&self.cache_hits, hits_total), (&self.cache_misses, misses_total)]
        {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// A rule set came into force.
    pub fn rules_accepted(&self, rules: RulesInForce<'_>) {
        self.rules.loaded.set(clamp(rules.rules));
        self.rules.generation.set(clamp(rules.generation));
        self.rules.info.reset();
        self.rules.info.with_label_values(&[rules.digest]).set(1);
        self.rules.last_success.set(1);
        self.rules.reloads.inc(ReloadResult::Accepted.index());
    }

    /// A rule set was refused; the one in force stays.
    pub fn rules_rejected(&self) {
        self.rules.last_success.set(0);
        self.rules.reloads.inc(ReloadResult::Rejected.index());
    }

    /// Certificates were replaced by others.
    pub fn certificates_accepted(&self) {
        self.certificates.inc(ReloadResult::Accepted.index());
    }

    /// Certificates cannot be used; those in use stay.
    pub fn certificates_rejected(&self) {
        self.certificates.inc(ReloadResult::Rejected.index());
    }

    /// Counts what an event tells. Called by the audit writer, once per event.
    pub fn observe(&self, event: &Event) {
        let session = event.session.as_deref();
        match &event.kind {
            EventKind::SessionOpened { method } => {
                self.login(session, method, LoginResult::Success);
            }
            EventKind::LoginFailed { code, method, reason: _ } => {
                self.login(session, method.unwrap_or_default(), LoginResult::Failure);
                self.error(session, Source::of_server_error(code), code);
            }
            EventKind::SessionClosed { end } => self.sessions_ended.inc(EndKind::of(end).index()),
            EventKind::Decision { statement, limited_by, .. } => {
                let judgement = statement.judgement().or_limited(limited_by.as_ref());
                self.decision(session, statement, judgement);
            }
            EventKind::Outcome { statement, rows, duration_us, error, .. } => {
                if let Some(datasource) = self.of_session(session) {
                    datasource.completed(statement, *rows, *duration_us);
                }
                if let Some(code) = error.as_ref().and_then(|code| std::str::from_utf8(code).ok()) {
                    self.error(session, Source::of_server_error(code), code);
                }
            }
            EventKind::CommandsDecided { run, limited_by } => {
                if let Some(datasource) = self.of_session(session) {
                    let judgement = run.record.judgement().or_limited(limited_by.as_ref());
                    datasource.commands(run, judgement);
                }
            }
            EventKind::CommandsCompleted { run, decision: _, result } => {
                if let Some(datasource) = self.of_session(session) {
                    datasource.commands_completed(run, *result);
                }
            }
            EventKind::Reload { .. }
            | EventKind::Lifecycle { .. }
            | EventKind::Operator { .. }
            | EventKind::Gap { .. } => {}
        }
    }

    /// Everything, in the text format of Prometheus.
    ///
    /// # Errors
    /// The encoder refuses a family; a bug.
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn of_session(&self, session: Option<&SessionRecord>) -> Option<&DatasourceMetrics> {
        session.and_then(|session| self.datasource(&session.datasource)).map(Arc::as_ref)
    }

    fn login(&self, session: Option<&SessionRecord>, method: &str, result: LoginResult) {
        if let Some(datasource) = self.of_session(session) {
            let method = Method::of(method).index();
            datasource.auth_attempts.inc(method * LoginResult::ALL.len() + result.index());
        }
    }

    fn decision(
        &self,
        session: Option<&SessionRecord>,
        statement: &StatementRecord,
        judgement: Judgement,
    ) {
        let Some(datasource) = self.of_session(session) else { return };
        let decided = Decided::of(judgement).index();
        datasource.requests.inc(Command::of(statement).index() * Decided::ALL.len() + decided);
        if let Some(failure) = ParseFailure::of(statement) {
            datasource.parse_failures.inc(failure.index());
        }
    }

    fn error(&self, session: Option<&SessionRecord>, source: Source, code: &str) {
        if let Some(datasource) = self.of_session(session) {
            datasource.error(source, code);
        }
    }
}

// === impl DatasourceMetrics ===

impl DatasourceMetrics {
    /// A client connected; it is counted until the guard is dropped.
    pub fn connection_opened(&self) -> ConnectionGuard {
        self.connections_total.inc();
        self.connections.inc();
        ConnectionGuard { open: self.connections.clone() }
    }

    /// A client was turned away before it became a session.
    pub fn connection_rejected(&self, reason: RejectReason) {
        self.rejected.inc(reason.index());
    }

    /// Bytes went through.
    pub fn moved(&self, direction: Direction, bytes: u64) {
        self.bytes.add(direction.index(), bytes);
    }

    /// The server could not be reached.
    pub fn connect_failed(&self) {
        self.connect_failures.inc();
    }

    /// The proxy itself failed a client, with this SQLSTATE.
    pub fn proxy_error(&self, code: &str) {
        self.error(Source::Proxy, code);
    }

    /// A catalog was read.
    pub fn catalog_loaded(&self) {
        self.catalog_loads.inc();
    }

    /// A catalog could not be read; the one in force stays.
    pub fn catalog_failed(&self) {
        self.catalog_failures.inc();
    }

    /// Age of the oldest catalog in force, for the next scrape.
    pub fn catalog_age_us(&self, age_us: u64) {
        self.catalog_age.set(seconds(age_us));
    }

    fn completed(&self, statement: &StatementRecord, rows: u64, duration_us: u64) {
        self.rows.inc_by(rows);
        if let Some(histogram) = self.durations.get(Command::of(statement).index()) {
            histogram.observe(seconds(duration_us));
        }
    }

    /// Counts a run of commands that were decided alike.
    fn commands(&self, run: &CommandRun, judgement: Judgement) {
        let decided = Decided::of(judgement).index();
        let command = Command::of_class(run.record.class).index();
        self.requests.add(command * Decided::ALL.len() + decided, run.count);
        if run.record.is_unknown() {
            self.parse_failures.add(ParseFailure::Unsupported.index(), run.count);
        }
    }

    /// A run is timed as one, by what a command of it took on average; its errors are put down to what
    /// the first of them was.
    fn commands_completed(&self, run: &CommandRun, result: RunResult) {
        let RunResult { later, failed, error, bytes: _, duration_us } = result;
        let command = Command::of_class(run.record.class).index();
        let decided = Decided::of(run.record.judgement()).index();
        self.requests.add(command * Decided::ALL.len() + decided, later);
        if let Some(histogram) = self.durations.get(command) {
            histogram.observe(seconds(duration_us / run.count.max(1)));
        }
        if let Some(error) = error {
            let (source, class) = store::placed(error);
            self.errors.add(source.index() * ErrorClass::ALL.len() + class.index(), failed);
        }
    }

    fn error(&self, source: Source, code: &str) {
        self.errors.inc(source.index() * ErrorClass::ALL.len() + ErrorClass::of(code).index());
    }
}

/// One client connection, counted as long as this lives.
#[derive(Debug)]
pub struct ConnectionGuard {
    open: IntGauge,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.open.dec();
    }
}

// === impl RulesMetrics ===

impl RulesMetrics {
    fn new(on: &Registrar<'_>) -> prometheus::Result<Self> {
        let info = on.int_gauges(
            "rules_info",
            "Constant 1; the label is the SHA-256 of the rule set in force",
            &["digest"],
        )?;
        // The family exists before the first rule set does.
        info.get_metric_with_label_values(&[""])?.set(0);
        Ok(Self {
            loaded: on.int_gauge("rules_loaded", "Rules in force")?,
            generation: on.int_gauge("rules_generation", "Rule sets accepted since start")?,
            info,
            last_success: on
                .int_gauge("rules_last_reload_success", "1 when the last reload was accepted")?,
            reloads: on.counters(
                "rules_reloads_total",
                "Reloads, by what became of them",
                "result",
                ReloadResult::ALL.iter().map(|result| result.label()),
            )?,
        })
    }
}

// === impl AuditMetrics ===

impl AuditMetrics {
    fn new(on: &Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            events: on.counters(
                "audit_events_total",
                "Audit events, by what became of them",
                "result",
                AuditResult::ALL.iter().map(|result| result.label()),
            )?,
            queued: on
                .int_gauge("audit_queue_events", "Audit events accepted and not yet written")?,
            sink_failures: on
                .counter("audit_sink_failures_total", "Writes of audit events that failed")?,
        })
    }

    /// Events reached the sink.
    pub(crate) fn written(&self, events: usize) {
        self.events.add(AuditResult::Written.index(), u64::try_from(events).unwrap_or(u64::MAX));
        self.queued.sub(clamp(events));
    }

    /// An event was dropped because the queue was full.
    pub(crate) fn dropped(&self) {
        self.events.inc(AuditResult::Dropped.index());
    }

    /// Events were accepted into the queue.
    pub(crate) fn accepted(&self, events: usize) {
        self.queued.add(clamp(events));
    }
}

/// Microseconds as seconds, exact far beyond any duration we measure.
fn seconds(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64()
}

fn clamp(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
