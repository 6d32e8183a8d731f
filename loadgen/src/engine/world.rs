//! What all threads of a run share: the cast, the plan, a few numbers, and who is known by which
//! address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use tandem::time::Moment;

use crate::engine::raw::SetupFault;
use crate::engine::schedule::{Lot, Piece, pieces};
use crate::flows;
use crate::link;
use crate::pairs::Pairs;
use crate::party::Cast;
use crate::scenario::model::{Flow, Kind, Phase, Scenario, Side, Size, Transport};

/// Sizes drawn for a flow, taken round and round.
const SIZES: usize = 1_024;

/// An ear of some population.
pub(super) struct Listener {
    pub(super) population: usize,
    pub(super) ear: usize,
    pub(super) at: SocketAddr,
    pub(super) datagrams: bool,
    pub(super) tls: Option<Arc<ServerConfig>>,
}

/// The plan of a run, which doesn't change.
pub(super) struct World {
    pub(super) scenario: Arc<Scenario>,
    pub(super) pairs: Arc<Pairs>,
    pub(super) casts: Vec<Arc<dyn Cast>>,
    /// Which populations are dialled before the first stage.
    pub(super) dialled: Vec<bool>,
    pub(super) listeners: Vec<Listener>,
    pub(super) pieces: Vec<Piece>,
    /// By flow: octets of text.
    pub(super) sizes: Vec<Vec<usize>>,
    /// By flow: its part of all events.
    pub(super) shares: Vec<f64>,
    /// Intended times that make headline figures, since the first stage.
    pub(super) counted: Vec<(u64, u64)>,
    /// When a flow of kind reconnect cuts, since the first stage.
    pub(super) cuts: Vec<u64>,
    pub(super) threads: usize,
    /// For servers under test, whose certificates are not judged.
    pub(super) tls: Arc<ClientConfig>,
    pub(super) run: u16,
    /// From the begin of a connect to the end of its login.
    pub(super) patience_ns: u64,
}

impl World {
    pub(super) fn new(
        scenario: &Scenario,
        run: u16,
        patience: Duration,
    ) -> Result<Self, SetupFault> {
        let fault = |step: &str, reason: String| SetupFault { step: step.to_owned(), reason };
        let scenario = Arc::new(scenario.clone());
        let pairs = Arc::new(Pairs::of(&scenario));
        let casts = (0..scenario.populations.len())
            .map(|at| flows::cast(&scenario, at, &pairs))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|reason| fault("scenario", reason))?;
        let mut listeners = Vec::new();
        for (population, cast) in casts.iter().enumerate() {
            for (ear, it) in cast.ears().into_iter().enumerate() {
                let (at, datagrams, tls) = (it.at, it.datagrams, it.tls);
                listeners.push(Listener { population, ear, at, datagrams, tls });
            }
        }
        // Answers to a datagram come back to any of the sockets that share a port.
        let datagrams = scenario
            .populations
            .iter()
            .any(|p| p.side == Side::Edge && p.transport == Transport::Udp);
        let threads = if datagrams { 1 } else { scenario.run.threads.max(1) };
        let shares = shares(&scenario.flows, &pairs);
        let none = shares.iter().all(|share| *share == 0.0) || scenario.run.closed.is_some();
        let mut pieces = pieces(&scenario.stages);
        if none {
            for piece in &mut pieces {
                (piece.from_per_s, piece.to_per_s) = (0.0, 0.0);
            }
        }
        let counted = |phase: Phase| matches!(phase, Phase::Hold | Phase::Step);
        let spans = |wanted: &dyn Fn(Phase) -> bool| -> Vec<(u64, u64)> {
            let both = scenario.stages.iter().zip(&pieces);
            both.filter(|(s, _)| wanted(s.phase)).map(|(_, p)| (p.from_ns, p.to_ns)).collect()
        };
        let mut cuts: Vec<u64> = spans(&|p| p == Phase::Spike).iter().map(|s| s.0).collect();
        if cuts.is_empty() {
            cuts = spans(&counted).iter().map(|s| s.0 + (s.1 - s.0) / 4).collect();
        }
        let counted = spans(&counted);
        let tls = link::any_tls_config(false).map_err(|e| fault("tls", e.to_string()))?;
        Ok(Self {
            dialled: dialled(&scenario, &pairs),
            sizes: scenario.flows.iter().map(|f| sizes(f.size, scenario.seed)).collect(),
            scenario,
            pairs,
            casts,
            listeners,
            pieces,
            shares,
            counted,
            cuts,
            threads,
            tls,
            run,
            patience_ns: u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX >> 1),
        })
    }

    /// Windows that each flow needs.
    pub(super) fn windows(&self) -> Vec<usize> {
        let windows = |flow: &crate::pairs::FlowPairs| {
            flow.users.len() * (flow.watchers.each.max(1) as usize)
        };
        self.pairs.flows.iter().map(windows).collect()
    }

    pub(super) fn end_ns(&self) -> u64 {
        self.pieces.last().map_or(0, |piece| piece.to_ns)
    }
}

