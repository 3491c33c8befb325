//! The client proves to the proxy who it is; the server is not connected yet.
//!
//! ```text
//! Password ──PasswordMessage──► Judged ──Granted─────────────────────┐
//! Offered ──SASLInitialResponse──► Challenged ──SASLResponse, holds──┴─► Connecting
//! ```
//! and from each of them to `Closed`. Not a byte goes to the server before the proof holds.

use bytes::BytesMut;

use super::admission::{Candidate, Proven, unavailable};
use super::scram::server::{Binding, Exchange, Stored};
use super::scram::{MECHANISM_PLUS, ScramError};
use super::{Call, Denied, State, close_with, fatal};
use crate::session::auth::{Method, Proof, Reply, Report, Request, Secret};
use crate::session::{Effect, Outbox};
use crate::wire::error::WireError;
use crate::wire::pg::error::Report as ErrorReport;
use crate::wire::pg::frame::{self, Frontend, HEAD_BYTES};
use crate::wire::pg::message;

/// A client that was asked to prove who it is.
#[derive(Debug)]
pub(super) struct Challenge {
    /// Taken when the proof is decided.
    candidate: Option<Candidate>,
    step: Step,
}

/// What is waited for.
#[derive(Debug)]
enum Step {
    /// The client's password.
    Password,
    /// The client's choice of a mechanism, and its first message.
    Offered { binding: Binding, stored: Stored, random: [u8; 18] },
    /// The client's proof.
    Challenged(Exchange),
    /// The shell's judgement.
    Judged,
}

impl Challenge {
    /// Asks for the password in clear text.
    pub(super) fn password(candidate: Candidate, out: &mut Outbox) -> Self {
        out.to_client.encode(message::authentication_cleartext);
        Self { candidate: Some(candidate), step: Step::Password }
    }

    /// Offers SCRAM.
    pub(super) fn scram(
        candidate: Candidate,
        binding: Binding,
        (stored, random): (Stored, [u8; 18]),
        out: &mut Outbox,
    ) -> Self {
        let mechanisms = binding.mechanisms();
        out.to_client.encode(|out| message::authentication_sasl(out, mechanisms));
        Self { candidate: Some(candidate), step: Step::Offered { binding, stored, random } }
    }

    pub(super) fn wants_client(&self) -> bool {
        !matches!(self.step, Step::Judged)
    }

