//! Whom a user has blocked: nothing of them arrives, nothing goes to them.
//!
//! XEP-0191. The user himself and his server can't be blocked: a domain's rule leaves both alone.
//! Users without rules, nearly all, pay one test inbound (`home::Habits`) and one outbound
//! (`Bound::blocks`). The changes are made in `rules.rs`; reports of spam (XEP-0377) are **not**
//! taken.

use crate::address::{Address, AddressRef};
use crate::envelope::{Kind, Purpose};
use crate::home::privacy::covers;
use crate::home::record::List;
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::conn::Role;
use crate::shard::deliver::{Carry, Text, reread};
use crate::shard::kernel::ConnId;
use crate::shard::rules::RuleEdit;
use crate::shard::services::{Answered, Asked, Reply};
use crate::xmpp::fault::{FaultType, StanzaFault};
use crate::xmpp::payload::blocking::{self, Blocking};
use crate::xmpp::splice::{self, Edits};
use crate::xmpp::write;

impl Shard {
    /// The client asks for its block list, or changes it.
    pub(super) fn block_list(&mut self, asked: &Asked<'_>) -> Answered {
        let wanted = blocking::read(asked.frame, asked.stanza, asked.is_set)?;
        let user = asked.carry.from.without_resource().to_address();
        if wanted == Blocking::List {
            // XEP-0191, 3.2: from now on it is told of changes.
            let key = self.home.find(asked.carry.from).map(|resource| resource.key);
            if let Some(resource) = key.and_then(|it| self.home.resource_mut(user.bare(), it)) {
                resource.wants_blocks = true;
            }
            let mut out = Vec::new();
            let account = self.home.account(user.bare());
            let list = account.map_or(&[][..], |it| it.privacy.list(List::Blocked));
            blocking::write_list(list.iter().map(Address::full), &mut out);
            return Ok(Reply::Now(out));
        }
        let later = self.later(asked.carry)?;
        let after = move |shard: &mut Self, done: Result<(), _>| {
            let answer = done.map(|()| Vec::new()).map_err(StanzaFault::from);
            shard.answer_later(later, answer);
        };
        self.edit_rules(&user, RuleEdit::Blocking(wanted), Box::new(after));
        Ok(Reply::Later)
    }

    /// A stanza for a user of this shard whose sender he blocks: it ends here, and so does the
    /// account. Asked before anything else is done with it.
    pub(super) fn blocked_inbound(&mut self, carry: &Carry<'_>) -> bool {
        let Some(account) = self.home.account(carry.to.bare()) else { return false };
        if !account.privacy.is_blocked(carry.from) || self.is_beyond(carry.to, carry.from) {
            return false;
        }
        self.counters.blocked_in += 1;
        match carry.kind {
            // XEP-0191, 3.3: no answer is ever made to presence.
            Kind::Presence => self.outcome(carry.origin, Outcome::ByRule),
            Kind::Message | Kind::Iq => self.bounce(carry, StanzaFault::ServiceUnavailable),
        }
        true
    }

    /// A message that was stored before its sender was blocked: it is taken away unread.
    pub(super) fn blocked_stored(&mut self, carry: &Carry<'_>) -> bool {
        let Some(account) = self.home.account(carry.to.bare()) else { return false };
        let blocked =
            account.privacy.is_blocked(carry.from) && !self.is_beyond(carry.to, carry.from);
        if blocked {
            self.counters.blocked_in += 1;
            self.outcome(carry.origin, Outcome::ByRule);
        }
        blocked
    }

    /// A stanza of a client with rules to somebody whom its user blocks: it comes back (XEP-0191,
    /// 3.3). Only for clients whose `Bound::blocks` says so.
    pub(super) fn blocked_outbound(&mut self, id: ConnId, carry: &Carry<'_>) -> bool {
        let Some(account) = self.home.account(carry.from.bare()) else { return false };
        if !account.privacy.is_blocked(carry.to) || self.is_beyond(carry.from, carry.to) {
            return false;
        }
        self.counters.blocked_out += 1;
        if !carry.purpose.answerable() {
            self.outcome(carry.origin, Outcome::ByRule);
            return true;
        }
        self.outcome(carry.origin, Outcome::Bounced);
        self.counters.stanza_faults[StanzaFault::NotAcceptable.index()] += 1;
        let Text::Original { frame, stanza, .. } = &carry.text else { return true };
        let mut text = Vec::new();
        let (from, to) = (Some(carry.to.full()), Some(carry.from.full()));
        splice::error_reply_with(frame, stanza, from, to, &mut text, |out| {
            let (fault, kind) = (StanzaFault::NotAcceptable, FaultType::Cancel);
            write::stanza_error_with(fault, kind, blocking::BLOCKED_RAW, out);
        });
        // Not by `answer`: it seems to come from whom he blocks.
        let answer = Carry {
            origin: None,
            purpose: Purpose::Error,
            from: carry.to,
            to: carry.from,
            text: Text::Written(&text),
            ..carry.clone()
        };
        if self.put_into(id, &answer).is_err() {
            self.counters.outbox_full += 1;
        }
        true
    }

    /// No rule speaks of the user himself or of our server.
    fn is_beyond(&self, user: AddressRef<'_>, who: AddressRef<'_>) -> bool {
        who.bare() == user.bare()
            || (who.local().is_none() && self.settings.domain(who.domain()).is_some())
    }

    /// The user blocks somebody: what `Bound::blocks` says of a client of his.
    pub(super) fn has_blocks(&self, bare: &str) -> bool {
        self.home.account(bare).is_some_and(|it| !it.privacy.list(List::Blocked).is_empty())
    }

