//! Our own login at the server, with the account that the configuration gives a client that has
//! proved who it is.
//!
//! ```text
//! Start ──password, md5──► Answered ──────────────────────────────────────► Authenticated
//!   └────SASL──► Opening ──► (Deriving ──►) Closing ──signature──► Verified ──►──┘
//! ```
//! The server is not trusted: what it may make us do is bounded, and it must prove that it knows
//! the account before anything is sent to it. What it says about the account is for the log of the
//! proxy; the client hears only what concerns its own request.

use hmac::digest::Digest as _;
use md5::Md5;

use super::Denied;
use super::scram::client::{Binding, Challenged, Closing, Opening};
use super::scram::{Keys, Learned, MECHANISM, MECHANISM_PLUS, ScramError};
use crate::name::hex;
use crate::session::auth::{Account, AccountFailure, AccountProof, Request, Secret, ServerLeg};
use crate::session::{Effect, Outbox};
use crate::wire::error::WireError;
use crate::wire::pg::error::{fields, sqlstate};
use crate::wire::pg::message;
use crate::wire::reader::Reader;

/// A login at the server under way.
#[derive(Debug)]
pub(super) struct OwnLogin {
    account: Account,
    learned: Option<Learned>,
    leg: ServerLeg,
    iterations_max: u32,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Start,
    /// A password was sent.
    Answered,
    /// client-first-message was sent.
    Opening(Opening),
    /// The shell derives the keys.
    Deriving(Challenged),
    /// client-final-message was sent.
    Closing(Closing),
    /// The server has proved that it knows the account.
    Verified,
}

/// What follows from a message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More is to come.
    Wait,
    /// We are in.
    Authenticated,
    /// It came to nothing, for this reason.
    Failed(&'static str),
}

impl OwnLogin {
    pub(super) fn new(
        account: Account,
        learned: Option<Learned>,
        leg: ServerLeg,
        iterations_max: u32,
    ) -> Self {
        Self { account, learned, leg, iterations_max, step: Step::Start }
    }

    /// While the keys are derived the server has nothing to say.
    pub(super) fn wants_server(&self) -> bool {
        !matches!(self.step, Step::Deriving(_))
    }

    /// An Authentication message.
    pub(super) fn authentication(
        &mut self,
        body: &[u8],
        out: &mut Outbox,
    ) -> Result<Next, WireError> {
        let mut reader = Reader::new(body);
        match reader.u32()? {
            0 => {
                reader.finish()?;
                Ok(match self.step {
                    Step::Start | Step::Answered | Step::Verified => Next::Authenticated,
                    Step::Opening(_) | Step::Deriving(_) | Step::Closing(_) => {
                        Next::Failed("the server did not prove that it knows the account")
                    }
                })
            }
            3 => {
                reader.finish()?;
                Ok(self.cleartext(out))
            }
            5 => {
                let salt = reader.array::<4>()?;
                reader.finish()?;
                Ok(self.md5(salt, out))
            }
            10 => self.mechanisms(reader, out),
            11 => Ok(self.challenged(reader.rest(), out)),
            12 => Ok(self.signed(reader.rest())),
            _ => Ok(Next::Failed("the server asks for a method that the proxy does not do")),
        }
    }

    /// For a method that gives the password away, or nearly so.
    fn password(&self) -> Result<&Secret, Next> {
        match &self.account.proof {
            _ if !matches!(self.step, Step::Start) => {
                Err(Next::Failed("the server asks for a proof twice"))
            }
            AccountProof::Password(_) if !self.leg.is_trusted() => Err(Next::Failed(
                "the server asks for the password in clear text or by MD5, which is answered only \
                 on this machine or where its certificate is verified (`upstream_tls: \
                 {mode: verify-full}`); let it ask for scram-sha-256",
            )),
            AccountProof::Password(password) => Ok(password),
            AccountProof::Nothing => {
                Err(Next::Failed("the server asks for a password and `upstream_login` gives none"))
            }
            AccountProof::ClientsKeys => Err(Next::Failed(
                "the server asks for a password; what a SCRAM login gives away serves SCRAM only",
            )),
        }
    }

