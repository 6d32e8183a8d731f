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

/// One flow's account.
#[derive(Clone, Debug)]
pub struct FlowAccount {
    /// Counts.
    pub counts: Counts,
    /// From the intended time.
    pub latency: Times,
    /// From the time it was really sent.
    pub service: Times,
    windows: Vec<Window>,
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
    /// Whether samples of latency count (not in a warm-up).
    pub sampling: bool,
}

impl Ledger {
    /// Empty, for so many flows of so many pairs each.
    pub fn new(pairs: &[usize]) -> Self {
        let flow = |&pairs: &usize| FlowAccount {
            counts: Counts::default(),
            latency: times(),
            service: times(),
            windows: vec![Window::default(); pairs],
        };
        Self {
            flows: pairs.iter().map(flow).collect(),
            steps: BTreeMap::new(),
            lateness: times(),
            receive_lag: times(),
            sampling: true,
        }
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
            if self.sampling {
                self.lateness.saturating_record(now_ns.saturating_sub(intended_ns).max(1));
            }
        }
    }

    /// A text with a mark arrived where it should. `sent_ns` of zero: unknown, no service time.
    pub fn arrived(&mut self, mark: Mark, sent_ns: u64, now_ns: u64) {
        let (flow, pair) = (mark.flow >> PAIR_BITS, mark.flow & ((1 << PAIR_BITS) - 1));
        let Some(it) = self.flows.get_mut(flow as usize) else { return };
        let Some(window) = it.windows.get_mut(pair as usize) else {
            it.counts.corrupt += 1;
            return;
        };
        match window.take(mark.seq) {
            Arrival::InOrder => it.counts.delivered += 1,
            Arrival::Overtaken => {
                it.counts.delivered += 1;
                it.counts.reordered += 1;
            }
            Arrival::Duplicate => {
                it.counts.duplicated += 1;
                return;
            }
        }
        if self.sampling {
            it.latency.saturating_record(now_ns.saturating_sub(mark.at_ns).max(1));
            if sent_ns > 0 {
                it.service.saturating_record(now_ns.saturating_sub(sent_ns).max(1));
            }
        }
    }

    /// A text of a flow came back with this condition or status.
    pub fn bounced(&mut self, flow: u16, condition: &str) {
        if let Some(it) = self.flows.get_mut(usize::from(flow)) {
            *it.counts.bounced.entry(condition.to_owned()).or_default() += 1;
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
        *self.step_account(name).failed.entry(reason.to_owned()).or_default() += 1;
    }

    fn step_account(&mut self, name: &'static str) -> &mut StepAccount {
        self.steps.entry(name).or_insert_with(|| StepAccount {
            ok: 0,
            failed: BTreeMap::new(),
            times: times(),
        })
    }
}
