//! Sessions as the admin port shows them: `GET /sessions`, `DELETE /sessions/{uid}`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::port::Visitor;
use super::{AdminState, TEXT, json, respond};

/// One connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Id of the session, as in the audit trail.
    pub uid: String,
    /// Datasource.
    pub datasource: String,
    /// User as the client named it; empty until it did.
    pub user: String,
    /// Database asked for.
    pub database: String,
    /// `application_name` at login.
    pub application: String,
    /// Client address; absent for a local socket.
    pub client: Option<String>,
    /// Version of TLS on the client leg; absent in plain text.
    pub tls: Option<String>,
    /// How the client logged in; absent until it did.
    pub method: Option<String>,
    /// `login`, `idle`, `in_transaction`, `listening`, `busy`, `closing`.
    pub phase: String,
    /// How long it has been in that phase, seconds.
    pub phase_s: f64,
    /// How long it has been connected, seconds.
    pub age_s: f64,
    /// When it came, microseconds since the Unix epoch.
    pub began_us: u64,
    /// Statements decided so far, refused ones included.
    pub statements: u64,
    /// Bytes read from the client so far.
    pub bytes_from_client: u64,
    /// Bytes read from the server so far.
    pub bytes_to_client: u64,
}

/// The answer of `GET /sessions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionList {
    /// In the order of their coming.
    pub sessions: Vec<SessionReport>,
}

/// Somebody asked to end a session.
#[derive(Clone, Copy, Debug)]
pub struct EndRequest<'a> {
    /// Id of the session.
    pub uid: &'a str,
    /// Address of whoever asked.
    pub by: SocketAddr,
    /// What gave the right.
    pub right: &'static str,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to end.
    Told,
    /// There is no such session.
    Unknown,
    /// The audit trail could not take the record, so nothing was done.
    NotRecorded,
}

/// Which sessions to list; absent is any.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    user: Option<String>,
    datasource: Option<String>,
}

pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    headers: HeaderMap,
    Query(filter): Query<Filter>,
) -> Response {
    if let Err(refused) = state.rights.admit(&headers) {
        return *refused;
    }
    let mut sessions = (state.sessions)();
    let fits = |wanted: &Option<String>, value: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted == value)
    };
    sessions
        .retain(|one| fits(&filter.user, &one.user) && fits(&filter.datasource, &one.datasource));
    json(StatusCode::OK, &SessionList { sessions })
}

pub(super) async fn end(
    State(state): State<Arc<AdminState>>,
    ConnectInfo(Visitor(by)): ConnectInfo<Visitor>,
    headers: HeaderMap,
    Path(uid): Path<String>,
) -> Response {
    let right = match state.rights.admit(&headers) {
        Ok(right) => right,
        Err(refused) => return *refused,
    };
    let (code, text) = match (state.end)(EndRequest { uid: &uid, by, right }) {
        Ended::Told => (StatusCode::ACCEPTED, "ending\n"),
        Ended::Unknown => (StatusCode::NOT_FOUND, "there is no such session\n"),
        Ended::NotRecorded => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the audit trail cannot take the record; nothing was done\n",
        ),
    };
    respond(code, TEXT, text.as_bytes().to_vec())
}
