//! What takes batches of events, and the sink that writes them as lines.

use std::io;

use crate::event::{Event, Instance};

/// Where events go. Object safe, behind the bounded queue.
pub trait Sink: Send {
    /// Takes a batch, whole.
    ///
    /// # Errors
    /// It could not be taken. The caller comes again with **the same batch**; what was taken of it
    /// before must not be taken twice.
    fn write(&mut self, batch: &[Event]) -> io::Result<()>;

    /// Makes everything taken durable; nothing is written afterwards.
    ///
    /// # Errors
    /// Some of it may not be durable.
    fn close(&mut self) -> io::Result<()>;
}

/// Bytes the encoding buffer keeps between batches; a batch of large events may need more once.
const BUFFER_KEPT_BYTES: usize = 4 * 1024 * 1024;

/// What lines are written to.
pub(super) trait Output: io::Write + Send {
    /// Called before a batch of this many bytes, when nothing of it is written: the moment to
    /// switch to another file.
    fn begin(&mut self, bytes: usize);

    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// One JSON object a line.
pub(super) struct Lines<O> {
    instance: Instance,
    /// Number of the line written last.
    sequence: u64,
    output: O,
    /// The batch in hand, encoded; empty between batches.
    buffer: Vec<u8>,
    /// How much of the buffer is written: after a failure writing goes on here, in mid-line if need
    /// be, so that no line is lost, doubled or torn.
    written: usize,
}

impl<O: Output> Lines<O> {
    pub(super) fn new(instance: Instance, output: O) -> Self {
        Self { instance, sequence: 0, output, buffer: Vec::new(), written: 0 }
    }

    fn encode(&mut self, batch: &[Event]) {
        for event in batch {
            self.sequence += 1;
            event.write_json(&self.instance, self.sequence, &mut self.buffer);
            self.buffer.push(b'\n');
        }
    }

    fn write_rest(&mut self) -> io::Result<()> {
        while let Some(rest) = self.buffer.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.output.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<O: Output> Sink for Lines<O> {
    fn write(&mut self, batch: &[Event]) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.encode(batch);
        }
        if self.written == 0 {
            self.output.begin(self.buffer.len());
        }
        self.write_rest()?;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        self.written = 0;
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.output.sync()
    }
}
