//! Questions whose answer waits for the store.
//!
//! Each has an account open, so each is answered within the stanza's time: when the store says
//! nothing, with an error, whatever the store does afterwards. Who has too many open is told so. A
//! client whose own set waits is parked meanwhile: what it sends later comes later.

use crate::envelope::Purpose;
use crate::limits::{LATER_MAX, LATER_PER_ASKER_MAX, LATER_TIME_MAX};
use crate::shard::deliver::{Carry, Text, reread};
use crate::shard::kernel::{ConnId, Ticket};
use crate::shard::post::carried;
use crate::shard::{Shard, Timer};
use crate::stdx::{Key, Map, Slab};
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::write;

/// Names a question that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Later(Key);

#[derive(Debug)]
struct Open {
    /// The question without what was in it, as a record of `post`.
    record: Vec<u8>,
    asker: u64,
    parked: Option<ConnId>,
}

/// The open questions of a shard.
#[derive(Debug)]
pub(in crate::shard) struct Laters {
    open: Slab<Open>,
    /// How many are whose, by the hash of the bare address.
    askers: Map<u64, u32>,
    /// Parked while it is being worked on: it is told when it comes back.
    parks: Option<ConnId>,
}

impl Laters {
    pub(in crate::shard) fn new(seed: u64) -> Self {
        Self { open: Slab::new(LATER_MAX), askers: Map::seeded(seed), parks: None }
    }
}

impl Shard {
    /// Takes a question that is answered by [`Shard::answer_later`]. A set parks its client if it
    /// is one of this shard's.
    pub(in crate::shard) fn later(&mut self, carry: &Carry<'_>) -> Result<Later, StanzaFault> {
        let asker = carry.from.bare_hash();
        let mine = self.laters.askers.get(&asker).copied().unwrap_or(0);
        if mine >= LATER_PER_ASKER_MAX || self.laters.open.is_full() {
            self.counters.later_refused += 1;
            return Err(StanzaFault::ResourceConstraint);
        }
        let record = without_content(carry).ok_or(StanzaFault::BadRequest)?;
        let parked = match carry.purpose {
            Purpose::Set => self.home.find(carry.from).map(|resource| resource.key),
            _ => None,
        };
        let Ok(key) = self.laters.open.insert(Open { record, asker, parked }) else {
            return Err(StanzaFault::ResourceConstraint);
        };
        self.laters.askers.insert(asker, mine + 1);
        self.timers.set(self.now.moment + LATER_TIME_MAX, Timer::Later(Ticket(key.to_u64())));
        if let Some(id) = parked {
            match self.conns.take(id) {
                Some(mut conn) => {
                    conn.parked = true;
                    self.conns.put_back(conn);
                }
                None => self.laters.parks = Some(id),
            }
        }
        Ok(Later(key))
    }

    /// The client that is being worked on waits for an answer.
    pub(in crate::shard) fn parks(&mut self, id: ConnId) -> bool {
        self.laters.parks.take() == Some(id)
    }

    /// Answers, unless that was done already because it took too long.
    pub(in crate::shard) fn answer_later(
        &mut self,
        later: Later,
        answer: Result<Vec<u8>, StanzaFault>,
    ) {
        let Some(open) = self.laters.open.remove(later.0) else { return };
        match self.laters.askers.get_mut(&open.asker) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.laters.askers.remove(&open.asker)),
        }
        self.with_carry(&open.record, |shard, carry| match (answer, &carry.text) {
            (Ok(payload), Text::Written(frame)) => match reread(frame) {
                Some(stanza) => shard.result(carry, frame, &stanza, &payload),
                None => shard.bounce(carry, StanzaFault::InternalServerError),
            },
            (Err(fault), _) => shard.bounce(carry, fault),
            (Ok(_), Text::Original { .. }) => debug_assert!(false, "records are written"),
        });
        let Some(id) = open.parked else { return };
        if self.laters.parks == Some(id) {
            self.laters.parks = None;
        } else {
            self.unpark(Self::ticket_of(id), |_, _| {});
        }
    }

    /// The store has said nothing for too long.
    pub(in crate::shard) fn later_due(&mut self, ticket: Ticket) {
        let later = Later(Key::from_u64(ticket.0));
        if self.laters.open.get(later.0).is_some() {
            self.counters.later_overdue += 1;
            self.answer_later(later, Err(StanzaFault::ResourceConstraint));
        }
    }
}

/// What is needed to answer: a vCard that was sent need not wait for its own answer.
fn without_content(carry: &Carry<'_>) -> Option<Vec<u8>> {
    let id = match &carry.text {
        Text::Original { frame, stanza, .. } => stanza.id?.value(frame).into_owned(),
        Text::Written(frame) => reread(frame)?.id?.value(frame).into_owned(),
    };
    let mut text = b"<iq".to_vec();
    write::attr("type", if carry.purpose == Purpose::Set { "set" } else { "get" }, &mut text);
    write::attr("id", &id, &mut text);
    text.extend_from_slice(b"/>");
    carried(&Carry { text: Text::Written(&text), ..carry.clone() }).ok()
}
