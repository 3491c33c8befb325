//! API keys as the admin port shows them: `GET /keys`. Never a key, and not its digest.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::{AdminState, json};

/// One key of the identities in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// Its public part.
    pub prefix: String,
    /// Whose it is.
    pub user: String,
    /// The operator's words.
    pub description: Option<String>,
    /// It was taken back.
    pub revoked: bool,
    /// Logins since the process started.
    pub logins: u64,
    /// When the last of them was, microseconds since the Unix epoch; 0 if there was none.
    pub last_login_us: u64,
    /// Logins that were refused although the key was the right one.
    pub refused: u64,
    /// When the last of these was; 0 if there was none.
    pub last_refused_us: u64,
}

/// The answer of `GET /keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// By prefix.
    pub keys: Vec<KeyReport>,
}

pub(super) async fn list(State(state): State<Arc<AdminState>>, headers: HeaderMap) -> Response {
    if let Err(refused) = state.rights.admit(&headers) {
        return *refused;
    }
    json(StatusCode::OK, &KeyList { keys: (state.keys)() })
}
