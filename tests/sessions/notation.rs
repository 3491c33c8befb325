//! Messages as one line of text each: `Query "SELECT 1"`, `ReadyForQuery I`.
//!
//! A word is a number, a quoted text (`\n`, `\"`, `\\`, `\xNN`, and `"x"*9` for repetition) or a
//! bare word. The fields of each message stand in the order of the protocol.

/// One word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Bare(String),
    Quoted(Vec<u8>),
}

impl Word {
    /// The word as bytes, quoted or not.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bare(word) => word.as_bytes(),
            Self::Quoted(text) => text,
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap()
    }

    fn number<T: std::str::FromStr>(&self) -> T {
        self.text().parse().unwrap_or_else(|_| panic!("not a number: {self:?}"))
    }
}

/// Splits a line into words.
pub(crate) fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.peek() {
            None | Some('#') => return words,
            Some('"') => {
                chars.next();
                let text = quoted(&mut chars);
                let times = match chars.next_if_eq(&'*') {
                    Some(_) => bare(&mut chars).parse().unwrap(),
                    None => 1,
                };
                words.push(Word::Quoted(text.repeat(times)));
            }
            Some(_) => words.push(Word::Bare(bare(&mut chars))),
        }
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn bare(chars: &mut Chars<'_>) -> String {
    std::iter::from_fn(|| chars.next_if(|c| !c.is_whitespace())).collect()
}

fn quoted(chars: &mut Chars<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        match chars.next().expect("closing quote") {
            '"' => return text,
            '\\' => match chars.next().expect("escape") {
                'n' => text.push(b'\n'),
                'x' => {
                    let hex: String = chars.by_ref().take(2).collect();
                    text.push(u8::from_str_radix(&hex, 16).unwrap());
                }
                other => text.extend(other.to_string().as_bytes()),
            },
            other => text.extend(other.to_string().as_bytes()),
        }
    }
}

/// The bytes of one message.
pub(crate) fn encode(words: &[Word]) -> Vec<u8> {
    let (name, fields) = words.split_first().expect("a message");
    let text = |index: usize| -> &[u8] { fields[index].bytes() };
    match name.text() {
        "Raw" => fields.iter().flat_map(Word::bytes).copied().collect(),
        "Startup" => startup(fields),
        "SSLRequest" => first(80_877_103, &[]),
        "GSSENCRequest" => first(80_877_104, &[]),
        "CancelRequest" => first(80_877_102, &with_pid(&fields[0], text(1))),
        "Head" => head(text(0), fields[1].number()),
        name => {
            let found = client(name, fields).or_else(|| server(name, fields));
            framed(found.unwrap_or_else(|| panic!("no message `{name}`")))
        }
    }
}

/// Letter and body of a message of a client.
fn client(name: &str, fields: &[Word]) -> Option<(u8, Vec<u8>)> {
    let text = |index: usize| -> &[u8] { fields[index].bytes() };
    let mut body = Body::default();
    Some(match name {
        "Query" => body.text(text(0)).tag(b'Q'),
        "CatalogQuery" => {
            body.raw(b"BEGIN TRANSACTION READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp; ");
            body.raw(portcullis::analysis::Catalog::QUERY.as_bytes());
            body.text(b"; COMMIT").tag(b'Q')
        }
        "Parse" => {
            body.text(text(0)).text(text(1)).count(fields.len() - 2);
            fields[2..].iter().for_each(|oid| body.u32(oid.number()));
            body.tag(b'P')
        }
        "Bind" => {
            body.text(text(0)).text(text(1)).count(0).count(fields.len() - 2);
            fields[2..].iter().for_each(|value| body.value(value));
            body.count(0).tag(b'B')
        }
        "Describe" => body.raw(text(0)).text(text(1)).tag(b'D'),
        "Close" => body.raw(text(0)).text(text(1)).tag(b'C'),
        "Execute" => {
            body.text(text(0)).u32(fields.get(1).map_or(0, Word::number));
            body.tag(b'E')
        }
        "Sync" => body.tag(b'S'),
        "Flush" => body.tag(b'H'),
        "Terminate" => body.tag(b'X'),
        "CopyFail" => body.text(text(0)).tag(b'f'),
        "FunctionCall" => {
            body.u32(fields.first().map_or(0, Word::number));
            body.raw(fields.get(1).map_or(&[0; 6], Word::bytes)).tag(b'F')
        }
        "Password" => body.text(text(0)).tag(b'p'),
        "SaslInitial" => {
            let len = u32::try_from(text(1).len()).unwrap();
            body.text(text(0)).u32(len);
            body.raw(text(1)).tag(b'p')
        }
        "SaslResponse" => body.raw(text(0)).tag(b'p'),
        "CopyData" => body.raw(text(0)).tag(b'd'),
        "CopyDone" => body.tag(b'c'),
        _ => return None,
    })
}

