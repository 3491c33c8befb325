//! What a refusal is to the client and to the server: an error at its place, and not one byte.

use crate::harness::{Portcullis, Setup};
use crate::pg::Postgres;
use crate::raw::{self, Raw, bind, describe_portal, execute, frame, parse, query, sync};
use crate::recorder::{Recorder, contains};

const RULES: &str = "version: 1
rules:
  - id: no-unbounded-dml
    match: {statements: [update, delete], without: where}
    deny: {message: \"UPDATE and DELETE need a WHERE clause\"}
";

/// A name that occurs nowhere but in refused statements.
const MARK: &str = "xyzzy_refused";

struct Scene {
    _server: Postgres,
    recorder: Recorder,
    proxy: Portcullis,
}

impl Scene {
    fn new() -> Self {
        let server = Postgres::start();
        let recorder = Recorder::start(server.address());
        let proxy = Portcullis::start(&Setup::with_rules(recorder.address(), RULES));
        Self { _server: server, recorder, proxy }
    }

    fn login(&self) -> Raw {
        let raw = Raw::login(self.proxy.address(), "app");
        self.recorder.clear();
        raw
    }

    #[track_caller]
    fn assert_unseen(&self) {
        let seen = self.recorder.to_server();
        assert!(!contains(&seen, MARK.as_bytes()), "the refused statement reached the server");
    }
}

fn refused() -> String {
    format!("DELETE FROM orders /* {MARK} */")
}

#[test]
fn simple_query_is_refused_without_a_byte_to_the_server() {
    let scene = Scene::new();
    let mut raw = scene.login();
    let reply = raw.query(&refused());
    assert_eq!(reply.code(), "42501", "{:?}", reply.errors);
    let message = reply.errors[0].get(b'M');
    assert!(message.contains("no-unbounded-dml") || message.contains("WHERE"), "{message}");
    assert_eq!(reply.sequence, "EZ");
    assert_eq!(reply.status, b'I');
    assert!(scene.recorder.to_server().is_empty(), "idle and simple: nothing may be sent at all");
    // The connection is as good as before.
    assert_eq!(raw.query("select 41 + 1").value(), "42");
}

#[test]
fn refusal_in_a_transaction_fails_the_servers_transaction() {
    let scene = Scene::new();
    let mut raw = scene.login();
    assert_eq!(raw.query("begin").status, b'T');
    let insert = "insert into orders values (7001, 'acme', 1, 1, 'open', now())";
    assert_eq!(raw.query(insert).code(), "");
    let reply = raw.query(&refused());
    assert_eq!((reply.code(), reply.status), ("42501", b'E'));
    assert_eq!(
        raw.query("select 1").code(),
        "25P02",
        "the server itself is in a failed transaction"
    );
    // COMMIT of a failed transaction is a ROLLBACK.
    let commit = raw.query("commit");
    assert_eq!((commit.tags.join(","), commit.status), ("ROLLBACK".into(), b'I'));
    assert_eq!(raw.query("select count(*) from orders where id = 7001").value(), "0");
    scene.assert_unseen();
}

#[test]
fn refusal_in_a_pipeline_skips_to_sync_and_keeps_the_order() {
    let scene = Scene::new();
    let mut raw = scene.login();
    let run = |sql: &str| -> Vec<u8> {
        [parse("", sql), bind("", "", &[], false), describe_portal(""), execute("", 0)].concat()
    };
    let pipeline = [
        run("select 1"),
        run("select 2"),
        run(&refused()),
        run("insert into orders values (7002, 'acme', 1, 1, 'open', now())"),
        sync(),
        run("select 5"),
        sync(),
    ]
    .concat();
    raw.send_bytes(&pipeline);
    let first = raw.reply();
    let values: Vec<_> = first.rows.iter().map(|row| row[0].clone().unwrap()).collect();
    assert_eq!(values, [b"1", b"2"]);
    assert_eq!((first.code(), first.status), ("42501", b'I'));
    assert!(first.sequence.ends_with("EZ"), "nothing after the error but Sync: {}", first.sequence);
    assert_eq!(raw.reply().value(), "5");
    // The implicit transaction of the pipeline is rolled back as a whole, as without the proxy.
    assert_eq!(raw.query("select count(*) from orders where id = 7002").value(), "0");
    scene.assert_unseen();
}

#[test]
fn refused_alone_in_the_extended_protocol_sends_nothing() {
    let scene = Scene::new();
    let mut raw = scene.login();
    let reply = raw.extended(&refused(), &[], false);
    assert_eq!((reply.code(), reply.sequence.as_str(), reply.status), ("42501", "EZ", b'I'));
    assert!(scene.recorder.to_server().is_empty());
    assert_eq!(raw.extended("select $1::text", &["after"], false).value(), "after");
}

#[test]
fn several_statements_in_one_text_are_refused_as_one() {
    let scene = Scene::new();
    let mut raw = scene.login();
    let text =
        format!("insert into orders values (7003, 'acme', 1, 1, 'open', now()); {}", refused());
    assert_eq!(raw.query(&text).code(), "42501");
    assert_eq!(raw.query("select count(*) from orders where id = 7003").value(), "0");
    scene.assert_unseen();
}

#[test]
fn what_is_not_understood_is_not_forwarded() {
    let scene = Scene::new();
    let mut raw = scene.login();
    for (text, code) in [
        (format!("selekt 1 /* {MARK} */"), "42601"),
        (format!("select ( /* {MARK} */"), "42601"),
        (format!("select '{MARK}"), "42601"),
    ] {
        let reply = raw.query(&text);
        assert_eq!(reply.code(), code, "{text}: {:?}", reply.errors);
    }
    let mut body = MARK.as_bytes().to_vec();
    body.extend([0xff, 0xfe, 0]);
    raw.send_bytes(&frame(b'Q', &body));
    assert!(!raw.reply().code().is_empty(), "text that is not UTF-8");
    scene.assert_unseen();
    assert_eq!(raw.query("select 1").value(), "1");
}

#[test]
fn syntax_errors_point_at_the_place_as_the_server_does() {
    let scene = Scene::new();
    let direct_address = scene._server.address();
    for text in ["select 1 frm orders x y", "selekt 1", "insert into", "select 'äöü' frm x y z"]
    {
        let ours = Raw::login(scene.proxy.address(), "app").query(text);
        let theirs = Raw::login(direct_address, "app").query(text);
        for letter in [b'C', b'M', b'P'] {
            let field = char::from(letter);
            assert_eq!(
                ours.errors[0].get(letter),
                theirs.errors[0].get(letter),
                "{field} of {text}"
            );
        }
    }
}

#[test]
fn fast_path_function_calls_are_refused() {
    let scene = Scene::new();
    let mut raw = scene.login();
    // set_config, lo_get, pg_read_file, query_to_xml, pg_terminate_backend, pg_sleep
    for oid in [2078_u32, 3458, 2624, 2924, 2096, 2626] {
        let mut body = oid.to_be_bytes().to_vec();
        body.extend([0, 0, 0, 0, 0, 0]);
        raw.send_bytes(&frame(b'F', &body));
        let reply = raw.reply();
        assert_eq!((reply.code(), reply.sequence.as_str()), ("42501", "EZ"), "function {oid}");
    }
    assert!(scene.recorder.to_server().is_empty());
    assert_eq!(raw.query("select 1").value(), "1");
}

#[test]
fn malformed_frames_end_one_connection_and_no_other() {
    let scene = Scene::new();
    let mut bystander = scene.login();
    let hostile: Vec<Vec<u8>> = vec![
        vec![b'Q', 0, 0, 0, 3],
        vec![b'Q', 0xff, 0xff, 0xff, 0xff],
        vec![b'Q', 0x7f, 0xff, 0xff, 0xff],
        vec![b'Q', 0x80, 0, 0, 0],
        vec![0, 0, 0, 0, 4],
        frame(b'!', &[]),
        frame(b'P', &[]),
        frame(b'B', &[0]),
        frame(b'E', b"no terminator"),
        frame(b'S', b"Sync has no body"),
    ];
    for bytes in hostile {
        let mut raw = Raw::login(scene.proxy.address(), "app");
        raw.send_bytes(&bytes);
        raw.send_bytes(&sync());
        let reply = raw.reply();
        assert!(!reply.errors.is_empty(), "no error for {}", raw::hex(&bytes));
        assert_eq!(bystander.query("select 1").value(), "1");
    }
}

#[test]
fn a_length_field_does_not_cost_memory() {
    let scene = Scene::new();
    let mut raw = scene.login();
    // Claims 1 GiB and sends little: refused by the declared length, or never reserved.
    raw.send_bytes(&[b'Q', 0x3f, 0xff, 0xff, 0xff]);
    raw.send_bytes(&[b'x'; 4096]);
    let reply = raw.reply();
    assert!(!reply.errors.is_empty());
    let resident = scene.proxy.metric("process_resident_memory_bytes");
    assert!(resident < 256e6, "{resident} bytes resident");
}

#[test]
fn a_shadow_rule_changes_nothing_and_a_warn_rule_only_tells() {
    let rules = RULES.replace("    deny:", "    mode: shadow\n    deny:")
        + "  - id: tell-about-truncate
    match: {statements: [truncate]}
    deny: {message: \"TRUNCATE is watched\"}
    mode: warn
";
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::with_rules(server.address(), &rules));
    server.admin("grant truncate on orders to app");
    let mut raw = Raw::login(proxy.address(), "app");
    let shadow = raw.query("begin; delete from orders; rollback");
    assert_eq!((shadow.code(), shadow.notices.len()), ("", 0));
    let warned = raw.query("begin; truncate orders; rollback");
    assert_eq!(warned.code(), "");
    assert!(warned.notices.iter().any(|notice| notice.get(b'M').contains("TRUNCATE is watched")));
    let trail = proxy.finish().join("\n");
    assert!(trail.contains("no-unbounded-dml"), "the shadow rule is in the audit trail");
}

#[test]
fn queries_and_extended_messages_may_be_mixed() {
    let scene = Scene::new();
    let mut raw = scene.login();
    let bytes = [query("select 1"), query(&refused()), query("select 3")].concat();
    raw.send_bytes(&bytes);
    assert_eq!(raw.reply().value(), "1");
    assert_eq!(raw.reply().code(), "42501");
    assert_eq!(raw.reply().value(), "3");
    scene.assert_unseen();
}
