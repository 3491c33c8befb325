//! What must hold for a session whatever its two peers send: the entry points of the fuzzers and of
//! their corpora in the tests.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use bytes::{Buf, BytesMut};

use super::{PgConfig, PgSession, SessionSeed, TlsMode, scram};
use crate::analysis::sql::{self, Predicates};
use crate::analysis::{Analyzer, Catalog, SearchPath};
use crate::event::Now;
use crate::facts::Certainty;
use crate::policy::{Credential, Decision, IdentityClass, Login, RuleSet, SourceFile, Throttles};
use crate::session::auth::{Authentication, LookedUp, Reply, Request};
use crate::session::gate::{ActiveRules, PlanCache};
use crate::session::{
    Answer, Effect, EndCause, Outbox, SECRET_BYTES, Session as _, Side, TlsPeer, Turn,
};
use crate::wire::pg::encoding::Encoding;
use crate::wire::pg::frame::{self, HEAD_BYTES};
use crate::wire::pg::message::{self, ParseBody};
use crate::wire::pg::startup;

const DDL: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, tenant_id text, name text, email text);
    CREATE TABLE orders (id int PRIMARY KEY, customer_id int, amount numeric);
    CREATE TABLE secrets (id int PRIMARY KEY, word text);";

/// `app` is nobody's business, `analyst` is under rules.
const RULES: &str = "version: 1
rules:
  - id: mask
    match: {users: [analyst], columns: [public.customers.email]}
    mask: partial_email
  - id: filter
    match: {users: [analyst], relations: [public.customers]}
    filter: tenant_id = 'acme'
  - id: no-secrets
    match: {users: [analyst], relations: [public.secrets]}
    deny: true
  - id: no-unbounded
    match: {users: [analyst], statements: [update, delete], without: where}
    deny: true
";

struct World {
    rules: ActiveRules,
    plans: PlanCache,
    throttles: Throttles,
}

static WORLD: LazyLock<Option<World>> = LazyLock::new(|| {
    let file = SourceFile { name: "rules.yaml".to_owned(), text: RULES.to_owned() };
    let (set, _warnings) = RuleSet::compile(&[file], None).ok()?;
    let filters = set.filters().map(|(rule, text, _)| (rule.clone(), text));
    let predicates = Predicates::compile(filters).ok()?;
    let digest = set.digest().to_owned();
    Some(World {
        rules: ActiveRules { set, predicates, digest, generation: 1 },
        plans: PlanCache::new(1 << 20),
        throttles: Throttles::default(),
    })
});

impl World {
    /// The analyzer is one conversation's own: what a session learns there is no business of the
    /// next.
    fn turn<'a>(&'a self, analyzer: &'a Analyzer) -> Turn<'a> {
        let Self { rules, plans, throttles } = self;
        let now = Now { wall_us: 1_700_000_000_000_000, mono_us: 1_000_000 };
        Turn { rules, analyzer, plans, throttles, now }
    }

    fn analyzer() -> Analyzer {
        let analyzer = Analyzer::default();
        if let Ok(catalog) = Catalog::from_ddl("shop", DDL) {
            analyzer.install(catalog);
        }
        analyzer
    }

    fn class(&self, user: &str) -> IdentityClass {
        let login = Login {
            datasource: "main".into(),
            protocol: crate::name::Protocol::POSTGRESQL,
            default_deny: false,
            user: user.to_owned(),
            database: "shop".to_owned(),
            address: None,
            application: String::new(),
            credential: Credential::default(),
        };
        self.rules.set.classify(self.rules.set.identify(login))
    }
}

fn config(tls: TlsMode) -> PgConfig {
    PgConfig {
        datasource: "main".into(),
        default_deny: false,
        tls,
        authentication: Authentication::default(),
        server: ("db.example.com".to_owned(), 5432),
        // Out of reach of an input: at these limits, what is sent depends on when it arrives.
        pending_replies_max: INPUT_BYTES_MAX,
        prepared_statements_max: 8,
        inspected_bytes_max: INPUT_BYTES_MAX,
    }
}

/// A session between two buffers, whose shell says yes to everything.
struct Run<'a> {
    world: &'a World,
    analyzer: Analyzer,
    session: PgSession,
    out: Outbox,
    inputs: [BytesMut; 2],
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    connects: usize,
    failed: bool,
    closing: bool,
}

