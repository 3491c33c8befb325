//! Names and constants as SQL text that reads the same under any setting.

/// A name, always quoted.
pub(in crate::analysis) fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant. With a backslash in it the escape form is used, which reads the same
/// whatever `standard_conforming_strings` says.
pub(super) fn quote_literal(value: &str) -> String {
    let value = value.replace('\'', "''");
    if value.contains('\\') {
        format!("E'{}'", value.replace('\\', "\\\\"))
    } else {
        format!("'{value}'")
    }
}
