//! A server that does as little as one can: takes any password, binds, passes messages on.
//!
//! The self-test measures the generator against it, and with stalls it shows that a latency from
//! the intended time sees them. One thread, so a stall is one of everybody. Does **not** know
//! presence, rosters or TLS.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::sys::{self, Epoll, Event};

const LISTENER: u64 = u64::MAX;
/// Octets read at once, and those that may wait for a reader or for the end of an element.
const READ_OCTETS: usize = 64 << 10;
const HELD_MOST: usize = 16 << 20;
const SASL: &str = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";

/// A pause of everything: so long, once in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// How long.
    pub long: Duration,
    /// From the begin of one to that of the next.
    pub every: Duration,
}

#[derive(Default)]
struct Conn {
    stream: Option<TcpStream>,
    held: Vec<u8>,
    out: Vec<u8>,
    user: String,
    proved: bool,
}

struct Server {
    epoll: Epoll,
    listener: TcpListener,
    conns: Vec<Conn>,
    free: Vec<usize>,
    /// By bare address.
    here: HashMap<String, usize>,
    domain: String,
    dirty: Vec<usize>,
}

/// Starts the server on a thread that ends with the process; gives its address.
pub fn start(at: SocketAddr, domain: &str, stall: Option<Stall>) -> io::Result<SocketAddr> {
    let mut server = Server::new(at, domain)?;
    let at = server.listener.local_addr()?;
    thread::Builder::new().name("null".to_owned()).spawn(move || server.serve(stall))?;
    Ok(at)
}

/// The same on this thread; ends with a Ctrl-C or a fault of epoll.
pub fn serve(at: SocketAddr, domain: &str, stall: Option<Stall>) -> io::Result<()> {
    Server::new(at, domain)?.serve(stall)
}

/// The value of an attribute in a start tag.
fn attribute<'a>(tag: &'a str, name: &str) -> &'a str {
    let found = tag.match_indices(name).find_map(|(at, _)| {
        let quoted = tag.get(at + name.len()..)?.strip_prefix('=')?;
        let before = tag.as_bytes().get(at.checked_sub(1)?)?;
        let quote = quoted.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        before.is_ascii_whitespace().then(|| quoted.get(1..)?.split(quote).next())?
    });
    found.unwrap_or_default()
}

/// How long the first whole element is, and its start tag; `None`: it is not whole yet.
fn element(held: &str) -> Option<(usize, &str)> {
    let begin = held.find('<')?;
    let tag_end = begin + held.get(begin..)?.find('>')? + 1;
    let tag = held.get(begin..tag_end)?;
    let name = tag.get(1..)?.split([' ', '>', '/', '\t', '\n']).next()?;
    let alone = tag.ends_with("/>") || tag.starts_with("</") || tag.starts_with("<?");
    if alone || name == "stream:stream" {
        return Some((tag_end, tag));
    }
    let close = format!("</{name}>");
    Some((tag_end + held.get(tag_end..)?.find(&close)? + close.len(), tag))
}

