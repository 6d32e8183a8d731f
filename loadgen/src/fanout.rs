//! Presence from a few to many: presentities change, and all their watchers are told.
//!
//! Closed loop: a number of changes is on its way in all, at most one of each presentity; when the
//! last watcher has one, the presentity that rested longest makes the next. So nothing need be
//! superseded, and what is counts.
//!
//! A change waits until the one before it has reached a quarter of its watchers: so a server has
//! always the next one to begin and never two, and each delivery is a send of its own. Together,
//! without that wait, changes ride in one send as many as there are. Does **not** make the
//! subscriptions (see [`crate::rosters`]).

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::mark::{self, Mark};
use crate::measure::{Reading, Watched};
use crate::population::{EVENTS, Population};
use crate::reader::{Presence, PresenceReader};
use crate::sys::Event;

/// How long is waited, at the end, for what is still on its way.
const DRAIN: Duration = Duration::from_secs(2);
/// Silence after which the logins' own presence is believed to have gone round.
const QUIET: Duration = Duration::from_millis(300);
/// And how long that is waited for at most.
const QUIET_BY: Duration = Duration::from_secs(120);

/// What traffic is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many of the clients change; all others watch all of them.
    pub presentities: usize,
    /// Changes on their way in all.
    pub in_flight: usize,
    /// Changes don't wait for one another.
    pub together: bool,
    /// Bytes of a presence stanza as sent.
    pub bytes: usize,
    /// Against a bare sender: presences are written as a server would deliver them.
    pub raw: bool,
    /// Traffic before the window.
    pub warmup: Duration,
    /// The window that is measured.
    pub window: Duration,
    /// The server.
    pub watched: Watched,
}

struct Presentity {
    jid: Vec<u8>,
    template: Vec<u8>,
    mark_at: usize,
    /// The last change it made, from 1.
    change: u32,
    /// Watchers that don't have it.
    waiting: usize,
}

#[derive(Default)]
struct Account {
    changes: u64,
    delivered: u64,
    superseded: u64,
    duplicated: u64,
    reordered: u64,
    foreign: u64,
    corrupt: u64,
    unmarked: u64,
    octets: u64,
    reads: u64,
}

struct Traffic<'a> {
    plan: &'a Plan,
    population: Population,
    presentities: Vec<Presentity>,
    /// The last change each watcher has of each presentity, a watcher's side by side.
    last: Vec<u32>,
    held: Vec<Vec<u8>>,
    resting: VecDeque<usize>,
    /// Changes that may begin, and the presentity whose change began last.
    to_begin: usize,
    youngest: usize,
    reader: PresenceReader,
    found: Vec<Option<Mark>>,
    account: Account,
    each: Histogram<u64>,
    all: Histogram<u64>,
    dirty: Vec<usize>,
    raw: Vec<u8>,
    clear: Vec<u8>,
    begin: Instant,
    now_ns: u64,
    turns: u64,
    closed: u64,
    started: bool,
    answering: bool,
}

/// Runs the traffic on clients that are logged in and available, and gives the result.
pub fn run(population: Population, plan: &Plan) -> io::Result<Value> {
    let count = population.clients.len();
    if plan.presentities == 0 || plan.presentities >= count {
        return Err(io::Error::other("neither presentities nor watchers may be missing"));
    }
    let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other);
    let mut traffic = Traffic {
        plan,
        presentities: (0..plan.presentities).map(|i| presentity(&population, i, plan)).collect(),
        last: vec![0; (count - plan.presentities) * plan.presentities],
        held: vec![Vec::new(); count],
        population,
        resting: (0..plan.presentities).collect(),
        to_begin: plan.in_flight.clamp(1, plan.presentities),
        youngest: 0,
        reader: PresenceReader::default(),
        found: Vec::new(),
        account: Account::default(),
        each: histogram()?,
        all: histogram()?,
        dirty: Vec::new(),
        raw: vec![0; 64 << 10],
        clear: Vec::new(),
        begin: Instant::now(),
        now_ns: 0,
        turns: 0,
        closed: 0,
        started: false,
        answering: true,
    };
    traffic.settle()?;
    traffic.change_next()?;
    traffic.turn_for(plan.warmup)?;
    traffic.each.reset();
    traffic.all.reset();
    let octets = |t: &Traffic<'_>| (t.account.octets, t.account.reads);
    let (before, had) = (traffic.reading()?, octets(&traffic));
    traffic.turn_for(plan.window)?;
    let (after, has) = (traffic.reading()?, octets(&traffic));
    let (each, all) = (traffic.each.clone(), traffic.all.clone());
    traffic.answering = false;
    let drain_end = Instant::now() + DRAIN;
    while traffic.waiting() > 0 && Instant::now() < drain_end {
        traffic.turn()?;
    }
    let mut result = traffic.result(&before, &after, &each, &all);
    let done = result["delivered_in_window"].as_f64().unwrap_or(0.0).max(1.0);
    result["octets_each"] = json!((has.0 - had.0) as f64 / done);
    result["presences_per_read"] = json!(done / ((has.1 - had.1) as f64).max(1.0));
    Ok(result)
}

