//! Patterns over qualified names: relations, columns, functions, statements.
//!
//! A relation pattern matches a relation by its own name or by a root it inherits from, so that a
//! rule on a partitioned table governs its partitions.

use crate::facts::{Action, FunctionUse, Relation, Verb, VerbClass};
use crate::name::{Glob, RelationPath};
use crate::policy::diagnostic::Span;

/// `schema.relation` or `database.schema.relation`, each part a glob.
#[derive(Clone, Debug)]
pub(crate) struct RelationPattern {
    pub(crate) database: Option<Glob>,
    pub(crate) schema: Glob,
    pub(crate) name: Glob,
    pub(crate) text: Box<str>,
    pub(crate) span: Span,
}

/// `schema.relation.column` or `database.schema.relation.column`, each part a glob.
#[derive(Clone, Debug)]
pub(crate) struct ColumnPattern {
    pub(crate) relation: RelationPattern,
    pub(crate) column: Glob,
}

/// `schema.function` or a bare function name, each part a glob.
#[derive(Clone, Debug)]
pub(crate) struct FunctionPattern {
    schema: Option<Glob>,
    name: Glob,
}

/// Names that must match and names that must not; an empty `any` admits every name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) any: Vec<Glob>,
    pub(crate) except: Vec<Glob>,
}

/// Statements that must match and statements that must not; `None` admits every statement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verbs {
    pub(crate) any: Option<Vec<Verb>>,
    pub(crate) except: Vec<Verb>,
}

// === impl RelationPattern ===

impl RelationPattern {
    /// Reads the pattern as written.
    ///
    /// # Errors
    /// A message for the author.
    pub(crate) fn parse(text: &str, span: &Span) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('.').collect();
        let (database, schema, name) = match parts.as_slice() {
            [schema, name] => (None, *schema, *name),
            [database, schema, name] => (Some(*database), *schema, *name),
            _ => return Err(format!("`{text}` is not `schema.table` or `database.schema.table`")),
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!("`{text}` has an empty part"));
        }
        Ok(Self {
            database: database.map(Glob::new),
            schema: Glob::new(schema),
            name: Glob::new(name),
            text: text.into(),
            span: span.clone(),
        })
    }

    /// Whether it matches the relation or a root it inherits from.
    pub(crate) fn matches(&self, relation: &Relation) -> bool {
        self.matches_path(&relation.path)
            || relation.lineage.iter().any(|root| self.matches_path(root))
    }

    /// Whether every part is `*`.
    pub(crate) fn is_everything(&self) -> bool {
        let all = |glob: &Glob| glob.as_str().chars().all(|c| c == '*');
        self.database.as_ref().is_none_or(all) && all(&self.schema) && all(&self.name)
    }

    fn matches_path(&self, path: &RelationPath) -> bool {
        let RelationPath { database, schema, name } = path;
        self.database.as_ref().is_none_or(|glob| glob.matches(database))
            && self.schema.matches(schema)
            && self.name.matches(name)
    }
}

// === impl ColumnPattern ===

impl ColumnPattern {
    /// Reads the pattern as written.
    ///
    /// # Errors
    /// A message for the author.
    pub(crate) fn parse(text: &str, span: &Span) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not `schema.table.column` or `database.schema.table.column`");
        let (relation, column) = text.rsplit_once('.').ok_or_else(wrong)?;
        let mut relation = RelationPattern::parse(relation, span).map_err(|_short| wrong())?;
        if column.is_empty() {
            return Err(wrong());
        }
        relation.text = text.into();
        Ok(Self { relation, column: Glob::new(column) })
    }

    /// Whether it matches this column of the relation or of a root it inherits from.
    pub(crate) fn matches(&self, relation: &Relation, column: &str) -> bool {
        self.column.matches(column) && self.relation.matches(relation)
    }
}

// === impl FunctionPattern ===

impl FunctionPattern {
    /// Reads the pattern as written.
    ///
    /// # Errors
    /// A message for the author.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        if name.is_empty() || schema == Some("") || name.contains(['.', '(']) {
            return Err(format!("`{text}` is not a function name or `schema.function`"));
        }
        Ok(Self { schema: schema.map(Glob::new), name: Glob::new(name) })
    }

    /// Whether the pattern surely names the function called. An unqualified call may end in any
    /// schema, so a pattern with a schema does not name it.
    pub(crate) fn names(&self, function: &FunctionUse) -> bool {
        self.fits(function, false)
    }

    /// Whether the function called may be one the pattern names.
    pub(crate) fn may_name(&self, function: &FunctionUse) -> bool {
        self.fits(function, true)
    }

    fn fits(&self, function: &FunctionUse, unqualified: bool) -> bool {
        let schema = match (&self.schema, &function.schema) {
            (None, _) => true,
            (Some(glob), Some(schema)) => glob.matches(schema),
            (Some(_), None) => unqualified,
        };
        schema && self.name.matches(&function.name)
    }
}

// === impl Names ===

impl Names {
    /// Whether the name is admitted.
    pub(crate) fn admits(&self, name: &str) -> bool {
        self.admits_some(&std::iter::once(name))
    }

    /// Whether some of the names is wanted and none excepted.
    pub(crate) fn admits_some<'a>(&self, names: &(impl Iterator<Item = &'a str> + Clone)) -> bool {
        let hit =
            |globs: &[Glob]| names.clone().any(|name| globs.iter().any(|glob| glob.matches(name)));
        (self.any.is_empty() || hit(&self.any)) && !hit(&self.except)
    }
}

// === impl Verbs ===

impl Verbs {
    /// Whether the statement is admitted.
    pub(crate) fn admits(&self, verb: Verb) -> bool {
        self.any.as_ref().is_none_or(|any| any.contains(&verb)) && !self.except.contains(&verb)
    }

    /// Whether it admits every statement.
    pub(crate) fn is_everything(&self) -> bool {
        self.any.is_none() && self.except.is_empty()
    }

    /// Whether some action is admitted, and unconditioned if that is asked for.
    pub(crate) fn admits_some(&self, actions: &[Action], without_where: bool) -> bool {
        if actions.is_empty() {
            return self.is_everything() && !without_where;
        }
        actions.iter().any(|action| {
            let Action { verb, without_where: unconditioned } = *action;
            self.admits(verb) && (unconditioned || !without_where)
        })
    }
}

/// The statements a word stands for: a group (`read write ddl role function misc`) or one verb.
pub(crate) fn verbs_named(word: &str) -> Option<Vec<Verb>> {
    let class = match word {
        "read" => VerbClass::Read,
        "write" => VerbClass::Write,
        "ddl" => VerbClass::Ddl,
        "role" => VerbClass::Role,
        "function" => VerbClass::Function,
        "misc" => VerbClass::Misc,
        _ => return Verb::parse(word).map(|verb| vec![verb]),
    };
    Some(Verb::ALL.iter().copied().filter(|verb| verb.class() == class).collect())
}

/// Words [`verbs_named`] knows beside the verbs.
pub(crate) const GROUPS: &[&str] = &["read", "write", "ddl", "role", "function", "misc"];
