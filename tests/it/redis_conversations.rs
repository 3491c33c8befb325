//! What is said to a Redis and what it answers, byte for byte, from `tests/corpus/redis_conversations.txt`.
//!
//! The server itself is asked first, so that the table stays true; then whatever stands before it has
//! to give the same answers, however the client's bytes are cut into packets.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use portcullis::wire::resp::reply::{End, Replies};

use crate::harness::{Portcullis, Setup, wait_until};
use crate::redis::{RawRedis, Redis, Reply};
use notation::{escaped, unescaped, words};

mod notation;

/// How long an answer may take before it counts as missing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest write that is cut into small pieces.
const PIECES_BYTES_MAX: usize = 2048;
/// In how many places each write is cut in two, one at a time.
const PLACES: usize = 5;
const TABLE: &str = "tests/corpus/redis_conversations.txt";

/// One conversation of the table.
#[derive(Debug)]
struct Conversation {
    name: String,
    /// Whether it is held with a server that wants a password.
    locked: bool,
    /// Whether the server's answers break its own protocol.
    odd: bool,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    /// Which of the two connections.
    connection: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Send(Vec<u8>),
    Receive(Vec<u8>),
    Closed,
    Done,
    Blocked,
}

/// How what the client says is cut into packets.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    /// As fast as they can be written, so that some arrive together.
    Pieces(usize),
    /// In this place, of [`PLACES`]; the rest is sent when the other side has read what was before.
    InTwo(usize),
}

fn cuts() -> impl Iterator<Item = Cut> {
    [Cut::Whole, Cut::Pieces(1), Cut::Pieces(7)].into_iter().chain((1..=PLACES).map(Cut::InTwo))
}

fn table() -> Vec<Conversation> {
    let mut conversations: Vec<Conversation> = Vec::new();
    for line in fs::read_to_string(TABLE).unwrap().lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            conversations.push(Conversation {
                name: name.to_owned(),
                locked: name.contains("[LOCKED]"),
                odd: name.contains("[ODD]") || name.contains("[REFUSED]"),
                steps: Vec::new(),
            });
            continue;
        }
        let (connection, rest) = line.strip_prefix('2').map_or((0, line), |rest| (1, rest));
        let kind = match rest.split_once(' ') {
            Some((">", text)) => Kind::Send(crate::redis::encode(&words(text.as_bytes()))),
            Some((">>", text)) => Kind::Send(unescaped(text.as_bytes())),
            Some(("<", text)) => Kind::Receive(unescaped(text.as_bytes())),
            None if rest == "closed" => Kind::Closed,
            None if rest == "done" => Kind::Done,
            None if rest == "blocked" => Kind::Blocked,
            _ => panic!("{TABLE}: `{line}` is no step"),
        };
        conversations.last_mut().unwrap().steps.push(Step { connection, kind });
    }
    conversations
}

/// Servers with the users of the table.
struct Scene {
    open: Server,
    locked: Server,
}

/// One of them, and a client that has been there before.
struct Server {
    redis: Redis,
    admin: RefCell<RawRedis>,
}

impl Scene {
    fn new() -> Self {
        let debug = "enable-debug-command yes";
        let app = "user app on >pw ~* &* +@all";
        let few = "user few on >pw ~k:* &* -@all +@read +@write +@connection +@transaction";
        let locked = Server::new(&[debug, app, few, "requirepass pw"]);
        assert_eq!(locked.admin.borrow_mut().command(&["AUTH", "pw"]), Reply::ok());
        Self { open: Server::new(&[debug, app]), locked }
    }

    fn server(&self, conversation: &Conversation) -> &Server {
        if conversation.locked { &self.locked } else { &self.open }
    }
}

impl Server {
    fn new(settings: &[&str]) -> Self {
        let redis = Redis::with_settings(settings);
        let admin = RefCell::new(redis.admin());
        Self { redis, admin }
    }

    /// Takes it back to where it began.
    fn clear(&self) {
        for command in [
            &["FLUSHALL"][..],
            &["SCRIPT", "FLUSH"],
            &["CONFIG", "SET", "notify-keyspace-events", ""],
        ] {
            assert_eq!(self.admin.borrow_mut().command(command), Reply::ok());
        }
    }

