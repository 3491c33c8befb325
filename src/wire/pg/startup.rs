//! The first packet of a client: a length, a code, and for a start-up its parameters.

use crate::wire::error::WireError;
use crate::wire::reader::Reader;

/// Longest start-up packet PostgreSQL accepts (`MAX_STARTUP_PACKET_LENGTH`).
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// Newest minor version we speak: long cancel keys.
pub const MINOR_NEWEST: u16 = 2;

/// What the first packet asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// SSLRequest, code 80877103.
    Tls,
    /// GSSENCRequest, code 80877104.
    GssEncryption,
    /// CancelRequest, code 80877102.
    Cancel {
        /// Process id.
        pid: u32,
        /// Secret: 4 bytes in protocol 3.0, up to 256 in 3.2.
        secret: Vec<u8>,
    },
    /// StartupMessage.
    Startup(Startup),
    /// A protocol version whose major number is not 3.
    Unsupported {
        /// The major number asked for.
        major: u16,
        /// The minor number asked for.
        minor: u16,
    },
}

/// A StartupMessage of protocol 3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// Minor protocol version asked for.
    pub minor: u16,
    /// Parameters in the order sent, duplicates kept: the server takes the last.
    pub parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Startup {
    /// How long a cancel secret this client understands.
    pub fn secret_bytes(&self) -> usize {
        if self.minor >= 2 { 32 } else { 4 }
    }

    /// The value of a parameter, the last one if it was sent twice.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let mut matching = self.parameters.iter().rev().filter(|(key, _)| key == name.as_bytes());
        matching.next().map(|(_, value)| value.as_slice())
    }

    /// Gives a parameter this value, whatever it was before.
    pub fn set(&mut self, name: &str, value: &str) {
        self.parameters.retain(|(key, _)| key != name.as_bytes());
        self.parameters.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    }

    /// Whether it asks for a replication connection: anything the server does not read as `false`.
    pub fn is_replication(&self) -> bool {
        let Some(value) = self.get("replication") else { return false };
        let value = value.to_ascii_lowercase();
        let off =
            |word: &str, least: usize| value.len() >= least && word.as_bytes().starts_with(&value);
        !(off("false", 1) || off("no", 1) || off("off", 2) || value == b"0" || value.is_empty())
    }

    /// Every setting this start-up asks for, lower-cased names: parameters that are settings, and
    /// what `options` holds (`-c name=value`, `-cname=value`, `--name=value`; backslash escapes).
    /// `None` if `options` holds a switch that is not understood.
    pub fn settings(&self) -> Option<Vec<(String, String)>> {
        let mut settings = Vec::new();
        for (name, value) in &self.parameters {
            match name.as_slice() {
                b"user" | b"database" | b"replication" => {}
                b"options" => settings.extend(option_settings(value)?),
                name if name.starts_with(b"_pq_.") => {}
                name => settings.push((lossy_lower(name), lossy(value))),
            }
        }
        Some(settings)
    }
}

/// Length of the first packet once its head is there.
///
/// # Errors
/// A length below eight or above [`STARTUP_BYTES_MAX`].
pub fn peek(buf: &[u8]) -> Result<Option<usize>, WireError> {
    let Some(head) = buf.first_chunk::<4>() else { return Ok(None) };
    let declared = i32::from_be_bytes(*head);
    let len = usize::try_from(declared).ok();
    let len = len.filter(|len| (8..=STARTUP_BYTES_MAX).contains(len));
    len.map(Some).ok_or(WireError::BadLength(declared))
}

/// Reads one complete first packet (`packet` includes its length field).
///
/// # Errors
/// Anything that is not exactly one of the requests.
pub fn parse(packet: &[u8]) -> Result<Request, WireError> {
    let mut reader = Reader::new(packet);
    reader.u32()?;
    let (major, minor) = (reader.u16()?, reader.u16()?);
    let request = match (major, minor) {
        (1234, 5679) => Request::Tls,
        (1234, 5680) => Request::GssEncryption,
        (1234, 5678) => {
            let pid = reader.u32()?;
            let secret = reader.rest();
            if !(4..=256).contains(&secret.len()) {
                return Err(WireError::BadField);
            }
            return Ok(Request::Cancel { pid, secret: secret.to_vec() });
        }
        (3, minor) => return startup(minor, reader).map(Request::Startup),
        (major, minor) => return Ok(Request::Unsupported { major, minor }),
    };
    reader.finish()?;
    Ok(request)
}

