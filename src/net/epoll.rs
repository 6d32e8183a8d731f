//! The twin of the ring over epoll: for hosts that forbid io_uring, and as the control in
//! measurements.
//!
//! Edge-triggered: a socket is put on the list once, for both directions, and its interest never
//! changes, so in the steady state a message costs one recv and one send, no epoll_ctl and no
//! second look of the kernel whether more is there. In exchange this driver remembers what was
//! told: a socket stays *ready* until a receive has shown it empty, which one that leaves room in
//! the buffer does (epoll(7)) unless the far end has hung up.
//!
//! Does **not** run inside glommio, which needs io_uring itself.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use crate::limits::{ACCEPTS_PER_TURN_MAX, SCRATCH_BYTES};
use crate::net::conns::{Armed, Phase, pack, unpack};
use crate::net::driver::{Base, Driver, Happened, Lent, Progress};
use crate::net::sys;
use crate::shard::kernel::{ConnId, Read, ShardId};

/// Events taken from one wait.
const EVENTS: usize = 512;
const READABLE: u32 = libc::EPOLLIN as u32;
const WRITABLE: u32 = libc::EPOLLOUT as u32;
const TROUBLE: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
/// The far end sends no more.
const HUNG_UP: u32 = TROUBLE | libc::EPOLLRDHUP as u32;
/// What every connection is watched for.
const EDGES: u32 = READABLE | WRITABLE | HUNG_UP | libc::EPOLLET as u32;
/// Kinds of tokens.
const CONN: u8 = 0;
const LISTENER: u8 = 1;
const BELL: u8 = 2;

pub(super) struct EpollDriver {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// Of `events`: how many are filled, and how many were looked at.
    filled: usize,
    looked: usize,
    /// The rest of the event that is being looked at.
    rest: u32,
    scratch: Box<[u8]>,
    /// A listener that is being emptied and how often it may go on.
    listener: Option<(usize, u32)>,
    /// Connections that are ready and get no edge for it: read in this turn, and in the next.
    ready: VecDeque<ConnId>,
    ready_next: VecDeque<ConnId>,
}

