//! What connections share. Built once in the composition root, passed as `Arc`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::admission::Admissions;
use super::cancel::CancelRegistry;
use super::clock::Clock;
use super::registry::Registry;
use super::shutdown::Shutdown;
use super::workers::Workers;
use crate::admin::Status;
use crate::analysis::Analyzer;
use crate::audit::Queue;
use crate::auth::Authenticator;
use crate::auth::key_use::KeyDesk;
use crate::config::{SessionLimits, TcpLimits};
use crate::metrics::{DatasourceMetrics, Metrics};
use crate::policy::Throttles;
use crate::session::Turn;
use crate::session::gate::{ActiveRules, PlanCache};
use crate::tls::Acceptor;

/// Shared by all connections of the process.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The rules in force. Looked at once per turn.
    pub(crate) rules: Arc<ArcSwap<ActiveRules>>,
    /// The threads that drive connections.
    pub(crate) workers: Workers,
    /// Decided plans.
    pub(crate) plans: PlanCache,
    /// Rate limits; they survive a reload.
    pub(crate) throttles: Throttles,
    /// Who is connected.
    pub(crate) sessions: Arc<Registry>,
    /// What is remembered of API keys; it survives a reload.
    pub(crate) keys: Arc<KeyDesk>,
    /// Where events go.
    pub(crate) audit: Queue,
    /// Counters of the process.
    pub(crate) metrics: Arc<Metrics>,
    /// What `/readyz` tells.
    pub(crate) status: Arc<Status>,
    /// Time.
    pub(crate) clock: Clock,
    /// Places for clients.
    pub(crate) admissions: Arc<Admissions>,
    /// Whether the process stops.
    pub(crate) shutdown: Arc<Shutdown>,
    /// Bounds of every connection.
    pub(crate) limits: DriveLimits,
}

/// Shared by all connections of one datasource.
#[derive(Debug)]
pub(crate) struct Datasource<D> {
    /// Shared by all datasources.
    pub(crate) shared: Arc<Shared>,
    /// Name in the configuration.
    pub(crate) name: Arc<str>,
    /// Catalogs and limits for understanding statements.
    pub(crate) analyzer: Arc<Analyzer>,
    /// Keys of live sessions.
    pub(crate) cancels: Arc<CancelRegistry>,
    /// Answers what sessions ask about logins.
    pub(crate) auth: Authenticator,
    /// Opens connections to the server.
    pub(crate) dial: D,
    /// The server as the log names it, `host:port`.
    pub(crate) address: String,
    /// What `/readyz` was last told of the server.
    pub(crate) reach: Reach,
    /// Counters of this datasource.
    pub(crate) metrics: Arc<DatasourceMetrics>,
    /// TLS on the client leg, where configured. Loaded once per handshake.
    pub(crate) tls: Option<Arc<ArcSwap<Acceptor>>>,
    /// Time limits of its sessions.
    pub(crate) limits: SessionLimits,
}

/// Whether a server was reached when last tried. `/readyz` is told of changes only: its state is
/// behind a lock that all sessions share.
#[derive(Debug, Default)]
pub(crate) struct Reach(AtomicU8);

impl Reach {
    /// Notes the result of a try; `true` when it differs from the one before.
    pub(crate) fn changed(&self, reached: bool) -> bool {
        let now = if reached { 1 } else { 2 };
        self.0.swap(now, Ordering::Relaxed) != now
    }
}

/// Bounds the driver keeps for every connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DriveLimits {
    /// Most bytes one read takes.
    pub(crate) read_bytes_max: usize,
    /// A side is not read while a queue it fills holds this many bytes.
    pub(crate) high_water_bytes: usize,
    /// Most bytes of one side a session may leave unconsumed, as a backstop behind its own limits.
    pub(crate) held_bytes_max: usize,
    /// From the accepted connection to the end of the login, TLS handshake included.
    pub(crate) login_timeout: Duration,
    /// When a TCP peer counts as gone.
    pub(crate) tcp: TcpLimits,
    /// How long a cancel's connection to the server may take to be closed by it.
    pub(crate) cancel_timeout: Duration,
    /// How long last words and results may take to be written when a connection closes.
    pub(crate) flush_timeout: Duration,
    /// How long after its login a session is not taken for an idle one when the process drains.
    pub(crate) drain_grace: Duration,
}

impl<D> Datasource<D> {
    /// A turn with these rules, now.
    pub(crate) fn turn<'a>(&'a self, rules: &'a ActiveRules) -> Turn<'a> {
        Turn {
            rules,
            analyzer: &self.analyzer,
            plans: &self.shared.plans,
            throttles: &self.shared.throttles,
            now: self.shared.clock.now(),
        }
    }
}
