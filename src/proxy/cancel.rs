//! Cancel requests: whose key it is, and handing it on to the server.
//!
//! A cancel arrives on a connection of its own with the key a client was given at login. The key
//! holds our secret, so knowing the server's process id is not enough, and the server's own secret
//! never leaves the proxy.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::upstream::Dial;
use crate::session::CancelKey;

/// The keys of one datasource's live sessions, by process id.
#[derive(Debug, Default)]
pub(crate) struct CancelRegistry {
    /// More than one per process id only when the address leads to several servers.
    keys: DashMap<u32, Vec<Registration>>,
}

#[derive(Debug)]
struct Registration {
    ours: CancelKey,
    theirs: CancelKey,
}

/// Keeps a key registered; dropping it forgets the key.
#[derive(Debug)]
pub(crate) struct CancelGuard {
    registry: Arc<CancelRegistry>,
    ours: CancelKey,
}

impl CancelRegistry {
    /// Registers a key until the guard is dropped.
    pub(crate) fn register(self: &Arc<Self>, ours: CancelKey, theirs: CancelKey) -> CancelGuard {
        self.keys.entry(ours.pid).or_default().push(Registration { ours: ours.clone(), theirs });
        CancelGuard { registry: Arc::clone(self), ours }
    }

    /// The server's key for one of ours.
    pub(crate) fn find(&self, key: &CancelKey) -> Option<CancelKey> {
        let candidates = self.keys.get(&key.pid)?;
        let found = candidates.iter().find(|held| same_secret(&held.ours.secret, &key.secret))?;
        Some(found.theirs.clone())
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some(mut held) = self.registry.keys.get_mut(&self.ours.pid) {
            held.retain(|registration| registration.ours != self.ours);
        }
        self.registry.keys.remove_if(&self.ours.pid, |_, held| held.is_empty());
    }
}

/// Sends a CancelRequest and waits until the server has taken it (it answers by closing).
///
/// # Errors
/// The server was not reached, or did not close within `patience`.
///
/// # Protocol
/// `length, 80877102, pid, secret`, on a connection of its own.
pub(crate) async fn forward<D: Dial>(
    dial: &D,
    key: &CancelKey,
    patience: Duration,
) -> io::Result<()> {
    let mut server = dial.dial().await?;
    let handed_over = async {
        server.write_all(&request(key)).await?;
        server.flush().await?;
        let mut ignored = [0u8; 64];
        while server.read(&mut ignored).await? > 0 {}
        Ok(())
    };
    tokio::time::timeout(patience, handed_over)
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
}

fn request(key: &CancelKey) -> Vec<u8> {
    let length = u32::try_from(key.secret.len()).unwrap_or_default().saturating_add(12);
    let mut bytes = Vec::with_capacity(12 + key.secret.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
    bytes.extend_from_slice(&key.pid.to_be_bytes());
    bytes.extend_from_slice(&key.secret);
    bytes
}

/// Compares in time that depends on the lengths only.
fn same_secret(ours: &[u8], theirs: &[u8]) -> bool {
    let difference = ours.iter().zip(theirs).fold(0u8, |sum, (a, b)| sum | (a ^ b));
    ours.len() == theirs.len() && std::hint::black_box(difference) == 0
}

/// The request code of CancelRequest.
const CANCEL_REQUEST: u32 = 80_877_102;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pid: u32, secret: &[u8]) -> CancelKey {
        CancelKey { pid, secret: secret.to_vec() }
    }

    #[test]
    fn keys_are_found_by_pid_and_secret_until_their_guard_goes() {
        let registry = Arc::new(CancelRegistry::default());
        let first = registry.register(key(7, b"aaaa"), key(7, b"real"));
        let second = registry.register(key(7, b"bbbb"), key(9, b"else"));
        assert_eq!(registry.find(&key(7, b"aaaa")), Some(key(7, b"real")));
        assert_eq!(registry.find(&key(7, b"bbbb")), Some(key(9, b"else")));
        for wrong in [key(7, b"aaab"), key(7, b""), key(7, b"aaaaa"), key(8, b"aaaa")] {
            assert_eq!(registry.find(&wrong), None, "{wrong:?}");
        }
        drop(first);
        assert_eq!(registry.find(&key(7, b"aaaa")), None);
        assert!(registry.find(&key(7, b"bbbb")).is_some());
        drop(second);
        assert!(registry.keys.is_empty());
    }

    #[test]
    fn a_request_is_sixteen_bytes() {
        let bytes = request(&key(0x0102_0304, &[5, 6, 7, 8]));
        assert_eq!(bytes, [0, 0, 0, 16, 4, 210, 22, 46, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
