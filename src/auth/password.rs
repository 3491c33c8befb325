//! Judging a password in clear text: a user's own, an API key, or a token.
//!
//! The session has seen to it that it came over TLS or a Unix socket. Whatever is wrong, the client
//! is told what a wrong password is told; the word for it goes to the audit trail. No password, key
//! or token is ever logged or recorded: only a key's prefix and a token's subject are, and those
//! of nobody but who has proved to hold them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::api_key;
use super::derive::Derivation;
use super::jwt::{self, Expectations, Holder, Refused};
use super::key_source::KeySource;
use super::key_use::KeyDesk;
use crate::event::Now;
use crate::name::Protocol;
use crate::policy::{Credential, Login};
use crate::session::auth::{Attempt, Grant, PasswordKind, Reply, Secret};
use crate::session::gate::ActiveRules;
use crate::session::pg::scram::Keys;
use crate::session::pg::scram::server::Stored;

/// Whose tokens an entry of the configuration takes.
#[derive(Debug)]
pub struct Issuer {
    /// What a token must say.
    pub expected: Expectations,
    /// What it must be signed with.
    pub source: KeySource,
}

/// Judges the passwords of one datasource.
#[derive(Debug)]
pub struct Judge {
    /// Name in the configuration: keys may be restricted to it.
    pub datasource: Arc<str>,
    /// Issuers by the place of their entry in the configuration; `None` for other methods.
    pub issuers: Vec<Option<Arc<Issuer>>>,
    /// What is remembered of keys, shared by all datasources.
    pub desk: Arc<KeyDesk>,
    /// What verifiers are made up from for users that do not exist.
    pub decoy: [u8; 32],
    /// For clients alone: their guesses must not delay our own logins at the server.
    pub derivation: Derivation,
}

impl Judge {
    /// Whether a password is right. Cancel safe.
    pub async fn judge(
        &self,
        rules: &ArcSwap<ActiveRules>,
        (attempt, kind): (&Attempt, PasswordKind),
        password: &Secret,
        now: Now,
    ) -> Reply {
        match kind {
            PasswordKind::Stored => self.stored(rules, attempt, password).await,
            PasswordKind::ApiKey => self.key(&rules.load(), attempt, password, now),
            PasswordKind::Jwt => match self.issuers.get(attempt.entry) {
                Some(Some(issuer)) => match issuer.holder(attempt, password, now).await {
                    Ok(holder) => self.admit(&rules.load(), attempt, holder),
                    Err(reply) => reply,
                },
                Some(None) | None => Reply::Refused("no issuer of tokens is configured"),
            },
        }
    }

    /// Whether the password is the one a verifier was made of. All rounds are done for a made-up
    /// one, too, so that a user nobody knows takes as long as another.
    async fn stored(
        &self,
        rules: &ArcSwap<ActiveRules>,
        attempt: &Attempt,
        password: &Secret,
    ) -> Reply {
        let stored = {
            let rules = &rules.load().set;
            let found = rules.verifier(&attempt.user).cloned();
            Stored::or_made_up(found, (&self.decoy, &attempt.user), rules.usual_verifier())
        };
        let (salt, iterations) = (stored.verifier().salt.clone(), stored.verifier().iterations);
        let Some(salted) = self.derivation.derive(password.clone(), salt, iterations).await else {
            return Reply::Unavailable("keys could not be derived");
        };
        if stored.holds(&Keys::of(&salted).client_key) {
            return Reply::Granted(Grant { credential: Credential::Name, subject: None });
        }
        Reply::Refused("the password is wrong, or no such user")
    }

    fn key(&self, rules: &ActiveRules, attempt: &Attempt, key: &Secret, now: Now) -> Reply {
        let login = self.login(attempt, Credential::Name);
        let throttles = &self.desk.throttles;
        match api_key::verify(&rules.set, throttles, &login, key.bytes(), now) {
            Ok(prefix) => {
                self.desk.used(&prefix, &attempt.user, now.wall_us);
                let subject = Some(prefix.to_string());
                Reply::Granted(Grant { credential: Credential::ApiKey(prefix), subject })
            }
            Err((reason, held)) => {
                if let Some(prefix) = held {
                    self.desk.refused(&prefix, now.wall_us);
                }
                Reply::Refused(reason.word())
            }
        }
    }

    fn admit(&self, rules: &ActiveRules, attempt: &Attempt, holder: Holder) -> Reply {
        let Holder { subject, asserted } = holder;
        let credential = Credential::Token(Arc::new(asserted));
        if rules.set.contradicted(&self.login(attempt, credential.clone())).is_some() {
            return Reply::Refused("token contradicts the identities file");
        }
        Reply::Granted(Grant { credential, subject: Some(subject) })
    }

    fn login(&self, attempt: &Attempt, credential: Credential) -> Login {
        Login {
            datasource: Arc::clone(&self.datasource),
            // None of these decides on whether a proof holds.
            protocol: Protocol::POSTGRESQL,
            default_deny: true,
            application: String::new(),
            user: attempt.user.clone(),
            database: attempt.database.clone(),
            address: attempt.address,
            credential,
        }
    }
}

impl Issuer {
    async fn holder(&self, attempt: &Attempt, token: &Secret, now: Now) -> Result<Holder, Reply> {
        let verify = |keys: &super::jwks::KeySet| {
            jwt::verify(token.bytes(), keys, &self.expected, &attempt.user, now.wall_us / 1_000_000)
        };
        let keys = match self.source.keys(now.mono_us) {
            Some(keys) => Some(keys),
            // None yet, or none any more.
            None => self.source.renewed(now.mono_us).await,
        };
        let keys =
            keys.ok_or(Reply::Unavailable("the signing keys of tokens could not be read"))?;
        let judged = match verify(&keys) {
            // The issuer may have a new key.
            Err(Refused::UnknownKey) => match self.source.renewed(now.mono_us).await {
                Some(newer) => verify(&newer),
                None => Err(Refused::UnknownKey),
            },
            judged => judged,
        };
        judged.map_err(|reason| Reply::Refused(reason.word()))
    }
}

#[cfg(test)]
mod tests;
