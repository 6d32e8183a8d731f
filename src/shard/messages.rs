//! Messages that wait in the store for their user.
//!
//! XEP-0160. A message is stored under a number that counts up; when a resource comes that takes
//! messages, they are fetched in that order and handed to it, and a row goes when its delivery is
//! known. While some wait, new ones are stored behind them, so that none overtakes.

use crate::address::Address;
use crate::home::record::{Change, Last, Message};
use crate::limits::OFFLINE_MESSAGES_MAX;
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::Carry;
use crate::shard::kernel::Unavailable;
use crate::shard::post::carried;
use crate::xmpp::fault::StanzaFault;

impl Shard {
    /// Nobody takes it now: it waits for the user, if there is room.
    pub(super) fn store_message(&mut self, carry: &Carry<'_>) {
        let user = carry.to.without_resource().to_address();
        let mut octets = Vec::new();
        let written = carry.text.append(&mut octets).is_ok();
        let (true, Ok(record)) = (written, carried(carry)) else {
            return self.bounce(carry, StanzaFault::NotAcceptable);
        };
        let Some(account) = self.home.account_mut(user.bare()) else { return };
        if account.messages + account.storing >= OFFLINE_MESSAGES_MAX {
            self.counters.offline_full += 1;
            // XEP-0160, 3: as if nothing were ever stored.
            return self.bounce(carry, StanzaFault::ServiceUnavailable);
        }
        let number = account.next_message;
        account.next_message += 1;
        account.storing += 1;
        let message = Message { number, at: self.now.wall, octets: octets.into() };
        let owner = user.clone();
        let after = move |shard: &mut Self, done: Result<(), Unavailable>| {
            if let Some(account) = shard.home.account_mut(owner.bare()) {
                account.storing -= 1;
            }
            shard.with_carry(&record, |shard, carry| match done {
                Ok(()) => shard.outcome(carry.origin, Outcome::Stored),
                Err(Unavailable) => shard.bounce(carry, StanzaFault::ResourceConstraint),
            });
            // Somebody may have come meanwhile.
            shard.wants_messages(&owner);
        };
        self.commit_aside(&user, vec![Change::StoreMessage(message)], Box::new(after));
    }

    /// A resource takes messages, or more were stored.
    pub(super) fn wants_messages(&mut self, user: &Address) {
        let _ = user;
    }

    /// The last resource of a user went: when, and what it said (XEP-0012).
    pub(super) fn note_last(&mut self, user: &Address, status: &str) {
        let here = self.home.resources(user.bare()).iter().any(|r| r.available.is_some());
        if here || self.home.account(user.bare()).is_none() {
            return;
        }
        let status = status.chars().take(256).collect::<String>().into();
        let last = Change::Last(Last { at: self.now.wall, status });
        // Lost with the store, it is missed by nobody.
        self.commit_aside(user, vec![last], Box::new(|_, _| {}));
    }
}
