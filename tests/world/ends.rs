//! What scripted far ends do to the made-up kernel: they connect, talk, leave and break.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tandem::shard::settings::ListenerId;

use crate::kernel::{Core, Happening, Heard, LATENCY};

impl Core {
    /// A far end connects to a listener of a shard.
    pub(crate) fn dial(&mut self, shard: usize, listener: u16) -> usize {
        self.dial_from(Ipv4Addr::LOCALHOST.into(), shard, listener)
    }

    /// The same from another address.
    pub(crate) fn dial_from(&mut self, address: IpAddr, shard: usize, listener: u16) -> usize {
        let wire = self.wire(shard);
        let conn = self.allot(shard, wire);
        let port = 40_000 + (wire % 20_000) as u16;
        let remote = SocketAddr::from((address, port));
        self.later(
            LATENCY,
            Happening::Heard(shard, Heard::Accepted(conn, ListenerId(listener), remote)),
        );
        wire
    }

    pub(crate) fn say(&mut self, wire: usize, octets: &[u8]) {
        if !self.wires[wire].silent && !octets.is_empty() {
            self.later(LATENCY, Happening::Up(wire, octets.to_vec()));
        }
    }

    pub(crate) fn say_fin(&mut self, wire: usize) {
        if !self.wires[wire].said_fin && !self.wires[wire].silent {
            self.wires[wire].said_fin = true;
            self.later(LATENCY, Happening::Fin(wire));
        }
    }

    pub(crate) fn reset(&mut self, wire: usize) {
        self.later(LATENCY, Happening::Reset(wire));
    }
}