    /// The list has changed: the user's clients feel it, and those that asked are told (XEP-0191,
    /// 3.3 and 3.4).
    pub(super) fn blocks_changed(
        &mut self,
        user: &Address,
        blocked: &[Address],
        unblocked: &[Address],
    ) {
        if blocked.is_empty() && unblocked.is_empty() {
            return;
        }
        let blocks = self.has_blocks(user.bare());
        let clients: Vec<(ConnId, bool, String)> = self
            .home
            .resources(user.bare())
            .iter()
            .map(|it| (it.key, it.wants_blocks, format!("{}/{}", user.bare(), it.name)))
            .collect();
        for (id, wants, full) in clients {
            if let Some(mut conn) = self.conns.take(id) {
                if let Role::Bound(bound) = &mut conn.role {
                    bound.blocks = blocks;
                }
                self.conns.put_back(conn);
            }
            if !wants {
                continue;
            }
            if !blocked.is_empty() {
                self.push_blocks(id, &full, |push_id, out| {
                    let jids = blocked.iter().map(Address::full);
                    blocking::write_block_push(&full, push_id, jids, out);
                });
            }
            if !unblocked.is_empty() {
                // XEP-0191, 3.5: nothing named is all.
                let all = !blocks;
                self.push_blocks(id, &full, |push_id, out| {
                    let jids = unblocked.iter().filter(|_| !all).map(Address::full);
                    blocking::write_unblock_push(&full, push_id, jids, out);
                });
            }
        }
    }

    fn push_blocks(&mut self, id: ConnId, full: &str, say: impl FnOnce(&str, &mut Vec<u8>)) {
        let push_id = format!("{:016x}", self.random.number());
        let mut text = Vec::new();
        say(&push_id, &mut text);
        let mut scratch = String::new();
        let Ok(to) = AddressRef::parse(full, &mut scratch) else { return };
        let carry = Carry {
            origin: None,
            since: self.now.moment,
            kind: Kind::Iq,
            purpose: Purpose::Set,
            from: to.without_resource(),
            to,
            text: Text::Written(&text),
        };
        if self.put_into(id, &carry).is_err() {
            self.counters.outbox_full += 1;
        }
    }

    /// XEP-0191, 3.3 and 3.4: who sees the user's presence sees him go when he blocks them, and
    /// come when he blocks them no longer.
    pub(super) fn show_blocks(
        &mut self,
        user: &Address,
        blocked: &[Address],
        unblocked: &[Address],
    ) {
        if blocked.is_empty() && unblocked.is_empty() {
            return;
        }
        let gone_for = self.watchers_under(user, blocked);
        let mut back_for = self.watchers_under(user, unblocked);
        if let Some(account) = self.home.account(user.bare()) {
            back_for.retain(|it| !account.privacy.hides_from(it.view()));
        }
        let shown: Vec<(Address, Box<[u8]>, Vec<Address>)> = self
            .home
            .resources(user.bare())
            .iter()
            .filter_map(|resource| {
                let stanza = resource.available.as_ref()?.stanza.clone();
                let directed = resource.directed.iter();
                let directed = directed.filter(|to| blocked.iter().any(|it| covers(it, to.view())));
                let directed = directed.cloned().collect();
                Some((user.with_resource(&resource.name).ok()?, stanza, directed))
            })
            .collect();
        for (from, stanza, directed) in shown {
            for to in gone_for.iter().chain(directed.iter().filter(|it| !gone_for.contains(it))) {
                let mut text = b"<presence type='unavailable'".to_vec();
                write::attr("from", from.full(), &mut text);
                write::attr("to", to.full(), &mut text);
                text.extend_from_slice(b"/>");
                let (kind, purpose) = (Kind::Presence, Purpose::Unavailable);
                self.answer(from.view(), to.view(), kind, purpose, &text);
            }
            for to in &back_for {
                let mut text = Vec::new();
                let Some(read) = reread(&stanza) else { continue };
                let edits = Edits { to: Some(to.full()), ..Edits::default() };
                if splice::forward(&stanza, &read, &edits, &mut text).is_ok() {
                    let (kind, purpose) = (Kind::Presence, Purpose::Available);
                    self.answer(from.view(), to.view(), kind, purpose, &text);
                }
            }
            self.forget_directed(&from, &directed);
        }
    }

    /// Who of those that see the user's presence is meant by one of the rules.
    fn watchers_under(&self, user: &Address, rules: &[Address]) -> Vec<Address> {
        let Some(account) = self.home.account(user.bare()) else { return Vec::new() };
        let sees = |bare: &str| account.roster.get(bare).is_some_and(|it| it.state.has_from());
        let mut found: Vec<Address> = Vec::new();
        for rule in rules {
            if rule.local().is_some() {
                // A person, or one device.
                if sees(rule.bare()) {
                    found.push(rule.to_bare());
                }
                continue;
            }
            let items = account.roster.items().iter().filter(|it| it.state.has_from());
            found.extend(
                items.filter(|it| covers(rule, it.contact.view())).map(|it| it.contact.clone()),
            );
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Their end was told now.
    fn forget_directed(&mut self, from: &Address, directed: &[Address]) {
        let Some(key) = self.home.find(from.view()).map(|it| it.key) else { return };
        if let Some(resource) = self.home.resource_mut(from.bare(), key) {
            resource.directed.retain(|it| !directed.contains(it));
        }
    }
}
