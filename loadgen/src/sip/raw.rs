//! The same packets as [`super::chat`]'s without SIP and XMPP, through a relay that reads a number and
//! nothing else: what a denominator is loaded with.
//!
//! Frames have fixed sizes and begin with a mark, whose flow is the session's number. On the side of
//! the edge all sessions share a few connections, on the other each has its own. An asking frame
//! is passed on in another size; what comes back is as large as an acknowledgement, and what the
//! asker hears as large as an answer (none, if that is 0).

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::edge::{self, EDGE, Edge};
use crate::account::{Account, Arrival, Window};
use crate::mark::{self, Mark};
use crate::measure::{Reading, Watched};
use crate::population::{EVENTS, Population};
use crate::sys::Event;

const DRAIN: Duration = Duration::from_secs(2);
/// How long a relay may take to accept the last connection.
const SETTLING: Duration = Duration::from_millis(200);

/// Octets of each of the four packets.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// What a message is asked with.
    pub request: usize,
    /// What it is passed on as.
    pub pass: usize,
    /// What its receiver says.
    pub ack: usize,
    /// What its sender hears; 0: nothing.
    pub answer: usize,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the edge dials from.
    pub edge: SocketAddr,
    /// Where the relay takes the edge.
    pub sip: SocketAddr,
    /// Connections of the edge.
    pub lines: usize,
    /// From the clients to the edge.
    pub back: bool,
    /// The packets.
    pub sizes: Sizes,
    /// Traffic before the window.
    pub warmup: Duration,
    /// The window that is measured.
    pub window: Duration,
    /// The relay.
    pub watched: Watched,
}

struct Session {
    sent: u32,
    window: Window,
    held: usize,
    /// The first octets of a frame on the own connection.
    mark: Vec<u8>,
    dirty: bool,
}

struct Traffic<'a> {
    plan: &'a Plan,
    population: Population,
    edge: Edge,
    sessions: Vec<Session>,
    account: Account,
    done: u64,
    request: Vec<u8>,
    ack: Vec<u8>,
    dirty: Vec<u32>,
    raw: Vec<u8>,
    clear: Vec<u8>,
    begin: Instant,
    turns: u64,
    talking: bool,
}

/// Runs the traffic on connections that stand and gives the result.
pub fn run(population: Population, plan: &Plan) -> Result<Value, String> {
    let fault = |e: io::Error| e.to_string();
    let session = |_: &_| Session {
        sent: 0,
        window: Window::default(),
        held: 0,
        mark: Vec::new(),
        dirty: false,
    };
    let mut it = Traffic {
        plan,
        sessions: population.clients.iter().map(session).collect(),
        population,
        edge: Edge::new(plan.edge),
        account: Account::default(),
        done: 0,
        request: vec![b'x'; plan.sizes.request.max(mark::LEN)],
        ack: vec![b'x'; plan.sizes.ack.max(if plan.back { mark::LEN } else { 1 })],
        dirty: Vec::new(),
        raw: vec![0; 64 << 10],
        clear: Vec::new(),
        begin: Instant::now(),
        turns: 0,
        talking: true,
    };
    for _ in 0..plan.lines.max(1) {
        it.edge.dial(plan.sip, &it.population.epoll).map_err(fault)?;
    }
    // The relay takes connections of two listeners: those of the edge come after all others.
    std::thread::sleep(SETTLING);
    for index in 0..it.sessions.len() {
        it.send(index).map_err(fault)?;
    }
    it.turn_for(plan.warmup)?;
    let before = it.reading().map_err(fault)?;
    it.turn_for(plan.window)?;
    let after = it.reading().map_err(fault)?;
    it.talking = false;
    let end = Instant::now() + DRAIN;
    while it.done < it.account.sent && Instant::now() < end {
        it.turn(Duration::from_millis(10))?;
    }
    Ok(it.result(&before, &after))
}

