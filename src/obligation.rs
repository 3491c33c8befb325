//! What a decision obliges the enforcing layer to do, in words no protocol owns.
//!
//! Policy produces obligations, analysis and session carry them out. An obligation that cannot be
//! carried out is a refusal, never best effort.

use std::sync::Arc;

use crate::facts::Relation;
use crate::name::RuleId;

/// A mask function with its arguments. Data only: each protocol brings its own execution.
///
/// Ordered from weakest to strongest: when two rules mask the same column with different
/// functions, the greatest wins (`Ord`), whatever the order of rules or files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// A fixed value, given as text and cast to the column's type.
    Constant(Box<str>),
    /// NULL.
    Nullify,
}

impl MaskFn {
    /// The name in rule files and audit events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TruncateDate(_) => "truncate_date",
            Self::Bucket { .. } => "bucket",
            Self::Partial { .. } => "partial",
            Self::PartialEmail { .. } => "partial_email",
            Self::PanBinLast4 { .. } => "pan_bin_last4",
            Self::Constant(_) => "constant",
            Self::Nullify => "nullify",
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
