//! Cost of rewriting one reply of Redis, beside finding its end only.

use std::hint::black_box;

use bytes::{Buf as _, BytesMut};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use portcullis::analysis::redis::Shape;
use portcullis::mask::{MaskKey, Masker};
use portcullis::name::{Glob, RuleId};
use portcullis::obligation::{MaskFn, Token, ValueMask};
use portcullis::session::resp::reshape::{Job, KeyMasks, Owed, Reshaper, With};
use portcullis::wire::queue::ByteQueue;
use portcullis::wire::resp::Protocol;
use portcullis::wire::resp::reply::Replies;

fn replies(c: &mut Criterion) {
    let partial = MaskFn::Partial { prefix: 2, suffix: 2, fill: '*' };
    let pairs = Shape::Pairs(Box::new(Shape::Field), Box::new(Shape::Value));
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let value = bulk("maria.schmidt@example.com");
    let fields: String =
        (0..10).map(|at| format!("{}{value}", bulk(&format!("field_{at}")))).collect();
    let hash = format!("*20\r\n{fields}");
    let list = format!("*100\r\n{}", value.repeat(100));
    let each = Shape::Each(Box::new(Shape::Value));
    let token = Token::new(Token::LENGTH, "").map_or(MaskFn::Nullify, MaskFn::TokenHmac);
    for (name, shape, mask, reply) in [
        ("get_partial", &Shape::Value, mask(None, &partial), &value),
        ("get_token", &Shape::Value, mask(None, &token), &value),
        ("hgetall_10_one_partial", &pairs, mask(Some("field_3"), &partial), &hash),
        ("hgetall_10_none", &pairs, mask(Some("other"), &partial), &hash),
        ("hgetall_10_all_partial", &pairs, mask(None, &partial), &hash),
        ("lrange_100_all_partial", &each, mask(None, &partial), &list),
        ("lrange_100_other", &Shape::Other, mask(None, &partial), &list),
    ] {
        one(c, name, (shape, &KeyMasks::new(&[mask])), reply.as_bytes());
    }
}

fn one(c: &mut Criterion, name: &str, (shape, masks): (&Shape, &KeyMasks), reply: &[u8]) {
    let Ok(key) = MaskKey::new(1, vec![7; 32].into()) else { return };
    let masker = Masker::with_key(&key);
    let with = With { masker: &masker, protocol: Protocol::Resp2 };
    let args: [&[u8]; 2] = [b"GET", b"user:17"];
    let owed =
        || Owed::One(Job::new(shape, &args[..], std::iter::once((b"user:17".as_slice(), masks))));
    let (mut reshaper, mut out) = (Reshaper::default(), ByteQueue::default());
    c.bench_function(&format!("reshape/{name}"), |b| {
        b.iter_batched_ref(
            || BytesMut::from(reply),
            |input| {
                let step = reshaper.feed(&owed(), with, input, &mut out);
                out.advance(out.len());
                black_box(step)
            },
            BatchSize::SmallInput,
        );
    });
    let mut replies = Replies::default();
    c.bench_function(&format!("reshape/{name}/end_only"), |b| {
        b.iter(|| black_box(replies.next(black_box(reply))));
    });
}

fn mask(field: Option<&str>, function: &MaskFn) -> ValueMask {
    ValueMask {
        pattern: "user:*".into(),
        fields: field.map(|field| [Glob::new(field)][..].into()),
        path: None,
        function: function.clone(),
        class: None,
        rule: RuleId("rule".into()),
    }
}

criterion_group!(benches, replies);
criterion_main!(benches);
