//! The watchers at home on this shard, by whom they watch: a copy of a share of his audience.
//!
//! Only a copy: it may be forgotten at any time, and is then asked for again.

use std::collections::VecDeque;

use crate::stdx::Map;

/// Sets of watchers by presentity, a bounded number of entries.
#[derive(Debug)]
pub struct Watchers {
    sets: Map<Box<str>, Set>,
    /// Oldest first; may name sets that are gone.
    order: VecDeque<Box<str>>,
    entries: usize,
    entries_max: usize,
}

#[derive(Debug)]
struct Set {
    version: u64,
    watchers: Vec<Box<str>>,
}

impl Watchers {
    /// At most `entries_max` watchers are remembered, all sets together.
    pub fn new(seed: u64, entries_max: usize) -> Self {
        Self { sets: Map::seeded(seed), order: VecDeque::new(), entries: 0, entries_max }
    }

    /// How many watchers are remembered.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Remembers who watches `presentity`.
    pub fn put(&mut self, presentity: &str, version: u64, watchers: Vec<Box<str>>) {
        self.forget(presentity);
        self.entries += watchers.len();
        while self.entries > self.entries_max {
            let Some(oldest) = self.order.pop_front() else { break };
            self.forget(&oldest);
        }
        // Names of sets that are gone don't pile up.
        if self.order.len() > 2 * self.sets.len() + 16 {
            let sets = &self.sets;
            self.order.retain(|it| sets.contains_key(it));
        }
        self.sets.insert(presentity.into(), Set { version, watchers });
        self.order.push_back(presentity.into());
    }

    /// Those who watch `presentity`, if the set of that version is here.
    pub fn get(&self, presentity: &str, version: u64) -> Option<&[Box<str>]> {
        let set = self.sets.get(presentity)?;
        (set.version == version).then_some(&set.watchers)
    }

    /// The presentity is offline: his watchers will be told again.
    pub fn forget(&mut self, presentity: &str) {
        if let Some(set) = self.sets.remove(presentity) {
            self.entries -= set.watchers.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<Box<str>> {
        (0..count).map(|n| format!("w{n}@x.example").into()).collect()
    }

    #[test]
    fn a_set_of_another_version_is_none() {
        let mut watchers = Watchers::new(1, 100);
        watchers.put("a@x.example", 3, names(2));
        assert_eq!(watchers.get("a@x.example", 3).map(<[_]>::len), Some(2));
        assert_eq!(watchers.get("a@x.example", 4), None);
        watchers.put("a@x.example", 4, names(1));
        assert_eq!((watchers.get("a@x.example", 3), watchers.entries()), (None, 1));
        watchers.forget("a@x.example");
        assert_eq!((watchers.get("a@x.example", 4), watchers.entries()), (None, 0));
    }

    #[test]
    fn the_bound_holds_and_the_oldest_go_first() {
        let mut watchers = Watchers::new(1, 100);
        for n in 0..1_000 {
            watchers.put(&format!("p{n}@x.example"), 1, names(7));
            assert!(watchers.entries() <= 100 && watchers.order.len() <= 64);
        }
        assert!(watchers.get("p999@x.example", 1).is_some());
        assert!(watchers.get("p900@x.example", 1).is_none());
    }
}
