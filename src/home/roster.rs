//! A user's contacts: who is in the roster, how far the subscriptions are, and what may change.
//!
//! RFC 6121, 2 and 3. The rules of form of a roster set are the reader's (`xmpp::payload::roster`);
//! here are those that need the roster: who the contact is, whether it is there, whether there is
//! room. What follows comes out as `Change`s, to be committed together; nothing in memory changes
//! before they are. Versions count up with each change that clients see; what was changed since an
//! older version is **not** kept, so a client that is behind gets the whole roster (2.6.3).

use crate::address::{Address, AddressRef};
use crate::home::privacy::Privacy;
use crate::home::record::{Change, Item, List};
use crate::home::subscription::{Approval, Denial, Denied, Relation, Removal, State, Step};
use crate::limits::{
    REQUEST_OCTETS_MAX, REQUESTS_MAX, ROSTER_ITEMS_MAX, ROSTER_OCTETS_MAX, RULES_MAX,
};
use crate::time::Wall;
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::payload::roster::{RosterItem, RosterSet};
use crate::xmpp::write;

/// The items of one user, sorted by contact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    items: Vec<Item>,
    /// Counts up with each change that clients see (RFC 6121, 2.6).
    pub version: u64,
}

/// What a roster set comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// To be committed together; the version that the push brings is among them.
    pub changes: Vec<Change>,
    /// Bare. Pushed as it is in the roster afterwards, or as removed if it is not there.
    pub contact: Address,
    /// What the contact is sent, if its item goes.
    pub removal: Option<Removal>,
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

    /// Those that clients see.
    pub fn listed(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|it| it.listed)
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

    /// How the user and a contact stand to each other.
    pub fn relation(&self, contact: AddressRef<'_>, privacy: &Privacy) -> Relation {
        let item = self.get(contact.bare());
        Relation {
            state: item.map_or(State::None, |it| it.state),
            approved: item.is_some_and(|it| it.approved) || privacy.is_allowed(contact),
            denied: privacy.is_denied(contact),
        }
    }

    /// True if a client that says `ver` has what there is (RFC 6121, 2.6.3): it is sent no items.
    pub fn is_current(&self, ver: &str) -> bool {
        ver == self.version.to_string()
    }

    /// What a roster set of the user `own` (bare) comes to: RFC 6121, 2.3, 2.4 and 2.5.
    pub fn edit(
        &self,
        own: &str,
        set: RosterSet,
        privacy: &Privacy,
        style: Denial,
    ) -> Result<Edit, StanzaFault> {
        let (RosterSet::Put { jid, .. } | RosterSet::Remove { jid }) = &set;
        let contact = Address::parse(jid).map_err(|_| StanzaFault::JidMalformed)?.to_bare();
        let item = self.get(contact.full());
        let mut changes = vec![Change::RosterVersion(self.version + 1)];
        let RosterSet::Put { name, groups, .. } = set else {
            // RFC 6121, 2.5.3. A mere request is nothing that a client could have seen here.
            if !item.is_some_and(|it| it.listed) {
                return Err(StanzaFault::ItemNotFound);
            }
            let style = style_with(privacy, style);
            let removal = self.relation(contact.view(), privacy).user_removes(style);
            changes.push(Change::RemoveItem(contact.clone()));
            changes.extend(denial(removal.step.denied, &contact));
            return Ok(Edit { changes, contact, removal: Some(removal) });
        };
        // Nobody subscribes to himself: the user's resources see each other anyway.
        if contact.full() == own {
            return Err(StanzaFault::NotAllowed);
        }
        let item = item.cloned().unwrap_or_else(|| Item::new(contact.clone()));
        let item = Item { name, groups, ..self.with_listing(item)? };
        let others = self.listed().filter(|it| it.contact != contact);
        if others.chain([&item]).map(Item::octets).sum::<usize>() > ROSTER_OCTETS_MAX {
            return Err(StanzaFault::ResourceConstraint);
        }
        changes.push(Change::PutItem(Box::new(item)));
        Ok(Edit { changes, contact, removal: None })
    }

    /// What a step of the subscription with `contact` (bare) comes to.
    ///
    /// `request`: the contact's stanza, if that is what was taken a step by. `asked`: now, if the
    /// user asked. An error is for whoever sent the stanza: there is no room for what it would make.
    pub fn after(
        &self,
        contact: &Address,
        step: &Step,
        request: Option<&[u8]>,
        asked: Option<Wall>,
    ) -> Result<Vec<Change>, StanzaFault> {
        let before = self.get(contact.full());
        if before.is_none() && step.next == State::None && step.approval != Approval::Set {
            // Of one who stands on a list only, there is nothing to be kept.
            return Ok(denial(step.denied, contact).into_iter().collect());
        }
        let mut item = before.cloned().unwrap_or_else(|| Item::new(contact.clone()));
        if step.push {
            item = self.with_listing(item)?;
        }
        if step.next.pending_in() {
            if step.keeps_request(item.state) {
                self.check_requests()?;
                item.request = Some(kept(contact, request.unwrap_or_default()));
            }
        } else {
            item.request = None;
        }
        item.state = step.next;
        item.approved = match step.approval {
            Approval::Kept => item.approved,
            Approval::Set => true,
            Approval::Used | Approval::Cancelled => false,
        };
        item.asked = asked.unwrap_or(item.asked);
        let mut changes = Vec::new();
        if step.push {
            changes.push(Change::RosterVersion(self.version + 1));
        }
        if !item.listed && item.state == State::None {
            changes.extend(before.map(|it| Change::RemoveItem(it.contact.clone())));
        } else if before != Some(&item) {
            changes.push(Change::PutItem(Box::new(item)));
        }
        changes.extend(denial(step.denied, contact));
        Ok(changes)
    }

    /// The item as one that clients see, if there is room for it.
    fn with_listing(&self, item: Item) -> Result<Item, StanzaFault> {
        if !item.listed {
            let octets = self.listed().map(Item::octets).sum::<usize>() + item.octets();
            if self.listed().count() >= ROSTER_ITEMS_MAX || octets > ROSTER_OCTETS_MAX {
                return Err(StanzaFault::ResourceConstraint);
            }
        }
        Ok(Item { listed: true, ..item })
    }

    fn check_requests(&self) -> Result<(), StanzaFault> {
        let pending = self.items.iter().filter(|it| it.state.pending_in()).count();
        if pending < REQUESTS_MAX { Ok(()) } else { Err(StanzaFault::ResourceConstraint) }
    }
}

