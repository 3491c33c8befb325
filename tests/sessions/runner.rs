//! Runs scripts; see the documentation of the test.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use portcullis::event::{Event, EventKind, RecordedVerdict};
use portcullis::session::TlsMode;
use portcullis::session::pg::PgConfig;
use portcullis::session::{
    Answer, CancelKey, Effect, EndCause, Phase, Session as _, Side, TlsPeer,
};

use super::harness::{Wire, World, config};
use super::notation::{Word, encode, report_fields, shown, split_frame, words};

#[test]
fn every_script_comes_out_as_written_however_the_bytes_arrive() {
    let mut failed = Vec::new();
    let mut scenarios = 0;
    for path in scripts() {
        let text = std::fs::read_to_string(&path).unwrap();
        for scenario in Scenario::all(&path, &text) {
            scenarios += 1;
            // The others are still worth running; the panic has told why.
            if std::panic::catch_unwind(|| scenario.run()).is_err() {
                failed.push(scenario.place);
            }
        }
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
    assert!(scenarios >= SCENARIOS_MIN, "only {scenarios} scenarios were found");
}

/// A runner that finds nothing must not pass.
const SCENARIOS_MIN: usize = 100;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sessions")
}

fn scripts() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut scripts: Vec<_> =
        entries.filter(|p| p.extension().is_some_and(|e| e == "txt")).collect();
    scripts.sort();
    scripts
}

struct Scenario {
    place: String,
    /// Line number and line.
    steps: Vec<(usize, String)>,
}

impl Scenario {
    fn all(path: &Path, text: &str) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        let file = path.file_name().unwrap().to_string_lossy();
        let mut texts: Vec<(String, String)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let mut line = line.trim().to_owned();
            for (name, text) in &texts {
                line = line.replace(name, text);
            }
            if let Some((name, text)) = line.strip_prefix("let ").and_then(|l| l.split_once(" = "))
            {
                texts.push((format!("{{{name}}}"), text.replace('"', "\\\"")));
            } else if let Some(title) = line.strip_prefix("===") {
                found.push(Self { place: format!("{file}: {}", title.trim()), steps: Vec::new() });
            } else if !line.is_empty() && !line.starts_with('#') {
                let last = found.last_mut().unwrap_or_else(|| panic!("{file}: no scenario yet"));
                last.steps.push((index + 1, line));
            }
        }
        found
    }

    fn run(&self) {
        let whole_only = self.steps.iter().any(|(_, step)| step == "only whole");
        for (chunk, room) in [(usize::MAX, 64), (usize::MAX, 2), (1, 64), (7, 2)] {
            if whole_only && chunk != usize::MAX {
                continue;
            }
            let mut run = Run::new(format!("{} (chunks of {chunk}, room {room})", self.place));
            (run.chunk, run.wire.room) = (chunk, room);
            for (line, step) in &self.steps {
                run.line = *line;
                run.step(step);
            }
            run.finish();
        }
    }
}

/// One scenario being run in one way.
struct Run {
    place: String,
    line: usize,
    world: World,
    config: PgConfig,
    wire: Wire,
    chunk: usize,
    /// Bytes not delivered yet, and from which side.
    sending: Option<(Side, Vec<u8>)>,
    /// What the peers received and no step has looked at yet.
    at_client: Vec<u8>,
    at_server: Vec<u8>,
    /// How many events were looked at; whether this step looked at any.
    events_seen: usize,
    events_wanted: bool,
}

impl Run {
    fn new(place: String) -> Self {
        let (world, config) = (World::new(), config(TlsMode::Off));
        Self {
            place,
            line: 0,
            wire: Wire::new(&world, config.clone()),
            world,
            config,
            chunk: usize::MAX,
            sending: None,
            at_client: Vec::new(),
            at_server: Vec::new(),
            events_seen: 0,
            events_wanted: false,
        }
    }

