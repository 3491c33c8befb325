//! The PROXY protocol, versions 1 and 2: a header in front of a connection in which a trusted
//! proxy tells whom it speaks for (haproxy.org, `proxy-protocol.txt`).
//!
//! [`step`] looks at what has arrived and says how many further bytes certainly belong to the
//! header, so that whoever reads never takes a byte beyond it: what follows may be a TLS handshake.
//! Anything but the exact grammar is an error; there is no guessing on whose behalf a client comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::WireError;
use super::reader::Reader;

/// Where a header stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// At least this many bytes more belong to it; more than zero.
    Need(usize),
    /// It is complete.
    Done(Announced),
}

/// Whom the proxy speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// A client with this address.
    Client(SocketAddr),
    /// Itself (a health check), or somebody whose address it does not tell or who has none: the
    /// connection's own address holds. A client without one would pass for one of this machine.
    Proxy,
}

/// Looks at the first bytes of a connection.
///
/// # Errors
/// They are no header, or one that breaks the grammar.
pub fn step(bytes: &[u8]) -> Result<Step, WireError> {
    match bytes.first() {
        None => Ok(Step::Need(HEADER_BYTES_MIN)),
        Some(b'P') => version_1(bytes),
        Some(_) => version_2(bytes),
    }
}

// === version 1: one line of text ===

fn version_1(bytes: &[u8]) -> Result<Step, WireError> {
    let known = bytes.len().min(V1_PREFIX.len());
    if bytes.get(..known) != V1_PREFIX.get(..known) {
        return Err(WireError::BadField);
    }
    if let Some(line) = bytes.strip_suffix(b"\r\n") {
        return line_1(line).map(Step::Done);
    }
    // Bytes are added by what is certainly missing: a line break can only be at the end.
    let missing = if bytes.ends_with(b"\r") { 1 } else { 2 };
    let whole = bytes.len().saturating_add(missing).max(HEADER_BYTES_MIN);
    if bytes.contains(&b'\n') {
        return Err(WireError::BadField);
    }
    if whole > V1_BYTES_MAX {
        return Err(WireError::TooLong);
    }
    Ok(Step::Need(whole - bytes.len()))
}

/// `PROXY TCP4 1.2.3.4 5.6.7.8 1000 2000`, without its line break.
fn line_1(line: &[u8]) -> Result<Announced, WireError> {
    let text = std::str::from_utf8(line).map_err(|_not_text| WireError::BadField)?;
    let mut words = text.split(' ');
    let bad = WireError::BadField;
    if words.next() != Some("PROXY") {
        return Err(bad);
    }
    let family = words.next().ok_or(bad)?;
    if family == "UNKNOWN" {
        // What the proxy adds here is to be ignored.
        return Ok(Announced::Proxy);
    }
    let mut next = || words.next().ok_or(bad);
    let (source, destination) = (next()?, next()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if words.next().is_some() {
        return Err(bad);
    }
    let ip = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().map_err(|_bad| bad)?;
            IpAddr::V4(source.parse().map_err(|_bad| bad)?)
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().map_err(|_bad| bad)?;
            IpAddr::V6(source.parse().map_err(|_bad| bad)?)
        }
        _ => return Err(bad),
    };
    let _ = destination_port;
    Ok(Announced::Client(SocketAddr::new(ip, source_port)))
}

/// Digits without sign, spaces or leading zeros.
fn port(text: &str) -> Result<u16, WireError> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = canonical && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(WireError::BadField)
}

// === version 2: binary ===

