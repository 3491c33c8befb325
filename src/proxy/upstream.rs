//! Reaching the database: TCP, then TLS as the configuration asks for it.
//!
//! TLS belongs to the dialing, not to the session: what a session writes goes to a server that was
//! verified already. PostgreSQL is asked for it first; Redis hears a handshake at once, so there it
//! is TLS or not, and nothing to prefer. The reply to an SSLRequest is one byte, and one byte is
//! read: what a man in the middle puts behind it is taken for a part of the handshake and fails
//! there. A reply other than yes or no is not shown to anybody, because nobody knows yet who says it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::clock::Clock;
use super::hosts::Hosts;
use super::leg::{LegStream, Stream};
use super::listener::tune;
use super::replayed::Replayed;
use super::sentinel::Sentinels;
use crate::config::{ServerAddress, TcpLimits};
use crate::session::TlsPeer;
use crate::tls::{Connector, UpstreamTls};

/// Opens connections to a datasource's server.
///
/// A trait because tests give the driver a server that lives in memory.
pub(crate) trait Dial: Send + Sync + 'static {
    /// What an open connection is.
    type Stream: Stream;

    /// Connects, within the datasource's connect timeout.
    fn dial(&self) -> impl Future<Output = io::Result<Dialed<Self::Stream>>> + Send;

    /// Connects once more to a server that was dialed before, and to no other.
    fn dial_again(
        &self,
        place: Place,
    ) -> impl Future<Output = io::Result<Dialed<Self::Stream>>> + Send;
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Dialed<T> {
    /// Ready for the session's first bytes.
    pub(crate) stream: T,
    /// What TLS established; `None` in plain text.
    pub(crate) tls: Option<TlsPeer>,
    /// Which server it is.
    pub(crate) place: Place,
}

/// One server among those a datasource's name may lead to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its number in the list.
    server: usize,
    /// The address its name had.
    address: Option<SocketAddr>,
}

impl Place {
    /// Whether nothing leaves this machine on the way there: by the address that was reached, not
    /// by what its name looks like.
    pub(super) fn is_local(self) -> bool {
        self.address.is_some_and(|address| address.ip().to_canonical().is_loopback())
    }
}

/// Servers reached by TCP.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Which servers, and what is known of them.
    pub(crate) hosts: Hosts,
    /// How long a connect to one server may take, name resolution and TLS handshake included.
    pub(crate) connect_timeout: Duration,
    /// How long a try that was given up must have lasted to count against its server.
    pub(crate) patience: Duration,
    /// When the server counts as gone.
    pub(crate) tcp: TcpLimits,
    /// Whether and how TLS is spoken.
    pub(crate) tls: ServerTls,
    /// For remembering failures.
    pub(crate) clock: Clock,
    /// Who knows the server, if it must be asked for.
    pub(crate) sentinels: Option<Sentinels>,
}

/// TLS to the server, with the certificates in force.
#[derive(Clone, Debug)]
pub(crate) enum ServerTls {
    /// None.
    Plain,
    /// Unless the server says it has none.
    Preferred(Arc<ArcSwap<Connector>>),
    /// In any case; the server is asked for it.
    Required(Arc<ArcSwap<Connector>>),
    /// In any case, with nothing before it.
    AtOnce(Arc<ArcSwap<Connector>>),
}

impl ServerTls {
    /// As configured.
    pub(crate) fn of(configured: &UpstreamTls) -> Self {
        match configured {
            UpstreamTls::Plain => Self::Plain,
            UpstreamTls::Preferred(watched) => Self::Preferred(watched.current()),
            UpstreamTls::Required(watched) => Self::Required(watched.current()),
            UpstreamTls::AtOnce(watched) => Self::AtOnce(watched.current()),
        }
    }
}

impl Dial for Upstream {
    type Stream = LegStream<TcpStream>;

