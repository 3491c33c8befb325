//! A PostgreSQL client that sends exactly the bytes a test wants and hides nothing it gets.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// How long any answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// One connection. Logs in only where the server trusts it.
#[derive(Debug)]
pub(crate) struct Raw {
    stream: TcpStream,
    /// Key for cancelling, as the server side of this connection gave it.
    pub(crate) key: (u32, u32),
    /// Every byte received so far.
    pub(crate) received: Vec<u8>,
}

/// One message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: u8,
    pub(crate) body: Vec<u8>,
}

/// Fields of an ErrorResponse or NoticeResponse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(u8, String)>);

/// Everything up to ReadyForQuery.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) rows: Vec<Vec<Option<Vec<u8>>>>,
    pub(crate) tags: Vec<String>,
    pub(crate) errors: Vec<Fields>,
    pub(crate) notices: Vec<Fields>,
    /// Bytes of CopyData, concatenated.
    pub(crate) copied: Vec<u8>,
    /// Transaction status of the ReadyForQuery; 0 when the connection ended before.
    pub(crate) status: u8,
    /// Type bytes in order, for tests about sequence.
    pub(crate) sequence: String,
}

impl Raw {
    /// Logs in; fails the test when that fails.
    pub(crate) fn login(address: SocketAddr, user: &str) -> Self {
        match Self::try_login(address, &[("user", user), ("database", "demo")]) {
            Ok(raw) => raw,
            Err(error) => panic!("login as {user}: {error:?}"),
        }
    }

    /// Logs in with these startup parameters; the server's error otherwise.
    pub(crate) fn try_login(
        address: SocketAddr,
        parameters: &[(&str, &str)],
    ) -> Result<Self, Fields> {
        Self::connect(address).log_in(parameters)
    }

    /// Logs in over this connection; the server's error otherwise.
    pub(crate) fn log_in(mut self, parameters: &[(&str, &str)]) -> Result<Self, Fields> {
        self.send_bytes(&startup_packet(parameters));
        while let Some(message) = self.read() {
            match message.tag {
                b'R' => assert_eq!(message.body, [0, 0, 0, 0], "raw clients need trust"),
                b'K' => {
                    let (pid, secret) = message.body.split_at(4);
                    self.key = (word(pid), word(secret));
                }
                b'E' => return Err(Fields::parse(&message.body)),
                b'Z' => return Ok(self),
                _ => {}
            }
        }
        Err(Fields::default())
    }

    /// Connects and says nothing yet.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// Connects from this address of the loopback network.
    pub(crate) fn connect_from(source: [u8; 4], address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        Self { stream, key: (0, 0), received: Vec::new() }
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a simple query and reads to the end of its answer.
    pub(crate) fn query(&mut self, sql: &str) -> Reply {
        self.send_bytes(&query(sql));
        self.reply()
    }

    /// Sends one statement over the extended protocol, text parameters, binary or text results.
    pub(crate) fn extended(&mut self, sql: &str, parameters: &[&str], binary: bool) -> Reply {
        self.send_bytes(&extended(sql, parameters, binary));
        self.reply()
    }

    /// Reads up to and including ReadyForQuery, or to the end of the connection.
    pub(crate) fn reply(&mut self) -> Reply {
        self.reply_answering_copy(&[])
    }

    /// The same; sends these bytes when the server asks for COPY data.
    pub(crate) fn reply_answering_copy(&mut self, answer: &[u8]) -> Reply {
        let mut reply = Reply::default();
        while let Some(message) = self.read() {
            reply.take(&message);
            if message.tag == b'G' {
                self.send_bytes(answer);
            }
            if message.tag == b'Z' {
                break;
            }
        }
        reply
    }

    /// One message; `None` when the connection has ended.
    pub(crate) fn read(&mut self) -> Option<Message> {
        let mut head = [0_u8; 5];
        self.fill(&mut head)?;
        let length = usize::try_from(word(&head[1..])).unwrap();
        let mut body = vec![0; length.checked_sub(4).expect("length counts itself")];
        self.fill(&mut body)?;
        Some(Message { tag: head[0], body })
    }

    /// One byte, as SSLRequest is answered; `None` when the connection has ended.
    pub(crate) fn read_byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Some(byte[0])
    }

    /// Sends what the other side still takes; `false` when it has closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Whether the other side has closed. What it said before is read away.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let mut ignored = [0; 4096];
        let closed = loop {
            match self.stream.read(&mut ignored) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
            }
        };
        self.stream.set_nonblocking(false).unwrap();
        closed
    }

    /// The connection itself.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        use std::io::ErrorKind::{ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        match self.stream.read_exact(buffer) {
            Ok(()) => {
                self.received.extend_from_slice(buffer);
                Some(())
            }
            Err(error) if matches!(error.kind(), UnexpectedEof | ConnectionReset) => None,
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut) => {
                panic!("no answer within {ANSWER_TIMEOUT:?}")
            }
            Err(error) => panic!("read: {error}"),
        }
    }
}

