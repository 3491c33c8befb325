//! Sessions without sockets: what each side gets.

use super::fuzz::{RULES, Run, World, fuzz_session};
use crate::event::EventKind;
use crate::session::{EndCause, Session as _, Side};

mod expiry;
mod hostile;
mod leaving;
mod limits;

const GET_PII: &str = "*2\r\n$3\r\nGET\r\n$5\r\npii:1\r\n";
const GET_FREE: &str = "*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
const GET_SECRET: &str = "*2\r\n$3\r\nGET\r\n$8\r\nsecret:1\r\n";
const MULTI: &str = "*1\r\n$5\r\nMULTI\r\n";
const EXEC: &str = "*1\r\n$4\r\nEXEC\r\n";
const ABORT: &str = "*2\r\n$4\r\nexec\r\n$5\r\nabort\r\n";
const ABORTED: &str = "-EXECABORT Transaction discarded because of: wrong number of arguments for \
                       'exec' command\r\n";

fn world() -> World {
    World::with_rules(RULES).expect("rules")
}

impl Run<'_> {
    #[track_caller]
    fn client(&mut self, bytes: &str, server_gets: &str) {
        self.feed(Side::Client, bytes.as_bytes());
        let got = String::from_utf8_lossy(&std::mem::take(&mut self.to_server)).into_owned();
        assert_eq!(got, server_gets);
    }

    #[track_caller]
    fn server(&mut self, bytes: &str, client_gets: &str) {
        self.feed(Side::Server, bytes.as_bytes());
        self.client_got(client_gets);
    }

    #[track_caller]
    fn client_got(&mut self, expected: &str) {
        let got = String::from_utf8_lossy(&std::mem::take(&mut self.to_client)).into_owned();
        assert_eq!(got, expected);
    }
}

#[test]
fn a_refused_command_is_answered_in_its_place_and_never_sent() {
    let world = world();
    let mut run = Run::new(&world);
    let pipeline = [GET_FREE, GET_SECRET, GET_FREE].concat();
    run.client(&pipeline, &[GET_FREE, GET_FREE].concat());
    run.server(
        "$1\r\n1\r\n",
        "$1\r\n1\r\n-NOPERM rule `no-secrets`: a rule refuses this statement (request s.3)\r\n",
    );
    run.server("$1\r\n2\r\n", "$1\r\n2\r\n");
    let decided = run.events.iter().filter_map(|event| {
        let EventKind::CommandsDecided { run, .. } = &event.kind else { return None };
        Some((event.number, run.count))
    });
    assert_eq!(decided.collect::<Vec<_>>(), [(2, 1), (3, 1)]);
}

#[test]
fn values_are_masked_wherever_their_replies_stand() {
    let world = world();
    let mut run = Run::new(&world);
    run.client(&[GET_FREE, GET_PII].concat(), &[GET_FREE, GET_PII].concat());
    run.server("$3\r\nabc\r\n$6\r\ncanary\r\n", "$3\r\nabc\r\n$6\r\nHIDDEN\r\n");
    let transaction = [MULTI, GET_FREE, GET_PII, GET_FREE, EXEC].concat();
    run.client(&transaction, &transaction);
    run.server(
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n",
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n",
    );
    run.server(
        "*3\r\n$3\r\nabc\r\n$6\r\ncanary\r\n$3\r\ndef\r\n",
        "*3\r\n$3\r\nabc\r\n$6\r\nHIDDEN\r\n$3\r\ndef\r\n",
    );
}

#[test]
fn a_transaction_whose_beginning_was_not_heard_of_is_masked_as_well() {
    let world = world();
    let mut run = Run::new(&world);
    let skip = "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nSKIP\r\n";
    let transaction = [MULTI, GET_FREE, GET_PII, EXEC].concat();
    run.client(&[skip, &transaction].concat(), &transaction);
    run.server("+OK\r\n", "");
    run.server("+QUEUED\r\n+QUEUED\r\n", "+QUEUED\r\n+QUEUED\r\n");
    run.server("*2\r\n$3\r\nabc\r\n$6\r\ncanary\r\n", "*2\r\n$3\r\nabc\r\n$6\r\nHIDDEN\r\n");
}

