//! Commands that are, byte for byte, the one before.
//!
//! Clients that count, poll or fill a queue send one command over and over. What was decided about it
//! a moment ago, in the same state of the connection, holds for the next one; a comparison of bytes
//! finds it. The state is not compared: whoever changes it forgets the command.

use bytes::BytesMut;

use super::pending::Expect;
use super::runs::Fate;
use super::talk::{Core, Multi, Mute};
use crate::analysis::redis::Role;
use crate::session::gate::StorePlan;
use crate::session::journal::Call;

/// The last command, if another one like it needs no second look.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    /// As the client sends it; empty for none.
    bytes: Vec<u8>,
}

impl Repeated {
    /// There is none.
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
    }

    /// The command at the front of the input was decided and passed on as it is.
    pub(super) fn remember(&mut self, command: &[u8]) {
        self.bytes.clear();
        if command.len() <= COMMAND_BYTES_MAX {
            self.bytes.extend_from_slice(command);
        }
    }

    /// How many commands like it the input begins with.
    fn count(&self, input: &[u8]) -> usize {
        if self.bytes.is_empty() {
            return 0;
        }
        input.chunks_exact(self.bytes.len()).take_while(|chunk| *chunk == self.bytes).count()
    }

    /// Passes on the commands at the front of the input that are like the last one; whether there
    /// were any.
    pub(super) fn pass(&self, core: &mut Core, call: &mut Call<'_>, input: &mut BytesMut) -> bool {
        let count = self.count(input);
        let Some(growing) = core.growing.as_mut().filter(|_| count > 0) else { return false };
        let more = u64::try_from(count).unwrap_or(u64::MAX);
        growing.count = growing.count.saturating_add(more);
        core.pending.push(Expect::Plain(more));
        call.out.to_server.take_from(input, count * self.bytes.len());
        true
    }
}

impl Core {
    /// Whether another command like the one that was just passed on needs no second look: its reply
    /// is passed on as it is, nothing is charged or compared for it, and it changes no state.
    pub(super) fn may_repeat(&self) -> bool {
        let free = |plan: &StorePlan| plan.limits.is_empty() && plan.values.is_empty();
        let plain = |growing: &super::runs::Growing| {
            growing.fate == Fate::Answered && growing.limited_by.is_none() && free(&growing.plan)
        };
        self.last_role == Some(Role::Plain)
            && self.mute == Mute::No
            && self.multi == Multi::None
            && self.prefix.is_none()
            && self.growing.as_ref().is_some_and(plain)
    }
}

/// Longer commands are looked at each time: comparing them costs as much.
const COMMAND_BYTES_MAX: usize = 512;
