//! A line protocol of a few words, to test the driver without any database's.

use std::sync::Arc;

use bytes::{Buf as _, BytesMut};

use super::uid::Birth;
use crate::event::{Event, EventKind, SessionRecord};
use crate::session::{
    Answer, CancelKey, Capabilities, Effect, EndCause, Outbox, Phase, Progress, ProtocolError,
    Session, Side, Turn,
};
use crate::wire::error::WireError;

/// `hello` connects, `tls` starts TLS, `deny` is answered here, `bye` closes, `!` is malformed,
/// `boom` panics, `cancel SECRET` cancels; any other line goes to the server, which answers each
/// with one line (an empty answer line is none).
#[derive(Debug)]
pub(crate) struct Toy {
    phase: Phase,
    pending: usize,
    number: u64,
    done: u64,
    /// The next answer tells that its statement was over its time.
    overdue: bool,
}

impl Toy {
    pub(crate) fn new(_birth: &Birth) -> Self {
        Self { phase: Phase::Login, pending: 0, number: 0, done: 0, overdue: false }
    }

    fn record(&mut self, turn: Turn<'_>, phase: &'static str, out: &mut Outbox) {
        self.number += 1;
        let kind = EventKind::Lifecycle { phase };
        out.events.push(Event { at: turn.now, session: None, number: self.number, kind });
        out.room = out.room.saturating_sub(1);
    }

    fn client_line(
        &mut self,
        turn: Turn<'_>,
        line: &[u8],
        out: &mut Outbox,
    ) -> Result<(), ProtocolError> {
        match line {
            b"hello\n" => out.effects.push(Effect::Connect),
            b"tls\n" => {
                out.to_client.extend(b"S\n");
                out.effects.push(Effect::StartTls);
            }
            b"bye\n" => {
                out.to_client.extend(b"bye\n");
                self.phase = Phase::Closing;
                out.effects.push(Effect::Close);
            }
            b"boom\n" => panic!("as asked"),
            b"!\n" => {
                out.to_client.extend(b"what?\n");
                return Err(ProtocolError { side: Side::Client, kind: WireError::BadField });
            }
            b"deny\n" => {
                self.record(turn, "denied", out);
                out.to_client.extend(b"refused\n");
            }
            _ => {
                if let Some(secret) = line.strip_prefix(b"cancel ") {
                    let secret = secret.trim_ascii_end().to_vec();
                    let key = CancelKey { pid: 7, secret };
                    out.effects.push(Effect::Cancel { key, from: None });
                } else {
                    self.record(turn, "decided", out);
                    self.pending += 1;
                    self.phase = Phase::Busy;
                    out.to_server.extend(line);
                }
            }
        }
        Ok(())
    }
}

impl Session for Toy {
    const CAPABILITIES: Capabilities = Capabilities { rewrite_masks: false, row_filters: false };

    fn feed(
        &mut self,
        turn: Turn<'_>,
        from: Side,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), ProtocolError> {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            // A decision and the outcome it owes.
            if from == Side::Client && (out.room < 2 || !out.effects.is_empty()) {
                break;
            }
            let line = input.split_to(end + 1);
            if from == Side::Client {
                self.client_line(turn, &line, out)?;
                continue;
            }
            self.pending = self.pending.saturating_sub(1);
            self.done += 1;
            self.record(turn, "outcome", out);
            if std::mem::take(&mut self.overdue) {
                out.to_client.extend(b"overdue: ");
            }
            if self.pending == 0 {
                self.phase = Phase::Idle;
            }
            out.to_client.extend(&line);
        }
        // Long answers are streamed.
        if from == Side::Server {
            let n = input.remaining();
            out.to_client.take_from(input, n);
        }
        Ok(())
    }

    fn resume(
        &mut self,
        _turn: Turn<'_>,
        answer: Answer,
        out: &mut Outbox,
    ) -> Result<(), ProtocolError> {
        match answer {
            Answer::TlsStarted(_) => out.to_client.extend(b"secured\n"),
            Answer::Authenticate(_) => {}
            Answer::Connected { secret, tls: _, local: _ } => {
                self.phase = Phase::Idle;
                out.to_client.extend(b"hi\n");
                out.effects.push(Effect::RegisterCancel {
                    ours: CancelKey { pid: 7, secret: secret.to_vec() },
                    theirs: CancelKey { pid: 7, secret: b"real".to_vec() },
                });
            }
            Answer::ConnectFailed => {
                out.to_client.extend(b"unreachable\n");
                out.effects.push(Effect::Close);
            }
        }
        Ok(())
    }

    fn end(&mut self, turn: Turn<'_>, cause: EndCause, out: &mut Outbox) {
        for _ in 0..self.pending {
            self.record(turn, "lost", out);
        }
        self.pending = 0;
        self.phase = Phase::Closing;
        self.record(turn, "closed", out);
        out.to_client.extend(format!("end {cause:?}\n").as_bytes());
    }

    fn wants(&self, _side: Side) -> bool {
        self.phase != Phase::Closing
    }

    fn phase(&self) -> Phase {
        self.phase
    }

    fn cancellable(&self) -> bool {
        self.phase == Phase::Busy
    }

    fn progress(&self) -> Progress {
        Progress { statements: self.done, transactions: self.done, in_flight: self.pending > 0 }
    }

    fn overdue(&mut self) {
        self.overdue = true;
    }

    fn record(&self) -> Option<&Arc<SessionRecord>> {
        None
    }

    fn settles_at(&self) -> Option<u64> {
        None
    }

    fn settle(&mut self, _turn: Turn<'_>, _out: &mut Outbox) {}

    fn owed_events(&self) -> usize {
        self.pending + 1
    }
}
