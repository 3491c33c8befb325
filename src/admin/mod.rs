//! The admin port: `/livez`, `/readyz`, `/metrics`, `POST /-/reload`, `/sessions`, `/keys`.
//!
//! Plain HTTP on the loopback address unless the configuration says otherwise. It tells names and
//! states, never a secret, a statement or a value. Each route that changes something or names
//! people asks [`Rights`] first. Deliberately absent: anything that changes rules or configuration
//! other than reading them again.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;

mod keys;
mod port;
mod rights;
mod sessions;
mod status;
#[cfg(test)]
mod tests;

use port::{Port, Visitor};

pub use keys::{KeyList, KeyReport};
pub use rights::{Rights, Token};
pub use sessions::{EndRequest, Ended, SessionList, SessionReport};
pub use status::{Report, Status};

/// What the admin port works with.
pub struct AdminState {
    /// The metrics to show.
    pub metrics: Arc<Metrics>,
    /// The health to show.
    pub status: Arc<Status>,
    /// What gives the right to what is not everybody's.
    pub rights: Rights,
    /// The connections of the process.
    pub sessions: Box<dyn Fn() -> Vec<SessionReport> + Send + Sync>,
    /// The API keys of the identities in force.
    pub keys: Box<dyn Fn() -> Vec<KeyReport> + Send + Sync>,
    /// Ends one of the connections.
    pub end: Box<dyn Fn(EndRequest<'_>) -> Ended + Send + Sync>,
    /// Where a wish to reload goes; whoever receives it answers.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// Microseconds since the process started, for ages.
    pub mono_us: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Brings metrics up to date that nobody reports (cache totals, ages), before a scrape.
    pub collect: Box<dyn Fn(&Metrics) + Send + Sync>,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Somebody asked to read the rules again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Reloaded, Vec<String>>>,
}

/// The rule set in force after a reload that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Its generation.
    pub generation: u64,
    /// SHA-256 over its files, hex.
    pub digest: String,
}

/// Serves until `stop` resolves, then finishes the requests in progress.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router(state).into_make_service_with_connect_info::<Visitor>();
    axum::serve(Port::new(listener), service).with_graceful_shutdown(stop).await
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/-/reload", post(reload))
        .route("/sessions", get(sessions::list))
        .route("/keys", get(keys::list))
        .route("/sessions/{uid}", delete(sessions::end))
        .with_state(Arc::new(state))
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(state): State<Arc<AdminState>>) -> Response {
    let report = state.status.report((state.mono_us)());
    let code = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(code, &report)
}

async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    (state.collect)(&state.metrics);
    match state.metrics.render() {
        Ok(text) => respond(StatusCode::OK, prometheus::TEXT_FORMAT, text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            let text = b"metrics cannot be encoded\n".to_vec();
            respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
        }
    }
}

async fn reload(State(state): State<Arc<AdminState>>, headers: HeaderMap) -> Response {
    if let Err(refused) = state.rights.admit(&headers) {
        return *refused;
    }
    let (answer, answered) = oneshot::channel();
    // A full channel means that reloads are already waiting: one more would read the same files.
    if state.reload.try_send(ReloadRequest { answer }).is_err() {
        return json(StatusCode::SERVICE_UNAVAILABLE, &Refused::busy());
    }
    match answered.await {
        Ok(Ok(reloaded)) => json(StatusCode::OK, &reloaded),
        Ok(Err(problems)) => json(StatusCode::UNPROCESSABLE_ENTITY, &Refused { problems }),
        Err(_) => json(StatusCode::SERVICE_UNAVAILABLE, &Refused::busy()),
    }
}

/// Why the rules in force stay.
#[derive(Serialize)]
struct Refused {
    problems: Vec<String>,
}

impl Refused {
    fn busy() -> Self {
        Self { problems: vec!["a reload is in progress, or the process is stopping".to_owned()] }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn json(code: StatusCode, value: &impl Serialize) -> Response {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    respond(code, "application/json", text)
}

fn respond(code: StatusCode, kind: &'static str, text: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
