//! The ring twin: multishot accept and recv into one provided-buffer ring, one SEND per dirty
//! connection and turn. A lone segment is sent from the buffer it came in; more are joined.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustls::{ServerConfig, ServerConnection};

use super::{Counters, decrypt, session};

/// Buffers of the ring: a power of two.
const BUFFERS: u16 = 4096;
const BUFFER_BYTES: usize = 2048;
pub(super) const GROUP: u16 = 1;
const SUBMISSIONS: u32 = 1024;

pub(super) const ACCEPT: u64 = 1 << 56;
pub(super) const RECV: u64 = 2 << 56;
pub(super) const SEND: u64 = 3 << 56;

/// The kernel's view of the buffers and the bytes behind them.
pub(super) struct Buffers {
    entries: *mut BufRingEntry,
    bytes: *mut u8,
    tail: u16,
}

impl Buffers {
    fn new() -> io::Result<Self> {
        let map = |length: usize| {
            // SAFETY: a fresh private mapping; nothing of ours is at its address.
            let at = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    length,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                    -1,
                    0,
                )
            };
            if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at) }
        };
        let entries = map(usize::from(BUFFERS) * size_of::<BufRingEntry>())?.cast();
        let bytes = map(usize::from(BUFFERS) * BUFFER_BYTES)?.cast();
        Ok(Self { entries, bytes, tail: 0 })
    }

    fn at(&self, buffer: u16) -> *mut u8 {
        // SAFETY: every buffer number is below BUFFERS: ours, or the kernel's from ours.
        unsafe { self.bytes.add(usize::from(buffer) * BUFFER_BYTES) }
    }

    pub(super) fn slice(&self, buffer: u16, length: u32) -> &[u8] {
        // SAFETY: the kernel filled this many bytes and leaves the buffer alone until given back.
        unsafe { std::slice::from_raw_parts(self.at(buffer), length as usize) }
    }

    /// Gives a buffer back; the kernel sees it at the next [`Self::publish`].
    pub(super) fn give(&mut self, buffer: u16) {
        let at = self.at(buffer) as u64;
        // SAFETY: masked, so inside the mapping; only we write entries.
        let entry = unsafe { &mut *self.entries.add(usize::from(self.tail & (BUFFERS - 1))) };
        entry.set_addr(at);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    pub(super) fn publish(&self) {
        // SAFETY: the tail lies in the first entry's reserved field; the kernel only reads it.
        let tail = unsafe { &*BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

/// What a SEND in flight reads from.
enum Sending {
    Nothing,
    Buffer { buffer: u16, length: u32, done: u32 },
    Joined { done: usize },
}

struct Conn {
    fd: RawFd,
    tls: Option<Box<ServerConnection>>,
    /// Buffers that wait to be sent.
    waits: Vec<(u16, u32)>,
    sending: Sending,
    joined: Vec<u8>,
    dirty: bool,
    open: bool,
}

impl Conn {
    /// A place for a connection that was not accepted yet.
    fn expected() -> Self {
        Self {
            fd: -1,
            tls: None,
            waits: Vec::new(),
            sending: Sending::Nothing,
            joined: Vec::new(),
            dirty: false,
            open: false,
        }
    }
}

struct Twin<'a> {
    ring: IoUring,
    buffers: Buffers,
    conns: Vec<Conn>,
    accepted: usize,
    dirty: Vec<u32>,
    starved: Vec<u32>,
    clear: Vec<u8>,
    tls: Option<&'a Arc<ServerConfig>>,
}

/// A ring with its receive buffers registered.
pub(super) fn ring() -> io::Result<(IoUring, Buffers)> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(4 * SUBMISSIONS)
        .build(SUBMISSIONS)?;
    let mut buffers = Buffers::new()?;
    // SAFETY: the mapping is never unmapped, so it outlives the ring.
    unsafe {
        ring.submitter().register_buf_ring_with_flags(buffers.entries as u64, BUFFERS, GROUP, 0)?;
    }
    (0..BUFFERS).for_each(|buffer| buffers.give(buffer));
    buffers.publish();
    Ok((ring, buffers))
}

/// Small messages leave at once.
pub(super) fn no_delay(fd: RawFd) {
    let one: libc::c_int = 1;
    // SAFETY: the option is an int that lives through the call.
    unsafe {
        libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const one).cast(), 4);
    }
}