#[test]
fn a_command_outside_of_a_transaction_is_one_by_itself() {
    let world = world();
    let mut run = Run::new(&world);
    let done = |run: &Run<'_>| run.session.progress().transactions;
    // Never idle: a second command is always under way.
    run.client(&GET_FREE.repeat(2), &GET_FREE.repeat(2));
    run.server("$1\r\n1\r\n", "$1\r\n1\r\n");
    let first = done(&run);
    run.client(GET_FREE, GET_FREE);
    run.server("$1\r\n2\r\n", "$1\r\n2\r\n");
    assert!(done(&run) > first);
    run.client(&[MULTI, GET_FREE].concat(), &[MULTI, GET_FREE].concat());
    let begun = done(&run);
    run.server("$1\r\n3\r\n+OK\r\n+QUEUED\r\n", "$1\r\n3\r\n+OK\r\n+QUEUED\r\n");
    assert_eq!(done(&run), begun, "one until EXEC");
    run.client(EXEC, EXEC);
    run.server("*1\r\n$1\r\n1\r\n", "*1\r\n$1\r\n1\r\n");
    assert!(done(&run) > begun);
}

#[test]
fn replies_of_a_transaction_that_do_not_add_up_are_not_guessed() {
    let world = world();
    let mut run = Run::new(&world);
    let transaction = [MULTI, GET_FREE, GET_PII, EXEC].concat();
    run.client(&transaction, &transaction);
    run.server("+OK\r\n+QUEUED\r\n+QUEUED\r\n", "+OK\r\n+QUEUED\r\n+QUEUED\r\n");
    run.feed(Side::Server, b"*1\r\n$6\r\ncanary\r\n");
    assert!(run.closed);
    assert!(!String::from_utf8_lossy(&run.to_client).contains("canary"));
}

#[test]
fn a_transaction_that_is_no_array_is_masked_all_over() {
    for reply in [
        "|1\r\n+a\r\n+canary\r\n*2\r\n$1\r\na\r\n$6\r\ncanary\r\n",
        "%1\r\n$1\r\na\r\n$6\r\ncanary\r\n",
        "~2\r\n$1\r\na\r\n$6\r\ncanary\r\n",
        "+canary\r\n",
    ] {
        let world = world();
        let mut run = Run::new(&world);
        let transaction = [MULTI, GET_FREE, GET_PII, EXEC].concat();
        run.client(&transaction, &transaction);
        run.server("+OK\r\n+QUEUED\r\n+QUEUED\r\n", "+OK\r\n+QUEUED\r\n+QUEUED\r\n");
        run.feed(Side::Server, reply.as_bytes());
        assert!(!String::from_utf8_lossy(&run.to_client).contains("canary"), "{reply:?}");
    }
}

#[test]
fn a_refusal_inside_a_transaction_keeps_it_from_running() {
    let world = world();
    let mut run = Run::new(&world);
    run.client(&[MULTI, GET_FREE].concat(), &[MULTI, GET_FREE].concat());
    run.server("+OK\r\n+QUEUED\r\n", "+OK\r\n+QUEUED\r\n");
    run.client(GET_SECRET, "");
    assert!(String::from_utf8_lossy(&run.to_client).starts_with("-NOPERM"));
    run.to_client.clear();
    run.client(&[EXEC, GET_FREE].concat(), &[ABORT, GET_FREE].concat());
    run.server(
        &[ABORTED, "$1\r\n1\r\n"].concat(),
        "-EXECABORT Transaction discarded because of previous errors.\r\n$1\r\n1\r\n",
    );
}

