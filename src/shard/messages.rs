//! Messages that wait in the store for their user.
//!
//! XEP-0160. A message is stored under a number that counts up; when a resource comes that takes
//! messages, they are fetched in that order and handed to it, and a row goes when its delivery is
//! known. While some wait, new ones are stored behind them, so that none overtakes.

use crate::address::Address;
use crate::envelope::{Kind, Origin, Purpose};
use crate::home::record::{Change, Fetch, Fetched, Last, Message};
use crate::home::storing::{Storing, storing};
use crate::home::{Delivery, Receivers, Resource};
use crate::limits::{
    MESSAGES_AGAIN_AFTER, MESSAGES_FETCHED_MAX, MESSAGES_OUT_LOW, OFFLINE_MESSAGES_MAX,
    STORED_MESSAGE_OCTETS_MAX, STORED_OUT_MAX,
};
use crate::shard::account::Outcome;
use crate::shard::deliver::{Carry, Text, reread};
use crate::shard::kernel::{ConnId, Unavailable};
use crate::shard::post::carried;
use crate::shard::presence::delay;
use crate::shard::spill::Spill;
use crate::shard::{Shard, Timer};
use crate::stdx::{Key, Slab};
use crate::xmpp::fault::StanzaFault;

/// Stored messages that resources of this shard were handed.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) out: Slab<Row>,
    /// Those that have arrived, told to the store at the end of the turn.
    pub(super) delivered: Vec<Key>,
}

/// One that somebody in memory is to deliver.
#[derive(Debug)]
pub(super) struct Row {
    /// Bare.
    pub(super) user: Address,
    /// In the store.
    pub(super) number: u64,
    /// Whether it is there.
    pub(super) spill: Spill,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self { out: Slab::new(STORED_OUT_MAX), delivered: Vec::new() }
    }
}

impl Shard {
    /// Nobody takes it now: it waits for the user, if there is room.
    pub(super) fn store_message(&mut self, carry: &Carry<'_>) {
        // XEP-0160, 3: as if nothing were ever stored.
        self.store_or(carry, StanzaFault::ServiceUnavailable);
    }

    /// The same with another word for that there is no room.
    fn store_or(&mut self, carry: &Carry<'_>, full: StanzaFault) {
        let user = carry.to.without_resource().to_address();
        let mut octets = Vec::new();
        let written = carry.text.append(&mut octets).is_ok();
        let (true, Ok(record)) = (written, carried(carry)) else {
            return self.bounce(carry, StanzaFault::NotAcceptable);
        };
        let after = move |shard: &mut Self, done: Result<u64, Unavailable>| {
            shard.with_carry(&record, |shard, carry| match done {
                Ok(_) => shard.outcome(carry.origin, Outcome::Stored),
                Err(Unavailable) => shard.bounce(carry, StanzaFault::ResourceConstraint),
            });
        };
        if !self.keep_message(&user, octets.into(), after) {
            self.bounce(carry, full);
        }
    }

    /// Stores a message of a user whose record is here, under the number that `after` is told. False:
    /// too many wait, and nothing is done.
    #[must_use]
    pub(super) fn keep_message(
        &mut self,
        user: &Address,
        octets: Box<[u8]>,
        after: impl FnOnce(&mut Self, Result<u64, Unavailable>) + 'static,
    ) -> bool {
        let Some(account) = self.home.account_mut(user.bare()) else { return false };
        let mailbox = &mut account.mailbox;
        let full = mailbox.messages + mailbox.storing >= OFFLINE_MESSAGES_MAX;
        if full || octets.len() > STORED_MESSAGE_OCTETS_MAX {
            self.counters.offline_full += 1;
            return false;
        }
        let number = mailbox.next;
        mailbox.next += 1;
        mailbox.storing += 1;
        self.counters.messages_stored += 1;
        let message = Message { number, at: self.now.wall, octets };
        let owner = user.clone();
        let after = move |shard: &mut Self, done: Result<(), Unavailable>| {
            if let Some(account) = shard.home.account_mut(owner.bare()) {
                account.mailbox.storing = account.mailbox.storing.saturating_sub(1);
            }
            after(shard, done.map(|()| number));
            // Somebody may have come meanwhile.
            shard.wants_messages(&owner);
            shard.rests(owner.bare());
        };
        self.commit_aside(user, vec![Change::StoreMessage(message)], Box::new(after));
        true
    }

