//! The store of a world's nodes, clients with a record in it, and what the control thread orders.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fake::Fake;
use super::world::World;
use crate::address::Address;
use crate::home::dialogs::{DialogChange, DialogRow};
use crate::home::record::{Change, Record};
use crate::route::shard_of;
use crate::shard::Shard;
use crate::shard::conn::{Bound, Conn, Role};
use crate::shard::kernel::*;
use crate::shard::outbox::Outbox;
use crate::shard::peer_tests::world::HEADER;
use crate::xmpp::frame::Limits;

/// What is kept, by node.
#[derive(Default)]
pub(in crate::shard::sip) struct Store {
    pub(in crate::shard::sip) records: BTreeMap<(usize, String), Record>,
    pub(in crate::shard::sip) dialogs: BTreeMap<(usize, String), DialogRow>,
    /// It can't be had.
    pub(in crate::shard::sip) fails: bool,
}

impl Store {
    pub(super) fn answer(&mut self, node: usize, question: Question) -> Answer {
        let fails = self.fails;
        match question {
            Question::Load { ticket, .. } if fails => {
                Answer::Loaded { ticket, record: Err(Unavailable) }
            }
            Question::Load { ticket, user } => {
                let known = user.local() != Some("nobody");
                let record = self.records.get(&(node, user.to_string())).cloned();
                let record = known.then(|| Box::new(record.unwrap_or_default()));
                Answer::Loaded { ticket, record: Ok(record) }
            }
            Question::Commit { ticket, .. } if fails => {
                Answer::Committed { ticket, done: Err(Unavailable) }
            }
            Question::Commit { ticket, user, changes } => {
                let record = self.records.entry((node, user.to_string())).or_default();
                changes.into_iter().for_each(|change| apply(record, change));
                Answer::Committed { ticket, done: Ok(()) }
            }
            Question::Keep { ticket, .. } if fails => {
                Answer::Kept { ticket, done: Err(Unavailable) }
            }
            Question::Keep { ticket, changes } => {
                for change in changes {
                    let key = (node, change.key().to_owned());
                    match change {
                        DialogChange::Put(row) => drop(self.dialogs.insert(key, *row)),
                        DialogChange::Remove(_) => drop(self.dialogs.remove(&key)),
                    }
                }
                Answer::Kept { ticket, done: Ok(()) }
            }
            Question::Dialogs { ticket, .. } if fails => {
                Answer::Dialogs { ticket, rows: Err(Unavailable) }
            }
            Question::Dialogs { ticket, after, count } => {
                let after = after.map_or(String::new(), String::from);
                let rows = self.dialogs.iter().filter(|it| it.0.0 == node && it.0.1 > after);
                let rows = rows.take(count as usize).map(|it| it.1.clone()).collect();
                Answer::Dialogs { ticket, rows: Ok(rows) }
            }
            other => panic!("{other:?} is not for the store"),
        }
    }
}

impl World {
    /// A client that has bound that address.
    pub(in crate::shard::sip) fn client(&mut self, node: usize, address: &str) -> usize {
        let address = Address::parse(address).unwrap();
        let count = self.shards.keys().filter(|it| it.0 == node).count() as u16;
        let place = (node, shard_of(address.slot(), count));
        let known = self.store.records.get(&(node, address.bare().to_owned()));
        let record = known.cloned().unwrap_or_default();
        let (shard, fake) = self.shards.get_mut(&place).unwrap();
        let id = fake.conn();
        let remote = "127.0.0.1:1".parse().unwrap();
        let loads = shard.home.account(address.bare()).is_none();
        shard.home.bind(address.bare(), address.resource().unwrap(), id).unwrap();
        if loads {
            shard.home.loaded(address.bare(), record);
        }
        let bound = Bound { address, lang: None, copied: false, stream: 0, blocks: false };
        let mut conn = Box::new(Conn::new(id, Role::Bound(Box::new(bound)), remote, self.now));
        let header = HEADER.replace("jabber:server'", "jabber:client'") + ">";
        conn.framer.next(header.as_bytes(), &Limits::CLIENT).unwrap();
        conn.streaming = true;
        shard.conns.insert(conn, Outbox::default());
        self.script((place, id))
    }

    /// The node is killed and started again; the store stays as it is.
    pub(in crate::shard::sip) fn restart(&mut self, node: usize) {
        self.links.retain(|(place, _), _| place.0 != node);
        for script in &mut self.scripts {
            if script.at.is_some_and(|(place, _)| place.0 == node) {
                script.at = None;
                script.closed = true;
            }
        }
        self.dice += 1;
        for (place, (shard, fake)) in self.shards.iter_mut().filter(|it| it.0.0 == node) {
            let seed = [100 + self.dice as u8 + place.1 as u8; 32];
            let next_index = fake.next_index;
            *shard = Shard::new(ShardId(place.1), Arc::clone(&shard.settings), seed);
            *fake = Fake { next_index, ..Fake::default() };
        }
    }

    /// An order of the control thread to all shards of a node.
    pub(in crate::shard::sip) fn order(&mut self, node: usize, order: impl Fn() -> Order) {
        for place in self.shards.keys().copied().filter(|it| it.0 == node).collect::<Vec<_>>() {
            self.event(place, Event::Ordered(order()));
        }
        self.run();
    }
}

/// What the store makes of a change.
fn apply(record: &mut Record, change: Change) {
    match change {
        Change::PutItem(item) => {
            record.items.retain(|it| it.contact != item.contact);
            record.items.push(*item);
        }
        Change::RemoveItem(contact) => record.items.retain(|it| it.contact != contact),
        Change::RosterVersion(version) => record.roster_version = version,
        Change::AddRule(list, rule) => record.rules.push((list, rule)),
        Change::RemoveRule(list, rule) => record.rules.retain(|it| *it != (list, rule.clone())),
        Change::Last(last) => record.last = Some(last),
        _ => {}
    }
}
