//! The layer table of `docs/ARCHITECTURE.md`, executed.
//!
//! Reads the source as text: crude, but it needs no tool, and what it finds is what a reader sees.

#![expect(clippy::unwrap_used, reason = "a test: what cannot be read is a failure of it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module, layer, and the crate modules it may use besides itself.
const LAYERS: &[(&str, u8, &[&str])] = &[
    ("name", 0, &[]),
    ("facts", 0, &["name"]),
    ("obligation", 0, &["name", "facts"]),
    ("policy", 1, &["name", "facts", "obligation"]),
    ("mask", 1, &["name", "facts", "obligation"]),
    ("wire", 1, &[]),
    ("analysis", 2, &["name", "facts", "obligation"]),
    ("event", 2, &["name", "facts", "obligation", "policy"]),
    ("session", 3, &["name", "facts", "obligation", "policy", "mask", "wire", "analysis", "event"]),
];

/// Layer 4 may use everything below it and its own kind.
const SHELL: &[&str] =
    &["admin", "audit", "auth", "cli", "config", "metrics", "proxy", "reload", "tls"];

/// What only the shell may touch.
const WORLD: &[&str] = &[
    "tokio",
    "std::fs",
    "std::process",
    "std::env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "Instant::now",
    "SystemTime::now",
];

/// Words of protocols; policy knows none.
const PROTOCOL_WORDS: &[&str] = &["postgres", "redis", "sql"];

/// Longest source file in lines, with the exceptions and their reasons.
const LINES_MAX: usize = 600;
const LONG_FILES: &[(&str, &str)] = &[];

struct Source {
    path: String,
    /// The top-level module.
    module: String,
    /// Comments blanked out, and everything from the unit tests on.
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let read = |file: PathBuf| {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let module = path.split(['/', '.']).next().unwrap().to_owned();
        let lines = text.lines().count();
        Source { module, code: code_of(&text), lines, path }
    };
    files.into_iter().map(read).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// The text without comments and without inline unit tests.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        if line.trim_start() == "mod tests {" {
            break;
        }
        let bare = line.trim_start();
        if !bare.starts_with("//") {
            code.push_str(line.split(" // ").next().unwrap_or(line));
        }
        code.push('\n');
    }
    code
}

/// A file of unit tests: it may use what it likes, it is not shipped.
fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("tests/") || path.ends_with("toy.rs")
}

/// Every `X` of `crate::X`, `crate::{X…, Y…}` included.
fn used_modules(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code.get(..at).unwrap_or_default();
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = code.get(at + "crate::".len()..).unwrap_or_default();
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut item) = (1, String::new());
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => {
                        used.insert(first_word(&item));
                        item.clear();
                        continue;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                item.push(c);
            }
            used.insert(first_word(&item));
        } else {
            used.insert(first_word(rest));
        }
    }
    used.retain(|name| !name.is_empty());
    used
}

fn first_word(text: &str) -> String {
    text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn layer_problems(source: &Source) -> Vec<String> {
    let Source { path, module, code, .. } = source;
    let Some((_, _, allowed)) = LAYERS.iter().find(|(name, ..)| name == module) else {
        return Vec::new();
    };
    let known: Vec<&str> =
        LAYERS.iter().map(|(name, ..)| *name).chain(SHELL.iter().copied()).collect();
    let used = used_modules(code);
    let forbidden = used.iter().filter(|used| {
        let used = used.as_str();
        known.contains(&used) && used != module && !allowed.contains(&used)
    });
    let mut problems: Vec<String> =
        forbidden.map(|used| format!("{path}: {module} must not use {used}")).collect();
    let touched = WORLD.iter().filter(|word| code.contains(*word));
    problems.extend(touched.map(|word| format!("{path}: {module} must not touch {word}")));
    problems
}

#[test]
fn modules_use_only_what_is_below_them() {
    let sources = sources();
    let problems: Vec<String> =
        sources.iter().filter(|source| !is_test(&source.path)).flat_map(layer_problems).collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn every_module_has_a_layer() {
    for Source { module, path, .. } in sources() {
        let known = LAYERS.iter().any(|(name, ..)| *name == module)
            || SHELL.contains(&module.as_str())
            || ["lib", "main"].contains(&module.as_str());
        assert!(known, "{path}: module {module} is in no layer");
    }
}

#[test]
fn policy_knows_no_protocol() {
    let mut problems = Vec::new();
    for Source { path, module, code, .. } in sources() {
        if module != "policy" || is_test(&path) {
            continue;
        }
        let lower = code.to_lowercase();
        for word in PROTOCOL_WORDS {
            if lower.contains(word) {
                problems.push(format!("{path}: policy must not say `{word}`"));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn files_stay_short() {
    for Source { path, lines, .. } in sources() {
        let excepted = LONG_FILES.iter().any(|(file, _)| *file == path);
        assert!(lines <= LINES_MAX || excepted, "{path}: {lines} lines, more than {LINES_MAX}");
        assert!(lines > LINES_MAX || !excepted, "{path}: the exception is not needed any more");
    }
}

#[test]
fn security_relevant_enums_are_matched_in_full() {
    let sources = sources();
    for root in ["analysis/mod.rs", "policy/mod.rs", "session/mod.rs"] {
        let source = sources.iter().find(|source| source.path == root).unwrap();
        let denied = source.code.contains("#![deny(clippy::wildcard_enum_match_arm)]");
        assert!(denied, "{root}: `#![deny(clippy::wildcard_enum_match_arm)]` is missing");
    }
}

#[test]
fn this_test_can_fail() {
    let find = |module: &str, code: &str| {
        let code = code_of(code);
        let (path, module) = (format!("{module}/x.rs"), module.to_owned());
        layer_problems(&Source { path, module, code, lines: 1 })
    };
    let cases = [
        ("policy", "use crate::facts::Facts;", None),
        ("policy", "use crate::session::Turn;", Some("must not use session")),
        (
            "policy",
            "use crate::{name::RuleId, session::{gate::Plan}};",
            Some("must not use session"),
        ),
        ("wire", "fn f(x: crate::facts::Facts) {}", Some("must not use facts")),
        ("wire", "// crate::facts is not for us", None),
        ("wire", "use x; // crate::facts is not for us", None),
        ("analysis", "let now = Instant::now();", Some("must not touch Instant::now")),
        ("session", "use tokio::net;", Some("must not touch tokio")),
        ("session", "use std::net::SocketAddr;", None),
        ("session", "mod tests {\nuse std::fs;\n}", None),
        ("proxy", "use crate::session; use tokio::net;", None),
    ];
    for (module, code, expected) in cases {
        let found = find(module, code);
        match expected {
            None => assert!(found.is_empty(), "{module}: {code}: {found:?}"),
            Some(part) => assert!(found.iter().any(|one| one.contains(part)), "{code}: {found:?}"),
        }
    }
}
