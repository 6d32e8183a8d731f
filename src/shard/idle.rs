//! Clients that nobody looks at, or that read slowly: what can wait for them waits.
//!
//! XEP-0352. While a client is inactive, presence and chat states are held, the newest of each
//! sender; anything else brings what is held with it, before it, so that a radio that wakes up gets
//! all at once. The state belongs to the stream: it is not resumed, and nobody else is shown it.
//!
//! The same is done for a client whose outbox grows: its presence is conflated instead of queued, and
//! follows when it has caught up.
//!
//! What is held is on nobody's account any more: that a newer one takes its place is the rule.

use crate::envelope::{Kind, Purpose};
use crate::limits::{HELD_BYTES_MAX, HELD_STANZAS_MAX};
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::{Carry, Text, reread};
use crate::shard::kernel::ConnId;
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::stanza::{self, ChildKind, Stanza};

/// Why a connection is spared what can wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    /// Nobody looks at the client (XEP-0352).
    pub(super) inactive: bool,
    /// It reads more slowly than others write.
    pub(super) slow: bool,
}

/// What waits for one client, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Held {
    stanzas: Vec<HeldStanza>,
    bytes: usize,
}

#[derive(Debug)]
struct HeldStanza {
    kind: Kind,
    from: Box<str>,
    text: Vec<u8>,
}

impl Held {
    /// False: another stanza of its kind and sender was in its place.
    fn put(&mut self, stanza: HeldStanza) -> bool {
        let same = |it: &HeldStanza| it.kind == stanza.kind && it.from == stanza.from;
        let old = self.stanzas.iter().position(same).map(|at| self.stanzas.remove(at));
        self.bytes -= old.as_ref().map_or(0, |it| it.text.len());
        self.bytes += stanza.text.len();
        self.stanzas.push(stanza);
        old.is_none()
    }

    fn is_full(&self) -> bool {
        self.stanzas.len() >= HELD_STANZAS_MAX || self.bytes >= HELD_BYTES_MAX
    }
}

impl Shard {
    /// `<active/>` or `<inactive/>`.
    pub(super) fn client_state(&mut self, id: ConnId, inactive: bool) {
        if inactive {
            if let Some(outbox) = self.conns.outbox(id) {
                outbox.rest.inactive = true;
            }
        } else {
            self.client_active(id);
        }
    }

    /// What was held goes out. Also for a stream that ends and whose session shall have it.
    pub(super) fn client_active(&mut self, id: ConnId) {
        let Some(outbox) = self.conns.outbox(id) else { return };
        if std::mem::take(&mut outbox.rest) != Rest::default() {
            self.release(id);
        }
    }

    /// A slow client has taken all that waited: what was held meanwhile follows.
    pub(super) fn caught_up(&mut self, id: ConnId) {
        if !self.conns.outbox(id).is_some_and(|outbox| outbox.is_idle()) {
            self.release(id);
        }
    }

    /// Nobody will have what was held.
    pub(super) fn forget_held(&mut self, id: ConnId) {
        if let Some(held) = self.held.remove(&id) {
            self.counters.held_lost += held.stanzas.len() as u64;
        }
    }

    /// A stanza for a client that is inactive: it is held, or goes behind what was.
    pub(super) fn put_into_idle(
        &mut self,
        id: ConnId,
        carry: &Carry<'_>,
    ) -> Result<(), StanzaFault> {
        if !can_wait(carry) {
            return self.put_behind(id, carry);
        }
        let mut text = Vec::new();
        if carry.text.append(&mut text).is_err() {
            return Err(StanzaFault::NotAcceptable);
        }
        self.keep_held(id, HeldStanza { kind: carry.kind, from: carry.from.full().into(), text });
        self.outcome(carry.origin, Outcome::Held);
        Ok(())
    }

    fn keep_held(&mut self, id: ConnId, stanza: HeldStanza) {
        if self.held.get(&id).is_some_and(Held::is_full) {
            self.release(id);
        }
        let held = self.held.entry(id).or_default();
        if held.is_full() && !held.stanzas.is_empty() {
            // There was no room for it: the oldest goes, and its sender's next will come.
            let oldest = held.stanzas.remove(0);
            held.bytes -= oldest.text.len();
            self.counters.held_lost += 1;
        }
        if held.put(stanza) {
            self.counters.held += 1;
        } else {
            self.counters.held_replaced += 1;
        }
    }

