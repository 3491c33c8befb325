//! One rule, frozen: whom it concerns, what it fits, what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::decision::Counted;
use super::diagnostic::Span;
use super::identity::Identity;
use super::pattern::{ColumnPattern, FunctionPattern, Names, RelationPattern, Verbs};
use super::prefix::Prefix;
use super::store::{Places, StoreAllow, StoreMatch};
use crate::facts::{Facts, KeyUse, Relation, Verb};
use crate::name::{Glob, Protocol, RuleId};
use crate::obligation::{Bounded, MaskFn};

/// A rule as read and checked.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: RuleId,
    pub(crate) span: Span,
    pub(crate) description: Option<Box<str>>,
    pub(crate) owner: Option<Box<str>>,
    pub(crate) controls: Vec<Box<str>>,
    pub(crate) mode: Mode,
    pub(crate) subject: Subject,
    pub(crate) object: Object,
    pub(crate) effect: Effect,
    /// The match as written, sorted: two rules match alike when these are equal.
    pub(crate) written: Written,
}

/// Keys of a match with their values, in an order that does not depend on the author.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Written(pub(crate) BTreeMap<&'static str, BTreeSet<Box<str>>>);

/// Whether a rule acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It acts.
    Enforce,
    /// It changes nothing, is recorded, and the client is warned.
    Warn,
    /// It changes nothing and is recorded.
    Shadow,
}

/// Whom a rule concerns; decided once per session.
#[derive(Debug, Default)]
pub(crate) struct Subject {
    pub(crate) protocol: Option<Protocol>,
    pub(crate) datasources: Names,
    pub(crate) databases: Names,
    pub(crate) users: Names,
    pub(crate) roles: Names,
    pub(crate) applications: Names,
    pub(crate) networks: Vec<IpNet>,
    pub(crate) except_networks: Vec<IpNet>,
}

/// What of a text a rule fits; decided for each text.
#[derive(Debug, Default)]
pub(crate) struct Object {
    pub(crate) relations: Vec<RelationPattern>,
    pub(crate) except_relations: Vec<RelationPattern>,
    pub(crate) columns: Vec<ColumnPattern>,
    pub(crate) except_columns: Vec<ColumnPattern>,
    pub(crate) classes: Names,
    pub(crate) levels: Vec<Level>,
    pub(crate) statements: Verbs,
    pub(crate) functions: Vec<FunctionPattern>,
    pub(crate) except_functions: Vec<FunctionPattern>,
    pub(crate) without_where: bool,
    /// What it says of commands of key-value stores. A rule is about these or about statements.
    pub(crate) store: StoreMatch,
}

/// What a rule does.
#[derive(Debug)]
pub(crate) enum Effect {
    Mask(Mask),
    Filter(Filter),
    Allow(Box<Allow>),
    Deny {
        message: Option<Box<str>>,
    },
    Limit(Rate),
    /// Names of keys and channels stand behind a prefix.
    Prefix(Prefix),
    /// Bounds on the arguments of commands.
    Bounds(Vec<(Bounded, u64)>),
}

/// Masks by class, or one for every column matched.
#[derive(Debug)]
pub(crate) enum Mask {
    ByClass(BTreeMap<Box<str>, MaskFn>),
    All(MaskFn),
}

/// A row predicate, opaque here but for the identity values it refers to.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) predicate: Arc<str>,
    pub(crate) span: Span,
    pub(crate) references: Vec<Arc<str>>,
}

/// What an identity may do.
#[derive(Debug)]
pub(crate) struct Allow {
    /// `None`: any statement.
    pub(crate) statements: Option<Vec<Verb>>,
    /// Statements written by their own name: only these open a side door, a group does not.
    pub(crate) named: Vec<Verb>,
    /// `None`: any relation.
    pub(crate) relations: Option<Vec<RelationPattern>>,
    pub(crate) functions: Vec<FunctionPattern>,
    /// What it lists of commands of key-value stores.
    pub(crate) store: StoreAllow,
}

/// So many in so much time, counted for whom.
#[derive(Debug)]
pub(crate) struct Rate {
    pub(crate) of: Counted,
    pub(crate) count: u64,
    pub(crate) per_us: u64,
    pub(crate) by: CountedBy,
}

/// Whom a limit counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CountedBy {
    User,
    Address,
    Database,
    Attribute(Arc<str>),
}

