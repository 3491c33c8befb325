//! Which session a datasource's clients get: the one place that lists the protocols.

use std::sync::Arc;

use super::listener::Origin;
use super::uid::Birth;
use crate::config::{self, Limits, ServerAddress};
use crate::event::Now;
use crate::session::auth::Authentication;
use crate::session::pg::{PgConfig, PgSession};
use crate::session::{SessionSeed, TlsMode};

/// Makes PostgreSQL sessions for a datasource.
pub(super) fn postgresql(
    datasource: &config::Datasource,
    limits: &Limits,
) -> impl Fn(&Birth, Origin, Now) -> PgSession + Clone + Send + Sync + 'static {
    let remote = Arc::new(PgConfig {
        datasource: Arc::clone(&datasource.name),
        default_deny: datasource.default_deny,
        tls: match datasource.tls_mode {
            config::TlsMode::Off => TlsMode::Off,
            config::TlsMode::Allowed => TlsMode::Allowed,
            // That a certificate is there was seen to in the handshake.
            config::TlsMode::Required | config::TlsMode::Mutual => TlsMode::Required,
        },
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
    move |birth, Origin { address, local: credentials }, now| {
        let config = if credentials.is_some() { &local } else { &remote };
        let seed = SessionSeed { uid: birth.uid.clone(), client: address, local: credentials };
        PgSession::new(Arc::clone(config), seed, now)
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
