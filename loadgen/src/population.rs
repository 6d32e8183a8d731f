//! The clients of a run, from nothing to all connected and logged in.
//!
//! Opens a bounded number at a time, so that the storm of logins measures nothing and breaks
//! nothing. Does **not** reconnect: a client that fails ends the run with its reason.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::link::{self, Link};
use crate::login::{self, After, Login, Next};
use crate::sasl::{Mechanism, Salted};
use crate::sys::{self, Epoll, Event};

/// Logins in progress at one time.
const OPENING: usize = 64;
/// Connections from one source address before the next is used.
const PORTS_PER_SOURCE: usize = 20_000;
/// Events taken from epoll in one turn.
pub const EVENTS: usize = 512;

/// How bytes are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    None,
    /// RFC 6120, 5.
    StartTls,
    /// XEP-0368.
    Direct,
}

/// Who the clients are.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where the server listens; client i takes the i-th, round and round.
    pub targets: Vec<SocketAddr>,
    /// How many clients.
    pub count: usize,
    /// Protection.
    pub tls: Tls,
    /// The domain; `None` plays no XMPP at all, against a bare relay.
    pub domain: Option<String>,
    /// The names: a prefix that gets a number, or a list.
    pub names: Names,
    /// Everyone's password.
    pub password: String,
    /// The one mechanism wanted, or the strongest offered.
    pub mechanism: Option<Mechanism>,
    /// What follows the binding.
    pub after: After,
}

/// Local parts of the clients.
#[derive(Clone, Debug)]
pub enum Names {
    /// `u` makes u0, u1, …
    Prefix(String),
    /// One each.
    List(Vec<String>),
}

impl Names {
    /// The i-th name.
    pub fn name(&self, index: usize) -> String {
        match self {
            Self::Prefix(prefix) => format!("{prefix}{index}"),
            Self::List(names) => names.get(index).cloned().unwrap_or_default(),
        }
    }
}

/// One client.
pub struct Client {
    /// Its connection.
    pub link: Link,
    /// Its login while in progress.
    login: Option<Box<Login>>,
    /// Its full JID once bound.
    pub jid: String,
    /// What came behind the login on a managed stream, where every stanza counts.
    pub early: Vec<u8>,
    ready: bool,
}

/// All clients with the epoll set that watches them; a client's token is its index.
pub struct Population {
    /// The clients in the order they connected.
    pub clients: Vec<Client>,
    /// The set.
    pub epoll: Epoll,
}

struct Opening<'a> {
    wanted: &'a Wanted,
    tls: Option<Arc<ClientConfig>>,
    salted: Salted,
    raw: Vec<u8>,
    clear: Vec<u8>,
    ready: usize,
}

impl Population {
    /// Connects and logs in everybody.
    pub fn open(wanted: &Wanted) -> Result<Self, String> {
        let limit = sys::raise_descriptors().map_err(|e| format!("descriptor limit: {e}"))?;
        if limit < wanted.count as u64 + 64 {
            return Err(format!(
                "needs {} descriptors, has {limit}: raise `ulimit -n`",
                wanted.count + 64
            ));
        }
        let tls = match wanted.tls {
            Tls::None => None,
            kind => Some(link::tls_config(kind == Tls::Direct).map_err(|e| e.to_string())?),
        };
        let epoll = Epoll::new().map_err(|e| format!("epoll: {e}"))?;
        let mut population = Self { clients: Vec::with_capacity(wanted.count), epoll };
        let mut opening = Opening {
            wanted,
            tls,
            salted: Salted::default(),
            raw: vec![0; 64 << 10],
            clear: Vec::new(),
            ready: 0,
        };
        let mut events = vec![Event::EMPTY; EVENTS];
        while opening.ready < wanted.count {
            while population.clients.len() < wanted.count
                && population.clients.len() < opening.ready + OPENING
            {
                population.connect(&mut opening)?;
            }
            if opening.ready == wanted.count {
                break;
            }
            let count = population
                .epoll
                .wait(&mut events, Some(Duration::from_secs(30)))
                .map_err(|e| format!("epoll: {e}"))?;
            if count == 0 {
                return Err(format!(
                    "nothing came for 30 s with {} of {} clients logged in",
                    opening.ready, wanted.count
                ));
            }
            for event in events.iter().take(count) {
                let index = event.token() as usize;
                let mut more = true;
                while more {
                    more = population
                        .advance(index, &mut opening)
                        .map_err(|e| format!("{}: {e}", wanted.names.name(index)))?;
                }
            }
        }
        Ok(population)
    }