fn presentity(population: &Population, index: usize, plan: &Plan) -> Presentity {
    let bare = format!("u{index}@bare.example/r");
    let jid = if plan.raw { &bare } else { &population.clients[index].jid };
    let head = if plan.raw {
        // As a server writes it; the longest `to` that there is, since all get the same.
        format!("<presence from='{jid}' to='u{}@bare.example'><status>", population.clients.len())
    } else {
        "<presence><status>".to_owned()
    };
    let tail = "</status></presence>";
    let pad = plan.bytes.saturating_sub(head.len() + mark::LEN + tail.len());
    let text = format!("{head}{}{}{tail}", " ".repeat(mark::LEN), "x".repeat(pad));
    Presentity {
        jid: jid.clone().into_bytes(),
        template: text.into_bytes(),
        mark_at: head.len(),
        change: 0,
        waiting: 0,
    }
}

impl Traffic<'_> {
    /// Waits until the presence of the logins has gone round. A bare sender learns who sends by
    /// one word of theirs that it keeps.
    fn settle(&mut self) -> io::Result<()> {
        if self.plan.raw {
            for index in 0..self.presentities.len() {
                self.population.clients[index].link.queue(b"<presence/>")?;
                self.dirty.push(index);
            }
        }
        let by = Instant::now() + QUIET_BY;
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < QUIET {
            if self.turn()? > 0 {
                quiet_since = Instant::now();
            }
            if Instant::now() > by {
                return Err(io::Error::other("the presence of the logins did not come to rest"));
            }
        }
        self.started = true;
        Ok(())
    }

    fn tick(&mut self) {
        self.now_ns = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    }

    fn watchers(&self) -> usize {
        self.population.clients.len() - self.presentities.len()
    }

    fn waiting(&self) -> usize {
        self.presentities.iter().map(|p| p.waiting).sum()
    }

    fn turn_for(&mut self, span: Duration) -> io::Result<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// Those that rested longest change, as many as may.
    fn change_next(&mut self) -> io::Result<()> {
        let watchers = self.watchers();
        while self.to_begin > 0 {
            let reached = watchers - self.presentities[self.youngest].waiting;
            if !self.plan.together && reached < watchers / 4 {
                return Ok(());
            }
            let Some(index) = self.resting.pop_front() else { return Ok(()) };
            self.to_begin -= 1;
            self.youngest = index;
            self.tick();
            self.account.changes += 1;
            let presentity = &mut self.presentities[index];
            presentity.change += 1;
            presentity.waiting = watchers;
            let mark = Mark { flow: index as u32, seq: presentity.change, at_ns: self.now_ns };
            let at = presentity.mark_at;
            mark.write(&mut presentity.template[at..at + mark::LEN]);
            self.population.clients[index].link.queue(&presentity.template)?;
            self.dirty.push(index);
        }
        Ok(())
    }

    /// Sends what was queued, waits, and takes what came.
    fn turn(&mut self) -> io::Result<usize> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.flush(index);
        }
        self.dirty = dirty;
        let mut events = [Event::EMPTY; EVENTS];
        let wait = Some(Duration::from_millis(10));
        let count = self.population.epoll.wait(&mut events, wait)?;
        self.turns += 1;
        self.tick();
        for event in events.iter().take(count) {
            let index = event.token() as usize;
            if event.writable() {
                self.flush(index);
            }
            if event.readable() {
                while self.take(index)? {}
            }
        }
        Ok(count)
    }

    fn flush(&mut self, index: usize) {
        if self.population.flush(index).is_err() {
            self.close(index);
        }
    }

    fn close(&mut self, index: usize) {
        self.closed += 1;
        let fd = self.population.clients[index].link.fd();
        // Nothing more is wanted of it; gone is what is wanted.
        drop(self.population.epoll.remove(fd));
    }

    /// One client has something to read; true if it may have more.
    fn take(&mut self, index: usize) -> io::Result<bool> {
        let link = &mut self.population.clients[index].link;
        let Ok(Some(bytes)) = link.read(&mut self.raw, &mut self.clear) else {
            self.close(index);
            return Ok(false);
        };
        let Some(watcher) = index.checked_sub(self.presentities.len()) else {
            // What comes to a presentity is its own presence.
            return Ok(link.may_have_more);
        };
        self.account.octets += bytes.len() as u64;
        self.account.reads += 1;
        let held = &mut self.held[index];
        let whole = held.is_empty();
        if !whole {
            held.extend_from_slice(bytes);
        }
        let (found, account, presentities) =
            (&mut self.found, &mut self.account, &self.presentities);
        let text = if whole { bytes } else { &*held };
        let done = self.reader.read(text, |p| found.push(judge(&p, presentities, account)));
        if whole {
            held.extend_from_slice(&bytes[done..]);
        } else {
            held.drain(..done);
        }
        let mut found = std::mem::take(&mut self.found);
        for mark in found.drain(..).flatten() {
            self.arrived(watcher, mark)?;
        }
        self.found = found;
        Ok(self.population.clients[index].link.may_have_more)
    }

    fn arrived(&mut self, watcher: usize, mark: Mark) -> io::Result<()> {
        if !self.started {
            return Ok(());
        }
        let (flow, count) = (mark.flow as usize, self.presentities.len());
        let (last, presentity) =
            (&mut self.last[watcher * count + flow], &mut self.presentities[flow]);
        if mark.seq <= *last {
            let again = if mark.seq == *last {
                &mut self.account.duplicated
            } else {
                &mut self.account.reordered
            };
            *again += 1;
            return Ok(());
        }
        self.account.superseded += u64::from(mark.seq - *last - 1);
        *last = mark.seq;
        self.account.delivered += 1;
        let took = self.now_ns.saturating_sub(mark.at_ns).max(1);
        self.each.saturating_record(took);
        if mark.seq != presentity.change {
            return Ok(());
        }
        presentity.waiting -= 1;
        if presentity.waiting == 0 {
            self.all.saturating_record(took);
            self.resting.push_back(flow);
            self.to_begin += usize::from(self.answering);
        }
        if self.to_begin > 0 && self.answering { self.change_next() } else { Ok(()) }
    }

    fn reading(&self) -> io::Result<Reading> {
        self.plan.watched.read(self.account.delivered, self.turns)
    }

    fn result(
        &self,
        before: &Reading,
        after: &Reading,
        each: &Histogram<u64>,
        all: &Histogram<u64>,
    ) -> Value {
        let span = after.since(before);
        let a = &self.account;
        let lost = self.waiting() as u64;
        let wrong = a.duplicated + a.reordered + a.foreign + a.corrupt + a.superseded;
        let watchers = self.watchers();
        let us = |h: &Histogram<u64>, q: f64| h.value_at_quantile(q) as f64 / 1e3;
        let spread = |h: &Histogram<u64>| json!({ "p50": us(h, 0.5), "p99": us(h, 0.99), "max": h.max() as f64 / 1e3 });
        json!({
            "loop": "closed",
            "presentities": self.presentities.len(), "watchers": watchers,
            "in_flight": self.plan.in_flight, "together": self.plan.together,
            "delivered_in_window": span.done,
            "wall_s": span.wall_ns / 1e9,
            "per_s": span.done as f64 / span.wall_ns * 1e9,
            "account": {
                "changes": a.changes, "expected": a.changes * watchers as u64,
                "delivered": a.delivered, "superseded": a.superseded, "lost": lost,
                "duplicated": a.duplicated, "reordered": a.reordered, "foreign": a.foreign,
                "corrupt": a.corrupt, "unmarked": a.unmarked, "closed": self.closed,
            },
            "sound": wrong + lost + self.closed == 0,
            "latency_us": spread(each),
            "latency_of_the_last_us": spread(all),
            "generator": span.generator,
            "server": span.server,
        })
    }
}

/// The mark of a presence, if it is sound and comes from whom it says.
fn judge(found: &Presence<'_>, from: &[Presentity], account: &mut Account) -> Option<Mark> {
    let Some(text) = found.mark else {
        account.unmarked += 1;
        return None;
    };
    let Some(mark) = Mark::read(text) else {
        account.corrupt += 1;
        return None;
    };
    match from.get(mark.flow as usize) {
        Some(presentity) if presentity.jid == found.from => Some(mark),
        _ => {
            // Somebody else's, or one that came back as an error.
            account.foreign += 1;
            None
        }
    }
}
