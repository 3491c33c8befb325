//! What a command of Redis, or of one of its relatives, does and touches.
//!
//! The commands are data: `commands.tsv` is generated from the servers' own specifications,
//! `reviewed.tsv` says what no specification tells. What is not in both is unknown, and refused.
//! Where keys are is read from the specifications, too, but for the few commands whose options move
//! them (`special.rs`).

use std::fmt;
use std::sync::Arc;

use crate::facts::{
    Certainty, ChannelMode, ChannelUse, CommandUse, Exposure, Facts, KeyMode, KeyUse, KnownBy,
    ScriptUse, StoreFacts, Unnamed, Why,
};

mod channels;
mod expiry;
mod keys;
mod parse;
mod shape;
mod special;
mod table;
#[cfg(test)]
mod tests;

use channels::Channels;
use keys::Keys;
use shape::Replies;

pub use expiry::{Amended, Expiry, Said};
pub use shape::Shape;
pub use table::{Found, Table};

/// Arguments of one command, its name first.
pub trait Args {
    /// How many, the name included.
    fn len(&self) -> usize;

    /// The argument in this place; `None` if there is none, or if its bytes are not at hand.
    fn get(&self, at: usize) -> Option<&[u8]>;

    /// Whether there is not even a name.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Args for [&[u8]] {
    fn len(&self) -> usize {
        <[&[u8]]>::len(self)
    }

    fn get(&self, at: usize) -> Option<&[u8]> {
        <[&[u8]]>::get(self, at).copied()
    }
}

/// Number of a command in the table, from zero without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u16);

/// One command of the table.
#[derive(Debug)]
pub struct Command {
    /// Its number.
    pub id: CommandId,
    /// Name, categories and whether it is a door.
    pub fact: Arc<CommandUse>,
    /// What the session has to do about it.
    pub role: Role,
    /// Numbers of arguments, the name included, that one of the servers takes.
    arities: Box<[Arity]>,
    /// Whether its first argument may name a subcommand.
    container: bool,
    keys: Keys,
    channels: Option<Channels>,
    /// What it always does to keys that no argument names.
    unnamed: Unnamed,
    /// Place of the argument that names a script, and by what.
    script: Option<(usize, KnownBy)>,
    replies: Replies,
    /// Whether a server may make the client wait until others have said something.
    may_block: bool,
}

impl Command {
    /// Whether any of the servers takes so many arguments, the name included.
    pub fn arity_fits(&self, args: usize) -> bool {
        self.arities.iter().any(|arity| match *arity {
            Arity::Exactly(count) => args == count,
            Arity::AtLeast(count) => args >= count,
        })
    }

    /// Where its keys and channels are among these arguments, and what happens to them. What
    /// `uses` held before is gone, also where the arguments are not understood.
    pub fn uses(&self, args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
        uses.clear();
        uses.unnamed = self.unnamed;
        uses.script = self.script;
        self.keys.read(args, uses)?;
        match &self.channels {
            Some(channels) => channels.read(self.role, args, uses),
            None => Ok(()),
        }
    }

    /// What stands where in the reply to these arguments.
    pub fn shape(&self, args: &(impl Args + ?Sized)) -> Shape {
        self.replies.shape(args)
    }
}

/// How many arguments a server takes, the name included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arity {
    Exactly(usize),
    AtLeast(usize),
}

