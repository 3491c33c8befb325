//! What an entry of `authentication:` with `method: jwt` says besides: whose tokens, signed with
//! what, and what their claims become.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::check::{resolve, warn_if_world_readable};
use super::source::{Spanned, duration, one_or_more, string};
use crate::auth::fetch::{Fetcher, Location};
use crate::auth::jwks::{Algorithm, KEY_SET_BYTES_MAX, KeySet, SECRET_BYTES_MIN};
use crate::auth::jwt::{ClaimPath, Expectations, UserMatch};
use crate::auth::key_source::{Bounds, KeySource, Origin, discovery_of};
use crate::auth::password::Issuer;
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::is_attribute_name;
use crate::policy::yaml::{MapReader, Node, Problems, Value};
use crate::tls::Authorities;

/// As written.
#[derive(Debug)]
pub(super) struct Tokens {
    at: Span,
    issuer: Option<Spanned<String>>,
    audience: Vec<Spanned<String>>,
    algorithms: Vec<Spanned<String>>,
    keys: Keys,
    user_claim: Option<ClaimPath>,
    user_must_match: Option<Spanned<bool>>,
    claims: BTreeMap<Arc<str>, ClaimPath>,
    roles_claim: Option<ClaimPath>,
    leeway: Option<Spanned<Duration>>,
}

/// Where keys are, as written.
#[derive(Debug)]
struct Keys {
    file: Option<Spanned<String>>,
    url: Option<Spanned<String>>,
    oidc: bool,
    secret: Option<Spanned<String>>,
    ca: Option<Spanned<String>>,
    cache: Option<Spanned<Duration>>,
    retry: Option<Spanned<Duration>>,
    keep: Option<Spanned<Duration>>,
}

/// Reads the keys of one entry that belong to tokens.
pub(super) fn read(map: &mut MapReader<'_>, problems: &mut Problems) -> Tokens {
    let at = map.span().clone();
    let texts = |node: Option<&Node>, problems: &mut Problems| {
        node.map(|node| one_or_more(node, problems)).unwrap_or_default()
    };
    let issuer = map.required("issuer", problems).and_then(|node| string(node, problems));
    let audience = texts(map.required("audience", problems), problems);
    let algorithms = texts(map.required("algorithms", problems), problems);
    let keys = Keys {
        file: map.optional("jwks_file").and_then(|node| string(node, problems)),
        url: map.optional("jwks_url").and_then(|node| string(node, problems)),
        oidc: map.optional("oidc").and_then(|node| node.bool(problems)).unwrap_or(false),
        secret: map.optional("secret_file").and_then(|node| string(node, problems)),
        ca: map.optional("ca").and_then(|node| string(node, problems)),
        cache: map.optional("cache").and_then(|node| duration(node, problems)),
        retry: map.optional("retry").and_then(|node| duration(node, problems)),
        keep: map.optional("keep").and_then(|node| duration(node, problems)),
    };
    Tokens {
        at,
        issuer,
        audience,
        algorithms,
        keys,
        user_claim: map.optional("user_claim").and_then(|node| path(node, problems)),
        user_must_match: map.optional("user_must_match").and_then(|node| {
            node.bool(problems).map(|value| Spanned { value, at: node.span.clone() })
        }),
        claims: map.optional("claims").map(|node| claims(node, problems)).unwrap_or_default(),
        roles_claim: map.optional("roles_claim").and_then(|node| path(node, problems)),
        leeway: map.optional("leeway").and_then(|node| duration(node, problems)),
    }
}

/// A claim's place: names with dots between, or a list where a name has dots itself.
fn path(node: &Node, problems: &mut Problems) -> Option<ClaimPath> {
    let names: Vec<String> = match &node.value {
        Value::List(_) => {
            node.strings(problems)?.iter().map(|(name, _)| (*name).to_owned()).collect()
        }
        Value::Null | Value::Scalar { .. } | Value::Map(_) => {
            node.string(problems)?.split('.').map(str::to_owned).collect()
        }
    };
    if names.is_empty() || names.iter().any(String::is_empty) {
        problems.push(
            Diagnostic::error(&node.span, "expected the name of a claim")
                .with_help("`tenant`, `org.tenant`, or `[\"https://example.com/tenant\"]`"),
        );
        return None;
    }
    Some(ClaimPath(names))
}

