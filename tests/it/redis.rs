//! A private Redis for one test, and a client that sends exactly the bytes a test wants.
//!
//! The server keeps nothing on disk, listens on loopback only and runs under the account
//! PostgreSQL runs under in these tests. Typed use goes through the `redis` crate ([`typed`]).

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::harness::{SOON, free_port, server_command, signal, wait_exit, wait_until};
use crate::pg::{account, give_to_account};
use crate::pki::{Authority, Pair};

/// How long any answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A running server; stopped and removed on drop.
#[derive(Debug)]
pub(crate) struct Redis {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    tls_port: u16,
}

impl Redis {
    /// One with further lines of `redis.conf`, such as `user app on >pw ~* &* +@all`.
    pub(crate) fn with_settings(lines: &[&str]) -> Self {
        Self::with_files(&[], lines)
    }

    /// One that speaks TLS with this certificate on a second port; with an authority, only with
    /// clients that show a certificate of it.
    pub(crate) fn with_tls(pair: &Pair, clients: Option<&Authority>, lines: &[&str]) -> Self {
        Self::launch_with_tls(Kind::Server, pair, clients, lines)
    }

    fn launch_with_tls(
        kind: Kind,
        pair: &Pair,
        clients: Option<&Authority>,
        lines: &[&str],
    ) -> Self {
        let authority = clients.map_or("", |authority| authority.pem.as_str());
        let files = [
            ("server.crt", pair.certificate.as_str()),
            ("server.key", pair.key.as_str()),
            ("clients.crt", authority),
        ];
        let mut settings = vec!["tls-cert-file server.crt", "tls-key-file server.key"];
        match clients {
            Some(_) => settings.extend(["tls-ca-cert-file clients.crt", "tls-auth-clients yes"]),
            None => settings.push("tls-auth-clients no"),
        }
        settings.extend_from_slice(lines);
        Self::launch(kind, &files, &settings)
    }

    fn with_files(files: &[(&str, &str)], lines: &[&str]) -> Self {
        Self::launch(Kind::Server, files, lines)
    }

    fn launch(kind: Kind, files: &[(&str, &str)], lines: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("portcullis-redis-").tempdir().unwrap();
        give_to_account(folder.path());
        let port = free_port();
        let tls_port = if files.is_empty() { 0 } else { free_port() };
        for (name, text) in files {
            write_for_account(&folder.path().join(name), text);
        }
        let config = folder.path().join("redis.conf");
        let place = folder.path().to_str().unwrap();
        let kept = match kind {
            Kind::Server => "save \"\"\nappendonly no\n",
            Kind::Sentinel => "",
        };
        // A server that was built without TLS does not know the setting.
        let tls = if tls_port == 0 { String::new() } else { format!("tls-port {tls_port}\n") };
        let text = format!("port {port}\n{tls}dir {place}\n{SETTINGS}{kept}{}\n", lines.join("\n"));
        write_for_account(&config, &text);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = server_command(Path::new("redis-server"), account());
        command.arg(&config).current_dir("/").stdin(Stdio::null());
        if kind == Kind::Sentinel {
            command.arg("--sentinel");
        }
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut server = Self { child, folder, port, tls_port };
        wait_until("the Redis server listens", SOON, || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "no Redis server: {}\n{}", ended.unwrap(), server.log());
            TcpStream::connect(server.address()).is_ok()
        });
        server
    }

    /// Address clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// A Sentinel that watches `main` at this address and needs nobody else to agree.
    pub(crate) fn sentinel(primary: SocketAddr, lines: &[&str]) -> Self {
        let watch = watch(primary);
        let settings: Vec<&str> =
            watch.iter().map(String::as_str).chain(lines.iter().copied()).collect();
        Self::launch(Kind::Sentinel, &[], &settings)
    }

    /// The same, speaking TLS with the primary and with clients that show a certificate.
    pub(crate) fn sentinel_with_tls(primary: SocketAddr, pair: &Pair, clients: &Authority) -> Self {
        let watch = watch(primary);
        let mut settings = vec!["tls-replication yes"];
        settings.extend(watch.iter().map(String::as_str));
        Self::launch_with_tls(Kind::Sentinel, pair, Some(clients), &settings)
    }

    /// Address TLS is spoken at.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.tls_port))
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        signal(self.child.id(), "KILL");
        self.child.wait().unwrap();
    }

    /// A client past the proxy.
    pub(crate) fn admin(&self) -> RawRedis {
        RawRedis::connect(self.address())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            return;
        }
        signal(self.child.id(), "TERM");
        if !wait_exit(&mut self.child, SOON) {
            signal(self.child.id(), "KILL");
            self.child.wait().unwrap();
        }
    }
}

