//! The mesh: one byte ring of variable-length records from each shard to each other.
//!
//! A ring has one producer and one consumer. Positions count octets and never wrap in practice
//! (2^64 octets); the place in memory is the position modulo the ring's size. Records are aligned
//! to eight octets and never cross the end: a filler covers what is left there.
//!
//! Why the orderings suffice. `tail` is written by the producer only, with Release, after the
//! octets below it; the consumer loads it with Acquire, so it sees these octets. `head` is written
//! by the consumer only, with Release, after it has finished reading the octets below it; the
//! producer loads it with Acquire before it writes over them, so reads and writes of one place
//! never overlap. Between `head` and `tail` the octets belong to the consumer, elsewhere to the
//! producer. Waking is a separate matter, proven in `lanes.rs`.
//!
//! Does **not** wait: a full ring keeps a capped list on the producer's side and then says
//! [`Full`].

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{
    MESH_BOXED_BYTES_MAX, MESH_INLINE_BYTES_MAX, MESH_OVERFLOW_BYTES_MAX, MESH_RING_BYTES,
};
use crate::shard::kernel::Full;

/// Keeps what one core writes away from the lines another core writes (two lines, since the
/// prefetcher pairs them).
#[repr(align(128))]
#[derive(Debug, Default)]
pub(super) struct Padded<T>(pub(super) T);

/// Room before each record: its kind and its length.
const HEADER_BYTES: usize = 8;
const INLINE: u32 = 0;
const BOXED: u32 = 1;
const FILLER: u32 = 2;
/// A record by pointer holds its address and length.
const POINTER_BYTES: usize = 16;

struct Ring {
    tail: Padded<AtomicU64>,
    head: Padded<AtomicU64>,
    /// Words, so that headers are aligned.
    words: Box<[UnsafeCell<u64>]>,
}

// SAFETY: `words` is shared by one producer and one consumer, which touch disjoint parts of it by
// the ordering proof above; the counters are atomic.
unsafe impl Sync for Ring {}

impl Ring {
    fn at(&self, position: u64) -> *mut u8 {
        let offset = place(position);
        let base = UnsafeCell::raw_get(self.words.as_ptr()).cast::<u8>();
        // SAFETY: `offset` is below MESH_RING_BYTES, the length of the allocation in octets.
        unsafe { base.add(offset) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Nobody else is left: records by pointer that were not taken are ours to free.
        let mut head = *self.head.0.get_mut();
        let tail = *self.tail.0.get_mut();
        while head < tail {
            // SAFETY: between head and tail lie whole records, each with a header; no other
            // reference to the ring exists any more.
            let (kind, length) = unsafe { header(self.at(head)) };
            if kind == BOXED {
                // SAFETY: a BOXED record below `tail` and not below `head` was never taken.
                drop(unsafe { take_box(self.at(head)) });
            }
            head += span(length);
        }
    }
}

/// The sending end. One per ring.
pub(super) struct Producer {
    ring: Arc<Ring>,
    /// Where the next record goes; ahead of the published tail during a turn.
    tail: u64,
    published: u64,
    /// The consumer's head as last seen.
    head: u64,
    overflow: VecDeque<Box<[u8]>>,
    overflow_bytes: usize,
    /// Ends and lengths of records by pointer that the consumer has not passed yet.
    boxed: VecDeque<(u64, usize)>,
    boxed_bytes: usize,
}

/// The receiving end. One per ring.
pub(super) struct Consumer {
    ring: Arc<Ring>,
    head: u64,
    published: u64,
    /// The producer's tail as last seen.
    tail: u64,
    /// The record by pointer that is lent at the moment.
    lent: Option<Box<[u8]>>,
}

/// Where a record that was taken lies; good until the next call on its consumer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Record {
    Inline { position: u64, length: usize },
    Boxed,
}

/// How a record got in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Posted {
    Ring,
    Overflow,
}

/// A ring with both its ends.
pub(super) fn ring() -> (Producer, Consumer) {
    let words = (0..MESH_RING_BYTES / 8).map(|_| UnsafeCell::new(0)).collect();
    let ring = Arc::new(Ring { tail: Padded::default(), head: Padded::default(), words });
    let producer = Producer {
        ring: Arc::clone(&ring),
        tail: 0,
        published: 0,
        head: 0,
        // Bounded in octets, see `post`.
        overflow: VecDeque::with_capacity(16),
        overflow_bytes: 0,
        // Bounded in octets, see `has_room_boxed`.
        boxed: VecDeque::with_capacity(16),
        boxed_bytes: 0,
    };
    (producer, Consumer { ring, head: 0, published: 0, tail: 0, lent: None })
}

impl Producer {
    /// Puts a record in, behind all earlier ones. It is seen after [`Producer::publish`].
    pub(super) fn post(&mut self, record: &[u8]) -> Result<Posted, Full> {
        // What waits goes first, or order would be lost.
        if self.overflow.is_empty() && self.put(record) {
            return Ok(Posted::Ring);
        }
        if self.overflow_bytes + record.len() + HEADER_BYTES > MESH_OVERFLOW_BYTES_MAX {
            return Err(Full);
        }
        self.overflow_bytes += record.len() + HEADER_BYTES;
        self.overflow.push_back(record.into());
        Ok(Posted::Overflow)
    }

