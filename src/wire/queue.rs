//! Bytes waiting to be written to one peer.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// A queue of bytes, written in order, gathered by vectored writes.
///
/// Small pieces are copied together so that one write carries them; long runs are passed on
/// without a copy.
#[derive(Debug, Default)]
pub struct ByteQueue {
    sealed: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl ByteQueue {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives back the memory of a burst; does nothing while bytes wait.
    pub fn rest(&mut self) {
        // Its capacity is what is left behind bytes that are out, not what is kept.
        if self.is_empty() && self.tail.try_reclaim(COPY_BELOW_BYTES + 1) {
            *self = Self::default();
        }
    }

    /// Appends a copy.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends whatever `write` encodes into the tail; it must only append.
    pub fn encode(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        write(&mut self.tail);
        self.len += self.tail.len().saturating_sub(before);
    }

    /// Moves the first `n` bytes of `input` (at most all) to the end of the queue.
    pub fn take_from(&mut self, input: &mut BytesMut, n: usize) {
        let n = n.min(input.len());
        if n == input.len() && self.is_empty() {
            // All of a batch: the two change places, and nothing is copied.
            std::mem::swap(&mut self.tail, input);
            input.clear();
        } else if n < COPY_BELOW_BYTES {
            let (head, _) = input.split_at(n);
            self.tail.extend_from_slice(head);
            input.advance(n);
        } else {
            if !self.tail.is_empty() {
                self.sealed.push_back(self.tail.split().freeze());
            }
            self.sealed.push_back(input.split_to(n).freeze());
        }
        self.len += n;
    }
}

impl Buf for ByteQueue {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.sealed.front().map_or(&self.tail, |bytes| bytes)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let tail = Some(&self.tail[..]).filter(|tail| !tail.is_empty());
        let pieces = self.sealed.iter().map(|bytes| &bytes[..]).chain(tail);
        dst.iter_mut().zip(pieces).map(|(slot, piece)| *slot = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut n: usize) {
        self.len = self.len.saturating_sub(n);
        while let Some(front) = self.sealed.front_mut() {
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.sealed.pop_front();
        }
        self.tail.advance(n.min(self.tail.len()));
    }
}

/// Below this many bytes a copy is cheaper than keeping the read buffer's allocation alive.
const COPY_BELOW_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut ByteQueue, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while queue.has_remaining() {
            let n = step.min(queue.chunk().len());
            out.extend_from_slice(&queue.chunk()[..n]);
            queue.advance(n);
        }
        out
    }

    #[test]
    fn keeps_order_over_copies_and_passed_on_runs() {
        for step in [1, 3, 4096, 1 << 20] {
            let mut queue = ByteQueue::default();
            let mut expected = Vec::new();
            for round in 0..5u8 {
                queue.extend(&[round; 7]);
                expected.extend_from_slice(&[round; 7]);
                let long = vec![round + 100; COPY_BELOW_BYTES + 5];
                let mut input = BytesMut::from(&long[..]);
                queue.take_from(&mut input, long.len() - 2);
                expected.extend_from_slice(&long[..long.len() - 2]);
                assert_eq!(input.len(), 2);
            }
            assert_eq!(queue.len(), expected.len());
            assert_eq!(drain(&mut queue, step), expected);
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn a_whole_batch_is_passed_on_without_a_copy() {
        let mut queue = ByteQueue::default();
        for round in 0..4u8 {
            let mut input = BytesMut::from(&[round; 100][..]);
            let place = input.as_ptr();
            queue.take_from(&mut input, 100);
            assert!(input.is_empty());
            assert_eq!(queue.chunk().as_ptr(), place);
            assert_eq!(drain(&mut queue, 30), [round; 100]);
        }
    }

    #[test]
    fn a_burst_that_is_over_leaves_no_memory_behind() {
        let mut queue = ByteQueue::default();
        let mut input = BytesMut::from(&[1; 256 * 1024][..]);
        let n = input.len();
        queue.take_from(&mut input, n);
        assert_eq!(drain(&mut queue, n).len(), n);
        queue.rest();
        assert!(!queue.tail.try_reclaim(COPY_BELOW_BYTES + 1), "all of it is still kept");
    }

    #[test]
    fn vectored_chunks_cover_everything() {
        let mut queue = ByteQueue::default();
        let mut input = BytesMut::from(&vec![1u8; COPY_BELOW_BYTES][..]);
        queue.extend(b"head");
        queue.take_from(&mut input, COPY_BELOW_BYTES);
        queue.extend(b"tail");
        let mut slices = [IoSlice::new(&[]); 8];
        let n = queue.chunks_vectored(&mut slices);
        let total: usize = slices[..n].iter().map(|slice| slice.len()).sum();
        assert_eq!(total, queue.len());
        assert_eq!(n, 3);
    }
}