/// A connection of the `redis` crate, RESP2.
pub(crate) fn typed(address: SocketAddr) -> redis::Connection {
    let client = redis::Client::open(format!("redis://{address}/")).unwrap();
    client.get_connection_with_timeout(ANSWER_TIMEOUT).unwrap()
}

/// One connection that hides nothing.
pub(crate) struct RawRedis {
    stream: Box<dyn Channel>,
    /// Received and not yet read as a reply.
    pending: Vec<u8>,
}

/// What a Sentinel that finds out soon is told.
fn watch(primary: SocketAddr) -> [String; 3] {
    [
        format!("sentinel monitor main {} {} 1", primary.ip(), primary.port()),
        "sentinel down-after-milliseconds main 400".into(),
        "sentinel failover-timeout main 3000".into(),
    ]
}

/// What the program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Server,
    Sentinel,
}

/// What a connection runs over: TCP, TLS, a Unix socket.
pub(crate) trait Channel: Read + Write {}

impl<T: Read + Write> Channel for T {}

/// One reply, or one push, with every detail of its encoding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// `+`
    Simple(String),
    /// `-`
    Error(String),
    /// `:`
    Integer(i64),
    /// `$`; `None` is RESP2's null.
    Bulk(Option<Vec<u8>>),
    /// `*`; `None` is RESP2's null.
    Array(Option<Vec<Reply>>),
    /// `_`
    Null,
    /// `#`
    Boolean(bool),
    /// `,`, as written.
    Double(String),
    /// `(`, as written.
    Big(String),
    /// `!`
    BlobError(Vec<u8>),
    /// `=`, its format included.
    Verbatim(Vec<u8>),
    /// `%`, keys and values in turn.
    Map(Vec<Reply>),
    /// `~`
    Set(Vec<Reply>),
    /// `>`
    Push(Vec<Reply>),
    /// `|` and what it belongs to.
    Attributed(Vec<Reply>, Box<Reply>),
}

impl Reply {
    /// The text of an error.
    #[track_caller]
    pub(crate) fn error(&self) -> &str {
        match self {
            Self::Error(text) => text,
            other => panic!("expected an error, got {other:?}"),
        }
    }

    /// A bulk string of this text.
    pub(crate) fn text(text: &str) -> Self {
        Self::Bulk(Some(text.as_bytes().to_vec()))
    }

    /// `+OK`.
    pub(crate) fn ok() -> Self {
        Self::Simple("OK".into())
    }
}

