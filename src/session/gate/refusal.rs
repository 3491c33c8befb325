//! What a client is told of a refusal.

use crate::facts::{SyntaxError, Why};
use crate::name::RuleId;
use crate::policy::{Denial, DenyReason};

/// What a client is told of a refusal. An allow-list: fixed texts, names of rules and constructs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE.
    pub code: &'static str,
    /// One line; names the rule where there is one.
    pub message: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
    /// 1-based character position in the client's text, for syntax errors.
    pub position: Option<u32>,
    /// The rule that refused.
    pub rule: Option<RuleId>,
    /// Whose words these are.
    pub words: Words,
}

/// Whose words a refusal is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// The proxy's: the client gets the number of the request in the audit trail, too.
    Ours,
    /// The server's, which would refuse likewise: a client does not see who did.
    Servers,
    /// The grammar's, which is the server's, too. They quote the text.
    Grammar {
        /// DETAIL.
        detail: Option<&'static str>,
    },
}

pub(super) fn refusal_of(denial: Denial) -> Refusal {
    let Denial { reason, rule, message, hint } = denial;
    match reason {
        DenyReason::NotUnderstood(why) => not_understood(&why),
        DenyReason::Rule
        | DenyReason::NotAllowed
        | DenyReason::SideDoor
        | DenyReason::ClosedDoor
        | DenyReason::MissingAttribute => {
            let message = match &rule {
                Some(rule) => format!("rule `{rule}`: {message}"),
                None => message,
            };
            Refusal { code: "42501", message, hint, position: None, rule, words: Words::Ours }
        }
    }
}

pub(super) fn not_understood(why: &Why) -> Refusal {
    let (code, message, hint) = match why {
        Why::Syntax(error) => return as_the_server(error),
        Why::NotUtf8 => (
            NOT_UTF8,
            "statement is not valid UTF-8".to_owned(),
            Some("set client_encoding to UTF8"),
        ),
        Why::TooLong => (
            "54000",
            "statement is longer than this proxy analyses".to_owned(),
            Some("send the values as parameters, or raise limits.statement_bytes"),
        ),
        Why::TooComplex => (
            "54001",
            "statement is nested deeper or holds more tokens than this proxy analyses".to_owned(),
            Some("split the statement, or use an array parameter instead of a long list"),
        ),
        Why::Construct(name) => (NOT_UNDERSTOOD, format!("not understood: {name}"), None),
    };
    let hint = hint.map(str::to_owned);
    Refusal { code, message, hint, position: None, rule: None, words: Words::Ours }
}

/// A syntax error: the server's own grammar would say the same.
fn as_the_server(error: &SyntaxError) -> Refusal {
    let SyntaxError { message, code, detail, hint, position } = error;
    Refusal {
        code,
        message: message.clone(),
        hint: hint.map(str::to_owned),
        position: *position,
        rule: None,
        words: Words::Grammar { detail: *detail },
    }
}

pub(super) fn no_catalog(database: &str) -> Refusal {
    Refusal {
        code: "57P03",
        message: format!("the catalog of database `{database}` is not known yet"),
        hint: Some("retry; if it persists, look at /readyz of the proxy".to_owned()),
        position: None,
        rule: None,
        words: Words::Ours,
    }
}

pub(super) fn unknown_relation(name: &str) -> Refusal {
    Refusal {
        code: "42P01",
        message: format!("relation \"{name}\" does not exist"),
        hint: None,
        position: None,
        rule: None,
        words: Words::Ours,
    }
}

/// character_not_in_repertoire: the bytes are not those of the encoding.
pub(crate) const NOT_UTF8: &str = "22021";
/// feature_not_supported: by the analysis.
pub(super) const NOT_UNDERSTOOD: &str = "0A000";
