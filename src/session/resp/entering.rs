//! Letting a client in: AUTH, HELLO with AUTH, and those who need say nothing.
//!
//! ```text
//! Admitting ──relay───────────────────────────────► Connecting ──► AtServer ──► in
//!     └──────► Judging ──Granted──► Naming ──Account──►──┘
//! ```
//! One login at a time, and nothing else of the client is read meanwhile. A login that fails leaves
//! the client who it was: nobody, or whoever it had proved to be.

use std::sync::Arc;

use super::RespConfig;
use super::pending::Expect;
use super::talk::{Core, Who, leg_error};
use super::words::{self, WRONG_PASS};
use crate::policy::{Credential, Login as PolicyLogin};
use crate::session::Effect;
use crate::session::auth::{
    Account, AccountFailure, AccountProof, Asked, Attempt, Chosen, Grant, Method, Proof, Reply,
    Report, Request, Secret, ServerLeg, Transport, certificate_names, local_names,
};
use crate::session::journal::Call;
use crate::wire::resp::Protocol;

/// A login under way.
#[derive(Debug)]
pub(super) struct Entering {
    how: How,
    login: PolicyLogin,
    chosen: Chosen,
    password: Option<Secret>,
    subject: Option<String>,
    step: Step,
}

/// How a client asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It does not: it just begins, as `default`.
    Unasked,
    /// AUTH with a password alone.
    Password,
    /// AUTH with a user.
    User,
    /// HELLO with AUTH.
    Hello {
        /// The version asked for.
        version: Protocol,
        /// The name it gives its connection.
        name: Option<Vec<u8>>,
    },
}

#[derive(Debug)]
enum Step {
    Admitting,
    Judging,
    Naming,
    Connecting(Option<Account>),
    /// The server was asked, with which account, if it is one of ours; of a client that did not say
    /// who it is, whether it must.
    AtServer(Option<String>),
}

/// A login that the client asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    pub(super) how: How,
}

impl Entering {
    /// Whether the server is being asked.
    pub(super) fn is_at_server(&self) -> bool {
        matches!(self.step, Step::AtServer(_))
    }

    fn attempt(&self) -> Attempt {
        Attempt::new(&self.login, &self.chosen)
    }

    /// What the audit trail calls the method.
    fn method(&self) -> &'static str {
        match (&self.chosen.method, &self.how) {
            (Method::Relay, How::Unasked) => "trust",
            (Method::Relay, How::Password | How::User | How::Hello { .. }) => "password",
            (
                Method::Scram(_)
                | Method::Certificate(_)
                | Method::Peer(_)
                | Method::Password(_)
                | Method::Reject,
                _,
            ) => self.chosen.method.name(),
        }
    }
}

impl Core {
    /// Whom the configuration lets in without a word is let in.
    pub(super) fn enter_unasked(&mut self, call: &mut Call<'_>, config: &RespConfig) {
        self.tried_unasked = true;
        let wanted = Wanted { user: DEFAULT_USER.to_owned(), password: None, how: How::Unasked };
        let entering = self.entering(call, config, wanted);
        match &entering.chosen.method {
            Method::Relay | Method::Certificate(_) | Method::Peer(_) => self.ask(call, entering),
            Method::Scram(_) | Method::Password(_) | Method::Reject => {}
        }
    }

    /// The client asks to be let in.
    pub(super) fn enter(&mut self, call: &mut Call<'_>, config: &RespConfig, wanted: Wanted) {
        let entering = self.entering(call, config, wanted);
        self.ask(call, entering);
    }

    fn ask(&mut self, call: &mut Call<'_>, entering: Entering) {
        let request = Request::Admit(entering.attempt());
        call.out.effects.push(Effect::Authenticate(Box::new(request)));
        self.entering = Some(entering);
    }

    fn entering(&self, call: &Call<'_>, config: &RespConfig, wanted: Wanted) -> Entering {
        let Wanted { user, password, how } = wanted;
        let address = call.journal.record.client.map(|address| address.ip());
        let database = self.database.to_string();
        let transport = self.transport(call);
        let asked = Asked { user: &user, database: &database, address, transport };
        let chosen = config.authentication.choose(&asked);
        let application = match &how {
            How::Hello { name: Some(name), .. } => String::from_utf8_lossy(name).into_owned(),
            How::Hello { name: None, .. } | How::Unasked | How::Password | How::User => {
                call.journal.record.application.clone()
            }
        };
        let login = PolicyLogin {
            datasource: Arc::clone(&config.datasource),
            protocol: crate::name::Protocol::REDIS,
            default_deny: config.default_deny,
            user,
            database,
            address,
            application,
            credential: Credential::default(),
        };
        Entering { how, login, chosen, password, subject: None, step: Step::Admitting }
    }

