//! Reading catalogs with a credential of our own, at start and every `refresh`.
//!
//! Without one, the first client's connection reads the catalog after its login. A failure is
//! logged and counted, and the catalog in force stays.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage, SimpleQueryRow};
use tracing::{debug, warn};

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
        let rows = query(datasource, login, database, &catalog_query()).await;
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

async fn list_databases(
    datasource: &Datasource<Upstream>,
    login: &CatalogLogin,
) -> anyhow::Result<Vec<String>> {
    let rows = query(datasource, login, MAINTENANCE_DATABASE, LIST_DATABASES).await?;
    Ok(rows.iter().filter_map(|row| row.get(0)).map(str::to_owned).collect())
}

/// Runs one text over a connection of its own and gives its rows.
async fn query(
    datasource: &Datasource<Upstream>,
    login: &CatalogLogin,
    database: &str,
    text: &str,
) -> anyhow::Result<Vec<SimpleQueryRow>> {
    let upstream = &datasource.dial;
    let mut config = Config::new();
    config
        .host(&upstream.host)
        .port(upstream.port)
        .user(&login.user)
        .dbname(database)
        .application_name("portcullis catalog")
        .connect_timeout(upstream.connect_timeout);
    if let Some(password) = &login.password {
        config.password(password);
    }
    let (client, connection) = config.connect(NoTls).await.map_err(told).context("connect")?;
    tokio::select! {
        answer = client.simple_query(text) => {
            let rows = answer.map_err(told)?.into_iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            Ok(rows.collect())
        }
        closed = connection => {
            closed.map_err(told)?;
            anyhow::bail!("the server closed the connection")
        }
    }
}

/// The server's own words: the library's message is only `db error`.
fn told(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(db) => anyhow::anyhow!("{}: {}", db.code().code(), db.message()),
        None => anyhow::Error::new(error),
    }
}

/// One text, so that the settings hold for it and for nothing after it.
fn catalog_query() -> String {
    format!("BEGIN; SET LOCAL search_path = pg_catalog, pg_temp; {}; COMMIT", Catalog::QUERY)
}

/// Exists on every server unless somebody dropped it; then `catalog.databases` names them.
const MAINTENANCE_DATABASE: &str = "postgres";

const LIST_DATABASES: &str = "SELECT datname FROM pg_catalog.pg_database \
     WHERE datallowconn AND NOT datistemplate ORDER BY datname LIMIT 1000";

/// How long reading all catalogs of a datasource may take.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
