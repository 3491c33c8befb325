//! `portcullis.yaml` as written: every key with its place, nothing judged beyond its shape.

use std::time::Duration;

use super::{Protocol, authentication, listen, mask_keys, sentinel};
use crate::audit::WhenFull;
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::yaml::{MapReader, Node, Problems};
use crate::tls::Version;

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spanned<T> {
    /// What was written.
    pub(super) value: T,
    /// Where.
    pub(super) at: Span,
}

/// The whole file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) datasources: Vec<Datasource>,
    pub(super) rules: Option<Rules>,
    pub(super) audit: Option<Audit>,
    pub(super) admin: Option<super::admin::Source>,
    pub(super) limits: Limits,
    pub(super) log: Log,
    pub(super) mask_keys: mask_keys::Written,
}

#[derive(Debug)]
pub(super) struct Datasource {
    pub(super) at: Span,
    pub(super) name: Option<Spanned<String>>,
    pub(super) protocol: Option<Protocol>,
    pub(super) listen: Vec<listen::Written>,
    pub(super) upstream: Vec<Spanned<String>>,
    pub(super) sentinel: Option<sentinel::Written>,
    pub(super) target: Option<Spanned<TargetServer>>,
    pub(super) default_deny: Option<bool>,
    pub(super) tls: Option<Tls>,
    pub(super) upstream_tls: Option<UpstreamTls>,
    pub(super) catalog: Option<Catalog>,
    pub(super) logins: authentication::Written,
    pub(super) limits: super::session_limits::Source,
}

#[derive(Debug)]
pub(super) struct Tls {
    pub(super) at: Span,
    pub(super) mode: TlsMode,
    pub(super) certificate: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
    pub(super) client_ca: Option<Spanned<String>>,
    pub(super) min_version: Option<Version>,
}

/// TLS to the server.
#[derive(Debug)]
pub(super) struct UpstreamTls {
    pub(super) at: Span,
    pub(super) mode: Option<Spanned<UpstreamTlsMode>>,
    pub(super) ca: Option<Spanned<String>>,
    pub(super) certificate: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
}

/// The words libpq has for what TLS to a server must establish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpstreamTlsMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Which servers of a list sessions may use: libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetServer {
    /// The first that is reached.
    #[default]
    Any,
    /// One that accepts writes by default.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is.
    Standby,
    /// A standby if there is one, else any.
    PreferStandby,
}

/// Whether clients may or must use TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Not offered.
    Off,
    /// Offered; a client may do without.
    Allowed,
    /// A client without TLS is refused.
    Required,
    /// A client without TLS, or without a certificate that is verified, is refused.
    Mutual,
}

#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) at: Span,
    pub(super) user: Option<Spanned<String>>,
    pub(super) password_file: Option<Spanned<String>>,
    pub(super) password_env: Option<Spanned<String>>,
    pub(super) databases: Vec<Spanned<String>>,
    pub(super) refresh: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Rules {
    pub(super) directory: Option<Spanned<String>>,
    pub(super) reload: Option<Spanned<Duration>>,
}

#[derive(Debug)]
pub(super) struct Audit {
    pub(super) at: Span,
    pub(super) file: Option<Spanned<String>>,
    pub(super) stdout: bool,
    pub(super) rotate_bytes: Option<Spanned<u64>>,
    pub(super) keep: Option<Spanned<u64>>,
    pub(super) queue_events: Option<Spanned<u64>>,
    pub(super) when_full: Option<WhenFull>,
    pub(super) wait_deadline: Option<Duration>,
}

