//! A path to values inside a JSON text.

/// `$.a.b`, `$.items[*].email`, `$["odd name"]`, `$.list[0]`: from the root one step at a time.
///
/// Deliberately absent: recursive descent, filters, slices and negative indexes, which a reader of
/// a rule cannot follow to the values they mean.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JsonPath {
    steps: Vec<JsonStep>,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JsonStep {
    /// A member of an object; every one of that name.
    Member(Box<str>),
    /// Every member of an object.
    EveryMember,
    /// An element of an array, from zero.
    Element(u32),
    /// Every element of an array.
    EveryElement,
}

/// Most steps: the depth to which texts are read.
const STEPS_MAX: usize = 32;

impl JsonPath {
    /// Reads a path.
    ///
    /// # Errors
    /// What is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is not a path such as `$.a.b`, `$.items[*].email`, `$[\"odd name\"]`")
        };
        let mut rest = text.strip_prefix('$').ok_or_else(wrong)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = step(rest).ok_or_else(wrong)?;
            steps.push(step);
            rest = after;
        }
        if steps.is_empty() {
            return Err(
                "a path names something below `$`; to mask the whole value, leave the path out"
                    .into(),
            );
        }
        if steps.len() > STEPS_MAX {
            return Err(format!("a path has at most {STEPS_MAX} steps"));
        }
        Ok(Self { steps })
    }

    /// The steps, from the root; at least one.
    pub fn steps(&self) -> &[JsonStep] {
        &self.steps
    }
}

/// The first step of a text and what follows it.
fn step(text: &str) -> Option<(JsonStep, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at_checked(end)?;
        let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        return match name {
            "*" => Some((JsonStep::EveryMember, rest)),
            "" => None,
            name if name.chars().all(plain) => Some((JsonStep::Member(name.into()), rest)),
            _ => None,
        };
    }
    let rest = text.strip_prefix('[')?;
    if let Some(rest) = rest.strip_prefix("*]") {
        return Some((JsonStep::EveryElement, rest));
    }
    if let Some(quote) = rest.chars().next().filter(|c| ['"', '\''].contains(c)) {
        let (name, rest) = rest.strip_prefix(quote)?.split_once(quote)?;
        // No escapes: a name with a backslash or both quotes cannot be written, rather than
        // be misread.
        let plain = !name.contains('\\');
        return plain.then(|| Some((JsonStep::Member(name.into()), rest.strip_prefix(']')?)))?;
    }
    let (number, rest) = rest.split_once(']')?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Some((JsonStep::Element(number.parse().ok()?), rest)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_in_full_or_not_at_all() {
        let member = |name: &str| JsonStep::Member(name.into());
        for (text, expected) in [
            ("$.a.b", vec![member("a"), member("b")]),
            ("$.items[*].email", vec![member("items"), JsonStep::EveryElement, member("email")]),
            ("$[0]['odd name']", vec![JsonStep::Element(0), member("odd name")]),
            ("$[\"it's\"].*", vec![member("it's"), JsonStep::EveryMember]),
            ("$.größe", vec![member("größe")]),
        ] {
            assert_eq!(JsonPath::parse(text).unwrap().steps(), expected, "{text}");
        }
        let deep = format!("${}", ".a".repeat(STEPS_MAX + 1));
        for text in [
            "",
            "$",
            "a",
            "$a",
            "$.",
            "$..a",
            "$.a.",
            "$[",
            "$[]",
            "$[-1]",
            "$[+1]",
            "$[1:2]",
            "$[99999999999]",
            "$['a",
            "$['a'",
            "$['a\\u0062']",
            "$.a b",
            "$.a]",
            &deep,
        ] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
    }
}
