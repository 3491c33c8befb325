//! One value, one masked form: what the server computes for a column is what the proxy makes of
//! the same text.

use portcullis::mask::{Domain, Masked, Masker};
use portcullis::name::RuleId;
use portcullis::obligation::{DateUnit, MaskFn};
use proptest::strategy::{Strategy, ValueTree as _};
use proptest::string::string_regex;
use proptest::test_runner::TestRunner;

use crate::harness::{Portcullis, Setup};
use crate::pg::Postgres;
use crate::raw::Raw;

/// Values of each generated kind.
const GENERATED: usize = 60;

/// Column, its mask in a rule, and the same as the proxy has it.
fn text_masks() -> Vec<(&'static str, &'static str, MaskFn)> {
    let partial = |prefix, suffix, fill| MaskFn::Partial { prefix, suffix, fill };
    let email = |keep_domain| MaskFn::PartialEmail { keep_domain };
    vec![
        ("a", "partial_email", email(false)),
        ("b", "{partial_email: {keep_domain: true}}", email(true)),
        ("c", "pan_bin_last4", MaskFn::PanBinLast4 { bin: 6 }),
        ("d", "{pan_bin_last4: {bin: 8}}", MaskFn::PanBinLast4 { bin: 8 }),
        ("e", "partial", partial(0, 0, '*')),
        ("f", "{partial: {prefix: 2, suffix: 1, char: \"•\"}}", partial(2, 1, '•')),
        ("g", "{constant: \"it's\"}", MaskFn::Constant("it's".into())),
    ]
}

fn generated(runner: &mut TestRunner, pattern: &str) -> Vec<String> {
    let strategy = string_regex(pattern).unwrap();
    (0..GENERATED).map(|_| strategy.new_tree(runner).unwrap().current()).collect()
}

