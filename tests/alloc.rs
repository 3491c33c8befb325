//! What a session allocates on the paths that every byte and every prepared statement take.
//!
//! The allocator of this binary counts. A warm session passes rows without allocating; what a
//! prepared statement costs is written down below.

#[cfg(test)]
mod session {
    use std::sync::Arc;

    use bytes::{Buf as _, BytesMut};
    use portcullis::analysis::Analyzer;
    use portcullis::analysis::sql::Predicates;
    use portcullis::event::Now;
    use portcullis::policy::{RuleSet, SourceFile, Throttles};
    use portcullis::session::auth::{Authentication, LookedUp, Reply};
    use portcullis::session::gate::{ActiveRules, PlanCache};
    use portcullis::session::pg::{PgConfig, PgSession};
    use portcullis::session::{Answer, Outbox, Session as _, Side, Turn};
    use portcullis::session::{SessionSeed, TlsMode};

    /// Allocations of one Bind, Execute, Sync and their replies, under rules or not: none. The names
    /// are looked up where they stand, what is remembered is shared, the queues keep their memory.
    const PER_PREPARED_EXECUTION: u64 = 0;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &len.to_be_bytes(), body].concat()
    }

    struct Rig {
        rules: ActiveRules,
        analyzer: Analyzer,
        plans: PlanCache,
        throttles: Throttles,
        session: PgSession,
        out: Outbox,
        input: [BytesMut; 2],
    }

    const NOW: Now = Now { wall_us: 1, mono_us: 1 };

    impl Rig {
        /// A session after its login.
        fn new(rules: &str) -> Self {
            let file = SourceFile { name: "rules.yaml".into(), text: rules.into() };
            let (set, _) = RuleSet::compile(&[file], None).unwrap();
            let analyzer = Analyzer::default();
            let schema = include_str!("sessions/schema.sql");
            analyzer.install(portcullis::analysis::Catalog::from_ddl("shop", schema).unwrap());
            let config = PgConfig {
                datasource: "main".into(),
                default_deny: false,
                tls: TlsMode::Off,
                authentication: Authentication::default(),
                server: ("db.example.com".to_owned(), 5432),
                pending_replies_max: 64,
                prepared_statements_max: 8,
                inspected_bytes_max: 4096,
            };
            let seed = SessionSeed { uid: "s".to_owned(), client: None, local: None };
            let digest = set.digest().to_owned();
            let predicates = Predicates::default();
            let mut rig = Self {
                rules: ActiveRules { set, predicates, digest, generation: 1 },
                analyzer,
                plans: PlanCache::new(1 << 20),
                throttles: Throttles::default(),
                session: PgSession::new(Arc::new(config), seed, NOW),
                out: Outbox { room: 64, ..Outbox::default() },
                input: [BytesMut::with_capacity(64 * 1024), BytesMut::with_capacity(64 * 1024)],
            };
            rig.feed(Side::Client, b"\0\0\0\x20\0\x03\0\0user\0app\0database\0shop\0\0");
            let Self { rules, analyzer, plans, throttles, session, out, .. } = &mut rig;
            let turn = Turn { rules, analyzer, plans, throttles, now: NOW };
            let admitted = Answer::Authenticate(Box::new(Reply::Admitted {
                random: [0; 18],
                looked_up: LookedUp::NotAsked,
            }));
            session.resume(turn, admitted, out).unwrap();
            session
                .resume(turn, Answer::Connected { secret: [0; 32], tls: None, local: true }, out)
                .unwrap();
            rig.feed(Side::Server, &[frame(b'R', &[0; 4]), frame(b'Z', b"I")].concat());
            if !rules_empty(&rig.rules) {
                let row = frame(b'D', b"\0\x01\0\0\0\x06public");
                rig.feed(
                    Side::Server,
                    &[row, frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat(),
                );
            }
            rig
        }

        /// One call, as the shell makes it: the queues are written out, the events recorded.
        fn feed(&mut self, side: Side, bytes: &[u8]) {
            let Self { rules, analyzer, plans, throttles, session, out, input } = self;
            let turn = Turn { rules, analyzer, plans, throttles, now: NOW };
            let input = &mut input[usize::from(side == Side::Server)];
            input.extend_from_slice(bytes);
            session.feed(turn, side, input, out).unwrap();
            for queue in [&mut out.to_client, &mut out.to_server] {
                queue.advance(queue.len());
            }
            out.events.clear();
            out.effects.clear();
        }

        fn cycle(&mut self, asked: &[u8], answered: &[u8]) {
            self.feed(Side::Client, asked);
            self.feed(Side::Server, answered);
        }
    }

    fn rules_empty(rules: &ActiveRules) -> bool {
        rules.set.is_empty()
    }

    fn counted(work: impl FnOnce()) -> u64 {
        allocation_counter::measure(work).count_total
    }

    #[test]
    fn rows_pass_without_allocations() {
        let mut rig = Rig::new("version: 1");
        rig.feed(Side::Client, &frame(b'Q', b"SELECT id FROM orders\0"));
        let rows = frame(b'D', b"\0\x02\0\0\0\x04abcd\xff\xff\xff\xff").repeat(200);
        for _ in 0..8 {
            rig.feed(Side::Server, &rows);
        }
        let allocations = counted(|| (0..100).for_each(|_| rig.feed(Side::Server, &rows)));
        assert_eq!(allocations, 0, "for 20,000 rows");
    }

    #[test]
    fn long_runs_of_rows_are_passed_on_as_they_lie() {
        let mut rig = Rig::new("version: 1");
        rig.feed(Side::Client, &frame(b'Q', b"SELECT id FROM orders\0"));
        let row = frame(b'D', b"\0\x01\0\0\0\x04abcd");
        let (few, many) = (row.repeat(1000), row.repeat(3000));
        for _ in 0..4 {
            rig.feed(Side::Server, &many);
        }
        let few = counted(|| rig.feed(Side::Server, &few));
        let many = counted(|| rig.feed(Side::Server, &many));
        assert!(many <= few.max(4), "{few} for 1000 rows, {many} for 3000");
    }

    #[test]
    fn a_prepared_statement_is_executed_without_allocations() {
        for rules in ["version: 1", include_str!("sessions/rules/deny.yaml")] {
            let mut rig = Rig::new(rules);
            let text = b"pgbench_1\0SELECT amount FROM orders WHERE id = $1\0\0\0";
            let prepared = [frame(b'1', b""), frame(b'Z', b"I")].concat();
            rig.cycle(&[frame(b'P', text), frame(b'S', b"")].concat(), &prepared);
            let asked = [
                frame(b'B', b"\0pgbench_1\0\0\0\0\x01\0\0\0\x017\0\0"),
                frame(b'E', b"\0\0\0\0\0"),
                frame(b'S', b""),
            ];
            let answered = [
                frame(b'2', b""),
                frame(b'D', b"\0\x01\0\0\0\x0212"),
                frame(b'C', b"SELECT 1\0"),
                frame(b'Z', b"I"),
            ];
            let (asked, answered) = (asked.concat(), answered.concat());
            for _ in 0..1000 {
                rig.cycle(&asked, &answered);
            }
            let all = counted(|| (0..1000).for_each(|_| rig.cycle(&asked, &answered)));
            assert_eq!(all, PER_PREPARED_EXECUTION * 1000, "for 1000 executions under {rules}");
        }
    }
}

