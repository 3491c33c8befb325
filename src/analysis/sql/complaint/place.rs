//! From the token with which the grammar had seen enough to the place a server points at.

use super::known::Anchor;
use crate::analysis::sql::parse::Token;

/// The byte offset of the place; `tokens` ends with that token, `quoted` is what the message quotes.
pub(super) fn find(
    text: &str,
    tokens: &[Token],
    anchor: Anchor,
    quoted: Option<String>,
) -> Option<usize> {
    let words = Words { text, tokens };
    let index = match anchor {
        Anchor::Nowhere => return None,
        Anchor::Here => tokens.len().checked_sub(1)?,
        Anchor::Last(wanted) => words.last_at_level(wanted)?,
        Anchor::Behind(wanted) => words.last_at_level(wanted)? + 1,
        Anchor::LastInside(wanted) => words.last(wanted)?,
        Anchor::FirstElement(wanted) => {
            let exists = words.last(&["exists"])?;
            (exists..tokens.len()).find(|at| words.is(*at, wanted))?
        }
        Anchor::Number => {
            let number = |token: &Token| token.kind == pg_query::protobuf::Token::Iconst;
            tokens.iter().rposition(number)?
        }
        Anchor::Text => {
            let string = |token: &Token| token.kind == pg_query::protobuf::Token::Sconst;
            tokens.iter().rposition(string)?
        }
        Anchor::Quoted => words.last(&[quoted?.as_str()])?,
        Anchor::Attribute => {
            let here = tokens.len().checked_sub(1)?;
            let before = here.checked_sub(1).filter(|at| words.is(*at, ATTRIBUTE_STARTS));
            before.unwrap_or(here)
        }
        Anchor::Dotted => words.name_start(tokens.len().checked_sub(1)?),
        Anchor::LastDotted => words.name_start(words.last_at_level(&["."])? + 1),
        Anchor::NameBefore(wanted) => {
            words.name_start(words.last_at_level(wanted)?.checked_sub(1)?)
        }
    };
    tokens.get(index).map(|token| token.start)
}

const ATTRIBUTE_STARTS: &[&str] = &["not", "no", "initially"];

struct Words<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl Words<'_> {
    fn is(&self, index: usize, wanted: &[&str]) -> bool {
        let token = self.tokens.get(index);
        let written = token.and_then(|token| self.text.get(token.start..token.end));
        written.is_some_and(|written| {
            let bare = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            wanted.iter().any(|word| {
                written.eq_ignore_ascii_case(word) || bare.is_some_and(|bare| bare == *word)
            })
        })
    }

    fn last(&self, wanted: &[&str]) -> Option<usize> {
        (0..self.tokens.len()).rev().find(|index| self.is(*index, wanted))
    }

    /// The last of these words that stands in the same brackets as the end, in the same statement.
    fn last_at_level(&self, wanted: &[&str]) -> Option<usize> {
        let mut depth = 0_usize;
        for index in (0..self.tokens.len()).rev() {
            if self.is(index, &[")"]) {
                depth += 1;
            } else if self.is(index, &["("]) {
                depth = match depth.checked_sub(1) {
                    Some(0) if wanted.contains(&"(") => return Some(index),
                    Some(depth) => depth,
                    None => return None,
                };
            } else if depth == 0 && self.is(index, &[";"]) {
                return None;
            } else if depth == 0 && self.is(index, wanted) {
                return Some(index);
            }
        }
        None
    }

    /// The first part of the dotted name whose last part stands at `index`.
    fn name_start(&self, mut index: usize) -> usize {
        while let Some(before) = index.checked_sub(2)
            && self.is(before + 1, &["."])
        {
            index = before;
        }
        index
    }
}