impl RawRedis {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        Self::over(stream)
    }

    /// Over something that is connected.
    pub(crate) fn over(stream: impl Channel + 'static) -> Self {
        Self { stream: Box::new(stream), pending: Vec::new() }
    }

    /// Over a Unix socket.
    pub(crate) fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        Self::over(stream)
    }

    /// Sends these bytes and nothing else.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a command, as words or bytes, and reads one reply.
    #[track_caller]
    pub(crate) fn command<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Reply {
        self.send(&encode(words));
        self.reply()
    }

    /// The next reply.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        let mut at = 0;
        let reply = self.parse(&mut at);
        self.pending.drain(..at);
        reply
    }

    /// The next reply as its bytes.
    #[track_caller]
    pub(crate) fn reply_bytes(&mut self) -> Vec<u8> {
        let mut at = 0;
        self.parse(&mut at);
        self.pending.drain(..at).collect()
    }

    /// Waits until the other side has closed; what it said before that.
    pub(crate) fn closed(mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.pending);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("not closed: {error}"),
        }
        rest
    }

    #[track_caller]
    fn parse(&mut self, at: &mut usize) -> Reply {
        let line = self.line(at);
        let (kind, rest) = line.split_at(1);
        match kind {
            "+" => Reply::Simple(rest.into()),
            "-" => Reply::Error(rest.into()),
            ":" => Reply::Integer(rest.parse().unwrap()),
            "_" => Reply::Null,
            "#" => Reply::Boolean(rest == "t"),
            "," => Reply::Double(rest.into()),
            "(" => Reply::Big(rest.into()),
            "$" if rest == "-1" => Reply::Bulk(None),
            "$" => Reply::Bulk(Some(self.bulk(rest, at))),
            "!" => Reply::BlobError(self.bulk(rest, at)),
            "=" => Reply::Verbatim(self.bulk(rest, at)),
            "*" if rest == "-1" => Reply::Array(None),
            "*" => Reply::Array(Some(self.items(rest, 1, at))),
            "~" => Reply::Set(self.items(rest, 1, at)),
            ">" => Reply::Push(self.items(rest, 1, at)),
            "%" => Reply::Map(self.items(rest, 2, at)),
            "|" => {
                let attributes = self.items(rest, 2, at);
                Reply::Attributed(attributes, Box::new(self.parse(at)))
            }
            _ => panic!("`{line}` begins no reply"),
        }
    }

    #[track_caller]
    fn items(&mut self, count: &str, each: usize, at: &mut usize) -> Vec<Reply> {
        let count: usize = count.parse().unwrap();
        (0..count * each).map(|_| self.parse(at)).collect()
    }

    #[track_caller]
    fn line(&mut self, at: &mut usize) -> String {
        loop {
            if let Some(end) = self.pending[*at..].windows(2).position(|two| two == b"\r\n") {
                let line = self.pending[*at..*at + end].to_vec();
                *at += end + 2;
                return String::from_utf8(line).unwrap();
            }
            self.fill();
        }
    }

    #[track_caller]
    fn bulk(&mut self, length: &str, at: &mut usize) -> Vec<u8> {
        let length: usize = length.parse().unwrap();
        while self.pending.len() < *at + length + 2 {
            self.fill();
        }
        let bytes = self.pending[*at..*at + length].to_vec();
        *at += length;
        assert_eq!(&self.pending[*at..*at + 2], b"\r\n");
        *at += 2;
        bytes
    }

    #[track_caller]
    fn fill(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("closed after {:?}", String::from_utf8_lossy(&self.pending)),
            Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&self.pending)),
        }
    }
}

/// A command as clients send it: an array of bulk strings.
pub(crate) fn encode<A: AsRef<[u8]>>(words: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Written by us, owned by the server.
fn write_for_account(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    give_to_account(path);
}

/// Nothing is kept, nothing is reached from outside.
const SETTINGS: &str = "bind 127.0.0.1
protected-mode no
daemonize no
";

#[test]
fn a_redis_of_its_own_speaks_both_protocols() {
    let server = Redis::with_settings(&["user guest on >pw ~* &* +@all -config"]);
    let mut client = server.admin();
    assert_eq!(client.command(&["SET", "k", "v"]), Reply::ok());
    client.send(b"GET k\r\n");
    assert_eq!(client.reply_bytes(), b"$1\r\nv\r\n");
    assert_eq!(client.command(&["GET", "absent"]), Reply::Bulk(None));
    let Reply::Map(greeting) = client.command(&["HELLO", "3", "AUTH", "guest", "pw"]) else {
        panic!("no map")
    };
    assert!(greeting.contains(&Reply::text("redis")));
    assert_eq!(client.command(&["GET", "absent"]), Reply::Null);
    assert!(client.command(&["CONFIG", "GET", "*"]).error().starts_with("NOPERM"));
    assert_eq!(client.command(&["QUIT"]), Reply::ok());
    assert!(client.closed().is_empty());
    let value: String = redis::cmd("GET").arg("k").query(&mut typed(server.address())).unwrap();
    assert_eq!(value, "v");
}
