//! Conformance of every kind of event with the attributes OCSF asks for, and hostile names.

use std::net::SocketAddr;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::facts::{CommandUse, Verb};
use crate::name::RuleId;

pub(crate) fn rule(id: &str) -> RuleId {
    RuleId(id.into())
}

pub(crate) fn session() -> SessionRecord {
    SessionRecord {
        uid: "01K9S8Q6V4Z1".into(),
        datasource: "demo".into(),
        product: "PostgreSQL",
        protocol: "pg",
        user: "maria.s".into(),
        roles: vec!["support_l1".into()],
        account: None,
        subject: None,
        database: "orders".into(),
        application: "helpdesk-web".into(),
        client: Some(SocketAddr::from(([10, 20, 4, 17], 51544))),
        server: ("orders-db.internal".into(), 5432),
        began_us: 1_795_319_585_123_000,
        json: Prepared::default(),
    }
}

pub(crate) fn statement(verdict: RecordedVerdict) -> StatementRecord {
    StatementRecord {
        normalized: Some("SELECT id, email FROM customers WHERE city = ?".into()),
        fingerprint: "fp:77e0d1a1b2c3d4e5".into(),
        text_bytes: 51,
        verbs: vec![Verb::Select],
        relations: vec!["public.customers".into()],
        verdict,
        rules: vec![rule("mask-support-pii")],
        observed: vec![],
        masked: vec![],
        filtered: vec![],
        json: Prepared::default(),
    }
}

pub(crate) fn denied() -> StatementRecord {
    let verdict = RecordedVerdict::Denied {
        code: "42501".into(),
        reason: "rule no-unbounded-dml: DELETE needs a WHERE".into(),
    };
    StatementRecord {
        normalized: Some("DELETE FROM customers".into()),
        fingerprint: "fp:10aa77b0c4e1f902".into(),
        text_bytes: 21,
        verbs: vec![Verb::Delete],
        rules: vec![rule("no-unbounded-dml")],
        ..statement(verdict)
    }
}

pub(crate) fn masked() -> StatementRecord {
    StatementRecord {
        masked: vec![("public.customers.email".into(), "partial_email", Some("EMAIL".into()))],
        filtered: vec![("public.customers".into(), rule("tenant-isolation"))],
        ..statement(RecordedVerdict::Modified)
    }
}

pub(crate) fn decision(statement: StatementRecord, limited_by: Option<RuleId>) -> EventKind {
    EventKind::Decision {
        statement: Arc::new(statement),
        generation: 7,
        limited_by,
        extended: true,
    }
}

pub(crate) fn outcome(error: Option<[u8; 5]>) -> EventKind {
    EventKind::Outcome {
        statement: Arc::new(masked()),
        generation: 7,
        decision: 4,
        rows: 250,
        bytes: 18_233,
        duration_us: 12_345,
        error,
        extended: false,
    }
}

/// The same client at a key-value store.
pub(crate) fn store_session() -> SessionRecord {
    SessionRecord {
        product: "Redis",
        protocol: "redis",
        database: "0".into(),
        server: ("sessions-redis".into(), 6379),
        ..session()
    }
}

pub(crate) fn commands(verdict: RecordedVerdict) -> CommandRun {
    let read = CommandUse {
        name: "hget".into(),
        categories: vec!["read".into(), "hash".into(), "fast".into()],
        door: false,
        ends: false,
        unruled: false,
    };
    let mut record = CommandRecord::new(&read);
    record.patterns = vec!["customer:*".into()];
    record.rules = vec![rule("mask-support-pii")];
    if verdict == RecordedVerdict::Modified {
        record.masked = vec![RecordedMask {
            pattern: "customer:* email".into(),
            function: "partial_email",
            class: Some("EMAIL".into()),
        }];
    }
    record.verdict = verdict;
    CommandRun { record: Arc::new(record), generation: 7, database: 3, count: 64 }
}

/// The same commands, made to say an expiry.
fn rewritten() -> CommandRun {
    let run = commands(RecordedVerdict::Allowed);
    let expiry = Some(RecordedExpiry { ms: 3_600_000, rule: rule("sessions-end") });
    let verdict = RecordedVerdict::Modified;
    let record = CommandRecord { verdict, expiry, ..(*run.record).clone() };
    CommandRun { record: Arc::new(record), ..run }
}

