//! Records of commands to a key-value store.
//!
//! Thousands of equal commands pass in a moment: events tell of *runs*, commands in a row that were
//! decided alike, with their number. Keys, channels, values, arguments and passwords are in no
//! record: of a key only the pattern it fitted is, which somebody wrote into a rule.

use std::sync::Arc;

use super::{CommandJson, Prepared, RecordedVerdict};
use crate::facts::CommandUse;
use crate::name::RuleId;

/// What stays the same for all events of commands that are decided alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRecord {
    /// Full name in lower case, `get`, `client|list`; the word `unknown` for what is no command.
    pub command: Arc<str>,
    /// What kind of command it is.
    pub class: CommandClass,
    /// Patterns of rules that its keys and channels fitted.
    pub patterns: Vec<Arc<str>>,
    /// What was decided.
    pub verdict: RecordedVerdict,
    /// Rules that shaped the decision, enforced ones.
    pub rules: Vec<RuleId>,
    /// Rules in mode shadow or warn that would have acted.
    pub observed: Vec<RuleId>,
    /// What is masked.
    pub masked: Vec<RecordedMask>,
    /// The expiry the commands were made to say, if they were.
    pub expiry: Option<RecordedExpiry>,
    /// The record's part of each event, made on first use; start with `Prepared::default()`.
    pub json: Prepared<CommandJson>,
}

impl CommandRecord {
    /// A command that is allowed and touched by no rule; whoever decides fills in the rest.
    pub fn new(command: &CommandUse) -> Self {
        Self {
            command: Arc::clone(&command.name),
            class: CommandClass::of(&command.categories),
            patterns: Vec::new(),
            verdict: RecordedVerdict::Allowed,
            rules: Vec::new(),
            observed: Vec::new(),
            masked: Vec::new(),
            expiry: None,
            json: Prepared::default(),
        }
    }

    /// Whether it is about what is no command the proxy knows.
    pub fn is_unknown(&self) -> bool {
        &*self.command == UNKNOWN
    }

    /// What is no command the proxy knows. Its name is the client's text, and not recorded.
    pub fn unknown(verdict: RecordedVerdict) -> Self {
        Self {
            command: UNKNOWN.into(),
            class: CommandClass::Other,
            patterns: Vec::new(),
            verdict,
            rules: Vec::new(),
            observed: Vec::new(),
            masked: Vec::new(),
            expiry: None,
            json: Prepared::default(),
        }
    }
}

/// A mask over values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedMask {
    /// Pattern of the key; field or path, as the rule writes it, behind a space.
    pub pattern: Arc<str>,
    /// Name of the mask function.
    pub function: &'static str,
    /// Class of the data, if the rule is about one.
    pub class: Option<Arc<str>>,
}

/// An expiry that the client did not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedExpiry {
    /// How long, in milliseconds.
    pub ms: u64,
    /// The rule that asked for it.
    pub rule: RuleId,
}

/// A run of commands in one session: decided alike, within a second or so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRun {
    /// What they have in common.
    pub record: Arc<CommandRecord>,
    /// Rules generation they were decided under.
    pub generation: u64,
    /// Number of the database they went to.
    pub database: u32,
    /// How many they are, at least one.
    pub count: u64,
}

/// What came of a run that was forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunResult {
    /// Commands of the run that came after its decision was recorded.
    pub later: u64,
    /// Commands the server answered with an error.
    pub failed: u64,
    /// The first of these errors.
    pub error: Option<StoreError>,
    /// Bytes sent to the client for the run.
    pub bytes: u64,
    /// How long the server owed a reply to one of them or several, microseconds.
    pub duration_us: u64,
}

/// What kind of command it is: a closed set, for metrics and for what an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandClass {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Publishes or subscribes.
    PubSub,
    /// Begins, ends or guards a transaction.
    Transaction,
    /// Runs code on the server, or loads it.
    Script,
    /// Is about the connection.
    Connection,
    /// Administers the server.
    Admin,
    /// Anything else.
    Other,
}

impl CommandClass {
    /// By the server's categories, the weightiest first.
    pub fn of(categories: &[Arc<str>]) -> Self {
        let weighty = [
            ("admin", Self::Admin),
            ("scripting", Self::Script),
            ("pubsub", Self::PubSub),
            ("transaction", Self::Transaction),
            ("connection", Self::Connection),
            ("write", Self::Write),
            ("read", Self::Read),
        ];
        let has = |name: &str| categories.iter().any(|category| &**category == name);
        weighty.into_iter().find(|(name, _)| has(name)).map_or(Self::Other, |(_, class)| class)
    }
}

/// The first word of a server's error, if it is one of those the servers themselves use.
///
/// A script may answer with an error of its own making, whose first word can be a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreError(&'static str);

impl StoreError {
    /// From an error line, with or without the minus sign before it.
    pub fn of(line: &[u8]) -> Self {
        let line = line.strip_prefix(b"-").unwrap_or(line);
        let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let word = word.strip_suffix(b"\r\n").unwrap_or(word);
        let known = WORDS.iter().find(|known| known.as_bytes() == word);
        Self(known.copied().unwrap_or("OTHER"))
    }

    /// The word.
    pub fn word(self) -> &'static str {
        self.0
    }
}

/// In the place of a name that only the client knows.
const UNKNOWN: &str = "unknown";

/// First words of errors in the servers' own source.
const WORDS: &[&str] = &[
    "ASK",
    "BUSY",
    "BUSYGROUP",
    "BUSYKEY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "DENIED",
    "ERR",
    "EXECABORT",
    "INPROG",
    "IOERR",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOGOODSLAVE",
    "NOGROUP",
    "NOMASTERLINK",
    "NOPERM",
    "NOPROTO",
    "NOREPLICAS",
    "NOSCRIPT",
    "NOTBUSY",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
    "UNKILLABLE",
    "WRONGPASS",
    "WRONGTYPE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_script_is_not_recorded_by_its_words() {
        for (line, word) in [
            (&b"-WRONGTYPE Operation against a key"[..], "WRONGTYPE"),
            (b"OOM\r\n", "OOM"),
            (b"-4111111111111111 is the card", "OTHER"),
            (b"-wrongtype x", "OTHER"),
            (b"", "OTHER"),
        ] {
            assert_eq!(StoreError::of(line).word(), word);
        }
        assert!(WORDS.is_sorted());
    }

    #[test]
    fn the_weightiest_category_is_the_class() {
        let class = |names: &[&str]| {
            CommandClass::of(&names.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>())
        };
        assert_eq!(class(&["read", "string", "fast"]), CommandClass::Read);
        assert_eq!(class(&["write", "list", "blocking"]), CommandClass::Write);
        assert_eq!(class(&["slow", "connection", "admin"]), CommandClass::Admin);
        assert_eq!(class(&["write", "scripting"]), CommandClass::Script);
        assert_eq!(class(&[]), CommandClass::Other);
    }
}
