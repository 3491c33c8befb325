//! Where an issuer's keys come from, and keeping them current.
//!
//! One task reads them ahead of need: no login waits for an issuer that is slow, and an outage of
//! the issuer is no outage of ours until the keys have become too old. A token that names a key
//! nobody knows asks for one more read, because issuers change keys; not more often than the bounds
//! say, so that made-up names cost the issuer nothing. What cannot be read keeps what was there,
//! for a bounded time; after that no token is good.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwapOption;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::fetch::{Fetcher, Location};
use super::json;
use super::jwks::{KEY_SET_BYTES_MAX, KeySet};
use crate::proxy::clock::Clock;

/// Where keys are read.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file of ours.
    File(PathBuf),
    /// A published set.
    Url(Location, Fetcher),
    /// The set that the issuer's discovery document names. The text is the issuer.
    Discovery(String, Fetcher),
}

/// How often keys are read and how long they are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Read again after this.
    pub cache: Duration,
    /// After a failure, or for a key nobody knows, no sooner than this.
    pub retry: Duration,
    /// Keys that could not be read again for so long are not used any more.
    pub keep: Duration,
}

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeySource {
    /// For the log.
    issuer: String,
    origin: Option<Origin>,
    bounds: Bounds,
    held: ArcSwapOption<Held>,
    schedule: Mutex<Schedule>,
    wanted: Notify,
    /// How many reads have ended.
    rounds: watch::Sender<u64>,
}

#[derive(Debug)]
struct Held {
    keys: Arc<KeySet>,
    /// `None` for keys that do not age.
    read_us: Option<u64>,
}

/// Whether a read runs, and when the last one began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Schedule {
    pending: bool,
    begun_us: Option<u64>,
}

/// What asking for a read comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// It begins now.
    Begins,
    /// One runs already.
    Runs,
    /// The last one is too short a time ago.
    TooSoon,
}

// === impl KeySource ===

impl KeySource {
    /// Keys that are read from somewhere; none yet.
    pub fn new(issuer: &str, origin: Origin, bounds: Bounds) -> Self {
        Self::with(issuer, Some(origin), bounds, None)
    }

    /// Keys that never change.
    pub fn fixed(issuer: &str, keys: KeySet) -> Self {
        let forever = Bounds { cache: Duration::MAX, retry: Duration::MAX, keep: Duration::MAX };
        let held = Held { keys: Arc::new(keys), read_us: None };
        Self::with(issuer, None, forever, Some(held))
    }

