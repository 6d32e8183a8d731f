//! The home of local users: which resources they have bound, and who of them gets what.
//!
//! All of a user's resources are on one shard, so a decision about them is a look into one table.
//! `K` names a resource's connection; what it is, is the engine's business.
//!
//! RFC 6121, 2 to 4 and 8.5. What must outlive the process is a user's [`Record`]: it is loaded when
//! the user is needed, and only his home changes it.

pub mod carbons;
mod delivery;
pub mod dialogs;
pub mod privacy;
pub mod record;
pub mod roster;
pub mod storing;
pub mod subscription;

pub use delivery::{Delivery, Receivers};

use crate::address::{Address, AddressRef};
use crate::home::privacy::Privacy;
use crate::home::record::{Change, Last, PRIVATE_NAMES, Record};
use crate::home::roster::Roster;
use crate::home::subscription::Relation;
use crate::limits::{DIRECTED_MAX, RESOURCES_MAX};
use crate::presence::Audience;
use crate::stdx::Map;

/// The users of this shard that are in use: with a resource, or because somebody wrote to them.
#[derive(Debug)]
pub struct Home<K> {
    users: Map<Box<str>, User<K>>,
    /// Users with a bound resource.
    online: usize,
    /// Counts up whenever what a watcher's presence goes by may have changed.
    changes: u64,
}

/// One account.
#[derive(Debug)]
pub struct User<K> {
    /// In the order in which they were bound.
    resources: Vec<Resource<K>>,
    /// `None`: it is being loaded.
    account: Option<Box<Account>>,
    /// A durable change is being committed.
    busy: bool,
    /// What is in memory may be of an account that is no more: it is loaded anew at the next login.
    doomed: bool,
}

/// What of a user's record is kept in memory.
#[derive(Debug)]
pub struct Account {
    pub roster: Roster,
    pub privacy: Privacy,
    pub last: Option<Last>,
    /// Who hears of the user's presence; `None`: not asked for since it changed.
    pub audience: Option<Box<Audience>>,
    pub mailbox: Mailbox,
    /// The names of the private elements, once somebody had to count them (XEP-0049).
    pub private: Option<Box<PrivateNames>>,
}

/// Names of private elements.
#[derive(Debug)]
pub struct PrivateNames(pub Vec<Box<str>>);

const _: () = assert!(size_of::<Account>() <= 128, "idle clients hold one each");

/// Messages that wait in the store for a user.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// Committed and not taken away.
    pub messages: u32,
    /// On the way into the store.
    pub storing: u32,
    /// Of these, messages that a resource has already been handed.
    pub spilling: u32,
    /// The number that the next one gets.
    pub next: u64,
    /// Some are being fetched.
    pub fetching: bool,
    /// Handed to a resource that has not acknowledged them, by number.
    pub out: Vec<u64>,
}

/// What is unusual about a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// A message for him may need more than an outbox: he has carbons on, or stored messages on
    /// their way.
    pub special: bool,
    /// He blocks, allows or denies somebody.
    pub ruled: bool,
}

/// What may be done with a user now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing is in memory.
    Unknown,
    /// The record is being loaded.
    Loading,
    /// A durable change is being committed: what must not overtake it waits.
    Busy,
    Ready,
}

/// A bound resource: connected, and available once it sent presence (RFC 6121, 1.4).
#[derive(Debug)]
pub struct Resource<K> {
    pub name: Box<str>,
    pub key: K,
    pub available: Option<Available>,
    /// It has asked for the roster, and hears of changes (RFC 6121, 2.2).
    pub interested: bool,
    /// It wants copies of the user's other messages (XEP-0280).
    pub carbons: bool,
    /// Who got presence directly and must hear of the end (RFC 6121, 4.6.3). Full or bare.
    pub directed: Vec<Address>,
    /// It asked for the block list and is told of changes (XEP-0191, 3.2).
    pub wants_blocks: bool,
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

#[inline]
fn readiness_of<K>(user: Option<&User<K>>) -> Readiness {
    match user {
        None => Readiness::Unknown,
        Some(User { account: None, .. }) => Readiness::Loading,
        Some(User { busy: true, .. }) => Readiness::Busy,
        Some(_) => Readiness::Ready,
    }
}

impl<K: Copy + PartialEq> Home<K> {
    /// `seed` makes the table's order unguessable for those who choose the names.
    pub fn new(seed: u64) -> Self {
        Self { users: Map::seeded(seed), online: 0, changes: 1 }
    }

