//! Sessions of instant messages across SIP: an edge has one with each of the clients, and one message
//! at a time is on its way in each (closed loop).
//!
//! Inwards a message is done when its MESSAGE is answered with 200, outwards when the edge has it and
//! has answered. Whose message it is, whether it came once and in order, its mark tells. Clients are
//! under stream management, so an answer to the edge waits for the client's.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::dialog::{Dialog, FIRST};
use super::edge::{self, EDGE, Edge};
use super::session::{self, AGENT, Session};
use super::text::{Frame, Reader};
use crate::account::{Account, Arrival};
use crate::mark::{self, Mark};
use crate::measure::{Reading, Watched};
use crate::population::{EVENTS, Population};
use crate::reader::{self, Managed as Element};
use crate::sm;
use crate::sys::Event;

/// INVITEs on their way at one time.
const INVITING: usize = 64;
/// How long the sessions may take to stand, and how long is waited at the end.
const PATIENCE: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(5);

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the edge listens and dials from.
    pub edge: SocketAddr,
    /// The server's SIP listener.
    pub sip: SocketAddr,
    /// Connections of the edge.
    pub lines: usize,
    /// From the clients to the edge.
    pub back: bool,
    /// Octets of a text.
    pub bytes: usize,
    /// Traffic before the window.
    pub warmup: Duration,
    /// The window that is measured.
    pub window: Duration,
    /// The server.
    pub watched: Watched,
}

/// Octets that went over each hop.
#[derive(Clone, Copy, Debug, Default)]
struct Octets {
    sip_out: u64,
    sip_in: u64,
    xmpp_out: u64,
    xmpp_in: u64,
}

struct Traffic<'a> {
    plan: &'a Plan,
    population: Population,
    edge: Edge,
    sessions: Vec<Session>,
    reader: reader::Reader,
    sip: Reader,
    account: Account,
    answered: u64,
    refused: u64,
    strange: u64,
    impossible: u64,
    octets: Octets,
    latency: Histogram<u64>,
    dirty: Vec<u32>,
    raw: Vec<u8>,
    clear: Vec<u8>,
    out: Vec<u8>,
    begin: Instant,
    now_ns: u64,
    turns: u64,
    talking: bool,
    ready: usize,
    reason: Option<String>,
}

/// Runs the traffic with clients that are logged in and gives the result.
pub fn run(population: Population, plan: &Plan) -> Result<Value, String> {
    let fault = |e: io::Error| e.to_string();
    let sessions = session::all(&population, plan);
    let mut it = Traffic {
        plan,
        edge: Edge::new(plan.edge),
        sessions,
        population,
        reader: reader::Reader::default(),
        sip: Reader::default(),
        account: Account::default(),
        answered: 0,
        refused: 0,
        strange: 0,
        impossible: 0,
        octets: Octets::default(),
        latency: Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|e| e.to_string())?,
        dirty: Vec::new(),
        raw: vec![0; 64 << 10],
        clear: Vec::new(),
        out: Vec::new(),
        begin: Instant::now(),
        now_ns: 0,
        turns: 0,
        talking: false,
        ready: 0,
        reason: None,
    };
    it.establish()?;
    it.talking = true;
    for index in 0..it.sessions.len() {
        it.send(index).map_err(fault)?;
    }
    it.turn_for(plan.warmup)?;
    it.latency.reset();
    let (before, octets) = (it.reading().map_err(fault)?, it.octets);
    it.turn_for(plan.window)?;
    let (after, has) = (it.reading().map_err(fault)?, it.octets);
    let latency = it.latency.clone();
    it.talking = false;
    let end = Instant::now() + DRAIN;
    while it.in_flight() > 0 && Instant::now() < end {
        it.turn(Duration::from_millis(10))?;
    }
    Ok(it.result(&before, &after, &latency, octets, has))
}