fn claims(node: &Node, problems: &mut Problems) -> BTreeMap<Arc<str>, ClaimPath> {
    let mut found = BTreeMap::new();
    for entry in node.entries(problems).unwrap_or_default() {
        if !is_attribute_name(&entry.key) {
            let message = format!("`{}` is not a name an attribute can have", entry.key);
            problems.error(&entry.key_span, message);
        } else if let Some(path) = path(&entry.value, problems) {
            found.insert((&*entry.key).into(), path);
        }
    }
    found
}

/// Checks them. `users_written` tells whether the entry lists users without wildcards.
pub(super) fn check(
    written: Tokens,
    users_written: bool,
    base: &Path,
    problems: &mut Problems,
) -> Option<Arc<Issuer>> {
    let Tokens {
        at,
        issuer,
        audience,
        algorithms,
        keys,
        user_claim,
        user_must_match,
        claims,
        roles_claim,
        leeway,
    } = written;
    let algorithms = self::algorithms(&algorithms, problems);
    let user = user(user_must_match, users_written, problems);
    let leeway = within(leeway, (Duration::ZERO, LEEWAY_MAX), LEEWAY, problems);
    let shared = algorithms.iter().filter(|algorithm| algorithm.is_shared_secret()).count();
    let kind = match shared {
        0 => Signed::ByKeyPair,
        all if all == algorithms.len() => Signed::BySecret,
        _ => {
            let message = "`algorithms` mixes shared secrets (HS…) with public keys";
            problems.push(
                Diagnostic::error(&at, message).with_help("use two entries, one for each issuer"),
            );
            return None;
        }
    };
    let issuer = issuer?;
    let source = keys.check(&issuer, (kind, &at), base, problems)?;
    if audience.is_empty() || algorithms.is_empty() {
        return None;
    }
    let expected = Expectations {
        issuer: issuer.value,
        audience: audience.into_iter().map(|one| one.value).collect(),
        algorithms,
        leeway_s: leeway.as_secs(),
        user_claim: user_claim.unwrap_or_else(|| ClaimPath(vec!["sub".to_owned()])),
        user,
        attributes: claims,
        roles_claim,
    };
    Some(Arc::new(Issuer { expected, source }))
}

/// How the tokens of an entry are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signed {
    ByKeyPair,
    BySecret,
}

fn algorithms(written: &[Spanned<String>], problems: &mut Problems) -> BTreeSet<Algorithm> {
    let mut found = BTreeSet::new();
    for Spanned { value, at } in written {
        match Algorithm::parse(value) {
            Some(algorithm) => {
                found.insert(algorithm);
            }
            None => {
                let names = Algorithm::ALL.map(|(name, _)| name);
                problems.push(
                    Diagnostic::error(at, format!("unknown algorithm `{value}`"))
                        .suggest(value, names)
                        .with_help(format!("one of: {}", names.join(", "))),
                );
            }
        }
    }
    found
}

fn user(
    must_match: Option<Spanned<bool>>,
    users_written: bool,
    problems: &mut Problems,
) -> UserMatch {
    match must_match {
        Some(Spanned { value: false, at }) => {
            if !users_written {
                let message = "without `users` every token would open every account";
                problems.push(
                    Diagnostic::error(&at, message)
                        .with_help("list the accounts that any holder may use, without wildcards"),
                );
            }
            UserMatch::Any
        }
        Some(Spanned { value: true, .. }) | None => UserMatch::Same,
    }
}

impl Keys {
    fn check(
        self,
        issuer: &Spanned<String>,
        (kind, at): (Signed, &Span),
        base: &Path,
        problems: &mut Problems,
    ) -> Option<KeySource> {
        let Self { file, url, oidc, secret, ca, cache, retry, keep } = self;
        let written = [file.is_some(), url.is_some(), oidc, secret.is_some()];
        if written.iter().filter(|one| **one).count() != 1 {
            let message = "tokens need one source of keys";
            problems.push(
                Diagnostic::error(at, message)
                    .with_help("one of `jwks_file`, `jwks_url`, `oidc: true`, `secret_file`"),
            );
            return None;
        }
        if secret.is_some() != (kind == Signed::BySecret) {
            let message = match kind {
                Signed::ByKeyPair => "`secret_file` needs algorithms that use it",
                Signed::BySecret => "a shared secret comes from `secret_file` only",
            };
            problems.push(
                Diagnostic::error(at, message)
                    .with_help("HS256, HS384, HS512 with `secret_file`; all others with key sets"),
            );
            return None;
        }
        if let Some(secret) = secret {
            return shared_secret(issuer, &secret, base, problems);
        }
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let second = Duration::from_secs(1);
        let bounds = Bounds {
            cache: within(cache, (second, hours(24)), CACHE, problems),
            retry: within(retry, (second, hours(1)), RETRY, problems),
            keep: within(keep, (second, hours(24 * 7)), KEEP, problems),
        };
        let origin = origin((file, url), issuer, (ca, base), problems)?;
        Some(KeySource::new(&issuer.value, origin, bounds))
    }
}

