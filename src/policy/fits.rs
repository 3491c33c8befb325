//! Which patterns of an identity's rules a key or a channel fits.
//!
//! Rules know keys only by patterns, so commands whose keys fit the same patterns are decided alike:
//! a session asks for the patterns of each key, which is cheap, and decides once for each set.

use std::sync::Arc;

use super::identity::IdentityClass;
use super::rule::{Effect, Label, Rule};
use super::ruleset::RuleSet;
use super::store::{is_script, reaches, stays_inside};
use crate::facts::{ChannelMode, ChannelUse, KeyUse, KnownBy, StoreFacts};
use crate::name::Glob;

/// The patterns one key or channel fits. Two keys of one identity class with equal fits, used alike,
/// get equal decisions for the same command; likewise two channels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fits {
    /// One bit for each of the first patterns.
    low: u64,
    /// The others, if any; without zeros at the end, so that equal sets are equal. Sets are compared
    /// for every command: two that are not there need no comparison.
    high: Option<Vec<u64>>,
}

impl Fits {
    fn set(&mut self, bit: usize) {
        let (word, mask) = (bit / 64, 1u64 << (bit % 64));
        let Some(above) = word.checked_sub(1) else {
            self.low |= mask;
            return;
        };
        let high = self.high.get_or_insert_default();
        if high.len() <= above {
            high.resize(above + 1, 0);
        }
        if let Some(word) = high.get_mut(above) {
            *word |= mask;
        }
    }

    /// Whether it fits no pattern.
    pub fn is_empty(&self) -> bool {
        self.low == 0 && self.high.is_none()
    }
}

/// Every pattern that a decision for one identity class can depend on, each once.
#[derive(Debug, Default)]
pub(crate) struct ClassPatterns {
    keys: Vec<(Arc<str>, Glob)>,
    channels: Vec<(Arc<str>, Glob)>,
    /// Digests of scripts.
    scripts: Vec<Arc<str>>,
    /// Names of functions of libraries.
    functions: Vec<Arc<str>>,
}

impl ClassPatterns {
    /// Those of the rules that concern an identity, and of the labels these speak of.
    pub(crate) fn of(rules: &[&Rule], labels: &[Label]) -> Self {
        let (mut keys, mut channels): (Vec<&Glob>, Vec<&Glob>) = (Vec::new(), Vec::new());
        let (mut scripts, mut functions) = (Vec::new(), Vec::new());
        for rule in rules {
            let object = &rule.object;
            keys.extend(object.store.key_globs());
            channels.extend(object.store.channel_globs());
            keys.extend(object.labels(labels).flat_map(|label| &label.keys));
            match &rule.effect {
                Effect::Allow(allow) => {
                    keys.extend(allow.store.key_globs());
                    channels.extend(allow.store.channels.iter().flatten());
                    scripts.extend(allow.store.scripts.iter().flatten().cloned());
                    functions.extend(allow.store.functions.iter().flatten().cloned());
                }
                Effect::Mask(_)
                | Effect::Filter(_)
                | Effect::Deny { .. }
                | Effect::Limit(_)
                | Effect::Prefix(_)
                | Effect::Bounds(_) => {}
            }
        }
        for names in [&mut scripts, &mut functions] {
            names.sort();
            names.dedup();
        }
        Self { keys: distinct(keys), channels: distinct(channels), scripts, functions }
    }
}

fn distinct(mut globs: Vec<&Glob>) -> Vec<(Arc<str>, Glob)> {
    globs.sort_by_key(|glob| glob.as_str());
    globs.dedup();
    globs.into_iter().map(|glob| (Arc::from(glob.as_str()), glob.clone())).collect()
}

impl RuleSet {
    /// Which patterns the key fits. Where the class has none, the key is not looked at.
    pub fn key_fits(&self, class: &IdentityClass, key: &[u8]) -> Fits {
        let mut fits = Fits::default();
        for (bit, (_, glob)) in class.patterns.keys.iter().enumerate() {
            if glob.matches_bytes(key) {
                fits.set(bit);
            }
        }
        fits
    }

    /// Which patterns the channel fits, or the client's pattern for channels may reach and surely
    /// stays inside of.
    pub fn channel_fits(&self, class: &IdentityClass, name: &[u8], mode: ChannelMode) -> Fits {
        let mut fits = Fits::default();
        for (index, (_, glob)) in class.patterns.channels.iter().enumerate() {
            if reaches(glob, name, mode) {
                fits.set(2 * index);
            }
            if stays_inside(glob, name, mode) {
                fits.set(2 * index + 1);
            }
        }
        fits
    }

    /// Which of the scripts that rules list the client names, or of the functions.
    pub fn script_fits(&self, class: &IdentityClass, name: &[u8], known_by: KnownBy) -> Fits {
        let mut fits = Fits::default();
        let listed = match known_by {
            KnownBy::Digest => &class.patterns.scripts,
            KnownBy::Name => &class.patterns.functions,
        };
        for (bit, script) in listed.iter().enumerate() {
            if is_script(script, name, known_by) {
                fits.set(bit);
            }
        }
        fits
    }

    /// The patterns, as rules write them, that the keys and channels of a command fit; for records,
    /// which hold no key and no channel.
    pub fn patterns(&self, class: &IdentityClass, store: &StoreFacts) -> Vec<Arc<str>> {
        let StoreFacts { command: _, keys, channels, unnamed: _, script: _ } = store;
        let mut fitted: Vec<Arc<str>> = Vec::new();
        for (text, glob) in &class.patterns.keys {
            if keys.iter().any(|KeyUse { key, .. }| glob.matches_bytes(key)) {
                fitted.push(Arc::clone(text));
            }
        }
        for (text, glob) in &class.patterns.channels {
            let mut uses = channels.iter();
            if uses.any(|ChannelUse { name, mode }| reaches(glob, name, *mode)) {
                fitted.push(Arc::clone(text));
            }
        }
        fitted.sort();
        fitted.dedup();
        fitted
    }
}
