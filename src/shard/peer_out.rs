//! We connected to a peer.

use std::net::{IpAddr, SocketAddr};

use crate::dns;
use crate::shard::Shard;
use crate::shard::conn::Conn;
use crate::shard::deliver::Carry;
use crate::shard::kernel::{ConnId, Ticket};
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::header::Header;
use crate::xmpp::stanza::Stanza;

#[derive(Debug)]
pub(crate) struct PeerOut {}

impl PeerOut {
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
    /// A stanza for another domain, written for its stream; this shard owns the way.
    pub(super) fn to_way(&mut self, carry: &Carry<'_>) {
        self.bounce(carry, StanzaFault::RemoteServerNotFound);
    }
    pub(super) fn connected(&mut self, _id: ConnId, _ticket: Ticket, _remote: SocketAddr) {}
    pub(super) fn connect_failed(&mut self, _ticket: Ticket, _reason: &'static str) {}
    pub(super) fn resolved(
        &mut self,
        _ticket: Ticket,
        _direct: dns::Answer,
        _starttls: dns::Answer,
    ) {
    }
    pub(super) fn addresses(&mut self, _ticket: Ticket, _addresses: Option<&[IpAddr]>) {}
    pub(super) fn way_open(&mut self, _conn: &mut Conn, _frame: &[u8], _header: &Header) {}
    pub(super) fn way_element(&mut self, _conn: &mut Conn, _frame: &[u8], _stanza: &Stanza) {}
    pub(super) fn way_secured(&mut self, _conn: &mut Conn) {}
    pub(super) fn way_gone(&mut self, _conn: &Conn) {}
    pub(super) fn way_due(&mut self, _ticket: Ticket) {}
    /// The set-up toward a peer failed in that step; no effect on other connections.
    pub(super) fn way_troubled(
        &mut self,
        _conn: &Conn,
        _step: &'static str,
        _why: impl FnOnce() -> String,
    ) {
    }
    pub(super) fn stop_ways(&mut self) {}
}
