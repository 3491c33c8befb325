//! Arguments of the masks that need a key.

/// What a format-preserving mask encrypts; other characters stay where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Alphabet {
    /// `0` to `9`, `a` to `z`, `A` to `Z`.
    Alphanumeric,
    /// `0` to `9` and `a` to `z`.
    LowerAlphanumeric,
    /// `0` to `9`.
    Digits,
}

impl Alphabet {
    /// The spelling in rule files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alphanumeric => "alphanumeric",
            Self::LowerAlphanumeric => "lower_alphanumeric",
            Self::Digits => "digits",
        }
    }

    /// Its characters, by value.
    pub fn characters(self) -> &'static [u8] {
        const ALL: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let count = match self {
            Self::Alphanumeric => 62,
            Self::LowerAlphanumeric => 36,
            Self::Digits => 10,
        };
        ALL.get(..count).unwrap_or(ALL)
    }
}

/// How a token looks: `PREFIXt1_CHARACTERS`.
///
/// Ordered from the one that shows more to the one that shows less: a shorter token lets more
/// values share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    length: u8,
    prefix: Box<str>,
}

impl Token {
    /// Characters of a token whose rule does not say.
    pub const LENGTH: u8 = 26;
    /// Fewest: 5 bits each, so that two people share a token by accident in none of the places
    /// where tokens are counted or joined.
    pub const LENGTH_MIN: u8 = 16;
    /// Most: all bits of the digest.
    pub const LENGTH_MAX: u8 = 52;
    /// Longest prefix.
    const PREFIX_BYTES_MAX: usize = 32;

    /// A token of `length` characters after a prefix of letters, digits, `_`, `-`, `.` and `:`.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    pub fn new(length: u8, prefix: &str) -> Result<Self, String> {
        if !(Self::LENGTH_MIN..=Self::LENGTH_MAX).contains(&length) {
            let (min, max) = (Self::LENGTH_MIN, Self::LENGTH_MAX);
            return Err(format!("a token has {min} to {max} characters"));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        if prefix.len() > Self::PREFIX_BYTES_MAX || !prefix.bytes().all(plain) {
            let max = Self::PREFIX_BYTES_MAX;
            return Err(format!(
                "a token's prefix has at most {max} letters, digits, `_`, `-`, `.` or `:`"
            ));
        }
        Ok(Self { length, prefix: prefix.into() })
    }

    /// Characters after the number of the key.
    pub fn length(&self) -> usize {
        self.length.into()
    }

    /// What stands before the number of the key.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl Ord for Token {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.length, &self.prefix).cmp(&(self.length, &other.prefix))
    }
}

impl PartialOrd for Token {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
