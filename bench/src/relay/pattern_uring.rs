//! The relay of a packet pattern on the ring: multishot accept and recv into one provided-buffer ring,
//! one SEND per connection and turn.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, RawFd};

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::Counters;
use super::pattern::{Pattern, Side};
use super::uring::{ACCEPT, Buffers, GROUP, RECV, SEND, no_delay, ring};

struct Conn {
    fd: RawFd,
    /// In flight, with how much of it is gone; it neither moves nor is freed meanwhile.
    sending: Vec<u8>,
    done: usize,
    in_flight: bool,
    open: bool,
}

struct Twin {
    ring: IoUring,
    buffers: Buffers,
    pattern: Pattern,
    conns: Vec<Conn>,
    starved: Vec<usize>,
}

/// Relays until the process is ended.
pub(super) fn run(
    lines: &TcpListener,
    owns: &TcpListener,
    pattern: Pattern,
    mut counters: Counters,
) -> io::Result<()> {
    let (ring, buffers) = ring()?;
    let mut twin = Twin { ring, buffers, pattern, conns: Vec::new(), starved: Vec::new() };
    let listeners = [(lines.as_raw_fd(), Side::Line), (owns.as_raw_fd(), Side::Own)];
    let accept = |at: usize| {
        opcode::AcceptMulti::new(Fd(listeners[at].0)).build().user_data(ACCEPT | at as u64)
    };
    twin.push(&accept(0))?;
    twin.push(&accept(1))?;
    let mut reaped = Vec::with_capacity(4096);
    loop {
        match twin.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => continue,
            Err(e) => return Err(e),
        }
        reaped.extend(twin.ring.completion());
        for entry in reaped.drain(..) {
            let index = (entry.user_data() & 0xffff_ffff) as usize;
            match entry.user_data() & (0xff << 56) {
                ACCEPT => {
                    twin.accepted(entry.result(), listeners[index].1)?;
                    if !cqueue::more(entry.flags()) {
                        twin.push(&accept(index))?;
                    }
                }
                RECV => {
                    counters.messages += 1;
                    twin.received(index, &entry)?;
                }
                _ => twin.sent(index, entry.result())?,
            }
        }
        twin.flush()?;
        counters.turn()?;
    }
}

impl Twin {
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: what the entries point to lives in a connection's `sending`, which is not touched
        // while its SEND is in flight.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    fn accepted(&mut self, fd: i32, side: Side) -> io::Result<()> {
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(-fd));
        }
        no_delay(fd);
        self.pattern.enter(side);
        let (sending, done) = (Vec::new(), 0);
        self.conns.push(Conn { fd, sending, done, in_flight: false, open: true });
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
        self.pattern.take(index, self.buffers.slice(buffer, result.cast_unsigned()));
        self.buffers.give(buffer);
        if !cqueue::more(entry.flags()) && self.conns[index].open {
            self.arm(index)?;
        }
        Ok(())
    }

    fn sent(&mut self, index: usize, result: i32) -> io::Result<()> {
        let conn = &mut self.conns[index];
        conn.in_flight = false;
        if result < 0 {
            self.close(index);
            return Ok(());
        }
        conn.done += result as usize;
        if conn.done == conn.sending.len() {
            conn.sending.clear();
            conn.done = 0;
        }
        self.send(index)
    }

    fn flush(&mut self) -> io::Result<()> {
        for index in std::mem::take(&mut self.pattern.dirty) {
            // In flight, it is looked at again when that is gone.
            if !self.conns[index].in_flight {
                self.send(index)?;
            }
        }
        self.buffers.publish();
        for index in std::mem::take(&mut self.starved) {
            if self.conns[index].open {
                self.arm(index)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let conn = &mut self.conns[index];
        if conn.sending.is_empty() {
            self.pattern.take_out(index, &mut conn.sending);
        }
        let Some(rest) = conn.sending.get(conn.done..).filter(|it| !it.is_empty() && conn.open)
        else {
            return Ok(());
        };
        conn.in_flight = true;
        let send = opcode::Send::new(Fd(conn.fd), rest.as_ptr(), rest.len() as u32);
        let send = send.flags(libc::MSG_NOSIGNAL).build();
        self.push(&send.user_data(SEND | index as u64))
    }

    fn close(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if std::mem::replace(&mut conn.open, false) {
            // SAFETY: no pointers. The descriptor stays ours, so that no late completion of this
            // connection can meet another one under the same number.
            unsafe { libc::shutdown(conn.fd, libc::SHUT_RDWR) };
        }
    }
}