    fn step(&mut self, step: &str) {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        let rest = rest.trim();
        match verb {
            "C>" => return self.send(Side::Client, rest),
            "S>" => return self.send(Side::Server, rest),
            "C<" | "S<" | "event" | "effect" | "violation" | "phase" | "wants" | "stale" => {
                self.deliver();
            }
            _ => self.settle(),
        }
        let given = words(rest);
        let word = |index: usize| given.get(index).map_or("", Word::text);
        match verb {
            "C<" => self.received(Side::Client, rest),
            "S<" => self.received(Side::Server, rest),
            "event" => self.event(&given),
            "effect" => {
                let effect = self.wire.effect();
                let found = effect.as_ref().map_or_else(|| "nothing".to_owned(), effect_words);
                self.check(found == rest, || format!("effect `{found}`"));
            }
            "violation" => {
                let error = self.wire.error.take();
                let found = error.map(|e| format!("{:?} {}", e.side, e.kind).to_lowercase());
                self.check(found.as_deref() == Some(rest), || format!("violation {found:?}"));
            }
            "phase" => {
                let found = phase_word(self.wire.session.phase());
                self.check(found == rest, || format!("phase {found}"));
            }
            "wants" => {
                let side = if word(0) == "client" { Side::Client } else { Side::Server };
                let found = if self.wire.session.wants(side) { "yes" } else { "no" };
                self.check(found == word(1), || format!("wants {found}"));
            }
            "stale" => {
                let found = self.world.analyzer.claim_load("shop", self.world.mono_us);
                self.check(found == (rest == "yes"), || format!("stale {found}"));
            }
            "answer" => self.wire.resume(&self.world, answer(&given)),
            "config" => self.configure(&given),
            "catalog" => self.world.analyzer = portcullis::analysis::Analyzer::default(),
            "rules" => self.world.rules = fresh(rest, 1),
            "reload" => self.world.reload(&rules_text(rest)),
            "time" => self.world.mono_us += word(0).parse::<u64>().unwrap() * 1_000_000,
            "login" => self.login(rest),
            "end" => self.wire.end(&self.world, cause(rest)),
            "only" => {}
            other => panic!("{}:{}: no step `{other}`", self.place, self.line),
        }
    }

    fn check(&self, holds: bool, found: impl FnOnce() -> String) {
        if !holds {
            let mut text = format!("{}, line {}: found {}", self.place, self.line, found());
            for (who, bytes) in [("client", &self.at_client), ("server", &self.at_server)] {
                let mut bytes = bytes.clone();
                while let Some(frame) = split_frame(&mut bytes) {
                    write!(text, "\n  at the {who}: {}", shown(&frame)).unwrap();
                }
                if !bytes.is_empty() {
                    write!(text, "\n  at the {who}: {}", shown(&bytes)).unwrap();
                }
            }
            for event in &self.wire.events[self.events_seen..] {
                write!(text, "\n  event {}", event_words(event)).unwrap();
            }
            panic!("{text}\n  error {:?}", self.wire.error);
        }
    }

    fn send(&mut self, side: Side, message: &str) {
        if self.sending.as_ref().is_some_and(|(from, _)| *from != side) {
            self.deliver();
        }
        if self.sending.is_none() {
            self.settle();
        }
        let (_, bytes) = self.sending.get_or_insert((side, Vec::new()));
        bytes.extend(encode(&words(message)));
    }

    fn deliver(&mut self) {
        let Some((side, bytes)) = self.sending.take() else { return };
        for piece in bytes.chunks(self.chunk) {
            self.wire.deliver(&self.world, side, piece);
        }
        self.collect();
    }

    fn collect(&mut self) {
        self.at_client.extend(self.wire.taken(Side::Client));
        self.at_server.extend(self.wire.taken(Side::Server));
    }

    /// Ends a step: everything that came of it was looked at.
    fn settle(&mut self) {
        self.deliver();
        self.collect();
        let seen = self.at_client.is_empty() && self.at_server.is_empty();
        self.check(seen, || "bytes that no step expects".to_owned());
        let effects = &self.wire.out.effects;
        self.check(effects.is_empty(), || format!("effects that no step expects: {effects:?}"));
        self.check(self.wire.error.is_none(), || "a violation that no step expects".to_owned());
        let all = !self.events_wanted || self.events_seen == self.wire.events.len();
        self.check(all, || "events that no step expects".to_owned());
        self.events_seen = self.wire.events.len();
        self.events_wanted = false;
    }

    fn received(&mut self, side: Side, expected: &str) {
        self.collect();
        let expected = words(expected);
        let buffer = match side {
            Side::Client => &mut self.at_client,
            Side::Server => &mut self.at_server,
        };
        let own = ["Refused", "Fatal", "Warning"].iter().position(|w| expected[0].text() == *w);
        let matches = match own {
            Some(kind) => {
                let frame = split_frame(buffer).unwrap_or_default();
                let matches = is_own_report(kind, &expected[1..], &frame);
                if !matches {
                    buffer.splice(0..0, frame);
                }
                matches
            }
            None => {
                let expected = encode(&expected);
                let matches = buffer.starts_with(&expected);
                if matches {
                    buffer.drain(..expected.len());
                }
                matches
            }
        };
        self.check(matches, || "something else".to_owned());
    }

