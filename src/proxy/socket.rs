//! Sockets clients connect to, TCP or Unix, and what is accepted from them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::bind::SocketFile;

/// A bound socket.
#[derive(Debug)]
pub(super) enum ListenSocket {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Its file, removed with it; `None` where it is not ours to remove.
        _file: Option<SocketFile>,
    },
}

/// A client's socket, bound to the reactor of one thread.
#[derive(Debug)]
pub(super) enum ClientSocket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// A client's socket on its way from the accepting thread to its worker.
#[derive(Debug)]
pub(super) enum Detached {
    /// Over TCP.
    Tcp(std::net::TcpStream),
    /// Over a Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

// === impl ListenSocket ===

impl ListenSocket {
    /// The next client, with its address where it has one. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<(ClientSocket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                tune(&stream);
                Ok((ClientSocket::Tcp(stream), Some(address)))
            }
            Self::Unix { listener, .. } => {
                let (stream, _unnamed) = listener.accept().await?;
                Ok((ClientSocket::Unix(stream), None))
            }
        }
    }

    /// Where it is, for the log.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|at| at.to_string()).ok(),
            Self::Unix { listener, .. } => listener
                .local_addr()
                .ok()
                .and_then(|at| at.as_pathname().map(|path| path.display().to_string())),
        }
        .unwrap_or_else(|| "?".to_owned())
    }
}

// === impl ClientSocket ===

impl ClientSocket {
    /// Leaves this thread's reactor.
    ///
    /// # Errors
    /// The reactor does not let go of it.
    pub(super) fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Self::Tcp(stream) => Detached::Tcp(stream.into_std()?),
            Self::Unix(stream) => Detached::Unix(stream.into_std()?),
        })
    }

    /// User id of the process at the other end of a Unix socket; `None` for TCP.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub(super) fn peer_uid(&self) -> io::Result<Option<u32>> {
        match self {
            Self::Tcp(_) => Ok(None),
            Self::Unix(stream) => stream.peer_cred().map(|peer| Some(peer.uid())),
        }
    }
}

impl Detached {
    /// Enters the reactor of the thread that calls it.
    ///
    /// # Errors
    /// The reactor takes no more.
    pub(super) fn attach(self) -> io::Result<ClientSocket> {
        Ok(match self {
            Self::Tcp(stream) => ClientSocket::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => ClientSocket::Unix(UnixStream::from_std(stream)?),
        })
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets hold nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What every TCP connection of the proxy is set to: no delay of small messages, and dead peers
/// are noticed.
pub(super) fn tune(stream: &TcpStream) {
    // Both are improvements, not conditions: a socket that cannot have them still works.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_EVERY);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Silence before the first keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Time between probes.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
