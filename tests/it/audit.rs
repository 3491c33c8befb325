//! What the audit file holds after real traffic, and what it must never hold.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::pg::Postgres;
use crate::raw::Raw;

/// Literals that statements carry; none may be in the trail.
const LITERALS: [&str; 4] = ["zaphod-literal", "8675309421", "slartibartfast", "secret-of-a-role"];

fn parse(lines: &[String]) -> Vec<Value> {
    let parse = |line: &String| -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    lines.iter().map(parse).collect()
}

fn text<'a>(event: &'a Value, path: &str) -> &'a str {
    event.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn number(event: &Value, path: &str) -> u64 {
    event.pointer(path).and_then(Value::as_u64).unwrap_or_default()
}

/// Events about statements: datastore activity that carries a query.
fn statements(events: &[Value]) -> Vec<&Value> {
    let is_statement =
        |event: &&Value| number(event, "/class_uid") == 6005 && event.get("query_info").is_some();
    events.iter().filter(is_statement).collect()
}

#[test]
fn every_statement_has_a_decision_and_an_outcome() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::demo(server.address()));
    let mut raw = Raw::login(proxy.address(), "support");
    let [a, b, c, _] = LITERALS;
    raw.query(&format!("select id, email from customers where name <> '{a}'"));
    raw.query(&format!("select count(*) from orders where id < {b}"));
    raw.extended(&format!("select $1::text, '{c}'"), &[a], false);
    raw.query("delete from customers");
    raw.query("select 1/0");
    raw.query(&format!("selekt '{a}'"));
    drop(raw);
    let events = parse(&proxy.finish());
    let statements = statements(&events);
    // Outcomes name the decision they belong to.
    let mut decisions: BTreeMap<&str, (&Value, usize)> = BTreeMap::new();
    let original = "/metadata/original_event_uid";
    for event in statements.iter().filter(|event| text(event, original).is_empty()) {
        let previous = decisions.insert(text(event, "/metadata/uid"), (event, 0));
        assert!(previous.is_none(), "one uid twice: {event}");
    }
    for event in statements.iter().filter(|event| !text(event, original).is_empty()) {
        let decision = decisions.get_mut(text(event, original));
        decision.unwrap_or_else(|| panic!("an outcome without decision: {event}")).1 += 1;
    }
    assert_eq!(decisions.len(), 6, "{decisions:#?}");
    for (decision, outcomes) in decisions.values() {
        let denied = number(decision, "/action_id") == 2;
        assert_eq!(*outcomes, usize::from(!denied), "outcomes of {decision}");
        assert_eq!(text(decision, "/actor/user/name"), "support");
        assert_eq!(text(decision, "/database/name"), "demo");
    }
    let of = |part: &str| -> &Value {
        let mut all = decisions.values().map(|(event, _)| *event);
        all.find(|event| text(event, "/query_info/query_string").contains(part))
            .unwrap_or_else(|| panic!("no decision about {part}"))
    };
    assert_eq!(number(of("email from customers"), "/action_id"), 4, "masked: modified");
    let refused = of("delete from customers");
    assert_eq!(number(refused, "/action_id"), 2);
    assert!(refused["policy"].to_string().contains("no-unbounded-dml"), "{refused}");
}

#[test]
fn no_literal_is_in_the_trail() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::demo(server.address()));
    let [a, b, c, d] = LITERALS;
    for user in ["app", "support", "analyst"] {
        let mut raw = Raw::login(proxy.address(), user);
        for sql in [
            format!("select '{a}', $tag${c}$tag$, E'{a}', U&'{c}', B'1', {b}"),
            format!("select {b}.5e3 from customers where name = '{a}' /* {c} */ -- {c}"),
            format!("insert into orders values ({b}, '{a}', 1, 1, '{c}', now())"),
            format!("set application_name = '{a}'"),
            format!("alter role app password '{d}'"),
            format!("create user mapping for app server s options (password '{d}')"),
            format!("copy customers from stdin with (null '{c}')"),
            format!("prepare p as select '{a}'; execute p({b})"),
            format!("do $$ begin perform '{c}'; end $$"),
            format!("select '{a}' broken syntax '{c}"),
            format!("notify door, '{a}'"),
        ] {
            raw.send_bytes(&crate::raw::query(&sql));
            raw.reply_answering_copy(&crate::raw::frame(b'f', b"no data\0"));
            let mut raw = Raw::login(proxy.address(), user);
            raw.send_bytes(&crate::raw::extended(&sql, &[], false));
            let fail = [crate::raw::frame(b'f', b"no data\0"), crate::raw::sync()].concat();
            raw.reply_answering_copy(&fail);
        }
    }
    let log = proxy.log();
    let (_, metrics) = proxy.admin("GET", "/metrics");
    let trail = proxy.finish().join("\n");
    assert!(trail.lines().count() > 100);
    for literal in LITERALS {
        for (place, content) in [("audit", &trail), ("log", &log), ("metrics", &metrics)] {
            let found = content.lines().find(|line| line.contains(literal));
            assert!(found.is_none(), "`{literal}` in the {place}: {found:?}");
        }
    }
}

#[test]
fn hostile_names_stay_inside_their_line() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    let name = "x\"}\n{\"class_uid\":6005,\u{1}\u{2028}\\";
    let parameters = [("user", "app"), ("database", "demo"), ("application_name", name)];
    let mut raw = Raw::try_login(proxy.address(), &parameters).unwrap();
    raw.query("select \"a\nb\" from customers");
    drop(raw);
    let failed = [("user", name), ("database", "demo")];
    Raw::try_login(proxy.address(), &failed).unwrap_err();
    let events = parse(&proxy.finish());
    let with_name = events.iter().filter(|event| {
        event.to_string().contains("2028") || event.to_string().contains('\u{2028}')
    });
    assert!(with_name.count() >= 2, "the names are recorded, escaped");
}

#[test]
fn sessions_logins_and_the_process_are_recorded() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    drop(Raw::login(proxy.address(), "app"));
    Raw::try_login(proxy.address(), &[("user", "nobody_here"), ("database", "demo")]).unwrap_err();
    wait_until("the sessions are over", SOON, || {
        proxy.metric("portcullis_client_connections") < 0.5
    });
    let events = parse(&proxy.finish());
    let count = |class: u64, status: u64| {
        let matching = events.iter().filter(|event| {
            number(event, "/class_uid") == class && number(event, "/status_id") == status
        });
        matching.count()
    };
    assert!(count(3002, 2) >= 1, "the failed login");
    assert!(count(6002, 1) >= 2, "start and stop of the process");
    assert!(events.iter().any(|event| text(event, "/status_code") == "28000"));
    let sequence: Vec<u64> =
        events.iter().map(|event| number(event, "/metadata/sequence")).collect();
    assert!(sequence.windows(2).all(|pair| pair[1] == pair[0] + 1), "no gap: {sequence:?}");
}

#[test]
fn a_killed_proxy_leaves_whole_lines() {
    let server = Postgres::start();
    let mut proxy = Portcullis::start(&Setup::open(server.address()));
    let mut raw = Raw::login(proxy.address(), "app");
    for n in 0..50 {
        assert_eq!(raw.query(&format!("select {n} as round")).value(), n.to_string());
    }
    wait_until("the writer has caught up", SOON, || {
        let lines = proxy.audit_lines();
        lines.iter().filter(|line| line.contains("as round")).count() >= 2 * 50
    });
    proxy.signal("KILL");
    proxy.wait(SOON).expect("killed");
    parse(&proxy.audit_lines());
}
