//! The ring: io_uring with multishot accept and receive, one provided-buffer ring, one SEND per
//! connection.
//!
//! Built on the thread that uses it (SINGLE_ISSUER, DEFER_TASKRUN), so completions appear only
//! when this thread enters the kernel. A turn empties the completion queue and gives all buffers
//! back before the next enter. Every operation of a connection carries its id; the connection's
//! slot is kept until the last of them came back, so no completion meets a stranger.
//!
//! Does **not** use SQPOLL, zero-copy send or registered files: measured, they do not help here.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::net::buffers::{BufferRing, GROUP};
use crate::net::conns::{Armed, Phase, pack, unpack};
use crate::net::driver::{Base, Driver, Happened, Lent, Progress};
use crate::net::node::Plan;
use crate::net::{probe, sys};
use crate::shard::kernel::{ConnId, Read, ShardId};

/// Submissions taken in one enter; more of them in a turn enter early.
const SUBMISSIONS: u32 = 1_024;
/// Four times the submissions at least, since multishot operations complete without one.
const COMPLETIONS: u32 = 8 * SUBMISSIONS;

/// Kinds of user data.
const RECEIVE: u8 = 0;
const SEND: u8 = 1;
const CONNECT: u8 = 2;
/// A cancel or a wake that failed; success makes no completion.
const CANCEL: u8 = 3;
const ACCEPT: u8 = 4;
const BELL: u8 = 5;
/// Another shard woke us.
const WOKEN: u8 = 6;
/// We could not wake another shard by its ring.
const WAKE_FAILED: u8 = 7;
/// A socket has datagrams.
const READABLE: u8 = 8;

/// In user data that is not about a connection.
const NOBODY: ConnId = ConnId { index: 0, generation: 0 };

#[derive(Clone, Copy)]
struct Completion {
    token: u64,
    result: i32,
    flags: u32,
}

pub(super) struct RingDriver {
    // Before the buffers: it is dropped first.
    ring: IoUring,
    buffers: BufferRing,
    bell: RawFd,
    /// Completions taken from the ring, and how many were looked at.
    reaped: Vec<Completion>,
    looked: usize,
    /// Which listeners have their accept out.
    accepting: Vec<bool>,
}

