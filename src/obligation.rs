//! What a decision obliges the enforcing layer to do, in words no protocol owns.
//!
//! Policy produces obligations, analysis and session carry them out. An obligation that cannot be
//! carried out is a refusal, never best effort.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::facts::Relation;
use crate::name::{Glob, RuleId};

mod json_path;
mod keyed;

pub use json_path::{JsonPath, JsonStep};
pub use keyed::{Alphabet, Token};

/// A mask function with its arguments. Data only: each protocol brings its own execution.
///
/// Ordered from weakest to strongest: when two rules mask the same column with different
/// functions, the greatest wins (`Ord`), whatever the order of rules or files. Of two uses of one
/// function the one that shows less is the greater.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MaskFn {
    /// Date and time truncated to a unit.
    TruncateDate(DateUnit),
    /// Lower edge of the bucket the number falls in, in the same type.
    Bucket {
        /// Width of a bucket, greater than zero.
        width: u64,
        /// Where the bucket that holds zero would start.
        offset: i64,
    },
    /// Keeps a prefix and a suffix; the rest becomes `fill`. Values not longer than what would be
    /// kept are masked whole.
    Partial {
        /// Characters kept at the start.
        prefix: u32,
        /// Characters kept at the end.
        suffix: u32,
        /// The character shown instead.
        fill: char,
    },
    /// First character, fixed-width stars, last label of the domain (or the whole domain).
    PartialEmail {
        /// Show the whole domain.
        keep_domain: bool,
    },
    /// BIN and last four digits of a card number; separators kept; fewer than 13 digits: all masked.
    PanBinLast4 {
        /// Leading digits kept: 6 or 8.
        bin: u8,
    },
    /// Encrypts what belongs to an alphabet with a key, in the same length and alphabet.
    FpeFf1(Alphabet),
    /// A keyed digest in hexadecimal.
    HashKeyed,
    /// A keyed token, shorter than a digest and with the number of the key it was made with.
    TokenHmac(Token),
    /// A fixed value, given as text and cast to the column's type.
    Constant(Box<str>),
    /// NULL.
    Nullify,
}

impl Ord for MaskFn {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::TruncateDate(unit), Self::TruncateDate(other)) => unit.cmp(other),
            (
                Self::Bucket { width, offset },
                Self::Bucket { width: other_width, offset: other_offset },
            ) => (width, offset).cmp(&(other_width, other_offset)),
            (
                Self::Partial { prefix, suffix, fill },
                Self::Partial { prefix: other_prefix, suffix: other_suffix, fill: other_fill },
            ) => {
                // What is kept is shown: keeping less is stronger.
                let kept = prefix.saturating_add(*suffix);
                let other_kept = other_prefix.saturating_add(*other_suffix);
                (other_kept, other_prefix, other_suffix, other_fill)
                    .cmp(&(kept, prefix, suffix, fill))
            }
            (Self::PartialEmail { keep_domain }, Self::PartialEmail { keep_domain: other }) => {
                other.cmp(keep_domain)
            }
            (Self::PanBinLast4 { bin }, Self::PanBinLast4 { bin: other }) => other.cmp(bin),
            (Self::FpeFf1(alphabet), Self::FpeFf1(other)) => alphabet.cmp(other),
            (Self::TokenHmac(token), Self::TokenHmac(other)) => token.cmp(other),
            (Self::Constant(text), Self::Constant(other)) => text.cmp(other),
            (left, right) => left.strength().cmp(&right.strength()),
        }
    }
}

impl PartialOrd for MaskFn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl MaskFn {
    /// Place of the function among all, weakest first.
    fn strength(&self) -> u8 {
        match self {
            Self::TruncateDate(_) => 0,
            Self::Bucket { .. } => 1,
            Self::Partial { .. } => 2,
            Self::PartialEmail { .. } => 3,
            Self::PanBinLast4 { .. } => 4,
            // A keyed mask shows no character, but which values are equal; the one that keeps the
            // form shows the length as well.
            Self::FpeFf1(_) => 5,
            Self::HashKeyed => 6,
            Self::TokenHmac(_) => 7,
            Self::Constant(_) => 8,
            Self::Nullify => 9,
        }
    }

    /// The name in rule files and audit events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TruncateDate(_) => "truncate_date",
            Self::Bucket { .. } => "bucket",
            Self::Partial { .. } => "partial",
            Self::PartialEmail { .. } => "partial_email",
            Self::PanBinLast4 { .. } => "pan_bin_last4",
            Self::FpeFf1(_) => "fpe_ff1",
            Self::HashKeyed => "hash_keyed",
            Self::TokenHmac(_) => "token_hmac",
            Self::Constant(_) => "constant",
            Self::Nullify => "nullify",
        }
    }

    /// Whether the function needs a key of the proxy's configuration.
    pub fn needs_key(&self) -> bool {
        match self {
            Self::FpeFf1(_) | Self::HashKeyed | Self::TokenHmac(_) => true,
            Self::TruncateDate(_)
            | Self::Bucket { .. }
            | Self::Partial { .. }
            | Self::PartialEmail { .. }
            | Self::PanBinLast4 { .. }
            | Self::Constant(_)
            | Self::Nullify => false,
        }
    }
}

