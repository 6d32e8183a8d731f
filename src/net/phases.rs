//! The life of a connection: what follows when something of it happens.
//!
//! ```text
//! accept ------> Open --far end closes--> Draining ----.
//! connect -> Connecting   |                            +--> Ending --> gone
//! arrive ------> Open ----+--close------> Closing -----+
//!                         +--broken, abort-------------'
//!                         '--hand over--> Moving ---> another shard
//! ```
//!
//! Does **not** do input or output: the driver does.

use std::cmp::Reverse;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use crate::limits::{ACCEPT_PAUSE, LINGER};
use crate::net::conns::{Armed, Conn, Phase, Sending};
use crate::net::driver::{Driver, Happened, Lent};
use crate::net::lanes::Crossing;
use crate::net::pump::{Pick, Pump};
use crate::net::sys;
use crate::shard::kernel::{ConnId, Event, Gone, Read, ShardId};
use crate::shard::settings::ListenerId;
use crate::time::Moment;

impl<D: Driver> Pump<D> {
    pub(super) fn happen(&mut self, happened: Happened) -> Option<Pick> {
        match happened {
            Happened::Received { index, lent } => self.received(index, lent),
            Happened::Sent { index } => self.sent(index).map(Pick::Owned),
            Happened::Back { index } => {
                self.settle(index);
                None
            }
            Happened::Ended { index } => {
                self.far_end_closed(index);
                None
            }
            Happened::Broken { index } => {
                self.broken(index);
                None
            }
            Happened::Accepted { listener, fd, remote } => {
                let event = self.accepted(listener, fd, remote);
                Some(Pick::Owned(event))
            }
            Happened::AcceptFailed(error) => {
                self.accept_failed(&error);
                None
            }
            Happened::Readable { listener } => {
                self.base.datagrams.readable(listener);
                None
            }
            Happened::Connected { index, result } => self.connected(index, result).map(Pick::Owned),
        }
    }