    /// The same for a stanza of ours.
    pub(super) fn tell_idle(&mut self, id: ConnId, text: &[u8]) -> bool {
        let presence = reread(text).filter(|it| it.kind == stanza::Kind::Presence);
        let tells = presence.filter(|it| {
            let type_ = it.type_.map(|it| it.raw(text));
            matches!(
                Purpose::read(Kind::Presence, type_),
                Some(Purpose::Available | Purpose::Unavailable)
            )
        });
        match tells.and_then(|it| it.from) {
            Some(from) => {
                let from = from.value(text).into();
                self.keep_held(id, HeldStanza { kind: Kind::Presence, from, text: text.to_vec() });
                true
            }
            None => {
                self.release(id);
                self.as_if_active(id, |shard| shard.tell(id, text))
            }
        }
    }

    fn put_behind(&mut self, id: ConnId, carry: &Carry<'_>) -> Result<(), StanzaFault> {
        self.release(id);
        self.as_if_active(id, |shard| shard.put_into(id, carry))
    }

    fn as_if_active<T>(&mut self, id: ConnId, work: impl FnOnce(&mut Self) -> T) -> T {
        let rest = self.conns.outbox(id).map(|outbox| std::mem::take(&mut outbox.rest));
        let done = work(self);
        if let (Some(outbox), Some(rest)) = (self.conns.outbox(id), rest) {
            outbox.rest = rest;
        }
        done
    }

    /// All that was held goes out, oldest first. The client stays in its state.
    fn release(&mut self, id: ConnId) {
        let Some(held) = self.held.remove(&id) else { return };
        let mut rest = held.stanzas.into_iter().peekable();
        self.as_if_active(id, |shard| {
            while shard.conns.outbox(id).is_none_or(|outbox| outbox.has_room())
                && let Some(stanza) = rest.next()
            {
                shard.tell(id, &stanza.text);
            }
        });
        if rest.peek().is_some() {
            // The others follow when there is room again.
            let held = self.held.entry(id).or_default();
            for stanza in rest {
                held.put(stanza);
            }
            if let Some(outbox) = self.conns.outbox(id) {
                outbox.rest.slow = true;
            }
        }
    }
}

/// Presence that only tells, and messages that say nothing but that somebody types.
fn can_wait(carry: &Carry<'_>) -> bool {
    match (carry.kind, carry.purpose) {
        (Kind::Presence, Purpose::Available | Purpose::Unavailable) => true,
        (Kind::Message, Purpose::Chat | Purpose::Normal | Purpose::Groupchat) => {
            match &carry.text {
                Text::Original { stanza, .. } => is_chat_state(stanza),
                Text::Written(frame) => reread(frame).is_some_and(|it| is_chat_state(&it)),
            }
        }
        _ => false,
    }
}

/// XEP-0085, 5.1, with what usually stands beside a state.
fn is_chat_state(stanza: &Stanza) -> bool {
    let beside = ChildKind::Thread.bit()
        | ChildKind::NoStore.bit()
        | ChildKind::NoPermanentStore.bit()
        | ChildKind::NoCopy.bit()
        | ChildKind::Delay.bit()
        | ChildKind::StanzaId.bit()
        | ChildKind::OriginId.bit()
        | ChildKind::OccupantId.bit();
    stanza.has_any(ChildKind::CHAT_STATES) && stanza.kinds & !(ChildKind::CHAT_STATES | beside) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::frame::{Content, one};

    #[test]
    fn a_state_is_nothing_but_a_state() {
        for (inner, is_state) in [
            ("<composing xmlns='http://jabber.org/protocol/chatstates'/>", true),
            (
                "<paused xmlns='http://jabber.org/protocol/chatstates'/><thread>t</thread>\
                 <no-store xmlns='urn:xmpp:hints'/>",
                true,
            ),
            ("<body>x</body><active xmlns='http://jabber.org/protocol/chatstates'/>", false),
            ("<active xmlns='http://jabber.org/protocol/chatstates'/><x xmlns='u'/>", false),
            ("<no-store xmlns='urn:xmpp:hints'/>", false),
            ("", false),
        ] {
            let text = format!("<message type='chat'>{inner}</message>");
            let stanza = one(text.as_bytes(), Content::Client).unwrap();
            assert_eq!(is_chat_state(&stanza), is_state, "{inner}");
        }
    }

    #[test]
    fn the_newest_of_a_sender_is_kept() {
        let stanza =
            |kind, from: &str, n: u8| HeldStanza { kind, from: from.into(), text: vec![n; 10] };
        let mut held = Held::default();
        assert!(held.put(stanza(Kind::Presence, "a@b/c", 1)));
        assert!(held.put(stanza(Kind::Message, "a@b/c", 2)));
        assert!(held.put(stanza(Kind::Presence, "a@b/d", 3)));
        assert!(!held.put(stanza(Kind::Presence, "a@b/c", 4)));
        let order: Vec<u8> = held.stanzas.iter().map(|it| it.text[0]).collect();
        assert_eq!((order, held.bytes), (vec![2, 3, 4], 30));
    }
}
