//! What a statement is and touches, in words no protocol owns.
//!
//! `analysis/` produces facts, `policy/` reads them. Facts carry no judgement: whether something is
//! allowed is never decided here. What could not be understood is a fact too ([`Certainty`]).

use std::sync::Arc;

use crate::name::RelationPath;

mod store;

pub use store::{
    ChannelMode, ChannelUse, CommandUse, Exposure, KeyMode, KeyUse, KnownBy, ScriptUse, StoreFacts,
    Unnamed,
};

/// Everything policy may know about one text sent by a client (one or several statements).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether the text was understood completely. Anything but `Known` is refused by policy.
    pub certainty: Certainty,
    /// Every action of every statement in the text, nested ones included: `EXPLAIN DELETE …`
    /// carries both `Explain` and `Delete`, a data-modifying CTE carries its own verb.
    pub actions: Vec<Action>,
    /// Each relation the text names, with every way it is used; one entry per (relation, mode).
    pub accesses: Vec<Access>,
    /// Each function called by name, deduplicated.
    pub functions: Vec<FunctionUse>,
    /// Each session setting the text changes.
    pub settings: Vec<SettingChange>,
    /// What a command of a key-value store is and touches.
    pub store: StoreFacts,
}

impl Facts {
    /// Facts of a text that was not understood: nothing is known but why.
    pub fn unknown(why: Why) -> Self {
        Self {
            certainty: Certainty::Unknown(why),
            actions: Vec::new(),
            accesses: Vec::new(),
            functions: Vec::new(),
            settings: Vec::new(),
            store: StoreFacts::default(),
        }
    }
}

impl Facts {
    /// Names no relation and no function: what it means does not depend on a catalog.
    pub fn names_nothing(&self) -> bool {
        self.accesses.is_empty() && self.functions.is_empty()
    }
}

/// Whether facts are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Every part of the text was understood.
    Known,
    /// Some part was not; the text must not run for anyone whom a rule concerns.
    Unknown(Why),
}

/// Why a text was not understood. Adding a variant is a policy change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The grammar refuses it.
    Syntax(Box<SyntaxError>),
    /// The bytes are not UTF-8 (or hold a NUL).
    NotUtf8,
    /// Longer than the configured maximum of bytes.
    TooLong,
    /// More tokens or deeper nesting than the configured maximum.
    TooComplex,
    /// A construct the analysis does not model; the name is shown to the client.
    Construct(String),
}

/// What the grammar has against a text, in the words a server with this grammar would use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// One line.
    pub message: String,
    /// Class of the error: a SQLSTATE.
    pub code: &'static str,
    /// More, where servers say more.
    pub detail: Option<&'static str>,
    /// The way out, where servers name one.
    pub hint: Option<&'static str>,
    /// 1-based position in characters, as the protocol counts; `None` where servers name none, or
    /// where it was not found.
    pub position: Option<u32>,
}

impl Default for SyntaxError {
    fn default() -> Self {
        Self {
            message: "syntax error".to_owned(),
            code: "42601",
            detail: None,
            hint: None,
            position: None,
        }
    }
}

