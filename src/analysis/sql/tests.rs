//! Facts, effects, normalised texts, predicates: one line a case.

use super::*;
use crate::facts::{Certainty, FunctionClass};
use crate::name::RuleId;

const DDL: &str = "
    CREATE SCHEMA app;
    CREATE TABLE customers (id int PRIMARY KEY, email varchar(40), total numeric(10,2));
    CREATE TABLE app.customers (id int);
    CREATE TABLE app.only_here (id int);
    CREATE TABLE events (id int, at date) PARTITION BY RANGE (at);
    CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE VIEW mails AS SELECT id, email FROM customers;
    CREATE VIEW mails2 AS SELECT email AS m FROM mails;
    CREATE FUNCTION total(customers) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE VIEW calls AS SELECT secret(id) AS x FROM app.only_here;";

fn catalog() -> Catalog {
    Catalog::from_ddl("db", DDL).unwrap()
}

fn known_path() -> SearchPath {
    SearchPath::Known(vec!["pg_catalog".into(), "public".into()])
}

/// One line: verbs, then accesses, then functions that matter, then unknown relations.
fn facts(sql: &str, path: &SearchPath) -> String {
    let parsed = analyze(sql, Some(&catalog()), path, &AnalyzerLimits::default());
    if let Certainty::Unknown(why) = &parsed.facts.certainty {
        return match why {
            Why::Construct(name) => format!("? {name}"),
            Why::Syntax(_) | Why::NotUtf8 | Why::TooLong | Why::TooComplex => {
                format!("? {why:?}")
            }
        };
    }
    let mut words: Vec<String> = Vec::new();
    for action in &parsed.facts.actions {
        let mark = if action.without_where { "!" } else { "" };
        words.push(format!("{}{mark}", action.verb.name()));
    }
    for access in &parsed.facts.accesses {
        words.push(format!("{:?}:{}", access.mode, access.relation.path));
    }
    for function in &parsed.facts.functions {
        match function.class {
            FunctionClass::Pure | FunctionClass::ReadsCatalog => {}
            FunctionClass::Dangerous => words.push(format!("danger:{}", function.name)),
            FunctionClass::User => words.push(format!("user:{}", function.name)),
        }
    }
    words.extend(parsed.unknown_relations.iter().map(|name| format!("unknown:{name}")));
    words.join(" ")
}

