//! Between the StartupMessage and the proof: who asks, by which method, whether the shell lets the
//! client try at all; and what follows from the proof.

use std::sync::Arc;

use super::challenge::{Challenge, refuse, refuse_proof, report};
use super::login::Connecting;
use super::relay;
use super::scope::ScopeTracker;
use super::scram::Learned;
use super::scram::server::{Binding, Stored};
use super::{Call, Denied, Journal, PgConfig, State};
use crate::facts::{Certainty, Facts, SettingChange};
use crate::policy::{Credential, Decision, DenyReason, Login as PolicyLogin};
use crate::session::auth::{
    Asked, Attempt, ChannelBinding, Chosen, Grant, LookedUp, Method, Proof, Reply, Request, Scram,
    StoredIn, Transport, certificate_names, local_names,
};
use crate::session::gate::{self, Refusal, Verdict};
use crate::session::{Effect, PeerCredentials, TlsPeer, Turn};
use crate::wire::pg::message;
use crate::wire::pg::startup::Startup;

/// A client that may go on to prove who it is.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) startup: Startup,
    pub(super) login: PolicyLogin,
    pub(super) transport: Transport,
    tls: Option<TlsPeer>,
    local: Option<PeerCredentials>,
    chosen: Chosen,
    /// What the audit trail calls the method.
    pub(super) method: &'static str,
}

