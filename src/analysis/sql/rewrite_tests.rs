//! What runs instead of what was sent, and what is refused.

use std::sync::Arc;

use super::*;
use crate::name::RuleId;
use crate::obligation::{Alphabet, ColumnMask, DateUnit, Governance, MaskFn, RowFilter, Token};

const DDL: &str = "
    CREATE TABLE c (id int PRIMARY KEY, t text, email text, n int);
    CREATE TABLE plain (id int, x text);
    CREATE TABLE all_types (a smallint, b numeric(5,2), d date, ts timestamptz, u uuid, f real,
                            v varchar(10), o jsonb);
    CREATE VIEW v AS SELECT email FROM c;";

/// Rewrites with `email` masked to NULL and the filter `t = 'acme'` on table `c`.
fn rewrite(sql: &str) -> Result<Option<String>, String> {
    rewrite_in(DDL, sql)
}

/// The same over other tables.
fn rewrite_in(ddl: &str, sql: &str) -> Result<Option<String>, String> {
    let catalog = Catalog::from_ddl("db", ddl).unwrap();
    let path = SearchPath::Known(vec!["pg_catalog".into(), "public".into()]);
    let rule = RuleId("r".into());
    let predicates =
        Predicates::compile(std::iter::once((rule.clone(), "t = :identity.t"))).unwrap();
    let mask = ColumnMask {
        column: "email".into(),
        class: None,
        function: MaskFn::Nullify,
        rule: rule.clone(),
    };
    let filter = RowFilter {
        predicate: "t = :identity.t".into(),
        values: vec![("t".into(), "acme".into())],
        rule,
    };
    let relation = Arc::clone(catalog.relation("public", "c").unwrap());
    let governance = Governance { relation, masks: vec![mask], filters: vec![filter] };
    let parsed = analyze(sql, Some(&catalog), &path, &AnalyzerLimits::default());
    assert_eq!(parsed.facts.certainty, crate::facts::Certainty::Known, "{sql}");
    parsed
        .rewrite(sql, &catalog, &[governance], &predicates)
        .map(|rewritten| rewritten.map(|rewritten| rewritten.text))
        .map_err(|refused| refused.message)
}

/// Shortens the parts that are the same everywhere.
fn short(text: &str) -> String {
    text.replace("(\"g\".\"t\" OPERATOR(pg_catalog.=) 'acme')", "<f>")
        .replace("FROM \"public\".\"c\" AS g", "<c>")
        .replace("NULL::\"pg_catalog\".\"text\" AS \"email\"", "<m>")
        .replace("OPERATOR(pg_catalog.=)", "==")
}

