//! Names no protocol owns: relations, rules, identities' handles, and the globs that match them.

use std::fmt;
use std::sync::Arc;

/// Where a relation lives, spelled the way the catalog spells it (already case-folded).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelationPath {
    /// Database (catalog) the relation belongs to.
    pub database: Arc<str>,
    /// Schema inside the database.
    pub schema: Arc<str>,
    /// Relation name inside the schema.
    pub name: Arc<str>,
}

impl fmt::Display for RelationPath {
    /// Prints `schema.name`: the database is fixed for a connection, so messages leave it out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// The id a rule carries in its file; unique in a rule set. Appears in refusals and audit events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub Arc<str>);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A protocol that is served, by the name rules and the configuration write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(&'static str);

/// How clients of a protocol say what they want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// In texts that speak of relations.
    ByStatements,
    /// By commands on keys.
    ByCommands,
}

impl Protocol {
    /// PostgreSQL's, version 3.
    pub const POSTGRESQL: Self = Self("postgresql");
    /// RESP, as Redis and its relatives speak it.
    pub const REDIS: Self = Self("redis");
    /// Those a rule may name in `match.protocol`; rules for any other are refused at load.
    pub const ALL: &'static [Self] = &[Self::POSTGRESQL, Self::REDIS];

    /// The spelling in rules and configuration.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// How clients say what they want.
    pub fn asks(self) -> Asks {
        if self == Self::REDIS { Asks::ByCommands } else { Asks::ByStatements }
    }

    /// The protocol of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|protocol| protocol.0 == name)
    }
}

/// A glob over one name: `*` matches any run of characters, `?` one character, all else itself.
///
/// Matching is iterative and linear in practice (one back-tracking point), so a rule author
/// cannot write a pattern that is slow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob(Box<str>);

impl Glob {
    /// Takes the pattern as written.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern can match only one name.
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// Whether `name` matches the whole pattern.
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.chars(), name.chars());
        // Where to resume when the part after the last `*` did not fit: one character later.
        let mut resume: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
        loop {
            let before = pattern.clone();
            match (pattern.next(), rest.clone().next()) {
                (Some('*'), _) => {
                    resume = Some((before, rest.clone()));
                    continue;
                }
                (Some('?'), Some(_)) => {
                    rest.next();
                    continue;
                }
                (Some(p), Some(r)) if p == r => {
                    rest.next();
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            let Some((star, mut at)) = resume.take() else { return false };
            if at.next().is_none() {
                return false;
            }
            pattern = star.clone();
            pattern.next();
            rest = at.clone();
            resume = Some((star, at));
        }
    }

    /// Whether some whole number that fits in 32 bits matches, written in digits as one writes it.
    pub fn matches_a_number(&self) -> bool {
        // The least digits that the pattern leaves room for; stars are left out.
        let fixed: Vec<char> = self.0.chars().filter(|c| *c != '*').collect();
        let mut digits: String = match (fixed.as_slice(), self.0.starts_with('*')) {
            ([], _) if !self.0.is_empty() => "0".to_owned(),
            // No number of two digits begins with zero.
            (['0', _, ..], true) => "1".to_owned(),
            _ => String::new(),
        };
        for c in &fixed {
            digits.push(match c {
                '?' if digits.is_empty() && fixed.len() > 1 => '1',
                '?' => '0',
                other => *other,
            });
        }
        digits.parse().is_ok_and(|number: u32| number.to_string() == digits)
            && self.matches(&digits)
    }

    /// Whether these bytes match the whole pattern; `?` is one byte. For names that need not be
    /// text: nothing is repaired before it is compared.
    pub fn matches_bytes(&self, name: &[u8]) -> bool {
        let (mut pattern, mut rest) = (self.0.as_bytes(), name);
        let mut resume: Option<(&[u8], &[u8])> = None;
        loop {
            match (pattern.split_first(), rest.split_first()) {
                // Nothing is wanted of what the last `*` takes.
                (Some((b'*', [])), _) => return true,
                (Some((b'*', after)), _) => {
                    resume = Some((after, rest));
                    pattern = after;
                    continue;
                }
                (Some((wanted, after)), Some((byte, others)))
                    if *wanted == b'?' || wanted == byte =>
                {
                    (pattern, rest) = (after, others);
                    continue;
                }
                (None, None) => return true,
                (Some(_) | None, Some(_) | None) => {}
            }
            let Some((after, [_, later @ ..])) = resume else { return false };
            (pattern, rest) = (after, later);
            resume = Some((after, later));
        }
    }
}

/// Lower-case hexadecimal digits, as digests are named by.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names_only() {
        let cases = [
            ("support_*", "support_l1", true),
            ("support_*", "support_", true),
            ("support_*", "xsupport_l1", false),
            ("*", "", true),
            ("a*b*c", "a__b__b_c", true),
            ("a*b*c", "a__b__b_", false),
            ("?", "é", true),
            ("?", "", false),
            ("*.email", "customers.email", true),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Glob::new(pattern).matches(name), expected, "{pattern} on {name}");
            let bytes = Glob::new(pattern).matches_bytes(name.as_bytes());
            assert_eq!(bytes, expected && name != "é", "{pattern} on the bytes of {name}");
        }
    }

    #[test]
    fn some_globs_match_numbers() {
        for pattern in [
            "0",
            "7",
            "15",
            "*",
            "**",
            "?",
            "??",
            "1*",
            "*0",
            "*05",
            "*0*5",
            "?*",
            "*?",
            "0*",
            "4294967295",
        ] {
            assert!(Glob::new(pattern).matches_a_number(), "{pattern}");
        }
        for pattern in [
            "",
            "orders",
            "db*",
            "*x",
            "05",
            "0?",
            "0*5",
            "-1",
            "+1",
            "1.0",
            "4294967296",
            "5?????????",
        ] {
            assert!(!Glob::new(pattern).matches_a_number(), "{pattern}");
        }
    }

    #[test]
    fn names_that_are_no_text_are_matched_as_they_are() {
        for (pattern, name, expected) in [
            ("s:*", &b"s:\xff\xfe"[..], true),
            ("s:??", b"s:\xff\xfe", true),
            ("s:?", b"s:\xff\xfe", false),
            ("*\u{fffd}*", b"s:\xff", false),
            ("*:b", b"a:b:\0:b", true),
            ("**", b"", true),
            ("", b"", true),
        ] {
            assert_eq!(Glob::new(pattern).matches_bytes(name), expected, "{pattern} on {name:?}");
        }
    }
}
