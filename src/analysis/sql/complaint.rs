//! What PostgreSQL's grammar says of a text it refuses, put as a server would put it.
//!
//! The binding to the grammar hands out the message alone. SQLSTATE, DETAIL and HINT belong to the
//! message and are listed here. The position is found by asking the grammar again about the text's
//! beginnings: whatever the text holds behind the place where the grammar stopped does not change
//! what it says, so the shortest beginning with the same complaint ends at that place, and a binary
//! search finds it. A place that is not found is left out, never guessed at random.

use crate::analysis::Dialect;
use crate::facts::SyntaxError;

use super::parse::{self, Token};

mod known;
mod place;
mod unicode;

/// Words a complaint. `same` tells whether the grammar says the same message of another text.
pub(super) fn describe(
    text: &str,
    message: String,
    dialect: Dialect,
    same: &dyn Fn(&str) -> bool,
) -> SyntaxError {
    let mut complaint = SyntaxError { message, ..SyntaxError::default() };
    let place = if complaint.message.ends_with(AT_END) {
        Some(text.len())
    } else if let Some((what, near)) = complaint.message.split_once(NEAR) {
        let unit = if what == "syntax error" { Unit::Token } else { Unit::Letters };
        place_near(text, near.strip_suffix('"').unwrap_or(near), unit, same)
    } else if complaint.message == unicode::MESSAGE && text.len() <= SEARCHED_BYTES_MAX {
        let bad = unicode::find(text, same);
        (complaint.code, complaint.hint) = (bad.code, Some(bad.hint));
        bad.place
    } else if let Some(known) = known::find(&complaint.message) {
        let known::Known { code, detail, hint, anchor, .. } = known;
        complaint = SyntaxError { code, detail, hint, ..complaint };
        let quoted = known::quoted(&complaint.message).map(str::to_owned);
        let tokens = stopped_at(text, same);
        tokens.and_then(|tokens| place::find(text, &tokens, anchor, quoted))
    } else {
        unicode::find_decoded(text, &complaint.message, same)
    };
    complaint.position = place.and_then(|at| character(text, at));
    known::in_words_of(dialect.release, &mut complaint);
    complaint
}

/// What a message quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// A token, as the parser does.
    Token,
    /// Whatever the scanner had in hand.
    Letters,
}

/// Where the words stand that the message quotes: of all the places that read alike, the one at
/// which the grammar stops.
fn place_near(text: &str, near: &str, unit: Unit, same: &dyn Fn(&str) -> bool) -> Option<usize> {
    let alike: Vec<usize> = text
        .char_indices()
        .map(|(at, _)| at)
        .filter(|at| text.get(*at..).is_some_and(|rest| rest.starts_with(near)))
        .filter(|at| unit == Unit::Letters || is_whole(text, *at, near))
        .collect();
    if let [only] = alike.as_slice() {
        return Some(*only);
    }
    if text.len() > SEARCHED_BYTES_MAX {
        return None;
    }
    let before = |at: &usize| !text.get(..at + near.len()).is_some_and(same);
    alike.get(alike.partition_point(before)).copied()
}

/// Whether the words are not cut out of a longer one.
fn is_whole(text: &str, at: usize, words: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    let before = text.get(..at).and_then(|text| text.chars().next_back());
    let behind = text.get(at + words.len()..).and_then(|text| text.chars().next());
    let starts = !words.starts_with(letter) || !before.is_some_and(letter);
    let ends = !words.ends_with(letter) || !behind.is_some_and(letter);
    starts && ends
}

/// The tokens up to the one with which the grammar had seen enough.
fn stopped_at(text: &str, same: &dyn Fn(&str) -> bool) -> Option<Vec<Token>> {
    if text.len() > SEARCHED_BYTES_MAX {
        return None;
    }
    let mut tokens = parse::scan(text)?;
    let before = |token: &Token| !text.get(..token.end).is_some_and(same);
    let index = tokens.partition_point(before);
    tokens.truncate(index + 1);
    (index < tokens.len()).then_some(tokens)
}

/// The 1-based character at a byte offset, as the protocol counts.
fn character(text: &str, place: usize) -> Option<u32> {
    let before = text.get(..place)?.chars().count();
    u32::try_from(before).ok()?.checked_add(1)
}

const AT_END: &str = " at end of input";
const NEAR: &str = " at or near \"";
/// In longer texts an ambiguous place is not searched for: each step of the search parses.
const SEARCHED_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
