//! The account of one thread: what was sent, what became of it, and how long it took.
//!
//! A text carries a mark (`mark.rs`): flow and pair, number, and the time at which the schedule
//! wanted it sent. Whoever finds one says so here. Threads share nothing: at each second and at
//! the end their ledgers are added up. What crosses threads (sender on one, receiver on the other)
//! is judged by the receiver's windows, which exist on every thread, and summed.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::account::{Arrival, Window};
use crate::mark::Mark;

/// Pairs of all flows share one number space in marks: flow in the upper 8 bits, pair below.
pub const PAIR_BITS: u32 = 24;

/// Counts of one flow.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Handed to the connection.
    pub sent: u64,
    /// Arrived, each number once.
    pub delivered: u64,
    /// Came back, by condition or status code.
    pub bounced: BTreeMap<String, u64>,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived behind a later one, and by how many numbers at most.
    pub reordered: u64,
    /// The largest such distance.
    pub reordered_max: u64,
    /// A mark that can't be: check sum wrong, unknown pair, wrong receiver.
    pub corrupt: u64,
    /// Presence that a newer one replaced before it went out.
    pub superseded: u64,
    /// Deliveries that are due for what was sent (a presence change counts its watchers).
    pub due: u64,
    /// Not sent, since too many were in flight.
    pub dropped: u64,
}

/// Times of one flow or step, in nanoseconds.
pub type Times = Histogram<u64>;

/// Times with three digits that grow as they must.
pub fn times() -> Times {
    let mut times = Times::new_with_bounds(1, 60_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("three digits from 1 ns to a minute are in range"));
    times.auto(true);
    times
}

/// Different reasons that are kept for one step.
const REASONS_MAX: usize = 32;

/// Adds times; histograms that grow as they must take all.
fn join(mine: &mut Times, theirs: &Times) {
    if !theirs.is_empty() {
        let added = mine.add(theirs);
        debug_assert!(added.is_ok());
    }
}

impl Counts {
    /// Adds another interval's or thread's.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        for (condition, count) in &other.bounced {
            *self.bounced.entry(condition.clone()).or_default() += count;
        }
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.reordered_max = self.reordered_max.max(other.reordered_max);
        self.corrupt += other.corrupt;
        // An interval in which an overtaken state came has less than none.
        self.superseded = self.superseded.wrapping_add(other.superseded);
        self.due += other.due;
        self.dropped += other.dropped;
    }

    /// Deliveries that are due and neither came nor came back nor were replaced; after the drain
    /// they are lost.
    pub fn open(&self) -> u64 {
        let bounced: u64 = self.bounced.values().sum();
        self.due
            .saturating_sub(self.delivered)
            .saturating_sub(bounced)
            .saturating_sub(self.superseded)
    }
}

impl FlowAccount {
    fn took(&mut self, counted: &[(u64, u64)], intended_ns: u64, sent_ns: u64, now_ns: u64) {
        let latency_ns = now_ns.saturating_sub(intended_ns).max(1);
        if counted.iter().any(|&(from, until)| (from..until).contains(&intended_ns)) {
            self.latency.saturating_record(latency_ns);
            if sent_ns > 0 {
                self.service.saturating_record(now_ns.saturating_sub(sent_ns).max(1));
            }
        } else {
            self.aside.saturating_record(latency_ns);
        }
    }
}

/// One flow's account.
#[derive(Clone, Debug)]
pub struct FlowAccount {
    /// Counts.
    pub counts: Counts,
    /// From the intended time, of what makes headline figures.
    pub latency: Times,
    /// The same of all else: warm-ups, spikes.
    pub aside: Times,
    /// From the time it was really sent.
    pub service: Times,
    windows: Vec<Window>,
    /// Numbers given out, by pair.
    given: Vec<u32>,
    /// Gaps are states that a newer one replaced, not losses.
    pub supersedes: bool,
}

/// One kind of step: connect, tls, login, invite, …
#[derive(Clone, Debug)]
pub struct StepAccount {
    /// How many succeeded.
    pub ok: u64,
    /// How many failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// How long the good ones took.
    pub times: Times,
}

/// The account of a thread.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// By flow, in the scenario's order.
    pub flows: Vec<FlowAccount>,
    /// By step.
    pub steps: BTreeMap<&'static str, StepAccount>,
    /// Intended to actual send time.
    pub lateness: Times,
    /// Readable to stamped.
    pub receive_lag: Times,
    /// Intended times whose latency makes headline figures (the hold stages): from, until.
    pub counted: Vec<(u64, u64)>,
    /// Deliveries that are due for all that was sent, since the run began.
    pub owed: u64,
    /// Deliveries that need no more waiting for: arrived, come back, replaced.
    pub settled: u64,
    /// The run's number: what another run's senders left behind is no part of this account.
    pub run: u16,
    /// Marks of other runs that came.
    pub stale: u64,
    /// In a closed loop: flows and pairs whose message came, or came back, so that the next may go.
    pub returned: Option<Vec<(u16, u32)>>,
}

