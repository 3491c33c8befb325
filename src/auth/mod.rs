//! What proving a login needs of the world: shared memory of failures, and judging passwords.
//!
//! A session asks with [`auth::Request`](crate::session::auth::Request); [`Authenticator::answer`]
//! answers. One authenticator belongs to each datasource. A new kind of password
//! ([`PasswordKind`]) is judged in [`Authenticator::judge`]: the attempt names the entry of the
//! configuration by its place, so what an entry says beyond its method (keys, issuers) is kept here
//! in a list of the same order. A judge must do the same work for a user it does not know as for
//! one it knows, and its words of refusal go to the audit trail only.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::event::Now;
use crate::session::auth::{Attempt, PasswordKind, Proof, Reply, Report, Request, Secret};
use crate::session::gate::ActiveRules;

pub mod throttle;

use throttle::Throttle;

/// Answers what the sessions of one datasource ask about logins.
#[derive(Debug)]
pub struct Authenticator {
    throttle: Throttle,
    /// The rules in force; the identities belong to them.
    rules: Arc<ArcSwap<ActiveRules>>,
}

impl Authenticator {
    /// Nobody has failed yet.
    pub fn new(rules: Arc<ArcSwap<ActiveRules>>) -> Self {
        Self { throttle: Throttle::default(), rules }
    }

    /// Answers one question. Cancel safe: nothing is left half done.
    pub async fn answer(&self, request: Request, now: Now) -> Reply {
        match request {
            Request::Admit(attempt) => {
                match self.throttle.admit(&attempt.user, attempt.address, now.mono_us) {
                    Ok(()) => Reply::Admitted,
                    Err(retry_after_s) => Reply::Throttled { retry_after_s },
                }
            }
            Request::Password { attempt, password } => self.judge(&attempt, &password, now).await,
        }
    }

    /// Takes note of what became of an attempt.
    pub fn note(&self, report: &Report, now: Now) {
        let Report { attempt, proof } = report;
        let (user, address) = (attempt.user.as_str(), attempt.address);
        match proof {
            Proof::Held => self.throttle.succeeded(user, address, now.mono_us),
            Proof::Failed => self.throttle.failed(user, address, now.mono_us),
        }
    }

    /// Whether a password in clear text is right, and what it says of its bearer.
    #[expect(clippy::unused_async, reason = "keys of token issuers may have to be fetched")]
    async fn judge(&self, attempt: &Attempt, password: &Secret, now: Now) -> Reply {
        let crate::session::auth::Method::Password(kind) = attempt.method else {
            return Reply::Refused("not a password method");
        };
        let _ = (&self.rules, password, now);
        match kind {
            // No configuration leads here yet.
            PasswordKind::ApiKey | PasswordKind::Jwt => Reply::Refused("not configured"),
        }
    }
}
