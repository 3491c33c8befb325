//! `portcullis auth scram-verifier`.

use std::io::{self, BufRead as _, IsTerminal as _, Write};

use anyhow::Context as _;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::{Outcome, ScramVerifier};
use crate::auth::random;
use crate::session::auth::Secret;
use crate::session::pg::scram;

/// Reads a password from standard input, without showing it, and prints what is stored for it.
pub(super) fn scram_verifier(
    command: &ScramVerifier,
    out: &mut dyn Write,
) -> anyhow::Result<Outcome> {
    let password = read_password().context("read the password from standard input")?;
    anyhow::ensure!(!password.bytes().is_empty(), "the password is empty");
    let salt: [u8; 16] = random().map_err(|_reply| anyhow::anyhow!("no randomness"))?;
    let verifier = scram::verifier(password.bytes(), salt.to_vec(), command.iterations);
    writeln!(out, "{verifier}")?;
    Ok(Outcome::Fine)
}

fn read_password() -> anyhow::Result<Secret> {
    let input = io::stdin();
    if !input.is_terminal() {
        return read_line();
    }
    write!(io::stderr(), "password: ")?;
    let before = tcgetattr(&input)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&input, SetArg::TCSAFLUSH, &silent)?;
    let read = read_line();
    tcsetattr(&input, SetArg::TCSAFLUSH, &before)?;
    writeln!(io::stderr())?;
    read
}

fn read_line() -> anyhow::Result<Secret> {
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line)?;
    while line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        line.pop();
    }
    Ok(Secret::new(line))
}
