//! The traffic of a run: pairs that talk, closed loop or open, and what became of every message.
//!
//! Closed loop: each pair keeps a number of messages outstanding; who gets one answers with one, or
//! one way the same side sends the next.
//! Open loop: the schedule exists before the run, and latency counts from the intended time.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::account::{Account, Arrival, Window};
use crate::mark::{self, Mark};
use crate::measure::{Reading, Watched};
use crate::population::{EVENTS, Population};
use crate::reader::{self, Reader};
use crate::sm::{self, Managed};
use crate::sys::Event;

/// How long is waited, at the end, for what is still on its way.
const DRAIN: Duration = Duration::from_secs(2);
/// Open loop: messages in flight per client above which sending is given up as dropped.
const IN_FLIGHT_PER_CLIENT: u64 = 64;
/// Open loop: a wait shorter than this is spun, since a sleeping core takes as long to wake.
const SPIN: Duration = Duration::from_micros(60);

/// What traffic is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Closed loop: messages that each pair keeps on their way.
    pub outstanding: usize,
    /// Open loop: messages a second; replaces the closed loop.
    pub rate: Option<u64>,
    /// Bytes of a message stanza as sent.
    pub bytes: usize,
    /// Pairs by lot with this seed; without it neighbours make a pair.
    pub shuffle: Option<u64>,
    /// Traffic before the window.
    pub warmup: Duration,
    /// The window that is measured.
    pub window: Duration,
    /// The server.
    pub watched: Watched,
    /// Whether the streams are under stream management.
    pub managed: bool,
    /// Closed loop: one of a pair says everything, the other one nothing.
    pub one_way: bool,
}

struct Talker {
    peer: u32,
    template: Vec<u8>,
    mark_at: usize,
    sent: u32,
    /// What its peer has seen of it.
    window: Window,
    held: Vec<u8>,
    managed: Managed,
    dirty: bool,
    closed: bool,
}

struct Traffic<'a> {
    plan: &'a Plan,
    population: Population,
    talkers: Vec<Talker>,
    reader: Reader,
    account: Account,
    latency: Histogram<u64>,
    lateness: Histogram<u64>,
    dirty: Vec<u32>,
    found: Vec<(Option<Mark>, bool)>,
    raw: Vec<u8>,
    clear: Vec<u8>,
    begin: Instant,
    now_ns: u64,
    turns: u64,
    faults: u64,
    dropped: u64,
    /// Open loop: messages scheduled so far, and the time of the first.
    scheduled: u64,
    schedule_from_ns: u64,
    answering: bool,
    /// Stream management: requests of the server, and counts of it that cannot be.
    requests: u64,
    impossible: u64,
}

/// Runs the traffic on clients that are logged in and gives the result.
pub fn run(population: Population, plan: &Plan) -> io::Result<Value> {
    let histogram = || {
        Histogram::new_with_bounds(1, 60_000_000_000, 3)
            .map(|mut h: Histogram<u64>| {
                h.auto(true);
                h
            })
            .map_err(io::Error::other)
    };
    let talkers = talkers(&population, plan);
    let mut traffic = Traffic {
        plan,
        population,
        talkers,
        reader: Reader::default(),
        account: Account::default(),
        latency: histogram()?,
        lateness: histogram()?,
        dirty: Vec::new(),
        found: Vec::new(),
        raw: vec![0; 64 << 10],
        clear: Vec::new(),
        begin: Instant::now(),
        now_ns: 0,
        turns: 0,
        faults: 0,
        dropped: 0,
        scheduled: 0,
        schedule_from_ns: 0,
        answering: true,
        requests: 0,
        impossible: 0,
    };
    traffic.kick_off()?;
    traffic.turn_for(plan.warmup)?;
    traffic.latency.reset();
    traffic.lateness.reset();
    let before = traffic.reading()?;
    traffic.turn_for(plan.window)?;
    let after = traffic.reading()?;
    let latency = std::mem::replace(&mut traffic.latency, histogram()?);
    traffic.answering = false;
    let drain_end = Instant::now() + DRAIN;
    while traffic.in_flight() > 0 && Instant::now() < drain_end {
        traffic.turn(Some(Duration::from_millis(10)))?;
    }
    Ok(traffic.result(&before, &after, &latency))
}

fn talkers(population: &Population, plan: &Plan) -> Vec<Talker> {
    let count = population.clients.len() & !1;
    let mut order: Vec<usize> = (0..count).collect();
    if let Some(mut state) = plan.shuffle {
        for at in (1..count).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order.swap(at, ((state >> 33) % (at as u64 + 1)) as usize);
        }
    }
    let mut peers = vec![0; count];
    for pair in order.chunks_exact(2) {
        peers[pair[0]] = pair[1];
        peers[pair[1]] = pair[0];
    }
    let jid = |index: usize| population.clients[index].jid.as_str();
    peers
        .iter()
        .enumerate()
        .map(|(index, &peer)| {
            let to = if jid(peer).is_empty() { "relay@bare.example/r" } else { jid(peer) };
            let head = format!("<message to='{to}' type='chat' id='tl'><body>");
            let tail = "</body></message>";
            let pad = plan.bytes.saturating_sub(head.len() + mark::LEN + tail.len());
            let mark_at = head.len();
            let text = format!("{head}{}{}{tail}", " ".repeat(mark::LEN), "x".repeat(pad));
            Talker {
                peer: peer as u32,
                template: text.into_bytes(),
                mark_at,
                sent: 0,
                window: Window::default(),
                held: population.clients[index].early.clone(),
                managed: Managed::default(),
                dirty: false,
                closed: false,
            }
        })
        .collect()
}

