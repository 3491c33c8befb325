//! What a command of a key-value store does and touches.

use std::sync::Arc;

/// What a command of a key-value store touches; empty for every text of another kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// The command; `None` in a text that is not a command.
    pub command: Option<Arc<CommandUse>>,
    /// Each key the command names, in the order of its arguments.
    pub keys: Vec<KeyUse>,
    /// Each channel, or pattern of channels, it names.
    pub channels: Vec<ChannelUse>,
    /// What it does to keys it does not name.
    pub unnamed: Unnamed,
    /// The script it runs; what that does besides is `unnamed`.
    pub script: Option<ScriptUse>,
}

/// Code at the server that a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptUse {
    /// As the client names it.
    pub name: Arc<[u8]>,
    /// What the name is.
    pub known_by: KnownBy,
}

/// What code at the server is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// A digest of its text: another text has another one.
    Digest,
    /// The name of a function of a library, behind which another text may be put.
    Name,
}

/// One command, as the table of commands describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandUse {
    /// Full name in lower case, a subcommand after a bar: `get`, `client|list`.
    pub name: Arc<str>,
    /// Categories in lower case, without the `@` the server's access lists write before them.
    pub categories: Vec<Arc<str>>,
    /// Closed to everybody until a rule opens it by its own name: administers the server, shows
    /// other clients, or reaches what no argument names.
    pub door: bool,
    /// May say when a key expires, or take that away.
    pub ends: bool,
    /// About who the client is, or the end of its connection: the session carries it out, and asks no
    /// rule.
    pub unruled: bool,
}

/// One use of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The key as the client names it.
    pub key: Arc<[u8]>,
    /// What happens to it.
    pub mode: KeyMode,
    /// What of its value leaves it.
    pub exposure: Exposure,
}

/// Whether a key is read, written or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyMode {
    /// Its value, or something about it, comes back or decides what happens.
    Read,
    /// Its value is set, changed or removed, and nothing of it comes back.
    Write,
    /// Both.
    ReadWrite,
}

impl KeyMode {
    /// Whether it is read.
    pub fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether it is written.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// What of a key's value a command lets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Exposure {
    /// Nothing: it is written, expires, or only its existence or type is told.
    Hidden,
    /// Whole elements, in a reply whose shape is known: they can be masked one by one.
    Shown,
    /// A part, a length, a comparison or a computation: no mask of whole elements covers it.
    Derived,
    /// It is copied under another key or out of the store.
    Copied,
}

/// One use of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelUse {
    /// The channel, or the pattern, as the client names it.
    pub name: Arc<[u8]>,
    /// How it is used.
    pub mode: ChannelMode,
}

/// How a channel is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelMode {
    /// A message is sent to it.
    Publish,
    /// Its messages are asked for.
    Subscribe,
    /// Messages of every channel the glob fits are asked for.
    SubscribePattern,
}

/// What a command does to keys that none of its arguments names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unnamed {
    /// Nothing.
    #[default]
    Untouched,
    /// Names of keys come back, in a reply they can be left out of (SCAN, KEYS).
    Listed,
    /// Something about all keys comes back: how many there are, one at random.
    Counted,
    /// All keys are changed or removed.
    Changed,
    /// Keys that cannot be told from the command are read or written: names are put together on the
    /// server (SORT with BY or GET, scripts).
    Reached,
}
