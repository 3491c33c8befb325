//! Authentication by the server: what it asks and what the client answers is passed on.

use super::Denied;
use crate::session::Outbox;
use crate::session::auth::Transport;
use crate::wire::error::WireError;
use crate::wire::pg::message;
use crate::wire::reader::Reader;

/// A relayed login under way.
#[derive(Debug)]
pub(super) struct Relayed {
    transport: Transport,
    /// The server asked: the client may answer once.
    pub(super) asked: bool,
    /// What the server asks for, for the audit trail.
    pub(super) method: &'static str,
}

/// What follows from a message of the server.
pub(super) enum Next {
    /// More is to come.
    Wait,
    /// The client is in.
    Authenticated,
    /// It is not relayed.
    Denied(Denied),
}

impl Relayed {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, asked: false, method: "trust" }
    }

    /// Relays one Authentication message, or says why not.
    pub(super) fn authentication(
        &mut self,
        body: &[u8],
        out: &mut Outbox,
    ) -> Result<Next, WireError> {
        let mut reader = Reader::new(body);
        let kind = reader.u32()?;
        let relay = |out: &mut Outbox| {
            out.to_client.encode(|out| message::framed(out, b'R', |out| out.extend(body)));
        };
        match kind {
            0 => {
                reader.finish()?;
                relay(out);
                return Ok(Next::Authenticated);
            }
            3 => {
                self.method = "cleartext";
                if !self.transport.is_confidential() {
                    let hint = Some("connect with sslmode=require, or use scram-sha-256");
                    let message = "the server asks for the password in clear text, \
                                   which is relayed over TLS only";
                    return Ok(Next::Denied(Denied::new("28000", message, hint)));
                }
            }
            5 => self.method = "md5",
            10 => {
                self.method = "SCRAM-SHA-256";
                return self.sasl_mechanisms(reader, out);
            }
            11 => {}
            // The last SASL message needs no answer.
            12 => {
                relay(out);
                return Ok(Next::Wait);
            }
            _ => {
                let hint = Some("use scram-sha-256, md5 or password over TLS in pg_hba.conf");
                let message = "the server asks for an authentication method that is not relayed";
                return Ok(Next::Denied(Denied::new("28000", message, hint)));
            }
        }
        relay(out);
        self.asked = true;
        Ok(Next::Wait)
    }

    /// Offers SCRAM-SHA-256 only: SCRAM-SHA-256-PLUS binds to the server's certificate, which the
    /// client does not see through a proxy.
    fn sasl_mechanisms(
        &mut self,
        mut reader: Reader<'_>,
        out: &mut Outbox,
    ) -> Result<Next, WireError> {
        let mut offered = false;
        loop {
            match reader.cstr()? {
                b"" => break,
                b"SCRAM-SHA-256" => offered = true,
                _ => {}
            }
        }
        reader.finish()?;
        if !offered {
            let message = "the server offers no SASL mechanism that can be relayed";
            let denied = Denied::new("28000", message, Some("offer SCRAM-SHA-256"));
            return Ok(Next::Denied(denied));
        }
        out.to_client.encode(|out| message::authentication_sasl(out, &[b"SCRAM-SHA-256"]));
        self.asked = true;
        Ok(Next::Wait)
    }
}