impl Traffic<'_> {
    fn kick_off(&mut self) -> io::Result<()> {
        self.tick();
        self.schedule_from_ns = self.now_ns;
        if self.plan.rate.is_none() {
            for index in 0..self.talkers.len() {
                // One of a pair begins: the one with the lower number.
                if self.talkers[index].peer as usize > index {
                    for _ in 0..self.plan.outstanding {
                        self.send(index, self.now_ns)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn tick(&mut self) {
        self.now_ns = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    }

    fn in_flight(&self) -> u64 {
        self.account.sent - self.account.delivered - self.account.bounced.min(self.account.sent)
    }

    fn turn_for(&mut self, span: Duration) -> io::Result<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            let wait = match self.plan.rate {
                Some(rate) => self.send_due(rate)?,
                None => Duration::from_millis(10),
            };
            self.turn(Some(wait))?;
        }
        Ok(())
    }

    /// Open loop: sends all that is due and says how long nothing will be.
    fn send_due(&mut self, rate: u64) -> io::Result<Duration> {
        loop {
            self.tick();
            let due_ns = self.schedule_from_ns + self.scheduled * 1_000_000_000 / rate.max(1);
            if due_ns > self.now_ns {
                let wait = Duration::from_nanos(due_ns - self.now_ns);
                return Ok(wait.saturating_sub(SPIN).min(Duration::from_millis(10)));
            }
            let index = (self.scheduled % self.talkers.len() as u64) as usize;
            self.scheduled += 1;
            if self.in_flight() > IN_FLIGHT_PER_CLIENT * self.talkers.len() as u64 {
                self.dropped += 1;
                continue;
            }
            self.lateness.saturating_record(self.now_ns - due_ns);
            self.send(index, due_ns)?;
            if self.dirty.len() >= EVENTS {
                return Ok(Duration::ZERO);
            }
        }
    }

    fn send(&mut self, index: usize, at_ns: u64) -> io::Result<()> {
        let talker = &mut self.talkers[index];
        if talker.closed {
            return Ok(());
        }
        let mark = Mark { flow: index as u32, seq: talker.sent, at_ns };
        mark.write(&mut talker.template[talker.mark_at..talker.mark_at + mark::LEN]);
        talker.sent += 1;
        self.account.sent += 1;
        let link = &mut self.population.clients[index].link;
        link.queue(&talker.template)?;
        if self.plan.managed && talker.managed.sends() {
            link.queue(sm::REQUEST)?;
        }
        if !talker.dirty {
            talker.dirty = true;
            self.dirty.push(index as u32);
        }
        Ok(())
    }

    /// Sends what was queued, waits, and takes what came.
    fn turn(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.drain(..).for_each(|index| self.flush(index as usize));
        self.dirty = dirty;
        let mut events = [Event::EMPTY; EVENTS];
        let count = self.population.epoll.wait(&mut events, wait)?;
        self.turns += 1;
        self.tick();
        for event in events.iter().take(count) {
            let index = event.token() as usize;
            if event.writable() && self.population.flush(index).is_err() {
                self.close(index);
            }
            if event.readable() {
                while self.take(index)? {}
                // At once, while the kernel's side of this connection is in the cache.
                if self.dirty.pop_if(|last| *last as usize == index).is_some() {
                    self.flush(index);
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self, index: usize) {
        self.talkers[index].dirty = false;
        if self.population.flush(index).is_err() {
            self.close(index);
        }
    }

    fn close(&mut self, index: usize) {
        let Some(talker) = self.talkers.get_mut(index) else { return };
        if !talker.closed {
            talker.closed = true;
            self.faults += 1;
            let fd = self.population.clients[index].link.fd();
            // Nothing more is wanted of it; it is watched, so this does not fail.
            drop(self.population.epoll.remove(fd));
        }
    }

    /// One client has something to read; true if it may have more.
    fn take(&mut self, index: usize) -> io::Result<bool> {
        let client = &mut self.population.clients[index];
        let Ok(Some(bytes)) = client.link.read(&mut self.raw, &mut self.clear) else {
            self.close(index);
            return Ok(false);
        };
        let Some(talker) = self.talkers.get_mut(index) else { return Ok(false) };
        let (found, impossible) = (&mut self.found, &mut self.impossible);
        let mut note = |f: reader::Found<'_>| found.push((f.mark.and_then(Mark::read), f.bounced));
        let whole = talker.held.is_empty();
        if !whole {
            talker.held.extend_from_slice(bytes);
        }
        let text = if whole { bytes } else { &talker.held };
        let mut requests = 0;
        let done = if self.plan.managed {
            let managed = &mut talker.managed;
            self.reader.read_managed(text, |element| match element {
                reader::Managed::Message(found) => {
                    managed.receives();
                    note(found);
                }
                reader::Managed::Other => managed.receives(),
                reader::Managed::Request => requests += 1,
                reader::Managed::Acknowledged(h) => {
                    *impossible += u64::from(!h.is_some_and(|h| managed.acknowledged(h)));
                }
            })
        } else {
            self.reader.read(text, note)
        };
        if whole {
            talker.held.extend_from_slice(&bytes[done..]);
        } else {
            talker.held.drain(..done);
        }
        let mut found = std::mem::take(&mut self.found);
        for (mark, bounced) in found.drain(..) {
            self.arrived(index, mark, bounced)?;
        }
        self.found = found;
        if requests > 0 {
            self.acknowledge(index, requests)?;
        }
        Ok(self.population.clients[index].link.may_have_more)
    }

    /// Answers requests; behind what is queued already, so that it all goes at once.
    fn acknowledge(&mut self, index: usize, requests: u64) -> io::Result<()> {
        let talker = &mut self.talkers[index];
        let answer = talker.managed.answer();
        for _ in 0..requests {
            self.population.clients[index].link.queue(answer.as_bytes())?;
        }
        self.requests += requests;
        if !talker.dirty {
            talker.dirty = true;
            self.dirty.push(index as u32);
        }
        Ok(())
    }

    fn arrived(&mut self, index: usize, mark: Option<Mark>, bounced: bool) -> io::Result<()> {
        if bounced {
            self.account.bounced += 1;
            return Ok(());
        }
        let Some(mark) = mark else {
            self.account.corrupt += 1;
            return Ok(());
        };
        let Some(sender) = self.talkers.get_mut(mark.flow as usize) else {
            self.account.corrupt += 1;
            return Ok(());
        };
        if sender.peer as usize != index {
            self.account.misdelivered += 1;
            return Ok(());
        }
        match sender.window.take(mark.seq) {
            Arrival::InOrder => self.account.delivered += 1,
            Arrival::Overtaken => {
                self.account.delivered += 1;
                self.account.reordered += 1;
            }
            Arrival::Duplicate => {
                self.account.duplicated += 1;
                return Ok(());
            }
        }
        if self.plan.rate.is_some() {
            self.tick();
        }
        self.latency.saturating_record(self.now_ns.saturating_sub(mark.at_ns).max(1));
        if self.answering && self.plan.rate.is_none() {
            let next = if self.plan.one_way { mark.flow as usize } else { index };
            self.send(next, self.now_ns)?;
        }
        Ok(())
    }

    fn reading(&self) -> io::Result<Reading> {
        self.plan.watched.read(self.account.delivered, self.turns)
    }

    fn result(&self, before: &Reading, after: &Reading, latency: &Histogram<u64>) -> Value {
        let mut span = after.since(before);
        let a = &self.account;
        let latency_us = |q: f64| latency.value_at_quantile(q) as f64 / 1e3;
        let lateness_us = |q: f64| self.lateness.value_at_quantile(q) as f64 / 1e3;
        let sound = a.duplicated + a.reordered + a.misdelivered + a.corrupt + self.faults == 0
            && self.impossible == 0;
        let late = self.dropped > 0
            || self.plan.rate.is_some() && self.lateness.value_at_quantile(0.99) > 1_000_000;
        let managed = self.plan.managed.then(|| {
            let open = self.talkers.iter().map(|t| u64::from(t.managed.open())).sum::<u64>();
            json!({
                "requests": self.requests, "impossible": self.impossible,
                "unacknowledged": open,
            })
        });
        span.generator["late"] = json!(late);
        span.generator["dropped"] = json!(self.dropped);
        span.generator["lateness_us"] =
            json!({ "p50": lateness_us(0.5), "p99": lateness_us(0.99) });
        json!({
            "loop": if self.plan.rate.is_some() { "open" } else { "closed" },
            "clients": self.talkers.len(),
            "delivered_in_window": span.done,
            "wall_s": span.wall_ns / 1e9,
            "per_s": span.done as f64 / span.wall_ns * 1e9,
            "account": {
                "sent": a.sent, "delivered": a.delivered, "duplicated": a.duplicated,
                "reordered": a.reordered, "misdelivered": a.misdelivered, "corrupt": a.corrupt,
                "bounced": a.bounced, "lost": self.in_flight(), "closed": self.faults,
            },
            "sound": sound && self.in_flight() == 0,
            "latency_us": {
                "p50": latency_us(0.5), "p99": latency_us(0.99), "p999": latency_us(0.999),
                "max": latency.max() as f64 / 1e3,
            },
            "managed": managed,
            "generator": span.generator,
            "server": span.server,
        })
    }
}
