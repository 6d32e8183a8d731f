//! The provided-buffer ring of a shard: memory the kernel fills with what arrives.
//!
//! An idle connection holds none of it. The kernel takes a buffer when bytes are there, the pump
//! lends it to the shard and gives it back in the same turn.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The only group of buffers in a ring.
pub(super) const GROUP: u16 = 0;

/// Entries and buffers in one mapping. To be dropped after the ring it is registered with.
pub(super) struct BufferRing {
    map: NonNull<u8>,
    map_bytes: usize,
    /// Where the buffers begin, behind the entries.
    data: usize,
    count: u16,
    size: u32,
    tail: u16,
}

impl BufferRing {
    /// `count` buffers of `size` octets; `count` is a power of two.
    pub(super) fn new(ring: &mut IoUring, count: u16, size: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= 1 << 15);
        let entries_bytes = usize::from(count) * size_of::<BufRingEntry>();
        let data = entries_bytes.next_multiple_of(4_096);
        let map_bytes = data + usize::from(count) * size as usize;
        // SAFETY: a new anonymous mapping; no existing memory is involved.
        let map = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(ptr::null_mut(), map_bytes, access, kind, -1, 0)
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut buffers = Self { map, map_bytes, data, count, size, tail: 0 };
        // SAFETY: the entries lie at the start of the mapping, which is page-aligned and lives
        // until after the ring (see the type's comment).
        unsafe {
            let submitter = ring.submitter();
            submitter.register_buf_ring_with_flags(map.as_ptr() as u64, count, GROUP, 0)?;
        }
        for buffer in 0..count {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    /// Octets of one buffer.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// What the kernel put into a buffer.
    pub(super) fn bytes(&self, buffer: u16, length: u32) -> &[u8] {
        assert!(buffer < self.count && length <= self.size);
        // SAFETY: the buffer lies inside the mapping, checked above. The kernel does not write to
        // it between the completion that named it and `give_back`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start(buffer), length as usize) }
    }

    /// The kernel may fill this buffer again.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        let start = self.start(buffer) as u64;
        let entries = self.map.cast::<BufRingEntry>();
        // SAFETY: `place` is below the number of entries. The kernel reads an entry only when the
        // tail has passed it, and there are never more buffers out than entries. The tail shares
        // its place with a reserved field of the first entry that the setters leave alone.
        unsafe {
            let entry = &mut *entries.as_ptr().add(place);
            entry.set_addr(start);
            entry.set_len(self.size);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(entries.as_ptr());
            // Release: the kernel sees the entry before the tail that covers it.
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }

    fn start(&self, buffer: u16) -> *mut u8 {
        let offset = self.data + usize::from(buffer) * self.size as usize;
        // SAFETY: `buffer` is below `count`, so the place is inside the mapping.
        unsafe { self.map.as_ptr().add(offset) }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and of that length; the ring is gone or nothing is out.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_bytes) };
    }
}
