//! The bare fan-out sender on the ring: what came in a turn is joined once, and one SEND for each
//! watcher points at it. No octet is copied for a watcher by us.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, RawFd};

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::Counters;
use super::uring::{ACCEPT, Buffers, GROUP, RECV, SEND, no_delay, ring};

/// What came in one turn, until every watcher has it.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    users: usize,
}

struct Conn {
    fd: RawFd,
    sends: bool,
    open: bool,
    /// The batch in flight, and how much of it is gone.
    sending: Option<(usize, usize)>,
    waits: VecDeque<usize>,
}

struct Fan {
    ring: IoUring,
    buffers: Buffers,
    conns: Vec<Conn>,
    batches: Vec<Batch>,
    free: Vec<usize>,
    gathered: Vec<u8>,
    starved: Vec<usize>,
}

/// Sends until the process is ended.
pub(super) fn run(listener: &TcpListener, mut counters: Counters) -> io::Result<()> {
    let (ring, buffers) = ring()?;
    let mut fan = Fan {
        ring,
        buffers,
        conns: Vec::new(),
        batches: Vec::new(),
        free: Vec::new(),
        gathered: Vec::new(),
        starved: Vec::new(),
    };
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build().user_data(ACCEPT);
    fan.push(&accept)?;
    let mut reaped = Vec::with_capacity(4096);
    loop {
        match fan.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => continue,
            Err(e) => return Err(e),
        }
        reaped.extend(fan.ring.completion());
        for entry in reaped.drain(..) {
            let index = (entry.user_data() & 0xffff_ffff) as usize;
            match entry.user_data() & (0xff << 56) {
                ACCEPT => {
                    fan.accepted(entry.result())?;
                    if !cqueue::more(entry.flags()) {
                        fan.push(&accept)?;
                    }
                }
                RECV => {
                    counters.messages += 1;
                    fan.received(index, &entry)?;
                }
                _ => fan.sent(index, entry.result())?,
            }
        }
        fan.spread()?;
        counters.turn()?;
    }
}

impl Fan {
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: what the entries point to lives in a batch, whose bytes neither move nor are
        // freed while a SEND of it is in flight.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    fn accepted(&mut self, fd: i32) -> io::Result<()> {
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(-fd));
        }
        no_delay(fd);
        let waits = VecDeque::new();
        self.conns.push(Conn { fd, sends: false, open: true, sending: None, waits });
        self.arm(self.conns.len() - 1)
    }

    fn arm(&mut self, index: usize) -> io::Result<()> {
        let recv = opcode::RecvMulti::new(Fd(self.conns[index].fd), GROUP).build();
        self.push(&recv.user_data(RECV | index as u64))
    }

    fn received(&mut self, index: usize, entry: &cqueue::Entry) -> io::Result<()> {
        let result = entry.result();
        if result == -libc::ENOBUFS {
            self.starved.push(index);
            return Ok(());
        }
        let Some(buffer) = cqueue::buffer_select(entry.flags()).filter(|_| result > 0) else {
            self.close(index);
            return Ok(());
        };
        if std::mem::replace(&mut self.conns[index].sends, true) {
            self.gathered.extend_from_slice(self.buffers.slice(buffer, result.cast_unsigned()));
        }
        self.buffers.give(buffer);
        if !cqueue::more(entry.flags()) && self.conns[index].open {
            self.arm(index)?;
        }
        Ok(())
    }

    /// What was gathered goes to every watcher.
    fn spread(&mut self) -> io::Result<()> {
        self.buffers.publish();
        for index in std::mem::take(&mut self.starved) {
            if self.conns[index].open {
                self.arm(index)?;
            }
        }
        if self.gathered.is_empty() {
            return Ok(());
        }
        let batch = self.free.pop().unwrap_or(self.batches.len());
        if batch == self.batches.len() {
            self.batches.push(Batch::default());
        }
        std::mem::swap(&mut self.batches[batch].bytes, &mut self.gathered);
        for index in 0..self.conns.len() {
            let conn = &mut self.conns[index];
            if conn.sends || !conn.open {
                continue;
            }
            self.batches[batch].users += 1;
            if conn.sending.is_some() {
                conn.waits.push_back(batch);
            } else {
                conn.sending = Some((batch, 0));
                self.send(index)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let conn = &self.conns[index];
        let Some((batch, gone)) = conn.sending else { return Ok(()) };
        let rest = &self.batches[batch].bytes[gone..];
        let send = opcode::Send::new(Fd(conn.fd), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        self.push(&send.user_data(SEND | index as u64))
    }

    fn sent(&mut self, index: usize, result: i32) -> io::Result<()> {
        let conn = &mut self.conns[index];
        let Some((batch, gone)) = conn.sending.take() else { return Ok(()) };
        if result < 0 {
            self.done(batch);
            self.close(index);
            return Ok(());
        }
        let gone = gone + result.cast_unsigned() as usize;
        if gone < self.batches[batch].bytes.len() {
            conn.sending = Some((batch, gone));
            return self.send(index);
        }
        conn.sending = conn.waits.pop_front().map(|next| (next, 0));
        self.done(batch);
        self.send(index)
    }

    /// One watcher less needs a batch.
    fn done(&mut self, batch: usize) {
        let it = &mut self.batches[batch];
        it.users -= 1;
        if it.users == 0 {
            it.bytes.clear();
            self.free.push(batch);
        }
    }

    fn close(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if !std::mem::replace(&mut conn.open, false) {
            return;
        }
        let fd = conn.fd;
        for batch in std::mem::take(&mut conn.waits) {
            self.done(batch);
        }
        // SAFETY: no pointers. The descriptor stays ours, so that no late completion of this
        // connection can meet another one under the same number.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    }
}