/// Letter and body of a message of a server.
fn server(name: &str, fields: &[Word]) -> Option<(u8, Vec<u8>)> {
    let text = |index: usize| -> &[u8] { fields[index].bytes() };
    let mut body = Body::default();
    Some(match name {
        "Authentication" => {
            body.u32(fields[0].number());
            let texts = fields[1..].iter().flat_map(Word::bytes).copied().collect::<Vec<_>>();
            body.raw(&texts).tag(b'R')
        }
        "ParameterStatus" => body.text(text(0)).text(text(1)).tag(b'S'),
        "BackendKeyData" => body.raw(&with_pid(&fields[0], text(1))).tag(b'K'),
        "ReadyForQuery" => body.raw(text(0)).tag(b'Z'),
        "NegotiateProtocolVersion" => {
            body.u32(version(&fields[0]));
            body.u32(u32::try_from(fields.len() - 1).unwrap());
            for option in &fields[1..] {
                body.text(option.bytes());
            }
            body.tag(b'v')
        }
        "RowDescription" => {
            body.count(fields.len());
            for column in fields {
                body.text(column.bytes()).raw(&[0; 6]).u32(25);
                body.raw(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
            }
            body.tag(b'T')
        }
        "DataRow" => {
            body.count(fields.len());
            fields.iter().for_each(|value| body.value(value));
            body.tag(b'D')
        }
        "CommandComplete" => body.text(text(0)).tag(b'C'),
        "EmptyQueryResponse" => body.tag(b'I'),
        "ErrorResponse" => report(body, fields, b'E'),
        "NoticeResponse" => report(body, fields, b'N'),
        "NotificationResponse" => {
            body.u32(fields[0].number());
            body.text(text(1)).text(text(2)).tag(b'A')
        }
        "CopyInResponse" => body.raw(&[0, 0, 0]).tag(b'G'),
        "CopyOutResponse" => body.raw(&[0, 0, 0]).tag(b'H'),
        "ParseComplete" => body.tag(b'1'),
        "BindComplete" => body.tag(b'2'),
        "CloseComplete" => body.tag(b'3'),
        "FunctionCallResponse" => body.raw(text(0)).tag(b'V'),
        "CopyBothResponse" => body.raw(&[0, 0, 0]).tag(b'W'),
        "NoData" => body.tag(b'n'),
        "PortalSuspended" => body.tag(b's'),
        "ParameterDescription" => {
            body.count(fields.len());
            fields.iter().for_each(|oid| body.u32(oid.number()));
            body.tag(b't')
        }
        _ => return None,
    })
}

#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &[u8]) -> &mut Self {
        self.raw(text).raw(&[0])
    }

    fn u32(&mut self, number: u32) {
        self.raw(&number.to_be_bytes());
    }

    fn count(&mut self, count: usize) -> &mut Self {
        self.raw(&u16::try_from(count).unwrap().to_be_bytes())
    }

    fn value(&mut self, value: &Word) {
        match value {
            Word::Bare(word) if word == "null" => self.raw(&[0xff; 4]),
            value => {
                let len = u32::try_from(value.bytes().len()).unwrap();
                self.raw(&len.to_be_bytes()).raw(value.bytes())
            }
        };
    }

    fn tag(&mut self, tag: u8) -> (u8, Vec<u8>) {
        (tag, std::mem::take(&mut self.0))
    }
}

/// Fields as pairs of a letter and a text: `S ERROR M "text"`.
fn report(mut body: Body, fields: &[Word], tag: u8) -> (u8, Vec<u8>) {
    for field in fields.chunks(2) {
        let [Word::Bare(letter), text] = field else { panic!("field pairs: {field:?}") };
        body.raw(letter.as_bytes()).text(text.bytes());
    }
    body.raw(&[0]).tag(tag)
}

fn framed((tag, body): (u8, Vec<u8>)) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &len.to_be_bytes(), &body].concat()
}

/// Only the first five bytes of a message, with any length.
fn head(tag: &[u8], declared: i32) -> Vec<u8> {
    [tag, &declared.to_be_bytes()].concat()
}

fn with_pid(pid: &Word, secret: &[u8]) -> Vec<u8> {
    [&pid.number::<u32>().to_be_bytes()[..], secret].concat()
}

fn first(code: u32, rest: &[u8]) -> Vec<u8> {
    let len = u32::try_from(rest.len() + 8).unwrap();
    [&len.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
}

/// `3.2` as the protocol writes it.
fn version(word: &Word) -> u32 {
    let (major, minor) = word.text().split_once('.').expect("version");
    (major.parse::<u32>().unwrap() << 16) + minor.parse::<u32>().unwrap()
}

/// `Startup 3.0 user=app database=shop`; a word may be quoted whole.
fn startup(fields: &[Word]) -> Vec<u8> {
    let code = version(&fields[0]);
    let mut body = Body::default();
    for field in &fields[1..] {
        let mut parts = field.bytes().splitn(2, |byte| *byte == b'=');
        body.text(parts.next().unwrap()).text(parts.next().expect("name=value"));
    }
    body.raw(&[0]);
    first(code, &body.0)
}

/// A message of either side for a person: its letter and its body with escapes.
pub(crate) fn shown(frame: &[u8]) -> String {
    match frame.split_first_chunk::<5>() {
        Some((head, body)) => format!("{} {}", head[0].escape_ascii(), body.escape_ascii()),
        None => format!("bytes {}", frame.escape_ascii()),
    }
}

/// The fields of an ErrorResponse or NoticeResponse frame.
pub(crate) fn report_fields(frame: &[u8]) -> Vec<(char, String)> {
    let body = frame.get(5..).unwrap_or_default();
    let fields = body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    fields.map(|f| (char::from(f[0]), String::from_utf8_lossy(&f[1..]).into_owned())).collect()
}

/// The first whole frame of `bytes`, taken out.
pub(crate) fn split_frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let head: [u8; 5] = *bytes.first_chunk()?;
    let len = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).unwrap();
    (bytes.len() > len).then(|| bytes.drain(..=len).collect())
}
