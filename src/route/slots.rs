//! From slots and domains to the shards of this node.
//!
//! Fixed while the process lives: a user's home and a peer's queue never change shards. Does **not**
//! say which node owns a slot; on a single node all are its own.

use xxhash_rust::xxh3::xxh3_64;

use crate::address::Slot;

/// One shard of this node, counted from 0.
pub type ShardIndex = u16;

/// The home shard of a slot, of `shards` (at least one).
pub fn shard_of(slot: Slot, shards: u16) -> ShardIndex {
    assert!(shards > 0, "a node has a shard");
    slot.number() % shards
}

/// The shard that keeps the queue and the streams to a domain, which is in normal form.
pub fn shard_of_domain(domain: &str, shards: u16) -> ShardIndex {
    shard_of(Slot::of(xxh3_64(domain.as_bytes())), shards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, SLOT_COUNT};

    #[test]
    fn slots_are_dealt_evenly() {
        for shards in [1, 2, 3, 7, 16, 64] {
            let mut dealt = vec![0_u16; usize::from(shards)];
            for slot in (0..SLOT_COUNT).filter_map(Slot::new) {
                dealt[usize::from(shard_of(slot, shards))] += 1;
            }
            let (least, most) = (dealt.iter().min().unwrap(), dealt.iter().max().unwrap());
            assert!(most - least <= 1, "{dealt:?}");
        }
    }

    #[test]
    fn users_and_domains_are_dealt_fairly() {
        let mut users = [0_u32; 4];
        let mut domains = [0_u32; 4];
        for i in 0..40_000 {
            let user = Address::parse(&format!("user{i}@example.com")).unwrap();
            users[usize::from(shard_of(user.slot(), 4))] += 1;
            domains[usize::from(shard_of_domain(&format!("d{i}.example"), 4))] += 1;
        }
        for count in users.into_iter().chain(domains) {
            assert!((9_500..10_500).contains(&count), "{users:?} {domains:?}");
        }
    }

    #[test]
    fn a_bare_domain_has_one_place() {
        let domain = Address::parse("Example.COM").unwrap();
        assert_eq!(shard_of(domain.slot(), 5), shard_of_domain("example.com", 5));
    }
}
