//! Proving who a client is: which entry of the configuration decides, and what a session and the
//! shell tell each other about it.
//!
//! ```text
//! StartupMessage ─► Authentication::choose ─► Admit ──► throttled: refused
//!                                              │
//!                     relay ◄──────────────────┼─► challenge ─► proof ─► Grant
//!                       │                                                  │
//!                       ▼                                                  ▼
//!                connect, relay                          Credential ─► connect, log in ourselves
//! ```
//! The entry is chosen by what the client *said*, before anything is looked up about the user, so
//! that a user nobody knows is asked the same questions as one who exists. What needs a clock, a
//! file, a socket or state shared by sessions is asked of the shell, one [`Request`] at a time; the
//! exchanges themselves stay in the session, where they are fuzzed.
//!
//! To add a way to judge a password sent in clear text, add a [`PasswordKind`] and judge it in
//! `auth::Authenticator` of the shell: the session asks for the password (over TLS or a Unix socket
//! only), hands it on as [`Request::Password`], and goes by [`Reply::Granted`] or
//! [`Reply::Refused`].

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::Glob;
use crate::policy::Asserted;

/// How the clients of one datasource prove who they are.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// The first entry that fits decides; without any, every login is relayed.
    pub entries: Vec<Entry>,
}

/// One entry of `authentication:`. An empty list fits everything.
#[derive(Clone, Debug)]
pub struct Entry {
    /// User names asked for.
    pub users: Vec<Glob>,
    /// Databases asked for.
    pub databases: Vec<Glob>,
    /// Where the client is. A client of a Unix socket is in no network.
    pub networks: Vec<IpNet>,
    /// How the client is connected.
    pub transports: Vec<Transport>,
    /// What is asked of those it fits.
    pub method: Method,
}

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A Unix socket.
    Local,
    /// TCP without encryption.
    Plain,
    /// TCP with TLS.
    Tls,
}

impl Transport {
    /// Whether a password may be sent over it in clear text.
    pub fn is_confidential(self) -> bool {
        match self {
            Self::Local | Self::Tls => true,
            Self::Plain => false,
        }
    }
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The server asks and the client answers; the proxy passes it on.
    Relay,
    /// By a password that the client sends in clear text and the shell judges.
    Password(PasswordKind),
    /// Not at all.
    Reject,
}

/// What a password in clear text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordKind {
    /// A key of ours.
    ApiKey,
    /// A signed token of somebody we trust.
    Jwt,
}

/// The login a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// User.
    pub user: &'a str,
    /// Database.
    pub database: &'a str,
    /// Client address.
    pub address: Option<IpAddr>,
    /// How it is connected.
    pub transport: Transport,
}

impl Authentication {
    /// The entry that decides on a login, by its place in the list, and its method. A login that
    /// no entry fits is rejected.
    pub fn choose(&self, asked: &Asked<'_>) -> (usize, Method) {
        if self.entries.is_empty() {
            return (0, Method::Relay);
        }
        let found = self.entries.iter().enumerate().find(|(_, entry)| entry.fits(asked));
        found.map_or((self.entries.len(), Method::Reject), |(place, entry)| (place, entry.method))
    }
}

impl Entry {
    fn fits(&self, asked: &Asked<'_>) -> bool {
        let Self { users, databases, networks, transports, method: _ } = self;
        let one_of = |globs: &[Glob], name: &str| {
            globs.is_empty() || globs.iter().any(|glob| glob.matches(name))
        };
        // An IPv4 client of a dual-stack socket shows an IPv6 address that embeds its own.
        let address = asked.address.map(|address| address.to_canonical());
        one_of(users, asked.user)
            && one_of(databases, asked.database)
            && (networks.is_empty()
                || address.is_some_and(|ip| networks.iter().any(|net| net.contains(&ip))))
            && (transports.is_empty() || transports.contains(&asked.transport))
    }
}

impl Method {
    /// The word in the configuration, in the audit trail and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Password(PasswordKind::ApiKey) => "api-key",
            Self::Password(PasswordKind::Jwt) => "jwt",
            Self::Reject => "reject",
        }
    }
}