/// Text, and its facts as one line.
const FACTS: &[(&str, &str)] = &[
    ("", "empty"),
    ("-- nothing", "empty"),
    ("SELECT 1", "select"),
    ("SELECT * FROM customers", "select Read:public.customers"),
    ("SELECT * FROM app.customers", "select Read:app.customers"),
    ("SELECT * FROM db.app.customers", "select Read:app.customers"),
    ("SELECT * FROM elsewhere.app.customers", "? name of another database"),
    ("SELECT * FROM only_here", "select Read:?.only_here unknown:only_here"),
    ("SELECT * FROM pg_class", "select Read:pg_catalog.pg_class"),
    ("TABLE mails2", "select Read:public.mails2"),
    ("SELECT * FROM calls", "select Read:public.calls user:secret"),
    ("WITH customers AS (SELECT 1) SELECT * FROM customers", "select"),
    (
        "WITH customers AS (SELECT * FROM customers) SELECT * FROM customers",
        "select Read:public.customers",
    ),
    ("WITH RECURSIVE customers AS (SELECT * FROM customers) TABLE customers", "select"),
    (
        "WITH a AS (SELECT * FROM customers), customers AS (SELECT 1) SELECT * FROM a",
        "select Read:public.customers",
    ),
    ("WITH customers AS (SELECT 1) TABLE public.customers", "select Read:public.customers"),
    (
        "(WITH customers AS (SELECT 1) TABLE customers) UNION TABLE customers",
        "select Read:public.customers",
    ),
    (
        "WITH customers AS (SELECT 1) INSERT INTO customers TABLE customers",
        "select insert Insert:public.customers",
    ),
    ("INSERT INTO customers VALUES (1)", "insert Insert:public.customers"),
    (
        "INSERT INTO customers VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 2",
        "insert update Insert:public.customers Update:public.customers",
    ),
    ("UPDATE customers SET id = 1", "update! Update:public.customers"),
    ("UPDATE customers SET id = 1 WHERE true", "update! Update:public.customers"),
    ("UPDATE customers SET id = 1 WHERE id = 2 OR 1 = 1", "update! Update:public.customers"),
    ("UPDATE customers SET id = 1 WHERE id = 2 AND 1 = 1", "update Update:public.customers"),
    ("DELETE FROM customers WHERE $1", "delete! Delete:public.customers"),
    (
        "WITH d AS (DELETE FROM customers RETURNING id) SELECT * FROM d",
        "delete! select Delete:public.customers",
    ),
    ("EXPLAIN ANALYZE DELETE FROM customers", "explain delete! Delete:public.customers"),
    ("COPY customers TO STDOUT", "copy_to Read:public.customers"),
    ("COPY customers TO PROGRAM 'x'", "copy_server_file copy_to Read:public.customers"),
    ("COPY customers FROM STDIN", "copy_from Insert:public.customers"),
    ("TRUNCATE customers", "truncate Define:public.customers"),
    ("LOCK TABLE customers", "lock Define:public.customers"),
    ("DROP TABLE customers", "drop Define:public.customers"),
    ("CREATE TABLE t AS TABLE customers", "create_table_as select Read:public.customers"),
    ("SELECT * INTO t FROM customers", "select create_table_as Read:public.customers"),
    ("SELECT pg_sleep(1)", "select danger:pg_sleep"),
    ("SELECT pg_catalog.pg_sleep(1)", "select danger:pg_sleep"),
    ("SELECT current_setting('jit'), set_config('jit', 'off', false)", "select set"),
    ("SELECT pg_catalog.set_config('JIT', $1, true)", "select set"),
    ("SELECT set_config($1, 'off', false)", "select danger:set_config"),
    ("SELECT set_config('row_security', 'off', false)", "select danger:set_config"),
    (
        "SELECT set_config('jit', email, false) FROM mails",
        "select Read:public.mails danger:set_config",
    ),
    ("SELECT app.set_config('jit', 'off', false)", "select user:set_config"),
    ("SELECT made_up(1)", "select user:made_up"),
    ("SELECT public.lower('x')", "select user:lower"),
    ("SELECT ('1'::oid).lo_get", "select danger:lo_get"),
    ("SELECT c.total FROM customers c", "select Read:public.customers"),
    ("SELECT c.total FROM mails c", "select Read:public.mails user:total"),
    ("SELECT total(c) FROM customers c", "select Read:public.customers user:total"),
    ("SELECT (c).total FROM customers c", "select Read:public.customers user:total"),
    ("SELECT c.total FROM customers c(total)", "select Read:public.customers user:total"),
    ("SELECT 1 OPERATOR(app.+) 1", "select user:operator +"),
    ("EXPLAIN EXECUTE p", "explain execute user:EXPLAIN with estimates of EXECUTE"),
    ("EXPLAIN (COSTS OFF) EXECUTE p", "explain execute"),
    ("SELECT json_value('{}', '$')", "select"),
    ("SET ROLE x", "set_role"),
    ("DO 'x'", "do"),
    ("CALL f(1)", "call user:f"),
    (
        "SET search_path = app; SELECT * FROM customers",
        "? unqualified name `customers` while the search path is not certain; write schema.customers",
    ),
    ("SET search_path = app; TABLE only_here", "set select Read:app.only_here"),
];

#[test]
fn facts_name_what_a_text_does() {
    for (sql, expected) in FACTS {
        assert_eq!(facts(sql, &known_path()), *expected, "{sql}");
    }
}

