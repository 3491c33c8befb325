//! Sockets in, sockets out: listeners, the driver of each connection, and the composition root.
//!
//! [`run`] takes a checked configuration apart, builds what connections share, binds every address
//! before anything is served, and stays until the process is told to stop. There is no state
//! outside of what it builds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::admin::{self, AdminState, EndRequest, Ended, KeyReport, Rights, Status};
use crate::analysis::redis::Table;
use crate::analysis::{Analyzer, AnalyzerLimits};
use crate::audit::{self, Queue};
use crate::auth::{Authenticator, Logins};
use crate::config::{self, Config, Listen, Port, Protocol};
use crate::event::{Event, EventKind, Instance, Now};
use crate::metrics::{Build, DatasourceLabels, Metrics};
use crate::policy::{ApiKey, Diagnostic, RuleSet, Throttles};
use crate::reload::{self, Certificate, Certificates, Language, Reloader, Surroundings};
use crate::session::Session;
use crate::session::gate::PlanCache;
use crate::tls::{LookAt, UpstreamTls};

mod admission;
mod bind;
mod cancel;
mod capacity;
mod catalog;
pub(crate) mod clock;
mod deadlines;
mod drive;
#[cfg(test)]
mod drive_tests;
mod effects;
mod end;
mod hosts;
mod inherited;
mod leg;
mod listener;
mod logins;
mod notify;
mod own_login;
mod protocol;
mod registry;
mod replayed;
mod roles;
mod seat;
mod sentinel;
mod shared;
mod shutdown;
mod socket;
#[cfg(test)]
mod toy;
mod uid;
mod upstream;
mod users;
mod workers;

use bind::Sockets;
use cancel::CancelRegistry;
use capacity::Capacity;
use clock::Clock;
use hosts::Hosts;
use listener::{Door, Entrance, Listener, Origin};
use notify::Manager;
use sentinel::Sentinels;
use shared::{Datasource, DriveLimits, Reach, Shared};
use shutdown::{Shutdown, Stage};
use socket::ListenSocket;
use uid::Birth;
use upstream::{ServerTls, Upstream};
use workers::Workers;