    fn transport(&self, call: &Call<'_>) -> Transport {
        Transport::of(self.tls.as_ref(), call.journal.record.client.map(|client| client.ip()))
    }

    /// The shell's answer; `None` if it is none to what was asked.
    pub(super) fn told(&mut self, call: &mut Call<'_>, reply: Reply) -> Option<()> {
        let mut entering = self.entering.take()?;
        match (&entering.step, reply) {
            (Step::Admitting, Reply::Admitted { .. }) => self.admitted(call, entering),
            (Step::Admitting, Reply::Throttled { retry_after_s }) => {
                let text = format!("ERR too many failed logins, try again in {retry_after_s} s");
                self.turn_away(call, &entering, (&text, Some("too many failed logins")));
            }
            (Step::Judging, Reply::Granted(grant)) => self.granted(call, entering, grant),
            (Step::Judging, Reply::Refused(why)) => self.not_proven(call, &entering, why),
            (Step::Naming, Reply::Account(account)) => {
                entering.step = Step::Connecting(Some(account));
                self.go_to_server(call, entering);
            }
            (Step::Admitting | Step::Judging | Step::Naming, Reply::Unavailable(why)) => {
                let text = "ERR the login could not be checked; the proxy's log says why";
                self.turn_away(call, &entering, (text, Some(why)));
            }
            (
                Step::Admitting
                | Step::Judging
                | Step::Naming
                | Step::Connecting(_)
                | Step::AtServer(_),
                _,
            ) => return None,
        }
        Some(())
    }

    /// The client may try.
    fn admitted(&mut self, call: &mut Call<'_>, mut entering: Entering) {
        let certificate = self.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        if entering.chosen.needs_certificate && certificate.is_none() {
            let why = "no client certificate";
            return self.turn_away(
                call,
                &entering,
                ("ERR this login needs a client certificate", Some(why)),
            );
        }
        match &entering.chosen.method {
            Method::Relay => {
                match call.turn.rules.set.admit(&entering.login, call.turn.now.wall_us) {
                    Ok(()) => {
                        entering.step = Step::Connecting(None);
                        self.go_to_server(call, entering);
                    }
                    Err(not) => self.not_proven(call, &entering, not.reason()),
                }
            }
            Method::Password(_) if !self.transport(call).is_confidential() => {
                let text = "ERR this login needs TLS, its password travels in clear text";
                self.turn_away(call, &entering, (text, Some("no TLS")));
            }
            Method::Password(_) => match entering.password.take() {
                Some(password) if !password.bytes().is_empty() => {
                    let request = Request::Password { attempt: entering.attempt(), password };
                    call.out.effects.push(Effect::Authenticate(Box::new(request)));
                    entering.step = Step::Judging;
                    self.entering = Some(entering);
                }
                Some(_) | None => self.not_proven(call, &entering, "the password is empty"),
            },
            Method::Certificate(map) => {
                let names = certificate.map(certificate_names).unwrap_or_default();
                let fingerprint = certificate.map(|known| format!("sha256:{}", known.fingerprint));
                let proven = map.allows(&names, &entering.login.user);
                self.named(call, entering, proven.then_some(fingerprint));
            }
            Method::Peer(map) => {
                let names = self.local.as_ref().map(local_names).unwrap_or_default();
                let proven = map.allows(&names, &entering.login.user);
                self.named(call, entering, proven.then(|| names.into_iter().next()));
            }
            Method::Scram(_) | Method::Reject => {
                self.not_proven(call, &entering, "no authentication entry admits this user");
            }
        }
    }

    /// A proof that took no password: whom it names, or nothing.
    fn named(&mut self, call: &mut Call<'_>, entering: Entering, proven: Option<Option<String>>) {
        match proven {
            Some(subject) => self.granted(call, entering, Grant { subject, ..Grant::default() }),
            None => {
                self.not_proven(call, &entering, "no name it proves may log in as this user");
            }
        }
    }

    /// The proof holds: asks for the account to log in with at the server.
    fn granted(&mut self, call: &mut Call<'_>, mut entering: Entering, grant: Grant) {
        if let Err(not) = call.turn.rules.set.admit(&entering.login, call.turn.now.wall_us) {
            return self.not_proven(call, &entering, not.reason());
        }
        report(call, &entering, Proof::Held);
        entering.login.credential = grant.credential;
        entering.subject = grant.subject;
        let request = Request::Account(entering.attempt());
        call.out.effects.push(Effect::Authenticate(Box::new(request)));
        entering.step = Step::Naming;
        self.entering = Some(entering);
    }

