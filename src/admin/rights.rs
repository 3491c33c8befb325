//! Who may do what on the admin port.
//!
//! Health and metrics are everybody's who reaches the port. Listing and ending sessions and
//! reloading need a right: the token where one is configured, else a port that only this machine
//! reaches. Without a token a web page must not be able to use the browser of whoever administers:
//! requests that a page caused (`Origin`) or that were led here by a foreign name (`Host`) are
//! refused.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{TEXT, respond};

/// What gives the right to the verbs that need one.
#[derive(Clone, Debug)]
pub enum Rights {
    /// `Authorization: Bearer` with this token.
    Token(Token),
    /// Reaching the port: it listens for this machine only.
    Local,
    /// Nothing: others reach the port and no token is configured.
    Nobody,
}

/// A token, as its digest: the text itself is not kept.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Keeps what is needed to recognise the token.
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Compares digests, all of their bytes.
    fn is(&self, text: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        self.0.ct_eq(&given).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Rights {
    /// The rights of a port that listens there.
    pub fn of(listen: SocketAddr, token: Option<Token>) -> Self {
        match token {
            Some(token) => Self::Token(token),
            None if listen.ip().to_canonical().is_loopback() => Self::Local,
            None => Self::Nobody,
        }
    }

    /// The same where the port turns out to be: a socket that was handed over may be elsewhere
    /// than the configuration says.
    pub fn at(self, bound: SocketAddr) -> Self {
        match self {
            Self::Local => Self::of(bound, None),
            Self::Token(_) | Self::Nobody => self,
        }
    }

    /// What gave the right to this request, or the answer that refuses it.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<&'static str, Box<Response>> {
        match self {
            Self::Token(token) => match bearer(headers) {
                Some(given) if token.is(given) => Ok("token"),
                Some(_) | None => Err(Box::new(unauthorized())),
            },
            Self::Local if !headers.contains_key(header::ORIGIN) && names_this_machine(headers) => {
                Ok("local")
            }
            Self::Local => Err(Box::new(forbidden(
                "a web page or a foreign host name led here; ask for a loopback address, or set \
                 `admin.token_file`\n",
            ))),
            Self::Nobody => Err(Box::new(forbidden(
                "others reach this port, so this needs a token: set `admin.token_file`\n",
            ))),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether `Host` is a name that no DNS server can point here for somebody else.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    bare.is_some_and(|bare| {
        bare.eq_ignore_ascii_case("localhost")
            || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    })
}

fn unauthorized() -> Response {
    let text = b"this needs the token of `admin.token_file` in `Authorization: Bearer`\n".to_vec();
    let mut response = respond(StatusCode::UNAUTHORIZED, TEXT, text);
    let challenge = header::HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn forbidden(text: &str) -> Response {
    respond(StatusCode::FORBIDDEN, TEXT, text.as_bytes().to_vec())
}