fn texts() -> Vec<String> {
    let long_address = format!("{}@{}.com", "a".repeat(300), "b".repeat(300));
    let edges = [
        "",
        "a",
        "ab",
        "abc",
        "é",
        "😀",
        "😀😀",
        "e\u{301}",
        "👩‍👩‍👧‍👦@b.com",
        "שלום@דוגמה.קום",
        "\u{202e}abc@b.com",
        "a@b.com",
        "ab@b.com",
        "é@b.com",
        "éa@b.com",
        "a@b@c.com",
        "@b.com",
        "a@",
        "a@b",
        "a@.com",
        "a@b.",
        "a@b..com",
        "a@b.c.",
        "a b@c.com",
        "a\n@b.com",
        "a@b.com\n",
        "a@b.com\n.x",
        "a\u{a0}b@c.com",
        "a\u{b}b@c.com",
        "a\u{1c}b@c.com",
        "ab@\u{2003}c.com",
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111/1111.1111",
        "card 4111111111111111",
        "٤١١١١١١١١١١١١١١١",
        "411111111111",
        "4111111111111",
        "١4111111111111",
        "4111\n111111111",
        "'quote'",
        "\\back\\slash",
        "\t",
        &long_address,
    ];
    let mut runner = TestRunner::deterministic();
    let mut texts: Vec<String> = edges.map(str::to_owned).into();
    for pattern in [
        "[a-zé😀.@ ]{0,12}",
        "[a-zä]{1,6}@[a-zä.]{1,8}[.][a-z]{2,3}",
        "[0-9 ./x-]{10,30}",
        "[0-9]{12,20}",
        "[^\u{0}]{0,30}",
        "[0-9]{4,20}[^\u{0}]{0,60}",
    ] {
        texts.extend(generated(&mut runner, pattern));
    }
    texts
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn masked(function: &MaskFn, value: &str) -> String {
    let mut out = Vec::new();
    let domain = Domain::of(None, &RuleId("r".into()));
    assert_eq!(
        Masker::default().apply(function, &domain, value.as_bytes(), &mut out),
        Masked::Value
    );
    String::from_utf8(out).unwrap()
}

/// The rows of a query through a proxy whose rules mask these columns.
fn through_rules(
    server: &Postgres,
    masks: &[(&'static str, &'static str, MaskFn)],
) -> Vec<Vec<Option<String>>> {
    let rules = masks.iter().map(|(column, mask, _)| {
        format!("  - {{id: m-{column}, match: {{columns: [public.t.{column}]}}, mask: {mask}}}\n")
    });
    let text = format!("version: 1\nrules:\n{}", rules.collect::<String>());
    let mut setup = Setup::open(server.address());
    setup.rules = vec![("masks.yaml".into(), text)];
    let proxy = Portcullis::start(&setup);
    let mut raw = Raw::login(proxy.address(), "app");
    let columns: Vec<&str> = masks.iter().map(|(column, ..)| *column).collect();
    let reply = raw.query(&format!("select {} from t order by id", columns.join(", ")));
    assert_eq!(reply.code(), "", "{:?}", reply.errors);
    let text =
        |value: &Option<Vec<u8>>| value.clone().map(|value| String::from_utf8(value).unwrap());
    reply.rows.iter().map(|row| row.iter().map(text).collect()).collect()
}

#[test]
fn texts_read_alike_from_a_column_and_from_a_value() {
    let server = Postgres::start();
    let (masks, texts) = (text_masks(), texts());
    let columns: Vec<&str> = masks.iter().map(|(column, ..)| *column).collect();
    let values: Vec<String> =
        texts.iter().enumerate().map(|(id, text)| format!("({id}, {})", quoted(text))).collect();
    server.admin(&format!(
        "create table t (id int, {} text); grant all on t to app; \
         insert into t select id{} from (values {}) v(id, text)",
        columns.join(" text, "),
        ", text".repeat(columns.len()),
        values.join(", ")
    ));
    let rows = through_rules(&server, &masks);
    assert_eq!(rows.len(), texts.len());
    for (row, text) in rows.iter().zip(&texts) {
        for (value, (_, mask, function)) in row.iter().zip(&masks) {
            assert_eq!(value.as_deref(), Some(&*masked(function, text)), "{mask} of {text:?}");
        }
    }
}

#[test]
fn numbers_and_dates_read_alike_from_a_column_and_from_a_value() {
    let server = Postgres::start();
    let month = || MaskFn::TruncateDate(DateUnit::Month);
    let bucket = || MaskFn::Bucket { width: 10, offset: 3 };
    let masks = [
        ("n", "{bucket: {width: 10, offset: 3}}", bucket()),
        ("i", "{bucket: {width: 10, offset: 3}}", bucket()),
        ("d", "{truncate_date: quarter}", MaskFn::TruncateDate(DateUnit::Quarter)),
        ("s", "{truncate_date: month}", month()),
        ("z", "{truncate_date: month}", month()),
    ];
    let mut runner = TestRunner::deterministic();
    let decimals = generated(&mut runner, "-?[0-9]{1,20}[.][0-9]{1,6}");
    let integers = generated(&mut runner, "-?[0-9]{1,17}");
    let days = generated(&mut runner, "[0-9]{3}[1-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])");
    let times = generated(&mut runner, "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{1,6}");
    let lines = (0..GENERATED).map(|at| {
        let (day, time) = (&days[at], &times[at]);
        [
            decimals[at].clone(),
            integers[at].clone(),
            day.clone(),
            format!("{day} {time}"),
            format!("{day} {time}+00"),
        ]
    });
    let lines: Vec<[String; 5]> = lines.collect();
    let values: Vec<String> = lines
        .iter()
        .enumerate()
        .map(|(id, line)| format!("({id}, {})", line.each_ref().map(|v| quoted(v)).join(", ")))
        .collect();
    server.admin(&format!(
        "alter database demo set timezone = 'UTC'; set timezone = 'UTC'; \
         create table t (id int, n numeric, i int8, d date, s timestamp, z timestamptz); \
         grant all on t to app; insert into t values {}",
        values.join(", ")
    ));
    for (row, line) in through_rules(&server, &masks).iter().zip(&lines) {
        for ((value, text), (_, mask, function)) in row.iter().zip(line).zip(&masks) {
            assert_eq!(value.as_deref(), Some(&*masked(function, text)), "{mask} of {text:?}");
        }
    }
}
