//! A client's pattern for channels, compared with a glob of a rule.
//!
//! The two languages differ: a client's pattern knows sets (`[a-c]`) and a backslash that takes the
//! next byte as it is. A set is taken for any one byte, which makes the pattern reach further than
//! it does: containment says no too often, overlap yes too often, and neither errs the other way.

use crate::name::Glob;

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Byte(u8),
    /// Any one byte.
    One,
    /// Any run of bytes.
    Run,
}

/// Longest pattern that is compared: the work grows with its length times the glob's. Of a longer one
/// nothing is sure.
const PATTERN_BYTES_MAX: usize = 4096;

/// Whether the glob surely fits every name that the pattern fits.
pub(crate) fn contains(glob: &Glob, pattern: &[u8]) -> bool {
    if glob.as_str() == "*" {
        return true;
    }
    if pattern.len() > PATTERN_BYTES_MAX {
        return false;
    }
    let mut wanted = parts_of_glob(glob.as_str().as_bytes());
    let mut rest = parts_of_pattern(pattern);
    // The pattern is read as if it were a name whose letters are its parts: only `*` of the glob
    // can take a run, only `*` and `?` any byte.
    let mut resume: Option<(Parts<'_>, Parts<'_>)> = None;
    loop {
        let given = rest.clone().next();
        match (wanted.next(), given) {
            (Some(Part::Run), _) => {
                resume = Some((wanted.clone(), rest.clone()));
                continue;
            }
            (Some(Part::One), Some(Part::One | Part::Byte(_))) => {
                rest.next();
                continue;
            }
            (Some(Part::Byte(want)), Some(Part::Byte(byte))) if want == byte => {
                rest.next();
                continue;
            }
            (None, None) => return true,
            (Some(Part::One | Part::Byte(_)) | None, _) => {}
        }
        let Some((after, mut later)) = resume.take() else { return false };
        if later.next().is_none() {
            return false;
        }
        (wanted, rest) = (after.clone(), later.clone());
        resume = Some((after, later));
    }
}

/// Whether some name may be fitted by both. They surely share none only where their beginnings or
/// their ends differ before either has a `*`.
pub(crate) fn may_overlap(glob: &Glob, pattern: &[u8]) -> bool {
    if pattern.len() > PATTERN_BYTES_MAX {
        return true;
    }
    let glob: Vec<Part> = parts_of_glob(glob.as_str().as_bytes()).collect();
    let pattern: Vec<Part> = parts_of_pattern(pattern).collect();
    agree(glob.iter(), pattern.iter()) && agree(glob.iter().rev(), pattern.iter().rev())
}

fn agree<'a>(
    glob: impl Iterator<Item = &'a Part>,
    pattern: impl Iterator<Item = &'a Part>,
) -> bool {
    for pair in glob.zip(pattern) {
        match pair {
            (Part::Run, _) | (_, Part::Run) => return true,
            (Part::Byte(one), Part::Byte(other)) if one != other => return false,
            (Part::Byte(_) | Part::One, Part::Byte(_) | Part::One) => {}
        }
    }
    true
}

/// Parts of a glob or of a pattern, one after the other.
#[derive(Clone)]
struct Parts<'a> {
    rest: &'a [u8],
    /// Whether sets and backslashes have a meaning.
    language: Language,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Rule,
    Client,
}

fn parts_of_glob(text: &[u8]) -> Parts<'_> {
    Parts { rest: text, language: Language::Rule }
}

fn parts_of_pattern(text: &[u8]) -> Parts<'_> {
    Parts { rest: text, language: Language::Client }
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        match (first, self.language) {
            (b'*', _) => Some(Part::Run),
            (b'?', _) => Some(Part::One),
            (b'\\', Language::Client) => {
                let Some((next, rest)) = rest.split_first() else {
                    return Some(Part::Byte(b'\\'));
                };
                self.rest = rest;
                Some(Part::Byte(*next))
            }
            (b'[', Language::Client) => {
                self.rest = after_set(rest);
                Some(Part::One)
            }
            (byte, Language::Rule | Language::Client) => Some(Part::Byte(*byte)),
        }
    }
}