    /// Connects, or goes on where the connection stands.
    fn go_to_server(&mut self, call: &mut Call<'_>, entering: Entering) {
        match self.server {
            None => {
                call.out.effects.push(Effect::Connect);
                self.entering = Some(entering);
            }
            Some(_) => self.ask_server(call, entering),
        }
    }

    /// The connection stands; `None` if nobody asked for it.
    pub(super) fn connected(&mut self, call: &mut Call<'_>, leg: ServerLeg) -> Option<()> {
        let entering = self.entering.take()?;
        if !matches!(entering.step, Step::Connecting(_)) || self.server.is_some() {
            return None;
        }
        self.server = Some(leg);
        self.ask_server(call, entering);
        Some(())
    }

    /// Logs in at the server, where there is something to say.
    fn ask_server(&mut self, call: &mut Call<'_>, mut entering: Entering) {
        let Step::Connecting(account) = &mut entering.step else { return };
        let account = account.take();
        let (user, password) = match (&account, &entering.how) {
            // Relayed: the server judges what the client said.
            (None, How::Unasked) => {
                // Whether a word is needed only the server knows.
                call.out.to_server.extend(words::PING);
                self.pending.push(Expect::Login);
                entering.step = Step::AtServer(None);
                self.entering = Some(entering);
                return;
            }
            (None, How::Password) => (None, entering.password.take()),
            (None, How::User | How::Hello { .. }) => {
                (Some(entering.login.user.clone()), entering.password.take())
            }
            (Some(account), _) => match &account.proof {
                AccountProof::Password(_) if !self.server_is_trusted() => {
                    return self.account_unusable(call, &entering, account, leg_error());
                }
                AccountProof::Password(password) => {
                    (Some(account.user.clone()), Some(password.clone()))
                }
                AccountProof::Nothing if self.account.is_some() => {
                    let text = "ERR another user needs another connection here; reconnect";
                    return self.turn_away(call, &entering, (text, Some("another account")));
                }
                AccountProof::Nothing => (None, None),
                AccountProof::ClientsKeys => {
                    let what = "the client's own keys are of no use here; name an account";
                    return self.account_unusable(call, &entering, account, what);
                }
            },
        };
        let proof = password.as_ref().map(|password| (user.as_deref(), password.bytes()));
        if !login_command(call, &entering.how, proof) {
            // Nothing to say to the server, and it is the client's turn.
            let name = account.map(|account| account.user);
            return self.let_in(call, entering, name);
        }
        self.pending.push(Expect::Login);
        entering.step = Step::AtServer(account.map(|account| account.user));
        self.entering = Some(entering);
    }

    fn server_is_trusted(&self) -> bool {
        self.server.as_ref().is_some_and(ServerLeg::is_trusted)
    }

    fn account_unusable(
        &mut self,
        call: &mut Call<'_>,
        entering: &Entering,
        account: &Account,
        what: &str,
    ) {
        let failure = AccountFailure { account: account.user.clone(), what: what.to_owned() };
        call.out.effects.push(Effect::ReportAccount(Box::new(failure)));
        self.turn_away(call, entering, (ACCOUNT_UNUSABLE, Some("account of no use")));
    }

    /// The server's whole reply to the login.
    pub(super) fn server_judged(&mut self, call: &mut Call<'_>, reply: &[u8]) {
        let Some(entering) = self.entering.take() else { return };
        let Step::AtServer(account) = &entering.step else { return };
        let account = account.clone();
        if entering.how == How::Unasked && account.is_none() {
            if !reply.starts_with(b"-NOAUTH") {
                self.let_in(call, entering, None);
            }
            return;
        }
        if reply.first() != Some(&b'-') {
            if entering.how != How::Unasked {
                call.out.to_client.extend(reply);
            }
            return self.let_in(call, entering, account);
        }
        let said = String::from_utf8_lossy(reply.trim_ascii()).into_owned();
        match account {
            None => {
                report(call, &entering, Proof::Failed);
                let code = crate::event::StoreError::of(reply).word();
                let method = Some(entering.method());
                call.journal.login_failed(call.turn.now, code, (method, None), call.out);
                call.out.to_client.extend(reply);
            }
            Some(account) => {
                let failure = AccountFailure { account, what: said };
                call.out.effects.push(Effect::ReportAccount(Box::new(failure)));
                self.turn_away(call, &entering, (ACCOUNT_UNUSABLE, Some("account of no use")));
            }
        }
    }