/// One thing a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action {
    /// What kind of statement.
    pub verb: Verb,
    /// An UPDATE or DELETE without any WHERE condition.
    pub without_where: bool,
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $class:ident;)*) => {
        /// The kind of a statement, as rule files spell it (`statements: [select, create_table]`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(not(test), non_exhaustive)]
        pub enum Verb { $($(#[$doc])* $variant,)* }

        impl Verb {
            /// Every verb, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The spelling in rule files, audit events and metrics.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The coarse class, with pgaudit's words.
            pub fn class(self) -> VerbClass {
                match self { $(Self::$variant => VerbClass::$class,)* }
            }
        }
    };
}

verbs! {
    /// SELECT, TABLE, VALUES.
    Select => "select", Read;
    /// INSERT.
    Insert => "insert", Write;
    /// UPDATE, and the update half of an upsert.
    Update => "update", Write;
    /// DELETE.
    Delete => "delete", Write;
    /// MERGE.
    Merge => "merge", Write;
    /// COPY … TO STDOUT.
    CopyTo => "copy_to", Read;
    /// COPY … FROM STDIN.
    CopyFrom => "copy_from", Write;
    /// COPY from or to a file or program on the server.
    CopyServerFile => "copy_server_file", Misc;
    /// TRUNCATE.
    Truncate => "truncate", Write;
    /// EXPLAIN (the explained statement adds its own verb).
    Explain => "explain", Misc;
    /// SHOW.
    Show => "show", Misc;
    /// SET, RESET of an ordinary setting.
    Set => "set", Misc;
    /// SET ROLE, SET SESSION AUTHORIZATION and their RESET.
    SetRole => "set_role", Role;
    /// DISCARD.
    Discard => "discard", Misc;
    /// BEGIN, START TRANSACTION, SET TRANSACTION.
    Begin => "begin", Misc;
    /// COMMIT, END, COMMIT PREPARED.
    Commit => "commit", Misc;
    /// ROLLBACK, ABORT, ROLLBACK TO, ROLLBACK PREPARED.
    Rollback => "rollback", Misc;
    /// SAVEPOINT, RELEASE.
    Savepoint => "savepoint", Misc;
    /// PREPARE TRANSACTION.
    PrepareTransaction => "prepare_transaction", Misc;
    /// LOCK TABLE.
    Lock => "lock", Misc;
    /// DECLARE CURSOR (the query adds its own verb).
    Declare => "declare", Read;
    /// FETCH, MOVE.
    Fetch => "fetch", Read;
    /// CLOSE of a cursor.
    Close => "close", Misc;
    /// PREPARE in text form (the prepared statement adds its own verb).
    Prepare => "prepare", Misc;
    /// EXECUTE in text form.
    Execute => "execute", Misc;
    /// DEALLOCATE.
    Deallocate => "deallocate", Misc;
    /// LISTEN.
    Listen => "listen", Misc;
    /// UNLISTEN.
    Unlisten => "unlisten", Misc;
    /// NOTIFY.
    Notify => "notify", Misc;
    /// CREATE TABLE.
    CreateTable => "create_table", Ddl;
    /// CREATE TABLE AS, SELECT INTO, CREATE MATERIALIZED VIEW (the query adds its own verb).
    CreateTableAs => "create_table_as", Ddl;
    /// CREATE VIEW.
    CreateView => "create_view", Ddl;
    /// CREATE INDEX.
    CreateIndex => "create_index", Ddl;
    /// CREATE FUNCTION, CREATE PROCEDURE.
    CreateFunction => "create_function", Ddl;
    /// Any other CREATE.
    Create => "create", Ddl;
    /// ALTER TABLE and its relatives.
    AlterTable => "alter_table", Ddl;
    /// Any other ALTER, RENAME, COMMENT, SECURITY LABEL.
    Alter => "alter", Ddl;
    /// DROP of anything.
    Drop => "drop", Ddl;
    /// REFRESH MATERIALIZED VIEW, REINDEX, CLUSTER.
    Refresh => "refresh", Ddl;
    /// GRANT, REVOKE, ALTER DEFAULT PRIVILEGES, REASSIGN.
    Grant => "grant", Role;
    /// CREATE, ALTER or DROP of a role.
    Role => "role", Role;
    /// DO.
    Do => "do", Function;
    /// CALL.
    Call => "call", Function;
    /// LOAD of a library.
    Load => "load", Misc;
    /// VACUUM, ANALYZE.
    Vacuum => "vacuum", Misc;
    /// CHECKPOINT, ALTER SYSTEM and other server administration.
    Admin => "admin", Misc;
    /// The fast-path function call message.
    FunctionCall => "function_call", Function;
    /// A replication connection: the write-ahead log and base backups, in a grammar of its own.
    Replication => "replication", Misc;
    /// A text without any statement (empty, or only comments).
    Empty => "empty", Misc;
}

impl Verb {
    /// Closed to everybody, whether rules concern them or not, until a rule opens it: it reaches
    /// what no statement is seen to reach.
    pub fn is_door(self) -> bool {
        matches!(self, Self::Load | Self::FunctionCall | Self::Replication)
    }

    /// The verb a rule file names, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|verb| verb.name() == name)
    }
}

/// pgaudit's statement classes, kept so that existing audit queries port over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VerbClass {
    /// Reads relations.
    Read,
    /// Writes relations.
    Write,
    /// Calls procedures or runs code blocks.
    Function,
    /// Changes roles or privileges.
    Role,
    /// Changes definitions.
    Ddl,
    /// Everything else.
    Misc,
}

impl VerbClass {
    /// pgaudit's spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::Function => "FUNCTION",
            Self::Role => "ROLE",
            Self::Ddl => "DDL",
            Self::Misc => "MISC",
        }
    }
}

/// One relation of the catalog, as far as policy needs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Relation {
    /// Its own name.
    pub path: RelationPath,
    /// The roots it inherits from (partitions, inheritance), nearest first: a rule on a root
    /// governs its children too.
    pub lineage: Vec<RelationPath>,
    /// Column names in attribute order, dropped columns left out.
    pub columns: Vec<Arc<str>>,
    /// Base relations read through it when it is a view, transitively; empty for tables.
    pub reads_through: Vec<Arc<Relation>>,
    /// A relation of the system catalogs (`pg_catalog`, `information_schema`).
    pub system: bool,
    /// A system relation whose rows hold other people's data or statements (statistics, activity,
    /// password hashes, large objects); never readable by a governed identity.
    pub sensitive_system: bool,
}

/// One use of one relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which relation.
    pub relation: Arc<Relation>,
    /// How it is used.
    pub mode: AccessMode,
}

/// How a relation is used by a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessMode {
    /// Rows are read.
    Read,
    /// New rows are inserted.
    Insert,
    /// Rows are updated (and read).
    Update,
    /// Rows are deleted (and read).
    Delete,
    /// The relation's definition is touched (DDL, LOCK, TRUNCATE, VACUUM …).
    Define,
}

/// A function called by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionUse {
    /// Schema as written, if written.
    pub schema: Option<Box<str>>,
    /// Name, case-folded.
    pub name: Box<str>,
    /// What is known of it.
    pub class: FunctionClass,
}

/// What a function can do beyond computing from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionClass {
    /// Computes from its arguments only.
    Pure,
    /// Reads definitions (names, types, sizes of nothing), never rows.
    ReadsCatalog,
    /// Built in, but runs statements from text, reads files, large objects, settings or activity,
    /// sleeps, locks, or administers.
    Dangerous,
    /// Not built in, or not known.
    User,
}

/// A change of a session setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// Name, lower case; `*` for RESET ALL and DISCARD ALL, empty when computed at run time.
    pub name: Box<str>,
    /// The new value where it is a constant; `None` for DEFAULT, RESET or a computed value.
    pub value: Option<Box<str>>,
    /// Whether it lasts only to the end of the transaction.
    pub local: bool,
}
