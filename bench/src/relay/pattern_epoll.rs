//! The relay of a packet pattern on epoll: recv into one buffer, one send per connection and turn. What
//! a full socket does not take waits.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use tandem_loadgen::sys::{Epoll, Event, READ, READ_WRITE};

use super::Counters;
use super::pattern::{Pattern, Side};

const LINES: u64 = u64::MAX;
const OWNS: u64 = u64::MAX - 1;

struct Conn {
    stream: TcpStream,
    waits: Vec<u8>,
    asks_for_room: bool,
    open: bool,
}

struct Twin {
    epoll: Epoll,
    pattern: Pattern,
    conns: Vec<Conn>,
    raw: Vec<u8>,
}

/// Relays until the process is ended.
pub(super) fn run(
    lines: &TcpListener,
    owns: &TcpListener,
    pattern: Pattern,
    mut counters: Counters,
) -> io::Result<()> {
    let epoll = Epoll::new()?;
    epoll.add(lines.as_raw_fd(), LINES, READ)?;
    epoll.add(owns.as_raw_fd(), OWNS, READ)?;
    let mut twin = Twin { epoll, pattern, conns: Vec::new(), raw: vec![0; 64 << 10] };
    let mut events = vec![Event::EMPTY; 512];
    loop {
        let count = twin.epoll.wait(&mut events, None)?;
        for event in events.iter().take(count) {
            match event.token() {
                LINES => twin.accept(lines, Side::Line)?,
                OWNS => twin.accept(owns, Side::Own)?,
                token => {
                    let index = token as usize;
                    let mut done = Ok(());
                    if event.writable() {
                        done = twin.send(index);
                    }
                    if done.is_ok() && event.readable() {
                        counters.messages += 1;
                        done = twin.read(index);
                    }
                    if done.is_err() {
                        twin.close(index);
                    }
                }
            }
        }
        for index in std::mem::take(&mut twin.pattern.dirty) {
            if twin.send(index).is_err() {
                twin.close(index);
            }
        }
        counters.turn()?;
    }
}

impl Twin {
    fn accept(&mut self, listener: &TcpListener, side: Side) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.epoll.add(stream.as_raw_fd(), self.conns.len() as u64, READ)?;
            self.conns.push(Conn { stream, waits: Vec::new(), asks_for_room: false, open: true });
            self.pattern.enter(side);
        }
    }

    fn read(&mut self, index: usize) -> io::Result<()> {
        loop {
            let count = match (&self.conns[index].stream).read(&mut self.raw) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            self.pattern.take(index, &self.raw[..count]);
            if count < self.raw.len() {
                return Ok(());
            }
        }
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let conn = &mut self.conns[index];
        self.pattern.take_out(index, &mut conn.waits);
        if conn.waits.is_empty() || !conn.open {
            return Ok(());
        }
        match (&conn.stream).write(&conn.waits) {
            Ok(count) if count == conn.waits.len() => conn.waits.clear(),
            Ok(count) => drop(conn.waits.drain(..count)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        let waits = !conn.waits.is_empty();
        if waits != conn.asks_for_room {
            conn.asks_for_room = waits;
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