    /// Shows the consumer all that was put in. True if there is something new to see.
    pub(super) fn publish(&mut self) -> bool {
        while let Some(record) = self.overflow.pop_front() {
            if !self.put(&record) {
                self.overflow.push_front(record);
                break;
            }
            self.overflow_bytes -= record.len() + HEADER_BYTES;
        }
        if self.published == self.tail {
            return false;
        }
        self.ring.tail.0.store(self.tail, Ordering::Release);
        self.published = self.tail;
        true
    }

    /// Records wait on our side for room.
    pub(super) fn is_waiting(&self) -> bool {
        !self.overflow.is_empty()
    }

    fn put(&mut self, record: &[u8]) -> bool {
        let inline = record.len() <= MESH_INLINE_BYTES_MAX;
        let length = if inline { record.len() } else { POINTER_BYTES };
        if !inline && !self.has_room_boxed(record.len()) {
            return false;
        }
        if !self.reserve(span(length)) {
            return false;
        }
        let to = self.ring.at(self.tail);
        let kind = if inline { INLINE } else { BOXED };
        // SAFETY: `reserve` made sure that `span(length)` octets from `tail` lie before the end
        // of the ring and not between the consumer's head and the published tail, so they are
        // ours. `to` is aligned to eight octets since spans and the ring's size are.
        unsafe {
            write_header(to, kind, length);
            if inline {
                ptr::copy_nonoverlapping(record.as_ptr(), to.add(HEADER_BYTES), length);
            } else {
                let raw = Box::into_raw(Box::<[u8]>::from(record));
                let words = to.add(HEADER_BYTES).cast::<u64>();
                words.write(raw.cast::<u8>().expose_provenance() as u64);
                words.add(1).write(record.len() as u64);
            }
        }
        self.tail += span(length);
        if !inline {
            self.boxed.push_back((self.tail, record.len()));
            self.boxed_bytes += record.len();
        }
        true
    }

    fn has_room_boxed(&mut self, length: usize) -> bool {
        self.head = self.ring.head.0.load(Ordering::Acquire);
        while let Some(&(end, bytes)) = self.boxed.front() {
            if end > self.head {
                break;
            }
            self.boxed_bytes -= bytes;
            self.boxed.pop_front();
        }
        // One of any length may always pass, or a very large one would wait for ever.
        self.boxed.is_empty() || self.boxed_bytes + length <= MESH_BOXED_BYTES_MAX
    }

    /// Moves `tail` to a place where `octets` lie in one piece, if the consumer left that room.
    fn reserve(&mut self, octets: u64) -> bool {
        let ring_bytes = MESH_RING_BYTES as u64;
        let before_end = ring_bytes - self.tail % ring_bytes;
        let filler = if octets > before_end { before_end } else { 0 };
        if self.tail + filler + octets - self.head > ring_bytes {
            self.head = self.ring.head.0.load(Ordering::Acquire);
            if self.tail + filler + octets - self.head > ring_bytes {
                return false;
            }
        }
        if filler > 0 {
            // SAFETY: the filler's octets are free, checked above, and at least a header long
            // since all spans are multiples of eight.
            unsafe {
                write_header(self.ring.at(self.tail), FILLER, filler as usize - HEADER_BYTES)
            };
            self.tail += filler;
        }
        true
    }
}

impl Consumer {
    /// Looks what the producer has published; [`Consumer::take`] goes up to there. True if there
    /// is something to take.
    pub(super) fn look(&mut self) -> bool {
        self.tail = self.ring.tail.0.load(Ordering::Acquire);
        self.head < self.tail
    }

    /// The next record up to the last look. What was lent before goes back.
    pub(super) fn take(&mut self) -> Option<Record> {
        self.give_back();
        loop {
            if self.head == self.tail {
                return None;
            }
            let at = self.ring.at(self.head);
            // SAFETY: `head` is below `tail`, so a whole record with its header lies here.
            let (kind, length) = unsafe { header(at) };
            let position = self.head;
            self.head += span(length);
            match kind {
                FILLER => {}
                BOXED => {
                    // SAFETY: each record is taken once, since `head` has moved on.
                    self.lent = Some(unsafe { take_box(at) });
                    return Some(Record::Boxed);
                }
                _ => return Some(Record::Inline { position, length }),
            }
        }
    }

    /// The octets of the record that was taken last.
    pub(super) fn bytes(&self, record: Record) -> &[u8] {
        match record {
            Record::Boxed => self.lent.as_deref().unwrap_or_default(),
            Record::Inline { position, length } => {
                assert!(position >= self.published && position < self.head);
                // SAFETY: the record lies above the published head, so the producer does not
                // write here before `give_back`, which needs `&mut self`; the octets were written
                // before the tail we acquired.
                unsafe {
                    std::slice::from_raw_parts(self.ring.at(position).add(HEADER_BYTES), length)
                }
            }
        }
    }

