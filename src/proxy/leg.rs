//! One side of a connection: its stream, what was read and not yet taken, what waits to be written.

use std::io;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::replayed::Replayed;
use crate::wire::queue::ByteQueue;

/// What a leg's stream must be able to do.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// A leg's stream: as connected, or made TLS.
#[derive(Debug)]
pub(crate) enum LegStream<C> {
    /// As connected.
    Plain(C),
    /// After the handshake. Boxed: the TLS state is ten times the size of a socket.
    Tls(Box<TlsStream<Replayed<C>>>),
    /// Only while the handshake runs, and after it failed.
    Gone,
}

/// Bytes read and not yet taken by the session.
///
/// Idle connections keep a small buffer only; it grows while reads fill it.
#[derive(Debug)]
pub(crate) struct Input {
    /// What was read.
    pub(crate) bytes: BytesMut,
    /// Holds something the session has not been offered in its present state.
    pub(crate) fresh: bool,
    read_bytes: usize,
    /// Bytes of the longest read since there was much to read.
    longest: usize,
}

impl Input {
    /// Holds nothing.
    pub(crate) fn new() -> Self {
        Self { bytes: BytesMut::new(), fresh: false, read_bytes: READ_BYTES_MIN, longest: 0 }
    }

    /// Reads once. `Ok(0)` is the end of the stream.
    pub(crate) fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        read_bytes_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() && self.read_bytes == READ_BYTES_MIN {
            // Where what is kept is longer than what came so far, the bytes are not copied.
            if self.longest == 0 || !self.bytes.try_reclaim(self.longest + 1) {
                return self.poll_read_little(from, read_bytes_max, cx);
            }
        } else {
            self.bytes.reserve(self.read_bytes);
        }
        let spare = self.bytes.capacity() - self.bytes.len();
        let n = ready!(poll_read_buf(from, &mut self.bytes, cx))?;
        self.longest = self.longest.max(n);
        if n >= spare.min(self.read_bytes) {
            self.read_bytes = read_bytes_max;
        }
        Poll::Ready(Ok(n))
    }

    /// Reads by way of the stack: thousands of idle connections wait without a buffer, and keep
    /// only as much as their messages had.
    fn poll_read_little<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        read_bytes_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ_BYTES_MIN];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(from).poll_read(cx, &mut read))?;
        let filled = read.filled();
        // With room to see that nothing is left the next time.
        self.longest = self.longest.max(filled.len());
        self.bytes.reserve(self.longest + 1);
        self.bytes.extend_from_slice(filled);
        if filled.len() == READ_BYTES_MIN {
            self.read_bytes = read_bytes_max;
        }
        Poll::Ready(Ok(filled.len()))
    }

    /// Gives back what a burst needed. Called when nothing is in flight.
    pub(crate) fn rest(&mut self) {
        // Its capacity is what is left behind bytes that were taken, not what is kept.
        if self.bytes.is_empty()
            && (self.read_bytes > READ_BYTES_MIN || self.bytes.try_reclaim(KEPT_BYTES_MAX + 1))
        {
            *self = Self::new();
        }
    }
}

/// A stream with what belongs to it.
#[derive(Debug)]
pub(crate) struct Leg<T> {
    /// The stream.
    pub(crate) stream: T,
    /// Read and not yet taken.
    pub(crate) input: Input,
    /// The stream may hold written bytes of its own (TLS records).
    pub(crate) dirty: bool,
    /// Writing failed: nothing more can be sent, but what the peer said before may be read.
    pub(crate) broken: bool,
}

impl<T> Leg<T> {
    /// A fresh stream.
    pub(crate) fn new(stream: T) -> Self {
        Self { stream, input: Input::new(), dirty: false, broken: false }
    }
}

/// Writes as much of `queue` as the stream takes; ready when all of it is out.
///
/// `dirty` remembers between calls that the stream may hold bytes of its own (TLS records).
pub(crate) fn poll_drain<W: AsyncWrite + Unpin>(
    to: &mut W,
    queue: &mut ByteQueue,
    dirty: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while queue.has_remaining() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = queue.chunks_vectored(&mut slices);
        let wrote = match slices.get(..filled).unwrap_or_default() {
            [one] => ready!(Pin::new(&mut *to).poll_write(cx, one))?,
            many => ready!(Pin::new(&mut *to).poll_write_vectored(cx, many))?,
        };
        if wrote == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        queue.advance(wrote);
        *dirty = true;
    }
    if *dirty {
        ready!(Pin::new(to).poll_flush(cx))?;
        *dirty = false;
    }
    Poll::Ready(Ok(()))
}

/// [`AsyncRead::poll_read`] into the spare capacity of a [`BytesMut`].
fn poll_read_buf<R: AsyncRead + Unpin>(
    from: &mut R,
    into: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    // `read_buf` is a future without state of its own: polled once and dropped it loses nothing.
    let mut read = std::pin::pin!(tokio::io::AsyncReadExt::read_buf(from, into));
    read.as_mut().poll(cx)
}

impl<C: Stream> AsyncRead for LegStream<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }
}

impl<C: Stream> AsyncWrite for LegStream<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// What a read asks for at first: a batch that a client sends in one piece fits, so that it is passed
/// on in one piece, and the server answers in one.
const READ_BYTES_MIN: usize = 16 * 1024;
/// The most an idle connection keeps per side: a prepared transaction's messages fit, and a batch of
/// some dozens of commands.
const KEPT_BYTES_MAX: usize = 8 * 1024;

/// Pieces of a queue one write gathers.
const SLICES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_that_was_taken_leaves_no_memory_behind() {
        let mut input = Input::new();
        input.bytes.extend_from_slice(&[1; 2 * KEPT_BYTES_MAX]);
        input.bytes.advance(2 * KEPT_BYTES_MAX);
        input.rest();
        assert!(!input.bytes.try_reclaim(KEPT_BYTES_MAX + 1), "all of it is still kept");
    }
}
