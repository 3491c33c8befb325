//! Where in a reply its reader is: one frame for each aggregate that is not over.

use super::job::{Job, Node, Owed};
use crate::wire::resp::element::{Aggregate, Head};

/// An aggregate that is not over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Elements still to come.
    pub(super) left: u64,
    /// Elements that have begun.
    pub(super) at: usize,
    pub(super) inside: Inside,
    /// The key at hand; `None` if nobody knows which it is.
    pub(super) key: Option<usize>,
    pub(super) field: Field,
    /// Where names of fields begin that elements of this aggregate bring.
    pub(super) names: usize,
}

/// What the elements of an aggregate are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inside {
    All(Node),
    Tuple { first: usize, len: usize },
    Pairs { first: usize, form: Form },
    ByKey,
    ByField(usize),
    Exec,
}

/// How pairs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The first element tells.
    Open,
    /// One after the other.
    Flat,
    /// Each in an array of its own.
    Nested,
    /// In none of the ways that are known.
    Odd,
}

/// The field at hand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    None,
    Unknown,
    /// This argument names it.
    Argument(usize),
    /// An element named it: where its name is kept.
    Named {
        start: usize,
        len: usize,
    },
}

/// Which job the elements at hand belong to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// The one in this place.
    Job(usize),
    /// Nobody knows which.
    All,
}

impl Default for Part {
    fn default() -> Self {
        Self::Job(0)
    }
}

impl Owed {
    pub(super) fn job(&self, part: Part) -> Option<&Job> {
        match (self, part) {
            (Self::One(job), _) => Some(job),
            (Self::Exec(jobs), Part::Job(at)) => jobs.get(at)?.as_ref(),
            (Self::Exec(_), Part::All) => None,
        }
    }

    /// The frame around the reply itself.
    pub(super) fn frame(&self) -> (Frame, Part) {
        let (node, key, part) = match self {
            Self::One(job) => (job.root(), job.key_at_first(), Part::Job(0)),
            Self::Exec(_) => (Node::Exec, None, Part::All),
        };
        let inside = Inside::All(node);
        (Frame { left: 1, at: 0, inside, key, field: Field::None, names: 0 }, part)
    }
}

impl Frame {
    /// What the next element is, which begins with this. It is counted.
    pub(super) fn next(&mut self, owed: &Owed, part: &mut Part, head: Head) -> Node {
        let at = self.at;
        self.at = at.saturating_add(1);
        let node = |place| owed.job(*part).map_or(Node::Doubt, |job| job.node(place));
        let node = match self.inside {
            Inside::All(node) => node,
            Inside::Tuple { first, len } => {
                tuple(len, at).map_or(Node::Doubt, |at| node(first + at))
            }
            Inside::Pairs { first, form } => {
                let form =
                    if form == Form::Open { form_of(node(first), head, self.left) } else { form };
                self.inside = Inside::Pairs { first, form };
                match form {
                    Form::Flat => node(first + at % 2),
                    Form::Nested if is_pair(head) => Node::Pair(first),
                    Form::Nested | Form::Odd | Form::Open => Node::Doubt,
                }
            }
            Inside::ByKey => {
                self.key = owed.job(*part).and_then(|job| job.key_at(at));
                Node::Value
            }
            Inside::ByField(first) => Node::OfField(first.saturating_add(at)),
            Inside::Exec => {
                *part = Part::Job(at);
                self.field = Field::None;
                match owed.job(*part) {
                    None => Node::Other,
                    Some(job) => {
                        self.key = job.key_at_first();
                        job.root()
                    }
                }
            }
        };
        self.left = self.left.saturating_sub(1);
        let Node::OfField(argument) = node else { return node };
        self.field = Field::Argument(argument);
        Node::Value
    }

    /// What becomes of attributes in front of the next element: they stay where it is passed on,
    /// whatever it is.
    pub(super) fn attributes(&self, owed: &Owed, part: Part) -> Node {
        let node = |place| owed.job(part).map_or(Node::Doubt, |job| job.node(place));
        let next = match self.inside {
            Inside::All(node) => node,
            Inside::Tuple { first, len } => {
                tuple(len, self.at).map_or(Node::Doubt, |at| node(first.saturating_add(at)))
            }
            Inside::Exec if owed.job(Part::Job(self.at)).is_none() => Node::Other,
            Inside::Exec | Inside::Pairs { .. } | Inside::ByKey | Inside::ByField(_) => Node::Doubt,
        };
        if next == Node::Other { Node::Other } else { Node::Dropped }
    }

