//! IM sessions of local users with SIP contacts.

use crate::address::Address;
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::Carry;
use crate::shard::sip::{Heard, Txn};
use crate::sip::fault::Fault;
use crate::sip::message::Message;
use crate::stdx::Key;
use crate::xmpp::fault::StanzaFault;

impl Shard {
    /// A message of a local user for a SIP contact, an error about one of the contact's included.
    pub(super) fn session_stanza(&mut self, carry: &Carry<'_>) {
        self.bounce(carry, StanzaFault::FeatureNotImplemented);
    }

    /// A partner wants a session.
    pub(super) fn session_invite(
        &mut self,
        txn: Txn,
        _: &Address,
        _: &Address,
        request: &Message<'_>,
    ) {
        self.sip_refuse(txn, request, &Fault::new(501));
    }

    /// A message outside of any dialog (RFC 3428).
    pub(super) fn session_message(
        &mut self,
        txn: Txn,
        _: &Address,
        _: &Address,
        request: &Message<'_>,
    ) {
        self.sip_refuse(txn, request, &Fault::new(501));
    }

    /// Anything in a session's dialog, an ACK included.
    pub(super) fn session_request(&mut self, _: Key, txn: Txn, request: &Message<'_>) {
        self.sip_refuse(txn, request, &Fault::new(501));
    }

    /// The INVITE of that transaction was cancelled and has had its 487.
    pub(super) fn session_cancelled(&mut self, _: Txn) {}

    pub(super) fn session_heard(&mut self, _: Key, _: Heard<'_>) {}

    pub(super) fn page_heard(&mut self, _: Key, _: Heard<'_>) {}

    /// What became of the message that [`Shard::sip_origin`] numbered.
    pub(super) fn session_handled(&mut self, _: u32, _: Outcome) {}

    pub(super) fn session_due(&mut self, _: Key) {}
}