/// Everybody stands before the first stage, but those who log in as an event of the schedule.
fn dialled(scenario: &Scenario, pairs: &Pairs) -> Vec<bool> {
    let mut logins = vec![false; scenario.populations.len()];
    let mut others = logins.clone();
    for (flow, pairs) in scenario.flows.iter().zip(&pairs.flows) {
        if flow.kind == Kind::Login {
            logins[pairs.from] = true;
        } else {
            others[pairs.from] = true;
            others[pairs.to] = true;
        }
    }
    logins.iter().zip(others).map(|(login, other)| other || !login).collect()
}

fn shares(flows: &[Flow], pairs: &Pairs) -> Vec<f64> {
    let counts = |flow: &Flow, pairs: &crate::pairs::FlowPairs| {
        !matches!(flow.kind, Kind::Idle | Kind::Reconnect) && !pairs.users.is_empty()
    };
    let share: Vec<f64> = flows
        .iter()
        .zip(&pairs.flows)
        .map(|(flow, pairs)| if counts(flow, pairs) { flow.share.max(0.0) } else { 0.0 })
        .collect();
    let sum: f64 = share.iter().sum();
    share.iter().map(|share| if sum > 0.0 { share / sum } else { 0.0 }).collect()
}

/// Log-normal through median and 99th percentile, cut at the largest.
fn sizes(size: Size, seed: u64) -> Vec<usize> {
    if size.p99 <= size.p50 {
        return vec![size.p50];
    }
    let mut lot = Lot::new(seed ^ 0x5a5a);
    let middle = (size.p50.max(1) as f64).ln();
    // The standard normal's 99th percentile is 2.3263.
    let spread = ((size.p99 as f64).ln() - middle) / 2.326_3;
    (0..SIZES)
        .map(|_| ((middle + spread * lot.normal()).exp() as usize).min(size.max.max(size.p50)))
        .collect()
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stand {
    /// Connections are made.
    Setup,
    /// The schedule has a start.
    Run,
    /// The threads say goodbye from `leave_ns` on.
    Leave,
}

/// A thread's numbers, alone on its cache line.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Numbers {
    pub(super) owed: AtomicU64,
    pub(super) settled: AtomicU64,
    pub(super) ready: AtomicU64,
    /// What was to be sent before this time is sent.
    pub(super) through_ns: AtomicU64,
}

/// What changes while a run goes on.
pub(super) struct Shared {
    pub(super) epoch: Moment,
    stand: AtomicU8,
    /// Nanoseconds since the epoch.
    pub(super) start_ns: AtomicU64,
    pub(super) end_ns: AtomicU64,
    pub(super) leave_ns: AtomicU64,
    pub(super) numbers: Vec<Numbers>,
    /// Counts changes of `known`.
    pub(super) generation: AtomicU64,
    /// By population and user.
    known: RwLock<BTreeMap<(usize, usize), Arc<str>>>,
    /// A thread cannot go on.
    pub(super) stop: AtomicBool,
}

impl Shared {
    pub(super) fn new(epoch: Moment, threads: usize) -> Self {
        Self {
            epoch,
            stand: AtomicU8::new(Stand::Setup as u8),
            start_ns: AtomicU64::new(u64::MAX),
            end_ns: AtomicU64::new(u64::MAX),
            leave_ns: AtomicU64::new(u64::MAX),
            numbers: (0..threads).map(|_| Numbers::default()).collect(),
            generation: AtomicU64::new(0),
            known: RwLock::default(),
            stop: AtomicBool::new(false),
        }
    }

    pub(super) fn stand(&self) -> Stand {
        match self.stand.load(Ordering::Acquire) {
            0 => Stand::Setup,
            1 => Stand::Run,
            _ => Stand::Leave,
        }
    }

    pub(super) fn set_stand(&self, stand: Stand) {
        self.stand.store(stand as u8, Ordering::Release);
    }

    /// Deliveries that are waited for, of all threads.
    pub(super) fn in_flight(&self) -> u64 {
        let sum = |of: fn(&Numbers) -> &AtomicU64| {
            self.numbers
                .iter()
                .fold(0_u64, |sum, n| sum.wrapping_add(of(n).load(Ordering::Relaxed)))
        };
        // The later look first: what is settled was owed before.
        let settled = sum(|n| &n.settled);
        sum(|n| &n.owed).saturating_sub(settled)
    }

    /// Up to when every thread has sent what it was to send.
    pub(super) fn through_ns(&self) -> u64 {
        self.numbers.iter().map(|n| n.through_ns.load(Ordering::Acquire)).min().unwrap_or(u64::MAX)
    }

    pub(super) fn ready(&self) -> u64 {
        self.numbers.iter().map(|n| n.ready.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn learn(&self, population: usize, user: usize, address: Arc<str>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.insert((population, user), Arc::clone(&address));
        if before.is_none_or(|before| before != address) {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// The addresses of many, in order: as known, or as the cast writes them.
    pub(super) fn addresses(
        &self,
        world: &World,
        users: impl Iterator<Item = (usize, usize)>,
    ) -> Vec<Arc<str>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        users
            .map(|key| match known.get(&key) {
                Some(address) => Arc::clone(address),
                None => world.casts[key.0].address_of(key.1),
            })
            .collect()
    }
}