    fn event(&mut self, expected: &[Word]) {
        self.events_wanted = true;
        let event = self.wire.events.get(self.events_seen);
        let found = event.map_or_else(|| "nothing".to_owned(), event_words);
        let mut have = found.split(' ');
        let kind = have.next() == expected.first().map(Word::text);
        let have: Vec<&str> = have.collect();
        let matches = kind && expected[1..].iter().all(|word| have.contains(&word.text()));
        self.check(matches, || format!("event `{found}`"));
        self.events_seen += 1;
    }

    fn configure(&mut self, given: &[Word]) {
        for pair in given.chunks(2) {
            match (pair[0].text(), pair[1].text()) {
                ("tls", "allowed") => self.config.tls = TlsMode::Allowed,
                ("tls", "required") => self.config.tls = TlsMode::Required,
                ("default", "deny") => self.config.default_deny = true,
                ("pending", n) => self.config.pending_replies_max = n.parse().unwrap(),
                ("prepared", n) => self.config.prepared_statements_max = n.parse().unwrap(),
                other => panic!("no such setting: {other:?}"),
            }
        }
        let room = self.wire.room;
        self.wire = Wire::new(&self.world, self.config.clone());
        self.wire.room = room;
    }

    /// A login without anything noteworthy; identities under rules have their path asked for.
    fn login(&mut self, user: &str) {
        let user = format!("Startup 3.0 user={user} database=shop");
        self.wire.deliver(&self.world, Side::Client, &encode(&words(&user)));
        assert_eq!(self.wire.effect(), Some(Effect::Connect));
        self.wire
            .resume(&self.world, Answer::Connected { secret: [9; 32], tls: None, local: true });
        self.taken(Side::Server);
        let greeting = [
            "Authentication 0",
            "ParameterStatus client_encoding UTF8",
            "ParameterStatus standard_conforming_strings on",
            r#"BackendKeyData 7 "\x01\x02\x03\x04""#,
            "ReadyForQuery I",
        ];
        self.say(&greeting);
        assert!(matches!(self.wire.effect(), Some(Effect::RegisterCancel { .. })));
        if !self.taken(Side::Server).is_empty() {
            self.say(&[
                "RowDescription unnest",
                "DataRow pg_catalog",
                "DataRow public",
                "CommandComplete \"SELECT 2\"",
                "ReadyForQuery I",
            ]);
        }
        let greeted = self.taken(Side::Client);
        assert!(greeted.ends_with(b"Z\0\0\0\x05I"), "logged in: {}", greeted.escape_ascii());
        self.events_seen = self.wire.events.len();
    }

    fn say(&mut self, messages: &[&str]) {
        for message in messages {
            self.wire.deliver(&self.world, Side::Server, &encode(&words(message)));
        }
    }

    fn taken(&mut self, by: Side) -> Vec<u8> {
        self.wire.taken(by)
    }

    /// Ends the scenario: nothing is left over, and the audit trail is complete.
    fn finish(mut self) {
        self.settle();
        self.wire.end(&self.world, EndCause::ClientGone);
        let mut owed = std::collections::BTreeSet::new();
        for (number, event) in (1..).zip(&self.wire.events) {
            assert_eq!(event.number, number, "{}: events count up", self.place);
            match &event.kind {
                EventKind::Decision { statement, .. }
                    if !matches!(statement.verdict, RecordedVerdict::Denied { .. }) =>
                {
                    owed.insert(event.number);
                }
                EventKind::Outcome { decision, .. } => {
                    assert!(owed.remove(decision), "{}: outcome of {decision}", self.place);
                }
                _ => {}
            }
        }
        assert!(owed.is_empty(), "{}: no outcome of {owed:?}", self.place);
        assert_eq!(self.wire.session.owed_events(), 0, "{}", self.place);
    }
}

