//! A client's stream management: what it sent and is not handed on yet, and what it is told.
//!
//! XEP-0198, 3 and 4. The `h` we say covers the stanzas that were handed on without a gap: delivered,
//! stored, returned, refused or discarded by rule, as their accounts say. What is not handed on yet is
//! remembered by a digest, so that a client which sends it again on a resumed stream is not heard
//! twice. What we sent and the client has not acknowledged is in `outbox.rs`; a session without a
//! connection is `session.rs`'s. Streams of peers have **no** stream management.

use std::collections::VecDeque;

use xxhash_rust::xxh3::xxh3_64;

use crate::limits::{SESSION_TIME_MAX, UNHANDLED_STANZAS_LOW, UNHANDLED_STANZAS_MAX};
use crate::shard::Shard;
use crate::shard::conn::{Conn, Role};
use crate::shard::deliver::Books;
use crate::shard::kernel::ConnId;
use crate::shard::outbox::Outbox;
use crate::shard::session::Session;
use crate::xmpp::fault::{StanzaFault, StreamFault};
use crate::xmpp::sm::{self, Element, Input, Managed, Refusal};
use crate::xmpp::stanza::Stanza;

/// What a client sent, from the first stanza on that is not handed on.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// Handed on without a gap (mod 2^32): the `h` we say.
    handled: u32,
    /// The number of the next stanza, which its account carries; it only grows.
    next: u32,
    /// In the order of their numbers.
    pending: VecDeque<Pending>,
    /// On a resumed stream: the place in `pending` of what the client will send again next.
    replay: Option<usize>,
    /// An `<r/>` is answered once more when the stanza of this number is handed on.
    asked: Option<u32>,
    /// That is the case now.
    due: bool,
    /// There are too many: the client is not read.
    held_up: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    number: u32,
    digest: u64,
    done: bool,
}

/// What a stanza of a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Heard for the first time, with its number.
    New(u32),
    /// Heard before: it is to be passed over.
    Again,
}

impl Inbound {
    /// The `h` of this moment.
    pub(crate) fn handled(&self) -> u32 {
        self.handled
    }

    /// A stanza came, of this digest.
    pub(crate) fn receive(&mut self, digest: u64) -> Received {
        if let Some(at) = self.replay {
            if self.pending.get(at).is_some_and(|it| it.digest == digest) {
                self.replay = Some(at + 1).filter(|it| *it < self.pending.len());
                self.advance();
                return Received::Again;
            }
            // The client goes on with something new: what it did not repeat is still on its way,
            // and counts for nothing on this stream.
            self.pending.truncate(at);
            self.replay = None;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.pending.push_back(Pending { number, digest, done: false });
        Received::New(number)
    }

    /// The account of the stanza of that number is closed.
    pub(crate) fn done(&mut self, number: u32) {
        let Some(base) = self.pending.front().map(|it| it.number) else { return };
        let place = number.wrapping_sub(base);
        let at = self.pending.partition_point(|it| it.number.wrapping_sub(base) < place);
        if let Some(it) = self.pending.get_mut(at).filter(|it| it.number == number) {
            it.done = true;
            self.advance();
        }
    }

    /// Counts what is handed on without a gap; on a resumed stream only what was heard on it.
    fn advance(&mut self) {
        while self.replay != Some(0)
            && let Some(it) = self.pending.front().copied().filter(|it| it.done)
        {
            self.pending.pop_front();
            self.handled = self.handled.wrapping_add(1);
            self.replay = self.replay.map(|at| at - 1);
            if self.asked == Some(it.number) {
                (self.asked, self.due) = (None, true);
            }
        }
    }

    /// `<r/>` came: what was heard up to now is waited for.
    pub(crate) fn ask(&mut self) {
        let heard = self.replay.unwrap_or(self.pending.len());
        self.asked = heard.checked_sub(1).and_then(|at| self.pending.get(at)).map(|it| it.number);
    }

    /// All that an `<r/>` waited for is handed on, and this was not said yet.
    pub(crate) fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }

    /// The connection is lost.
    pub(crate) fn lost(&mut self) {
        (self.replay, self.asked, self.due, self.held_up) = (None, None, false, false);
        self.advance();
    }

    /// Another connection goes on: the client repeats what is behind our `h`.
    pub(crate) fn resumed(&mut self) {
        self.replay = (!self.pending.is_empty()).then_some(0);
    }

    /// So much is not handed on that nothing more is read. Repetitions are no more.
    pub(crate) fn is_full(&self) -> bool {
        self.replay.is_none() && self.pending.len() >= UNHANDLED_STANZAS_MAX
    }

