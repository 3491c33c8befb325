//! Tests written beside the rules: who, what statement, what must come of it.
//!
//! A case runs through [`RuleSet::decide`] like any statement. What a statement *is* stays unknown
//! here: the caller names the key it stands under and brings the function that understands it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::credential::Credential;
use super::decision::{Allowed, Decision};
use super::diagnostic::{Diagnostic, Span};
use super::identity::{Identity, Login};
use super::ruleset::RuleSet;
use super::source::{SourceFile, bounded, kept, one_or_many, shown_text};
use super::yaml::{Document, MapReader, Node, Problems, Value};
use crate::facts::Facts;
use crate::name::Protocol;

/// One test.
#[derive(Clone, Debug)]
pub struct Case {
    /// What its author calls it.
    pub name: String,
    /// Where it stands.
    pub span: Span,
    /// The statement.
    pub text: String,
    who: Who,
    expect: Expect,
}

/// Who asks: a login, and what the test says instead of the identities file.
#[derive(Clone, Debug)]
struct Who {
    login: Login,
    roles: Option<Vec<Arc<str>>>,
    attributes: BTreeMap<Arc<str>, Arc<str>>,
}

/// A test that came out differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseFailure {
    /// The test.
    pub name: String,
    /// Where it stands.
    pub span: Span,
    /// What was expected and what came.
    pub message: String,
}

/// What must come of the statement; everything given must hold.
#[derive(Clone, Debug, Default)]
struct Expect {
    allowed: bool,
    denied: Option<Denied>,
    /// Column (`card_no`, `customers.card_no`, …) → function name. Empty: nothing is masked.
    masked: Option<BTreeMap<String, String>>,
    /// `schema.relation`. Empty: nothing is filtered.
    filtered: Option<Vec<String>>,
    limited: Option<String>,
    /// The rule that bounds its arguments.
    bounded: Option<String>,
    /// What stands before its names at the server.
    prefix: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Denied {
    ByAnything,
    By(String),
}

// === impl Case ===

impl Case {
    /// Reads the `tests` of rule files. `texts` are the keys a statement may stand under, and what
    /// its session speaks then.
    ///
    /// # Errors
    /// Every problem of every test.
    pub fn read(
        files: &[SourceFile],
        texts: &'static [(&'static str, Protocol)],
    ) -> Result<Vec<Self>, Vec<Diagnostic>> {
        let mut problems = Problems::default();
        let mut cases = Vec::new();
        for file in files {
            match Document::parse(&file.name, &file.text) {
                Ok(root) => cases.extend(read_tests(&root, texts, &mut problems)),
                Err(list) => problems.extend(list),
            }
        }
        if problems.is_empty() { Ok(cases) } else { Err(problems.into_sorted()) }
    }

    /// Runs tests against rules. `analyze` understands a statement as the connection of this login
    /// would.
    pub fn run(
        rules: &RuleSet,
        cases: &[Self],
        analyze: &dyn Fn(&str, &Login) -> Facts,
    ) -> Vec<CaseFailure> {
        cases.iter().filter_map(|case| case.failure(rules, analyze)).collect()
    }

    fn failure(
        &self,
        rules: &RuleSet,
        analyze: &dyn Fn(&str, &Login) -> Facts,
    ) -> Option<CaseFailure> {
        let class = rules.classify(self.identity(rules));
        let decision = rules.decide(&class, &analyze(&self.text, &self.who.login));
        let wrong = self.expect.wrong(&decision);
        (!wrong.is_empty()).then(|| CaseFailure {
            name: self.name.clone(),
            span: self.span.clone(),
            message: wrong.join("; "),
        })
    }

    /// The identity as the identities file gives it, with what the test says instead.
    fn identity(&self, rules: &RuleSet) -> Identity {
        let Who { login, roles, attributes } = &self.who;
        let mut identity = rules.identify(login.clone());
        if let Some(roles) = roles {
            identity.roles.clone_from(roles);
            identity.roles.sort();
        }
        identity.attributes.extend(attributes.clone());
        identity
    }
}

impl fmt::Display for CaseFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: test failed: {}\n  {}", self.span, self.name, self.message)
    }
}

// === reading ===

fn read_tests(
    root: &Node,
    texts: &'static [(&'static str, Protocol)],
    problems: &mut Problems,
) -> Vec<Case> {
    let Some(mut map) = MapReader::new(root, problems) else { return Vec::new() };
    // The other keys of the file are the rules', read elsewhere.
    let Some(node) = map.optional("tests") else { return Vec::new() };
    let nodes = bounded(node, problems);
    nodes.iter().filter_map(|node| case(node, texts, problems)).collect()
}

