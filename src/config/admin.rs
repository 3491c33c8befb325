//! The `admin` section: where the admin port listens, and the token it asks for.

use std::net::SocketAddr;
use std::path::Path;

use super::check;
use super::listen::{self, Addresses, ListenAt};
use super::source::{Spanned, string};
use crate::admin::{Rights, Token};
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::yaml::{MapReader, Node, Problems};

/// The admin port.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What gives the right to sessions and reloads.
    pub rights: Rights,
}

/// As written.
#[derive(Debug)]
pub(super) struct Source {
    listen: Option<Spanned<String>>,
    token_file: Option<Spanned<String>>,
}

pub(super) fn read(node: &Node, problems: &mut Problems) -> Option<Source> {
    let mut map = MapReader::new(node, problems)?;
    let listen = map.optional("listen").and_then(|n| string(n, problems));
    let token_file = map.optional("token_file").and_then(|n| string(n, problems));
    map.finish(problems);
    Some(Source { listen, token_file })
}

pub(super) fn check(
    source: Option<Source>,
    (base, root): (&Path, &Span),
    taken: &mut Addresses,
    problems: &mut Problems,
) -> Option<Admin> {
    let (listen, token_file) = source.map_or((None, None), |one| (one.listen, one.token_file));
    let listen = match listen {
        Some(written) => listen::tcp(&written, problems)
            .inspect(|address| taken.take(ListenAt::Tcp(*address), &written.at, problems)),
        None => {
            let default = SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT));
            taken.take(ListenAt::Tcp(default), root, problems);
            Some(default)
        }
    };
    let token = match token_file {
        Some(file) => Some(token(&file, base, problems)?),
        None => None,
    };
    let listen = listen?;
    Some(Admin { listen, rights: Rights::of(listen, token) })
}

fn token(file: &Spanned<String>, base: &Path, problems: &mut Problems) -> Option<Token> {
    let path = check::resolve(base, &file.value);
    check::warn_if_world_readable(&path, &file.at, problems);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("token file `{}`: {error}", path.display());
            problems.push(
                Diagnostic::error(&file.at, message)
                    .with_help("it must be readable by this user and hold the token"),
            );
            return None;
        }
    };
    let text = text.trim_ascii();
    // What a header can carry.
    let carried = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.len() < TOKEN_BYTES_MIN || !carried {
        let message = format!("the token in `{}` is too short or not one word", path.display());
        problems.push(Diagnostic::error(&file.at, message).with_help(format!(
            "at least {TOKEN_BYTES_MIN} printable characters, as `openssl rand -hex 32` makes"
        )));
        return None;
    }
    Some(Token::new(text))
}

/// Where health and metrics are served unless the file says otherwise.
const ADMIN_PORT: u16 = 9464;

/// Shorter ones can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
