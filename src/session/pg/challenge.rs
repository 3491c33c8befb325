//! The client proves to the proxy who it is; the server is not connected yet.
//!
//! ```text
//! Asked ──PasswordMessage──► Judged ──Granted──► Connecting
//!                              │ Refused, Unavailable
//!                              └──► Closed
//! ```
//! Not a byte goes to the server before the proof holds.

use bytes::{Buf as _, BytesMut};

use super::admission::Candidate;
use super::{Call, Denied, State, close_with, fatal};
use crate::session::auth::{Method, Proof, Reply, Report, Request, Secret};
use crate::session::{Effect, Outbox};
use crate::wire::error::WireError;
use crate::wire::pg::error::Report as ErrorReport;
use crate::wire::pg::frame::{self, Frontend, HEAD_BYTES};
use crate::wire::pg::message;
use crate::wire::reader::Reader;

/// A client that was asked to prove who it is.
#[derive(Debug)]
pub(super) struct Challenge {
    /// Taken when the proof is decided.
    candidate: Option<Candidate>,
    step: Step,
}

/// What is waited for.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The client's answer.
    Asked,
    /// The shell's judgement.
    Judged,
}

impl Challenge {
    /// Asks for the password in clear text.
    pub(super) fn ask(candidate: Candidate, out: &mut Outbox) -> Self {
        out.to_client.encode(message::authentication_cleartext);
        Self { candidate: Some(candidate), step: Step::Asked }
    }

    pub(super) fn wants_client(&self) -> bool {
        self.step == Step::Asked
    }

    pub(super) fn feed(
        &mut self,
        call: &mut Call<'_>,
        input: &mut BytesMut,
    ) -> Result<Option<State>, WireError> {
        if self.step != Step::Asked {
            return Ok(None);
        }
        let Some(head) = frame::peek(input)? else { return Ok(None) };
        let kind = Frontend::from_tag(head.tag)?;
        if !matches!(kind, Frontend::Password | Frontend::Terminate) {
            return Err(WireError::UnexpectedMessage(head.tag));
        }
        if head.len > kind.bytes_max() {
            return Err(WireError::TooLong);
        }
        if input.len() < head.len {
            return Ok(None);
        }
        if kind == Frontend::Terminate {
            call.out.effects.push(Effect::Close);
            return Ok(Some(State::Closed));
        }
        let body = input.get(HEAD_BYTES..head.len).unwrap_or_default();
        let mut reader = Reader::new(body);
        let password = Secret::new(reader.cstr()?.to_vec());
        reader.finish()?;
        input.advance(head.len);
        self.password(call, password)
    }

    fn password(
        &mut self,
        call: &mut Call<'_>,
        password: Secret,
    ) -> Result<Option<State>, WireError> {
        if password.bytes().is_empty() {
            return Ok(self.failed(call));
        }
        let candidate = self.candidate.as_ref().ok_or(WireError::UnexpectedBytes)?;
        let request = Request::Password { attempt: candidate.attempt(), password };
        call.out.effects.push(Effect::Authenticate(Box::new(request)));
        self.step = Step::Judged;
        Ok(None)
    }

    /// The shell's answer; `None` if it is none to what was asked.
    pub(super) fn judged(&mut self, call: &mut Call<'_>, reply: Reply) -> Option<State> {
        match reply {
            Reply::Granted(grant) => {
                let candidate = self.candidate.take()?;
                report(&candidate, Proof::Held, call.out);
                call.out.to_client.encode(message::authentication_ok);
                Some(candidate.granted(call, grant))
            }
            Reply::Refused(_) => self.failed(call),
            Reply::Unavailable(_) => {
                let candidate = self.candidate.take()?;
                let hint = Some("the proxy's log says why");
                let message = "the login could not be checked";
                let denial = Denied::new("57P03", message, hint);
                Some(refuse(call, candidate.method, &denial))
            }
            Reply::Admitted | Reply::Throttled { .. } => None,
        }
    }

    /// The same words for a user that does not exist and for a wrong proof.
    fn failed(&mut self, call: &mut Call<'_>) -> Option<State> {
        let candidate = self.candidate.take()?;
        report(&candidate, Proof::Failed, call.out);
        let message =
            format!("password authentication failed for user \"{}\"", candidate.login.user);
        Some(refuse(call, candidate.method, &Denied::new("28P01", &message, None)))
    }
}

/// Tells the shell what became of an attempt.
pub(super) fn report(candidate: &Candidate, proof: Proof, out: &mut Outbox) {
    let report = Report { attempt: candidate.attempt(), proof };
    out.effects.push(Effect::ReportLogin(Box::new(report)));
}

/// Ends a login that was not let in.
pub(super) fn refuse(call: &mut Call<'_>, method: Method, denial: &Denied) -> State {
    let method = match method {
        // Which method it would have been only the server knows.
        Method::Relay => None,
        Method::Password(_) | Method::Reject => Some(method.name()),
    };
    call.journal.login_failed(call.turn.now, denial.code, method, call.out);
    let Denied { code, message, hint } = denial;
    close_with(&ErrorReport { hint: hint.as_deref(), ..fatal(code, message) }, call.out);
    State::Closed
}
