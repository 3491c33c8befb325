//! Statements around queries: which verb each is, what it does to the session, and which parts of
//! it are queries.

use crate::facts::{Action, FunctionClass, SettingChange, Verb, VerbClass, Why};

use super::SessionEffect;
use super::functions;
use super::model::Role;
use super::tree::{Kind, Node};
use super::walk::{Walker, changes_role, construct};

/// Settings drivers change by `set_config` that decide neither how text is read nor whose rights
/// apply, nor what is shown of a statement.
const HARMLESS: [&str; 13] = [
    "application_name",
    "bytea_output",
    "datestyle",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "plan_cache_mode",
    "statement_timeout",
    "timezone",
    "work_mem",
];

impl<'t> Walker<'t, '_> {
    /// One statement of the text, or the statement inside EXPLAIN, PREPARE and their like.
    #[expect(clippy::wildcard_enum_match_arm, reason = "known by name, or refused, in `utility`")]
    pub(super) fn statement(&mut self, node: &'t Node) -> Result<SessionEffect, Why> {
        match node.kind {
            Kind::SelectStmt => {
                self.query(node)?;
                let into = node.any(&mut |part| part.kind == Kind::IntoClause);
                Ok(if into { SessionEffect::Ddl } else { SessionEffect::None })
            }
            Kind::InsertStmt | Kind::UpdateStmt | Kind::DeleteStmt | Kind::MergeStmt => {
                self.query(node)?;
                self.settings_view();
                Ok(SessionEffect::None)
            }
            Kind::ExplainStmt => self.explain(node),
            Kind::PrepareStmt => {
                self.act(Verb::Prepare);
                self.inner(node, "query")?;
                Ok(SessionEffect::Prepare { name: node.text("name").to_owned() })
            }
            Kind::DeclareCursorStmt => {
                self.act(Verb::Declare);
                self.inner(node, "query")
            }
            Kind::CreateTableAsStmt => {
                self.act(Verb::CreateTableAs);
                let inner = self.inner(node, "query")?;
                let into = node.child("into").ok_or_else(|| construct("CREATE TABLE AS"))?;
                let block = self.block(node);
                self.creates(into, block)?;
                let executes = matches!(inner, SessionEffect::Execute { .. });
                Ok(if executes { inner } else { SessionEffect::Ddl })
            }
            Kind::ViewStmt => {
                self.act(Verb::CreateView);
                self.inner(node, "query")?;
                Ok(SessionEffect::Ddl)
            }
            Kind::CopyStmt => self.copy(node),
            Kind::ExecuteStmt => {
                self.act(Verb::Execute);
                let block = self.block(node);
                self.expressions(node, &[], block)?;
                Ok(SessionEffect::Execute { name: node.text("name").to_owned() })
            }
            Kind::FetchStmt => {
                self.act(Verb::Fetch);
                let block = self.block(node);
                self.expressions(node, &[], block)?;
                Ok(SessionEffect::Fetch { name: node.text("portalname").to_owned() })
            }
            Kind::DeallocateStmt => {
                self.act(Verb::Deallocate);
                let name = (!node.flag("isall")).then(|| node.text("name").to_owned());
                Ok(SessionEffect::Deallocate { name })
            }
            Kind::VariableSetStmt => Ok(self.set(node)),
            Kind::DiscardStmt => Ok(self.discard(node)),
            Kind::TransactionStmt => Ok(self.transaction(node)),
            Kind::LockStmt => {
                self.act(Verb::Lock);
                self.collect(node, Role::Lock)?;
                Ok(SessionEffect::None)
            }
            Kind::DropStmt => {
                self.act(Verb::Drop);
                self.drop(node)?;
                Ok(SessionEffect::Ddl)
            }
            kind => self.utility(kind, node),
        }
    }

    fn explain(&mut self, node: &'t Node) -> Result<SessionEffect, Why> {
        self.act(Verb::Explain);
        self.model.explains.push(node);
        let effect = self.inner(node, "query")?;
        // What it reads was decided when it was prepared and is not known here.
        if matches!(effect, SessionEffect::Execute { .. }) && shows_estimates(node).is_some() {
            self.uses(functions::defined("EXPLAIN with estimates of", "EXECUTE"));
        }
        Ok(effect)
    }

    /// The statement inside another one. A grammar that allows more than it should is not trusted.
    fn inner(&mut self, node: &'t Node, field: &str) -> Result<SessionEffect, Why> {
        let inner = node.child(field).ok_or_else(|| construct(node.kind.name()))?;
        let block = self.block(node);
        for child in node.children_except(&[field, "into", "view"]) {
            self.expression(child, block)?;
        }
        self.statement(inner)
    }

    /// The relations of a DROP, which the grammar keeps as lists of names.
    fn drop(&mut self, node: &'t Node) -> Result<(), Why> {
        use pg_query::protobuf::ObjectType;
        if let Some(
            ObjectType::ObjectTable
            | ObjectType::ObjectView
            | ObjectType::ObjectMatview
            | ObjectType::ObjectSequence
            | ObjectType::ObjectForeignTable,
        ) = node.variant("remove_type")
        {
            for object in node.nodes("objects") {
                let target = match object.strings("items").as_slice() {
                    [.., schema, name] => self.named(Some(schema), name)?,
                    [name] => self.named(None, name)?,
                    [] => continue,
                };
                self.model.dropped.push(target);
            }
        }
        self.collect(node, Role::Define)
    }

    fn copy(&mut self, node: &'t Node) -> Result<SessionEffect, Why> {
        let server_file = node.has("filename") || node.flag("is_program");
        let from = node.flag("is_from");
        if server_file {
            self.act(Verb::CopyServerFile);
        }
        self.act(if from { Verb::CopyFrom } else { Verb::CopyTo });
        if node.has("query") {
            self.inner(node, "query")?;
            return Ok(SessionEffect::None);
        }
        let role = if from { Role::CopyFrom } else { Role::CopyTo(node) };
        if let Some(relation) = node.child("relation") {
            self.collect(relation, role)?;
        }
        let block = self.block(node);
        self.expressions(node, &["relation"], block)?;
        Ok(SessionEffect::None)
    }

    /// `UPDATE pg_settings SET setting = …` is SET by another name, of a setting not known here.
    fn settings_view(&mut self) {
        let written = self.model.references.iter().any(|reference| {
            matches!(reference.role, Role::Update(_) | Role::Merge | Role::Insert(_))
                && reference.node.text("relname") == "pg_settings"
        });
        if written {
            self.path_lost = true;
            let unknown = SettingChange { name: "".into(), value: None, local: false };
            self.model.settings.push(unknown);
        }
    }

    fn set(&mut self, node: &'t Node) -> SessionEffect {
        use pg_query::protobuf::VariableSetKind as Form;
        let form = node.variant("kind").unwrap_or(Form::Undefined);
        if form == Form::VarSetMulti {
            // SET TRANSACTION and SET SESSION CHARACTERISTICS.
            self.act(Verb::Begin);
            return SessionEffect::None;
        }
        let name = node.text("name").to_lowercase();
        self.act(if changes_role(&name) { Verb::SetRole } else { Verb::Set });
        self.setting(node);
        if name == "search_path" && form == Form::VarSetValue {
            let schemas = node.nodes("args").map(constant_text).collect();
            return SessionEffect::SetSearchPath { schemas, local: node.flag("is_local") };
        }
        if form == Form::VarResetAll || name == "search_path" || changes_role(&name) {
            return SessionEffect::SearchPathUncertain;
        }
        SessionEffect::None
    }

    /// Records the setting a SET changes, wherever it stands.
    pub(super) fn setting(&mut self, node: &Node) {
        use pg_query::protobuf::VariableSetKind as Form;
        let form = node.variant("kind").unwrap_or(Form::Undefined);
        let all = form == Form::VarResetAll;
        let name = if all { "*".to_owned() } else { node.text("name").to_lowercase() };
        let constants: Vec<String> = node.nodes("args").map(constant_text).collect();
        let value = (form == Form::VarSetValue && !constants.is_empty())
            .then(|| constants.join(", ").into());
        let local = node.flag("is_local");
        self.model.settings.push(SettingChange { name: name.into(), value, local });
    }

    /// `set_config(name, value, local)` is SET by another name. What is left of the function beside
    /// the setting, which is a fact of its own: nothing where a harmless setting gets a plain value.
    pub(super) fn set_config(&mut self, call: &'t Node, class: FunctionClass) -> FunctionClass {
        let arguments: Vec<&Node> = call.nodes("args").collect();
        let text = |index: usize| {
            let constant = arguments.get(index)?.child("val")?;
            (constant.kind == Kind::String).then(|| constant.text("sval"))
        };
        let name = text(0).map(str::to_lowercase).unwrap_or_default();
        self.path_lost |= name.is_empty() || name == "search_path" || changes_role(&name);
        let local = arguments.get(2).is_some_and(|argument| {
            argument.any(&mut |node| node.kind == Kind::Boolean && node.flag("boolval"))
        });
        let plain = HARMLESS.contains(&name.as_str())
            && arguments.iter().all(|a| matches!(a.kind, Kind::AConst | Kind::ParamRef));
        self.model.settings.push(SettingChange {
            name: name.into(),
            value: text(1).map(Into::into),
            local,
        });
        match class {
            FunctionClass::Dangerous if plain => {
                self.act(Verb::Set);
                FunctionClass::ReadsCatalog
            }
            FunctionClass::Dangerous
            | FunctionClass::Pure
            | FunctionClass::ReadsCatalog
            | FunctionClass::User => class,
        }
    }

    fn discard(&mut self, node: &'t Node) -> SessionEffect {
        use pg_query::protobuf::DiscardMode;
        self.act(Verb::Discard);
        match node.variant("target") {
            Some(DiscardMode::DiscardPlans | DiscardMode::DiscardSequences) => SessionEffect::None,
            // Temporary tables go, so names may mean something else.
            Some(DiscardMode::DiscardTemp) => SessionEffect::Ddl,
            Some(DiscardMode::DiscardAll | DiscardMode::Undefined) | None => {
                self.model.settings.push(SettingChange {
                    name: "*".into(),
                    value: None,
                    local: false,
                });
                SessionEffect::DiscardAll
            }
        }
    }

    fn transaction(&mut self, node: &'t Node) -> SessionEffect {
        use pg_query::protobuf::TransactionStmtKind as Form;
        let (verb, effect) = match node.variant("kind").unwrap_or(Form::Undefined) {
            Form::TransStmtBegin | Form::TransStmtStart => (Verb::Begin, SessionEffect::Begin),
            Form::TransStmtCommit => (Verb::Commit, SessionEffect::EndTransaction),
            Form::TransStmtRollback | Form::Undefined => {
                (Verb::Rollback, SessionEffect::EndTransaction)
            }
            Form::TransStmtSavepoint | Form::TransStmtRelease => {
                (Verb::Savepoint, SessionEffect::None)
            }
            Form::TransStmtRollbackTo => (Verb::Rollback, SessionEffect::RollbackTo),
            Form::TransStmtPrepare => (Verb::PrepareTransaction, SessionEffect::EndTransaction),
            Form::TransStmtCommitPrepared => (Verb::Commit, SessionEffect::None),
            Form::TransStmtRollbackPrepared => (Verb::Rollback, SessionEffect::None),
        };
        self.act(verb);
        effect
    }

    /// Statements whose parts are not modelled: the verb, and every name in them.
    fn utility(&mut self, kind: Kind, node: &'t Node) -> Result<SessionEffect, Why> {
        let Some(verb) = utility_verb(kind.name()) else { return Err(construct(kind.name())) };
        self.model.actions.push(Action { verb, without_where: false });
        self.collect(node, Role::Define)?;
        // Whatever may define something: functions and code blocks, too.
        let defines = match verb.class() {
            VerbClass::Ddl | VerbClass::Role | VerbClass::Function => true,
            VerbClass::Read | VerbClass::Write | VerbClass::Misc => verb == Verb::Load,
        };
        Ok(if defines { SessionEffect::Ddl } else { SessionEffect::None })
    }
}

