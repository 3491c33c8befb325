//! CREATE statements → catalog drafts, for rule tests that bring their own tables.

use crate::analysis::AnalyzerLimits;
use crate::analysis::catalog::{ColumnDraft, Draft, Drafts, UserFunction, is_plain_type};
use crate::facts::Why;

use super::parse;
use super::tree::{Kind, Node};

/// Reads CREATE SCHEMA, TABLE (inheritance and partitions included), VIEW, FUNCTION, INDEX, RULE.
///
/// # Errors
/// The 1-based line of the first statement that is not understood, and why.
pub(in crate::analysis) fn drafts_from_ddl(ddl: &str) -> Result<Drafts, (u32, String)> {
    let limits = AnalyzerLimits {
        statement_bytes_max: usize::MAX,
        tokens_max: usize::MAX,
        ..AnalyzerLimits::default()
    };
    parse::on_deep_stack(ddl, || {
        let statements = parse::parse(ddl, &limits).map_err(|why| {
            let (message, position) = match why {
                Why::Syntax(error) => (error.message, error.position),
                Why::TooComplex | Why::TooLong => ("too complex".to_owned(), None),
                Why::NotUtf8 => ("holds a NUL character".to_owned(), None),
                Why::Construct(name) => (name, None),
            };
            (line_of(ddl, position.map_or(0, |p| usize::try_from(p).unwrap_or(0))), message)
        })?;
        let mut drafts = Drafts { view_path: vec!["public".into()], ..Default::default() };
        sha2::Digest::update(&mut drafts.hash, ddl);
        for raw in &statements {
            let at = usize::try_from(raw.int("stmt_location")).unwrap_or(0);
            if let Some(statement) = raw.child("stmt") {
                let length = usize::try_from(raw.int("stmt_len")).unwrap_or(0);
                let end = if length == 0 { ddl.len() } else { at + length };
                read(statement, ddl.get(at..end).unwrap_or(ddl), &mut drafts)
                    .map_err(|message| (statement_line(ddl, at), message))?;
            }
        }
        Ok(drafts)
    })
    .unwrap_or_else(|| Err((1, "too complex".to_owned())))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "everything else is refused by name")]
fn read(statement: &Node, text: &str, drafts: &mut Drafts) -> Result<(), String> {
    match statement.kind {
        Kind::CreateStmt => table(statement, drafts),
        Kind::ViewStmt => view(statement, text, drafts),
        Kind::CreateFunctionStmt => {
            let names = statement.strings("funcname");
            let name = names.last().ok_or("function without a name")?;
            let arguments = statement.nodes("parameters").count();
            let arguments_max = u32::try_from(arguments).map_err(|error| error.to_string())?;
            let function = UserFunction { arguments_min: 0, arguments_max, extension: false };
            drafts.functions.push(((*name).to_owned(), function));
            Ok(())
        }
        Kind::CreateSchemaStmt | Kind::IndexStmt => Ok(()),
        Kind::RuleStmt => rule(statement, drafts),
        other => Err(format!("{} is not part of a catalog", other.name())),
    }
}

fn qualified(range: &Node) -> (String, String) {
    let schema = match range.text("schemaname") {
        "" => "public",
        schema => schema,
    };
    (schema.to_owned(), range.text("relname").to_owned())
}

fn table(statement: &Node, drafts: &mut Drafts) -> Result<(), String> {
    let (schema, name) = qualified(statement.child("relation").ok_or("table without a name")?);
    let key = format!("{schema}.{name}");
    let mut columns = Vec::new();
    for parent in statement.nodes("inh_relations") {
        let (schema, name) = qualified(parent);
        let parent = format!("{schema}.{name}");
        let draft = drafts.relations.iter().find(|draft| draft.key == parent);
        columns.extend(draft.ok_or_else(|| format!("no table {parent}"))?.columns.clone());
        drafts.parents.push((key.clone(), parent));
    }
    for element in statement.nodes("table_elts") {
        if element.kind == Kind::ColumnDef {
            columns.push(column(element)?);
        }
    }
    drafts.relations.push(Draft {
        key,
        schema,
        name,
        columns,
        definition: None,
        write_rules: false,
    });
    Ok(())
}

