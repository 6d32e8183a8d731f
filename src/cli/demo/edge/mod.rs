//! A SIP partner for the demo and the tests: a small Access Edge with people behind it.
//!
//! It listens and calls over mutual TLS (or plain TCP), holds subscriptions and sessions in Microsoft's shapes, and
//! keeps all it hears; scripts say what its people do and wait for what they see. It believes a caller only if the
//! target of the SRV record of the caller's domain stands in the certificate, as Microsoft's servers do, and says a
//! bare 504 otherwise. It shares **nothing** with `sip` and `gateway`: what it understands, it understands by itself.
//! It is **not** a server for service: no timers, no store, a thread a connection.
#![expect(
    clippy::disallowed_types,
    reason = "beside the switch: threads that share what was heard"
)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::cli::demo::client::Trouble;

mod check;
mod dialog;
mod link;
mod script;
mod shape;
mod state;
#[cfg(test)]
mod tests;
mod words;

pub use link::Keys;
pub use script::Call;
pub use shape::offer;
pub use words::{Message, Reader, address, param, uri};

use link::{Link, Tls};
use shape::Site;
use state::State;
use words::{Cut, cut};

/// Who the partner is.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its SIP domain.
    pub domain: String,
    /// The FQDN of its edge: the target of the domain's SRV record.
    pub name: String,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// For TLS; without, plain TCP.
    pub keys: Option<Keys>,
    /// Whether it also insists on what an Access Edge needs although no RFC asks for it.
    pub strict: bool,
}

/// A domain it federates with.
#[derive(Clone, Debug)]
pub struct Partner {
    /// The SIP domain.
    pub domain: String,
    /// The target of its SRV record.
    pub name: String,
    /// Where that is.
    pub address: SocketAddr,
}

/// Who may watch one of its people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// Everybody.
    #[default]
    Allow,
    /// Nobody yet.
    Pending,
    /// Nobody: the subscription ends.
    Deny,
}

/// How somebody who watches is told the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// 200, then NOTIFY.
    #[default]
    NotifyAfter,
    /// NOTIFY, then 200.
    NotifyFirst,
    /// The 200 is the first NOTIFY (MS-SIP, 3.4).
    Piggyback,
    /// 200, then BENOTIFY, which nobody may answer (MS-SIP, 3.5).
    Benotify,
}

/// An answer that a script wants to be given.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// 0: none for now; the script answers later.
    pub status: u16,
    /// The phrase.
    pub reason: String,
    /// Whole header lines.
    pub extra: Vec<String>,
    /// Content-Type and octets.
    pub body: Option<(String, Vec<u8>)>,
    /// Whether the dialog is gone with it.
    pub forgets: bool,
    /// Whether it comes from one more of the callee's endpoints, in a dialog of its own.
    pub forks: bool,
}

impl Answer {
    /// A status with its phrase.
    pub fn status(status: u16, reason: &str) -> Self {
        Self { status, reason: reason.to_owned(), ..Self::default() }
    }

    /// None until the script says so.
    pub fn held() -> Self {
        Self::default()
    }

    /// With a header line.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.extra.push(line.to_owned());
        self
    }

    /// And the dialog is forgotten, as by a server that was restarted.
    #[must_use]
    pub fn forgetting(mut self) -> Self {
        self.forgets = true;
        self
    }

    /// And the request waits on, for the answer of another endpoint.
    #[must_use]
    pub fn forking(mut self) -> Self {
        self.forks = true;
        self
    }
}

/// What it has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that rsip has read.
    pub by_rsip: usize,
    /// Messages that only the small reader could read.
    pub by_hand: usize,
    /// Connections that came in, with a certificate of the authority.
    pub accepted: usize,
    /// Calls that failed in the handshake.
    pub refused: usize,
    /// Connections it opened.
    pub opened: usize,
    /// Connections that ended.
    pub ended: usize,
    /// CRLFs between messages.
    pub blanks: usize,
    /// Requests whose sender the certificate does not cover: 504.
    pub mismatches: usize,
}

/// What the threads share.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    tls: Option<Tls>,
    over: AtomicBool,
    deaf: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The partner, at work until it is dropped.
pub struct Edge {
    shared: Arc<Shared>,
    /// Where it listens.
    pub listens: SocketAddr,
    patience: Duration,
}

