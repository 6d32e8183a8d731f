//! Everything of SIP between a socket and a user's home, on the shard that has the connection.
//!
//! What is under way: server transactions (`server.rs`), client transactions (`client.rs`), ways to
//! peers with their connections and queues (`ways.rs`, `targets.rs`), and the home's half of a
//! request of ours (`relay.rs`). This file holds them together and puts octets on the wire.
//! Dialogs and users are **not** known here.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::dns::Failures;
use crate::limits::{
    SIP_ASKS_MAX, SIP_CLIENTS_MAX, SIP_SERVERS_MAX, SIP_TARGETS_KEPT_MAX, WAYS_MAX,
};
use crate::shard::kernel::ConnId;
use crate::shard::settings::ListenerId;
use crate::shard::sip::client::ClientTxn;
use crate::shard::sip::heads::Heads;
use crate::shard::sip::relay::{Asked, Told};
use crate::shard::sip::server::ServerTxn;
use crate::shard::sip::way::Way;
use crate::shard::{Request, Shard};
use crate::sip::transaction::ServerKey;
use crate::sip::{Index, Message};
use crate::stdx::{Key, Map, Slab};
use crate::time::Moment;

/// Where a message goes or came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A connection of this shard.
    Conn(ConnId),
    /// A far end of a datagram socket.
    Datagram(ListenerId, SocketAddr),
}

impl Place {
    /// Nothing is lost on the way there, or the connection is.
    pub(super) fn is_reliable(self) -> bool {
        matches!(self, Self::Conn(_))
    }
}

/// The transport of one shard.
#[derive(Debug)]
pub(crate) struct SipTransport {
    pub(super) servers: Slab<ServerTxn>,
    /// Server transactions by what names them, the peer's name first.
    pub(super) server_keys: Map<ServerKey, Key>,
    /// The same by what merged requests share.
    pub(super) merge_keys: Map<ServerKey, Key>,
    pub(super) clients: Slab<ClientTxn>,
    /// Client transactions by the shard and the number of who asked.
    pub(super) client_asks: Map<(u16, u64), Key>,
    /// Requests of users of this shard.
    pub(super) asks: Slab<Asked>,
    pub(super) ways: Slab<Way>,
    /// Ways by our domain and the peer.
    pub(super) pairs: Map<(Box<str>, Box<str>), Key>,
    /// Targets that failed lately.
    pub(super) failures: Failures,
    /// Failures that askers of this shard hear once the turn's events are taken.
    pub(super) told: VecDeque<Told>,
    /// The SRV targets of domains, for certificates that are to hold them.
    pub(super) srv_targets: Map<Box<str>, SrvTargets>,
    /// The first way of each connection that carries requests.
    pub(super) conn_ways: Map<ConnId, Key>,
    /// Heads of texts that were judged.
    pub(super) heads: Heads,
    /// For the message at hand.
    index: Index,
    /// What askers heard.
    #[cfg(test)]
    pub(super) heard: Vec<String>,
}

/// What DNS said of a domain's SIP federation.
#[derive(Clone, Debug)]
pub(super) struct SrvTargets {
    pub(super) hosts: Vec<String>,
    pub(super) until: Moment,
}

impl SipTransport {
    /// `seed` draws the order of the tables.
    pub(crate) fn new(mut seed: impl FnMut() -> u64) -> Self {
        let first = seed();
        Self {
            servers: Slab::new(SIP_SERVERS_MAX),
            server_keys: Map::seeded(first),
            merge_keys: Map::seeded(seed()),
            clients: Slab::new(SIP_CLIENTS_MAX),
            client_asks: Map::seeded(seed()),
            asks: Slab::new(SIP_ASKS_MAX),
            ways: Slab::new(WAYS_MAX as u32),
            pairs: Map::seeded(seed()),
            failures: Failures::default(),
            // At most one for each ask, of which there are so many, and emptied every turn.
            told: VecDeque::with_capacity(0),
            srv_targets: Map::seeded(seed()),
            conn_ways: Map::seeded(seed()),
            heads: Heads::new(first),
            index: Index::default(),
            #[cfg(test)]
            heard: Vec::new(),
        }
    }

    /// What is under way, by metric name.
    pub(crate) fn figures(&self) -> [(&'static str, u64); 4] {
        [
            ("tandem_sip_server_transactions", self.servers.len() as u64),
            ("tandem_sip_client_transactions", self.clients.len() as u64),
            ("tandem_sip_ways", self.ways.len() as u64),
            ("tandem_sip_asks", self.asks.len() as u64),
        ]
    }

    /// Keeps what DNS said, the oldest goes if there is no room.
    pub(super) fn keep_targets(&mut self, domain: &str, it: SrvTargets, now: Moment) {
        if self.srv_targets.len() >= SIP_TARGETS_KEPT_MAX {
            self.srv_targets.retain(|_, it| it.until > now);
            if self.srv_targets.len() >= SIP_TARGETS_KEPT_MAX {
                self.srv_targets.clear();
            }
        }
        self.srv_targets.insert(domain.into(), it);
    }
}

impl Shard {
    /// Does `work` with the index of the transport, which is another than the home's: a message may
    /// be looked at while one is being handed on.
    pub(super) fn with_index<R>(&mut self, work: impl FnOnce(&mut Self, &mut Index) -> R) -> R {
        let mut index = std::mem::take(&mut self.transport.index);
        let done = work(self, &mut index);
        self.transport.index = index;
        done
    }

    /// Does `work` with a message that was read before.
    pub(super) fn with_read<R>(
        &mut self,
        frame: &[u8],
        work: impl FnOnce(&mut Self, Message<'_>) -> R,
    ) -> Option<R> {
        self.with_index(|shard, index| {
            let message = index.read(frame).ok()?;
            Some(work(shard, message))
        })
    }

    /// Puts a message on the wire; false: there is no such connection any more, or no room.
    #[must_use]
    pub(super) fn put(&mut self, place: Place, text: &[u8]) -> bool {
        match place {
            Place::Conn(id) => {
                let gone = self.conns.get(id).is_some_and(|conn| conn.is_closing());
                // A connection that is being worked on can't be looked at; it has an outbox.
                let fits = self.conns.outbox(id).is_some_and(|outbox| outbox.fits(text.len()));
                if gone || !fits {
                    self.counters.sip.unsent += 1;
                    return false;
                }
                self.write(id, |out| out.extend_from_slice(text));
            }
            Place::Datagram(listener, remote) => {
                self.requests.push(Request::Datagram(listener, remote, text.to_vec()));
            }
        }
        self.counters.sip.sent += 1;
        true
    }

    /// The same, where nobody can be told that it did not go.
    pub(super) fn put_or_lose(&mut self, place: Place, text: &[u8]) {
        let went = self.put(place, text);
        self.counters.sip.lost += u64::from(!went);
    }
}