/// How a *no* looks while the list of those who got a polite one has this much room.
pub fn style_with(privacy: &Privacy, style: Denial) -> Denial {
    if privacy.list(List::Denied).len() < RULES_MAX { style } else { Denial::Explicit }
}

/// The change that the list of the politely denied needs.
fn denial(denied: Denied, contact: &Address) -> Option<Change> {
    match denied {
        Denied::Kept => None,
        Denied::Entered => Some(Change::AddRule(List::Denied, contact.clone())),
        Denied::Left => Some(Change::RemoveRule(List::Denied, contact.clone())),
    }
}

/// A request as it is kept. Of one that is too long only what must be said is.
fn kept(contact: &Address, request: &[u8]) -> Box<[u8]> {
    if !request.is_empty() && request.len() <= REQUEST_OCTETS_MAX {
        return request.into();
    }
    let mut short = b"<presence type='subscribe'".to_vec();
    write::attr("from", contact.full(), &mut short);
    short.extend_from_slice(b"/>");
    short.into()
}

impl Item {
    /// A contact of whom nothing is known.
    pub fn new(contact: Address) -> Self {
        Self {
            contact,
            listed: false,
            state: State::None,
            approved: false,
            name: Box::default(),
            groups: Box::default(),
            request: None,
            asked: Wall::default(),
        }
    }

    /// Octets of it as clients are told of it, at the most: whatever becomes of the subscription.
    fn octets(&self) -> usize {
        let mut text = Vec::new();
        RosterItem { ask: Some("subscribe"), approved: true, ..self.view() }.write(&mut text);
        text.len()
    }

    /// As clients are told of it.
    pub fn view(&self) -> RosterItem<'_> {
        RosterItem {
            jid: self.contact.full(),
            name: &self.name,
            groups: &self.groups,
            subscription: self.state.subscription(),
            ask: self.state.ask(),
            approved: self.approved,
        }
    }
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
