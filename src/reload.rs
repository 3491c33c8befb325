//! Rules: read, compile, test, compare with what exists, put in force; and again at every change.
//! Certificates are looked at on the same occasions, except for a mere event in the rules folder.
//!
//! A rules folder changes by editors, by `mv`, by a swapped link, by network file systems that tell
//! nobody. So every event in the folder or beside it counts, and a poll runs besides; what decides
//! is whether the SHA-256 of the whole set differs from the one last tried. Any failure keeps the
//! rules in force, is logged once (not at each poll) and stands in `/readyz` until it is repaired.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode};
use notify::{RecursiveMode, Watcher as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::admin::{ReloadRequest, Reloaded, Status};
use crate::analysis::{Analyzer, Catalog};
use crate::audit::Queue;
use crate::event::{Event, EventKind, Now};
use crate::metrics::{Metrics, RulesInForce};
use crate::policy::{Diagnostic, RuleSet, Severity};
use crate::session::gate::ActiveRules;

mod certificates;
mod compile;
mod files;
mod language;
#[cfg(test)]
mod tests;

pub(crate) use certificates::{Certificate, Certificates};
pub use compile::{CASE_TEXTS, catalog, compile, default_path, impossible, predicates};
pub use files::Files;
pub use language::Language;

/// Says why the configuration does not fit a rule set, if it does not.
pub(crate) type Fits = dyn Fn(&RuleSet) -> Result<(), String> + Send + Sync;

/// What the reloader needs of the process.
pub(crate) struct Surroundings {
    /// Name and catalogs of each datasource.
    pub(crate) datasources: Vec<(Arc<str>, Arc<Analyzer>)>,
    /// Health.
    pub(crate) status: Arc<Status>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Where the record of a reload goes.
    pub(crate) audit: Queue,
    /// What rules may speak of.
    pub(crate) language: Language,
    /// Whether rules go with the configuration the process runs with.
    pub(crate) fits: Box<Fits>,
    /// Told of each set that came into force after the first.
    pub(crate) swapped: Box<dyn Fn(&RuleSet) + Send + Sync>,
    /// Time.
    pub(crate) now: Box<dyn Fn() -> Now + Send + Sync>,
}

/// Keeps the rules in force up to date.
pub(crate) struct Reloader {
    directory: PathBuf,
    poll: Duration,
    rules: Arc<ArcSwap<ActiveRules>>,
    surroundings: Surroundings,
    certificates: Certificates,
    /// What was last tried, so that nothing is tried, or complained about, twice.
    tried: Tried,
    /// Catalogs the rules in force were last compared with.
    compared: Vec<[u8; 16]>,
}

/// The set last tried and what came of it.
#[derive(Debug, PartialEq, Eq)]
struct Tried {
    files: Result<[u8; 32], Vec<Diagnostic>>,
    problems: Vec<Diagnostic>,
}

/// What made us look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    Start,
    File,
    Signal,
    Admin,
}

impl Trigger {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::File => "file",
            Self::Signal => "signal",
            Self::Admin => "admin",
        }
    }

    /// Whether a person asked, who wants an answer even if nothing changed.
    fn asked_for(self) -> bool {
        match self {
            Self::Start | Self::Signal | Self::Admin => true,
            Self::File => false,
        }
    }
}

/// Rules at the start of the process, warnings logged.
///
/// # Errors
/// All problems: without rules the process does not start.
pub(crate) fn first(
    directory: &Path,
    language: &Language,
) -> Result<(ActiveRules, [u8; 32]), Vec<Diagnostic>> {
    let files = Files::read(directory)?;
    let (active, warnings) = compile(&files, language, 1)?;
    log(&warnings);
    Ok((active, files.digest))
}

impl Reloader {
    /// With the rules of [`first`] in force.
    pub(crate) fn new(
        directory: PathBuf,
        poll: Duration,
        rules: Arc<ArcSwap<ActiveRules>>,
        tried: [u8; 32],
        (surroundings, certificates): (Surroundings, Certificates),
    ) -> Self {
        let tried = Tried { files: Ok(tried), problems: Vec::new() };
        let compared = Vec::new();
        Self { directory, poll, rules, surroundings, certificates, tried, compared }
    }

    /// Tells everybody which rules the process starts with.
    pub(crate) async fn announce(&self) {
        self.accepted();
        self.record(Trigger::Start, 0).await;
    }

