//! The bare fan-out sender on epoll: what came in a turn is joined once and written to each
//! watcher. What a full socket does not take waits.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use tandem_loadgen::sys::{Epoll, Event, READ, READ_WRITE};

use super::Counters;

const LISTENER: u64 = u64::MAX;

struct Conn {
    stream: TcpStream,
    sends: bool,
    open: bool,
    waits: Vec<u8>,
}

struct Fan {
    epoll: Epoll,
    conns: Vec<Conn>,
    gathered: Vec<u8>,
    raw: Vec<u8>,
}

/// Sends until the process is ended.
pub(super) fn run(listener: &TcpListener, mut counters: Counters) -> io::Result<()> {
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), LISTENER, READ)?;
    let raw = vec![0; 64 << 10];
    let mut fan = Fan { epoll, conns: Vec::new(), gathered: Vec::new(), raw };
    let mut events = vec![Event::EMPTY; 512];
    loop {
        let count = fan.epoll.wait(&mut events, None)?;
        for event in events.iter().take(count) {
            if event.token() == LISTENER {
                fan.accept(listener)?;
                continue;
            }
            let index = event.token() as usize;
            let mut done = Ok(());
            if event.writable() {
                done = fan.send(index, &[]);
            }
            if done.is_ok() && event.readable() {
                counters.messages += 1;
                done = fan.gather(index);
            }
            if done.is_err() {
                fan.close(index);
            }
        }
        fan.spread();
        counters.turn()?;
    }
}

impl Fan {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.epoll.add(stream.as_raw_fd(), self.conns.len() as u64, READ)?;
            self.conns.push(Conn { stream, sends: false, open: true, waits: Vec::new() });
        }
    }

    /// Reads what is there; the first bytes only tell that this one sends.
    fn gather(&mut self, index: usize) -> io::Result<()> {
        let conn = &mut self.conns[index];
        loop {
            let count = match (&conn.stream).read(&mut self.raw) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            if std::mem::replace(&mut conn.sends, true) {
                self.gathered.extend_from_slice(&self.raw[..count]);
            }
            if count < self.raw.len() {
                return Ok(());
            }
        }
    }

    /// What was gathered goes to every watcher.
    fn spread(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let gathered = std::mem::take(&mut self.gathered);
        for index in 0..self.conns.len() {
            let conn = &self.conns[index];
            if conn.open && !conn.sends && self.send(index, &gathered).is_err() {
                self.close(index);
            }
        }
        self.gathered = gathered;
        self.gathered.clear();
    }

    fn send(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let conn = &mut self.conns[index];
        let waited = !conn.waits.is_empty();
        if waited {
            conn.waits.extend_from_slice(bytes);
        }
        let all = if waited { &conn.waits } else { bytes };
        let gone = match (&conn.stream).write(all) {
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(e) => return Err(e),
        };
        if waited {
            conn.waits.drain(..gone);
        } else {
            conn.waits.extend_from_slice(&bytes[gone..]);
        }
        let waits = !conn.waits.is_empty();
        if waits != waited {
            let interest = if waits { READ_WRITE } else { READ };
            self.epoll.change(conn.stream.as_raw_fd(), index as u64, interest)?;
        }
        Ok(())
    }

    fn close(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if std::mem::replace(&mut conn.open, false) {
            // It may be gone already, and gone is what is wanted.
            drop(conn.stream.shutdown(std::net::Shutdown::Both));
            drop(self.epoll.remove(conn.stream.as_raw_fd()));
        }
    }
}
