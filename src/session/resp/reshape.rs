//! Replies, rewritten element by element: values are masked, and a tenant's prefix is taken off the
//! names of keys.
//!
//! What stands where is told by a [`Shape`](crate::analysis::redis::Shape). A reply is read as it
//! arrives: nesting is a stack of frames, one element is held at a time, and that only if what becomes
//! of it depends on all of it. Runs of elements that owe nothing are passed on as the server's bytes.
//!
//! Closed by construction:
//! - What does not fit the shape is taken for a value of the key at hand, in a field that cannot be
//!   told: every mask of the key holds. Where the key cannot be told, those of all keys hold.
//! - Attributes, which no shape tells of, are left out unless they stand where nothing is masked.
//! - A masked value is a bulk string, or null, whatever its type was. Only null stays null.
//! - A value too long to be held is hidden ([`HIDDEN`](crate::mask::HIDDEN), as whatever a mask does
//!   not fit), unless its mask needs no value.
//! - The name of a key that does not begin with the prefix is another tenant's: null stands for it.
//!
//! Deliberately absent: leaving elements out of an aggregate, whose count has gone before them.

use bytes::{Buf as _, BytesMut};

use crate::mask::Masker;
use crate::wire::queue::ByteQueue;
use crate::wire::resp::Protocol;
use crate::wire::resp::element::{Aggregate, DEPTH_MAX, Head, Heads, Malformed};

mod error;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod job;
mod leaf;
mod mask;

pub use job::{Errors, Job, Owed};
pub use mask::KeyMasks;

use frame::{Field, Frame, Inside, Part};
use job::Node;
use leaf::UnderWay;

/// Rewrites the replies of one connection, one after the other.
#[derive(Debug, Default)]
pub struct Reshaper {
    /// Aggregates that are not over, the reply itself outermost; empty between two replies.
    frames: Vec<Frame>,
    part: Part,
    is_push: bool,
    heads: Heads,
    under_way: UnderWay,
    /// What has arrived of a value that is held.
    held: Vec<u8>,
    /// Names of fields at hand, those of inner aggregates behind those of outer ones.
    names: Vec<u8>,
    masked: Vec<u8>,
    spare: Vec<u8>,
    too_long: u64,
}

/// What does not depend on the reply.
#[derive(Clone, Copy, Debug)]
pub struct With<'a> {
    /// Carries masks out.
    pub masker: &'a Masker,
    /// The version the server speaks at this reply.
    pub protocol: Protocol,
}

/// How far a reply has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    Open,
    /// It is over.
    Done,
}

/// Longest value that is held to be masked, and longest name of a key that is held to be shortened. A
/// session holds one at a time, and its masked form beside it.
pub const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest name of a key or a field that is compared. What follows a longer one is masked as if it
/// could be any key's or field's.
pub const NAME_BYTES_MAX: usize = 64 * 1024;
/// Above so many bytes memory is given back when a reply is over.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Carriage return and line feed.
const LINE_END: usize = 2;

/// What stays the same for one call.
#[derive(Clone, Copy)]
struct Context<'a> {
    owed: &'a Owed,
    with: With<'a>,
}

/// Whether bytes of the server are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Yes,
    No,
}

/// Both ends of a reply's way. Bytes that are passed on are only counted until others come between.
struct Way<'a> {
    input: &'a mut BytesMut,
    out: &'a mut ByteQueue,
    passed: usize,
}

impl Reshaper {
    /// Whether the bytes before this were whole replies.
    pub fn is_between(&self) -> bool {
        self.frames.is_empty() && self.heads.is_between()
    }

    /// Values that were too long to be masked and are hidden, since the beginning.
    pub fn too_long(&self) -> u64 {
        self.too_long
    }

    /// Takes what it can of one reply from the front of `input`, and appends what the client gets.
    /// Until the reply is over, calls are given the same `owed`.
    ///
    /// # Errors
    /// What no server sends; what came before it was appended.
    pub fn feed(
        &mut self,
        owed: &Owed,
        with: With<'_>,
        input: &mut BytesMut,
        out: &mut ByteQueue,
    ) -> Result<Step, Malformed> {
        let mut way = Way { input, out, passed: 0 };
        let step = self.read(Context { owed, with }, &mut way);
        way.flush();
        if step == Ok(Step::Done) {
            for memory in [&mut self.held, &mut self.names, &mut self.masked, &mut self.spare] {
                memory.clear();
                memory.shrink_to(KEPT_BYTES_MAX);
            }
        }
        step
    }