    fn has_blocked_client(&self) -> bool {
        let reply = self.admin.borrow_mut().command(&["INFO", "clients"]);
        let Reply::Bulk(Some(info)) = reply else { panic!("{reply:?}") };
        !String::from_utf8(info).unwrap().contains("blocked_clients:0")
    }
}

/// One side of a conversation, and what it heard that was not read yet.
struct Side {
    stream: TcpStream,
    /// Ours, theirs.
    addresses: (SocketAddr, SocketAddr),
    pending: Vec<u8>,
    /// Bytes to send with the next write.
    unsent: Vec<u8>,
}

impl Side {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        let addresses = (stream.local_addr().unwrap(), address);
        Self { stream, addresses, pending: Vec::new(), unsent: Vec::new() }
    }

    /// Sends what waits to be sent.
    fn flush(&mut self, cut: Cut) {
        let bytes = std::mem::take(&mut self.unsent);
        // A connection that was closed in the middle shows in what comes back: no write may fail.
        match cut {
            Cut::Whole => drop(self.stream.write_all(&bytes)),
            Cut::Pieces(len) => {
                let len = if bytes.len() > PIECES_BYTES_MAX { bytes.len() } else { len };
                drop(bytes.chunks(len).try_for_each(|piece| self.stream.write_all(piece)));
            }
            Cut::InTwo(place) => {
                let (first, second) = bytes.split_at(bytes.len() * place / (PLACES + 1));
                drop(self.stream.write_all(first));
                wait_quickly(|| unread_bytes(self.addresses) == 0);
                drop(self.stream.write_all(second));
            }
        }
    }

    /// The next reply or push, or why there is none.
    fn next(&mut self) -> Result<Vec<u8>, String> {
        loop {
            let mut replies = Replies::default();
            let mut at = 0;
            // Parts of one reply follow each other; attributes belong to what is behind them.
            while let Some(rest) = self.pending.get(at..).filter(|rest| !rest.is_empty()) {
                let part = replies
                    .next(rest)
                    .map_err(|error| format!("{error:?} in {}", escaped(&self.pending)))?;
                at += part.len;
                match part.end {
                    End::Reply | End::Push => return Ok(self.pending.drain(..at).collect()),
                    End::Open if part.len == 0 => break,
                    End::Open => {}
                }
            }
            let mut buffer = vec![0; 64 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(format!("closed; unread {}", escaped(&self.pending))),
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(format!("{error}; unread {}", escaped(&self.pending))),
            }
        }
    }

    /// What comes until the other side closes, or why it does not.
    fn rest(&mut self) -> Result<Vec<u8>, String> {
        let mut rest = std::mem::take(&mut self.pending);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => Ok(rest),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(rest),
            Err(error) => Err(format!("not closed: {error}; unread {}", escaped(&rest))),
        }
    }

    /// Says that no more comes from here; what the other side still had to say.
    fn finish(mut self) -> Result<Vec<u8>, String> {
        // Already closed from over there is fine.
        let _ = self.stream.shutdown(Shutdown::Write);
        self.rest()
    }
}

/// Bytes sent from the first address that the program at the second has not read; none if it is gone.
fn unread_bytes((sender, receiver): (SocketAddr, SocketAddr)) -> u64 {
    let shown = |address: SocketAddr| {
        let SocketAddr::V4(address) = address else { panic!("{address}") };
        let ip = u32::from_le_bytes(address.ip().octets());
        format!("{ip:08X}:{:04X}", address.port())
    };
    let (local, remote) = (shown(receiver), shown(sender));
    let text = fs::read_to_string("/proc/net/tcp").unwrap();
    let queue = text.lines().find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let is_it = columns.next() == Some(&local) && columns.next() == Some(&remote);
        let (_, received) = columns.nth(1)?.split_once(':')?;
        is_it.then(|| u64::from_str_radix(received, 16).unwrap())
    });
    queue.unwrap_or_default()
}

