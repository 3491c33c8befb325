//! What must hold for a session whatever its two peers send: the world of the tests, and the entry
//! point of the fuzzer.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::{Buf, BytesMut};

use super::{RespConfig, RespSession};
use crate::analysis::redis::{Expiry, Found, KeyAt, Table};
use crate::analysis::{Analyzer, sql::Predicates};
use crate::event::{Event, EventKind, Now, RecordedVerdict};
use crate::mask::Masker;
use crate::policy::{RuleSet, SourceFile, Throttles, Vocabulary};
use crate::session::auth::{Authentication, LookedUp, Reply, Request};
use crate::session::gate::{ActiveRules, PlanCache};
use crate::session::{
    Answer, Effect, EndCause, Outbox, SECRET_BYTES, Session as _, SessionSeed, Side, TlsMode, Turn,
};
use crate::wire::resp::request::{RequestLimits, Scan, Scanner};

/// Everybody is under rules.
pub(super) const RULES: &str = "version: 1
rules:
  - id: mask
    match: {protocol: redis, keys: [\"pii:*\"]}
    mask: {constant: HIDDEN}
  - id: no-secrets
    match: {protocol: redis, keys: [\"secret:*\"]}
    deny: true
  - id: ends
    match: {protocol: redis, writes: [\"end:*\"]}
    ttl: {default: 1h, cap: 1day}
";

/// What sessions of a test have in common.
#[derive(Debug)]
pub(super) struct World {
    rules: ActiveRules,
    analyzer: Analyzer,
    plans: PlanCache,
    throttles: Throttles,
    table: Arc<Table>,
}

impl World {
    /// With these rules; `None` if they are not accepted.
    pub(super) fn with_rules(text: &str) -> Option<Self> {
        let table = Arc::new(Table::builtin());
        let file = SourceFile { name: "rules.yaml".to_owned(), text: text.to_owned() };
        let commands = table.commands().iter().map(|command| &command.fact);
        let vocabulary = Vocabulary::default().with_commands(commands);
        let (set, _warnings) = RuleSet::compile_for(&[file], None, &vocabulary).ok()?;
        let digest = set.digest().to_owned();
        let predicates = Predicates::default();
        Some(Self {
            rules: ActiveRules { set, predicates, digest, generation: 1 },
            analyzer: Analyzer::default(),
            plans: PlanCache::new(1 << 16),
            throttles: Throttles::default(),
            table,
        })
    }

    /// The rules in force are others than before.
    #[cfg(test)]
    pub(super) fn next_generation(&mut self) {
        self.rules.generation += 1;
    }

    fn turn(&self) -> Turn<'_> {
        let Self { rules, analyzer, plans, throttles, table: _ } = self;
        let now = Now { wall_us: 1_700_000_000_000_000, mono_us: 1_000_000 };
        Turn { rules, analyzer, plans, throttles, now }
    }

    fn config(&self) -> RespConfig {
        RespConfig {
            datasource: "cache".into(),
            default_deny: false,
            tls: TlsMode::Off,
            authentication: Authentication::default(),
            server: ("cache.example.com".to_owned(), 6379),
            table: Arc::clone(&self.table),
            masker: Arc::new(Masker::default()),
            // Out of reach of an input: at the limit, what is sent depends on when it arrives.
            pending_replies_max: INPUT_BYTES_MAX,
        }
    }
}

/// A session between two buffers, whose shell says yes to everything.
#[derive(Debug)]
pub(super) struct Run<'a> {
    world: &'a World,
    pub(super) session: RespSession,
    out: Outbox,
    inputs: [BytesMut; 2],
    /// What the client got.
    pub(super) to_client: Vec<u8>,
    /// What the server got.
    pub(super) to_server: Vec<u8>,
    /// What was recorded.
    pub(super) events: Vec<Event>,
    /// The connection ended.
    pub(super) closed: bool,
    /// It ended because a side could not be followed.
    lost: bool,
    /// The server was asked whether the client may come in without a word.
    greeted: bool,
    /// How late it is.
    late_us: u64,
}

impl<'a> Run<'a> {
    /// A connection that was just accepted.
    pub(super) fn new(world: &'a World) -> Self {
        Self::with(world, world.config())
    }

    fn with(world: &'a World, config: RespConfig) -> Self {
        let client = Some(([127, 0, 0, 1], 4000).into());
        let seed = SessionSeed { uid: "s".to_owned(), client, local: None };
        let session = RespSession::new(Arc::new(config), seed, world.turn().now);
        Self {
            world,
            session,
            out: Outbox { room: usize::MAX, ..Outbox::default() },
            inputs: [BytesMut::new(), BytesMut::new()],
            to_client: Vec::new(),
            to_server: Vec::new(),
            events: Vec::new(),
            closed: false,
            lost: false,
            greeted: false,
            late_us: 0,
        }
    }

    fn turn(&self) -> Turn<'a> {
        let mut turn = self.world.turn();
        turn.now.mono_us += self.late_us;
        turn
    }

    /// Time passes, and the session is called when it asked to be.
    #[cfg(test)]
    pub(super) fn wait(&mut self, us: u64) {
        self.late_us += us;
        let turn = self.turn();
        if self.session.settles_at().is_some_and(|at| at <= turn.now.mono_us) {
            self.session.settle(turn, &mut self.out);
            self.collect();
        }
    }

    /// The world has changed.
    #[cfg(test)]
    pub(super) fn move_to(&mut self, world: &'a World) {
        self.world = world;
    }

    /// Bytes arrive.
    pub(super) fn feed(&mut self, from: Side, bytes: &[u8]) {
        self.input(from).extend_from_slice(bytes);
        self.settle();
    }

    /// The shell ends the session.
    pub(super) fn end(&mut self, cause: EndCause) {
        let turn = self.turn();
        self.session.end(turn, cause, &mut self.out);
        self.collect();
    }

    fn input(&mut self, side: Side) -> &mut BytesMut {
        let [client, server] = &mut self.inputs;
        match side {
            Side::Client => client,
            Side::Server => server,
        }
    }

    /// Offers what there is until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for side in [Side::Server, Side::Client] {
                moved |= self.offer(side);
            }
            while !self.out.effects.is_empty() && !self.closed {
                let effect = self.out.effects.remove(0);
                self.carry_out(effect);
                moved = true;
            }
            if !self.greeted && self.to_server == super::words::PING {
                self.greeted = true;
                self.to_server.clear();
                // In front of what a server may have said too early.
                let early = self.input(Side::Server).split();
                self.input(Side::Server).extend_from_slice(b"+PONG\r\n");
                self.input(Side::Server).unsplit(early);
                moved = true;
            }
            if !moved || self.closed {
                return;
            }
        }
    }

    fn offer(&mut self, side: Side) -> bool {
        if self.closed || !self.session.wants(side) || self.input(side).is_empty() {
            return false;
        }
        let turn = self.turn();
        let [client, server] = &mut self.inputs;
        let input = match side {
            Side::Client => client,
            Side::Server => server,
        };
        let before = input.len();
        let result = self.session.feed(turn, side, input, &mut self.out);
        let moved = before != input.len() || !self.out.effects.is_empty();
        let moved = self.collect() || moved;
        if result.is_err() {
            self.closed = true;
            self.lost = true;
        }
        moved
    }

    fn carry_out(&mut self, effect: Effect) {
        let answer = match effect {
            Effect::Authenticate(request) => Answer::Authenticate(Box::new(match *request {
                Request::Admit(_) => {
                    Reply::Admitted { random: [0; 18], looked_up: LookedUp::NotAsked }
                }
                Request::Password { .. } | Request::Account(_) | Request::Derive { .. } => {
                    Reply::Unavailable("not in this world")
                }
            })),
            Effect::Connect => {
                Answer::Connected { secret: [0; SECRET_BYTES], tls: None, local: true }
            }
            Effect::Close => {
                self.closed = true;
                return;
            }
            Effect::ReportLogin(_)
            | Effect::ReportAccount(_)
            | Effect::StartTls
            | Effect::StartDirectTls(_)
            | Effect::Cancel { .. }
            | Effect::RegisterCancel { .. } => return,
        };
        let resumed = self.session.resume(self.turn(), answer, &mut self.out);
        self.closed |= resumed.is_err();
        self.collect();
    }

    fn collect(&mut self) -> bool {
        let moved = !self.out.to_client.is_empty() || !self.out.to_server.is_empty();
        drain(&mut self.out.to_client, &mut self.to_client);
        drain(&mut self.out.to_server, &mut self.to_server);
        self.events.append(&mut self.out.events);
        moved
    }
}

