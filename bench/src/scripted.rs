//! A server that takes logins by a script: what a login costs in TCP, TLS and SCRAM alone, and the
//! denominator of V12.
//!
//! Same flights and same sizes as a real one; the texts are fixed but for what SCRAM and the name
//! change. One thread, epoll, rustls from the first byte. The keys of SCRAM-SHA-256 (RFC 5802, 3)
//! are cached, as a server keeps them, so a login costs two HMACs and a hash. Does **not** know
//! users, keep sessions, parse XML or route: everyone's password is one and the same.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use rustls::{ServerConfig, ServerConnection};
use sha2::{Digest as _, Sha256};
use tandem_loadgen::link::OneSlice;
use tandem_loadgen::sys::{self, Epoll, Event, READ, READ_WRITE};

use crate::relay;

const LISTENER: u64 = u64::MAX;
const ITERATIONS: u32 = 4096;
const SALT: &[u8] = b"0123456789abcdef";

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Scripted {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// A directory with cert.pem and key.pem.
    #[arg(long)]
    tls: PathBuf,
    /// The domain of the users.
    #[arg(long, default_value = "load.example")]
    domain: String,
    /// Everyone's password.
    #[arg(long, default_value = "pw")]
    password: String,
    /// Octets of text that one login is sent in all; what is missing pads the features.
    #[arg(long, default_value_t = 0)]
    octets: usize,
}

/// Where a conversation stands: what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    Auth,
    Response,
    OpenAgain,
    Bind,
    Roster,
    Close,
    Gone,
}

struct Conn {
    stream: TcpStream,
    tls: Box<ServerConnection>,
    step: Step,
    held: Vec<u8>,
    user: String,
    /// The first two messages of SCRAM, which the proofs cover.
    said: String,
    nonce: String,
    asks_for_room: bool,
}

struct Keys {
    stored: [u8; 32],
    server: [u8; 32],
}

struct Server {
    epoll: Epoll,
    tls: Arc<ServerConfig>,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    keys: Keys,
    domain: String,
    padding: String,
    count: u64,
    raw: Vec<u8>,
    clear: Vec<u8>,
}