    fn cleartext(&mut self, out: &mut Outbox) -> Next {
        let password = match self.password() {
            Ok(password) => password,
            Err(next) => return next,
        };
        out.to_server.encode(|out| message::password(out, password.bytes()));
        self.step = Step::Answered;
        Next::Wait
    }

    fn md5(&mut self, salt: [u8; 4], out: &mut Outbox) -> Next {
        let password = match self.password() {
            Ok(password) => password,
            Err(next) => return next,
        };
        let stored = md5_hex(&[password.bytes(), self.account.user.as_bytes()]);
        let answer = format!("md5{}", md5_hex(&[stored.as_bytes(), &salt]));
        out.to_server.encode(|out| message::password(out, answer.as_bytes()));
        self.step = Step::Answered;
        Next::Wait
    }

    fn mechanisms(&mut self, mut reader: Reader<'_>, out: &mut Outbox) -> Result<Next, WireError> {
        let (mut plain, mut plus) = (false, false);
        loop {
            match reader.cstr()? {
                b"" => break,
                MECHANISM => plain = true,
                MECHANISM_PLUS => plus = true,
                _ => {}
            }
        }
        reader.finish()?;
        if !matches!(self.step, Step::Start) {
            return Ok(Next::Failed("the server asks for a proof twice"));
        }
        if self.account.proof == AccountProof::Nothing {
            return Ok(Next::Failed(
                "the server asks for a password and `upstream_login` gives none",
            ));
        }
        let end_point = self.leg.tls.as_ref().and_then(|tls| tls.server_end_point.as_deref());
        let binding = match (end_point, plus, plain) {
            (Some(hash), true, _) => Binding::Used(hash),
            (Some(_), false, true) => Binding::NotOffered,
            (None, _, true) => Binding::Impossible,
            (_, _, false) => {
                return Ok(Next::Failed("the server offers no SASL mechanism that the proxy does"));
            }
        };
        let (opening, mechanism, first) = Opening::new(binding, &self.account.random);
        out.to_server.encode(|out| message::sasl_initial_response(out, mechanism, &first));
        self.step = Step::Opening(opening);
        Ok(Next::Wait)
    }

    fn challenged(&mut self, data: &[u8], out: &mut Outbox) -> Next {
        let Step::Opening(opening) = std::mem::replace(&mut self.step, Step::Start) else {
            return Next::Failed("the server speaks out of turn");
        };
        let challenged = match opening.challenged(data, self.iterations_max) {
            Ok(challenged) => challenged,
            Err(error) => return Next::Failed(what(error)),
        };
        match (&self.account.proof, &self.learned) {
            (AccountProof::Password(password), _) => {
                let request = Request::Derive {
                    password: password.clone(),
                    salt: challenged.salt.clone(),
                    iterations: challenged.iterations,
                };
                out.effects.push(Effect::Authenticate(Box::new(request)));
                self.step = Step::Deriving(challenged);
                Next::Wait
            }
            (AccountProof::ClientsKeys, Some(learned)) => {
                let Learned { keys, salt, iterations } = learned;
                if (salt, iterations) != (&challenged.salt, &challenged.iterations) {
                    return Next::Failed(
                        "the server's verifier for this role is not the one the client proved \
                         itself against; store the same one, or give an `upstream_login`",
                    );
                }
                let (closing, last) = challenged.prove(keys);
                out.to_server.encode(|out| message::sasl_response(out, &last));
                self.step = Step::Closing(closing);
                Next::Wait
            }
            (AccountProof::ClientsKeys, None) | (AccountProof::Nothing, _) => {
                Next::Failed("no `upstream_login` fits this user")
            }
        }
    }

    /// The shell has derived the salted password.
    pub(super) fn derived(&mut self, salted_password: &[u8; 32], out: &mut Outbox) -> Option<()> {
        let Step::Deriving(challenged) = std::mem::replace(&mut self.step, Step::Start) else {
            return None;
        };
        let (closing, last) = challenged.prove(&Keys::of(salted_password));
        out.to_server.encode(|out| message::sasl_response(out, &last));
        self.step = Step::Closing(closing);
        Some(())
    }

