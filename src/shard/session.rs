//! Sessions of clients that count stanzas, those without a connection above all: what comes for them
//! waits, and another connection of the user may take them over.
//!
//! XEP-0198, 5. A session is of the home shard. While it is detached its resource stays bound and as
//! available as it was; the resource's key names the session instead of a connection. Messages that
//! come for it are to be stored at once, questions keep their time and are returned after it, presence
//! is conflated. How another connection goes on with it is in `resume.rs`.

use std::collections::VecDeque;

use crate::address::Address;
use crate::envelope::{Kind, Origin, Purpose};
use crate::limits::{
    IN_FLIGHT_TIME_MAX, SESSION_TIME_MAX, SESSIONS_REMEMBERED_MAX, UNACKED_HIGH_BYTES,
    UNACKED_STANZAS_MAX,
};
use crate::shard::account::Outcome;
use crate::shard::conn::{Conn, Role};
use crate::shard::deliver::{Carry, reread};
use crate::shard::kernel::ConnId;
use crate::shard::outbox::Unacked;
use crate::shard::sm::Inbound;
use crate::shard::{Shard, Timer};
use crate::stdx::{Bounded, Map};
use crate::time::Moment;
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::sm::{Input, Managed, SessionId};

/// A client's session: it outlives its connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// The full address.
    pub(crate) address: Address,
    pub(crate) state: Managed,
    /// Its connection, or what stands for it while there is none.
    pub(crate) key: ConnId,
    pub(crate) inbound: Inbound,
    pub(super) detached: Option<Box<Detached>>,
}

/// What a session without a connection holds.
#[derive(Debug)]
pub(super) struct Detached {
    /// The client's count of what it has handled (mod 2^32).
    pub(super) acked: u32,
    /// So many of `queue` have been sent to it, from the first on.
    pub(super) sent: usize,
    pub(super) queue: VecDeque<Held>,
    bytes: usize,
    /// Then it ends.
    until: Moment,
    /// The timer that is set.
    armed: Moment,
}

/// A stanza that waits for the client.
#[derive(Debug)]
pub(super) struct Held {
    /// On whose account; `None`: on nobody's any more.
    pub(super) origin: Option<Origin>,
    pub(super) since: Moment,
    /// Which presence it replaces, if it is one that only tells: by sender and receiver.
    presence: Option<Box<str>>,
    /// Empty: it went another way, and only its place is left.
    pub(super) text: Vec<u8>,
}

/// All sessions of a shard.
#[derive(Debug)]
pub(crate) struct Sessions {
    all: Map<u32, Box<Session>>,
    /// The number of the last one.
    last: u32,
    pub(super) detached: u64,
    /// Ended ones that a client may still ask for.
    remembered: Bounded<Remembered>,
    /// Connections that may be read again.
    pub(crate) relieved: Vec<ConnId>,
}

#[derive(Debug)]
struct Remembered {
    id: SessionId,
    user: Box<str>,
    handled: u32,
}

/// The index of keys that name a session: no connection has it.
const DETACHED: u32 = u32::MAX;

/// What stands for the connection of a detached session.
pub(super) fn key_of(stream: u32) -> ConnId {
    ConnId { index: DETACHED, generation: stream }
}

/// The detached session that a resource's key names.
pub(super) fn stream_of(key: ConnId) -> Option<u32> {
    (key.index == DETACHED).then_some(key.generation)
}

impl Session {
    pub(crate) fn new(id: SessionId, address: Address, state: Managed, key: ConnId) -> Self {
        Self { id, address, state, key, inbound: Inbound::default(), detached: None }
    }
}

