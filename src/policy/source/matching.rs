//! The `match` of a rule.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::one_or_many;
use crate::facts::Verb;
use crate::name::{Glob, Protocol};
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::pattern::{
    ColumnPattern, FunctionPattern, GROUPS, Names, RelationPattern, Verbs, verbs_named,
};
use crate::policy::rule::{Level, Object, Subject, Written};
use crate::policy::store::{CommandPattern, Places, StoreMatch};
use crate::policy::yaml::{MapReader, Node, Problems};

/// Reads a match. Problems leave criteria out, so the result may only be used when there are none.
pub(super) fn read(node: &Node, problems: &mut Problems) -> Option<(Subject, Object, Written)> {
    let map = MapReader::new(node, problems)?;
    let mut reader = MatchReader { map, written: Written::default(), problems };
    let subject = reader.subject();
    let object = reader.object();
    let MatchReader { mut map, written, problems } = reader;
    map.unsupported(&["when", "hours"], problems);
    map.finish(problems);
    Some((subject, object, written))
}

struct MatchReader<'n, 'p> {
    map: MapReader<'n>,
    written: Written,
    problems: &'p mut Problems,
}

impl<'n> MatchReader<'n, '_> {
    fn protocol(&mut self) -> Option<Protocol> {
        let node = self.map.optional("protocol")?;
        let text = node.string(self.problems)?;
        self.written.0.insert("protocol", BTreeSet::from([text.into()]));
        let found = Protocol::parse(text);
        if found.is_none() {
            let known = || Protocol::ALL.iter().map(|protocol| protocol.name());
            let message = format!("protocol `{text}` is not enforced yet by this version");
            self.problems.push(
                Diagnostic::error(&node.span, message)
                    .suggest(text, known())
                    .with_help(format!("known here: {}", known().collect::<Vec<_>>().join(", "))),
            );
        }
        found
    }

    fn subject(&mut self) -> Subject {
        let mut databases = self.names("databases", "except_databases");
        databases.any.extend(self.globs("database"));
        let mut datasources = self.names("datasources", "except_datasources");
        datasources.any.extend(self.globs("datasource"));
        Subject {
            protocol: self.protocol(),
            datasources,
            databases,
            users: self.names("users", "except_users"),
            roles: self.names("roles", "except_roles"),
            applications: self.names("applications", "except_applications"),
            networks: self.parsed("networks", network),
            except_networks: self.parsed("except_networks", network),
        }
    }

    fn object(&mut self) -> Object {
        Object {
            relations: self.parsed("relations", relation),
            except_relations: self.parsed("except_relations", relation),
            columns: self.parsed("columns", ColumnPattern::parse),
            except_columns: self.parsed("except_columns", ColumnPattern::parse),
            classes: self.names("classes", "except_classes"),
            levels: self.levels(),
            statements: self.statements(),
            functions: self.parsed("functions", |text, _| FunctionPattern::parse(text)),
            except_functions: self
                .parsed("except_functions", |text, _| FunctionPattern::parse(text)),
            without_where: self.without_where(),
            store: self.store(),
        }
    }

    fn store(&mut self) -> StoreMatch {
        StoreMatch {
            commands: self.parsed("commands", CommandPattern::parse),
            except_commands: self.parsed("except_commands", CommandPattern::parse),
            keys: self.globs("keys"),
            except_keys: self.globs("except_keys"),
            reads: self.globs("reads"),
            writes: self.globs("writes"),
            channels: self.globs("channels"),
            except_channels: self.globs("except_channels"),
            places: Places {
                fields: Some(self.globs("fields")).filter(|all| !all.is_empty()).map(Arc::from),
                paths: self.parsed("paths", |text, _| super::store::path(text)),
            },
        }
    }

    fn texts(&mut self, key: &'static str) -> Vec<(&'n str, &'n Span)> {
        let Some(node) = self.map.optional(key) else { return Vec::new() };
        let texts = one_or_many(node, self.problems);
        self.written.0.insert(key, texts.iter().map(|(text, _)| (*text).into()).collect());
        texts
    }

    fn globs(&mut self, key: &'static str) -> Vec<Glob> {
        self.texts(key).into_iter().map(|(text, _)| Glob::new(text)).collect()
    }

    fn names(&mut self, key: &'static str, except: &'static str) -> Names {
        Names { any: self.globs(key), except: self.globs(except) }
    }

    fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str, &Span) -> Result<T, String>,
    ) -> Vec<T> {
        let texts = self.texts(key);
        texts
            .into_iter()
            .filter_map(|(text, span)| kept(parse(text, span), span, self.problems))
            .collect()
    }

    fn levels(&mut self) -> Vec<Level> {
        self.parsed("levels", |text, _| {
            let found = Level::NAMES.iter().find(|(name, _)| *name == text);
            found.map(|(_, level)| *level).ok_or_else(|| format!("unknown level `{text}`"))
        })
    }

    fn statements(&mut self) -> Verbs {
        let any = self.map.optional("statements").is_some();
        let wanted = self.verbs("statements");
        Verbs { any: any.then_some(wanted), except: self.verbs("except_statements") }
    }

    fn verbs(&mut self, key: &'static str) -> Vec<Verb> {
        let texts = self.texts(key);
        verbs(&texts, self.problems)
    }

    fn without_where(&mut self) -> bool {
        let texts = self.texts("without");
        for (text, span) in texts.iter().filter(|(text, _)| *text != "where") {
            self.problems.error(span, format!("unknown value `{text}`; only `where` is known"));
        }
        !texts.is_empty()
    }
}

/// The statements these words stand for; unknown words are problems.
pub(super) fn verbs(texts: &[(&str, &Span)], problems: &mut Problems) -> Vec<Verb> {
    let mut found = Vec::new();
    for (text, span) in texts {
        match verbs_named(text) {
            Some(verbs) => found.extend(verbs),
            None => {
                let known = GROUPS.iter().copied().chain(Verb::ALL.iter().map(|v| v.name()));
                problems.push(
                    Diagnostic::error(span, format!("unknown statement `{text}`"))
                        .suggest(text, known)
                        .with_help(format!("groups: {}", GROUPS.join(", "))),
                );
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// A relation pattern, or `*` for every relation.
pub(super) fn relation(text: &str, span: &Span) -> Result<RelationPattern, String> {
    RelationPattern::parse(if text == "*" { "*.*" } else { text }, span)
}

/// A network in CIDR notation, or one address.
pub(crate) fn network(text: &str, _span: &Span) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_not_a_network| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_neither| format!("`{text}` is not a network such as `10.0.0.0/8`"))
}

/// The value, or nothing and a problem.
pub(crate) fn kept<T>(
    result: Result<T, String>,
    span: &Span,
    problems: &mut Problems,
) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(message) => {
            problems.error(span, message);
            None
        }
    }
}
