//! Buffers that go round: from an outbox under a send, back, and to the next outbox.
//!
//! So the steady state allocates nothing, and an idle connection holds no buffer at all.

use crate::limits::{SEND_BUFFER_KEEP_BYTES, SEND_BUFFERS_MAX};

#[derive(Debug, Default)]
pub(super) struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    /// An empty buffer; one with room if there is one.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// A buffer that nobody needs any more. One that grew large goes back to the allocator.
    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        let fits = (1..=SEND_BUFFER_KEEP_BYTES).contains(&buffer.capacity());
        if fits && self.0.len() < SEND_BUFFERS_MAX {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}