fn version_2(bytes: &[u8]) -> Result<Step, WireError> {
    let known = bytes.len().min(V2_SIGNATURE.len());
    if bytes.get(..known) != V2_SIGNATURE.get(..known) {
        return Err(WireError::BadField);
    }
    // The shortest header of both versions is no longer than the fixed part of this one.
    let Some(head) = bytes.first_chunk::<V2_HEAD_BYTES>() else {
        return Ok(Step::Need(V2_HEAD_BYTES.saturating_sub(bytes.len())));
    };
    let [.., version_command, family, high, low] = *head;
    if version_command >> 4 != 2 {
        return Err(WireError::BadField);
    }
    let whole = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([high, low]));
    match whole.checked_sub(bytes.len()) {
        Some(0) => {}
        Some(missing) => return Ok(Step::Need(missing)),
        None => return Err(WireError::TrailingBytes),
    }
    let body = bytes.get(V2_HEAD_BYTES..).unwrap_or_default();
    let mut reader = Reader::new(body);
    let announced = match (version_command & 0x0f, family) {
        // LOCAL: whatever the family says, and whatever addresses follow, are to be ignored.
        (0, _) => return Ok(Step::Done(Announced::Proxy)),
        (1, 0x00) => Announced::Proxy,
        (1, 0x11) => {
            let source = Ipv4Addr::from(reader.array::<4>()?);
            let _destination: [u8; 4] = reader.array()?;
            Announced::Client(SocketAddr::new(source.into(), ports(&mut reader)?))
        }
        (1, 0x21) => {
            let source = Ipv6Addr::from(reader.array::<16>()?);
            let _destination: [u8; 16] = reader.array()?;
            Announced::Client(SocketAddr::new(source.into(), ports(&mut reader)?))
        }
        (1, 0x31) => {
            reader.take(UNIX_ADDRESSES_BYTES)?;
            Announced::Proxy
        }
        // Datagrams do not come over a stream, and other commands and families do not exist.
        _ => return Err(WireError::BadField),
    };
    // Without a family the rest has no known structure.
    if family != 0x00 {
        additions(bytes, reader)?;
    }
    Ok(Step::Done(announced))
}

/// The source's port; the destination's follows it.
fn ports(reader: &mut Reader<'_>) -> Result<u16, WireError> {
    let source = reader.u16()?;
    let _destination = reader.u16()?;
    Ok(source)
}

/// Type, length and value, repeated to the end. Values are ignored but for the checksum.
fn additions(header: &[u8], mut reader: Reader<'_>) -> Result<(), WireError> {
    let mut checked = false;
    while !reader.rest().is_empty() {
        let at = header.len().saturating_sub(reader.rest().len());
        let kind = reader.byte()?;
        let length = usize::from(reader.u16()?);
        let value = reader.take(length)?;
        if kind != TYPE_CRC32C {
            continue;
        }
        let expected = u32::from_be_bytes(value.try_into().map_err(|_length| WireError::BadField)?);
        // Two checksums cannot both hold over a header with their own field zero.
        if std::mem::replace(&mut checked, true) || checksum(header, at + 3) != Some(expected) {
            return Err(WireError::BadField);
        }
    }
    Ok(())
}

/// CRC32C over the header with the four bytes of the checksum itself, at `at`, taken for zero.
fn checksum(header: &[u8], at: usize) -> Option<u32> {
    let (before, rest) = header.split_at_checked(at)?;
    let (_itself, after) = rest.split_at_checked(4)?;
    let crc = crc32c(u32::MAX, before);
    let crc = crc32c(crc, &[0; 4]);
    Some(!crc32c(crc, after))
}

/// Bit by bit: a header is short, and few proxies send a checksum.
fn crc32c(mut crc: u32, bytes: &[u8]) -> u32 {
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry == 1 {
                crc ^= CRC32C_REVERSED;
            }
        }
    }
    crc
}

const V1_PREFIX: &[u8] = b"PROXY ";

/// `PROXY UNKNOWN` with its line break: no header of either version is shorter.
const HEADER_BYTES_MIN: usize = 15;

/// Longest line of version 1, line break included.
const V1_BYTES_MAX: usize = 107;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
const V2_HEAD_BYTES: usize = 16;

/// Two paths of 108 bytes.
const UNIX_ADDRESSES_BYTES: usize = 216;

/// Type of the addition that holds a CRC32C of the header.
const TYPE_CRC32C: u8 = 0x03;

