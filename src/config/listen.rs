//! `listen:` of a datasource: where its clients connect, and from where they may.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};

use super::source::{Spanned, one_or_more, string};
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::yaml::{MapReader, Node, Problems, Value};

/// One socket that clients of a datasource connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where it is.
    pub at: ListenAt,
    /// Networks clients may come from; empty for everywhere.
    pub allow: Vec<IpNet>,
    /// Networks of proxies that must announce each client with a PROXY protocol header.
    pub proxies: Vec<IpNet>,
    /// Whether another process may listen there as well.
    pub port: Port,
}

/// Whether a port is one process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// It is.
    Own,
    /// Another of the same user may listen there too: a successor, while this one drains.
    Shared,
}

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAt {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Its file.
        path: PathBuf,
        /// Permissions of the file: whoever may write to it may connect.
        mode: u32,
    },
}

impl ListenAt {
    /// Whether what is said over it cannot leave this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix { .. } => true,
        }
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => path.display().fmt(f),
        }
    }
}

// === as written ===

/// An entry as written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) at: Span,
    address: Option<Spanned<String>>,
    unix: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
    allow: Option<Vec<Spanned<String>>>,
    proxies: Option<Vec<Spanned<String>>>,
    reuse_port: Option<Spanned<bool>>,
}

/// A text, a mapping, or a list of these.
pub(super) fn read(node: &Node, problems: &mut Problems) -> Vec<Written> {
    match &node.value {
        Value::List(items) => items.iter().filter_map(|item| entry(item, problems)).collect(),
        Value::Scalar { .. } | Value::Null | Value::Map(_) => {
            entry(node, problems).into_iter().collect()
        }
    }
}

fn entry(node: &Node, problems: &mut Problems) -> Option<Written> {
    let at = node.span.clone();
    if !matches!(node.value, Value::Map(_)) {
        let address = Some(string(node, problems)?);
        return Some(Written {
            at,
            address,
            unix: None,
            mode: None,
            allow: None,
            proxies: None,
            reuse_port: None,
        });
    }
    let mut map = MapReader::new(node, problems)?;
    let address = map.optional("address").map(|n| string(n, problems));
    let unix = map.optional("unix").map(|n| string(n, problems));
    let mode = map.optional("mode").and_then(|n| string(n, problems));
    let allow = map.optional("allow").map(|n| one_or_more(n, problems));
    let proxies = map.optional(PROXIES).map(|n| one_or_more(n, problems));
    let reuse_port = map
        .optional("reuse_port")
        .and_then(|n| Some(Spanned { value: n.bool(problems)?, at: n.span.clone() }));
    map.finish(problems);
    if address.is_some() == unix.is_some() {
        problems.push(
            Diagnostic::error(&at, "an entry of `listen` has either `address` or `unix`")
                .with_help(
                    "such as `{address: \"127.0.0.1:6432\"}` or `{unix: /run/p/.s.PGSQL.6432}`",
                ),
        );
        return None;
    }
    Some(Written {
        at,
        address: address.flatten(),
        unix: unix.flatten(),
        mode,
        allow,
        proxies,
        reuse_port,
    })
}

// === checks ===

/// What is listened on already.
#[derive(Default)]
pub(super) struct Addresses(Vec<(ListenAt, Span)>);

impl Addresses {
    /// Notes one; two that cannot both be listened on are a problem.
    pub(super) fn take(&mut self, at: ListenAt, span: &Span, problems: &mut Problems) {
        let clash = self.0.iter().find(|(other, _)| clash(other, &at));
        if let Some((other, first)) = clash {
            problems.push(
                Diagnostic::error(span, format!("`{at}` is in use by `{other}`, at {first}"))
                    .with_help("every datasource and the admin port need an address of their own"),
            );
        }
        self.0.push((at, span.clone()));
    }
}

fn clash(one: &ListenAt, other: &ListenAt) -> bool {
    match (one, other) {
        (ListenAt::Tcp(one), ListenAt::Tcp(other)) => {
            let same_ip =
                one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() != 0 && one.port() == other.port() && same_ip
        }
        (ListenAt::Unix { path: one, .. }, ListenAt::Unix { path: other, .. }) => one == other,
        (ListenAt::Tcp(_), ListenAt::Unix { .. }) | (ListenAt::Unix { .. }, ListenAt::Tcp(_)) => {
            false
        }
    }
}