impl Traffic<'_> {
    fn establish(&mut self) -> Result<(), String> {
        let fault = |e: io::Error| e.to_string();
        self.edge.listen(&self.population.epoll).map_err(fault)?;
        for _ in 0..self.plan.lines.max(1) {
            self.edge.dial(self.plan.sip, &self.population.epoll).map_err(fault)?;
        }
        let end = Instant::now() + PATIENCE;
        let mut begun = 0;
        while self.ready < self.sessions.len() {
            while begun < self.sessions.len() && begun < self.ready + INVITING {
                let text = self.sessions[begun].invite();
                self.edge.queue(self.sessions[begun].line, text.as_bytes()).map_err(fault)?;
                begun += 1;
            }
            self.turn(Duration::from_millis(10))?;
            if let Some(reason) = self.reason.take() {
                return Err(format!("no session: {reason}"));
            }
            if Instant::now() > end {
                return Err(format!("{} of {} sessions stand", self.ready, self.sessions.len()));
            }
        }
        Ok(())
    }

    fn in_flight(&self) -> u64 {
        let done = if self.plan.back { self.account.delivered } else { self.answered };
        self.account.sent.saturating_sub(done + self.refused)
    }

    fn turn_for(&mut self, span: Duration) -> Result<(), String> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.turn(Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// The next message of a session.
    fn send(&mut self, index: usize) -> io::Result<()> {
        let it = &mut self.sessions[index];
        let mark = Mark { flow: index as u32, seq: it.sent, at_ns: self.now_ns };
        mark.write(&mut it.template[it.places.mark..it.places.mark + mark::LEN]);
        it.sent += 1;
        it.at_ns = self.now_ns;
        self.account.sent += 1;
        if !self.plan.back {
            it.number();
            self.octets.sip_out += it.template.len() as u64;
            return self.edge.queue(it.line, &it.template);
        }
        let link = &mut self.population.clients[index].link;
        link.queue(&it.template)?;
        self.octets.xmpp_out += it.template.len() as u64;
        if it.managed.sends() {
            link.queue(sm::REQUEST)?;
            self.octets.xmpp_out += sm::REQUEST.len() as u64;
        }
        self.mark_dirty(index);
        Ok(())
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
        self.flush().map_err(fault)?;
        let mut events = [Event::EMPTY; EVENTS];
        let count = self.population.epoll.wait(&mut events, Some(wait)).map_err(fault)?;
        self.turns += 1;
        self.now_ns = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
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

    fn flush(&mut self) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.sessions[index as usize].dirty = false;
            self.population.flush(index as usize)?;
        }
        self.dirty = dirty;
        self.edge.flush(&self.population.epoll)
    }

    /// A client has something to read; true if it may have more.
    fn take(&mut self, index: usize) -> Result<bool, String> {
        let client = &mut self.population.clients[index];
        let Ok(Some(bytes)) = client.link.read(&mut self.raw, &mut self.clear) else {
            return Err(format!("the server closed on {}", client.jid));
        };
        self.octets.xmpp_in += bytes.len() as u64;
        let it = &mut self.sessions[index];
        it.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut it.held);
        let (mut requests, mut found) = (0, Vec::new());
        let (managed, impossible) = (&mut it.managed, &mut self.impossible);
        let done = self.reader.read_managed(&held, |element| match element {
            Element::Message(message) => {
                managed.receives();
                found.push((message.mark.and_then(Mark::read), message.bounced));
            }
            Element::Other => managed.receives(),
            Element::Request => requests += 1,
            Element::Acknowledged(h) => {
                *impossible += u64::from(!h.is_some_and(|h| managed.acknowledged(h)));
            }
        });
        it.held = held;
        it.held.drain(..done);
        for (mark, bounced) in found {
            match mark.filter(|m| !bounced && !self.plan.back && m.flow as usize == index) {
                Some(mark) => self.delivered(index, mark),
                None if bounced => self.account.bounced += 1,
                None => self.account.corrupt += 1,
            }
        }
        for _ in 0..requests {
            let answer = self.sessions[index].managed.answer();
            self.octets.xmpp_out += answer.len() as u64;
            self.population.clients[index]
                .link
                .queue(answer.as_bytes())
                .map_err(|e| e.to_string())?;
            self.mark_dirty(index);
        }
        Ok(self.population.clients[index].link.may_have_more)
    }

    fn delivered(&mut self, index: usize, mark: Mark) {
        match self.sessions[index].window.take(mark.seq) {
            Arrival::InOrder => self.account.delivered += 1,
            Arrival::Overtaken => {
                self.account.delivered += 1;
                self.account.reordered += 1;
            }
            Arrival::Duplicate => self.account.duplicated += 1,
        }
    }

    fn edge_event(&mut self, event: Event) -> Result<(), String> {
        let epoll = &self.population.epoll;
        let at = self.edge.event(event.token(), epoll).map_err(|e| e.to_string())?;
        let edge::Event::Line(line) = at else { return Ok(()) };
        if event.writable() {
            self.edge.flush_line(line, epoll).map_err(|e| e.to_string())?;
        }
        let mut more = event.readable();
        while more {
            let Some((held, again)) = self.edge.read(line) else {
                return Err("the server closed a connection of the edge".to_owned());
            };
            more = again;
            let mut done = 0;
            let sip = std::mem::take(&mut self.sip);
            while let Some((frame, length)) = sip.cut(held.get(done..).unwrap_or_default())? {
                done += length;
                self.octets.sip_in += length as u64;
                if frame.status == 0 {
                    self.asked(line, &sip, &frame)?;
                } else {
                    self.told(&sip, &frame)?;
                }
            }
            self.sip = sip;
            self.edge.give_back(line, held, done);
        }
        Ok(())
    }

    /// A request of the server.
    fn asked(&mut self, line: usize, sip: &Reader, frame: &Frame<'_>) -> Result<(), String> {
        let index = Dialog::number(sip.call(frame)).map(|it| it.0);
        let index = index.filter(|&it| it < self.sessions.len());
        let status = match (frame.method(), index) {
            (b"ACK", _) => return Ok(()),
            (b"INVITE", _) | (_, None) => "488 Not Acceptable Here",
            _ => "200 OK",
        };
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        frame.answer(status, "edge", AGENT, &mut out);
        self.octets.sip_out += out.len() as u64;
        self.edge.queue(line, &out).map_err(|e| e.to_string())?;
        self.out = out;
        let Some(index) = index.filter(|_| frame.method() == b"MESSAGE" && self.plan.back) else {
            self.strange += 1;
            self.reason = Some(frame.shown());
            return Ok(());
        };
        let mark = Mark::read(frame.body).filter(|m| m.flow as usize == index);
        let Some(mark) = mark else {
            self.account.corrupt += 1;
            return Ok(());
        };
        let before = self.account.delivered;
        self.delivered(index, mark);
        if self.account.delivered > before {
            self.done(index)?;
        }
        Ok(())
    }

    /// An answer of the server.
    fn told(&mut self, sip: &Reader, frame: &Frame<'_>) -> Result<(), String> {
        let index = Dialog::number(sip.call(frame)).map(|it| it.0);
        let Some(index) = index.filter(|&it| it < self.sessions.len() && frame.status >= 200)
        else {
            return Ok(());
        };
        let (cseq, method) = sip.cseq(frame);
        if method == b"INVITE" {
            if frame.status != 200 {
                self.reason = Some(frame.shown());
                return Ok(());
            }
            return self.invited(index, frame);
        }
        if frame.status != 200 || cseq != FIRST + self.sessions[index].sent {
            self.refused += 1;
            self.reason = Some(frame.shown());
            return Ok(());
        }
        self.answered += 1;
        self.done(index)
    }

    fn invited(&mut self, index: usize, frame: &Frame<'_>) -> Result<(), String> {
        let it = &mut self.sessions[index];
        it.dialog.made(frame);
        let ack = it.dialog.text("ACK", FIRST, AGENT, "");
        if self.plan.back {
            it.write_xmpp(self.plan.bytes);
        } else {
            it.write_sip(self.plan.bytes);
        }
        self.ready += usize::from(!std::mem::replace(&mut it.stands, true));
        self.edge.queue(it.line, ack.as_bytes()).map_err(|e| e.to_string())
    }

    /// A message has come to its end: the next.
    fn done(&mut self, index: usize) -> Result<(), String> {
        let took = self.now_ns.saturating_sub(self.sessions[index].at_ns);
        self.latency.saturating_record(took.max(1));
        if self.talking {
            self.send(index).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn reading(&self) -> io::Result<Reading> {
        let done = if self.plan.back { self.account.delivered } else { self.answered };
        self.plan.watched.read(done, self.turns)
    }

    fn result(
        &self,
        before: &Reading,
        after: &Reading,
        latency: &Histogram<u64>,
        was: Octets,
        has: Octets,
    ) -> Value {
        let span = after.since(before);
        let a = &self.account;
        let each = |has: u64, was: u64| (has - was) as f64 / (span.done as f64).max(1.0);
        let sip = (each(has.sip_out, was.sip_out), each(has.sip_in, was.sip_in));
        let xmpp = (each(has.xmpp_out, was.xmpp_out), each(has.xmpp_in, was.xmpp_in));
        let ((request, answer), (ack, pass)) =
            if self.plan.back { (xmpp, sip) } else { (sip, xmpp) };
        let sound = a.duplicated + a.reordered + a.misdelivered + a.corrupt + a.bounced == 0
            && self.refused + self.strange + self.impossible == 0
            && a.delivered == a.sent
            && self.in_flight() == 0;
        let us = |q: f64| latency.value_at_quantile(q) as f64 / 1e3;
        json!({
            "loop": "closed", "clients": self.sessions.len(), "lines": self.plan.lines,
            "way": if self.plan.back { "xmpp to sip" } else { "sip to xmpp" },
            "delivered_in_window": span.done, "wall_s": span.wall_ns / 1e9,
            "per_s": span.done as f64 / span.wall_ns * 1e9,
            "account": {
                "sent": a.sent, "delivered": a.delivered, "answered": self.answered,
                "duplicated": a.duplicated, "reordered": a.reordered, "corrupt": a.corrupt,
                "bounced": a.bounced, "refused": self.refused, "strange": self.strange,
                "lost": self.in_flight(), "impossible": self.impossible,
            },
            "reason": self.reason,
            "sound": sound,
            "sizes": { "request": request, "pass": pass, "ack": ack, "answer": answer },
            "latency_us": { "p50": us(0.5), "p99": us(0.99), "max": latency.max() as f64 / 1e3 },
            "generator": span.generator, "server": span.server,
        })
    }
}