    /// Differs when a resource has become available or has gone, or a user's rules are others.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// One of these has happened, outside of here.
    pub fn changed(&mut self) {
        self.changes += 1;
    }

    /// Users with a bound resource.
    pub fn online(&self) -> usize {
        self.online
    }

    /// Users in memory, with or without a resource.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// What may be done with a user now.
    #[inline]
    pub fn readiness(&self, bare: &str) -> Readiness {
        readiness_of(self.users.get(bare))
    }

    /// The same and what is unusual about a user, so that all others need one look.
    #[inline]
    pub fn glance(&self, bare: &str) -> (Readiness, Habits) {
        let user = self.users.get(bare);
        let habits = user.map_or_else(Habits::default, |it| {
            let account = it.account.as_deref();
            Habits {
                special: it.resources.iter().any(|r| r.carbons)
                    || account.is_some_and(|it| it.mailbox.is_open()),
                ruled: account.is_some_and(|it| !it.privacy.is_empty()),
            }
        });
        (readiness_of(user), habits)
    }

    /// The record is being asked for.
    pub fn load(&mut self, bare: &str) {
        if !self.users.contains_key(bare) {
            let user = User { resources: Vec::new(), account: None, busy: false, doomed: false };
            self.users.insert(bare.into(), user);
        }
    }

    /// The record is here.
    pub fn loaded(&mut self, bare: &str, record: Record) {
        if let Some(user) = self.users.get_mut(bare) {
            user.account = Some(Box::new(Account::new(record)));
            self.changes += 1;
        }
    }

    /// Whether the user is in use: he has a resource, or something of him is under way.
    pub fn is_used(&self, bare: &str) -> bool {
        self.users
            .get(bare)
            .is_some_and(|it| it.busy || it.account.is_none() || !it.resources.is_empty())
            || self.account(bare).is_some_and(|it| it.mailbox.is_used())
    }

    /// The user is not needed any more; nothing happens if he is in use or not here. `always`: his
    /// record could not be loaded, or there is no such account.
    pub fn forget(&mut self, bare: &str, always: bool) {
        if always || !self.is_used(bare) {
            let gone = self.users.remove(bare);
            self.online -= usize::from(gone.is_some_and(|it| !it.resources.is_empty()));
        }
    }

    /// The account was removed or changed by an operator.
    pub fn doom(&mut self, bare: &str) {
        if let Some(user) = self.users.get_mut(bare) {
            user.doomed = true;
        }
        self.forget(bare, false);
    }

    /// Nobody is there, and what is in memory is not to be believed: it goes.
    pub fn forget_doomed(&mut self, bare: &str) {
        let alone = |it: &User<K>| it.doomed && it.resources.is_empty();
        if self.users.get(bare).is_some_and(alone) {
            self.forget(bare, true);
        }
    }

    /// A durable change begins or ends.
    pub fn set_busy(&mut self, bare: &str, busy: bool) {
        if let Some(user) = self.users.get_mut(bare) {
            user.busy = busy;
        }
    }

    /// What is known of a user whose record was loaded.
    pub fn account(&self, bare: &str) -> Option<&Account> {
        self.users.get(bare)?.account.as_deref()
    }

    /// What the expansion of a presence needs of a watcher, in one look-up.
    #[inline]
    pub fn watcher(&self, bare: &str) -> Option<(&Account, &[Resource<K>])> {
        let user = self.users.get(bare)?;
        Some((user.account.as_deref()?, &user.resources))
    }

    /// The same, to be changed by what needs no commit or has its commit behind it.
    pub fn account_mut(&mut self, bare: &str) -> Option<&mut Account> {
        self.users.get_mut(bare)?.account.as_deref_mut()
    }

