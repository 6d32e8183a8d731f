//! Whom a user has blocked, allowed or politely denied.
//!
//! XEP-0191 for blocking. Users without rules, nearly all, pay one test of a null pointer.

use crate::address::Address;
use crate::home::record::List;

/// The rules of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privacy {
    lists: Option<Box<[Vec<Address>; 3]>>,
}

impl Privacy {
    /// From what the store had.
    pub fn new(rules: Vec<(List, Address)>) -> Self {
        let mut privacy = Self::default();
        for (list, rule) in rules {
            privacy.add(list, rule);
        }
        privacy
    }

    /// There is no rule.
    pub fn is_empty(&self) -> bool {
        self.lists.is_none()
    }

    /// Sorted.
    pub fn list(&self, list: List) -> &[Address] {
        self.lists.as_ref().map_or(&[], |lists| lists[list as usize].as_slice())
    }

    /// False: it was there already.
    pub fn add(&mut self, list: List, rule: Address) -> bool {
        let lists = self.lists.get_or_insert_default();
        let list = &mut lists[list as usize];
        list.binary_search(&rule).is_err_and(|at| {
            list.insert(at, rule);
            true
        })
    }

    /// False: it was not there.
    pub fn remove(&mut self, list: List, rule: &Address) -> bool {
        let Some(lists) = self.lists.as_mut() else { return false };
        let list = &mut lists[list as usize];
        let found = list.binary_search(rule).is_ok_and(|at| {
            list.remove(at);
            true
        });
        if lists.iter().all(Vec::is_empty) {
            self.lists = None;
        }
        found
    }
}
