//! What a walk found → facts.

use std::sync::Arc;

use crate::analysis::Catalog;
use crate::facts::{
    Access, AccessMode, Certainty, Facts, FunctionClass, Relation, Verb, VerbClass,
};
use crate::name::RelationPath;

use super::model::{Model, Named, Reference, Role, Target};

/// The facts of a text.
pub(super) fn facts(model: &Model<'_>, catalog: Option<&Catalog>) -> Facts {
    let mut accesses = Vec::new();
    let mut add = |target: &Target, mode: AccessMode| {
        let access = Access { relation: relation(target, catalog), mode };
        if !accesses.contains(&access) {
            accesses.push(access);
        }
    };
    for reference in &model.references {
        for mode in modes(reference) {
            add(&reference.target, mode);
        }
    }
    for target in &model.dropped {
        add(target, AccessMode::Define);
    }
    Facts {
        certainty: Certainty::Known,
        actions: model.actions.clone(),
        accesses,
        functions: model.functions.clone(),
        settings: model.settings.clone(),
        store: crate::facts::StoreFacts::default(),
    }
}

/// Relations the text reads or writes that the catalog does not have, as written.
pub(super) fn unknown_relations(model: &Model<'_>) -> Vec<String> {
    let mut unknown = Vec::new();
    for reference in &model.references {
        let Target::Unknown(named) = &reference.target else { continue };
        match reference.role {
            // What is created or altered need not exist, and no row of it is shown.
            Role::Define | Role::Lock => {}
            Role::Read
            | Role::Insert(_)
            | Role::Update(_)
            | Role::Delete(_)
            | Role::Merge
            | Role::CopyTo(_)
            | Role::CopyFrom => {
                let name = match &named.schema {
                    Some(schema) => format!("{schema}.{}", named.name),
                    None => named.name.clone(),
                };
                if !unknown.contains(&name) {
                    unknown.push(name);
                }
            }
        }
    }
    unknown
}

/// Whether the text only reads and runs no code of users.
pub(super) fn is_read_only(facts: &Facts) -> bool {
    facts.actions.iter().all(|action| match action.verb.class() {
        VerbClass::Read => true,
        VerbClass::Write | VerbClass::Function | VerbClass::Role | VerbClass::Ddl => false,
        VerbClass::Misc => {
            matches!(action.verb, Verb::Explain | Verb::Show | Verb::Empty | Verb::Close)
        }
    }) && facts.functions.iter().all(|function| match function.class {
        FunctionClass::Pure | FunctionClass::ReadsCatalog => true,
        FunctionClass::Dangerous | FunctionClass::User => false,
    })
}

fn modes(reference: &Reference<'_>) -> Vec<AccessMode> {
    match reference.role {
        Role::Read | Role::CopyTo(_) => vec![AccessMode::Read],
        Role::Insert(node) => {
            let updates =
                node.child("on_conflict_clause").is_some_and(|clause| clause.has("target_list"));
            let mut modes = vec![AccessMode::Insert];
            modes.extend(updates.then_some(AccessMode::Update));
            modes
        }
        Role::Update(_) => vec![AccessMode::Update],
        Role::Delete(_) => vec![AccessMode::Delete],
        // Which of its clauses apply is known only while it runs.
        Role::Merge => vec![AccessMode::Insert, AccessMode::Update, AccessMode::Delete],
        Role::CopyFrom => vec![AccessMode::Insert],
        Role::Lock | Role::Define => vec![AccessMode::Define],
    }
}

/// The relation policy sees. Without a catalog, or for a name the catalog does not have, it is made
/// of the name as written; a schema that is not known shows as `?`.
fn relation(target: &Target, catalog: Option<&Catalog>) -> Arc<Relation> {
    match target {
        Target::Table(table) => Arc::clone(&table.relation),
        Target::Unknown(Named { schema, name }) => Arc::new(Relation {
            path: RelationPath {
                database: catalog.map_or_else(|| "".into(), |known| Arc::clone(&known.database)),
                schema: schema.as_deref().unwrap_or("?").into(),
                name: name.as_str().into(),
            },
            lineage: Vec::new(),
            columns: Vec::new(),
            reads_through: Vec::new(),
            system: false,
            sensitive_system: false,
        }),
    }
}