/// The Castagnoli polynomial, lowest bit first.
const CRC32C_REVERSED: u32 = 0x82f6_3b78;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as the shell does: exactly what is asked for, from an endless connection.
    fn read(bytes: &[u8]) -> Result<(Announced, usize), WireError> {
        let mut taken = 0;
        loop {
            match step(&bytes[..taken])? {
                Step::Done(announced) => return Ok((announced, taken)),
                Step::Need(0) => panic!("nothing asked for"),
                Step::Need(more) => {
                    taken += more;
                    if taken > bytes.len() {
                        return Err(WireError::Truncated);
                    }
                }
            }
        }
    }

    fn client(address: &str) -> Announced {
        Announced::Client(address.parse().unwrap())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[0x20 | command, family], &length, body].concat()
    }

    const TCP4: [u8; 12] = [10, 1, 2, 3, 10, 0, 0, 1, 0x30, 0x39, 0x19, 0x20];

    fn tcp6() -> Vec<u8> {
        let source = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
        [&source[..], &[0; 16], &[0, 80, 0, 81]].concat()
    }

    #[track_caller]
    fn check(header: &[u8], expected: Result<Announced, WireError>) {
        // Whatever follows is not touched.
        let followed = [header, b"\0\0\0\x08\x04\xd2\x16\x2f"].concat();
        let expected = expected.map(|announced| (announced, header.len()));
        assert_eq!(read(&followed), expected, "{}", header.escape_ascii());
        let Ok((_, length)) = expected else { return };
        for cut in 0..length {
            assert_eq!(read(&header[..cut]), Err(WireError::Truncated), "cut at {cut}");
            assert!(matches!(step(&header[..cut]), Ok(Step::Need(n)) if n <= length - cut));
        }
    }

    #[test]
    fn lines_of_version_1() {
        let ok: &[(&str, Announced)] = &[
            ("PROXY TCP4 10.1.2.3 10.0.0.1 12345 6432", client("10.1.2.3:12345")),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
                client("255.255.255.255:65535"),
            ),
            ("PROXY TCP6 2001:db8::7 ::1 80 0", client("[2001:db8::7]:80")),
            ("PROXY TCP6 ::ffff:10.1.2.3 ::1 80 0", client("[::ffff:10.1.2.3]:80")),
            ("PROXY UNKNOWN", Announced::Proxy),
            ("PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535", Announced::Proxy),
        ];
        for (line, expected) in ok {
            check(format!("{line}\r\n").as_bytes(), Ok(*expected));
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(longest.len(), V1_BYTES_MAX);
        check(longest.as_bytes(), Ok(Announced::Proxy));
    }

    #[test]
    fn lines_that_are_none() {
        for line in [
            "PROXY TCP4 10.1.2.3 10.0.0.1 12345\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 12345 6432 \r\n",
            "PROXY TCP4  10.1.2.3 10.0.0.1 12345 6432\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 12345 6432 7\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 +2345 6432\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 012 6432\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 65536 6432\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 1 65536\r\n",
            "PROXY TCP4 10.1.2.03 10.0.0.1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP4 10.1.2.3 ::1 1 2\r\n",
            "PROXY TCP6 10.1.2.3 10.0.0.1 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY tcp4 10.1.2.3 10.0.0.1 1 2\r\n",
            "PROXY UDP4 10.1.2.3 10.0.0.1 1 2\r\n",
            "PROXY\tTCP4 10.1.2.3 10.0.0.1 1 2\r\n",
            "PROXY UNKNOWNx\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 12345 6432\n",
            "proxy UNKNOWN\r\n",
            "PUT / HTTP/1.1\r\n\r\n",
            "\0\0\0\x08\x04\x12\x16\x2f",
            "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03ABCDEF",
        ] {
            let followed = format!("{line}{}", "x".repeat(200));
            assert!(read(followed.as_bytes()).is_err(), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        assert_eq!(read(long.as_bytes()), Err(WireError::TooLong));
        let bytes = b"PROXY TCP4 10.1.2.3 10.0.0.1 \xff 2\r\n";
        assert_eq!(read(bytes), Err(WireError::BadField));
    }

    #[test]
    fn headers_of_version_2() {
        check(&v2(1, 0x11, &TCP4), Ok(client("10.1.2.3:12345")));
        check(&v2(1, 0x21, &tcp6()), Ok(client("[2001:db8::7]:80")));
        check(&v2(1, 0x31, &[b'/'; 216]), Ok(Announced::Proxy));
        check(&v2(1, 0x00, b"whatever"), Ok(Announced::Proxy));
        check(&v2(0, 0x00, &[]), Ok(Announced::Proxy));
        // A health check keeps the connection's own address whatever it carries.
        check(&v2(0, 0x11, &TCP4), Ok(Announced::Proxy));
        // Additions are skipped: one of the greatest length, and an empty one.
        let most = 65_535 - TCP4.len() - 3;
        let length = u16::try_from(most).unwrap().to_be_bytes();
        check_v2_body(&[&TCP4[..], &[0xE0], &length, &vec![7; most]].concat(), true);
        check_v2_body(&[&TCP4[..], &[0x04, 0, 0]].concat(), true);
    }

    #[track_caller]
    fn check_v2_body(body: &[u8], good: bool) {
        let expected = if good { Ok((client("10.1.2.3:12345"), 16 + body.len())) } else { Err(()) };
        assert_eq!(read(&v2(1, 0x11, body)).map_err(|_error| ()), expected, "{} bytes", body.len());
    }

    #[test]
    fn headers_that_are_none() {
        for (command, family, body) in [
            (1, 0x12, &TCP4[..]),
            (1, 0x10, &TCP4),
            (1, 0x41, &TCP4),
            (2, 0x11, &TCP4),
            (1, 0x11, &TCP4[..11]),
            (1, 0x21, &TCP4),
            (1, 0x31, &[0; 215]),
        ] {
            assert!(read(&v2(command, family, body)).is_err(), "{command} {family:#x}");
        }
        let mut version = v2(1, 0x11, &TCP4);
        version[12] = 0x11;
        assert_eq!(read(&version), Err(WireError::BadField));
        for addition in [&[0x04][..], &[0x04, 0], &[0x04, 0, 1], &[0x04, 0xff, 0xff, 1]] {
            check_v2_body(&[&TCP4[..], addition].concat(), false);
        }
    }

    #[test]
    fn a_checksum_is_compared() {
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xE306_9283);
        let mut header =
            v2(1, 0x11, &[&TCP4[..], &[0x04, 0, 1, 9], &[3, 0, 4, 0, 0, 0, 0]].concat());
        assert_eq!(read(&header), Err(WireError::BadField));
        let at = header.len() - 4;
        let right = checksum(&header, at).unwrap().to_be_bytes();
        header[at..].copy_from_slice(&right);
        check(&header, Ok(client("10.1.2.3:12345")));
        // All but the type of the checksum: without it there is none to compare.
        for index in (16..header.len()).filter(|index| *index != at - 3) {
            let mut changed = header.clone();
            changed[index] ^= 0x40;
            assert!(read(&changed).is_err(), "byte {index}");
        }
        check_v2_body(&[&TCP4[..], &[3, 0, 3, 0, 0, 0]].concat(), false);
    }

    fn shapes() -> impl Strategy<Value = Vec<u8>> {
        let noise = proptest::collection::vec(any::<u8>(), 0..300);
        let line = "PROXY (TCP4|TCP6|UNKNOWN)[ 0-9a-f.:]{0,110}\r\n".prop_map(String::into_bytes);
        let binary = (0_u8..4, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(command, family, body)| v2(command, family, &body));
        prop_oneof![noise, line, binary]
    }

    proptest! {
        /// Never a panic, never a byte too many, and what is asked for is always something.
        #[test]
        fn any_bytes_are_a_header_or_an_error(bytes in shapes(), change in any::<(u8, u8)>()) {
            let mut bytes = bytes;
            if let Some(byte) = bytes.get_mut(usize::from(change.0)) {
                *byte ^= change.1 & 0x11;
            }
            if let Ok((_, taken)) = read(&bytes) {
                let header = &bytes[..taken];
                for cut in 0..taken {
                    let asked = matches!(step(&header[..cut]), Ok(Step::Need(n)) if n <= taken - cut);
                    prop_assert!(asked, "cut at {}", cut);
                }
            }
        }
    }
}