#[test]
fn functions_the_grammar_qualifies_may_still_be_a_users() {
    let ddl = "CREATE FUNCTION \"json_object\"(text[]) RETURNS json LANGUAGE sql AS 'x'";
    let user = |ddl: &str, sql: &str| {
        let catalog = Catalog::from_ddl("db", ddl).unwrap();
        let parsed = analyze(sql, Some(&catalog), &known_path(), &AnalyzerLimits::default());
        parsed.facts.functions.iter().any(|function| function.class == FunctionClass::User)
    };
    for sql in ["SELECT json_object('{}')", "SELECT json_object('a': 1)"] {
        assert!(user(ddl, sql), "{sql}");
        assert!(!user("", sql), "{sql}");
    }
    assert!(!user(ddl, "SELECT trim(' x ')"));
}

#[test]
fn writes_run_the_rewrite_rules_of_what_they_reach() {
    let ddl = "
        CREATE TABLE log (id int);
        CREATE TABLE customers (id int);
        CREATE VIEW through AS SELECT id FROM log;
        CREATE RULE r AS ON UPDATE TO log DO ALSO SELECT * FROM customers;";
    let catalog = Catalog::from_ddl("db", ddl).unwrap();
    let cases = [
        ("UPDATE log SET id = 1", true),
        ("INSERT INTO log VALUES (1)", true),
        ("WITH d AS (DELETE FROM log RETURNING *) TABLE d", true),
        ("UPDATE through SET id = 1", true),
        ("SELECT * FROM log", false),
        ("UPDATE customers SET id = log.id FROM log", false),
    ];
    for (sql, ruled) in cases {
        let parsed = analyze(sql, Some(&catalog), &known_path(), &AnalyzerLimits::default());
        let mut uses = parsed.facts.functions.iter();
        let used = uses.any(|function| {
            function.class == FunctionClass::User
                && &*function.name == "rewrite rules of public.log"
        });
        assert_eq!(used, ruled, "{sql}");
    }
}

#[test]
fn casts_to_the_target_of_a_users_cast_call_its_function() {
    let mut drafts = drafts_from_ddl("CREATE TABLE t (id int, o oid, x xml);").unwrap();
    drafts.cast_targets.push("xml".to_owned());
    let catalog = drafts.build("db", 0);
    let cases = [
        ("SELECT o::xml FROM t", true),
        ("SELECT CAST(1 AS pg_catalog.xml)", true),
        ("SELECT ARRAY[o]::xml[] FROM t", true),
        ("SELECT ARRAY[o]::_xml FROM t", true),
        ("SELECT $1::xml", true),
        // Its fields may have that type.
        ("SELECT ROW(1, 2, 3)::t", true),
        ("SELECT xml '<a/>', '<a/>'::xml, NULL::xml", false),
        ("SELECT id::text, id::int8, o::varchar(3) FROM t", false),
    ];
    for (sql, calls) in cases {
        let parsed = analyze(sql, Some(&catalog), &known_path(), &AnalyzerLimits::default());
        let mut uses = parsed.facts.functions.iter();
        assert_eq!(uses.any(|f| f.class == FunctionClass::User), calls, "{sql}");
    }
}

#[test]
fn relations_know_what_they_descend_from_and_read() {
    let catalog = catalog();
    let relation = |name: &str| catalog.relation("public", name).unwrap();
    let names = |paths: Vec<String>| paths.join(" ");
    let read = |name: &str| {
        names(relation(name).reads_through.iter().map(|r| r.path.to_string()).collect())
    };
    assert_eq!(read("mails2"), "public.mails public.customers");
    assert_eq!(read("customers"), "");
    let lineage = &relation("events_2024").lineage;
    assert_eq!(names(lineage.iter().map(ToString::to_string).collect()), "public.events");
    assert_eq!(relation("events_2024").columns.len(), 2);
    assert!(catalog.relation("pg_catalog", "pg_stats").unwrap().sensitive_system);
    assert!(!catalog.relation("pg_catalog", "pg_class").unwrap().sensitive_system);
}

