//! Ends of connections, and what is recorded of them.

use super::*;

const QUIT: &str = "*1\r\n$4\r\nQUIT\r\n";

/// How the trail says that the session ended, and how many commands it says are done.
fn recorded(run: &Run<'_>) -> (Vec<&'static str>, u64) {
    let mut ends = Vec::new();
    let mut done = 0;
    for event in &run.events {
        if let EventKind::SessionClosed { end } = &event.kind {
            ends.push(*end);
        }
        if let EventKind::CommandsCompleted { run, .. } = &event.kind {
            done += run.count;
        }
    }
    (ends, done)
}

#[test]
fn the_server_hears_quit_behind_what_was_asked_and_answers_it() {
    let world = world();
    let mut run = Run::new(&world);
    run.client(&[GET_FREE, GET_PII, QUIT, GET_FREE].concat(), &[GET_FREE, GET_PII, QUIT].concat());
    run.client_got("");
    run.server("$1\r\n1\r\n$6\r\ncanary\r\n", "$1\r\n1\r\n$6\r\nHIDDEN\r\n");
    assert!(!run.closed);
    run.server("+OK\r\n", "+OK\r\n");
    assert!(run.closed);
    assert_eq!(recorded(&run), (vec!["client"], 2));
}

#[test]
fn quit_is_heard_wherever_the_connection_stands() {
    let world = world();
    let subscribed = "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
    let pushed = ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
    let message = "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n";
    for (asked, answered, late) in [
        ("*1\r\n$5\r\nMULTI\r\n", "+OK\r\n", ""),
        ("*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n", subscribed, message),
        ("*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", "%1\r\n$5\r\nproto\r\n:3\r\n", ""),
    ] {
        let mut run = Run::new(&world);
        run.client(asked, asked);
        run.server(answered, answered);
        run.client("quit now\r\n", "*2\r\n$4\r\nquit\r\n$3\r\nnow\r\n");
        run.server(late, late);
        run.server("+OK\r\n", "+OK\r\n");
        assert!(run.closed, "{asked:?}");
        assert_eq!(recorded(&run).0, ["client"]);
    }
    let mut run = Run::new(&world);
    let (hello, subscribe) =
        ("*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n");
    run.client(hello, hello);
    run.server("%1\r\n$5\r\nproto\r\n:3\r\n", "%1\r\n$5\r\nproto\r\n:3\r\n");
    run.client(&[subscribe, QUIT].concat(), &[subscribe, QUIT].concat());
    run.server(pushed, pushed);
    assert!(!run.closed);
    run.server("+OK\r\n", "+OK\r\n");
    assert!(run.closed);
}

#[test]
fn who_wants_no_answer_gets_none_to_quit() {
    let world = world();
    let mut run = Run::new(&world);
    run.client(&["CLIENT REPLY OFF\r\n", GET_FREE, QUIT].concat(), &[GET_FREE, QUIT].concat());
    run.server("$1\r\n1\r\n", "");
    assert!(!run.closed);
    run.server("+OK\r\n", "");
    assert!(run.closed);
}

#[test]
fn a_refused_quit_ends_nothing() {
    let world = world();
    let mut run = Run::new(&world);
    run.client(&[QUIT, GET_FREE].concat(), QUIT);
    run.server("-ERR not now\r\n", "-ERR not now\r\n");
    assert!(!run.closed);
    let sent = std::mem::take(&mut run.to_server);
    assert_eq!(String::from_utf8(sent).unwrap(), GET_FREE);
}

#[test]
fn a_client_that_may_have_to_wait_is_watched_until_it_has_its_answer() {
    let world = world();
    let mut run = Run::new(&world);
    let pop = array(&["BLPOP", "a", "0"]);
    run.client(&[&pop, QUIT].concat(), &pop);
    assert!(run.session.wants(Side::Client), "it could vanish");
    run.feed(Side::Server, array(&["a", "v"]).as_bytes());
    assert_eq!(String::from_utf8(std::mem::take(&mut run.to_server)).unwrap(), QUIT);
    run.to_client.clear();
    run.server("+OK\r\n", "+OK\r\n");
    assert!(run.closed);
}

#[test]
fn an_error_to_a_command_of_ours_is_nobodys() {
    let world = world();
    for mute in ["", "CLIENT REPLY OFF\r\n"] {
        let mut run = Run::new(&world);
        run.feed(Side::Client, mute.as_bytes());
        run.feed(Side::Client, [MULTI, GET_SECRET, EXEC, GET_FREE].concat().as_bytes());
        run.client("", &[MULTI, ABORT, GET_FREE].concat());
        run.feed(Side::Server, ["+OK\r\n", ABORTED, "$1\r\n1\r\n"].concat().as_bytes());
        run.end(EndCause::ClientGone);
        let results = run.events.iter().filter_map(|event| {
            let EventKind::CommandsCompleted { run, result, .. } = &event.kind else { return None };
            Some((&*run.record.command, result.failed))
        });
        let results: Vec<_> = results.collect();
        assert_eq!(results, [("multi", 0), ("get", 0)], "{mute:?}");
    }
}

#[test]
fn a_value_that_is_cut_off_ends_the_connection_behind_what_was_asked_before() {
    let world = world();
    let value = "x".repeat(3_000_000);
    for (mute, before, answer) in [
        ("", "", ""),
        ("", GET_FREE, "$1\r\n1\r\n"),
        ("", GET_PII, "$6\r\nHIDDEN\r\n"),
        ("CLIENT REPLY OFF\r\n", GET_FREE, ""),
    ] {
        let mut run = Run::new(&world);
        let set = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3000000\r\n{value}");
        run.feed(Side::Client, [mute, before, &set, "no end"].concat().as_bytes());
        if !before.is_empty() {
            assert!(!run.closed, "{before:?}");
            run.feed(Side::Server, answer.replace("HIDDEN", "canary").as_bytes());
        }
        if before == GET_FREE && answer.is_empty() {
            run.feed(Side::Server, b"$1\r\n1\r\n");
        }
        assert!(run.closed, "{mute:?} {before:?}");
        let error = if mute.is_empty() { "-ERR Protocol error: expected CRLF\r\n" } else { "" };
        run.client_got(&[answer, error].concat());
        assert_eq!(recorded(&run), (vec!["protocol"], u64::from(!before.is_empty())));
    }
}

#[test]
fn who_broke_the_protocol_is_watched_until_all_is_answered() {
    let world = world();
    let mut run = Run::new(&world);
    let pop = array(&["BLPOP", "a", "0"]);
    run.client(&[&pop, "*x\r\n"].concat(), &pop);
    assert!(run.session.wants(Side::Client), "it could vanish");
    // What it says meanwhile is not listened to.
    run.client(GET_FREE, "");
    run.server("*-1\r\n", "*-1\r\n-ERR Protocol error: invalid multibulk length\r\n");
    assert!(run.closed);
}
