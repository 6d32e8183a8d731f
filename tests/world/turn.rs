//! The kernel as one shard sees it in one turn: `Kernel` to the letter of its documentation.

use std::net::SocketAddr;
use std::time::Duration;

use tandem::shard::Parcel;
use tandem::shard::kernel::{
    ConnId, Ending, Event, Full, Gone, Kernel, Question, Read, ShardId, Ticket,
};

use crate::kernel::{Core, Happening, Heard, LATENCY, LINGER};

/// The kernel as one shard sees it in one turn.
pub(crate) struct Turn<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) shard: usize,
    /// Events of this turn at most.
    pub(crate) budget: usize,
    pub(crate) lent: Vec<u8>,
}

impl Turn<'_> {
    fn wire(&mut self, conn: ConnId, doing: &str) -> Option<usize> {
        let slot = self.core.sides[self.shard].conns.get(conn.index as usize).copied();
        match slot {
            Some((generation, Some(wire))) if generation == conn.generation => Some(wire),
            _ => {
                // Not its fault while the news is on the way.
                let inbox = &self.core.sides[self.shard].inbox;
                let unread = inbox.iter().any(|h| matches!(h, Heard::Gone(c, ..) if *c == conn));
                if !unread {
                    let shard = self.shard;
                    self.core.fault(format!("shard {shard}: {doing} a connection that is gone"));
                }
                None
            }
        }
    }
}

impl Kernel for Turn<'_> {
    fn next(&mut self) -> Option<Event<'_>> {
        if self.budget == 0 {
            return None;
        }
        self.budget -= 1;
        Some(match self.core.sides[self.shard].inbox.pop_front()? {
            Heard::Accepted(conn, listener, remote) => Event::Accepted { conn, listener, remote },
            Heard::Connected(conn, ticket, remote) => Event::Connected { conn, ticket, remote },
            Heard::ConnectFailed(ticket, reason) => Event::ConnectFailed { ticket, reason },
            Heard::Received(conn, bytes) => {
                self.lent = bytes;
                Event::Received { conn, bytes: &self.lent }
            }
            Heard::Sent(conn, buffer) => Event::Sent { conn, buffer },
            Heard::Gone(conn, why, unacknowledged) => Event::Gone { conn, why, unacknowledged },
            Heard::Posted(from, record) => {
                self.lent = record;
                Event::Posted { from, record: &self.lent }
            }
            Heard::Arrived(conn, parcel) => Event::Arrived { conn, parcel },
            Heard::Answered(answer) => Event::Answered(answer),
            Heard::Ordered(order) => Event::Ordered(order),
        })
    }

    fn read(&mut self, conn: ConnId, how: Read) {
        if let Some(wire) = self.wire(conn, "reads") {
            self.core.wires[wire].mode = Some(how);
            self.core.deliver_up(wire);
        }
    }

    fn send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let Some(wire) = self.wire(conn, "sends to") else {
            // The buffer comes back in any case, before the end that is still unread.
            let inbox = &mut self.core.sides[self.shard].inbox;
            let end = inbox.iter().position(|h| matches!(h, Heard::Gone(c, ..) if *c == conn));
            if let Some(at) = end {
                if let Some(Heard::Gone(_, _, unacknowledged)) = inbox.get_mut(at) {
                    *unacknowledged += bytes.len() as u64;
                }
                inbox.insert(at, Heard::Sent(conn, bytes));
            }
            return;
        };
        let w = &mut self.core.wires[wire];
        if w.sending.is_some() {
            return self.core.fault("a second send while one is out".into());
        }
        if w.closing {
            return self.core.fault("a send after the close".into());
        }
        if bytes.is_empty() {
            return self.core.fault("an empty send".into());
        }
        if w.handed == w.acknowledged {
            w.progress = self.core.now;
        }
        w.handed += bytes.len() as u64;
        w.sending = Some((bytes, 0));
        if w.broken {
            self.core.finish(wire, Gone::Broken);
        } else {
            self.core.take_down(wire);
        }
    }

    fn close(&mut self, conn: ConnId, ending: Ending) {
        let Some(wire) = self.wire(conn, "closes") else { return };
        match ending {
            Ending::Abort => {
                self.core.wires[wire].saw_reset = true;
                self.core.finish(wire, Gone::Closed);
            }
            Ending::Orderly => {
                let w = &mut self.core.wires[wire];
                if w.closing {
                    return self.core.fault("a second orderly close".into());
                }
                w.closing = true;
                w.up.clear();
                self.core.later(LINGER, Happening::Linger(wire, conn));
                self.core.schedule_down(wire);
                self.core.notice(wire);
            }
        }
    }

    fn unacknowledged(&mut self, conn: ConnId) -> u64 {
        match self.wire(conn, "asks about") {
            Some(wire) => self.core.wires[wire].handed - self.core.wires[wire].acknowledged,
            None => u64::MAX,
        }
    }

    fn connect(&mut self, ticket: Ticket, target: SocketAddr) {
        self.core.later(LATENCY, Happening::Connect(self.shard, ticket, target));
    }

    fn post(&mut self, to: ShardId, record: &[u8]) -> Result<(), Full> {
        let to = usize::from(to.0);
        if to == self.shard {
            self.core.fault("a shard posts to itself".into());
        }
        let held = &mut self.core.mesh_held[self.shard][to];
        if self.core.mesh_full || *held >= self.core.mesh_max {
            return Err(Full);
        }
        *held += 1;
        let happening = Happening::Posted(self.shard, to, record.to_vec());
        self.core.later(Duration::from_micros(10), happening);
        Ok(())
    }

    fn hand_over(&mut self, conn: ConnId, to: ShardId, parcel: Box<Parcel>) {
        let Some(wire) = self.wire(conn, "hands over") else { return };
        let to = usize::from(to.0);
        let w = &mut self.core.wires[wire];
        if matches!(w.mode, Some(Read::Once | Read::Stream)) {
            self.core.fault("a connection is handed over while it is read".into());
        } else if w.sending.is_some() && !w.broken {
            w.moving = Some((to, parcel));
        } else {
            w.sending = None;
            self.core.release(wire);
            self.core.later(Duration::from_micros(20), Happening::Arrive(wire, to, parcel));
        }
    }

    fn ask(&mut self, question: Question) -> Result<(), Box<Question>> {
        if self.core.control_full && !matches!(question, Question::Report { .. }) {
            return Err(Box::new(question));
        }
        let now = self.core.now;
        if let Some((after, answer)) = self.core.control.ask(now, self.shard, question) {
            self.core.later(after, Happening::Heard(self.shard, Heard::Answered(answer)));
        }
        Ok(())
    }
}
