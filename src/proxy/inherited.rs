//! Sockets that the service manager opened and handed over (`LISTEN_FDS`, systemd's socket
//! activation): they live on while the process is replaced, so no connection is refused.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use anyhow::{Context as _, bail};
use listenfd::ListenFd;

use crate::config::ListenAt;

/// Sockets that were handed over and serve nothing yet.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<One>);

#[derive(Debug)]
struct One {
    /// `FileDescriptorName` of the unit.
    name: Option<String>,
    socket: Socket,
}

/// A socket as handed over, not yet bound to a reactor.
#[derive(Debug)]
pub(super) enum Socket {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket; its file is the service manager's.
    Unix(UnixListener),
}

impl Inherited {
    /// Takes over what there is. Called once, before other threads read the environment.
    ///
    /// # Errors
    /// A descriptor is no listening stream socket.
    pub(super) fn take() -> anyhow::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..handed.len() {
            let name = names.next().filter(|name| !name.is_empty()).map(str::to_owned);
            // A refused attempt leaves the descriptor where it is.
            let socket = match handed.take_unix_listener(index) {
                Ok(Some(unix)) => Socket::Unix(unix),
                Ok(None) | Err(_) => {
                    let tcp = handed.take_tcp_listener(index).with_context(|| {
                        format!("socket {index} of the service manager is no stream socket")
                    })?;
                    match tcp {
                        Some(tcp) => Socket::Tcp(tcp),
                        None => continue,
                    }
                }
            };
            sockets.push(One { name, socket });
        }
        Ok(Self(sockets))
    }

    /// The socket for an address: the one with this address, else the one with this name.
    pub(super) fn claim(&mut self, at: &ListenAt, name: &str) -> Option<Socket> {
        let is_there = |one: &One| one.socket.is_at(at);
        let is_named = |one: &One| one.name.as_deref() == Some(name) && one.socket.is_kind_of(at);
        let sockets = &mut self.0;
        let index = sockets.iter().position(is_there);
        let index = index.or_else(|| sockets.iter().position(is_named))?;
        Some(sockets.remove(index).socket)
    }

    /// Ends the start when a socket was handed over that nothing listens on: its clients would wait
    /// for ever.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Some(One { name, socket }) = self.0.first() else { return Ok(()) };
        bail!(
            "the service manager handed over a socket ({}, named `{}`) that no `listen` has; give \
             it the address of an entry, or the datasource's name as FileDescriptorName",
            socket.shown(),
            name.as_deref().unwrap_or_default()
        );
    }
}

impl Socket {
    fn is_at(&self, at: &ListenAt) -> bool {
        match (self, at) {
            (Self::Tcp(tcp), ListenAt::Tcp(address)) => {
                tcp.local_addr().is_ok_and(|own| own == *address)
            }
            (Self::Unix(unix), ListenAt::Unix { path, .. }) => {
                unix.local_addr().is_ok_and(|own| own.as_pathname() == Some(path))
            }
            (Self::Tcp(_), ListenAt::Unix { .. }) | (Self::Unix(_), ListenAt::Tcp(_)) => false,
        }
    }

    fn is_kind_of(&self, at: &ListenAt) -> bool {
        match (self, at) {
            (Self::Tcp(_), ListenAt::Tcp(_)) | (Self::Unix(_), ListenAt::Unix { .. }) => true,
            (Self::Tcp(_), ListenAt::Unix { .. }) | (Self::Unix(_), ListenAt::Tcp(_)) => false,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map(|at| at.to_string()).unwrap_or_default(),
            Self::Unix(unix) => unix.local_addr().map(|at| format!("{at:?}")).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str) -> (One, ListenAt) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = ListenAt::Tcp(socket.local_addr().unwrap());
        (One { name: Some(name.to_owned()), socket: Socket::Tcp(socket) }, at)
    }

    #[test]
    fn sockets_go_by_address_then_by_name() {
        let ((a, at_a), (b, at_b)) = (one("shop"), one("shop"));
        let mut inherited = Inherited(vec![a, b]);
        // The second is there, although the first has the name as well.
        assert!(inherited.claim(&at_b, "shop").unwrap().is_at(&at_b));
        let elsewhere = ListenAt::Tcp("192.0.2.1:1".parse().unwrap());
        assert!(inherited.claim(&elsewhere, "other").is_none());
        let unix = ListenAt::Unix { path: "/none".into(), mode: 0o660 };
        assert!(inherited.claim(&unix, "shop").is_none(), "another kind of socket");
        assert!(inherited.claim(&elsewhere, "shop").unwrap().is_at(&at_a));
        inherited.finish().unwrap();
    }

    #[test]
    fn a_socket_that_serves_nothing_ends_the_start() {
        let (one, _) = one("nobody");
        let error = Inherited(vec![one]).finish().unwrap_err().to_string();
        assert!(error.contains("named `nobody`"), "{error}");
    }
}