/// How sensitive a class of data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Public,
    Internal,
    Confidential,
    Restricted,
}

/// One line of `classification`: these columns, or values of these keys, carry this class.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) columns: Vec<ColumnPattern>,
    pub(crate) keys: Vec<Glob>,
    /// Where in the values of the keys.
    pub(crate) places: Places,
    pub(crate) class: Arc<str>,
    pub(crate) level: Level,
}

/// A column a rule selects, with the label it was found by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selected<'a> {
    pub(crate) index: usize,
    pub(crate) column: &'a Arc<str>,
    pub(crate) label: Option<&'a Label>,
}

// === impl Rule ===

impl Rule {
    /// Whether the rule acts, as opposed to being observed.
    pub(crate) fn enforced(&self) -> bool {
        self.mode == Mode::Enforce
    }

    /// Whether it concerns this identity.
    pub(crate) fn concerns(&self, identity: &Identity) -> bool {
        // A socket without an address must not slip past a restriction nor gain a permission.
        let unknown_network = !matches!(self.effect, Effect::Allow(_));
        self.subject.admits(identity, unknown_network)
    }

    /// Whether it takes nothing from whom it concerns, and gives no more than a door: such rules
    /// leave an identity as free as one that no rule concerns.
    pub(crate) fn only_opens_doors(&self) -> bool {
        match &self.effect {
            Effect::Allow(allow) => allow.only_opens_doors(),
            Effect::Mask(_)
            | Effect::Filter(_)
            | Effect::Deny { .. }
            | Effect::Limit(_)
            | Effect::Prefix(_)
            | Effect::Bounds(_) => false,
        }
    }

    /// Whether side doors of statements must be closed for whom it concerns.
    pub(crate) fn governs(&self) -> bool {
        self.enforced()
            && match &self.effect {
                Effect::Mask(_) => self.object.store.is_empty(),
                Effect::Filter(_) => true,
                Effect::Allow(allow) => allow.is_list(),
                Effect::Deny { .. } => {
                    self.object.store.is_empty() && self.object.about_relations()
                }
                Effect::Limit(_) | Effect::Prefix(_) | Effect::Bounds(_) => false,
            }
    }
}

impl Mode {
    /// The spelling in rule files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Warn => "warn",
            Self::Shadow => "shadow",
        }
    }
}

impl Effect {
    /// The spelling in rule files.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Mask(_) => "mask",
            Self::Filter(_) => "filter",
            Self::Allow(_) => "allow",
            Self::Deny { .. } => "deny",
            Self::Limit(_) => "limit",
            Self::Prefix(_) => "prefix",
            // By its key in rule files.
            Self::Bounds(bounds) => match bounds.first() {
                Some((Bounded::PatternBytes, _)) => "patterns",
                Some((
                    Bounded::ExpiryMs | Bounded::ExpiryPutInMs | Bounded::ExpiryLoweredMs,
                    _,
                )) => "ttl",
                Some((Bounded::ArgumentBytes | Bounded::Arguments, _)) | None => "values",
            },
        }
    }
}

// === impl Subject ===

impl Subject {
    fn admits(&self, identity: &Identity, unknown_network: bool) -> bool {
        let Self {
            protocol,
            datasources,
            databases,
            users,
            roles,
            applications,
            networks,
            except_networks,
        } = self;
        let login = &identity.login;
        protocol.is_none_or(|protocol| protocol == login.protocol)
            && datasources.admits(&login.datasource)
            && databases.admits(&login.database)
            && users.admits(&login.user)
            && applications.admits(&login.application)
            && roles.admits_some(&identity.roles.iter().map(|role| &**role))
            && (networks.is_empty() || inside(networks, login.address, unknown_network))
            && !inside(except_networks, login.address, !unknown_network)
    }
}

/// Whether the address lies in one of the networks; `unknown` when there is no address.
pub(crate) fn inside(networks: &[IpNet], address: Option<IpAddr>, unknown: bool) -> bool {
    match address {
        // An IPv4 client of a dual-stack socket shows an IPv6 address that embeds its own.
        Some(address) => networks.iter().any(|net| net.contains(&address.to_canonical())),
        None => unknown && !networks.is_empty(),
    }
}

// === impl Object ===

