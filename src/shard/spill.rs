//! Messages that wait for a slow or absent receiver are kept in the store meanwhile.
//!
//! What a receiver has not acknowledged after a second is stored, and so is at once what comes for a
//! session without a connection: no sender waits for it any longer. It stays where it is in memory and
//! is delivered from there, as a row that was handed out (`messages.rs`): the row goes when it is
//! delivered, and if its connection or session ends it is a message that waits for its user.

use crate::address::Address;
use crate::envelope::{Kind, Origin, Purpose};
use crate::home::record::Change;
use crate::home::storing::{Storing, storing};
use crate::limits::{IN_FLIGHT_TIME_MAX, SPILL_AFTER, TRY_TIME_MAX};
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::reread;
use crate::shard::kernel::{ConnId, Unavailable};
use crate::shard::messages::Row;
use crate::stdx::Key;
use crate::time::Moment;
use crate::xmpp::fault::StanzaFault;

/// A row whose message was in memory before it was in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spill {
    /// It is in the store.
    Stored,
    /// The store is asked; the sender's account is open. True: nobody in memory has it any more.
    Asked(Origin, Moment, bool),
    /// The store can't have it; the sender's account is open.
    Refused(Origin),
}

impl Shard {
    /// Stores a message that waits for `user`, who is its receiver: its account is closed as soon as
    /// the store has it, and its origin is from now on what comes back. `None`: it is not worth
    /// storing, or finds no room, and stays as it was.
    pub(super) fn spill(
        &mut self,
        user: &Address,
        origin: Origin,
        since: Moment,
        text: &[u8],
    ) -> Option<Origin> {
        if origin.kind != Kind::Message || origin.row().is_some() || !may_wait(text) {
            return None;
        }
        let user = user.to_bare();
        let row = Row { user: user.clone(), number: 0, spill: Spill::Asked(origin, since, false) };
        let row = self.rows.out.insert(row).ok()?;
        let (owner, octets) = (user.clone(), Box::<[u8]>::from(text));
        let after = move |shard: &mut Self, done: Result<u64, Unavailable>| {
            shard.spilled(row, &owner, done, &octets);
        };
        if !self.keep_message(&user, text.into(), after) {
            self.rows.out.remove(row);
            return None;
        }
        self.counters.spilled += 1;
        if let Some(account) = self.home.account_mut(user.bare()) {
            account.mailbox.spilling += 1;
        }
        Some(Origin::stored(row))
    }

    /// The store has it under that number, or can't have it.
    fn spilled(&mut self, row: Key, user: &Address, done: Result<u64, Unavailable>, text: &[u8]) {
        if let Some(account) = self.home.account_mut(user.bare()) {
            account.mailbox.spilling = account.mailbox.spilling.saturating_sub(1);
        }
        let Some(it) = self.rows.out.get_mut(row) else {
            // It was delivered meanwhile, or returned.
            if let Ok(number) = done {
                self.remove_row(user, number);
            }
            return;
        };
        let Spill::Asked(origin, since, alone) = it.spill else { return };
        match done {
            Ok(number) => {
                (it.number, it.spill) = (number, Spill::Stored);
                self.outcome(Some(origin), Outcome::Stored);
                if alone {
                    self.rows.out.remove(row);
                } else if let Some(account) = self.home.account_mut(user.bare()) {
                    account.mailbox.out.push(number);
                }
            }
            Err(Unavailable) if alone => {
                self.rows.out.remove(row);
                self.with_written(Some(origin), since, text, |shard, carry| {
                    shard.bounce(carry, StanzaFault::RecipientUnavailable);
                });
            }
            Err(Unavailable) => it.spill = Spill::Refused(origin),
        }
    }

    fn remove_row(&mut self, user: &Address, number: u64) {
        if let Some(account) = self.home.account_mut(user.bare()) {
            account.mailbox.out.push(number);
        }
        let owner = user.clone();
        let after = move |shard: &mut Self, _: Result<(), Unavailable>| {
            if let Some(account) = shard.home.account_mut(owner.bare()) {
                account.mailbox.out.retain(|it| *it != number);
            }
            shard.rests(owner.bare());
        };
        let gone = vec![Change::RemoveMessages(vec![number])];
        self.commit_aside(user, gone, Box::new(after));
    }

    /// Messages in this outbox that nobody has acknowledged for too long are stored.
    pub(super) fn spill_late(&mut self, id: ConnId, user: &Address) {
        let now = self.now.moment;
        let Some(late) = self.conns.outbox(id).map(|outbox| outbox.late(now, SPILL_AFTER)) else {
            return;
        };
        for (place, origin, since, text) in late {
            let spilled = self.spill(user, origin, since, &text);
            if let Some(outbox) = self.conns.outbox(id) {
                outbox.spilled(place, spilled);
            }
        }
    }

    /// A row that comes back is not in the store, or not in time: its sender's account, which is
    /// open. The row is gone then.
    pub(super) fn take_account(&mut self, row: Key) -> Option<Origin> {
        let origin = match self.rows.out.get(row)?.spill {
            Spill::Stored => return None,
            Spill::Refused(origin) => origin,
            Spill::Asked(origin, since, _) => {
                let late = self.now.moment.since(since) + TRY_TIME_MAX > IN_FLIGHT_TIME_MAX;
                Some(origin).filter(|_| late)?
            }
        };
        self.rows.out.remove(row);
        Some(origin)
    }
}

/// What may wait in the store for its user.
fn may_wait(text: &[u8]) -> bool {
    reread(text).is_some_and(|stanza| {
        let purpose = Purpose::read(Kind::Message, stanza.type_.map(|it| it.raw(text)));
        purpose.is_some_and(|it| storing(Kind::Message, it, &stanza) == Storing::Stored)
    })
}
