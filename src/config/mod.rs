//! `portcullis.yaml`: read, checked in one go, frozen.
//!
//! As written (`source`) and as used ([`Config`]) are two types. Whatever can be found out
//! without listening is found out here: unreadable files, a certificate that does not match its
//! key, two datasources on one address. Every problem is reported with its place and the way out.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::audit::AuditConfig;
use crate::auth::Logins;
use crate::auth::throttle::Bounds;
use crate::mask::Masker;
use crate::policy::RuleSet;
use crate::policy::diagnostic::{Diagnostic, Severity, Span};
use crate::policy::yaml::{Document, Problems};
use crate::session::auth::Authentication;
use crate::tls::{ClientLeg, UpstreamTls, Watched};

mod accounts;
mod admin;
mod authentication;
mod check;
mod listen;
#[cfg(test)]
mod listen_tests;
mod mask_keys;
mod protocol;
#[cfg(test)]
mod redis_tests;
mod sentinel;
mod session_limits;
mod source;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;

pub use admin::Admin;
pub use listen::{Listen, ListenAt, Port};
pub use protocol::Protocol;
pub use sentinel::SentinelGroup;
pub use session_limits::{OnClientGone, SessionLimits};
pub use source::{LogFormat, TargetServer, TlsMode};

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is protected; at least one, names unique.
    pub datasources: Vec<Datasource>,
    /// Where the rules are.
    pub rules: Rules,
    /// Where events go.
    pub audit: AuditConfig,
    /// The admin port.
    pub admin: Admin,
    /// Bounds.
    pub limits: Limits,
    /// The log.
    pub log: Log,
    /// Carries out masks, with the current key of those that are configured.
    pub masker: Arc<Masker>,
}

/// One protected server.
#[derive(Clone, Debug)]
pub struct Datasource {
    /// Name in rules, events and metrics.
    pub name: Arc<str>,
    /// What they and the server speak.
    pub protocol: Protocol,
    /// Sockets clients connect to; at least one, unique over all datasources.
    pub listen: Vec<Listen>,
    /// Servers, in the order in which they are tried; at least one. Those that are asked for the
    /// server, if there is something to ask them.
    pub upstream: Vec<ServerAddress>,
    /// What Sentinels are asked.
    pub sentinel: Option<SentinelGroup>,
    /// Which of them sessions may use; anything but `Any` comes with a catalog login.
    pub target: TargetServer,
    /// Identities that no rule concerns are refused.
    pub default_deny: bool,
    /// Whether clients may or must use TLS.
    pub tls_mode: TlsMode,
    /// The certificate with its key; present unless the mode is off.
    pub tls: Option<Arc<Watched<ClientLeg>>>,
    /// Whether and how the server is spoken to in TLS.
    pub upstream_tls: UpstreamTls,
    /// Credential of our own for reading the catalog.
    pub catalog: Option<CatalogLogin>,
    /// How clients prove who they are.
    pub authentication: Authentication,
    /// What else logins need.
    pub logins: Logins,
    /// Time limits of its sessions.
    pub limits: SessionLimits,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A credential for reading the catalog.
#[derive(Clone)]
pub struct CatalogLogin {
    /// User.
    pub user: String,
    /// Password, if the server wants one.
    pub password: Option<String>,
    /// Databases whose catalogs are read; empty for every one that accepts connections.
    pub databases: Vec<String>,
    /// How often.
    pub refresh: Duration,
}

/// Where the rules are.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The folder.
    pub directory: PathBuf,
    /// How often it is looked at besides being watched.
    pub reload: Duration,
}

