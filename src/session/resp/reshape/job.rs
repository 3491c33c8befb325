//! What a reply owes.

use std::sync::Arc;

use super::Kept;
use super::mask::{KeyMasks, Ready};
use crate::analysis::redis::{Args, Shape};
use crate::facts::CommandUse;

/// What the reply to one command owes.
///
/// Owns all it needs: the command is gone when its reply comes.
#[derive(Clone, Debug)]
pub struct Job {
    root: Node,
    /// Nodes that others point at.
    nodes: Vec<Node>,
    /// Masks that differ, each once: commands name many keys and few kinds of them.
    masks: Vec<KeyMasks>,
    /// For each key the place of its masks.
    keys: Vec<usize>,
    /// Names of keys, where the reply names them: sorted, each with the place of its masks.
    named: Vec<(Box<[u8]>, usize)>,
    /// Names of fields that the shape finds among the arguments, from this argument on.
    fields: Vec<Box<[u8]>>,
    fields_from: usize,
    strip: Option<Arc<[u8]>>,
    errors: Errors,
}

/// What becomes of the text of an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Errors {
    /// It is the server's own, which quotes arguments of the command, not values.
    #[default]
    Passed,
    /// A script may have written it, with values in it: all but its first word is replaced, and that,
    /// too, unless it is one of the server's words.
    Scrubbed,
}

impl Errors {
    /// What becomes of this command's errors.
    pub fn of(command: &CommandUse) -> Self {
        let is_script = command.categories.iter().any(|category| &**category == "scripting");
        if is_script { Self::Scrubbed } else { Self::Passed }
    }
}

/// What the replies that are read next owe.
#[derive(Clone, Debug)]
pub enum Owed {
    /// The reply to one command.
    One(Job),
    /// The reply to EXEC: each element owes what its command owes, or nothing.
    Exec(Vec<Option<Job>>),
}

