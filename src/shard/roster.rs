//! The roster as a client asks for it, changes it, and hears of changes.
//!
//! RFC 6121, 2. What may change is `home::roster`'s; here it is committed, pushed to the interested
//! resources, answered, and told to the contact, in this order.

use crate::address::Address;
use crate::envelope::{Kind, Purpose};
use crate::home::roster::Edit;
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::{Carry, Text};
use crate::shard::kernel::{ConnId, Full, Unavailable};
use crate::shard::post::carried;
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::payload::roster::{self, RosterItem, RosterSet};
use crate::xmpp::splice;

impl Shard {
    /// A roster get or set of a client for its own account. True: it is parked until that is done.
    pub(super) fn roster_asked(&mut self, id: ConnId, carry: &Carry<'_>) -> bool {
        if carry.purpose == Purpose::Get {
            self.roster_wanted(id, carry);
            return false;
        }
        let Text::Original { frame, stanza, .. } = &carry.text else { return false };
        let parked = match roster::read_set(frame, stanza) {
            Ok(set) => self.roster_set(id, carry, set),
            Err(misread) => Err(misread.into()),
        };
        parked.unwrap_or_else(|fault| {
            self.counters.roster_refused += 1;
            self.bounce(carry, fault);
            false
        })
    }

    /// RFC 6121, 2.2: the client is interested from now on.
    fn roster_wanted(&mut self, id: ConnId, carry: &Carry<'_>) {
        let Text::Original { frame, stanza, .. } = &carry.text else { return };
        let ver = match roster::read_get(frame, stanza) {
            Ok(ver) => ver,
            Err(misread) => return self.bounce(carry, misread.into()),
        };
        if let Some(resource) = self.home.resource_mut(carry.from.bare(), id) {
            resource.interested = true;
        }
        let Some(account) = self.home.account(carry.from.bare()) else { return };
        let mut payload = Vec::new();
        // RFC 6121, 2.6.3: who has the present version hears that nothing has changed.
        if ver.as_deref().is_none_or(|ver| !account.roster.is_current(ver)) {
            let items = account.roster.listed().map(|it| it.view());
            roster::write_query(account.roster.version, items, &mut payload);
        }
        self.own_result(carry, &payload);
    }

    /// RFC 6121, 2.3 to 2.5.
    fn roster_set(
        &mut self,
        id: ConnId,
        carry: &Carry<'_>,
        set: RosterSet,
    ) -> Result<bool, StanzaFault> {
        let question = carried(carry).map_err(|_| StanzaFault::NotAcceptable)?;
        let user = carry.from.without_resource().to_address();
        let (owner, ticket) = (user.clone(), Self::ticket_of(id));
        let work = move |shard: &mut Self| {
            let style = shard.denial_style(user.domain());
            let edit = match shard.home.account(user.bare()) {
                None => Err(StanzaFault::ResourceConstraint),
                Some(it) => it.roster.edit(user.bare(), set, &it.privacy, style),
            };
            let Edit { changes, contact, removal } = match edit {
                Ok(edit) => edit,
                Err(fault) => {
                    shard.counters.roster_refused += 1;
                    shard.with_carry(&question, |shard, carry| shard.bounce(carry, fault));
                    return false;
                }
            };
            let from = user.clone();
            let after = move |shard: &mut Self, done: Result<(), Unavailable>| {
                shard.with_carry(&question, |shard, carry| match done {
                    Err(Unavailable) => shard.bounce(carry, StanzaFault::ResourceConstraint),
                    Ok(()) => {
                        shard.push_item(&from, &contact);
                        shard.own_result(carry, &[]);
                    }
                });
                if let (Ok(()), Some(removal)) = (done, removal) {
                    if removal.unsubscribe {
                        shard.say("unsubscribe", from.view(), contact.view());
                    }
                    let notices: Vec<_> = removal.step.to_contact(false).collect();
                    shard.notify(from.view(), contact.view(), &notices, None);
                }
                shard.unpark(ticket, |_, _| {});
            };
            shard.commit(&user, None, changes, Box::new(after));
            true
        };
        self.on_own_record(id, &owner, work).map_err(|Full| StanzaFault::ResourceConstraint)
    }

    /// Tells the interested resources how a contact stands now (RFC 6121, 2.1.6).
    pub(super) fn push_item(&mut self, user: &Address, contact: &Address) {
        let Some(account) = self.home.account(user.bare()) else { return };
        let version = account.roster.version;
        let gone = RosterItem {
            jid: contact.full(),
            name: "",
            groups: &[],
            subscription: "remove",
            ask: None,
            approved: false,
        };
        let listed = account.roster.get(contact.full()).filter(|it| it.listed);
        let item = listed.map_or(gone, |it| it.view());
        let id = format!("push{version}");
        let mut pushes = Vec::new();
        for resource in self.home.resources(user.bare()).iter().filter(|r| r.interested) {
            let mut text = Vec::new();
            let to = format!("{}/{}", user.bare(), resource.name);
            roster::write_push(&to, &id, version, item, &mut text);
            pushes.push((resource.key, text));
        }
        for (key, text) in pushes {
            if !self.tell(key, &text) {
                // It hears of no more until it asks again: so the version it has stays the older
                // one, and the next answer brings all.
                self.counters.pushes_missed += 1;
                if let Some(resource) = self.home.resource_mut(user.bare(), key) {
                    resource.interested = false;
                }
            }
        }
    }

    /// The result of a client's question to its own account.
    pub(super) fn own_result(&mut self, carry: &Carry<'_>, payload: &[u8]) {
        let mut text = Vec::new();
        let (from, to) = (Some(carry.to.full()), Some(carry.from.full()));
        match &carry.text {
            Text::Original { frame, stanza, .. } => {
                splice::result_reply(frame, stanza, from, to, payload, &mut text);
            }
            Text::Written(written) => {
                let Some(stanza) = crate::shard::deliver::reread(written) else { return };
                splice::result_reply(written, &stanza, from, to, payload, &mut text);
            }
        }
        self.outcome(carry.origin, Outcome::Delivered);
        self.answer(carry.to, carry.from, Kind::Iq, Purpose::Result, &text);
    }
}