/// Why the process did not come up.
#[derive(Debug)]
pub enum StartError {
    /// The rules have problems, each with its place.
    Rules(Vec<Diagnostic>),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for StartError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Serves until the process is told to stop and has drained.
///
/// # Errors
/// Something kept it from coming up, or the audit trail could not be closed.
pub async fn run(config: Config, commit: &str) -> Result<(), StartError> {
    let language = Language::new(Arc::new(Table::builtin()), &config.masker);
    let first = reload::first(&config.rules.directory, &language);
    let (rules, digest) = first.map_err(StartError::Rules)?;
    config.fits(&rules.set).map_err(anyhow::Error::msg)?;
    let rules = Arc::new(ArcSwap::from_pointee(rules));
    let sockets = Sockets::bind(&config)?;
    let clock = Clock::start();
    let metrics = count(&config, commit, &clock).context("set up metrics")?;
    let status = Arc::new(Status::default());
    let instance = instance(&clock)?;
    let (queue, writer) =
        audit::start(&config.audit, instance, Arc::clone(&metrics), Arc::clone(&status))
            .context("start the audit trail")?;
    let workers = Workers::start(cores()).context("start the workers")?;
    let capacity = Capacity::of(&config.limits)?;
    let shared = Arc::new(Shared {
        rules: Arc::clone(&rules),
        workers,
        plans: PlanCache::new(config.limits.plan_cache_bytes),
        throttles: Throttles::default(),
        sessions: Arc::default(),
        keys: Arc::default(),
        audit: queue.clone(),
        metrics,
        status,
        clock,
        admissions: capacity.admissions(),
        shutdown: Arc::new(Shutdown::default()),
        limits: drive_limits(&config),
    });
    lifecycle(&shared, "start").await;
    let process = Process::start(&config, &shared, sockets, (digest, language)).await?;
    process.stay(&shared, config.limits.drain_timeout).await?;
    lifecycle(&shared, "stop").await;
    writer.close().await.context("write out the audit trail")?;
    info!("stopped");
    Ok(())
}

/// Cores this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The running tasks.
struct Process {
    /// They end by themselves when the process drains.
    listeners: JoinSet<()>,
    /// They are dropped when the process ends.
    services: JoinSet<anyhow::Result<()>>,
}

impl Process {
    async fn start(
        config: &Config,
        shared: &Arc<Shared>,
        sockets: Sockets,
        (tried, language): ([u8; 32], Language),
    ) -> anyhow::Result<Self> {
        let mut process = Self { listeners: JoinSet::new(), services: JoinSet::new() };
        let mut datasources = Vec::new();
        for (written, sockets) in config.datasources.iter().zip(sockets.datasources) {
            let datasource = Arc::new(datasource(written, config, shared)?);
            if let Some(login) = written.catalog.clone() {
                shared.status.await_catalog(&written.name);
                for server in datasource.dial.hosts.to_be_asked() {
                    let ask = roles::ask(Arc::clone(&datasource), login.clone(), server);
                    process.services.spawn(async move {
                        ask.await;
                        Ok(())
                    });
                }
                let refresh = catalog::refresh(Arc::clone(&datasource), login);
                process.services.spawn(async move {
                    refresh.await;
                    Ok(())
                });
            }
            for issuer in written.logins.issuers.iter().flatten().map(Arc::clone) {
                let clock = shared.clock.clone();
                process.services.spawn(async move {
                    issuer.source.keep_current(clock).await;
                    Ok(())
                });
            }
            let entries = sockets.into_iter().zip(&written.listen);
            match written.protocol {
                Protocol::Postgresql => {
                    process.listen(entries, &datasource, protocol::postgresql(written, config));
                }
                Protocol::Redis => {
                    let begin = protocol::redis(written, config, language.table());
                    process.listen(entries, &datasource, begin);
                }
            }
            datasources.push(datasource);
        }
        process.serve_rules(config, shared, (tried, language), (sockets.admin, datasources)).await;
        Ok(process)
    }

