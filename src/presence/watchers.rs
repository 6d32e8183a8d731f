//! The watchers at home on this shard, by whom they watch: a copy of a share of his audience.
//!
//! Only a copy: it may be forgotten at any time, and is then asked for again. Beside the names stands
//! where their presence goes, found out once and good for as long as nobody at home comes, goes or
//! changes a rule: so a change of presence need not look up a thousand users.

use crate::stdx::{Bounded, Map};

/// Sets of watchers by presentity, a bounded number of entries. `K` is where a stanza goes.
#[derive(Debug)]
pub struct Watchers<K> {
    sets: Map<Box<str>, Set<K>>,
    /// Oldest first; may name sets that are gone.
    order: Bounded<Box<str>>,
    entries: usize,
    entries_max: usize,
}

/// Who watches one presentity.
#[derive(Debug)]
pub struct Set<K> {
    version: u64,
    watchers: Vec<Box<str>>,
    /// Whom a stanza goes to: which of the watchers, and where.
    targets: Vec<(u32, K)>,
    /// The state of the home in which these were found.
    found_at: u64,
}

impl<K> Set<K> {
    /// Where stanzas go, with the name of the watcher; `find` calls back with each place of a
    /// watcher if what is known is not of `now`.
    pub fn targets(
        &mut self,
        now: u64,
        mut find: impl FnMut(&str, &mut dyn FnMut(K)),
    ) -> impl Iterator<Item = (&str, &K)> {
        if self.found_at != now {
            self.found_at = now;
            self.targets.clear();
            for (index, watcher) in (0_u32..).zip(&self.watchers) {
                find(watcher, &mut |place| self.targets.push((index, place)));
            }
        }
        let watchers = &self.watchers;
        self.targets
            .iter()
            .filter_map(|(index, place)| Some((&**watchers.get(*index as usize)?, place)))
    }
}

impl<K> Watchers<K> {
    /// At most `entries_max` watchers are remembered, all sets together.
    pub fn new(seed: u64, entries_max: usize) -> Self {
        let order = Bounded::new(2 * entries_max + 32);
        Self { sets: Map::seeded(seed), order, entries: 0, entries_max }
    }

    /// How many watchers are remembered.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Remembers who watches `presentity`.
    pub fn put(&mut self, presentity: &str, version: u64, watchers: Vec<Box<str>>) {
        self.forget(presentity);
        // One that nobody watches counts too: it has a name.
        self.entries += watchers.len() + 1;
        while self.entries > self.entries_max {
            let Some(oldest) = self.order.take() else { break };
            self.forget(&oldest);
        }
        // Names of sets that are gone don't pile up.
        if self.order.len() > 2 * self.sets.len() + 16 {
            let sets = &self.sets;
            self.order.retain(|it| sets.contains_key(it));
        }
        let set = Set { version, watchers, targets: Vec::new(), found_at: 0 };
        self.sets.insert(presentity.into(), set);
        // There is room: the names of sets that are here are fewer than the entries.
        drop(self.order.push(presentity.into()));
    }

    /// Those who watch `presentity`, if the set of that version is here.
    pub fn get(&mut self, presentity: &str, version: u64) -> Option<&mut Set<K>> {
        self.sets.get_mut(presentity).filter(|set| set.version == version)
    }

    /// The presentity is offline: his watchers will be told again.
    pub fn forget(&mut self, presentity: &str) {
        if let Some(set) = self.sets.remove(presentity) {
            self.entries -= set.watchers.len() + 1;
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
        let mut watchers = Watchers::<u8>::new(1, 100);
        watchers.put("a@x.example", 3, names(2));
        assert_eq!(watchers.get("a@x.example", 3).map(|it| it.watchers.len()), Some(2));
        assert!(watchers.get("a@x.example", 4).is_none());
        watchers.put("a@x.example", 4, names(1));
        assert!(watchers.get("a@x.example", 3).is_none());
        assert_eq!(watchers.entries(), 2);
        watchers.forget("a@x.example");
        assert!(watchers.get("a@x.example", 4).is_none());
        assert_eq!(watchers.entries(), 0);
    }

    #[test]
    fn places_are_found_once_and_again_when_the_home_has_changed() {
        let mut watchers = Watchers::new(1, 100);
        watchers.put("a@x.example", 1, names(3));
        let set = watchers.get("a@x.example", 1).unwrap();
        let mut asked = 0;
        for now in [1, 1, 2] {
            let found: Vec<_> = set
                .targets(now, |name, found| {
                    asked += 1;
                    // The second has no place, the third two.
                    match name {
                        "w0@x.example" => found(now),
                        "w2@x.example" => [now, 9].into_iter().for_each(found),
                        _ => {}
                    }
                })
                .map(|(name, place)| (name.to_owned(), *place))
                .collect();
            let wanted = [("w0@x.example", now), ("w2@x.example", now), ("w2@x.example", 9)];
            assert_eq!(found, wanted.map(|(name, place)| (name.to_owned(), place)));
        }
        assert_eq!(asked, 6);
    }

    #[test]
    fn the_bound_holds_and_the_oldest_go_first() {
        let mut watchers = Watchers::<u8>::new(1, 100);
        for n in 0..1_000 {
            watchers.put(&format!("p{n}@x.example"), 1, names(7));
            assert!(watchers.entries() <= 100 && watchers.order.len() <= 64);
        }
        assert!(watchers.get("p999@x.example", 1).is_some());
        assert!(watchers.get("p900@x.example", 1).is_none());
    }
}
