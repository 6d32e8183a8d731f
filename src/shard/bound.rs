//! The stanzas of a client that has a resource.
//!
//! Stamped with who sent them, checked, and routed: to the server itself, to a local user, or to
//! another domain. RFC 6120, 8 and 10; RFC 6121, 4 and 8.

use crate::address::{Address, AddressRef};
use crate::envelope::{Kind, Purpose};
use crate::limits::STANZA_ATTRIBUTE_OCTETS_MAX;
use crate::shard::Shard;
use crate::shard::account::{Origin, Outcome};
use crate::shard::conn::{Bound, Conn, Role};
use crate::shard::deliver::{Carry, Text};
use crate::shard::kernel::ConnId;
use crate::xmpp::fault::{StanzaFault, StreamFault};
use crate::xmpp::forged::{self, Author, Forged};
use crate::xmpp::splice::{self, Edits};
use crate::xmpp::stanza::{self, Attr, ChildKind, Stanza};

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
            if let stanza::Kind::Active | stanza::Kind::Inactive = stanza.kind {
                return self.client_state(conn.id, stanza.kind == stanza::Kind::Inactive);
            }
            return self.stream_fault(conn, StreamFault::UnsupportedStanzaType);
        };
        let is_long = |it: &Attr| it.octets() > STANZA_ATTRIBUTE_OCTETS_MAX;
        if [stanza.id, stanza.to, stanza.from].iter().flatten().any(is_long) {
            return self.stream_fault(conn, StreamFault::PolicyViolation);
        }
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
        let mut scratch = std::mem::take(&mut self.scratch);
        let to = stanza.to.map(|to| to.value(frame));
        let to = to.as_deref().map(|to| AddressRef::parse(to, &mut scratch)).transpose();
        let id = conn.id;
        let parked = match to {
            Ok(to) => self.client_carry(bound, id, origin, purpose, (frame, stanza), to),
            Err(_) => {
                self.refuse(id, origin, frame, stanza, StanzaFault::JidMalformed);
                false
            }
        };
        scratch.clear();
        self.scratch = scratch;
        // What it sends next waits until the store has taken this. Written only if so: who reads it
        // next would wait until all that was written before is in the cache.
        if parked || self.parks(conn.id) {
            conn.parked = true;
        }
    }

    /// It may say so: stamped with who sent it, on to the receiver. True: it is parked meanwhile.
    fn client_carry(
        &mut self,
        bound: &Bound,
        id: ConnId,
        origin: Origin,
        purpose: Purpose,
        (frame, stanza): (&[u8], &Stanza),
        to: Option<AddressRef<'_>>,
    ) -> bool {
        let (kind, from) = (origin.kind, bound.address.view());
        let settings = &self.settings;
        let is_ours = |domain: &str| settings.domain(domain).is_some();
        let receiver = to.unwrap_or_else(|| from.without_resource());
        let cuts = match forged::find(frame, stanza, Author::Client, receiver, is_ours) {
            Forged::Nothing => Vec::new(),
            Forged::Cut(cuts) => {
                self.counters.forged_cut += 1;
                cuts
            }
            Forged::Refused => {
                self.counters.forged_refused += 1;
                self.refuse(id, origin, frame, stanza, StanzaFault::NotAllowed);
                return false;
            }
        };
        // RFC 6121, 3.1.2: who asks for presence is the user, not one of his clients.
        let stamp = if purpose.is_subscription() { from.bare() } else { from.full() };
        let lang = bound.lang.as_deref();
        let edits = Edits { from: Some(stamp), lang, cuts: &cuts, ..Edits::default() };
        let text = Text::Original { frame, stanza, edits };
        let (origin, since) = (Some(origin), self.now.moment);
        let mut carry = Carry { origin, since, kind, purpose, from, to: to.unwrap_or(from), text };
        self.account.take(kind);
        if bound.blocks && to.is_some() && self.blocked_outbound(id, &carry) {
            return false;
        }
        // What he writes to himself, his other resources get as received.
        if bound.copied && kind == Kind::Message && receiver.bare() != from.bare() {
            self.copy_sent(id, &carry);
        }
        if to.is_some() { self.with_to(id, &carry) } else { self.without_to(id, &mut carry) }
    }

    /// True: the client is parked until what it said is done; the same for those that follow.
    fn with_to(&mut self, id: ConnId, carry: &Carry<'_>) -> bool {
        if carry.purpose.is_subscription() {
            return self.user_subscribes(id, carry);
        }
        if carry.kind == Kind::Iq && carry.to.full() == carry.from.bare() {
            return self.own_iq(id, carry);
        }
        if carry.kind == Kind::Presence && !self.note_directed(id, carry) {
            self.return_to(id, carry, StanzaFault::ResourceConstraint);
        } else {
            self.route(carry);
        }
        false
    }

    /// An IQ of a client for its own account, which is here.
    fn own_iq(&mut self, id: ConnId, carry: &Carry<'_>) -> bool {
        let Text::Original { stanza, .. } = &carry.text else { return false };
        match carry.purpose {
            Purpose::Get | Purpose::Set if stanza.has(ChildKind::Roster) => {
                return self.roster_asked(id, carry);
            }
            Purpose::Set if stanza.has_any(CARBONS_SWITCH) => self.switch_carbons(id, carry),
            Purpose::Get | Purpose::Set => self.serve(carry),
            // RFC 6120, 8.2.3: an answer that nobody here waits for.
            _ => self.outcome(carry.origin, Outcome::ByRule),
        }
        false
    }

    /// A stanza without `to` (RFC 6120, 10.3).
    fn without_to(&mut self, id: ConnId, carry: &mut Carry<'_>) -> bool {
        carry.to = carry.from.without_resource();
        match (carry.kind, carry.purpose) {
            (Kind::Presence, Purpose::Available | Purpose::Unavailable) => {
                self.broadcast(id, carry);
            }
            (Kind::Presence, _) => self.bounce(carry, StanzaFault::BadRequest),
            (Kind::Message, _) => {
                // Said on the way too: whoever sends it another way must know whose it is.
                if let Text::Original { edits, .. } = &mut carry.text {
                    edits.to = Some(carry.to.full());
                }
                self.route(carry);
            }
            (Kind::Iq, _) => return self.own_iq(id, carry),
        }
        false
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
        // One that does not acknowledge what it got is not told more.
        self.tell(id, &text);
    }
}

/// A client wants carbons, or no longer (XEP-0280, 4 and 5).
const CARBONS_SWITCH: u64 = ChildKind::CarbonsEnable.bit() | ChildKind::CarbonsDisable.bit();

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
