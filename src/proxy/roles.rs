//! Asking servers whether they are primary or standby, with the catalog's login.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tracing::{debug, info};

use super::catalog::{MAINTENANCE_DATABASE, login_of};
use super::hosts::Role;
use super::shared::Datasource;
use super::upstream::Upstream;
use crate::config::CatalogLogin;

/// Asks one server for ever: at short intervals, and at once when a session finds no server that
/// suits. Cancel safe: an answer is noted whole or not.
pub(super) async fn ask(datasource: Arc<Datasource<Upstream>>, login: CatalogLogin, server: usize) {
    let hosts = &datasource.dial.hosts;
    loop {
        let limit = datasource.dial.connect_timeout.saturating_add(ANSWER_TIMEOUT);
        let asked = tokio::time::timeout(limit, role(&datasource.dial, &login, server)).await;
        let role = match asked.context("no answer in time").and_then(|answer| answer) {
            Ok(role) => role,
            Err(error) => {
                debug!(datasource = &*datasource.name, server, ?error, "role not learnt");
                Role::Unknown
            }
        };
        let before = hosts.is_now(server, role);
        if before != role {
            let address = hosts.address(server).map(ToString::to_string).unwrap_or_default();
            info!(datasource = &*datasource.name, address, %role, "role of a server");
        }
        tokio::select! {
            () = hosts.wanted() => {}
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
    }
}

async fn role(upstream: &Upstream, login: &CatalogLogin, server: usize) -> anyhow::Result<Role> {
    let dialed = upstream.dial_server(server).await.context("connect")?;
    let database = login.databases.first().map_or(MAINTENANCE_DATABASE, String::as_str);
    let rows = login_of(login).query_on(dialed, database, ASK).await?;
    let row = rows.first().context("no row")?;
    match (row.get(0), row.get(1)) {
        (Some("t"), _) => Ok(Role::Standby),
        (Some("f"), Some("off")) => Ok(Role::Primary),
        (Some("f"), Some(_)) => Ok(Role::PrimaryReadOnly),
        (_, _) => anyhow::bail!("an answer that was not understood"),
    }
}

/// What libpq looks at for `target_session_attrs`, from before PostgreSQL 14 reported it.
const ASK: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
     pg_catalog.current_setting('default_transaction_read_only')";

/// Time between two questions: how long a server may be taken for what it was.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long an answer may take once the server is connected.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
