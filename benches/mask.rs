//! Cost of masking one value, by function, and of a leaf inside a JSON text.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::mask::{Domain, Mask, MaskKey, Masker};
use portcullis::name::RuleId;
use portcullis::obligation::{Alphabet, DateUnit, JsonPath, MaskFn, Token};

fn masks(c: &mut Criterion) {
    let (Ok(key), Ok(token), Ok(path)) = (
        MaskKey::new(1, vec![7; 32].into()),
        Token::new(Token::LENGTH, ""),
        JsonPath::parse("$.items[*].email"),
    ) else {
        return;
    };
    let masker = Masker::with_key(&key);
    let domain = Domain::of(Some("EMAIL_ADDRESS"), &RuleId("r".into()));
    let email = MaskFn::PartialEmail { keep_domain: false };
    let cases = [
        (MaskFn::Partial { prefix: 2, suffix: 2, fill: '*' }, "Maria Schmidt"),
        (email.clone(), "maria.schmidt@example.com"),
        (MaskFn::PanBinLast4 { bin: 6 }, "4111 1111 1111 1111"),
        (MaskFn::Bucket { width: 10, offset: 0 }, "42.5"),
        (MaskFn::TruncateDate(DateUnit::Month), "2024-05-17 12:30:00"),
        (MaskFn::HashKeyed, "maria.schmidt@example.com"),
        (MaskFn::TokenHmac(token), "maria.schmidt@example.com"),
        (MaskFn::FpeFf1(Alphabet::Digits), "4111 1111 1111 1111"),
    ];
    let mut out = Vec::with_capacity(4096);
    for (function, value) in &cases {
        c.bench_function(&format!("mask/{}", function.name()), |b| {
            b.iter(|| {
                out.clear();
                let _ = masker.apply(function, &domain, black_box(value.as_bytes()), &mut out);
                black_box(out.len())
            });
        });
    }
    let item = r#"{"id": 17, "email": "maria.schmidt@example.com", "note": "as agreed by phone"}"#;
    let json = format!("{{\"items\": [{}]}}", [item; 12].join(", "));
    let mask = Mask { function: &email, domain: &domain };
    c.bench_function("mask/json_1_kb_12_leaves", |b| {
        b.iter(|| {
            out.clear();
            let _ = masker.apply_at(&path, mask, black_box(json.as_bytes()), &mut out);
            black_box(out.len())
        });
    });
}

criterion_group!(benches, masks);
criterion_main!(benches);
