//! Plans: what is refused before policy is asked, and what a plan is kept for.

use super::*;
use crate::analysis::Analyzer;
use crate::event::Now;
use crate::policy::{Login, SourceFile, Throttles};

const RULES: &str = "
version: 1
rules:
  - {id: hide, match: {users: [maria], columns: [public.customers.email]}, mask: nullify}
";
const TABLES: &str = "CREATE TABLE customers (id int, email text); CREATE TABLE plain (a int);";

struct World {
    rules: ActiveRules,
    analyzer: Analyzer,
    plans: PlanCache,
    throttles: Throttles,
}

impl World {
    fn new() -> Self {
        let files = [SourceFile { name: "r.yaml".into(), text: RULES.into() }];
        let (set, _warnings) = RuleSet::compile(&files, None).unwrap();
        let digest = set.digest().to_owned();
        Self {
            rules: ActiveRules { set, predicates: Predicates::default(), digest, generation: 1 },
            analyzer: Analyzer::default(),
            plans: PlanCache::new(1 << 20),
            throttles: Throttles::default(),
        }
    }

    fn turn(&self) -> Turn<'_> {
        Turn {
            rules: &self.rules,
            analyzer: &self.analyzer,
            plans: &self.plans,
            throttles: &self.throttles,
            now: Now { wall_us: 0, mono_us: 0 },
        }
    }

    fn plan(&self, user: &str, path: &[&str], text: &[u8]) -> Arc<Plan> {
        let login = Login {
            datasource: "d".into(),
            protocol: crate::name::Protocol::POSTGRESQL,
            default_deny: false,
            user: user.into(),
            database: "shop".into(),
            address: None,
            application: String::new(),
            credential: crate::policy::Credential::default(),
        };
        let class = self.rules.set.classify(self.rules.set.identify(login));
        let path = SearchPath::Known(path.iter().map(|name| Arc::from(*name)).collect());
        let dialect = Dialect::default();
        let key = ScopeKey::new(self.turn(), &class, "shop", &path, dialect);
        let scope = Scope { class: &class, database: "shop", path: &path, dialect, key };
        plan(self.turn(), &scope, text)
    }
}

fn code(plan: &Plan) -> &str {
    match &plan.verdict {
        Verdict::Forward => "forward",
        Verdict::Rewrite(_) => "rewrite",
        Verdict::Refuse(refusal) => refusal.code,
    }
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let world = World::new();
    let before = world.plan("maria", &["public"], b"SELECT email FROM customers");
    assert_eq!((code(&before), before.wants_catalog), ("57P03", true), "no catalog yet");
    assert_eq!(code(&world.plan("maria", &["public"], b"SELECT 1")), "forward");
    assert_eq!(code(&world.plan("app", &["public"], b"SELECT email FROM customers")), "forward");
    world.analyzer.install(Catalog::from_ddl("shop", TABLES).unwrap());
    let cases: [(&[u8], &str); 6] = [
        (b"SELECT email FROM customers", "rewrite"),
        (b"SELECT a FROM plain", "forward"),
        (b"SELECT a FROM nowhere", "42P01"),
        (b"SELEC", "42601"),
        (b"SELECT '\xff'", "22021"),
        (b"SELECT email FROM archive.customers", "42P01"),
    ];
    for (text, expected) in cases {
        let shown = String::from_utf8_lossy(text);
        assert_eq!(code(&world.plan("maria", &["public"], text)), expected, "{shown}");
    }
    // What is not understood is refused to everybody.
    assert_eq!(code(&world.plan("app", &["public"], b"SELEC")), "42601");
}

#[test]
fn a_plan_is_kept_for_exactly_what_it_depends_on() {
    let world = World::new();
    world.analyzer.install(Catalog::from_ddl("shop", TABLES).unwrap());
    let text = b"SELECT email FROM public.customers";
    let first = world.plan("maria", &["public"], text);
    assert!(Arc::ptr_eq(&first, &world.plan("maria", &["public"], text)));
    assert!(!Arc::ptr_eq(&first, &world.plan("maria", &["other", "public"], text)), "the path");
    assert!(!Arc::ptr_eq(&first, &world.plan("app", &["public"], text)), "the identity");
    world.analyzer.install(Catalog::from_ddl("shop", "CREATE TABLE customers (id int)").unwrap());
    assert!(!Arc::ptr_eq(&first, &world.plan("maria", &["public"], text)), "the catalog");
    let (hits, misses) = world.plans.hits_and_misses();
    assert_eq!((hits, misses), (1, 4));
}

#[test]
fn no_literal_reaches_the_record() {
    let world = World::new();
    world.analyzer.install(Catalog::from_ddl("shop", TABLES).unwrap());
    for text in ["SELECT 'canary4711' FROM plain", "SELECT 'canary4711", "canary4711 canary4711"] {
        let plan = world.plan("maria", &["public"], text.as_bytes());
        assert!(!format!("{:?}", plan.record).contains("4711"), "{:?}", plan.record);
    }
}