impl Sessions {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            all: Map::seeded(seed),
            last: 0,
            detached: 0,
            remembered: Bounded::new(SESSIONS_REMEMBERED_MAX),
            relieved: Vec::new(),
        }
    }

    pub(crate) fn get(&self, stream: u32) -> Option<&Session> {
        self.all.get(&stream).map(Box::as_ref)
    }

    pub(crate) fn get_mut(&mut self, stream: u32) -> Option<&mut Session> {
        self.all.get_mut(&stream).map(Box::as_mut)
    }

    /// A new session, which is told its number; numbers are used again after 2^32.
    pub(crate) fn insert(&mut self, make: impl FnOnce(u32) -> Session) -> SessionId {
        loop {
            self.last = self.last.wrapping_add(1).max(1);
            if !self.all.contains_key(&self.last) {
                break;
            }
        }
        let session = make(self.last);
        let id = session.id;
        self.all.insert(self.last, Box::new(session));
        id
    }

    /// Sessions without a connection.
    pub(crate) fn detached(&self) -> u64 {
        self.detached
    }

    /// The number of the one that has waited longest, of a user.
    fn oldest_detached(&self, bare: &str) -> Option<u32> {
        self.streams_of(|it| it.address.bare() == bare)
            .into_iter()
            .filter_map(|stream| Some((self.get(stream)?.detached.as_ref()?.until, stream)))
            .min()
            .map(|(_, stream)| stream)
    }

    /// The numbers of those without a connection for which that holds.
    fn streams_of(&self, holds: impl Fn(&Session) -> bool) -> Vec<u32> {
        self.all
            .sorted()
            .into_iter()
            .filter(|(_, it)| it.detached.is_some() && holds(it))
            .map(|(stream, _)| *stream)
            .collect()
    }

    fn remove(&mut self, stream: u32) -> Option<Box<Session>> {
        let session = self.all.remove(&stream)?;
        self.detached -= u64::from(session.detached.is_some());
        if matches!(session.state, Managed::On(true) | Managed::Detached) {
            if self.remembered.len() >= SESSIONS_REMEMBERED_MAX {
                self.remembered.take();
            }
            let user = session.address.bare().into();
            let handled = session.inbound.handled();
            drop(self.remembered.push(Remembered { id: session.id, user, handled }));
        }
        Some(session)
    }

    /// What an ended session had handled, for its own user.
    pub(super) fn recall(&self, id: SessionId, user: &str) -> Option<u32> {
        self.remembered
            .iter()
            .rev()
            .find(|it| it.id == id && *it.user == *user)
            .map(|it| it.handled)
    }
}

impl Held {
    /// When its account must be closed. One that is in the store is looked at once.
    fn deadline(&self, now: Moment) -> Option<Moment> {
        let is_stored = self.origin?.row().is_some();
        Some(self.since + IN_FLIGHT_TIME_MAX).filter(|it| !is_stored || *it > now)
    }
}

impl Detached {
    fn has_room(&self) -> bool {
        self.queue.len() < UNACKED_STANZAS_MAX && self.bytes < UNACKED_HIGH_BYTES
    }

    fn push(&mut self, held: Held) {
        if let Some(presence) = &held.presence {
            // Only the newest is worth telling, and what was sent keeps its place in the count.
            let older = (self.sent..self.queue.len()).find(|at| {
                self.queue.get(*at).is_some_and(|it| it.presence.as_ref() == Some(presence))
            });
            if let Some(older) = older.and_then(|at| self.queue.remove(at)) {
                self.bytes -= older.text.len();
            }
        }
        self.bytes += held.text.len();
        self.queue.push_back(held);
    }

    /// When something has to be done about it.
    fn next_deadline(&self, now: Moment) -> Moment {
        let first = self.queue.iter().filter_map(|it| it.deadline(now)).min();
        first.unwrap_or(Moment::NEVER).min(self.until)
    }
}

/// The connection is lost.
impl Shard {
    /// The session of this client would wait for another connection.
    pub(super) fn may_detach(&self, conn: &Conn) -> bool {
        let Role::Bound(bound) = &conn.role else { return false };
        let session = self.sessions.get(bound.stream);
        !self.stopping
            && session.is_some_and(|it| it.state.handle(Input::Lost) == Ok(Managed::Detached))
    }