/// Octets of a mark's time that are time: 78 hours. Above them stands the run.
const TIME_BITS: u32 = 48;

impl Ledger {
    /// Empty, for so many flows of so many pairs each.
    pub fn new(pairs: &[usize]) -> Self {
        let flow = |&pairs: &usize| FlowAccount {
            counts: Counts::default(),
            latency: times(),
            aside: times(),
            service: times(),
            windows: vec![Window::default(); pairs],
            given: vec![0; pairs],
            supersedes: false,
        };
        Self {
            flows: pairs.iter().map(flow).collect(),
            steps: BTreeMap::new(),
            lateness: times(),
            receive_lag: times(),
            counted: vec![(0, u64::MAX)],
            owed: 0,
            settled: 0,
            run: 0,
            stale: 0,
            returned: None,
        }
    }

    /// Takes counts and times out of `other` and leaves its own there; windows stay.
    pub fn swap_interval(&mut self, other: &mut Self) {
        for (mine, theirs) in self.flows.iter_mut().zip(&mut other.flows) {
            std::mem::swap(&mut mine.counts, &mut theirs.counts);
            std::mem::swap(&mut mine.latency, &mut theirs.latency);
            std::mem::swap(&mut mine.aside, &mut theirs.aside);
            std::mem::swap(&mut mine.service, &mut theirs.service);
        }
        std::mem::swap(&mut self.steps, &mut other.steps);
        std::mem::swap(&mut self.lateness, &mut other.lateness);
        std::mem::swap(&mut self.receive_lag, &mut other.receive_lag);
        std::mem::swap(&mut self.stale, &mut other.stale);
    }

    /// The mark of the next text of that flow and pair. Whoever takes one sends it.
    pub fn mark(&mut self, flow: u16, pair: u32, intended_ns: u64) -> Mark {
        let given =
            self.flows.get_mut(usize::from(flow)).and_then(|f| f.given.get_mut(pair as usize));
        let seq = given.map_or(0, |given| {
            *given += 1;
            *given - 1
        });
        let at_ns = u64::from(self.run) << TIME_BITS | intended_ns & ((1 << TIME_BITS) - 1);
        Mark { flow: Self::flow_of(flow, pair), seq, at_ns }
    }

    /// When the schedule wanted what carries this mark.
    pub fn intended(mark: Mark) -> u64 {
        mark.at_ns & ((1 << TIME_BITS) - 1)
    }

    /// The number that stands in a mark.
    pub fn flow_of(flow: u16, pair: u32) -> u32 {
        u32::from(flow) << PAIR_BITS | pair
    }

    /// A message of a flow was handed over at `now_ns`, wanted at `intended_ns`; `due` deliveries follow.
    pub fn sent(&mut self, flow: u16, due: u64, intended_ns: u64, now_ns: u64) {
        if let Some(it) = self.flows.get_mut(usize::from(flow)) {
            it.counts.sent += 1;
            it.counts.due += due;
            self.owed += due;
            self.lateness.saturating_record(now_ns.saturating_sub(intended_ns).max(1));
        }
    }

    /// A text with a mark arrived where it should. `sent_ns` of zero: unknown, no service time.
    pub fn arrived(&mut self, mark: Mark, sent_ns: u64, now_ns: u64) {
        self.arrived_at(mark, mark.flow & ((1 << PAIR_BITS) - 1), sent_ns, now_ns);
    }

    /// The same where one text has many receivers: `place` is the receiver's own window.
    /// True if it had not come before.
    pub fn arrived_at(&mut self, mark: Mark, place: u32, sent_ns: u64, now_ns: u64) -> bool {
        let (flow, pair) = (mark.flow >> PAIR_BITS, mark.flow & ((1 << PAIR_BITS) - 1));
        if mark.at_ns >> TIME_BITS != u64::from(self.run) {
            self.stale += 1;
            return false;
        }
        let Some(it) = self.flows.get_mut(flow as usize) else { return false };
        let Some(window) = it.windows.get_mut(place as usize) else {
            it.counts.corrupt += 1;
            return false;
        };
        let (next, after) = (window.next(), u64::from(mark.seq) + 1);
        match window.take(mark.seq) {
            Arrival::InOrder => {
                it.counts.delivered += 1;
                if it.supersedes {
                    let replaced = after - 1 - u64::from(next).min(after - 1);
                    it.counts.superseded = it.counts.superseded.wrapping_add(replaced);
                    self.settled += replaced;
                }
            }
            Arrival::Overtaken => {
                it.counts.delivered += 1;
                it.counts.reordered += 1;
                it.counts.reordered_max =
                    it.counts.reordered_max.max(u64::from(next).saturating_sub(after));
                if it.supersedes {
                    // Counted as replaced when the later one came, maybe in an earlier interval.
                    it.counts.superseded = it.counts.superseded.wrapping_sub(1);
                    self.settled -= 1;
                }
            }
            Arrival::Duplicate => {
                it.counts.duplicated += 1;
                return false;
            }
        }
        self.settled += 1;
        let intended_ns = mark.at_ns & ((1 << TIME_BITS) - 1);
        it.took(&self.counted, intended_ns, sent_ns, now_ns);
        if let Some(returned) = &mut self.returned {
            returned.push((flow as u16, pair));
        }
        true
    }

