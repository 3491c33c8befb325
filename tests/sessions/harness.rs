//! One session between two peers that are byte buffers: what the shell does, without sockets.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use portcullis::analysis::sql::Predicates;
use portcullis::analysis::{Analyzer, Catalog};
use portcullis::event::{Event, Now};
use portcullis::policy::{RuleSet, SourceFile, Throttles};
use portcullis::session::auth::{Authentication, LookedUp, Reply, Request};
use portcullis::session::gate::{ActiveRules, PlanCache};
use portcullis::session::pg::{PgConfig, PgSession};
use portcullis::session::{
    Answer, Effect, EndCause, Outbox, ProtocolError, Session as _, Side, Turn,
};
use portcullis::session::{SessionSeed, TlsMode};

/// What all sessions of a process share.
pub(crate) struct World {
    pub(crate) rules: ActiveRules,
    pub(crate) analyzer: Analyzer,
    plans: PlanCache,
    throttles: Throttles,
    pub(crate) mono_us: u64,
}

impl World {
    /// The database `shop`, and no rules.
    pub(crate) fn new() -> Self {
        let analyzer = Analyzer::default();
        analyzer.install(Catalog::from_ddl("shop", include_str!("schema.sql")).unwrap());
        Self {
            rules: active("version: 1", 1),
            analyzer,
            plans: PlanCache::new(1 << 20),
            throttles: Throttles::default(),
            mono_us: 1_000_000,
        }
    }

    /// Puts other rules in force.
    pub(crate) fn reload(&mut self, text: &str) {
        self.rules = active(text, self.rules.generation + 1);
    }

    pub(crate) fn now(&self) -> Now {
        Now { wall_us: 1_700_000_000_000_000 + self.mono_us, mono_us: self.mono_us }
    }

    fn turn(&self) -> Turn<'_> {
        let Self { rules, analyzer, plans, throttles, .. } = self;
        Turn { rules, analyzer, plans, throttles, now: self.now() }
    }
}

fn active(text: &str, generation: u64) -> ActiveRules {
    let file = |name: &str, text: &str| SourceFile { name: name.into(), text: text.into() };
    let identities = file("identities.yaml", include_str!("identities.yaml"));
    let (set, _) = RuleSet::compile(&[file("rules.yaml", text)], Some(&identities)).unwrap();
    let digest = set.digest().to_owned();
    let filters = set.filters().map(|(rule, text, _)| (rule.clone(), text));
    let predicates = Predicates::compile(filters).unwrap();
    ActiveRules { set, predicates, digest, generation }
}

/// The configuration scripts run under.
pub(crate) fn config(tls: TlsMode) -> PgConfig {
    PgConfig {
        datasource: "main".into(),
        default_deny: false,
        tls,
        authentication: Authentication::default(),
        server: ("db.example.com".to_owned(), 5432),
        pending_replies_max: 64,
        prepared_statements_max: 8,
        inspected_bytes_max: 4096,
    }
}

/// A session with both its peers.
pub(crate) struct Wire {
    pub(crate) session: PgSession,
    pub(crate) out: Outbox,
    /// Bytes the session left for later.
    pub(crate) from_client: BytesMut,
    from_server: BytesMut,
    /// Events so far, taken from the outbox after each call.
    pub(crate) events: Vec<Event>,
    /// What the session may push or newly owe in one call.
    pub(crate) room: usize,
    pub(crate) error: Option<ProtocolError>,
}

impl Wire {
    pub(crate) fn new(world: &World, config: PgConfig) -> Self {
        let client = Some("192.0.2.7:40000".parse().unwrap());
        let seed = SessionSeed { uid: "s".to_owned(), client, local: None };
        Self {
            session: PgSession::new(Arc::new(config), seed, world.now()),
            out: Outbox::default(),
            from_client: BytesMut::new(),
            from_server: BytesMut::new(),
            events: Vec::new(),
            room: 64,
            error: None,
        }
    }

    /// Bytes arrive from one side; everything that can be done is done.
    pub(crate) fn deliver(&mut self, world: &World, from: Side, bytes: &[u8]) {
        match from {
            Side::Client => self.from_client.extend_from_slice(bytes),
            Side::Server => self.from_server.extend_from_slice(bytes),
        }
        self.turns(world);
    }

    /// Offers what is there until nothing moves, as the shell does.
    pub(crate) fn turns(&mut self, world: &World) {
        loop {
            while self.feed(world, Side::Server) | self.feed(world, Side::Client) {}
            if !self.admit(world) {
                break;
            }
        }
    }

    /// Lets every client try to log in, and takes note of nothing.
    fn admit(&mut self, world: &World) -> bool {
        self.out.effects.retain(|effect| !matches!(effect, Effect::ReportLogin(_)));
        let asks = |effect: &Effect| matches!(effect, Effect::Authenticate(request) if matches!(**request, Request::Admit(_)));
        let Some(at) = self.out.effects.iter().position(asks) else { return false };
        self.out.effects.remove(at);
        self.out.room = self.room;
        let answer = Answer::Authenticate(Box::new(Reply::Admitted {
            random: [0; 18],
            looked_up: LookedUp::NotAsked,
        }));
        self.session.resume(world.turn(), answer, &mut self.out).unwrap();
        self.events.append(&mut self.out.events);
        true
    }

    /// One call of the session. Returns whether anything happened.
    fn feed(&mut self, world: &World, side: Side) -> bool {
        let Self { session, out, events, room, error, .. } = self;
        let input = match side {
            Side::Client => &mut self.from_client,
            Side::Server => &mut self.from_server,
        };
        if error.is_some() || input.is_empty() || !session.wants(side) {
            return false;
        }
        let before = (input.len(), out.to_client.len(), out.to_server.len(), out.effects.len());
        let owed = session.owed_events();
        out.room = *room;
        *error = session.feed(world.turn(), side, input, out).err();
        let newly_owed = session.owed_events().saturating_sub(owed);
        if side == Side::Client {
            let used = out.events.len() + newly_owed;
            assert!(used <= *room + owed, "used {used} places of {room}");
        }
        let after = (input.len(), out.to_client.len(), out.to_server.len(), out.effects.len());
        let moved = before != after || !out.events.is_empty();
        events.append(&mut out.events);
        moved
    }

    /// The shell's answer to an effect.
    pub(crate) fn resume(&mut self, world: &World, answer: Answer) {
        self.out.room = self.room;
        self.session.resume(world.turn(), answer, &mut self.out).unwrap();
        self.events.append(&mut self.out.events);
        self.turns(world);
    }

    /// The connection ends.
    pub(crate) fn end(&mut self, world: &World, cause: EndCause) {
        self.session.end(world.turn(), cause, &mut self.out);
        self.events.append(&mut self.out.events);
    }

    /// Takes what one side was sent so far.
    pub(crate) fn taken(&mut self, by: Side) -> Vec<u8> {
        let queue = match by {
            Side::Client => &mut self.out.to_client,
            Side::Server => &mut self.out.to_server,
        };
        let mut all = vec![0; queue.len()];
        queue.copy_to_slice(&mut all);
        all
    }

    /// Takes the oldest effect asked for.
    pub(crate) fn effect(&mut self) -> Option<Effect> {
        (!self.out.effects.is_empty()).then(|| self.out.effects.remove(0))
    }
}