    /// The connection ended and the stream did not: its session waits for another one. `spill`:
    /// nobody knows for how long, so messages are stored.
    pub(super) fn detach(&mut self, conn: &mut Conn, unacked: Option<Unacked>, spill: bool) {
        let Role::Bound(bound) = &mut conn.role else { return };
        let stream = std::mem::take(&mut bound.stream);
        let until = self.now.moment + SESSION_TIME_MAX;
        let unacked = unacked.unwrap_or(Unacked { acked: 0, sent: 0, stanzas: Vec::new() });
        let mut detached = Detached {
            acked: unacked.acked,
            sent: unacked.sent,
            queue: VecDeque::with_capacity(unacked.stanzas.len()),
            bytes: 0,
            until,
            armed: Moment::NEVER,
        };
        let user = bound.address.clone();
        for (receipt, text) in unacked.stanzas {
            let (mut origin, since) = (receipt.origin, receipt.since);
            if let Some(it) = origin.filter(|it| !self.keeps_account(*it, &text)) {
                self.outcome(Some(it), Outcome::Held);
                origin = None;
            }
            if let Some(it) = origin.filter(|_| spill) {
                origin = self.spill(&user, it, since, &text).or(origin);
            }
            detached.push(Held { origin, since, presence: None, text });
        }
        let Some(session) = self.sessions.get_mut(stream) else { return };
        let old = std::mem::replace(&mut session.key, key_of(stream));
        session.state = Managed::Detached;
        session.inbound.lost();
        session.detached = Some(Box::new(detached));
        self.home.rekey(session.address.bare(), old, key_of(stream));
        self.sessions.detached += 1;
        self.counters.sessions_detached += 1;
        self.detached_due(stream);
    }

    /// Whether a stanza that is held still waits for its outcome: messages and questions do.
    fn keeps_account(&self, origin: Origin, text: &[u8]) -> bool {
        let purpose = || {
            let type_ = reread(text)?.type_?;
            Purpose::read(Kind::Iq, Some(type_.raw(text)))
        };
        match origin.kind {
            Kind::Message => true,
            Kind::Presence => false,
            Kind::Iq => matches!(purpose(), Some(Purpose::Get | Purpose::Set)),
        }
    }

    /// A stanza for a resource whose connection is lost.
    pub(super) fn hold(&mut self, key: ConnId, carry: &Carry<'_>) -> Result<(), StanzaFault> {
        let Some((stream, detached)) = self.detached_of(key) else {
            return Err(StanzaFault::RecipientUnavailable);
        };
        if !detached.has_room() {
            self.counters.sessions_full += 1;
            // As if the resource were not there.
            return Err(StanzaFault::ServiceUnavailable);
        }
        let Some(user) = self.sessions.get(stream).map(|it| it.address.clone()) else {
            return Err(StanzaFault::RecipientUnavailable);
        };
        let mut text = Vec::new();
        carry.text.append(&mut text).map_err(|_| StanzaFault::NotAcceptable)?;
        let tells = matches!(carry.purpose, Purpose::Available | Purpose::Unavailable);
        let presence = tells.then(|| presence_key(carry.from.full(), carry.to.full()));
        let stays =
            carry.kind == Kind::Message || matches!(carry.purpose, Purpose::Get | Purpose::Set);
        let mut origin = carry.origin.filter(|_| stays);
        if let Some(it) = origin {
            origin = self.spill(&user, it, carry.since, &text).or(origin);
        } else {
            self.outcome(carry.origin, Outcome::Held);
        }
        if let Some((_, detached)) = self.detached_of(key) {
            detached.push(Held { origin, since: carry.since, presence, text });
        }
        if origin.is_some() {
            self.watch_session(stream);
        }
        Ok(())
    }

    /// A stanza of ours for a resource whose connection is lost.
    pub(super) fn hold_text(&mut self, key: ConnId, text: &[u8]) -> bool {
        let since = self.now.moment;
        let Some((stream, detached)) = self.detached_of(key) else { return false };
        if !detached.has_room() {
            // What it would miss nobody would tell it again: better it begins anew.
            detached.until = since;
            self.counters.sessions_full += 1;
            self.watch_session(stream);
            return false;
        }
        let presence = reread(text).filter(|it| it.kind == crate::xmpp::stanza::Kind::Presence);
        let tells = presence.filter(|it| it.type_.is_none_or(|t| t.raw(text) == "unavailable"));
        let presence = tells.map(|it| {
            let of = |attr: Option<crate::xmpp::stanza::Attr>| attr.map_or("", |it| it.raw(text));
            presence_key(of(it.from), of(it.to))
        });
        detached.push(Held { origin: None, since, presence, text: text.to_vec() });
        true
    }