impl Edge {
    /// Begins to listen.
    pub fn start(setup: &Setup) -> Result<Self, Trouble> {
        let listener = TcpListener::bind(setup.listen)?;
        let listens = listener.local_addr()?;
        let mut salt = [0; 4];
        getrandom::fill(&mut salt).map_err(|it| Trouble(it.to_string()))?;
        let site = Site {
            name: setup.name.clone(),
            domain: setup.domain.clone(),
            port: listens.port(),
            transport: if setup.keys.is_some() { "tls" } else { "tcp" },
        };
        let state = State::new(site, setup.strict, format!("{:08x}", u32::from_be_bytes(salt)));
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            tls: setup.keys.as_ref().map(Tls::new).transpose()?,
            over: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
        });
        let listening = Arc::clone(&shared);
        thread::Builder::new()
            .name("demo-edge".to_owned())
            .spawn(move || listen(&listener, &listening))?;
        Ok(Self { shared, listens, patience: PATIENCE })
    }

    /// Whether it takes calls.
    pub fn is_open(&self) -> bool {
        !self.shared.over.load(Ordering::Relaxed)
    }

    /// Calls a partner, whatever connections there are.
    fn call(&self, partner: &Partner) -> Result<Arc<Link>, Trouble> {
        let link = Link::connect(partner.address, &partner.name, self.shared.tls.as_ref())?;
        self.shared.state().counts.opened += 1;
        Ok(attend(link, &self.shared))
    }

    /// The connection for requests to a domain: one that is there, or a new one.
    fn link(&self, domain: &str) -> Result<Arc<Link>, Trouble> {
        let (there, partner) = {
            let state = self.shared.state();
            (state.link_to(domain), state.partner(domain).cloned())
        };
        match (there, partner) {
            (Some(link), _) => Ok(link),
            (None, Some(partner)) => self.call(&partner),
            (None, None) => Err(Trouble(format!("{domain} is no partner"))),
        }
    }
}

/// Ends the connections and the listener; its port is free again when this is done.
impl Drop for Edge {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // The listener wakes up by a call, and sees that it is over.
        TcpStream::connect_timeout(&self.listens, Duration::from_secs(1)).ok();
        self.hang_up();
    }
}

/// Takes calls until it is over. Each handshake has a thread of its own.
fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept() {
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        if shared.deaf.load(Ordering::Relaxed) {
            continue;
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || match Link::accept(socket, shared.tls.as_ref()) {
            Ok(link) => {
                shared.state().counts.accepted += 1;
                attend(link, &shared);
            }
            Err(_) => {
                shared.state().counts.refused += 1;
                shared.changed.notify_all();
            }
        });
    }
}

/// Enters a connection and reads from it in a thread of its own.
fn attend(link: Link, shared: &Arc<Shared>) -> Arc<Link> {
    let link = Arc::new(link);
    let id = {
        let mut state = shared.state();
        state.serial += 1;
        let id = state.serial;
        state.links.push((id, Arc::clone(&link)));
        id
    };
    shared.changed.notify_all();
    let (reader, shared) = (Arc::clone(&link), Arc::clone(shared));
    thread::spawn(move || {
        read(id, &reader, &shared);
        reader.close();
        let mut state = shared.state();
        state.links.retain(|it| it.0 != id);
        state.counts.ended += 1;
        drop(state);
        shared.changed.notify_all();
    });
    link
}

/// Reads until the end, or until nothing can be understood any more.
fn read(id: u64, link: &Link, shared: &Shared) {
    let mut inbox = Vec::new();
    while matches!(link.read(&mut inbox), Ok(true)) {
        loop {
            let fault = match cut(&inbox) {
                Ok(Cut::More) => break,
                Ok(Cut::Blank) => {
                    inbox.drain(..2);
                    shared.state().counts.blanks += 1;
                    continue;
                }
                Ok(Cut::Message(len)) => {
                    let frame: Vec<u8> = inbox.drain(..len).collect();
                    hear(id, link, shared, &frame)
                }
                Err(fault) => Err(fault),
            };
            shared.changed.notify_all();
            if let Err(fault) = fault {
                shared.state().faults.push(fault);
                return;
            }
        }
    }
}

fn hear(id: u64, link: &Link, shared: &Shared, frame: &[u8]) -> Result<(), String> {
    let (message, complaint) = Message::read(frame)?;
    let mut state = shared.state();
    match message.reader {
        Reader::Rsip => state.counts.by_rsip += 1,
        Reader::Own => state.counts.by_hand += 1,
    }
    state.faults.extend(complaint);
    state.take(id, link, message);
    Ok(())
}

/// Longer than the 5 s that a presence may be held back (RFC 3856, 6.10).
const PATIENCE: Duration = Duration::from_secs(10);