    /// Serves a datasource's sockets; `begin` makes the session of a client.
    fn listen<'a, S: Session + Send + 'static>(
        &mut self,
        entries: impl Iterator<Item = (ListenSocket, &'a Listen)>,
        datasource: &Arc<Datasource<Upstream>>,
        begin: impl Fn(&Birth, Origin, Now) -> S + Clone + Send + Sync + 'static,
    ) {
        for (socket, listen) in entries {
            info!(datasource = &*datasource.name, address = %socket.shown(), "listening");
            let door = Door {
                datasource: Arc::clone(datasource),
                entrance: Arc::new(Entrance::of(listen)),
                begin: begin.clone(),
            };
            self.listeners.spawn(Listener { socket, door }.serve());
        }
    }

    /// The reloader, and the admin port that can ask for it.
    async fn serve_rules(
        &mut self,
        config: &Config,
        shared: &Arc<Shared>,
        (tried, language): ([u8; 32], Language),
        (admin, datasources): (TcpListener, Vec<Arc<Datasource<Upstream>>>),
    ) {
        let (reload, requests) = mpsc::channel(RELOAD_REQUESTS_MAX);
        let (clock, fitting, ending) = (shared.clock.clone(), config.clone(), Arc::clone(shared));
        let reloader = Reloader::new(
            config.rules.directory.clone(),
            config.rules.reload,
            Arc::clone(&shared.rules),
            tried,
            (
                Surroundings {
                    datasources: datasources
                        .iter()
                        .map(|one| (Arc::clone(&one.name), Arc::clone(&one.analyzer)))
                        .collect(),
                    status: Arc::clone(&shared.status),
                    metrics: Arc::clone(&shared.metrics),
                    audit: shared.audit.clone(),
                    language,
                    fits: Box::new(move |rules| fitting.fits(rules)),
                    swapped: Box::new(move |rules| {
                        end_withdrawn(&ending, rules);
                        ending.sessions.wake();
                    }),
                    now: Box::new(move || clock.now()),
                },
                certificates(config),
            ),
        );
        reloader.announce().await;
        self.services.spawn(reloader.run(requests));
        info!(address = %shown(&admin), "admin port");
        // An address that cannot be told is not known to be ours alone.
        let bound = admin.local_addr().unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)));
        let rights = config.admin.rights.clone().at(bound);
        if matches!(rights, Rights::Nobody) {
            warn!(
                "others reach the admin port and no token is set: it serves health and metrics \
                 only; set `admin.token_file` for sessions and reloads"
            );
        }
        let (counted, listed, ending) =
            (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
        let (known, timed) = (Arc::clone(shared), Arc::clone(shared));
        let state = AdminState {
            metrics: Arc::clone(&shared.metrics),
            status: Arc::clone(&shared.status),
            rights,
            sessions: Box::new(move || listed.sessions.list(listed.clock.now())),
            keys: Box::new(move || key_reports(&known)),
            end: Box::new(move |request| end_session(&ending, request)),
            reload,
            mono_us: Box::new(move || timed.clock.now().mono_us),
            collect: Box::new(move |metrics| {
                let (hits, misses) = counted.plans.hits_and_misses();
                metrics.decision_cache(hits, misses);
                report_ages(&datasources, &counted.clock);
            }),
        };
        let shutdown = Arc::clone(&shared.shutdown);
        // Where a successor shares the port, who asks for readiness must reach that one.
        let until = match config.shares_ports() {
            Port::Own => Stage::Ending,
            Port::Shared => Stage::Draining,
        };
        self.services.spawn(async move {
            let stop = async move { shutdown.reached(until).await };
            admin::serve(admin, state, stop).await.context("serve the admin port")
        });
    }

    /// Waits for the end: drain at the first signal, end at the second or when time is up.
    async fn stay(mut self, shared: &Shared, drain_timeout: Duration) -> anyhow::Result<()> {
        let mut signals = Signals::receive()?;
        let manager = Manager::of_environment();
        manager.tell("READY=1");
        self.serve_until(&mut signals, &manager).await;
        manager.tell("STOPPING=1");
        info!(timeout = ?drain_timeout, "draining; a second signal ends at once");
        shared.status.set_draining();
        shared.shutdown.advance(Stage::Draining);
        tokio::select! {
            () = finished(&mut self.listeners) => return Ok(()),
            () = tokio::time::sleep(drain_timeout) => warn!("sessions are left, ending them"),
            () = signals.next() => warn!("second signal, ending all sessions"),
        }
        shared.shutdown.advance(Stage::Ending);
        if tokio::time::timeout(ENDING, finished(&mut self.listeners)).await.is_err() {
            warn!("some sessions did not end in time and were cut off");
            self.listeners.shutdown().await;
        }
        Ok(())
    }

    /// Until a signal comes. The data path goes on without a service; a person must look.
    async fn serve_until(&mut self, signals: &mut Signals, manager: &Manager) {
        let mut alive = tokio::time::interval(manager.watchdog.unwrap_or(NO_WATCHDOG));
        loop {
            tokio::select! {
                _ = alive.tick() => manager.tell("WATCHDOG=1"),
                () = signals.next() => return,
                Some(done) = self.services.join_next() => {
                    error!(?done, "a service of the process ended");
                }
            }
        }
    }
}

/// What tells the process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn receive() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("receive SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("receive SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    /// The next of them. Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn finished(tasks: &mut JoinSet<()>) {
    while let Some(done) = tasks.join_next().await {
        if let Err(failure) = done {
            error!(%failure, "a listener ended; this is a bug");
        }
    }
}

