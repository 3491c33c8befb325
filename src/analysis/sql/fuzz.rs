//! What must hold for any text, driven by fuzzers and by a test over the committed corpus.

use std::sync::{Arc, LazyLock};

use crate::analysis::{AnalyzerLimits, Catalog, SearchPath};
use crate::facts::Certainty;
use crate::name::RuleId;
use crate::obligation::{ColumnMask, Governance, MaskFn, RowFilter};

use super::tree::Kind;
use super::{Predicates, analyze, normalize, parse};

/// Tables every input meets.
const DDL: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, tenant_id text, name text, email text,
                            card_no text, birth_date date, city text, notes text);
    CREATE TABLE orders (id int PRIMARY KEY, tenant_id text, customer_id int, amount numeric,
                         status text, placed_at timestamptz);
    CREATE TABLE other.customers (id int, email text);";

struct World {
    catalog: Catalog,
    governances: Vec<Governance>,
    predicates: Predicates,
}

static WORLD: LazyLock<Option<World>> = LazyLock::new(|| {
    let catalog = Catalog::from_ddl("db", DDL).ok()?;
    let rule = RuleId("rule".into());
    let predicate: Arc<str> = "tenant_id = :identity.tenant".into();
    let predicates = Predicates::compile(std::iter::once((rule.clone(), &*predicate))).ok()?;
    let governances = ["customers", "orders"]
        .into_iter()
        .filter_map(|name| {
            let relation = Arc::clone(catalog.relation("public", name)?);
            let masked = ["email", "card_no", "notes"];
            let masks = relation
                .columns
                .iter()
                .filter(|column| masked.contains(&&***column))
                .map(|column| ColumnMask {
                    column: Arc::clone(column),
                    class: None,
                    function: MaskFn::PartialEmail { keep_domain: false },
                    rule: rule.clone(),
                })
                .collect();
            let filter = RowFilter {
                predicate: Arc::clone(&predicate),
                values: vec![("tenant".into(), "acme".into())],
                rule: rule.clone(),
            };
            Some(Governance { relation, masks, filters: vec![filter] })
        })
        .collect();
    Some(World { catalog, governances, predicates })
});

/// Analyses and rewrites a text under masks and filters.
///
/// # Panics
/// A rewritten text reads a governed relation in any other way than through our own subquery, is
/// not understood itself, or has another number of statements.
pub fn fuzz_rewrite(data: &[u8]) {
    let (Ok(text), Some(world)) = (std::str::from_utf8(data), &*WORLD) else { return };
    let path = SearchPath::Known(vec!["pg_catalog".into(), "public".into()]);
    let limits = AnalyzerLimits::default();
    drop(normalize(text));
    let parsed = analyze(text, Some(&world.catalog), &path, &limits);
    if parsed.facts.certainty != Certainty::Known {
        return;
    }
    let named = |governance: &&Governance| {
        parsed.facts.accesses.iter().any(|a| a.relation.path == governance.relation.path)
    };
    let governances: Vec<_> = world.governances.iter().filter(named).cloned().collect();
    let result = parsed.rewrite(text, &world.catalog, &governances, &world.predicates);
    let Ok(Some(rewritten)) = result else { return };
    let again = analyze(&rewritten.text, Some(&world.catalog), &path, &limits);
    assert_eq!(again.facts.certainty, Certainty::Known, "{}", rewritten.text);
    assert_eq!(again.statements, parsed.statements, "{}", rewritten.text);
    assert_eq!(again.effects, parsed.effects, "{}", rewritten.text);
    let bare = parse::on_deep_stack(&rewritten.text, || reads_bare(&rewritten.text, &limits));
    assert_eq!(bare, Some(false), "{text} became {}", rewritten.text);
}

/// Whether some FROM names a governed relation without the alias only our subqueries give it. Does
/// not use the walk, so that it can find its faults; common table expressions of these names
/// are left out by the caller's choice of inputs, targets of writes by their place.
fn reads_bare(text: &str, limits: &AnalyzerLimits) -> bool {
    let Ok(statements) = parse::parse(text, limits) else { return true };
    let shadowed = statements
        .iter()
        .any(|statement| statement.any(&mut |node| node.kind == Kind::CommonTableExpr));
    let bare = |node: &super::tree::Node| {
        node.kind == Kind::RangeVar
            && matches!(node.text("relname"), "customers" | "orders")
            && (node.text("schemaname") == "public"
                || node.text("schemaname").is_empty() && !shadowed)
            && node.child("alias").is_none_or(|alias| alias.text("aliasname") != "g")
    };
    statements.iter().any(|statement| {
        statement.any(&mut |node| {
            ["from_clause", "using_clause", "larg", "rarg", "source_relation"]
                .into_iter()
                .any(|field| node.nodes(field).chain(node.child(field)).any(&bare))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_corpus_keeps_the_invariant() {
        let mut count = 0;
        for entry in std::fs::read_dir("fuzz/corpus/sql_rewrite").unwrap() {
            fuzz_rewrite(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 10, "{count} inputs");
    }

    #[test]
    fn every_spelling_of_the_canary_corpus_keeps_the_invariant() {
        let corpus = std::fs::read_to_string("tests/corpus/canary.tsv").unwrap();
        let mut count = 0;
        for line in corpus.lines().filter(|line| !line.starts_with('#')) {
            let statement = line.splitn(4, '\t').nth(3).unwrap();
            fuzz_rewrite(statement.replace("\\n", "\n").replace("\\t", "\t").as_bytes());
            count += 1;
        }
        assert!(count >= 220, "{count} statements");
    }
}