#[cfg(test)]
mod mask {
    use portcullis::mask::{Domain, Mask, MaskKey, Masker};
    use portcullis::name::RuleId;
    use portcullis::obligation::{DateUnit, JsonPath, MaskFn, Token};

    /// A value of its function's kind, one of another kind, and JSON around it: none allocates. Not
    /// so `fpe_ff1`, whose numbers are as long as the value, and strings with escapes.
    #[test]
    fn values_are_masked_without_allocations() {
        let cases = [
            (MaskFn::Partial { prefix: 1, suffix: 1, fill: '*' }, "Zoë Müller"),
            (MaskFn::PartialEmail { keep_domain: false }, "maria.schmidt@example.com"),
            (MaskFn::PanBinLast4 { bin: 6 }, "4111 1111 1111 1111"),
            (MaskFn::Bucket { width: 10, offset: 0 }, "42.5"),
            (MaskFn::TruncateDate(DateUnit::Month), "2024-05-17 12:30:00"),
            (MaskFn::Constant("hidden".into()), "anything"),
            (MaskFn::HashKeyed, "maria.schmidt@example.com"),
            (MaskFn::TokenHmac(Token::new(26, "p_").unwrap()), "maria.schmidt@example.com"),
            (MaskFn::Nullify, "anything"),
        ];
        let key = MaskKey::new(1, vec![7; 32].into()).unwrap();
        let masker = Masker::with_key(&key);
        let domain = Domain::of(Some("EMAIL_ADDRESS"), &RuleId("r".into()));
        let path = JsonPath::parse("$.items[*].v").unwrap();
        let mut out = Vec::with_capacity(4096);
        for (function, value) in &cases {
            let mask = Mask { function, domain: &domain };
            let json = format!("{{\"id\": 1.50, \"items\": [{{\"v\": \"{value}\"}}, {{}}]}}");
            let all = allocation_counter::measure(|| {
                for _ in 0..100 {
                    out.clear();
                    let _ = masker.apply(function, &domain, value.as_bytes(), &mut out);
                    let _ = masker.apply(function, &domain, b"\xff", &mut out);
                    let _ = masker.apply_at(&path, mask, json.as_bytes(), &mut out);
                }
            });
            assert_eq!(all.count_total, 0, "{function:?}");
        }
    }
}

