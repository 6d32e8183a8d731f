//! What waits to be sent on one connection, and what was sent and is not known to have arrived.
//!
//! Everything decided in a turn is appended here and handed to the kernel once, at the turn's end.
//! Stanzas on somebody's account leave a receipt with the offset of their last octet; when the far
//! end's kernel has acknowledged that octet the account is closed as delivered. The plain octets
//! are kept until then, so that a stanza whose connection broke can be bounced or sent another way.
//!
//! Where stream management is on (XEP-0198), every stanza leaves a receipt, on somebody's account or
//! not, and it is the far end's `<a/>` that closes the account: its kernel is **not** asked.

use std::collections::VecDeque;
use std::time::Duration;

use crate::envelope::Kind;
use crate::limits::{
    FLIGHT_BYTES_BEFORE_LOOK, FLIGHTS_BEFORE_LOOK, OUTBOX_BYTES_MAX, OUTBOX_HIGH_BYTES,
    OUTBOX_LOW_BYTES, OUTBOX_SLOW_BYTES, STANZA_SLACK_BYTES, UNACKED_HIGH_BYTES,
    UNACKED_STANZAS_MAX,
};
use crate::shard::account::Origin;
use crate::shard::buffers::Buffers;
use crate::shard::idle::Rest;
use crate::time::Moment;

/// The sending half of a connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Plain octets of this and earlier turns that were not handed over yet.
    waiting: Vec<u8>,
    /// Plain offset of the first octet of `waiting`.
    waiting_start: u64,
    /// In the order of their offsets.
    receipts: VecDeque<Receipt>,
    /// Handed to the kernel, with receipts in them; the newest may still be under a send.
    flights: VecDeque<Flight>,
    /// Octets handed to the kernel so far, as the wire counts them.
    wire_written: u64,
    /// A send is out: the next waits for it.
    sending: bool,
    /// It is on the shard's list of those that owe an acknowledgement.
    pub(crate) listed: bool,
    /// It owed none when it was looked at, and has owed none since.
    quiet: bool,
    /// Where the far end counts what it handled.
    managed: Option<Box<Managed>>,
    /// Nobody looks at the client, or it reads slowly: what can wait is held (`idle`).
    pub(super) rest: Rest,
}

/// What stream management knows of an outbox.
#[derive(Debug)]
struct Managed {
    /// Plain offset from which on the far end counts.
    start: u64,
    /// What it has acknowledged (mod 2^32).
    acked: u32,
    /// Octets of the stanzas that it has not.
    bytes: usize,
    /// Stanzas written since the last `<r/>`.
    unasked: u32,
    /// Somebody waits for one of these.
    wanted: bool,
    /// Somebody waits for one of these and says nothing more before he knows.
    urgent: bool,
    /// An `<r/>` is not answered yet.
    asked: bool,
    /// When the last one was written.
    asked_at: Option<Moment>,
    /// Since when something was neither asked for nor acknowledged.
    unasked_since: Moment,
}

/// One stanza in the outbox: an accountable one, or any where the far end counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Plain offset behind its last octet.
    end: u64,
    length: u32,
    /// On whose account; `None`: an answer of ours, or a copy beside the one that counts.
    pub(crate) origin: Option<Origin>,
    /// When it was taken: the deadline counts from there.
    pub(crate) since: Moment,
    /// It was to be stored, whatever came of it.
    tried: bool,
}

#[derive(Debug)]
struct Flight {
    plain: Vec<u8>,
    plain_end: u64,
    wire_end: u64,
    /// The plain octets themselves are under the send and come back with it.
    lent: bool,
}

impl Outbox {
    /// An idle outbox holds no buffer: it gets one of those that go round when there is something
    /// to say.
    pub(super) fn make_room(&mut self, buffers: &mut Buffers) {
        if self.waiting.capacity() == 0 {
            self.waiting = buffers.take();
        }
    }

    /// Nothing was said after all: the buffer goes on to somebody else.
    pub(super) fn leave_room(&mut self, buffers: &mut Buffers) {
        if self.waiting.is_empty() {
            buffers.give(std::mem::take(&mut self.waiting));
        }
    }

    /// The buffer to append to; the caller calls [`Outbox::stanza`] behind each stanza.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }

    /// Notes that the last `length` octets appended are a stanza; true: its arrival is watched.
    pub(crate) fn stanza(&mut self, length: usize, origin: Option<Origin>, since: Moment) -> bool {
        match self.managed.as_deref_mut() {
            None if origin.is_none() => return false,
            None => {}
            Some(managed) => managed.written(length, origin, since),
        }
        self.quiet = false;
        let end = self.waiting_start + self.waiting.len() as u64;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.receipts.push_back(Receipt { end, length, origin, since, tried: false });
        assert!(self.waiting.len() <= OUTBOX_BYTES_MAX, "a stanza was added above the high mark");
        true
    }

