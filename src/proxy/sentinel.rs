//! Asking Redis Sentinels which server is the primary.
//!
//! Each session that connects asks, as clients of Sentinels do, but for those that come within a
//! second of an answer. The first Sentinel that knows the primary is believed; what it names is
//! dialed as any server, so a certificate must be made out to the address it names. A Sentinel that
//! could not be asked, or knows nothing, is passed over for the next. Deliberately absent: a
//! subscription to `+switch-master`. Sentinels close the connections of a primary they demote, and
//! whoever comes back asks anew.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracing::info;

use super::leg::Stream;
use super::upstream::{Dialed, Upstream};
use crate::config::{SentinelGroup, ServerAddress};
use crate::session::auth::Secret;

/// The Sentinels of a datasource.
#[derive(Debug)]
pub(crate) struct Sentinels {
    servers: Vec<ServerAddress>,
    group: SentinelGroup,
    known: Mutex<Option<Known>>,
}

/// The last answer.
#[derive(Clone, Debug)]
struct Known {
    primary: ServerAddress,
    /// When it came, microseconds of the monotonic clock.
    at_us: u64,
}

impl Sentinels {
    /// Nothing is known yet.
    pub(crate) fn new(servers: &[ServerAddress], group: &SentinelGroup) -> Self {
        Self { servers: servers.to_vec(), group: group.clone(), known: Mutex::default() }
    }

    /// Where the primary is. Cancel safe.
    pub(super) async fn primary(&self, upstream: &Upstream) -> io::Result<ServerAddress> {
        let now_us = upstream.clock.now().mono_us;
        if let Some(known) = self.known().as_ref()
            && now_us.saturating_sub(known.at_us) < KEPT_US
        {
            return Ok(known.primary.clone());
        }
        let mut failures = Vec::new();
        for server in &self.servers {
            match upstream.within(self.ask(upstream, server)).await {
                Ok(primary) => return Ok(self.learnt(primary, now_us)),
                Err(error) => failures.push(format!("Sentinel {server}: {error}")),
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, failures.join("; ")))
    }

    /// The primary was not reached: whoever comes next asks.
    pub(super) fn forget(&self) {
        *self.known() = None;
    }

    fn learnt(&self, primary: ServerAddress, at_us: u64) -> ServerAddress {
        let before = self.known().replace(Known { primary: primary.clone(), at_us });
        if before.is_none_or(|known| known.primary != primary) {
            info!(master = self.group.master, %primary, "Sentinels name the primary");
        }
        primary
    }

    async fn ask(&self, upstream: &Upstream, server: &ServerAddress) -> io::Result<ServerAddress> {
        let Dialed { mut stream, tls, place } = upstream.connect_to(server, None).await?;
        let read = self.group.password.read().await.map_err(io::Error::other)?;
        if let Some(password) = read {
            let verified = tls.is_some_and(|peer| peer.certificate.is_some());
            if !verified && !place.is_local() {
                return Err(io::Error::other(NOT_TRUSTED));
            }
            let user = self.group.user.as_deref().unwrap_or("default").as_bytes();
            let words = [b"AUTH", user, Secret::bytes(&password)];
            stream.write_all(&command(&words)).await?;
            let mut replies = Replies::new(&mut stream);
            if !replies.line().await?.starts_with(b"+OK") {
                return Err(io::Error::other("it refused the login"));
            }
        }
        let words = [b"SENTINEL", &b"GET-MASTER-ADDR-BY-NAME"[..], self.group.master.as_bytes()];
        stream.write_all(&command(&words)).await?;
        Replies::new(&mut stream).address().await
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        // An answer is whole or not there.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads replies, each after its command: nothing is ever read that belongs to the next one.
struct Replies<'a, S> {
    stream: &'a mut S,
    read: Vec<u8>,
    at: usize,
}

impl<'a, S: Stream> Replies<'a, S> {
    fn new(stream: &'a mut S) -> Self {
        Self { stream, read: Vec::new(), at: 0 }
    }

    /// The next line without its end. Not cancel safe.
    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let rest = self.read.get(self.at..).unwrap_or_default();
            if let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
                let line = rest.get(..end).unwrap_or_default().to_vec();
                self.at += end + 2;
                return Ok(line);
            }
            if self.read.len() > REPLY_BYTES_MAX {
                return Err(io::Error::other(NOT_UNDERSTOOD));
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// `*2`, then host and port as bulk strings without a line end in them; or nothing.
    async fn address(&mut self) -> io::Result<ServerAddress> {
        let head = self.line().await?;
        match head.as_slice() {
            b"*2" => {}
            b"*-1" | b"_" => return Err(io::Error::other("it knows no primary of this name")),
            [b'-', ..] => return Err(io::Error::other(self.worded(&head))),
            _ => return Err(io::Error::other(NOT_UNDERSTOOD)),
        }
        let host = self.bulk().await?;
        let port = self.bulk().await?;
        let port = port.parse().ok().filter(|port: &u16| *port != 0);
        match port {
            Some(port) if !host.is_empty() => Ok(ServerAddress { host, port }),
            _ => Err(io::Error::other(NOT_UNDERSTOOD)),
        }
    }

    async fn bulk(&mut self) -> io::Result<String> {
        let head = self.line().await?;
        let text = self.line().await?;
        let announced = format!("${}", text.len());
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        let fits = head == announced.as_bytes() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(text) } else { Err(io::Error::other(NOT_UNDERSTOOD)) }
    }

    fn worded(&self, error: &[u8]) -> String {
        let text = String::from_utf8_lossy(error);
        format!("it said `{}`", text.trim_start_matches('-').escape_default())
    }
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

const NOT_TRUSTED: &str = "its password is not sent to another machine in plain text; set \
    `upstream_tls: {mode: verify-full}`";

const NOT_UNDERSTOOD: &str = "its answer was not understood; is it a Sentinel?";

/// How long an answer is good for.
const KEPT_US: u64 = 1_000_000;

/// Longest reply that is read.
const REPLY_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<String, String> {
        let (mut ours, mut theirs) = tokio::io::duplex(8192);
        theirs.write_all(bytes).await.unwrap();
        drop(theirs);
        let found = Replies::new(&mut ours).address().await;
        found.map(|address| address.to_string()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn an_address_is_read_and_nothing_else_is_taken_for_one() {
        let good = read(b"*2\r\n$9\r\n10.0.0.17\r\n$4\r\n6379\r\n").await;
        assert_eq!(good.unwrap(), "10.0.0.17:6379");
        assert_eq!(read(b"*2\r\n$3\r\n::1\r\n$2\r\n71\r\n").await.unwrap(), "[::1]:71");
        for wrong in [
            &b"*-1\r\n"[..],
            b"_\r\n",
            b"-NOAUTH Authentication required.\r\n",
            b"*2\r\n$9\r\n10.0.0.17\r\n$1\r\n0\r\n",
            b"*2\r\n$9\r\n10.0.0.17\r\n$5\r\n65536\r\n",
            b"*2\r\n$8\r\n10.0.0.17\r\n$4\r\n6379\r\n",
            b"*2\r\n$0\r\n\r\n$4\r\n6379\r\n",
            b"*2\r\n$3\r\na b\r\n$4\r\n6379\r\n",
            b"*3\r\n",
            b"+OK\r\n",
            b"*2\r\n$9\r\n10.0",
            &[b'*'; 8000],
        ] {
            let found = read(wrong).await;
            assert!(found.is_err(), "{}: {found:?}", String::from_utf8_lossy(wrong));
        }
        assert!(read(b"-NOAUTH a\r\n").await.unwrap_err().contains("NOAUTH"));
    }
}