    /// Reloads whenever there is reason to, for ever. Cancel safe: a reload is all or nothing.
    ///
    /// # Errors
    /// Signals cannot be received. A folder that cannot be watched is polled only.
    pub(crate) async fn run(
        mut self,
        mut requests: mpsc::Receiver<ReloadRequest>,
    ) -> anyhow::Result<()> {
        let (touched, mut touches) = mpsc::channel(1);
        let _watcher = watch(&self.directory, touched)
            .inspect_err(|error| warn!(?error, "rules folder is not watched, only polled"));
        let mut hangup = signal(SignalKind::hangup()).context("receive SIGHUP")?;
        let mut tick = tokio::time::interval(self.poll);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let request = tokio::select! {
                request = next_request(&mut requests) => Wake::Asked(request),
                () = next_hangup(&mut hangup) => Wake::Hangup,
                Some(()) = touches.recv() => Wake::Touched,
                _ = tick.tick() => Wake::Tick,
            };
            match request {
                Wake::Asked(request) => {
                    self.attempt(Trigger::Admin).await;
                    self.look_at_certificates(Trigger::Admin);
                    // Whoever asked may have gone: nothing is lost.
                    let _ = request.answer.send(self.answer());
                }
                Wake::Hangup => {
                    self.attempt(Trigger::Signal).await;
                    self.look_at_certificates(Trigger::Signal);
                }
                Wake::Touched => {
                    // Editors write in several steps: let them finish.
                    tokio::time::sleep(DEBOUNCE).await;
                    while touches.try_recv().is_ok() {}
                    self.attempt(Trigger::File).await;
                }
                Wake::Tick => {
                    self.attempt(Trigger::File).await;
                    self.compare();
                    self.look_at_certificates(Trigger::File);
                }
            }
        }
    }

    /// Reads the folder; if it changed, or somebody asked, tries to put it in force.
    async fn attempt(&mut self, trigger: Trigger) {
        let directory = self.directory.clone();
        let read = tokio::task::spawn_blocking(move || Files::read(&directory)).await;
        let Ok(read) = read else { return error!("reading the rules folder panicked") };
        let digest = read.as_ref().map(|files| files.digest).map_err(Clone::clone);
        if digest == self.tried.files && !trigger.asked_for() {
            return;
        }
        let unchanged = digest == self.tried.files && self.tried.problems.is_empty();
        if unchanged && digest.is_ok() {
            info!(trigger = trigger.name(), "rules are as they were");
            return;
        }
        let problems = match read {
            Ok(files) => self.put_in_force(files).await,
            Err(problems) => problems,
        };
        let known = !trigger.asked_for() && problems == self.tried.problems;
        self.tried = Tried { files: digest, problems };
        if self.tried.problems.is_empty() {
            self.accepted();
        } else if known {
            // Tried again for another reason than the files, with the same result.
            return;
        } else {
            self.refused();
        }
        self.record(trigger, self.tried.problems.len()).await;
    }

    /// Compiles and swaps; gives the problems that kept the old rules in force.
    async fn put_in_force(&self, files: Files) -> Vec<Diagnostic> {
        let generation = self.rules.load().generation.saturating_add(1);
        let language = self.surroundings.language.clone();
        let compiling = move || compile(&files, &language, generation);
        let compiled = tokio::task::spawn_blocking(compiling).await;
        let (active, warnings) = match compiled {
            Ok(Ok(compiled)) => compiled,
            Ok(Err(problems)) => return problems,
            Err(_panicked) => {
                return vec![self.problem("compiling the rules panicked; this is a bug")];
            }
        };
        if let Err(misfit) = (self.surroundings.fits)(&active.set) {
            return vec![self.problem(&misfit)];
        }
        let unknown = unknown_targets(&active, &self.catalogs());
        if unknown.iter().any(|found| found.severity == Severity::Error) {
            return unknown;
        }
        log(&warnings);
        let active = Arc::new(active);
        self.rules.store(Arc::clone(&active));
        (self.surroundings.swapped)(&active.set);
        Vec::new()
    }

    /// A problem of the folder as a whole.
    fn problem(&self, message: &str) -> Diagnostic {
        let file = self.directory.display().to_string().into();
        Diagnostic::error(&crate::policy::Span { file, line: 1, column: 1 }, message)
    }

    /// Reads a few small files, on a thread that serves no connection.
    fn look_at_certificates(&mut self, trigger: Trigger) {
        let Surroundings { status, metrics, .. } = &self.surroundings;
        self.certificates.look(trigger, status, metrics);
    }

    /// Compares the rules in force with the catalogs, when either changed.
    fn compare(&mut self) {
        let Surroundings { datasources, status, .. } = &self.surroundings;
        for (name, analyzer) in datasources {
            for catalog in analyzer.catalogs() {
                status.set_catalog(name, &catalog.database, catalog.read_at_us);
            }
        }
        let catalogs = self.catalogs();
        let mut digests: Vec<[u8; 16]> = catalogs.iter().map(|catalog| catalog.digest).collect();
        digests.sort_unstable();
        if digests == self.compared {
            return;
        }
        self.compared = digests;
        if !self.tried.problems.is_empty() {
            // What was missing when the set was refused may be there now: try it again.
            self.tried.files = Err(Vec::new());
        }
        let found = unknown_targets(&self.rules.load(), &catalogs);
        log(&found);
        self.surroundings
            .status
            .set_unknown_targets(found.iter().map(ToString::to_string).collect());
    }

    fn catalogs(&self) -> Vec<Arc<Catalog>> {
        let datasources = &self.surroundings.datasources;
        datasources.iter().flat_map(|(_, analyzer)| analyzer.catalogs()).collect()
    }

    fn accepted(&self) {
        let rules = self.rules.load_full();
        let Surroundings { status, metrics, .. } = &self.surroundings;
        let (generation, digest) = (rules.generation, rules.digest.as_str());
        status.set_rules_ok(generation, digest);
        metrics.rules_accepted(RulesInForce { rules: rules.set.len(), generation, digest });
        info!(rules = rules.set.len(), generation, digest, "rules are in force");
    }

    fn refused(&self) {
        let Surroundings { status, metrics, .. } = &self.surroundings;
        let problems = &self.tried.problems;
        error!(problems = problems.len(), "rules were refused, the old ones stay in force");
        log(problems);
        status.set_rules_problem(problems.iter().map(ToString::to_string).collect());
        metrics.rules_rejected();
    }

    fn answer(&self) -> Result<Reloaded, Vec<String>> {
        let rules = self.tried.problems.iter().map(ToString::to_string);
        let problems: Vec<String> = rules.chain(self.certificates.problems()).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let rules = self.rules.load_full();
        Ok(Reloaded { generation: rules.generation, digest: rules.digest.clone() })
    }

    /// Records what came of it. An audit trail that takes nothing must not stop a reload.
    async fn record(&self, trigger: Trigger, problems: usize) {
        let rules = self.rules.load_full();
        let kind = EventKind::Reload {
            generation: rules.generation,
            digest: rules.digest.clone(),
            problems,
            trigger: trigger.name(),
        };
        let event = Event { at: (self.surroundings.now)(), session: None, number: 0, kind };
        let place = self.surroundings.audit.reserve(1);
        match tokio::time::timeout(RECORD_PATIENCE, place).await {
            Ok(mut permit) => self.surroundings.audit.push(&mut permit, [event]),
            Err(_elapsed) => error!("the audit trail is full: a reload was not recorded"),
        }
    }
}