/// The first thing an EXPLAIN shows that tells about rows: estimates, or an option that brings
/// more. `None` when it shows the shape of the plan and nothing else.
pub(super) fn shows_estimates(explain: &Node) -> Option<&str> {
    let mut costs_off = false;
    for option in explain.nodes("options") {
        match option.text("defname") {
            "costs" => costs_off = is_off(option),
            "format" => {}
            name => return Some(name),
        }
    }
    (!costs_off).then_some("estimates")
}

fn is_off(option: &Node) -> bool {
    option.child("arg").is_some_and(|arg| {
        let text = arg.text("sval").to_lowercase();
        matches!(text.as_str(), "off" | "false" | "0")
            || arg.kind == Kind::Integer && arg.int("ival") == 0
            || arg.kind == Kind::Boolean && !arg.flag("boolval")
    })
}

/// The text of a constant in SET; empty for anything else.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other constants are no values of settings")]
fn constant_text(node: &Node) -> String {
    let constant = if node.kind == Kind::TypeCast { node.child("arg") } else { Some(node) };
    let Some(value) = constant.and_then(|constant| constant.child("val")) else {
        return String::new();
    };
    match value.kind {
        Kind::String => value.text("sval").to_owned(),
        Kind::Float => value.text("fval").to_owned(),
        Kind::Integer => value.int("ival").to_string(),
        Kind::Boolean => value.flag("boolval").to_string(),
        _ => String::new(),
    }
}

