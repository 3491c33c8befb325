//! Carrying out what a session cannot do itself, and closing. The cold half of the driver.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::cancel::Target;
use super::drive::Connection;
use super::end::End;
use super::leg::{Leg, LegStream, Stream, poll_drain};
use super::replayed::Replayed;
use super::shutdown::Stage;
use super::upstream::{Dial, Dialed};
use crate::metrics::{Limit, RejectReason};
use crate::session::{Alpn, Answer, CancelKey, Effect, EndCause, Session, TlsPeer};
use crate::tls;

impl<S: Session, C: Stream, D: Dial> Connection<S, C, D> {
    /// Carries out one effect and tells the session the answer, where it waits for one.
    pub(super) async fn carry_out(&mut self, effect: Effect) -> Result<(), End> {
        match effect {
            Effect::StartTls => self.start_tls(Begun::Asked).await,
            Effect::StartDirectTls(alpn) => self.start_tls(Begun::Direct(alpn)).await,
            Effect::Authenticate(request) => self.authenticate(*request).await,
            Effect::ReportLogin(report) => {
                self.note_login(&report);
                Ok(())
            }
            Effect::ReportAccount(failure) => {
                self.account_failed(&failure);
                Ok(())
            }
            Effect::Connect => self.connect().await,
            Effect::Cancel { key, from } => {
                self.forward_cancel(&key, from).await;
                Err(End::Session)
            }
            Effect::RegisterCancel { ours, theirs } => {
                let target = Target { key: theirs, place: self.place };
                self.cancel = Some(self.datasource.cancels.register(ours, target));
                Ok(())
            }
            Effect::Close => Err(End::Session),
        }
    }

    /// When what belongs to a login must be over. Whoever logs in anew as somebody else has as long
    /// as for the first time.
    pub(super) fn login_deadline(&self) -> Instant {
        if self.deadlines.in_login() {
            return self.admission.deadline;
        }
        Instant::now() + self.datasource.shared.limits.login_timeout
    }

    async fn start_tls(&mut self, begun: Begun) -> Result<(), End> {
        // One deadline for the whole login: a handshake does not start it anew.
        match tokio::time::timeout_at(self.login_deadline(), self.handshake(begun)).await {
            Ok(Ok(peer)) => self.resume(Answer::TlsStarted(peer)).await,
            Ok(Err(error)) => {
                info!(session = self.birth.uid, %error, "TLS handshake failed");
                self.finish(EndCause::ClientGone);
                Err(End::Protocol)
            }
            Err(_elapsed) => {
                self.datasource.shared.metrics.limit_reached(Limit::Login);
                Err(self.finish(EndCause::LoginTimeout))
            }
        }
    }

