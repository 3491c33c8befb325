//! Client encodings, as far as a statement has to be read in them.
//!
//! The server splits a text into characters before it looks for quotes, so a byte that looks like a
//! quote or a backslash may be the second half of a character (SJIS, BIG5, GBK, UHC, GB18030). What
//! the characters are does not matter for that, only how long they are: the lengths here are those
//! of the server's own `pg_mblen`, so that both see the same text.

/// A client encoding, by how long its characters are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8: read as it is.
    #[default]
    Utf8,
    /// One byte each: LATIN, WIN, KOI8, ISO 8859; and SQL_ASCII, whose bytes nobody converts.
    SingleByte,
    /// EUC_JP, EUC_KR and EUC_JIS_2004.
    Euc,
    /// EUC_CN.
    EucCn,
    /// EUC_TW.
    EucTw,
    /// SJIS and SHIFT_JIS_2004.
    Sjis,
    /// Two bytes wherever the first is not ASCII: BIG5, GBK, UHC.
    TwoBytes,
    /// GB18030.
    Gb18030,
    /// Anything else: only ASCII can be read.
    Unknown,
}

impl Encoding {
    /// By the name a server reports.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"UTF8" => Self::Utf8,
            b"SQL_ASCII" => Self::SingleByte,
            b"EUC_JP" | b"EUC_KR" | b"EUC_JIS_2004" => Self::Euc,
            b"EUC_CN" => Self::EucCn,
            b"EUC_TW" => Self::EucTw,
            b"SJIS" | b"SHIFT_JIS_2004" => Self::Sjis,
            b"BIG5" | b"GBK" | b"UHC" => Self::TwoBytes,
            b"GB18030" => Self::Gb18030,
            name => {
                let families = [&b"LATIN"[..], b"WIN", b"KOI8", b"ISO_8859_"];
                let single = families.iter().any(|family| name.starts_with(family));
                if single { Self::SingleByte } else { Self::Unknown }
            }
        }
    }

    /// A text of UTF-8 in which each character of `text` stands as one: ASCII as itself, others as
    /// something that is none. `None` if its characters cannot be told apart.
    pub fn stand_in(self, text: &[u8]) -> Option<String> {
        let mut rest = text;
        let mut out = String::with_capacity(text.len());
        while let Some((first, _)) = rest.split_first() {
            let len = if first.is_ascii() { 1 } else { self.char_len(rest)? };
            // A character that is cut off is refused by the server before it reads the text.
            let (bytes, behind) = rest.split_at(len.min(rest.len()));
            out.push(match bytes {
                [byte] => char::from(*byte),
                bytes => placeholder(bytes),
            });
            rest = behind;
        }
        Some(out)
    }

    /// Length of the character at the front, whose first byte is not ASCII.
    fn char_len(self, bytes: &[u8]) -> Option<usize> {
        let (first, second) = (bytes.first().copied()?, bytes.get(1).copied());
        Some(match (self, first) {
            (Self::Utf8 | Self::Unknown, _) => return None,
            (Self::SingleByte, _) => 1,
            (Self::Euc | Self::EucTw, 0x8f) => 3,
            (Self::EucTw, 0x8e) => 4,
            (Self::Sjis, 0xa1..=0xdf) => 1,
            (Self::Gb18030, _) if second.is_some_and(|byte| byte.is_ascii_digit()) => 4,
            (
                Self::Euc | Self::EucCn | Self::EucTw | Self::Sjis | Self::TwoBytes | Self::Gb18030,
                _,
            ) => 2,
        })
    }
}

/// A private character for some bytes. Different pairs have different ones.
fn placeholder(bytes: &[u8]) -> char {
    let number = bytes.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
    char::from_u32(0xf_0000 + number % 0x1_0000).unwrap_or('\u{f0000}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_as_long_as_the_server_takes_them_to_be() {
        let cases: [(&str, &[u8], &[usize]); 14] = [
            ("LATIN1", b"a\xe9'", &[1, 1, 1]),
            ("KOI8R", b"\xc1\xc2", &[1, 1]),
            ("SQL_ASCII", b"\xff'\xfe", &[1, 1, 1]),
            ("SJIS", b"\x83\x5c'", &[2, 1]),
            ("SJIS", b"\xb1'", &[1, 1]),
            ("BIG5", b"\xa5\x5c'", &[2, 1]),
            ("GBK", b"\xbf\x27'", &[2, 1]),
            ("UHC", b"\x81\x5c\x5c", &[2, 1]),
            ("GB18030", b"\x81\x30\x81\x30'", &[4, 1]),
            ("GB18030", b"\x81\x5c'", &[2, 1]),
            ("EUC_JP", b"\x8e\xb1\x8f\xa2\xaf\xa4\xa2'", &[2, 3, 2, 1]),
            ("EUC_TW", b"\x8e\xa2\xa1\xa1'", &[4, 1]),
            ("EUC_CN", b"\xb0\xa1'", &[2, 1]),
            ("GBK", b"'\xbf", &[1, 1]),
        ];
        for (name, text, lengths) in cases {
            let read = Encoding::of(name.as_bytes()).stand_in(text).unwrap();
            assert_eq!(read.chars().count(), lengths.len(), "{name} {}", text.escape_ascii());
            let mut rest = text;
            for (c, len) in read.chars().zip(lengths) {
                let (bytes, behind) = rest.split_at(*len);
                assert_eq!(c.is_ascii(), bytes[0].is_ascii(), "{name}");
                assert!(!c.is_ascii() || [u8::try_from(c).unwrap()] == bytes, "{name}");
                rest = behind;
            }
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_not_known_is_read_as_ascii_only() {
        for name in ["JOHAB", "MULE_INTERNAL", "", "UTF-16"] {
            let encoding = Encoding::of(name.as_bytes());
            assert_eq!(encoding, Encoding::Unknown, "{name}");
            assert_eq!(encoding.stand_in(b"select 1").as_deref(), Some("select 1"));
            assert_eq!(encoding.stand_in(b"select '\xe9'"), None);
        }
    }
}