impl Scripted {
    /// Takes logins until the process is ended.
    pub(crate) fn run(&self) -> io::Result<()> {
        sys::raise_descriptors()?;
        let listener = sys::listen(self.listen)?;
        let salted =
            pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(self.password.as_bytes(), SALT, ITERATIONS);
        let stored = Sha256::digest(hmac(&salted, b"Client Key")).into();
        let keys = Keys { stored, server: hmac(&salted, b"Server Key") };
        let mut server = Server {
            epoll: Epoll::new()?,
            tls: relay::tls_config(&self.tls)?,
            conns: Vec::new(),
            free: Vec::new(),
            keys,
            domain: self.domain.clone(),
            padding: String::new(),
            count: 0,
            raw: vec![0; 64 << 10],
            clear: Vec::new(),
        };
        server.padding = " ".repeat(self.octets.saturating_sub(server.octets()));
        server.epoll.add(listener.as_raw_fd(), LISTENER, READ)?;
        let mut events = vec![Event::EMPTY; 512];
        loop {
            let count = server.epoll.wait(&mut events, None)?;
            for event in events.iter().take(count) {
                if event.token() == LISTENER {
                    server.accept(&listener)?;
                } else {
                    server.advance(event.token() as usize);
                }
            }
        }
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let at = self.free.pop().unwrap_or(self.conns.len());
            if at == self.conns.len() {
                self.conns.push(None);
            }
            self.epoll.add(stream.as_raw_fd(), at as u64, READ)?;
            self.conns[at] = Some(Conn {
                stream,
                tls: relay::session(&self.tls)?,
                step: Step::Open,
                held: Vec::new(),
                user: String::new(),
                said: String::new(),
                nonce: String::new(),
                asks_for_room: false,
            });
        }
    }

    /// Reads all that is there and answers it; a connection that ended or failed goes.
    fn advance(&mut self, at: usize) {
        let Some(mut conn) = self.conns.get_mut(at).and_then(Option::take) else { return };
        let stays = loop {
            let count = match (&conn.stream).read(&mut self.raw) {
                Ok(0) => break false,
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break true,
                Err(_) => break false,
            };
            let Some(bytes) = self.raw.get(..count) else { break false };
            if relay::decrypt(&mut conn.tls, bytes, &mut self.clear).is_err() {
                break false;
            }
            conn.held.extend_from_slice(&self.clear);
            if self.answer(&mut conn).is_none() {
                break false;
            }
        };
        let stays = stays && conn.flush(&self.epoll, at).is_ok();
        if stays {
            self.conns[at] = Some(conn);
        } else {
            self.free.push(at);
        }
    }

    /// Answers everything that is whole; `None` ends the connection.
    fn answer(&mut self, conn: &mut Conn) -> Option<()> {
        loop {
            let end: &[u8] = match conn.step {
                Step::Open | Step::OpenAgain => b"xmlns:stream='http://etherx.jabber.org/streams'>",
                Step::Auth => b"</auth>",
                Step::Response => b"</response>",
                Step::Bind | Step::Roster => b"</iq>",
                Step::Close => b"</stream:stream>",
                Step::Gone => return Some(()),
            };
            let Some(at) = memchr::memmem::find(&conn.held, end) else { return Some(()) };
            let rest = conn.held.split_off(at + end.len());
            let said = std::mem::replace(&mut conn.held, rest);
            let text = match conn.step {
                Step::Auth => {
                    let first = decode(text_of(&said)?)?;
                    self.challenge(conn, &first)?
                }
                Step::Response => {
                    let last = decode(text_of(&said)?)?;
                    self.outcome(conn, &last)?
                }
                step => self.text(step, &conn.user),
            };
            conn.tls.writer().write_all(text.as_bytes()).ok()?;
            conn.step = match conn.step {
                Step::Open => Step::Auth,
                Step::Auth => Step::Response,
                Step::Response => Step::OpenAgain,
                Step::OpenAgain => Step::Bind,
                Step::Bind => Step::Roster,
                Step::Roster => Step::Close,
                Step::Close | Step::Gone => Step::Gone,
            };
        }
    }

    /// The fixed texts, after what a client said in a step.
    fn text(&self, step: Step, user: &str) -> String {
        let (domain, padding) = (&self.domain, &self.padding);
        let header = format!(
            "<?xml version='1.0'?><stream:stream from='{domain}' id='0123456789abcdef' \
             version='1.0' xml:lang='en' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>"
        );
        match step {
            Step::Open => format!(
                "{header}<stream:features>{padding}<mechanisms \
                 xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-256</mechanism>\
                 <mechanism>SCRAM-SHA-1</mechanism></mechanisms></stream:features>"
            ),
            Step::OpenAgain => format!(
                "{header}<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
                 </stream:features>"
            ),
            Step::Bind => format!(
                "<iq type='result' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                 <jid>{user}@{domain}/r</jid></bind></iq>"
            ),
            Step::Roster => format!(
                "<iq type='result' id='roster' to='{user}@{domain}/r'>\
                 <query xmlns='jabber:iq:roster'/></iq>"
            ),
            Step::Close => {
                format!("<presence from='{user}@{domain}/r' to='{user}@{domain}'/></stream:stream>")
            }
            Step::Auth | Step::Response | Step::Gone => String::new(),
        }
    }

    /// Octets of all texts of a login, that of the fixed ones and of SCRAM's.
    fn octets(&self) -> usize {
        let steps = [Step::Open, Step::OpenAgain, Step::Bind, Step::Roster, Step::Close];
        let fixed: usize = steps.iter().map(|&step| self.text(step, "u100").len()).sum();
        // The challenge and the success of this file, with a client's nonce of 32 digits: tags
        // and text.
        fixed + (64 + 124) + (60 + 64)
    }

    fn challenge(&mut self, conn: &mut Conn, first: &str) -> Option<String> {
        let bare = first.strip_prefix("n,,")?;
        let (user, nonce) = bare.strip_prefix("n=")?.split_once(",r=")?;
        self.count += 1;
        conn.nonce = format!("{nonce}{:024x}", self.count);
        let challenge = format!("r={},s={},i={ITERATIONS}", conn.nonce, BASE64.encode(SALT));
        conn.user = user.to_owned();
        conn.said = format!("{bare},{challenge}");
        let text = BASE64.encode(challenge);
        Some(format!("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{text}</challenge>"))
    }

    /// RFC 5802, 3: the client has the key if its hash is the stored one.
    fn outcome(&self, conn: &Conn, last: &str) -> Option<String> {
        let (bare, proof) = last.split_once(",p=")?;
        let proof = BASE64.decode(proof).ok().filter(|p| p.len() == 32)?;
        if bare.split_once("r=")?.1 != conn.nonce {
            return None;
        }
        let said = format!("{},{bare}", conn.said);
        let signature = hmac(&self.keys.stored, said.as_bytes());
        let key: Vec<u8> = proof.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        if Sha256::digest(key).as_slice() != self.keys.stored {
            return None;
        }
        let proof = BASE64.encode(hmac(&self.keys.server, said.as_bytes()));
        let text = BASE64.encode(format!("v={proof}"));
        Some(format!("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{text}</success>"))
    }
}

impl Conn {
    fn flush(&mut self, epoll: &Epoll, at: usize) -> io::Result<()> {
        let ends = self.step == Step::Gone;
        if ends {
            self.tls.send_close_notify();
        }
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut OneSlice(&self.stream)) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if !self.asks_for_room {
                        self.asks_for_room = true;
                        epoll.change(self.stream.as_raw_fd(), at as u64, READ_WRITE)?;
                    }
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        if ends { self.stream.shutdown(Shutdown::Write) } else { Ok(()) }
    }
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|m| m.chain_update(data).finalize().into_bytes().into())
        .unwrap_or_default()
}

/// What stands between the first tag and the last.
fn text_of(element: &[u8]) -> Option<&[u8]> {
    let from = memchr::memchr(b'>', element)? + 1;
    let to = memchr::memrchr(b'<', element)?;
    element.get(from..to)
}

fn decode(text: &[u8]) -> Option<String> {
    String::from_utf8(BASE64.decode(text).ok()?).ok()
}