fn rule(statement: &Node, drafts: &mut Drafts) -> Result<(), String> {
    let (schema, name) = qualified(statement.child("relation").ok_or("rule without a table")?);
    let key = format!("{schema}.{name}");
    let on = drafts.relations.iter_mut().find(|draft| draft.key == key);
    on.ok_or_else(|| format!("no table {key}"))?.write_rules = true;
    Ok(())
}

fn column(definition: &Node) -> Result<ColumnDraft, String> {
    let name = definition.text("colname").to_owned();
    let ty = definition.child("type_name").ok_or_else(|| format!("column {name} has no type"))?;
    let names = ty.strings("names");
    let base = *names.last().ok_or_else(|| format!("column {name} has no type"))?;
    let base = match base {
        "serial" | "serial4" => "int4",
        "bigserial" | "serial8" => "int8",
        "smallserial" | "serial2" => "int2",
        base => base,
    };
    let array = ty.has("array_bounds");
    let modifiers: Vec<String> = ty
        .nodes("typmods")
        .filter_map(|modifier| modifier.child("val"))
        .map(|value| value.int("ival").to_string())
        .collect();
    let formatted =
        if modifiers.is_empty() { String::new() } else { format!("({})", modifiers.join(",")) };
    let type_schema = match names.as_slice() {
        [.., schema, _] => (*schema).to_owned(),
        [_] if is_plain_type(base) => "pg_catalog".to_owned(),
        [_] | [] => "public".to_owned(),
    };
    let type_name = if array { format!("_{base}") } else { base.to_owned() };
    let sources = definition.nodes("constraints").flat_map(generated_from).collect();
    Ok(ColumnDraft { name, type_schema, type_name, formatted, sources })
}

/// The columns a GENERATED ALWAYS AS (…) STORED constraint names; none for any other constraint.
fn generated_from(constraint: &Node) -> Vec<String> {
    use pg_query::protobuf::ConstrType;
    let mut sources = Vec::new();
    if constraint.variant("contype") == Some(ConstrType::ConstrGenerated)
        && let Some(expression) = constraint.child("raw_expr")
    {
        expression.any(&mut |node| {
            if node.kind == Kind::ColumnRef {
                sources.extend(node.strings("fields").last().map(|name| (*name).to_owned()));
            }
            false
        });
    }
    sources
}

fn view(statement: &Node, text: &str, drafts: &mut Drafts) -> Result<(), String> {
    let (schema, name) = qualified(statement.child("view").ok_or("view without a name")?);
    let aliases = statement.strings("aliases");
    let query = statement.child("query").ok_or("view without a query")?;
    let mut names: Vec<String> = aliases.into_iter().map(ToOwned::to_owned).collect();
    for (index, target) in query.nodes("target_list").enumerate() {
        let column = target.child("val").map(|value| value.strings("fields"));
        let written = match (target.text("name"), column.as_deref()) {
            ("", Some([.., last])) => *last,
            ("", Some([]) | None) => {
                return Err(format!("column {} of the view needs a name (AS …)", index + 1));
            }
            (name, _) => name,
        };
        if index >= names.len() {
            names.push(written.to_owned());
        }
    }
    let columns = names
        .into_iter()
        .map(|name| ColumnDraft {
            name,
            type_schema: "pg_catalog".to_owned(),
            type_name: "text".to_owned(),
            formatted: String::new(),
            sources: Vec::new(),
        })
        .collect();
    let key = format!("{schema}.{name}");
    let definition = Some(text.to_owned());
    drafts.relations.push(Draft { key, schema, name, columns, definition, write_rules: false });
    Ok(())
}

fn statement_line(ddl: &str, at: usize) -> u32 {
    let blank = ddl.get(at..).map_or(0, |rest| rest.len() - rest.trim_start().len());
    line_of(ddl, ddl.get(..at + blank).map_or(0, |before| before.chars().count()))
}

fn line_of(ddl: &str, characters: usize) -> u32 {
    let lines = ddl.chars().take(characters).filter(|c| *c == '\n').count();
    u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1)
}
