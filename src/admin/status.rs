//! What the process knows of its own health, for `/readyz`.
//!
//! Whoever learns something tells it here: reload, catalogs, the audit writer, the drivers. The
//! admin port only reads. Nothing here is a secret, and nothing a client sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Most problems of one kind that are kept: a person repairs the first few and reloads.
const PROBLEMS_MAX: usize = 100;

/// The state of the process, shared by all who report and by the admin port.
#[derive(Debug, Default)]
pub struct Status(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rules: Option<InForce>,
    rules_problems: Vec<String>,
    unknown_targets: Vec<String>,
    catalogs: BTreeMap<(String, String), u64>,
    awaited_catalogs: BTreeSet<String>,
    catalog_problems: BTreeMap<String, String>,
    certificate_problems: BTreeMap<String, String>,
    upstreams: BTreeMap<String, Result<(), String>>,
    audit_problem: Option<String>,
    draining: bool,
}

#[derive(Clone, Debug, Serialize)]
struct InForce {
    generation: u64,
    digest: String,
}

impl Status {
    /// A rule set is in force; problems of an earlier reload are over.
    pub fn set_rules_ok(&self, generation: u64, digest: &str) {
        let mut state = self.lock();
        state.rules = Some(InForce { generation, digest: digest.to_owned() });
        state.rules_problems.clear();
    }

    /// The last reload was refused, for these reasons (`file:line:column: what`).
    pub fn set_rules_problem(&self, mut problems: Vec<String>) {
        problems.truncate(PROBLEMS_MAX);
        self.lock().rules_problems = problems;
    }

    /// Targets of rules that no known catalog has; an empty list clears it.
    pub fn set_unknown_targets(&self, mut targets: Vec<String>) {
        targets.truncate(PROBLEMS_MAX);
        self.lock().unknown_targets = targets;
    }

    /// Not ready until a catalog of this datasource was read once.
    pub fn await_catalog(&self, datasource: &str) {
        self.lock().awaited_catalogs.insert(datasource.to_owned());
    }

    /// A catalog is in force since `read_at_us` of the monotonic clock.
    pub fn set_catalog(&self, datasource: &str, database: &str, read_at_us: u64) {
        let mut state = self.lock();
        state.awaited_catalogs.remove(datasource);
        state.catalog_problems.remove(datasource);
        state.catalogs.insert((datasource.to_owned(), database.to_owned()), read_at_us);
    }

    /// The catalog of a datasource could not be read; one in force stays.
    pub fn set_catalog_problem(&self, datasource: &str, problem: &str) {
        self.lock().catalog_problems.insert(datasource.to_owned(), problem.to_owned());
    }

    /// What keeps the certificate files of a leg from being used; those in use stay.
    pub fn set_certificate_problem(&self, datasource: &str, leg: &str, problem: Option<&str>) {
        let name = format!("{datasource}.{leg}");
        let mut state = self.lock();
        match problem {
            Some(problem) => state.certificate_problems.insert(name, problem.to_owned()),
            None => state.certificate_problems.remove(&name),
        };
    }

    /// Whether the server of a datasource could be reached when last tried.
    pub fn set_upstream(&self, datasource: &str, reached: Result<(), String>) {
        self.lock().upstreams.insert(datasource.to_owned(), reached);
    }

    /// Whether audit events reach their sink.
    pub fn set_audit(&self, writing: Result<(), String>) {
        self.lock().audit_problem = writing.err();
    }

    /// The process stops: no new clients.
    pub fn set_draining(&self) {
        self.lock().draining = true;
    }

    /// What `/readyz` answers. `mono_us` is the monotonic clock now.
    pub fn report(&self, mono_us: u64) -> Report {
        let state = self.lock();
        let mut reasons = Vec::new();
        if state.rules.is_none() {
            reasons.push("no rule set in force".to_owned());
        }
        if let Some(problem) = &state.audit_problem {
            reasons.push(format!("audit events cannot be written: {problem}"));
        }
        for datasource in &state.awaited_catalogs {
            reasons.push(format!("catalog of datasource `{datasource}` not read yet"));
        }
        let down = state.upstreams.values().filter(|reached| reached.is_err()).count();
        if down > 0 && down == state.upstreams.len() {
            reasons.push("no server can be reached".to_owned());
        }
        if state.draining {
            reasons.push("stopping".to_owned());
        }
        Report {
            ready: reasons.is_empty(),
            reasons,
            rules: RulesReport {
                in_force: state.rules.clone(),
                last_reload_problems: state.rules_problems.clone(),
                unknown_targets: state.unknown_targets.clone(),
            },
            catalogs: state.catalogs.iter().map(|entry| catalog(entry, mono_us)).collect(),
            catalog_problems: state.catalog_problems.clone(),
            certificate_problems: state.certificate_problems.clone(),
            upstreams: state.upstreams.iter().map(upstream).collect(),
            audit: state.audit_problem.clone().unwrap_or_else(|| "ok".to_owned()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while reporting leaves the fields as they were; each is valid by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether clients should be sent here.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
    rules: RulesReport,
    catalogs: Vec<CatalogReport>,
    catalog_problems: BTreeMap<String, String>,
    certificate_problems: BTreeMap<String, String>,
    upstreams: BTreeMap<String, String>,
    audit: String,
}

#[derive(Debug, Serialize)]
struct RulesReport {
    #[serde(flatten)]
    in_force: Option<InForce>,
    last_reload_problems: Vec<String>,
    unknown_targets: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CatalogReport {
    datasource: String,
    database: String,
    age_s: u64,
}

fn catalog(entry: (&(String, String), &u64), mono_us: u64) -> CatalogReport {
    let ((datasource, database), read_at_us) = entry;
    CatalogReport {
        datasource: datasource.clone(),
        database: database.clone(),
        age_s: mono_us.saturating_sub(*read_at_us) / 1_000_000,
    }
}

fn upstream((datasource, reached): (&String, &Result<(), String>)) -> (String, String) {
    let state = match reached {
        Ok(()) => "ok".to_owned(),
        Err(problem) => problem.clone(),
    };
    (datasource.clone(), state)
}