#[test]
fn relations_become_governed_subqueries_in_place() {
    let all = "SELECT g.\"id\", g.\"t\", <m>, g.\"n\" <c> WHERE <f>";
    let cases = [
        ("SELECT * FROM c", format!("SELECT * FROM ({all}) AS \"c\"")),
        ("SELECT c FROM c WHERE id = 1", format!("SELECT c FROM ({all}) AS \"c\" WHERE id = 1")),
        (
            "SELECT  n\nFROM public . c/*x*/ AS k -- y",
            "SELECT  n\nFROM (SELECT g.\"n\" <c> WHERE <f>)/*x*/ AS k -- y".to_owned(),
        ),
        ("SELECT count(*) FROM c", "SELECT count(*) FROM (SELECT  <c> WHERE <f>) AS \"c\"".to_owned()),
        ("TABLE c", format!("SELECT * FROM ({all}) AS \"c\"")),
        ("SELECT email FROM U&\"!0063\" UESCAPE '!'", "SELECT email FROM (SELECT <m> <c> WHERE <f>) AS \"c\"".to_owned()),
        // Fenced, with the condition that cannot tell repeated inside.
        (
            "SELECT n FROM c WHERE id = 1 AND lower(t) = 'x'",
            "SELECT n FROM (SELECT g.\"id\", g.\"t\", g.\"n\" <c> WHERE <f> AND (\"g\".\"id\" == (1)) OFFSET 0) AS \"c\" WHERE id = 1 AND lower(t) = 'x'".to_owned(),
        ),
        (
            "SELECT n FROM c WHERE $1 = id AND n + 1 = 2",
            "SELECT n FROM (SELECT g.\"id\", g.\"n\" <c> WHERE <f> AND ($1 == \"g\".\"id\") OFFSET 0) AS \"c\" WHERE $1 = id AND n + 1 = 2".to_owned(),
        ),
        // A parameter used twice, a masked column, the nullable side: not repeated.
        (
            "SELECT $1 FROM c WHERE id = $1 AND n + 1 = 2",
            "SELECT $1 FROM (SELECT g.\"id\", g.\"n\" <c> WHERE <f> OFFSET 0) AS \"c\" WHERE id = $1 AND n + 1 = 2".to_owned(),
        ),
        (
            "SELECT n FROM c WHERE email = 'x'",
            "SELECT n FROM (SELECT <m>, g.\"n\" <c> WHERE <f> OFFSET 0) AS \"c\" WHERE email = 'x'".to_owned(),
        ),
        (
            "SELECT n FROM plain LEFT JOIN c ON c.id = plain.id WHERE c.id = 3 AND n + 1 = 2",
            "SELECT n FROM plain LEFT JOIN (SELECT g.\"id\", g.\"n\" <c> WHERE <f> OFFSET 0) AS \"c\" ON c.id = plain.id WHERE c.id = 3 AND n + 1 = 2".to_owned(),
        ),
        ("COPY c (id, email) TO STDOUT", format!("COPY (SELECT \"id\", \"email\" FROM ({}) AS \"c\") TO STDOUT", all.replace("FROM \"public\"", "FROM ONLY \"public\"").replace("<c>", "FROM ONLY \"public\".\"c\" AS g"))),
        // The grammar repeats the source for each column.
        (
            "UPDATE plain SET (id, x) = (SELECT n, email FROM c)",
            "UPDATE plain SET (id, x) = (SELECT n, email FROM (SELECT g.\"id\", <m>, g.\"n\" <c> WHERE <f>) AS \"c\")".to_owned(),
        ),
        // The subquery has no schema.
        (
            "SELECT \"public\".\"c\".\"id\", public . c.email FROM public.c WHERE (\"public\".\"c\".\"id\" = $1 AND n + 1 = 2)",
            "SELECT \"c\".\"id\", c.email FROM (SELECT g.\"id\", <m>, g.\"n\" <c> WHERE <f> AND (\"g\".\"id\" == $1) OFFSET 0) AS \"c\" WHERE (\"c\".\"id\" = $1 AND n + 1 = 2)".to_owned(),
        ),
        ("SELECT U&\"publi!0063\" UESCAPE '!' . c.* FROM c", format!("SELECT c.* FROM ({all}) AS \"c\"")),
        (
            "SELECT (SELECT n FROM c WHERE public.c.id = 1) FROM c WHERE public.c.id = 2",
            "SELECT (SELECT n FROM (SELECT g.\"id\", g.\"n\" <c> WHERE <f>) AS \"c\" WHERE c.id = 1) FROM (SELECT g.\"id\", g.\"n\" <c> WHERE <f>) AS \"c\" WHERE c.id = 2".to_owned(),
        ),
        ("PREPARE p AS SELECT n FROM c", "PREPARE p AS SELECT n FROM (SELECT g.\"n\" <c> WHERE <f>) AS \"c\"".to_owned()),
        ("EXPLAIN (COSTS OFF) SELECT n FROM c", "EXPLAIN (COSTS OFF) SELECT n FROM (SELECT g.\"n\" <c> WHERE <f>) AS \"c\"".to_owned()),
    ];
    for (sql, expected) in cases {
        let rewritten = rewrite(sql).unwrap().unwrap();
        assert_eq!(short(&rewritten), expected, "{sql}");
    }
}

#[test]
fn names_below_an_aliased_join_are_never_taken_for_its_columns() {
    let conditions = "c.id IS NOT NULL AND c.n = 3 AND lower(c.t) = 'x'";
    let cases = [
        "SELECT 1 FROM (c CROSS JOIN (VALUES (1)) v) AS j(a, b, d, e, f), \
         LATERAL (SELECT a AS id, d AS t, e AS n) c WHERE ",
        "SELECT 1 FROM (c CROSS JOIN plain) AS j, plain AS c WHERE ",
    ];
    for sql in cases {
        for condition in ["c.id IS NOT NULL", "c.n = 3", conditions] {
            let sql = format!("{sql}{condition}");
            let rewritten = rewrite(&sql).unwrap().unwrap();
            assert!(short(&rewritten).contains("WHERE <f> OFFSET 0)"), "{sql}: {rewritten}");
        }
    }
}

