//! What a client listens to, kept to be judged again when the rules change: messages come without a
//! command of its own.

use std::collections::BTreeSet;

use super::RespConfig;
use super::talk::{Core, Parting};
use super::words;
use crate::analysis::redis::{Found, Subscribed, Uses};
use crate::session::gate::StoreVerdict;
use crate::session::journal::Call;

/// Names and patterns of channels, as the client knows them.
#[derive(Debug, Default)]
pub(super) struct Listening {
    names: BTreeSet<(Word, Box<[u8]>)>,
    /// More than are kept.
    more: bool,
}

/// With which command they were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Subscribe,
    Psubscribe,
    Ssubscribe,
}

/// What a confirmation confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// One channel more.
    More,
    /// One less.
    Less,
}

impl Word {
    fn of(kind: Subscribed) -> Self {
        match kind {
            Subscribed::Channel => Self::Subscribe,
            Subscribed::Pattern => Self::Psubscribe,
            Subscribed::Shard => Self::Ssubscribe,
        }
    }

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Subscribe => b"subscribe",
            Self::Psubscribe => b"psubscribe",
            Self::Ssubscribe => b"ssubscribe",
        }
    }
}

impl Listening {
    /// The server has confirmed a name.
    fn add(&mut self, kind: Subscribed, name: &[u8]) {
        if self.names.len() < NAMES_MAX && name.len() <= NAME_BYTES_MAX {
            self.names.insert((Word::of(kind), name.into()));
        } else {
            self.more = true;
        }
    }

    fn remove(&mut self, kind: Subscribed, name: &[u8]) {
        self.names.remove(&(Word::of(kind), name.into()));
    }
}

impl Core {
    /// The server has confirmed that the client listens to a channel from now on, or no more; `reply`
    /// as the server wrote it.
    pub(super) fn note_listening(&mut self, kind: Subscribed, change: Change, reply: &[u8]) {
        let Some(name) = second_word(reply) else { return };
        let prefix = self.prefix.as_deref().unwrap_or_default();
        let name = name.strip_prefix(prefix).unwrap_or(name);
        match change {
            Change::More => self.listening.add(kind, name),
            Change::Less => self.listening.remove(kind, name),
        }
        if !self.subscriptions.any() {
            self.listening = Listening::default();
        }
    }

    /// Brings everything up to date with the rules in force. A client that listens to what it may not
    /// any more is sent away.
    pub(super) fn follow(&mut self, call: &mut Call<'_>, config: &RespConfig) {
        if !self.follow_rules(call.turn) || self.parting == Parting::Closing {
            return;
        }
        let listens = self.subscriptions.any() || self.monitoring;
        if !listens || self.may_listen(call, config) {
            return;
        }
        if self.may_speak() {
            let text = "NOPERM the rules have changed, and you may not listen to this any more";
            call.out.to_client.extend(&words::error(text));
        }
        self.part(call, "policy");
    }

    fn may_listen(&mut self, call: &Call<'_>, config: &RespConfig) -> bool {
        let Some(who) = &self.who else { return false };
        if self.listening.more || self.monitoring {
            return !who.class().concerned;
        }
        let mut uses = Uses::default();
        self.listening.names.iter().all(|(word, name)| {
            let args: [&[u8]; 2] = [word.bytes(), name];
            let Found::Command(command) = config.table.find(&args[..]) else { return false };
            if command.uses(&args[..], &mut uses).is_err() {
                return false;
            }
            let plan = self.plans.plan(call.turn, who.class(), (command, &args[..]), &uses);
            matches!(plan.verdict, StoreVerdict::Forward)
        })
    }
}

/// The second element of an array or a push, if it is a bulk string.
fn second_word(reply: &[u8]) -> Option<&[u8]> {
    let mut rest = reply;
    let mut line = || {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = rest.get(..end)?;
        rest = rest.get(end + 2..)?;
        Some(line)
    };
    let (_count, _length, _word) = (line()?, line()?, line()?);
    let length = line()?.strip_prefix(b"$")?;
    let length = std::str::from_utf8(length).ok()?.parse().ok()?;
    rest.get(..length)
}

/// Most names that are kept for a session.
const NAMES_MAX: usize = 10_000;
/// Longest name that is kept.
const NAME_BYTES_MAX: usize = 4096;
