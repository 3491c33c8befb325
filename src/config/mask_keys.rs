//! `mask_keys:`, the secrets that keyed masks are made with.
//!
//! A key is in a file or in the environment, as passwords are, and is read at start. Each has a
//! version, which its tokens carry; one of them is current and makes all tokens. The others are
//! read and checked as well, so that going back to one is a change of one word.

use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::check::{resolve, warn_if_world_readable};
use super::source::{Spanned, string};
use crate::mask::{MaskKey, Masker};
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::yaml::{MapReader, Node, Problems};

/// As written.
#[derive(Debug, Default)]
pub(super) struct Written {
    keys: Vec<WrittenKey>,
}

#[derive(Debug)]
struct WrittenKey {
    at: Span,
    version: Option<Spanned<u64>>,
    file: Option<Spanned<String>>,
    env: Option<Spanned<String>>,
    current: bool,
}

/// Reads the list.
pub(super) fn read(node: &Node, problems: &mut Problems) -> Written {
    let items = node.items(problems).unwrap_or_default();
    if items.is_empty() {
        problems.push(
            Diagnostic::error(&node.span, "the list is empty, so there is no key")
                .with_help("write `{version: 1, file: FILE}`, or leave `mask_keys` out"),
        );
    }
    let keys = items.iter().filter_map(|item| {
        let mut map = MapReader::new(item, problems)?;
        if let Some(entry) = map.entry("key") {
            problems.push(
                Diagnostic::error(&entry.key_span, "a key is not written into this file")
                    .with_help("`file: FILE` or `env: VARIABLE`"),
            );
        }
        let version = map.required("version", problems);
        let version =
            version.and_then(|n| Some(Spanned { value: n.u64(problems)?, at: n.span.clone() }));
        let file = map.optional("file").and_then(|n| string(n, problems));
        let env = map.optional("env").and_then(|n| string(n, problems));
        let current = map.optional("current").and_then(|n| n.bool(problems)).unwrap_or(false);
        map.finish(problems);
        Some(WrittenKey { at: item.span.clone(), version, file, env, current })
    });
    Written { keys: keys.collect() }
}

/// A masker with the current key; one without any if none is written.
pub(super) fn check(written: Written, base: &Path, problems: &mut Problems) -> Arc<Masker> {
    let Written { keys } = written;
    one_is_current(&keys, problems);
    let alone = keys.len() == 1;
    let mut masker = Masker::default();
    let mut known: Vec<(u16, Zeroizing<Vec<u8>>, Span)> = Vec::new();
    for written in keys {
        let (current, at) = (written.current || alone, written.at.clone());
        let Some((version, secret)) = load(written, base, problems) else { continue };
        if let Some((_, _, first)) = known.iter().find(|(known, _, _)| *known == version) {
            problems.error(&at, format!("version {version} is there already, at {first}"));
        } else if let Some((same, _, _)) = known.iter().find(|(_, known, _)| *known == secret) {
            problems.push(
                Diagnostic::error(&at, format!("this is the key of version {same} once more"))
                    .with_help("each version has a secret of its own"),
            );
        }
        match MaskKey::new(version, secret.clone()) {
            Ok(key) if current => masker = Masker::with_key(&key),
            Ok(_) => {}
            Err(message) => problems.push(
                Diagnostic::error(&at, message)
                    .with_help("`openssl rand -base64 48 > FILE`; line ends do not count"),
            ),
        }
        known.push((version, secret, at));
    }
    Arc::new(masker)
}

/// Which of several is current is written, not guessed from their order.
fn one_is_current(keys: &[WrittenKey], problems: &mut Problems) {
    let mut current = keys.iter().filter(|key| key.current);
    match (keys, current.next(), current.next()) {
        ([] | [_], _, _) | (_, Some(_), None) => {}
        (_, Some(_), Some(second)) => {
            problems.error(&second.at, "another key is current already");
        }
        ([first, ..], None, _) => problems.push(
            Diagnostic::error(&first.at, "none of these keys is the one that makes tokens")
                .with_help("write `current: true` beside it"),
        ),
    }
}

/// Its version and its bytes.
fn load(
    written: WrittenKey,
    base: &Path,
    problems: &mut Problems,
) -> Option<(u16, Zeroizing<Vec<u8>>)> {
    let WrittenKey { at, version, file, env, current: _ } = written;
    let version = version?;
    let number = u16::try_from(version.value).ok().filter(|number| *number > 0);
    if number.is_none() {
        problems.error(&version.at, "versions are numbers from 1 to 65535");
    }
    let secret = match (file, env) {
        (Some(file), None) => {
            let path = resolve(base, &file.value);
            warn_if_world_readable(&path, &file.at, problems);
            match std::fs::read(&path) {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    let message = format!("key file `{}`: {error}", path.display());
                    problems.push(
                        Diagnostic::error(&file.at, message)
                            .with_help("it must be readable by this user and hold the key"),
                    );
                    None
                }
            }
        }
        (None, Some(env)) => match std::env::var(&env.value) {
            Ok(text) => Some(text.into_bytes()),
            Err(_) => {
                let message = format!("environment variable `{}` is not set", env.value);
                problems.error(&env.at, message);
                None
            }
        },
        (Some(_), Some(_)) | (None, None) => {
            problems
                .push(Diagnostic::error(&at, "say where the key is").with_help("`file` or `env`"));
            None
        }
    };
    let mut secret = Zeroizing::new(secret?);
    // Editors end a file with a newline; whoever copies the text elsewhere leaves it out.
    while secret.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        secret.pop();
    }
    Some((number?, secret))
}
