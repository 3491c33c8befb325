//! One proxied Redis connection.

use std::sync::Arc;

use bytes::BytesMut;

use super::journal::Journal;
use super::{Alpn, TlsMode};
use crate::event::{Now, SessionRecord, Upstream};
use crate::mask::Masker;
use crate::session::auth::Authentication;
use crate::session::{
    Answer, Capabilities, Effect, EndCause, Outbox, Phase, Progress, ProtocolError, Session,
    SessionSeed, Side, Turn,
};

pub mod reshape;

/// What is the same for all sessions of one datasource.
#[derive(Clone, Debug)]
pub struct RespConfig {
    /// Name in the configuration.
    pub datasource: Arc<str>,
    /// `default: deny`.
    pub default_deny: bool,
    /// TLS on the client leg.
    pub tls: TlsMode,
    /// How clients prove who they are.
    pub authentication: Authentication,
    /// Server address as configured, for the record.
    pub server: (String, u16),
    /// Carries out masks.
    pub masker: Arc<Masker>,
    /// Most replies a client may be waiting for; above it the client is not read.
    pub pending_replies_max: usize,
}

/// One proxied Redis connection.
#[derive(Debug)]
pub struct RespSession {
    config: Arc<RespConfig>,
    journal: Journal,
    secured: bool,
    phase: Phase,
}

impl RespSession {
    /// A session that has seen no byte yet. `now` is when the connection was accepted.
    pub fn new(config: Arc<RespConfig>, seed: SessionSeed, now: Now) -> Self {
        let upstream = Upstream {
            datasource: Arc::clone(&config.datasource),
            product: "Redis",
            protocol: "redis",
            server: config.server.clone(),
        };
        let record = SessionRecord::accepted(seed.uid, seed.client, now.wall_us, upstream);
        Self { config, journal: Journal::new(record), secured: false, phase: Phase::Login }
    }
}

impl Session for RespSession {
    const CAPABILITIES: Capabilities = Capabilities { rewrite_masks: false, row_filters: false };

    fn feed(
        &mut self,
        _turn: Turn<'_>,
        _from: Side,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), ProtocolError> {
        if !self.secured && self.config.tls != TlsMode::Off && input.first() == Some(&0x16) {
            self.secured = true;
            out.effects.push(Effect::StartDirectTls(Alpn::Unspoken));
            return Ok(());
        }
        input.clear();
        out.to_client.extend(b"-ERR not served\r\n");
        out.effects.push(Effect::Close);
        self.phase = Phase::Closing;
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

    fn wants(&self, side: Side) -> bool {
        side == Side::Client && self.phase == Phase::Login
    }

    fn phase(&self) -> Phase {
        self.phase
    }

    fn cancellable(&self) -> bool {
        false
    }

    fn progress(&self) -> Progress {
        Progress::default()
    }

    fn overdue(&mut self) {}

    fn record(&self) -> Option<&Arc<SessionRecord>> {
        Some(&self.journal.record)
    }

    fn owed_events(&self) -> usize {
        0
    }
}
