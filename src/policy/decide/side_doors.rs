//! Ways around the rules, closed for identities under rules.
//!
//! A mask or a filter is worth nothing to someone who may define a view, run code in the server,
//! read the statistics of a table, or make the server read text differently than it was read here.

use super::Question;
use crate::facts::{Access, AccessMode, FunctionClass, FunctionUse, Relation, SettingChange, Verb};
use crate::policy::decision::{Denial, DenyReason};
use crate::policy::rule::{Allow, Effect};

impl Question<'_> {
    /// Refuses side doors; the first found is named.
    pub(super) fn check_side_doors(&self) -> Result<(), Denial> {
        for action in &self.facts.actions {
            self.check_door(action.verb)?;
        }
        if !self.class.concerned {
            return Ok(());
        }
        for setting in &self.facts.settings {
            self.check_reading(setting)?;
        }
        if !self.class.governed {
            return Ok(());
        }
        for setting in &self.facts.settings {
            self.check_identity_setting(setting)?;
        }
        for action in &self.facts.actions {
            self.check_verb(action.verb)?;
        }
        for function in &self.facts.functions {
            self.check_function(function)?;
        }
        for access in &self.facts.accesses {
            self.check_access(access)?;
        }
        Ok(())
    }

    /// What is closed to everybody until a rule opens it by name.
    fn check_door(&self, verb: Verb) -> Result<(), Denial> {
        if !verb.is_door() {
            return Ok(());
        }
        let name = verb.name();
        if self.class.governed && verb == Verb::Replication {
            let message = format!("`{name}` shows all rows, and you are under rules");
            return Err(side_door(message).with_hint("connect as a user whom no rule restricts"));
        }
        let opening = self.allows().filter(|allow| allow.named.contains(&verb));
        let call = || self.facts.functions.first().filter(|_| verb == Verb::FunctionCall);
        let mut opening = opening.peekable();
        if opening.peek().is_none() {
            return Err(side_door(format!("`{name}` is not available unless a rule opens it"))
                .with_hint(format!(
                    "an allow rule opens it by naming `{name}` in its statements"
                )));
        }
        let Some(function) = call() else { return Ok(()) };
        // Functions beside `function_call` narrow it; without any it is open for all.
        let fits = |allow: &Allow| {
            let patterns = &allow.functions;
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.names(function))
        };
        if opening.any(fits) {
            return Ok(());
        }
        let name = &function.name;
        Err(side_door(format!("no rule opens `{name}` to function calls"))
            .with_hint(format!("name `{name}` in the functions of the rule that allows them")))
    }

    /// Settings that change how the server reads text.
    fn check_reading(&self, setting: &SettingChange) -> Result<(), Denial> {
        let SettingChange { name, value, local: _ } = setting;
        let value = value.as_deref().map(|value| match &**name {
            "client_encoding" => encoding_name(value),
            _ => value.trim().to_ascii_lowercase(),
        });
        let fits = match &**name {
            "" => return Err(side_door("a setting whose name is computed cannot be followed")),
            "standard_conforming_strings" => ["on", "true", "yes", "1"].as_slice(),
            "client_encoding" => ["utf8", "unicode"].as_slice(),
            "backslash_quote" | "quote_all_identifiers" | "transform_null_equals" => [].as_slice(),
            _ => return Ok(()),
        };
        let harmless = match value {
            Some(value) => fits.contains(&value.as_str()),
            // Back to the default, unless the value is computed by a call.
            None => !self.facts.functions.iter().any(|function| &*function.name == "set_config"),
        };
        if harmless {
            return Ok(());
        }
        Err(side_door(format!("`{name}` cannot be changed to this value here")))
    }

    /// Settings that change who the server takes the identity for.
    fn check_identity_setting(&self, setting: &SettingChange) -> Result<(), Denial> {
        let opened = match &*setting.name {
            "role" | "session_authorization" => self.opened(Verb::SetRole),
            "row_security" | "session_replication_role" => false,
            _ => return Ok(()),
        };
        if opened {
            return Ok(());
        }
        Err(side_door(format!("`{}` cannot be changed under rules", setting.name)))
    }

    fn check_verb(&self, verb: Verb) -> Result<(), Denial> {
        if !closed(verb) || self.opened(verb) {
            return Ok(());
        }
        let name = verb.name();
        Err(side_door(format!("`{name}` is not available under rules"))
            .with_hint(format!("an allow rule opens it by naming `{name}` in its statements")))
    }

    fn check_function(&self, function: &FunctionUse) -> Result<(), Denial> {
        let FunctionUse { schema, name, class } = function;
        match class {
            FunctionClass::Pure | FunctionClass::ReadsCatalog => return Ok(()),
            FunctionClass::Dangerous | FunctionClass::User => {}
        }
        if self.facts.actions.iter().any(|action| action.verb == Verb::FunctionCall) {
            let message = format!("`{name}` cannot be called by message under rules");
            return Err(side_door(message).with_hint("SELECT it"));
        }
        if resets_connection(function) {
            return Ok(());
        }
        let mut allows = self.allows();
        if allows.any(|allow| allow.functions.iter().any(|pattern| pattern.names(function))) {
            return Ok(());
        }
        let name = match schema {
            Some(schema) => format!("{schema}.{name}"),
            None => name.to_string(),
        };
        Err(side_door(format!("`{name}` is not available to you under these rules"))
            .with_hint(format!("an allow rule opens it by naming `{name}` in its functions")))
    }

    fn check_access(&self, access: &Access) -> Result<(), Denial> {
        let Access { relation, mode } = access;
        let Relation { path, lineage: _, columns: _, reads_through, system, sensitive_system } =
            &**relation;
        if *sensitive_system {
            return Err(side_door(format!("`{path}` shows other people's data")));
        }
        if *system && *mode != AccessMode::Read {
            return Err(side_door(format!("`{path}` is a system relation")));
        }
        if *mode == AccessMode::Define && self.governed(relation) {
            return Err(side_door(format!("the definition of `{path}` is under rules")));
        }
        // Views of the system itself are judged by name, not by what they are built from.
        if !*system && let Some(base) = reads_through.iter().find(|base| base.sensitive_system) {
            return Err(side_door(format!("view `{path}` reads `{}`", base.path)));
        }
        let governed_base = || reads_through.iter().find(|base| self.governed(base));
        if let Some(base) = governed_base()
            && !self.governed_by_name(relation)
        {
            let message = format!("view `{path}` reads `{}`, which is under rules", base.path);
            return Err(side_door(message).with_hint(format!(
                "read `{}` itself, or give `{path}` a mask or filter rule of its own",
                base.path
            )));
        }
        Ok(())
    }

    /// Whether the text reads nothing and calls nothing but what resets a connection, as the SELECT
    /// among the statements of a pool does.
    pub(super) fn only_resets(&self) -> bool {
        let functions = &self.facts.functions;
        self.facts.accesses.is_empty()
            && !functions.is_empty()
            && functions.iter().all(resets_connection)
    }

    /// Whether an allow rule names the statement itself; a group does not open side doors.
    pub(super) fn opened(&self, verb: Verb) -> bool {
        self.allows().any(|allow| allow.named.contains(&verb))
    }

    pub(super) fn allows(&self) -> impl Iterator<Item = &Allow> {
        self.rules.iter().filter_map(|rule| match &rule.effect {
            Effect::Allow(allow) if rule.enforced() => Some(&**allow),
            Effect::Allow(_)
            | Effect::Mask(_)
            | Effect::Filter(_)
            | Effect::Deny { .. }
            | Effect::Limit(_)
            | Effect::Prefix(_)
            | Effect::Bounds(_) => None,
        })
    }
}