/// What follows a set, read as the servers read it: a range takes whatever byte ends it, even `]`,
/// and a set that does not end takes all that is left.
fn after_set(text: &[u8]) -> &[u8] {
    let mut rest = text.strip_prefix(b"^").unwrap_or(text);
    loop {
        match rest {
            [] => return rest,
            [b'\\', _, after @ ..] => rest = after,
            [b']', after @ ..] => return after,
            [_, b'-', _, after @ ..] | [_, after @ ..] => rest = after,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_is_contained_only_where_that_is_sure() {
        for (glob, pattern, contained, overlaps) in [
            ("news:*", &b"news:*"[..], true, true),
            ("news:*", b"news:sport:?", true, true),
            ("news:*", b"news:[a-c]", true, true),
            ("news:*", b"news:\\*", true, true),
            ("news:*", b"news*", false, true),
            ("news:*", b"*", false, true),
            ("news:*", b"n[e]ws:x", false, true),
            ("news:*", b"mail:*", false, false),
            ("news:*", b"\\news:*", true, true),
            ("*:secret", b"*:public", false, false),
            ("*:secret", b"*", false, true),
            ("a?c", b"abc", true, true),
            ("a?c", b"a[b]c", true, true),
            ("a?c", b"a*c", false, true),
            ("*", b"[", true, true),
            ("*", b"", true, true),
            ("a", b"a\\", false, false),
            ("?x]", b"[a-]x]", false, true),
            ("a\\", b"a\\", true, true),
            ("a[b]", b"a[b]", false, false),
            ("*a*b*", b"xaxbx", true, true),
            ("news:\u{e9}*", "news:\u{e9}t\u{e9}".as_bytes(), true, true),
            ("news:*", b"news:\xff*", true, true),
        ] {
            let glob = Glob::new(glob);
            let found = (contains(&glob, pattern), may_overlap(&glob, pattern));
            assert_eq!(
                found,
                (contained, overlaps),
                "{} {}",
                glob.as_str(),
                pattern.escape_ascii()
            );
        }
    }

    #[test]
    fn of_a_very_long_pattern_nothing_is_sure() {
        let long = vec![b'a'; PATTERN_BYTES_MAX + 1];
        let (glob, other) = (Glob::new("a*"), Glob::new("b*"));
        assert!(!contains(&glob, &long) && may_overlap(&other, &long));
        assert!(contains(&Glob::new("*"), &long));
    }

    /// Whether the client's pattern fits the name, as the servers compare them.
    fn fits(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], _) => name.is_empty(),
            ([b'*', rest @ ..], _) => (0..=name.len()).any(|at| fits(rest, &name[at..])),
            (_, []) => false,
            ([b'?', rest @ ..], [_, name @ ..]) => fits(rest, name),
            ([b'\\', byte, rest @ ..], [first, name @ ..]) => byte == first && fits(rest, name),
            ([b'[', set @ ..], [first, name @ ..]) => {
                let (not, mut rest) = match set {
                    [b'^', rest @ ..] => (true, rest),
                    rest => (false, rest),
                };
                let mut hit = false;
                loop {
                    match rest {
                        [] => break,
                        [b'\\', byte, after @ ..] => {
                            hit |= byte == first;
                            rest = after;
                        }
                        [b']', after @ ..] => {
                            rest = after;
                            break;
                        }
                        [from, b'-', to, after @ ..] => {
                            hit |= (from.min(to)..=from.max(to)).contains(&first);
                            rest = after;
                        }
                        [byte, after @ ..] => {
                            hit |= byte == first;
                            rest = after;
                        }
                    }
                }
                hit != not && fits(rest, name)
            }
            ([byte, rest @ ..], [first, name @ ..]) => byte == first && fits(rest, name),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn neither_answer_errs_to_the_wrong_side(
            glob in "[ab*?\\]\\[]{0,5}",
            pattern in "([ab*?]|\\[[-ab^\\]\\\\]{0,3}\\]?|\\\\[ab*?]?){0,5}",
            name in "[ab*?\\]\\\\-]{0,5}",
        ) {
            let glob = Glob::new(&glob);
            let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
            if fits(pattern, name) {
                prop_assert!(glob.matches_bytes(name) || !contains(&glob, pattern));
                prop_assert!(!glob.matches_bytes(name) || may_overlap(&glob, pattern));
            }
        }
    }
}
