//! Elements that are no aggregates.

use super::error::Text;
use super::frame::{Field, Inside};
use super::job::{Errors, Job, Node, Owed};
use super::mask::{FieldName, Program, Value};
use super::{Context, HELD_BYTES_MAX, Kept, LINE_END, NAME_BYTES_MAX, Reshaper, Way};
use crate::mask::Masked;
use crate::wire::queue::ByteQueue;
use crate::wire::resp::element::{Blob, Line, Malformed};
use crate::wire::resp::{Tail, encode};

/// A value of which not all has arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum UnderWay {
    #[default]
    Nothing,
    /// It is passed on as it comes, or what stands for it was written.
    Told(Tail, Kept),
    /// It is the name of a key or a field, which is passed on and noted.
    Noted { tail: Tail, node: Node, len: usize },
    /// It is gathered, because what stands for it depends on all of it.
    Held { tail: Tail, node: Node, blob: Blob },
}

impl UnderWay {
    pub(super) fn is_open(self) -> bool {
        !matches!(self, Self::Nothing)
    }
}

/// What becomes of an element.
#[derive(Debug)]
enum Action<'a> {
    Pass,
    Drop,
    /// Null stands for it.
    Hide,
    /// It is an error, of which not all is shown.
    Error(Text<'a>),
    /// It is the name of a key, from which this is taken off.
    Strip(&'a [u8]),
    /// It is the name of a key or a field, and tells which masks what follows owes.
    Note,
    Mask(Program<'a>),
}

impl Reshaper {
    /// An element that is one line.
    pub(super) fn line(
        &mut self,
        (node, kind): (Node, Line),
        line: usize,
        context: Context<'_>,
        way: &mut Way<'_>,
    ) {
        let action = self.action(node, kind == Line::Error, context);
        let kept = match action {
            Action::Pass | Action::Note => Kept::Yes,
            Action::Drop => Kept::No,
            Action::Hide | Action::Error(_) | Action::Strip(_) | Action::Mask(_) => {
                way.flush();
                let text = way.input.get(1..line.saturating_sub(LINE_END)).unwrap_or_default();
                // A token tells of two values as much as the value.
                let value = if kind == Line::Boolean { Value::Untold } else { Value::Text(text) };
                self.settle((node, action), value, context, way.out);
                return way.take(line, Kept::No);
            }
        };
        self.has_been(node);
        if let Action::Note = action {
            let name = way.rest().get(1..line.saturating_sub(LINE_END)).unwrap_or_default();
            self.name_begins(node, name.len());
            self.names.extend_from_slice(name);
            self.name_ends(node, name.len(), context);
        }
        way.take(line, kept);
    }

    /// An element with a length, behind a line of so many bytes.
    pub(super) fn blob(
        &mut self,
        (node, blob): (Node, Blob),
        (line, len): (usize, usize),
        context: Context<'_>,
        way: &mut Way<'_>,
    ) {
        let tail = Tail::of(len);
        let action = self.action(node, blob == Blob::Error, context);
        let is_short = len <= HELD_BYTES_MAX;
        self.under_way = match action {
            Action::Pass => UnderWay::Told(tail, Kept::Yes),
            Action::Drop => UnderWay::Told(tail, Kept::No),
            Action::Note if blob == Blob::Bulk && len <= NAME_BYTES_MAX => {
                UnderWay::Noted { tail, node, len }
            }
            Action::Note => UnderWay::Told(tail, Kept::Yes),
            Action::Strip(_) | Action::Error(_) if is_short => UnderWay::Held { tail, node, blob },
            Action::Mask(ref program) if is_short && !program.is_constant() => {
                UnderWay::Held { tail, node, blob }
            }
            Action::Mask(_) | Action::Strip(_) | Action::Error(_) | Action::Hide => {
                let is_known = matches!(&action, Action::Mask(program) if program.is_constant());
                self.too_long = self.too_long.saturating_add(u64::from(!is_short && !is_known));
                way.flush();
                self.settle((node, action), Value::Untold, context, way.out);
                way.take(line, Kept::No);
                self.under_way = UnderWay::Told(tail, Kept::No);
                return;
            }
        };
        match self.under_way {
            UnderWay::Nothing => {}
            UnderWay::Held { .. } => way.take(line, Kept::No),
            UnderWay::Told(_, kept) => {
                self.has_been(node);
                way.take(line, kept);
            }
            UnderWay::Noted { .. } => {
                self.has_been(node);
                self.name_begins(node, len);
                way.take(line, Kept::Yes);
            }
        }
    }

    /// Takes what has arrived of a value that is under way.
    pub(super) fn go_on(
        &mut self,
        context: Context<'_>,
        way: &mut Way<'_>,
    ) -> Result<(), Malformed> {
        let (mut tail, under_way) = match self.under_way {
            UnderWay::Nothing => return Ok(()),
            UnderWay::Told(tail, _)
            | UnderWay::Noted { tail, .. }
            | UnderWay::Held { tail, .. } => (tail, self.under_way),
        };
        let left = tail.value();
        let taken = tail.take(way.rest()).ok_or(Malformed::LineEnd)?;
        let is_over = tail.is_over();
        let kept = match under_way {
            UnderWay::Nothing => return Ok(()),
            UnderWay::Told(_, kept) => {
                self.under_way = UnderWay::Told(tail, kept);
                kept
            }
            UnderWay::Noted { node, len, .. } => {
                let piece = way.rest().get(..left.min(taken)).unwrap_or_default();
                self.names.extend_from_slice(piece);
                self.under_way = UnderWay::Noted { tail, node, len };
                if is_over {
                    self.name_ends(node, len, context);
                }
                Kept::Yes
            }
            UnderWay::Held { node, blob, .. } => {
                let piece = way.input.get(..left.min(taken)).unwrap_or_default();
                self.under_way = UnderWay::Held { tail, node, blob };
                if !is_over || !self.held.is_empty() {
                    self.held.extend_from_slice(piece);
                }
                if is_over {
                    let held = std::mem::take(&mut self.held);
                    // What arrived as a whole was never copied.
                    let value = if held.is_empty() { piece } else { &held };
                    self.settle_blob((node, blob), value, context, way.out);
                    self.held = held;
                    self.held.clear();
                }
                Kept::No
            }
        };
        way.take(taken, kept);
        if is_over {
            self.under_way = UnderWay::Nothing;
        }
        Ok(())
    }

    fn settle_blob(
        &mut self,
        (node, blob): (Node, Blob),
        value: &[u8],
        context: Context<'_>,
        out: &mut ByteQueue,
    ) {
        let action = self.action(node, blob == Blob::Error, context);
        let text = match blob {
            Blob::Bulk | Blob::Error => value,
            Blob::Verbatim => value.get(FORMAT..).unwrap_or_default(),
        };
        self.settle((node, action), Value::Text(text), context, out);
    }

    /// Writes what stands for an element.
    fn settle(
        &mut self,
        (node, action): (Node, Action<'_>),
        value: Value<'_>,
        context: Context<'_>,
        out: &mut ByteQueue,
    ) {
        let with = context.with;
        self.has_been(node);
        let shown = match (&action, value) {
            (Action::Mask(program), value) => {
                match program.apply(with.masker, value, &mut self.masked, &mut self.spare) {
                    Masked::Value => Some(self.masked.as_slice()),
                    Masked::Null => None,
                }
            }
            (Action::Strip(prefix), Value::Text(name)) => {
                self.key_is(name, context);
                name.strip_prefix(*prefix)
            }
            (Action::Error(text), Value::Text(error)) => {
                return out.encode(|out| text.write(error, out));
            }
            (Action::Error(_), Value::Untold) => {
                return out.encode(|out| Text::Word.write(b"", out));
            }
            // These are passed on or left out before anything is written for them.
            (Action::Pass | Action::Drop | Action::Note, _) => None,
            (Action::Hide, _) | (Action::Strip(_), Value::Untold) => None,
        };
        out.encode(|out| match shown {
            Some(bytes) => encode::bulk(out, bytes),
            None => encode::null(out, with.protocol),
        });
    }

    fn action<'a>(&self, node: Node, is_error: bool, context: Context<'a>) -> Action<'a> {
        let Some(frame) = self.frames.last() else { return Action::Drop };
        let job = context.owed.job(self.part);
        let prefix = job.and_then(Job::prefix);
        let is_reply = self.frames.len() == 1 || matches!(frame.inside, Inside::Exec);
        match node {
            Node::Dropped => Action::Drop,
            _ if is_error && is_reply => of_error(job),
            Node::Other => Action::Pass,
            _ if is_error => Action::Error(Text::Word),
            Node::Key if let Some(prefix) = prefix => Action::Strip(prefix),
            Node::Key | Node::Field if job.is_some_and(Job::masks) => Action::Note,
            Node::Key | Node::Field => Action::Pass,
            Node::Unnamed if prefix.is_some() => Action::Hide,
            Node::Value => self.masks(frame.key, frame.field, context),
            Node::Unnamed
            | Node::Doubt
            | Node::Each(_)
            | Node::Tuple { .. }
            | Node::Pairs(_)
            | Node::ByKey
            | Node::OfField(_)
            | Node::ByField(_)
            | Node::Pair(_)
            | Node::Exec => self.masks(frame.key, Field::Unknown, context),
        }
    }

    /// The masks of a value of this key, in this field.
    fn masks<'a>(&self, key: Option<usize>, field: Field, context: Context<'a>) -> Action<'a> {
        let job = context.owed.job(self.part);
        let name = match field {
            Field::None => FieldName::None,
            Field::Unknown => FieldName::Unknown,
            Field::Argument(at) => {
                job.and_then(|job| job.field(at)).map_or(FieldName::Unknown, FieldName::Named)
            }
            Field::Named { start, len } => start
                .checked_add(len)
                .and_then(|end| self.names.get(start..end))
                .map_or(FieldName::Unknown, FieldName::Named),
        };
        let program = match (job, context.owed) {
            (Some(job), _) => Program::new(job.masks_of(key), name),
            (None, Owed::Exec(jobs)) => {
                Program::new(jobs.iter().flatten().flat_map(|job| job.masks_of(None)), name)
            }
            (None, Owed::One(job)) => Program::new(job.masks_of(None), name),
        };
        if program.is_nothing() { Action::Pass } else { Action::Mask(program) }
    }

    /// A name of so many bytes follows: of a field, for the next value in this aggregate, or of a key.
    fn name_begins(&mut self, node: Node, len: usize) {
        let Some(frame) = self.frames.last_mut() else { return };
        if node == Node::Field {
            self.names.truncate(frame.names);
            frame.field = Field::Named { start: self.names.len(), len };
        }
    }

    /// It has been noted.
    fn name_ends(&mut self, node: Node, len: usize, context: Context<'_>) {
        if node == Node::Key {
            let names = std::mem::take(&mut self.names);
            let start = names.len().saturating_sub(len);
            self.key_is(names.get(start..).unwrap_or_default(), context);
            self.names = names;
            self.names.truncate(start);
        }
    }

    fn key_is(&mut self, name: &[u8], context: Context<'_>) {
        let job = context.owed.job(self.part);
        if let Some(frame) = self.frames.last_mut() {
            frame.key = job.and_then(|job| job.key_named(name));
        }
    }
}

/// What becomes of an error in the place of a reply.
fn of_error(job: Option<&Job>) -> Action<'_> {
    let Some(job) = job else { return Action::Pass };
    match (job.scrubs(), job.prefix()) {
        (Errors::Scrubbed, _) => Action::Error(Text::Word),
        (Errors::Passed, Some(prefix)) => Action::Error(Text::Without(prefix)),
        (Errors::Passed, None) => Action::Pass,
    }
}

/// Bytes before the text of a verbatim string: three letters and a colon.
const FORMAT: usize = 4;
