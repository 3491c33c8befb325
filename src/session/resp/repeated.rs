//! Commands that are, byte for byte, the one before.
//!
//! Clients that count, poll or fill a queue send one command over and over. What was decided about it
//! a moment ago, in the same state of the connection, holds for the next one; a comparison of bytes
//! finds it. The state is not compared: whoever changes it forgets the command, as each other command
//! does, and each change of rules or identity.

use super::runs::Fate;
use super::talk::{Core, Multi, Mute};
use crate::analysis::redis::Role;
use crate::session::gate::StorePlan;

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

    /// How many commands like it the input begins with.
    fn count(&self, input: &[u8]) -> usize {
        let len = self.bytes.len();
        if len == 0 || !input.starts_with(&self.bytes) {
            return 0;
        }
        // All of them, if what is behind the first is what is before the last: one comparison.
        let (before_last, behind_first) = (input.len() - len, input.get(len..).unwrap_or_default());
        if input.len().is_multiple_of(len) && input.get(..before_last) == Some(behind_first) {
            return input.len() / len;
        }
        input.chunks_exact(len).take_while(|chunk| *chunk == self.bytes).count()
    }
}

impl Core {
    /// These bytes are the command that was just passed on as it is: what is like it needs no second
    /// look, if its reply is passed on as it is, nothing is charged for it, and it changes no state. It
    /// is within its bounds as it was: its bytes are the same, and a time of the clock comes nearer.
    pub(super) fn remember(&mut self, command: &[u8]) {
        let free = |plan: &StorePlan| plan.limits.is_empty() && plan.values.is_empty();
        let plain = |growing: &super::runs::Growing| {
            growing.fate == Fate::Answered && growing.limited_by.is_none() && free(&growing.plan)
        };
        if command.len() <= COMMAND_BYTES_MAX
            && self.last_role == Some(Role::Plain)
            && self.mute == Mute::No
            && self.multi == Multi::None
            && self.prefix.is_none()
            && self.growing.as_ref().is_some_and(plain)
        {
            self.repeated.bytes.extend_from_slice(command);
        }
    }

    /// Decides the commands at the front of the input that are like the last one as that was; how many
    /// bytes they are.
    pub(super) fn repeat(&mut self, input: &[u8]) -> usize {
        let count = self.repeated.count(input);
        let Some(growing) = self.growing.as_mut().filter(|_| count > 0) else { return 0 };
        let more = u64::try_from(count).unwrap_or(u64::MAX);
        growing.count = growing.count.saturating_add(more);
        self.pending.push_plain(more);
        count.saturating_mul(self.repeated.bytes.len())
    }
}

/// Longer commands are looked at each time: comparing them costs as much.
const COMMAND_BYTES_MAX: usize = 512;
