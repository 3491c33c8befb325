//! Hostile peers of a session: floods, lies about lengths, and bytes that mean nothing.
//!
//! What a session holds is bounded by what it was sent and by its limits, never by what a peer
//! claims.

#[cfg(test)]
#[path = "sessions/harness.rs"]
mod harness;

#[cfg(test)]
mod session {
    use portcullis::session::TlsMode;
    use portcullis::session::{Answer, Effect, EndCause, Session as _, Side};
    use proptest::prelude::*;

    use super::harness::{Wire, World, config};

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &len.to_be_bytes(), body].concat()
    }

    fn parse(name: &str, text: &str) -> Vec<u8> {
        frame(b'P', &[name.as_bytes(), &[0], text.as_bytes(), &[0, 0, 0]].concat())
    }

    fn query(text: &str) -> Vec<u8> {
        frame(b'Q', &[text.as_bytes(), &[0]].concat())
    }

    /// A session after its login, with everything said so far taken.
    fn logged_in(world: &World) -> Wire {
        let mut wire = Wire::new(world, config(TlsMode::Off));
        let startup = b"\0\0\0\x24\0\x03\0\0user\0app\0database\0shop\0\0";
        let len = u8::try_from(startup.len()).unwrap();
        let startup = [&[0, 0, 0, len][..], &startup[4..]].concat();
        wire.deliver(world, Side::Client, &startup);
        assert_eq!(wire.effect(), Some(Effect::Connect));
        wire.resume(world, Answer::Connected { secret: [0; 32], tls: None, local: true });
        wire.deliver(world, Side::Server, &frame(b'R', &[0; 4]));
        wire.deliver(world, Side::Server, &frame(b'Z', b"I"));
        wire.taken(Side::Client);
        wire.taken(Side::Server);
        wire
    }

    #[test]
    fn a_flood_of_syncs_waits_for_its_replies() {
        let world = World::new();
        let mut wire = logged_in(&world);
        let max = config(TlsMode::Off).pending_replies_max;
        let flood = frame(b'S', b"").repeat(100_000);
        wire.deliver(&world, Side::Client, &flood);
        // And a Flush: the server may wait for a Sync that is not read.
        assert_eq!(wire.taken(Side::Server).len(), max * 5 + 5, "so many are forwarded");
        assert!(!wire.session.wants(Side::Client));
        assert_eq!(wire.from_client.len(), flood.len() - max * 5);
        wire.deliver(&world, Side::Server, &frame(b'Z', b"I"));
        let one = wire.taken(Side::Server).len();
        assert!(matches!(one, 5 | 10), "one reply makes room for one, and a Flush perhaps: {one}");
    }

    #[test]
    fn refusals_pile_up_only_as_fast_as_they_are_asked_for() {
        let mut world = World::new();
        world.reload(include_str!("sessions/rules/deny.yaml"));
        let mut wire = logged_in_under_rules(&world);
        let refused = query("SELECT word FROM public.secrets");
        wire.deliver(&world, Side::Client, &refused);
        let one = wire.taken(Side::Client).len();
        for _ in 0..100 {
            wire.deliver(&world, Side::Client, &refused);
        }
        // Request ids grow by a digit or two; nothing else does.
        assert!(wire.out.to_client.len() <= 100 * (one + 2));
        assert!(wire.taken(Side::Server).is_empty());
    }

    fn logged_in_under_rules(world: &World) -> Wire {
        let mut wire = logged_in(world);
        wire.deliver(world, Side::Server, &frame(b'D', b"\0\x01\0\0\0\x06public"));
        wire.deliver(world, Side::Server, &frame(b'C', b"SELECT 1\0"));
        wire.deliver(world, Side::Server, &frame(b'Z', b"I"));
        assert!(wire.taken(Side::Client).ends_with(b"Z\0\0\0\x05I"));
        wire
    }

    #[test]
    fn prepared_statements_are_counted_by_name() {
        let world = World::new();
        let mut wire = logged_in(&world);
        let max = config(TlsMode::Off).prepared_statements_max;
        for number in 0..100 {
            wire.deliver(&world, Side::Client, &parse(&format!("s{number}"), "SELECT 1"));
            wire.deliver(&world, Side::Server, &frame(b'1', b""));
        }
        let sent = wire.taken(Side::Server);
        let forwarded = sent.windows(8).filter(|window| window == b"SELECT 1").count();
        assert_eq!(forwarded, max);
    }

    #[test]
    fn a_claimed_length_reserves_nothing() {
        let world = World::new();
        for (tag, start) in [(b'd', &b""[..]), (b'B', b"\0\0"), (b'F', b""), (b'Q', b"")] {
            let mut wire = logged_in(&world);
            wire.deliver(&world, Side::Client, &parse("", "SELECT 1"));
            wire.taken(Side::Server);
            let mut head = vec![tag];
            head.extend_from_slice(&0x3fff_0000_u32.to_be_bytes());
            head.extend_from_slice(start);
            wire.deliver(&world, Side::Client, &head);
            for _ in 0..100 {
                wire.deliver(&world, Side::Client, &[b'x'; 1000]);
                let waiting = wire.out.to_server.len() + wire.from_client.len();
                assert!(waiting <= 8 * 1024, "{}: {waiting} bytes held", char::from(tag));
                wire.taken(Side::Server);
            }
            assert!(wire.error.is_none(), "{}", char::from(tag));
        }
    }

    #[test]
    fn impossible_lengths_end_the_connection_at_once() {
        let world = World::new();
        for declared in [i32::MIN, -1, 0, 3, i32::MAX] {
            for side in [Side::Client, Side::Server] {
                let mut wire = logged_in(&world);
                let head = [&b"S"[..], &declared.to_be_bytes()].concat();
                wire.deliver(&world, side, &head);
                assert_eq!(wire.error.map(|error| error.side), Some(side), "{declared}");
                assert_eq!(wire.effect(), Some(Effect::Close));
            }
        }
    }

    #[test]
    fn a_server_may_not_be_verbose_without_end() {
        let world = World::new();
        let mut wire = logged_in(&world);
        wire.deliver(&world, Side::Client, &query("SELECT 1"));
        let head = [&b"E"[..], &0x3fff_ffff_u32.to_be_bytes()].concat();
        wire.deliver(&world, Side::Server, &head);
        assert!(wire.error.is_some(), "an error message of a gigabyte is not held");
    }

    #[test]
    fn an_answer_out_of_turn_costs_no_outcome() {
        let world = World::new();
        for letter in [b'Z', b'C', b'1', b'2', b'3', b'n', b's'] {
            let mut wire = logged_in(&world);
            wire.deliver(&world, Side::Client, &frame(b'E', b"p\0\0\0\0\0"));
            wire.deliver(
                &world,
                Side::Server,
                &frame(letter, if letter == b'Z' { b"I" } else { b"" }),
            );
            wire.end(&world, EndCause::ServerGone);
            assert_eq!(wire.session.owed_events(), 0, "{}", char::from(letter));
        }
    }

    /// Frames with known letters and nearly sensible bodies.
    fn nearly(tags: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
        let bodies = [
            &b""[..],
            b"\0",
            b"s\0",
            b"Ss\0",
            b"Ps\0",
            b"s\0SELECT 1\0\0\0",
            b"\0s\0\0\0\0\0\0\0",
            b"SELECT 1\0",
            b"BEGIN\0",
            b"COPY orders FROM STDIN\0",
            b"SET search_path = other\0",
            b"p\0\0\0\0\0",
            b"I",
            b"T",
            b"E",
            b"\0\0\0",
            b"\0\x01\0\0\0\x01x",
            b"COPY 1\0",
            b"SERROR\0VERROR\0C22012\0Mno\0\0",
            b"client_encoding\0LATIN1\0",
        ];
        let body = prop::sample::select(bodies.to_vec());
        (prop::sample::select(tags), body).prop_map(|(tag, body)| frame(tag, body))
    }

    /// What came of it: bytes to each side, events, how it ended.
    fn outcome(
        turns: &[(Side, Vec<u8>)],
        piece: usize,
        rules: &str,
    ) -> impl PartialEq + std::fmt::Debug {
        let mut world = World::new();
        let mut wire = logged_in(&world);
        world.reload(rules);
        for (side, bytes) in turns {
            for part in bytes.chunks(piece) {
                wire.deliver(&world, *side, part);
            }
        }
        wire.end(&world, EndCause::ServerGone);
        assert_eq!(wire.session.owed_events(), 0, "every outcome was recorded");
        let kinds: Vec<_> = wire.events.iter().map(|event| event.kind.clone()).collect();
        (wire.taken(Side::Client), wire.taken(Side::Server), kinds, wire.error)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn any_conversation_comes_out_the_same_in_pieces(
            turns in prop::collection::vec(
                prop_oneof![
                    nearly(b"QPBDECSHXdcfF").prop_map(|bytes| (Side::Client, bytes)),
                    nearly(b"12CcdDEGHINnSsTtZ").prop_map(|bytes| (Side::Server, bytes)),
                ],
                1..24,
            ),
            deny in any::<bool>(),
        ) {
            let rules =
                if deny { include_str!("sessions/rules/deny.yaml") } else { "version: 1" };
            let whole = outcome(&turns, usize::MAX, rules);
            for piece in [1, 5] {
                prop_assert_eq!(&outcome(&turns, piece, rules), &whole, "in pieces of {}", piece);
            }
        }

        #[test]
        fn noise_never_panics(
            client in prop::collection::vec(any::<u8>(), 0..64),
            server in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let world = World::new();
            let mut fresh = Wire::new(&world, config(TlsMode::Allowed));
            fresh.deliver(&world, Side::Client, &client);
            let mut wire = logged_in(&world);
            wire.deliver(&world, Side::Client, &client);
            wire.deliver(&world, Side::Server, &server);
        }
    }
}
