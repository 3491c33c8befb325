//! Long messages of the client, passed on or dropped as they come.

use bytes::{Buf, BytesMut};

use super::client::Handled;
use super::ready::{Ready, Remaining};
use crate::session::Outbox;
use crate::wire::pg::frame::Head;

impl Ready {
    pub(super) fn pass_remaining(&mut self, input: &mut BytesMut, out: &mut Outbox) {
        match &mut self.client_remaining {
            Remaining::Pass(0) | Remaining::Drop(0) => {}
            Remaining::Pass(n) => {
                let now = (*n).min(input.len());
                out.to_server.take_from(input, now);
                *n -= now;
            }
            Remaining::Drop(n) => {
                let now = (*n).min(input.len());
                input.advance(now);
                *n -= now;
            }
        }
    }

    /// Passes a message on, its end perhaps later.
    pub(super) fn pass(&mut self, head: Head, input: &mut BytesMut, out: &mut Outbox) {
        let now = head.len.min(input.len());
        out.to_server.take_from(input, now);
        self.client_remaining = Remaining::Pass(head.len - now);
    }

    pub(super) fn drop_message(&mut self, head: Head, input: &mut BytesMut) -> Handled {
        let now = head.len.min(input.len());
        input.advance(now);
        self.client_remaining = Remaining::Drop(head.len - now);
        Handled::Yes
    }
}
