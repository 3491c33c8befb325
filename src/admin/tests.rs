//! The admin port over a real socket.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::metrics::{Build, DatasourceLabels};

/// A running admin port; requests are answered by `reloads`.
struct Port {
    address: SocketAddr,
    status: Arc<Status>,
    reloads: mpsc::Receiver<ReloadRequest>,
    _stop: oneshot::Sender<()>,
}

async fn start() -> Port {
    start_with(Rights::Local).await
}

#[expect(clippy::disallowed_methods, reason = "a test has no tracker")]
async fn start_with(rights: Rights) -> Port {
    let build = Build { version: "0.1.0", commit: "abc", started_us: 0 };
    let labels = DatasourceLabels { name: "demo", protocol: "postgresql" };
    let status = Arc::new(Status::default());
    let (reload, reloads) = mpsc::channel(1);
    let state = AdminState {
        metrics: Metrics::new(build, &[labels]).expect("metrics"),
        status: Arc::clone(&status),
        rights,
        sessions: Box::new(|| vec![report("01A", "ann"), report("01B", "bob")]),
        keys: Box::new(|| vec![key()]),
        end: Box::new(|request| match request.uid {
            "01A" => Ended::Told,
            "01B" => Ended::NotRecorded,
            _ => Ended::Unknown,
        }),
        reload,
        mono_us: Box::new(|| 90_000_000),
        collect: Box::new(|metrics| metrics.decision_cache(42, 0)),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(serve(listener, state, async {
        drop(stopped.await);
    }));
    Port { address, status, reloads, _stop: stop }
}

fn key() -> KeyReport {
    KeyReport {
        prefix: "4k2mzq8w9t".into(),
        user: "batch".into(),
        description: None,
        revoked: false,
        logins: 2,
        last_login_us: 7,
        refused: 0,
        last_refused_us: 0,
    }
}

fn report(uid: &str, user: &str) -> SessionReport {
    SessionReport {
        uid: uid.into(),
        datasource: "demo".into(),
        user: user.into(),
        database: "shop".into(),
        application: String::new(),
        client: None,
        tls: None,
        method: None,
        phase: "idle".into(),
        phase_s: 0.5,
        age_s: 1.0,
        began_us: 7,
        statements: 1,
        bytes_from_client: 2,
        bytes_to_client: 3,
    }
}

async fn request(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let (code, _, body) = request_with(address, method, path, "Host: localhost\r\n").await;
    (code, body)
}

/// Status, head, body.
async fn request_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    (code, head.to_owned(), body.to_owned())
}

async fn readyz(port: &Port) -> (u16, Value) {
    let (code, body) = request(port.address, "GET", "/readyz").await;
    (code, serde_json::from_str(&body).expect("JSON"))
}

#[tokio::test]
async fn ready_once_rules_and_catalogs_are_there() {
    let port = start().await;
    assert_eq!(request(port.address, "GET", "/livez").await, (200, "ok\n".to_owned()));
    port.status.await_catalog("demo");
    assert_eq!(readyz(&port).await.0, 503);
    port.status.set_rules_ok(3, "4be1a7");
    let (code, report) = readyz(&port).await;
    assert_eq!(
        (code, &report["reasons"][0]),
        (503, &Value::from("catalog of datasource `demo` not read yet"),)
    );
    port.status.set_catalog("demo", "shop", 30_000_000);
    let (code, report) = readyz(&port).await;
    assert_eq!((code, &report["ready"]), (200, &Value::from(true)));
    assert_eq!(report["rules"]["generation"], 3);
    assert_eq!(report["rules"]["digest"], "4be1a7");
    assert_eq!(report["catalogs"][0]["age_s"], 60);
}

#[tokio::test]
async fn a_refused_reload_is_told_and_does_not_make_unready() {
    let port = start().await;
    port.status.set_rules_ok(1, "aa");
    port.status.set_rules_problem(vec!["rules/a.yaml:3:7: unknown key `maks`".into()]);
    port.status.set_unknown_targets(vec!["public.custmers".into()]);
    let (code, report) = readyz(&port).await;
    assert_eq!(code, 200);
    assert_eq!(report["rules"]["last_reload_problems"][0], "rules/a.yaml:3:7: unknown key `maks`");
    assert_eq!(report["rules"]["unknown_targets"][0], "public.custmers");
    port.status.set_rules_ok(2, "bb");
    assert_eq!(readyz(&port).await.1["rules"]["last_reload_problems"], Value::Array(vec![]));
}

#[tokio::test]
async fn what_makes_it_unready() {
    let port = start().await;
    port.status.set_rules_ok(1, "aa");
    port.status.set_upstream("a", Err("connection refused".into()));
    assert_eq!(readyz(&port).await.0, 503);
    // One server that answers is enough to be sent clients.
    port.status.set_upstream("b", Ok(()));
    assert_eq!(readyz(&port).await.0, 200);
    port.status.set_audit(Err("no space left on device".into()));
    let (code, report) = readyz(&port).await;
    assert_eq!((code, &report["audit"]), (503, &Value::from("no space left on device")));
    port.status.set_audit(Ok(()));
    assert_eq!(readyz(&port).await.0, 200);
    port.status.set_draining();
    assert_eq!(readyz(&port).await.0, 503);
}

#[tokio::test]
async fn a_scrape_collects_first() {
    let port = start().await;
    let (code, body) = request(port.address, "GET", "/metrics").await;
    assert_eq!(code, 200);
    assert!(body.contains("portcullis_decision_cache_hits_total 42"), "{body}");
    assert!(body.contains("process_resident_memory_bytes"), "{body}");
}

