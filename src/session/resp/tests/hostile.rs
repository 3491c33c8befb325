//! Clients that want more than they may have.

use super::*;

/// What the client got, as text.
fn got(run: &mut Run<'_>) -> String {
    String::from_utf8_lossy(&std::mem::take(&mut run.to_client)).into_owned()
}

#[test]
fn a_second_multi_inside_a_transaction_changes_nothing_of_what_it_owes() {
    let world = world();
    let mut run = Run::new(&world);
    run.client(&[MULTI, GET_PII, MULTI].concat(), &[MULTI, GET_PII, MULTI].concat());
    let nested = "-ERR MULTI calls can not be nested\r\n";
    let replies = ["+OK\r\n+QUEUED\r\n", nested].concat();
    run.server(&replies, &replies);
    // Still inside, so what is not served there is not.
    run.client("CLIENT REPLY OFF\r\n", "");
    assert!(got(&mut run).contains("inside MULTI"));
    let mut run = Run::new(&world);
    run.client(&[MULTI, GET_PII, MULTI].concat(), &[MULTI, GET_PII, MULTI].concat());
    run.server(&replies, &replies);
    run.client(EXEC, EXEC);
    run.server("*1\r\n$6\r\ncanary\r\n", "*1\r\n$6\r\nHIDDEN\r\n");
}

#[test]
fn a_server_that_refuses_to_be_silent_moves_no_reply_to_another_command() {
    let world = world();
    let noperm = "-NOPERM this user has no permissions\r\n";
    for (silent, loud) in
        [("CLIENT REPLY OFF\r\n", "CLIENT REPLY ON\r\n"), ("CLIENT REPLY SKIP\r\n", "PING\r\n")]
    {
        let mut run = Run::new(&world);
        for ask in [silent, GET_PII, loud, loud, loud] {
            run.feed(Side::Client, ask.as_bytes());
        }
        let sent = String::from_utf8_lossy(&run.to_server).into_owned();
        // Every command that arrives is answered: those about replies with an error.
        for part in sent.split_inclusive("*").collect::<Vec<_>>() {
            if part.contains("REPLY") {
                run.feed(Side::Server, noperm.as_bytes());
            } else if part.contains("GET") {
                run.feed(Side::Server, b"$6\r\ncanary\r\n");
            } else if part.contains("PING") {
                run.feed(Side::Server, b"+PONG\r\n");
            }
        }
        let got = got(&mut run);
        assert!(!got.contains("canary"), "{silent:?}: {sent:?} {got:?}");
    }
}

#[test]
fn a_subscription_that_fails_unheard_moves_no_reply_to_another_command() {
    let world = world();
    let mut run = Run::new(&world);
    for ask in ["CLIENT REPLY OFF\r\n", "SUBSCRIBE c\r\n", "CLIENT REPLY ON\r\n", GET_PII] {
        run.feed(Side::Client, ask.as_bytes());
    }
    run.feed(Side::Server, b"-NOPERM no channel\r\n$6\r\ncanary\r\n");
    let got = got(&mut run);
    assert!(!got.contains("canary"), "{got:?}");
    assert!(!got.contains("NOPERM"), "{got:?}");
}

#[test]
fn a_long_option_of_a_tenant_does_not_become_commands() {
    let world = World::with_rules(TENANTS).expect("rules");
    let mut run = Run::new(&world);
    let long = "x".repeat(1024 * 1024 + 1);
    for option in ["TYPE", "COUNT", "MATCH"] {
        run.feed(Side::Client, array(&["SCAN", "0", option, &long]).as_bytes());
        assert!(run.to_server.is_empty(), "{option}: {}", run.to_server.len());
        assert!(got(&mut run).starts_with('-'), "{option}");
    }
    run.client("PING\r\n", &array(&["PING"]));
}

