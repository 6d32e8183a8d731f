//! Adds up what the threads tell of each interval.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::engine::host;
use crate::engine::raw::{ThreadTick, Tick};
use crate::engine::schedule::asked;
use crate::engine::worker::Part;
use crate::engine::world::{Shared, World};
use crate::ledger::Ledger;

struct Open {
    tick: Tick,
    missing: usize,
}

/// Sums of thread over the stages.
#[derive(Clone)]
struct Whole {
    own: Ledger,
    cpu_ns: u64,
    idle_ns: u64,
    run_queue_ns: u64,
}

/// What has been told so far.
pub(super) struct Sums {
    world: Arc<World>,
    returns: Vec<Sender<Ledger>>,
    /// By end of the interval.
    open: BTreeMap<u64, Open>,
    total: Ledger,
    threads: Vec<Whole>,
    steal_before: (u64, u64),
}

impl Sums {
    pub(super) fn new(world: &Arc<World>, returns: Vec<Sender<Ledger>>) -> Self {
        let own = Ledger::new(&[]);
        let whole = Whole { own, cpu_ns: 0, idle_ns: 0, run_queue_ns: 0 };
        Self {
            threads: vec![whole; world.threads],
            total: empty(world),
            world: Arc::clone(world),
            returns,
            open: BTreeMap::new(),
            steal_before: host::steal(),
        }
    }

    pub(super) fn take(&mut self, part: Part, shared: &Shared, each: &mut dyn FnMut(&Tick)) {
        let start_ns = shared.start_ns.load(std::sync::atomic::Ordering::Relaxed);
        let end_ns = shared.end_ns.load(std::sync::atomic::Ordering::Relaxed);
        let from_ns = part.from_ns.saturating_sub(start_ns);
        let to_ns = part.to_ns.saturating_sub(start_ns);
        let running = part.to_ns <= end_ns;
        let Part { thread, ledger, cpu_ns, idle_ns, run_queue_ns, .. } = part;
        self.total.add(&ledger);
        if let Some(whole) = self.threads.get_mut(thread).filter(|_| running) {
            whole.own.add(&Ledger { flows: Vec::new(), ..ledger.clone() });
            whole.cpu_ns += cpu_ns;
            whole.idle_ns += idle_ns;
            whole.run_queue_ns += run_queue_ns;
        }
        let world = &self.world;
        let open = self.open.entry(to_ns).or_insert_with(|| Open {
            tick: Tick {
                from_ns,
                to_ns,
                stage: world
                    .pieces
                    .iter()
                    .position(|p| running && p.from_ns <= from_ns && from_ns < p.to_ns),
                asked: if running { asked(&world.pieces, from_ns, to_ns) } else { 0.0 },
                part: empty(world),
                in_flight: 0,
                connections: 0,
                threads: vec![ThreadTick::default(); world.threads],
                steal: 0.0,
            },
            missing: world.threads,
        });
        open.tick.part.add(&ledger);
        if let Some(tick) = open.tick.threads.get_mut(thread) {
            let wall_ns = to_ns.saturating_sub(from_ns).max(1);
            *tick = thread_tick(&ledger, cpu_ns, idle_ns, run_queue_ns, wall_ns);
        }
        open.missing = open.missing.saturating_sub(1);
        let mut ledger = ledger;
        ledger.clear();
        if let Some(back) = self.returns.get(thread) {
            // A thread that is through needs none.
            drop(back.send(ledger));
        }
        while let Some(first) = self.open.first_entry()
            && first.get().missing == 0
        {
            let mut tick = first.remove().tick;
            tick.in_flight = shared.in_flight();
            tick.connections = shared.ready();
            let steal = host::steal();
            let ticks = steal.1.saturating_sub(self.steal_before.1).max(1);
            tick.steal = steal.0.saturating_sub(self.steal_before.0) as f64 / ticks as f64;
            self.steal_before = steal;
            each(&tick);
        }
    }

    pub(super) fn finish(self, wall_ns: u64) -> (Ledger, Vec<ThreadTick>) {
        let tick = |whole: &Whole| {
            thread_tick(&whole.own, whole.cpu_ns, whole.idle_ns, whole.run_queue_ns, wall_ns)
        };
        let threads = self.threads.iter().map(tick).collect();
        (self.total, threads)
    }
}

fn empty(world: &World) -> Ledger {
    Ledger::new(&vec![0; world.scenario.flows.len()])
}

fn thread_tick(
    ledger: &Ledger,
    cpu_ns: u64,
    idle_ns: u64,
    run_queue_ns: u64,
    wall_ns: u64,
) -> ThreadTick {
    let late = &ledger.lateness;
    ThreadTick {
        busy: (cpu_ns.saturating_sub(idle_ns) as f64 / wall_ns.max(1) as f64).min(1.0),
        cpu_ns,
        run_queue_ns,
        late_ns: [late.value_at_quantile(0.5), late.value_at_quantile(0.99), late.max()],
        receive_lag_p99_ns: ledger.receive_lag.value_at_quantile(0.99),
    }
}
