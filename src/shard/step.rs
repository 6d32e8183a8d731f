//! One turn of a shard: take what came, decide, hand over what is to be sent.
//!
//! Everything that arrived is taken before anything is sent, so under load many stanzas share one
//! send per connection; the cost per stanza falls by itself when there is much to do.

use crate::limits::{CLIENT_STANZA_BYTES_MAX, POST_AGAIN_AFTER, SWEEP_EVERY, TRIM_EVERY};
use crate::shard::conn::{Conn, Role};
use crate::shard::deliver::{Books, look};
use crate::shard::kernel::{ConnId, Ending, Engine, Event, Kernel, Next, Read};
use crate::shard::{Request, Shard, Timer};
use crate::time::{Moment, Now};
use crate::xmpp::fault::StreamFault;
use crate::xmpp::frame::{Limits, Next as Framed};
use crate::xmpp::sm;

impl Engine for Shard {
    fn step<K: Kernel>(&mut self, now: Now, kernel: &mut K) -> Next {
        self.now = now;
        self.net = kernel.net_counters();
        self.restore();
        while let Some(event) = kernel.next() {
            self.take(event);
        }
        self.fire_timers();
        self.tell_verdicts();
        self.settle_sip();
        self.tell_sip();
        self.settle_rows();
        self.relieve();
        self.ask_to_keep();
        self.flush(kernel);
        self.settle(kernel);
        self.trim();
        self.publish(kernel);
        Next { deadline: self.deadline(), done: self.is_done() }
    }
}

impl Shard {
    /// Told to stop, alone, and nothing is on its way into the store.
    fn is_done(&self) -> bool {
        self.stopping && self.conns.len() == 0 && self.gates.is_idle()
    }