impl Traffic<'_> {
    fn turn_for(&mut self, span: Duration) -> Result<(), String> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.turn(Duration::from_millis(10))?;
        }
        Ok(())
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let it = &mut self.sessions[index];
        let mark = Mark { flow: index as u32, seq: it.sent, at_ns: 0 };
        mark.write(&mut self.request[..mark::LEN]);
        it.sent += 1;
        self.account.sent += 1;
        if self.plan.back {
            self.population.clients[index].link.queue(&self.request)?;
            self.mark_dirty(index);
            return Ok(());
        }
        self.edge.queue(index % self.plan.lines.max(1), &self.request)
    }

    fn mark_dirty(&mut self, index: usize) {
        let it = &mut self.sessions[index];
        if !it.dirty {
            it.dirty = true;
            self.dirty.push(index as u32);
        }
    }

    fn turn(&mut self, wait: Duration) -> Result<(), String> {
        let fault = |e: io::Error| e.to_string();
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.sessions[index as usize].dirty = false;
            self.population.flush(index as usize).map_err(fault)?;
        }
        self.dirty = dirty;
        self.edge.flush(&self.population.epoll).map_err(fault)?;
        let mut events = [Event::EMPTY; EVENTS];
        let count = self.population.epoll.wait(&mut events, Some(wait)).map_err(fault)?;
        self.turns += 1;
        for event in events.iter().take(count) {
            if event.token() >= EDGE {
                self.edge_event(*event)?;
                continue;
            }
            let index = event.token() as usize;
            if event.writable() {
                self.population.flush(index).map_err(fault)?;
            }
            while event.readable() && self.take(index)? {}
        }
        Ok(())
    }

    /// What comes on a client's own connection.
    fn take(&mut self, index: usize) -> Result<bool, String> {
        let client = &mut self.population.clients[index];
        let Ok(Some(bytes)) = client.link.read(&mut self.raw, &mut self.clear) else {
            return Err("the relay closed".to_owned());
        };
        let more = client.link.may_have_more;
        let it = &mut self.sessions[index];
        it.held += bytes.len();
        if it.mark.len() < mark::LEN {
            let wanted = (mark::LEN - it.mark.len()).min(bytes.len());
            it.mark.extend_from_slice(bytes.get(..wanted).unwrap_or_default());
        }
        let sizes = self.plan.sizes;
        if self.plan.back {
            // What an asker hears.
            return Ok(more);
        }
        if it.held >= sizes.pass {
            // One at a time is on its way.
            it.held -= sizes.pass;
            let mark = Mark::read(&std::mem::take(&mut it.mark));
            self.delivered(index, mark);
            self.population.clients[index].link.queue(&self.ack).map_err(|e| e.to_string())?;
            self.mark_dirty(index);
        }
        Ok(more)
    }

    fn delivered(&mut self, index: usize, mark: Option<Mark>) {
        let Some(mark) = mark.filter(|m| m.flow as usize == index) else {
            self.account.corrupt += 1;
            return;
        };
        match self.sessions[index].window.take(mark.seq) {
            Arrival::InOrder => self.account.delivered += 1,
            Arrival::Overtaken => self.account.reordered += 1,
            Arrival::Duplicate => self.account.duplicated += 1,
        }
    }

    fn edge_event(&mut self, event: Event) -> Result<(), String> {
        let fault = |e: io::Error| e.to_string();
        let at = self.edge.event(event.token(), &self.population.epoll).map_err(fault)?;
        let edge::Event::Line(line) = at else { return Ok(()) };
        if event.writable() {
            self.edge.flush_line(line, &self.population.epoll).map_err(fault)?;
        }
        let sizes = self.plan.sizes;
        let size = if self.plan.back { sizes.pass } else { sizes.answer }.max(mark::LEN);
        let mut more = event.readable();
        while more {
            let Some((held, again)) = self.edge.read(line) else {
                return Err("the relay closed on the edge".to_owned());
            };
            more = again;
            let mut done = 0;
            while let Some(frame) = held.get(done..done + size) {
                done += size;
                self.frame(line, frame).map_err(fault)?;
            }
            self.edge.give_back(line, held, done);
        }
        Ok(())
    }

    fn frame(&mut self, line: usize, frame: &[u8]) -> io::Result<()> {
        let flow = frame.get(4..12).and_then(|it| std::str::from_utf8(it).ok());
        let index = flow.and_then(|it| usize::from_str_radix(it, 16).ok());
        let Some(index) = index.filter(|&it| it < self.sessions.len()) else {
            self.account.corrupt += 1;
            return Ok(());
        };
        if self.plan.back {
            self.delivered(index, Mark::read(frame));
            self.ack[..mark::LEN].copy_from_slice(&frame[..mark::LEN]);
            self.edge.queue(line, &self.ack)?;
        }
        self.done += 1;
        if self.talking { self.send(index) } else { Ok(()) }
    }

    fn reading(&self) -> io::Result<Reading> {
        self.plan.watched.read(self.done, self.turns)
    }

    fn result(&self, before: &Reading, after: &Reading) -> Value {
        let span = after.since(before);
        let a = &self.account;
        let sound = a.duplicated + a.reordered + a.corrupt == 0
            && a.delivered == a.sent
            && self.done == a.sent;
        json!({
            "loop": "closed", "clients": self.sessions.len(), "lines": self.plan.lines,
            "delivered_in_window": span.done, "wall_s": span.wall_ns / 1e9,
            "per_s": span.done as f64 / span.wall_ns * 1e9,
            "account": {
                "sent": a.sent, "delivered": a.delivered, "done": self.done,
                "duplicated": a.duplicated, "reordered": a.reordered, "corrupt": a.corrupt,
            },
            "seconds": self.begin.elapsed().as_secs_f64(),
            "sound": sound, "generator": span.generator, "server": span.server,
        })
    }
}
