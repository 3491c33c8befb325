//! Rules → [`RuleSet`] → [`Decision`]. Knows no protocol.
//!
//! `source` reads files as written, `compile` checks and freezes them, `decide` answers. The order
//! of files and rules never matters: deny wins over allow, filters add up, the strongest mask and
//! the lowest limit win.
//!
//! Deliberately absent: anything that reads a statement, a clock or a file. Statements arrive as
//! [`Facts`](crate::facts::Facts), time as a value, files as text.

#![deny(clippy::wildcard_enum_match_arm)]

mod case;
mod compile;
mod credential;
mod decide;
mod decision;
pub mod diagnostic;
mod explain;
mod fits;
mod identity;
mod inherit;
mod instant;
mod limit;
mod pattern;
mod predicate;
mod prefix;
mod rule;
mod ruleset;
mod source;
mod store;
mod target;
mod verifier;
mod vocabulary;
pub mod yaml;

pub use case::{Case, CaseFailure};
pub use credential::{ApiKey, Asserted, Credential, is_attribute_name, is_prefix};
pub use decide::Trace;
pub use decision::{Allowed, Counted, Decision, Denial, DenyReason, Limit};
pub use diagnostic::{Diagnostic, Severity, Span};
pub use explain::{Considered, Explanation};
pub use fits::Fits;
pub use identity::{Identity, IdentityClass, Login, NotAdmitted};
pub use limit::{Exceeded, Throttles};
pub use rule::Mode;
pub use ruleset::RuleSet;
pub use source::SourceFile;
pub use verifier::{NotAVerifier, ScramVerifier};
pub use vocabulary::Vocabulary;