    /// When the next turn is at the latest: at once if this one left something to be flushed, soon
    /// if other shards had no room for what they must hear.
    fn deadline(&self) -> Moment {
        let timer = self.timers.next_deadline().unwrap_or(Moment::NEVER);
        if !self.dirty.is_empty()
            || !self.verdicts.is_empty()
            || !self.sip.handled.is_empty()
            || self.owes_notes()
            || self.owes_sip()
        {
            self.now.moment
        } else if !self.posts.is_empty() || self.outcomes.iter().any(|it| it.any) {
            timer.min(self.now.moment + POST_AGAIN_AFTER)
        } else {
            timer
        }
    }

    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Received { conn, bytes } => self.received(conn, bytes),
            Event::Sent { conn, buffer } => self.sent(conn, buffer),
            Event::Datagram { listener, remote, bytes } => self.datagram(listener, remote, bytes),
            Event::Posted { from, record } => self.posted(from, record),
            Event::Accepted { conn, listener, remote } => self.accepted(conn, listener, remote),
            Event::Arrived { conn, parcel } => self.arrived(conn, *parcel),
            Event::Connected { conn, ticket, remote } => self.connected(conn, ticket, remote),
            Event::ConnectFailed { ticket, reason } => self.connect_failed(ticket, reason),
            Event::Gone { conn, unacknowledged, .. } => self.gone(conn, unacknowledged),
            Event::Answered(answer) => self.answered(answer),
            Event::Ordered(order) => self.ordered(order),
        }
    }

    /// Octets of a connection: through TLS if it has it, then frame by frame.
    fn received(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(mut conn) = self.conns.take(id) else { return };
        conn.heard = self.now.moment;
        if conn.is_closing() {
            // Our side is closed: what still comes is not listened to.
            self.read_on(&conn);
        } else if conn.tls.is_some() {
            self.opened_up(&mut conn, bytes);
        } else {
            self.clear(&mut conn, bytes);
        }
        self.done_with(conn);
    }

    /// Ciphertext.
    pub(super) fn opened_up(&mut self, conn: &mut Conn, bytes: &[u8]) {
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let Some(tls) = conn.tls.as_mut() else { return };
        let was_established = tls.is_established();
        let fed = tls.feed(bytes, &mut plain);
        // The session may have something to say: a flight, an alert.
        if !was_established || fed.is_err() {
            self.mark(conn.id);
        }
        match fed {
            Err(fault) => self.tls_failed(conn, &fault),
            Ok(fed) => {
                if fed.is_established_now {
                    self.secured(conn);
                }
                self.clear(conn, &plain);
                if fed.is_closed && !conn.is_closing() {
                    self.lose(conn, Ending::Orderly);
                }
            }
        }
        self.plain = plain;
    }

    /// Clear text: whole frames are worked on where they lie, an unfinished one is put aside.
    pub(super) fn clear(&mut self, conn: &mut Conn, bytes: &[u8]) {
        if conn.tail.is_empty() {
            let done = self.frames(conn, bytes);
            let rest = bytes.get(done..).unwrap_or_default();
            if !conn.is_closing() {
                conn.tail.extend_from_slice(rest);
            }
        } else {
            let mut tail = std::mem::take(&mut conn.tail);
            tail.extend_from_slice(bytes);
            let done = self.frames(conn, &tail);
            if done < tail.len() && !conn.is_closing() {
                tail.drain(..done);
                conn.tail = tail;
            }
        }
        if conn.parked && conn.streaming && conn.tail.len() > CLIENT_STANZA_BYTES_MAX {
            // It has said enough until it is let go.
            conn.choked = true;
            self.mark(conn.id);
        }
        self.read_on(conn);
    }

    /// Works on frames as far as they are whole; returns how many octets they took.
    fn frames(&mut self, conn: &mut Conn, bytes: &[u8]) -> usize {
        if matches!(conn.role, Role::Sip(_)) {
            return self.sip_frames(conn, bytes);
        }
        let mut at = 0;
        while !conn.parked && !conn.is_closing() && !self.choked(conn) {
            let rest = bytes.get(at..).unwrap_or_default();
            match conn.framer.next(rest, limits_of(conn)) {
                Ok(Framed::Incomplete) => break,
                Ok(Framed::Element(stanza, length)) => {
                    at += length;
                    let frame = rest.get(..length).unwrap_or_default();
                    match conn.role {
                        Role::Bound(_) => self.client_stanza(conn, frame, &stanza),
                        Role::Login(_) => self.login_element(conn, frame, &stanza),
                        Role::PeerIn(_) => self.peer_element(conn, frame, &stanza),
                        Role::PeerOut(_) => self.way_element(conn, frame, &stanza),
                        Role::Sip(_) => {}
                    }
                    if conn.tls.as_ref().is_some_and(|tls| !tls.is_established()) {
                        // RFC 6120, 5.4.3.3: nothing may be sent between <starttls/> and the
                        // handshake; octets that are would be read as if TLS had protected them.
                        // Blanks say nothing, and go-xmpp ends its <starttls/> with a line feed.
                        let rest = bytes.get(at..).unwrap_or_default();
                        if rest.iter().all(u8::is_ascii_whitespace) {
                            at = bytes.len();
                        } else {
                            self.counters.pipelined_before_tls += 1;
                            self.close(conn, Ending::Abort);
                        }
                    }
                }
                Ok(Framed::Whitespace(length)) => at += length,
                Ok(Framed::Open(header, length)) => {
                    at += length;
                    let frame = rest.get(..length).unwrap_or_default();
                    match conn.role {
                        Role::Login(_) => self.login_open(conn, frame, &header),
                        Role::PeerIn(_) => self.peer_open(conn, frame, &header),
                        Role::PeerOut(_) => self.way_open(conn, frame, &header),
                        Role::Bound(_) | Role::Sip(_) => {
                            self.stream_fault(conn, StreamFault::NotWellFormed);
                        }
                    }
                }
                Ok(Framed::Close(length)) => {
                    at += length;
                    self.far_end_closed(conn);
                }
                Err(fault) => self.stream_fault(conn, fault),
            }
        }
        at
    }

    /// Backpressure: who does not read his answers is not asked for more questions. What he has
    /// sent already waits in his tail.
    pub(super) fn choked(&mut self, conn: &mut Conn) -> bool {
        if conn.choked {
            return true;
        }
        if self.is_held_up(conn) {
            self.hold_up(conn);
        } else if self.conns.outbox(conn.id).is_none_or(|outbox| !outbox.is_high()) {
            return false;
        }
        conn.choked = true;
        self.counters.choked += 1;
        self.mark(conn.id);
        true
    }

    /// Its outbox has drained: it is read again, unless something else holds it up.
    pub(super) fn unchoke(&mut self, conn: &mut Conn) {
        if conn.choked && !conn.parked && !self.is_held_up(conn) {
            conn.choked = false;
            if conn.streaming {
                self.requests.push(Request::Read(conn.id, Read::Stream));
            }
            self.clear(conn, &[]);
        }
    }

    /// Asks for more to read, unless somebody has to answer or make room first.
    pub(super) fn read_on(&mut self, conn: &Conn) {
        if !conn.streaming && !conn.parked && !conn.closed && !conn.choked {
            self.requests.push(Request::Read(conn.id, Read::Once));
        }
    }

    fn sent(&mut self, id: ConnId, buffer: Vec<u8>) {
        let Some(outbox) = self.conns.outbox(id) else { return self.buffers.give(buffer) };
        let spare = outbox.sent(buffer);
        let low = outbox.is_low();
        let caught_up = outbox.catches_up();
        self.buffers.give(spare);
        if caught_up {
            self.caught_up(id);
        }
        if low {
            self.way_has_room(id);
            self.line_has_room(id);
        }
        let more = self.conns.outbox(id).is_some_and(|outbox| outbox.waiting_bytes() > 0);
        // Nearly always there is nothing more to it.
        if self.conns.get(id).is_some_and(|conn| conn.is_at_ease()) {
            if more {
                self.mark(id);
            }
            return;
        }
        let Some(mut conn) = self.conns.take(id) else { return };
        if low {
            self.unchoke(&mut conn);
        }
        // A handshake may have something to say that found the send before it still out.
        let finish = conn.is_closing() || (conn.tls.is_some() && !conn.streaming);
        self.done_with(conn);
        if more || finish {
            self.mark(id);
        }
    }

    fn fire_timers(&mut self) {
        while let Some(timer) = self.timers.pop_due(self.now.moment) {
            match timer {
                Timer::Conn(id) => self.conn_due(id),
                Timer::Way(ticket) => self.way_due(ticket),
                Timer::Sip(due) => self.sip_due(due),
                Timer::Job(ticket) => self.job_due(ticket),
                Timer::Later(ticket) => self.later_due(ticket),
                Timer::Records => self.forget_idle(),
                Timer::Messages => self.offer_again(),
                Timer::Session(stream) => self.detached_due(stream),
                // It only makes the turn happen: `settle` does the work.
                Timer::Sweep => {}
                Timer::Trim => self.trimming = false,
            }
        }
    }

    /// Streams that wait for a key's verdict hear it: they may have been at work when it came.
    fn tell_verdicts(&mut self) {
        while !self.verdicts.is_empty() {
            for (ticket, near, far, verdict) in std::mem::take(&mut self.verdicts) {
                self.verified(ticket, &near, &far, verdict);
            }
        }
    }

    /// One send per connection that has something to say.
    fn flush<K: Kernel>(&mut self, kernel: &mut K) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            self.flush_one(id, kernel);
        }
        // Whoever has more to say because a send was done at once says it in the next turn.
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    fn flush_one<K: Kernel>(&mut self, id: ConnId, kernel: &mut K) {
        let Some((conn, outbox)) = self.conns.flushing(id) else { return };
        if conn.closed {
            return;
        }
        if conn.closing == Some(Ending::Abort) {
            // Also while a send is out: it may be out for ever.
            conn.closed = true;
            return kernel.close(id, Ending::Abort);
        }
        if conn.choked {
            kernel.read(id, Read::Pause);
        }
        if outbox.is_sending() {
            return;
        }
        if outbox.wants_look() {
            let books = Books {
                account: &mut self.account,
                outcomes: &mut self.outcomes,
                handled: &mut self.handled,
                delivered: &mut self.rows.delivered,
                gateway: &mut self.sip.handled,
                shard: self.id,
                unconfirmed: matches!(conn.role, Role::PeerIn(_) | Role::PeerOut(_)),
            };
            let buffers = &mut self.buffers;
            look(outbox, id, kernel, books, buffers);
        }
        if outbox.asks(self.now.moment) && conn.closing.is_none() {
            sm::ask(outbox.buffer());
            outbox.asked(self.now.moment);
        }
        match conn.tls.as_mut() {
            None if outbox.waiting_bytes() > 0 => {
                let bytes = outbox.take_plain(&mut self.buffers);
                self.send_off(id, bytes, kernel);
            }
            None => {}
            Some(tls) => {
                let mut wire = self.buffers.take();
                let is_last = conn.closing.is_some();
                // What was written before the handshake (<proceed/>) went out in clear text.
                let plain = outbox.take_sealed(&mut wire, |plain, wire| {
                    if !tls.is_established() {
                        wire.extend_from_slice(plain);
                    }
                    tls.pending_out(wire);
                    if tls.is_established() && !plain.is_empty() && tls.seal(plain, wire).is_err() {
                        wire.clear();
                    }
                    if is_last && tls.is_established() {
                        // RFC 8446, 6.1: so the far end knows that nothing was cut off.
                        tls.close(wire);
                    }
                });
                self.buffers.give(plain);
                if wire.is_empty() {
                    self.buffers.give(wire);
                } else {
                    self.send_off(id, wire, kernel);
                }
            }
        }
        let Some((conn, outbox)) = self.conns.both(id) else { return };
        outbox.leave_room(&mut self.buffers);
        if let Some(ending) = conn.closing
            && outbox.is_empty()
        {
            conn.closed = true;
            kernel.close(id, ending);
        }
    }

    /// To the kernel, which may be done with it at once.
    #[inline]
    fn send_off<K: Kernel>(&mut self, id: ConnId, bytes: Vec<u8>, kernel: &mut K) {
        if let Some(buffer) = kernel.send_now(id, bytes) {
            self.sent(id, buffer);
        }
    }

    /// Every second, as long as there are buffers that nobody holds.
    fn trim(&mut self) {
        if self.trimming || self.buffers.is_empty() {
            return;
        }
        if self.buffers.trim() {
            self.trimming = true;
            self.timers.set(self.now.moment + TRIM_EVERY, Timer::Trim);
        }
    }

    /// Looks at what the kernels of the far ends have acknowledged by now.
    fn settle<K: Kernel>(&mut self, kernel: &mut K) {
        if self.owing.is_empty() || self.now.moment < self.settle_at {
            return;
        }
        let mut owing = std::mem::take(&mut self.owing);
        owing.retain(|id| self.acknowledged(*id, kernel));
        // One that was given up may have made others owe.
        owing.append(&mut self.owing);
        self.owing = owing;
        if !self.owing.is_empty() {
            self.settle_at = self.now.moment + SWEEP_EVERY;
            self.timers.set(self.settle_at, Timer::Sweep);
        }
    }

    /// What goes to other shards and to the control thread.
    fn publish<K: Kernel>(&mut self, kernel: &mut K) {
        self.post_outcomes();
        self.send_posts(kernel);
        // A question that finds no room is answered at once, which may ask for more.
        while !self.requests.is_empty() {
            let mut requests = std::mem::take(&mut self.requests);
            for request in requests.drain(..) {
                match request {
                    Request::Read(id, how) => {
                        if self.conns.get(id).is_some_and(|conn| !conn.choked && !conn.closed) {
                            kernel.read(id, how);
                        }
                    }
                    Request::Close(conn, ending) => kernel.close(conn, ending),
                    Request::Connect(ticket, target) => kernel.connect(ticket, target),
                    Request::HandOver(conn, to, parcel) => kernel.hand_over(conn, to, parcel),
                    Request::Datagram(listener, remote, bytes) => {
                        kernel.send_datagram(listener, remote, &bytes);
                    }
                    Request::Fail(job) => self.job_failed(job),
                    Request::Ask(question) => {
                        if let Err(question) = kernel.ask(question) {
                            self.unasked(*question);
                        }
                    }
                }
            }
            if self.requests.is_empty() {
                self.requests = requests;
            }
        }
    }
}

/// How much a far end may send depends on what it has shown.
fn limits_of(conn: &Conn) -> &'static Limits {
    match &conn.role {
        Role::Bound(_) => &Limits::CLIENT,
        Role::PeerIn(peer) if peer.is_proved() => &Limits::SERVER,
        Role::Login(login) if login.is_proved() => &Limits::CLIENT,
        // A server that we called has proven nothing until our key or certificate is taken.
        Role::PeerOut(peer) if peer.is_open() => &Limits::SERVER,
        Role::PeerOut(_) => &Limits::CALLED,
        Role::Login(_) | Role::PeerIn(_) | Role::Sip(_) => &Limits::STRANGER,
    }
}