#[test]
fn columns_generated_from_a_masked_one_are_masked_with_it() {
    let ddl = "
        CREATE TABLE c (id int, t text, email text,
                        up text GENERATED ALWAYS AS (upper(email)) STORED,
                        twice int GENERATED ALWAYS AS (id * 2) STORED);
        CREATE TABLE kid (id int, t text, email text, twice int GENERATED ALWAYS AS (
                        length(email)) STORED) INHERITS (c);";
    let hidden = "NULL::\"pg_catalog\".\"text\" AS \"up\"";
    let rewritten = |sql: &str| rewrite_in(ddl, sql).unwrap().unwrap();
    assert!(rewritten("SELECT up FROM c").contains(hidden));
    // A row of the child would show the length of what is masked.
    assert!(rewritten("SELECT twice FROM c").contains("AS \"twice\" FROM"));
    let alone = ddl.split_inclusive(';').next().unwrap();
    let shown = rewrite_in(alone, "SELECT twice FROM c").unwrap().unwrap();
    assert!(shown.contains("SELECT g.\"twice\" FROM"), "{shown}");
    for sql in ["UPDATE c SET id = 1 RETURNING up", "DELETE FROM c WHERE c.up = 'X'"] {
        assert!(rewrite_in(alone, sql).unwrap_err().contains("up reads a masked"), "{sql}");
    }
    let fenced = rewrite_in(alone, "SELECT id FROM c WHERE up = 'X'").unwrap().unwrap();
    assert!(fenced.contains("OFFSET 0"), "{fenced}");
}

#[test]
fn writes_reach_only_rows_that_pass() {
    let filter = "(\"c\".\"t\" == 'acme')";
    let cases = [
        ("DELETE FROM c", format!("DELETE FROM c WHERE {filter}")),
        ("DELETE FROM c RETURNING id", format!("DELETE FROM c WHERE {filter} RETURNING id")),
        ("DELETE FROM c WHERE id = 1", format!("DELETE FROM c WHERE ({filter}) AND ( id = 1)")),
        (
            "UPDATE c SET n = 2 WHERE id = 1 AND 1/n = 1 RETURNING id",
            format!("UPDATE c SET n = 2 WHERE (\"c\".\"id\" == (1)) AND CASE WHEN {filter} THEN ( id = 1 AND 1/n = 1) ELSE false END RETURNING id"),
        ),
        (
            "WITH d AS (DELETE FROM c AS k WHERE 1/n = 1 -- x\n) SELECT 1",
            "WITH d AS (DELETE FROM c AS k WHERE CASE WHEN (\"k\".\"t\" == 'acme') THEN ( 1/n = 1) ELSE false END -- x\n) SELECT 1".to_owned(),
        ),
    ];
    for (sql, expected) in cases {
        let rewritten = rewrite(sql).unwrap().unwrap();
        assert_eq!(short(&rewritten), expected, "{sql}");
    }
    for sql in [
        "INSERT INTO c (id, t) VALUES (1, 'acme'), (2, 'acme') RETURNING id",
        "INSERT INTO c VALUES (1, 'acme', 'x', 2)",
        "INSERT INTO c (id, t) VALUES (1, 'acme'::text), (2, CAST('acme' AS varchar))",
    ] {
        assert_eq!(rewrite(sql), Ok(None), "{sql}");
    }
}