#[test]
fn an_expiry_that_was_put_in_is_told_with_its_rule() {
    let kind = EventKind::CommandsDecided { run: rewritten(), limited_by: None };
    let written = read(&event(Some(store_session()), kind));
    assert_eq!(written["unmapped"]["portcullis"]["decision"], "rewritten");
    assert_eq!(written["policy"]["type"], "ttl");
    let expected = serde_json::json!([{
        "name": "expiry", "value": "3600000 ms", "type": "ttl", "data": {"rule": "sessions-end"}
    }]);
    assert_eq!(written["enrichments"], expected);
}

pub(crate) fn completed(failed: u64) -> EventKind {
    let error = (failed > 0).then(|| StoreError::of(b"-WRONGTYPE Operation against a key"));
    let result = RunResult { later: 36, failed, error, bytes: 2304, duration_us: 1_250 };
    EventKind::CommandsCompleted { run: commands(RecordedVerdict::Modified), decision: 4, result }
}

pub(crate) fn event(session: Option<SessionRecord>, kind: EventKind) -> Event {
    let at = Now { wall_us: 1_795_319_645_124_567, mono_us: 60_001_000 };
    Event { at, session: session.map(Arc::new), number: 5, kind }
}

fn encode(event: &Event) -> Vec<u8> {
    let instance = Instance::new("0.1.0", "pg-proxy-7c9d", "01KRUN", 42);
    let mut out = Vec::new();
    event.write_json(&instance, 9, &mut out);
    out
}

fn read(event: &Event) -> Value {
    serde_json::from_slice(&encode(event)).expect("one JSON object")
}

