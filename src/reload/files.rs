//! A rules folder as it is on disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::policy::yaml::Document;
use crate::policy::{Diagnostic, SourceFile, Span};

/// Everything a rule set is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Rule files, sorted by name.
    pub rules: Vec<SourceFile>,
    /// Who has which roles and attributes.
    pub identities: Option<SourceFile>,
    /// Definitions for the embedded tests, as long as no live catalog is there.
    pub schema: Option<SourceFile>,
    /// SHA-256 over names and contents.
    pub digest: [u8; 32],
}

impl Files {
    /// Reads a folder. Subfolders and files beginning with a dot are left out.
    ///
    /// # Errors
    /// What could not be read, or is too much.
    pub fn read(directory: &Path) -> Result<Self, Vec<Diagnostic>> {
        let names = list(directory).map_err(|error| vec![problem(directory, &error)])?;
        if names.len() > FILES_MAX {
            let error = io::Error::other(format!("more than {FILES_MAX} files"));
            return Err(vec![problem(directory, &error)]);
        }
        let mut files = Self { rules: Vec::new(), identities: None, schema: None, digest: [0; 32] };
        let mut digest = Sha256::new();
        let mut problems = Vec::new();
        // Kubernetes swaps this link when a mounted map changes: read through one resolved target,
        // so that two files never come from different versions.
        let root = directory.join("..data").canonicalize().unwrap_or_else(|_| directory.into());
        for name in names {
            let shown = directory.join(&name);
            match read_text(&root.join(&name)) {
                Ok(text) => {
                    for part in [name.as_str(), text.as_str()] {
                        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                        digest.update(part.as_bytes());
                    }
                    let file = SourceFile { name: shown.display().to_string(), text };
                    match name.as_str() {
                        IDENTITIES => files.identities = Some(file),
                        SCHEMA => files.schema = Some(file),
                        _ => files.rules.push(file),
                    }
                }
                Err(error) => problems.push(problem(&shown, &error)),
            }
        }
        if files.rules.is_empty() && problems.is_empty() {
            // A mistyped or half-copied folder must not be taken for "no rule at all".
            problems.push(
                Diagnostic::error(&place(directory), "no rule file in this folder").with_help(
                    "rule files end in `.yaml`; a set without rules is a file with `version: 1` \
                     and `rules: []`",
                ),
            );
        }
        files.digest = digest.finalize().into();
        if problems.is_empty() { Ok(files) } else { Err(problems) }
    }
}

/// The names that belong to a rule set, sorted.
fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = PathBuf::from(name);
        let yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
        if !name.starts_with('.') && (yaml || name == SCHEMA) && directory.join(name).is_file() {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let max = Document::BYTES_MAX;
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    if text.len() > max {
        return Err(io::Error::other(format!("file is longer than {max} bytes")));
    }
    Ok(text)
}

fn problem(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::error(&place(path), format!("cannot be read: {error}"))
}

fn place(path: &Path) -> Span {
    Span { file: path.display().to_string().into(), line: 1, column: 1 }
}

/// Most files of one set.
const FILES_MAX: usize = 1000;

/// The file that gives roles and attributes.
const IDENTITIES: &str = "identities.yaml";

/// The file with definitions for tests.
const SCHEMA: &str = "schema.sql";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_is_read_in_order_and_its_digest_follows_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        for name in ["b.yaml", "a.yml", "identities.yaml", "schema.sql", "notes.txt", ".x.yaml"] {
            write(name, name);
        }
        fs::create_dir(dir.path().join("sub.yaml")).unwrap();
        let first = Files::read(dir.path()).unwrap();
        let texts: Vec<&str> = first.rules.iter().map(|file| file.text.as_str()).collect();
        assert_eq!(texts, ["a.yml", "b.yaml"]);
        assert_eq!(first.identities.as_ref().unwrap().text, "identities.yaml");
        assert_eq!(first.schema.as_ref().unwrap().text, "schema.sql");
        write("notes.txt", "changed");
        assert_eq!(Files::read(dir.path()).unwrap(), first);
        write("b.yaml", "changed");
        assert_ne!(Files::read(dir.path()).unwrap().digest, first.digest);
    }

    #[test]
    fn a_swapped_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        for (version, text) in [("..v1", "one"), ("..v2", "two")] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("r.yaml"), text).unwrap();
        }
        let (data, file) = (dir.path().join("..data"), dir.path().join("r.yaml"));
        std::os::unix::fs::symlink("..v1", &data).unwrap();
        std::os::unix::fs::symlink("..data/r.yaml", &file).unwrap();
        assert_eq!(Files::read(dir.path()).unwrap().rules[0].text, "one");
        fs::remove_file(&data).unwrap();
        std::os::unix::fs::symlink("..v2", &data).unwrap();
        assert_eq!(Files::read(dir.path()).unwrap().rules[0].text, "two");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bad.yaml"), [0xFF, 0xFE]).unwrap();
        let problems = Files::read(dir.path()).unwrap_err();
        assert!(problems[0].to_string().contains("bad.yaml:1:1: error: cannot be read"));
        assert!(Files::read(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_folder_without_a_rule_file_is_a_mistake() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identities.yaml"), "version: 1\nidentities: []\n").unwrap();
        let problems = Files::read(dir.path()).unwrap_err();
        assert!(problems[0].to_string().contains("no rule file in this folder"));
    }
}
