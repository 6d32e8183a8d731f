//! Subscription stanzas of users and of their contacts.
//!
//! RFC 6121, 3 and appendix A; what a stanza does is `home::subscription`'s table, what must be kept
//! for it `home::roster` says. The change is committed first; then come, in this order, memory, what
//! is delivered to the user's clients, the push, and what goes to the contact. A push goes before
//! the stanza it follows, but for what a contact sent (3.1.6).

use crate::address::{Address, AddressRef};
use crate::envelope::{Kind, Purpose};
use crate::home::record::{Change, Item};
use crate::home::roster::style_with;
use crate::home::subscription::{Act, Notice, Step};
use crate::limits::REQUESTS_OF_DOMAIN_MAX;
use crate::shard::Shard;
use crate::shard::account::{Origin, Outcome};
use crate::shard::deliver::{Carry, Text, reread};
use crate::shard::kernel::{ConnId, Full, Ticket, Unavailable};
use crate::shard::post::carried;
use crate::time::Moment;
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::splice::{self, Edits};

/// A user's own stanza while it waits for its commit.
struct Said {
    ticket: Ticket,
    user: Address,
    /// The client that said it: an error goes there.
    client: Address,
    contact: Address,
    act: Act,
    origin: Option<Origin>,
    since: Moment,
    /// As it goes to the contact.
    text: Vec<u8>,
}

impl Shard {
    /// A client manages a subscription. True: it is parked until that is done, so nothing it says
    /// afterwards comes before it.
    pub(super) fn user_subscribes(&mut self, id: ConnId, carry: &Carry<'_>) -> bool {
        let Some(act) = Act::of(carry.purpose) else { return false };
        let user = carry.from.without_resource().to_address();
        let contact = carry.to.without_resource().to_address();
        if user == contact {
            // Nobody needs a subscription to himself.
            self.outcome(carry.origin, Outcome::ByRule);
            return false;
        }
        let mut text = carry.text.clone();
        if let Text::Original { edits, .. } = &mut text {
            // RFC 6121, 3.1: what is not bare is made so.
            edits.from = Some(user.full());
            edits.to = Some(contact.full());
        }
        let mut written = Vec::new();
        if text.append(&mut written).is_err() {
            self.bounce(carry, StanzaFault::NotAcceptable);
            return false;
        }
        let said = Said {
            ticket: Self::ticket_of(id),
            user: user.clone(),
            client: carry.from.to_address(),
            contact,
            act,
            origin: carry.origin,
            since: carry.since,
            text: written,
        };
        self.on_own_record(id, &user, move |shard| shard.user_acts(said)).unwrap_or_else(|Full| {
            self.bounce(carry, StanzaFault::ResourceConstraint);
            false
        })
    }

    /// True: a commit is under way, and the client is let go behind it.
    fn user_acts(&mut self, said: Said) -> bool {
        let style = self.denial_style(said.user.domain());
        let Some(account) = self.home.account(said.user.bare()) else {
            self.unsaid(&said, StanzaFault::ResourceConstraint);
            return false;
        };
        let style = style_with(&account.privacy, style);
        let relation = account.relation(said.contact.view());
        let step = relation.user_sends(said.act, style);
        let asked = (said.act == Act::Subscribe).then_some(self.now.wall);
        let asked = asked.filter(|_| !relation.state.pending_out());
        match account.roster.after(&said.contact, &step, None, asked) {
            Err(fault) => {
                self.unsaid(&said, fault);
                false
            }
            Ok(changes) if changes.is_empty() => {
                self.user_acted(&said, &step);
                false
            }
            Ok(changes) => {
                let user = said.user.clone();
                let after = move |shard: &mut Self, done: Result<(), Unavailable>| {
                    match done {
                        Ok(()) => shard.user_acted(&said, &step),
                        Err(Unavailable) => shard.unsaid(&said, StanzaFault::ResourceConstraint),
                    }
                    shard.unpark(said.ticket, |_, _| {});
                };
                self.commit(&user, None, changes, Box::new(after));
                true
            }
        }
    }

    /// The change is kept: it is pushed, and the contact hears of it.
    fn user_acted(&mut self, said: &Said, step: &Step) {
        if step.push {
            self.push_item(&said.user, &said.contact);
        }
        let notices: Vec<_> = step.to_contact(true).collect();
        self.said(said, |shard, carry| {
            let (user, contact) = (said.user.view(), said.contact.view());
            if notices.contains(&Notice::Original) {
                shard.notify(user, contact, &notices, Some(carry));
            } else {
                shard.outcome(said.origin, Outcome::Delivered);
                shard.notify(user, contact, &notices, None);
            }
        });
    }

    /// It came to nothing, and its client hears of it.
    fn unsaid(&mut self, said: &Said, fault: StanzaFault) {
        self.said(said, |shard, carry| {
            let from = said.client.view();
            shard.bounce(&Carry { from, ..carry.clone() }, fault);
        });
    }