    /// A resource takes messages, or more were stored, or room was made: the next are fetched.
    pub(super) fn wants_messages(&mut self, user: &Address) {
        let ready = self.home.resources(user.bare()).iter().any(takes_messages);
        let Some(account) = self.home.account_mut(user.bare()) else { return };
        let mailbox = &mut account.mailbox;
        let out = u32::try_from(mailbox.out.len()).unwrap_or(u32::MAX);
        if !ready || mailbox.fetching || mailbox.messages <= out || out > MESSAGES_OUT_LOW {
            return;
        }
        mailbox.fetching = true;
        let owner = user.clone();
        let found = move |shard: &mut Self, found: Result<Fetched, Unavailable>| {
            if let Some(account) = shard.home.account_mut(owner.bare()) {
                account.mailbox.fetching = false;
            }
            match found {
                Ok(Fetched::Messages(messages)) => shard.hand_out(&owner, messages),
                _ => {
                    shard.try_again();
                    shard.hungry.push(owner.clone());
                }
            }
            shard.rests(owner.bare());
        };
        let what = Fetch::Messages { after: 0, count: out + MESSAGES_FETCHED_MAX };
        self.fetch(user, what, Box::new(found));
    }

    /// In their order, as far as the resource takes them; the rest stays.
    fn hand_out(&mut self, user: &Address, messages: Vec<Message>) {
        for message in messages {
            let Some(account) = self.home.account_mut(user.bare()) else { return };
            if account.mailbox.out.contains(&message.number) {
                continue;
            }
            let row = Row { user: user.clone(), number: message.number, spill: Spill::Stored };
            let Ok(row) = self.rows.out.insert(row) else { return };
            account.mailbox.out.push(message.number);
            let text = with_delay(&message, user.domain());
            let origin = Some(Origin::stored(row));
            let since = self.now.moment;
            let mut taken = true;
            self.with_written(origin, since, &text, |shard, carry| {
                let purpose = match carry.purpose {
                    // What was for one resource is now for any (RFC 6121, 8.5.3.2.1).
                    Purpose::Chat => Purpose::Chat,
                    _ => Purpose::Normal,
                };
                if shard.blocked_stored(carry) {
                    return;
                }
                match shard.whom(carry, purpose) {
                    Delivery::To(Receivers::One(id)) => shard.hand_to(id, carry),
                    Delivery::To(Receivers::Several(ids)) => shard.hand_to_all(&ids, carry),
                    _ => shard.row_returned(row),
                }
                taken = shard.rows.out.contains(row);
            });
            if !taken {
                return;
            }
        }
    }

    /// Who gets a message that was stored: as if it came now for the bare address.
    fn whom(&self, carry: &Carry<'_>, purpose: Purpose) -> Delivery<ConnId> {
        self.home.deliver(carry.to.without_resource(), Kind::Message, purpose, true, || false)
    }

    /// Nobody takes it now (RFC 6121, 8.5.2.2.1): stored if it is worth it.
    pub(super) fn message_for_later(&mut self, carry: &Carry<'_>) {
        match self.worth(carry) {
            Storing::Stored => self.store_message(carry),
            Storing::Refused => self.bounce(carry, StanzaFault::ServiceUnavailable),
            Storing::Dropped => self.outcome(carry.origin, Outcome::ByRule),
        }
    }

    fn worth(&self, carry: &Carry<'_>) -> Storing {
        match &carry.text {
            Text::Original { stanza, .. } => storing(carry.kind, carry.purpose, stanza),
            Text::Written(text) => match reread(text) {
                Some(stanza) => storing(carry.kind, carry.purpose, &stanza),
                None => Storing::Refused,
            },
        }
    }

    /// A message for somebody who has carbons, or stored messages on the way to him.
    pub(super) fn message_for(&mut self, receivers: Receivers<ConnId>, carry: &Carry<'_>) {
        let ids = match &receivers {
            Receivers::One(id) => std::slice::from_ref(id),
            Receivers::Several(ids) => ids,
        };
        let waits = |it: &crate::home::Account| it.mailbox.is_open();
        let takes = self.home.resources(carry.to.bare()).iter().any(takes_messages);
        // One that names a resource goes there and nowhere else (RFC 6121, 8.5.3.1).
        if takes
            && self.home.find(carry.to).is_none()
            && self.home.account(carry.to.bare()).is_some_and(waits)
            && self.worth(carry) == Storing::Stored
            && carry.purpose != Purpose::Error
        {
            // Behind those that wait, or it would overtake them.
            return self.store_or(carry, StanzaFault::ResourceConstraint);
        }
        self.copy_received(ids, carry);
        self.hand_to_all(ids, carry);
    }