#[test]
fn effects_are_told_one_a_statement() {
    let effects = |sql: &str| {
        analyze(sql, Some(&catalog()), &known_path(), &AnalyzerLimits::default()).effects
    };
    let path = |schemas: &[&str], local| SessionEffect::SetSearchPath {
        schemas: schemas.iter().map(ToString::to_string).collect(),
        local,
    };
    let name = || "p".to_owned();
    assert_eq!(
        effects("BEGIN; SET LOCAL search_path = \"$user\", app; COMMIT AND CHAIN"),
        [SessionEffect::Begin, path(&["$user", "app"], true), SessionEffect::EndTransaction]
    );
    let cases = [
        ("SET SCHEMA 'x'", path(&["x"], false)),
        ("SET search_path TO DEFAULT", SessionEffect::SearchPathUncertain),
        ("RESET ALL", SessionEffect::SearchPathUncertain),
        ("SET ROLE x", SessionEffect::SearchPathUncertain),
        ("SELECT set_config('search_path', 'x', false)", SessionEffect::SearchPathUncertain),
        ("SELECT set_config('a' || 'b', 'x', false)", SessionEffect::SearchPathUncertain),
        ("SELECT set_config('work_mem', '1MB', false)", SessionEffect::None),
        ("UPDATE pg_settings SET setting = 'x'", SessionEffect::SearchPathUncertain),
        ("PREPARE p AS SELECT 1", SessionEffect::Prepare { name: name() }),
        ("FETCH 3 FROM P", SessionEffect::Fetch { name: name() }),
        ("MOVE ALL IN p", SessionEffect::Fetch { name: name() }),
        ("FETCH \"P\"", SessionEffect::Fetch { name: "P".to_owned() }),
        ("EXECUTE p", SessionEffect::Execute { name: name() }),
        ("EXPLAIN EXECUTE p", SessionEffect::Execute { name: name() }),
        ("CREATE TABLE t AS EXECUTE p", SessionEffect::Execute { name: name() }),
        ("DEALLOCATE p", SessionEffect::Deallocate { name: Some(name()) }),
        ("DEALLOCATE ALL", SessionEffect::Deallocate { name: None }),
        ("DISCARD ALL", SessionEffect::DiscardAll),
        ("ROLLBACK TO s", SessionEffect::RollbackTo),
        ("PREPARE TRANSACTION 'x'", SessionEffect::EndTransaction),
        ("ALTER TABLE customers ADD x int", SessionEffect::Ddl),
        ("SELECT 1 INTO t", SessionEffect::Ddl),
        ("DO 'x'", SessionEffect::Ddl),
    ];
    for (sql, expected) in cases {
        assert_eq!(effects(sql), [expected], "{sql}");
    }
}

#[test]
fn settings_are_told_by_every_way_to_change_them() {
    let settings = |sql: &str| -> Vec<(String, Option<String>, bool)> {
        let parsed = analyze(sql, None, &known_path(), &AnalyzerLimits::default());
        let settings = parsed.facts.settings.into_iter();
        settings.map(|s| (s.name.into(), s.value.map(Into::into), s.local)).collect()
    };
    let cases = [
        ("SET Work_Mem = '1MB'", "work_mem", Some("1MB"), false),
        ("SET LOCAL a.b TO x, y", "a.b", Some("x, y"), true),
        ("RESET work_mem", "work_mem", None, false),
        ("RESET ALL", "*", None, false),
        ("DISCARD ALL", "*", None, false),
        ("SELECT set_config('Jit', 'off', false)", "jit", Some("off"), false),
        ("SELECT set_config('Row_Security', 'off', true)", "row_security", Some("off"), true),
        ("SELECT set_config('a' || 'b', 'off', false)", "", Some("off"), false),
        ("ALTER ROLE x SET work_mem = 5", "work_mem", Some("5"), false),
        ("ALTER SYSTEM SET work_mem = 5", "work_mem", Some("5"), false),
        ("SET NAMES 'latin1'", "client_encoding", Some("latin1"), false),
        ("UPDATE pg_settings SET setting = 'x'", "", None, false),
    ];
    for (sql, name, value, local) in cases {
        let expected = (name.to_owned(), value.map(ToOwned::to_owned), local);
        assert_eq!(settings(sql), [expected], "{sql}");
    }
}

