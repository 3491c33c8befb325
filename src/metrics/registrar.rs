//! Registering metrics under our prefix, with all children resolved.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

use super::labels::{
    Command, Decided, Direction, ErrorClass, LoginResult, Method, ParseFailure, RejectReason,
    Source,
};
use super::{DatasourceLabels, DatasourceMetrics};

/// Upper bounds of the duration histogram, seconds. 0.5 and 2 are the thresholds people alert on.
const DURATION_BUCKETS_S: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0];

/// Counters of one closed label set (or the product of two), by index.
#[derive(Debug)]
pub(super) struct Counters(Vec<IntCounter>);

impl Counters {
    pub(super) fn inc(&self, index: usize) {
        self.add(index, 1);
    }

    pub(super) fn add(&self, index: usize, by: u64) {
        if let Some(counter) = self.0.get(index) {
            counter.inc_by(by);
        }
    }
}

/// Registers metrics on a registry.
pub(super) struct Registrar<'a> {
    registry: &'a Registry,
}

impl<'a> Registrar<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self { registry }
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(opts(name, help))?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.register(Gauge::with_opts(opts(name, help))?)
    }

    pub(super) fn int_gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    pub(super) fn int_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(opts(name, help), labels)?)
    }

    /// Counters with one label.
    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = &'static str>,
    ) -> prometheus::Result<Counters> {
        let family = self.counter_family(name, help, &[label])?;
        let children = values.map(|value| family.get_metric_with_label_values(&[value]));
        children.collect::<prometheus::Result<_>>().map(Counters)
    }

    /// CPU, memory and descriptors of the process, under their usual names.
    pub(super) fn process(&self) -> prometheus::Result<()> {
        self.registry.register(Box::new(ProcessCollector::for_self()))
    }

    fn counter_family(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(opts(name, help), labels)?)
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

/// The families every datasource has children in.
pub(super) struct Families {
    connections: IntGaugeVec,
    connections_total: IntCounterVec,
    rejected: IntCounterVec,
    auth_attempts: IntCounterVec,
    requests: IntCounterVec,
    durations: HistogramVec,
    errors: IntCounterVec,
    parse_failures: IntCounterVec,
    bytes: IntCounterVec,
    rows: IntCounterVec,
    connect_failures: IntCounterVec,
    catalog_age: GaugeVec,
    catalog_loads: IntCounterVec,
    catalog_failures: IntCounterVec,
}

impl Families {
    pub(super) fn new(on: &Registrar<'_>) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            on.counter_family(name, help, &[&["protocol", "datasource"], labels].concat())
        };
        let duration = HistogramOpts::from(opts(
            "request_duration_seconds",
            "From forwarding a statement to its completion",
        ))
        .buckets(DURATION_BUCKETS_S.to_vec());
        let labels = ["protocol", "datasource", "command"];
        Ok(Self {
            connections: on.int_gauges(
                "client_connections",
                "Client connections open now",
                &["protocol", "datasource"],
            )?,
            connections_total: counters(
                "client_connections_total",
                "Client connections accepted",
                &[],
            )?,
            rejected: counters(
                "client_connections_rejected_total",
                "Client connections turned away",
                &["reason"],
            )?,
            auth_attempts: counters("auth_attempts_total", "Logins", &["method", "result"])?,
            requests: counters(
                "requests_total",
                "Statements, by what was decided",
                &["command", "decision"],
            )?,
            durations: on.register(HistogramVec::new(duration, &labels)?)?,
            errors: counters(
                "errors_total",
                "Errors, by who is to look and by SQLSTATE class",
                &["source", "class"],
            )?,
            parse_failures: counters(
                "parse_failures_total",
                "Statements that were not understood",
                &["reason"],
            )?,
            bytes: counters("bytes_total", "Bytes passed on", &["direction"])?,
            rows: counters("rows_total", "Rows returned or changed", &[])?,
            connect_failures: counters(
                "upstream_connect_failures_total",
                "Connections to the server that failed",
                &[],
            )?,
            catalog_age: on.register(GaugeVec::new(
                opts("catalog_age_seconds", "Age of the oldest catalog in force"),
                &["protocol", "datasource"],
            )?)?,
            catalog_loads: counters("catalog_loads_total", "Catalogs read", &[])?,
            catalog_failures: counters(
                "catalog_failures_total",
                "Catalogs that could not be read",
                &[],
            )?,
        })
    }

    /// The children of one datasource.
    pub(super) fn datasource(
        &self,
        labels: DatasourceLabels<'_>,
    ) -> prometheus::Result<DatasourceMetrics> {
        let fixed = [labels.protocol, labels.name];
        let one = |family: &IntCounterVec| family.get_metric_with_label_values(&fixed);
        let commands = Command::ALL.iter();
        let durations = commands.map(|command| {
            let values = [labels.protocol, labels.name, command.label()];
            self.durations.get_metric_with_label_values(&values)
        });
        Ok(DatasourceMetrics {
            name: labels.name.into(),
            connections: self.connections.get_metric_with_label_values(&fixed)?,
            connections_total: one(&self.connections_total)?,
            rejected: children(&self.rejected, fixed, &[names(RejectReason::ALL, |l| l.label())])?,
            auth_attempts: children(
                &self.auth_attempts,
                fixed,
                &[names(Method::ALL, |l| l.label()), names(LoginResult::ALL, |l| l.label())],
            )?,
            requests: children(
                &self.requests,
                fixed,
                &[names(Command::ALL, |l| l.label()), names(Decided::ALL, |l| l.label())],
            )?,
            durations: durations.collect::<prometheus::Result<_>>()?,
            errors: children(
                &self.errors,
                fixed,
                &[names(Source::ALL, |l| l.label()), names(ErrorClass::ALL, |l| l.label())],
            )?,
            parse_failures: children(
                &self.parse_failures,
                fixed,
                &[names(ParseFailure::ALL, |l| l.label())],
            )?,
            bytes: children(&self.bytes, fixed, &[names(Direction::ALL, |l| l.label())])?,
            rows: one(&self.rows)?,
            connect_failures: one(&self.connect_failures)?,
            catalog_age: self.catalog_age.get_metric_with_label_values(&fixed)?,
            catalog_loads: one(&self.catalog_loads)?,
            catalog_failures: one(&self.catalog_failures)?,
        })
    }
}

/// The values of a label set.
fn names<L: Copy>(all: &[L], label: impl Fn(L) -> &'static str) -> Vec<&'static str> {
    all.iter().map(|value| label(*value)).collect()
}

/// Every combination of the label sets, the last one counting fastest.
fn children(
    family: &IntCounterVec,
    fixed: [&str; 2],
    sets: &[Vec<&str>],
) -> prometheus::Result<Counters> {
    let mut combinations = vec![fixed.to_vec()];
    for set in sets {
        combinations = combinations
            .iter()
            .flat_map(|head| set.iter().map(move |value| [head.as_slice(), &[*value]].concat()))
            .collect();
    }
    let counters =
        combinations.iter().map(|values| family.get_metric_with_label_values(values.as_slice()));
    counters.collect::<prometheus::Result<_>>().map(Counters)
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("portcullis")
}
