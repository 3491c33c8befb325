//! What the session itself refuses, whatever the rules say.

use crate::session::gate::{Refusal, Words};

fn refusal(code: &'static str, message: String, hint: &str) -> Refusal {
    Refusal {
        code,
        message,
        hint: Some(hint.to_owned()),
        position: None,
        rule: None,
        words: Words::Ours,
    }
}

/// What the server would say, had it been asked.
fn in_servers_words(code: &'static str, message: String) -> Refusal {
    Refusal { code, message, hint: None, position: None, rule: None, words: Words::Servers }
}

pub(super) fn malformed_message(tag: u8) -> Refusal {
    let message = format!("invalid message format of message type \"{}\"", tag.escape_ascii());
    refusal("08P01", message, "the client's driver is at fault")
}

pub(super) fn unknown_function(oid: u32) -> Refusal {
    let message = format!("function with OID {oid} does not exist");
    in_servers_words("42883", message)
}

pub(super) fn not_in_pipeline() -> Refusal {
    let message = "a function call inside a pipeline is not served".to_owned();
    refusal("0A000", message, "send Sync first")
}

pub(super) fn in_failed_transaction() -> Refusal {
    let message = "current transaction is aborted, commands ignored until end of transaction block";
    in_servers_words("25P02", message.to_owned())
}

pub(super) fn rules_changed() -> Refusal {
    let message = "the rules changed since the statement was prepared".to_owned();
    refusal("0A000", message, "prepare and bind it again")
}

pub(super) fn reading_in_doubt() -> Refusal {
    let message = "rules were extended to this login in the middle of a batch".to_owned();
    refusal("55000", message, "end the batch, wait for its replies, and try again")
}

pub(super) fn cursor_outdated() -> Refusal {
    let message = "the rules changed since a cursor of this session was opened".to_owned();
    refusal("34000", message, "end the transaction (of a cursor WITH HOLD: the session)")
}

pub(super) fn too_many_statements() -> Refusal {
    let message = "too many prepared statements or portals in this session".to_owned();
    refusal("54000", message, "close some, or raise limits.prepared_statements")
}

pub(super) fn unknown_statement(name: &[u8]) -> Refusal {
    let message = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name))
    };
    in_servers_words("26000", message)
}

pub(super) fn unknown_portal() -> Refusal {
    let message = "portal \"\" does not exist".to_owned();
    in_servers_words("34000", message)
}

pub(super) fn portal_of_bind(name: &str) -> Refusal {
    let message = format!("portal \"{name}\" was bound by message, not declared");
    refusal("0A000", message, "read it with Execute, or DECLARE a cursor")
}

pub(super) fn statement_too_long() -> Refusal {
    let message = "statement is longer than this proxy analyses".to_owned();
    refusal("54000", message, "send the values as parameters, or raise limits.statement_bytes")
}
