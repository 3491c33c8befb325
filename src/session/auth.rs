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
use std::sync::Arc;

use ipnet::IpNet;

use crate::name::Glob;
use crate::policy::{Credential, Login, ScramVerifier};
use crate::session::{PeerCertificate, PeerCredentials, TlsPeer};

/// How the clients of one datasource prove who they are.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// The first entry that fits decides; without any, every login is relayed.
    pub entries: Vec<Entry>,
    /// What salts are made from for users that do not exist. Whoever knows it can tell which users
    /// exist.
    pub decoy: [u8; 32],
    /// Most rounds of key derivation that are done because a server asks for them.
    pub iterations_max: u32,
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
    /// Besides, the client must have given a certificate that was verified.
    pub needs_certificate: bool,
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
    /// How a client is connected that has this address, if any, and with whom TLS was made, if with
    /// any.
    pub fn of(tls: Option<&TlsPeer>, address: Option<IpAddr>) -> Self {
        match (tls, address) {
            (Some(_), _) => Self::Tls,
            (None, Some(_)) => Self::Plain,
            (None, None) => Self::Local,
        }
    }

    /// Whether a password may be sent over it in clear text.
    pub fn is_confidential(self) -> bool {
        match self {
            Self::Local | Self::Tls => true,
            Self::Plain => false,
        }
    }
}

/// How a client proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// The server asks and the client answers; the proxy passes it on.
    Relay,
    /// By SCRAM-SHA-256, against a verifier.
    Scram(Scram),
    /// By its certificate.
    Certificate(NameMap),
    /// By what the system says about the other end of a Unix socket.
    Peer(NameMap),
    /// By a password that the client sends in clear text and the shell judges.
    Password(PasswordKind),
    /// Not at all.
    Reject,
}

/// How SCRAM is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scram {
    /// Whether the exchange is bound to the TLS connection.
    pub binding: ChannelBinding,
    /// Where verifiers are.
    pub stored: StoredIn,
}

/// Whether an exchange is bound to the TLS connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Not offered.
    Disable,
    /// Offered over TLS.
    #[default]
    Prefer,
    /// Nothing else is offered.
    Require,
}

/// Where verifiers are. One place for all users of an entry: trying a second place for those that
/// are not in the first would tell, by its time, who is in the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredIn {
    /// In the identities file.
    Identities,
    /// On the server, which is asked with a credential of ours.
    Server,
}

/// Which users a name outside of the database may log in as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameMap {
    /// Without lines a name may log in as the user of the same name.
    pub lines: Arc<[MapLine]>,
}

/// One line of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapLine {
    /// The name outside, with its kind: `cn:`, `dns:`, `email:`, `uri:`; `name:`, `uid:`.
    pub name: Glob,
    /// Users of the database.
    pub users: Vec<Glob>,
}

impl NameMap {
    /// Whether one of these names may log in as the user.
    pub fn allows(&self, names: &[String], user: &str) -> bool {
        if self.lines.is_empty() {
            let mut bare = names.iter().filter_map(|name| name.split_once(':'));
            // A number is no name, whoever is called like it.
            return bare.any(|(kind, name)| kind != "uid" && name == user);
        }
        let fits = |line: &MapLine, name: &String| {
            line.name.matches(name) && line.users.iter().any(|glob| glob.matches(user))
        };
        names.iter().any(|name| self.lines.iter().any(|line| fits(line, name)))
    }
}

/// The names in a certificate, with their kinds.
pub fn certificate_names(certificate: &PeerCertificate) -> Vec<String> {
    let PeerCertificate { common_name, alternative_names, fingerprint: _ } = certificate;
    let common_name = common_name.iter().map(|name| format!("cn:{name}"));
    common_name.chain(alternative_names.iter().cloned()).collect()
}

/// The names of a process's owner, with their kinds.
pub fn local_names(credentials: &PeerCredentials) -> Vec<String> {
    let PeerCredentials { uid, user } = credentials;
    let name = user.iter().map(|name| format!("name:{name}"));
    name.chain([format!("uid:{uid}")]).collect()
}

/// What a password in clear text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordKind {
    /// The user's own, of which the identities file holds a verifier.
    Stored,
    /// A key of ours.
    ApiKey,
    /// A signed token of somebody we trust.
    Jwt,
}

/// The entry that decides on a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its place in the list; behind the last one if none fits.
    pub place: usize,
    /// How the client proves who it is.
    pub method: Method,
    /// Whether it must have given a certificate besides.
    pub needs_certificate: bool,
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
    /// The entry that decides on a login. A login that no entry fits is rejected.
    pub fn choose(&self, asked: &Asked<'_>) -> Chosen {
        let without =
            |method| Chosen { place: self.entries.len(), method, needs_certificate: false };
        if self.entries.is_empty() {
            return without(Method::Relay);
        }
        match self.entries.iter().enumerate().find(|(_, entry)| entry.fits(asked)) {
            None => without(Method::Reject),
            Some((place, entry)) => {
                let Entry { method, needs_certificate, .. } = entry;
                Chosen { place, method: method.clone(), needs_certificate: *needs_certificate }
            }
        }
    }
}

