//! A storm of logins: connect, TLS, SASL, bind, roster, presence, and away again, over and over.
//!
//! Closed loop: a number of logins is in progress at any time. One counts when the server has
//! closed its stream in answer to ours, so all that was asked of it is done by then. Does **not**
//! resume TLS sessions: each handshake is a full one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::memmem::find;
use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::link::{self, Link};
use crate::login::{Account, After, Login, Next};
use crate::measure::{Reading, Watched};
use crate::population::{EVENTS, Tls, Wanted};
use crate::sasl::Salted;
use crate::sys::{self, Epoll, Event};

/// How long is waited, at the end, for logins in progress.
const DRAIN: Duration = Duration::from_secs(5);
/// Logins that may fail before it is no use to go on.
const FAILED_MAX: u64 = 100;
/// Loopback addresses that are taken in turn, so that ports in TIME-WAIT do not run out.
const SOURCES: u64 = 16;

/// What is wanted; who and where stands in [`Wanted`], whose count is the number of users.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Logins in progress.
    pub concurrent: usize,
    /// Every user logs in once, for a server that has nobody in its memory yet: the run ends with
    /// the last user.
    pub once: bool,
    /// A file that keeps salted passwords from one run to the next, where each user has a salt of
    /// its own: or else salting is what a run measures.
    pub kept: Option<PathBuf>,
    /// Logins before the window.
    pub warmup: Duration,
    /// The window that is measured.
    pub window: Duration,
    /// The server.
    pub watched: Watched,
}

struct Slot {
    link: Link,
    /// `None`: the stream is being closed.
    login: Option<Box<Login>>,
    held: Vec<u8>,
    began_ns: u64,
    said_goodbye: bool,
}

struct Storm<'a> {
    wanted: &'a Wanted,
    plan: &'a Plan,
    tls: Option<Arc<ClientConfig>>,
    epoll: Epoll,
    slots: Vec<Option<Slot>>,
    salted: Salted,
    raw: Vec<u8>,
    clear: Vec<u8>,
    took: Histogram<u64>,
    begin: Instant,
    next: u64,
    done: u64,
    failed: u64,
    /// Ended without the server's closing tag.
    torn: u64,
    octets: (u64, u64),
    turns: u64,
    reason: Option<String>,
    stopping: bool,
}

