//! Presence of local users: said, asked for, and told to those who may see it.
//!
//! RFC 6121, 4. What a client says without `to` goes to the user's own resources and to everybody
//! whose subscription lets him see it; how it reaches many is in `fanout.rs`. A probe is answered
//! from memory; a login's own probes for local users who have no resource are not sent at all, for
//! the client takes a contact of whom it hears nothing to be offline.

use crate::address::{Address, AddressRef};
use crate::envelope::{Kind, Purpose};
use crate::home::subscription::{Act, Denial, Notice};
use crate::home::{Available, Readiness, Resource};
use crate::limits::PRESENCE_BYTES_MAX;
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::{Carry, Text};
use crate::shard::kernel::ConnId;
use crate::shard::session;
use crate::time::Wall;
use crate::xmpp::fault::{StanzaFault, StreamFault};
use crate::xmpp::stanza::{ChildKind, Stanza};
use crate::xmpp::{splice, write};

/// A contact is asked again after this time if a request of the user's has no answer.
const ASK_AGAIN_MICROSECONDS: u64 = 86_400_000_000;

impl Shard {
    /// How the *no* of a domain's users looks.
    pub(super) fn denial_style(&self, domain: &str) -> Denial {
        self.settings.domain(domain).map(|it| it.denial).unwrap_or_default()
    }

    /// Presence without `to` (RFC 6121, 4.2.2, 4.4.2, 4.5.2).
    pub(super) fn broadcast(&mut self, id: ConnId, carry: &Carry<'_>) {
        let Text::Original { frame, stanza, .. } = &carry.text else { return };
        let mut whole = Vec::new();
        if carry.text.append(&mut whole).is_err() || whole.len() > PRESENCE_BYTES_MAX {
            return self.return_to(id, carry, StanzaFault::NotAcceptable);
        }
        let user = carry.from.without_resource().to_address();
        let is_available = carry.purpose == Purpose::Available;
        let available = is_available.then(|| Available {
            priority: priority_of(stanza, frame),
            stanza: whole.clone().into(),
        });
        let now = available.as_ref().map(|it| it.priority);
        let Some(resource) = self.home.resource_mut(user.bare(), id) else { return };
        let before = std::mem::replace(&mut resource.available, available).map(|it| it.priority);
        let directed =
            if is_available { Vec::new() } else { std::mem::take(&mut resource.directed) };
        if before.is_some() != is_available {
            self.home.changed();
        }
        self.outcome(carry.origin, Outcome::Delivered);
        if is_available || before.is_some() {
            self.tell_own(id, &user, &whole, before.is_none());
            if !is_available {
                // RFC 6121, 4.5.2: also to the one that said so.
                self.tell(id, &whole);
            }
            self.fan_out(&user, &whole);
        }
        if !is_available {
            let status = stanza.child_text(frame, ChildKind::Status).unwrap_or_default();
            self.end_directed(carry.from, &directed, before.is_some());
            if before.is_some() {
                self.note_last(&user, &status);
            }
        } else if before.is_none() {
            self.came_online(id, carry.from);
        }
        if now.is_some_and(|it| it >= 0) && before.is_none_or(|it| it < 0) {
            self.free_stored(user.bare());
            self.wants_messages(&user);
        }
    }

    /// RFC 6121, 4.2.2: to all of the user's available resources, the one that spoke included; one
    /// that has just come hears of the others.
    fn tell_own(&mut self, id: ConnId, user: &Address, whole: &[u8], first: bool) {
        let theirs: Vec<(ConnId, Option<Box<[u8]>>)> = self
            .home
            .resources(user.bare())
            .iter()
            .filter(|r| r.available.is_some())
            .map(|r| (r.key, r.available.as_ref().filter(|_| first).map(|a| a.stanza.clone())))
            .collect();
        for (other, stanza) in theirs {
            self.tell(other, whole);
            if let (true, true, Some(stanza)) = (first, other != id, stanza) {
                self.tell(id, &stanza);
            }
        }
    }