impl<'a> Run<'a> {
    fn new(world: &'a World, tls: TlsMode) -> Self {
        let seed = SessionSeed { uid: "s".to_owned(), client: None, local: None };
        let analyzer = World::analyzer();
        let now = world.turn(&analyzer).now;
        Self {
            world,
            analyzer,
            session: PgSession::new(Arc::new(config(tls)), seed, now),
            out: Outbox::default(),
            inputs: [BytesMut::new(), BytesMut::new()],
            to_client: Vec::new(),
            to_server: Vec::new(),
            connects: 0,
            failed: false,
            closing: false,
        }
    }

    fn deliver(&mut self, from: Side, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            self.input(from).extend_from_slice(piece);
            while self.feed(Side::Server) | self.feed(Side::Client) {}
        }
    }

    fn input(&mut self, side: Side) -> &mut BytesMut {
        let [client, server] = &mut self.inputs;
        match side {
            Side::Client => client,
            Side::Server => server,
        }
    }

    fn feed(&mut self, side: Side) -> bool {
        let Self {
            world, analyzer, session, out, inputs: [client, server], failed, closing, ..
        } = self;
        let input = if side == Side::Client { client } else { server };
        if *failed || *closing || input.is_empty() || !session.wants(side) {
            return false;
        }
        let before = (input.len(), out.to_client.len(), out.to_server.len());
        out.room = ROOM;
        *failed = session.feed(world.turn(analyzer), side, input, out).is_err();
        let after = (input.len(), out.to_client.len(), out.to_server.len());
        let moved = before != after || !out.effects.is_empty() || !out.events.is_empty();
        self.collect();
        moved
    }

    fn collect(&mut self) {
        self.out.events.clear();
        for (queue, to) in [
            (&mut self.out.to_client, &mut self.to_client),
            (&mut self.out.to_server, &mut self.to_server),
        ] {
            while queue.has_remaining() {
                let chunk = queue.chunk();
                to.extend_from_slice(chunk);
                let len = chunk.len();
                queue.advance(len);
            }
        }
        for effect in std::mem::take(&mut self.out.effects) {
            let answer = match effect {
                Effect::StartTls => {
                    let [client, _] = &self.inputs;
                    assert!(client.is_empty(), "bytes ahead of a handshake");
                    Answer::TlsStarted(TlsPeer::default())
                }
                // The bytes are a handshake, and here they fail as one.
                Effect::StartDirectTls(_) => {
                    self.closing = true;
                    continue;
                }
                Effect::Authenticate(request) => match *request {
                    Request::Admit(_) => Answer::Authenticate(Box::new(Reply::Admitted {
                        random: [5; 18],
                        looked_up: LookedUp::NotAsked,
                    })),
                    Request::Password { .. } | Request::Account(_) | Request::Derive { .. } => {
                        continue;
                    }
                },
                Effect::Connect => {
                    self.connects += 1;
                    Answer::Connected { secret: [7; SECRET_BYTES], tls: None, local: true }
                }
                Effect::Close | Effect::Cancel { .. } => {
                    self.closing = true;
                    continue;
                }
                Effect::RegisterCancel { .. }
                | Effect::ReportLogin(_)
                | Effect::ReportAccount(_) => continue,
            };
            self.out.room = ROOM;
            let taken = self.session.resume(self.world.turn(&self.analyzer), answer, &mut self.out);
            assert!(taken.is_ok(), "an answer to what was asked");
            self.collect();
        }
    }

    fn end(&mut self) {
        self.session.end(self.world.turn(&self.analyzer), EndCause::ClientGone, &mut self.out);
        self.collect();
        assert_eq!(self.session.owed_events(), 0, "every statement has an outcome");
    }
}

/// A start-up and whatever follows it from a client, and checks that
/// - nothing but a StartupMessage of protocol 3.0 with the client's own parameters goes out,
/// - only for somebody with a name, and never for replication, which no rule opens here,
/// - bytes in pieces do what they do at once, but where the protocol has the client wait.
///
/// # Panics
/// If one of them does not hold.
pub fn fuzz_startup(data: &[u8]) {
    let Some(world) = &*WORLD else { return };
    let Some((mode, data)) = data.split_first() else { return };
    let data = data.get(..INPUT_BYTES_MAX.min(data.len())).unwrap_or_default();
    let tls = match mode % 3 {
        0 => TlsMode::Off,
        1 => TlsMode::Allowed,
        _ => TlsMode::Required,
    };
    let run = |piece| {
        let mut run = Run::new(world, tls);
        run.deliver(Side::Client, data, piece);
        check_startup(&run);
        run.end();
        run
    };
    let whole = run(usize::MAX);
    if whole.failed {
        return;
    }
    for piece in [1, 3] {
        let run = run(piece);
        assert_eq!(run.to_server, whole.to_server, "to the server, in pieces of {piece}");
        assert_eq!(run.to_client, whole.to_client, "to the client, in pieces of {piece}");
    }
}