#[test]
fn what_was_queued_under_older_rules_is_not_executed() {
    let (before, mut after) = (world(), world());
    after.next_generation();
    let mut run = Run::new(&before);
    run.client(&[MULTI, GET_FREE].concat(), &[MULTI, GET_FREE].concat());
    run.server("+OK\r\n+QUEUED\r\n", "+OK\r\n+QUEUED\r\n");
    run.move_to(&after);
    run.client(EXEC, ABORT);
    run.server(ABORTED, "-EXECABORT Transaction discarded because of previous errors.\r\n");
}

#[test]
fn a_long_value_is_streamed_or_dropped_as_its_command_is_judged() {
    let world = world();
    for (key, passes) in [("a", true), ("secret:1", false)] {
        let mut run = Run::new(&world);
        let value = "v".repeat(3 * 1024 * 1024);
        let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len());
        for piece in [head.as_bytes(), value.as_bytes(), b"\r\n"].concat().chunks(100_000) {
            run.feed(Side::Client, piece);
        }
        run.feed(Side::Client, GET_FREE.as_bytes());
        let sent = if passes { head.len() + value.len() + 2 } else { 0 };
        assert_eq!(run.to_server.len(), sent + GET_FREE.len(), "{key}");
    }
}

#[test]
fn nobody_is_sent_to_another_server() {
    let world = world();
    let mut run = Run::new(&world);
    run.client(&[GET_FREE, GET_PII].concat(), &[GET_FREE, GET_PII].concat());
    run.feed(Side::Server, b"-MOVED 3999 10.0.0.7:6381\r\n-ASK 3999 10.0.0.8:6381\r\n");
    let got = String::from_utf8(run.to_client).unwrap();
    assert_eq!(got.matches("-ERR the key is on another node").count(), 2, "{got}");
    assert!(!got.contains("10.0.0."), "{got}");
}

