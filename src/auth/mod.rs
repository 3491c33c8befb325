//! What proving a login needs of the world: shared memory of failures, credentials for the server,
//! and judging passwords.
//!
//! A session asks with [`auth::Request`](crate::session::auth::Request); [`Authenticator::answer`]
//! answers. One authenticator belongs to each datasource. Passwords in clear text are judged by
//! [`password::Judge`]: the attempt names the entry of the configuration by its place, so what an
//! entry says beyond its method (issuers of tokens) is kept there in a list of the same order. A
//! judge must do the same work for a user it does not know as for one it knows, and its words of
//! refusal go to the audit trail only.

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tracing::error;

use crate::event::Now;
use crate::session::auth::{
    Account, Attempt, LookedUp, Method, Proof, Reply, Report, Request, Scram, Secret, StoredIn,
};
use crate::session::gate::ActiveRules;

pub mod accounts;
pub mod api_key;
pub mod derive;
pub mod fetch;
#[cfg(test)]
pub(crate) mod issuer_tests;
mod json;
pub mod jwks;
pub mod jwt;
pub mod key_source;
pub mod key_use;
pub(crate) mod origin;
pub mod password;
pub mod query;
pub mod throttle;

use accounts::Accounts;
use derive::Derivation;
use key_use::KeyDesk;
use password::{Issuer, Judge};
use query::{AskServer, AuthQuery, Stored};
use throttle::{Bounds, Throttle};

/// What a datasource's configuration says of logins, beyond what sessions need.
#[derive(Clone, Debug, Default)]
pub struct Logins {
    /// When failures delay the next try.
    pub bounds: Bounds,
    /// With which accounts clients log in at the server.
    pub accounts: Accounts,
    /// How the server is asked for verifiers.
    pub query: Option<AuthQuery>,
    /// Issuers of tokens, by the place of their entry in `authentication`.
    pub issuers: Vec<Option<Arc<Issuer>>>,
    /// What verifiers are made up from for users that do not exist.
    pub decoy: [u8; 32],
}

/// Answers what the sessions of one datasource ask about logins.
#[derive(Debug)]
pub struct Authenticator {
    throttle: Throttle,
    accounts: Accounts,
    stored: Option<Stored>,
    derivation: Derivation,
    /// The rules in force; the identities belong to them.
    rules: Arc<ArcSwap<ActiveRules>>,
    judge: Judge,
}

impl Authenticator {
    /// Nobody has failed yet.
    pub fn new(
        logins: Logins,
        (datasource, desk): (Arc<str>, Arc<KeyDesk>),
        rules: Arc<ArcSwap<ActiveRules>>,
    ) -> Self {
        let Logins { bounds, accounts, query, issuers, decoy } = logins;
        Self {
            throttle: Throttle::new(bounds),
            accounts,
            stored: query.map(Stored::new),
            derivation: Derivation::default(),
            rules,
            judge: Judge { datasource, issuers, desk, decoy, derivation: Derivation::default() },
        }
    }

    /// Answers one question. Cancel safe: nothing is left half done.
    pub async fn answer(&self, request: Request, now: Now, ask_server: &dyn AskServer) -> Reply {
        match request {
            Request::Admit(attempt) => self.admit(&attempt, now, ask_server).await,
            Request::Password { attempt, password } => self.judge(&attempt, &password, now).await,
            Request::Account(attempt) => match self.accounts.find(&attempt).await {
                Ok((user, proof)) => match random() {
                    Ok(random) => Reply::Account(Account { user, proof, random }),
                    Err(why) => why,
                },
                Err(why) => Reply::Unavailable(why),
            },
            Request::Derive { password, salt, iterations } => {
                match self.derivation.salted_password(password, salt, iterations).await {
                    Some(salted) => Reply::Derived(salted),
                    None => Reply::Unavailable("keys could not be derived"),
                }
            }
        }
    }

    async fn admit(&self, attempt: &Attempt, now: Now, ask_server: &dyn AskServer) -> Reply {
        let Attempt { user, address, method, .. } = attempt;
        if method.is_guessed()
            && let Err(retry_after_s) = self.throttle.admit(user, *address, now.mono_us)
        {
            return Reply::Throttled { retry_after_s };
        }
        let looked_up = match (method, &self.stored) {
            (Method::Scram(Scram { stored: StoredIn::Server, .. }), Some(stored)) => {
                match look_up(stored, user, now, ask_server).await {
                    Ok(looked_up) => looked_up,
                    Err(error) => {
                        error!(error = format!("{error:#}"), "`auth_query` failed");
                        return Reply::Unavailable("auth_query failed");
                    }
                }
            }
            _ => LookedUp::NotAsked,
        };
        match random() {
            Ok(random) => Reply::Admitted { random, looked_up },
            Err(why) => why,
        }
    }

    /// Takes note of what became of an attempt.
    pub fn note(&self, report: &Report, now: Now) {
        let Report { attempt, proof } = report;
        if !attempt.method.is_guessed() {
            return;
        }
        let (user, address) = (attempt.user.as_str(), attempt.address);
        match proof {
            Proof::Held => self.throttle.succeeded(user, address, now.mono_us),
            Proof::Failed => {
                self.throttle.failed(user, address, now.mono_us);
                if let Some(stored) = &self.stored {
                    stored.forget(user);
                }
            }
        }
    }

    /// Whether a password in clear text is right, and what it says of its bearer.
    async fn judge(&self, attempt: &Attempt, password: &Secret, now: Now) -> Reply {
        let Method::Password(kind) = attempt.method else {
            return Reply::Refused("not a password method");
        };
        // Others of the same client may have failed since it was admitted.
        if self.throttle.admit(&attempt.user, attempt.address, now.mono_us).is_err() {
            return Reply::Refused("too many failed logins");
        }
        self.judge.judge(&self.rules, (attempt, kind), password, now).await
    }
}

async fn look_up(
    stored: &Stored,
    user: &str,
    now: Now,
    ask_server: &dyn AskServer,
) -> anyhow::Result<LookedUp> {
    if let Some(kept) = stored.kept(user, now.mono_us) {
        return Ok(kept);
    }
    let _place = stored.place().await.context("no place to ask the server")?;
    let found = ask_server.ask(&stored.query, user).await?;
    Ok(stored.keep(user, found.as_deref(), now.mono_us))
}

/// Fresh randomness, or the answer that there is none.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Reply> {
    let mut bytes = [0; N];
    let source = rustls::crypto::ring::default_provider().secure_random;
    match source.fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(problem) => {
            error!(?problem, "the system's random source failed");
            Err(Reply::Unavailable("no randomness"))
        }
    }
}