/// Runs the storm and gives the result.
pub fn run(wanted: &Wanted, plan: &Plan) -> Result<Value, String> {
    let fault = |e: io::Error| e.to_string();
    sys::raise_descriptors().map_err(fault)?;
    let tls = match wanted.tls {
        Tls::None => None,
        kind => Some(link::tls_config(kind == Tls::Direct).map_err(fault)?),
    };
    let mut storm = Storm {
        wanted,
        plan,
        tls,
        epoll: Epoll::new().map_err(fault)?,
        slots: (0..plan.concurrent).map(|_| None).collect(),
        salted: Salted::default(),
        raw: vec![0; 64 << 10],
        clear: Vec::new(),
        took: Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|e| e.to_string())?,
        begin: Instant::now(),
        next: 0,
        done: 0,
        failed: 0,
        torn: 0,
        octets: (0, 0),
        turns: 0,
        reason: None,
        stopping: false,
    };
    plan.kept.iter().for_each(|path| storm.salted.load(path));
    (0..plan.concurrent).try_for_each(|slot| storm.connect(slot))?;
    storm.turn_for(plan.warmup)?;
    storm.took.reset();
    let (before, octets) = (storm.reading()?, storm.octets);
    storm.turn_for(plan.window)?;
    let (after, has) = (storm.reading()?, storm.octets);
    let took = storm.took.clone();
    storm.stopping = true;
    let drain_end = Instant::now() + DRAIN;
    while storm.open() > 0 && Instant::now() < drain_end {
        storm.turn()?;
    }
    if let Some(path) = &plan.kept {
        storm.salted.store(path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let mut result = storm.result(&before, &after, &took);
    let done = result["delivered_in_window"].as_f64().unwrap_or(0.0).max(1.0);
    result["octets_in_each"] = json!((has.0 - octets.0) as f64 / done);
    result["octets_out_each"] = json!((has.1 - octets.1) as f64 / done);
    Ok(result)
}

impl Storm<'_> {
    fn open(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Begins the next login in a free slot.
    fn connect(&mut self, at: usize) -> Result<(), String> {
        let fault = |e: io::Error| e.to_string();
        let wanted = self.wanted;
        if self.stopping || self.plan.once && self.next >= wanted.count as u64 {
            return Ok(());
        }
        let user = (self.next % wanted.count.max(1) as u64) as usize;
        let number = self.next;
        self.next += 1;
        let target: SocketAddr = *wanted.targets.first().ok_or("no target")?;
        let source = Ipv4Addr::new(127, 0, 1, (number % SOURCES) as u8 + 1);
        let stream =
            sys::connect(Some(source), target).map_err(|e| format!("connect {target}: {e}"))?;
        let mut link = Link::new(stream);
        let domain = wanted.domain.clone().unwrap_or_default();
        if let (Tls::Direct, Some(config)) = (wanted.tls, &self.tls) {
            link.secure(config, &domain).map_err(fault)?;
        }
        let account = Account {
            user: wanted.names.name(user),
            domain,
            password: wanted.password.clone(),
            mechanism: wanted.mechanism,
            starttls: wanted.tls == Tls::StartTls,
            after: After { roster: true, presence: true, managed: false },
        };
        let mut out = Vec::new();
        let login = Login::begin(account, wanted.tls == Tls::Direct, number + 1, &mut out);
        self.octets.1 += out.len() as u64;
        link.queue(&out).map_err(fault)?;
        link.flush().map_err(fault)?;
        self.epoll.add(link.fd(), at as u64, sys::READ).map_err(fault)?;
        self.slots[at] = Some(Slot {
            link,
            login: Some(Box::new(login)),
            held: Vec::new(),
            began_ns: self.now_ns(),
            said_goodbye: false,
        });
        Ok(())
    }

    fn turn_for(&mut self, span: Duration) -> Result<(), String> {
        let end = Instant::now() + span;
        while Instant::now() < end && self.open() > 0 {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), String> {
        let mut events = [Event::EMPTY; EVENTS];
        let wait = Some(Duration::from_millis(10));
        let count = self.epoll.wait(&mut events, wait).map_err(|e| e.to_string())?;
        self.turns += 1;
        for event in events.iter().take(count) {
            let at = event.token() as usize;
            loop {
                match self.advance(at) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(reason) => {
                        self.fail(at, reason)?;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, at: usize, reason: String) -> Result<(), String> {
        self.failed += 1;
        if self.failed > FAILED_MAX {
            return Err(format!("{} logins failed, the last: {reason}", self.failed));
        }
        self.reason = Some(reason);
        self.slots[at] = None;
        self.connect(at)
    }

    /// One connection has something to read; true if it may have more.
    fn advance(&mut self, at: usize) -> Result<bool, String> {
        let fault = |e: io::Error| e.to_string();
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return Ok(false) };
        let read = slot.link.read(&mut self.raw, &mut self.clear);
        let Some(login) = &mut slot.login else {
            // Ours is said: the server's last words, then its end.
            if let Ok(Some(bytes)) = read {
                self.octets.0 += bytes.len() as u64;
                slot.held.extend_from_slice(bytes);
                return slot.goodbye().map_err(fault);
            }
            // An end, or a reset where the server was gone before our goodbye in TLS reached it.
            self.torn += u64::from(!slot.said_goodbye);
            self.done += 1;
            self.slots[at] = None;
            return self.connect(at).map(|()| false);
        };
        let bytes = read.map_err(fault)?.ok_or("closed before the login was done")?;
        self.octets.0 += bytes.len() as u64;
        let mut out = Vec::new();
        if !bytes.is_empty() {
            match login.handle(bytes, &mut self.salted, &mut out)? {
                Next::Wait => {}
                Next::Secure => {
                    let config = self.tls.as_ref().ok_or("no TLS here")?;
                    let domain = self.wanted.domain.as_deref().unwrap_or_default();
                    slot.link.secure(config, domain).map_err(fault)?;
                    login.secured(&mut out);
                }
                Next::Done => {
                    slot.login = None;
                    out.extend_from_slice(b"</stream:stream>");
                    let now_ns = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(0);
                    self.took.saturating_record(now_ns.saturating_sub(slot.began_ns).max(1));
                }
            }
        }
        self.octets.1 += out.len() as u64;
        slot.link.queue(&out).map_err(fault)?;
        // What a login sends fits into any socket's buffer.
        slot.link.flush().map_err(fault)?;
        Ok(slot.link.may_have_more)
    }

    fn reading(&self) -> Result<Reading, String> {
        self.plan.watched.read(self.done, self.turns).map_err(|e| e.to_string())
    }

    fn result(&self, before: &Reading, after: &Reading, took: &Histogram<u64>) -> Value {
        let span = after.since(before);
        let ms = |q: f64| took.value_at_quantile(q) as f64 / 1e6;
        let unfinished = self.open() as u64;
        json!({
            "loop": "closed",
            "concurrent": self.plan.concurrent,
            "users": self.wanted.count,
            "store": if self.plan.once { "cold" } else { "warm" },
            // One name for what a row's costs are divided by.
            "delivered_in_window": span.done,
            "wall_s": span.wall_ns / 1e9,
            "per_s": span.done as f64 / span.wall_ns * 1e9,
            "account": {
                "begun": self.next, "done": self.done, "failed": self.failed,
                "torn": self.torn, "unfinished": unfinished, "reason": self.reason,
            },
            "sound": self.failed + self.torn + unfinished == 0,
            "login_ms": { "p50": ms(0.5), "p99": ms(0.99), "max": took.max() as f64 / 1e6 },
            "generator": span.generator,
            "server": span.server,
        })
    }
}

impl Slot {
    /// Says goodbye in TCP and TLS once the server has closed its stream; true until all that
    /// came has been read, since an end that came along is not told again.
    fn goodbye(&mut self) -> io::Result<bool> {
        if !self.said_goodbye && find(&self.held, b"</stream:stream>").is_some() {
            self.said_goodbye = true;
            self.link.finish()?;
        }
        Ok(!self.link.drained)
    }
}