    /// Messages that were taken so long ago and are not in the store: their places, accounts, when
    /// they were taken, and themselves.
    pub(crate) fn late(&self, now: Moment, after: Duration) -> Vec<(u64, Origin, Moment, Vec<u8>)> {
        let late = |it: &Receipt| {
            let is_late = !it.tried && now.since(it.since) >= after;
            it.origin.filter(|it| is_late && it.kind == Kind::Message && it.row().is_none())
        };
        if self.receipts.iter().all(|it| late(it).is_none()) {
            return Vec::new();
        }
        let all = self.texts(0).into_iter();
        all.filter_map(|(it, text)| Some((it.end, late(&it)?, it.since, text))).collect()
    }

    /// The message at that place is in the store, or will not be.
    pub(crate) fn spilled(&mut self, place: u64, row: Option<Origin>) {
        let at = self.receipts.partition_point(|it| it.end < place);
        if let Some(receipt) = self.receipts.get_mut(at).filter(|it| it.end == place) {
            receipt.tried = true;
            receipt.origin = row.or(receipt.origin);
        }
    }

    /// Another stanza may be added. Tested before adding, never after.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_high() && self.managed.as_ref().is_none_or(|it| it.has_room(self.receipts.len()))
    }

    /// So much waits that its own far end is not read. What is only unacknowledged is no reason:
    /// the acknowledgement must be read.
    pub(crate) fn is_high(&self) -> bool {
        self.waiting.len() >= OUTBOX_HIGH_BYTES
    }

    /// So many octets more break no bound.
    pub(crate) fn fits(&self, octets: usize) -> bool {
        let unacked = self.managed.as_ref().map_or(0, |it| it.bytes);
        self.waiting.len().max(unacked) + octets + STANZA_SLACK_BYTES <= OUTBOX_BYTES_MAX
    }

    /// What can wait for it is held.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.rest != Rest::default()
    }

    /// So much waits behind a send that presence is better held, where the newest takes the place
    /// of the one before it.
    #[inline]
    pub(super) fn grows_slow(&mut self) -> bool {
        let slow = (self.sending && self.waiting.len() >= OUTBOX_SLOW_BYTES) || !self.has_room();
        self.rest.slow |= slow;
        slow
    }

    /// All that waited is gone: it is slow no longer. True: something may be held for it.
    #[inline]
    pub(super) fn catches_up(&mut self) -> bool {
        self.waiting.is_empty() && std::mem::take(&mut self.rest.slow)
    }

    /// Enough has drained for a paused reader to go on.
    pub(crate) fn is_low(&self) -> bool {
        self.waiting.len() < OUTBOX_LOW_BYTES
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.sending
    }

    /// Nothing waits and nothing is under a send.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.sending
    }

    /// Some stanza's arrival is not known yet.
    pub(crate) fn is_owing(&self) -> bool {
        !self.receipts.is_empty()
    }

    /// So much is out whose arrival nobody looked at yet.
    pub(crate) fn wants_look(&self) -> bool {
        let Some(first) = self.flights.front() else { return false };
        let is_much = self.flights.len() >= FLIGHTS_BEFORE_LOOK
            || self.wire_written - first.wire_end >= FLIGHT_BYTES_BEFORE_LOOK;
        is_much && self.asks_kernel()
    }

    /// Nothing is owed. True: nothing was since the last time either, and the room that a busy hour
    /// took is given back.
    pub(crate) fn rests(&mut self) -> bool {
        debug_assert!(self.receipts.is_empty());
        if !std::mem::replace(&mut self.quiet, true) {
            return false;
        }
        drop(std::mem::take(&mut self.receipts));
        if self.flights.is_empty() {
            drop(std::mem::take(&mut self.flights));
        }
        true
    }

    /// What the far end's kernel has acknowledged matters.
    pub(crate) fn asks_kernel(&self) -> bool {
        self.managed
            .as_ref()
            .is_none_or(|it| self.receipts.front().is_some_and(|r| r.end <= it.start))
    }

    /// It arrived on another shard with its connection: the send that was out is done, and nothing
    /// accountable was in it.
    pub(crate) fn arrived(&mut self) {
        self.sending = false;
        self.flights.clear();
        assert!(self.receipts.is_empty(), "nothing is carried before a resource is bound");
    }

    /// When the oldest stanza without an outcome was taken.
    pub(crate) fn oldest(&self) -> Option<Moment> {
        match self.managed {
            None => self.receipts.front().map(|r| r.since),
            // What was sent again may be older than what came before it.
            Some(_) => self.receipts.iter().map(|r| r.since).min(),
        }
    }

    /// Takes what waits for a send in clear text: the octets come back by [`Outbox::sent`].
    #[inline(always)]
    pub(super) fn take_plain(&mut self, buffers: &mut Buffers) -> Vec<u8> {
        debug_assert!(!self.sending);
        let bytes = std::mem::take(&mut self.waiting);
        self.waiting_start += bytes.len() as u64;
        self.wire_written += bytes.len() as u64;
        self.sending = true;
        if self.receipts.back().is_some_and(|r| r.end > self.waiting_start - bytes.len() as u64) {
            // A copy where the stream may be resumed: another connection may want the octets while
            // this one's send still holds them.
            let lent = self.managed.is_none();
            let mut plain = Vec::new();
            if !lent {
                plain = buffers.take();
                plain.extend_from_slice(&bytes);
            }
            self.flights.push_back(Flight {
                plain,
                plain_end: self.waiting_start,
                wire_end: self.wire_written,
                lent,
            });
        }
        bytes
    }

    /// Takes what waits for a send under TLS: `seal` appends the octets of the wire to `wire`. A
    /// buffer that is not needed comes back. Nothing is taken if nothing goes on the wire.
    pub(crate) fn take_sealed(
        &mut self,
        wire: &mut Vec<u8>,
        seal: impl FnOnce(&[u8], &mut Vec<u8>),
    ) -> Vec<u8> {
        debug_assert!(!self.sending && wire.is_empty());
        seal(&self.waiting, wire);
        if wire.is_empty() {
            return Vec::new();
        }
        let plain = std::mem::take(&mut self.waiting);
        let start = self.waiting_start;
        self.waiting_start += plain.len() as u64;
        self.wire_written += wire.len() as u64;
        self.sending = true;
        if self.receipts.back().is_some_and(|r| r.end > start) {
            self.flights.push_back(Flight {
                plain,
                plain_end: self.waiting_start,
                wire_end: self.wire_written,
                lent: false,
            });
            return Vec::new();
        }
        plain
    }

    /// The send is done and its buffer is back; what is not needed any more is returned for the
    /// pool.
    pub(crate) fn sent(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        self.sending = false;
        match self.flights.back_mut() {
            Some(flight) if flight.lent => {
                flight.lent = false;
                flight.plain = buffer;
                Vec::new()
            }
            _ => buffer,
        }
    }

    /// The far end's kernel lacks `unacknowledged` octets of what was handed over: all before is
    /// delivered. Calls `delivered` for each and `free` with buffers that nobody needs.
    pub(crate) fn acknowledge(
        &mut self,
        unacknowledged: u64,
        mut delivered: impl FnMut(Receipt),
        mut free: impl FnMut(Vec<u8>),
    ) {
        let wire_done = self.wire_written.saturating_sub(unacknowledged);
        if let Some(managed) = &self.managed {
            let until = managed.start;
            return self.acknowledge_until(wire_done, until, delivered, free);
        }
        let mut plain_done = None;
        while let Some(flight) = self.flights.front() {
            // A flight counts when its last octet has arrived: TLS records have no halves.
            if flight.wire_end > wire_done || flight.lent {
                break;
            }
            plain_done = Some(flight.plain_end);
            if let Some(flight) = self.flights.pop_front() {
                free(flight.plain);
            }
        }
        let Some(plain_done) = plain_done else { return };
        while let Some(receipt) = self.receipts.front() {
            if receipt.end > plain_done {
                break;
            }
            delivered(*receipt);
            self.receipts.pop_front();
        }
    }

    /// The connection is gone: every stanza that is not known to have arrived, oldest first.
    pub(crate) fn lost(self) -> Vec<(Receipt, Vec<u8>)> {
        self.texts(0)
    }

    /// The receipts from that one on, with their stanzas.
    fn texts(&self, first: usize) -> Vec<(Receipt, Vec<u8>)> {
        let mut holders = self
            .flights
            .iter()
            .map(|f| (f.plain_end - f.plain.len() as u64, f.plain.as_slice()))
            .chain([(self.waiting_start, self.waiting.as_slice())])
            .peekable();
        self.receipts
            .iter()
            .skip(first)
            .filter_map(|receipt| {
                let start = receipt.end - u64::from(receipt.length);
                let ends_before = |(from, bytes): &(u64, &[u8])| from + bytes.len() as u64 <= start;
                while holders.next_if(ends_before).is_some() {}
                let (from, bytes) = *holders.peek()?;
                let from = usize::try_from(start.checked_sub(from)?).ok()?;
                Some((*receipt, bytes.get(from..from + receipt.length as usize)?.to_vec()))
            })
            .collect()
    }
}

impl Managed {
    fn has_room(&self, stanzas: usize) -> bool {
        stanzas < UNACKED_STANZAS_MAX && self.bytes < UNACKED_HIGH_BYTES
    }

    fn written(&mut self, length: usize, origin: Option<Origin>, now: Moment) {
        if self.unasked == 0 {
            self.unasked_since = now;
        }
        self.unasked += 1;
        self.wanted |= origin.is_some();
        self.urgent |= origin.is_some_and(|it| it.gateway().is_some());
        self.bytes += length;
    }
}

#[path = "outbox_managed.rs"]
mod managed;

pub(crate) use managed::Unacked;

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
