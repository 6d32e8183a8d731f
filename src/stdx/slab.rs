//! Values by number, with a generation so that an old number never finds a new value.
//!
//! Numbers are reused, the last one freed first, so the table stays as long as its fullest moment.
//! A key is eight bytes and travels through rings, timers and the mesh as one `u64`.

use std::fmt;

/// Names one value of one slab for as long as it is in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Where it lies.
    pub index: u32,
    /// Which of the values that ever lay there; never 0.
    pub generation: u32,
}

impl Key {
    /// Both halves in one number; never 0.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// What [`Key::to_u64`] made.
    pub fn from_u64(number: u64) -> Self {
        // Each half is taken by its own cast.
        Self { index: number as u32, generation: (number >> 32) as u32 }
    }
}

enum Place<T> {
    Taken(T),
    /// The next free place behind this one, or `NONE`.
    Free(u32),
}

struct Cell<T> {
    generation: u32,
    place: Place<T>,
}

const NONE: u32 = u32::MAX;

/// At most `max` values of `T`.
pub struct Slab<T> {
    cells: Vec<Cell<T>>,
    free: u32,
    len: u32,
    max: u32,
}

impl<T> Slab<T> {
    /// An empty slab that never holds more than `max` values.
    pub fn new(max: u32) -> Self {
        Self { cells: Vec::new(), free: NONE, len: 0, max: max.min(NONE - 1) }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether [`Slab::insert`] would be refused.
    pub fn is_full(&self) -> bool {
        self.len == self.max
    }

    /// The key that the next [`Slab::insert`] will give, for a value that must know its own.
    pub fn next_key(&self) -> Option<Key> {
        if self.is_full() {
            return None;
        }
        Some(match self.cells.get(self.free as usize) {
            Some(cell) => Key { index: self.free, generation: cell.generation },
            None => Key { index: self.len, generation: 1 },
        })
    }

    /// Puts `value` in, or hands it back if the slab is full.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        let Some(key) = self.next_key() else { return Err(value) };
        match self.cells.get_mut(key.index as usize) {
            Some(cell) => {
                if let Place::Free(next) = cell.place {
                    self.free = next;
                }
                cell.place = Place::Taken(value);
            }
            None => self.cells.push(Cell { generation: 1, place: Place::Taken(value) }),
        }
        self.len += 1;
        Ok(key)
    }

    /// The value of `key`, if it is still in.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.cells.get(key.index as usize) {
            Some(Cell { generation, place: Place::Taken(value) })
                if *generation == key.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// The value of `key`, to be changed.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.cells.get_mut(key.index as usize) {
            Some(Cell { generation, place: Place::Taken(value) })
                if *generation == key.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// Whether `key`'s value is still in.
    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// The key of whatever lies at `index` now.
    pub fn key_at(&self, index: u32) -> Option<Key> {
        match self.cells.get(index as usize) {
            Some(Cell { generation, place: Place::Taken(_) }) => {
                Some(Key { index, generation: *generation })
            }
            _ => None,
        }
    }

    /// Takes the value of `key` out; from now on the key finds nothing.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let cell = self.cells.get_mut(key.index as usize)?;
        let Place::Taken(value) = std::mem::replace(&mut cell.place, Place::Free(self.free)) else {
            return None;
        };
        self.len -= 1;
        match cell.generation.checked_add(1) {
            Some(next) => {
                cell.generation = next;
                self.free = key.index;
            }
            // A place used four billion times is retired: its first keys might still be about.
            None => {
                cell.place = Place::Free(NONE);
                cell.generation = 0;
                self.max -= 1;
            }
        }
        Some(value)
    }

    /// All values in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.cells.iter().enumerate().filter_map(|(index, cell)| match &cell.place {
            Place::Taken(value) => {
                Some((Key { index: index as u32, generation: cell.generation }, value))
            }
            Place::Free(_) => None,
        })
    }

    /// All values in the order of their places, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.cells.iter_mut().enumerate().filter_map(|(index, cell)| match &mut cell.place {
            Place::Taken(value) => {
                Some((Key { index: index as u32, generation: cell.generation }, value))
            }
            Place::Free(_) => None,
        })
    }
}

impl<T: fmt::Debug> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_old_key_never_finds_a_new_value() {
        let mut slab = Slab::new(200);
        let mut model: BTreeMap<Key, u64> = BTreeMap::new();
        let mut gone: Vec<Key> = Vec::new();
        let mut dice = 5_u64;
        for _ in 0..20_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let live = model.keys().nth((dice >> 40) as usize % (model.len() + 1)).copied();
            match live {
                Some(key) if (dice >> 33) & 1 == 0 => {
                    assert_eq!(slab.remove(key), model.remove(&key));
                    gone.push(key);
                }
                _ => {
                    let next = slab.next_key();
                    match slab.insert(dice) {
                        Ok(key) => {
                            assert_eq!(next, Some(key));
                            assert_eq!(Key::from_u64(key.to_u64()), key);
                            assert_eq!(slab.key_at(key.index), Some(key));
                            assert_eq!(model.insert(key, dice), None);
                        }
                        Err(_) => assert_eq!((model.len(), next), (200, None)),
                    }
                }
            }
            assert_eq!(slab.len(), model.len());
            if let Some(&old) = gone.get((dice >> 20) as usize % (gone.len() + 1)) {
                assert_eq!(slab.get(old), None);
                assert_eq!(slab.get_mut(old), None);
                assert_eq!(slab.remove(old), None);
            }
        }
        assert!(slab.iter().eq(model.iter().map(|(key, value)| (*key, value))));
    }

    #[test]
    fn a_worn_out_place_is_retired() {
        let mut slab = Slab::new(1);
        let key = slab.insert('a').unwrap();
        slab.cells[0].generation = u32::MAX;
        assert_eq!(slab.remove(Key { generation: u32::MAX, ..key }), Some('a'));
        assert_eq!(slab.insert('b'), Err('b'));
    }
}
