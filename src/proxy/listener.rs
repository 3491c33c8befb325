//! Accepting clients: a permit first, then the connection, then its task.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, error, info, warn};

use super::drive::Connection;
use super::end::End;
use super::shared::Datasource;
use super::shutdown::Stage;
pub(super) use super::socket::tune;
use super::socket::{ClientSocket, Detached, ListenSocket};
use super::uid::Birth;
use super::upstream::Dial;
use super::users;
use crate::event::Now;
use crate::metrics::{Metrics, RejectReason};
use crate::session::{EndCause, PeerCredentials, Session};

/// One socket a datasource listens on.
pub(super) struct Listener<D, F> {
    /// The bound socket.
    pub(super) socket: ListenSocket,
    /// Where its clients go.
    pub(super) datasource: Arc<Datasource<D>>,
    /// Who may come.
    pub(super) entrance: Arc<Entrance>,
    /// One permit per client of the process.
    pub(super) slots: Arc<Semaphore>,
    /// Makes the session of a client.
    pub(super) begin: F,
}

/// Who may come in through a listener.
#[derive(Debug)]
pub(super) struct Entrance {
    /// Networks clients may come from; empty for everywhere.
    pub(super) allow: Vec<IpNet>,
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
    pub(super) async fn serve(self) {
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
        accepted: io::Result<(ClientSocket, Option<SocketAddr>)>,
        slot: &mut Option<OwnedSemaphorePermit>,
        tasks: &mut JoinSet<End>,
    ) {
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return self.back_off(&error).await,
        };
        let accepted = self.datasource.shared.clock.now();
        let drawn = Birth::draw(accepted).and_then(|birth| {
            let place = self.datasource.shared.workers.place().context("no worker")?;
            Ok((birth, place, stream.detach()?))
        });
        let (birth, place, stream) = match drawn {
            Ok(drawn) => drawn,
            Err(error) => return error!(?error, "client turned away"),
        };
        let arrival = Arrival {
            stream,
            address,
            birth,
            accepted,
            datasource: Arc::clone(&self.datasource),
            entrance: Arc::clone(&self.entrance),
            begin: self.begin.clone(),
        };
        let permit = slot.take();
        let runtime = place.runtime.clone();
        let connection = async move {
            let end = arrival.receive().await;
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

// === impl Arrival ===

impl<D, F, S> Arrival<D, F>
where
    D: Dial,
    S: Session + Send + 'static,
    F: Fn(&Birth, Origin, Now) -> S,
{
    /// Runs on the worker: lets the client in or turns it away.
    async fn receive(self) -> End {
        let Self { stream, address, birth, accepted, datasource, entrance, begin } = self;
        let identified = async {
            let stream = stream.attach()?;
            let local = match stream.peer_uid()? {
                Some(uid) => Some(users::credentials(uid).await),
                None => None,
            };
            io::Result::Ok((stream, local))
        };
        let (stream, local) = match identified.await {
            Ok(identified) => identified,
            Err(error) => {
                error!(%error, "client turned away");
                return End::Session;
            }
        };
        let admitted = entrance.admits(address, local.as_ref());
        let session = begin(&birth, Origin { address, local }, accepted);
        let connection = Connection::new(session, birth, stream, Arc::clone(&datasource));
        match admitted {
            Ok(()) => connection.run().await,
            Err((cause, reason)) => {
                info!(
                    datasource = &*datasource.name,
                    ?address,
                    reason = reason.label(),
                    "client refused"
                );
                datasource.metrics.connection_rejected(reason);
                connection.refuse(cause).await
            }
        }
    }
}

impl Entrance {
    /// Whether a client from there may come in. Who is behind a Unix socket was the file's
    /// permissions to decide; a client without any address is in no network.
    fn admits(
        &self,
        address: Option<SocketAddr>,
        local: Option<&PeerCredentials>,
    ) -> Result<(), (EndCause, RejectReason)> {
        let inside = address.is_some_and(|address| {
            // An IPv4 client of a dual-stack socket shows an IPv6 address that embeds its own.
            let ip = address.ip().to_canonical();
            self.allow.iter().any(|network| network.contains(&ip))
        });
        if self.allow.is_empty() || local.is_some() || inside {
            return Ok(());
        }
        Err((EndCause::AddressRefused, RejectReason::Address))
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

/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allow_list_admits_its_networks_only() {
        let networks = ["10.0.0.0/8", "2001:db8::/32"];
        let allow = networks.iter().map(|network| network.parse().unwrap()).collect();
        let entrance = Entrance { allow };
        let admits = |address: &str| {
            entrance.admits(Some(SocketAddr::new(address.parse().unwrap(), 1)), None).is_ok()
        };
        assert!(admits("10.1.2.3") && admits("::ffff:10.1.2.3") && admits("2001:db8::1"));
        assert!(!admits("11.1.2.3") && !admits("::ffff:11.1.2.3") && !admits("::1"));
        assert!(entrance.admits(None, None).is_err(), "no address is in no network");
        assert!(Entrance { allow: Vec::new() }.admits(None, None).is_ok());
    }
}