    /// Binds a resource. The connection that had the same name before is returned: its stream ends
    /// with `conflict` and the new one wins (RFC 6120, 7.7.2.2).
    pub fn bind(
        &mut self,
        bare: &str,
        resource: &str,
        key: K,
    ) -> Result<Option<Resource<K>>, TooMany> {
        let fresh = Resource {
            name: resource.into(),
            key,
            available: None,
            interested: false,
            carbons: false,
            directed: Vec::new(),
            wants_blocks: false,
        };
        self.load(bare);
        self.changes += 1;
        let Some(user) = self.users.get_mut(bare) else { return Err(TooMany) };
        if let Some(old) = user.resources.iter_mut().find(|r| *r.name == *resource) {
            return Ok(Some(std::mem::replace(old, fresh)));
        }
        if user.resources.len() >= RESOURCES_MAX {
            return Err(TooMany);
        }
        self.online += usize::from(user.resources.is_empty());
        // Nearly everybody has one, and a vector would make room for four.
        user.resources.reserve_exact(1);
        user.resources.push(fresh);
        Ok(None)
    }

    /// The connection is gone: its resource too. `None` if another one has taken its place. The
    /// user stays until [`Home::forget`].
    pub fn unbind(&mut self, bare: &str, key: K) -> Option<Resource<K>> {
        self.changes += 1;
        let user = self.users.get_mut(bare)?;
        let index = user.resources.iter().position(|r| r.key == key)?;
        let gone = user.resources.remove(index);
        self.online -= usize::from(user.resources.is_empty());
        Some(gone)
    }

    /// Another connection speaks for the resource from now on, or none for a while (XEP-0198, 5).
    pub fn rekey(&mut self, bare: &str, old: K, new: K) {
        if let Some(resource) = self.resource_mut(bare, old) {
            resource.key = new;
            self.changed();
        }
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

impl Mailbox {
    /// Something waits in the store, or is on its way there or from there: a new message must not
    /// overtake it. What a resource was handed is before it in any case.
    pub fn is_open(&self) -> bool {
        let out = u32::try_from(self.out.len()).unwrap_or(u32::MAX);
        self.messages > out || self.storing > self.spilling || self.fetching
    }

    /// Something is under way between us and the store, or a resource.
    fn is_used(&self) -> bool {
        self.storing > 0 || self.fetching || !self.out.is_empty()
    }
}

impl Account {
    fn new(record: Record) -> Self {
        Self {
            roster: Roster::new(record.items, record.roster_version),
            privacy: Privacy::new(record.rules),
            last: record.last,
            audience: None,
            mailbox: Mailbox {
                messages: record.messages,
                next: record.next_message,
                ..Mailbox::default()
            },
            private: None,
        }
    }

    /// A change is committed: what is in memory follows.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::PutItem(item) => {
                if self.is_seen_by(item.contact.full()) != item.state.has_from() {
                    self.audience = None;
                }
                self.roster.put(*item);
            }
            Change::RemoveItem(contact) => {
                self.roster.remove(&contact);
                self.audience = None;
            }
            Change::RosterVersion(version) => self.roster.version = version,
            Change::AddRule(list, rule) => {
                self.privacy.add(list, rule);
                self.audience = None;
            }
            Change::RemoveRule(list, rule) => {
                self.privacy.remove(list, &rule);
                self.audience = None;
            }
            Change::Last(last) => self.last = Some(last),
            Change::StoreMessage(_) => self.mailbox.messages += 1,
            Change::RemoveMessages(numbers) => {
                let gone = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
                self.mailbox.messages = self.mailbox.messages.saturating_sub(gone);
            }
            Change::Private { name, octets } if &*name == PRIVATE_NAMES => {
                self.know_private(&octets);
            }
            Change::Private { .. } | Change::Vcard(_) => {}
        }
    }

    /// The list of the private elements, as it is kept under [`PRIVATE_NAMES`].
    pub fn know_private(&mut self, list: &[u8]) {
        let names = String::from_utf8_lossy(list);
        let names = names.lines().map(Box::from).collect();
        self.private = Some(Box::new(PrivateNames(names)));
    }

    /// The contact, by its bare address, sees the user's presence.
    pub fn is_seen_by(&self, contact: &str) -> bool {
        self.roster.get(contact).is_some_and(|it| it.state.has_from())
    }

    /// How a contact stands to the user.
    pub fn relation(&self, contact: AddressRef<'_>) -> Relation {
        self.roster.relation(contact, &self.privacy)
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