/// Bounds, as far as they were written.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) clients: Option<Spanned<u64>>,
    pub(super) logins: Option<Spanned<u64>>,
    pub(super) logins_per_address: Option<Spanned<u64>>,
    pub(super) login_timeout: Option<Spanned<Duration>>,
    pub(super) connect_timeout: Option<Spanned<Duration>>,
    pub(super) drain_timeout: Option<Spanned<Duration>>,
    pub(super) tcp_keepalive: Option<Spanned<Duration>>,
    pub(super) tcp_user_timeout: Option<Spanned<Duration>>,
    pub(super) sessions: super::session_limits::Source,
    pub(super) read_buffer: Option<Spanned<u64>>,
    pub(super) high_water: Option<Spanned<u64>>,
    pub(super) statement_bytes: Option<Spanned<u64>>,
    pub(super) pending_replies: Option<Spanned<u64>>,
    pub(super) prepared_statements: Option<Spanned<u64>>,
    pub(super) plan_cache: Option<Spanned<u64>>,
    pub(super) scram_iterations: Option<Spanned<u64>>,
    pub(super) login_failures: Option<Spanned<u64>>,
    pub(super) login_failures_per_address: Option<Spanned<u64>>,
    pub(super) login_delay_max: Option<Spanned<Duration>>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) format: Option<LogFormat>,
    pub(super) level: Option<Spanned<String>>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Reads the shape of a whole file.
pub(super) fn read(root: &Node, problems: &mut Problems) -> Option<File> {
    let mut map = MapReader::new(root, problems)?;
    if let Some(version) = map.required("version", problems)
        && version.u64(problems).is_some_and(|version| version != 1)
    {
        problems.error(&version.span, "this version of the product reads `version: 1`");
    }
    let datasources = map.required("datasources", problems).map(|n| datasources(n, problems));
    let rules = map.required("rules", problems).and_then(|n| rules(n, problems));
    let audit = map.required("audit", problems).and_then(|n| audit(n, problems));
    let admin = map.optional("admin").and_then(|n| super::admin::read(n, problems));
    let limits = map.optional("limits").and_then(|n| limits(n, problems)).unwrap_or_default();
    let log = map.optional("log").and_then(|n| log(n, problems)).unwrap_or_default();
    let mask_keys = map.optional("mask_keys").map(|n| mask_keys::read(n, problems));
    map.finish(problems);
    let (datasources, mask_keys) = (datasources.unwrap_or_default(), mask_keys.unwrap_or_default());
    Some(File { datasources, rules, audit, admin, limits, log, mask_keys })
}

fn datasources(node: &Node, problems: &mut Problems) -> Vec<Datasource> {
    let items = node.items(problems).unwrap_or_default();
    if items.is_empty() {
        problems.error(&node.span, "no datasource is listed");
    }
    items.iter().filter_map(|item| datasource(item, problems)).collect()
}

fn datasource(node: &Node, problems: &mut Problems) -> Option<Datasource> {
    let mut map = MapReader::new(node, problems)?;
    let name = map.required("name", problems).and_then(|n| string(n, problems));
    let protocols = [Protocol::Postgresql, Protocol::Redis].map(|one| (one.name(), one));
    let protocol = map.required("protocol", problems).and_then(|n| n.one_of(&protocols, problems));
    let listen = map.required("listen", problems).map(|n| listen::read(n, problems));
    let upstream = map.required("upstream", problems);
    let (upstream, sentinel) =
        upstream.map(|n| sentinel::read_upstream(n, problems)).unwrap_or_default();
    let target = map.optional("target_session_attrs").and_then(|n| target(n, problems));
    let default_deny = map
        .required("default", problems)
        .and_then(|n| n.one_of(&[("allow", false), ("deny", true)], problems));
    let tls = map.optional("tls").and_then(|n| tls(n, problems));
    let upstream_tls = map.optional("upstream_tls").and_then(|n| upstream_tls(n, problems));
    let catalog = map.optional("catalog").and_then(|n| catalog(n, problems));
    let logins = authentication::read_all(&mut map, problems);
    let limits = map.optional("limits").and_then(|n| super::session_limits::read_map(n, problems));
    map.finish(problems);
    Some(Datasource {
        at: node.span.clone(),
        name,
        protocol,
        listen: listen.unwrap_or_default(),
        upstream,
        sentinel,
        target,
        default_deny,
        tls,
        upstream_tls,
        catalog,
        logins,
        limits: limits.unwrap_or_default(),
    })
}

