//! The admin port over a real socket.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::metrics::{Build, DatasourceLabels};

/// A running admin port; requests are answered by `reloads`.
struct Port {
    address: std::net::SocketAddr,
    status: Arc<Status>,
    reloads: mpsc::Receiver<ReloadRequest>,
    _stop: oneshot::Sender<()>,
}

#[expect(clippy::disallowed_methods, reason = "a test has no tracker")]
async fn start() -> Port {
    let build = Build { version: "0.1.0", commit: "abc", started_us: 0 };
    let labels = DatasourceLabels { name: "demo", protocol: "postgresql" };
    let status = Arc::new(Status::default());
    let (reload, reloads) = mpsc::channel(1);
    let state = AdminState {
        metrics: Metrics::new(build, &[labels]).expect("metrics"),
        status: Arc::clone(&status),
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

async fn request(address: std::net::SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").expect("a body").1.to_owned();
    (code, body)
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