    fn connect(&mut self, opening: &mut Opening<'_>) -> Result<(), String> {
        let wanted = opening.wanted;
        let index = self.clients.len();
        let source = (wanted.count > PORTS_PER_SOURCE).then(|| {
            Ipv4Addr::new(127, 0, 1, u8::try_from(index / PORTS_PER_SOURCE + 1).unwrap_or(1))
        });
        let target = *wanted.targets.get(index % wanted.targets.len()).ok_or("no target")?;
        let stream = sys::connect(source, target).map_err(|e| format!("connect {target}: {e}"))?;
        let mut link = Link::new(stream);
        let mut login = None;
        let domain = wanted.domain.as_deref();
        if let (Tls::Direct, Some(config)) = (wanted.tls, &opening.tls) {
            link.secure(config, domain.unwrap_or("relay.example")).map_err(|e| e.to_string())?;
        }
        if let Some(domain) = domain {
            let account = login::Account {
                user: wanted.names.name(index),
                domain: domain.to_owned(),
                password: wanted.password.clone(),
                mechanism: wanted.mechanism,
                starttls: wanted.tls == Tls::StartTls,
                after: wanted.after,
            };
            let mut out = Vec::new();
            let secured = wanted.tls == Tls::Direct;
            let nonce = index as u64 + 1;
            login = Some(Box::new(Login::begin(account, secured, nonce, &mut out)));
            link.queue(&out).map_err(|e| e.to_string())?;
        }
        self.epoll.add(link.fd(), index as u64, sys::READ).map_err(|e| format!("epoll: {e}"))?;
        let ready = login.is_none() && wanted.tls == Tls::None;
        opening.ready += usize::from(ready);
        self.clients.push(Client { link, login, jid: String::new(), early: Vec::new(), ready });
        self.flush(index).map_err(|e| e.to_string())
    }

    /// One client has something to read; true if it may have more.
    fn advance(&mut self, index: usize, opening: &mut Opening<'_>) -> Result<bool, String> {
        let fault = |e: io::Error| e.to_string();
        let Some(client) = self.clients.get_mut(index) else { return Ok(false) };
        let bytes = client
            .link
            .read(&mut opening.raw, &mut opening.clear)
            .map_err(fault)?
            .ok_or("the server closed the connection before the login was done")?;
        match &mut client.login {
            Some(login) if !bytes.is_empty() => {
                let mut out = Vec::new();
                match login.handle(bytes, &mut opening.salted, &mut out)? {
                    Next::Wait => {}
                    Next::Secure => {
                        let config = opening.tls.as_ref().ok_or("no TLS here")?;
                        let domain = opening.wanted.domain.as_deref().unwrap_or_default();
                        client.link.secure(config, domain).map_err(fault)?;
                        login.secured(&mut out);
                    }
                    Next::Done => {
                        client.jid = std::mem::take(&mut login.jid);
                        if opening.wanted.after.managed {
                            client.early = login.rest();
                        }
                        client.login = None;
                        client.ready = true;
                        opening.ready += 1;
                    }
                }
                client.link.queue(&out).map_err(fault)?;
            }
            Some(_) => {}
            None if !client.ready && !client.link.is_handshaking() => {
                client.ready = true;
                opening.ready += 1;
            }
            None if opening.wanted.after.managed => client.early.extend_from_slice(bytes),
            None => {}
        }
        let more = client.link.may_have_more;
        self.flush(index).map_err(fault)?;
        Ok(more)
    }

    /// Sends what waits on a client, and asks epoll for room if not all of it went.
    pub fn flush(&mut self, index: usize) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        let waits = !client.link.flush()?;
        if waits != client.link.asks_for_room {
            client.link.asks_for_room = waits;
            let interest = if waits { sys::READ_WRITE } else { sys::READ };
            self.epoll.change(client.link.fd(), index as u64, interest)?;
        }
        Ok(())
    }
}
