//! Which patterns of rules a key or a channel fits.

use super::{IdentityClass, RuleSet};
use crate::facts::ChannelMode;

/// The patterns that fit. No rule names keys or channels: all fit alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fits;

impl RuleSet {
    /// What a key fits.
    pub fn key_fits(&self, _class: &IdentityClass, _key: &[u8]) -> Fits {
        Fits
    }

    /// What a channel fits.
    pub fn channel_fits(&self, _class: &IdentityClass, _name: &[u8], _mode: ChannelMode) -> Fits {
        Fits
    }
}
