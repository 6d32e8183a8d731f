//! A peer connected to us.

use crate::policy::Security;
use crate::shard::Shard;
use crate::shard::conn::Conn;
use crate::shard::kernel::{ShardId, Ticket};
use crate::shard::post::{Verdict, Verify};
use crate::tls;
use crate::xmpp::header::Header;
use crate::xmpp::stanza::Stanza;

#[derive(Debug)]
pub(crate) struct PeerIn {}

impl PeerIn {
    pub(crate) fn new(_security: Security) -> Self {
        Self {}
    }
    pub(crate) fn is_proved(&self) -> bool {
        false
    }
    pub(crate) fn has_said_header(&self) -> bool {
        false
    }
    pub(crate) fn far(&self) -> String {
        String::new()
    }
    pub(crate) fn near(&self) -> String {
        String::new()
    }
    pub(crate) fn state(&self) -> &'static str {
        ""
    }
}

impl Shard {
    pub(super) fn peer_open(&mut self, _conn: &mut Conn, _frame: &[u8], _header: &Header) {}
    pub(super) fn peer_element(&mut self, _conn: &mut Conn, _frame: &[u8], _stanza: &Stanza) {}
    pub(super) fn peer_secured(&mut self, _conn: &mut Conn) {}
    pub(super) fn peer_say_header(&mut self, _conn: &mut Conn) {}
    pub(super) fn peer_gone(&mut self, _conn: &Conn) {}
    /// The chain a far end showed is judged: an inbound peer's, or that of a server we connected to.
    pub(super) fn judged(&mut self, _conn: &mut Conn, _verdict: tls::Verdict) {}
    /// What the authoritative server said of a key that a stream of ours waits for.
    pub(super) fn verified(&mut self, _ticket: Ticket, _near: &str, _far: &str, _verdict: Verdict) {
    }
    /// Another shard's stream (or ours) wants a key verified by the way this shard owns.
    pub(super) fn verify_asked(&mut self, _from: ShardId, _verify: Verify) {}
}
