//! Every known spelling that might reach a masked value, against canaries.
//!
//! `tests/corpus/canary.tsv` is data: `id<TAB>user<TAB>answer|refuse|either<TAB>statement`, `#`
//! starts a comment, `\n`, `\t` and `\\` are escapes. Each statement runs over the simple and the
//! extended protocol, text and binary. No byte the client receives may hold a piece of a canary.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::harness::{Portcullis, Setup};
use crate::pg::{Postgres, psql};
use crate::raw::{Raw, Reply, extended, frame, hex, query, sync};
use crate::recorder::{Recorder, contains};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/canary.tsv");

/// What the corpus must hold at least; a truncated file must not pass for a good one.
const CASES_MIN: usize = 200;

/// Text that only masked columns and the other tenant's rows hold.
const WORDS: [&str; 6] = ["7Xk9Zw4Vj", "Wp3Yh8Gd", "Jq6Rv2Tz", "Kz5Lw9Xp", "Bv8Nq3Hs", "Gt4Mc7Dy"];
/// Digits likewise: the middle of every card number, ids and amounts of the other tenant.
const NUMBERS: [&str; 3] = ["739518", "77300", "98765.43"];
/// A piece of a word this long is a leak.
const WORD_WINDOW: usize = 4;
/// Digits occur by chance (oids, times); a piece must be longer.
const DIGIT_WINDOW: usize = 5;

struct Case {
    id: String,
    user: String,
    expectation: String,
    statement: String,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(CORPUS).unwrap_or_else(|error| panic!("{CORPUS}: {error}"));
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let cases: Vec<Case> = lines
        .map(|line| {
            let fields: Vec<&str> = line.splitn(4, '\t').collect();
            assert_eq!(fields.len(), 4, "four fields: {line}");
            assert!(["answer", "refuse", "either"].contains(&fields[2]), "expectation: {line}");
            let statement = unescape(fields[3]);
            let [id, user, expectation] = [0, 1, 2].map(|index| fields[index].to_owned());
            Case { id, user, expectation, statement }
        })
        .collect();
    assert!(cases.len() >= CASES_MIN, "only {} cases in {CORPUS}", cases.len());
    let mut seen = BTreeMap::new();
    for case in &cases {
        assert!(seen.insert(case.id.clone(), ()).is_none(), "id {} twice", case.id);
    }
    cases
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match (character, character == '\\') {
            (_, true) => match rest.next() {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                Some('\\') => plain.push('\\'),
                // Any other escape is SQL's own.
                other => {
                    plain.push('\\');
                    plain.extend(other);
                }
            },
            (other, false) => plain.push(other),
        }
    }
    plain
}

/// Rows that hold canaries wherever `support` must not look.
fn fixture() -> String {
    let [local, domain, note, name, city, order] = WORDS;
    let [card, id, amount] = NUMBERS;
    format!(
        "TRUNCATE orders, customers;
         INSERT INTO customers SELECT n, 'acme', 'name ' || n, '{local}@{domain}.com',
            '411111{card}' || 1000 + n, date '1984-03-12' + n, 'Hamburg', 'note {note} ' || n
            FROM generate_series(1, 9) n;
         INSERT INTO customers SELECT {id}00 + n, 'globex', '{name}', '{local}@{domain}.com',
            '411111{card}' || 2000 + n, '1899-07-31', '{city}', '{note}'
            FROM generate_series(1, 9) n;
         INSERT INTO orders SELECT n, 'acme', 1 + n % 9, 10.5 * n, 'paid', '2025-01-06 09:00+00'
            FROM generate_series(1, 20) n;
         INSERT INTO orders SELECT {id}00 + n, 'globex', {id}00 + 1 + n % 9, {amount}, '{order}',
            '2025-01-06 09:00+00' FROM generate_series(1, 20) n;
         ANALYZE customers; ANALYZE orders;"
    )
}

