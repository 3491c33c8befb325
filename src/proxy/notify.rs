//! Telling the service manager how far we are (`sd_notify`): `READY=1` once every socket is
//! served, `STOPPING=1` when draining begins, `WATCHDOG=1` while the main runtime turns.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::{debug, warn};

/// Where the service manager listens, if it does.
#[derive(Debug)]
pub(super) struct Manager {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear from us.
    pub(super) watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment tells.
    pub(super) fn of_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|path| {
            let connected = connect(&path);
            connected.inspect_err(|error| warn!(%error, "NOTIFY_SOCKET is not there")).ok()
        });
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let every = number("WATCHDOG_USEC").filter(|every| ours && *every > 0);
        Self { socket, watchdog: every.map(|us| Duration::from_micros(us) / 2) }
    }

    /// Tells it. A manager that does not listen is no reason to stop.
    pub(super) fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            debug!(%error, state, "the service manager was not told");
        }
    }
}

/// A path, or with `@` in front an abstract name.
fn connect(to: &OsString) -> io::Result<UnixDatagram> {
    let address = match to.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(to)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("portcullis-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let listening = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into()),
        ];
        for (manager, at) in listening {
            let told = Manager { socket: Some(connect(&at).unwrap()), watchdog: None };
            told.tell("READY=1");
            let mut heard = [0; 32];
            let length = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1");
        }
        Manager { socket: None, watchdog: None }.tell("READY=1");
    }
}