    /// A resource has become available: probes go out, requests are repeated (RFC 6121, 4.3.1,
    /// 3.1.3).
    fn came_online(&mut self, id: ConnId, from: AddressRef<'_>) {
        let Some(account) = self.home.account(from.bare()) else { return };
        let (mut seen, mut requests, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for item in account.roster.items() {
            if account.privacy.is_blocked(item.contact.view()) {
                continue;
            }
            if item.state.has_to() {
                seen.push(item.contact.clone());
            }
            if item.state.pending_in() {
                requests.push((item.contact.clone(), item.request.clone()));
            }
            let waits = self.now.wall.0.saturating_sub(item.asked.0);
            if item.state.pending_out() && self.settings.policy.sip(item.contact.domain()).is_some()
            {
                // Over SIP the request is a subscription, which must be alive.
                seen.push(item.contact.clone());
            } else if item.state.pending_out() && waits >= ASK_AGAIN_MICROSECONDS {
                again.push(item.contact.clone());
            }
        }
        for contact in &seen {
            self.probe(from, contact);
        }
        let user = from.without_resource();
        for (contact, request) in requests {
            let mut text = Vec::new();
            match request {
                Some(request) => text.extend_from_slice(&request),
                None => said(Act::Subscribe.name(), contact.view(), Some(user), &mut text),
            }
            self.tell(id, &text);
        }
        if !again.is_empty() {
            self.ask_again(user, again);
        }
    }

    fn probe(&mut self, from: AddressRef<'_>, contact: &Address) {
        let mut text = Vec::new();
        said("probe", from, Some(contact.view()), &mut text);
        self.answer(from, contact.view(), Kind::Presence, Purpose::Probe, &text);
    }

    /// A login's probe for somebody of whom nothing is in memory: he has no resource here.
    pub(super) fn is_needless(&self, carry: &Carry<'_>) -> bool {
        carry.purpose == Purpose::Probe
            && carry.origin.is_none()
            && self.settings.domain(carry.from.domain()).is_some()
            && self.home.readiness(carry.to.bare()) == Readiness::Unknown
    }

    /// A probe for a user of this shard (RFC 6121, 4.3.2).
    pub(super) fn probed(&mut self, carry: &Carry<'_>) {
        self.outcome(carry.origin, Outcome::Delivered);
        let Some(account) = self.home.account(carry.to.bare()) else { return };
        let contact = carry.from.without_resource();
        let user = carry.to.without_resource();
        let own = contact.full() == user.full();
        let step = account.relation(contact).contact_probes();
        if let (Some(reply), false) = (step.reply, own) {
            return self.say(reply.name(), user, contact);
        }
        let notices: Vec<_> = step.to_contact(false).collect();
        if own || notices.contains(&Notice::Current) {
            self.show(user, carry.to.resource(), carry.from);
        } else {
            self.show_offline(user, carry.from);
        }
    }

    /// Tells `to` the present presence of each available resource; of one that is asked for by name,
    /// that it is there and no more (RFC 6121, 4.3.2).
    pub(super) fn show(&mut self, user: AddressRef<'_>, only: Option<&str>, to: AddressRef<'_>) {
        let stanzas: Vec<Box<[u8]>> = self
            .home
            .resources(user.bare())
            .iter()
            .filter(|r| only.is_none_or(|name| *r.name == *name))
            .filter_map(|r| r.available.as_ref().map(|a| a.stanza.clone()))
            .collect();
        if let Some(name) = only {
            let full = format!("{}/{name}", user.bare());
            let mut scratch = String::new();
            let Ok(from) = AddressRef::parse(&full, &mut scratch) else { return };
            if stanzas.is_empty() {
                // Of the others nothing is said.
                return self.say("unavailable", from, to);
            }
            let mut text = b"<presence".to_vec();
            write::attr("from", from.full(), &mut text);
            write::attr("to", to.full(), &mut text);
            text.extend_from_slice(b"/>");
            return self.answer(from, to, Kind::Presence, Purpose::Available, &text);
        }
        if stanzas.is_empty() {
            return self.show_offline(user, to);
        }
        for stanza in stanzas {
            self.send_addressed(user, &stanza, to);
        }
    }

    /// `unavailable` from the bare address, with the time of the last one that the contact saw.
    fn show_offline(&mut self, user: AddressRef<'_>, to: AddressRef<'_>) {
        let last = self.home.account(user.bare()).and_then(|account| {
            account.is_seen_by(to.bare()).then(|| account.last.clone()).flatten()
        });
        let mut text = Vec::new();
        match last {
            None => said("unavailable", user, Some(to), &mut text),
            Some(last) => {
                open("unavailable", user, Some(to), &mut text);
                text.push(b'>');
                if !last.status.is_empty() {
                    text.extend_from_slice(b"<status>");
                    write::escape_into(&last.status, &mut text);
                    text.extend_from_slice(b"</status>");
                }
                delay(user.domain(), last.at, &mut text);
                text.extend_from_slice(b"</presence>");
            }
        }
        self.answer(user, to, Kind::Presence, Purpose::Unavailable, &text);
    }

    /// What a step of a subscription makes the contact hear, in order. `original`: the user's own
    /// stanza, which is passed on as it is.
    pub(super) fn notify(
        &mut self,
        user: AddressRef<'_>,
        contact: AddressRef<'_>,
        notices: &[Notice],
        original: Option<&Carry<'_>>,
    ) {
        for notice in notices {
            match notice {
                Notice::Original => {
                    if let Some(original) = original {
                        self.route(original);
                    }
                }
                Notice::Reply(act) => self.say(act.name(), user, contact),
                Notice::Current => self.show_available(user, contact),
                Notice::Unavailable => self.end_for(user, contact),
                Notice::Offline => {
                    let mut text = Vec::new();
                    said("unavailable", user, Some(contact), &mut text);
                    self.answer(user, contact, Kind::Presence, Purpose::Unavailable, &text);
                }
            }
        }
    }

    /// As [`Shard::show`], but nothing if there is nothing to be seen.
    pub(super) fn show_available(&mut self, user: AddressRef<'_>, to: AddressRef<'_>) {
        if self.home.resources(user.bare()).iter().any(|r| r.available.is_some()) {
            self.show(user, None, to);
        }
    }

    /// The contact sees the user no longer: `unavailable` from each resource (RFC 6121, 3.2.2).
    pub(super) fn end_for(&mut self, user: AddressRef<'_>, contact: AddressRef<'_>) {
        let resources: Vec<String> = self
            .home
            .resources(user.bare())
            .iter()
            .filter(|r| r.available.is_some())
            .map(|r| format!("{}/{}", user.bare(), r.name))
            .collect();
        for full in resources {
            let mut scratch = String::new();
            let Ok(from) = AddressRef::parse(&full, &mut scratch) else { continue };
            self.say("unavailable", from, contact);
        }
    }

    /// Sends an empty presence of this type.
    pub(super) fn say(&mut self, type_: &str, from: AddressRef<'_>, to: AddressRef<'_>) {
        let mut text = Vec::new();
        said(type_, from, Some(to), &mut text);
        let purpose = Purpose::read(Kind::Presence, Some(type_)).unwrap_or(Purpose::Unavailable);
        self.answer(from, to, Kind::Presence, purpose, &text);
    }

    /// A client's own presence comes back to it as an error, which presence else never does.
    pub(super) fn return_to(&mut self, id: ConnId, carry: &Carry<'_>, fault: StanzaFault) {
        self.outcome(carry.origin, Outcome::Bounced);
        self.counters.stanza_faults[fault.index()] += 1;
        let Text::Original { frame, stanza, .. } = &carry.text else { return };
        let mut text = Vec::new();
        splice::error_reply(frame, stanza, fault, None, None, None, &mut text);
        self.tell(id, &text);
    }

    /// Remembers who got presence directly, to tell them of the end (RFC 6121, 4.6.3).
    pub(super) fn note_directed(&mut self, id: ConnId, carry: &Carry<'_>) -> bool {
        let available = match carry.purpose {
            Purpose::Available => true,
            Purpose::Unavailable => false,
            _ => return true,
        };
        self.home
            .resource_mut(carry.from.bare(), id)
            .is_none_or(|resource| resource.direct(carry.to, available))
    }

    /// The connection of a resource is gone, and it did not say so itself (RFC 6121, 4.5.3).
    pub(super) fn resource_gone(&mut self, id: ConnId, address: &Address) {
        let Some(resource) = self.home.unbind(address.bare(), id) else { return };
        self.resource_ended(&resource, address);
        if resource.carbons {
            self.note_copied(address.bare());
        }
        self.rests(address.bare());
    }

    /// Another stream took the resource's name: this one ends (RFC 6120, 7.7.2.2).
    pub(super) fn replaced(&mut self, old: Resource<ConnId>, address: &Address) {
        self.counters.replaced += 1;
        if let Some(mut conn) = self.conns.take(old.key) {
            self.stream_fault(&mut conn, StreamFault::Conflict);
            self.conns.put_back(conn);
        }
        self.resource_ended(&old, address);
        if let Some(stream) = session::stream_of(old.key) {
            self.end_session(stream);
        }
    }

    fn resource_ended(&mut self, resource: &Resource<ConnId>, address: &Address) {
        let user = address.to_bare();
        if resource.available.is_some() {
            let mut text = Vec::new();
            said("unavailable", address.view(), None, &mut text);
            let others: Vec<_> = self
                .home
                .resources(address.bare())
                .iter()
                .filter(|r| r.available.is_some())
                .map(|r| r.key)
                .collect();
            for other in others {
                self.tell(other, &text);
            }
            self.fan_out(&user, &text);
        }
        self.end_directed(address.view(), &resource.directed, resource.available.is_some());
        if resource.available.is_some() {
            self.note_last(&user, "");
        }
    }

    /// Who got presence directly hears of the end, unless he has heard of it as a contact.
    fn end_directed(&mut self, from: AddressRef<'_>, directed: &[Address], was_seen: bool) {
        for to in directed {
            let heard = was_seen
                && self.home.account(from.bare()).is_some_and(|it| it.is_seen_by(to.bare()));
            if !heard {
                self.say("unavailable", from, to.view());
            }
        }
    }

    /// Whether `from` may know that the resource is there: he sees the user's presence, or got the
    /// resource's directly (RFC 6121, 8.5.3.1).
    pub(super) fn shares_presence(&self, to: AddressRef<'_>, from: AddressRef<'_>) -> bool {
        from.bare() == to.bare()
            || self.home.account(to.bare()).is_some_and(|it| it.is_seen_by(from.bare()))
            || self.home.find(to).is_some_and(|resource| {
                resource
                    .directed
                    .iter()
                    // A room is one place: who is in it may ask, whoever of it was told.
                    .any(|it| it.bare() == from.bare())
            })
    }
}

/// RFC 6121, 4.7.2.3: absent or unreadable is zero.
fn priority_of(stanza: &Stanza, frame: &[u8]) -> i8 {
    stanza
        .child_text(frame, ChildKind::Priority)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Appends an empty presence stanza.
pub(super) fn said(
    type_: &str,
    from: AddressRef<'_>,
    to: Option<AddressRef<'_>>,
    out: &mut Vec<u8>,
) {
    open(type_, from, to, out);
    out.extend_from_slice(b"/>");
}

fn open(type_: &str, from: AddressRef<'_>, to: Option<AddressRef<'_>>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<presence");
    write::attr("type", type_, out);
    write::attr("from", from.full(), out);
    if let Some(to) = to {
        write::attr("to", to.full(), out);
    }
}

/// Appends a delay of XEP-0203.
pub(super) fn delay(from: &str, at: Wall, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<delay xmlns='urn:xmpp:delay'");
    write::attr("from", from, out);
    write::attr("stamp", &at.stamp(), out);
    out.extend_from_slice(b"/>");
}