/// The verb of a statement that is not modelled, by its name in the grammar.
fn utility_verb(name: &str) -> Option<Verb> {
    Some(match name {
        "VariableShowStmt" => Verb::Show,
        "ClosePortalStmt" => Verb::Close,
        "TruncateStmt" => Verb::Truncate,
        "ListenStmt" => Verb::Listen,
        "UnlistenStmt" => Verb::Unlisten,
        "NotifyStmt" => Verb::Notify,
        "ConstraintsSetStmt" => Verb::Begin,
        "CreateStmt" | "CreateForeignTableStmt" | "ImportForeignSchemaStmt" => Verb::CreateTable,
        "IndexStmt" => Verb::CreateIndex,
        "CreateFunctionStmt" => Verb::CreateFunction,
        "AlterTableStmt" | "AlterTableMoveAllStmt" => Verb::AlterTable,
        "RenameStmt"
        | "AlterObjectSchemaStmt"
        | "AlterOwnerStmt"
        | "CommentStmt"
        | "SecLabelStmt"
        | "AlterCollationStmt"
        | "AlterDatabaseStmt"
        | "AlterDatabaseRefreshCollStmt"
        | "AlterDatabaseSetStmt"
        | "AlterDomainStmt"
        | "AlterEnumStmt"
        | "AlterEventTrigStmt"
        | "AlterExtensionStmt"
        | "AlterExtensionContentsStmt"
        | "AlterFdwStmt"
        | "AlterForeignServerStmt"
        | "AlterFunctionStmt"
        | "AlterObjectDependsStmt"
        | "AlterOpFamilyStmt"
        | "AlterOperatorStmt"
        | "AlterPolicyStmt"
        | "AlterPublicationStmt"
        | "AlterSeqStmt"
        | "AlterStatsStmt"
        | "AlterSubscriptionStmt"
        | "AlterTableSpaceOptionsStmt"
        | "AlterTsConfigurationStmt"
        | "AlterTsDictionaryStmt"
        | "AlterTsconfigurationStmt"
        | "AlterTsdictionaryStmt"
        | "AlterTypeStmt"
        | "AlterUserMappingStmt" => Verb::Alter,
        "DropTableSpaceStmt"
        | "DropUserMappingStmt"
        | "DropSubscriptionStmt"
        | "DropdbStmt"
        | "DropOwnedStmt" => Verb::Drop,
        "RefreshMatViewStmt" | "ReindexStmt" | "ClusterStmt" => Verb::Refresh,
        "GrantStmt" | "GrantRoleStmt" | "AlterDefaultPrivilegesStmt" | "ReassignOwnedStmt" => {
            Verb::Grant
        }
        "CreateRoleStmt" | "AlterRoleStmt" | "AlterRoleSetStmt" | "DropRoleStmt" => Verb::Role,
        "DoStmt" => Verb::Do,
        "CallStmt" => Verb::Call,
        "LoadStmt" => Verb::Load,
        "VacuumStmt" => Verb::Vacuum,
        "CheckPointStmt" | "AlterSystemStmt" => Verb::Admin,
        name if name.starts_with("Create") && name.ends_with("Stmt") => Verb::Create,
        "CreatedbStmt" | "DefineStmt" | "RuleStmt" | "CompositeTypeStmt" => Verb::Create,
        _ => return None,
    })
}
