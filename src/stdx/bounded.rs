//! A queue that can be full.
//!
//! The bound counts items and, if the queue weighs them, bytes. What is refused comes back to the
//! caller, who must say what happens then.

use std::collections::VecDeque;
use std::fmt;

/// First in, first out; at most so many items and bytes.
pub struct Bounded<T> {
    items: VecDeque<T>,
    items_max: usize,
    bytes: usize,
    bytes_max: usize,
    weigh: fn(&T) -> usize,
}

impl<T> Bounded<T> {
    /// At most `items_max` items, whatever they weigh. Allocates with the first one.
    pub fn new(items_max: usize) -> Self {
        Self::weighed(items_max, usize::MAX, |_| 0)
    }

    /// At most `items_max` items of at most `bytes_max` bytes together. `weigh` must say the same of
    /// an item when it goes in and when it comes out.
    pub fn weighed(items_max: usize, bytes_max: usize, weigh: fn(&T) -> usize) -> Self {
        Self { items: VecDeque::new(), items_max, bytes: 0, bytes_max, weigh }
    }

    /// Appends `item`, or hands it back if there is no room for it.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        let bytes = (self.weigh)(&item);
        if !self.has_room(bytes) {
            return Err(item);
        }
        self.bytes += bytes;
        self.items.push_back(item);
        Ok(())
    }

    /// Whether an item of this weight would be taken.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.items.len() < self.items_max && bytes <= self.bytes_max - self.bytes
    }

    /// Removes the oldest item.
    pub fn take(&mut self) -> Option<T> {
        let item = self.items.pop_front()?;
        self.bytes -= (self.weigh)(&item);
        Some(item)
    }

    /// The oldest item.
    pub fn front(&self) -> Option<&T> {
        self.items.front()
    }

    /// Keeps the items for which `keep` says so, in their order.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.items.retain(keep);
        self.bytes = self.items.iter().map(self.weigh).sum();
    }

    /// From the oldest to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.items.iter()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// What they weigh together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Drops all items.
    pub fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }

    /// Gives back the memory that the present items don't need.
    pub fn shrink(&mut self) {
        self.items.shrink_to_fit();
    }
}

impl<T: fmt::Debug> fmt::Debug for Bounded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.items).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_bound_is_ever_passed_and_order_holds() {
        let mut queue = Bounded::weighed(16, 100, |item: &(u64, usize)| item.1);
        let mut dice = 3_u64;
        let mut last = 0;
        for number in 1..50_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let weight = (dice >> 40) as usize % 30;
            let full = queue.len() == 16 || queue.bytes() + weight > 100;
            assert_eq!(queue.push((number, weight)).is_err(), full);
            assert_eq!(queue.bytes(), queue.iter().map(|item| item.1).sum::<usize>());
            if (dice >> 33).is_multiple_of(3) {
                queue.retain(|item| item.0 % 7 != 0);
            }
            if (dice >> 30) & 1 == 0
                && let Some((number, _)) = queue.take()
            {
                assert!(number > last);
                last = number;
            }
        }
        queue.clear();
        assert_eq!((queue.len(), queue.bytes(), queue.take()), (0, 0, None));
        assert_eq!(Bounded::new(0).push('a'), Err('a'));
    }
}