/// What made the loop turn.
enum Wake {
    Asked(ReloadRequest),
    Hangup,
    Touched,
    Tick,
}

/// The next request; never returns once nobody can ask any more.
async fn next_request(requests: &mut mpsc::Receiver<ReloadRequest>) -> ReloadRequest {
    match requests.recv().await {
        Some(request) => request,
        None => std::future::pending().await,
    }
}

async fn next_hangup(hangup: &mut Signal) {
    if hangup.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Watches the folder. Looking at files is an event too: only changes count. A folder that is
/// swapped as a whole is found by the regular look; watching the parent instead would wake this
/// thread for each write to an audit trail beside the folder.
fn watch(directory: &Path, touched: mpsc::Sender<()>) -> notify::Result<impl Send + use<>> {
    let folder = std::path::absolute(directory)?;
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let counts = event.is_ok_and(|event| match event.kind {
            notify::EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            notify::EventKind::Access(_) => false,
            _ => true,
        });
        if counts {
            // Full means that a look is due already.
            let _ = touched.try_send(());
        }
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn unknown_targets(rules: &ActiveRules, catalogs: &[Arc<Catalog>]) -> Vec<Diagnostic> {
    let relations: Vec<_> =
        catalogs.iter().flat_map(|catalog| catalog.relations()).map(|found| &**found).collect();
    let mut found = rules.set.check_against(&relations);
    for catalog in catalogs {
        found.extend(impossible(&rules.set, &rules.predicates, catalog));
    }
    found
}

fn log(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        match diagnostic.severity {
            Severity::Error => error!("{diagnostic}"),
            Severity::Warning => warn!("{diagnostic}"),
        }
    }
}

/// Time for an editor to finish writing.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How long the record of a reload waits for a place.
const RECORD_PATIENCE: Duration = Duration::from_secs(2);
