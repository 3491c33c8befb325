use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use tokio::task::JoinSet;

use super::*;
use crate::auth::issuer_tests::{Signer, key_set};
use crate::auth::jwks::Algorithm;

const S: u64 = 1_000_000;

fn bounds() -> Bounds {
    let (cache, retry, keep) = (600, 30, 3600);
    Bounds {
        cache: Duration::from_secs(cache),
        retry: Duration::from_secs(retry),
        keep: Duration::from_secs(keep),
    }
}

fn fetcher() -> Fetcher {
    let authorities = crate::tls::Authorities::System;
    Fetcher { authorities, timeout: Duration::from_secs(5), bytes_max: KEY_SET_BYTES_MAX }
}

/// A server of this machine that gives one answer to everything.
struct Publisher {
    base: String,
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicU64>,
}

impl Publisher {
    fn start(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicU64::new(0)));
        let (shown, count) = (Arc::clone(&answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    request.extend(byte);
                }
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(&shown.lock().unwrap());
            }
        });
        Self { base, answer, asked }
    }

    fn says(&self, answer: Vec<u8>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn origin(&self) -> Origin {
        let location = Location::parse(&format!("{}/keys", self.base)).unwrap();
        Origin::Url(location, fetcher())
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn set_of(id: &str) -> Vec<u8> {
    key_set(&[Signer::p256().jwk(id)])
}

fn knows(keys: Option<Arc<KeySet>>, id: &str) -> bool {
    keys.is_some_and(|keys| keys.candidates(Some(id), Algorithm::Es256).count() == 1)
}

#[test]
fn a_read_begins_once_and_not_too_often() {
    let retry = Duration::from_secs(30);
    let mut schedule = Schedule::default();
    assert_eq!(schedule.ask(0, retry), Asked::Begins);
    assert_eq!(schedule.ask(0, retry), Asked::Runs);
    schedule.begin(S);
    assert_eq!(schedule.ask(100 * S, retry), Asked::Runs);
    schedule.pending = false;
    assert_eq!(schedule.ask(31 * S - 1, retry), Asked::TooSoon);
    assert_eq!(schedule.ask(31 * S, retry), Asked::Begins);
}

#[test]
fn keys_are_good_for_a_bounded_time() {
    let source = KeySource::new("i", Origin::File("/nowhere".into()), bounds());
    assert!(source.keys(0).is_none());
    source.take(KeySet::parse(&set_of("a")).unwrap(), 5 * S);
    assert!(knows(source.keys(5 * S), "a"));
    assert!(knows(source.keys(3605 * S), "a"));
    assert!(source.keys(3605 * S + 1).is_none(), "the issuer was not reached for too long");
    let fixed = KeySource::fixed("i", KeySet::of_secret(vec![1; 32]).unwrap());
    assert!(fixed.keys(u64::MAX).is_some());
}

#[tokio::test]
async fn a_rotation_is_noticed_by_a_token_and_a_storm_of_unknown_names_asks_once() {
    let publisher = Publisher::start(ok(&set_of("a")));
    let source = Arc::new(KeySource::new("i", publisher.origin(), bounds()));
    let clock = Clock::start();
    let its = clock.clone();
    let keeping = Arc::clone(&source);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { keeping.keep_current(its).await });
    // The first read runs, or has ended: whoever comes meanwhile waits for it.
    let mut rounds = source.rounds.subscribe();
    rounds.wait_for(|rounds| *rounds > 0).await.unwrap();
    assert!(knows(source.keys(clock.now().mono_us), "a"));

    publisher.says(ok(&set_of("b")));
    let now = clock.now().mono_us;
    assert!(source.renewed(now).await.is_none(), "too soon after the first read");
    let later = now + 31 * S;
    let mut storm = JoinSet::new();
    for _ in 0..200 {
        let source = Arc::clone(&source);
        storm.spawn(async move { source.renewed(later).await });
    }
    let found = storm.join_all().await;
    assert!(found.into_iter().flatten().all(|keys| knows(Some(keys), "b")));
    assert!(knows(source.keys(later), "b"));
    assert!(!knows(source.keys(later), "a"), "a key that was taken back is not used");
    assert!(publisher.asked() <= 3, "asked {} times", publisher.asked());
}

#[tokio::test]
async fn an_outage_keeps_the_keys_for_a_while() {
    let publisher = Publisher::start(ok(&set_of("a")));
    let retry = Duration::ZERO;
    let source = Arc::new(KeySource::new("i", publisher.origin(), Bounds { retry, ..bounds() }));
    let clock = Clock::start();
    let its = clock.clone();
    let keeping = Arc::clone(&source);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { keeping.keep_current(its).await });
    source.rounds.subscribe().wait_for(|rounds| *rounds > 0).await.unwrap();
    for answer in [
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ok(b"<html>"),
        ok(br#"{"keys":[]}"#),
        ok(&vec![b' '; KEY_SET_BYTES_MAX + 1]),
        b"nonsense".to_vec(),
        Vec::new(),
    ] {
        publisher.says(answer);
        let now = clock.now().mono_us;
        assert!(knows(source.renewed(now).await, "a"));
    }
    assert!(source.keys(clock.now().mono_us + 3601 * S).is_none());
}

#[tokio::test]
async fn discovery_is_of_the_issuer_or_of_nobody() {
    let publisher = Publisher::start(Vec::new());
    let issuer = publisher.base.clone();
    let origin = Origin::Discovery(issuer.clone(), fetcher());
    let keys = Publisher::start(ok(&set_of("a")));
    let document = json!({"issuer": issuer, "jwks_uri": format!("{}/keys", keys.base)});
    publisher.says(ok(document.to_string().as_bytes()));
    assert_eq!(origin.read().await.unwrap().len(), 1);
    let foreign =
        json!({"issuer": "https://other.example", "jwks_uri": format!("{}/keys", keys.base)});
    publisher.says(ok(foreign.to_string().as_bytes()));
    let error = format!("{:#}", origin.read().await.unwrap_err());
    assert!(error.contains("another issuer"), "{error}");
}

#[test]
fn a_discovery_document_cannot_lead_to_plain_text_or_to_a_file() {
    let from = discovery_of("https://id.example/realm/").unwrap();
    assert_eq!(from.to_string(), "https://id.example:443/realm/.well-known/openid-configuration");
    for (keys, fine) in [
        ("https://keys.example/set", true),
        ("http://127.0.0.1/set", false),
        ("http://keys.example/set", false),
        ("file:///etc/keys", false),
    ] {
        let document = json!({"issuer": "i", "jwks_uri": keys}).to_string();
        assert_eq!(keys_named_in(document.as_bytes(), "i", &from).is_ok(), fine, "{keys}");
    }
    assert!(keys_named_in(b"{}", "i", &from).is_err());
    assert!(discovery_of("https://id.example/?a=b").is_err());
    assert!(discovery_of("http://id.example").is_err());
}

#[tokio::test]
async fn files_are_read_with_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let origin = Origin::File(path.clone());
    assert!(origin.read().await.is_err());
    std::fs::write(&path, set_of("a")).unwrap();
    assert_eq!(origin.read().await.unwrap().len(), 1);
    std::fs::write(&path, vec![b' '; KEY_SET_BYTES_MAX * 2]).unwrap();
    assert!(format!("{:#}", origin.read().await.unwrap_err()).contains("longer than"));
}