fn case(
    node: &Node,
    texts: &'static [(&'static str, Protocol)],
    problems: &mut Problems,
) -> Option<Case> {
    let mut map = MapReader::new(node, problems)?;
    let name = map.required("name", problems).and_then(|node| shown_text(node, problems));
    let said = said(&mut map, texts, problems);
    let asks = map.required("as", problems).zip(said);
    let who = asks.and_then(|(node, (_, protocol))| who(node, protocol, problems));
    let expect = map.required("expect", problems).and_then(|node| expect(node, problems));
    map.finish(problems);
    Some(Case {
        name: name?.into(),
        span: node.span.clone(),
        text: said?.0.to_owned(),
        who: who?,
        expect: expect?,
    })
}

/// The statement, under one of these keys, and what its session speaks.
fn said<'n>(
    map: &mut MapReader<'n>,
    texts: &[(&'static str, Protocol)],
    problems: &mut Problems,
) -> Option<(&'n str, Protocol)> {
    let found = texts.iter().filter_map(|(key, protocol)| Some((map.optional(key)?, *protocol)));
    match found.collect::<Vec<_>>().as_slice() {
        [(node, protocol)] => Some((node.string(problems)?, *protocol)),
        [] | [_, _, ..] => {
            let keys: Vec<_> = texts.iter().map(|(key, _)| format!("`{key}`")).collect();
            problems.error(map.span(), format!("a test has one of {}", keys.join(", ")));
            None
        }
    }
}

fn who(node: &Node, protocol: Protocol, problems: &mut Problems) -> Option<Who> {
    let mut map = MapReader::new(node, problems)?;
    let user = map.required("user", problems).and_then(|node| node.string(problems));
    let mut text = |key, default: &str, problems: &mut Problems| {
        let node: Option<&Node> = map.optional(key);
        node.map_or(Some(default), |node| node.string(problems)).map(str::to_owned)
    };
    let database = text("database", DATABASE, problems);
    let datasource = text("datasource", DATASOURCE, problems);
    let application = text("application", "", problems);
    let address = map.optional("address").map_or(Some(None), |node| {
        let address = node.string(problems)?.parse::<IpAddr>();
        let address = address.map_err(|_wrong| "expected an IP address".to_owned());
        kept(address, &node.span, problems).map(Some)
    });
    let default_deny = map
        .optional("default")
        .map_or(Some(false), |node| node.one_of(&[("allow", false), ("deny", true)], problems));
    let roles = map.optional("roles").map(|node| match &node.value {
        Value::List(items) if items.is_empty() => Vec::new(),
        Value::List(_) | Value::Scalar { .. } | Value::Null | Value::Map(_) => {
            one_or_many(node, problems).into_iter().map(|(role, _)| Arc::from(role)).collect()
        }
    });
    let attributes = map.optional("attributes").and_then(|node| node.entries(problems));
    let attributes = attributes.unwrap_or_default().iter().filter_map(|entry| {
        let value = entry.value.string(problems)?;
        Some((Arc::from(&*entry.key), Arc::from(value)))
    });
    let attributes = attributes.collect();
    map.finish(problems);
    let login = Login {
        datasource: datasource?.into(),
        protocol,
        default_deny: default_deny?,
        user: user?.to_owned(),
        database: database?,
        address: address?,
        application: application?,
        credential: Credential::default(),
    };
    Some(Who { login, roles, attributes })
}

/// Where a test runs that does not say it.
const DATABASE: &str = "demo";
const DATASOURCE: &str = "demo";

fn expect(node: &Node, problems: &mut Problems) -> Option<Expect> {
    let mut map = MapReader::new(node, problems)?;
    let yes: &[(&str, ())] = &[("true", ())];
    let allowed = map.optional("allowed").and_then(|node| node.one_of(yes, problems)).is_some();
    let denied = map.optional("denied").and_then(|node| node.string(problems));
    let denied = denied.map(|rule| match rule {
        "true" => Denied::ByAnything,
        rule => Denied::By(rule.to_owned()),
    });
    let masked = map.optional("masked").and_then(|node| node.entries(problems)).map(|entries| {
        let pair = |entry: &super::yaml::Entry| {
            let function = entry.value.string(problems)?;
            Some((entry.key.to_string(), function.to_owned()))
        };
        entries.iter().filter_map(pair).collect()
    });
    let filtered = map.optional("filtered").and_then(|node| node.strings(problems));
    let filtered =
        filtered.map(|texts| texts.into_iter().map(|(text, _)| text.to_owned()).collect());
    let mut text =
        |key| map.optional(key).and_then(|node| node.string(problems)).map(str::to_owned);
    let (limited, bounded, prefix) = (text("limited"), text("bounded"), text("prefix"));
    map.finish(problems);
    let expect = Expect { allowed, denied, masked, filtered, limited, bounded, prefix };
    let permits = expect.allowed
        || expect.masked.is_some()
        || expect.filtered.is_some()
        || expect.limited.is_some()
        || expect.bounded.is_some()
        || expect.prefix.is_some();
    if permits == expect.denied.is_some() {
        problems.push(
            Diagnostic::error(&node.span, "expected either `denied` or what comes with permission")
                .with_help(
                    "masked, filtered, limited, bounded, prefix and allowed can be combined",
                ),
        );
        return None;
    }
    Some(expect)
}

// === judging ===

impl Expect {
    fn wrong(&self, decision: &Decision) -> Vec<String> {
        match (decision, &self.denied) {
            (Decision::Deny(_), Some(Denied::ByAnything)) => Vec::new(),
            (Decision::Deny(denial), Some(Denied::By(rule))) => match &denial.rule {
                Some(found) if *found.0 == **rule => Vec::new(),
                Some(found) => {
                    vec![format!("expected denied by `{rule}`, got denied by `{found}`")]
                }
                None => vec![format!("expected denied by `{rule}`, got: {}", denial.message)],
            },
            (Decision::Allow(_), Some(_)) => vec!["expected denied, got allowed".to_owned()],
            (Decision::Deny(denial), None) => {
                vec![format!("expected allowed, got denied: {}", denial.message)]
            }
            (Decision::Allow(allowed), None) => {
                let mut wrong = self.wrong_masks(allowed);
                wrong.extend(self.wrong_filters(allowed));
                wrong.extend(self.wrong_limit(allowed));
                wrong.extend(self.wrong_bound(allowed));
                wrong.extend(self.wrong_prefix(allowed));
                wrong
            }
        }
    }

    fn wrong_masks(&self, allowed: &Allowed) -> Vec<String> {
        let Some(expected) = &self.masked else { return Vec::new() };
        let columns = allowed.governances.iter().flat_map(|governance| {
            let path = &governance.relation.path;
            governance
                .masks
                .iter()
                .map(move |mask| (format!("{path}.{}", mask.column), mask.function.name()))
        });
        let values = allowed.values.iter().flat_map(|governance| &governance.masks);
        let values = values.map(|mask| (mask.pattern.to_string(), mask.function.name()));
        let found: Vec<(String, &str)> = columns.chain(values).collect();
        if expected.is_empty() {
            let unwanted = found.iter().map(|(column, _)| format!("`{column}` is masked"));
            return unwanted.collect();
        }
        expected
            .iter()
            .filter_map(|(column, function)| {
                let mut same = found.iter().filter(|(name, _)| ends_with_name(name, column));
                match same.next() {
                    Some((_, got)) if got == function => None,
                    Some((_, got)) => {
                        Some(format!("expected `{column}` masked by `{function}`, got `{got}`"))
                    }
                    None => Some(format!("expected `{column}` masked, it is not")),
                }
            })
            .collect()
    }

    fn wrong_filters(&self, allowed: &Allowed) -> Vec<String> {
        let Some(expected) = &self.filtered else { return Vec::new() };
        let found: Vec<String> = allowed
            .governances
            .iter()
            .filter(|governance| !governance.filters.is_empty())
            .map(|governance| governance.relation.path.to_string())
            .collect();
        if expected.is_empty() {
            return found.iter().map(|path| format!("`{path}` is filtered")).collect();
        }
        expected
            .iter()
            .filter(|name| !found.iter().any(|path| ends_with_name(path, name)))
            .map(|name| format!("expected `{name}` filtered, it is not"))
            .collect()
    }

    fn wrong_bound(&self, allowed: &Allowed) -> Option<String> {
        let rule = self.bounded.as_ref()?;
        let found = allowed.bounds.iter().any(|bound| *bound.rule.0 == **rule);
        (!found).then(|| format!("expected bounded by `{rule}`, it is not"))
    }

    fn wrong_prefix(&self, allowed: &Allowed) -> Option<String> {
        let prefix = self.prefix.as_ref()?;
        match &allowed.tenancy {
            Some(tenancy) if *tenancy.prefix == **prefix => None,
            Some(tenancy) => {
                Some(format!("expected the prefix `{prefix}`, got `{}`", tenancy.prefix))
            }
            None => Some(format!("expected the prefix `{prefix}`, there is none")),
        }
    }

    fn wrong_limit(&self, allowed: &Allowed) -> Option<String> {
        let rule = self.limited.as_ref()?;
        let mut limits = allowed.limits.iter().filter(|limit| limit.enforced);
        let found = limits.any(|limit| *limit.rule.0 == **rule);
        (!found).then(|| format!("expected limited by `{rule}`, it is not"))
    }
}

/// Whether a qualified name ends in the given one, at a dot.
fn ends_with_name(qualified: &str, name: &str) -> bool {
    qualified.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests;