impl Entry {
    fn fits(&self, asked: &Asked<'_>) -> bool {
        let Self { users, databases, networks, transports, .. } = self;
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
    /// Whether who tries often enough may hit: what the system or a certificate says is no guess.
    pub fn is_guessed(&self) -> bool {
        match self {
            Self::Relay | Self::Scram(_) | Self::Password(_) => true,
            Self::Certificate(_) | Self::Peer(_) | Self::Reject => false,
        }
    }

    /// The word in the configuration, in the audit trail and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Scram(_) => "SCRAM-SHA-256",
            Self::Certificate(_) => "certificate",
            Self::Peer(_) => "peer",
            Self::Password(PasswordKind::Stored) => "password",
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

impl Attempt {
    /// Of this login, by the entry that decides on it.
    pub fn new(login: &Login, chosen: &Chosen) -> Self {
        Self {
            user: login.user.clone(),
            database: login.database.clone(),
            address: login.address,
            entry: chosen.place,
            method: chosen.method.clone(),
        }
    }
}

/// What is known of the connection to a server that may be asked to let us in.
#[derive(Clone, Debug)]
pub(super) struct ServerLeg {
    /// What TLS established.
    pub(super) tls: Option<TlsPeer>,
    /// Nothing on it leaves this machine.
    pub(super) local: bool,
}

impl ServerLeg {
    /// Whether who is at the other end is the server beyond doubt. A password in clear text, and
    /// what is as good as one, is worth stealing: TLS with just any certificate is what somebody in
    /// the middle has too.
    pub(super) fn is_trusted(&self) -> bool {
        // The certificate is there only if it was verified.
        self.local || self.tls.as_ref().is_some_and(|tls| tls.certificate.is_some())
    }
}

/// What a session asks the shell about a login. Answered with a [`Reply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// May this client try at all, and is something about its user stored elsewhere? Answered with
    /// `Admitted`, `Throttled` or `Unavailable`.
    Admit(Attempt),
    /// Is this password right? Answered with `Granted`, `Refused` or `Unavailable`.
    Password {
        /// Whose.
        attempt: Attempt,
        /// As the client sent it; not empty, without a zero byte.
        password: Secret,
    },
    /// With which account does a client that has proved who it is log in at the server? Answered
    /// with `Account` or `Unavailable`.
    Account(Attempt),
    /// Derive the key of a password, which takes long. Answered with `Derived`.
    Derive {
        /// The password.
        password: Secret,
        /// What the server says.
        salt: Vec<u8>,
        /// What the server says, within bounds.
        iterations: u32,
    },
}

/// The shell's answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Go on.
    Admitted {
        /// Fresh randomness, unpredictable.
        random: [u8; 18],
        /// What the server stores for the user, if it was to be asked.
        looked_up: LookedUp,
    },
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
    /// The account.
    Account(Account),
    /// The salted password.
    Derived([u8; 32]),
}

/// What the server stores for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookedUp {
    /// It was not to be asked.
    NotAsked,
    /// This verifier.
    Found(ScramVerifier),
    /// Nothing that may log in now; others' verifiers look like this.
    Missing {
        /// Rounds.
        iterations: u32,
        /// Length of the salt.
        salt_bytes: usize,
    },
}

/// An account on the server, for one login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub user: String,
    /// What proves that we may use it.
    pub proof: AccountProof,
    /// Fresh randomness, unpredictable.
    pub random: [u8; 18],
}

/// What proves to a server that we may use an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountProof {
    /// Nothing: the server trusts our address or our certificate.
    Nothing,
    /// A password.
    Password(Secret),
    /// The keys that the client gave away when it proved to us who it is, which hold where the
    /// same verifier is stored.
    ClientsKeys,
}

/// What a proof says about its bearer besides that it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// What decisions depend on: the key, or what the token asserts.
    pub credential: Credential,
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

/// Why an account of ours was of no use, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountFailure {
    /// The account.
    pub account: String,
    /// What happened; holds the server's own words.
    pub what: String,
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
        Entry {
            users,
            databases: vec![],
            networks: vec![],
            transports: vec![],
            method,
            needs_certificate: false,
        }
    }

    fn asked(user: &str) -> Asked<'_> {
        let address = Some("::ffff:10.1.2.3".parse().unwrap());
        Asked { user, database: "demo", address, transport: Transport::Plain }
    }

    #[test]
    fn the_first_entry_that_fits_decides_and_none_rejects() {
        assert_eq!(Authentication::default().choose(&asked("x")).method, Method::Relay);
        let jwt = entry("app_*", Method::Password(PasswordKind::Jwt));
        let entries = vec![jwt, entry("app_a", Method::Reject), entry("b", Method::Relay)];
        let list = Authentication { entries, ..Authentication::default() };
        let choose = |user| {
            let Chosen { place, method, needs_certificate: _ } = list.choose(&asked(user));
            (place, method.name())
        };
        assert_eq!(choose("app_a"), (0, "jwt"));
        assert_eq!(choose("b"), (2, "relay"));
        assert_eq!(choose("c"), (3, "reject"));
    }

    #[test]
    fn a_name_maps_to_the_users_its_lines_say() {
        let line = |name: &str, user: &str| MapLine {
            name: Glob::new(name),
            users: vec![Glob::new(user)],
        };
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let none = NameMap::default();
        assert!(none.allows(&names(&["dns:db.internal", "cn:app"]), "app"));
        assert!(!none.allows(&names(&["cn:app"]), "cn:app"));
        assert!(!none.allows(&names(&["cn:app"]), "App"));
        assert!(!none.allows(&names(&["name:root", "uid:1000"]), "1000"));
        assert!(!none.allows(&[], ""));
        let map = NameMap {
            lines: vec![line("dns:*.web.internal", "web_*"), line("uid:0", "postgres")].into(),
        };
        assert!(map.allows(&names(&["dns:a.web.internal"]), "web_ro"));
        assert!(!map.allows(&names(&["cn:a.web.internal"]), "web_ro"));
        assert!(!map.allows(&names(&["dns:a.web.internal"]), "postgres"));
        assert!(!map.allows(&names(&["cn:web_ro"]), "web_ro"), "lines replace the default");
        assert!(map.allows(&names(&["name:root", "uid:0"]), "postgres"));
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
