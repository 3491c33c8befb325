//! From the first byte to the StartupMessage: encryption, cancel requests, and whether the start-up
//! is admitted at all.

use bytes::BytesMut;

use super::admission::Candidate;
use super::{Call, Denied, PgConfig, State, TlsMode, close_with, fatal};
use crate::session::{Alpn, CancelKey, Effect, Outbox, PeerCredentials, TlsPeer};
use crate::wire::error::WireError;
use crate::wire::pg::error::Report;
use crate::wire::pg::message;
use crate::wire::pg::startup::{self, MINOR_NEWEST, Request, Startup};

/// Before the StartupMessage.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    tls: Tls,
    gss_asked: bool,
    /// Who holds the other end of a Unix socket.
    local: Option<PeerCredentials>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Tls {
    /// Not asked for yet.
    #[default]
    NotAsked,
    /// Asked for and declined.
    Declined,
    /// `S` was answered, or the client began with a handshake; it runs.
    Starting,
    /// The client leg is encrypted.
    Started(Box<TlsPeer>),
}

impl Greeting {
    pub(super) fn new(local: Option<PeerCredentials>) -> Self {
        Self { local, ..Self::default() }
    }

    pub(super) fn wants_client(&self) -> bool {
        self.tls != Tls::Starting
    }

    pub(super) fn tls_started(&mut self, peer: TlsPeer) {
        self.tls = Tls::Started(Box::new(peer));
    }

    pub(super) fn feed(
        &mut self,
        call: &mut Call<'_>,
        config: &PgConfig,
        input: &mut BytesMut,
    ) -> Result<Option<State>, WireError> {
        let first = self.tls == Tls::NotAsked && !self.gss_asked;
        if first && config.tls != TlsMode::Off && input.first() == Some(&TLS_HANDSHAKE) {
            self.tls = Tls::Starting;
            call.out.effects.push(Effect::StartDirectTls(Alpn::Agreed));
        }
        while self.tls != Tls::Starting
            && let Some(len) = startup::peek(input)?
            && input.len() >= len
        {
            let packet = input.split_to(len);
            match startup::parse(&packet)? {
                Request::Tls => self.tls_requested(config, input, call.out)?,
                Request::GssEncryption => {
                    if std::mem::replace(&mut self.gss_asked, true) {
                        return Err(WireError::UnexpectedBytes);
                    }
                    call.out.to_client.extend(b"N");
                    nothing_behind(input)?;
                }
                Request::Cancel { pid, secret } => {
                    let from = call.journal.record.client.map(|address| address.ip());
                    let key = CancelKey { pid, secret };
                    call.out.effects.push(Effect::Cancel { key, from });
                    return Ok(Some(State::Closed));
                }
                Request::Startup(startup) => {
                    return Ok(Some(self.started(call, config, startup)));
                }
                Request::Unsupported { major, minor } => {
                    return Ok(Some(unsupported(major, minor, call.out)));
                }
            }
        }
        Ok(None)
    }

    fn tls_requested(
        &mut self,
        config: &PgConfig,
        input: &BytesMut,
        out: &mut Outbox,
    ) -> Result<(), WireError> {
        if self.tls != Tls::NotAsked {
            return Err(WireError::UnexpectedBytes);
        }
        if config.tls == TlsMode::Off {
            self.tls = Tls::Declined;
            out.to_client.extend(b"N");
            return nothing_behind(input);
        }
        nothing_behind(input)?;
        self.tls = Tls::Starting;
        out.to_client.extend(b"S");
        out.effects.push(Effect::StartTls);
        Ok(())
    }

    fn started(&mut self, call: &mut Call<'_>, config: &PgConfig, startup: Startup) -> State {
        let tls = match std::mem::take(&mut self.tls) {
            Tls::Started(peer) => Some(*peer),
            Tls::NotAsked | Tls::Declined | Tls::Starting => None,
        };
        if config.tls == TlsMode::Required && tls.is_none() {
            let hint = Some("connect with sslmode=require or stronger");
            let denial = Denied::new("28000", "this listener serves TLS connections only", hint);
            return refused(call, &denial);
        }
        match Candidate::new(config, call.journal, startup, (tls, self.local.take())) {
            Ok(candidate) => {
                negotiate(&candidate.startup, call.out);
                candidate.ask(call)
            }
            Err(denial) => refused(call, &denial),
        }
    }
}

/// A start-up that is refused before anybody was asked anything.
fn refused(call: &mut Call<'_>, denial: &Denied) -> State {
    call.journal.login_failed(call.turn.now, denial.code, (None, None), call.out);
    let Denied { code, message, hint, reason: _ } = denial;
    close_with(&Report { hint: hint.as_deref(), ..fatal(code, message) }, call.out);
    State::Closed
}

/// What is already here came in plain text: taking it for encrypted is an injection. A client waits
/// for the answer whatever it is, so the server refuses it behind a declined request, too.
fn nothing_behind(input: &BytesMut) -> Result<(), WireError> {
    if input.is_empty() { Ok(()) } else { Err(WireError::UnexpectedBytes) }
}

fn unsupported(major: u16, minor: u16, out: &mut Outbox) -> State {
    let text = format!(
        "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{MINOR_NEWEST}"
    );
    if major < 3 {
        // Clients before version 3 read an error as a line of text, and know no other form.
        out.to_client.extend(format!("EFATAL:  {text}\n\0").as_bytes());
        out.effects.push(Effect::Close);
    } else {
        close_with(&fatal("0A000", &text), out);
    }
    State::Closed
}

/// Tells the client what we speak if it asked for more: as PostgreSQL 18 does, which takes 3.1 (a
/// number that was never given out) in silence for what it is asked.
fn negotiate(startup: &Startup, out: &mut Outbox) {
    let options: Vec<&[u8]> = unknown_options(startup).collect();
    if startup.minor > MINOR_NEWEST || !options.is_empty() {
        let minor = startup.minor.min(MINOR_NEWEST);
        out.to_client.encode(|out| message::negotiate_protocol_version(out, minor, &options));
    }
}

fn unknown_options(startup: &Startup) -> impl Iterator<Item = &[u8]> {
    let names = startup.parameters.iter().map(|(name, _)| name.as_slice());
    names.filter(|name| name.starts_with(b"_pq_."))
}

/// The type of a TLS record that carries a handshake. As the first byte of a packet of PostgreSQL's
/// it would begin a length far beyond the longest.
const TLS_HANDSHAKE: u8 = 0x16;