    fn signed(&mut self, data: &[u8]) -> Next {
        let Step::Closing(closing) = std::mem::replace(&mut self.step, Step::Start) else {
            return Next::Failed("the server speaks out of turn");
        };
        match closing.verify(data) {
            Ok(()) => {
                self.step = Step::Verified;
                Next::Wait
            }
            Err(error) => Next::Failed(what(error)),
        }
    }

    /// For the log of the proxy.
    pub(super) fn failure(&self, what: String) -> Effect {
        let account = self.account.user.clone();
        Effect::ReportAccount(Box::new(AccountFailure { account, what }))
    }
}

/// What the server said, for the log.
pub(super) fn words(body: &[u8]) -> String {
    let code = String::from_utf8_lossy(&sqlstate(body)).into_owned();
    let fields = fields(body).unwrap_or_default();
    let message = fields.iter().find(|(letter, _)| *letter == b'M').map(|(_, text)| *text);
    let mut message = String::from_utf8_lossy(message.unwrap_or_default()).into_owned();
    message.truncate(message.floor_char_boundary(WORDS_BYTES_MAX));
    format!("{code}: {}", message.escape_debug())
}

/// What the client is told when its login comes to nothing at the server: only what concerns its
/// own request.
pub(super) fn told(code: &str, database: &str) -> Denied {
    let (code, message) = match code {
        "3D000" => ("3D000", format!("database \"{database}\" does not exist")),
        "42501" => ("42501", format!("permission denied for database \"{database}\"")),
        "53300" => ("53300", "the database server takes no more connections".to_owned()),
        "57P03" => ("57P03", "the database server cannot take connections now".to_owned()),
        _ => ("08004", "the proxy could not log in to the database server".to_owned()),
    };
    Denied::new(code, &message, Some("the proxy's log says why"))
        .because("the server did not accept the account")
}

/// Whether an error after the proof is about the settings in the client's own start-up.
pub(super) fn is_about_settings(code: &str) -> bool {
    code.starts_with("22") || ["42704", "55P02"].contains(&code)
}

fn what(error: ScramError) -> &'static str {
    match error {
        ScramError::Malformed(what)
        | ScramError::NotSupported(what)
        | ScramError::ChannelBinding(what) => what,
        ScramError::Iterations => {
            "the server asks for more rounds of key derivation than `limits.scram_iterations`"
        }
        ScramError::WrongProof => "the server does not know the account: is it another server?",
    }
}

fn md5_hex(parts: &[&[u8]]) -> String {
    let mut digest = Md5::new();
    parts.iter().for_each(|part| digest.update(part));
    hex(&digest.finalize())
}

/// Longest part of a server's message that is logged.
const WORDS_BYTES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{PeerCertificate, TlsPeer};

    const CLEAR_TEXT: &[u8] = &[0, 0, 0, 3];
    const MD5: &[u8] = &[0, 0, 0, 5, 1, 2, 3, 4];

    /// What follows, and whether a byte went to the server.
    fn asked(tls: Option<TlsPeer>, local: bool, asks: &[u8]) -> (Next, bool) {
        let proof = AccountProof::Password(Secret::new(b"hunter2".to_vec()));
        let account = Account { user: "app".to_owned(), proof, random: [0; 18] };
        let mut login = OwnLogin::new(account, None, ServerLeg { tls, local }, 4096);
        let mut out = Outbox::default();
        let next = login.authentication(asks, &mut out).unwrap();
        (next, !out.to_server.is_empty())
    }

    #[test]
    fn a_password_is_not_given_to_whom_nobody_verified() {
        let any_certificate = TlsPeer { certificate: None, server_end_point: Some(vec![1; 32]) };
        let verified =
            TlsPeer { certificate: Some(PeerCertificate::default()), ..any_certificate.clone() };
        for asks in [CLEAR_TEXT, MD5] {
            for tls in [None, Some(any_certificate.clone())] {
                let (next, sent) = asked(tls.clone(), false, asks);
                assert!(matches!(next, Next::Failed(_)) && !sent, "{tls:?} {next:?}");
                assert_eq!(asked(tls, true, asks), (Next::Wait, true));
            }
            assert_eq!(asked(Some(verified.clone()), false, asks), (Next::Wait, true));
        }
    }
}
