//! What may enter the binary, checked offline: licences, banned crates, sources, advisories.
//!
//! Reads `deny.toml`, the same file `cargo deny` reads, and `Cargo.lock`. Why both exist is in
//! `docs/adr/0006`.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command;

    use serde_json::Value;

    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

    /// One `[[package]]` of `Cargo.lock`.
    #[derive(Default)]
    struct Locked {
        name: String,
        version: String,
        source: Option<String>,
        dependencies: Vec<String>,
    }

    fn read(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn locked() -> Vec<Locked> {
        let text = read("Cargo.lock");
        let packages: Vec<Locked> = text.split("[[package]]").skip(1).map(locked_package).collect();
        assert!(packages.len() > 50, "Cargo.lock was not understood");
        packages
    }

    fn locked_package(text: &str) -> Locked {
        let mut package = Locked::default();
        for line in text.lines() {
            match line.split_once(" = ") {
                Some(("name", value)) => package.name = unquote(value),
                Some(("version", value)) => package.version = unquote(value),
                Some(("source", value)) => package.source = Some(unquote(value)),
                _ if line.starts_with(" \"") => {
                    // ` "name",` or ` "name version",`
                    let entry = unquote(line.trim().trim_end_matches(','));
                    package.dependencies.extend(entry.split(' ').next().map(str::to_owned));
                }
                _ => {}
            }
        }
        package
    }

    fn unquote(text: &str) -> String {
        text.trim_matches('"').to_owned()
    }

    /// Lines of one section of `deny.toml`, comments dropped.
    fn section(name: &str) -> Vec<String> {
        let text = read("deny.toml");
        let head = format!("[{name}]");
        let lines = text.lines().skip_while(|line| *line != head).skip(1);
        let body: Vec<String> = lines
            .take_while(|line| !line.starts_with('['))
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        assert!(!body.is_empty(), "deny.toml has no [{name}]");
        body
    }

    /// The quoted words of a line.
    fn quoted(line: &str) -> Vec<String> {
        line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// Whether an SPDX expression is satisfied by the allowed licences. The old `MIT/Apache-2.0`
    /// spelling means OR.
    fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
        let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut position = 0;
        let result = any_of(&words, &mut position, allowed);
        assert_eq!(position, words.len(), "not understood: {expression}");
        result
    }

    fn any_of(words: &[&str], position: &mut usize, allowed: &BTreeSet<String>) -> bool {
        let mut result = all_of(words, position, allowed);
        while words.get(*position) == Some(&"OR") {
            *position += 1;
            result |= all_of(words, position, allowed);
        }
        result
    }

    fn all_of(words: &[&str], position: &mut usize, allowed: &BTreeSet<String>) -> bool {
        let mut result = one(words, position, allowed);
        while words.get(*position) == Some(&"AND") {
            *position += 1;
            result &= one(words, position, allowed);
        }
        result
    }

    fn one(words: &[&str], position: &mut usize, allowed: &BTreeSet<String>) -> bool {
        let word = words.get(*position).expect("a licence");
        *position += 1;
        if *word == "(" {
            let result = any_of(words, position, allowed);
            assert_eq!(words.get(*position), Some(&")"), "closing parenthesis");
            *position += 1;
            return result;
        }
        if words.get(*position) == Some(&"WITH") {
            let exception = words.get(*position + 1).expect("an exception");
            *position += 2;
            return allowed.contains(&format!("{word} WITH {exception}"));
        }
        allowed.contains(*word)
    }

    fn numbers(version: &str) -> Vec<u64> {
        let core = version.split(['-', '+']).next().unwrap_or_default();
        core.split('.').map(|part| part.parse().expect("a version number")).collect()
    }

    #[test]
    fn every_crate_offers_an_allowed_licence() {
        let allowed: BTreeSet<String> =
            section("licenses").iter().flat_map(|line| quoted(line)).collect();
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--offline", "--locked"])
            .args(["--filter-platform", &host])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        assert!(packages.len() > 50);
        let refused: Vec<String> = packages
            .iter()
            .filter(|package| {
                !package["license"].as_str().is_some_and(|licence| satisfied(licence, &allowed))
            })
            .map(|package| {
                format!("{} {}: {}", package["name"], package["version"], package["license"])
            })
            .collect();
        assert_eq!(refused, [""; 0], "licences that deny.toml does not allow");
    }

    #[test]
    fn no_banned_crate_is_in_the_tree() {
        let packages = locked();
        for line in section("bans").iter().filter(|line| line.starts_with("{ crate")) {
            let (entry, wrappers) = line.split_once("wrappers").unwrap_or((line, ""));
            let banned = quoted(entry).swap_remove(0);
            let wrappers = quoted(wrappers);
            if !packages.iter().any(|package| package.name == banned) {
                continue;
            }
            let users: Vec<&str> = packages
                .iter()
                .filter(|package| package.dependencies.contains(&banned))
                .map(|package| package.name.as_str())
                .filter(|name| !wrappers.iter().any(|wrapper| wrapper == name))
                .collect();
            assert!(
                users.is_empty() && !wrappers.is_empty(),
                "{banned} is banned but used by {users:?}: {line}"
            );
        }
    }

    #[test]
    fn there_is_one_tls_provider() {
        let providers = ["ring", "aws-lc-rs", "rustls-openssl", "boring", "rustls-rustcrypto"];
        let present: Vec<String> = locked()
            .into_iter()
            .map(|package| package.name)
            .filter(|name| providers.contains(&name.as_str()))
            .collect();
        assert_eq!(present, ["ring"]);
    }

    #[test]
    fn everything_comes_from_the_registry() {
        for package in locked() {
            let own = package.name == env!("CARGO_PKG_NAME");
            let expected = (!own).then_some(REGISTRY);
            assert_eq!(package.source.as_deref(), expected, "source of {}", package.name);
        }
    }

    #[test]
    fn no_version_has_a_known_advisory() {
        let packages = locked();
        let text = read("tests/advisories.tsv");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split('\t').collect();
            let [id, name, fixed, summary] = fields[..] else { panic!("four fields: {line}") };
            for package in packages.iter().filter(|package| package.name == name) {
                assert!(
                    numbers(&package.version) >= numbers(fixed),
                    "{name} {} has {id} ({summary}); fixed in {fixed}",
                    package.version
                );
            }
        }
    }

    #[test]
    fn licence_expressions_are_read_as_spdx_means_them() {
        let allowed = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"];
        let allowed: BTreeSet<String> = allowed.map(str::to_owned).into();
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("(GPL-3.0 OR MIT) AND Zlib", true),
            ("MIT OR GPL-3.0 AND LGPL-2.1", true),
            ("(MIT OR GPL-3.0) AND LGPL-2.1", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
        ] {
            assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
        }
    }
}
