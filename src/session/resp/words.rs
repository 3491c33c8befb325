//! What clients and servers are told: errors, in the server's own words where it has some, and
//! commands of ours.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::analysis::redis::Args;
use crate::session::gate::{Refusal, Words};

/// An error reply. Line ends in the text become spaces: they would end it.
pub(super) fn error(text: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 3);
    out.put_u8(b'-');
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
    out.freeze()
}

/// The error for a refusal; `request` finds one of ours in the audit trail.
pub(super) fn refusal(refusal: &Refusal, request: &str) -> String {
    let Refusal { code, message, hint, .. } = refusal;
    match refusal.words {
        Words::Ours => {
            let hint = hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            format!("{code} {message}{hint} ({request})")
        }
        Words::Servers | Words::Grammar { .. } => format!("{code} {message}"),
    }
}

/// No such command, as the server says it (`processCommand`): a part of the arguments is quoted.
pub(super) fn unknown_command(args: &(impl Args + ?Sized)) -> String {
    let shown = |at: usize, most: usize| {
        let bytes = args.get(at).unwrap_or_default();
        printable(bytes.get(..most).unwrap_or(bytes))
    };
    let mut quoted = String::new();
    for at in 1..args.len() {
        if quoted.len() >= QUOTED_BYTES {
            break;
        }
        let piece = shown(at, QUOTED_BYTES - quoted.len());
        quoted.push_str(&format!("'{piece}' "));
    }
    let name = shown(0, QUOTED_BYTES);
    format!("ERR unknown command '{name}', with args beginning with: {quoted}")
}

/// No such subcommand.
pub(super) fn unknown_subcommand(args: &(impl Args + ?Sized), container: &str) -> String {
    let name = args.get(1).unwrap_or_default();
    let name = printable(name.get(..QUOTED_BYTES).unwrap_or(name));
    let container = container.to_ascii_uppercase();
    format!("ERR unknown subcommand '{name}'. Try {container} HELP.")
}

/// Too few arguments, or too many.
pub(super) fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// EXEC itself was refused: the transaction is given up (`rejectCommand`).
pub(super) fn exec_refused(text: &str) -> String {
    let text = text.strip_prefix("ERR ").unwrap_or(text);
    format!("EXECABORT Transaction discarded because of: {text}")
}

/// In a connection that is subscribed, in RESP2.
pub(super) fn not_while_subscribed(name: &str) -> Bytes {
    error(&format!(
        "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
         are allowed in this context"
    ))
}

/// What stands for an error that would send the client to another server: past the rules, and to an
/// address it need not know. Without its minus sign in front no error is one.
pub(super) fn redirection(line: &[u8]) -> Option<&'static str> {
    let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    match word {
        b"-MOVED" | b"-ASK" => Some(
            "-ERR the key is on another node of a cluster; the proxy does not follow there, \
             configure a datasource for each node or use a server that is no cluster",
        ),
        _ => None,
    }
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Appends a command.
pub(super) fn command(out: &mut BytesMut, args: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        bulk(out, arg);
    }
}

/// Appends a bulk string.
pub(super) fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a command that the client wrote as a line of text.
pub(super) fn from_line(out: &mut BytesMut, args: &(impl Args + ?Sized)) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for at in 0..args.len() {
        bulk(out, args.get(at).unwrap_or_default());
    }
}

/// How much of a command the server's errors quote.
const QUOTED_BYTES: usize = 128;

pub(super) const NO_AUTH: &str = "NOAUTH Authentication required.";
pub(super) const NO_AUTH_HELLO: &str = "NOAUTH HELLO must be called with the client already \
    authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to \
    authenticate the client and select the RESP protocol version at the same time";
pub(super) const WRONG_PASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
pub(super) const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// EXEC with an argument too many: a server gives up the transaction, and whoever watches it by
/// MONITOR sees EXEC.
pub(super) const ABORT: &[u8] = b"*2\r\n$4\r\nexec\r\n$5\r\nabort\r\n";
/// How a server begins to say that it has.
pub(super) const ABORTED: &[u8] = b"-EXECABORT ";
pub(super) const EXEC_ABORT: &str = "EXECABORT Transaction discarded because of previous errors.";
