//! Sessions as an operator sees and ends them.

use std::fs;

use serde_json::Value;

use crate::harness::{Portcullis, SOON, Setup, portcullis, wait_until};
use crate::pg::Postgres;
use crate::raw::{Raw, query};

pub(crate) fn sessions(proxy: &Portcullis, filter: &str) -> Vec<Value> {
    let (status, body) = proxy.admin("GET", &format!("/sessions{filter}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["sessions"].as_array().unwrap().clone()
}

#[test]
fn an_operator_sees_every_connection_and_ends_one() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    let parameters = [("user", "app"), ("database", "demo"), ("application_name", "night\x1bjob")];
    let mut idle = Raw::try_login(proxy.address(), &parameters).unwrap();
    let mut busy = Raw::login(proxy.address(), "support");
    let _knocking = Raw::connect(proxy.address());
    idle.query("select 1");
    idle.query("select 2");
    busy.send_bytes(&query("begin; select pg_sleep(600)"));
    wait_until("all three are seen", SOON, || {
        let phases: Vec<_> = sessions(&proxy, "").iter().map(|one| one["phase"].clone()).collect();
        phases == ["idle", "busy", "login"]
    });
    let list = sessions(&proxy, "?user=app&datasource=demo");
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!((&list[0]["database"], &list[0]["method"]), (&"demo".into(), &"trust".into()));
    assert_eq!((&list[0]["statements"], &list[0]["tls"]), (&2.into(), &Value::Null));
    assert_eq!(list[0]["application"], "night\x1bjob");
    assert!(list[0]["bytes_from_client"].as_u64() > Some(40), "{list:?}");

    let admin = proxy.admin_address().to_string();
    let shown = portcullis(["sessions", "list", "--admin", &admin]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("night\\u{1b}job") && !shown.contains('\x1b'), "{shown:?}");
    let uid = sessions(&proxy, "?user=support")[0]["uid"].as_str().unwrap().to_owned();
    let ended = portcullis(["sessions", "end", &uid, "--admin", &admin]);
    assert!(ended.status.success(), "{ended:?}");
    let reply = busy.reply();
    assert_eq!((reply.code(), reply.status), ("57P01", 0));
    assert_eq!(reply.errors[0].get(b'M'), "terminating connection due to administrator command");
    wait_until("it is gone from the list", SOON, || sessions(&proxy, "?user=support").is_empty());
    let again = portcullis(["sessions", "end", &uid, "--admin", &admin]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert_eq!(idle.query("select 3").value(), "3", "the others go on");
    drop(idle);
    let trail = proxy.finish().join("\n");
    let asked = trail.find("\"event_code\":\"operator.session_end\"").expect("who asked");
    let closed = trail.find("\"end\":\"operator\"").expect("how it ended");
    assert!(asked < closed, "recorded before it is done");
    assert!(trail.contains(&format!("\"session_uid\":\"{uid}\",\"asked_by\":\"127.0.0.1:")));
}

#[test]
fn a_token_is_asked_for_and_is_in_no_log() {
    const TOKEN: &str = "correct-horse-battery-staple";
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let mut setup = Setup::open(server.address());
    setup.admin_extra = format!(", token_file: \"{}\"", file.display());
    let proxy = Portcullis::start(&setup);
    for (method, path) in [("GET", "/sessions"), ("DELETE", "/sessions/x"), ("POST", "/-/reload")] {
        assert_eq!(proxy.admin(method, path).0, 401, "{method} {path}");
    }
    let admin = proxy.admin_address().to_string();
    let refused = portcullis(["sessions", "list", "--admin", &admin]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let file = file.to_str().unwrap();
    let listed =
        portcullis(["sessions", "list", "--json", "--admin", &admin, "--token-file", file]);
    assert!(listed.status.success(), "{listed:?}");
    let log = proxy.log();
    assert!(log.contains("everyone can read it"), "the file's mode is told: {log}");
    let (_, metrics) = proxy.admin("GET", "/metrics");
    let trail = proxy.finish().join("\n");
    for text in [log, metrics, trail] {
        assert!(!text.contains(TOKEN), "{text}");
    }
}