impl RingDriver {
    pub(super) fn new(base: &Base, plan: &Plan) -> io::Result<Self> {
        let mut ring = probe::builder().setup_cqsize(COMPLETIONS).build(SUBMISSIONS)?;
        let count = plan.receive_buffers.clamp(16, 1 << 15).next_power_of_two();
        let buffers = BufferRing::new(&mut ring, count, plan.receive_buffer_bytes.max(256))?;
        let doorbell = base.ends.doorbell();
        // SAFETY: the ring lives, so its descriptor is open.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        // The first and only one to set it; the others ring it through this.
        drop(doorbell.ring.set(borrowed.try_clone_to_owned()?));
        let mut driver = Self {
            ring,
            buffers,
            bell: doorbell.bell.as_raw_fd(),
            reaped: Vec::with_capacity(COMPLETIONS as usize),
            looked: 0,
            accepting: vec![false; base.listeners.len()],
        };
        driver.watch_bell();
        Ok(driver)
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: what an entry points to outlives the operation: buffers of sends and
            // addresses of connects stay in the connection's slot until they completed, receive
            // buffers in `self.buffers`, which is dropped after the ring.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // Full: what is there goes to the kernel now. An error is passing (the completion
            // queue is behind), and the queue then has room after it is emptied.
            if self.ring.submit().is_err() {
                self.take_completions();
            }
        }
    }

    fn take_completions(&mut self) {
        if self.looked == self.reaped.len() {
            self.reaped.clear();
            self.looked = 0;
        }
        let completion = |entry: cqueue::Entry| Completion {
            token: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        };
        self.reaped.extend(self.ring.completion().map(completion));
    }

    fn watch_bell(&mut self) {
        let entry = opcode::PollAdd::new(Fd(self.bell), libc::POLLIN as u32).multi(true).build();
        self.push(&entry.user_data(pack(BELL, NOBODY)));
    }

    fn cancel_token(&mut self, token: u64) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(token)).build();
        self.push(&quiet(entry, pack(CANCEL, NOBODY)));
    }

    fn push_send(&mut self, base: &mut Base, index: u32) {
        let id = base.conns.id(index);
        let Some(conn) = base.conns.at(index) else { return };
        let fd = Fd(conn.raw());
        let Some(sending) = &conn.sending else { return };
        let rest = sending.rest();
        // WAITALL: the kernel goes on by itself after a partial write.
        let entry = opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(&entry.user_data(pack(SEND, id)));
    }

    fn received(&mut self, base: &mut Base, id: ConnId, done: Completion) -> Option<Happened> {
        let buffer = cqueue::buffer_select(done.flags);
        let Some(conn) = base.conns.get(id) else {
            if let Some(buffer) = buffer {
                self.buffers.give_back(buffer);
            }
            return None;
        };
        if !cqueue::more(done.flags) {
            conn.armed = Armed::Idle;
            conn.cancelling = false;
        }
        let index = id.index;
        match (u32::try_from(done.result), buffer) {
            (Ok(length @ 1..), Some(buffer)) => {
                return Some(Happened::Received { index, lent: Lent { buffer, length } });
            }
            (_, Some(buffer)) => self.buffers.give_back(buffer),
            (_, None) => {}
        }
        Some(match -done.result {
            0 => Happened::Ended { index },
            // Armed again at once; the kernel sees it after this turn's buffers are back.
            libc::ENOBUFS => {
                base.counters.buffers_short += 1;
                Happened::Back { index }
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => Happened::Back { index },
            _ => Happened::Broken { index },
        })
    }

    fn sent(&mut self, base: &mut Base, id: ConnId, result: i32) -> Option<Happened> {
        let index = id.index;
        let conn = base.conns.get(id)?;
        let over = matches!(conn.phase, Phase::Ending { .. });
        let sending = conn.sending.as_mut()?;
        match u32::try_from(result) {
            Ok(length) => sending.done += length,
            Err(_) if [libc::EINTR, libc::EAGAIN].contains(&-result) => {}
            Err(_) => {
                sending.out = false;
                return Some(Happened::Broken { index });
            }
        }
        if sending.rest().is_empty() {
            sending.out = false;
            return Some(Happened::Sent { index });
        }
        base.counters.sends_partial += 1;
        if over {
            sending.out = false;
            return Some(Happened::Back { index });
        }
        self.push_send(base, index);
        None
    }

    fn accepted(&mut self, base: &Base, listener: usize, done: Completion) -> Option<Happened> {
        if !cqueue::more(done.flags) {
            self.accepting[listener] = false;
        }
        if done.result >= 0 {
            // SAFETY: the kernel just made this descriptor for us and told nobody else.
            let fd = unsafe { OwnedFd::from_raw_fd(done.result) };
            self.accept_on(base, listener);
            // Without a far end it is gone already.
            let remote = sys::remote(fd.as_raw_fd()).ok()?;
            return Some(Happened::Accepted { listener, fd, remote });
        }
        if done.result == -libc::ECANCELED {
            self.accept_on(base, listener);
            return None;
        }
        Some(Happened::AcceptFailed(io::Error::from_raw_os_error(-done.result)))
    }

    /// Arms one listener, or calls its accept back.
    fn accept_on(&mut self, base: &Base, listener: usize) {
        let id = ConnId { index: listener as u32, generation: 0 };
        if base.datagrams.is(listener) {
            return self.watch_datagrams(base, listener, id);
        }
        match (base.accepting, self.accepting[listener]) {
            (true, false) => {
                let Some(socket) = base.listeners.get(listener) else { return };
                self.accepting[listener] = true;
                let entry = opcode::AcceptMulti::new(Fd(socket.as_raw_fd()))
                    .flags(libc::SOCK_CLOEXEC)
                    .build();
                self.push(&entry.user_data(pack(ACCEPT, id)));
            }
            (false, true) => self.cancel_token(pack(ACCEPT, id)),
            _ => {}
        }
    }
}

impl RingDriver {
    /// Says when a socket has datagrams, or no longer does.
    fn watch_datagrams(&mut self, base: &Base, listener: usize, id: ConnId) {
        match (base.accepting, self.accepting[listener]) {
            (true, false) => {
                let Some(socket) = base.listeners.get(listener) else { return };
                self.accepting[listener] = true;
                let fd = Fd(socket.as_raw_fd());
                let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
                self.push(&entry.user_data(pack(READABLE, id)));
            }
            (false, true) => self.cancel_token(pack(READABLE, id)),
            _ => {}
        }
    }

    fn readable(&mut self, base: &Base, listener: usize, done: Completion) -> Option<Happened> {
        if !cqueue::more(done.flags) {
            self.accepting[listener] = false;
            let id = ConnId { index: listener as u32, generation: 0 };
            self.watch_datagrams(base, listener, id);
        }
        (done.result >= 0).then_some(Happened::Readable { listener })
    }
}

impl Driver for RingDriver {
    /// A socket that does not block would answer EAGAIN instead of waiting inside the ring.
    const NONBLOCKING: bool = false;