impl Job {
    /// The reply of this shape to the command with these arguments. `keys` are *all* keys it names, in
    /// the order of the arguments, as the server knows them, with the masks of each.
    pub fn new<'a>(
        shape: &Shape,
        args: &(impl Args + ?Sized),
        keys: impl Iterator<Item = (&'a [u8], &'a KeyMasks)>,
    ) -> Self {
        let mut job = Self {
            root: Node::Other,
            nodes: Vec::new(),
            masks: Vec::new(),
            keys: Vec::new(),
            named: Vec::new(),
            fields: Vec::new(),
            fields_from: usize::MAX,
            strip: None,
            errors: Errors::Passed,
        };
        let mut found = Found::default();
        job.root = job.compile(shape, &mut found);
        for (name, masks) in keys {
            let at = job.masks.iter().position(|known| known.is(masks)).unwrap_or_else(|| {
                job.masks.push(masks.clone());
                job.masks.len().saturating_sub(1)
            });
            job.keys.push(at);
            if found.names_keys {
                job.named.push((name.into(), at));
            }
        }
        job.named.sort();
        if let Some((from, to)) = found.fields {
            let arguments = (from..to.min(args.len())).map_while(|at| args.get(at));
            job.fields = arguments.map(Into::into).collect();
            job.fields_from = from;
        }
        job
    }

    /// How many names and places of keys it keeps.
    pub fn places(&self) -> usize {
        self.keys.len().saturating_add(self.named.len()).saturating_add(self.fields.len())
    }

    /// Names of keys in the reply begin with this, and the client does not know it.
    #[must_use]
    pub fn strip(mut self, prefix: Arc<[u8]>) -> Self {
        self.strip = Some(prefix).filter(|prefix| !prefix.is_empty());
        self
    }

    /// What becomes of the text of an error.
    #[must_use]
    pub fn errors(mut self, errors: Errors) -> Self {
        self.errors = errors;
        self
    }

    /// Nodes point at nodes that were made before them. A shape is as deep as the table of commands
    /// writes it, so this may call itself.
    fn compile(&mut self, shape: &Shape, found: &mut Found) -> Node {
        match shape {
            Shape::Other => Node::Other,
            Shape::Value => Node::Value,
            Shape::Key => {
                found.names_keys = true;
                Node::Key
            }
            Shape::Field => Node::Field,
            Shape::Each(shape) => {
                let node = self.compile(shape, found);
                Node::Each(self.add(&[node]))
            }
            Shape::Tuple(shapes) => {
                let nodes: Vec<_> = shapes.iter().map(|shape| self.compile(shape, found)).collect();
                Node::Tuple { first: self.add(&nodes), len: nodes.len() }
            }
            Shape::Pairs(left, right) => {
                let nodes = [self.compile(left, found), self.compile(right, found)];
                Node::Pairs(self.add(&nodes))
            }
            Shape::ByKey => Node::ByKey,
            Shape::OfField(at) => {
                found.fields(*at, at.saturating_add(1));
                Node::OfField(*at)
            }
            Shape::ByField(at) => {
                found.fields(*at, usize::MAX);
                Node::ByField(*at)
            }
        }
    }

    fn add(&mut self, nodes: &[Node]) -> usize {
        let first = self.nodes.len();
        self.nodes.extend_from_slice(nodes);
        first
    }

    pub(super) fn root(&self) -> Node {
        self.root
    }

    pub(super) fn node(&self, at: usize) -> Node {
        self.nodes.get(at).copied().unwrap_or(Node::Doubt)
    }

    /// The key at hand at the beginning of the reply: the only one, or one like all others.
    pub(super) fn key_at_first(&self) -> Option<usize> {
        (self.masks.len() == 1).then_some(0)
    }

    /// The key in this place.
    pub(super) fn key_at(&self, at: usize) -> Option<usize> {
        self.keys.get(at).copied()
    }

    /// The key of this name; `None` also if it was named twice and does not owe the same both times.
    pub(super) fn key_named(&self, name: &[u8]) -> Option<usize> {
        let from = self.named.partition_point(|(known, _)| **known < *name);
        let mut same = self.named.iter().skip(from).take_while(|(known, _)| **known == *name);
        let (_, masks) = same.next()?;
        same.all(|(_, other)| other == masks).then_some(*masks)
    }

    /// The masks of the key at hand; of all, where there is none.
    pub(super) fn masks_of(&self, key: Option<usize>) -> impl Iterator<Item = &Ready> {
        let one = key.and_then(|at| self.masks.get(at..=at));
        one.unwrap_or(&self.masks).iter().flat_map(KeyMasks::iter)
    }

    /// Whether any value owes a mask.
    pub(super) fn masks(&self) -> bool {
        self.masks.iter().any(|masks| !masks.is_empty())
    }

    pub(super) fn field(&self, at: usize) -> Option<&[u8]> {
        self.fields.get(at.checked_sub(self.fields_from)?).map(AsRef::as_ref)
    }

    pub(super) fn prefix(&self) -> Option<&[u8]> {
        self.strip.as_deref()
    }

    pub(super) fn scrubs(&self) -> Errors {
        self.errors
    }
}

/// What an element is: a shape in a form that can be pointed into, and what can become of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Other,
    Value,
    Key,
    Field,
    Each(usize),
    Tuple {
        first: usize,
        len: usize,
    },
    /// Of this node and the next.
    Pairs(usize),
    ByKey,
    OfField(usize),
    ByField(usize),
    /// One pair in an array of its own.
    Pair(usize),
    /// Replies to the commands of a transaction.
    Exec,
    /// It does not fit: a value of the key at hand, in a field nobody knows.
    Doubt,
    /// It stands where the name of a key should, and is none.
    Unnamed,
    /// It is left out.
    Dropped,
}

impl Node {
    /// Whether the first line of an aggregate in this place, or a null, is passed on.
    pub(super) fn kept(self) -> Kept {
        if self == Self::Dropped { Kept::No } else { Kept::Yes }
    }
}

/// What a shape asks of the command.
#[derive(Debug, Default)]
struct Found {
    names_keys: bool,
    /// Arguments that name fields: the first, and the one behind the last.
    fields: Option<(usize, usize)>,
}

impl Found {
    fn fields(&mut self, from: usize, to: usize) {
        let (first, end) = self.fields.unwrap_or((from, to));
        self.fields = Some((first.min(from), end.max(to)));
    }
}
