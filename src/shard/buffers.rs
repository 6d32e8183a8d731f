//! Buffers that go round: from an outbox under a send, back, and to the next outbox.
//!
//! So the steady state allocates nothing, and an idle connection holds no buffer at all. What a
//! burst left behind and nobody took for a while goes back to the allocator.

use crate::limits::{SEND_BUFFER_KEEP_BYTES, SEND_BUFFERS_BYTES_MAX};

#[derive(Debug, Default)]
pub(super) struct Buffers {
    pool: Vec<Vec<u8>>,
    /// What they hold together.
    bytes: usize,
    /// As few as there were since the last trim: so many were not needed.
    unused: usize,
}

impl Buffers {
    /// An empty buffer; one with room if there is one.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let buffer = self.pool.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        self.unused = self.unused.min(self.pool.len());
        buffer
    }

    /// A buffer that nobody needs any more. One that grew large goes back to the allocator.
    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        let fits = (1..=SEND_BUFFER_KEEP_BYTES).contains(&buffer.capacity());
        if fits && self.bytes + buffer.capacity() <= SEND_BUFFERS_BYTES_MAX {
            self.bytes += buffer.capacity();
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// Gives back what nobody took since the last time; false: nothing is left to give.
    pub(super) fn trim(&mut self) -> bool {
        let goes = self.pool.drain(..self.unused.min(self.pool.len()));
        self.bytes -= goes.map(|buffer| buffer.capacity()).sum::<usize>();
        self.unused = self.pool.len();
        if self.pool.is_empty() {
            self.pool.shrink_to_fit();
        }
        !self.pool.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pool.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_burst_left_behind_goes_in_time() {
        let mut buffers = Buffers::default();
        for _ in 0..100 {
            buffers.give(Vec::with_capacity(100));
        }
        assert!(buffers.trim(), "all may have been in use a moment ago");
        let used: Vec<_> = (0..3).map(|_| buffers.take()).collect();
        used.into_iter().for_each(|buffer| buffers.give(buffer));
        assert!(buffers.trim());
        assert_eq!(buffers.pool.len(), 3, "these go round, the others did not");
        assert!(!buffers.trim());
    }

    #[test]
    fn no_more_is_kept_than_its_bound() {
        let mut buffers = Buffers::default();
        for _ in 0..SEND_BUFFERS_BYTES_MAX / SEND_BUFFER_KEEP_BYTES + 10 {
            buffers.give(Vec::with_capacity(SEND_BUFFER_KEEP_BYTES));
        }
        assert_eq!(buffers.bytes, SEND_BUFFERS_BYTES_MAX);
        drop(buffers.take());
        assert_eq!(buffers.bytes, SEND_BUFFERS_BYTES_MAX - SEND_BUFFER_KEEP_BYTES);
        while buffers.trim() {}
        assert_eq!(buffers.bytes, 0);
    }
}
