//! Local users watched by SIP contacts.

use crate::address::Address;
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::Carry;
use crate::shard::sip::{Heard, Txn};
use crate::sip::fault::Fault;
use crate::sip::message::Message;
use crate::stdx::Key;

impl Shard {
    /// A contact wants to watch a user, whose record is at rest.
    pub(super) fn watched_subscribe(
        &mut self,
        txn: Txn,
        _: &Address,
        _: &Address,
        request: &Message<'_>,
    ) {
        self.sip_refuse(txn, request, &Fault::new(501));
    }

    /// A SUBSCRIBE in a dialog.
    pub(super) fn watched_refresh(&mut self, _: Key, txn: Txn, request: &Message<'_>) {
        self.sip_refuse(txn, request, &Fault::new(501));
    }

    /// What was said to our NOTIFY.
    pub(super) fn watched_heard(&mut self, _: Key, _: Heard<'_>) {}

    /// Presence of a local user to a SIP contact: what he decided, or that something changed.
    pub(super) fn watched_stanza(&mut self, carry: &Carry<'_>) {
        self.outcome(carry.origin, Outcome::ByRule);
    }

    pub(super) fn watched_due(&mut self, _: Key) {}
}