impl EpollDriver {
    pub(super) fn new(base: &Base) -> io::Result<Self> {
        let epoll = sys::epoll()?;
        let bell = base.ends.doorbell().bell.as_raw_fd();
        sys::epoll_set(&epoll, libc::EPOLL_CTL_ADD, bell, READABLE, pack(BELL, NOBODY))?;
        Ok(Self {
            epoll,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS],
            filled: 0,
            looked: 0,
            rest: 0,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            listener: None,
            // Each connection is in them at most once.
            ready: VecDeque::with_capacity(EVENTS),
            ready_next: VecDeque::with_capacity(EVENTS),
        })
    }

    /// Puts the connection on the kernel's list; what is there already shows as an edge.
    fn watch(&self, base: &mut Base, index: u32) {
        let id = base.conns.id(index);
        let Some(conn) = base.conns.at(index) else { return };
        if std::mem::replace(&mut conn.seen.watched, true) {
            return;
        }
        let (add, token) = (libc::EPOLL_CTL_ADD, pack(CONN, id));
        if let Err(error) = sys::epoll_set(&self.epoll, add, conn.raw(), EDGES, token) {
            // Only lack of kernel memory or of watches gets here. The connection is stuck then;
            // its deadlines or its far end end it.
            tracing::warn!(%error, "epoll_ctl_failed");
        }
    }

    /// No edge will tell of it again: it is read in the next turn.
    fn read_later(&mut self, base: &mut Base, id: ConnId) {
        let Some(conn) = base.conns.get(id) else { return };
        if conn.seen.ready && conn.armed != Armed::Idle && !conn.seen.listed {
            conn.seen.listed = true;
            self.ready_next.push_back(id);
        }
    }

    fn reap_conn(&mut self, base: &mut Base, id: ConnId) -> Option<Happened> {
        let index = id.index;
        let edge = std::mem::take(&mut self.rest);
        let conn = base.conns.get(id)?;
        conn.seen.ready |= edge & (READABLE | HUNG_UP) != 0;
        conn.seen.hung_up |= edge & HUNG_UP != 0;
        if matches!(conn.phase, Phase::Connecting { .. }) {
            let result = sys::socket_error(conn.raw());
            return Some(Happened::Connected { index, result });
        }
        if edge & (WRITABLE | TROUBLE) != 0
            && conn.sending.as_ref().is_some_and(|sending| sending.out)
        {
            let happened = match self.push(base, index) {
                Progress::Done => Happened::Sent { index },
                Progress::Broken => Happened::Broken { index },
                Progress::Out => return self.receive(base, id),
            };
            // One thing at a time: what is to be read comes after it.
            self.read_later(base, id);
            return Some(happened);
        }
        self.receive(base, id)
    }

    fn reap_ready(&mut self, base: &mut Base) -> Option<Happened> {
        while let Some(id) = self.ready.pop_front() {
            let Some(conn) = base.conns.get(id) else { continue };
            conn.seen.listed = false;
            let happened = self.receive(base, id);
            if happened.is_some() {
                return happened;
            }
        }
        None
    }

    fn receive(&mut self, base: &mut Base, id: ConnId) -> Option<Happened> {
        let index = id.index;
        let conn = base.conns.get(id)?;
        if conn.armed == Armed::Idle || !conn.seen.ready {
            return None;
        }
        let happened = match sys::receive(conn.raw(), &mut self.scratch) {
            Ok(0) => Happened::Ended { index },
            Ok(length) => {
                conn.seen.ready = conn.seen.hung_up || length == self.scratch.len();
                if conn.armed == Armed::Once {
                    conn.armed = Armed::Idle;
                } else if conn.seen.ready {
                    self.read_later(base, id);
                }
                let lent = Lent { buffer: 0, length: length as u32 };
                return Some(Happened::Received { index, lent });
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.read_later(base, id);
                return None;
            }
            Err(error) if is_later(&error) => {
                conn.seen.ready = false;
                return None;
            }
            Err(_) => Happened::Broken { index },
        };
        conn.armed = Armed::Idle;
        conn.seen.ready = false;
        Some(happened)
    }

    /// Sends what the kernel takes now.
    fn push(&self, base: &mut Base, index: u32) -> Progress {
        let Some(conn) = base.conns.at(index) else { return Progress::Broken };
        let fd = conn.raw();
        let Some(sending) = &mut conn.sending else { return Progress::Broken };
        while !sending.rest().is_empty() {
            match sys::send(fd, sending.rest()) {
                Ok(length) => sending.done += length as u32,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The refusal is what makes the kernel tell when there is room again.
                Err(error) if is_later(&error) => {
                    self.watch(base, index);
                    return Progress::Out;
                }
                Err(_) => {
                    sending.out = false;
                    return Progress::Broken;
                }
            }
        }
        sending.out = false;
        Progress::Done
    }

    fn reap_listener(&mut self, base: &Base) -> Option<Happened> {
        let (listener, left) = self.listener.take()?;
        if left == 0 || !base.accepting {
            return None;
        }
        let socket = base.listeners.get(listener)?;
        self.listener = Some((listener, left - 1));
        match sys::accept(socket.as_raw_fd()) {
            Ok((fd, remote)) => Some(Happened::Accepted { listener, fd, remote }),
            Err(error) => {
                self.listener = None;
                (!is_later(&error)).then_some(Happened::AcceptFailed(error))
            }
        }
    }

    fn unwatch(&self, base: &mut Base, index: u32) {
        let Some(conn) = base.conns.at(index) else { return };
        if std::mem::take(&mut conn.seen).watched {
            // It can fail only if the socket is not watched, which is what we want.
            drop(sys::epoll_set(&self.epoll, libc::EPOLL_CTL_DEL, conn.raw(), 0, 0));
        }
    }

    fn fill(&mut self, base: &mut Base, time: Option<Duration>) {
        base.counters.enters += 1;
        self.looked = 0;
        self.filled = sys::epoll_wait(&self.epoll, &mut self.events, time).unwrap_or(0);
    }
}

impl Driver for EpollDriver {
    const NONBLOCKING: bool = true;

