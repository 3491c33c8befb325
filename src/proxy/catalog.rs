//! Reading catalogs with a credential of our own, at start and every `refresh`.
//!
//! Without one, the first client's connection reads the catalog after its login. A failure is
//! logged and counted, and the catalog in force stays.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tracing::{debug, warn};

use super::own_login::OwnLogin;
use super::shared::Datasource;
use super::upstream::Upstream;
use crate::analysis::Catalog;
use crate::config::CatalogLogin;

/// Reads a datasource's catalogs for ever. Cancel safe: a catalog is installed whole or not.
pub(super) async fn refresh(datasource: Arc<Datasource<Upstream>>, login: CatalogLogin) {
    let mut every = tokio::time::interval(login.refresh);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        every.tick().await;
        let limit = READ_TIMEOUT.max(datasource.dial.connect_timeout);
        let read = tokio::time::timeout(limit, read_all(&datasource, &login)).await;
        match read.context("the server did not answer in time").and_then(|read| read) {
            Ok(()) => failing = false,
            Err(error) => {
                datasource.metrics.catalog_failed();
                let problem = format!("{error:#}");
                datasource.shared.status.set_catalog_problem(&datasource.name, &problem);
                if failing {
                    debug!(datasource = &*datasource.name, problem, "catalog still not read");
                } else {
                    warn!(datasource = &*datasource.name, problem, "catalog not read");
                }
                failing = true;
            }
        }
    }
}

async fn read_all(datasource: &Datasource<Upstream>, login: &CatalogLogin) -> anyhow::Result<()> {
    let listed;
    let databases = if login.databases.is_empty() {
        listed = list_databases(datasource, login).await.context("list the databases")?;
        &listed
    } else {
        &login.databases
    };
    for database in databases {
        let rows = login_of(login).query(&datasource.dial, database, &catalog_query()).await;
        let rows = rows.with_context(|| format!("read the catalog of database `{database}`"))?;
        let read_at_us = datasource.shared.clock.now().mono_us;
        let cells = rows.iter().map(|row| {
            (0..row.len()).map(|at| row.get(at).map(|cell| cell.as_bytes().to_vec())).collect()
        });
        let catalog = Catalog::from_rows(database, cells, read_at_us)
            .with_context(|| format!("understand the catalog of database `{database}`"))?;
        datasource.analyzer.install(catalog);
        datasource.metrics.catalog_loaded();
        datasource.shared.status.set_catalog(&datasource.name, database, read_at_us);
    }
    Ok(())
}

pub(super) fn login_of(login: &CatalogLogin) -> OwnLogin<'_> {
    let CatalogLogin { user, password, databases: _, refresh: _ } = login;
    OwnLogin {
        user,
        password: password.as_deref().map(str::as_bytes),
        application: "portcullis catalog",
    }
}

async fn list_databases(
    datasource: &Datasource<Upstream>,
    login: &CatalogLogin,
) -> anyhow::Result<Vec<String>> {
    let rows =
        login_of(login).query(&datasource.dial, MAINTENANCE_DATABASE, LIST_DATABASES).await?;
    Ok(rows.iter().filter_map(|row| row.get(0)).map(str::to_owned).collect())
}

/// One text, so that the settings hold for it and for nothing after it.
fn catalog_query() -> String {
    format!("BEGIN; SET LOCAL search_path = pg_catalog, pg_temp; {}; COMMIT", Catalog::QUERY)
}

/// Exists on every server unless somebody dropped it; then `catalog.databases` names them.
pub(super) const MAINTENANCE_DATABASE: &str = "postgres";

const LIST_DATABASES: &str = "SELECT datname FROM pg_catalog.pg_database \
     WHERE datallowconn AND NOT datistemplate ORDER BY datname LIMIT 1000";

/// How long reading all catalogs of a datasource may take.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
