//! Names of a tenant: behind its prefix at the server, without it at the client.
//!
//! A command is written anew with the prefix before each key, each channel and each pattern for
//! either; where a pattern is left out, the one that fits all names of the tenant is put in. Of replies
//! and messages the prefix is taken off; a name that is not behind it belongs to somebody else, and is
//! not told. The prefix holds nothing that a pattern would read as a wildcard.

use std::sync::Arc;

use bytes::BytesMut;

use super::reshape::{Job, KeyMasks, Owed};
use super::talk::Core;
use super::words::bulk;
use crate::analysis::redis::{Args, Shape, Uses};
use crate::facts::Unnamed;
use crate::session::journal::Call;

impl Core {
    /// Whether the command at hand names something that has a prefix.
    pub(super) fn names_something(&self) -> bool {
        let uses = &self.uses;
        self.prefix.is_some()
            && !(uses.keys.is_empty()
                && uses.channels.is_empty()
                && uses.patterns.is_empty()
                && uses.unnamed == Unnamed::Untouched)
    }

    /// Whether a pattern is put in, where the client left it out.
    pub(super) fn adds_pattern(&self) -> bool {
        let Uses { keys: _, channels: _, unnamed, patterns, script: _ } = &self.uses;
        self.prefix.is_some() && *unnamed == Unnamed::Listed && patterns.is_empty()
    }

    /// A name as the server knows it.
    pub(super) fn at_server(&self, name: &[u8]) -> Arc<[u8]> {
        match &self.prefix {
            Some(prefix) => [prefix, name].concat().into(),
            None => name.into(),
        }
    }

    /// Appends the command at hand as the server is to read it: with the prefix before its names, and
    /// with other arguments where it has some. `streamed` is the length of a last argument whose bytes
    /// follow on their own.
    pub(super) fn write_anew(
        &mut self,
        out: &mut BytesMut,
        args: &(impl Args + ?Sized),
        streamed: Option<usize>,
    ) {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        let all = [prefix, b"*"].concat();
        let pattern: &[&[u8]] = if self.adds_pattern() { &[b"MATCH", &all] } else { &[] };
        let amended = self.amended.take().unwrap_or_default();
        let added: Vec<&[u8]> = pattern.iter().copied().chain(amended.behind(args.len())).collect();
        let mut named = vec![false; args.len()];
        let uses = &self.uses;
        let keys = uses.keys.iter().map(|key| key.at);
        let channels = uses.channels.iter().map(|channel| channel.at);
        for at in keys.chain(channels).chain(uses.patterns.iter().copied()) {
            if let Some(is) = named.get_mut(at) {
                *is = true;
            }
        }
        out.extend_from_slice(format!("*{}\r\n", args.len() + added.len()).as_bytes());
        for (at, is_name) in named.into_iter().enumerate() {
            match (amended.get(at).or_else(|| args.get(at)), streamed) {
                (Some(name), _) if is_name => bulk(out, &[prefix, name].concat()),
                (Some(argument), _) => bulk(out, argument),
                (None, Some(len)) => out.extend_from_slice(format!("${len}\r\n").as_bytes()),
                (None, None) => bulk(out, b""),
            }
        }
        self.behind.clear();
        let behind = if streamed.is_some() { &mut self.behind } else { out };
        added.iter().for_each(|argument| bulk(behind, argument));
    }

    /// An argument that was streamed is over: what of its command comes behind it.
    pub(super) fn write_behind(&mut self, call: &mut Call<'_>) {
        if !self.behind.is_empty() {
            call.out.to_server.extend(&std::mem::take(&mut self.behind));
        }
    }

    /// What a message or a confirmation owes that begins with this word.
    pub(super) fn message_owes(&self, word: &[u8]) -> Owed {
        let rest = match word {
            b"pmessage" => vec![Shape::Key, Shape::Key, Shape::Other],
            b"invalidate" => vec![Shape::Each(Box::new(Shape::Key))],
            _ => vec![Shape::Key, Shape::Other],
        };
        let shape = Shape::Tuple([vec![Shape::Other], rest].concat().into());
        let nothing: [&[u8]; 0] = [];
        let keys: [(&[u8], &KeyMasks); 0] = [];
        let job = Job::new(&shape, &nothing[..], keys.into_iter());
        Owed::One(job.strip(self.prefix.clone().unwrap_or_default()))
    }
}