    fn arm(&mut self, base: &mut Base, index: u32) {
        let id = base.conns.id(index);
        let Some(conn) = base.conns.at(index) else { return };
        let fd = Fd(conn.raw());
        let token = pack(RECEIVE, id);
        match (conn.read, conn.armed) {
            (Read::Once, Armed::Idle) => {
                conn.armed = Armed::Once;
                let entry = opcode::Recv::new(fd, std::ptr::null_mut(), self.buffers.size())
                    .buf_group(GROUP)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT);
                self.push(&entry.user_data(token));
            }
            (Read::Stream, Armed::Idle) => {
                conn.armed = Armed::Stream;
                self.push(&opcode::RecvMulti::new(fd, GROUP).build().user_data(token));
            }
            (Read::Pause, Armed::Once | Armed::Stream) | (Read::Once, Armed::Stream)
                if !conn.cancelling =>
            {
                conn.cancelling = true;
                self.cancel_token(token);
            }
            _ => {}
        }
    }

    fn send(&mut self, base: &mut Base, index: u32) -> Progress {
        self.push_send(base, index);
        Progress::Out
    }

    fn connect(&mut self, base: &mut Base, index: u32) {
        let id = base.conns.id(index);
        let Some(conn) = base.conns.at(index) else { return };
        let fd = Fd(conn.raw());
        let Phase::Connecting { target, .. } = &conn.phase else { return };
        let entry = opcode::Connect::new(fd, target.raw.pointer(), target.raw.length).build();
        self.push(&entry.user_data(pack(CONNECT, id)));
    }

    fn cancel(&mut self, base: &mut Base, index: u32) {
        let Some(conn) = base.conns.at(index) else { return };
        if conn.is_idle() && !matches!(conn.phase, Phase::Connecting { .. }) {
            return;
        }
        let all = CancelBuilder::fd(Fd(conn.raw())).all();
        self.push(&quiet(opcode::AsyncCancel2::new(all).build(), pack(CANCEL, NOBODY)));
    }

    fn forget(&mut self, _: &mut Base, _: u32) {}

    fn accept(&mut self, base: &mut Base) {
        for listener in 0..base.listeners.len() {
            self.accept_on(base, listener);
        }
    }

    fn reap(&mut self, base: &mut Base) -> Option<Happened> {
        loop {
            if self.looked == self.reaped.len() {
                self.take_completions();
            }
            let done = *self.reaped.get(self.looked)?;
            self.looked += 1;
            let (kind, id) = unpack(done.token);
            let happened = match kind {
                RECEIVE => self.received(base, id, done),
                SEND => self.sent(base, id, done.result),
                CONNECT => base.conns.get(id).map(|_| Happened::Connected {
                    index: id.index,
                    result: result_of(done.result),
                }),
                ACCEPT => self.accepted(base, id.index as usize, done),
                READABLE => self.readable(base, id.index as usize, done),
                BELL => {
                    sys::silence(&base.ends.doorbell().bell);
                    if !cqueue::more(done.flags) {
                        self.watch_bell();
                    }
                    None
                }
                WAKE_FAILED => {
                    sys::ring(&base.ends.hub.shards[id.index as usize].bell);
                    None
                }
                CANCEL | WOKEN => None,
                _ => None,
            };
            if happened.is_some() {
                return happened;
            }
        }
    }

    fn bytes(&self, lent: Lent) -> &[u8] {
        self.buffers.bytes(lent.buffer, lent.length)
    }

    fn give_back(&mut self, lent: Lent) {
        self.buffers.give_back(lent.buffer);
    }

    fn wake(&mut self, base: &mut Base, shard: ShardId) {
        let doorbell = &base.ends.hub.shards[usize::from(shard.0)];
        let Some(ring) = doorbell.ring.get() else {
            sys::ring(&doorbell.bell);
            return;
        };
        let target = Fd(ring.as_raw_fd());
        let entry = opcode::MsgRingData::new(target, 0, pack(WOKEN, NOBODY), None).build();
        let id = ConnId { index: u32::from(shard.0), generation: 0 };
        self.push(&quiet(entry, pack(WAKE_FAILED, id)));
    }

    fn wait(&mut self, base: &mut Base, time: Option<Duration>) {
        let (pending, idle) = {
            let queue = self.ring.submission();
            (!queue.is_empty(), !queue.taskrun() && !queue.cq_overflow())
        };
        let result = match time {
            // What has not been looked at yet is work enough.
            _ if self.looked < self.reaped.len() => self.ring.submit(),
            Some(Duration::ZERO) if !pending && idle => return,
            Some(Duration::ZERO) => self.ring.submit_and_wait(0),
            Some(time) => {
                let limit = Timespec::from(time);
                let args = SubmitArgs::new().timespec(&limit);
                self.ring.submitter().submit_with_args(1, &args)
            }
            None => self.ring.submit_and_wait(1),
        };
        base.counters.enters += 1;
        if let Err(error) = result {
            // ETIME: nothing happened. EINTR, EAGAIN, EBUSY: the next turn tries again.
            let passing = [libc::ETIME, libc::EINTR, libc::EAGAIN, libc::EBUSY];
            let passes = error.raw_os_error().is_some_and(|code| passing.contains(&code));
            assert!(passes, "the ring is unusable: {error}");
        }
    }

    fn peek(&mut self, _: &mut Base) -> bool {
        self.looked < self.reaped.len()
            || !self.ring.completion().is_empty()
            || self.ring.submission().taskrun()
    }

    fn is_idle(&self) -> bool {
        // Operations of connections are counted by the connections themselves.
        !self.accepting.contains(&true)
    }
}

/// Success of this entry makes no completion.
fn quiet(entry: squeue::Entry, token: u64) -> squeue::Entry {
    entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(token)
}

fn result_of(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
