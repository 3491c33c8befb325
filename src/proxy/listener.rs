//! Accepting clients: a permit first, then the connection, then its task.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, error, warn};

use super::drive::Connection;
use super::end::End;
use super::shared::Datasource;
use super::shutdown::Stage;
use super::uid::Birth;
use super::upstream::Dial;
use crate::event::Now;
use crate::metrics::{Metrics, RejectReason};
use crate::session::Session;

/// One address a datasource listens on.
pub(crate) struct Listener<D, F> {
    /// The bound socket.
    pub(crate) socket: TcpListener,
    /// Where its clients go.
    pub(crate) datasource: Arc<Datasource<D>>,
    /// One permit per client of the process.
    pub(crate) slots: Arc<Semaphore>,
    /// Makes the session of a client.
    pub(crate) begin: F,
}

impl<D, F, S> Listener<D, F>
where
    D: Dial,
    S: Session + Send + 'static,
    F: Fn(&Birth, SocketAddr, Now) -> S,
{
    /// Accepts until the process drains, then waits for its sessions to end.
    pub(crate) async fn serve(self) {
        let shutdown = Arc::clone(&self.datasource.shared.shutdown);
        let mut tasks = JoinSet::new();
        let mut slot: Option<OwnedSemaphorePermit> = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.reached(Stage::Draining) => break,
                Some(done) = tasks.join_next() => report(done, &self.datasource.shared.metrics),
                permit = Arc::clone(&self.slots).acquire_owned(), if slot.is_none() => {
                    slot = permit.ok();
                }
                accepted = self.socket.accept(), if slot.is_some() => {
                    self.welcome(accepted, &mut slot, &mut tasks).await;
                }
            }
        }
        let Self { socket, datasource, .. } = self;
        drop(socket);
        while let Some(done) = tasks.join_next().await {
            report(done, &datasource.shared.metrics);
        }
    }

    async fn welcome(
        &self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        slot: &mut Option<OwnedSemaphorePermit>,
        tasks: &mut JoinSet<End>,
    ) {
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return self.back_off(&error).await,
        };
        tune(&stream);
        let now = self.datasource.shared.clock.now();
        let drawn = Birth::draw(now).and_then(|birth| {
            let place = self.datasource.shared.workers.place().context("no worker")?;
            // Leaves this thread's reactor, for the one of its worker.
            Ok((birth, place, stream.into_std()?))
        });
        let (birth, place, stream) = match drawn {
            Ok(drawn) => drawn,
            Err(error) => return error!(?error, "client turned away"),
        };
        let session = (self.begin)(&birth, client, now);
        let datasource = Arc::clone(&self.datasource);
        let permit = slot.take();
        let runtime = place.runtime.clone();
        let connection = async move {
            let end = match TcpStream::from_std(stream) {
                Ok(stream) => Connection::new(session, birth, stream, datasource).run().await,
                Err(error) => {
                    error!(%error, "client turned away");
                    End::Session
                }
            };
            drop((permit, place));
            end
        };
        tasks.spawn_on(connection, &runtime);
        if self.slots.available_permits() == 0 {
            warn!("every client slot is taken; further clients wait (`limits.clients`)");
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

/// Binds an address to listen on.
///
/// # Errors
/// The address is taken or not ours; the message names it.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen()
        .map_err(|error: io::Error| {
            let way_out = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another process listens there; stop it or change `listen`"
                }
                io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address",
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need a privilege; use a higher one"
                }
                _ => "the system refused it",
            };
            anyhow::Error::new(error).context(way_out)
        })
        .with_context(|| format!("listen on {address}"))
}

/// What every TCP connection of the proxy is set to: no delay of small messages, and dead peers
/// are noticed.
pub(crate) fn tune(stream: &TcpStream) {
    // Both are improvements, not conditions: a socket that cannot have them still works.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_EVERY);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
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

/// Connections the system completes before we accept them.
const BACKLOG: u32 = 1024;

/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Silence before the first keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Time between probes.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
