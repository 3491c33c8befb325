use super::*;

fn parse(text: &str) -> Node {
    Document::parse("f.yaml", text).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn problems_of(text: &str) -> Vec<String> {
    match Document::parse("f.yaml", text) {
        Ok(node) => panic!("accepted: {node:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    let found = problems_of(text);
    assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}: {found:?}");
}

#[test]
fn refuses_what_hides_meaning_and_names_the_place() {
    check_refused("a: &x 1", "f.yaml:1:");
    check_refused("a: &x 1", "anchors");
    check_refused("a: [*x]", "f.yaml:1:");
    check_refused("a: !!str 1", "tags");
    check_refused("a: 1\n---\nb: 2", "second document");
    check_refused("a: 1\nb: 2\na: 3", "f.yaml:3:1: error: key `a` is given twice");
    check_refused("a: {b: 1", "f.yaml:");
    check_refused("? [a]\n: 1", "plain name");
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |depth: usize| format!("a: {}{}", "[".repeat(depth), "]".repeat(depth));
    parse(&nested(Document::DEPTH_MAX - 1));
    check_refused(&nested(Document::DEPTH_MAX), "nested deeper");
    // Far above, the scanner's own limit comes first.
    check_refused(&nested(100_000), "recursion limit");
    check_refused(&"# long\n".repeat(200_000), "longer than");
}

#[test]
fn alias_bombs_end_at_the_first_anchor() {
    let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]";
    assert_eq!(problems_of(bomb).len(), 1);
}

#[test]
fn an_empty_file_is_an_empty_mapping() {
    for text in ["", "# only a comment\n", "---\n"] {
        let mut problems = Problems::default();
        let node = parse(text);
        let reader = MapReader::new(&node, &mut problems).unwrap();
        reader.finish(&mut problems);
        assert!(problems.is_empty(), "{problems:?}");
    }
}

#[test]
fn every_problem_of_a_mapping_is_reported_with_its_place() {
    let node = parse("mach: 1\nport: many\nmode: enforced\n");
    let mut problems = Problems::default();
    let mut map = MapReader::new(&node, &mut problems).unwrap();
    let _ = map.optional("match");
    let _ = map.required("id", &mut problems);
    let _ = map.optional("port").and_then(|node| node.u64(&mut problems));
    let modes = [("enforce", 1), ("warn", 2)];
    let _ = map.optional("mode").and_then(|node| node.one_of(&modes, &mut problems));
    map.finish(&mut problems);
    let found: Vec<String> = problems.into_sorted().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "f.yaml:1:1: error: `id` is missing",
            "f.yaml:1:1: error: unknown key `mach`, did you mean `match`?\n  \
             help: known here: match, id, port, mode",
            "f.yaml:2:7: error: expected a whole number, found a value",
            "f.yaml:3:7: error: unknown value `enforced`, did you mean `enforce`?\n  \
             help: one of: enforce, warn",
        ]
    );
}

#[test]
fn keys_of_later_versions_are_refused_by_name() {
    let node = parse("when: x");
    let mut problems = Problems::default();
    let mut map = MapReader::new(&node, &mut problems).unwrap();
    map.unsupported(&["when", "require"], &mut problems);
    map.finish(&mut problems);
    let found = problems.into_sorted();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message, "`when` is not enforced yet by this version");
}

#[test]
fn scalars_are_typed_on_demand() {
    let read = |text: &str| parse(&format!("v: {text}"));
    let p = &mut Problems::default();
    let value = |node: &Node| node.entries(&mut Problems::default()).unwrap()[0].value.clone();
    assert_eq!(value(&read("yes")).string(p), Some("yes"));
    assert_eq!(value(&read("0012")).string(p), Some("0012"));
    assert_eq!(value(&read("true")).bool(p), Some(true));
    assert_eq!(value(&read("'true'")).bool(p), None);
    assert_eq!(value(&read("yes")).bool(p), None);
    assert_eq!(value(&read("42")).u64(p), Some(42));
    assert_eq!(value(&read("+42")).u64(p), None);
    assert_eq!(value(&read("-42")).i64(p), Some(-42));
    assert_eq!(value(&read("250ms")).duration(p), Some(Duration::from_millis(250)));
    assert_eq!(value(&read("1h")).duration(p), Some(Duration::from_secs(3600)));
    assert_eq!(value(&read("5")).duration(p), None, "a unit is required");
    assert_eq!(value(&read("99999999999999999999d")).duration(p), None);
    assert_eq!(value(&read("64MiB")).bytes(p), Some(64 << 20));
    assert_eq!(value(&read("10")).bytes(p), Some(10));
    assert_eq!(value(&read("10MB")).bytes(p), None, "decimal units are ambiguous");
    let list = value(&read("[a, 'b']"));
    let texts: Vec<&str> = list.strings(p).unwrap().into_iter().map(|(text, _)| text).collect();
    assert_eq!(texts, ["a", "b"]);
    assert!(value(&read("[a, [b]]")).strings(p).is_none());
    assert!(value(&read("a")).strings(p).is_none());
}
