//! PostgreSQL protocol 3 sessions.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;

use super::{
    Answer, Capabilities, Effect, EndCause, Outbox, Phase, ProtocolError, Session, Side, Turn,
};
use crate::event::Now;

/// Whether the client leg may or must be TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// No certificate is configured.
    Off,
    /// The client chooses.
    Allowed,
    /// A start-up in plain text is refused.
    Required,
}

/// What is the same for all sessions of one datasource.
#[derive(Clone, Debug)]
pub struct PgConfig {
    /// Name in the configuration.
    pub datasource: Arc<str>,
    /// `default: deny`.
    pub default_deny: bool,
    /// TLS on the client leg.
    pub tls: TlsMode,
    /// Server address as configured, for the record.
    pub server: (String, u16),
    /// Most replies a client may be waiting for.
    pub pending_replies_max: usize,
    /// Most prepared statements one session may hold.
    pub prepared_statements_max: usize,
    /// Longest Query or Parse message in bytes.
    pub inspected_bytes_max: usize,
}

/// What is special to one session.
#[derive(Clone, Debug)]
pub struct SessionSeed {
    /// Unique id.
    pub uid: String,
    /// Client address; `None` for a socket without one.
    pub client: Option<SocketAddr>,
}

/// Closes every connection.
#[derive(Debug)]
pub struct PgSession;

impl PgSession {
    /// A session that has seen no byte yet.
    pub fn new(_config: Arc<PgConfig>, _seed: SessionSeed, _now: Now) -> Self {
        Self
    }
}

impl Session for PgSession {
    const CAPABILITIES: Capabilities = Capabilities { rewrite_masks: true, row_filters: true };

    fn feed(
        &mut self,
        _turn: Turn<'_>,
        _from: Side,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), ProtocolError> {
        input.clear();
        out.effects.push(Effect::Close);
        Ok(())
    }

    fn resume(
        &mut self,
        _turn: Turn<'_>,
        _answer: Answer,
        _out: &mut Outbox,
    ) -> Result<(), ProtocolError> {
        Ok(())
    }

    fn end(&mut self, _turn: Turn<'_>, _cause: EndCause, _out: &mut Outbox) {}

    fn wants(&self, _side: Side) -> bool {
        true
    }

    fn phase(&self) -> Phase {
        Phase::Login
    }

    fn owed_events(&self) -> usize {
        0
    }
}