fn datasource(
    written: &config::Datasource,
    config: &Config,
    shared: &Arc<Shared>,
) -> anyhow::Result<Datasource<Upstream>> {
    let limits = AnalyzerLimits {
        statement_bytes_max: config.limits.statement_bytes,
        ..AnalyzerLimits::default()
    };
    let logins = Logins { bounds: config.limits.throttle, ..written.logins.clone() };
    let metrics = shared.metrics.datasource(&written.name).context("metrics of a datasource")?;
    let keys = (Arc::clone(&written.name), Arc::clone(&shared.keys));
    Ok(Datasource {
        shared: Arc::clone(shared),
        name: Arc::clone(&written.name),
        analyzer: Arc::new(Analyzer::new(limits)),
        cancels: Arc::new(CancelRegistry::default()),
        auth: Authenticator::new(logins, keys, Arc::clone(&shared.rules)),
        dial: Upstream {
            hosts: Hosts::new(&written.upstream, written.target),
            connect_timeout: config.limits.connect_timeout,
            patience: config.limits.connect_timeout.min(config.limits.login_timeout) / 2,
            tcp: config.limits.tcp,
            tls: ServerTls::of(&written.upstream_tls),
            clock: shared.clock.clone(),
            sentinels: written
                .sentinel
                .as_ref()
                .map(|group| Sentinels::new(&written.upstream, group)),
        },
        address: shown_list(&written.upstream),
        reach: Reach::default(),
        metrics: Arc::clone(metrics),
        tls: written.tls.as_ref().map(|certificate| certificate.current()),
        limits: written.limits.clone(),
    })
}

/// The certificate files of all legs.
fn certificates(config: &Config) -> Certificates {
    let of = |one: &config::Datasource| {
        let upstream = match &one.upstream_tls {
            UpstreamTls::Plain => None,
            UpstreamTls::Preferred(files)
            | UpstreamTls::Required(files)
            | UpstreamTls::AtOnce(files) => Some(files),
        };
        let legs = [
            one.tls.clone().map(|files| ("tls", files as Arc<dyn LookAt>)),
            upstream.cloned().map(|files| ("upstream_tls", files as Arc<dyn LookAt>)),
        ];
        let datasource = Arc::clone(&one.name);
        legs.into_iter().flatten().map(move |(leg, files)| Certificate {
            datasource: Arc::clone(&datasource),
            leg,
            files,
        })
    };
    Certificates::new(config.datasources.iter().flat_map(of).collect())
}