    pub(super) fn sent(&mut self, index: u32) -> Option<Event<'static>> {
        let conn = self.base.conns.id(index);
        let state = self.base.conns.at(index)?;
        let buffer = state.sending.take()?.buffer;
        let moving = matches!(state.phase, Phase::Moving { .. });
        self.base.counters.sent_bytes += buffer.len() as u64;
        // This may queue the connection's last event; the one returned here goes before it.
        self.settle(index);
        // The id of a connection that moves is dead.
        (!moving).then_some(Event::Sent { conn, buffer })
    }

    /// The same for a send that was done before its call came back.
    pub(super) fn sent_at_once(&mut self, index: u32) -> Option<Vec<u8>> {
        let state = self.base.conns.at(index)?;
        let buffer = state.sending.take()?.buffer;
        self.base.counters.sent_bytes += buffer.len() as u64;
        if !matches!(state.phase, Phase::Open) {
            self.settle(index);
        }
        Some(buffer)
    }

    pub(super) fn broken(&mut self, index: u32) {
        let Some(conn) = self.base.conns.at(index) else { return };
        if matches!(conn.phase, Phase::Moving { .. }) {
            // The shard it goes to finds out by itself; the parcel must not get lost.
            if conn.sending.as_ref().is_some_and(|sending| !sending.out) {
                conn.sending = None;
            }
            self.settle(index);
            return;
        }
        self.end(index, Gone::Broken);
    }

    fn received(&mut self, index: u32, lent: Lent) -> Option<Pick> {
        let id = self.base.conns.id(index);
        let Some(conn) = self.base.conns.at(index) else {
            self.driver.give_back(lent);
            return None;
        };
        match conn.phase {
            Phase::Open => {
                if conn.read == Read::Once {
                    conn.read = Read::Pause;
                }
                // The usual case is a stream that stays armed and needs nothing.
                if conn.read != Read::Stream || conn.armed != Armed::Stream {
                    self.driver.arm(&mut self.base, index);
                }
                self.base.counters.receives += 1;
                self.base.counters.received_bytes += u64::from(lent.length);
                self.lent = Some(lent);
                return Some(Pick::Lent { conn: id, lent });
            }
            Phase::Moving { .. } => conn.unread.extend_from_slice(self.driver.bytes(lent)),
            // Nobody wants these any more.
            _ => {}
        }
        self.driver.give_back(lent);
        self.settle(index);
        None
    }

    fn far_end_closed(&mut self, index: u32) {
        let id = self.base.conns.id(index);
        let Some(conn) = self.base.conns.at(index) else { return };
        conn.ended = true;
        conn.read = Read::Pause;
        if matches!(conn.phase, Phase::Open) {
            // What the shard sends in this turn, in answer to the last bytes, still goes out.
            self.ended.push(id);
        }
        self.settle(index);
    }

    fn accepted(&mut self, listener: usize, fd: OwnedFd, remote: SocketAddr) -> Event<'static> {
        self.base.counters.accepts += 1;
        let conn = self.base.conns.insert(Conn::new(fd, Phase::Open));
        let hub = &self.base.ends.hub;
        let open = hub.open.fetch_add(1, Ordering::Relaxed) + 1;
        if open >= hub.open_max && self.base.accepting {
            self.pause_accepting("descriptors");
        }
        Event::Accepted { conn, listener: ListenerId(listener as u16), remote }
    }

    fn accept_failed(&mut self, error: &io::Error) {
        // These are about one connection only. Anything else may last: it waits a little.
        let passing = [libc::ECONNABORTED, libc::EPROTO, libc::EINTR, libc::EPERM];
        if !self.base.accepting || error.raw_os_error().is_some_and(|code| passing.contains(&code))
        {
            self.driver.accept(&mut self.base);
        } else {
            self.pause_accepting("kernel");
        }
    }

    /// Connections wait in the kernel's queue meanwhile; when that is full, in their own.
    fn pause_accepting(&mut self, cause: &'static str) {
        let now = self.base.now.moment;
        self.base.accepting = false;
        self.base.counters.accept_pauses += 1;
        self.accept_again = Some(now + ACCEPT_PAUSE);
        self.driver.accept(&mut self.base);
        if self.accept_told.is_none_or(|told| now.since(told) >= TELL_EVERY) {
            self.accept_told = Some(now);
            let hub = &self.base.ends.hub;
            tracing::warn!(
                shard = self.base.ends.shard.0,
                cause,
                open = hub.open.load(Ordering::Relaxed),
                open_max = hub.open_max,
                "accept_paused: no descriptor left for new connections; raise the limit (nofile)"
            );
        }
    }

    pub(super) fn accept_anew(&mut self) {
        let hub = &self.base.ends.hub;
        if hub.open.load(Ordering::Relaxed) < hub.open_max {
            self.accept_again = None;
            self.open();
        } else {
            self.accept_again = Some(self.base.now.moment + ACCEPT_PAUSE);
        }
    }

    fn connected(&mut self, index: u32, result: io::Result<()>) -> Option<Event<'static>> {
        let id = self.base.conns.id(index);
        let conn = self.base.conns.at(index)?;
        let phase = std::mem::replace(&mut conn.phase, Phase::Open);
        let Phase::Connecting { ticket, target } = phase else {
            conn.phase = phase;
            return None;
        };
        let reason = target.failed.or_else(|| result.err().map(|error| connect_reason(&error)));
        let Some(reason) = reason else {
            conn.deadline = Moment::NEVER;
            self.base.counters.connects += 1;
            return Some(Event::Connected { conn: id, ticket, remote: target.remote });
        };
        self.drop_conn(index);
        Some(Event::ConnectFailed { ticket, reason })
    }

    pub(super) fn set_deadline(&mut self, index: u32, time: Duration) {
        let id = self.base.conns.id(index);
        let when = self.base.now.moment + time;
        if let Some(conn) = self.base.conns.at(index) {
            conn.deadline = when;
            self.deadlines.push(Reverse((when, index, id.generation)));
        }
    }

    pub(super) fn fire(&mut self, id: ConnId) {
        let now = self.base.now.moment;
        let Some(conn) = self.base.conns.get(id) else { return };
        // An older deadline of a later phase: its own entry follows.
        if conn.deadline > now {
            return;
        }
        match &mut conn.phase {
            Phase::Connecting { target, .. } => {
                target.failed = Some("timed out");
                self.driver.cancel(&mut self.base, id.index);
            }
            Phase::Closing if !conn.shut => self.end(id.index, Gone::Broken),
            Phase::Draining | Phase::Closing => self.end(id.index, Gone::Closed),
            Phase::Open | Phase::Moving { .. } | Phase::Ending { .. } => {}
        }
    }

    /// Everything that is out is called back; the rest follows when it is.
    pub(super) fn end(&mut self, index: u32, why: Gone) {
        let Some(conn) = self.base.conns.at(index) else { return };
        match &mut conn.phase {
            Phase::Ending { .. } => {}
            Phase::Connecting { target, .. } => {
                target.failed.get_or_insert("stopped");
                self.driver.cancel(&mut self.base, index);
                return;
            }
            phase => {
                *phase = Phase::Ending { why };
                conn.read = Read::Pause;
                self.driver.cancel(&mut self.base, index);
            }
        }
        self.settle(index);
    }

    /// Goes as far in the connection's phase as what is out allows.
    pub(super) fn settle(&mut self, index: u32) {
        let Some(conn) = self.base.conns.at(index) else { return };
        match &mut conn.phase {
            Phase::Connecting { .. } => {}
            Phase::Open => {
                // What came along from another shard goes first.
                if conn.unread.is_empty() {
                    self.driver.arm(&mut self.base, index);
                }
            }
            Phase::Draining => {
                if conn.sending.is_none() {
                    self.end(index, Gone::Closed);
                }
            }
            Phase::Closing => {
                if conn.sending.is_some() {
                    return;
                }
                let first = !std::mem::replace(&mut conn.shut, true);
                if first {
                    sys::shut_down(conn.raw());
                }
                if conn.ended {
                    self.end(index, Gone::Closed);
                    return;
                }
                // Unread bytes at a close would become a reset and destroy what we said last, so
                // they are read and dropped.
                conn.read = Read::Stream;
                conn.unread = Vec::new();
                if first {
                    self.set_deadline(index, LINGER);
                }
                self.driver.arm(&mut self.base, index);
            }
            Phase::Moving { .. } => {
                conn.read = Read::Pause;
                self.driver.arm(&mut self.base, index);
                self.depart(index);
            }
            Phase::Ending { why } => {
                let why = *why;
                if conn.is_idle() {
                    self.gone(index, why);
                }
            }
        }
    }

    fn gone(&mut self, index: u32, why: Gone) {
        let conn = self.base.conns.id(index);
        let Some(dead) = self.drop_conn(index) else { return };
        // The kernel counts our FIN as one octet until it is acknowledged.
        let held = sys::unacknowledged(dead.raw()).saturating_sub(u64::from(dead.shut));
        let unsent = dead.sending.as_ref().map_or(0, |sending| sending.rest().len() as u64);
        if let Some(Sending { buffer, .. }) = dead.sending {
            self.queue.push_back(Event::Sent { conn, buffer });
        }
        self.queue.push_back(Event::Gone { conn, why, unacknowledged: held + unsent });
    }

    /// Leaves for another shard if nothing of it is out any more.
    fn depart(&mut self, index: u32) {
        let Some(conn) = self.base.conns.at(index) else { return };
        if !conn.is_idle() || conn.sending.is_some() {
            return;
        }
        self.driver.forget(&mut self.base, index);
        let Some(conn) = self.base.conns.remove(index) else { return };
        if let Phase::Moving { to, parcel } = conn.phase {
            self.base.counters.handed_over += 1;
            self.cross(to, Crossing { fd: conn.fd, parcel, unread: conn.unread });
        }
    }

    pub(super) fn cross(&mut self, to: ShardId, crossing: Crossing) {
        let Some(lane) = self.base.ends.crossings_out.get(usize::from(to.0)) else { return };
        match lane.try_send(crossing) {
            Ok(()) => self.wake(to),
            Err(TrySendError::Full(crossing)) => self.crossings.push_back((to, crossing)),
            // That shard has stopped, so the node is stopping: the connection ends here.
            Err(TrySendError::Disconnected(_)) => {
                self.base.ends.hub.open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn drop_conn(&mut self, index: u32) -> Option<Conn> {
        self.driver.forget(&mut self.base, index);
        let conn = self.base.conns.remove(index)?;
        self.base.ends.hub.open.fetch_sub(1, Ordering::Relaxed);
        Some(conn)
    }
}

pub(super) fn connect_reason(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "connection refused",
        Some(libc::ETIMEDOUT) => "timed out",
        Some(libc::ENETUNREACH) => "network unreachable",
        Some(libc::EHOSTUNREACH) => "host unreachable",
        Some(libc::ECONNRESET) => "connection reset",
        Some(libc::EADDRNOTAVAIL) => "no local address or port left",
        Some(libc::EMFILE | libc::ENFILE) => "no descriptor left",
        Some(libc::EACCES | libc::EPERM) => "forbidden by the local firewall",
        _ => "socket error",
    }
}

/// An operator reads of paused accepting at most this often.
const TELL_EVERY: Duration = Duration::from_secs(60);