    /// It was held up and is not any longer.
    fn take_relief(&mut self) -> bool {
        let relieved = self.held_up && self.pending.len() <= UNHANDLED_STANZAS_LOW;
        self.held_up &= !relieved;
        relieved
    }
}

impl Shard {
    /// An element of stream management from a client that has a resource.
    pub(super) fn managed_element(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        let element = match sm::parse(frame, stanza) {
            Ok(element) => element,
            Err(fault) => return self.stream_fault(conn, fault),
        };
        let Role::Bound(bound) = &conn.role else { return };
        let stream = bound.stream;
        let state = self.sessions.get(stream).map_or(Managed::Off, |it| it.state);
        match state.handle(input_of(&element)) {
            Err(Refusal::Failed(fault)) => self.management_failed(conn.id, fault, None),
            Err(Refusal::Stream(fault)) => {
                self.counters.sm_refused += 1;
                self.stream_fault(conn, fault);
            }
            Ok(_) => match element {
                Element::Enable(resumable) => self.enable(conn, resumable),
                Element::Ask => self.asked(conn.id, stream),
                Element::Ack(handled) => self.acked(conn, handled),
                Element::Resume(..) => {}
            },
        }
    }

    /// The same before a resource is bound (XEP-0198, 3 and 5).
    pub(super) fn login_managed(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        let element = match sm::parse(frame, stanza) {
            Ok(element) => element,
            Err(fault) => return self.stream_fault(conn, fault),
        };
        match (Managed::Unbound.handle(input_of(&element)), element) {
            (Err(Refusal::Stream(fault)), _) => self.stream_fault(conn, fault),
            (Ok(_), Element::Resume(previd, handled)) => {
                self.resume_requested(conn, &previd, handled);
            }
            (Err(Refusal::Failed(fault)), _) => self.management_failed(conn.id, fault, None),
            (Ok(_), _) => {}
        }
    }

    /// XEP-0198, 6: recoverable, the stream goes on.
    pub(super) fn management_failed(&mut self, id: ConnId, fault: StanzaFault, h: Option<u32>) {
        self.counters.sm_refused += 1;
        self.write(id, |out| sm::failed(fault, h, out));
    }

    /// XEP-0198, 3.
    fn enable(&mut self, conn: &mut Conn, resumable: bool) {
        let secret = u128::from(self.random.number()) << 64 | u128::from(self.random.number());
        let Role::Bound(bound) = &mut conn.role else { return };
        let address = bound.address.clone();
        let id = self.sessions.insert(|stream| {
            let id = sm::SessionId { stream, secret };
            Session::new(id, address, Managed::On(resumable), conn.id)
        });
        bound.stream = id.stream;
        self.counters.sm_enabled += 1;
        let resumable = resumable.then_some((&id, SESSION_TIME_MAX.as_secs()));
        self.write(conn.id, |out| sm::enabled(resumable, out));
        if let Some(outbox) = self.conns.outbox(conn.id) {
            outbox.manage(0, self.now.moment);
        }
    }

    /// `<r/>`: answered at once, and once more when all that came before it is handed on.
    fn asked(&mut self, id: ConnId, stream: u32) {
        self.note_handled();
        let Some(session) = self.sessions.get_mut(stream) else { return };
        session.inbound.ask();
        let handled = session.inbound.handled();
        self.write(id, |out| sm::ack(handled, out));
    }

    /// `<a/>`: what the client has handled is delivered.
    fn acked(&mut self, conn: &mut Conn, handled: u32) {
        let Some(outbox) = self.conns.outbox(conn.id) else { return };
        let mut books = Books {
            account: &mut self.account,
            outcomes: &mut self.outcomes,
            handled: &mut self.handled,
            delivered: &mut self.rows.delivered,
            gateway: &mut self.sip.handled,
            shard: self.id,
            unconfirmed: false,
        };
        let buffers = &mut self.buffers;
        let taken = outbox.handled(
            handled,
            self.now.moment,
            |receipt| books.close(receipt.origin),
            |buffer| buffers.give(buffer),
        );
        if let Err(sent) = taken {
            return self.handled_too_high(conn, handled, sent);
        }
        if self.conns.outbox(conn.id).is_some_and(|it| it.asks(self.now.moment)) {
            self.mark(conn.id);
        }
        if self.conns.outbox(conn.id).is_some_and(|it| it.has_room() && it.catches_up()) {
            self.caught_up(conn.id);
        }
    }

    /// XEP-0198, 6: the stream ends.
    pub(super) fn handled_too_high(&mut self, conn: &mut Conn, handled: u32, sent: u32) {
        self.counters.sm_too_high += 1;
        self.counters.stream_faults[StreamFault::UndefinedCondition.index()] += 1;
        self.write(conn.id, |out| sm::too_high(handled, sent, out));
        self.close(conn, crate::shard::kernel::Ending::Orderly);
    }