    fn read(&mut self, context: Context<'_>, way: &mut Way<'_>) -> Result<Step, Malformed> {
        loop {
            self.go_on(context, way)?;
            if self.under_way.is_open() {
                return Ok(Step::Open);
            }
            if self.close() {
                return Ok(Step::Done);
            }
            let Some(line) = self.heads.line(way.rest())? else { return Ok(Step::Open) };
            let (head, line) = (Head::of(line)?, line.len().saturating_add(LINE_END));
            self.element(context, (head, line), way)?;
        }
    }

    /// Leaves what has no more elements; whether that was all.
    fn close(&mut self) -> bool {
        let was_open = !self.frames.is_empty();
        while let Some(frame) = self.frames.pop_if(|frame| frame.left == 0) {
            self.names.truncate(frame.names);
        }
        was_open && self.frames.is_empty()
    }

    /// One element begins, with a line of so many bytes.
    fn element(
        &mut self,
        context: Context<'_>,
        (head, line): (Head, usize),
        way: &mut Way<'_>,
    ) -> Result<(), Malformed> {
        let is_push = matches!(head, Head::Aggregate(Aggregate::Push, _));
        if self.frames.is_empty() {
            let (frame, part) = context.owed.frame();
            self.frames.push(frame);
            (self.part, self.is_push) = (part, is_push);
        } else if is_push {
            return Err(Malformed::Misplaced);
        }
        let frame = self.frames.last_mut().filter(|frame| frame.left > 0);
        let frame = frame.ok_or(Malformed::Misplaced)?;
        if let Head::Aggregate(Aggregate::Attribute, count) = head {
            let node = frame.attributes(context.owed, self.part);
            return self.attributes((node, count), line, way);
        }
        let node = frame.next(context.owed, &mut self.part, head);
        match head {
            Head::Null => {
                way.take(line, node.kept());
                self.has_been(node);
            }
            Head::Line(kind) => self.line((node, kind), line, context, way),
            Head::Blob(blob, len) => self.blob((node, blob), (line, len), context, way),
            Head::Aggregate(kind, count) => {
                way.take(line, node.kept());
                return self.enter(node, (kind, count), context);
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        node: Node,
        (kind, count): (Aggregate, u64),
        context: Context<'_>,
    ) -> Result<(), Malformed> {
        let inside = Inside::of(node, (kind, count), context.owed, self.part);
        let names = self.names.len();
        let parent = self.frames.last_mut().ok_or(Malformed::Misplaced)?;
        let frame = Frame { left: count, at: 0, inside, names, ..*parent };
        parent.has_been(node);
        self.push(frame)
    }

    /// Attributes stand in front of an element and are none.
    fn attributes(
        &mut self,
        (node, count): (Node, u64),
        line: usize,
        way: &mut Way<'_>,
    ) -> Result<(), Malformed> {
        if self.is_push {
            return Err(Malformed::Misplaced);
        }
        way.take(line, node.kept());
        let (inside, names) = (Inside::All(node), self.names.len());
        self.push(Frame { left: count, at: 0, inside, key: None, field: Field::None, names })
    }

    /// An element that is no aggregate is over.
    fn has_been(&mut self, node: Node) {
        if let Some(frame) = self.frames.last_mut() {
            frame.has_been(node);
        }
    }

    fn push(&mut self, frame: Frame) -> Result<(), Malformed> {
        if self.frames.len() > DEPTH_MAX {
            return Err(Malformed::TooDeep);
        }
        self.frames.push(frame);
        Ok(())
    }
}

impl Way<'_> {
    /// What has not been looked at.
    fn rest(&self) -> &[u8] {
        self.input.get(self.passed..).unwrap_or_default()
    }

    /// The next bytes are passed on, or left out.
    fn take(&mut self, bytes: usize, kept: Kept) {
        match kept {
            Kept::Yes => self.passed = self.passed.saturating_add(bytes),
            Kept::No => {
                self.flush();
                self.input.advance(bytes.min(self.input.len()));
            }
        }
    }

    /// What is passed on goes before what is written next.
    fn flush(&mut self) {
        self.out.take_from(self.input, std::mem::take(&mut self.passed));
    }
}

#[cfg(test)]
mod tests;
