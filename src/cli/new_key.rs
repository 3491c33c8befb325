//! `portcullis auth new-key`.

use std::io::Write;

use super::{NewKey, Outcome};
use crate::auth::api_key;

/// Shows a new key, the only time it is shown, and the lines that let it in.
pub(super) fn new_key(command: &NewKey, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let made = api_key::NewKey::generate()?;
    writeln!(out, "{}", made.key)?;
    writeln!(out)?;
    writeln!(
        out,
        "# The line above is the key. It is not stored and not shown again: hand it over,"
    )?;
    writeln!(out, "# and put these lines under `identities:` of identities.yaml.")?;
    // JSON's quotes are YAML's: a hostile name stays one scalar.
    let user = serde_json::to_string(&command.user)?;
    writeln!(out, "  - user: {user}")?;
    writeln!(out, "    keys:")?;
    writeln!(out, "      - {{prefix: \"{}\", sha256: \"{}\"}}", made.prefix, made.sha256)?;
    Ok(Outcome::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Now;
    use crate::policy::{Credential, Login, RuleSet, SourceFile, Throttles};

    /// What is shown is what opens.
    #[test]
    fn the_lines_let_the_key_in() {
        let user = "app: \"x\"".to_owned();
        let mut out = Vec::new();
        new_key(&NewKey { user: user.clone() }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let (key, lines) = text.split_once('\n').unwrap();
        assert!(!lines.contains(key));
        let file = SourceFile {
            name: "identities.yaml".to_owned(),
            text: format!("version: 1\nidentities:\n{lines}"),
        };
        let (rules, _) = RuleSet::compile(&[], Some(&file)).unwrap();
        let login = Login {
            datasource: "d".into(),
            protocol: crate::name::Protocol::POSTGRESQL,
            default_deny: false,
            user,
            database: "d".to_owned(),
            address: None,
            application: String::new(),
            credential: Credential::Name,
        };
        let (throttles, now) = (Throttles::default(), Now { wall_us: 0, mono_us: 0 });
        assert!(api_key::verify(&rules, &throttles, &login, key.as_bytes(), now).is_ok());
    }
}
