//! Cost of encoding one audit event: with its parts prepared, and the first of a plan.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use portcullis::event::{
    Event, EventKind, Instance, Now, Prepared, RecordedVerdict, SessionRecord, StatementRecord,
};
use portcullis::facts::Verb;
use portcullis::name::RuleId;

fn session() -> Arc<SessionRecord> {
    Arc::new(SessionRecord {
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
    })
}

fn statement() -> StatementRecord {
    StatementRecord {
        normalized: Some("SELECT id, email, card_no FROM customers WHERE city = ?".into()),
        fingerprint: "fp:77e0d1a1b2c3d4e5".into(),
        text_bytes: 60,
        verbs: vec![Verb::Select],
        relations: vec!["public.customers".into()],
        verdict: RecordedVerdict::Modified,
        rules: vec![RuleId("mask-support-pii".into())],
        observed: vec![],
        masked: vec![("public.customers.email".into(), "partial_email", Some("EMAIL".into()))],
        filtered: vec![("public.customers".into(), RuleId("tenant-isolation".into()))],
        json: Prepared::default(),
    }
}

fn encoding(c: &mut Criterion) {
    let instance = Instance::new("0.1.0", "pg-proxy-7c9d", "01KRUN", 42);
    let at = Now { wall_us: 1_795_319_645_124_567, mono_us: 1 };
    let event = |kind| Event { at, session: Some(session()), number: 5, kind };
    let decision = |statement| EventKind::Decision {
        statement: Arc::new(statement),
        generation: 7,
        limited_by: None,
        extended: true,
    };
    let outcome = event(EventKind::Outcome {
        statement: Arc::new(statement()),
        generation: 7,
        decision: 4,
        rows: 250,
        bytes: 18_233,
        duration_us: 12_345,
        error: None,
        extended: true,
    });
    let mut out = Vec::with_capacity(4096);
    for (name, event) in [("decision", event(decision(statement()))), ("outcome", outcome)] {
        c.bench_function(&format!("event/{name}"), |b| {
            b.iter(|| {
                out.clear();
                black_box(&event).write_json(&instance, 9, &mut out);
                black_box(out.len())
            });
        });
    }
    c.bench_function("event/first_of_a_plan", |b| {
        let fresh = || event(decision(statement()));
        b.iter_batched(
            fresh,
            |event| {
                out.clear();
                event.write_json(&instance, 9, &mut out);
                event
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, encoding);
criterion_main!(benches);