/// What a command with these arguments does and touches, for policy.
pub fn facts(command: &Command, args: &(impl Args + ?Sized), uses: &Uses) -> Facts {
    let mut keys = Vec::with_capacity(uses.keys.len());
    for KeyAt { at, mode, exposure } in uses.keys.iter().copied() {
        let Some(key) = args.get(at) else { return Facts::unknown(Why::TooLong) };
        keys.push(KeyUse { key: key.into(), mode, exposure });
    }
    let mut channels = Vec::with_capacity(uses.channels.len());
    for ChannelAt { at, mode } in uses.channels.iter().copied() {
        let Some(name) = args.get(at) else { return Facts::unknown(Why::TooLong) };
        channels.push(ChannelUse { name: name.into(), mode });
    }
    let unnamed = uses.unnamed;
    let script = uses
        .script
        .and_then(|(at, known_by)| Some(ScriptUse { name: args.get(at)?.into(), known_by }));
    let command = Some(Arc::clone(&command.fact));
    Facts {
        certainty: Certainty::Known,
        actions: Vec::new(),
        accesses: Vec::new(),
        functions: Vec::new(),
        settings: Vec::new(),
        store: StoreFacts { command, keys, channels, unnamed, script },
    }
}

/// Why the arguments of a command are not understood, in the words a server has for most of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUnderstood(pub &'static str);

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotUnderstood {}

/// What a session has to do about a command besides passing it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing: it has one reply.
    Plain,
    /// It says who the client is.
    Auth,
    /// It chooses the version of the protocol, and may say who the client is.
    Hello,
    /// It takes the connection back to where it began.
    Reset,
    /// It ends the connection.
    Quit,
    /// It chooses a database.
    Select,
    /// It begins a transaction.
    Multi,
    /// It runs one: its reply holds those of the commands in it.
    Exec,
    /// It gives one up.
    Discard,
    /// It asks for messages, and has a reply for each channel.
    Subscribe(Subscribed),
    /// It asks for no more of them, and has a reply for each channel, named or not.
    Unsubscribe(Subscribed),
    /// It says which replies the client wants.
    ClientReply,
    /// While its door is closed, the proxy answers in the server's place.
    Answered(Answered),
    /// From its reply on everything that any client asks is told.
    Monitor,
    /// It makes the connection another protocol's, or can be served by no proxy: no rule opens it.
    Never,
}

/// What is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// Channels by name.
    Channel,
    /// Channels by pattern.
    Pattern,
    /// Channels of one shard by name.
    Shard,
}

/// What the proxy answers in the server's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// INFO: version and mode, nothing else.
    Info,
    /// ROLE: a primary without replicas.
    Role,
    /// CONFIG GET: what drivers ask for; other settings do not exist.
    ConfigGet,
    /// CLUSTER …: this is no cluster.
    Cluster,
    /// ACL WHOAMI: the user who logged in to the proxy.
    WhoAmI,
}

/// Where in a command its keys and channels are, and what happens to them. Meant to be used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Keys, in the order of the arguments.
    pub keys: Vec<KeyAt>,
    /// Channels and patterns of channels, likewise.
    pub channels: Vec<ChannelAt>,
    /// What happens to keys that no argument names.
    pub unnamed: Unnamed,
    /// Places of arguments that are patterns for names of keys: of KEYS, of SCAN's MATCH.
    pub patterns: Vec<usize>,
    /// Place of the argument that names a script, and by what.
    pub script: Option<(usize, KnownBy)>,
}

impl Uses {
    /// Forgets all places, and gives back the memory that one long command took.
    fn clear(&mut self) {
        let Self { keys, channels, unnamed, patterns, script } = self;
        keys.clear();
        keys.shrink_to(PLACES_KEPT_MAX);
        channels.clear();
        channels.shrink_to(PLACES_KEPT_MAX);
        patterns.clear();
        patterns.shrink_to(PLACES_KEPT_MAX);
        *unnamed = Unnamed::Untouched;
        *script = None;
    }
}

/// So many places are kept room for between two commands: more than commands usually have, and no
/// more than a few pages.
const PLACES_KEPT_MAX: usize = 256;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyAt {
    /// Its place among the arguments.
    pub at: usize,
    /// What happens to it.
    pub mode: KeyMode,
    /// What of its value leaves it.
    pub exposure: Exposure,
}

/// A channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelAt {
    /// Its place among the arguments.
    pub at: usize,
    /// How it is used.
    pub mode: ChannelMode,
}