impl Object {
    /// Whether it says anything about relations.
    pub(crate) fn about_relations(&self) -> bool {
        self.wants_relations()
            || !self.except_relations.is_empty()
            || !self.except_columns.is_empty()
    }

    /// Whether it fits the text: some action, and some relation and function where asked for; of a
    /// command the command itself, and some key and channel where asked for. Words about the one kind
    /// keep a rule off the other.
    pub(crate) fn fits(&self, facts: &Facts, labels: &[Label]) -> bool {
        if facts.store.command.is_some() {
            return self.fits_command(facts, labels);
        }
        self.store.is_empty()
            && self.statements.admits_some(&facts.actions, self.without_where)
            && self.fits_relations(facts, labels)
            && self.fits_functions(facts)
    }

    /// Whether it fits the relation by itself.
    pub(crate) fn fits_relation(&self, relation: &Relation, labels: &[Label]) -> bool {
        self.names_relation(relation)
            && (!self.wants_columns() || !self.select(relation, labels).is_empty())
    }

    /// The columns of the relation it selects, in column order for each label.
    pub(crate) fn select<'a>(
        &self,
        relation: &'a Relation,
        labels: &'a [Label],
    ) -> Vec<Selected<'a>> {
        if !self.names_relation(relation) {
            return Vec::new();
        }
        let columns = || {
            let numbered = relation.columns.iter().enumerate();
            numbered.filter(|(_, column)| self.names_column(relation, column))
        };
        if !self.wants_labels() {
            return columns()
                .map(|(index, column)| Selected { index, column, label: None })
                .collect();
        }
        self.labels(labels)
            .flat_map(|label| {
                columns()
                    .filter(|(_, column)| {
                        label.columns.iter().any(|pattern| pattern.matches(relation, column))
                    })
                    .map(move |(index, column)| Selected { index, column, label: Some(label) })
            })
            .collect()
    }

    /// Whether it fits the relation through a pattern that writes its name out. A glob that
    /// happens to match a view is no decision about the view.
    pub(crate) fn writes_out(&self, relation: &Relation, labels: &[Label]) -> bool {
        let written =
            |pattern: &RelationPattern| pattern.name.is_literal() && pattern.matches(relation);
        let by_label = |selected: &Selected<'_>| {
            let patterns = selected.label.map(|label| label.columns.as_slice());
            let mut patterns = patterns.unwrap_or_default().iter();
            patterns.any(|p| written(&p.relation) && p.matches(relation, selected.column))
        };
        self.fits_relation(relation, labels)
            && (self.relations.iter().any(written)
                || self.columns.iter().any(|pattern| written(&pattern.relation))
                || self.select(relation, labels).iter().any(by_label))
    }

    fn fits_relations(&self, facts: &Facts, labels: &[Label]) -> bool {
        if !self.about_relations() {
            return true;
        }
        if facts.accesses.is_empty() {
            return !self.wants_relations();
        }
        facts.accesses.iter().any(|access| self.touches(&access.relation, labels))
    }

    /// Whether it fits the relation or, for a view it does not except, one of its bases: a rule
    /// on a table must not be lost by reading through a view.
    fn touches(&self, relation: &Relation, labels: &[Label]) -> bool {
        self.fits_relation(relation, labels)
            || (!self.excepts_relation(relation)
                && relation.reads_through.iter().any(|base| self.fits_relation(base, labels)))
    }

    fn fits_functions(&self, facts: &Facts) -> bool {
        if self.functions.is_empty() && self.except_functions.is_empty() {
            return true;
        }
        if facts.functions.is_empty() {
            return self.functions.is_empty();
        }
        facts.functions.iter().any(|function| {
            let wanted = self.functions.is_empty()
                || self.functions.iter().any(|pattern| pattern.may_name(function));
            wanted && !self.except_functions.iter().any(|pattern| pattern.names(function))
        })
    }

    fn fits_command(&self, facts: &Facts, labels: &[Label]) -> bool {
        let of_label = |one: &KeyUse| self.labels_of_key(labels, &one.key).next().is_some();
        !self.about_statements()
            && (self.store.is_empty() || self.store.fits(&facts.store))
            && (!self.wants_labels() || facts.store.keys.iter().any(of_label))
    }

    /// Whether it has a word that only statements can fit.
    pub(crate) fn about_statements(&self) -> bool {
        !self.relations.is_empty()
            || !self.except_relations.is_empty()
            || !self.columns.is_empty()
            || !self.except_columns.is_empty()
            || !self.statements.is_everything()
            || !self.functions.is_empty()
            || !self.except_functions.is_empty()
            || self.without_where
    }

    /// Whether it fits everything.
    pub(crate) fn says_nothing(&self) -> bool {
        let classes = &self.classes;
        !self.about_statements()
            && self.store.is_empty()
            && self.levels.is_empty()
            && classes.any.is_empty()
            && classes.except.is_empty()
    }

    /// The labels it speaks of.
    pub(crate) fn labels<'a>(&self, labels: &'a [Label]) -> impl Iterator<Item = &'a Label> {
        labels.iter().filter(|label| {
            self.wants_labels()
                && (self.levels.is_empty() || self.levels.contains(&label.level))
                && self.classes.admits(&label.class)
        })
    }

    /// The labels it speaks of that values of the key carry, with the glob that fits the key.
    pub(crate) fn labels_of_key<'a>(
        &self,
        labels: &'a [Label],
        key: &[u8],
    ) -> impl Iterator<Item = (&'a Label, &'a Glob)> {
        let admitted = !self.about_statements() && self.store.admits_key(key);
        let labels = self.labels(labels).filter(move |_| admitted);
        labels.filter_map(move |label| {
            label.keys.iter().find(|glob| glob.matches_bytes(key)).map(|glob| (label, glob))
        })
    }

    fn wants_relations(&self) -> bool {
        !self.relations.is_empty() || self.wants_columns()
    }

    /// Whether it fits relations by their columns.
    pub(crate) fn wants_columns(&self) -> bool {
        !self.columns.is_empty() || self.wants_labels()
    }

    pub(crate) fn wants_labels(&self) -> bool {
        !self.levels.is_empty() || !self.classes.any.is_empty()
    }

    pub(crate) fn names_relation(&self, relation: &Relation) -> bool {
        self.store.is_empty()
            && (self.relations.is_empty() || self.relations.iter().any(|p| p.matches(relation)))
            && !self.excepts_relation(relation)
    }

    fn excepts_relation(&self, relation: &Relation) -> bool {
        self.except_relations.iter().any(|pattern| pattern.matches(relation))
    }

    fn names_column(&self, relation: &Relation, column: &str) -> bool {
        let hit = |patterns: &[ColumnPattern]| {
            patterns.iter().any(|pattern| pattern.matches(relation, column))
        };
        (self.columns.is_empty() || hit(&self.columns)) && !hit(&self.except_columns)
    }
}

