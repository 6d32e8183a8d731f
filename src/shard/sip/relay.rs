//! Between the home's half and the transport's, on this shard or another.

use crate::shard::Shard;
use crate::shard::sip::{Ask, Asker, Due, Outgoing, Txn};
use crate::sip::fault::Fault;
use crate::sip::message::Message;
use crate::sip::write;

impl Shard {
    /// Sends a request; the asker hears what becomes of it, never before this call has returned.
    pub(in crate::shard) fn sip_send(&mut self, _asker: Asker, _out: Outgoing) -> Ask {
        Ask(0)
    }

    /// Takes an INVITE back: CANCEL after its first provisional answer.
    pub(in crate::shard) fn sip_cancel(&mut self, _ask: Ask) {}

    /// Answers a request: a whole response, provisional or final, or a 2xx of INVITE once more.
    pub(in crate::shard) fn sip_reply(&mut self, _txn: Txn, _text: Vec<u8>) {}

    /// Answers with an error.
    pub(in crate::shard) fn sip_refuse(&mut self, txn: Txn, request: &Message<'_>, fault: &Fault) {
        let mut text = Vec::new();
        let tag = self.sip_token();
        write::refusal(request, fault, Some(&tag), &mut text);
        self.sip_reply(txn, text);
    }

    /// A timer of SIP is due.
    pub(in crate::shard) fn sip_due(&mut self, due: Due) {
        match due {
            Due::Watched(key) => self.watched_due(key),
            Due::Watch(key) => self.watch_due(key),
            Due::Session(key) => self.session_due(key),
        }
    }
}
