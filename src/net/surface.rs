//! The surface a shard calls, over any driver.
//!
//! Does **not** trust the shard with ids: one that is gone is ignored, since its event may still
//! be on the way.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use crate::limits::{CONNECT_TIME_MAX, UNACKNOWLEDGED_TIMEOUT};
use crate::net::conns::{Conn, Phase, Sending, Target};
use crate::net::driver::{Driver, Progress};
use crate::net::mesh::Posted;
use crate::net::phases::connect_reason;
use crate::net::pump::{Pick, Pump};
use crate::net::sys::{self, SockAddr};
use crate::shard::Parcel;
use crate::shard::kernel::{
    ConnId, Ending, Event, Full, Gone, Kernel, NetCounters, Question, Read, ShardId, Ticket,
};
use crate::shard::settings::ListenerId;
use crate::time::Moment;

impl<D: Driver> Pump<D> {
    /// The shard has not heard yet that the connection is gone: the buffer comes back before that,
    /// and its octets count as never acknowledged.
    fn send_too_late(&mut self, conn: ConnId, buffer: Vec<u8>) {
        let is_last =
            |event: &Event<'_>| matches!(event, Event::Gone { conn: of, .. } if *of == conn);
        let Some(place) = self.queue.iter().position(is_last) else { return };
        if let Some(Event::Gone { unacknowledged, .. }) = self.queue.get_mut(place) {
            *unacknowledged += buffer.len() as u64;
        }
        self.queue.insert(place, Event::Sent { conn, buffer });
    }

    fn connect_by(&mut self, ticket: Ticket, source: Option<IpAddr>, target: SocketAddr) {
        let made = sys::outbound(source, target, D::NONBLOCKING, self.base.not_sent_bytes);
        let fd = match made {
            Ok(fd) => fd,
            Err(error) => {
                let reason = connect_reason(&error);
                self.queue.push_back(Event::ConnectFailed { ticket, reason });
                return;
            }
        };
        let target = Box::new(Target { raw: SockAddr::from(target), remote: target, failed: None });
        let phase = Phase::Connecting { ticket, target };
        let index = self.base.conns.insert(Conn::new(fd, phase)).index;
        self.base.ends.hub.open.fetch_add(1, Ordering::Relaxed);
        self.set_deadline(index, CONNECT_TIME_MAX);
        self.driver.connect(&mut self.base, index);
    }
}