const ONE_DATABASE: &str = "version: 1
rules:
  - id: mask
    match: {protocol: redis, database: \"1\", keys: [\"*\"]}
    mask: {constant: HIDDEN}
";

#[test]
fn rules_about_a_database_hold_however_it_is_chosen() {
    let world = World::with_rules(ONE_DATABASE).expect("rules");
    let select = array(&["SELECT", "1"]);
    for (ways, replies) in [
        (vec![&*select], "+OK\r\n"),
        (vec![MULTI, &*select, EXEC], "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"),
        (vec!["CLIENT REPLY SKIP\r\n", &*select], "+OK\r\n"),
        (vec!["CLIENT REPLY OFF\r\n", &*select, "CLIENT REPLY ON\r\n"], "+OK\r\n"),
    ] {
        let mut run = Run::new(&world);
        for ask in &ways {
            run.feed(Side::Client, ask.as_bytes());
        }
        // What went to the server is answered.
        let sent = String::from_utf8_lossy(&run.to_server).into_owned();
        if sent.contains("SELECT") && !sent.contains("abort") {
            run.feed(Side::Server, replies.as_bytes());
        }
        run.feed(Side::Client, GET_FREE.as_bytes());
        let sent = String::from_utf8_lossy(&run.to_server).into_owned();
        if sent.contains("SELECT") && sent.ends_with(GET_FREE) {
            run.feed(Side::Server, b"$6\r\ncanary\r\n");
            let got = got(&mut run);
            assert!(!got.contains("canary"), "{ways:?}: {sent:?} {got:?}");
        }
    }
}

#[test]
fn the_database_a_transaction_leaves_behind_is_known() {
    let before = World::with_rules("version: 1\nrules: []\n").expect("rules");
    let mut after = World::with_rules(ONE_DATABASE).expect("rules");
    after.next_generation();
    let select = |number| array(&["SELECT", number]);
    let (one, two, discard) = (select("1"), select("2"), array(&["DISCARD"]));
    for (asked, answered) in [
        (vec![MULTI, &one, EXEC], vec!["+OK\r\n", "+QUEUED\r\n", "*1\r\n+OK\r\n"]),
        (
            vec![MULTI, &one, EXEC, MULTI, &two, &discard],
            vec!["+OK\r\n", "+QUEUED\r\n", "*1\r\n+OK\r\n", "+OK\r\n", "+QUEUED\r\n", "+OK\r\n"],
        ),
        (
            vec![MULTI, &one, EXEC],
            vec!["-NOPERM no multi\r\n", "+OK\r\n", "-ERR EXEC without MULTI\r\n"],
        ),
    ] {
        let mut run = Run::new(&before);
        // All is asked at once.
        run.feed(Side::Client, asked.concat().as_bytes());
        for answer in answered {
            run.server(answer, answer);
        }
        assert_eq!(String::from_utf8_lossy(&run.to_server), asked.concat());
        run.move_to(&after);
        run.feed(Side::Client, GET_FREE.as_bytes());
        run.server("$6\r\ncanary\r\n", "$6\r\nHIDDEN\r\n");
    }
}

#[test]
fn a_transaction_that_the_server_does_not_discard_goes_on() {
    let rules = ONE_DATABASE.replace("database: \"1\"", "database: \"0\"");
    let world = World::with_rules(&rules).expect("rules");
    for mute in ["", "CLIENT REPLY OFF\r\n"] {
        let mut run = Run::new(&world);
        run.feed(Side::Client, mute.as_bytes());
        run.feed(Side::Client, [MULTI, "DISCARD\r\n"].concat().as_bytes());
        run.feed(Side::Server, b"+OK\r\n-NOPERM no permissions to run 'discard'\r\n");
        run.to_server.clear();
        run.client(&[array(&["SELECT", "1"]).as_str(), EXEC].concat(), ABORT);
        run.feed(Side::Server, ABORTED.as_bytes());
        // It is still in the database whose values are masked.
        run.feed(Side::Client, ["CLIENT REPLY ON\r\n", GET_FREE].concat().as_bytes());
        run.feed(Side::Server, b"$6\r\ncanary\r\n");
        let got = got(&mut run);
        assert!(got.ends_with("HIDDEN\r\n"), "{mute:?}: {got}");
    }
}

#[test]
fn a_login_that_names_its_connection_badly_is_not_half_carried_out() {
    let world = world();
    let mut run = Run::new(&world);
    run.client("PING\r\n", &array(&["PING"]));
    run.server("+PONG\r\n", "+PONG\r\n");
    for name in ["a b", "a\nb", "\u{e9}", "\u{7f}"] {
        run.client(&array(&["HELLO", "3", "AUTH", "bob", "pw", "SETNAME", name]), "");
        let got = got(&mut run);
        assert!(got.starts_with("-ERR Client names cannot contain spaces"), "{name:?}: {got}");
    }
}

#[test]
fn nothing_is_said_in_the_middle_of_a_reply() {
    let world = world();
    let mut run = Run::new(&world);
    run.client(GET_PII, GET_PII);
    run.server("*2\r\n$6\r\ncan", "*2\r\n$6\r\nHIDDEN\r\n");
    for ask in ["SELECT 1\r\n", "QUIT\r\n"] {
        run.client(ask, "");
    }
    run.feed(Side::Server, b"ary\r\n$6\r\ncanary\r\n");
    run.client_got("$6\r\nHIDDEN\r\n");
    assert_eq!(run.to_server, array(&["SELECT", "1"]).as_bytes());
    run.server("+OK\r\n", "+OK\r\n");
    assert_eq!(run.to_server, [array(&["SELECT", "1"]), array(&["QUIT"])].concat().as_bytes());
    run.server("+OK\r\n", "+OK\r\n");
}

#[test]
fn a_client_that_listens_does_not_become_somebody_else() {
    let world = world();
    let mut run = Run::new(&world);
    run.client("HELLO 3\r\n", &array(&["HELLO", "3"]));
    run.server("%0\r\n", "%0\r\n");
    run.client("SUBSCRIBE c\r\n", &array(&["SUBSCRIBE", "c"]));
    let confirmed = ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
    run.server(confirmed, confirmed);
    for ask in ["AUTH bob pw\r\n", "HELLO 3 AUTH bob pw\r\n"] {
        run.client(ask, "");
        assert!(got(&mut run).contains("unsubscribe first"), "{ask:?}");
    }
    run.client("RESET\r\n", &array(&["RESET"]));
}

#[test]
fn outcomes_that_are_owed_are_bounded_for_each_client() {
    let world = world();
    let mut run = Run::new(&world);
    let commands = [
        "GET", "STRLEN", "TTL", "TYPE", "EXISTS", "LLEN", "SCARD", "HLEN", "ZCARD", "PTTL",
        "PERSIST", "INCR",
    ];
    // The server answers nothing.
    for _ in 0..100 {
        for command in commands {
            run.feed(Side::Client, format!("{command} k\r\n").as_bytes());
        }
    }
    let owed = run.session.owed_events();
    assert!(owed < 300, "{owed}");
    // What it held back it goes on with.
    run.feed(Side::Server, &b":1\r\n".repeat(256));
    assert!(run.session.owed_events() > 200);
}

#[test]
fn a_server_that_does_not_give_up_a_transaction_is_left() {
    let world = world();
    for mute in ["", "CLIENT REPLY OFF\r\n"] {
        for reply in ["*1\r\n$6\r\ncanary\r\n", "+OK\r\n", "-ERR no\r\n"] {
            let mut run = Run::new(&world);
            run.feed(Side::Client, mute.as_bytes());
            run.client(
                &[MULTI, GET_PII, GET_SECRET, EXEC].concat(),
                &[MULTI, GET_PII, ABORT].concat(),
            );
            run.feed(Side::Server, ["+OK\r\n+QUEUED\r\n", reply].concat().as_bytes());
            assert!(run.closed, "{mute:?} {reply:?}");
            assert!(!got(&mut run).contains("canary"), "{mute:?}");
        }
    }
}
