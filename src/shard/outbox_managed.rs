//! What an outbox does where the far end counts its stanzas (XEP-0198, 4 and 5).
//!
//! It closes accounts by the far end's count, says when to ask for it, and gives up what is not
//! acknowledged to another connection. Does **not** parse or write stream management; `sm.rs` does.

use crate::limits::{ASK_AGAIN_AFTER, ASK_EVERY, ASK_EVERY_STANZAS};
use crate::shard::outbox::{Managed, Outbox, Receipt};
use crate::time::Moment;
use crate::xmpp::sm::{self, TooHigh};

/// Stream management (XEP-0198).
impl Outbox {
    /// From here on the far end counts; so far it has counted `acked`.
    pub(crate) fn manage(&mut self, acked: u32, now: Moment) {
        let start = self.waiting_start + self.waiting.len() as u64;
        self.managed = Some(Box::new(Managed {
            start,
            acked,
            bytes: 0,
            unasked: 0,
            wanted: false,
            urgent: false,
            asked: false,
            asked_at: None,
            unasked_since: now,
        }));
    }

    /// The far end has handled `handled` stanzas in all: the accounts of those that are news are
    /// closed. The fault tells how many were sent.
    pub(crate) fn handled(
        &mut self,
        handled: u32,
        now: Moment,
        mut delivered: impl FnMut(Receipt),
        free: impl FnMut(Vec<u8>),
    ) -> Result<(), u32> {
        let Some(managed) = self.managed.as_deref_mut() else { return Ok(()) };
        // Only what was handed to the kernel can have been handled.
        let first = self.receipts.partition_point(|r| r.end <= managed.start);
        let sent = self.receipts.partition_point(|r| r.end <= self.waiting_start) - first;
        let more = sm::advance(managed.acked, handled, sent as u32)
            .map_err(|TooHigh| managed.acked.wrapping_add(sent as u32))?;
        for receipt in self.receipts.drain(first..first + more as usize) {
            managed.bytes = managed.bytes.saturating_sub(receipt.length as usize);
            delivered(receipt);
        }
        managed.acked = handled;
        managed.asked = false;
        if self.receipts.len() == first {
            (managed.wanted, managed.urgent, managed.unasked) = (false, false, 0);
        } else if managed.unasked == 0 {
            managed.unasked_since = now;
        }
        self.release(free);
        Ok(())
    }

    /// An `<r/>` is to go out with what waits: a sender wants to know, or it is time. While much is
    /// said one request serves many stanzas; a single one has its own behind it, in one packet.
    pub(crate) fn asks(&self, now: Moment) -> bool {
        let Some(managed) = self.managed.as_deref() else { return false };
        let is_due = || {
            self.receipts.back().is_some_and(|r| r.end > managed.start)
                && now.since(managed.unasked_since) >= ASK_EVERY
        };
        let lately = managed.asked_at.is_some_and(|at| now.since(at) < ASK_AGAIN_AFTER);
        let wanted = managed.urgent || (managed.wanted && !lately);
        managed.unasked >= ASK_EVERY_STANZAS || (!managed.asked && (wanted || is_due()))
    }

    /// The `<r/>` is written.
    pub(crate) fn asked(&mut self, now: Moment) {
        if let Some(managed) = self.managed.as_deref_mut() {
            (managed.wanted, managed.urgent, managed.unasked) = (false, false, 0);
            (managed.asked, managed.asked_at) = (true, Some(now));
        }
    }

    /// What another connection takes over: all that was counted and is not acknowledged, each with
    /// whether it was sent; and up to where it was. This outbox counts no longer.
    pub(crate) fn take_managed(&mut self) -> Option<Unacked> {
        let managed = self.managed.take()?;
        let first = self.receipts.partition_point(|r| r.end <= managed.start);
        let sent = self.receipts.partition_point(|r| r.end <= self.waiting_start) - first;
        let stanzas = self.texts(first);
        self.receipts.truncate(first);
        Some(Unacked { acked: managed.acked, sent, stanzas })
    }

    /// Closes the accounts of what was written before the far end counted.
    pub(super) fn acknowledge_until(
        &mut self,
        wire_done: u64,
        until: u64,
        mut delivered: impl FnMut(Receipt),
        free: impl FnMut(Vec<u8>),
    ) {
        let arrived = self.flights.iter().take_while(|f| f.wire_end <= wire_done && !f.lent).last();
        let plain_done = arrived.map_or(0, |f| f.plain_end).min(until);
        while let Some(receipt) = self.receipts.front().filter(|r| r.end <= plain_done) {
            delivered(*receipt);
            self.receipts.pop_front();
        }
        self.release(free);
    }

    /// Flights with nothing in them that may still be wanted.
    fn release(&mut self, mut free: impl FnMut(Vec<u8>)) {
        let wanted = self.receipts.front().map_or(u64::MAX, |r| r.end - u64::from(r.length));
        while self.flights.front().is_some_and(|f| !f.lent && f.plain_end <= wanted) {
            if let Some(flight) = self.flights.pop_front() {
                free(flight.plain);
            }
        }
    }
}

/// What a managed outbox held when its connection was lost.
#[derive(Debug)]
pub(crate) struct Unacked {
    /// The far end's count so far.
    pub(crate) acked: u32,
    /// How many of `stanzas` went out, from the first on.
    pub(crate) sent: usize,
    pub(crate) stanzas: Vec<(Receipt, Vec<u8>)>,
}
