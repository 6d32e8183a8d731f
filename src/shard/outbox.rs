//! What waits to be sent on one connection, and what was sent and is not known to have arrived.
//!
//! Everything decided in a turn is appended here and handed to the kernel once, at the turn's end.
//! Stanzas on somebody's account leave a receipt with the offset of their last octet; when the far
//! end's kernel has acknowledged that octet the account is closed as delivered. The plain octets
//! are kept until then, so that a stanza whose connection broke can be bounced or sent another way.

use std::collections::VecDeque;

use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_HIGH_BYTES, OUTBOX_LOW_BYTES};
use crate::shard::account::Origin;
use crate::shard::buffers::Buffers;
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
}

/// One accountable stanza in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Plain offset behind its last octet.
    end: u64,
    length: u32,
    /// On whose account; `None`: a copy beside the one that counts.
    pub(crate) origin: Origin,
    /// When it was taken: the deadline counts from there.
    pub(crate) since: Moment,
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

    /// The buffer to append to; the caller calls [`Outbox::receipt`] behind each accountable
    /// stanza.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }

    /// Notes that the last `length` octets appended are a stanza on an account.
    pub(crate) fn receipt(&mut self, length: usize, origin: Origin, since: Moment) {
        let end = self.waiting_start + self.waiting.len() as u64;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.receipts.push_back(Receipt { end, length, origin, since });
        assert!(self.waiting.len() <= OUTBOX_BYTES_MAX, "a stanza was added above the high mark");
    }

    /// Another stanza may be added. Tested before adding, never after.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < OUTBOX_HIGH_BYTES
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

    /// Sends whose arrival nobody looked at yet.
    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
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
        self.receipts.front().map(|r| r.since)
    }

    /// Takes what waits for a send in clear text: the octets come back by [`Outbox::sent`].
    pub(crate) fn take_plain(&mut self) -> Vec<u8> {
        debug_assert!(!self.sending);
        let bytes = std::mem::take(&mut self.waiting);
        self.waiting_start += bytes.len() as u64;
        self.wire_written += bytes.len() as u64;
        self.sending = true;
        if self.receipts.back().is_some_and(|r| r.end > self.waiting_start - bytes.len() as u64) {
            self.flights.push_back(Flight {
                plain: Vec::new(),
                plain_end: self.waiting_start,
                wire_end: self.wire_written,
                lent: true,
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
        self.receipts
            .iter()
            .filter_map(|receipt| {
                let start = receipt.end - u64::from(receipt.length);
                let holder = self
                    .flights
                    .iter()
                    .map(|f| (f.plain_end - f.plain.len() as u64, f.plain.as_slice()))
                    .chain([(self.waiting_start, self.waiting.as_slice())])
                    .find(|(from, bytes)| {
                        *from <= start && receipt.end <= from + bytes.len() as u64
                    })?;
                let from = usize::try_from(start - holder.0).ok()?;
                Some((*receipt, holder.1.get(from..from + receipt.length as usize)?.to_vec()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Kind;

    const ORIGIN: Origin = Origin { shard: 0, kind: Kind::Message };

    fn add(outbox: &mut Outbox, text: &str) {
        outbox.buffer().extend_from_slice(text.as_bytes());
        outbox.receipt(text.len(), ORIGIN, Moment(1));
    }

    fn acknowledged(outbox: &mut Outbox, unacknowledged: u64) -> usize {
        let mut count = 0;
        outbox.acknowledge(unacknowledged, |_| count += 1, drop);
        count
    }

    #[test]
    fn a_stanza_is_delivered_when_its_last_octet_is_acknowledged() {
        let mut outbox = Outbox::default();
        outbox.buffer().extend_from_slice(b"<header>");
        add(&mut outbox, "<one/>");
        let bytes = outbox.take_plain();
        assert_eq!(bytes, b"<header><one/>");
        assert_eq!(acknowledged(&mut outbox, 0), 0, "the send is still out");
        add(&mut outbox, "<two/>");
        assert!(outbox.sent(bytes).is_empty(), "kept until acknowledged");
        assert_eq!(acknowledged(&mut outbox, 1), 0);
        assert_eq!(acknowledged(&mut outbox, 0), 1);
        assert!(outbox.is_owing());
    }

    #[test]
    fn what_did_not_arrive_is_given_back_in_order() {
        let mut outbox = Outbox::default();
        add(&mut outbox, "<one/>");
        let mut wire = Vec::new();
        let plain = outbox.take_sealed(&mut wire, |p, w| {
            w.extend_from_slice(&[b"##", p, b"##"].concat());
        });
        assert_eq!((wire.as_slice(), plain.len()), (&b"##<one/>##"[..], 0));
        add(&mut outbox, "<two/>");
        outbox.buffer().extend_from_slice(b" ");
        add(&mut outbox, "<three/>");
        outbox.sent(wire);
        let lost: Vec<_> =
            outbox.lost().into_iter().map(|(_, b)| String::from_utf8(b).unwrap()).collect();
        assert_eq!(lost, ["<one/>", "<two/>", "<three/>"]);
    }

    #[test]
    fn octets_on_nobodys_account_are_not_kept() {
        let mut outbox = Outbox::default();
        outbox.buffer().extend_from_slice(b"<stream>");
        let bytes = outbox.take_plain();
        assert_eq!(outbox.sent(bytes), b"<stream>", "back to the pool");
        assert!(outbox.lost().is_empty());
    }
}
