//! `portcullis sessions`: who is connected, and ending a session, through the admin port.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::{Outcome, complain};
use crate::admin::{SessionList, SessionReport};

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub(super) enum Sessions {
    /// List the sessions of a running proxy
    List(List),
    /// End sessions, as an administrator
    End(End),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    port: Port,
    /// Only this user's
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only this datasource's
    #[arg(long, value_name = "NAME")]
    datasource: Option<String>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct End {
    #[command(flatten)]
    port: Port,
    /// Ids, as `sessions list` and the audit trail show them
    #[arg(value_name = "UID", required = true)]
    uids: Vec<String>,
}

#[derive(Debug, Args)]
struct Port {
    /// Where the admin port listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    admin: SocketAddr,
    /// The file of `admin.token_file`, if the port wants a token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub(super) fn run(command: &Sessions, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    match command {
        Sessions::List(list) => show(list, out),
        Sessions::End(end) => end_all(end, out),
    }
}

fn show(list: &List, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let filters = [("user", &list.user), ("datasource", &list.datasource)];
    let path = filters
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?)))
        .enumerate()
        .fold("/sessions".to_owned(), |path, (at, (key, value))| {
            let mark = if at == 0 { '?' } else { '&' };
            format!("{path}{mark}{key}={}", percent_encoded(value))
        });
    let (status, body) = list.port.ask("GET", &path)?;
    if status != 200 {
        bail!("the admin port answered {status}: {}", one_line(&body));
    }
    if list.json {
        out.write_all(body.as_bytes())?;
        return Ok(Outcome::Fine);
    }
    let sessions: SessionList = serde_json::from_str(&body).context("read the answer")?;
    if io::stdout().is_terminal() {
        out.write_all(table(&sessions.sessions).as_bytes())?;
    } else {
        for row in rows(&sessions.sessions) {
            writeln!(out, "{}", row.join("\t"))?;
        }
    }
    Ok(Outcome::Fine)
}

fn end_all(end: &End, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::Fine;
    for uid in &end.uids {
        let (status, body) =
            end.port.ask("DELETE", &format!("/sessions/{}", percent_encoded(uid)))?;
        if status == 202 {
            writeln!(out, "{}: ending", shown(uid))?;
        } else {
            complain(format_args!("{}: {}", shown(uid), one_line(&body)));
            outcome = Outcome::Problems;
        }
    }
    Ok(outcome)
}

impl Port {
    /// One request; status and body.
    fn ask(&self, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
        let authorization = match &self.token_file {
            Some(file) => format!("Authorization: Bearer {}\r\n", token(file)?),
            None => String::new(),
        };
        let address = self.admin;
        let connected = TcpStream::connect_timeout(&address, PATIENCE);
        let mut stream = connected.with_context(|| {
            format!("connect to the admin port {address}; is the proxy running? (`--admin`)")
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // Version 1.0: the answer ends where the connection does, in one piece.
        let request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{authorization}\r\n");
        stream.write_all(request.as_bytes()).context("ask the admin port")?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).context("read the answer")?;
        let answer = String::from_utf8(answer).context("read the answer")?;
        let parts = answer.split_once("\r\n\r\n");
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        match (parts, status) {
            (Some((_, body)), Some(status)) => Ok((status, body.to_owned())),
            _ => bail!("{address} does not answer as an admin port does"),
        }
    }
}

fn token(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("read the token file {}", file.display()))?;
    let text = text.trim_ascii();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{} holds no token", file.display());
    }
    Ok(text.to_owned())
}

/// Columns, headed, padded.
fn table(sessions: &[SessionReport]) -> String {
    let heads = HEADS.map(str::to_owned);
    let rows: Vec<_> = std::iter::once(heads).chain(rows(sessions)).collect();
    let mut widths = [0; HEADS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let line = row.iter().zip(widths).fold(String::new(), |mut line, (cell, width)| {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
            line
        });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn rows(sessions: &[SessionReport]) -> impl Iterator<Item = [String; HEADS.len()]> {
    sessions.iter().map(|one| {
        [
            shown(&one.uid),
            shown(&one.datasource),
            shown(&one.user),
            shown(&one.database),
            shown(&one.application),
            shown(one.client.as_deref().unwrap_or("local")),
            shown(one.tls.as_deref().unwrap_or("-")),
            shown(one.method.as_deref().unwrap_or("-")),
            shown(&one.phase),
            format!("{:.1}", one.phase_s),
            format!("{:.0}", one.age_s),
            one.statements.to_string(),
        ]
    })
}

const HEADS: [&str; 12] = [
    "UID",
    "DATASOURCE",
    "USER",
    "DATABASE",
    "APPLICATION",
    "CLIENT",
    "TLS",
    "METHOD",
    "PHASE",
    "FOR_S",
    "AGE_S",
    "STATEMENTS",
];

/// A client chose some of these words: nothing of them may reach the terminal as a command.
fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let plain = !c.is_control();
            let escaped = (!plain).then(|| c.escape_default()).into_iter().flatten();
            plain.then_some(c).into_iter().chain(escaped)
        })
        .collect()
}

fn one_line(body: &str) -> String {
    shown(body.trim())
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// How long the admin port may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Some hundred thousand sessions.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_holds_no_terminal_commands() {
        let session = SessionReport {
            uid: "01A".into(),
            datasource: "shop".into(),
            user: "ann".into(),
            database: "shop".into(),
            application: "\x1b[2Jx\n\u{9b}y".into(),
            client: Some("10.0.0.7:5".into()),
            tls: None,
            method: Some("SCRAM-SHA-256".into()),
            phase: "busy".into(),
            phase_s: 0.25,
            age_s: 61.0,
            began_us: 0,
            statements: 12,
            bytes_from_client: 0,
            bytes_to_client: 0,
        };
        let text = table(&[session]);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("PHASE"), lines[1].find("busy"), "{text}");
    }

    #[test]
    fn names_are_encoded_for_a_url() {
        assert_eq!(percent_encoded("a b&c=é"), "a%20b%26c%3D%C3%A9");
    }
}