/// Attributes a class requires besides those of the base event, and the activities it knows.
/// Each group of names asks for at least one of them.
fn required(class: u64) -> (&'static [&'static [&'static str]], &'static [u64]) {
    match class {
        6005 => (
            &[&["actor"], &["src_endpoint"], &["dst_endpoint"], &["database", "table"]],
            &[1, 2, 3, 4, 5, 6, 7, 8, 99],
        ),
        3002 => (&[&["user"], &["service", "dst_endpoint"]], &[1, 2]),
        3004 => (&[&["entity"], &["actor"]], &[3, 4]),
        6002 => (&[&["app"]], &[3, 4]),
        2004 => (&[&["finding_info"]], &[1]),
        _ => panic!("no event has class {class}"),
    }
}

fn number(event: &Value, pointer: &str) -> u64 {
    event.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {event}"))
}

fn conforms(event: &Value) {
    let class = number(event, "/class_uid");
    let activity = number(event, "/activity_id");
    let (attributes, activities) = required(class);
    for names in attributes {
        assert!(names.iter().any(|name| event.get(name).is_some()), "{names:?}: {event}");
    }
    assert!(activities.contains(&activity), "activity {activity}: {event}");
    assert!(activity != 99 || event["activity_name"].is_string(), "{event}");
    assert_eq!(number(event, "/category_uid"), class / 1000);
    assert_eq!(number(event, "/type_uid"), class * 100 + activity);
    assert_eq!(number(event, "/time"), 1_795_319_645_124);
    assert!((1..=5).contains(&number(event, "/severity_id")));
    assert_eq!(event["metadata"]["version"], "1.8.0");
    assert_eq!(event["metadata"]["product"]["name"], "portcullis");
    assert_eq!(number(event, "/metadata/sequence"), 9);
    assert!(event["metadata"]["uid"].is_string());
    assert!(event["metadata"]["event_code"].is_string());
    assert!(event["message"].is_string());
    assert_eq!(event["device"]["type_id"], 99);
    assert_eq!(event["unmapped"]["portcullis"]["schema"], "1");
    details_conform(event);
}

fn details_conform(event: &Value) {
    if let Some(disposition) = event.get("disposition_id") {
        let known = [1, 2, 11, 14, 17, 19, 25, 26, 27];
        assert!(known.contains(&disposition.as_u64().unwrap()), "{event}");
        assert!((1..=4).contains(&number(event, "/action_id")));
    }
    if let Some(info) = event.get("query_info") {
        assert!(info["query_string"].is_string());
    }
    for enrichment in event["enrichments"].as_array().into_iter().flatten() {
        assert!(enrichment["name"].is_string() && enrichment["value"].is_string());
        assert!(enrichment["data"].is_object());
    }
    let policy = event.get("policy");
    assert!(policy.is_none_or(|policy| policy["name"].is_string()), "{event}");
}

#[test]
fn every_kind_conforms() {
    let s = || Some(session());
    let local = SessionRecord { client: None, roles: vec![], ..session() };
    let failed = EventKind::LoginFailed {
        code: "28P01".into(),
        method: Some("SCRAM-SHA-256"),
        reason: None,
    };
    let unknown = EventKind::LoginFailed { code: "08P01".into(), method: None, reason: None };
    let reload = |problems| EventKind::Reload {
        generation: 3,
        digest: "4be1a7".into(),
        problems,
        trigger: "file",
    };
    let allowed = StatementRecord { rules: vec![], ..statement(RecordedVerdict::Allowed) };
    let redis = || Some(store_session());
    let decided =
        |verdict, limited_by| EventKind::CommandsDecided { run: commands(verdict), limited_by };
    let closed = || RecordedVerdict::Denied { code: "NOPERM".into(), reason: "closed".into() };
    // (event, class, activity, action/disposition, status)
    let cases = [
        (
            event(redis(), EventKind::CommandsDecided { run: rewritten(), limited_by: None }),
            6005,
            1,
            Some((4, 11)),
            1,
        ),
        (event(s(), EventKind::SessionOpened { method: "trust" }), 3002, 1, Some((1, 1)), 1),
        (event(s(), failed), 3002, 1, Some((2, 26)), 2),
        (event(None, unknown), 3002, 1, Some((2, 26)), 2),
        (event(s(), EventKind::SessionClosed { end: "client" }), 6005, 99, Some((1, 1)), 1),
        (event(s(), decision(allowed, None)), 6005, 4, Some((1, 1)), 1),
        (event(Some(local), decision(masked(), None)), 6005, 4, Some((4, 11)), 1),
        (event(s(), decision(denied(), None)), 6005, 7, Some((2, 2)), 2),
        (event(s(), decision(masked(), Some(rule("per-min")))), 6005, 4, Some((2, 25)), 2),
        (event(s(), outcome(None)), 6005, 4, Some((4, 11)), 1),
        (event(s(), outcome(Some(*b"23505"))), 6005, 4, Some((4, 11)), 2),
        (event(redis(), decided(RecordedVerdict::Allowed, None)), 6005, 1, Some((1, 1)), 1),
        (event(redis(), decided(RecordedVerdict::Modified, None)), 6005, 1, Some((4, 11)), 1),
        (event(redis(), decided(closed(), None)), 6005, 1, Some((2, 2)), 2),
        (
            event(redis(), decided(RecordedVerdict::Allowed, Some(rule("per-min")))),
            6005,
            1,
            Some((2, 25)),
            2,
        ),
        (event(redis(), completed(0)), 6005, 1, Some((4, 11)), 1),
        (event(redis(), completed(2)), 6005, 1, Some((4, 11)), 2),
        (event(None, reload(0)), 3004, 3, Some((1, 1)), 1),
        (event(None, reload(2)), 3004, 3, Some((2, 25)), 2),
        (event(None, operator()), 3004, 4, Some((1, 1)), 1),
        (event(None, EventKind::Lifecycle { phase: "start" }), 6002, 3, None, 1),
        (event(None, EventKind::Lifecycle { phase: "stop" }), 6002, 4, None, 1),
        (event(None, EventKind::Gap { dropped: 12, since_us: 5 }), 2004, 1, Some((3, 19)), 1),
    ];
    for (event, class, activity, effect, status) in cases {
        let value = read(&event);
        conforms(&value);
        assert_eq!(number(&value, "/class_uid"), class, "{value}");
        assert_eq!(number(&value, "/activity_id"), activity, "{value}");
        assert_eq!(number(&value, "/status_id"), status, "{value}");
        let written = value
            .get("action_id")
            .map(|_| (number(&value, "/action_id"), number(&value, "/disposition_id")));
        assert_eq!(written, effect, "{value}");
    }
}

fn operator() -> EventKind {
    EventKind::Operator {
        action: "session.end",
        target: "01K9S8Q6V4Z1".into(),
        by: "127.0.0.1:50112".into(),
        right: "token",
    }
}

/// One event of each kind, as `docs/AUDIT.md` shows them.
fn examples() -> Vec<Event> {
    let own = |kind| event(Some(session()), kind);
    let reload = EventKind::Reload {
        generation: 8,
        digest: "4be1a7f0".into(),
        problems: 0,
        trigger: "file",
    };
    vec![
        own(EventKind::SessionOpened { method: "SCRAM-SHA-256" }),
        own(EventKind::LoginFailed {
            code: "28P01".into(),
            method: Some("SCRAM-SHA-256"),
            reason: None,
        }),
        own(decision(masked(), None)),
        own(decision(denied(), None)),
        own(decision(statement(RecordedVerdict::Allowed), Some(rule("analyst-30-per-minute")))),
        own(outcome(None)),
        event(
            Some(store_session()),
            EventKind::CommandsDecided {
                run: commands(RecordedVerdict::Modified),
                limited_by: None,
            },
        ),
        event(Some(store_session()), completed(2)),
        own(EventKind::SessionClosed { end: "client" }),
        event(None, reload),
        event(None, operator()),
        event(None, EventKind::Lifecycle { phase: "start" }),
        event(None, EventKind::Gap { dropped: 12, since_us: 1_795_319_645_001_000 }),
    ]
}

#[test]
fn the_documentation_shows_what_is_written() {
    let text = include_str!("../../docs/AUDIT.md");
    let shown: Vec<Value> = text
        .split("```json\n")
        .skip(1)
        .map(|rest| rest.split("```").next().and_then(|json| serde_json::from_str(json).ok()))
        .map(|example| example.expect("a JSON example"))
        .collect();
    let written: Vec<Value> = examples().iter().map(read).collect();
    assert_eq!(shown.len(), written.len());
    for (shown, written) in shown.iter().zip(&written) {
        assert_eq!(shown, written, "write this instead:\n{written}");
    }
}

#[test]
fn a_refusal_says_why_and_raises_an_alert() {
    let value = read(&event(Some(session()), decision(denied(), None)));
    assert_eq!(value["is_alert"], true);
    assert_eq!(value["status_code"], "42501");
    assert_eq!(value["status_detail"], "rule no-unbounded-dml: DELETE needs a WHERE");
    assert_eq!(value["unmapped"]["portcullis"]["forwarded"], false);
    assert_eq!(value["message"], "delete refused");
}

#[test]
fn a_limit_overrides_what_the_plan_says() {
    let value = read(&event(Some(session()), decision(masked(), Some(rule("per-min")))));
    assert_eq!(value["policy"]["name"], "per-min");
    assert_eq!(value["policy"]["type"], "rate_limit");
    assert_eq!(value["unmapped"]["portcullis"]["forwarded"], false);
}

#[test]
fn an_outcome_points_to_its_decision() {
    let value = read(&event(Some(session()), outcome(Some(*b"23505"))));
    assert_eq!(value["metadata"]["uid"], "01K9S8Q6V4Z1.5");
    assert_eq!(value["metadata"]["original_event_uid"], "01K9S8Q6V4Z1.4");
    assert_eq!(value["status_code"], "23505");
    assert_eq!(value["duration"], 12);
    let own = &value["unmapped"]["portcullis"];
    assert_eq!((&own["rows"], &own["bytes"]), (&Value::from(250), &Value::from(18_233)));
    assert_eq!(own["duration_us"], 12_345);
    assert_eq!(own["protocol"], "pg.simple");
    assert_eq!(own["decision"], "masked");
}

#[test]
fn masks_and_filters_are_enrichments() {
    let value = read(&event(Some(session()), decision(masked(), None)));
    assert_eq!(value["enrichments"][0]["value"], "public.customers.email");
    assert_eq!(value["enrichments"][0]["data"]["fn"], "partial_email");
    assert_eq!(value["enrichments"][1]["data"]["rule"], "tenant-isolation");
    assert_eq!(value["policy"]["type"], "mask");
}

#[test]
fn the_verb_with_the_greatest_consequence_names_the_event() {
    let cases: [(&[Verb], u64, &str); 5] = [
        (&[Verb::Explain, Verb::Delete], 7, "delete allowed"),
        (&[Verb::Select, Verb::Insert], 5, "insert allowed"),
        (&[Verb::Begin], 99, "begin allowed"),
        (&[Verb::Grant], 2, "grant allowed"),
        (&[], 99, "empty allowed"),
    ];
    for (verbs, activity, message) in cases {
        let record = statement(RecordedVerdict::Allowed);
        let record = StatementRecord { verbs: verbs.to_vec(), ..record };
        let value = read(&event(Some(session()), decision(record, None)));
        assert_eq!(number(&value, "/activity_id"), activity);
        assert_eq!(value["message"], message);
    }
}

#[test]
fn a_huge_event_stays_within_bounds_and_says_so() {
    let name = "\u{1}".repeat(70);
    let path = format!("{name}.{name}");
    let record = StatementRecord {
        normalized: Some("\u{7f}\"\\é".repeat(100_000)),
        relations: vec![path.clone(); 500],
        rules: vec![rule(&name); 500],
        observed: vec![rule(&name); 500],
        masked: vec![(format!("{path}.{name}"), "partial", Some(name.as_str().into())); 2_000],
        ..denied()
    };
    let session = SessionRecord {
        user: name.repeat(10),
        database: name.repeat(10),
        application: name.repeat(10),
        roles: vec![name.as_str().into(); 500],
        server: (name.repeat(10), 1),
        uid: name.repeat(10),
        ..session()
    };
    for kind in [decision(record.clone(), None), decision(record, Some(rule(&name)))] {
        let event = event(Some(session.clone()), kind);
        let bytes = encode(&event);
        assert!(bytes.len() <= ocsf::EVENT_BYTES_MAX, "{} bytes", bytes.len());
        let value = read(&event);
        conforms(&value);
        assert_eq!(value["metadata"]["is_truncated"], true);
        assert_eq!(value["unmapped"]["portcullis"]["masked_columns"], 2_000);
        assert!(number(&value, "/unmapped/portcullis/relations_omitted") > 400);
    }
}

#[test]
fn a_long_text_is_kept_only_as_far_as_events_hold_it() {
    for text in ["x".repeat(1 << 20), "é\u{10FFFF}".repeat(1 << 18)] {
        let record =
            StatementRecord::new("fp:1".into(), Some(text.clone()), text.len(), vec![], vec![]);
        assert!(record.normalized.as_ref().is_some_and(|kept| kept.capacity() < 9_000));
        let value = read(&event(Some(session()), decision(record, None)));
        assert_eq!(value["metadata"]["is_truncated"], true);
        assert_eq!(number(&value, "/unmapped/portcullis/text_bytes"), text.len() as u64);
        let query = value["query_info"]["query_string"].as_str().unwrap();
        assert!(query.len() > 8_180 && text.starts_with(query));
    }
}

#[test]
fn a_name_cannot_steer_a_terminal_or_break_a_line() {
    let user = "a\u{1b}[2J\u{85}\u{2028}\u{202e}\u{0}\r\n\u{9b}31m";
    let session = SessionRecord { user: user.into(), ..session() };
    let event = event(Some(session), EventKind::SessionClosed { end: "client" });
    let line = String::from_utf8(encode(&event)).expect("UTF-8");
    assert!(line.chars().all(|c| !c.is_control() && !('\u{2028}'..='\u{202e}').contains(&c)));
    assert_eq!(read(&event)["actor"]["user"]["name"], user);
}

#[test]
fn a_changed_clone_is_encoded_anew() {
    let first = session();
    read(&event(Some(first.clone()), EventKind::SessionClosed { end: "client" }));
    let renamed = SessionRecord { user: "other".into(), ..first };
    let value = read(&event(Some(renamed), EventKind::SessionClosed { end: "client" }));
    assert_eq!(value["actor"]["user"]["name"], "other");
}

proptest! {
    #[test]
    fn whatever_a_name_holds_comes_back(name in any::<String>(), text in any::<String>()) {
        let session = SessionRecord {
            user: name.clone(), application: name.clone(), database: name.clone(), ..session()
        };
        let record = StatementRecord {
            normalized: Some(text.clone()),
            relations: vec![name.clone()],
            ..masked()
        };
        let event = event(Some(session), decision(record, None));
        let bytes = encode(&event);
        prop_assert!(!bytes.contains(&b'\n') && bytes.len() <= ocsf::EVENT_BYTES_MAX);
        let value = read(&event);
        conforms(&value);
        // A cut value is the start of the original, never something else.
        let user = value["actor"]["user"]["name"].as_str().unwrap();
        let query = value["query_info"]["query_string"].as_str().unwrap();
        prop_assert!(name.starts_with(user) && text.starts_with(query));
        prop_assert!(user.len() == name.len() || value["metadata"]["is_truncated"] == true);
    }

    #[test]
    fn integers_print_as_they_are(value in any::<u64>()) {
        let mut out = Vec::new();
        json::integer(&mut out, value);
        prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
    }
}