/// Bounds of the process and of every connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most clients that are logged in at a time, over all datasources.
    pub clients: usize,
    /// Most clients that are not logged in yet at a time.
    pub logins: usize,
    /// Most of these from one address.
    pub logins_per_address: usize,
    /// From the accepted connection to the end of the login.
    pub login_timeout: Duration,
    /// For connecting to a server.
    pub connect_timeout: Duration,
    /// For sessions to become idle when the process stops.
    pub drain_timeout: Duration,
    /// When a TCP peer counts as gone.
    pub tcp: TcpLimits,
    /// Time limits of sessions, where a datasource does not say otherwise.
    pub sessions: SessionLimits,
    /// Most bytes one read takes.
    pub read_buffer_bytes: usize,
    /// A side is not read while a queue it fills holds this many bytes.
    pub high_water_bytes: usize,
    /// Longest statement.
    pub statement_bytes: usize,
    /// Most replies a client may wait for at a time.
    pub pending_replies: usize,
    /// Most prepared statements of a connection.
    pub prepared_statements: usize,
    /// Memory for decided plans.
    pub plan_cache_bytes: u64,
    /// Most rounds of key derivation that a server may ask for.
    pub scram_iterations: u32,
    /// When failed logins delay the next try.
    pub throttle: Bounds,
}

/// When a TCP peer that says nothing counts as gone, for clients and servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpLimits {
    /// Silence before the peer is probed; a quarter of it between probes.
    pub keepalive: Duration,
    /// How long what was sent may stay unacknowledged, probes included.
    pub user_timeout: Duration,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// A `tracing` filter such as `info` or `portcullis=debug`.
    pub level: String,
}

impl Config {
    /// Reads and checks a file. The second value holds warnings.
    ///
    /// # Errors
    /// All problems of the file, in the order of their places.
    pub fn load(path: &Path) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let at = Span { file: name.as_str().into(), line: 1, column: 1 };
            vec![
                Diagnostic::error(&at, format!("cannot be read: {error}"))
                    .with_help("name the configuration with `--config FILE`"),
            ]
        })?;
        // The parent of a bare file name is the empty path, which is no folder.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Self::parse(&name, &text, parent.unwrap_or(Path::new(".")))
    }

    /// Shared as soon as one listener is: the admin port of a successor must be there as well.
    pub fn shares_ports(&self) -> Port {
        let shared = |listen: &Listen| listen.port == Port::Shared;
        let any = self.datasources.iter().flat_map(|one| &one.listen).any(shared);
        if any { Port::Shared } else { Port::Own }
    }

    /// Checks a text; relative paths in it start at `base`. The second value holds warnings.
    ///
    /// # Errors
    /// All problems, in the order of their places.
    pub fn parse(
        name: &str,
        text: &str,
        base: &Path,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let root = Document::parse(name, text)?;
        let mut problems = Problems::default();
        let config = source::read(&root, &mut problems)
            .and_then(|file| check::check(file, base, &root.span, &mut problems));
        let refused = problems.has_errors();
        let diagnostics = problems.into_sorted();
        match config {
            Some(config) if !refused => Ok((config, diagnostics)),
            _ => Err(diagnostics),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Config {
    /// Attributes and roles that tokens are to give and that the identities file does not let them
    /// give: they would be ignored, and deny rules and masks for such a role with them.
    ///
    /// # Errors
    /// What to do about the first of them.
    pub fn fits(&self, rules: &RuleSet) -> Result<(), String> {
        for datasource in &self.datasources {
            let issuers = datasource.logins.issuers.iter().flatten();
            let mut names = issuers.flat_map(|issuer| issuer.expected.attributes.keys());
            if let Some(name) = names.find(|name| !rules.claimed_attributes().contains(*name)) {
                let datasource = &datasource.name;
                return Err(format!(
                    "datasource `{datasource}` takes `{name}` from tokens, which identities.yaml \
                     does not allow; add `claims: {{attributes: [{name}]}}` there"
                ));
            }
            let mut issuers = datasource.logins.issuers.iter().flatten();
            let takes_roles = issuers.any(|issuer| issuer.expected.roles_claim.is_some());
            if takes_roles && rules.claimed_roles().is_empty() {
                let datasource = &datasource.name;
                return Err(format!(
                    "datasource `{datasource}` takes roles from tokens (`roles_claim`), of which \
                     identities.yaml allows none; add `claims: {{roles: [ROLE, …]}}` there"
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for CatalogLogin {
    /// Leaves the password out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogLogin")
            .field("user", &self.user)
            .field("databases", &self.databases)
            .field("refresh", &self.refresh)
            .finish_non_exhaustive()
    }
}

/// Whether a list of diagnostics refuses the file.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
}
