//! What built-in functions can do, from a reviewed list; everything unlisted is unknown.
//!
//! `functions/generate.sql` prints the list from a server; it is checked in so that a new server
//! version adds nothing by itself.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::analysis::Catalog;
use crate::facts::{FunctionClass, FunctionUse};

/// One name of the list.
#[derive(Clone, Copy, Debug)]
struct BuiltIn {
    class: FunctionClass,
    /// Some overload takes exactly one argument, so that `x.name` calls it, too.
    unary: bool,
}

static BUILT_IN: LazyLock<HashMap<&'static str, BuiltIn>> = LazyLock::new(|| {
    include_str!("functions/builtin.txt")
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let name = words.next()?;
            let class = match words.next()? {
                "p" => FunctionClass::Pure,
                "c" => FunctionClass::ReadsCatalog,
                _ => FunctionClass::Dangerous,
            };
            Some((name, BuiltIn { class, unary: words.next() == Some("1") }))
        })
        .collect()
});

/// The use of a function called as `schema.name` or `name`.
pub(super) fn called(schema: Option<&str>, name: &str, catalog: Option<&Catalog>) -> FunctionUse {
    let class = match schema {
        Some("pg_catalog")
            if MADE_BY_GRAMMAR.contains(&name) && catalog.is_some_and(|c| c.has_function(name)) =>
        {
            FunctionClass::User
        }
        Some("pg_catalog") => built_in(name),
        // Helpers of the standard's views; drivers unnest arrays of the catalogs with them.
        Some("information_schema") if name.starts_with("_pg_") => FunctionClass::ReadsCatalog,
        Some(_) => FunctionClass::User,
        None if catalog.is_some_and(|catalog| catalog.has_function(name)) => FunctionClass::User,
        None => built_in(name),
    };
    FunctionUse { schema: schema.map(Into::into), name: name.into(), class }
}

/// The use of the one function of this name in this schema, as the server told both.
pub fn function_called(schema: &str, name: &str) -> FunctionUse {
    called(Some(schema), name, None)
}

/// Names the newest grammar turns into calls of the system's functions although nobody wrote a
/// schema. Servers before it take them for ordinary names and search the path, where somebody may
/// have defined such a function. Keyword calls every supported server qualifies (`extract`,
/// `overlay`, `position`, `substring`, `trim`, …) are not among them.
const MADE_BY_GRAMMAR: [&str; 9] = [
    "json",
    "json_array",
    "json_arrayagg",
    "json_object",
    "json_objectagg",
    "json_scalar",
    "json_serialize",
    "merge_action",
    "system_user",
];

/// The use of a function called by attribute notation (`x.name`), if there is one that matters:
/// harmless functions are not reported, so that ordinary column names stay column names.
pub(super) fn called_as_attribute(name: &str, catalog: Option<&Catalog>) -> Option<FunctionUse> {
    let class = if catalog.is_some_and(|catalog| catalog.has_unary_function(name)) {
        FunctionClass::User
    } else {
        let known = BUILT_IN.get(name).filter(|known| known.unary)?;
        match known.class {
            FunctionClass::Dangerous | FunctionClass::User => known.class,
            FunctionClass::Pure | FunctionClass::ReadsCatalog => return None,
        }
    };
    Some(FunctionUse { schema: None, name: name.into(), class })
}

/// The use of an operator or a cast somebody defined.
pub(super) fn defined(what: &str, name: &str) -> FunctionUse {
    FunctionUse { schema: None, name: format!("{what} {name}").into(), class: FunctionClass::User }
}

fn built_in(name: &str) -> FunctionClass {
    BUILT_IN.get(name).map_or(FunctionClass::User, |known| known.class)
}