#[test]
fn syntax_errors_carry_the_grammars_words_and_a_place() {
    let why = |sql: &str| facts(sql, &known_path());
    assert!(why("SELEC 1").contains("syntax error at or near \\\"SELEC\\\""), "{}", why("SELEC 1"));
    assert!(why("SELEC 1").contains("position: Some(1)"));
    assert!(why("SELECT (1").contains("position: Some(10)"));
}

#[test]
fn normalised_texts_hold_no_literal() {
    let cases = [
        ("SELECT 'a' /* b */, 1.5,  $1 -- c\n FROM t", Some("SELECT ? , ?, $1 FROM t")),
        ("SELECT E'a\\'b', U&'x', $$y$$, B'1', X'f', 0x1f", Some("SELECT ?, ?, ?, ?, ?, ?")),
        ("SET app.key = secret, other", Some("SET app.key = ?, ?")),
        ("SELECT 1; SET x TO y", Some("SELECT ?; SET x TO ?")),
        ("UPDATE t SET a = b", Some("UPDATE t SET a = b")),
        ("SELECT 'open", None),
    ];
    for (sql, expected) in cases {
        assert_eq!(normalize(sql).as_deref(), expected, "{sql}");
    }
    assert!(normalize(&"SELECT a, ".repeat(10_000)).unwrap().len() <= 8 * 1024);
}

#[test]
fn predicates_are_an_allow_list() {
    let rule = RuleId("r".into());
    let compiled = |text: &str| {
        Predicates::compile(std::iter::once((rule.clone(), text)))
            .map(|_compiled| ())
            .map_err(|problems| problems.into_iter().map(|(_, at, _)| at).next().unwrap())
    };
    let cases = [
        ("tenant_id = :identity.tenant", Ok(())),
        ("tenant_id = :identity.tenant::uuid AND NOT hidden", Ok(())),
        ("a IN (1, 2) OR b BETWEEN -1 AND 5 OR c IS NOT NULL OR d LIKE 'x%'", Ok(())),
        ("lower(region) = 'eu' AND at >= date '2024-01-01'", Ok(())),
        ("a = ':identity.x'", Ok(())),
        ("a = 1; DROP TABLE x", Err(5)),
        ("a = (SELECT 1)", Err(5)),
        ("EXISTS (SELECT 1)", Err(8)),
        ("pg_sleep(1) = 1", Err(0)),
        ("t.a = 1", Err(0)),
        ("a = $1", Err(4)),
        ("a = E'\\x'", Err(6)),
        ("a = 1 OR\n  b ~ 'x'", Err(11)),
        ("a::xml = 'x'", Err(0)),
    ];
    for (text, expected) in cases {
        assert_eq!(compiled(text), expected, "{text}");
    }
}

#[test]
fn filters_are_checked_against_the_relation() {
    let rule = RuleId("r".into());
    let text = "id = 1 AND tenent = 'x'";
    let predicates = Predicates::compile(std::iter::once((rule.clone(), text))).unwrap();
    let catalog = catalog();
    let relation = catalog.relation("public", "customers").unwrap();
    let problems = predicates.check(&rule, &catalog, &relation.path).unwrap_err();
    assert_eq!(problems, [(11, "public.customers has no column `tenent`".to_owned())]);
}