fn tls(node: &Node, problems: &mut Problems) -> Option<Tls> {
    let mut map = MapReader::new(node, problems)?;
    let modes = [
        ("off", TlsMode::Off),
        ("allowed", TlsMode::Allowed),
        ("required", TlsMode::Required),
        ("mutual", TlsMode::Mutual),
    ];
    let versions = [("1.2", Version::Tls12), ("1.3", Version::Tls13)];
    let mode = map.required("mode", problems).and_then(|n| n.one_of(&modes, problems));
    let certificate = map.optional("certificate").and_then(|n| string(n, problems));
    let key = map.optional("key").and_then(|n| string(n, problems));
    let client_ca = map.optional("client_ca").and_then(|n| string(n, problems));
    let min_version = map.optional("min_version").and_then(|n| n.one_of(&versions, problems));
    map.finish(problems);
    let at = node.span.clone();
    Some(Tls { at, mode: mode?, certificate, key, client_ca, min_version })
}

fn target(node: &Node, problems: &mut Problems) -> Option<Spanned<TargetServer>> {
    let words = [
        ("any", TargetServer::Any),
        ("read-write", TargetServer::ReadWrite),
        ("read-only", TargetServer::ReadOnly),
        ("primary", TargetServer::Primary),
        ("standby", TargetServer::Standby),
        ("prefer-standby", TargetServer::PreferStandby),
    ];
    Some(Spanned { value: node.one_of(&words, problems)?, at: node.span.clone() })
}

fn upstream_tls(node: &Node, problems: &mut Problems) -> Option<UpstreamTls> {
    let mut map = MapReader::new(node, problems)?;
    let modes = [
        ("disable", UpstreamTlsMode::Disable),
        ("prefer", UpstreamTlsMode::Prefer),
        ("require", UpstreamTlsMode::Require),
        ("verify-ca", UpstreamTlsMode::VerifyCa),
        ("verify-full", UpstreamTlsMode::VerifyFull),
    ];
    let mode = match map.optional("mode") {
        None => None,
        // A mode that is not understood must not become the default one.
        Some(n) => Some(Spanned { value: n.one_of(&modes, problems)?, at: n.span.clone() }),
    };
    let ca = map.optional("ca").and_then(|n| string(n, problems));
    let certificate = map.optional("certificate").and_then(|n| string(n, problems));
    let key = map.optional("key").and_then(|n| string(n, problems));
    map.finish(problems);
    Some(UpstreamTls { at: node.span.clone(), mode, ca, certificate, key })
}

fn catalog(node: &Node, problems: &mut Problems) -> Option<Catalog> {
    let mut map = MapReader::new(node, problems)?;
    let user = map.required("user", problems).and_then(|n| string(n, problems));
    let password_file = map.optional("password_file").and_then(|n| string(n, problems));
    let password_env = map.optional("password_env").and_then(|n| string(n, problems));
    let databases = map.optional("databases").map(|n| one_or_more(n, problems));
    let refresh = map.optional("refresh").and_then(|n| n.duration(problems));
    map.finish(problems);
    let (at, databases) = (node.span.clone(), databases.unwrap_or_default());
    Some(Catalog { at, user, password_file, password_env, databases, refresh })
}

fn rules(node: &Node, problems: &mut Problems) -> Option<Rules> {
    let mut map = MapReader::new(node, problems)?;
    let directory = map.required("directory", problems).and_then(|n| string(n, problems));
    let reload = map.optional("reload").and_then(|n| duration(n, problems));
    map.finish(problems);
    Some(Rules { directory, reload })
}

fn audit(node: &Node, problems: &mut Problems) -> Option<Audit> {
    let mut map = MapReader::new(node, problems)?;
    let policies = [
        ("wait", WhenFull::Wait),
        ("refuse", WhenFull::Refuse),
        ("drop_and_count", WhenFull::DropAndCount),
    ];
    let audit = Audit {
        at: node.span.clone(),
        file: map.optional("file").and_then(|n| string(n, problems)),
        stdout: map.optional("stdout").and_then(|n| n.bool(problems)).unwrap_or(false),
        rotate_bytes: map.optional("rotate").and_then(|n| bytes(n, problems)),
        keep: map.optional("keep").and_then(|n| number(n, problems)),
        queue_events: map.optional("queue_events").and_then(|n| number(n, problems)),
        when_full: map.optional("when_full").and_then(|n| n.one_of(&policies, problems)),
        wait_deadline: map.optional("wait_deadline").and_then(|n| n.duration(problems)),
    };
    map.finish(problems);
    Some(audit)
}

