//! The connections of an edge: one listener, and connections in either direction.
//!
//! They live in the epoll set of the run, under tokens above those of XMPP clients. Does **not** read
//! messages.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;

use crate::link::Link;
use crate::sys::{self, Epoll};

/// Tokens from here on are an edge's.
pub const EDGE: u64 = 1 << 32;
const LISTENER: u64 = EDGE | u32::MAX as u64;

/// One connection.
struct Line {
    link: Link,
    held: Vec<u8>,
    dirty: bool,
}

/// An edge.
pub struct Edge {
    /// Where it listens; what it opens comes from the same address.
    pub at: SocketAddr,
    listener: Option<TcpListener>,
    lines: Vec<Option<Line>>,
    dirty: Vec<usize>,
    raw: Vec<u8>,
    clear: Vec<u8>,
}

/// What an event was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Connections may have come; they have been taken.
    Accepted,
    /// That connection.
    Line(usize),
}

impl Edge {
    /// An edge that nobody reaches yet.
    pub fn new(at: SocketAddr) -> Self {
        let (lines, dirty) = (Vec::new(), Vec::new());
        Self { at, listener: None, lines, dirty, raw: vec![0; 64 << 10], clear: Vec::new() }
    }

    /// Listens.
    pub fn listen(&mut self, epoll: &Epoll) -> io::Result<()> {
        let listener = sys::listen(self.at)?;
        epoll.add(listener.as_raw_fd(), LISTENER, sys::READ)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Opens a connection and says which it is.
    pub fn dial(&mut self, target: SocketAddr, epoll: &Epoll) -> io::Result<usize> {
        let source = match self.at.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        };
        self.enter(Link::new(sys::connect(source, target)?), epoll)
    }

    fn enter(&mut self, link: Link, epoll: &Epoll) -> io::Result<usize> {
        epoll.add(link.fd(), EDGE | self.lines.len() as u64, sys::READ)?;
        self.lines.push(Some(Line { link, held: Vec::new(), dirty: false }));
        Ok(self.lines.len() - 1)
    }

    /// Takes what an event of this edge's is about; connections that wait are accepted.
    pub fn event(&mut self, token: u64, epoll: &Epoll) -> io::Result<Event> {
        if token != LISTENER {
            return Ok(Event::Line((token & 0xffff_ffff) as usize));
        }
        while let Some(listener) = &self.listener {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.enter(Link::new(stream), epoll)?;
        }
        Ok(Event::Accepted)
    }

    /// Whether that connection stands.
    pub fn is_open(&self, line: usize) -> bool {
        self.lines.get(line).is_some_and(Option::is_some)
    }

    /// How many stand.
    pub fn open(&self) -> usize {
        self.lines.iter().flatten().count()
    }

    /// Reads once what is there, behind what was given back; `None` if the connection ended. The
    /// flag says that there may be more.
    pub fn read(&mut self, line: usize) -> Option<(Vec<u8>, bool)> {
        let it = self.lines.get_mut(line)?.as_mut()?;
        match it.link.read(&mut self.raw, &mut self.clear) {
            Ok(Some(bytes)) => {
                it.held.extend_from_slice(bytes);
                Some((std::mem::take(&mut it.held), it.link.may_have_more))
            }
            Ok(None) | Err(_) => {
                self.lines[line] = None;
                None
            }
        }
    }

    /// Gives back what was not done with.
    pub fn give_back(&mut self, line: usize, mut held: Vec<u8>, done: usize) {
        if let Some(Some(it)) = self.lines.get_mut(line) {
            held.drain(..done);
            it.held = held;
        }
    }

    /// Queues; what is queued to a connection that is gone is lost with it.
    pub fn queue(&mut self, line: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(Some(it)) = self.lines.get_mut(line) else { return Ok(()) };
        it.link.queue(bytes)?;
        if !it.dirty {
            it.dirty = true;
            self.dirty.push(line);
        }
        Ok(())
    }

    /// Sends what was queued.
    pub fn flush(&mut self, epoll: &Epoll) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for line in dirty.drain(..) {
            self.flush_line(line, epoll)?;
        }
        self.dirty = dirty;
        Ok(())
    }

    /// Sends what waits on one connection and asks for room if not all of it went.
    pub fn flush_line(&mut self, line: usize, epoll: &Epoll) -> io::Result<()> {
        let Some(Some(it)) = self.lines.get_mut(line) else { return Ok(()) };
        it.dirty = false;
        let Ok(gone) = it.link.flush() else {
            self.lines[line] = None;
            return Ok(());
        };
        if gone == it.link.asks_for_room {
            it.link.asks_for_room = !gone;
            let interest = if gone { sys::READ } else { sys::READ_WRITE };
            epoll.change(it.link.fd(), EDGE | line as u64, interest)?;
        }
        Ok(())
    }

    /// Is gone: the listener and every connection.
    pub fn vanish(&mut self) {
        self.listener = None;
        self.lines.iter_mut().for_each(|line| *line = None);
        self.dirty.clear();
    }
}
