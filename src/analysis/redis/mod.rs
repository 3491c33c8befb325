//! What a command of Redis, or of one of its relatives, does and touches.
//!
//! The commands are data (`commands.tsv`): generated from the servers' own specifications, then
//! reviewed. What is not in it is unknown, and refused.

use std::sync::Arc;

use crate::facts::{ChannelMode, CommandUse, Exposure, KeyMode, Unnamed};

mod shape;

pub use shape::Shape;

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
}

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
}

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