#[cfg(test)]
mod redis {
    use portcullis::analysis::redis::{Found, Shape, Table, Uses};
    use portcullis::mask::{MaskKey, Masker};
    use portcullis::name::{Glob, RuleId};
    use portcullis::obligation::{MaskFn, Token, ValueMask};
    use portcullis::session::resp::reshape::{Job, KeyMasks, Owed, Reshaper, Step, With};
    use portcullis::wire::queue::ByteQueue;
    use portcullis::wire::resp::Protocol;

    /// Finding a command and its keys, once the lists have held as many before.
    #[test]
    fn a_command_is_looked_up_without_allocating() {
        let table = Table::builtin();
        let mut uses = Uses::default();
        let lines: [&[&[u8]]; 6] = [
            &[b"get", b"k"],
            &[b"SET", b"k", b"v", b"EX", b"5", b"GET"],
            &[b"MGET", b"a", b"b", b"c", b"d"],
            &[b"client", b"setname", b"x"],
            &[b"XREAD", b"COUNT", b"5", b"STREAMS", b"a", b"b", b"0", b"0"],
            &[b"psubscribe", b"a*", b"b*"],
        ];
        let mut look_up = || {
            for line in lines {
                let Found::Command(command) = table.find(line) else { panic!("{line:?}") };
                assert!(command.arity_fits(line.len()));
                command.uses(line, &mut uses).unwrap();
            }
        };
        look_up();
        assert_eq!(allocation_counter::measure(look_up).count_total, 0);
    }

    /// What a masked reply costs does not grow with its elements: the job, and nothing for each of
    /// them. A mask inside of JSON has a list of its own.
    #[test]
    fn elements_are_masked_without_allocating() {
        let masks = |function: MaskFn| {
            let fields = Some([Glob::new("f?")][..].into());
            let rule = RuleId("r".into());
            KeyMasks::new(&[ValueMask {
                pattern: "*".into(),
                fields,
                path: None,
                function,
                class: None,
                rule,
            }])
        };
        let key = MaskKey::new(1, vec![7; 32].into()).unwrap();
        let masker = Masker::with_key(&key);
        let with = With { masker: &masker, protocol: Protocol::Resp2 };
        let pairs = Shape::Pairs(Box::new(Shape::Field), Box::new(Shape::Value));
        for function in [
            MaskFn::Partial { prefix: 1, suffix: 1, fill: '*' },
            MaskFn::TokenHmac(Token::new(26, "p_").unwrap()),
            MaskFn::Nullify,
        ] {
            let masks = masks(function);
            let owed = || {
                let keys = std::iter::once((&b"k"[..], &masks));
                Owed::One(Job::new(&pairs, &[b"HGETALL", b"k".as_slice()][..], keys))
            };
            let mut reshaper = Reshaper::default();
            let mut out = ByteQueue::default();
            let mut cost = |elements: usize| {
                let pair = "$2\r\nf1\r\n$10\r\nZo\u{eb} Ada B\r\n$4\r\nname\r\n$3\r\nAda\r\n";
                let reply = format!("*{}\r\n{}", elements * 4, pair.repeat(elements));
                let mut input = bytes::BytesMut::from(reply.as_str());
                let work = || {
                    let step = reshaper.feed(&owed(), with, &mut input, &mut out);
                    assert_eq!(step, Ok(Step::Done));
                    let len = out.len();
                    bytes::Buf::advance(&mut out, len);
                };
                allocation_counter::measure(work).count_total
            };
            cost(500);
            let few = cost(1);
            assert_eq!(cost(400), few);
            assert!(few <= 4, "{few}");
        }
    }
}