/// Pieces of canaries in every spelling that is cheap to look for.
fn forbidden() -> Vec<Vec<u8>> {
    let pieces = |text: &str, length: usize| -> Vec<String> {
        let bytes = text.as_bytes().windows(length.min(text.len()));
        bytes.map(|window| String::from_utf8(window.to_vec()).unwrap()).collect()
    };
    let mut all = Vec::new();
    for word in WORDS {
        for piece in pieces(word, WORD_WINDOW) {
            let reversed: String = piece.chars().rev().collect();
            all.extend([piece.to_lowercase(), reversed.to_lowercase(), hex(piece.as_bytes())]);
        }
    }
    for number in NUMBERS {
        all.extend(pieces(number, DIGIT_WINDOW));
    }
    all.into_iter().map(String::into_bytes).collect()
}

/// The pieces found, apart from those the statement itself brought along.
///
/// Request ids are random and ours: four letters of one may be four letters of a value by chance.
fn leaks(received: &[u8], statement: &str, forbidden: &[Vec<u8>]) -> Vec<String> {
    let mut haystack = received.to_ascii_lowercase();
    let marker = b"request ";
    while let Some(at) = haystack.windows(marker.len()).position(|window| window == marker) {
        let id =
            haystack[at + marker.len()..].iter().take_while(|byte| byte.is_ascii_alphanumeric());
        let end = at + marker.len() + id.count();
        haystack.splice(at..end, *b"(id)");
    }
    let own = statement.to_lowercase();
    let found = forbidden
        .iter()
        .filter(|piece| contains(&haystack, piece) && !contains(own.as_bytes(), piece));
    found.map(|piece| String::from_utf8_lossy(piece).into()).collect()
}

/// Runs a statement to its end; one that waits for COPY data gets none.
fn run(raw: &mut Raw, statement: &str, protocol: &str) -> Reply {
    let no_data = frame(b'f', b"no data\0");
    if protocol == "simple" {
        raw.send_bytes(&query(statement));
        return raw.reply_answering_copy(&no_data);
    }
    raw.send_bytes(&extended(statement, &[], protocol == "binary"));
    // The server has dropped the first Sync while it waited for data.
    raw.reply_answering_copy(&[no_data, sync()].concat())
}

fn mismatch(case: &Case, protocol: &str, reply: &Reply) -> Option<String> {
    let (code, refused) = (reply.code(), !reply.errors.is_empty());
    let message = reply.errors.first().map_or("", |error| error.get(b'M'));
    if reply.status == 0 {
        return Some("the connection ended".into());
    }
    if refused && (code.len() != 5 || message.is_empty()) {
        return Some(format!("refused without a reason: {:?}", reply.errors));
    }
    // The extended protocol takes one statement only; the server says so itself.
    let several = protocol != "simple" && code == "42601";
    // Neither has every type a binary form.
    let no_binary = protocol == "binary" && code == "42883" && message.contains("binary output");
    match case.expectation.as_str() {
        "answer" if refused && !several && !no_binary => Some(format!("refused: {code} {message}")),
        "refuse" if !refused => Some(format!("answered with {} rows", reply.rows.len())),
        _ => None,
    }
}

/// Brings the rows back after a statement that may have changed them.
fn may_write(statement: &str) -> bool {
    let words = ["insert", "update", "delete", "merge", "copy", "truncate", "into", "create"];
    let lower = statement.to_lowercase();
    words.iter().any(|word| lower.contains(word))
}