// === impl Mask, Allow, Level ===

impl Mask {
    /// The function for a column found by this label.
    pub(crate) fn function(&self, label: Option<&Label>) -> Option<&MaskFn> {
        match self {
            Self::All(function) => Some(function),
            Self::ByClass(functions) => label.and_then(|label| functions.get(&*label.class)),
        }
    }
}

impl Allow {
    /// Whether it lists what may be done, as opposed to only opening functions or doors: those it
    /// adds to whatever else is allowed.
    pub(crate) fn is_list(&self) -> bool {
        let only_doors = |verbs: &Vec<Verb>| !verbs.is_empty() && verbs.iter().all(|v| v.is_door());
        self.statements.as_ref().is_some_and(|verbs| !only_doors(verbs))
            || self.relations.is_some()
            || self.store.is_list()
    }

    /// Whether all it does is to open doors.
    pub(crate) fn only_opens_doors(&self) -> bool {
        !self.is_list() && (self.statements.is_some() || self.store.is_written())
    }

    /// Whether the statement is in the list. A rule that lists commands only lists no statement.
    pub(crate) fn lists(&self, verb: Verb) -> bool {
        match &self.statements {
            Some(verbs) => verbs.contains(&verb),
            None => self.relations.is_some() || !self.store.is_written(),
        }
    }
}

impl Level {
    /// Every level with its spelling in rule files.
    pub(crate) const NAMES: &'static [(&'static str, Self)] = &[
        ("public", Self::Public),
        ("internal", Self::Internal),
        ("confidential", Self::Confidential),
        ("restricted", Self::Restricted),
    ];
}

/// Whether a class glob names at least one of these classes.
pub(crate) fn class_exists(glob: &Glob, labels: &[Label]) -> bool {
    labels.iter().any(|label| glob.matches(&label.class))
}