/// Whether a frame is a report of the proxy itself: severity, code and message as given, and
/// nothing else than a hint, a position and the request id.
fn is_own_report(kind: usize, expected: &[Word], frame: &[u8]) -> bool {
    let (tag, severity) = [(b'E', "ERROR"), (b'E', "FATAL"), (b'N', "WARNING")][kind];
    let fields = report_fields(frame);
    let find = |wanted: char| {
        fields.iter().find(|(letter, _)| *letter == wanted).map_or("", |(_, text)| text.as_str())
    };
    let (code, message) = match expected {
        [message] => ("01000", message.text()),
        [code, message] => (code.text(), message.text()),
        other => panic!("code and message: {other:?}"),
    };
    frame.first() == Some(&tag)
        && (find('S'), find('V'), find('C'), find('M')) == (severity, severity, code, message)
        && fields.iter().all(|(letter, _)| "SVCMDHP".contains(*letter))
        && (find('D').is_empty() || find('D').starts_with("request s."))
        && (severity != "ERROR" || !find('D').is_empty())
}

fn rules_text(file: &str) -> String {
    let path = folder().join("rules").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn fresh(file: &str, generation: u64) -> portcullis::session::gate::ActiveRules {
    let mut world = World::new();
    world.reload(&rules_text(file));
    world.rules.generation = generation;
    world.rules
}

fn answer(given: &[Word]) -> Answer {
    match given[0].text() {
        "tls_started" => Answer::TlsStarted(TlsPeer::default()),
        "connected" => {
            // Scripts write the bytes a client of their protocol gets; the rest is zero.
            let mut secret = [0; 32];
            secret[..given[1].bytes().len()].copy_from_slice(given[1].bytes());
            Answer::Connected { secret, tls: None, local: true }
        }
        "connect_failed" => Answer::ConnectFailed,
        other => panic!("no answer `{other}`"),
    }
}

fn cause(word: &str) -> EndCause {
    match word {
        "client" => EndCause::ClientGone,
        "server" => EndCause::ServerGone,
        "shutdown" => EndCause::Shutdown,
        "login_timeout" => EndCause::LoginTimeout,
        "idle_timeout" => EndCause::IdleTimeout,
        "audit" => EndCause::AuditUnavailable,
        other => panic!("no cause `{other}`"),
    }
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Login => "login",
        Phase::Idle => "idle",
        Phase::InTransaction => "transaction",
        Phase::Listening => "listening",
        Phase::Busy => "busy",
        Phase::Closing => "closing",
    }
}

fn effect_words(effect: &Effect) -> String {
    let key = |key: &CancelKey| format!("{}/{}", key.pid, key.secret.escape_ascii());
    match effect {
        Effect::StartTls => "start_tls".to_owned(),
        Effect::StartDirectTls(_) => "start_direct_tls".to_owned(),
        Effect::Connect => "connect".to_owned(),
        Effect::Authenticate(_) => "authenticate".to_owned(),
        Effect::ReportLogin(_) => "report".to_owned(),
        Effect::ReportAccount(_) => "report account".to_owned(),
        Effect::Cancel { key: of, from: _ } => format!("cancel {}", key(of)),
        Effect::RegisterCancel { ours, theirs } => {
            format!("register {} for {}", key(ours), key(theirs))
        }
        Effect::Close => "close".to_owned(),
    }
}

fn event_words(event: &Event) -> String {
    match &event.kind {
        EventKind::SessionOpened { method } => format!("opened {method}"),
        EventKind::LoginFailed { code, method, reason: _ } => {
            format!("login_failed {code} {}", method.unwrap_or("unasked"))
        }
        EventKind::SessionClosed { end } => format!("closed {end}"),
        EventKind::Decision { statement, generation, limited_by, extended } => {
            let mut text = match &statement.verdict {
                RecordedVerdict::Allowed => "decision allowed".to_owned(),
                RecordedVerdict::Modified => "decision modified".to_owned(),
                RecordedVerdict::Denied { code, .. } => format!("decision denied {code}"),
            };
            let protocol = if *extended { "extended" } else { "simple" };
            write!(text, " {protocol} generation={generation}").unwrap();
            statement.verbs.iter().for_each(|verb| write!(text, " {}", verb.name()).unwrap());
            statement.rules.iter().for_each(|rule| write!(text, " rule={rule}").unwrap());
            statement.observed.iter().for_each(|rule| write!(text, " observed={rule}").unwrap());
            limited_by.iter().for_each(|rule| write!(text, " limited_by={rule}").unwrap());
            text
        }
        EventKind::Outcome { rows, bytes, error, decision, .. } => {
            let error = error.map_or("ok".into(), |code| code.escape_ascii().to_string());
            format!("outcome {error} rows={rows} bytes={bytes} of={decision}")
        }
        other => format!("{other:?}"),
    }
}