    fn said(&mut self, said: &Said, work: impl FnOnce(&mut Self, &Carry<'_>)) {
        let carry = Carry {
            origin: said.origin,
            since: said.since,
            kind: Kind::Presence,
            purpose: said.act.purpose(),
            from: said.user.view(),
            to: said.contact.view(),
            text: Text::Written(&said.text),
        };
        work(self, &carry);
    }

    /// A contact's stanza for a user of this shard, whose record is there.
    pub(super) fn contact_subscribes(&mut self, carry: &Carry<'_>) {
        let Some(act) = Act::of(carry.purpose) else { return };
        let contact = carry.from.without_resource().to_address();
        let user = carry.to.without_resource().to_address();
        let mut whole = Vec::new();
        if carry.text.append(&mut whole).is_err() {
            return self.bounce(carry, StanzaFault::NotAcceptable);
        }
        // RFC 6121, 3.1: both addresses are bare.
        let mut bare = Vec::new();
        let edits = Edits { from: Some(contact.full()), to: Some(user.full()), ..Edits::default() };
        let read = reread(&whole);
        let made_bare = read.and_then(|it| splice::forward(&whole, &it, &edits, &mut bare).ok());
        if made_bare.is_none() {
            return self.bounce(carry, StanzaFault::NotAcceptable);
        }
        let carry = &Carry {
            from: carry.from.without_resource(),
            to: carry.to.without_resource(),
            text: Text::Written(&bare),
            ..carry.clone()
        };
        let Some(account) = self.home.account(user.bare()) else { return };
        if user == contact {
            return self.outcome(carry.origin, Outcome::ByRule);
        }
        let before = account.relation(contact.view()).state;
        let step = account.relation(contact.view()).contact_sends(act);
        // What one domain can ask for must leave room for the others.
        let of_domain =
            |it: &&Item| it.state.pending_in() && it.contact.domain() == contact.domain();
        if step.keeps_request(before)
            && self.settings.domain(contact.domain()).is_none()
            && account.roster.items().iter().filter(of_domain).count() >= REQUESTS_OF_DOMAIN_MAX
        {
            self.counters.requests_refused += 1;
            return self.bounce(carry, StanzaFault::ResourceConstraint);
        }
        match account.roster.after(&contact, &step, Some(&bare), None) {
            Err(fault) => {
                self.counters.requests_refused += 1;
                self.bounce(carry, fault);
            }
            Ok(changes) if changes.is_empty() => self.contact_acted(carry, &step, false),
            Ok(changes) => {
                let Ok(record) = carried(carry) else {
                    return self.bounce(carry, StanzaFault::NotAcceptable);
                };
                let after = move |shard: &mut Self, done: Result<(), Unavailable>| {
                    shard.with_carry(&record, |shard, carry| match done {
                        Ok(()) => shard.contact_acted(carry, &step, true),
                        Err(Unavailable) => shard.bounce(carry, StanzaFault::ResourceConstraint),
                    });
                };
                self.commit(&user, Some(carry.from), changes, Box::new(after));
            }
        }
    }

    /// The change, if there was one, is kept: the user's clients hear of it, then the contact does.
    fn contact_acted(&mut self, carry: &Carry<'_>, step: &Step, kept: bool) {
        let (user, contact) = (carry.to.without_resource(), carry.from.without_resource());
        let user_address = user.to_address();
        let mut carry = carry.clone();
        if kept {
            // What was decided outlives us; who is told of it now is another matter.
            self.outcome(carry.origin.take(), Outcome::Stored);
        }
        if step.passed {
            self.pass_to_clients(&carry, kept);
        } else {
            self.outcome(carry.origin, Outcome::ByRule);
        }
        if step.push {
            self.push_item(&user_address, &contact.to_address());
        }
        let notices: Vec<_> = step.to_contact(false).collect();
        self.notify(user, contact, &notices, None);
    }

    /// A request goes to the available resources, the rest to those that have the roster
    /// (RFC 6121, 3.1.3, 3.1.6, 3.2.3, 3.3.3).
    ///
    /// `kept`: it is in the store, so one that finds no room comes again, or its push does.
    fn pass_to_clients(&mut self, carry: &Carry<'_>, kept: bool) {
        let is_request = carry.purpose == Purpose::Subscribe;
        let ids: Vec<_> = self
            .home
            .resources(carry.to.bare())
            .iter()
            .filter(|r| if is_request { r.available.is_some() } else { r.interested })
            .map(|r| r.key)
            .collect();
        if ids.is_empty() {
            return self.outcome(carry.origin, Outcome::ByRule);
        }
        if !kept {
            return self.hand_to_all(&ids, carry);
        }
        for id in ids {
            // A full outbox is counted where it is found.
            let _taken = self.put_into(id, carry).is_ok();
        }
    }

    /// Requests of the user's that have no answer are repeated, and the time noted.
    pub(super) fn ask_again(&mut self, user: AddressRef<'_>, contacts: Vec<Address>) {
        let user = user.to_address();
        let owner = user.clone();
        let work = move |shard: &mut Self| {
            let Some(account) = shard.home.account(user.bare()) else { return };
            let pending = |contact: &Address| {
                let item = account.roster.get(contact.full())?;
                item.state.pending_out().then(|| Item { asked: shard.now.wall, ..item.clone() })
            };
            let items: Vec<Item> = contacts.iter().filter_map(pending).collect();
            let contacts: Vec<Address> = items.iter().map(|it| it.contact.clone()).collect();
            if items.is_empty() {
                return;
            }
            let changes = items.into_iter().map(|it| Change::PutItem(Box::new(it))).collect();
            let from = user.clone();
            let after = move |shard: &mut Self, done: Result<(), Unavailable>| {
                for contact in contacts.iter().filter(|_| done.is_ok()) {
                    shard.say(Act::Subscribe.name(), from.view(), contact.view());
                }
            };
            shard.commit(&user, None, changes, Box::new(after));
        };
        if !self.with_record(&owner, Box::new(work)) {
            // Too much waits: the next login will ask.
            self.counters.requests_refused += 1;
        }
    }
}
