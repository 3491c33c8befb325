//! Messages whose frame is whole and whose content is not what the protocol says: refused as the
//! server refuses them, with an error, after which the session goes on.
//!
//! The length of a frame is what both the proxy and the server go by, so a malformed message cannot
//! hide another one. What is streamed past the proxy unread (the values of a Bind, the arguments of
//! a function call, copy data) is inside one frame, too: what is wrong with it is found, and told,
//! by the server.

use bytes::BytesMut;

use super::Call;
use super::client::Handled;
use super::ready::{Ready, Skip};
use super::refusals::malformed_message;
use crate::session::gate::Plan;
use crate::wire::pg::frame::{Frontend, Head};
use crate::wire::pg::message;

impl Ready {
    pub(super) fn malformed(
        &mut self,
        call: &mut Call<'_>,
        head: Head,
        input: &mut BytesMut,
    ) -> Handled {
        let refusal = malformed_message(head.tag);
        let plan = Plan::of_refusal(refusal.clone(), head.len);
        match Frontend::from_tag(head.tag) {
            // It ends the skipping of a batch whatever is wrong with it. A server that skips, too,
            // has to see it to stop: its frame is harmless, and the server says what we would.
            Ok(Frontend::Sync) if self.skip == Skip::ForwardSync => {
                self.sync(call, head, input);
                return Handled::Yes;
            }
            // The server may have begun to skip without our knowing yet: only a Sync ends that.
            Ok(Frontend::Sync)
                if self.skip == Skip::No && (self.batch_open || !self.pending.is_empty()) =>
            {
                self.refuse_extended(call, &plan, &refusal);
                self.skip = Skip::No;
                call.out.to_server.encode(|out| message::framed(out, b'S', |_| {}));
                self.sync_expected();
            }
            Ok(Frontend::Sync) => {
                self.skip = Skip::No;
                self.refuse_query(call, &plan, &refusal);
            }
            Ok(Frontend::Query | Frontend::FunctionCall) => {
                self.refuse_query(call, &plan, &refusal);
            }
            Ok(
                Frontend::Bind
                | Frontend::Close
                | Frontend::CopyData
                | Frontend::CopyDone
                | Frontend::CopyFail
                | Frontend::Describe
                | Frontend::Execute
                | Frontend::Flush
                | Frontend::Parse
                | Frontend::Password
                | Frontend::Terminate,
            )
            | Err(_) => self.refuse_extended(call, &plan, &refusal),
        }
        self.drop_message(head, input)
    }
}