    /// Gives the room of all taken records back to the producer.
    pub(super) fn give_back(&mut self) {
        self.lent = None;
        if self.published != self.head {
            self.ring.head.0.store(self.head, Ordering::Release);
            self.published = self.head;
        }
    }
}

fn place(position: u64) -> usize {
    (position % MESH_RING_BYTES as u64) as usize
}

/// Octets that a record of that length takes.
fn span(length: usize) -> u64 {
    (HEADER_BYTES + length).next_multiple_of(8) as u64
}

/// # Safety
/// `at` points to eight octets inside a ring that belong to the caller.
unsafe fn write_header(at: *mut u8, kind: u32, length: usize) {
    // SAFETY: by the contract above; positions are multiples of eight, so it is aligned.
    unsafe { at.cast::<u64>().write(u64::from(kind) << 32 | length as u64) };
}

/// # Safety
/// `at` points to a header inside a ring that belongs to the caller.
unsafe fn header(at: *mut u8) -> (u32, usize) {
    // SAFETY: by the contract above; positions are multiples of eight, so it is aligned.
    let word = unsafe { at.cast::<u64>().read() };
    ((word >> 32) as u32, (word & 0xffff_ffff) as usize)
}

/// # Safety
/// `at` points to a BOXED record that belongs to the caller and is never taken again.
unsafe fn take_box(at: *mut u8) -> Box<[u8]> {
    // SAFETY: by the contract above these are the words that `put` wrote from `Box::into_raw`.
    unsafe {
        let words = at.add(HEADER_BYTES).cast::<u64>();
        let start = ptr::with_exposed_provenance_mut::<u8>(words.read() as usize);
        let length = words.add(1).read() as usize;
        Box::from_raw(ptr::slice_from_raw_parts_mut(start, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(record: &mut Vec<u8>, number: u64) {
        // Mostly small, now and then by pointer; the content follows from the number.
        let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 29;
        let length = if mixed.is_multiple_of(1_001) { 20_000 } else { 8 + (mixed % 400) as usize };
        record.clear();
        record.resize(length, (number % 251) as u8);
        record[..8].copy_from_slice(&number.to_le_bytes());
    }

    #[test]
    fn two_threads_see_every_record_once_in_order() {
        const RECORDS: u64 = 1_000_000;
        let (mut producer, mut consumer) = ring();
        let sender = std::thread::spawn(move || {
            let mut record = Vec::new();
            for number in 0..RECORDS {
                fill(&mut record, number);
                while producer.post(&record).is_err() {
                    producer.publish();
                    std::thread::yield_now();
                }
                if number % 7 == 0 {
                    producer.publish();
                }
            }
            while producer.is_waiting() || producer.publish() {
                producer.publish();
                std::thread::yield_now();
            }
        });
        let mut expected = Vec::new();
        let mut number = 0;
        while number < RECORDS {
            if !consumer.look() {
                std::thread::yield_now();
            }
            while let Some(record) = consumer.take() {
                fill(&mut expected, number);
                assert!(consumer.bytes(record) == expected, "record {number}");
                number += 1;
            }
            consumer.give_back();
        }
        sender.join().unwrap();
        assert!(!consumer.look());
    }

    #[test]
    fn a_full_ring_keeps_a_list_and_then_refuses() {
        let (mut producer, mut consumer) = ring();
        let record = vec![7; 1_000];
        let mut posted = 0;
        let mut waited = 0;
        loop {
            match producer.post(&record) {
                Ok(Posted::Ring) => assert_eq!(waited, 0),
                Ok(Posted::Overflow) => waited += 1,
                Err(Full) => break,
            }
            posted += 1;
        }
        assert_eq!(waited, MESH_OVERFLOW_BYTES_MAX / 1_008);
        assert!(posted - waited >= MESH_RING_BYTES / 1_008 - 1);
        let mut taken = 0;
        while producer.publish() || producer.is_waiting() {
            consumer.look();
            while let Some(found) = consumer.take() {
                assert_eq!(consumer.bytes(found), record);
                taken += 1;
            }
        }
        assert_eq!(taken, posted);
        assert_eq!(producer.post(&record), Ok(Posted::Ring));
    }

    #[test]
    fn records_by_pointer_are_bounded_and_freed() {
        let (mut producer, consumer) = ring();
        let large = vec![1; MESH_BOXED_BYTES_MAX / 4];
        for _ in 0..4 {
            assert_eq!(producer.post(&large), Ok(Posted::Ring));
        }
        assert_eq!(producer.post(&large), Err(Full));
        producer.publish();
        drop(consumer);
        drop(producer);
    }

    #[test]
    fn an_empty_record_is_a_record() {
        let (mut producer, mut consumer) = ring();
        assert_eq!(producer.post(&[]), Ok(Posted::Ring));
        producer.publish();
        assert!(consumer.look());
        let record = consumer.take().unwrap();
        assert_eq!(consumer.bytes(record), b"");
        assert!(consumer.take().is_none());
    }
}
