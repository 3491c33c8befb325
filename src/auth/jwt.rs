//! Signed tokens (RFC 7515, 7519) as a proof of who somebody is.
//!
//! The order is fixed: form, header, signature, claims. Nothing of a token is believed before its
//! signature holds, but for the name of its key. What a header can say about *how* to check is
//! taken from it only where the configuration allows the same: the algorithm must be listed, keys
//! come from the configured set alone (`jwk`, `jku`, `x5c`, `x5u` are not looked at), and an
//! extension it calls critical (`crit`) refuses the token, for none is known here.
//!
//! Time is a value. Deliberately absent: encrypted tokens, nested tokens, revocation lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Number, Value};

use super::json;
use super::jwks::{Algorithm, KeySet};
use crate::policy::Asserted;

/// What a token must say to be good.
#[derive(Clone, Debug)]
pub struct Expectations {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud` names one of these.
    pub audience: Vec<String>,
    /// The only algorithms accepted.
    pub algorithms: BTreeSet<Algorithm>,
    /// How far clocks may be apart.
    pub leeway_s: u64,
    /// The claim that names the user.
    pub user_claim: ClaimPath,
    /// Whether that must be the user of the login.
    pub user: UserMatch,
    /// Attributes and the claims they come from.
    pub attributes: BTreeMap<Arc<str>, ClaimPath>,
    /// The claim that lists roles.
    pub roles_claim: Option<ClaimPath>,
}

/// How the token's user and the login's belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserMatch {
    /// They are the same.
    Same,
    /// The entry of the configuration lists accounts that any holder may use.
    Any,
}

/// Where a claim is: the names of members, from the outside in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(pub Vec<String>);

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who it was issued for, for the audit trail.
    pub subject: String,
    /// Roles and attributes.
    pub asserted: Asserted,
}

/// Why a token is refused. For the audit trail, never for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Longer than [`TOKEN_BYTES_MAX`].
    TooLong,
    /// Not three parts of base64url with JSON in the first two, or a claim of the wrong kind.
    Malformed,
    /// `typ` says it is another kind of token.
    Type,
    /// `crit` names something.
    Critical,
    /// `alg` is not on the list.
    Algorithm,
    /// No key of this id and algorithm is known. Fetching the keys anew may help.
    UnknownKey,
    /// It names no key, and several fit.
    WhichKey,
    /// The signature is not of that key.
    Signature,
    /// Somebody else issued it.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It does not say when it ends.
    NoExpiry,
    /// It has ended.
    Expired,
    /// It is not good yet.
    NotYet,
    /// It was issued in the future.
    FromFuture,
    /// It does not name a user.
    NoUser,
    /// It names another user.
    OtherUser,
    /// A claim that becomes an attribute or a role is no text that can be one.
    Claim,
}

/// Longest token in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest value of an attribute or name of a role, in bytes.
const VALUE_BYTES_MAX: usize = 1024;
/// Most roles a token may list.
const ROLES_MAX: usize = 256;
/// Most keys of one id that are tried.
const CANDIDATES_MAX: usize = 4;

/// Judges a token that somebody shows to log in as `user`.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(
    token: &[u8],
    keys: &KeySet,
    expected: &Expectations,
    user: &str,
    now_s: u64,
) -> Result<Holder, Refused> {
    let claims = signed_claims(token, keys, expected)?;
    check_addresses(&claims, expected)?;
    check_times(&claims, expected.leeway_s, now_s)?;
    let named = expected.user_claim.find(&claims).ok_or(Refused::NoUser)?;
    let named = named.as_str().filter(|name| !name.is_empty()).ok_or(Refused::NoUser)?;
    match expected.user {
        UserMatch::Same if named != user => return Err(Refused::OtherUser),
        UserMatch::Same | UserMatch::Any => {}
    }
    let subject = named.chars().take(SUBJECT_CHARS_MAX).collect();
    Ok(Holder { subject, asserted: asserted(&claims, expected)? })
}

/// Most characters of a subject that are recorded.
const SUBJECT_CHARS_MAX: usize = 256;

/// The claims of a token whose signature holds.
fn signed_claims(
    token: &[u8],
    keys: &KeySet,
    expected: &Expectations,
) -> Result<Map<String, Value>, Refused> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refused::TooLong);
    }
    let text = std::str::from_utf8(token).map_err(|_not_text| Refused::Malformed)?;
    let (message, signature) = text.rsplit_once('.').ok_or(Refused::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(Refused::Malformed)?;
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_not_base64| Refused::Malformed);
    let (header, payload, signature) = (bytes(header)?, bytes(payload)?, bytes(signature)?);
    let header = Header::parse(&header)?;
    if !expected.algorithms.contains(&header.algorithm) {
        return Err(Refused::Algorithm);
    }
    let id = header.key_id.as_deref();
    let mut candidates = keys.candidates(id, header.algorithm).take(CANDIDATES_MAX).peekable();
    if candidates.peek().is_none() {
        return Err(Refused::UnknownKey);
    }
    if id.is_none() && keys.candidates(id, header.algorithm).nth(1).is_some() {
        return Err(Refused::WhichKey);
    }
    if !candidates.any(|key| key.verifies(header.algorithm, message.as_bytes(), &signature)) {
        return Err(Refused::Signature);
    }
    json::strict_object(&payload).ok_or(Refused::Malformed)
}

/// What the header of a token says.
struct Header {
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl Header {
    fn parse(text: &[u8]) -> Result<Self, Refused> {
        let members = json::strict_object(text).ok_or(Refused::Malformed)?;
        if members.contains_key("crit") {
            return Err(Refused::Critical);
        }
        if let Some(kind) = members.get("typ") {
            let kind = kind.as_str().ok_or(Refused::Malformed)?.to_ascii_lowercase();
            let kind = kind.strip_prefix("application/").unwrap_or(&kind);
            // A logout token or a proof of possession is signed by the same key, and no login.
            if !matches!(kind, "jwt" | "at+jwt") {
                return Err(Refused::Type);
            }
        }
        let algorithm = members.get("alg").and_then(Value::as_str).ok_or(Refused::Malformed)?;
        let algorithm = Algorithm::parse(algorithm).ok_or(Refused::Algorithm)?;
        let key_id = match members.get("kid") {
            Some(id) => Some(id.as_str().ok_or(Refused::Malformed)?.to_owned()),
            None => None,
        };
        Ok(Self { algorithm, key_id })
    }
}

/// From whom and for whom.
fn check_addresses(claims: &Map<String, Value>, expected: &Expectations) -> Result<(), Refused> {
    if claims.get("iss").and_then(Value::as_str) != Some(&expected.issuer) {
        return Err(Refused::Issuer);
    }
    let ours = |name: &Value| {
        name.as_str().is_some_and(|name| expected.audience.iter().any(|our| our == name))
    };
    let named = match claims.get("aud") {
        Some(Value::Array(names)) => names.iter().any(ours),
        Some(one) => ours(one),
        None => false,
    };
    if named { Ok(()) } else { Err(Refused::Audience) }
}

fn check_times(claims: &Map<String, Value>, leeway_s: u64, now_s: u64) -> Result<(), Refused> {
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => seconds(number).map(Some).ok_or(Refused::Malformed),
        Some(_) => Err(Refused::Malformed),
    };
    let ends = time("exp")?.ok_or(Refused::NoExpiry)?;
    if now_s >= ends.saturating_add(leeway_s) {
        return Err(Refused::Expired);
    }
    let latest = now_s.saturating_add(leeway_s);
    if time("nbf")?.is_some_and(|begins| begins > latest) {
        return Err(Refused::NotYet);
    }
    if time("iat")?.is_some_and(|issued| issued > latest) {
        return Err(Refused::FromFuture);
    }
    Ok(())
}

/// Whole seconds of a time, which may have a fraction.
fn seconds(number: &Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let float = number.as_f64().filter(|float| (0.0..9.0e15).contains(float))?;
        format!("{:.0}", float.floor()).parse().ok()
    })
}

fn asserted(claims: &Map<String, Value>, expected: &Expectations) -> Result<Asserted, Refused> {
    let mut found = Asserted::default();
    for (name, path) in &expected.attributes {
        // Without the claim there is no attribute, and a filter that needs it refuses.
        if let Some(value) = path.find(claims) {
            found.attributes.insert(Arc::clone(name), single(value)?);
        }
    }
    match expected.roles_claim.as_ref().and_then(|path| path.find(claims)) {
        None | Some(Value::Null) => {}
        Some(Value::Array(roles)) if roles.len() > ROLES_MAX => return Err(Refused::Claim),
        Some(Value::Array(roles)) => {
            for role in roles {
                found.roles.insert(text(role.as_str().ok_or(Refused::Claim)?)?);
            }
        }
        Some(Value::String(list)) => {
            // As `scope` lists its values.
            for role in list.split(' ').filter(|role| !role.is_empty()).take(ROLES_MAX) {
                found.roles.insert(text(role)?);
            }
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => return Err(Refused::Claim),
    }
    Ok(found)
}

/// A claim as the value of an attribute.
fn single(value: &Value) -> Result<Arc<str>, Refused> {
    match value {
        Value::String(value) => text(value),
        Value::Number(number) if number.is_u64() || number.is_i64() => {
            Ok(number.to_string().into())
        }
        Value::Bool(value) => Ok(value.to_string().into()),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => Err(Refused::Claim),
    }
}

fn text(value: &str) -> Result<Arc<str>, Refused> {
    let fits =
        !value.is_empty() && value.len() <= VALUE_BYTES_MAX && !value.chars().any(char::is_control);
    if fits { Ok(value.into()) } else { Err(Refused::Claim) }
}

// === impl ClaimPath ===

impl ClaimPath {
    /// The claim, if the token has it.
    fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (first, rest) = self.0.split_first()?;
        rest.iter().try_fold(claims.get(first)?, |value, name| value.as_object()?.get(name))
    }
}

// === impl Refused ===

impl Refused {
    /// The word in the audit trail.
    pub fn word(self) -> &'static str {
        match self {
            Self::TooLong => "token too long",
            Self::Malformed => "malformed token",
            Self::Type => "not a token for a login",
            Self::Critical => "token with an unknown critical extension",
            Self::Algorithm => "token signed with an algorithm that is not allowed",
            Self::UnknownKey => "token signed with an unknown key",
            Self::WhichKey => "token names no key and several fit",
            Self::Signature => "token with a wrong signature",
            Self::Issuer => "token of another issuer",
            Self::Audience => "token for another audience",
            Self::NoExpiry => "token without an end",
            Self::Expired => "token expired",
            Self::NotYet => "token not good yet",
            Self::FromFuture => "token issued in the future",
            Self::NoUser => "token names no user",
            Self::OtherUser => "token of another user",
            Self::Claim => "token with a claim that cannot be an attribute or a role",
        }
    }
}

#[cfg(test)]
mod tests;
