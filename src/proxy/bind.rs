//! Binding what clients and operators connect to, before anything is served.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::inherited::{self, Inherited};
use super::socket::{Closing, Kind, ListenSocket};
use crate::config::{Config, Listen, ListenAt, Port};

/// Every bound address: nothing is served before all are ours.
pub(super) struct Sockets {
    /// One list per datasource, in the configuration's order.
    pub(super) datasources: Vec<Vec<ListenSocket>>,
    /// The admin port.
    pub(super) admin: TcpListener,
}

impl Sockets {
    /// Takes over what the service manager opened, and binds the rest.
    ///
    /// # Errors
    /// One cannot be bound; the message names it and the way out. Or a socket was handed over that
    /// nothing listens on.
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        let mut inherited = Inherited::take().context("take over sockets")?;
        let mut datasources = Vec::new();
        for datasource in &config.datasources {
            let bound: anyhow::Result<Vec<_>> = datasource
                .listen
                .iter()
                .map(|listen| socket(listen, &datasource.name, &mut inherited))
                .collect();
            let bound = bound.with_context(|| format!("datasource `{}`", datasource.name))?;
            datasources.push(bound);
        }
        let sharing = config.shares_ports();
        let admin = match inherited.claim(&ListenAt::Tcp(config.admin.listen), "admin") {
            Some(inherited::Socket::Tcp(tcp)) => adopt(tcp)?,
            Some(inherited::Socket::Unix(_)) | None => {
                tcp(config.admin.listen, sharing).context("admin port")?
            }
        };
        inherited.finish()?;
        Ok(Self { datasources, admin })
    }
}

fn socket(
    listen: &Listen,
    datasource: &str,
    inherited: &mut Inherited,
) -> anyhow::Result<ListenSocket> {
    if let Some(socket) = inherited.claim(&listen.at, datasource) {
        let kind = match socket {
            inherited::Socket::Tcp(tcp) => Kind::Tcp(adopt(tcp)?),
            inherited::Socket::Unix(unix) => {
                unix.set_nonblocking(true)?;
                Kind::Unix { listener: UnixListener::from_std(unix)?, file: None }
            }
        };
        return Ok(ListenSocket { kind, closing: Closing::Leave });
    }
    let closing = match listen.port {
        Port::Own => Closing::Take,
        Port::Shared => Closing::HandOver,
    };
    let kind = match &listen.at {
        ListenAt::Tcp(address) => Kind::Tcp(tcp(*address, listen.port)?),
        ListenAt::Unix { path, mode } => {
            let bound = unix(path, *mode).with_context(|| format!("listen on {}", path.display()));
            let (listener, file) = bound?;
            Kind::Unix { listener, file: Some(file) }
        }
    };
    Ok(ListenSocket { kind, closing })
}

fn adopt(listener: std::net::TcpListener) -> anyhow::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener)?)
}

fn tcp(address: SocketAddr, port: Port) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(port == Port::Shared)?;
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

// === Unix sockets ===

/// The file of a Unix socket we bound; removed on drop, unless another took its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    id: FileId,
}

/// A file as the system tells it from others: device and inode.
type FileId = (u64, u64);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id_of(&self.path).is_ok_and(|id| id == self.id) {
            // Nobody is left to be told; a stale file is recognised at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file gets its permissions between bind and listen: before `listen` no connection is
/// possible, so there is no moment at which it is more open than configured.
fn unix(path: &Path, mode: u32) -> anyhow::Result<(UnixListener, SocketFile)> {
    make_way(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?).context("bind; may this user write to the folder?")?;
    let file = SocketFile { path: path.to_owned(), id: id_of(path)? };
    fs::set_permissions(path, Permissions::from_mode(mode)).context("set its mode")?;
    socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())?;
    Ok((listener, file))
}

/// Removes a socket that a process left behind. What is no socket, and a socket on which somebody
/// answers, stays, and is an error.
fn make_way(path: &Path) -> anyhow::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !found.file_type().is_socket() {
        bail!("there is a file of that name that is no socket; remove it or change `listen`");
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Ok(_) => bail!("another process listens there; stop it or change `listen`"),
        Err(error) => {
            return Err(anyhow::Error::new(error)
                .context("whether somebody listens there cannot be found out; remove the file"));
        }
    }
    // Another process may have put its own in the place of the one nobody answered on.
    if id_of(path)? == (found.dev(), found.ino()) {
        fs::remove_file(path).context("remove the socket nobody listens on")?;
    }
    Ok(())
}

fn id_of(path: &Path) -> io::Result<FileId> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Connections the system completes before we accept them.
const BACKLOG: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_nobody_answers_on_is_replaced_and_ours_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file behind");
        let (listener, file) = unix(&path, 0o600).unwrap();
        assert_eq!(mode_of(&path), 0o600);
        let error = format!("{:#}", unix(&path, 0o600).unwrap_err());
        assert!(error.contains("another process listens there"), "{error}");
        drop((listener, file));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_not_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "precious").unwrap();
        let error = format!("{:#}", unix(&path, 0o600).unwrap_err());
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        let (listener, file) = unix(&path, 0o666).unwrap();
        // Somebody else put a socket there in the meantime.
        fs::rename(&path, folder.path().join("old")).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop((listener, file));
        assert!(path.exists());
        drop(other);
    }

    /// A client in the queue of a socket that is closed as `closing` says, and the socket.
    fn with_a_client(closing: Closing) -> (ListenSocket, SocketAddr, std::net::TcpStream) {
        let listener = tcp("127.0.0.1:0".parse().unwrap(), Port::Shared).unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        (ListenSocket { kind: Kind::Tcp(listener), closing }, address, client)
    }

    #[tokio::test]
    async fn a_handed_over_socket_gets_no_new_client_and_loses_none() {
        let (socket, address, early) = with_a_client(Closing::HandOver);
        assert!(socket.hand_over());
        let patience = std::time::Duration::from_millis(300);
        let late = std::net::TcpStream::connect_timeout(&address, patience);
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let waiting: Vec<_> = socket.close().into_iter().map(|(_, address)| address).collect();
        assert_eq!(waiting, [early.local_addr().ok()]);
    }

    #[tokio::test]
    async fn who_waits_is_taken_or_left_to_the_successor() {
        let (socket, _, _client) = with_a_client(Closing::Take);
        assert!(!socket.hand_over());
        assert_eq!(socket.close().len(), 1);
        let (socket, _, _client) = with_a_client(Closing::Leave);
        assert!(socket.close().is_empty());
    }
}