/// Checks one entry.
pub(super) fn check(
    written: Written,
    base: &Path,
    taken: &mut Addresses,
    problems: &mut Problems,
) -> Option<Listen> {
    let Written { at: span, address, unix, mode, allow, proxies, reuse_port } = written;
    let at = match (&address, &unix) {
        (Some(address), _) => {
            refuse_key(mode.as_ref(), "`mode` is for Unix sockets", problems);
            ListenAt::Tcp(tcp(address, problems)?)
        }
        (None, Some(path)) => {
            if allow.is_some() || proxies.is_some() {
                problems.push(
                    Diagnostic::error(&span, "a Unix socket has no addresses to admit or trust")
                        .with_help("its `mode` and the folder's permissions say who may connect"),
                );
            }
            if let Some(key) = &reuse_port {
                problems.push(
                    Diagnostic::error(&key.at, "`reuse_port` is for TCP")
                        .with_help("a Unix socket outlives the process if systemd opens it"),
                );
            }
            let path = unix_path(path, base, problems)?;
            ListenAt::Unix { path, mode: permissions(mode.as_ref(), problems)? }
        }
        (None, None) => return None,
    };
    taken.take(at.clone(), &span, problems);
    let mut networks_of = |key, written: Option<Vec<Spanned<String>>>| match written {
        Some(written) => networks(&written, (key, &span), problems),
        None => Some(Vec::new()),
    };
    let (allow, proxies) = (networks_of("allow", allow), networks_of(PROXIES, proxies));
    let port = match reuse_port {
        Some(Spanned { value: true, .. }) => Port::Shared,
        Some(Spanned { value: false, .. }) | None => Port::Own,
    };
    Some(Listen { at, allow: allow?, proxies: proxies?, port })
}

fn refuse_key(key: Option<&Spanned<String>>, message: &str, problems: &mut Problems) {
    if let Some(key) = key {
        problems.error(&key.at, message);
    }
}

/// An IP address with a port.
pub(super) fn tcp(written: &Spanned<String>, problems: &mut Problems) -> Option<SocketAddr> {
    let parsed = written.value.parse().ok();
    if parsed.is_none() {
        let message = format!("`{}` is no address to listen on", written.value);
        let help = if written.value.starts_with(['/', '@']) {
            "a Unix socket is written `{unix: /run/portcullis/.s.PGSQL.6432}`"
        } else {
            "write an IP address and a port, such as `127.0.0.1:6432` or `\"[::1]:6432\"`"
        };
        problems.push(Diagnostic::error(&written.at, message).with_help(help));
    }
    parsed
}

fn unix_path(written: &Spanned<String>, base: &Path, problems: &mut Problems) -> Option<PathBuf> {
    if written.value.starts_with('@') {
        problems.push(
            Diagnostic::error(&written.at, "abstract sockets are not served")
                .with_help("they have no permissions: every process could connect; name a file"),
        );
        return None;
    }
    let path = base.join(&written.value);
    if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
        let message = format!("`{}` is too long for a Unix socket", path.display());
        let help = format!("the system takes {UNIX_PATH_BYTES_MAX} bytes; choose a shorter folder");
        problems.push(Diagnostic::error(&written.at, message).with_help(help));
        return None;
    }
    if !path.parent().is_some_and(Path::is_dir) {
        let message = format!("the folder of `{}` does not exist", path.display());
        problems.push(Diagnostic::error(&written.at, message).with_help("create it first"));
    }
    Some(path)
}

fn permissions(written: Option<&Spanned<String>>, problems: &mut Problems) -> Option<u32> {
    let Some(written) = written else { return Some(UNIX_MODE) };
    let digits =
        written.value.len() <= 4 && written.value.bytes().all(|digit| digit.is_ascii_digit());
    let mode = u32::from_str_radix(&written.value, 8).ok().filter(|mode| digits && *mode <= 0o777);
    if mode.is_none() {
        let message = format!("`{}` is no mode of a file", written.value);
        problems.push(Diagnostic::error(&written.at, message).with_help(
            "octal digits such as `\"0660\"`: owner and group may connect; the default is `\"0660\"`",
        ));
    }
    mode
}

/// Networks in CIDR notation or single addresses; a list without any would admit nobody.
fn networks(
    written: &[Spanned<String>],
    (key, at): (&str, &Span),
    problems: &mut Problems,
) -> Option<Vec<IpNet>> {
    if written.is_empty() {
        let help = "remove the key, or name networks such as `10.0.0.0/8`";
        let message = format!("`{key}` names no network");
        problems.push(Diagnostic::error(at, message).with_help(help));
        return None;
    }
    let network = |one: &Spanned<String>| {
        let parsed = one.value.parse::<IpNet>();
        parsed.ok().or_else(|| one.value.parse::<IpAddr>().ok().map(IpNet::from)).map(canonical)
    };
    let mut parsed = Vec::new();
    for one in written {
        match network(one) {
            Some(network) => parsed.push(network),
            None => {
                let message = format!("`{}` is not a network such as `10.0.0.0/8`", one.value);
                problems.error(&one.at, message);
            }
        }
    }
    Some(parsed)
}

/// Clients are compared by their IPv4 address where they have one; so are networks.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    match v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()) {
        Some(v4) => IpNet::V4(v4),
        None => network,
    }
}

/// The key for trusted proxies.
const PROXIES: &str = "proxy_protocol_from";

/// `sun_path` holds 108 bytes, the last of them zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Owner and group may connect unless the file says otherwise.
const UNIX_MODE: u32 = 0o660;
