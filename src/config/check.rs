//! From the configuration as written to the configuration as used.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::source::{self, Spanned, TargetServer, TlsMode};
use super::{
    CatalogLogin, Config, Datasource, Limits, Listen, Log, Rules, ServerAddress, SessionLimits,
    TcpLimits, authentication, listen, protocol, sentinel, tls,
};
use crate::audit::{AuditConfig, QUEUE_EVENTS_MIN, Target, WhenFull};
use crate::auth::throttle::Bounds;
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::yaml::Problems;

/// Checks everything; `None` when something needed is missing (a problem says so).
pub(super) fn check(
    file: source::File,
    base: &Path,
    root: &Span,
    problems: &mut Problems,
) -> Option<Config> {
    let source::File { datasources, rules, audit, admin, limits, log, mask_keys } = file;
    let limits = check_limits(limits, problems);
    let sessions = limits.as_ref().map(|limits| limits.sessions.clone()).unwrap_or_default();
    let mut taken = listen::Addresses::default();
    let mut names = HashMap::new();
    let datasources: Vec<Datasource> = datasources
        .into_iter()
        .filter_map(|source| {
            if let Some(name) = &source.name {
                unique_name(name, &mut names, problems);
            }
            datasource(source, (base, &sessions), &mut taken, problems)
        })
        .collect();
    let admin = super::admin::check(admin, (base, root), &mut taken, problems);
    let rules = rules.and_then(|rules| check_rules(rules, base, problems));
    let audit = audit.and_then(|audit| check_audit(audit, base, problems));
    let log = check_log(log, problems);
    let masker = super::mask_keys::check(mask_keys, base, problems);
    Some(Config {
        datasources,
        rules: rules?,
        audit: audit?,
        admin: admin?,
        limits: limits?,
        log,
        masker,
    })
}

fn datasource(
    source: source::Datasource,
    (base, sessions): (&Path, &SessionLimits),
    taken: &mut listen::Addresses,
    problems: &mut Problems,
) -> Option<Datasource> {
    protocol::refuse_foreign(&source, problems);
    let source::Datasource {
        at,
        name,
        protocol,
        listen,
        upstream: servers,
        sentinel,
        target,
        default_deny,
        tls,
        upstream_tls,
        catalog,
        logins,
        limits,
    } = source;
    let listen = listeners(listen, (base, &at, tls.as_ref()), taken, problems);
    let upstream: Vec<ServerAddress> =
        servers.iter().filter_map(|written| host_and_port(written, problems)).collect();
    // Entries that hold mistakes were reported and are not here.
    if servers.is_empty() && !problems.has_errors() {
        problems.error(&at, "`upstream` names no server");
    }
    let protocol = protocol?;
    let sentinel_at = sentinel.as_ref().map(|written| written.at.clone());
    let sentinel = match sentinel.map(|written| sentinel::check(written, base, problems)) {
        None => None,
        Some(group) => Some(group?),
    };
    let leg = authentication::Leg::of(tls.as_ref());
    let (tls_mode, tls) = match tls {
        Some(written) => (written.mode, tls::client_leg(written, (base, protocol), problems)),
        None => (TlsMode::Off, None),
    };
    let catalog = catalog.and_then(|catalog| check_catalog(catalog, base, problems));
    let account_at = logins.accounts_at().cloned();
    let logins = authentication::check(logins, base, leg, problems);
    let upstream_tls = match upstream_tls {
        Some(written) => tls::server_leg(written, (base, protocol), problems),
        None => tls::default_server_leg(&upstream, (&at, protocol), problems),
    };
    let (authentication, logins) = logins?;
    let upstream_tls = upstream_tls?;
    let own = account_at.filter(|_| logins.accounts.have_password());
    let asking =
        sentinel_at.filter(|_| sentinel.as_ref().is_some_and(|one| one.password.is_some()));
    for at in own.iter().chain(&asking) {
        protocol::refuse_bare_password(at, (protocol, &upstream, &upstream_tls), problems);
    }
    let target = target.map(|written| known_target(&written, catalog.as_ref(), problems));
    Some(Datasource {
        name: name?.value.into(),
        protocol,
        listen,
        upstream,
        sentinel,
        target: target.unwrap_or_default(),
        default_deny: default_deny?,
        tls_mode,
        tls,
        upstream_tls,
        catalog,
        authentication,
        logins,
        limits: limits.check(sessions, problems),
    })
}