    fn arm(&mut self, base: &mut Base, index: u32) {
        let Some(conn) = base.conns.at(index) else { return };
        conn.armed = match conn.read {
            Read::Once => Armed::Once,
            Read::Stream => Armed::Stream,
            Read::Pause => Armed::Idle,
        };
        if conn.armed != Armed::Idle {
            self.watch(base, index);
            self.read_later(base, base.conns.id(index));
        }
    }

    fn send(&mut self, base: &mut Base, index: u32) -> Progress {
        let progress = self.push(base, index);
        base.counters.sends_partial += u64::from(progress == Progress::Out);
        progress
    }

    fn connect(&mut self, base: &mut Base, index: u32) {
        let Some(conn) = base.conns.at(index) else { return };
        let fd = conn.raw();
        if let Phase::Connecting { target, .. } = &mut conn.phase
            && let Err(error) = sys::connect(fd, &target.raw)
            && error.raw_os_error() != Some(libc::EINPROGRESS)
        {
            // A socket that is not connecting tells of trouble at once, but no longer why.
            target.failed = Some(crate::net::phases::connect_reason(&error));
        }
        self.watch(base, index);
    }

    fn cancel(&mut self, base: &mut Base, index: u32) {
        let Some(conn) = base.conns.at(index) else { return };
        if matches!(conn.phase, Phase::Connecting { .. }) {
            // Ends the attempt; the socket then tells of trouble.
            sys::shut_down_both(conn.raw());
            return;
        }
        conn.armed = Armed::Idle;
        if let Some(sending) = &mut conn.sending {
            sending.out = false;
        }
    }

    fn forget(&mut self, base: &mut Base, index: u32) {
        self.unwatch(base, index);
    }

    fn accept(&mut self, base: &mut Base) {
        for (number, listener) in base.listeners.iter().enumerate() {
            let token = pack(LISTENER, ConnId { index: number as u32, generation: 0 });
            let (call, events) = if base.accepting {
                (libc::EPOLL_CTL_ADD, READABLE)
            } else {
                (libc::EPOLL_CTL_DEL, 0)
            };
            // It fails only if nothing changes.
            drop(sys::epoll_set(&self.epoll, call, listener.as_raw_fd(), events, token));
        }
    }

    fn reap(&mut self, base: &mut Base) -> Option<Happened> {
        loop {
            if let Some(happened) = self.reap_listener(base) {
                return Some(happened);
            }
            if self.rest == 0 {
                if self.looked == self.filled {
                    return self.reap_ready(base);
                }
                self.rest = self.events[self.looked].events;
                self.looked += 1;
            }
            let (kind, id) = unpack(self.events[self.looked - 1].u64);
            match kind {
                BELL => sys::silence(&base.ends.doorbell().bell),
                LISTENER if base.datagrams.is(id.index as usize) => {
                    self.rest = 0;
                    return Some(Happened::Readable { listener: id.index as usize });
                }
                LISTENER => self.listener = Some((id.index as usize, ACCEPTS_PER_TURN_MAX)),
                _ => {
                    if let Some(happened) = self.reap_conn(base, id) {
                        return Some(happened);
                    }
                }
            }
            self.rest = 0;
        }
    }

    fn bytes(&self, lent: Lent) -> &[u8] {
        &self.scratch[..lent.length as usize]
    }

    fn give_back(&mut self, _: Lent) {}

    fn wake(&mut self, base: &mut Base, shard: ShardId) {
        sys::ring(&base.ends.hub.shards[usize::from(shard.0)].bell);
    }

    fn wait(&mut self, base: &mut Base, time: Option<Duration>) {
        self.ready.append(&mut self.ready_next);
        // What a spin found is looked at first.
        if self.looked == self.filled {
            let time = if self.ready.is_empty() { time } else { Some(Duration::ZERO) };
            self.fill(base, time);
        }
    }

    fn peek(&mut self, base: &mut Base) -> bool {
        if self.looked == self.filled {
            self.fill(base, Some(Duration::ZERO));
        }
        self.looked < self.filled || !self.ready.is_empty() || !self.ready_next.is_empty()
    }

    fn is_idle(&self) -> bool {
        true
    }
}

/// In tokens that are not about a connection.
const NOBODY: ConnId = ConnId { index: 0, generation: 0 };

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
