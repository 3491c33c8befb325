//! Where channels are among arguments.

use crate::analysis::redis::keys::TOO_FEW;
use crate::analysis::redis::{Args, ChannelAt, NotUnderstood, Role, Uses};
use crate::facts::{ChannelMode, Unnamed};

/// Arguments that are channels, all used alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    /// The first of them.
    pub(super) first: usize,
    /// How many.
    pub(super) many: Many,
    /// How they are used.
    pub(super) mode: ChannelMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Many {
    One,
    /// All from there on; none is possible.
    Rest,
}

impl Channels {
    pub(super) fn read(
        self,
        role: Role,
        args: &(impl Args + ?Sized),
        uses: &mut Uses,
    ) -> Result<(), NotUnderstood> {
        let Self { first, many, mode } = self;
        let end = match many {
            Many::One if first >= args.len() => return Err(TOO_FEW),
            Many::One => first.saturating_add(1),
            Many::Rest => args.len(),
        };
        for at in first..end {
            uses.channels.push(ChannelAt { at, mode });
            if matches!(role, Role::Subscribe(_)) && tells_of_keys(args.get(at), mode) {
                uses.unnamed = Unnamed::Counted;
            }
        }
        Ok(())
    }
}

/// Whether messages of this channel, or of one the pattern fits, tell names of keys. In doubt they
/// do: of a pattern only what stands before its first special character is looked at.
fn tells_of_keys(name: Option<&[u8]>, mode: ChannelMode) -> bool {
    let Some(name) = name else { return true };
    TELLING.iter().any(|telling| match mode {
        ChannelMode::Publish | ChannelMode::Subscribe => name.starts_with(telling),
        ChannelMode::SubscribePattern => {
            match name.iter().position(|byte| b"*?[\\".contains(byte)) {
                Some(special) => {
                    let (fixed, _) = name.split_at(special);
                    fixed.starts_with(telling) || telling.starts_with(fixed)
                }
                None => name.starts_with(telling),
            }
        }
    })
}

/// Beginnings of the channels on which servers tell about keys: notifications of what happens to
/// them, and invalidations for clients that track them.
const TELLING: [&[u8]; 3] = [b"__keyspace@", b"__keyevent@", b"__redis__:"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_about_keys_are_found_behind_any_pattern() {
        let pattern = |name: &[u8]| tells_of_keys(Some(name), ChannelMode::SubscribePattern);
        for telling in
            ["*", "__*", "_[_]key*", "\\__keyspace*", "__keyevent@0__:*", "?", "__redis__:*"]
        {
            assert!(pattern(telling.as_bytes()), "{telling}");
        }
        for other in ["news.*", "__other*", "a", "_", ""] {
            assert!(!pattern(other.as_bytes()), "{other}");
        }
        let channel = |name: &[u8]| tells_of_keys(Some(name), ChannelMode::Subscribe);
        assert!(channel(b"__keyspace@0__:k") && channel(b"__redis__:invalidate"));
        assert!(!channel(b"news") && !channel(b"*"));
        assert!(tells_of_keys(None, ChannelMode::Subscribe));
    }
}