/// A role of servers, which somebody must be able to ask for.
fn known_target(
    written: &Spanned<TargetServer>,
    catalog: Option<&CatalogLogin>,
    problems: &mut Problems,
) -> TargetServer {
    if catalog.is_none() && written.value != TargetServer::Any {
        problems.push(
            Diagnostic::error(&written.at, "`target_session_attrs` needs `catalog`")
                .with_help("its login asks each server what it is; sessions log in only once"),
        );
    }
    written.value
}

fn listeners(
    written: Vec<listen::Written>,
    (base, at, tls): (&Path, &Span, Option<&source::Tls>),
    taken: &mut listen::Addresses,
    problems: &mut Problems,
) -> Vec<Listen> {
    // Entries that hold mistakes were reported and are not here.
    if written.is_empty() && !problems.has_errors() {
        problems.error(at, "`listen` names no address");
    }
    let checked = written.into_iter().filter_map(|written| {
        let place = written.at.clone();
        let listen = listen::check(written, base, taken, problems)?;
        if tls.is_none() {
            tls::refuse_exposed(&listen.at, &place, problems);
        }
        Some(listen)
    });
    checked.collect()
}

fn unique_name(name: &Spanned<String>, seen: &mut HashMap<String, Span>, problems: &mut Problems) {
    let fits = name.value.len() <= NAME_BYTES_MAX
        && name.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fits {
        problems.push(
            Diagnostic::error(&name.at, "a datasource's name has letters, digits, `-`, `_`, `.`")
                .with_help("rules, audit events and metrics carry it"),
        );
    }
    if let Some(first) = seen.insert(name.value.clone(), name.at.clone()) {
        let message = format!("datasource `{}` is there already, at {first}", name.value);
        problems.error(&name.at, message);
    }
}

// === addresses ===

fn host_and_port(written: &Spanned<String>, problems: &mut Problems) -> Option<ServerAddress> {
    let split = written.value.rsplit_once(':').and_then(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let ambiguous = bare == host && host.contains(':');
        let port = port.parse().ok().filter(|port: &u16| *port != 0)?;
        (!bare.is_empty() && !ambiguous).then(|| ServerAddress { host: bare.to_owned(), port })
    });
    if split.is_none() {
        let message = format!("`{}` is no server address", written.value);
        problems.push(
            Diagnostic::error(&written.at, message)
                .with_help("write host and port, such as `db.internal:5432` or `\"[::1]:6379\"`"),
        );
    }
    split
}

// === files ===

pub(super) fn resolve(base: &Path, written: &str) -> PathBuf {
    base.join(written)
}

fn check_catalog(
    source: source::Catalog,
    base: &Path,
    problems: &mut Problems,
) -> Option<CatalogLogin> {
    let source::Catalog { at, user, password_file, password_env, databases, refresh } = source;
    let password = match (password_file, password_env) {
        (Some(_), Some(_)) => {
            problems.error(&at, "give `password_file` or `password_env`, not both");
            None
        }
        (Some(file), None) => {
            let path = resolve(base, &file.value);
            warn_if_world_readable(&path, &file.at, problems);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| {
                    let message = format!("password file `{}`: {error}", path.display());
                    problems.push(
                        Diagnostic::error(&file.at, message)
                            .with_help("it must be readable by this user and hold the password"),
                    );
                })
                .ok()?;
            // Editors end a file with a newline; passwords do not end with one.
            Some(text.trim_end_matches(['\n', '\r']).to_owned())
        }
        (None, Some(variable)) => {
            let value = std::env::var(&variable.value).ok();
            if value.is_none() {
                let message = format!("environment variable `{}` is not set", variable.value);
                problems.error(&variable.at, message);
            }
            value
        }
        (None, None) => None,
    };
    Some(CatalogLogin {
        user: user?.value,
        password,
        databases: databases.into_iter().map(|database| database.value).collect(),
        refresh: refresh.unwrap_or(CATALOG_REFRESH).max(CATALOG_REFRESH_MIN),
    })
}

