//! Which names mean a common table expression instead of a relation.

/// The WITH clauses around the current place, innermost last.
#[derive(Debug, Default)]
pub(super) struct Scopes<'t> {
    frames: Vec<Vec<&'t str>>,
}

impl<'t> Scopes<'t> {
    /// Enters a WITH clause. All names of a recursive one are visible to each other; the others
    /// become visible one by one ([`Scopes::declare`]).
    pub(super) fn enter(&mut self, visible: Vec<&'t str>) {
        self.frames.push(visible);
    }

    /// Makes a name visible from here on.
    pub(super) fn declare(&mut self, name: &'t str) {
        if let Some(frame) = self.frames.last_mut() {
            frame.push(name);
        }
    }

    /// Leaves a WITH clause.
    pub(super) fn leave(&mut self) {
        self.frames.pop();
    }

    /// Whether an unqualified name means a common table expression here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.frames.iter().any(|frame| frame.contains(&name))
    }
}