    /// Something without a text came to its end: a login, a roster change.
    pub fn completed(&mut self, flow: u16, intended_ns: u64, sent_ns: u64, now_ns: u64) {
        if let Some(it) = self.flows.get_mut(usize::from(flow)) {
            it.counts.delivered += 1;
            self.settled += 1;
            it.took(&self.counted, intended_ns, sent_ns, now_ns);
        }
    }

    /// The same for a pair, whose next may go in a closed loop.
    pub fn completed_of(
        &mut self,
        flow: u16,
        pair: u32,
        intended_ns: u64,
        sent_ns: u64,
        now_ns: u64,
    ) {
        self.completed(flow, intended_ns, sent_ns, now_ns);
        if let Some(returned) = &mut self.returned {
            returned.push((flow, pair));
        }
    }

    /// An event that was due was not sent.
    pub fn dropped(&mut self, flow: u16) {
        if let Some(it) = self.flows.get_mut(usize::from(flow)) {
            it.counts.dropped += 1;
        }
    }

    /// Adds another account, all but its windows.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.flows.iter_mut().zip(&other.flows) {
            mine.counts.add(&theirs.counts);
            join(&mut mine.latency, &theirs.latency);
            join(&mut mine.aside, &theirs.aside);
            join(&mut mine.service, &theirs.service);
        }
        for (&name, theirs) in &other.steps {
            let mine = self.step_account(name);
            mine.ok += theirs.ok;
            for (reason, count) in &theirs.failed {
                *mine.failed.entry(reason.clone()).or_default() += count;
            }
            join(&mut mine.times, &theirs.times);
        }
        join(&mut self.lateness, &other.lateness);
        join(&mut self.receive_lag, &other.receive_lag);
        self.stale += other.stale;
    }

    /// Forgets counts and times.
    pub fn clear(&mut self) {
        for flow in &mut self.flows {
            flow.counts = Counts::default();
            flow.latency.reset();
            flow.aside.reset();
            flow.service.reset();
        }
        self.steps.clear();
        self.lateness.reset();
        self.receive_lag.reset();
        self.stale = 0;
    }

    /// A text that carries this mark was tampered with, or came to somebody else.
    pub fn corrupt(&mut self, flow: u16) {
        if let Some(it) = self.flows.get_mut(usize::from(flow)) {
            it.counts.corrupt += 1;
        }
    }

    /// A text of a pair came back with this condition or status.
    pub fn bounced_of(&mut self, flow: u16, pair: u32, condition: &str) {
        self.bounced(flow, condition);
        if let Some(returned) = &mut self.returned {
            returned.push((flow, pair));
        }
    }

    /// A text of a flow came back with this condition or status.
    pub fn bounced(&mut self, flow: u16, condition: &str) {
        if let Some(it) = self.flows.get_mut(usize::from(flow)) {
            self.settled += 1;
            match it.counts.bounced.get_mut(condition) {
                Some(count) => *count += 1,
                None => {
                    it.counts.bounced.insert(condition.to_owned(), 1);
                }
            }
        }
    }

    /// A step went well.
    pub fn step(&mut self, name: &'static str, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let it = self.step_account(name);
        it.ok += 1;
        it.times.saturating_record(took.max(1));
    }

    /// A step failed.
    pub fn step_failed(&mut self, name: &'static str, reason: &str) {
        let failed = &mut self.step_account(name).failed;
        // Reasons come from the far end, who may have any number of them.
        let known = failed.len() < REASONS_MAX || failed.contains_key(reason);
        let reason = if known { reason } else { "other" };
        *failed.entry(reason.to_owned()).or_default() += 1;
    }

    fn step_account(&mut self, name: &'static str) -> &mut StepAccount {
        self.steps.entry(name).or_insert_with(|| StepAccount {
            ok: 0,
            failed: BTreeMap::new(),
            times: times(),
        })
    }
}