impl Server {
    fn new(at: SocketAddr, domain: &str) -> io::Result<Self> {
        let listener = sys::listen(at)?;
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new()?;
        epoll.add(listener.as_raw_fd(), LISTENER, sys::READ)?;
        let domain = domain.to_owned();
        let (conns, free, dirty) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { epoll, listener, conns, free, here: HashMap::new(), domain, dirty })
    }

    fn serve(&mut self, stall: Option<Stall>) -> io::Result<()> {
        let mut events = vec![Event::EMPTY; 256];
        let mut next = Instant::now();
        loop {
            let count = self.epoll.wait(&mut events, Some(Duration::from_millis(100)))?;
            if sys::interrupted() {
                return Ok(());
            }
            if let Some(stall) = stall
                && Instant::now() >= next
            {
                next = Instant::now() + stall.every;
                thread::sleep(stall.long);
            }
            for event in &events[..count] {
                match event.token() {
                    LISTENER => self.accept(),
                    token => self.read(token as usize),
                }
            }
            for at in std::mem::take(&mut self.dirty) {
                self.flush(at);
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let set = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
            let at = self.free.pop().unwrap_or(self.conns.len());
            let fd = stream.as_raw_fd();
            if set.is_err() || self.epoll.add(fd, at as u64, sys::READ_WRITE).is_err() {
                continue;
            }
            let conn = Conn { stream: Some(stream), ..Conn::default() };
            match self.conns.get_mut(at) {
                Some(place) => *place = conn,
                None => self.conns.push(conn),
            }
        }
    }

    fn read(&mut self, at: usize) {
        let mut buffer = [0; READ_OCTETS];
        loop {
            let Some(conn) = self.conns.get_mut(at) else { return };
            let Some(stream) = &mut conn.stream else { return };
            match stream.read(&mut buffer) {
                Ok(0) => return self.close(at),
                Ok(count) => conn.held.extend_from_slice(&buffer[..count]),
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => break,
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(at),
            }
        }
        let mut held = std::mem::take(&mut self.conns[at].held);
        let mut done = 0;
        if let Ok(text) = std::str::from_utf8(&held) {
            while let Some((length, tag)) = text.get(done..).and_then(element) {
                let whole = text.get(done..done + length).unwrap_or_default();
                self.answer(at, whole, tag);
                done += length;
            }
        }
        held.drain(..done);
        if held.len() > HELD_MOST {
            return self.close(at);
        }
        self.conns[at].held = held;
        self.dirty.push(at);
    }

    fn answer(&mut self, at: usize, whole: &str, tag: &str) {
        let conn = &mut self.conns[at];
        if tag.starts_with("<message") {
            let to = attribute(tag, "to").split('/').next().unwrap_or_default();
            let from = format!("<message from='{}/null'", conn.user);
            if let Some(&there) = self.here.get(to) {
                let body = whole.find("<message").and_then(|at| whole.get(at + 8..));
                let out = &mut self.conns[there].out;
                out.extend_from_slice(from.as_bytes());
                out.extend_from_slice(body.unwrap_or_default().as_bytes());
                self.dirty.push(there);
            }
        } else if tag.starts_with("<stream:stream") {
            let features = if conn.proved {
                "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>".to_owned()
            } else {
                format!("<mechanisms {SASL}><mechanism>PLAIN</mechanism></mechanisms>")
            };
            let domain = &self.domain;
            let head = format!(
                "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
                 from='{domain}' id='null' version='1.0'><stream:features>{features}</stream:features>"
            );
            conn.out.extend_from_slice(head.as_bytes());
        } else if tag.starts_with("<auth") {
            let text = whole.split(['<', '>']).nth(2).unwrap_or_default();
            let said = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
            let name = said.split(|b| *b == 0).nth(1).unwrap_or_default();
            conn.user = format!("{}@{}", String::from_utf8_lossy(name), self.domain);
            conn.proved = true;
            conn.out.extend_from_slice(format!("<success {SASL}/>").as_bytes());
        } else if tag.starts_with("<iq") && attribute(tag, "type") != "result" {
            let id = attribute(tag, "id");
            let inner = if whole.contains("urn:ietf:params:xml:ns:xmpp-bind") {
                self.here.insert(conn.user.clone(), at);
                let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>";
                format!("{bind}{}/null</jid></bind>", conn.user)
            } else {
                String::new()
            };
            conn.out
                .extend_from_slice(format!("<iq type='result' id='{id}'>{inner}</iq>").as_bytes());
        } else if tag.starts_with("</stream") {
            conn.out.extend_from_slice(b"</stream:stream>");
        }
    }

    fn flush(&mut self, at: usize) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        let Some(stream) = &mut conn.stream else { return };
        let mut sent = 0;
        let mut gone = false;
        while sent < conn.out.len() {
            match stream.write(&conn.out[sent..]) {
                Ok(count) => sent += count,
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(fault) => {
                    gone = fault.kind() != io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        conn.out.drain(..sent);
        if gone || conn.out.len() > HELD_MOST {
            self.close(at);
        }
    }

    fn close(&mut self, at: usize) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        if conn.stream.take().is_some() {
            if self.here.get(&conn.user) == Some(&at) {
                self.here.remove(&conn.user);
            }
            *conn = Conn::default();
            self.free.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_cut_where_they_end() {
        assert_eq!(element("<a/><b>").unwrap().0, 4);
        assert_eq!(element("<b x='1'>t</b><").unwrap(), (14, "<b x='1'>"));
        assert_eq!(element("<b>t</"), None);
        assert_eq!(attribute("<m id='7' to=\"x@y\">", "to"), "x@y");
        assert_eq!(attribute("<m xto='1'>", "to"), "");
    }
}