#[test]
fn what_cannot_be_carried_out_is_refused() {
    let cases = [
        ("INSERT INTO c (id, t) VALUES (1, 'acme'), (2, 'other')", "must prove"),
        ("INSERT INTO c (id) VALUES (1)", "does not set t"),
        ("INSERT INTO c (id, t) SELECT 1, 'acme'", "not constants"),
        ("INSERT INTO c DEFAULT VALUES", "not constants"),
        ("INSERT INTO c (id, t) VALUES (1, $1)", "must prove"),
        ("INSERT INTO c (id, t) VALUES (1, 'acme'::varchar(2))", "must prove"),
        ("INSERT INTO c (id, t) VALUES (1, 'acme'::app.text)", "must prove"),
        ("INSERT INTO c (id, t) VALUES (1, 'acme'::text::name)", "must prove"),
        ("INSERT INTO c (id, t) VALUES (1, 'other'::text)", "must prove"),
        (
            "INSERT INTO c (id, t) VALUES (1, 'acme') ON CONFLICT (id) DO UPDATE SET n = 1",
            "on conflict",
        ),
        ("INSERT INTO c (id, t) VALUES (1, 'acme') ON CONFLICT (email) DO NOTHING", "email reads"),
        ("INSERT INTO c (id, t) VALUES (1, 'acme') RETURNING *", "RETURNING * reads"),
        ("UPDATE c SET t = 'other'", "cannot be changed"),
        ("UPDATE c SET t = 'ac' || 'me'", "cannot be changed"),
        ("UPDATE c SET n = length(email)", "email reads"),
        ("UPDATE c k SET n = 1 RETURNING (k).email", "k reads"),
        ("UPDATE c k SET n = 1 RETURNING k.to_json", "k.to_json reads"),
        ("UPDATE c SET n = 1 RETURNING c.*", "c.* reads"),
        ("UPDATE c SET n = 1 RETURNING WITH (OLD AS o) o.email", "RETURNING WITH reads"),
        ("UPDATE c SET n = 1 RETURNING old", "old reads"),
        ("DELETE FROM c WHERE CURRENT OF k", "current of"),
        ("MERGE INTO c USING plain p ON p.id = c.id WHEN MATCHED THEN DELETE", "merge into"),
        ("COPY c FROM STDIN", "copy into"),
        ("TRUNCATE c", "cannot be used"),
        ("SELECT * FROM c TABLESAMPLE SYSTEM (1)", "tablesample"),
        ("SELECT db.public.c.id FROM c", "named with its schema"),
        ("SELECT public.c.id FROM c k", "named with its schema"),
        ("SELECT public.c.id FROM c WHERE EXISTS (SELECT FROM plain c)", "named with its schema"),
        ("SELECT public.c.id FROM c, LATERAL (SELECT 1) AS s, (SELECT 1) AS c", "with its schema"),
        ("UPDATE c SET n = (SELECT max(public.c.n) FROM c)", "named with its schema"),
        ("SELECT ctid, * FROM c", "system column ctid"),
        ("EXPLAIN SELECT * FROM c", "explain"),
        ("EXPLAIN (COSTS OFF, ANALYZE) SELECT * FROM c", "analyze"),
        ("SELECT * FROM v", "reads public.c"),
        ("SELECT * FROM v, c", "reads public.c"),
        ("SELECT 1", "is not named"),
    ];
    for (sql, expected) in cases {
        let refused = rewrite(sql).unwrap_err();
        assert!(refused.contains(expected), "{sql}: {refused}");
    }
}

#[test]
fn masks_fit_their_types_or_are_refused_at_load() {
    let catalog = Catalog::from_ddl("db", DDL).unwrap();
    let path = catalog.relation("public", "all_types").unwrap().path.clone();
    let constant = |text: &str| MaskFn::Constant(text.into());
    let partial = || MaskFn::Partial { prefix: 1, suffix: 1, fill: '*' };
    let bucket = |width| MaskFn::Bucket { width, offset: 0 };
    let cases = [
        ("o", MaskFn::Nullify, true),
        ("o", constant("{}"), false),
        ("v", constant("any length at all"), true),
        ("a", constant("32768"), false),
        ("b", constant("1"), false),
        ("d", constant("1900-01-01"), true),
        ("d", constant("now"), false),
        ("u", constant("00000000-0000-0000-0000-000000000000"), true),
        ("v", partial(), true),
        ("a", partial(), false),
        ("v", MaskFn::PanBinLast4 { bin: 6 }, true),
        ("v", MaskFn::PanBinLast4 { bin: 7 }, false),
        ("b", MaskFn::PanBinLast4 { bin: 6 }, false),
        ("ts", MaskFn::TruncateDate(DateUnit::Month), true),
        ("v", MaskFn::TruncateDate(DateUnit::Month), false),
        ("a", bucket(10), true),
        ("a", bucket(0), false),
        ("f", bucket(10), true),
        ("v", bucket(10), false),
        ("v", MaskFn::HashKeyed, false),
        ("v", MaskFn::FpeFf1(Alphabet::Digits), false),
        ("v", MaskFn::TokenHmac(Token::new(26, "").unwrap()), false),
        ("missing", MaskFn::Nullify, false),
    ];
    for (column, function, fits) in cases {
        let checked = check_mask(&catalog, &path, column, &function);
        assert_eq!(checked.is_ok(), fits, "{column} {function:?}: {checked:?}");
    }
}