#[tokio::test]
async fn a_reload_is_answered_by_whoever_reloads() {
    let mut port = start().await;
    assert_eq!(request(port.address, "GET", "/-/reload").await.0, 405);
    let answers = [
        (Ok(Reloaded { generation: 2, digest: "bb".into() }), 200, "\"generation\": 2"),
        (Err(vec!["a.yaml:1:1: no".to_owned()]), 422, "a.yaml:1:1: no"),
    ];
    for (answer, expected, text) in answers {
        let reloader = async {
            let request = port.reloads.recv().await.expect("a request");
            request.answer.send(answer).expect("somebody waits");
        };
        let ((code, body), ()) = tokio::join!(request(port.address, "POST", "/-/reload"), reloader);
        assert_eq!(code, expected);
        assert!(body.contains(text), "{body}");
    }
}

#[tokio::test]
async fn a_reload_nobody_can_take_is_refused() {
    let Port { address, reloads, _stop, .. } = start().await;
    drop(reloads);
    assert_eq!(request(address, "POST", "/-/reload").await.0, 503);
}

#[tokio::test]
async fn keys_are_listed() {
    let port = start().await;
    let (code, body) = request(port.address, "GET", "/keys").await;
    let list: KeyList = serde_json::from_str(&body).expect("JSON");
    assert_eq!((code, list.keys), (200, vec![key()]));
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let port = start().await;
    let users = async |path: &str| {
        let (code, body) = request(port.address, "GET", path).await;
        assert_eq!(code, 200, "{body}");
        let list: SessionList = serde_json::from_str(&body).expect("JSON");
        list.sessions.into_iter().map(|one| one.user).collect::<Vec<_>>()
    };
    assert_eq!(users("/sessions").await, ["ann", "bob"]);
    assert_eq!(users("/sessions?user=bob").await, ["bob"]);
    assert_eq!(users("/sessions?datasource=demo&user=ann").await, ["ann"]);
    assert!(users("/sessions?datasource=other").await.is_empty());
    assert_eq!(request(port.address, "GET", "/sessions?usr=bob").await.0, 400);
    for (uid, code) in [("01A", 202), ("01B", 503), ("01C", 404)] {
        assert_eq!(request(port.address, "DELETE", &format!("/sessions/{uid}")).await.0, code);
    }
}

/// Every verb with every right: what each answers.
#[tokio::test]
async fn each_verb_has_its_right() {
    const TOKEN: &str = "0123456789abcdef0123";
    let bearer = format!("Host: db.example\r\nAuthorization: Bearer {TOKEN}\r\n");
    let wrong = "Host: localhost\r\nAuthorization: Bearer 0123456789abcdef0124\r\n".to_owned();
    let basic = format!("Host: localhost\r\nAuthorization: Basic {TOKEN}\r\n");
    let local = "Host: 127.0.0.1:9464\r\n".to_owned();
    let page = "Host: localhost\r\nOrigin: http://localhost\r\n".to_owned();
    let rebound = "Host: evil.example\r\n".to_owned();
    let token = || Rights::Token(Token::new(TOKEN));
    // (rights of the port, headers, answer to the verbs that need a right; `None` lets through)
    let cases = [
        (token(), &bearer, None),
        (token(), &wrong, Some(401)),
        (token(), &basic, Some(401)),
        (token(), &local, Some(401)),
        (Rights::Local, &local, None),
        (Rights::Local, &bearer, Some(403)),
        (Rights::Local, &page, Some(403)),
        (Rights::Local, &rebound, Some(403)),
        (Rights::Nobody, &local, Some(403)),
        (Rights::Nobody, &bearer, Some(403)),
    ];
    for (rights, headers, refused) in cases {
        let shown = format!("{rights:?} {headers:?}");
        assert!(!format!("{rights:?}").contains(TOKEN), "a token is never shown");
        let Port { address, reloads, status, _stop } = start_with(rights).await;
        status.set_rules_ok(1, "aa");
        // A reload that is let through finds nobody to do it.
        drop(reloads);
        for (method, path, allowed) in
            [("GET", "/livez", 200), ("GET", "/readyz", 200), ("GET", "/metrics", 200)]
        {
            let (code, ..) = request_with(address, method, path, headers).await;
            assert_eq!(code, allowed, "{shown} {method} {path}");
        }
        for (method, path, allowed) in [
            ("GET", "/sessions", 200),
            ("GET", "/keys", 200),
            ("DELETE", "/sessions/01A", 202),
            ("DELETE", "/sessions/none", 404),
            ("POST", "/-/reload", 503),
        ] {
            let (code, head, _) = request_with(address, method, path, headers).await;
            assert_eq!(code, refused.unwrap_or(allowed), "{shown} {method} {path}");
            assert_eq!(code == 401, head.to_lowercase().contains("www-authenticate: bearer"));
        }
    }
}

#[test]
fn rights_follow_the_address_and_the_token() {
    let of = |address: &str, token: Option<Token>| Rights::of(address.parse().unwrap(), token);
    // A socket that was handed over need not be where the configuration says.
    let (local, everywhere) = ("127.0.0.1:1", "0.0.0.0:1".parse().unwrap());
    assert!(matches!(of(local, None).at(everywhere), Rights::Nobody));
    assert!(matches!(of(local, None).at(local.parse().unwrap()), Rights::Local));
    let token = Token::new("0123456789abcdef");
    assert!(matches!(of(local, Some(token)).at(everywhere), Rights::Token(_)));
    for local in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(matches!(of(local, None), Rights::Local), "{local}");
    }
    for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
        assert!(matches!(of(open, None), Rights::Nobody), "{open}");
        assert!(matches!(of(open, Some(Token::new("x"))), Rights::Token(_)), "{open}");
    }
    assert!(matches!(of("127.0.0.1:1", Some(Token::new("x"))), Rights::Token(_)));
}