    /// Not cancel safe: the stream is lost when this is dropped, and the connection with it.
    async fn handshake(&mut self, begun: Begun) -> io::Result<TlsPeer> {
        let Self { client, out, datasource, seen, .. } = self;
        std::future::poll_fn(|cx| {
            poll_drain(&mut client.stream, &mut out.to_client, &mut client.dirty, cx)
        })
        .await?;
        let first = match begun {
            Begun::Direct(_) => std::mem::take(&mut client.input.bytes),
            Begun::Asked if client.input.bytes.is_empty() => BytesMut::new(),
            Begun::Asked => return Err(io::Error::other("bytes arrived before the handshake")),
        };
        let Some(certificate) = &datasource.tls else {
            return Err(io::Error::other("no certificate is configured"));
        };
        let stream = std::mem::replace(&mut client.stream, LegStream::Gone);
        let LegStream::Plain(plain) = stream else {
            return Err(io::Error::other("the connection is TLS already"));
        };
        let acceptor = certificate.load_full();
        let handshake = TlsAcceptor::from(Arc::clone(&acceptor.config));
        let stream = handshake.accept(Replayed::new(first, plain)).await?;
        let (_, established) = stream.get_ref();
        seen.secured(match established.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLS",
        });
        let agreed = established.alpn_protocol() == Some(tls::ALPN);
        if begun == Begun::Direct(Alpn::Agreed) && !agreed {
            return Err(io::Error::other("direct TLS without agreement on `postgresql` by ALPN"));
        }
        let peer = acceptor.peer(established.peer_certificates());
        client.stream = LegStream::Tls(Box::new(stream.into()));
        Ok(peer)
    }

    async fn connect(&mut self) -> Result<(), End> {
        if self.deadlines.in_login() && !self.admission.has_room() {
            self.datasource.metrics.connection_rejected(RejectReason::ClientsMax);
            warn!(session = self.birth.uid, "every client place is taken (`limits.clients`)");
            return Err(self.finish(EndCause::TooManyClients));
        }
        // Several servers may be tried, each for its connect timeout; the client waits for one login.
        let dialing = Box::pin(self.datasource.dial.dial());
        let Ok(dialed) = tokio::time::timeout_at(self.login_deadline(), dialing).await else {
            return Err(self.finish(EndCause::LoginTimeout));
        };
        match dialed {
            Ok(Dialed { stream, tls, place }) => {
                self.reached(Ok(()));
                self.server = Some(Leg::new(stream));
                self.place = place;
                let (secret, local) = (self.birth.secret, place.is_local());
                self.resume(Answer::Connected { secret, tls, local }).await
            }
            Err(error) => {
                warn!(
                    session = self.birth.uid,
                    datasource = &*self.datasource.name,
                    upstream = self.datasource.address,
                    %error,
                    "server not reached; is it running, and are `upstream` and `upstream_tls` right?"
                );
                self.datasource.metrics.connect_failed();
                self.reached(Err(error.to_string()));
                self.resume(Answer::ConnectFailed).await
            }
        }
    }

    fn reached(&self, result: Result<(), String>) {
        if self.datasource.reach.changed(result.is_ok()) {
            self.datasource.shared.status.set_upstream(&self.datasource.name, result);
        }
    }

    async fn forward_cancel(&mut self, key: &CancelKey, from: Option<IpAddr>) {
        let datasource = Arc::clone(&self.datasource);
        let now_us = datasource.shared.clock.now().mono_us;
        let theirs = match datasource.cancels.find(key, from, now_us) {
            Ok(theirs) => theirs,
            Err(dropped) => {
                debug!(session = self.birth.uid, ?dropped, "cancel dropped");
                return;
            }
        };
        let patience = datasource.shared.limits.cancel_timeout;
        let forwarded = datasource.cancels.forward(&datasource.dial, &theirs, patience).await;
        if let Err(error) = forwarded {
            warn!(session = self.birth.uid, %error, "cancel was not delivered");
        }
    }

    /// Writes out what waits, then closes both sides. Meanwhile a statement that is left at the
    /// server is cancelled.
    pub(super) async fn close(mut self, end: End) {
        let stopping = self.stopping.take();
        let stopped = async {
            if let Some(stopping) = stopping {
                stopping.await;
            }
        };
        tokio::join!(self.part(end), stopped);
    }

    async fn part(&mut self, end: End) {
        let shared = Arc::clone(&self.datasource.shared);
        let patience = match shared.shutdown.stage() {
            Stage::Running | Stage::Draining => shared.limits.flush_timeout,
            Stage::Ending => LAST_WORDS.min(shared.limits.flush_timeout),
        };
        let listens = end.client_listens();
        if tokio::time::timeout(patience, self.flush_out(listens)).await.is_err() {
            debug!(session = self.birth.uid, "a peer did not take the last bytes in time");
            return;
        }
        if listens {
            // Closing a socket that holds unread bytes resets it, and the client may lose the
            // error it was just sent: read them away for a moment.
            let lingering = async {
                self.client.stream.shutdown().await?;
                let mut ignored = [0u8; 1024];
                while self.client.stream.read(&mut ignored).await? > 0 {}
                io::Result::Ok(())
            };
            let _ = tokio::time::timeout(LINGER, lingering).await;
        }
    }

    /// Flushes both queues; the server's connection closes as soon as its queue is out.
    async fn flush_out(&mut self, client_listens: bool) {
        let Self { client, server, out, .. } = self;
        std::future::poll_fn(|cx| {
            // The shutdown takes leave in TLS; a plain socket would close on its own.
            let server_done = server.as_mut().is_none_or(|leg| {
                leg.broken
                    || (poll_drain(&mut leg.stream, &mut out.to_server, &mut leg.dirty, cx)
                        .is_ready()
                        && Pin::new(&mut leg.stream).poll_shutdown(cx).is_ready())
            });
            if server_done {
                *server = None;
            }
            let client_done = !client_listens
                || poll_drain(&mut client.stream, &mut out.to_client, &mut client.dirty, cx)
                    .is_ready();
            if server_done && client_done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// How a client came to TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    /// It asked, and was told to begin.
    Asked,
    /// It began with a handshake.
    Direct(Alpn),
}

/// How long last words may take once the process ends without further waiting.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a closed connection is read on, for the client to see the last words.
const LINGER: Duration = Duration::from_millis(250);
