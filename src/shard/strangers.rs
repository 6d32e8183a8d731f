//! Connections whose far end has not shown who it is, counted by address.
//!
//! A connection costs us before it has proven anything: a descriptor, a TLS handshake, a certificate
//! chain to be judged. So one address gets so many of them and no more; whoever has logged in, or has
//! proven a domain, does not count. Behind a proxy it is the reported address that counts.
//!
//! Each shard has its share of the bound, since the kernel deals connections evenly: no shard asks
//! another. Does **not** slow anybody down: who is above the bound is closed at once and may try again.

use std::net::{IpAddr, SocketAddr};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::shard::Shard;
use crate::shard::conn::Conn;

/// How many strangers each address has at this shard.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    /// Addresses with none are not here, so it is no larger than the table of connections.
    count: HashMap<u128, u32, foldhash::fast::RandomState>,
}

/// An IPv4 address, or the /64 of an IPv6 address: whoever has one has the whole of it.
fn key(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(it) => u128::from(u32::from(it)),
        // The lowest bit set: no IPv4 address is as large.
        IpAddr::V6(it) => u128::from(it) >> 64 << 64 | 1 << 33,
    }
}

impl Strangers {
    /// One more, unless there are `most` already (0: without bound).
    fn add(&mut self, address: IpAddr, most: u32) -> bool {
        let count = self.count.entry(key(address)).or_insert(0);
        if most > 0 && *count >= most {
            return false;
        }
        *count += 1;
        true
    }

    fn remove(&mut self, address: IpAddr) {
        if let Entry::Occupied(mut it) = self.count.entry(key(address)) {
            *it.get_mut() = it.get().saturating_sub(1);
            if *it.get() == 0 {
                it.remove();
            }
        }
    }
}

impl Shard {
    /// Whether another stranger from there may come. The connection that is then made says so by
    /// [`Conn::is_stranger`] until [`Self::known`].
    pub(super) fn admits(&mut self, remote: SocketAddr) -> bool {
        let shards = u32::from(self.settings.shards).max(1);
        let most = self.settings.strangers_per_address.div_ceil(shards);
        let admitted = self.strangers.add(remote.ip(), most);
        self.counters.strangers_refused += u64::from(!admitted);
        admitted
    }

    /// It has shown who it is, or it is gone, or it goes to another shard.
    pub(super) fn known(&mut self, conn: &mut Conn) {
        if std::mem::take(&mut conn.is_stranger) {
            self.strangers.remove(conn.remote.ip());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_a_network_of_ipv6_is_one() {
        let mut strangers = Strangers::default();
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        for (address, admitted) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::ffff:1", true),
            ("2001:db8::2", false),
            ("2001:db8:0:1::1", true),
        ] {
            assert_eq!(strangers.add(at(address), 2), admitted, "{address}");
        }
        strangers.remove(at("192.0.2.1"));
        assert!(strangers.add(at("192.0.2.1"), 2) && !strangers.add(at("192.0.2.1"), 2));
        for address in ["192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::7", "2001:db8::8"] {
            strangers.remove(at(address));
        }
        strangers.remove(at("2001:db8:0:1::"));
        strangers.remove(at("198.51.100.1"));
        assert!(strangers.count.is_empty());
        assert!((0..5_000).all(|_| strangers.add(at("192.0.2.1"), 0)));
    }
}