impl Reply {
    fn take(&mut self, message: &Message) {
        self.sequence.push(char::from(message.tag));
        match message.tag {
            b'D' => self.rows.push(row(&message.body)),
            b'C' => self.tags.push(text_until_nul(&message.body)),
            b'E' => self.errors.push(Fields::parse(&message.body)),
            b'N' => self.notices.push(Fields::parse(&message.body)),
            b'd' => self.copied.extend_from_slice(&message.body),
            b'Z' => self.status = message.body[0],
            _ => {}
        }
    }

    /// SQLSTATE of the first error; empty when there is none.
    pub(crate) fn code(&self) -> &str {
        self.errors.first().map_or("", |error| error.get(b'C'))
    }

    /// The first column of the first row as text.
    #[track_caller]
    pub(crate) fn value(&self) -> String {
        assert_eq!(self.code(), "", "{:?}", self.errors);
        let cell = self.rows.first().and_then(|row| row.first()).cloned().flatten();
        String::from_utf8(cell.unwrap_or_default()).unwrap()
    }
}

impl Fields {
    pub(crate) fn parse(body: &[u8]) -> Self {
        let parts = body.split(|byte| *byte == 0).filter(|part| !part.is_empty());
        Self(parts.map(|part| (part[0], String::from_utf8_lossy(&part[1..]).into())).collect())
    }

    /// The field with this letter; empty when absent.
    pub(crate) fn get(&self, letter: u8) -> &str {
        self.0.iter().find(|(name, _)| *name == letter).map_or("", |(_, value)| value)
    }

    /// SQLSTATE.
    pub(crate) fn code(&self) -> &str {
        self.get(b'C')
    }
}

/// A frame: type byte, length, body.
pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(length_of(body.len() + 4));
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &nul_terminated(&[sql]))
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    let mut body = nul_terminated(&[name, sql]);
    body.extend([0, 0]);
    frame(b'P', &body)
}

pub(crate) fn bind(portal: &str, statement: &str, parameters: &[&str], binary: bool) -> Vec<u8> {
    let mut body = nul_terminated(&[portal, statement]);
    body.extend([0, 0]);
    body.extend(u16::try_from(parameters.len()).unwrap().to_be_bytes());
    for parameter in parameters {
        body.extend(length_of(parameter.len()));
        body.extend_from_slice(parameter.as_bytes());
    }
    body.extend([0, 1, 0, u8::from(binary)]);
    frame(b'B', &body)
}

pub(crate) fn describe_portal(name: &str) -> Vec<u8> {
    let mut body = vec![b'P'];
    body.extend(nul_terminated(&[name]));
    frame(b'D', &body)
}

pub(crate) fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    let mut body = nul_terminated(&[portal]);
    body.extend(rows_max.to_be_bytes());
    frame(b'E', &body)
}

/// One statement over the extended protocol, from Parse to Sync.
pub(crate) fn extended(sql: &str, parameters: &[&str], binary: bool) -> Vec<u8> {
    let bind = bind("", "", parameters, binary);
    [parse("", sql), bind, describe_portal(""), execute("", 0), sync()].concat()
}

pub(crate) fn sync() -> Vec<u8> {
    frame(b'S', &[])
}

/// The untyped packets at the start of a connection: length, code, rest.
pub(crate) fn untyped_packet(code: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = length_of(rest.len() + 8).to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

pub(crate) fn startup_packet(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut rest: Vec<u8> =
        parameters.iter().flat_map(|(name, value)| nul_terminated(&[name, value])).collect();
    rest.push(0);
    untyped_packet(PROTOCOL_3_0, &rest)
}

/// Sends a cancel request on a connection of its own and waits until it is closed.
pub(crate) fn cancel(address: SocketAddr, (pid, secret): (u32, u32)) {
    let mut raw = Raw::connect(address);
    let mut rest = pid.to_be_bytes().to_vec();
    rest.extend(secret.to_be_bytes());
    raw.send_bytes(&untyped_packet(CANCEL_REQUEST, &rest));
    assert_eq!(raw.read_byte(), None, "a cancel request gets no answer");
}

/// Bytes as lower-case hex, for looking for a value in that spelling.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub(crate) const PROTOCOL_3_0: u32 = 196_608;
pub(crate) const CANCEL_REQUEST: u32 = 80_877_102;
pub(crate) const SSL_REQUEST: u32 = 80_877_103;
pub(crate) const GSSENC_REQUEST: u32 = 80_877_104;

fn nul_terminated(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| text.bytes().chain([0])).collect()
}

fn length_of(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap().to_be_bytes()
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

fn text_until_nul(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into()
}

fn row(body: &[u8]) -> Vec<Option<Vec<u8>>> {
    let (count, mut rest) = body.split_at(2);
    let columns = u16::from_be_bytes(count.try_into().unwrap());
    (0..columns)
        .map(|_| {
            let (head, tail) = rest.split_at(4);
            let length = i32::from_be_bytes(head.try_into().unwrap());
            // A negative length is NULL.
            let (value, tail) = tail.split_at(usize::try_from(length).unwrap_or(0));
            rest = tail;
            (length >= 0).then(|| value.to_vec())
        })
        .collect()
}