fn drain(queue: &mut crate::wire::queue::ByteQueue, into: &mut Vec<u8>) {
    while queue.has_remaining() {
        let chunk = queue.chunk();
        into.extend_from_slice(chunk);
        let taken = chunk.len();
        queue.advance(taken);
    }
}

static WORLD: LazyLock<Option<World>> = LazyLock::new(|| World::with_rules(RULES));

/// A conversation: pieces of the two sides in turn, each behind a byte that says whose and how long.
///
/// # Panics
/// What the server gets is no command, or one that is denied; or what comes out, or what the trail
/// tells, depends on how the bytes arrive.
pub fn fuzz_session(data: &[u8]) {
    let world = WORLD.as_ref();
    assert!(world.is_some(), "the rules are not accepted");
    let Some(world) = world else { return };
    let data = data.get(..INPUT_BYTES_MAX).unwrap_or(data);
    let whole = converse(world, data, usize::MAX);
    judge(world, &whole.to_server);
    for piece in [1, 3] {
        let pieces = converse(world, data, piece);
        judge(world, &pieces.to_server);
        // A server that answers before it is asked is lost or not by when it does so.
        if !whole.lost && !pieces.lost {
            assert_eq!(pieces.to_server, whole.to_server, "by {piece}");
            assert_eq!(pieces.to_client, whole.to_client, "by {piece}");
            assert_eq!(told(&pieces), told(&whole), "by {piece}");
        }
    }
}