    /// Another resource of the user takes messages now: those that are stored need not wait for a
    /// session that may never come back.
    pub(super) fn free_stored(&mut self, bare: &str) {
        for stream in self.sessions.streams_of(|it| it.address.bare() == bare) {
            let Some((_, detached)) = self.detached_of(key_of(stream)) else { continue };
            let mut rows = Vec::new();
            for held in &mut detached.queue {
                if let Some(row) = held.origin.and_then(Origin::row) {
                    rows.push(row);
                    held.origin = None;
                    detached.bytes -= held.text.len();
                    held.text = Vec::new();
                }
            }
            for row in rows {
                self.row_returned(row);
            }
        }
    }

    pub(super) fn detached_of(&mut self, key: ConnId) -> Option<(u32, &mut Detached)> {
        let stream = stream_of(key)?;
        Some((stream, self.sessions.get_mut(stream)?.detached.as_deref_mut()?))
    }

    /// Sets when to look after a session; like a connection it keeps one token in the wheel.
    fn watch_session(&mut self, stream: u32) {
        let now = self.now.moment;
        let Some((_, detached)) = self.detached_of(key_of(stream)) else { return };
        let deadline = detached.next_deadline(now);
        if deadline < detached.armed {
            detached.armed = deadline;
            self.timers.set(deadline, Timer::Session(stream));
        }
    }

    /// Something of a session without a connection may be overdue.
    pub(super) fn detached_due(&mut self, stream: u32) {
        let now = self.now.moment;
        let Some((_, detached)) = self.detached_of(key_of(stream)) else { return };
        if detached.armed <= now {
            detached.armed = Moment::NEVER;
        }
        if detached.until <= now {
            self.counters.sessions_timed_out += 1;
            return self.end_session(stream);
        }
        let mut late = Vec::new();
        for (at, held) in detached.queue.iter().enumerate() {
            if let Some(origin) = held.origin
                && now.since(held.since) >= IN_FLIGHT_TIME_MAX
            {
                late.push((at, origin));
            }
        }
        for (at, origin) in late {
            self.held_too_long(stream, at, origin);
        }
        self.watch_session(stream);
    }

    /// The sender of a stanza that is held hears that nobody took it, unless it is in the store. Its
    /// place in the count is left.
    fn held_too_long(&mut self, stream: u32, at: usize, origin: Origin) {
        let account = match origin.row() {
            None => Some(origin),
            Some(row) => self.take_account(row),
        };
        let Some((_, detached)) = self.detached_of(key_of(stream)) else { return };
        let Some(held) = detached.queue.get_mut(at).filter(|_| account.is_some()) else { return };
        let (text, since) = (std::mem::take(&mut held.text), held.since);
        (held.origin, held.presence) = (None, None);
        detached.bytes -= text.len();
        self.with_written(account, since, &text, |shard, carry| {
            shard.bounce(carry, StanzaFault::RecipientUnavailable);
        });
    }

    /// Nobody resumes it any more: its resource is gone, and what it held goes another way.
    pub(super) fn end_session(&mut self, stream: u32) {
        let Some(mut session) = self.sessions.remove(stream) else { return };
        let Some(detached) = session.detached.take() else { return };
        self.resource_gone(session.key, &session.address);
        for held in detached.queue {
            if held.origin.is_some() {
                self.counters.undelivered += 1;
                self.another_way(held.origin, held.since, &held.text);
            }
        }
    }

    /// All sessions without a connection end, or those of one user.
    pub(super) fn end_sessions(&mut self, user: Option<&str>) {
        for stream in self.sessions.streams_of(|it| user.is_none_or(|u| it.address.bare() == u)) {
            self.end_session(stream);
        }
    }

    /// Makes room for one more resource of a user; false: all that he has are connected.
    pub(super) fn end_oldest_session(&mut self, bare: &str) -> bool {
        let oldest = self.sessions.oldest_detached(bare);
        if let Some(stream) = oldest {
            self.end_session(stream);
        }
        oldest.is_some()
    }
}

fn presence_key(from: &str, to: &str) -> Box<str> {
    // No address has a line feed in it.
    format!("{from}\n{to}").into()
}