    /// The client is in.
    fn let_in(&mut self, call: &mut Call<'_>, entering: Entering, account: Option<String>) {
        let method = entering.method();
        let at_server = entering.is_at_server();
        if entering.chosen.method == Method::Relay && entering.how != How::Unasked {
            report(call, &entering, Proof::Held);
        }
        let Entering { how, login, subject, .. } = entering;
        match (&how, at_server) {
            // Its reply was passed on.
            (_, true) | (How::Unasked, false) => {}
            (How::Password | How::User | How::Hello { .. }, false) => {
                call.out.to_client.extend(b"+OK\r\n");
            }
        }
        if let How::Hello { version, .. } = how {
            self.version = version;
        }
        // One identity after the other: each has its own session in the trail.
        self.runs.close_all(call);
        call.journal.closed(call.turn.now, "identity", call.out);
        let who = Who::new(call.turn, login);
        call.journal.amend(|record| {
            record.user.clone_from(&who.login().user);
            record.database.clone_from(&who.login().database);
            record.application.clone_from(&who.login().application);
            record.roles.clone_from(&who.class().identity.roles);
            record.account.clone_from(&account);
            record.subject = subject;
        });
        call.journal.opened(call.turn.now, method, call.out);
        self.account = account;
        self.become_(who);
    }

    /// The proof does not hold: in the same words for a user that does not exist, one that is not
    /// admitted, and a wrong proof. `why` is for the audit trail.
    fn not_proven(&mut self, call: &mut Call<'_>, entering: &Entering, why: &'static str) {
        if entering.how == How::Unasked {
            return;
        }
        report(call, entering, Proof::Failed);
        self.turn_away(call, entering, (WRONG_PASS, Some(why)));
    }

    /// The client is not let in. Whoever did not ask is not told: it may still say who it is.
    fn turn_away(
        &mut self,
        call: &mut Call<'_>,
        entering: &Entering,
        (text, why): (&str, Option<&'static str>),
    ) {
        if entering.how == How::Unasked {
            return;
        }
        let code = crate::event::StoreError::of(text.as_bytes()).word();
        let method = match entering.chosen.method {
            Method::Relay => None,
            Method::Scram(_)
            | Method::Certificate(_)
            | Method::Peer(_)
            | Method::Password(_)
            | Method::Reject => Some(entering.method()),
        };
        call.journal.login_failed(call.turn.now, code, (method, why), call.out);
        call.out.to_client.extend(&words::error(text));
    }

    /// The server cannot be reached.
    pub(super) fn unreachable(&mut self, call: &mut Call<'_>) -> Option<()> {
        self.entering.take()?;
        call.journal.login_failed(
            call.turn.now,
            "ERR",
            (None, Some("server not reached")),
            call.out,
        );
        let request = call.journal.request_id();
        let text =
            format!("ERR the proxy could not reach the server; its log says why ({request})");
        call.out.to_client.extend(&words::error(&text));
        call.out.effects.push(Effect::Close);
        Some(())
    }
}

/// Tells the shell what became of an attempt.
fn report(call: &mut Call<'_>, entering: &Entering, proof: Proof) {
    let report = Report { attempt: entering.attempt(), proof };
    call.out.effects.push(Effect::ReportLogin(Box::new(report)));
}

/// Sends the command that logs in, or greets; whether there was anything to send.
fn login_command(call: &mut Call<'_>, how: &How, proof: Option<(Option<&str>, &[u8])>) -> bool {
    let mut args: Vec<&[u8]> = Vec::new();
    match (how, proof) {
        (How::Hello { version, name }, proof) => {
            args.extend([b"hello", digit(*version)]);
            if let Some((user, password)) = proof {
                args.extend([b"AUTH", user.unwrap_or(DEFAULT_USER).as_bytes(), password]);
            }
            if let Some(name) = name {
                args.extend([b"SETNAME", name.as_slice()]);
            }
        }
        (How::Unasked | How::Password | How::User, Some((user, password))) => {
            args.push(b"auth");
            args.extend(user.map(str::as_bytes));
            args.push(password);
        }
        (How::Unasked | How::Password | How::User, None) => return false,
    }
    call.out.to_server.encode(|out| words::command(out, &args));
    true
}

fn digit(version: Protocol) -> &'static [u8] {
    match version {
        Protocol::Resp2 => b"2",
        Protocol::Resp3 => b"3",
    }
}

/// The user of a client that names none.
pub(super) const DEFAULT_USER: &str = "default";

const ACCOUNT_UNUSABLE: &str = "ERR the proxy could not log in at the server; its log says why";
