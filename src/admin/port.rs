//! Accepting on the admin port: few visitors at a time, each for a short while.
//!
//! Health and metrics are everybody's who reaches the port. Whoever opens connections and stays
//! must not use up the file descriptors that clients and servers need.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// A listener with a bound on its visitors and on their stay.
#[derive(Debug)]
pub(super) struct Port {
    listener: TcpListener,
    places: Arc<Semaphore>,
    stay: Duration,
}

/// One visitor's connection. Reading and writing fail when its time is over.
#[derive(Debug)]
pub(super) struct Visit {
    stream: TcpStream,
    over: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor(pub(super) SocketAddr);

impl Port {
    /// The bounds the admin port is served with.
    pub(super) fn new(listener: TcpListener) -> Self {
        Self::bounded(listener, VISITORS_MAX, STAY_MAX)
    }

    fn bounded(listener: TcpListener, visitors: usize, stay: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(visitors)), stay }
    }
}

impl Listener for Port {
    type Io = Visit;
    type Addr = SocketAddr;

    /// Who finds no place waits in the system's queue.
    async fn accept(&mut self) -> (Visit, SocketAddr) {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            // Only a closed semaphore gives none, and nobody closes it.
            return std::future::pending().await;
        };
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let over = Box::pin(tokio::time::sleep(self.stay));
        (Visit { stream, over, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Port>> for Visitor {
    fn connect_info(stream: IncomingStream<'_, Port>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Visit {
    /// An error once the time is over; wakes the task when it is.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.over.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let visit = self.get_mut();
        visit.in_time(cx)?;
        Pin::new(&mut visit.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let visit = self.get_mut();
        visit.in_time(cx)?;
        Pin::new(&mut visit.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Visitors at a time: scrapers, probes and a few people. Fewer than the descriptors kept back for
/// this port and for files.
const VISITORS_MAX: usize = 16;

/// How long one may stay; a scraper that keeps its connection opens another one after that.
const STAY_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[tokio::test]
    async fn visitors_who_stay_silent_make_room_for_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = Port::bounded(listener, 2, Duration::from_millis(100));
        let router = axum::Router::new().route("/", axum::routing::get(async || "here"));
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move { axum::serve(port, router).await });
        let answer = tokio::task::spawn_blocking(move || {
            let silent: Vec<_> = (0..8)
                .map(|_| {
                    let mut stream = std::net::TcpStream::connect(address).unwrap();
                    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
                    stream
                })
                .collect();
            let mut last = std::net::TcpStream::connect(address).unwrap();
            last.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
            let mut answer = String::new();
            last.read_to_string(&mut answer).unwrap();
            drop(silent);
            answer
        });
        assert!(answer.await.unwrap().ends_with("here"));
    }
}
