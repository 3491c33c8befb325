//! What is counted of commands to a key-value store.

use super::labels::{Command, ErrorClass, Source};
use crate::event::{CommandClass, StoreError};

impl Command {
    /// The label of a class of commands.
    pub(super) fn of_class(class: CommandClass) -> Self {
        match class {
            CommandClass::Read => Self::Read,
            CommandClass::Write => Self::Write,
            CommandClass::PubSub => Self::PubSub,
            CommandClass::Transaction => Self::Transaction,
            CommandClass::Script => Self::Routine,
            CommandClass::Connection => Self::Connection,
            CommandClass::Admin => Self::Admin,
            CommandClass::Other => Self::Other,
        }
    }
}

/// Who is to look at an error, and the class of SQLSTATE it corresponds to.
pub(super) fn placed(error: StoreError) -> (Source, ErrorClass) {
    match error.word() {
        "NOAUTH" | "NOPERM" | "WRONGPASS" | "DENIED" => (Source::Client, ErrorClass::Authorization),
        "WRONGTYPE" => (Source::Client, ErrorClass::Data),
        "EXECABORT" => (Source::Client, ErrorClass::TransactionState),
        "BUSYKEY" | "BUSYGROUP" | "NOGROUP" => (Source::Client, ErrorClass::ObjectState),
        "NOSCRIPT" => (Source::Client, ErrorClass::StatementName),
        "CROSSSLOT" | "NOPROTO" => (Source::Client, ErrorClass::NotSupported),
        "OOM" => (Source::Server, ErrorClass::Resources),
        "BUSY" | "LOADING" | "UNKILLABLE" | "INPROG" => (Source::Server, ErrorClass::Intervention),
        "CLUSTERDOWN" | "MASTERDOWN" | "MISCONF" | "NOREPLICAS" | "NOMASTERLINK"
        | "NOGOODSLAVE" | "IOERR" | "READONLY" => (Source::Server, ErrorClass::System),
        _ => (Source::Client, ErrorClass::Other),
    }
}
