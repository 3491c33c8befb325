//! Errors and notices of statements that touch governed relations: only what cannot hold a value.
//!
//! Kept: severity, SQLSTATE, position (mapped back to the client's text). The message becomes the
//! standard text of the SQLSTATE; detail, hint, context, names and internal queries go.

use bytes::{Bytes, BytesMut};

use crate::session::gate::{Plan, Verdict};
use crate::wire::pg::error::{fields, put_field};
use crate::wire::pg::message::framed;

/// The ErrorResponse a client gets instead of the server's. `analysis`: it came before anything was
/// executed. (Execution raises the same codes with values in the text: a cast to `regclass` says
/// which name it did not find.)
pub(super) fn error(plan: Option<&Plan>, body: &[u8], analysis: bool) -> Bytes {
    rebuilt(b'E', plan, body, analysis)
}

/// The NoticeResponse a client gets instead; `None` if there is nothing to tell.
pub(super) fn notice(body: &[u8]) -> Option<Bytes> {
    fields(body).is_ok().then(|| rebuilt(b'N', None, body, false))
}

/// FATAL and PANIC end the session.
pub(super) fn ends_session(body: &[u8]) -> bool {
    let fields = fields(body).unwrap_or_default();
    fields.iter().any(|(letter, text)| *letter == b'V' && matches!(*text, b"FATAL" | b"PANIC"))
}

fn rebuilt(tag: u8, plan: Option<&Plan>, body: &[u8], analysis: bool) -> Bytes {
    // A body that cannot be read tells nothing.
    let fields = fields(body).unwrap_or_default();
    let find = |wanted: u8| fields.iter().find(|(letter, _)| *letter == wanted).map(|f| f.1);
    let code = find(b'C').filter(|code| code.len() == 5).unwrap_or(b"XX000");
    // Errors of parse analysis speak of the client's text and of definitions; no row was read.
    let analysis = analysis && code.starts_with(b"42") && plan.is_some_and(|plan| plan.read_only);
    let message = match find(b'M') {
        Some(message) if analysis => message,
        _ => standard_text(code).as_bytes(),
    };
    let severity = [b'S', b'V'].map(|letter| find(letter).unwrap_or(b"ERROR"));
    let position = find(b'P').and_then(|position| original_position(plan, position));
    let mut out = BytesMut::new();
    framed(&mut out, tag, |out| {
        put_field(out, b'S', severity[0]);
        put_field(out, b'V', severity[1]);
        put_field(out, b'C', code);
        put_field(out, b'M', message);
        if let Some(position) = position {
            put_field(out, b'P', position.to_string().as_bytes());
        }
        out.extend_from_slice(&[0]);
    });
    out.freeze()
}

fn original_position(plan: Option<&Plan>, position: &[u8]) -> Option<u32> {
    let position: u32 = std::str::from_utf8(position).ok()?.parse().ok()?;
    match &plan?.verdict {
        Verdict::Rewrite(rewritten) => rewritten.original_position(position),
        Verdict::Forward => Some(position),
        Verdict::Refuse(_) => None,
    }
}

/// The condition name of a SQLSTATE (PostgreSQL documentation, appendix "Error Codes"), of its
/// class where the code is rare.
fn standard_text(code: &[u8]) -> &'static str {
    let exact = TEXTS.iter().find(|(known, _)| known.as_bytes() == code);
    let class =
        || TEXTS.iter().find(|(known, _)| known.as_bytes() == code.get(..2).unwrap_or(code));
    exact.or_else(class).map_or("error", |(_, text)| text)
}

