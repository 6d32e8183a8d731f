//! SIP contacts watched by local users.

use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::Carry;
use crate::shard::sip::{Heard, Txn};
use crate::sip::fault::Fault;
use crate::sip::message::Message;
use crate::stdx::Key;

impl Shard {
    /// A local user subscribes to a SIP contact, probes or leaves him.
    pub(super) fn watch_stanza(&mut self, carry: &Carry<'_>) {
        self.outcome(carry.origin, Outcome::ByRule);
    }

    /// NOTIFY or BENOTIFY with our tag in To; its dialog may not stand yet.
    pub(super) fn watch_notify(&mut self, txn: Txn, request: &Message<'_>) {
        self.sip_refuse(txn, request, &Fault::new(481));
    }

    pub(super) fn watch_heard(&mut self, _: Key, _: Heard<'_>) {}

    pub(super) fn watch_due(&mut self, _: Key) {}

    /// The way to that peer stands again after it had failed.
    pub(super) fn watch_peer_back(&mut self, _near: &str, _far: &str) {}
}