    pub(super) fn feed(
        &mut self,
        call: &mut Call<'_>,
        input: &mut BytesMut,
    ) -> Result<Option<State>, WireError> {
        while self.wants_client()
            && let Some(head) = frame::peek(input)?
        {
            let kind = Frontend::from_tag(head.tag)?;
            if !matches!(kind, Frontend::Password | Frontend::Terminate) {
                return Err(WireError::UnexpectedMessage(head.tag));
            }
            if head.len > kind.bytes_max() {
                return Err(WireError::TooLong);
            }
            if input.len() < head.len {
                break;
            }
            if kind == Frontend::Terminate {
                call.out.effects.push(Effect::Close);
                return Ok(Some(State::Closed));
            }
            let message = input.split_to(head.len);
            let body = message.get(HEAD_BYTES..).unwrap_or_default();
            if let Some(next) = self.answered(call, body)? {
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    fn answered(&mut self, call: &mut Call<'_>, body: &[u8]) -> Result<Option<State>, WireError> {
        match std::mem::replace(&mut self.step, Step::Judged) {
            Step::Password => self.password_given(call, message::read_password(body)?),
            Step::Offered { binding, stored, random } => {
                let chosen = message::read_sasl_initial_response(body)?;
                match Exchange::begin(&binding, chosen, stored, &random) {
                    Ok((exchange, first)) => {
                        let out = &mut call.out.to_client;
                        out.encode(|out| message::authentication_sasl_continue(out, &first));
                        if chosen.0 == MECHANISM_PLUS
                            && let Some(candidate) = &mut self.candidate
                        {
                            candidate.method = "SCRAM-SHA-256-PLUS";
                        }
                        self.step = Step::Challenged(exchange);
                        Ok(None)
                    }
                    Err(error) => Ok(self.failed(call, error)),
                }
            }
            Step::Challenged(exchange) => match exchange.finish(body) {
                Ok((last_word, learned)) => {
                    let proven = Proven {
                        last_word: Some(last_word),
                        learned: Some(learned),
                        ..Proven::default()
                    };
                    Ok(self.candidate.take().map(|candidate| candidate.granted(call, proven)))
                }
                Err(error) => Ok(self.failed(call, error)),
            },
            // Not read while the shell judges.
            Step::Judged => Err(WireError::UnexpectedBytes),
        }
    }

    fn password_given(
        &mut self,
        call: &mut Call<'_>,
        password: &[u8],
    ) -> Result<Option<State>, WireError> {
        let candidate = self.candidate.as_ref().ok_or(WireError::UnexpectedBytes)?;
        if password.is_empty() {
            let refused = refuse_proof(call, candidate, "the password is empty");
            return Ok(Some(refused));
        }
        let password = Secret::new(password.to_vec());
        let request = Request::Password { attempt: candidate.attempt(), password };
        call.out.effects.push(Effect::Authenticate(Box::new(request)));
        Ok(None)
    }

    /// The shell's answer; `None` if it is none to what was asked.
    pub(super) fn judged(&mut self, call: &mut Call<'_>, reply: Reply) -> Option<State> {
        let candidate = self.candidate.take()?;
        match reply {
            Reply::Granted(grant) => {
                Some(candidate.granted(call, Proven { grant, ..Proven::default() }))
            }
            Reply::Refused(why) => Some(refuse_proof(call, &candidate, why)),
            Reply::Unavailable(why) => Some(refuse(call, &candidate, &unavailable(why))),
            Reply::Admitted { .. }
            | Reply::Throttled { .. }
            | Reply::Account(_)
            | Reply::Derived(_) => None,
        }
    }

    /// A SCRAM exchange that comes to nothing, in the server's words.
    fn failed(&mut self, call: &mut Call<'_>, error: ScramError) -> Option<State> {
        let candidate = self.candidate.take()?;
        let denial = match error {
            ScramError::WrongProof | ScramError::Iterations => {
                return Some(refuse_proof(
                    call,
                    &candidate,
                    "the password is wrong, or no such user",
                ));
            }
            ScramError::Malformed(what) => {
                Denied::new("08P01", "malformed SCRAM message", Some(what)).because(what)
            }
            ScramError::NotSupported(what) => {
                let message = format!("the client asks for {what}, which is not supported");
                Denied::new("0A000", &message, None).because(what)
            }
            ScramError::ChannelBinding(what) => {
                let message = "SCRAM channel binding check failed";
                Denied::new("28000", message, Some(what)).because(what)
            }
        };
        report(&candidate, Proof::Failed, call.out);
        Some(refuse(call, &candidate, &denial))
    }
}

/// Tells the shell what became of an attempt.
pub(super) fn report(candidate: &Candidate, proof: Proof, out: &mut Outbox) {
    let report = Report { attempt: candidate.attempt(), proof };
    out.effects.push(Effect::ReportLogin(Box::new(report)));
}

/// Ends a login whose proof does not hold: in the same words for a user that does not exist, one
/// that is not admitted, and a wrong proof. `why` is for the audit trail.
pub(super) fn refuse_proof(call: &mut Call<'_>, candidate: &Candidate, why: &'static str) -> State {
    report(candidate, Proof::Failed, call.out);
    let (code, kind) = match candidate.asks() {
        Method::Certificate(_) => ("28000", "certificate"),
        Method::Peer(_) => ("28000", "Peer"),
        Method::Scram(_) | Method::Password(_) | Method::Relay | Method::Reject => {
            ("28P01", "password")
        }
    };
    let message = format!("{kind} authentication failed for user \"{}\"", candidate.login.user);
    refuse(call, candidate, &Denied::new(code, &message, None).because(why))
}

/// Ends a login that was not let in.
pub(super) fn refuse(call: &mut Call<'_>, candidate: &Candidate, denial: &Denied) -> State {
    let method = match candidate.asks() {
        // Which method it would have been only the server knows.
        Method::Relay => None,
        Method::Scram(_)
        | Method::Certificate(_)
        | Method::Peer(_)
        | Method::Password(_)
        | Method::Reject => Some(candidate.method),
    };
    let Denied { code, message, hint, reason } = denial;
    call.journal.login_failed(call.turn.now, code, (method, *reason), call.out);
    close_with(&ErrorReport { hint: hint.as_deref(), ..fatal(code, message) }, call.out);
    State::Closed
}
