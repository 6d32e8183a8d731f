//! The epoll twin: recv into one buffer, send from it. What a full socket does not take waits.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};
use tandem_loadgen::link::OneSlice;
use tandem_loadgen::sys::{Epoll, Event, READ, READ_WRITE};

use super::{Counters, decrypt, session};

const LISTENER: u64 = u64::MAX;

struct Conn {
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// Text that the socket did not take, or that came before the partner.
    waits: Vec<u8>,
    asks_for_room: bool,
    open: bool,
}

struct Twin {
    epoll: Epoll,
    conns: Vec<Conn>,
    /// Text for a partner that is still to come.
    early: Vec<u8>,
    raw: Vec<u8>,
    clear: Vec<u8>,
}

/// Relays until the process is ended.
pub(super) fn run(
    listener: &TcpListener,
    tls: Option<&Arc<ServerConfig>>,
    mut counters: Counters,
) -> io::Result<()> {
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), LISTENER, READ)?;
    let raw = vec![0; 64 << 10];
    let mut twin = Twin { epoll, conns: Vec::new(), early: Vec::new(), raw, clear: Vec::new() };
    let mut events = vec![Event::EMPTY; 512];
    loop {
        let count = twin.epoll.wait(&mut events, None)?;
        for event in events.iter().take(count) {
            if event.token() == LISTENER {
                twin.accept(listener, tls)?;
                continue;
            }
            let index = event.token() as usize;
            let mut done = Ok(());
            if event.writable() {
                done = twin.send(index, None);
            }
            if done.is_ok() && event.readable() {
                counters.messages += 1;
                done = twin.relay(index);
            }
            if done.is_err() {
                twin.close(index);
                twin.close(index ^ 1);
            }
        }
        counters.turn()?;
    }
}

impl Twin {
    fn accept(
        &mut self,
        listener: &TcpListener,
        tls: Option<&Arc<ServerConfig>>,
    ) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.epoll.add(stream.as_raw_fd(), self.conns.len() as u64, READ)?;
            let waits = std::mem::take(&mut self.early);
            let tls = tls.map(session).transpose()?;
            self.conns.push(Conn { stream, tls, waits, asks_for_room: false, open: true });
            let index = self.conns.len() - 1;
            if self.send(index, None).is_err() {
                self.close(index);
            }
        }
    }

    /// Reads what is there and passes it on.
    fn relay(&mut self, index: usize) -> io::Result<()> {
        let mut raw = std::mem::take(&mut self.raw);
        let mut clear = std::mem::take(&mut self.clear);
        let done = loop {
            match self.pass(index, &mut raw, &mut clear) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        self.raw = raw;
        self.clear = clear;
        done
    }

    /// Reads once; true if there may be more.
    fn pass(&mut self, index: usize, raw: &mut [u8], clear: &mut Vec<u8>) -> io::Result<bool> {
        let conn = &mut self.conns[index];
        let count = match (&conn.stream).read(raw) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        };
        let full = count == raw.len();
        let bytes = &raw[..count];
        let Some(tls) = &mut conn.tls else {
            return self.send(index ^ 1, Some(bytes)).map(|()| full);
        };
        decrypt(tls, bytes, clear)?;
        if tls.wants_write() {
            self.send(index, None)?;
        }
        if !clear.is_empty() {
            self.send(index ^ 1, Some(clear))?;
        }
        Ok(full)
    }

    fn send(&mut self, index: usize, bytes: Option<&[u8]>) -> io::Result<()> {
        let bytes = bytes.unwrap_or_default();
        let Some(conn) = self.conns.get_mut(index) else {
            self.early.extend_from_slice(bytes);
            return Ok(());
        };
        let all_gone = conn.send(bytes)?;
        if all_gone == conn.asks_for_room {
            conn.asks_for_room = !all_gone;
            let interest = if all_gone { READ } else { READ_WRITE };
            self.epoll.change(conn.stream.as_raw_fd(), index as u64, interest)?;
        }
        Ok(())
    }

    fn close(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index).filter(|c| c.open) else { return };
        conn.open = false;
        // It may be gone already, and gone is what is wanted.
        drop(conn.stream.shutdown(std::net::Shutdown::Both));
        drop(self.epoll.remove(conn.stream.as_raw_fd()));
    }
}

impl Conn {
    /// Sends; false if something had to be kept.
    fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(&std::mem::take(&mut self.waits))?;
            tls.writer().write_all(bytes)?;
            while tls.wants_write() {
                match tls.write_tls(&mut OneSlice(&self.stream)) {
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(e) => return Err(e),
                }
            }
            return Ok(true);
        }
        if self.waits.is_empty() {
            if bytes.is_empty() {
                return Ok(true);
            }
            match (&self.stream).write(bytes) {
                Ok(count) if count == bytes.len() => return Ok(true),
                Ok(count) => self.waits.extend_from_slice(&bytes[count..]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.waits.extend_from_slice(bytes),
                Err(e) => return Err(e),
            }
            return Ok(false);
        }
        self.waits.extend_from_slice(bytes);
        match (&self.stream).write(&self.waits) {
            Ok(count) => drop(self.waits.drain(..count)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(self.waits.is_empty())
    }
}
