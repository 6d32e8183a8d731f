//! Other domains, each seen as one party: what waits for them and how far the way to them is.

use crate::stdx::Map;

/// The ways of one shard.
#[derive(Debug)]
pub struct Ways<K> {
    ways: Map<(String, String), K>,
}

impl<K> Ways<K> {
    /// `seed` makes the table's order unguessable for those who choose the names.
    pub fn new(seed: u64) -> Self {
        Self { ways: Map::seeded(seed) }
    }

    /// Domain pairs with something under way.
    pub fn len(&self) -> usize {
        self.ways.len()
    }

    /// Nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.ways.is_empty()
    }
}