    /// An element that was this is over, or stands for itself from here on.
    pub(super) fn has_been(&mut self, node: Node) {
        match (self.inside, node) {
            (_, Node::Key | Node::Unnamed) => self.key = None,
            (_, Node::Field) => self.field = Field::Unknown,
            // All elements are one value, or all values of one field.
            (Inside::All(_), _) => {}
            // The name of a field is for one value.
            (
                Inside::Tuple { .. }
                | Inside::Pairs { .. }
                | Inside::ByKey
                | Inside::ByField(_)
                | Inside::Exec,
                Node::Other
                | Node::Value
                | Node::Each(_)
                | Node::Tuple { .. }
                | Node::Pairs(_)
                | Node::ByKey
                | Node::OfField(_)
                | Node::ByField(_)
                | Node::Pair(_)
                | Node::Exec
                | Node::Doubt
                | Node::Dropped,
            ) => match self.field {
                Field::Named { .. } | Field::Argument(_) => self.field = Field::Unknown,
                Field::None | Field::Unknown => {}
            },
        }
    }
}

impl Inside {
    /// What is in an aggregate of this kind, with so many elements, where `node` should be.
    pub(super) fn of(node: Node, (kind, count): (Aggregate, u64), owed: &Owed, part: Part) -> Self {
        let is_list = match kind {
            Aggregate::Array | Aggregate::Set | Aggregate::Push => true,
            Aggregate::Map | Aggregate::Attribute => false,
        };
        let doubt = Self::All(Node::Doubt);
        let listed = |inside| if is_list { inside } else { doubt };
        match node {
            Node::Other | Node::Value | Node::Doubt | Node::Unnamed | Node::Dropped => {
                Self::All(node)
            }
            Node::Key => Self::All(Node::Unnamed),
            Node::Field | Node::OfField(_) => doubt,
            Node::Each(at) => {
                listed(Self::All(owed.job(part).map_or(Node::Doubt, |job| job.node(at))))
            }
            Node::Tuple { first, len } => listed(Self::Tuple { first, len }),
            Node::Pair(first) => listed(Self::Tuple { first, len: 2 }),
            Node::Pairs(first) => match kind {
                Aggregate::Map => Self::Pairs { first, form: Form::Flat },
                Aggregate::Array | Aggregate::Push => Self::Pairs { first, form: Form::Open },
                // A set has no order that pairs could be told by.
                Aggregate::Set | Aggregate::Attribute => doubt,
            },
            Node::ByKey => listed(Self::ByKey),
            Node::ByField(at) => listed(Self::ByField(at)),
            Node::Exec => match owed {
                Owed::Exec(jobs) if is_list && u64::try_from(jobs.len()) == Ok(count) => Self::Exec,
                Owed::Exec(_) | Owed::One(_) => doubt,
            },
        }
    }
}

/// Which of so many nodes this element is like.
fn tuple(len: usize, at: usize) -> Option<usize> {
    Some(at.min(len.checked_sub(1)?))
}

/// How pairs are written, by the first element of so many.
fn form_of(first: Node, head: Head, elements: u64) -> Form {
    let is_scalar = match first {
        Node::Other | Node::Value | Node::Key | Node::Field | Node::OfField(_) => true,
        Node::Each(_)
        | Node::Tuple { .. }
        | Node::Pairs(_)
        | Node::ByKey
        | Node::ByField(_)
        | Node::Pair(_)
        | Node::Exec
        | Node::Doubt
        | Node::Unnamed
        | Node::Dropped => false,
    };
    if is_scalar && is_pair(head) {
        Form::Nested
    } else if elements.is_multiple_of(2) {
        Form::Flat
    } else {
        Form::Odd
    }
}

fn is_pair(head: Head) -> bool {
    head == Head::Aggregate(Aggregate::Array, 2)
}
