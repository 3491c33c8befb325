//! COPY FROM STDIN: while it runs, the server reads messages by other rules.
//!
//! In a COPY it reads and ignores Flush and Sync, and fails on anything else that is not copy data;
//! outside of one it ignores copy data and answers Sync. A COPY can fail at any moment, so which
//! rules a message will meet cannot be known when it is forwarded. Hence nothing is forwarded whose
//! answer depends on it: until the server has said whether a COPY begins, everything but copy data
//! waits; Syncs inside of it are held back, and made up for when it fails; and a message that does
//! not belong there waits until the COPY, which is made to fail, has ended.

use bytes::{Bytes, BytesMut};

use super::Call;
use super::client::Handled;
use super::ready::Ready;
use crate::session::Outbox;
use crate::wire::error::WireError;
use crate::wire::pg::error::{Report, Severity, fields, sqlstate};
use crate::wire::pg::frame::{Frontend, HEAD_BYTES, Head};
use crate::wire::pg::message;

/// What a session knows of the server's COPY FROM STDIN.
#[derive(Debug, Default)]
pub(super) struct Copying {
    reads: Reads,
    /// The client's next message waits for what becomes of a COPY.
    held: bool,
    /// The client's next message is the one a COPY failed for.
    dropped: bool,
}

/// What the server reads at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reads {
    /// Messages, or the COPY that is to be read has not been confirmed yet.
    #[default]
    Messages,
    /// Copy data. So many Syncs were held back behind the last of it.
    Data { syncs: usize },
    /// The same; CopyFail is on its way, on account of the client's next message.
    Failing { syncs: usize },
}

impl Ready {
    /// Handles a message to which the state of a COPY matters; `None` if it is one as any other.
    pub(super) fn copy_gate(
        &mut self,
        call: &mut Call<'_>,
        kind: Frontend,
        (head, input): (Head, &mut BytesMut),
    ) -> Option<Handled> {
        self.copying.held = false;
        if std::mem::take(&mut self.copying.dropped) {
            return Some(self.drop_message(head, input));
        }
        let reads = self.copying.reads;
        if reads == Reads::Messages && !self.pending.awaits_copy() {
            return None;
        }
        match (kind, reads) {
            (Frontend::CopyDone | Frontend::CopyFail | Frontend::Terminate, _) => None,
            (Frontend::CopyData, Reads::Data { .. }) => {
                self.copying.reads = Reads::Data { syncs: 0 };
                None
            }
            (Frontend::CopyData, Reads::Messages | Reads::Failing { .. }) => None,
            (Frontend::Flush, Reads::Messages) if head.len == HEAD_BYTES => None,
            // The server would not look at it.
            (Frontend::Flush, Reads::Data { .. }) => Some(self.drop_message(head, input)),
            // Counted when it is whole: the COPY may fail before the rest of it arrives.
            (Frontend::Sync, Reads::Data { .. }) if input.len() < head.len => Some(Handled::Wait),
            (Frontend::Sync, Reads::Data { syncs }) => {
                let syncs = syncs.saturating_add(1).min(self.config.pending_replies_max);
                self.copying.reads = Reads::Data { syncs };
                Some(self.drop_message(head, input))
            }
            (
                Frontend::Bind
                | Frontend::Close
                | Frontend::Describe
                | Frontend::Execute
                | Frontend::Flush
                | Frontend::FunctionCall
                | Frontend::Parse
                | Frontend::Password
                | Frontend::Query
                | Frontend::Sync,
                _,
            ) => {
                self.hold(reads, call.out);
                Some(Handled::Wait)
            }
        }
    }

    fn hold(&mut self, reads: Reads, out: &mut Outbox) {
        self.copying.held = true;
        if let Reads::Data { syncs } = reads {
            out.to_server.encode(|out| {
                message::framed(out, b'f', |out| {
                    out.extend_from_slice(REASON.as_bytes());
                    out.extend_from_slice(&[0]);
                });
            });
            self.copying.reads = Reads::Failing { syncs };
        }
    }

    /// The client's next message waits for the server.
    pub(super) fn holds_for_copy(&self) -> bool {
        let waits = match self.copying.reads {
            Reads::Messages => self.pending.awaits_copy(),
            Reads::Data { .. } => false,
            Reads::Failing { .. } => true,
        };
        self.copying.held && waits
    }

    /// The server asks for copy data.
    pub(super) fn copy_begins(&mut self, head: Head) -> Result<(), WireError> {
        let ended = self.pending.copy_begins().ok_or(WireError::UnexpectedMessage(head.tag))?;
        self.copying.reads = if ended { Reads::Messages } else { Reads::Data { syncs: 0 } };
        Ok(())
    }

    /// The client ends a COPY. Returns whether it had begun.
    pub(super) fn copy_ends(&mut self) -> bool {
        std::mem::take(&mut self.copying.reads) != Reads::Messages
    }

    /// The server reports an error. If it ends a COPY, the Syncs held back since its last data are
    /// due: the server would have read them after it failed. Returns what the client is to be told
    /// if the COPY was made to fail.
    pub(super) fn copy_fails(&mut self, body: &[u8], out: &mut Outbox) -> Option<Bytes> {
        let syncs = match std::mem::take(&mut self.copying.reads) {
            Reads::Messages => return None,
            Reads::Failing { .. } if is_ours(body) => {
                self.copying.dropped = true;
                return Some(out_of_place());
            }
            Reads::Data { syncs } | Reads::Failing { syncs } => syncs,
        };
        for _ in 0..syncs {
            out.to_server.encode(|out| message::framed(out, b'S', |_| {}));
            self.sync_expected();
        }
        None
    }
}

/// Whether a COPY failed because of our CopyFail rather than by itself.
fn is_ours(body: &[u8]) -> bool {
    let text = fields(body).unwrap_or_default().into_iter().find(|(letter, _)| *letter == b'M');
    let names_it = |text: &[u8]| text.windows(REASON.len()).any(|part| part == REASON.as_bytes());
    sqlstate(body) == *b"57014" && text.is_some_and(|(_, text)| names_it(text))
}

fn out_of_place() -> Bytes {
    let report = Report {
        severity: Severity::Error,
        code: "08P01",
        message: "unexpected message during COPY from stdin",
        detail: None,
        hint: Some("the client's driver is at fault: it has to end the COPY first"),
        position: None,
    };
    let mut out = BytesMut::new();
    report.encode(&mut out);
    out.freeze()
}

/// Why we make a COPY fail; the server repeats it in its error.
const REASON: &str = "portcullis: the client sent a message that is no copy data";
