//! Which session a datasource's clients get: the one place that lists the protocols.

use std::sync::Arc;

use super::listener::Origin;
use super::uid::Birth;
use crate::analysis::redis::Table;
use crate::config::{self, Config, ServerAddress};
use crate::event::Now;
use crate::session::auth::Authentication;
use crate::session::pg::{PgConfig, PgSession};
use crate::session::resp::{RespConfig, RespSession};
use crate::session::{SessionSeed, TlsMode};

/// Makes PostgreSQL sessions for a datasource.
pub(super) fn postgresql(
    datasource: &config::Datasource,
    config: &Config,
) -> impl Fn(&Birth, Origin, Now) -> PgSession + Clone + Send + Sync + 'static {
    let limits = &config.limits;
    let remote = Arc::new(PgConfig {
        datasource: Arc::clone(&datasource.name),
        default_deny: datasource.default_deny,
        tls: tls_mode(datasource),
        authentication: Authentication {
            iterations_max: limits.scram_iterations,
            ..datasource.authentication.clone()
        },
        server: recorded(&datasource.upstream),
        pending_replies_max: limits.pending_replies,
        prepared_statements_max: limits.prepared_statements,
        inspected_bytes_max: limits.statement_bytes.saturating_add(MESSAGE_SLACK_BYTES),
    });
    // Nobody listens in on a Unix socket, and no client asks for TLS there.
    let local = Arc::new(PgConfig { tls: TlsMode::Off, ..(*remote).clone() });
    move |birth, origin, now| {
        let config = if origin.local.is_some() { &local } else { &remote };
        PgSession::new(Arc::clone(config), seed(birth, origin), now)
    }
}

/// Makes Redis sessions for a datasource.
pub(super) fn redis(
    datasource: &config::Datasource,
    config: &Config,
    table: &Arc<Table>,
) -> impl Fn(&Birth, Origin, Now) -> RespSession + Clone + Send + Sync + 'static {
    let remote = Arc::new(RespConfig {
        datasource: Arc::clone(&datasource.name),
        default_deny: datasource.default_deny,
        tls: tls_mode(datasource),
        authentication: datasource.authentication.clone(),
        server: match (&datasource.sentinel, datasource.upstream.first()) {
            (Some(group), Some(first)) => (group.master.clone(), first.port),
            (_, _) => recorded(&datasource.upstream),
        },
        table: Arc::clone(table),
        masker: Arc::clone(&config.masker),
        pending_replies_max: config.limits.pending_replies,
    });
    let local = Arc::new(RespConfig { tls: TlsMode::Off, ..(*remote).clone() });
    move |birth, origin, now| {
        let config = if origin.local.is_some() { &local } else { &remote };
        RespSession::new(Arc::clone(config), seed(birth, origin), now)
    }
}

fn seed(birth: &Birth, origin: Origin) -> SessionSeed {
    let Origin { address, local } = origin;
    SessionSeed { uid: birth.uid.clone(), client: address, local }
}

fn tls_mode(datasource: &config::Datasource) -> TlsMode {
    match datasource.tls_mode {
        config::TlsMode::Off => TlsMode::Off,
        config::TlsMode::Allowed => TlsMode::Allowed,
        // That a certificate is there was seen to in the handshake.
        config::TlsMode::Required | config::TlsMode::Mutual => TlsMode::Required,
    }
}

/// The server as the audit trail names it; of a list, all that it may have been.
fn recorded(servers: &[ServerAddress]) -> (String, u16) {
    match servers {
        [only] => (only.host.clone(), only.port),
        several => {
            let names: Vec<_> = several.iter().map(ToString::to_string).collect();
            (names.join(","), several.first().map_or(0, |first| first.port))
        }
    }
}

/// What a message carries besides its statement: names, parameter types. The statement itself has
/// a limit of its own, with a better message.
const MESSAGE_SLACK_BYTES: usize = 64 * 1024;