pub(super) fn warn_if_world_readable(path: &Path, at: &Span, problems: &mut Problems) {
    use std::os::unix::fs::PermissionsExt as _;
    let open = std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0);
    if open {
        let message = format!("`{}` holds a secret and everyone can read it", path.display());
        problems.push(
            Diagnostic::warning(at, message).with_help(format!("chmod 600 {}", path.display())),
        );
    }
}

fn check_rules(source: source::Rules, base: &Path, problems: &mut Problems) -> Option<Rules> {
    let written = source.directory?;
    let directory = resolve(base, &written.value);
    if !directory.is_dir() {
        let message = format!("rules directory `{}` does not exist", directory.display());
        problems.push(
            Diagnostic::error(&written.at, message)
                .with_help("relative paths start at the configuration file's folder"),
        );
    }
    let reload = bounded(source.reload, RELOAD, RELOAD_MIN..=Duration::from_secs(3600), problems)?;
    Some(Rules { directory, reload })
}

fn check_audit(source: source::Audit, base: &Path, problems: &mut Problems) -> Option<AuditConfig> {
    let source::Audit { at, file, stdout, rotate_bytes, keep, .. } = source;
    let rotate_bytes = bounded(rotate_bytes, 64 << 20, 64 << 10..=64 << 30, problems)?;
    let keep = bounded(keep, 8, 1..=10_000, problems)?;
    let target = match (file, stdout) {
        (Some(file), false) => {
            let path = resolve(base, &file.value);
            if !path.parent().is_some_and(Path::is_dir) {
                let message = format!("the folder of `{}` does not exist", path.display());
                problems.push(Diagnostic::error(&file.at, message).with_help("create it first"));
            }
            Target::File { path, rotate_bytes, keep: u32::try_from(keep).unwrap_or(u32::MAX) }
        }
        (None, true) => Target::Stdout,
        (Some(_), true) | (None, false) => {
            problems.push(
                Diagnostic::error(&at, "say where events go")
                    .with_help("either `file: audit.jsonl` or `stdout: true`"),
            );
            return None;
        }
    };
    let fewest = u64::try_from(QUEUE_EVENTS_MIN).unwrap_or(u64::MAX);
    let queue_events = bounded(source.queue_events, 65_536, fewest..=16 << 20, problems)?;
    Some(AuditConfig {
        target,
        queue_events: narrow(queue_events),
        when_full: source.when_full.unwrap_or(WhenFull::Wait),
        wait_deadline: source.wait_deadline.unwrap_or(Duration::from_secs(2)),
    })
}

// === bounds ===