// === What session and shell tell each other ===

/// One login being tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// User asked for.
    pub user: String,
    /// Database asked for.
    pub database: String,
    /// Client address.
    pub address: Option<IpAddr>,
    /// Place of the entry that decides in [`Authentication::entries`]: the shell finds what else
    /// that entry says.
    pub entry: usize,
    /// Its method.
    pub method: Method,
}

/// What a session asks the shell about a login. Answered with a [`Reply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// May this client try at all? Answered with `Admitted` or `Throttled`.
    Admit(Attempt),
    /// Is this password right? Answered with `Granted`, `Refused` or `Unavailable`.
    Password {
        /// Whose.
        attempt: Attempt,
        /// As the client sent it; not empty, without a zero byte.
        password: Secret,
    },
}

/// The shell's answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Go on.
    Admitted,
    /// Too many failures lately.
    Throttled {
        /// When it is worth trying again.
        retry_after_s: u64,
    },
    /// The proof holds.
    Granted(Grant),
    /// The proof does not hold. The word is for the audit trail, never for the client.
    Refused(&'static str),
    /// It could not be found out. The word is for the audit trail.
    Unavailable(&'static str),
}

/// What a proof says about its bearer besides that it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Roles and attributes, added to those of the identities file.
    pub asserted: Asserted,
    /// Who the proof itself names (a key's prefix, a token's subject), for the audit trail.
    pub subject: Option<String>,
}

/// What became of an attempt, for the throttle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub attempt: Attempt,
    /// Whether the proof held.
    pub proof: Proof,
}

/// Whether a proof held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It did.
    Held,
    /// It did not: a failure that counts against whoever tried.
    Failed,
}

/// A password. Never shown, and wiped from memory when it is not needed any more.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(user: &str, method: Method) -> Entry {
        let users = vec![Glob::new(user)];
        Entry { users, databases: vec![], networks: vec![], transports: vec![], method }
    }

    fn asked(user: &str) -> Asked<'_> {
        let address = Some("::ffff:10.1.2.3".parse().unwrap());
        Asked { user, database: "demo", address, transport: Transport::Plain }
    }

    #[test]
    fn the_first_entry_that_fits_decides_and_none_rejects() {
        assert_eq!(Authentication::default().choose(&asked("x")), (0, Method::Relay));
        let jwt = Method::Password(PasswordKind::Jwt);
        let list = Authentication {
            entries: vec![
                entry("app_*", jwt),
                entry("app_a", Method::Reject),
                entry("b", Method::Relay),
            ],
        };
        assert_eq!(list.choose(&asked("app_a")), (0, jwt));
        assert_eq!(list.choose(&asked("b")), (2, Method::Relay));
        assert_eq!(list.choose(&asked("c")), (3, Method::Reject));
    }

    #[test]
    fn an_entry_fits_when_everything_in_it_does() {
        let whole = |change: fn(&mut Entry)| {
            let mut entry = entry("u", Method::Relay);
            change(&mut entry);
            entry
        };
        let here = |entry: &Entry| entry.fits(&asked("u"));
        assert!(here(&whole(|e| e.databases = vec![Glob::new("d*")])));
        assert!(!here(&whole(|e| e.databases = vec![Glob::new("other")])));
        assert!(here(&whole(|e| e.networks = vec!["10.0.0.0/8".parse().unwrap()])));
        assert!(!here(&whole(|e| e.networks = vec!["192.0.2.0/24".parse().unwrap()])));
        assert!(here(&whole(|e| e.transports = vec![Transport::Tls, Transport::Plain])));
        assert!(!here(&whole(|e| e.transports = vec![Transport::Local])));
        let local = Asked { address: None, transport: Transport::Local, ..asked("u") };
        assert!(!whole(|e| e.networks = vec!["0.0.0.0/0".parse().unwrap()]).fits(&local));
        assert!(whole(|e| e.transports = vec![Transport::Local]).fits(&local));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