fn shown_list(servers: &[config::ServerAddress]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn drive_limits(config: &Config) -> DriveLimits {
    let limits = &config.limits;
    DriveLimits {
        read_bytes_max: limits.read_buffer_bytes,
        high_water_bytes: limits.high_water_bytes,
        held_bytes_max: limits.statement_bytes.saturating_add(HELD_BYTES_SLACK),
        login_timeout: limits.login_timeout,
        tcp: limits.tcp,
        cancel_timeout: limits.connect_timeout,
        flush_timeout: limits.drain_timeout.max(FLUSH_MIN),
        drain_grace: DRAIN_GRACE,
    }
}

fn count(config: &Config, commit: &str, clock: &Clock) -> prometheus::Result<Arc<Metrics>> {
    let labels: Vec<_> = config
        .datasources
        .iter()
        .map(|one| DatasourceLabels { name: &one.name, protocol: one.protocol.name() })
        .collect();
    let started_us = clock.now().wall_us;
    Metrics::new(Build { version: env!("CARGO_PKG_VERSION"), commit, started_us }, &labels)
}

/// Who writes the audit trail.
fn instance(clock: &Clock) -> anyhow::Result<Instance> {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let uid = Birth::draw(clock.now())?.uid;
    let version = env!("CARGO_PKG_VERSION");
    Ok(Instance::new(version, hostname.trim(), &uid, std::process::id()))
}

async fn lifecycle(shared: &Shared, phase: &'static str) {
    let kind = EventKind::Lifecycle { phase };
    let event = Event { at: shared.clock.now(), session: None, number: 0, kind };
    let queue: &Queue = &shared.audit;
    match tokio::time::timeout(LIFECYCLE_PATIENCE, queue.reserve(1)).await {
        Ok(mut permit) => queue.push(&mut permit, [event]),
        Err(_elapsed) => error!(phase, "the audit trail is full: not recorded"),
    }
}

/// Ends a session for an operator: recorded first, as everything that is done to others.
fn end_session(shared: &Shared, request: EndRequest<'_>) -> Ended {
    let EndRequest { uid, by, right } = request;
    if !shared.sessions.has(uid) {
        return Ended::Unknown;
    }
    let Some(mut permit) = shared.audit.try_reserve(1) else { return Ended::NotRecorded };
    let (target, by) = (uid.to_owned(), by.to_string());
    info!(session = target, by, right, "an operator ends a session");
    let kind = EventKind::Operator { action: "session.end", target, by, right };
    shared
        .audit
        .push(&mut permit, [Event { at: shared.clock.now(), session: None, number: 0, kind }]);
    if shared.sessions.end(uid) { Ended::Told } else { Ended::Unknown }
}

/// Ends the sessions of API keys that these rules no longer know: they would be refused every
/// statement, but what runs would run on, and notifications arrive.
fn end_withdrawn(shared: &Shared, rules: &RuleSet) {
    let ended = shared.sessions.end_of_keys(|prefix, user| !rules.key_in_force(prefix, user));
    if ended > 0 {
        warn!(sessions = ended, "sessions end because their API keys were withdrawn");
    }
}

/// The keys of the identities in force, with what became of each.
fn key_reports(shared: &Shared) -> Vec<KeyReport> {
    let rules = shared.rules.load();
    let report = |key: &ApiKey| {
        let used = shared.keys.of(&key.prefix).unwrap_or_default();
        KeyReport {
            prefix: key.prefix.to_string(),
            user: key.user.to_string(),
            description: key.description.as_deref().map(str::to_owned),
            revoked: key.revoked,
            logins: used.logins,
            last_login_us: used.last_login_us,
            refused: used.refused,
            last_refused_us: used.last_refused_us,
        }
    };
    rules.set.keys().map(report).collect()
}

/// Ages of the oldest catalogs, before a scrape.
fn report_ages(datasources: &[Arc<Datasource<Upstream>>], clock: &Clock) {
    let now_us = clock.now().mono_us;
    for datasource in datasources {
        let oldest = datasource.analyzer.catalogs().iter().map(|one| one.read_at_us).min();
        if let Some(oldest) = oldest {
            datasource.metrics.catalog_age_us(now_us.saturating_sub(oldest));
        }
    }
}

fn shown(socket: &TcpListener) -> String {
    socket.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
}

/// A reload reads everything: more wishes than this add nothing.
const RELOAD_REQUESTS_MAX: usize = 4;

/// Beyond the longest statement, what a session may leave unconsumed: replies that are looked at
/// whole, such as an error or a row description, may be longer than any statement.
const HELD_BYTES_SLACK: usize = 16 * 1024 * 1024;

/// Even without a drain timeout a closing connection may write what it has for this long.
const FLUSH_MIN: Duration = Duration::from_secs(1);

/// A session that has just logged in has something to ask, and is not taken for an idle one: clients
/// that connect for each question notice nothing of a restart.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How often a service manager is told that we live, if it does not want to know.
const NO_WATCHDOG: Duration = Duration::from_secs(60 * 60);

/// How long sessions may take once they were told to end at once.
const ENDING: Duration = Duration::from_secs(3);

/// How long the record of a start or stop waits for a place.
const LIFECYCLE_PATIENCE: Duration = Duration::from_secs(2);