impl Candidate {
    /// Reads who asks and notes it for the audit trail.
    pub(super) fn new(
        config: &PgConfig,
        journal: &mut Journal,
        startup: Startup,
        (tls, local): (Option<TlsPeer>, Option<PeerCredentials>),
    ) -> Result<Self, Denied> {
        let text = |name: &str| startup.get(name).map(|value| String::from_utf8(value.to_vec()));
        let not_utf8 =
            |_| Denied::new("22021", "user, database and application must be UTF-8", None);
        let user = text("user").transpose().map_err(not_utf8)?.filter(|user| !user.is_empty());
        let Some(user) = user else {
            let message = "no PostgreSQL user name specified in startup packet";
            return Err(Denied::new("28000", message, None));
        };
        let database = text("database").transpose().map_err(not_utf8)?;
        let database = database.filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone());
        let application = text("application_name").transpose().map_err(not_utf8)?;
        let application = application.unwrap_or_default();
        let address = journal.record.client.map(|address| address.ip());
        journal.amend(|record| {
            record.user.clone_from(&user);
            record.database.clone_from(&database);
            record.application.clone_from(&application);
        });
        let transport = Transport::of(tls.as_ref(), address);
        let asked = Asked { user: &user, database: &database, address, transport };
        let chosen = config.authentication.choose(&asked);
        let method = chosen.method.name();
        let login = PolicyLogin {
            datasource: Arc::clone(&config.datasource),
            protocol: crate::name::Protocol::POSTGRESQL,
            default_deny: config.default_deny,
            user,
            database,
            address,
            application,
            credential: Credential::default(),
        };
        Ok(Self { startup, login, transport, tls, local, chosen, method })
    }

    /// What is asked of it.
    pub(super) fn asks(&self) -> &Method {
        &self.chosen.method
    }

    pub(super) fn attempt(&self) -> Attempt {
        Attempt::new(&self.login, &self.chosen)
    }

    /// Asks whether the client may try.
    pub(super) fn ask(self, call: &mut Call<'_>) -> State {
        let request = Request::Admit(self.attempt());
        call.out.effects.push(Effect::Authenticate(Box::new(request)));
        State::Admitting(Box::new(self))
    }

    /// The shell's answer; `None` if it is none to what was asked.
    pub(super) fn admitted(
        self,
        call: &mut Call<'_>,
        config: &PgConfig,
        reply: Reply,
    ) -> Option<State> {
        match reply {
            Reply::Admitted { random, looked_up } => {
                Some(self.begin(call, config, (random, looked_up)))
            }
            Reply::Throttled { retry_after_s } => {
                let hint = format!("try again in {retry_after_s} s");
                let denial = Denied::new("28000", "too many failed logins", Some(&hint));
                Some(refuse(call, &self, &denial.because("too many failed logins")))
            }
            Reply::Unavailable(why) => Some(refuse(call, &self, &unavailable(why))),
            Reply::Granted(_) | Reply::Refused(_) | Reply::Account(_) | Reply::Derived(_) => None,
        }
    }

    /// Asks for the proof, or looks at the one that is there.
    fn begin(
        self,
        call: &mut Call<'_>,
        config: &PgConfig,
        (random, looked_up): ([u8; 18], LookedUp),
    ) -> State {
        if self.chosen.needs_certificate && self.certificate_names().is_none() {
            let message = "connection requires a valid client certificate";
            return refuse(call, &self, &Denied::new("28000", message, None));
        }
        match &self.chosen.method {
            Method::Relay => match call.turn.rules.set.admit(&self.login, call.turn.now.wall_us) {
                Ok(()) => self.relayed(call),
                Err(not) => {
                    let message = format!("user \"{}\" is not admitted", self.login.user);
                    let denial = Denied::new("28000", &message, Some(SEE_TRAIL));
                    refuse(call, &self, &denial.because(not.reason()))
                }
            },
            Method::Scram(scram) => {
                let stored = self.stored(call.turn, config, *scram, looked_up);
                match self.binding(*scram) {
                    Ok(binding) => State::Challenge(Box::new(Challenge::scram(
                        self,
                        binding,
                        (stored, random),
                        call.out,
                    ))),
                    Err(denial) => refuse(call, &self, &denial),
                }
            }
            Method::Certificate(map) => {
                let names = self.certificate_names().unwrap_or_default();
                let proven = map.allows(&names, &self.login.user).then(|| self.fingerprint());
                self.decide(call, proven)
            }
            Method::Peer(map) => {
                let names = self.local.as_ref().map(local_names).unwrap_or_default();
                let proven = map.allows(&names, &self.login.user);
                let proven = proven.then(|| names.into_iter().next());
                self.decide(call, proven)
            }
            Method::Password(_) if self.transport.is_confidential() => {
                State::Challenge(Box::new(Challenge::password(self, call.out)))
            }
            Method::Password(_) => {
                let hint = Some("connect with sslmode=require");
                let message = "this login needs TLS, its password travels in clear text";
                refuse(call, &self, &Denied::new("28000", message, hint))
            }
            Method::Reject => {
                let user = &self.login.user;
                let message = format!("no authentication entry admits user \"{user}\"");
                refuse(call, &self, &Denied::new("28000", &message, None))
            }
        }
    }

    /// The names in the client's verified certificate, if it gave one.
    fn certificate_names(&self) -> Option<Vec<String>> {
        self.tls.as_ref()?.certificate.as_ref().map(certificate_names)
    }

    fn fingerprint(&self) -> Option<String> {
        let certificate = self.tls.as_ref()?.certificate.as_ref()?;
        Some(format!("sha256:{}", certificate.fingerprint))
    }

    /// Whether a SCRAM exchange is to be bound to the client's TLS connection.
    fn binding(&self, scram: Scram) -> Result<Binding, Denied> {
        let end_point = self.tls.as_ref().and_then(|tls| tls.server_end_point.clone());
        match (scram.binding, end_point) {
            (ChannelBinding::Disable, _) | (ChannelBinding::Prefer, None) => Ok(Binding::None),
            (ChannelBinding::Prefer, Some(hash)) => Ok(Binding::Offered(hash)),
            (ChannelBinding::Require, Some(hash)) => Ok(Binding::Required(hash)),
            (ChannelBinding::Require, None) => {
                let hint = Some("connect with sslmode=require and channel_binding=prefer");
                Err(Denied::new("28000", "this login needs TLS with channel binding", hint))
            }
        }
    }

    /// What the client's proof is checked against.
    fn stored(
        &self,
        turn: Turn<'_>,
        config: &PgConfig,
        scram: Scram,
        looked_up: LookedUp,
    ) -> Stored {
        let rules = &turn.rules.set;
        let (found, like) = match (scram.stored, looked_up) {
            (StoredIn::Identities, _) => {
                (rules.verifier(&self.login.user).cloned(), rules.usual_verifier())
            }
            (StoredIn::Server, LookedUp::Found(verifier)) => {
                let like = (verifier.iterations, verifier.salt.len());
                (Some(verifier), like)
            }
            (StoredIn::Server, LookedUp::Missing { iterations, salt_bytes }) => {
                (None, (iterations, salt_bytes))
            }
            (StoredIn::Server, LookedUp::NotAsked) => (None, rules.usual_verifier()),
        };
        Stored::or_made_up(found, (&config.authentication.decoy, &self.login.user), like)
    }

    /// A proof that took no exchange: whom it names, or nothing.
    fn decide(self, call: &mut Call<'_>, proven: Option<Option<String>>) -> State {
        match proven {
            Some(subject) => {
                let grant = Grant { subject, ..Grant::default() };
                self.granted(call, Proven { grant, ..Proven::default() })
            }
            None => refuse_proof(call, &self, "no name it proves may log in as this user"),
        }
    }

    /// The proof holds: lets the client in, unless the identities are against it, and asks for the
    /// account to log in with at the server.
    pub(super) fn granted(mut self, call: &mut Call<'_>, proven: Proven) -> State {
        let Proven { grant: Grant { credential, subject }, last_word, learned } = proven;
        if let Err(not) = call.turn.rules.set.admit(&self.login, call.turn.now.wall_us) {
            return refuse_proof(call, &self, not.reason());
        }
        report(&self, Proof::Held, call.out);
        if let Some(last_word) = last_word {
            let out = &mut call.out.to_client;
            out.encode(|out| message::authentication_sasl_final(out, &last_word));
        }
        call.out.to_client.encode(message::authentication_ok);
        self.login.credential = credential;
        call.journal.amend(|record| record.subject = subject);
        let attempt = self.attempt();
        let scope = match self.identified(call) {
            Ok(scope) => scope,
            Err(denial) => return refuse(call, &self, &denial),
        };
        let request = Request::Account(attempt.clone());
        call.out.effects.push(Effect::Authenticate(Box::new(request)));
        let Self { startup, method, .. } = self;
        let connecting = Connecting::ours(startup, attempt, (method, scope), learned);
        State::Connecting(Box::new(connecting))
    }

    /// The server will find out whether the client is who it says it is.
    fn relayed(self, call: &mut Call<'_>) -> State {
        let attempt = self.attempt();
        let scope = match self.identified(call) {
            Ok(scope) => scope,
            Err(denial) => return refuse(call, &self, &denial),
        };
        call.out.effects.push(Effect::Connect);
        let Self { startup, transport, .. } = self;
        State::Connecting(Box::new(Connecting::relayed(startup, attempt, transport, scope)))
    }

    /// Who it is under the rules, unless they are against the start-up itself.
    fn identified(&self, call: &mut Call<'_>) -> Result<ScopeTracker, Denied> {
        let mut scope = ScopeTracker::new(call.turn, self.login.clone());
        let roles = &scope.class().identity.roles;
        call.journal.amend(|record| record.roles.clone_from(roles));
        admit_parameters(call.turn, &self.startup, &mut scope)?;
        Ok(scope)
    }
}

