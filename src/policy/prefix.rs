//! Tenants in one store: the names of each stand behind a prefix made of a value of the identity.
//!
//! The names of two tenants must never meet. So a value is followed by a separator it may not
//! hold, and two rules may not begin alike: no prefix is then the beginning of another one.

use std::sync::Arc;

use super::decision::{Denial, DenyReason};
use super::identity::Identity;
use super::predicate::is_name;
use super::rule::{Effect, Rule};
use super::ruleset::RuleSet;
use super::yaml::Problems;
use crate::obligation::Tenancy;
use crate::policy::diagnostic::Diagnostic;

/// A prefix as a rule writes it: `t:{identity.tenant}:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// Before the first value.
    head: Box<str>,
    /// Each value with the text behind it.
    values: Vec<(Arc<str>, Box<str>)>,
}

/// Longest prefix as written and as used, in bytes: every name carries it.
const BYTES_MAX: usize = 128;

/// What names of channels begin with on which servers tell of every key.
const SERVERS_OWN: &str = "__";

impl Prefix {
    /// Reads the prefix as written.
    ///
    /// # Errors
    /// A message for the author.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > BYTES_MAX {
            return Err(format!("a prefix has 1 to {BYTES_MAX} bytes"));
        }
        let (head, mut rest) = text.split_once('{').map_or((text, None), |(h, r)| (h, Some(r)));
        let mut values = Vec::new();
        while let Some(text) = rest {
            let wrong = || "a value in a prefix is written `{identity.NAME}`".to_owned();
            let (name, after) = text.split_once('}').ok_or_else(wrong)?;
            let name = name.strip_prefix("identity.").filter(|name| is_name(name));
            let (behind, next) = after.split_once('{').map_or((after, None), |(b, r)| (b, Some(r)));
            if behind.is_empty() {
                return Err(
                    "a value in a prefix needs a separator behind it, or the names of one \
                            tenant could begin like those of another"
                        .to_owned(),
                );
            }
            values.push((name.ok_or_else(wrong)?.into(), behind.into()));
            rest = next;
        }
        let behind = values.iter().map(|(_, behind): &(Arc<str>, Box<str>)| &**behind);
        if !std::iter::once(head).chain(behind).all(is_plain) {
            return Err("a prefix is made of letters, digits and `:` `.` `_` `-` `/` `|` `#` `@` \
                        besides its values"
                .to_owned());
        }
        if head.starts_with(SERVERS_OWN) {
            return Err(format!("`{SERVERS_OWN}` begins names that are the server's own"));
        }
        Ok(Self { head: head.into(), values })
    }

    /// Names of the values in it.
    pub(crate) fn references(&self) -> impl Iterator<Item = &Arc<str>> {
        self.values.iter().map(|(name, _)| name)
    }

    /// The prefix of one identity.
    fn of(&self, identity: &Identity) -> Result<String, Denial> {
        let missing = |message: String, name: &str| {
            Denial::new(DenyReason::MissingAttribute, message)
                .with_hint(format!("ask for `{name}` to be set in the identities file"))
        };
        let mut prefix = self.head.to_string();
        for (name, behind) in &self.values {
            let value = identity.value(name).ok_or_else(|| {
                let message = format!("your identity has no `{name}`, which names your keys");
                missing(message, name)
            })?;
            let separator = behind.chars().next();
            if !is_plain(&value) || value.is_empty() || separator.is_some_and(|s| value.contains(s))
            {
                let message = format!("`{name}` of your identity cannot stand in names of keys");
                return Err(missing(message, name));
            }
            prefix.push_str(&value);
            prefix.push_str(behind);
        }
        if prefix.len() > BYTES_MAX || prefix.starts_with(SERVERS_OWN) {
            let message = "the prefix of your keys would be too long, or begin as no prefix may";
            return Err(Denial::new(DenyReason::MissingAttribute, message));
        }
        Ok(prefix)
    }
}

/// Letters that mean nothing in any pattern and divide no name for a cluster.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":._-/|#@".contains(&byte))
}

/// Where the names of an identity are, by the rules that concern it.
pub(crate) fn tenancy(
    rules: &[&Rule],
    identity: &Identity,
) -> Result<Option<Arc<Tenancy>>, Denial> {
    let mut found: Option<Tenancy> = None;
    for (rule, prefix) in rules.iter().filter_map(|rule| prefix_of(rule)) {
        let prefix = prefix.of(identity).map_err(|denial| denial.by(&rule.id))?;
        match &found {
            Some(held) if *held.prefix != *prefix => {
                let message =
                    format!("rules `{}` and `{}` differ on your keys", held.rule, rule.id);
                return Err(Denial::new(DenyReason::SideDoor, message).by(&rule.id));
            }
            Some(_) => {}
            None => found = Some(Tenancy { prefix: prefix.into(), rule: rule.id.clone() }),
        }
    }
    Ok(found.map(Arc::new))
}

fn prefix_of(rule: &Rule) -> Option<(&Rule, &Prefix)> {
    match &rule.effect {
        Effect::Prefix(prefix) => Some((rule, prefix)),
        Effect::Mask(_)
        | Effect::Filter(_)
        | Effect::Allow(_)
        | Effect::Deny { .. }
        | Effect::Limit(_)
        | Effect::Bounds(_) => None,
    }
}

/// Two prefixes that begin alike and are not the same could give one name to two tenants.
pub(crate) fn check(set: &RuleSet, problems: &mut Problems) {
    let all: Vec<(&Rule, &Prefix)> = set.rules.iter().filter_map(prefix_of).collect();
    for (place, (rule, prefix)) in all.iter().enumerate() {
        let mut before = all.iter().take(place);
        let alike = |other: &Prefix| {
            let (one, other) = (&*prefix.head, &*other.head);
            one.starts_with(other) || other.starts_with(one)
        };
        if let Some((other, _)) = before.find(|(_, other)| other != prefix && alike(other)) {
            let message = format!("the prefixes of `{}` and `{}` begin alike", other.id, rule.id);
            problems.push(
                Diagnostic::error(&rule.span, message)
                    .with_help("names of one tenant could be names of another; begin differently"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_each_value_with_what_the_value_cannot_hold() {
        for text in ["app:", "t:{identity.tenant}:", "{identity.user}/x/{identity.tenant}:"] {
            assert!(Prefix::parse(text).is_ok(), "{text}");
        }
        for (text, expected) in [
            ("", "1 to 128 bytes"),
            ("t:{identity.tenant}", "needs a separator"),
            ("t:{identity.tenant}{identity.user}:", "needs a separator"),
            ("t:{tenant}:", "is written `{identity.NAME}`"),
            ("t:{identity.tenant:", "is written `{identity.NAME}`"),
            ("t:{identity.}:", "is written `{identity.NAME}`"),
            ("t*{identity.tenant}:", "is made of letters"),
            ("t:{identity.tenant}:}", "is made of letters"),
            ("t [", "is made of letters"),
            ("__keyspace@0__:", "begins names that are the server's own"),
        ] {
            let found = Prefix::parse(text).unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