fn startup(minor: u16, mut reader: Reader<'_>) -> Result<Startup, WireError> {
    let mut parameters = Vec::new();
    loop {
        let name = reader.cstr()?;
        if name.is_empty() {
            reader.finish()?;
            return Ok(Startup { minor, parameters });
        }
        let value = reader.cstr()?;
        parameters.push((name.to_vec(), value.to_vec()));
    }
}

/// Splits `options` as `pg_split_opts` does and reads the settings in it.
fn option_settings(options: &[u8]) -> Option<Vec<(String, String)>> {
    let mut words = split_options(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("--") {
            Some(long) => long.to_owned(),
            None => match word.strip_prefix("-c")? {
                "" => words.next()?,
                joined => joined.to_owned(),
            },
        };
        let (name, value) = assignment.split_once('=')?;
        // `ParseLongOption` turns dashes of a name into underscores.
        settings.push((name.to_lowercase().replace('-', "_"), value.to_owned()));
    }
    Some(settings)
}

fn split_options(options: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = options.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => words.extend(word.take()),
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            other => word.get_or_insert_default().push(*other),
        }
    }
    words.extend(word);
    words.iter().map(|word| lossy(word)).collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lossy_lower(bytes: &[u8]) -> String {
    lossy(bytes).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_options(options: &str) -> Startup {
        let pair = |name: &str, value: &str| (name.into(), value.into());
        Startup { minor: 0, parameters: vec![pair("user", "u"), pair("options", options)] }
    }

    #[test]
    fn options_are_split_as_the_server_splits_them() {
        let cases: [(&str, Option<&[[&str; 2]]>); 8] = [
            ("-c a=b", Some(&[["a", "b"]])),
            ("-ca=b  --c-d=e", Some(&[["a", "b"], ["c_d", "e"]])),
            ("-c Search_Path=x\\ y", Some(&[["search_path", "x y"]])),
            ("-c a=b\\\\c", Some(&[["a", "b\\c"]])),
            ("-c\ta=b", Some(&[["a", "b"]])),
            ("", Some(&[])),
            ("-c", None),
            ("-F", None),
        ];
        for (options, expected) in cases {
            let found = with_options(options).settings();
            let found = found.map(|list| list.into_iter().map(<[String; 2]>::from).collect());
            let found: Option<Vec<[String; 2]>> = found;
            let expected = expected.map(|list| list.iter().map(|pair| pair.map(str::to_owned)));
            assert_eq!(found, expected.map(Iterator::collect), "{options:?}");
        }
    }

    #[test]
    fn the_last_of_two_parameters_counts() {
        let startup = Startup {
            minor: 0,
            parameters: vec![(b"user".into(), b"a".into()), (b"user".into(), b"b".into())],
        };
        assert_eq!(startup.get("user"), Some(&b"b"[..]));
    }

    #[test]
    fn hostile_first_packets_are_errors() {
        assert_eq!(peek(&[0, 0, 0]), Ok(None));
        for length in [-1_i32, 0, 7, 10_001, i32::MAX, 0x1603_0100] {
            assert_eq!(peek(&length.to_be_bytes()), Err(WireError::BadLength(length)));
        }
        let packet = |body: &[u8]| [&8_u32.to_be_bytes(), body].concat();
        assert_eq!(parse(&packet(&[4, 210, 22, 47])), Ok(Request::Tls));
        assert_eq!(parse(&packet(&[4, 210, 22, 47, 0])), Err(WireError::TrailingBytes));
        assert_eq!(parse(&packet(&[0, 3, 0, 0])), Err(WireError::MissingTerminator));
        assert_eq!(parse(&packet(b"\0\x03\0\0user\0")), Err(WireError::MissingTerminator));
        assert_eq!(parse(&packet(b"\0\x03\0\0\0x")), Err(WireError::TrailingBytes));
        assert_eq!(parse(&packet(&[0, 2, 0, 0])), Ok(Request::Unsupported { major: 2, minor: 0 }));
        assert_eq!(parse(&packet(&[4, 210, 22, 46, 0, 0, 0, 1])), Err(WireError::BadField));
    }
}