fn check_startup(run: &Run<'_>) {
    assert!(run.connects <= 1, "one server connection");
    let sent = run.to_server.as_slice();
    if run.connects == 0 {
        assert!(sent.is_empty(), "bytes for a server nobody connected to");
        return;
    }
    let len = startup::peek(sent).ok().flatten().unwrap_or_default();
    let read = sent.get(..len).map(startup::parse);
    let Some(Ok(startup::Request::Startup(read))) = read else {
        unreachable("no StartupMessage");
        return;
    };
    assert_eq!(read.minor, 0, "the server is spoken to in 3.0");
    assert!(read.parameters.iter().all(|(name, _)| !name.starts_with(b"_pq_.")));
    assert!(read.get("user").is_some_and(|user| !user.is_empty()), "a nameless login");
    assert!(!read.is_replication(), "replication without a rule");
}

/// `data` as a conversation after the login: a byte for the user, then pieces of either side, each
/// behind a byte for side and length. Checks that
/// - every text the server gets is the client's own, or ours, or rewritten; that it is understood;
///   and that the rules, asked again, allow it,
/// - pieces in smaller pieces do what they do at once,
/// - what is sent is bounded by what came.
///
/// # Panics
/// If one of them does not hold.
pub fn fuzz_session(data: &[u8]) {
    let Some(world) = &*WORLD else { return };
    let Some((user, data)) = data.split_first() else { return };
    let data = data.get(..INPUT_BYTES_MAX.min(data.len())).unwrap_or_default();
    let user = if user % 2 == 0 { "app" } else { "analyst" };
    let pieces = pieces(data);
    let run = |piece| {
        let mut run = logged_in(world, user);
        for (side, bytes) in &pieces {
            run.deliver(*side, bytes, piece);
        }
        run.end();
        run
    };
    let whole = run(usize::MAX);
    for piece in [1, 5] {
        let run = run(piece);
        assert_eq!(run.to_server, whole.to_server, "to the server, in pieces of {piece}");
        assert_eq!(run.to_client, whole.to_client, "to the client, in pieces of {piece}");
    }
    let sent = whole.to_server.len() + whole.to_client.len();
    assert!(sent <= SENT_BYTES_FREE + data.len() * SENT_BYTES_EACH, "{sent} of {}", data.len());
    let said = |by: Side| -> Vec<u8> {
        pieces.iter().filter(|(side, _)| *side == by).flat_map(|(_, bytes)| bytes.clone()).collect()
    };
    let told = encodings_told(&said(Side::Server));
    check_texts(world, user, (&said(Side::Client), &told), &whole.to_server);
}

fn logged_in<'a>(world: &'a World, user: &str) -> Run<'a> {
    let mut run = Run::new(world, TlsMode::Off);
    let mut first = BytesMut::new();
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let parameters = vec![pair("user", user), pair("database", "shop")];
    message::startup(&mut first, &startup::Startup { minor: 0, parameters });
    run.deliver(Side::Client, &first, usize::MAX);
    run.deliver(Side::Server, LOGIN, usize::MAX);
    if user == "analyst" {
        run.deliver(Side::Server, PATH, usize::MAX);
    }
    assert!(
        run.to_client.ends_with(b"Z\0\0\0\x05I"),
        "logged in: {} {}",
        run.to_client.escape_ascii(),
        run.to_server.escape_ascii()
    );
    run.to_client.clear();
    run.to_server.clear();
    run
}

/// Authentication, BackendKeyData, ReadyForQuery.
const LOGIN: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x07abcdZ\0\0\0\x05I";
/// The search path: pg_catalog and public.
const PATH: &[u8] = b"D\0\0\0\x14\0\x01\0\0\0\x0apg_catalogD\0\0\0\x10\0\x01\0\0\0\x06public\
C\0\0\0\x0dSELECT 2\0Z\0\0\0\x05I";

fn pieces(mut data: &[u8]) -> Vec<(Side, Vec<u8>)> {
    let mut pieces = Vec::new();
    while let Some((head, rest)) = data.split_first() {
        let side = if head & 1 == 0 { Side::Client } else { Side::Server };
        let len = usize::from(head >> 1).min(rest.len());
        let (piece, rest) = rest.split_at(len);
        pieces.push((side, piece.to_vec()));
        data = rest;
    }
    pieces
}

/// Frames of a stream, as far as they are whole.
fn frames(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Ok(Some(head)) = frame::peek(bytes)
        && let Some((frame, rest)) = bytes.split_at_checked(head.len)
    {
        found.push((head.tag, frame.get(HEAD_BYTES..).unwrap_or_default()));
        bytes = rest;
    }
    found
}