fn check_limits(source: source::Limits, problems: &mut Problems) -> Option<Limits> {
    let seconds = Duration::from_secs;
    let day = seconds(24 * 60 * 60);
    let brief = Duration::from_millis(100);
    let sessions = source.sessions.check(&SessionLimits::default(), problems);
    let read_buffer = bounded(source.read_buffer, 16 << 10, 4 << 10..=1 << 20, problems);
    let high_water = bounded(source.high_water, 1 << 20, 64 << 10..=256 << 20, problems);
    let statement_bytes = bounded(source.statement_bytes, 1 << 20, 1 << 10..=64 << 20, problems);
    let pending = bounded(source.pending_replies, 8192, 16..=1 << 20, problems);
    let prepared = bounded(source.prepared_statements, 4096, 1..=1 << 20, problems);
    let plan_cache = bounded(source.plan_cache, 64 << 20, 1 << 20..=64 << 30, problems);
    let usual = Bounds::default();
    let failures = source.login_failures;
    let failures = bounded(failures, u64::from(usual.free_per_user), 0..=1_000_000, problems);
    let per_address = source.login_failures_per_address;
    let per_address =
        bounded(per_address, u64::from(usual.free_per_address), 0..=1_000_000, problems);
    let delay_max = seconds(usual.delay_max_s);
    let delay_max = bounded(source.login_delay_max, delay_max, Duration::ZERO..=day, problems);
    let iterations = source.scram_iterations;
    let iterations = bounded(iterations, 1_000_000, 4096..=100_000_000, problems);
    Some(Limits {
        scram_iterations: u32::try_from(iterations?).unwrap_or(u32::MAX),
        throttle: Bounds {
            free_per_user: u32::try_from(failures?).unwrap_or(u32::MAX),
            free_per_address: u32::try_from(per_address?).unwrap_or(u32::MAX),
            delay_max_s: delay_max?.as_secs(),
            ..usual
        },
        clients: narrow(bounded(source.clients, 10_000, 1..=1_000_000, problems)?),
        logins: narrow(bounded(source.logins, 1000, 1..=1_000_000, problems)?),
        logins_per_address: narrow(bounded(
            source.logins_per_address,
            500,
            1..=1_000_000,
            problems,
        )?),
        login_timeout: bounded(source.login_timeout, seconds(10), brief..=day, problems)?,
        connect_timeout: bounded(source.connect_timeout, seconds(5), brief..=day, problems)?,
        drain_timeout: bounded(source.drain_timeout, seconds(30), Duration::ZERO..=day, problems)?,
        tcp: TcpLimits {
            keepalive: bounded(source.tcp_keepalive, seconds(60), seconds(4)..=day, problems)?,
            user_timeout: bounded(
                source.tcp_user_timeout,
                seconds(60),
                seconds(1)..=day,
                problems,
            )?,
        },
        sessions,
        read_buffer_bytes: narrow(read_buffer?),
        high_water_bytes: narrow(high_water?),
        statement_bytes: narrow(statement_bytes?),
        pending_replies: narrow(pending?),
        prepared_statements: narrow(prepared?),
        plan_cache_bytes: plan_cache?,
    })
}

fn check_log(source: source::Log, problems: &mut Problems) -> Log {
    let level = source.level.map(|level| {
        if level.value.parse::<tracing_subscriber::EnvFilter>().is_err() {
            let message = format!("`{}` is no log level", level.value);
            problems.push(Diagnostic::error(&level.at, message).with_help(
                "one of error, warn, info, debug, or a filter such as `portcullis=debug`",
            ));
        }
        level.value
    });
    Log {
        format: source.format.unwrap_or_default(),
        level: level.unwrap_or_else(|| "info".to_owned()),
    }
}

/// The written value, or the default; outside of its bounds it is a problem.
pub(super) fn bounded<T: PartialOrd + std::fmt::Debug>(
    written: Option<Spanned<T>>,
    default: T,
    bounds: std::ops::RangeInclusive<T>,
    problems: &mut Problems,
) -> Option<T> {
    let Some(written) = written else { return Some(default) };
    if !bounds.contains(&written.value) {
        let (low, high) = (bounds.start(), bounds.end());
        let message = format!("{:?} is out of bounds", written.value);
        problems.push(
            Diagnostic::error(&written.at, message)
                .with_help(format!("from {low:?} to {high:?}; the default is {default:?}")),
        );
        return None;
    }
    Some(written.value)
}

fn narrow(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Names travel in every event.
const NAME_BYTES_MAX: usize = 64;

/// How often our own credential reads the catalogs.
const CATALOG_REFRESH: Duration = Duration::from_secs(30);

/// Not more often than this, whatever the file says: each refresh reads a whole catalog.
const CATALOG_REFRESH_MIN: Duration = Duration::from_secs(1);

/// How often the rules folder is looked at besides being watched.
const RELOAD: Duration = Duration::from_secs(1);

/// Not more often than this.
const RELOAD_MIN: Duration = Duration::from_millis(100);