/// Relays until the process is ended.
pub(super) fn run(
    listener: &TcpListener,
    tls: Option<&Arc<ServerConfig>>,
    mut counters: Counters,
) -> io::Result<()> {
    let (ring, buffers) = ring()?;
    let (conns, dirty, starved) = (Vec::new(), Vec::new(), Vec::new());
    let clear = Vec::new();
    let mut twin = Twin { ring, buffers, conns, accepted: 0, dirty, starved, clear, tls };
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build().user_data(ACCEPT);
    twin.push(&accept)?;
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
                    twin.accepted(entry.result())?;
                    if !cqueue::more(entry.flags()) {
                        twin.push(&accept)?;
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

impl Twin<'_> {
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: what the entries point to lives in the buffers or in a connection's `joined`,
        // neither of which moves or is freed while its SEND is in flight.
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
        let index = self.accepted;
        self.accepted += 1;
        while self.conns.len() <= index | 1 {
            self.conns.push(Conn::expected());
        }
        let tls = self.tls.map(session).transpose()?;
        let conn = &mut self.conns[index];
        conn.fd = fd;
        conn.open = true;
        conn.tls = tls;
        self.arm(index)?;
        self.mark(index);
        Ok(())
    }

    fn arm(&mut self, index: usize) -> io::Result<()> {
        let recv = opcode::RecvMulti::new(Fd(self.conns[index].fd), GROUP).build();
        self.push(&recv.user_data(RECV | index as u64))
    }

    fn mark(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(index as u32);
        }
    }

    fn received(&mut self, index: usize, entry: &cqueue::Entry) -> io::Result<()> {
        let result = entry.result();
        if result == -libc::ENOBUFS {
            self.starved.push(index as u32);
            return Ok(());
        }
        let Some(buffer) = cqueue::buffer_select(entry.flags()).filter(|_| result > 0) else {
            self.close(index);
            self.close(index ^ 1);
            return Ok(());
        };
        let length = result.cast_unsigned();
        if self.tls.is_some() {
            let done = self.recrypt(index, buffer, length);
            self.buffers.give(buffer);
            if done.is_err() {
                self.close(index);
                self.close(index ^ 1);
            }
        } else {
            self.conns[index ^ 1].waits.push((buffer, length));
            self.mark(index ^ 1);
        }
        if !cqueue::more(entry.flags()) && self.conns[index].open {
            self.arm(index)?;
        }
        Ok(())
    }

    /// Decrypts what came and hands the text to the partner's session.
    fn recrypt(&mut self, index: usize, buffer: u16, length: u32) -> io::Result<()> {
        use io::Write as _;
        let Some(tls) = &mut self.conns[index].tls else { return Ok(()) };
        decrypt(tls, self.buffers.slice(buffer, length), &mut self.clear)?;
        if tls.wants_write() {
            self.mark(index);
        }
        if !self.clear.is_empty() {
            if let Some(tls) = &mut self.conns[index ^ 1].tls {
                tls.writer().write_all(&self.clear)?;
            }
            self.mark(index ^ 1);
        }
        Ok(())
    }

    fn sent(&mut self, index: usize, result: i32) -> io::Result<()> {
        let conn = &mut self.conns[index];
        let sending = std::mem::replace(&mut conn.sending, Sending::Nothing);
        if result < 0 {
            if let Sending::Buffer { buffer, .. } = sending {
                self.buffers.give(buffer);
            }
            self.close(index);
            self.close(index ^ 1);
            return Ok(());
        }
        match sending {
            Sending::Buffer { buffer, length, done } if done + result.cast_unsigned() < length => {
                conn.sending =
                    Sending::Buffer { buffer, length, done: done + result.cast_unsigned() };
                return self.submit_send(index);
            }
            Sending::Buffer { buffer, .. } => self.buffers.give(buffer),
            Sending::Joined { done } if done + (result as usize) < conn.joined.len() => {
                conn.sending = Sending::Joined { done: done + result as usize };
                return self.submit_send(index);
            }
            Sending::Joined { .. } => conn.joined.clear(),
            Sending::Nothing => {}
        }
        let conn = &self.conns[index];
        if !conn.waits.is_empty() || conn.tls.as_ref().is_some_and(|t| t.wants_write()) {
            self.mark(index);
        }
        Ok(())
    }

    /// One SEND for each dirty connection that has none in flight.
    fn flush(&mut self) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.send(index as usize)?;
        }
        self.dirty = dirty;
        self.buffers.publish();
        let mut starved = std::mem::take(&mut self.starved);
        for index in starved.drain(..) {
            if self.conns[index as usize].open {
                self.arm(index as usize)?;
            }
        }
        self.starved = starved;
        Ok(())
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let conn = &mut self.conns[index];
        conn.dirty = false;
        if !conn.open || !matches!(conn.sending, Sending::Nothing) {
            return Ok(());
        }
        if let Some(tls) = &mut conn.tls {
            while tls.wants_write() {
                tls.write_tls(&mut conn.joined)?;
            }
            if conn.joined.is_empty() {
                return Ok(());
            }
            conn.sending = Sending::Joined { done: 0 };
            return self.submit_send(index);
        }
        match conn.waits.as_slice() {
            [] => return Ok(()),
            &[(buffer, length)] => {
                conn.sending = Sending::Buffer { buffer, length, done: 0 };
                conn.waits.clear();
            }
            _ => {
                for (buffer, length) in conn.waits.drain(..) {
                    conn.joined.extend_from_slice(self.buffers.slice(buffer, length));
                    self.buffers.give(buffer);
                }
                conn.sending = Sending::Joined { done: 0 };
            }
        }
        self.submit_send(index)
    }

    fn submit_send(&mut self, index: usize) -> io::Result<()> {
        let conn = &self.conns[index];
        let (at, length) = match conn.sending {
            Sending::Nothing => return Ok(()),
            Sending::Buffer { buffer, length, done } => {
                (self.buffers.slice(buffer, length)[done as usize..].as_ptr(), length - done)
            }
            Sending::Joined { done } => {
                let rest = &conn.joined[done..];
                (rest.as_ptr(), rest.len() as u32)
            }
        };
        let send = opcode::Send::new(Fd(conn.fd), at, length).flags(libc::MSG_NOSIGNAL).build();
        self.push(&send.user_data(SEND | index as u64))
    }

    fn close(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if !conn.open {
            return;
        }
        conn.open = false;
        for (buffer, _) in conn.waits.drain(..) {
            self.buffers.give(buffer);
        }
        // SAFETY: no pointers. The descriptor stays ours, so that no late completion of this
        // connection can meet another one under the same number.
        unsafe { libc::shutdown(conn.fd, libc::SHUT_RDWR) };
    }
}
