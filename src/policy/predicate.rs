//! Finds the identity values a filter refers to. The predicate itself is opaque here: the layer
//! that knows the language parses it; both must agree on what is quoted.

use std::sync::Arc;

/// Names that are values of the login itself; attributes cannot carry them.
pub(crate) const LOGIN_VALUES: &[&str] = &["user", "database", "application", "address"];

/// Most references in one predicate.
const REFERENCES_MAX: usize = 64;

/// The `NAME`s of each `:identity.NAME` outside quotes and comments, sorted, each once.
///
/// # Errors
/// A message for the author: quotes that do not end, a `:name` that is not an identity value, or
/// quoting this reader does not follow.
pub(crate) fn references(text: &str) -> Result<Vec<Arc<str>>, String> {
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\'', '"', '$', '-', '/', ':']) {
        let (before, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let escape_string = before.ends_with(['e', 'E']) && tail.starts_with('\'');
        rest = if tail.starts_with('\'') || tail.starts_with('"') {
            if escape_string {
                return Err("escape strings (`E'…'`) are not accepted in a filter".into());
            }
            skip_quoted(tail)?
        } else if tail.starts_with("--") || tail.starts_with("/*") {
            return Err("comments are not accepted in a filter".into());
        } else if tail.starts_with('$') {
            return Err("`$` is not accepted in a filter".into());
        } else if let Some(after) = tail.strip_prefix("::") {
            after
        } else if let Some(after) = tail.strip_prefix(':') {
            let (name, after) = identity_value(after)?;
            names.push(name.into());
            after
        } else {
            // A minus or a slash on its own.
            tail.get(1..).unwrap_or("")
        };
    }
    names.sort();
    names.dedup();
    if names.len() > REFERENCES_MAX {
        return Err(format!("more than {REFERENCES_MAX} identity values in one filter"));
    }
    Ok(names)
}

/// Whether the text can be the name of an attribute.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Skips a quoted text; a doubled quote belongs to it.
fn skip_quoted(text: &str) -> Result<&str, String> {
    let mut chars = text.char_indices();
    let Some((_, quote)) = chars.next() else { return Ok("") };
    while let Some((_, c)) = chars.next() {
        if c != quote {
            continue;
        }
        let after = chars.as_str();
        if !after.starts_with(quote) {
            return Ok(after);
        }
        chars.next();
    }
    Err(format!("a {quote} is never closed"))
}

/// Reads `identity.NAME` after a colon.
fn identity_value(text: &str) -> Result<(&str, &str), String> {
    let word = |text: &str| {
        text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
    };
    let after = text.strip_prefix("identity.").ok_or_else(|| {
        let found = text.get(..word(text)).unwrap_or("");
        format!("unknown value `:{found}`; only `:identity.NAME` can stand in a filter")
    })?;
    let (name, rest) = after.split_at_checked(word(after)).unwrap_or((after, ""));
    if is_name(name) { Ok((name, rest)) } else { Err("`:identity.` needs a name".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found = references(text).unwrap();
        let found: Vec<&str> = found.iter().map(|name| &**name).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn finds_references_outside_quotes() {
        check("tenant_id = :identity.tenant", &["tenant"]);
        check("tenant_id = :identity.tenant::uuid and a::text = 'x'", &["tenant"]);
        check("a = ':identity.no' and \":identity.no\" = 1", &[]);
        check("a = 'it''s :identity.no' or b = :identity.yes", &["yes"]);
        check("a = :identity.b or b = :identity.a or c = :identity.b", &["a", "b"]);
        check("a - 1 / 2 > 0", &[]);
    }

    #[test]
    fn refuses_what_it_would_read_differently() {
        for (text, expected) in [
            ("a = 'open", "never closed"),
            ("a = :tenant", "unknown value `:tenant`"),
            ("a = :identity.", "needs a name"),
            ("a = :identity.1x", "needs a name"),
            ("a = E'\\'' or b = 1", "escape strings"),
            ("a = $$x$$", "`$`"),
            ("a = 1 -- :identity.x", "comments"),
            ("a = 1 /* x */", "comments"),
        ] {
            let found = references(text).unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
