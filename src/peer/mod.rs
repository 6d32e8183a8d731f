//! Other domains, each seen as one party: what waits for them and how far the way to them is.
//!
//! [`Ways`] are the ways of one shard to XMPP domains, one per pair of domains, ours and theirs. A [`Way`] has a
//! bounded queue with deadlines and the state of its set-up; [`Talk`] is what may follow what on the
//! stream that the set-up makes; [`method`] says how it shows who we are. All of it only decides:
//! connections, octets and questions are the engine's. [`sip_identity`] says for whom a SIP peer may
//! speak; [`proxy`] is the header of balancers in front of us. The ways of SIP are the engine's
//! (`shard/sip`): they have several connections and serve several domains, which those here do
//! **not** yet.

pub mod proxy;
pub mod sip_identity;
mod talk;
mod way;

pub use talk::{Heard, Method, Offer, Talk, method};
pub use way::{Input, Stage, Stale, Trouble, Verification, Waiting, Way};

use std::hash::Hash;

use hashbrown::Equivalent;

use crate::dns::Failures;
use crate::limits::{BACKOFF_MIN, WAYS_MAX};
use crate::stdx::{Key, Map, Slab};
use crate::time::Moment;

/// The ways of one shard. `K` names a connection.
#[derive(Debug)]
pub struct Ways<K> {
    by_pair: Map<(String, String), Key>,
    ways: Slab<Way<K>>,
    /// Targets that failed lately, of all ways.
    pub failures: Failures,
    /// When room was made last.
    swept: Moment,
}

/// A pair of domains, ours first, without owning them.
#[derive(Hash)]
struct Pair<'a>(&'a str, &'a str);

impl Equivalent<(String, String)> for Pair<'_> {
    fn equivalent(&self, key: &(String, String)) -> bool {
        (self.0, self.1) == (key.0.as_str(), key.1.as_str())
    }
}

impl<K: Copy + PartialEq> Ways<K> {
    /// `seed` makes the table's order unguessable for those who choose the names.
    pub fn new(seed: u64) -> Self {
        Self {
            by_pair: Map::seeded(seed),
            ways: Slab::new(WAYS_MAX as u32),
            failures: Failures::default(),
            swept: Moment::default(),
        }
    }

    /// Domain pairs with something under way or lately so.
    pub fn len(&self) -> usize {
        self.ways.len()
    }

    /// Nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.ways.is_empty()
    }

    /// The way of a pair, if there is one.
    pub fn find(&self, near: &str, far: &str) -> Option<Key> {
        self.by_pair.get(&Pair(near, far)).copied()
    }

    /// The way of a pair, made if there is none; `None`: there are too many.
    pub fn enter(&mut self, near: &str, far: &str, now: Moment) -> Option<Key> {
        if let Some(key) = self.find(near, far) {
            return Some(key);
        }
        if self.ways.is_full() {
            self.make_room(now);
        }
        let key = self.ways.insert(Way::new(near, far, now)).ok()?;
        self.by_pair.insert((near.to_owned(), far.to_owned()), key);
        Some(key)
    }

    /// The way of that key, unless it is forgotten.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Way<K>> {
        self.ways.get_mut(key)
    }

    /// See [`Ways::get_mut`].
    pub fn get(&self, key: Key) -> Option<&Way<K>> {
        self.ways.get(key)
    }

    /// Forgets a way with all that waits in it.
    pub fn remove(&mut self, key: Key) -> Option<Way<K>> {
        let way = self.ways.remove(key)?;
        self.by_pair.remove(&Pair(&way.near, &way.far));
        Some(way)
    }

    /// All keys, by place.
    pub fn keys(&self) -> Vec<Key> {
        self.ways.iter().map(|(key, _)| key).collect()
    }

    /// Strangers can make us open ways: those that nobody waits for go when there are too many.
    /// Looks at all, so not more often than a way's shortest pause.
    fn make_room(&mut self, now: Moment) {
        if now.since(self.swept) < BACKOFF_MIN {
            return;
        }
        self.swept = now;
        let idle: Vec<Key> =
            self.ways.iter().filter(|(_, way)| way.is_forgettable()).map(|(key, _)| key).collect();
        for key in idle {
            self.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_one_way_and_the_table_has_a_bound() {
        let mut ways: Ways<u8> = Ways::new(1);
        let now = Moment(5_000_000_000);
        let key = ways.enter("a.example", "b.example", now);
        assert!(key.is_some());
        assert_eq!(ways.enter("a.example", "b.example", now), key);
        assert_ne!(ways.enter("b.example", "a.example", now), key);
        for i in 2..WAYS_MAX {
            assert!(ways.enter("a.example", &format!("d{i}.example"), now).is_some());
        }
        assert_eq!(ways.len(), WAYS_MAX);
        // None of them is wanted, so they make room.
        assert!(ways.enter("a.example", "one-more.example", now).is_some());
        assert_eq!(ways.len(), 1);
        assert_eq!(ways.find("a.example", "b.example"), None);
    }
}