const TENANTS: &str = "version: 1
rules:
  - id: tenants
    match: {protocol: redis}
    prefix: \"t:{identity.user}:\"
  - id: mask
    match: {protocol: redis, keys: [\"pii:*\"]}
    mask: {constant: HIDDEN}
";

fn array(words: &[&str]) -> String {
    let bulk = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
    format!("*{}\r\n{}", words.len(), words.iter().map(bulk).collect::<String>())
}

#[test]
fn a_tenant_names_and_sees_its_names_without_the_prefix() {
    let world = World::with_rules(TENANTS).expect("rules");
    let mut run = Run::new(&world);
    run.client(
        &array(&["MGET", "a", "pii:1"]),
        &array(&["MGET", "t:default:a", "t:default:pii:1"]),
    );
    run.server("*2\r\n$1\r\n1\r\n$6\r\ncanary\r\n", "*2\r\n$1\r\n1\r\n$6\r\nHIDDEN\r\n");
    run.client("BLPOP a b 0\r\n", &array(&["BLPOP", "t:default:a", "t:default:b", "0"]));
    run.server(&array(&["t:default:b", "v"]), &array(&["b", "v"]));
    run.client("SCAN 0\r\n", &array(&["SCAN", "0", "MATCH", "t:default:*"]));
    run.server(
        "*2\r\n$1\r\n7\r\n*2\r\n$11\r\nt:default:a\r\n$9\r\nt:other:a\r\n",
        "*2\r\n$1\r\n7\r\n*2\r\n$1\r\na\r\n$-1\r\n",
    );
    run.client("KEYS u*\r\n", &array(&["KEYS", "t:default:u*"]));
    run.server("-ERR of t:default:u\r\n", "-ERR of u\r\n");
    run.client("DBSIZE\r\n", "");
    assert!(String::from_utf8_lossy(&run.to_client).starts_with("-NOPERM"));
    run.to_client.clear();
    run.client("SUBSCRIBE c\r\n", &array(&["SUBSCRIBE", "t:default:c"]));
    run.server(
        "*3\r\n$9\r\nsubscribe\r\n$11\r\nt:default:c\r\n:1\r\n",
        "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
    );
    run.server(&array(&["message", "t:default:c", "hi"]), &array(&["message", "c", "hi"]));
}

#[test]
fn a_long_value_of_a_tenant_is_streamed_behind_its_prefixed_key() {
    let world = World::with_rules(TENANTS).expect("rules");
    let mut run = Run::new(&world);
    let value = "v".repeat(2 * 1024 * 1024);
    run.feed(Side::Client, array(&["SET", "a", &value]).as_bytes());
    assert!(run.to_server == array(&["SET", "t:default:a", &value]).as_bytes());
}

#[test]
fn commands_that_are_alike_are_one_run_for_a_second() {
    let world = world();
    let mut run = Run::new(&world);
    for _ in 0..5 {
        run.client(GET_FREE, GET_FREE);
        run.client(GET_PII, GET_PII);
        run.server("$1\r\n1\r\n", "$1\r\n1\r\n");
        run.server("-ERR no\r\n", "-ERR no\r\n");
    }
    let told = |run: &mut Run<'_>| {
        let events = std::mem::take(&mut run.events);
        let told = events.into_iter().filter_map(|event| {
            if let EventKind::CommandsDecided { run, .. } = &event.kind {
                return Some((event.number, run.count, 0, 0));
            }
            let EventKind::CommandsCompleted { run, decision, result } = &event.kind else {
                return None;
            };
            Some((*decision, run.count, result.later, result.failed))
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(told(&mut run), [(2, 1, 0, 0), (3, 1, 0, 0)]);
    run.wait(999_999);
    assert_eq!(told(&mut run), []);
    run.client(GET_FREE, GET_FREE);
    run.wait(1);
    assert_eq!(told(&mut run), [(3, 5, 4, 5)], "one is not answered yet");
    run.server("$1\r\n1\r\n", "$1\r\n1\r\n");
    assert_eq!(told(&mut run), [(2, 6, 5, 0)]);
    run.client(GET_FREE, GET_FREE);
    assert_eq!(told(&mut run), [(6, 1, 0, 0)], "another run");
}

#[test]
fn who_may_not_listen_any_more_is_sent_away() {
    let before = World::with_rules("version: 1\nrules: []\n").expect("rules");
    let text =
        "version: 1\nrules:\n  - id: quiet\n    match: {channels: [\"secret*\"]}\n    deny: true\n";
    for (channel, stays) in [("open", true), ("secret", false)] {
        let mut after = World::with_rules(text).expect("rules");
        after.next_generation();
        let mut run = Run::new(&before);
        run.client(&array(&["SUBSCRIBE", channel]), &array(&["SUBSCRIBE", channel]));
        let confirmed =
            format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{channel}\r\n:1\r\n", channel.len());
        run.server(&confirmed, &confirmed);
        run.move_to(&after);
        let message = array(&["message", channel, "canary"]);
        run.feed(Side::Server, message.as_bytes());
        assert_eq!(run.closed, !stays, "{channel}");
        let got = String::from_utf8_lossy(&run.to_client).into_owned();
        assert_eq!(got.contains("canary"), stays, "{got}");
    }
}

#[test]
fn a_command_like_the_last_is_passed_on_as_long_as_nothing_changed() {
    let before = World::with_rules("version: 1\nrules: []\n").expect("rules");
    let mut after = world();
    after.next_generation();
    let mut run = Run::new(&before);
    let split = |bytes: &'static str| bytes.split_at(bytes.len() / 2);
    let (begun, rest) = split(GET_SECRET);
    // In pieces of all sizes, and with half of another one behind them.
    run.client(GET_SECRET, GET_SECRET);
    run.client(&[GET_SECRET, GET_SECRET, begun].concat(), &GET_SECRET.repeat(2));
    run.client(&[rest, GET_SECRET, begun].concat(), &GET_SECRET.repeat(2));
    run.client(rest, GET_SECRET);
    run.client(&[GET_SECRET, "*2\r\n$3\r\nGET"].concat(), GET_SECRET);
    run.client("\r\n$1\r\na\r\n", GET_FREE);
    run.client(GET_SECRET, GET_SECRET);
    let answers = "$1\r\n1\r\n".repeat(9);
    run.server(&answers, &answers);
    // Inside a transaction it is looked at again, and behind it.
    run.client(
        &[MULTI, GET_SECRET, GET_SECRET, EXEC].concat(),
        &[MULTI, GET_SECRET, GET_SECRET, EXEC].concat(),
    );
    let answers = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\n1\r\n$1\r\n1\r\n";
    run.server(answers, answers);
    run.client(&GET_SECRET.repeat(2), &GET_SECRET.repeat(2));
    // Other rules, in the middle of what the client says.
    run.client(begun, "");
    run.move_to(&after);
    run.client(&[rest, GET_SECRET, GET_FREE].concat(), GET_FREE);
    let answers = "$1\r\n1\r\n".repeat(2);
    let refused = |number| {
        format!("-NOPERM rule `no-secrets`: a rule refuses this statement (request s.{number})\r\n")
    };
    run.server(&answers, &[answers.as_str(), &refused(5), &refused(6)].concat());
}

#[test]
fn outcomes_that_never_came_are_not_made_up() {
    let world = world();
    let mut run = Run::new(&world);
    let three = GET_FREE.repeat(3);
    run.client(&three, &three);
    run.server("$1\r\n1\r\n", "$1\r\n1\r\n");
    run.end(EndCause::ServerGone);
    let counts = run.events.iter().filter_map(|event| {
        if let EventKind::CommandsDecided { run, .. } = &event.kind {
            return Some(("decided", run.count));
        }
        let EventKind::CommandsCompleted { run, .. } = &event.kind else { return None };
        Some(("completed", run.count))
    });
    assert_eq!(counts.collect::<Vec<_>>(), [("decided", 3), ("completed", 1)]);
}

#[test]
fn the_fuzzers_corpus_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/resp_session");
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        fuzz_session(&std::fs::read(file.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 8, "{files} files");
}

proptest::proptest! {
    #[test]
    fn any_conversation_holds(
        parts in proptest::collection::vec(
            (proptest::bool::ANY, proptest::sample::select(PIECES)), 0..24),
    ) {
        let mut data = Vec::new();
        for (server, piece) in parts {
            data.push(u8::try_from(piece.len()).unwrap() | if server { 0x80 } else { 0 });
            data.extend_from_slice(piece.as_bytes());
        }
        fuzz_session(&data);
    }
}

/// What conversations are made of.
const PIECES: &[&str] = &[
    GET_PII,
    GET_FREE,
    GET_SECRET,
    MULTI,
    EXEC,
    "PING\r\n",
    "FLUSHALL\r\n",
    "SET end:1 v\r\n",
    "SET end:1 v KEEPTTL\r\n",
    "SET end:1 v EX 5 EX 99999999\r\n",
    "EXPIRE end:1 99999999\r\n",
    "*3\r\n$3\r\nSET\r\n$5\r\nend:1\r\n$1\r\nv\r\n",
    "RENAME a end:1\r\n",
    "AUTH x\r\n",
    "HELLO 3\r\n",
    "RESET\r\n",
    "SELECT 1\r\n",
    "QUIT\r\n",
    "CLIENT REPLY SKIP\r\n",
    "CLIENT REPLY OFF\r\n",
    "CLIENT REPLY ON\r\n",
    "SUBSCRIBE c\r\n",
    "UNSUBSCRIBE\r\n",
    "DISCARD\r\n",
    "\r\n",
    "*0\r\n",
    "+OK\r\n",
    "+QUEUED\r\n",
    "-ERR no\r\n",
    "-EXECABORT no\r\n",
    "$3\r\nabc\r\n",
    "*-1\r\n",
    "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
    "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
    "*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n",
    ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
    "%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n",
];
