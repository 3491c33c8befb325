//! Accepting clients: a place first, then the connection, then its task.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::BytesMut;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, error, info, warn};

use super::admission::{self, Admission};
use super::drive::Connection;
use super::end::End;
use super::shared::Datasource;
use super::shutdown::Stage;
pub(super) use super::socket::tune;
use super::socket::{ClientSocket, Detached, ListenSocket};
use super::uid::Birth;
use super::upstream::Dial;
use super::users;
use crate::config::Listen;
use crate::event::Now;
use crate::metrics::{Metrics, RejectReason};
use crate::session::{EndCause, PeerCredentials, Session};
use crate::wire::proxy_header::{self, Announced, Step};

/// One socket a datasource listens on.
pub(super) struct Listener<D, F> {
    /// The bound socket.
    pub(super) socket: ListenSocket,
    /// What becomes of its clients.
    pub(super) door: Door<D, F>,
}

/// What becomes of whoever a listener accepts.
pub(super) struct Door<D, F> {
    /// Where clients go.
    pub(super) datasource: Arc<Datasource<D>>,
    /// Who may come.
    pub(super) entrance: Arc<Entrance>,
    /// Makes the session of a client.
    pub(super) begin: F,
}

/// The clients of one listener.
#[derive(Default)]
struct Guests {
    tasks: JoinSet<End>,
    /// For the next one.
    place: Option<OwnedSemaphorePermit>,
}

/// Who may come in through a listener.
#[derive(Debug)]
pub(super) struct Entrance {
    /// Networks clients may come from; empty for everywhere.
    allow: Vec<IpNet>,
    /// Proxies in these networks announce each client with a header.
    proxies: Vec<IpNet>,
}

/// Where a client comes from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// Its address; `None` over a Unix socket.
    pub(super) address: Option<SocketAddr>,
    /// Who holds the other end of a Unix socket.
    pub(super) local: Option<PeerCredentials>,
}

/// A client on its way to its worker.
struct Arrival<D, F> {
    stream: Detached,
    address: Option<SocketAddr>,
    admission: Admission,
    birth: Birth,
    accepted: Now,
    datasource: Arc<Datasource<D>>,
    entrance: Arc<Entrance>,
    begin: F,
}

impl<D, F, S> Listener<D, F>
where
    D: Dial,
    S: Session + Send + 'static,
    F: Fn(&Birth, Origin, Now) -> S + Clone + Send + 'static,
{
    /// Accepts until the process drains, then waits for its sessions to end.
    ///
    /// Whoever the system connected before the socket closes is served: closing a socket resets
    /// what waits in its queue.
    pub(super) async fn serve(self) {
        let Self { socket, door } = self;
        let shared = Arc::clone(&door.datasource.shared);
        let mut guests = Guests::default();
        let draining = shared.shutdown.reached(Stage::Draining);
        door.accept_until(draining, &socket, &mut guests).await;
        if socket.hand_over() {
            let shaken = tokio::time::sleep(HANDSHAKES);
            door.accept_until(shaken, &socket, &mut guests).await;
        }
        let waiting = socket.close();
        if !waiting.is_empty() {
            info!(clients = waiting.len(), "clients in the closed socket's queue are served");
        }
        for (stream, address) in waiting {
            if guests.place.is_none() {
                guests.place = shared.admissions.login().await;
            }
            door.welcome(stream, address, &mut guests);
        }
        guests.place = None;
        while let Some(done) = guests.tasks.join_next().await {
            report(done, &shared.metrics);
        }
    }
}

