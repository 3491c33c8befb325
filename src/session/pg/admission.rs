//! Between the StartupMessage and the first question: who asks, by which method, and whether the
//! shell lets the client try at all.

use std::sync::Arc;

use super::challenge::{Challenge, refuse};
use super::login::Connecting;
use super::relay;
use super::scope::ScopeTracker;
use super::{Call, Denied, Journal, PgConfig, State};
use crate::facts::{Certainty, Facts, SettingChange};
use crate::policy::{Asserted, Decision, DenyReason, Login as PolicyLogin};
use crate::session::auth::{Asked, Attempt, Grant, Method, Reply, Request, Transport};
use crate::session::gate::{self, Refusal, Verdict};
use crate::session::{Effect, TlsPeer, Turn};
use crate::wire::pg::startup::Startup;

/// A client that may go on to prove who it is.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) startup: Startup,
    pub(super) login: PolicyLogin,
    pub(super) transport: Transport,
    /// Place of the entry that decides, and its method.
    pub(super) entry: usize,
    pub(super) method: Method,
}

impl Candidate {
    /// Reads who asks and notes it for the audit trail.
    pub(super) fn new(
        config: &PgConfig,
        journal: &mut Journal,
        startup: Startup,
        tls: Option<&TlsPeer>,
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
        let mut record = (*journal.record).clone();
        record.user.clone_from(&user);
        record.database.clone_from(&database);
        record.application.clone_from(&application);
        let address = record.client.map(|address| address.ip());
        journal.record = Arc::new(record);
        let transport = match (tls, address) {
            (Some(_), _) => Transport::Tls,
            (None, Some(_)) => Transport::Plain,
            (None, None) => Transport::Local,
        };
        let asked = Asked { user: &user, database: &database, address, transport };
        let (entry, method) = config.authentication.choose(&asked);
        let login = PolicyLogin {
            datasource: Arc::clone(&config.datasource),
            default_deny: config.default_deny,
            user,
            database,
            address,
            application,
            asserted: Asserted::default(),
        };
        Ok(Self { startup, login, transport, entry, method })
    }

    pub(super) fn attempt(&self) -> Attempt {
        Attempt {
            user: self.login.user.clone(),
            database: self.login.database.clone(),
            address: self.login.address,
            entry: self.entry,
            method: self.method,
        }
    }

    /// Asks whether the client may try.
    pub(super) fn ask(self, call: &mut Call<'_>) -> State {
        let request = Request::Admit(self.attempt());
        call.out.effects.push(Effect::Authenticate(Box::new(request)));
        State::Admitting(Box::new(self))
    }

    /// The shell's answer; `None` if it is none to what was asked.
    pub(super) fn admitted(self, call: &mut Call<'_>, reply: &Reply) -> Option<State> {
        match reply {
            Reply::Admitted => {}
            Reply::Throttled { retry_after_s } => {
                let hint = format!("try again in {retry_after_s} s");
                let message = "too many failed logins";
                let denial = Denied::new("28000", message, Some(&hint));
                return Some(refuse(call, self.method, &denial));
            }
            Reply::Granted(_) | Reply::Refused(_) | Reply::Unavailable(_) => return None,
        }
        Some(match self.method {
            Method::Relay => self.proven(call),
            Method::Password(_) if self.transport.is_confidential() => {
                State::Challenge(Box::new(Challenge::ask(self, call.out)))
            }
            Method::Password(_) => {
                let hint = Some("connect with sslmode=require");
                let message = "this login needs TLS, its password travels in clear text";
                refuse(call, self.method, &Denied::new("28000", message, hint))
            }
            Method::Reject => {
                let user = &self.login.user;
                let message = format!("no authentication entry admits user \"{user}\"");
                refuse(call, self.method, &Denied::new("28000", &message, None))
            }
        })
    }

    /// The proof holds, and says this of its bearer.
    pub(super) fn granted(mut self, call: &mut Call<'_>, grant: Grant) -> State {
        let Grant { asserted, subject: _ } = grant;
        self.login.asserted = asserted;
        self.proven(call)
    }

    /// Who asks is who it says, or the server will find out: connects, unless the rules are
    /// against the start-up itself.
    pub(super) fn proven(self, call: &mut Call<'_>) -> State {
        let attempt = self.attempt();
        let Self { startup, login, transport, method, entry: _ } = self;
        let mut scope = ScopeTracker::new(call.turn, login);
        let mut record = (*call.journal.record).clone();
        record.roles.clone_from(&scope.class().identity.roles);
        call.journal.record = Arc::new(record);
        if let Err(denial) = admit_parameters(call.turn, &startup, &mut scope) {
            return refuse(call, method, &denial);
        }
        call.out.effects.push(Effect::Connect);
        State::Connecting(Box::new(Connecting::new(startup, attempt, transport, scope)))
    }
}

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
            return Err(Denied { code, message, hint });
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
    };
    match turn.rules.set.decide(scope.class(), &facts) {
        Decision::Deny(denial) if denial.reason == DenyReason::SideDoor => {
            Err(Denied { code: "42501", message: denial.message, hint: denial.hint })
        }
        // Allow lists speak of statements; the start-up holds none.
        Decision::Deny(_) | Decision::Allow(_) => Ok(()),
    }
}
