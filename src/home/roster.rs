//! A user's contacts: who is in the roster and how far the subscriptions are.
//!
//! RFC 6121, 2 and 3.

use crate::address::Address;
use crate::home::record::Item;

/// The items of one user, sorted by contact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    items: Vec<Item>,
    /// Counts up with each change that clients see (RFC 6121, 2.6).
    pub version: u64,
}

impl Roster {
    /// From what the store had.
    pub fn new(mut items: Vec<Item>, version: u64) -> Self {
        items.sort_unstable_by(|a, b| a.contact.cmp(&b.contact));
        items.dedup_by(|a, b| a.contact == b.contact);
        items.shrink_to_fit();
        Self { items, version }
    }

    /// All items, also those that clients don't see.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The item of a contact, by its bare address.
    pub fn get(&self, contact: &str) -> Option<&Item> {
        self.place(contact).ok().and_then(|at| self.items.get(at))
    }

    /// Puts an item in the place of the contact's former one.
    pub fn put(&mut self, item: Item) {
        match self.place(item.contact.full()) {
            Ok(at) => self.items[at] = item,
            Err(at) => self.items.insert(at, item),
        }
    }

    /// Takes an item out.
    pub fn remove(&mut self, contact: &Address) -> Option<Item> {
        self.place(contact.full()).ok().map(|at| self.items.remove(at))
    }

    fn place(&self, contact: &str) -> Result<usize, usize> {
        self.items.binary_search_by(|it| it.contact.full().cmp(contact))
    }
}
