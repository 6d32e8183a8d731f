//! The home of local users: which resources they have bound, and who of them gets what.
//!
//! All of a user's resources are on one shard, so a decision about them is a look into one table.
//! `K` names a resource's connection; what it is, is the engine's business.
//!
//! RFC 6121, 4 and 8.5. Rosters and subscriptions, offline storage, carbons and blocking are **not**
//! here yet: presence goes to the user's own resources and where it is directed.

mod delivery;
pub mod subscription;

pub use delivery::{Delivery, Receivers};

use crate::address::{Address, AddressRef};
use crate::limits::{DIRECTED_MAX, RESOURCES_MAX};
use crate::stdx::Map;

/// The users of this shard that have a resource bound.
#[derive(Debug)]
pub struct Home<K> {
    users: Map<Box<str>, User<K>>,
}

/// One account with at least one bound resource.
#[derive(Debug)]
pub struct User<K> {
    /// In the order in which they were bound.
    resources: Vec<Resource<K>>,
}

/// A bound resource: connected, and available once it sent presence (RFC 6121, 1.4).
#[derive(Debug)]
pub struct Resource<K> {
    pub name: Box<str>,
    pub key: K,
    pub available: Option<Available>,
    /// Who got presence directly and must hear of the end (RFC 6121, 4.6.3). Full or bare.
    pub directed: Vec<Address>,
}

/// The last presence a resource broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// RFC 6121, 4.7.2.3.
    pub priority: i8,
    /// The whole stanza as it goes to others, `from` included, `to` not.
    pub stanza: Box<[u8]>,
}

/// The account has as many resources as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl<K: Copy + PartialEq> Home<K> {
    /// `seed` makes the table's order unguessable for those who choose the names.
    pub fn new(seed: u64) -> Self {
        Self { users: Map::seeded(seed) }
    }

    /// Users with a bound resource.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Binds a resource. The connection that had the same name before is returned: its stream ends
    /// with `conflict` and the new one wins (RFC 6120, 7.7.2.2).
    pub fn bind(
        &mut self,
        bare: &str,
        resource: &str,
        key: K,
    ) -> Result<Option<Resource<K>>, TooMany> {
        let fresh = Resource { name: resource.into(), key, available: None, directed: Vec::new() };
        let Some(user) = self.users.get_mut(bare) else {
            self.users.insert(bare.into(), User { resources: vec![fresh] });
            return Ok(None);
        };
        if let Some(old) = user.resources.iter_mut().find(|r| *r.name == *resource) {
            return Ok(Some(std::mem::replace(old, fresh)));
        }
        if user.resources.len() >= RESOURCES_MAX {
            return Err(TooMany);
        }
        user.resources.push(fresh);
        Ok(None)
    }

    /// The connection is gone: its resource too. `None` if another one has taken its place.
    pub fn unbind(&mut self, bare: &str, key: K) -> Option<Resource<K>> {
        let user = self.users.get_mut(bare)?;
        let index = user.resources.iter().position(|r| r.key == key)?;
        let gone = user.resources.remove(index);
        if user.resources.is_empty() {
            self.users.remove(bare);
        }
        Some(gone)
    }

    /// The resources of an account, in the order in which they were bound.
    pub fn resources(&self, bare: &str) -> &[Resource<K>] {
        self.users.get(bare).map_or(&[], |u| &u.resources)
    }

    /// The resource on that connection.
    pub fn resource_mut(&mut self, bare: &str, key: K) -> Option<&mut Resource<K>> {
        self.users.get_mut(bare)?.resources.iter_mut().find(|r| r.key == key)
    }

    /// The resource of that full address.
    pub fn find(&self, address: AddressRef<'_>) -> Option<&Resource<K>> {
        let name = address.resource()?;
        self.resources(address.bare()).iter().find(|r| *r.name == *name)
    }
}

impl<K> Resource<K> {
    /// Remembers or forgets a receiver of directed presence. `false`: there are too many, and the
    /// presence must not be sent, since its end could not be told.
    pub fn direct(&mut self, to: AddressRef<'_>, available: bool) -> bool {
        let known = self.directed.iter().position(|a| a.full() == to.full());
        match (known, available) {
            (Some(index), false) => {
                self.directed.swap_remove(index);
                true
            }
            (None, true) if self.directed.len() >= DIRECTED_MAX => false,
            (None, true) => {
                self.directed.push(to.to_address());
                true
            }
            (Some(_), true) | (None, false) => true,
        }
    }
}
