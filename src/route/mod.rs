//! Who owns what: a user's slot gives the shard, a foreign domain's hash the shard of its way.
//!
//! Pure and fixed while the process lives (design: a slot never changes its shard under a user).
//! Slots of other nodes are **not** known yet: there is one node.

use xxhash_rust::xxh3::xxh3_64;

use crate::address::Slot;

/// The home shard of a slot's users, on a node with `shards` shards.
pub fn shard_of(slot: Slot, shards: u16) -> u16 {
    slot.number() % shards.max(1)
}

/// The shard that owns the ways to a foreign domain (lower-case A-labels).
pub fn shard_of_domain(domain: &str, shards: u16) -> u16 {
    shard_of(Slot::of(xxh3_64(domain.as_bytes())), shards)
}