#[test]
fn corpus_no_spelling_shows_a_canary() {
    let server = Postgres::start();
    server.admin(&fixture());
    // A superuser on the server: nothing but the proxy stands between the client and the rows.
    server.admin("ALTER ROLE support SUPERUSER");
    let mut bystander = Raw::login(server.address(), "app");
    bystander.query(&format!("select '{}'", WORDS[0]));
    let proxy = Portcullis::start(&Setup::demo(server.address()));
    let forbidden = forbidden();
    let mut report = String::new();
    for case in cases() {
        for protocol in ["simple", "extended", "binary"] {
            let mut raw = Raw::login(proxy.address(), &case.user);
            let reply = run(&mut raw, &case.statement, protocol);
            let leaked = leaks(&raw.received, &case.statement, &forbidden);
            if !leaked.is_empty() {
                writeln!(report, "LEAK {} {protocol}: {leaked:?}: {}", case.id, case.statement)
                    .unwrap();
            }
            if let Some(problem) = mismatch(&case, protocol, &reply) {
                writeln!(report, "{} {protocol}: {problem}: {}", case.id, case.statement).unwrap();
            }
            if may_write(&case.statement) {
                server.admin(&fixture());
            }
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

/// The net must have no hole of its own: without rules, the same search finds the canaries.
#[test]
fn corpus_search_finds_what_is_not_masked() {
    let server = Postgres::start();
    server.admin(&fixture());
    let proxy = Portcullis::start(&Setup::open(server.address()));
    let forbidden = forbidden();
    for (statement, pieces_min) in [
        ("select email from customers", 8),
        ("select reverse(notes) from customers", 5),
        ("select encode(city::bytea, 'hex') from customers", 5),
        ("select card_no from customers where tenant_id = 'acme'", 2),
        ("select amount from orders", 1),
    ] {
        for binary in [false, true] {
            let mut raw = Raw::login(proxy.address(), "support");
            raw.extended(statement, &[], binary);
            let found = leaks(&raw.received, statement, &forbidden).len();
            // A binary numeric has no digits to look for.
            let exempt = binary && statement.contains("amount");
            assert!(exempt || found >= pieces_min, "{statement}, binary {binary}: {found}");
        }
    }
}

#[test]
fn corpus_errors_carry_no_value() {
    let server = Postgres::start();
    server.admin(&fixture());
    server.admin("ALTER TABLE customers ADD CONSTRAINT one_mail UNIQUE (email, id)");
    server.admin("ALTER TABLE customers ADD CONSTRAINT no_x CHECK (name <> 'x')");
    let proxy = Portcullis::start(&Setup::demo(server.address()));
    let forbidden = forbidden();
    for statement in [
        "select email::int from customers",
        "select card_no::date from customers",
        "select notes::xml from customers",
        "select 1 / (length(email) - length(email)) from customers",
        "select to_date(email, 'YYYY') from customers",
        "select * from customers where name::int = 1",
        "select * from orders where status::int = 1",
        "select * from orders where amount::text::int = 1",
        "insert into customers select * from customers",
        "update customers set name = 'x' where id = 1",
        "update customers set id = 2 where id = 1",
        "delete from customers where id = 1",
        "delete from customers where city::int = 1",
        "insert into orders values (900, 'acme', 424242, 1, 'open', now())",
    ] {
        let mut raw = Raw::login(proxy.address(), "support");
        let reply = raw.query(statement);
        assert_eq!(leaks(&raw.received, statement, &forbidden), [""; 0], "{statement}");
        for error in &reply.errors {
            let detail = error.get(b'D');
            let own = detail.is_empty() || detail.starts_with("request ");
            assert!(own, "DETAIL of {statement}: {detail}");
        }
    }
}

/// The same through a real client, which also asks the catalogs its own questions.
#[test]
fn corpus_psql_receives_no_canary() {
    let server = Postgres::start();
    server.admin(&fixture());
    let proxy = Portcullis::start(&Setup::demo(server.address()));
    let recorder = Recorder::start(proxy.address());
    let forbidden = forbidden();
    for statement in [
        r"\d+ customers",
        r"\dt+",
        "table customers",
        "select * from customers c join orders o on o.customer_id = c.id",
        "select row_to_json(c) from customers c",
        r"\copy customers to stdout",
        "select * from pg_stats where tablename = 'customers'",
        "select query from pg_stat_activity",
    ] {
        let port = recorder.address().port();
        // Some of these are refused; only what comes back matters here.
        psql(port, "support", "demo").args(["-c", statement]).output().unwrap();
        let received = recorder.to_client();
        assert!(received.len() > 100, "{statement}: nothing was recorded");
        assert_eq!(leaks(&received, statement, &forbidden), [""; 0], "{statement}");
        recorder.clear();
    }
}