    /// A stored message was handed to nobody, or to one who went: it waits on.
    pub(super) fn row_returned(&mut self, row: Key) {
        if let Some(Row { spill: Spill::Asked(_, _, alone), .. }) = self.rows.out.get_mut(row) {
            // The store's answer settles it.
            *alone = true;
            return;
        }
        let Some(Row { user, number, .. }) = self.rows.out.remove(row) else { return };
        if let Some(account) = self.home.account_mut(user.bare()) {
            account.mailbox.out.retain(|it| *it != number);
        }
        self.try_again();
        self.hungry.push(user);
    }

    /// Messages that came back are offered anew.
    pub(super) fn offer_again(&mut self) {
        for user in std::mem::take(&mut self.hungry) {
            self.wants_messages(&user);
            self.rests(user.bare());
        }
        for (user, numbers) in std::mem::take(&mut self.unremoved) {
            self.remove_messages(user, numbers);
        }
    }

    /// At the end of a turn: rows of messages that have arrived go.
    pub(super) fn settle_rows(&mut self) {
        if self.rows.delivered.is_empty() {
            return;
        }
        let mut gone: Vec<(Address, Vec<u64>)> = Vec::new();
        for row in std::mem::take(&mut self.rows.delivered) {
            let Some(Row { user, number, spill }) = self.rows.out.remove(row) else { continue };
            if let Spill::Asked(origin, ..) | Spill::Refused(origin) = spill {
                self.outcome(Some(origin), Outcome::Delivered);
                continue;
            }
            match gone.iter_mut().find(|it| it.0 == user) {
                Some((_, numbers)) => numbers.push(number),
                None => gone.push((user, vec![number])),
            }
        }
        for (user, numbers) in gone {
            self.remove_messages(user, numbers);
        }
    }

    /// They have arrived: their rows go. If the store can't do it now it is asked again, and nobody
    /// gets them a second time meanwhile.
    fn remove_messages(&mut self, user: Address, numbers: Vec<u64>) {
        let (owner, out) = (user.clone(), numbers.clone());
        let after = move |shard: &mut Self, done: Result<(), Unavailable>| {
            if done.is_err() {
                shard.try_again();
                return shard.unremoved.push((owner, out));
            }
            if let Some(account) = shard.home.account_mut(owner.bare()) {
                account.mailbox.out.retain(|it| !out.contains(it));
            }
            shard.wants_messages(&owner);
            shard.rests(owner.bare());
        };
        self.commit_aside(&user, vec![Change::RemoveMessages(numbers)], Box::new(after));
    }

    /// What the store or a resource did not take is offered again soon.
    fn try_again(&mut self) {
        if self.hungry.is_empty() && self.unremoved.is_empty() {
            self.timers.set(self.now.moment + MESSAGES_AGAIN_AFTER, Timer::Messages);
        }
    }

    /// The last resource of a user went: when, and what it said (XEP-0012).
    pub(super) fn note_last(&mut self, user: &Address, status: &str) {
        let here = self.home.resources(user.bare()).iter().any(|r| r.available.is_some());
        let Some(account) = self.home.account(user.bare()) else { return };
        // Nobody may ask when nobody sees him.
        if here || account.roster.items().is_empty() {
            return;
        }
        let status = status.chars().take(256).collect::<String>().into();
        let last = Change::Last(Last { at: self.now.wall, status });
        // Lost with the store, it is missed by nobody.
        self.commit_aside(user, vec![last], Box::new(|_, _| {}));
    }
}

/// Messages for the bare address may go there (RFC 6121, 8.5.2.1.1).
fn takes_messages(resource: &Resource<ConnId>) -> bool {
    resource.available.as_ref().is_some_and(|it| it.priority >= 0)
}

/// The stanza with the time when it came (XEP-0203), in the name of the user's domain.
fn with_delay(message: &Message, domain: &str) -> Vec<u8> {
    let octets = &message.octets;
    let mut text = Vec::with_capacity(octets.len() + 96);
    let end = reread(octets).map(|it| it.inner_end as usize).filter(|end| *end < octets.len());
    let Some((inner, tag)) = end.and_then(|end| octets.split_at_checked(end)) else {
        return octets.to_vec();
    };
    text.extend_from_slice(inner);
    delay(domain, message.at, &mut text);
    text.extend_from_slice(tag);
    text
}