    fn with(issuer: &str, origin: Option<Origin>, bounds: Bounds, held: Option<Held>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            origin,
            bounds,
            held: ArcSwapOption::from_pointee(held),
            schedule: Mutex::default(),
            wanted: Notify::new(),
            rounds: watch::Sender::new(0),
        }
    }

    /// The keys, unless there are none or they are too old.
    pub fn keys(&self, mono_us: u64) -> Option<Arc<KeySet>> {
        let held = self.held.load();
        let held = held.as_ref()?;
        let fresh = held.read_us.is_none_or(|read_us| {
            Duration::from_micros(mono_us.saturating_sub(read_us)) <= self.bounds.keep
        });
        fresh.then(|| Arc::clone(&held.keys))
    }

    /// The keys after one more read, if one may begin or runs. `None`: what is there is all there
    /// is for now. Cancel safe.
    pub async fn renewed(&self, mono_us: u64) -> Option<Arc<KeySet>> {
        self.origin.as_ref()?;
        // Before asking, so that a read that ends meanwhile is seen.
        let mut rounds = self.rounds.subscribe();
        match self.schedule().ask(mono_us, self.bounds.retry) {
            Asked::TooSoon => return None,
            Asked::Begins => self.wanted.notify_one(),
            Asked::Runs => {}
        }
        let ended = tokio::time::timeout(PATIENCE, rounds.changed()).await;
        ended.ok()?.ok()?;
        self.keys(mono_us)
    }

    /// Reads the keys again and again. Does not end.
    pub(crate) async fn keep_current(&self, clock: Clock) {
        let Some(origin) = &self.origin else { return std::future::pending().await };
        loop {
            self.schedule().begin(clock.now().mono_us);
            let wait = match origin.read().await {
                Ok(keys) => {
                    self.take(keys, clock.now().mono_us);
                    self.bounds.cache
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    warn!(issuer = self.issuer, error, "signing keys of tokens were not read");
                    self.bounds.retry
                }
            };
            self.schedule().pending = false;
            self.rounds.send_modify(|rounds| *rounds = rounds.wrapping_add(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    /// As if a read had just failed.
    #[cfg(test)]
    pub(super) fn tried(&self, mono_us: u64) {
        *self.schedule() = Schedule { pending: false, begun_us: Some(mono_us) };
    }

    fn take(&self, keys: KeySet, read_us: u64) {
        if self.held.load().is_none() {
            info!(issuer = self.issuer, keys = keys.len(), "signing keys of tokens read");
        }
        let held = Held { keys: Arc::new(keys), read_us: Some(read_us) };
        self.held.store(Some(Arc::new(held)));
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        // Two plain values, each written whole.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Schedule ===

impl Schedule {
    fn begin(&mut self, mono_us: u64) {
        *self = Self { pending: true, begun_us: Some(mono_us) };
    }

    fn ask(&mut self, mono_us: u64, retry: Duration) -> Asked {
        if self.pending {
            return Asked::Runs;
        }
        let since = self.begun_us.map(|begun| Duration::from_micros(mono_us.saturating_sub(begun)));
        if since.is_some_and(|since| since < retry) {
            return Asked::TooSoon;
        }
        self.pending = true;
        Asked::Begins
    }
}

// === impl Origin ===

impl Origin {
    /// Reads the keys once.
    ///
    /// # Errors
    /// They could not be read, or are none.
    pub async fn read(&self) -> anyhow::Result<KeySet> {
        match self {
            Self::File(path) => {
                let context = || format!("read {}", path.display());
                let file = tokio::fs::File::open(path).await.with_context(context)?;
                let mut text = Vec::new();
                let limit = u64::try_from(KEY_SET_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
                file.take(limit).read_to_end(&mut text).await.with_context(context)?;
                KeySet::parse(&text).with_context(context)
            }
            Self::Url(location, fetcher) => published(location, fetcher).await,
            Self::Discovery(issuer, fetcher) => {
                let location = discover(issuer, fetcher).await?;
                published(&location, fetcher).await
            }
        }
    }
}

async fn published(location: &Location, fetcher: &Fetcher) -> anyhow::Result<KeySet> {
    let text = fetcher.get(location).await?;
    KeySet::parse(&text).with_context(|| format!("key set of {location}"))
}

/// Where an issuer's discovery document (OpenID Connect Discovery 1.0) says its keys are.
async fn discover(issuer: &str, fetcher: &Fetcher) -> anyhow::Result<Location> {
    let location = discovery_of(issuer).map_err(anyhow::Error::msg)?;
    let text = fetcher.get(&location).await?;
    keys_named_in(&text, issuer, &location)
        .with_context(|| format!("discovery document {location}"))
}

/// Where the discovery document of an issuer is.
///
/// # Errors
/// A message for the author.
pub fn discovery_of(issuer: &str) -> Result<Location, String> {
    if issuer.contains('?') {
        return Err(format!("`{issuer}` is no issuer that can be discovered: it has a query"));
    }
    Location::parse(&format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')))
}

fn keys_named_in(text: &[u8], issuer: &str, from: &Location) -> anyhow::Result<Location> {
    let members = json::strict_object(text).context("not a JSON object")?;
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    ensure!(text("issuer") == Some(issuer), "it is of another issuer");
    let keys = text("jwks_uri").context("it names no `jwks_uri`")?;
    let keys = Location::parse(keys).map_err(anyhow::Error::msg)?;
    ensure!(
        keys.is_encrypted() || !from.is_encrypted(),
        "its keys are to be had in plain text only"
    );
    Ok(keys)
}

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Longest a login waits for keys to be read again.
const PATIENCE: Duration = Duration::from_secs(6);

#[cfg(test)]
mod tests;
