//! Sentinels name the primary, before and after a failover.

use std::time::Duration;

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::pki::Authority;
use crate::redis::{RawRedis, Redis, Reply};

/// How long Sentinels may take to agree on another primary and to tell it.
const FAILOVER: Duration = Duration::from_secs(60);

fn setup(sentinels: &[&Redis], more: &str) -> Setup {
    let mut setup = Setup::redis(sentinels[0].address());
    let list: Vec<_> =
        sentinels.iter().map(|sentinel| format!("\"{}\"", sentinel.address())).collect();
    setup.upstream_text = Some(format!("{{sentinels: [{}], master: main{more}}}", list.join(", ")));
    setup.datasource_extra = "\x20   upstream_tls: {mode: disable}\n".into();
    setup
}

#[test]
fn sessions_go_to_the_primary_before_and_after_a_failover() {
    let mut first = Redis::with_settings(&[]);
    let follow = format!("replicaof 127.0.0.1 {}", first.address().port());
    let second = Redis::with_settings(&[&follow]);
    let sentinel = Redis::sentinel(first.address(), &[]);
    let mut gone = Redis::with_settings(&[]);
    gone.kill();
    // One that cannot be asked is passed over.
    let proxy = Portcullis::start(&setup(&[&gone, &sentinel], ""));
    let mut client = RawRedis::connect(proxy.address());
    assert_eq!(client.command(&["SET", "k", "before"]), Reply::ok());
    wait_until("the replica has it", SOON, || {
        second.admin().command(&["GET", "k"]) == Reply::text("before")
    });
    wait_until("the Sentinel knows the replica", FAILOVER, || {
        let told = sentinel.admin().command(&["SENTINEL", "REPLICAS", "main"]);
        matches!(told, Reply::Array(Some(replicas)) if !replicas.is_empty())
    });
    first.kill();
    client.closed();
    wait_until("another primary serves", FAILOVER, || {
        let mut client = RawRedis::connect(proxy.address());
        client.command(&["SET", "k", "after"]) == Reply::ok()
    });
    assert_eq!(second.admin().command(&["GET", "k"]), Reply::text("after"));
    let second = format!("primary=127.0.0.1:{}", second.address().port());
    assert!(proxy.log().contains(&second), "{}", proxy.log());
}

#[test]
fn a_sentinel_is_logged_in_to_and_what_it_lacks_is_said() {
    let server = Redis::with_settings(&[]);
    let sentinel = Redis::sentinel(server.address(), &["requirepass sentinel-secret"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let with = |password: &str| {
        std::fs::write(&file, password).unwrap();
        let more = format!(", password_file: \"{}\"", file.display());
        Portcullis::start_unready(&setup(&[&sentinel], &more))
    };
    let proxy = with("sentinel-secret");
    let answer = RawRedis::connect(proxy.address()).command(&["PING"]);
    assert_eq!(answer, Reply::Simple("PONG".into()));
    let proxy = with("wrong");
    let answer = RawRedis::connect(proxy.address()).command(&["PING"]);
    assert!(!answer.error().contains("Sentinel"), "{answer:?}");
    assert!(proxy.log().contains("it refused the login"), "{}", proxy.log());
    let open = Redis::sentinel(server.address(), &[]);
    let mut unknown = setup(&[&open], "");
    unknown.upstream_text = unknown.upstream_text.map(|text| text.replace("main", "other"));
    let proxy = Portcullis::start_unready(&unknown);
    RawRedis::connect(proxy.address()).command(&["PING"]);
    assert!(proxy.log().contains("it knows no primary of this name"), "{}", proxy.log());
}

#[test]
fn sentinels_and_what_they_name_are_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, strange) = (Authority::new("ours"), Authority::new("strange"));
    let ca = ours.write(folder.path(), "ca").display().to_string();
    let (certificate, key) = ours.client("portcullis").write(folder.path(), "own");
    let named = ours.server(["127.0.0.1"]);
    let server = Redis::with_tls(&named, None, &[]);
    let sentinel = Redis::sentinel_with_tls(server.tls_address(), &named, &ours);
    let elsewhere = Redis::with_tls(&strange.server(["127.0.0.1"]), None, &[]);
    let astray = Redis::sentinel_with_tls(elsewhere.tls_address(), &named, &ours);
    for (sentinel, served) in [(&sentinel, true), (&astray, false)] {
        let mut setup = setup(&[sentinel], "");
        let plain = sentinel.address().to_string();
        let text = setup.upstream_text.take().unwrap();
        setup.upstream_text = Some(text.replace(&plain, &sentinel.tls_address().to_string()));
        setup.datasource_extra = format!(
            "\x20   upstream_tls: {{ca: \"{ca}\", certificate: \"{}\", key: \"{}\"}}\n",
            certificate.display(),
            key.display()
        );
        let proxy = Portcullis::start_unready(&setup);
        let answer = RawRedis::connect(proxy.address()).command(&["PING"]);
        let pong = answer == Reply::Simple("PONG".into());
        assert_eq!(pong, served, "{answer:?}\n{}", proxy.log());
    }
}