fn limits(node: &Node, problems: &mut Problems) -> Option<Limits> {
    let mut map = MapReader::new(node, problems)?;
    let limits = Limits {
        clients: map.optional("clients").and_then(|n| number(n, problems)),
        logins: map.optional("logins").and_then(|n| number(n, problems)),
        logins_per_address: map.optional("logins_per_address").and_then(|n| number(n, problems)),
        login_timeout: map.optional("login_timeout").and_then(|n| duration(n, problems)),
        connect_timeout: map.optional("connect_timeout").and_then(|n| duration(n, problems)),
        drain_timeout: map.optional("drain_timeout").and_then(|n| duration(n, problems)),
        tcp_keepalive: map.optional("tcp_keepalive").and_then(|n| duration(n, problems)),
        tcp_user_timeout: map.optional("tcp_user_timeout").and_then(|n| duration(n, problems)),
        sessions: super::session_limits::read(&mut map, problems),
        read_buffer: map.optional("read_buffer").and_then(|n| bytes(n, problems)),
        high_water: map.optional("high_water").and_then(|n| bytes(n, problems)),
        statement_bytes: map.optional("statement_bytes").and_then(|n| bytes(n, problems)),
        pending_replies: map.optional("pending_replies").and_then(|n| number(n, problems)),
        prepared_statements: map.optional("prepared_statements").and_then(|n| number(n, problems)),
        plan_cache: map.optional("plan_cache").and_then(|n| bytes(n, problems)),
        scram_iterations: map.optional("scram_iterations").and_then(|n| number(n, problems)),
        login_failures: map.optional("login_failures").and_then(|n| number(n, problems)),
        login_failures_per_address: map
            .optional("login_failures_per_address")
            .and_then(|n| number(n, problems)),
        login_delay_max: map.optional("login_delay_max").and_then(|n| duration(n, problems)),
    };
    map.finish(problems);
    Some(limits)
}

fn log(node: &Node, problems: &mut Problems) -> Option<Log> {
    let mut map = MapReader::new(node, problems)?;
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = map.optional("format").and_then(|n| n.one_of(&formats, problems));
    let level = map.optional("level").and_then(|n| string(n, problems));
    map.finish(problems);
    Some(Log { format, level })
}

// === values ===

pub(super) fn string(node: &Node, problems: &mut Problems) -> Option<Spanned<String>> {
    let value = node.string(problems)?.to_owned();
    if value.is_empty() {
        problems.error(&node.span, "expected a text, found an empty one");
        return None;
    }
    Some(Spanned { value, at: node.span.clone() })
}

pub(super) fn one_or_more(node: &Node, problems: &mut Problems) -> Vec<Spanned<String>> {
    use crate::policy::yaml::Value;
    match &node.value {
        // Left out means all; nobody who writes an empty list means that.
        Value::List(items) if items.is_empty() => {
            problems.push(
                Diagnostic::error(&node.span, "the list is empty, so it would match nothing")
                    .with_help("leave the key out, or write what belongs there"),
            );
            Vec::new()
        }
        Value::List(items) => items.iter().filter_map(|item| string(item, problems)).collect(),
        Value::Scalar { .. } | Value::Null | Value::Map(_) => {
            string(node, problems).into_iter().collect()
        }
    }
}

fn number(node: &Node, problems: &mut Problems) -> Option<Spanned<u64>> {
    Some(Spanned { value: node.u64(problems)?, at: node.span.clone() })
}

fn bytes(node: &Node, problems: &mut Problems) -> Option<Spanned<u64>> {
    Some(Spanned { value: node.bytes(problems)?, at: node.span.clone() })
}

pub(super) fn duration(node: &Node, problems: &mut Problems) -> Option<Spanned<Duration>> {
    Some(Spanned { value: node.duration(problems)?, at: node.span.clone() })
}