/// What became of a conversation.
fn converse<'a>(world: &'a World, data: &[u8], piece: usize) -> Run<'a> {
    let mut run = Run::new(world);
    let mut rest = data;
    while let Some((head, behind)) = rest.split_first() {
        let side = if head & 0x80 == 0 { Side::Client } else { Side::Server };
        let len = usize::from(head & 0x7f).min(behind.len());
        let (bytes, behind) = behind.split_at(len);
        rest = behind;
        for part in bytes.chunks(piece.min(INPUT_BYTES_MAX)) {
            run.feed(side, part);
        }
    }
    if !run.closed {
        run.end(EndCause::ClientGone);
    }
    run
}

/// How many commands of each name the trail tells of: denied, and answered by the server.
fn told<'a>(run: &'a Run<'_>) -> BTreeMap<(&'a str, bool), u64> {
    let mut told = BTreeMap::new();
    for event in &run.events {
        let (EventKind::CommandsDecided { run, .. } | EventKind::CommandsCompleted { run, .. }) =
            &event.kind
        else {
            continue;
        };
        let denied = matches!(event.kind, EventKind::CommandsDecided { .. });
        if matches!(run.record.verdict, RecordedVerdict::Denied { .. }) == denied {
            *told.entry((&*run.record.command, denied)).or_default() += run.count;
        }
    }
    told
}

/// Every command the server got is one of the table's, and names no key that is denied.
fn judge(world: &World, sent: &[u8]) {
    let mut scanner = Scanner::new(RequestLimits::LOGGED_IN);
    let mut rest = sent;
    loop {
        match scanner.scan(rest) {
            Ok(Scan::Incomplete) => return,
            Ok(Scan::Command { len, form: _ }) => {
                let args = scanner.args(rest);
                let found = world.table.find(&args);
                assert!(matches!(found, Found::Command(_)), "an unknown command was sent");
                let Found::Command(command) = found else { return };
                assert!(!command.fact.door, "{} is closed", command.fact.name);
                let mut uses = crate::analysis::redis::Uses::default();
                assert!(command.uses(&args, &mut uses).is_ok(), "{}", command.fact.name);
                let said = command.expiry(&args).expiry;
                for KeyAt { at, mode, exposure: _ } in uses.keys {
                    let key = args.get(at).unwrap_or_default();
                    assert!(!key.starts_with(b"secret:"), "{} of a secret", command.fact.name);
                    let ends = mode.writes() && key.starts_with(b"end:");
                    assert!(!ends || is_within_a_day(said), "{} for {said:?}", command.fact.name);
                }
                rest = rest.get(len..).unwrap_or_default();
            }
            other @ (Ok(Scan::Drop(_) | Scan::Head { .. } | Scan::TooLong(_)) | Err(_)) => {
                return assert_eq!(other, Ok(Scan::Incomplete), "what was sent");
            }
        }
    }
}

/// Whether the rule on expiry lets a key be left with it.
fn is_within_a_day(expiry: Expiry) -> bool {
    match expiry {
        Expiry::Kept => true,
        Expiry::Removed => false,
        Expiry::In(ms) => ms <= 86_400_000,
        Expiry::At(ms) => ms <= 1_700_086_400_000,
    }
}

/// Longest input: what is longer says nothing new.
const INPUT_BYTES_MAX: usize = 4096;
