//! What drivers ask when they connect, for those to whom the server's own answer is closed: enough
//! to go on, and nothing about the server's insides.

use bytes::{Bytes, BytesMut};

use super::pending::Expect;
use super::words;
use crate::analysis::redis::{Answered, Args};
use crate::wire::resp::Protocol;

/// How a command is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// With these bytes.
    Say(Bytes),
    /// The server is asked; its answer is reduced.
    Ask(Expect),
}

/// What is left of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduce {
    /// INFO: the lines drivers read.
    Info,
    /// ROLE: which it is, without addresses.
    Role,
}

/// The answer to a command that the server must not answer freely.
pub(super) fn answer(
    answered: Answered,
    (user, version): (&str, Protocol),
    args: &(impl Args + ?Sized),
) -> Answer {
    match answered {
        Answered::Info => Answer::Ask(Expect::Reduced(Reduce::Info)),
        Answered::Role => Answer::Ask(Expect::Reduced(Reduce::Role)),
        Answered::ConfigGet => {
            let listed = |name: &[u8]| SETTINGS.iter().any(|it| name.eq_ignore_ascii_case(it));
            if (2..args.len()).all(|at| args.get(at).is_some_and(listed)) {
                return Answer::Ask(Expect::Plain(1));
            }
            Answer::Say(Bytes::from_static(match version {
                Protocol::Resp2 => b"*0\r\n",
                Protocol::Resp3 => b"%0\r\n",
            }))
        }
        Answered::Cluster => {
            Answer::Say(words::error("ERR This instance has cluster support disabled"))
        }
        Answered::WhoAmI => {
            let mut out = BytesMut::new();
            words::bulk(&mut out, user.as_bytes());
            Answer::Say(out.freeze())
        }
    }
}

/// Appends what the client may see of a whole reply.
pub(super) fn reduce(what: Reduce, reply: &[u8], out: &mut BytesMut) {
    if reply.first() == Some(&b'-') {
        out.extend_from_slice(reply);
        return;
    }
    match what {
        Reduce::Info => info(reply, out),
        Reduce::Role => role(reply, out),
    }
}

/// Keeps headings and listed lines of a text, in a bulk string or a verbatim one.
fn info(reply: &[u8], out: &mut BytesMut) {
    let mut lines = reply.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let head = lines.next().unwrap_or_default();
    let mut text = BytesMut::new();
    if head.first() == Some(&b'=') {
        text.extend_from_slice(b"txt:");
    }
    for line in lines {
        let line = line.strip_prefix(b"txt:").unwrap_or(line);
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if line.starts_with(b"# ") || INFO_FIELDS.contains(&name) {
            text.extend_from_slice(line);
            text.extend_from_slice(b"\r\n");
        }
    }
    let kind = if head.first() == Some(&b'=') { '=' } else { '$' };
    out.extend_from_slice(format!("{kind}{}\r\n", text.len()).as_bytes());
    out.extend_from_slice(&text);
    out.extend_from_slice(b"\r\n");
}

/// The first element, and nothing where addresses and offsets would be.
fn role(reply: &[u8], out: &mut BytesMut) {
    let mut lines = reply.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    if lines.nth(2) == Some(b"master") {
        out.extend_from_slice(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
    } else {
        out.extend_from_slice(b"*5\r\n$5\r\nslave\r\n$0\r\n\r\n:0\r\n$9\r\nconnected\r\n:0\r\n");
    }
}

/// Settings that drivers and frameworks read.
const SETTINGS: &[&[u8]] = &[
    b"appendonly",
    b"databases",
    b"maxmemory",
    b"maxmemory-policy",
    b"notify-keyspace-events",
    b"proto-max-bulk-len",
    b"save",
    b"timeout",
];

/// Lines of INFO that drivers and frameworks read.
const INFO_FIELDS: &[&[u8]] = &[
    b"arch_bits",
    b"async_loading",
    b"cluster_enabled",
    b"loading",
    b"maxmemory_policy",
    b"multiplexing_api",
    b"redis_mode",
    b"redis_version",
    b"role",
    b"server_name",
    b"valkey_version",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(what: Reduce, reply: &[u8]) -> String {
        let mut out = BytesMut::new();
        reduce(what, reply, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn info_keeps_versions_and_loses_addresses() {
        let text = "# Server\r\nredis_version:7.0.15\r\nconfig_file:/etc/x\r\n\
                    # Replication\r\nrole:master\r\nslave0:ip=10.0.0.2,port=6379\r\n";
        let kept = "# Server\r\nredis_version:7.0.15\r\n# Replication\r\nrole:master\r\n";
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        assert_eq!(reduced(Reduce::Info, bulk(text).as_bytes()), bulk(kept));
        let verbatim = |text: &str| format!("={}\r\ntxt:{text}\r\n", text.len() + 4);
        assert_eq!(reduced(Reduce::Info, verbatim(text).as_bytes()), verbatim(kept));
        assert_eq!(reduced(Reduce::Info, b"-LOADING wait\r\n"), "-LOADING wait\r\n");
    }

    #[test]
    fn a_role_tells_no_address() {
        let master =
            b"*3\r\n$6\r\nmaster\r\n:77\r\n*1\r\n*3\r\n$8\r\n10.0.0.2\r\n$4\r\n6379\r\n$1\r\n0\r\n";
        assert_eq!(reduced(Reduce::Role, master), "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
        let replica = b"*5\r\n$5\r\nslave\r\n$8\r\n10.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:5\r\n";
        assert!(!reduced(Reduce::Role, replica).contains("10."));
    }
}