    async fn dial(&self) -> io::Result<Dialed<Self::Stream>> {
        if let Some(sentinels) = &self.sentinels {
            return self.dial_primary(sentinels).await;
        }
        let mut failures = Vec::new();
        for server in self.candidates().await {
            match self.dial_server(server).await {
                Ok(dialed) => return Ok(dialed),
                Err(error) => failures.push((server, error)),
            }
        }
        // What was known may be out of date: a server that took over is found by asking anew.
        if !failures.is_empty() && self.hosts.has_roles() {
            for server in self.candidates().await {
                let tried = failures.iter().any(|(failed, _)| *failed == server);
                if !tried && let Ok(dialed) = self.dial_server(server).await {
                    return Ok(dialed);
                }
            }
        }
        Err(self.hosts.worded(&failures))
    }

    async fn dial_again(&self, place: Place) -> io::Result<Dialed<Self::Stream>> {
        self.within(self.connect(place)).await
    }
}

/// Remembers what came of connecting, also when nobody waited for the end of it.
struct Attempt<'a> {
    upstream: &'a Upstream,
    server: usize,
    began_us: u64,
    outcome: Outcome,
}

/// How far connecting came.
#[derive(Clone, Copy)]
enum Outcome {
    Reached,
    Failed,
    /// Given up by whoever asked, for instance because its client's time was over.
    GivenUp,
}

impl Outcome {
    /// Whether the server was reached, as far as that is known after trying for so long.
    fn reached(self, tried: Duration, patience: Duration) -> Option<bool> {
        match self {
            Self::Reached => Some(true),
            Self::Failed => Some(false),
            // A client decides when it asks: one that comes at the end of its time must not make
            // a server look dead that had no time to answer.
            Self::GivenUp if tried < patience => None,
            Self::GivenUp => Some(false),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let Upstream { hosts, clock, patience, .. } = self.upstream;
        let now_us = clock.now().mono_us;
        let tried = Duration::from_micros(now_us.saturating_sub(self.began_us));
        match self.outcome.reached(tried, *patience) {
            Some(true) => hosts.reached(self.server),
            Some(false) => hosts.failed(self.server, now_us),
            None => {}
        }
    }
}

impl Upstream {
    /// Connects to one server of the list, whatever its role, and remembers what came of it.
    pub(crate) async fn dial_server(
        &self,
        server: usize,
    ) -> io::Result<Dialed<LegStream<TcpStream>>> {
        let began_us = self.clock.now().mono_us;
        let mut attempt = Attempt { upstream: self, server, began_us, outcome: Outcome::GivenUp };
        let dialed = self.within(self.connect(Place { server, address: None })).await;
        attempt.outcome = if dialed.is_ok() { Outcome::Reached } else { Outcome::Failed };
        dialed
    }

    /// The servers to try, in order. Waits for a suitable one to be known, not longer than for a
    /// connect.
    async fn candidates(&self) -> Vec<usize> {
        let now_us = self.clock.now().mono_us;
        let known = self.hosts.in_order(now_us);
        if !known.is_empty() {
            return known;
        }
        let found = tokio::time::timeout(self.connect_timeout, self.hosts.found(now_us)).await;
        found.unwrap_or_default()
    }

    /// Connects to the server that Sentinels name; asks once more where that was out of date.
    async fn dial_primary(
        &self,
        sentinels: &Sentinels,
    ) -> io::Result<Dialed<LegStream<TcpStream>>> {
        let mut told = sentinels.primary(self).await?;
        let mut reached = self.within(self.connect_to(&told, None)).await;
        if reached.is_err() {
            sentinels.forget();
            let now = sentinels.primary(self).await?;
            if now != told {
                reached = self.within(self.connect_to(&now, None)).await;
                told = now;
            }
        }
        reached.map_err(|error| io::Error::new(error.kind(), format!("primary {told}: {error}")))
    }