impl<D, F, S> Door<D, F>
where
    D: Dial,
    S: Session + Send + 'static,
    F: Fn(&Birth, Origin, Now) -> S + Clone + Send + 'static,
{
    async fn accept_until(
        &self,
        end: impl Future<Output = ()>,
        socket: &ListenSocket,
        guests: &mut Guests,
    ) {
        let shared = &self.datasource.shared;
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                biased;
                () = &mut end => return,
                Some(done) = guests.tasks.join_next() => report(done, &shared.metrics),
                free = shared.admissions.login(), if guests.place.is_none() => guests.place = free,
                accepted = socket.accept(), if guests.place.is_some() => match accepted {
                    Ok((stream, address)) => match stream.detach() {
                        Ok(stream) => self.welcome(stream, address, guests),
                        Err(error) => error!(%error, "client turned away"),
                    },
                    Err(error) => self.back_off(&error).await,
                }
            }
        }
    }

    fn welcome(&self, stream: Detached, address: Option<SocketAddr>, guests: &mut Guests) {
        stream.tune(self.datasource.shared.limits.tcp);
        let accepted = self.datasource.shared.clock.now();
        let drawn = Birth::draw(accepted).and_then(|birth| {
            let place = self.datasource.shared.workers.place().context("no worker")?;
            Ok((birth, place))
        });
        let (birth, place) = match drawn {
            Ok(drawn) => drawn,
            Err(error) => return error!(?error, "client turned away"),
        };
        let Some(login) = guests.place.take() else { return };
        let shared = &self.datasource.shared;
        let admissions = Arc::clone(&shared.admissions);
        let arrival = Arrival {
            stream,
            address,
            admission: Admission::new(admissions, login, shared.limits.login_timeout),
            birth,
            accepted,
            datasource: Arc::clone(&self.datasource),
            entrance: Arc::clone(&self.entrance),
            begin: self.begin.clone(),
        };
        let runtime = place.runtime.clone();
        let connection = async move {
            let end = arrival.receive().await;
            drop(place);
            end
        };
        guests.tasks.spawn_on(connection, &runtime);
        if shared.admissions.logins_taken() {
            warn!("no place is left for logins; further clients wait (`limits.logins`)");
        }
    }

    /// A client that went away before we took it costs nothing; a process out of file descriptors
    /// waits for sessions to end instead of spinning.
    async fn back_off(&self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted => {}
            _ => {
                self.datasource.metrics.connection_rejected(RejectReason::AcceptFailed);
                warn!(datasource = &*self.datasource.name, %error, "accept failed, pausing");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

// === impl Arrival ===

impl<D, F, S> Arrival<D, F>
where
    D: Dial,
    S: Session + Send + 'static,
    F: Fn(&Birth, Origin, Now) -> S,
{
    /// Runs on the worker: lets the client in or turns it away.
    async fn receive(self) -> End {
        let Self { stream, address, mut admission, birth, accepted, datasource, entrance, begin } =
            self;
        let attached = stream.attach().and_then(|stream| Ok((stream.peer_uid()?, stream)));
        let (uid, mut stream) = match attached {
            Ok(attached) => attached,
            Err(error) => {
                error!(%error, "client turned away");
                return End::Session;
            }
        };
        let judged = entrance.judge(&mut stream, (address, uid), &mut admission).await;
        let (address, refused) = match judged {
            Ok(address) => (address, None),
            Err(Unwelcome::Left) => return End::Client,
            Err(Unwelcome::Refused { address, cause, reason }) => (address, Some((cause, reason))),
        };
        let local = match uid {
            Some(uid) => Some(users::credentials(uid).await),
            None => None,
        };
        let session = begin(&birth, Origin { address, local }, accepted);
        let name = Arc::clone(&datasource.name);
        if let Some((_, reason)) = refused {
            datasource.metrics.connection_rejected(reason);
            info!(datasource = &*name, ?address, reason = reason.label(), "client refused");
        }
        let connection = Connection::new(session, birth, stream, datasource, admission);
        // Boxed: what the arrival needed is not kept as long as the session lasts.
        match refused {
            None => Box::pin(connection.run()).await,
            Some((cause, _)) => Box::pin(connection.refuse(cause)).await,
        }
    }
}

// === impl Entrance ===

/// Why somebody is not let in.
#[derive(Debug)]
enum Unwelcome {
    /// It went away before it said anything.
    Left,
    /// It is told so.
    Refused { address: Option<SocketAddr>, cause: EndCause, reason: RejectReason },
}

impl Entrance {
    /// As configured.
    pub(super) fn of(listen: &Listen) -> Self {
        let Listen { at: _, allow, proxies, port: _ } = listen;
        Self { allow: allow.clone(), proxies: proxies.clone() }
    }

    /// Finds out the client's address and whether it may come in from there. Reads a header of
    /// trusted proxies only; what others send is not looked at.
    ///
    /// Not cancel safe: what was read of a header is lost.
    async fn judge(
        &self,
        stream: &mut ClientSocket,
        (address, uid): (Option<SocketAddr>, Option<u32>),
        admission: &mut Admission,
    ) -> Result<Option<SocketAddr>, Unwelcome> {
        let refused = |address, cause, reason| Unwelcome::Refused { address, cause, reason };
        let address = if self.expects_header(address) {
            match tokio::time::timeout_at(admission.deadline, announced(stream)).await {
                Ok(Ok(Some(Announced::Client(client)))) => Some(client),
                Ok(Ok(Some(Announced::Proxy))) => address,
                Ok(Ok(None)) => return Err(Unwelcome::Left),
                Ok(Err(_)) | Err(_) => {
                    let reason = RejectReason::ProxyHeader;
                    return Err(refused(address, EndCause::HeaderRefused, reason));
                }
            }
        } else {
            address
        };
        if uid.is_none() && !self.admits(address) {
            return Err(refused(address, EndCause::AddressRefused, RejectReason::Address));
        }
        let from = uid.map(admission::Origin::User);
        let from = from.or_else(|| address.map(|address| address.ip().into()));
        if from.is_some_and(|from| !admission.comes_from(from)) {
            let reason = RejectReason::LoginsPerAddress;
            return Err(refused(address, EndCause::TooManyLogins, reason));
        }
        Ok(address)
    }

    fn expects_header(&self, address: Option<SocketAddr>) -> bool {
        address.is_some_and(|address| inside(&self.proxies, address))
    }

    /// Whether a client from there may come in; one without an address is in no network.
    fn admits(&self, address: Option<SocketAddr>) -> bool {
        self.allow.is_empty() || address.is_some_and(|address| inside(&self.allow, address))
    }
}

fn inside(networks: &[IpNet], address: SocketAddr) -> bool {
    // An IPv4 client of a dual-stack socket shows an IPv6 address that embeds its own.
    let ip = address.ip().to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// Reads a PROXY protocol header and not a byte more; `None` when the peer leaves without a word,
/// as health checks do. Not cancel safe.
async fn announced(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Announced>> {
    let mut header = BytesMut::new();
    loop {
        match proxy_header::step(&header).map_err(io::Error::other)? {
            Step::Done(announced) => return Ok(Some(announced)),
            Step::Need(bytes) => {
                let missing = u64::try_from(bytes).unwrap_or(u64::MAX);
                if (&mut *stream).take(missing).read_buf(&mut header).await? > 0 {
                    continue;
                }
                let silent = header.is_empty();
                return if silent { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }
}

fn report(done: Result<End, JoinError>, metrics: &Metrics) {
    match done {
        Ok(end) => debug!(end = end.name(), "session ended"),
        Err(failure) if failure.is_panic() => {
            metrics.session_panicked();
            error!("a session panicked and was closed, the others go on; this is a bug");
        }
        Err(_aborted) => {}
    }
}

/// How long connections that are half made when a socket is handed over may take to be whole.
const HANDSHAKES: Duration = Duration::from_millis(500);

/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_allow_list_admits_its_networks_only() {
        let allow = networks(&["10.0.0.0/8", "2001:db8::/32"]);
        let entrance = Entrance { allow, proxies: Vec::new() };
        let at = |address: &str| Some(SocketAddr::new(address.parse().unwrap(), 1));
        for inside in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"] {
            assert!(entrance.admits(at(inside)), "{inside}");
        }
        for outside in ["11.1.2.3", "::ffff:11.1.2.3", "::1"] {
            assert!(!entrance.admits(at(outside)), "{outside}");
        }
        assert!(!entrance.admits(None), "no address is in no network");
        assert!(!entrance.expects_header(at("10.1.2.3")));
        let open = Entrance { allow: Vec::new(), proxies: networks(&["192.0.2.1/32"]) };
        assert!(open.admits(None) && open.admits(at("11.1.2.3")));
        assert!(open.expects_header(at("::ffff:192.0.2.1")));
        assert!(!open.expects_header(at("192.0.2.2")) && !open.expects_header(None));
    }

    #[tokio::test]
    async fn a_header_is_read_to_its_last_byte() {
        for header in [
            &b"PROXY TCP4 10.1.2.3 10.0.0.1 12345 6432\r\n"[..],
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x01\x02\x03\x0a\0\0\x01\x30\x39\x19\x20",
        ] {
            let (mut ours, mut theirs) = duplex(4096);
            theirs.write_all(header).await.unwrap();
            theirs.write_all(b"rest").await.unwrap();
            drop(theirs);
            let client = Announced::Client("10.1.2.3:12345".parse().unwrap());
            assert_eq!(announced(&mut ours).await.unwrap(), Some(client));
            let mut rest = String::new();
            ours.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "rest");
        }
        let (mut ours, theirs) = duplex(64);
        drop(theirs);
        assert_eq!(announced(&mut ours).await.unwrap(), None);
        let (mut ours, mut theirs) = duplex(64);
        theirs.write_all(b"PROX").await.unwrap();
        drop(theirs);
        assert!(announced(&mut ours).await.is_err());
    }
}