/// A proof that holds.
#[derive(Debug, Default)]
pub(super) struct Proven {
    /// What it says of its bearer.
    pub(super) grant: Grant,
    /// The end of a SASL exchange.
    pub(super) last_word: Option<Vec<u8>>,
    /// What the exchange gave away.
    pub(super) learned: Option<Learned>,
}

/// The answer to whom something could not be found out about.
pub(super) fn unavailable(why: &'static str) -> Denied {
    let hint = Some("the proxy's log says why");
    Denied::new("57P03", "the login could not be checked", hint).because(why)
}

/// Where the reason of a refusal is that a stranger need not know.
const SEE_TRAIL: &str = "the audit trail says why";

/// Replication is another grammar; settings in the start-up obey the same policy as SET.
fn admit_parameters(
    turn: Turn<'_>,
    startup: &Startup,
    scope: &mut ScopeTracker,
) -> Result<(), Denied> {
    if startup.is_replication() {
        let plan = relay::judge(turn, scope);
        let verdict = match &plan.verdict {
            Verdict::Refuse(refusal) => Err(refusal.clone()),
            Verdict::Forward | Verdict::Rewrite(_) => gate::admit(turn, &plan),
        };
        if let Err(Refusal { code, message, hint, position: _, rule: _, words: _ }) = verdict {
            return Err(Denied { code, message, hint, reason: None });
        }
    }
    if !scope.class().concerned {
        return Ok(());
    }
    let Some(settings) = startup.settings() else {
        let hint = Some("use -c name=value only");
        return Err(Denied::new("42501", "startup options hold an unknown switch", hint));
    };
    let change = |(name, value): (String, String)| SettingChange {
        name: name.into(),
        value: Some(value.into()),
        local: false,
    };
    let facts = Facts {
        certainty: Certainty::Known,
        actions: Vec::new(),
        accesses: Vec::new(),
        functions: Vec::new(),
        settings: settings.into_iter().map(change).collect(),
        store: crate::facts::StoreFacts::default(),
    };
    match turn.rules.set.decide(scope.class(), &facts) {
        Decision::Deny(denial) if denial.reason == DenyReason::SideDoor => {
            Err(Denied { code: "42501", message: denial.message, hint: denial.hint, reason: None })
        }
        // Allow lists speak of statements; the start-up holds none.
        Decision::Deny(_) | Decision::Allow(_) => Ok(()),
    }
}