/// As [`wait_until`], for what takes microseconds.
fn wait_quickly(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < ANSWER_TIMEOUT, "nobody reads");
        std::thread::yield_now();
    }
}

/// Holds a conversation; everything that came in the place of what the table says.
fn talk(conversation: &Conversation, address: SocketAddr, cut: Cut, server: &Server) -> String {
    let mut sides: [Option<Side>; 2] = [None, None];
    let mut wrong = String::new();
    for (at, step) in conversation.steps.iter().enumerate() {
        let side = sides[step.connection].get_or_insert_with(|| Side::connect(address));
        let next = conversation.steps.get(at + 1);
        let (expected, came) = match &step.kind {
            Kind::Send(bytes) => {
                side.unsent.extend_from_slice(bytes);
                let more = next.is_some_and(|next| {
                    next.connection == step.connection && matches!(next.kind, Kind::Send(_))
                });
                if !more {
                    side.flush(cut);
                }
                continue;
            }
            Kind::Done => {
                // Already closed from over there is fine.
                let _ = side.stream.shutdown(Shutdown::Write);
                continue;
            }
            Kind::Blocked => {
                wait_until("a client is blocked", ANSWER_TIMEOUT, || server.has_blocked_client());
                continue;
            }
            Kind::Receive(bytes) => (escaped(bytes), side.next()),
            Kind::Closed => (String::new(), side.rest()),
        };
        let came = came.map_or_else(|why| format!("({why})"), |bytes| escaped(&varying(&bytes)));
        if came != expected {
            writeln!(wrong, "    expected {expected}\n    came     {came}").unwrap();
            // Everything behind it would be out of step.
            return wrong;
        }
    }
    for side in sides.into_iter().flatten() {
        match side.finish() {
            Ok(rest) if rest.is_empty() => {}
            Ok(rest) => writeln!(wrong, "    came too  {}", escaped(&rest)).unwrap(),
            Err(why) => writeln!(wrong, "    {why}").unwrap(),
        }
    }
    wrong
}

/// A reply with the words of the table in the place of what differs from server to server.
fn varying(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    while let Some(line) = lines.next() {
        out.extend_from_slice(line);
        if out.ends_with(b"$2\r\nid\r\n") {
            lines.next();
            out.extend_from_slice(b":N\r\n");
        } else if out.ends_with(b"$7\r\nversion\r\n") {
            lines.nth(1);
            out.extend_from_slice(b"VERSION\r\n");
        }
    }
    out
}

/// Holds every conversation that is `wanted`, whole and cut; fails with all that came out wrong.
fn hold_all(
    scene: &Scene,
    wanted: impl Fn(&Conversation) -> bool,
    address: impl Fn(&Conversation) -> SocketAddr,
) {
    let mut failed = String::new();
    let mut held = 0;
    for conversation in table().iter().filter(|conversation| wanted(conversation)) {
        held += 1;
        for cut in cuts() {
            let server = scene.server(conversation);
            server.clear();
            let wrong = talk(conversation, address(conversation), cut, server);
            if !wrong.is_empty() {
                writeln!(failed, "== {}, {cut:?}\n{wrong}", conversation.name).unwrap();
                break;
            }
        }
    }
    assert!(held > 20, "{held} conversations");
    assert!(failed.is_empty(), "of {held} conversations:\n{failed}");
}

#[test]
fn the_server_answers_as_the_table_says() {
    let scene = Scene::new();
    hold_all(&scene, |_| true, |conversation| scene.server(conversation).redis.address());
}

/// A proxy for a trusted client that may fail to log in as often as it likes.
fn patient(server: SocketAddr) -> Portcullis {
    let mut setup = Setup::redis_trusted(server);
    let failures = "limits: {login_failures: 100000, login_failures_per_address: 100000}\n";
    setup.extra.push_str(failures);
    Portcullis::start(&setup)
}

#[test]
fn the_proxy_answers_as_the_table_says() {
    let scene = Scene::new();
    let open = patient(scene.open.redis.address());
    let locked = patient(scene.locked.redis.address());
    hold_all(
        &scene,
        |conversation| !conversation.odd,
        |conversation| if conversation.locked { locked.address() } else { open.address() },
    );
}