fn text_of<'a>((tag, body): &(u8, &'a [u8])) -> Option<&'a [u8]> {
    match tag {
        b'Q' => message::query_text(body).ok(),
        b'P' => ParseBody::read(body).ok().map(|parse| parse.text),
        _ => None,
    }
}

/// Encodings the server told of besides UTF-8.
fn encodings_told(server: &[u8]) -> Vec<Encoding> {
    let parameters = frames(server).into_iter().filter(|(tag, _)| *tag == b'S');
    let named = parameters.filter_map(|(_, body)| body.strip_prefix(b"client_encoding\0"));
    named.filter_map(|name| name.strip_suffix(&[0])).map(Encoding::of).collect()
}

/// How a text may have been read: as UTF-8, or by an encoding the session was told of.
fn readings(text: &[u8], told: &[Encoding]) -> Vec<String> {
    let utf8 = std::str::from_utf8(text).ok().map(str::to_owned);
    utf8.into_iter().chain(told.iter().filter_map(|encoding| encoding.stand_in(text))).collect()
}

fn check_texts(world: &World, user: &str, (client, told): (&[u8], &[Encoding]), sent: &[u8]) {
    let own: BTreeSet<&[u8]> = frames(client).iter().filter_map(text_of).collect();
    let class = world.class(user);
    let analyzer = World::analyzer();
    let catalog = analyzer.catalog("shop");
    let path = SearchPath::Known(vec!["pg_catalog".into(), "public".into()]);
    for frame in frames(sent) {
        assert_ne!(frame.0, b'F', "a function call nobody opened");
        let Some(text) = text_of(&frame) else {
            assert!(!matches!(frame.0, b'Q' | b'P'), "a malformed message went out");
            continue;
        };
        if is_ours(text) {
            continue;
        }
        assert!(class.governed || own.contains(text), "not the client's: {}", text.escape_ascii());
        // Under rules nothing but UTF-8 is read.
        let told = if class.governed { &[][..] } else { told };
        let permitted = |read: &String| {
            let parsed = sql::analyze(read, catalog.as_deref(), &path, &analyzer.limits);
            let decision = world.rules.set.decide(&class, &parsed.facts);
            parsed.facts.certainty == Certainty::Known && matches!(decision, Decision::Allow(_))
        };
        let readings = readings(text, told);
        assert!(
            readings.iter().any(permitted),
            "not understood, or not allowed: {}",
            text.escape_ascii()
        );
    }
}

/// Texts the session puts in itself.
fn is_ours(text: &[u8]) -> bool {
    let ours = [
        &b"portcullis refused this statement"[..],
        b"SELECT pg_catalog.unnest(pg_catalog.current_schemas(true))",
        b"ROLLBACK",
    ];
    let catalog = b"BEGIN TRANSACTION READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp; ";
    ours.contains(&text) || text.starts_with(catalog) && text.ends_with(b"; COMMIT")
}

/// `data` as messages of SCRAM exchanges, and as passwords: see [`super::scram::fuzz`].
///
/// # Panics
/// If something holds that must not, or the other way round.
pub fn fuzz_scram(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    if mode % 4 != 0 {
        scram::fuzz::messages(data);
        return;
    }
    // Each salting costs: passwords are short.
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().and_then(|part| part.get(..part.len().min(64)));
    let parts = [part(), part(), part()].map(Option::unwrap_or_default);
    let [password, other, bound] = parts;
    scram::fuzz::agree(password, other, bound);
}

fn unreachable(what: &str) {
    assert!(what.is_empty(), "{what}");
}

/// Longer inputs are cut.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Audit places for any input.
const ROOM: usize = 1 << 20;
/// What may be sent for nothing: the reading of catalogs.
const SENT_BYTES_FREE: usize = 1 << 20;
/// What may be sent for a byte: an error for each message of five bytes.
const SENT_BYTES_EACH: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn corpus(name: &str, check: fn(&[u8])) {
        let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            check(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 10, "only {files} inputs were found");
    }

    #[test]
    fn the_corpora_hold() {
        corpus("pg_startup", fuzz_startup);
        corpus("pg_session", fuzz_session);
        corpus("scram", fuzz_scram);
    }

    proptest! {
        #[test]
        fn holds_for_any_bytes(data in prop::collection::vec(any::<u8>(), 0..256)) {
            fuzz_startup(&data);
            fuzz_session(&data);
            fuzz_scram(&data);
        }
    }
}