/// The one function pools call to reset a connection: it gives up locks of the session itself. One
/// of the same name that somebody defined is not it.
fn resets_connection(function: &FunctionUse) -> bool {
    let FunctionUse { schema, name, class } = function;
    let built_in = match class {
        FunctionClass::Dangerous => matches!(schema.as_deref(), None | Some("pg_catalog")),
        FunctionClass::Pure | FunctionClass::ReadsCatalog | FunctionClass::User => false,
    };
    built_in && &**name == "pg_advisory_unlock_all"
}

/// An encoding's name as the server compares it: letters and digits only, in lower case. Drivers
/// send `UTF8`, `utf-8`, and in the start-up packet even `'utf-8'` with its quotes.
fn encoding_name(value: &str) -> String {
    value.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn side_door(message: impl Into<String>) -> Denial {
    Denial::new(DenyReason::SideDoor, message)
}

/// Statements an identity under rules does not get unless a rule names them.
fn closed(verb: Verb) -> bool {
    match verb {
        Verb::CreateTable
        | Verb::CreateTableAs
        | Verb::CreateView
        | Verb::CreateIndex
        | Verb::CreateFunction
        | Verb::Create
        | Verb::AlterTable
        | Verb::Alter
        | Verb::Drop
        | Verb::Refresh
        | Verb::Grant
        | Verb::Role
        | Verb::SetRole
        | Verb::Do
        | Verb::Call
        | Verb::Load
        | Verb::Admin
        | Verb::CopyServerFile
        | Verb::FunctionCall
        | Verb::Replication
        | Verb::Listen
        | Verb::Lock
        | Verb::Vacuum
        | Verb::PrepareTransaction => true,
        // TRUNCATE defines the relation it empties: judged by the relation.
        Verb::Truncate
        | Verb::Select
        | Verb::Insert
        | Verb::Update
        | Verb::Delete
        | Verb::Merge
        | Verb::CopyTo
        | Verb::CopyFrom
        | Verb::Explain
        | Verb::Show
        | Verb::Set
        | Verb::Discard
        | Verb::Begin
        | Verb::Commit
        | Verb::Rollback
        | Verb::Savepoint
        | Verb::Declare
        | Verb::Fetch
        | Verb::Close
        | Verb::Prepare
        | Verb::Execute
        | Verb::Deallocate
        | Verb::Unlisten
        | Verb::Notify
        | Verb::Empty => false,
    }
}
