//! The twin of the ring over epoll: for hosts that forbid io_uring, and as the control in
//! measurements.
//!
//! Level-triggered: what was not read now shows again with the next wait. A socket is watched
//! from its first receive on and its interest changes only when the shard changes its mind, so in
//! the steady state a message costs one recv and one send and no epoll_ctl.
//!
//! Does **not** run inside glommio, which needs io_uring itself.

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
        })
    }

    /// Watches what the connection's state needs and nothing else.
    fn watch(&self, base: &mut Base, index: u32) {
        let id = base.conns.id(index);
        let Some(conn) = base.conns.at(index) else { return };
        let mut wanted = 0;
        if conn.armed != Armed::Idle {
            wanted |= READABLE;
        }
        let connecting = matches!(conn.phase, Phase::Connecting { .. });
        if connecting || conn.sending.as_ref().is_some_and(|sending| sending.out) {
            wanted |= WRITABLE;
        }
        if conn.watched == Some(wanted) {
            return;
        }
        let call = match (conn.watched, wanted) {
            (None, 0) => return,
            (None, _) => libc::EPOLL_CTL_ADD,
            // Trouble is told of even when nothing is watched, again and again. Nobody would
            // listen, so the socket goes off the list; the next receive or send finds it.
            (Some(_), 0) => libc::EPOLL_CTL_DEL,
            (Some(_), _) => libc::EPOLL_CTL_MOD,
        };
        let fd = conn.raw();
        conn.watched = (wanted != 0).then_some(wanted);
        if let Err(error) = sys::epoll_set(&self.epoll, call, fd, wanted, pack(CONN, id)) {
            // Only lack of kernel memory or of watches gets here. The connection is stuck then;
            // its deadlines or its far end end it.
            tracing::warn!(%error, "epoll_ctl_failed");
        }
    }

    fn reap_conn(&mut self, base: &mut Base, id: ConnId) -> Option<Happened> {
        let index = id.index;
        let conn = base.conns.get(id)?;
        if matches!(conn.phase, Phase::Connecting { .. }) {
            self.rest = 0;
            let result = sys::socket_error(conn.raw());
            // The phase is the pump's to change; until then nothing more is watched.
            self.unwatch(base, index);
            return Some(Happened::Connected { index, result });
        }
        if self.rest & (WRITABLE | TROUBLE) != 0 {
            self.rest &= !WRITABLE;
            if conn.sending.as_ref().is_some_and(|sending| sending.out) {
                match self.push(base, index) {
                    Progress::Done => return Some(Happened::Sent { index }),
                    Progress::Broken => return Some(Happened::Broken { index }),
                    Progress::Out => {}
                }
            }
        }
        if self.rest & (READABLE | TROUBLE) != 0 {
            self.rest = 0;
            return self.receive(base, index);
        }
        None
    }

    fn receive(&mut self, base: &mut Base, index: u32) -> Option<Happened> {
        let conn = base.conns.at(index)?;
        if conn.armed == Armed::Idle {
            return None;
        }
        let once = conn.armed == Armed::Once;
        let happened = match sys::receive(conn.raw(), &mut self.scratch) {
            Ok(0) => Happened::Ended { index },
            Ok(length) => {
                if once {
                    conn.armed = Armed::Idle;
                    // Watched on for now: mostly the next receive is asked for at once.
                }
                let lent = Lent { buffer: 0, length: length as u32 };
                return Some(Happened::Received { index, lent });
            }
            Err(error) if is_later(&error) => return None,
            Err(_) => Happened::Broken { index },
        };
        conn.armed = Armed::Idle;
        self.watch(base, index);
        Some(happened)
    }

    /// Sends what the kernel takes now.
    fn push(&self, base: &mut Base, index: u32) -> Progress {
        let Some(conn) = base.conns.at(index) else { return Progress::Broken };
        let fd = conn.raw();
        let Some(sending) = &mut conn.sending else { return Progress::Broken };
        while !sending.rest().is_empty() {
            match sys::send(fd, sending.rest()) {
                Ok(length) => sending.done += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_later(&error) => {
                    self.watch(base, index);
                    return Progress::Out;
                }
                Err(_) => {
                    sending.out = false;
                    self.watch(base, index);
                    return Progress::Broken;
                }
            }
        }
        sending.out = false;
        if conn.watched.is_some_and(|watched| watched & WRITABLE != 0) {
            self.watch(base, index);
        }
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
        if conn.watched.take().is_some() {
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
        // After one delivery interest stays for the moment; see `receive`. A second delivery
        // without anybody asking takes it away.
        if conn.armed == Armed::Idle && conn.watched == Some(READABLE) && is_open(&conn.phase) {
            return;
        }
        self.watch(base, index);
    }

    fn send(&mut self, base: &mut Base, index: u32) -> Progress {
        let progress = self.push(base, index);
        base.counters.sends_partial += u64::from(progress == Progress::Out);
        progress
    }

    fn connect(&mut self, base: &mut Base, index: u32) {
        let Some(conn) = base.conns.at(index) else { return };
        let fd = conn.raw();
        if let Phase::Connecting { target, failed, .. } = &mut conn.phase
            && let Err(error) = sys::connect(fd, &target.raw)
            && error.raw_os_error() != Some(libc::EINPROGRESS)
        {
            // A socket that is not connecting tells of trouble at once, but no longer why.
            *failed = Some(crate::net::phases::connect_reason(&error));
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
                    return None;
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
                    // If nobody wanted it, it must not wake us again.
                    self.watch(base, id.index);
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
        // What a spin found is looked at first.
        if self.looked == self.filled {
            self.fill(base, time);
        }
    }

    fn peek(&mut self, base: &mut Base) -> bool {
        if self.looked == self.filled {
            self.fill(base, Some(Duration::ZERO));
        }
        self.looked < self.filled
    }

    fn is_idle(&self) -> bool {
        true
    }
}

/// In tokens that are not about a connection.
const NOBODY: ConnId = ConnId { index: 0, generation: 0 };

fn is_open(phase: &Phase) -> bool {
    matches!(phase, Phase::Open)
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