fn origin(
    (file, url): (Option<Spanned<String>>, Option<Spanned<String>>),
    issuer: &Spanned<String>,
    (ca, base): (Option<Spanned<String>>, &Path),
    problems: &mut Problems,
) -> Option<Origin> {
    if let Some(Spanned { value, at }) = file {
        if let Some(ca) = ca {
            problems.error(&ca.at, "`ca` has no effect on a file");
        }
        let path = resolve(base, &value);
        let text = std::fs::read(&path).map_err(|error| error.to_string());
        let keys = text.and_then(|text| KeySet::parse(&text).map_err(|bad| bad.to_string()));
        if let Err(error) = keys {
            problems.error(&at, format!("{}: {error}", path.display()));
            return None;
        }
        return Some(Origin::File(path));
    }
    let (location, at) = match &url {
        Some(url) => (Location::parse(&url.value), &url.at),
        None => (discovery_of(&issuer.value), &issuer.at),
    };
    let location = match location {
        Ok(location) => location,
        Err(message) => {
            problems.error(at, message);
            return None;
        }
    };
    let authorities = match &ca {
        Some(Spanned { value, .. }) if value != "system" => Authorities::File(resolve(base, value)),
        Some(_) | None => Authorities::System,
    };
    let fetcher = Fetcher { authorities, timeout: FETCH_TIMEOUT, bytes_max: KEY_SET_BYTES_MAX };
    if location.is_encrypted()
        && let Err(problem) = fetcher.tls()
    {
        let at = ca.as_ref().map_or(at, |ca| &ca.at);
        problems.push(
            Diagnostic::error(at, problem.message)
                .with_help("`ca: FILE` with the authority's certificate, or `ca: system`"),
        );
        return None;
    }
    Some(match url {
        Some(_) => Origin::Url(location, fetcher),
        None => Origin::Discovery(issuer.value.clone(), fetcher),
    })
}

fn shared_secret(
    issuer: &Spanned<String>,
    file: &Spanned<String>,
    base: &Path,
    problems: &mut Problems,
) -> Option<KeySource> {
    let path = resolve(base, &file.value);
    warn_if_world_readable(&path, &file.at, problems);
    let mut secret = match std::fs::read(&path) {
        Ok(secret) => secret,
        Err(error) => {
            problems.error(&file.at, format!("{}: {error}", path.display()));
            return None;
        }
    };
    // What an editor leaves at the end is no part of it.
    while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        secret.pop();
    }
    let keys = KeySet::of_secret(secret);
    if keys.is_none() {
        let message = format!("a shared secret of fewer than {SECRET_BYTES_MIN} bytes");
        problems.push(
            Diagnostic::error(&file.at, message).with_help("`openssl rand -hex 32` makes one"),
        );
    }
    Some(KeySource::fixed(&issuer.value, keys?))
}

/// A duration between bounds, or the default.
fn within(
    written: Option<Spanned<Duration>>,
    (least, most): (Duration, Duration),
    default: Duration,
    problems: &mut Problems,
) -> Duration {
    let Some(Spanned { value, at }) = written else { return default };
    if value < least || value > most {
        problems.error(&at, format!("must be from {least:?} to {most:?}"));
        return default;
    }
    value
}

/// How far the issuer's clock may be from ours.
const LEEWAY: Duration = Duration::from_secs(30);
/// More than this is no clock skew.
const LEEWAY_MAX: Duration = Duration::from_secs(300);
/// Keys are read again this often.
const CACHE: Duration = Duration::from_secs(300);
/// And not more often than this, whatever tokens ask for.
const RETRY: Duration = Duration::from_secs(30);
/// Keys of an issuer that cannot be reached are good for so long.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// For one document.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
