//! A hash table whose seed is an argument and whose order can't be seen.
//!
//! Keys are often what peers choose, so the seed must be secret in service; in the simulated world
//! it is fixed. Entries can be visited in the order of their keys only, so nothing that happens
//! depends on the seed. There is **no** `Default`, since it would have to invent a seed.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::OnceLock;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use hashbrown::hash_map::Entry as TableEntry;
use hashbrown::{Equivalent, HashMap};

/// A place in the table, occupied or not.
pub type Entry<'a, K, V> = TableEntry<'a, K, V, Seeded>;

/// Makes the hashers of one map.
#[derive(Clone, Copy)]
pub struct Seeded(u64);

/// The multipliers of the hash. They come from the first seed of the process: with constants that
/// everyone knows, keys could be made that collide under every seed.
static SHARED: OnceLock<SharedSeed> = OnceLock::new();

impl BuildHasher for Seeded {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> Self::Hasher {
        FoldHasher::with_seed(self.0, SHARED.get_or_init(|| SharedSeed::from_u64(self.0)))
    }
}

/// A map from `K` to `V` with a seed of its own.
#[derive(Clone)]
pub struct Map<K, V> {
    table: HashMap<K, V, Seeded>,
}

impl<K, V> Map<K, V> {
    /// An empty map; it allocates with its first entry.
    pub fn seeded(seed: u64) -> Self {
        Self { table: HashMap::with_hasher(Seeded(seed)) }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Removes all entries and keeps the memory.
    pub fn clear(&mut self) {
        self.table.clear();
    }
}

impl<K: Eq + Hash, V> Map<K, V> {
    /// The value of `key`.
    pub fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        self.table.get(key)
    }

    /// The value of `key`, to be changed.
    pub fn get_mut<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<&mut V> {
        self.table.get_mut(key)
    }

    /// Whether `key` has a value.
    pub fn contains_key<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> bool {
        self.table.contains_key(key)
    }

    /// Sets the value of `key` and returns the former one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.table.insert(key, value)
    }

    /// Takes the value of `key` out.
    pub fn remove<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<V> {
        self.table.remove(key)
    }

    /// The place of `key`: one look-up to find it or fill it.
    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        self.table.entry(key)
    }

    /// Keeps the entries for which `keep` says so. It is asked in no order: its answer may depend on
    /// the entry alone.
    pub fn retain(&mut self, keep: impl FnMut(&K, &mut V) -> bool) {
        self.table.retain(keep);
    }

    /// Gives memory back that is no longer needed.
    pub fn shrink(&mut self) {
        self.table.shrink_to_fit();
    }
}

impl<K: Eq + Hash + Ord, V> Map<K, V> {
    /// All entries in the order of their keys. Sorts: not for every message.
    pub fn sorted(&self) -> Vec<(&K, &V)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_unstable_by_key(|&(key, _)| key);
        entries
    }

    /// All keys in order. Sorts: not for every message.
    pub fn keys_sorted(&self) -> Vec<&K> {
        let mut keys: Vec<_> = self.table.keys().collect();
        keys.sort_unstable();
        keys
    }

    /// Takes all entries out, in the order of their keys.
    pub fn drain_sorted(&mut self) -> Vec<(K, V)> {
        let mut entries: Vec<_> = self.table.drain().collect();
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        entries
    }
}

impl<K: Eq + Hash + Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.sorted()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_does_what_a_sorted_map_does() {
        for seed in 0..4 {
            let mut map = Map::seeded(seed);
            let mut model = BTreeMap::new();
            let mut dice = seed + 99;
            for _ in 0..20_000 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let key = format!("{}", (dice >> 40) % 500);
                if (dice >> 33) & 1 == 0 {
                    assert_eq!(map.insert(key.clone(), dice), model.insert(key, dice));
                } else {
                    assert_eq!(map.remove(key.as_str()), model.remove(&key));
                }
                assert_eq!(map.len(), model.len());
            }
            assert!(map.sorted().into_iter().eq(model.iter()));
            assert!(map.keys_sorted().into_iter().eq(model.keys()));
            map.retain(|_, value| *value % 2 == 0);
            model.retain(|_, value| *value % 2 == 0);
            assert!(map.drain_sorted().into_iter().eq(model));
            assert!(map.is_empty());
        }
    }

    #[test]
    fn seeds_hash_differently() {
        let hash = |seed| Seeded(seed).hash_one("juliet@example.com");
        assert_ne!(hash(1), hash(2));
        assert_eq!(hash(1), hash(1));
    }
}
