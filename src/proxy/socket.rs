//! Sockets clients connect to, TCP or Unix, and what is accepted from them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{SockFilter, SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tracing::warn;

use super::bind::SocketFile;
use crate::config::TcpLimits;

/// A bound socket.
#[derive(Debug)]
pub(super) struct ListenSocket {
    /// The socket itself.
    pub(super) kind: Kind,
    /// What becomes of it when the process drains.
    pub(super) closing: Closing,
}

/// TCP or Unix.
#[derive(Debug)]
pub(super) enum Kind {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Its file, removed with it; `None` where it is not ours to remove.
        file: Option<SocketFile>,
    },
}

/// What becomes of a socket when the process drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// The service manager keeps it: whoever waits in its queue is the successor's.
    Leave,
    /// It ends with the process, which takes whoever waits.
    Take,
    /// A successor may listen on the same port: no new connection may come to this socket, then
    /// whoever waits is taken.
    HandOver,
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
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((ClientSocket::Tcp(stream), Some(address)))
            }
            Kind::Unix { listener, .. } => {
                let (stream, _unnamed) = listener.accept().await?;
                Ok((ClientSocket::Unix(stream), None))
            }
        }
    }

    /// Where it is, for the log.
    pub(super) fn shown(&self) -> String {
        match &self.kind {
            Kind::Tcp(listener) => listener.local_addr().map(|at| at.to_string()).ok(),
            Kind::Unix { listener, .. } => listener
                .local_addr()
                .ok()
                .and_then(|at| at.as_pathname().map(|path| path.display().to_string())),
        }
        .unwrap_or_else(|| "?".to_owned())
    }

    /// Lets no new connection begin on a socket whose port a successor serves as well; `true` if so.
    ///
    /// The kernel deals connections out among the sockets of a port, and resets what a closed one
    /// still holds. A filter drops the packets that would begin another here: their senders repeat
    /// them, by then to the successor. Handshakes under way go on.
    pub(super) fn hand_over(&self) -> bool {
        let (Kind::Tcp(listener), Closing::HandOver) = (&self.kind, self.closing) else {
            return false;
        };
        let filter = [
            // A = the TCP header's flags, SYN and ACK only.
            SockFilter::new(BPF_LOAD_BYTE, 0, 0, TCP_FLAGS_AT),
            SockFilter::new(BPF_AND, 0, 0, TCP_SYN | TCP_ACK),
            // SYN alone: keep nothing of the packet. Anything else: all of it.
            SockFilter::new(BPF_JUMP_IF_EQUAL, 0, 1, TCP_SYN),
            SockFilter::new(BPF_RETURN, 0, 0, 0),
            SockFilter::new(BPF_RETURN, 0, 0, u32::MAX),
        ];
        let attached = SockRef::from(listener).attach_filter(&filter);
        if let Err(error) = attached {
            warn!(%error, "the port is handed over without a filter; a connection may be reset");
        }
        true
    }

    /// Closes it, and returns whoever waited in its queue. No time passes between the look that
    /// finds the queue empty and the closing.
    pub(super) fn close(self) -> Vec<(Detached, Option<SocketAddr>)> {
        let mut waiting = Vec::new();
        match (self.kind, self.closing) {
            (_, Closing::Leave) => {}
            (Kind::Tcp(listener), Closing::Take | Closing::HandOver) => {
                let Ok(listener) = listener.into_std() else { return waiting };
                while waiting.len() < WAITING_MAX
                    && let Ok((stream, address)) = listener.accept()
                {
                    if stream.set_nonblocking(true).is_ok() {
                        waiting.push((Detached::Tcp(stream), Some(address)));
                    }
                }
            }
            (Kind::Unix { listener, file }, Closing::Take | Closing::HandOver) => {
                // Nobody can find it any more, so nobody comes after the last one.
                drop(file);
                let Ok(listener) = listener.into_std() else { return waiting };
                while waiting.len() < WAITING_MAX
                    && let Ok((stream, _unnamed)) = listener.accept()
                {
                    if stream.set_nonblocking(true).is_ok() {
                        waiting.push((Detached::Unix(stream), None));
                    }
                }
            }
        }
        waiting
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
    /// Sets what every connection is set to.
    pub(super) fn tune(&self, tcp: TcpLimits) {
        match self {
            Self::Tcp(stream) => tune(stream, tcp),
            // The other end of a Unix socket cannot vanish without a word.
            Self::Unix(_) => {}
        }
    }

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
pub(super) fn tune(stream: &impl AsFd, tcp: TcpLimits) {
    let TcpLimits { keepalive, user_timeout } = tcp;
    // All are improvements, not conditions: a socket that cannot have them still works.
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let probes = TcpKeepalive::new().with_time(keepalive).with_interval(keepalive / PROBES);
    let _ = socket.set_tcp_keepalive(&probes);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(user_timeout));
}

/// Probes a peer is sent in the time of silence that is waited for the first.
const PROBES: u32 = 4;

/// Classic BPF: the low bits of an instruction are its class, the others what it does.
const BPF_LOAD_BYTE: u16 = 0x30;
const BPF_AND: u16 = 0x54;
const BPF_JUMP_IF_EQUAL: u16 = 0x15;
const BPF_RETURN: u16 = 0x06;

/// Where the flags are in a TCP header, and two of them.
const TCP_FLAGS_AT: u32 = 13;
const TCP_SYN: u32 = 0x02;
const TCP_ACK: u32 = 0x10;

/// Clients taken out of a closing socket's queue; the queue holds fewer.
const WAITING_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_connection_notices_a_peer_that_vanished() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let seconds = Duration::from_secs;
        let tcp = TcpLimits { keepalive: seconds(40), user_timeout: seconds(25) };
        for stream in [stream.unwrap(), accepted.unwrap().0] {
            tune(&stream, tcp);
            let socket = SockRef::from(&stream);
            assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(40));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(10));
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(seconds(25)));
        }
    }
}
