//! The stanzas of a client that has a resource.
//!
//! Stamped with who sent them, checked, and routed: to the server itself, to a local user, or to
//! another domain. RFC 6120, 8 and 10; RFC 6121, 4 and 8.

use crate::address::{Address, AddressRef};
use crate::envelope::{Kind, Purpose};
use crate::home::{Available, Resource};
use crate::shard::Shard;
use crate::shard::account::{Origin, Outcome};
use crate::shard::conn::{Bound, Conn, Role};
use crate::shard::deliver::{Carry, Text};
use crate::shard::kernel::ConnId;
use crate::shard::session;
use crate::xmpp::fault::{StanzaFault, StreamFault};
use crate::xmpp::splice::{self, Edits};
use crate::xmpp::stanza::{self, ChildKind, Stanza};
use crate::xmpp::write;

impl Shard {
    /// One first-level element of a bound client.
    pub(super) fn client_stanza(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        let Some(kind) = kind_of(stanza) else {
            if stanza.kind == stanza::Kind::Sm {
                return self.managed_element(conn, frame, stanza);
            }
            if stanza.kind == stanza::Kind::Compress {
                return self.refuse_compression(conn.id);
            }
            return self.stream_fault(conn, StreamFault::UnsupportedStanzaType);
        };
        let Role::Bound(bound) = &conn.role else { return };
        let mut origin = Origin::plain(self.id.0, kind);
        if bound.stream != 0 {
            let Some(number) = self.number(bound.stream, frame) else { return };
            (origin.stream, origin.number) = (bound.stream, number);
        }
        self.account.offer(kind);
        if !may_say(bound, stanza, frame) {
            // RFC 6120, 8.1.2.1: a client speaks for nobody else.
            self.account.refuse(kind);
            return self.stream_fault(conn, StreamFault::InvalidFrom);
        }
        let type_ = stanza.type_.map(|t| t.raw(frame));
        let Some(purpose) = Purpose::read(kind, type_) else {
            return self.refuse(conn.id, origin, frame, stanza, StanzaFault::BadRequest);
        };
        if kind == Kind::Iq && !is_whole_iq(stanza, purpose) {
            return self.refuse(conn.id, origin, frame, stanza, StanzaFault::BadRequest);
        }
        // RFC 6121, 3.1.2: who asks for presence is the user, not one of his clients.
        let from = bound.address.view();
        let stamp = if purpose.is_subscription() { from.bare() } else { from.full() };
        let edits = Edits { from: Some(stamp), lang: bound.lang.as_deref(), ..Edits::default() };
        let text = Text::Original { frame, stanza, edits };
        let mut carry = Carry {
            origin: Some(origin),
            since: self.now.moment,
            kind,
            purpose,
            from,
            to: from,
            text,
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        match stanza.to {
            None => {
                self.account.take(kind);
                self.without_to(conn.id, &mut carry);
            }
            Some(to) => match AddressRef::parse(&to.value(frame), &mut scratch) {
                Err(_) => self.refuse(conn.id, origin, frame, stanza, StanzaFault::JidMalformed),
                Ok(to) => {
                    self.account.take(kind);
                    carry.to = to;
                    if kind == Kind::Presence && !self.note_directed(conn.id, &carry) {
                        self.bounce(&carry, StanzaFault::ResourceConstraint);
                    } else {
                        self.route(&carry);
                    }
                }
            },
        }
        scratch.clear();
        self.scratch = scratch;
    }

    /// A stanza without `to` (RFC 6120, 10.3).
    fn without_to(&mut self, id: ConnId, carry: &mut Carry<'_>) {
        carry.to = carry.from.without_resource();
        match (carry.kind, carry.purpose) {
            (Kind::Presence, Purpose::Available | Purpose::Unavailable) => {
                self.broadcast(id, carry)
            }
            (Kind::Presence, _) => self.bounce(carry, StanzaFault::BadRequest),
            (Kind::Message, _) => {
                // Said on the way too: whoever sends it another way must know whose it is.
                if let Text::Original { edits, .. } = &mut carry.text {
                    edits.to = Some(carry.to.full());
                }
                self.route(carry);
            }
            (Kind::Iq, Purpose::Get | Purpose::Set) => self.serve(carry),
            // RFC 6120, 8.2.3: an answer that nobody here waits for.
            (Kind::Iq, _) => self.outcome(carry.origin, Outcome::ByRule),
        }
    }

    /// RFC 6121, 4.2.2, 4.4.2, 4.5.2: presence without `to` goes to the user's other resources.
    fn broadcast(&mut self, id: ConnId, carry: &Carry<'_>) {
        let Text::Original { frame, stanza, .. } = &carry.text else { return };
        let mut whole = Vec::new();
        if carry.text.append(&mut whole).is_err() {
            return self.bounce(carry, StanzaFault::NotAcceptable);
        }
        let bare = carry.from.bare();
        let available = (carry.purpose == Purpose::Available).then(|| Available {
            priority: priority_of(stanza, frame),
            stanza: whole.clone().into(),
        });
        let others: Vec<(ConnId, Option<Box<[u8]>>)> = self
            .home
            .resources(bare)
            .iter()
            .filter(|r| r.key != id)
            .filter_map(|r| r.available.as_ref().map(|a| (r.key, Some(a.stanza.clone()))))
            .collect();
        let Some(resource) = self.home.resource_mut(bare, id) else { return };
        let first = available.is_some() && resource.available.is_none();
        resource.available = available;
        let directed = match carry.purpose {
            Purpose::Unavailable => std::mem::take(&mut resource.directed),
            _ => Vec::new(),
        };
        for (other, theirs) in others {
            self.tell(other, &whole);
            if let (true, Some(theirs)) = (first, theirs) {
                // RFC 6121, 4.2.2: who comes hears of those who are there.
                self.tell(id, &theirs);
            }
        }
        self.outcome(carry.origin, Outcome::Delivered);
        self.end_directed(carry.from, &directed);
    }

    /// Remembers who got presence directly, to tell them of the end (RFC 6121, 4.6.3).
    fn note_directed(&mut self, id: ConnId, carry: &Carry<'_>) -> bool {
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
        if resource.available.is_some() {
            let mut text = Vec::new();
            unavailable(address, None, &mut text);
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
        }
        self.end_directed(address.view(), &resource.directed);
    }

    fn end_directed(&mut self, from: AddressRef<'_>, directed: &[Address]) {
        for to in directed {
            let mut text = Vec::new();
            unavailable(&from.to_address(), Some(to), &mut text);
            self.answer(from, to.view(), Kind::Presence, Purpose::Unavailable, &text);
        }
    }

    /// A protocol error before the stanza is taken.
    fn refuse(
        &mut self,
        id: ConnId,
        origin: Origin,
        frame: &[u8],
        stanza: &Stanza,
        fault: StanzaFault,
    ) {
        self.account.refuse(origin.kind);
        if origin.stream != 0 {
            self.handled.push((origin.stream, origin.number));
        }
        self.counters.stanza_faults[fault.index()] += 1;
        let mut text = Vec::new();
        splice::error_reply(frame, stanza, fault, None, None, None, &mut text);
        self.write_stanza(id, &text);
    }
}

pub(super) fn kind_of(stanza: &Stanza) -> Option<Kind> {
    match stanza.kind {
        stanza::Kind::Message => Some(Kind::Message),
        stanza::Kind::Presence => Some(Kind::Presence),
        stanza::Kind::Iq => Some(Kind::Iq),
        _ => None,
    }
}

/// RFC 6120, 8.2.3: an id always, and exactly one child in a get or set.
pub(super) fn is_whole_iq(stanza: &Stanza, purpose: Purpose) -> bool {
    let one_child = stanza.children().len() == 1 && !stanza.overflows();
    stanza.id.is_some() && (one_child || !matches!(purpose, Purpose::Get | Purpose::Set))
}

/// RFC 6120, 8.1.2.1: no `from`, or the client's own address, full or bare.
fn may_say(bound: &Bound, stanza: &Stanza, frame: &[u8]) -> bool {
    let Some(from) = stanza.from else { return true };
    let raw = from.value(frame);
    raw == bound.address.full()
        || raw == bound.address.bare()
        || Address::parse(&raw)
            .is_ok_and(|from| from == bound.address || from.full() == bound.address.bare())
}

/// RFC 6121, 4.7.2.3: absent or unreadable is zero.
fn priority_of(stanza: &Stanza, frame: &[u8]) -> i8 {
    stanza
        .child_text(frame, ChildKind::Priority)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn unavailable(from: &Address, to: Option<&Address>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<presence type='unavailable'");
    write::attr("from", from.full(), out);
    if let Some(to) = to {
        write::attr("to", to.full(), out);
    }
    out.extend_from_slice(b"/>");
}