    /// A stanza of a client that counts: its number, or `None` if it was heard before.
    pub(super) fn number(&mut self, stream: u32, frame: &[u8]) -> Option<u32> {
        let session = self.sessions.get_mut(stream)?;
        match session.inbound.receive(xxh3_64(frame)) {
            Received::New(number) => Some(number),
            Received::Again => {
                self.counters.duplicates_swallowed += 1;
                self.say_due(stream);
                None
            }
        }
    }

    /// Notes whose accounts are closed, and says so to those who asked.
    pub(super) fn note_handled(&mut self) {
        if self.handled.is_empty() {
            return;
        }
        let mut handled = std::mem::take(&mut self.handled);
        for (stream, number) in handled.drain(..) {
            let Some(session) = self.sessions.get_mut(stream) else { continue };
            session.inbound.done(number);
            if session.inbound.take_relief() {
                let key = session.key;
                self.sessions.relieved.push(key);
            }
            self.say_due(stream);
        }
        self.handled = handled;
    }

    fn say_due(&mut self, stream: u32) {
        let Some(session) = self.sessions.get_mut(stream) else { return };
        if session.inbound.take_due() {
            let (id, handled) = (session.key, session.inbound.handled());
            self.write(id, |out| sm::ack(handled, out));
        }
    }

    /// At the turn's end: accounts are noted, and who was held up for them is read again.
    pub(super) fn relieve(&mut self) {
        self.note_handled();
        while !self.sessions.relieved.is_empty() {
            for id in std::mem::take(&mut self.sessions.relieved) {
                let low = self.conns.outbox(id).is_some_and(|outbox| outbox.is_low());
                let Some(mut conn) = self.conns.take(id) else { continue };
                if low {
                    self.unchoke(&mut conn);
                }
                self.done_with(conn);
            }
            self.note_handled();
        }
    }

    /// Something was acknowledged at the end of this turn that is to be noted in the next.
    pub(super) fn owes_notes(&self) -> bool {
        !self.handled.is_empty() || !self.rows.delivered.is_empty()
    }

    /// Too much of what this client sent is not handed on.
    pub(super) fn is_held_up(&self, conn: &Conn) -> bool {
        match &conn.role {
            Role::Bound(bound) if bound.stream != 0 => {
                self.sessions.get(bound.stream).is_some_and(|it| it.inbound.is_full())
            }
            _ => false,
        }
    }

    /// It is not read for that reason.
    pub(super) fn hold_up(&mut self, conn: &Conn) {
        let Role::Bound(bound) = &conn.role else { return };
        if let Some(session) = self.sessions.get_mut(bound.stream) {
            session.inbound.held_up = true;
            self.counters.sm_held_up += 1;
        }
    }

    /// A stanza of ours for a client, on nobody's account. One that takes nothing misses it: false.
    pub(super) fn tell(&mut self, id: ConnId, text: &[u8]) -> bool {
        match self.conns.outbox(id).map(|outbox| (outbox.has_room(), outbox.is_idle())) {
            Some((_, true)) => return self.tell_idle(id, text),
            Some((true, _)) => self.write_stanza(id, text),
            Some((false, _)) => {
                self.counters.outbox_full += 1;
                return false;
            }
            None => return self.hold_text(id, text),
        }
        true
    }

    /// Appends a stanza to an outbox whatever waits there: an answer to its own client.
    pub(super) fn write_stanza(&mut self, id: ConnId, text: &[u8]) {
        let now = self.now.moment;
        if self.conns.outbox(id).is_some_and(|outbox| !outbox.fits(text.len())) {
            self.counters.outbox_full += 1;
            return;
        }
        self.write(id, |out| out.extend_from_slice(text));
        let Some(outbox) = self.conns.outbox(id) else { return };
        if outbox.stanza(text.len(), None, now) {
            self.watch_outbox(id);
        }
    }

    /// Something in this outbox waits to be acknowledged.
    pub(super) fn watch_outbox(&mut self, id: ConnId) {
        let listed = |outbox: &mut Outbox| std::mem::replace(&mut outbox.listed, true);
        if self.conns.outbox(id).is_some_and(|outbox| !listed(outbox)) {
            self.owe(id);
        }
    }
}

fn input_of(element: &Element) -> Input {
    match element {
        Element::Enable(resumable) => Input::Enable(*resumable),
        Element::Ask => Input::Ask,
        Element::Ack(_) => Input::Ack,
        Element::Resume(..) => Input::Resume,
    }
}

#[cfg(test)]
#[path = "sm_tests.rs"]
mod tests;