impl<D: Driver> Kernel for Pump<D> {
    fn next(&mut self) -> Option<Event<'_>> {
        self.release();
        Some(match self.pick()? {
            Pick::Owned(event) => event,
            Pick::Lent { conn, lent } => Event::Received { conn, bytes: self.driver.bytes(lent) },
            Pick::Held { conn } => Event::Received { conn, bytes: &self.held },
            Pick::Datagram { listener, remote, length } => Event::Datagram {
                listener: ListenerId(listener as u16),
                remote,
                bytes: self.base.datagrams.bytes(length),
            },
            Pick::Record { from, record } => {
                let consumer = self.base.ends.consumers.get(from).and_then(Option::as_ref);
                let record = consumer.map_or(&[][..], |consumer| consumer.bytes(record));
                Event::Posted { from: ShardId(from as u16), record }
            }
        })
    }

    fn read(&mut self, conn: ConnId, how: Read) {
        let Some(state) = self.base.conns.get(conn) else { return };
        if !matches!(state.phase, Phase::Open) || state.ended || state.read == how {
            return;
        }
        state.read = how;
        if !state.unread.is_empty() && how != Read::Pause {
            // What came along from another shard is older than what the socket has.
            self.unread.push_back(conn);
            return;
        }
        self.driver.arm(&mut self.base, conn.index);
    }

    fn send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        if let Some(buffer) = self.send_now(conn, bytes) {
            self.queue.push_back(Event::Sent { conn, buffer });
        }
    }

    #[inline]
    fn send_now(&mut self, conn: ConnId, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let Some(state) = self.base.conns.get(conn) else {
            self.send_too_late(conn, bytes);
            return None;
        };
        match state.phase {
            Phase::Open | Phase::Draining => {}
            // Comes back with the rest, before the connection's last event.
            Phase::Ending { .. } if state.sending.is_none() => {
                state.sending = Some(Sending { buffer: bytes, done: 0, out: false });
                return None;
            }
            _ => return Some(bytes),
        }
        assert!(state.sending.is_none(), "a second send while one is out");
        if bytes.is_empty() {
            return Some(bytes);
        }
        self.base.counters.sends += 1;
        state.sending = Some(Sending { buffer: bytes, done: 0, out: true });
        match self.driver.send(&mut self.base, conn.index) {
            Progress::Out => {}
            Progress::Done => return self.sent_at_once(conn.index),
            Progress::Broken => self.broken(conn.index),
        }
        None
    }

    fn close(&mut self, conn: ConnId, ending: Ending) {
        let Some(state) = self.base.conns.get(conn) else { return };
        match (&mut state.phase, ending) {
            (Phase::Connecting { .. } | Phase::Moving { .. } | Phase::Ending { .. }, _) => {}
            (_, Ending::Abort) => {
                sys::reset_on_close(state.raw());
                self.end(conn.index, Gone::Closed);
            }
            (Phase::Closing, Ending::Orderly) => {}
            (phase, Ending::Orderly) => {
                *phase = Phase::Closing;
                // Until the far end's kernel has all of it; then the lingering begins.
                if state.sending.is_some() {
                    self.set_deadline(conn.index, UNACKNOWLEDGED_TIMEOUT);
                }
                self.settle(conn.index);
            }
        }
    }

    fn unacknowledged(&mut self, conn: ConnId) -> u64 {
        // What a send still holds has not even reached our kernel.
        self.base.conns.get(conn).map_or(0, |state| {
            let unsent = state.sending.as_ref().map_or(0, |sending| sending.rest().len() as u64);
            sys::unacknowledged(state.raw()) + unsent
        })
    }

    fn connect(&mut self, ticket: Ticket, target: SocketAddr) {
        self.connect_by(ticket, None, target);
    }

    fn connect_from(&mut self, ticket: Ticket, source: IpAddr, target: SocketAddr) {
        self.connect_by(ticket, Some(source), target);
    }

    fn send_datagram(&mut self, listener: ListenerId, remote: SocketAddr, bytes: &[u8]) {
        self.put_datagram(listener, remote, bytes);
    }

    fn post(&mut self, to: ShardId, record: &[u8]) -> Result<(), Full> {
        let index = usize::from(to.0);
        let producer = self.base.ends.producers.get_mut(index).and_then(Option::as_mut);
        // A shard that posts to itself or to one that does not exist has lost its own table.
        let producer = producer.expect("a post to another shard of this node");
        let posted = producer.post(record).inspect_err(|_| self.base.counters.mesh_full += 1)?;
        self.base.counters.mesh_posts += 1;
        self.base.counters.mesh_overflows += u64::from(posted == Posted::Overflow);
        self.posted[index] = true;
        Ok(())
    }

    fn hand_over(&mut self, conn: ConnId, to: ShardId, parcel: Box<Parcel>) {
        let Some(state) = self.base.conns.get(conn) else { return };
        if matches!(state.phase, Phase::Open | Phase::Draining) {
            state.phase = Phase::Moving { to, parcel };
            state.deadline = Moment::NEVER;
            // The id is dead from now on.
            self.queue
                .retain(|event| !matches!(event, Event::Sent { conn: of, .. } if *of == conn));
            self.settle(conn.index);
        }
    }

    fn ask(&mut self, question: Question) -> Result<(), Box<Question>> {
        self.base.ends.ask(question)
    }

    fn net_counters(&self) -> NetCounters {
        NetCounters { open: u64::from(self.base.conns.len()), ..self.base.counters }
    }
}