    pub(super) async fn within<T>(
        &self,
        connect: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        tokio::time::timeout(self.connect_timeout, connect)
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn connect(&self, place: Place) -> io::Result<Dialed<LegStream<TcpStream>>> {
        let Some(server) = self.hosts.address(place.server) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        let Dialed { stream, tls, place: Place { address, .. } } =
            self.connect_to(server, place.address).await?;
        Ok(Dialed { stream, tls, place: Place { server: place.server, address } })
    }

    /// Connects to a server, by the address its name had before if that is given.
    pub(super) async fn connect_to(
        &self,
        ServerAddress { host, port }: &ServerAddress,
        known: Option<SocketAddr>,
    ) -> io::Result<Dialed<LegStream<TcpStream>>> {
        let tcp = match known {
            Some(address) => TcpStream::connect(address).await?,
            None => TcpStream::connect((host.as_str(), *port)).await?,
        };
        tune(&tcp, self.tcp);
        let place = Place { server: 0, address: Some(tcp.peer_addr()?) };
        let (stream, tls) = match &self.tls {
            ServerTls::Plain => (LegStream::Plain(tcp), None),
            ServerTls::Preferred(connector) => match ask(tcp).await? {
                Asked::Yes(tcp) => handshake(connector, host, tcp).await?,
                Asked::No(tcp) => (LegStream::Plain(tcp), None),
            },
            ServerTls::Required(connector) => match ask(tcp).await? {
                Asked::Yes(tcp) => handshake(connector, host, tcp).await?,
                Asked::No(_) => return Err(io::Error::other(NO_TLS)),
            },
            ServerTls::AtOnce(connector) => handshake(connector, host, tcp).await?,
        };
        Ok(Dialed { stream, tls, place })
    }
}

async fn handshake(
    connector: &ArcSwap<Connector>,
    host: &str,
    tcp: TcpStream,
) -> io::Result<(LegStream<TcpStream>, Option<TlsPeer>)> {
    let connector = connector.load_full();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::other(format!("`{}`: {error}", host)))?;
    let tcp = Replayed::fresh(tcp);
    let handshake = TlsConnector::from(Arc::clone(&connector.config)).connect(name, tcp);
    let stream = Box::pin(handshake)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("TLS handshake: {error}")))?;
    let peer = connector.peer(stream.get_ref().1.peer_certificates());
    Ok((LegStream::Tls(Box::new(stream.into())), Some(peer)))
}

/// A server's answer to the request for TLS.
enum Asked {
    Yes(TcpStream),
    No(TcpStream),
}

/// Asks for TLS.
///
/// # Protocol
/// `length, 80877103`; answered by the byte `S` or `N`.
async fn ask(mut tcp: TcpStream) -> io::Result<Asked> {
    tcp.write_all(&SSL_REQUEST).await?;
    let mut answer = [0u8; 1];
    if tcp.read(&mut answer).await? == 0 {
        let message = "the server closed the connection when it was asked for TLS";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    match answer {
        [b'S'] => Ok(Asked::Yes(tcp)),
        [b'N'] => Ok(Asked::No(tcp)),
        [_] => Err(io::Error::other(NO_ANSWER)),
    }
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

const NO_TLS: &str = "the server has no TLS; turn it on (`ssl = on`), or choose plain text with \
    `upstream_tls: {mode: disable}`";

const NO_ANSWER: &str = "the server answered the request for TLS with something else, perhaps an \
    error (too many connections?); see its log";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_gives_up_early_says_nothing_of_the_server() {
        let patience = Duration::from_secs(2);
        let after = |outcome: Outcome, s| outcome.reached(Duration::from_secs(s), patience);
        assert_eq!(after(Outcome::GivenUp, 1), None);
        assert_eq!(after(Outcome::GivenUp, 2), Some(false));
        assert_eq!(after(Outcome::Failed, 0), Some(false));
        assert_eq!(after(Outcome::Reached, 3), Some(true));
    }
}