const TEXTS: &[(&str, &str)] = &[
    ("00000", "successful completion"),
    ("01", "warning"),
    ("02", "no data"),
    ("08", "connection exception"),
    ("0A", "feature not supported"),
    ("21000", "cardinality violation"),
    ("22001", "string data right truncation"),
    ("22003", "numeric value out of range"),
    ("22007", "invalid datetime format"),
    ("22008", "datetime field overflow"),
    ("22012", "division by zero"),
    ("22021", "character not in repertoire"),
    ("22023", "invalid parameter value"),
    ("2201B", "invalid regular expression"),
    ("2201E", "invalid argument for logarithm"),
    ("2201F", "invalid argument for power function"),
    ("22P02", "invalid text representation"),
    ("22P03", "invalid binary representation"),
    ("22", "data exception"),
    ("23502", "not null violation"),
    ("23503", "foreign key violation"),
    ("23505", "unique violation"),
    ("23514", "check violation"),
    ("23P01", "exclusion violation"),
    ("23", "integrity constraint violation"),
    ("24", "invalid cursor state"),
    ("25001", "active SQL transaction"),
    ("25006", "read only SQL transaction"),
    ("25P01", "no active SQL transaction"),
    ("25P02", "current transaction is aborted, commands ignored until end of transaction block"),
    ("25", "invalid transaction state"),
    ("26", "invalid SQL statement name"),
    ("28", "invalid authorization specification"),
    ("2B", "dependent privilege descriptors still exist"),
    ("2D", "invalid transaction termination"),
    ("34", "invalid cursor name"),
    ("38", "external routine exception"),
    ("3D", "invalid catalog name"),
    ("3F", "invalid schema name"),
    ("40001", "could not serialize access"),
    ("40P01", "deadlock detected"),
    ("40", "transaction rollback"),
    ("42501", "insufficient privilege"),
    ("42601", "syntax error"),
    ("42P01", "undefined table"),
    ("42703", "undefined column"),
    ("42883", "undefined function"),
    ("42", "syntax error or access rule violation"),
    ("44000", "new row violates a view's check option"),
    ("53", "insufficient resources"),
    ("54", "program limit exceeded"),
    ("55P03", "lock not available"),
    ("55", "object not in prerequisite state"),
    ("57014", "canceling statement due to user request or timeout"),
    ("57P01", "terminating connection due to administrator command"),
    ("57", "operator intervention"),
    ("58", "system error"),
    ("P0", "error raised by a function"),
    ("XX", "internal error"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::gate::{Refusal, Words};

    fn plan(read_only: bool) -> Plan {
        let refusal = Refusal {
            code: "",
            message: String::new(),
            hint: None,
            position: None,
            rule: None,
            words: Words::Ours,
        };
        Plan { read_only, verdict: Verdict::Forward, ..Plan::of_refusal(refusal, 0) }
    }

    fn body(fields: &[(char, &str)]) -> Vec<u8> {
        let mut body: Vec<u8> = fields
            .iter()
            .flat_map(|(letter, text)| format!("{letter}{text}\0").into_bytes())
            .collect();
        body.push(0);
        body
    }

    /// What is left of an error, its length field checked, as `letter text` pairs.
    fn left(plan: Option<&Plan>, fields_in: &[(char, &str)]) -> Vec<(char, String)> {
        let frame = error(plan, &body(fields_in), true);
        assert_eq!(frame[0], b'E');
        let found = fields(&frame[5..]).unwrap();
        found.iter().map(|(l, t)| (char::from(*l), String::from_utf8_lossy(t).into())).collect()
    }

    #[test]
    fn no_field_of_any_error_lets_a_value_through() {
        let canary = "4111111111111111";
        let codes =
            ["22P02", "23505", "23514", "22012", "P0001", "XX000", "42804", "ZZZZZ", "nonsense"];
        for code in codes {
            let mut all: Vec<(char, &str)> = vec![('S', "ERROR"), ('V', "ERROR"), ('C', code)];
            all.extend("MDHWqpstcdnFLRxP".chars().map(|letter| (letter, canary)));
            for plan in [None, Some(&plan(false))] {
                let left = left(plan, &all);
                let leaks =
                    left.iter().any(|(letter, text)| *letter != 'P' && text.contains(canary));
                assert!(!leaks, "{code}: {left:?}");
                assert!(left.iter().all(|(letter, _)| "SVCMP".contains(*letter)), "{left:?}");
            }
        }
    }

    #[test]
    fn messages_are_those_of_the_standard() {
        let cases = [
            ("22012", "division by zero"),
            ("22ZZZ", "data exception"),
            ("23505", "unique violation"),
            ("ZZZZZ", "error"),
            ("1", "internal error"),
        ];
        for (code, message) in cases {
            let left = left(Some(&plan(true)), &[('C', code), ('M', "secret")]);
            assert_eq!(left[3], ('M', message.to_owned()), "{code}");
        }
    }

    #[test]
    fn parse_analysis_may_speak_of_the_text_if_nothing_is_written() {
        let all =
            [('S', "ERROR"), ('C', "42703"), ('M', "column \"x\" does not exist"), ('P', "8")];
        let kept = left(Some(&plan(true)), &all);
        assert_eq!(kept[3..], [('M', all[2].1.to_owned()), ('P', "8".to_owned())]);
        let reduced = left(Some(&plan(false)), &all);
        assert_eq!(reduced[3], ('M', "undefined column".to_owned()));
        let executed = error(Some(&plan(true)), &body(&all), false);
        assert!(!executed.windows(8).any(|window| window == b"column \""));
        let nobodys = left(None, &all);
        assert_eq!(nobodys[3..], [('M', "undefined column".to_owned())]);
    }

    #[test]
    fn a_body_that_cannot_be_read_tells_nothing() {
        let frame = error(None, b"Msecret", true);
        assert!(!frame.windows(6).any(|window| window == b"secret"));
        assert!(notice(b"Msecret").is_none());
    }

    #[test]
    fn fatal_is_recognised_in_every_language() {
        assert!(ends_session(&body(&[('S', "FATAAL"), ('V', "FATAL")])));
        assert!(ends_session(&body(&[('V', "PANIC")])));
        assert!(!ends_session(&body(&[('S', "FATAL"), ('V', "ERROR")])));
        assert!(!ends_session(b"VFATAL"));
    }
}
