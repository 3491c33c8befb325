//! Splices into the client's text: every byte outside of an edit stays what the client wrote.

/// A change of one stretch of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// First byte replaced; equal to `end` for an insertion.
    pub(super) start: usize,
    /// Byte after the last one replaced.
    pub(super) end: usize,
    /// What stands there instead.
    pub(super) text: String,
}

/// A rewritten text that passed the check against the original.
#[derive(Debug)]
pub struct Rewritten {
    /// What goes to the server.
    pub text: String,
    /// Stretches of the client's own text, in order.
    kept: Vec<Kept>,
}

/// A stretch of the client's text, in characters.
#[derive(Clone, Copy, Debug)]
struct Kept {
    rewritten: usize,
    original: usize,
    length: usize,
}

impl Rewritten {
    /// The 1-based character position in the client's text for a position in the rewritten one;
    /// `None` when it points into text we inserted.
    pub fn original_position(&self, position: u32) -> Option<u32> {
        let at = usize::try_from(position).ok()?.checked_sub(1)?;
        let index = self.kept.partition_point(|kept| kept.rewritten <= at).checked_sub(1)?;
        let kept = self.kept.get(index)?;
        let offset = at - kept.rewritten;
        if offset >= kept.length {
            return None;
        }
        u32::try_from(kept.original + offset + 1).ok()
    }
}

/// Applies edits; `None` when two of them touch the same bytes or lie outside of the text.
pub(super) fn apply(text: &str, mut edits: Vec<Edit>) -> Option<Rewritten> {
    // Stable: insertions at one place keep the order in which they were made.
    edits.sort_by_key(|edit| edit.start);
    let mut out =
        String::with_capacity(text.len() + edits.iter().map(|e| e.text.len()).sum::<usize>());
    let mut kept = Vec::with_capacity(edits.len() + 1);
    let mut characters = Characters::default();
    let mut done = 0;
    for edit in &edits {
        let own = text.get(done..edit.start)?;
        let replaced = text.get(edit.start..edit.end)?;
        characters.keep(own, &mut kept);
        out.push_str(own);
        characters.original += replaced.chars().count();
        characters.rewritten += edit.text.chars().count();
        out.push_str(&edit.text);
        done = edit.end;
    }
    let own = text.get(done..)?;
    characters.keep(own, &mut kept);
    out.push_str(own);
    Some(Rewritten { text: out, kept })
}

/// How many characters of both texts were passed.
#[derive(Debug, Default)]
struct Characters {
    rewritten: usize,
    original: usize,
}

impl Characters {
    fn keep(&mut self, own: &str, kept: &mut Vec<Kept>) {
        let length = own.chars().count();
        if length > 0 {
            kept.push(Kept { rewritten: self.rewritten, original: self.original, length });
        }
        self.rewritten += length;
        self.original += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(start: usize, end: usize, text: &str) -> Edit {
        Edit { start, end, text: text.to_owned() }
    }

    #[test]
    fn positions_map_back_to_the_clients_text() {
        let rewritten = apply("sé b c", vec![edit(4, 5, "(xyz)"), edit(7, 7, "!")]).unwrap();
        assert_eq!(rewritten.text, "sé (xyz) c!");
        let back: Vec<_> = (0..12).map(|p| rewritten.original_position(p)).collect();
        let inserted = None;
        assert_eq!(back[1..4], [Some(1), Some(2), Some(3)]);
        assert_eq!(back[4..9], [inserted; 5]);
        assert_eq!(back[9..12], [Some(5), Some(6), inserted]);
        assert_eq!(back[0], None);
    }

    #[test]
    fn edits_that_overlap_are_refused() {
        assert!(apply("abcdef", vec![edit(1, 4, ""), edit(3, 5, "")]).is_none());
        assert!(apply("abc", vec![edit(2, 9, "")]).is_none());
        assert!(apply("é", vec![edit(1, 1, "x")]).is_none());
    }
}