/// The unit a date is truncated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DateUnit {
    /// Midnight of the day.
    Day,
    /// First day of the month.
    Month,
    /// First day of the quarter.
    Quarter,
    /// First day of the year.
    Year,
}

/// A mask on one column of one relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnMask {
    /// Column name as the catalog spells it.
    pub column: Arc<str>,
    /// Class the column carries, if it was found by class; for the audit event.
    pub class: Option<Arc<str>>,
    /// What to do.
    pub function: MaskFn,
    /// The rule that asked for it.
    pub rule: RuleId,
}

/// A row filter on one relation: a predicate text of the rule file with the identity's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFilter {
    /// The predicate as written, checked and parsed at load.
    pub predicate: Arc<str>,
    /// Values for each `:identity.NAME` in it.
    pub values: Vec<(Arc<str>, Arc<str>)>,
    /// The rule that asked for it.
    pub rule: RuleId,
}

/// Everything one relation owes for one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Governance {
    /// The relation.
    pub relation: Arc<Relation>,
    /// At most one mask per column, in column order.
    pub masks: Vec<ColumnMask>,
    /// All filters; they are ANDed.
    pub filters: Vec<RowFilter>,
}

/// A mask on values of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueMask {
    /// What the rule or the classification writes, for records: the pattern that fitted the key,
    /// then, behind a space each, fields and path.
    pub pattern: Arc<str>,
    /// Fields it is for; `None` for every value of the key, in a field or not.
    pub fields: Option<Arc<[Glob]>>,
    /// Where in a value that is JSON; `None` for the whole value.
    pub path: Option<JsonPath>,
    /// What to do.
    pub function: MaskFn,
    /// Class the value carries, if it was found by class.
    pub class: Option<Arc<str>>,
    /// The rule that asked for it.
    pub rule: RuleId,
}

/// Everything one key owes for one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyGovernance {
    /// Place of the key among those of the facts.
    pub key: usize,
    /// The masks on its values; of those that concern one value the strongest holds, and one
    /// without a path is stronger than any with one.
    pub masks: Vec<ValueMask>,
}

/// Where the names of an identity's keys and channels are at the server: behind a prefix that the
/// client neither writes nor sees.
///
/// Every key, channel and pattern for either that the client names gets the prefix (in a pattern its
/// letters stand for themselves); every name the server tells loses it, and one that is not behind it
/// is not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenancy {
    /// What stands before each name: printable ASCII.
    pub prefix: Arc<str>,
    /// The rule that asked for it.
    pub rule: RuleId,
}

/// A bound on the arguments of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What is bounded.
    pub what: Bounded,
    /// The most there may be; of what is no bound, how much is given.
    pub max: u64,
    /// The rule that asked for it.
    pub rule: RuleId,
}

/// What a bound counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounded {
    /// Bytes of each pattern for names of keys or channels.
    PatternBytes,
    /// Bytes of each argument that is not the command's name, a key or a channel.
    ArgumentBytes,
    /// How many such arguments there are.
    Arguments,
    /// Milliseconds until the keys that the command writes expire, where it says or takes away when;
    /// never is more than any number.
    ExpiryMs,
    /// No bound: milliseconds after which the keys expire that the command writes without saying
    /// when, where it could say so. It is made to say it.
    ExpiryPutInMs,
    /// No bound, either: a longer expiry that the command says becomes this many milliseconds.
    ExpiryLoweredMs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_ordered_from_weakest_to_strongest() {
        let partial = |prefix, suffix| MaskFn::Partial { prefix, suffix, fill: '*' };
        let ordered = [
            MaskFn::TruncateDate(DateUnit::Day),
            MaskFn::TruncateDate(DateUnit::Year),
            MaskFn::Bucket { width: 10, offset: 0 },
            MaskFn::Bucket { width: 100, offset: -5 },
            partial(4, 4),
            partial(2, 1),
            partial(1, 2),
            partial(0, 0),
            MaskFn::PartialEmail { keep_domain: true },
            MaskFn::PartialEmail { keep_domain: false },
            MaskFn::PanBinLast4 { bin: 8 },
            MaskFn::PanBinLast4 { bin: 6 },
            MaskFn::FpeFf1(Alphabet::Digits),
            MaskFn::HashKeyed,
            MaskFn::TokenHmac(Token::new(26, "").unwrap()),
            MaskFn::TokenHmac(Token::new(16, "").unwrap()),
            MaskFn::Constant("a".into()),
            MaskFn::Constant("b".into()),
            MaskFn::Nullify,
        ];
        for (index, weaker) in ordered.iter().enumerate() {
            assert_eq!(weaker.cmp(weaker), Ordering::Equal);
            for stronger in ordered.iter().skip(index + 1) {
                assert_eq!(weaker.cmp(stronger), Ordering::Less, "{weaker:?} {stronger:?}");
                assert_eq!(stronger.cmp(weaker), Ordering::Greater, "{weaker:?} {stronger:?}");
            }
        }
    }
}
