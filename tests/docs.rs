//! The documents name files and tests; both must exist.

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
    }

    fn documents() -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> =
            ["README.md", "CHANGELOG.md"].map(|name| root().join(name)).into();
        for folder in ["docs", "docs/adr"] {
            let entries = std::fs::read_dir(root().join(folder)).unwrap();
            all.extend(entries.map(|entry| entry.unwrap().path()));
        }
        all.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
        assert!(all.len() > 5);
        all
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Targets of `[text](target)` that point into the repository.
    fn links(text: &str) -> Vec<String> {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets
            .filter(|target| !target.starts_with("http") && !target.starts_with('#'))
            .map(|target| target.split('#').next().unwrap().to_owned())
            .collect()
    }

    /// `module::test` pairs in backquotes, as docs/SECURITY.md names integration tests.
    fn named_tests(text: &str) -> Vec<(String, String)> {
        let quoted = text.split('`').skip(1).step_by(2);
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        let pairs = quoted.filter_map(|name| name.split_once("::"));
        pairs
            .filter(|(module, test)| word(module) && word(test))
            .map(|(module, test)| (module.to_owned(), test.to_owned()))
            .collect()
    }

    #[test]
    fn every_link_leads_somewhere() {
        for document in documents() {
            for link in links(&read(&document)) {
                let target = document.parent().unwrap().join(&link);
                assert!(target.exists(), "{}: {link} does not exist", document.display());
            }
        }
    }

    #[test]
    fn every_test_named_as_an_answer_to_a_threat_exists() {
        let tests = named_tests(&read(&root().join("docs/SECURITY.md")));
        assert!(tests.len() > 20, "docs/SECURITY.md was not understood");
        for (module, test) in tests {
            let source = read(&root().join(format!("tests/it/{module}.rs")));
            assert!(source.contains(&format!("fn {test}()")), "{module}::{test} does not exist");
        }
    }

    #[test]
    fn every_quoted_test_file_exists() {
        let text = read(&root().join("docs/SECURITY.md"));
        for name in text.split('`').skip(1).step_by(2).filter(|name| name.starts_with("tests/")) {
            assert!(root().join(name).exists(), "{name} does not exist");
        }
    }
}

/// What docs/RULES.md shows is a rule set that does what it says, and so are the packs.
#[cfg(feature = "serve")]
#[cfg(test)]
mod rules {
    use std::path::Path;

    use portcullis::analysis::sql::analyze;
    use portcullis::analysis::{AnalyzerLimits, Catalog};
    use portcullis::cli::rules::{Knowledge, Report, check};
    use portcullis::facts::{Facts, Relation};
    use portcullis::name::Protocol;
    use portcullis::policy::{Login, SourceFile};
    use portcullis::reload::{Files, Language, default_path};

    /// Tables of the examples.
    const SCHEMA: &str = "CREATE TABLE customers (id int, tenant_id text, email text);";

    fn checked(files: &Files) -> Report {
        let catalog = Catalog::from_ddl("demo", SCHEMA).unwrap();
        let language = Language::without_configuration();
        let understand = |text: &str, login: &Login| -> Facts {
            if login.protocol == Protocol::REDIS {
                return language.command(text);
            }
            analyze(text, Some(&catalog), &default_path(), &AnalyzerLimits::default()).facts
        };
        let relations: Vec<&Relation> = catalog.relations().map(|one| &**one).collect();
        let knowledge = Knowledge {
            analyze: &understand,
            language: &language,
            relations: &relations,
            predicates: &|_| Vec::new(),
        };
        check(files, knowledge)
    }

    fn read(path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(&path).unwrap()
    }

    fn file(name: String, text: &str) -> SourceFile {
        SourceFile { name, text: text.to_owned() }
    }

    #[test]
    fn every_example_of_rules_passes_its_own_tests() {
        let text = read("docs/RULES.md");
        let mut cases = 0;
        let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        for (number, block) in blocks.enumerate() {
            let name = format!("docs/RULES.md example {}", number + 1);
            let mut files =
                Files { rules: Vec::new(), identities: None, schema: None, digest: [0; 32] };
            if block.contains("identities:") {
                files.rules.push(file("none.yaml".to_owned(), "version: 1\nrules: []\n"));
                files.identities = Some(file(name, block));
            } else {
                files.rules.push(file(name, block));
            }
            let report = checked(&files);
            assert!(report.passed() && report.diagnostics.is_empty(), "{report}\n{block}");
            cases += report.cases;
        }
        assert!(cases >= 9, "{cases} cases: the examples were not found");
    }

    #[test]
    fn the_packs_pass_their_own_tests() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/packs");
        let report = checked(&Files::read(&folder).unwrap());
        assert!(report.passed() && report.cases > 5, "{report}");
    }
}
