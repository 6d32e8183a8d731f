//! Making connections: at a pace, with patience, again where it failed, and what follows when one
//! is gone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use tandem::shard::kernel::{Ending, Ticket};

use crate::engine::schedule::Lot;
use crate::engine::worker::{At, Errand, NOBODY, Report, Timer, Todo, Worker};
use crate::engine::world::{Stand, World};
use crate::party::{Call, Order, Way};

/// How often one is tried before the run, and one that was lost in it.
const ATTEMPTS: u32 = 3;
const ATTEMPTS_AGAIN: u32 = 20;
/// The first pause before another attempt; it doubles, up to the longest.
const PAUSE_NS: u64 = 200_000_000;
const PAUSE_MAX_NS: u64 = 5_000_000_000;
/// Logins of a thread under way at once while everybody is put in place.
const UNDER_WAY: usize = 64;
/// Connects of a turn: each takes the kernel some 20 us, and messages are due meanwhile.
const PER_TURN: usize = 32;

/// A connection to be made.
#[derive(Clone, Copy, Debug)]
struct Dial {
    n: u32,
    attempt: u32,
    errand: Option<Errand>,
}

/// What is to be dialled for one population.
struct Queue {
    waiting: VecDeque<Dial>,
    /// Later: when, and the place in the order.
    later: BinaryHeap<Reverse<(u64, u32)>>,
    laters: Vec<Option<Dial>>,
    gap_ns: u64,
    next_ns: u64,
}

/// What a thread has still to dial.
pub(super) struct Dials {
    queues: Vec<Queue>,
    under_way: usize,
    /// Carriers that were not ready yet and not given up.
    pending: usize,
    given_up: usize,
    fault: Option<(&'static str, String)>,
    lot: Lot,
}

impl Dials {
    pub(super) fn new(world: &World, thread: usize) -> Self {
        let mut pending = 0;
        let queue = |(at, population): (usize, &crate::scenario::model::Population)| {
            let all = world.casts[at].carriers();
            let own = (thread..if world.dialled[at] { all } else { 0 }).step_by(world.threads);
            let waiting: VecDeque<Dial> =
                own.map(|n| Dial { n: n as u32, attempt: 0, errand: None }).collect();
            pending += waiting.len();
            let gap_ns = match population.connect_per_s {
                0 => 0,
                rate => 1_000_000_000 * world.threads as u64 / rate,
            };
            let (later, laters) = (BinaryHeap::new(), Vec::new());
            Queue { waiting, later, laters, gap_ns, next_ns: 0 }
        };
        let queues = world.scenario.populations.iter().enumerate().map(queue).collect();
        let lot = Lot::new(world.scenario.seed ^ thread as u64);
        Self { queues, under_way: 0, pending, given_up: 0, fault: None, lot }
    }

    pub(super) fn clear(&mut self) {
        for queue in &mut self.queues {
            queue.waiting.clear();
            queue.later.clear();
        }
    }

    /// When there is something to do by itself.
    pub(super) fn next_ns(&self) -> u64 {
        let next = |queue: &Queue| {
            let first = queue.later.peek().map_or(u64::MAX, |Reverse((when, _))| *when);
            if queue.waiting.front().is_some_and(|dial| dial.errand.is_some()) {
                return 0;
            }
            let waiting = !queue.waiting.is_empty() && self.under_way < UNDER_WAY;
            if waiting { queue.next_ns.min(first) } else { first }
        };
        self.queues.iter().map(next).min().unwrap_or(u64::MAX)
    }

    pub(super) fn further(&mut self, population: usize, n: usize, now_ns: u64) {
        let Some(queue) = self.queues.get_mut(population) else { return };
        queue.next_ns = queue.next_ns.min(now_ns);
        queue.waiting.push_back(Dial { n: n as u32, attempt: 0, errand: None });
    }

    /// The schedule is its pace, or it is a storm that has none: it goes before all others.
    pub(super) fn errand(&mut self, population: usize, n: u32, errand: Errand) {
        let Some(queue) = self.queues.get_mut(population) else { return };
        queue.waiting.push_front(Dial { n, attempt: 0, errand: Some(errand) });
    }

    fn again(&mut self, population: usize, dial: Dial, now_ns: u64) {
        let pause_ns = (PAUSE_NS << dial.attempt.min(5)).min(PAUSE_MAX_NS);
        let spread_ns = self.lot.draw() % (pause_ns / 2);
        let Some(queue) = self.queues.get_mut(population) else { return };
        let place = queue.laters.iter().position(Option::is_none).unwrap_or_else(|| {
            queue.laters.push(None);
            queue.laters.len() - 1
        });
        queue.laters[place] = Some(dial);
        queue.later.push(Reverse((now_ns + pause_ns + spread_ns, place as u32)));
    }

    /// The next one whose time has come, with its population.
    fn take(&mut self, now_ns: u64) -> Option<(usize, Dial)> {
        for (population, queue) in self.queues.iter_mut().enumerate() {
            while let Some(&Reverse((when, place))) = queue.later.peek()
                && when <= now_ns
            {
                queue.later.pop();
                queue.waiting.extend(queue.laters.get_mut(place as usize).and_then(Option::take));
            }
            if queue.waiting.front().is_some_and(|dial| dial.errand.is_some()) {
                return queue.waiting.pop_front().map(|dial| (population, dial));
            }
            let free = self.under_way < UNDER_WAY;
            if free && queue.next_ns <= now_ns && !queue.waiting.is_empty() {
                // One late turn is caught up with, a long pause is not.
                queue.next_ns = queue.next_ns.max(now_ns.saturating_sub(100_000_000));
                queue.next_ns += queue.gap_ns;
                return queue.waiting.pop_front().map(|dial| (population, dial));
            }
        }
        None
    }
}

impl Worker {
    /// Dials what is to be dialled now.
    pub(super) fn dial(&mut self) {
        for _ in 0..PER_TURN {
            let Some((population, dial)) = self.dials.take(self.now_ns) else { return };
            self.worked = true;
            self.dial_one(population, dial);
        }
    }

    fn dial_one(&mut self, population: usize, dial: Dial) {
        let world = Arc::clone(&self.world);
        let cast = &world.casts[population];
        let Call { way, source, tls, party } = cast.dial(dial.n as usize);
        let id = self.put(population, party);
        let now_ns = self.now_ns;
        self.dials.under_way += 1;
        if let Some(carrier) = self.carrier(population, dial.n) {
            carrier.party = id;
        }
        let reads_per_s = cast.reads_per_s(dial.n as usize);
        let Some(slot) = self.slot(id) else { return };
        slot.carrier = Some(dial.n);
        slot.attempt = dial.attempt;
        slot.errand = dial.errand;
        slot.tls = tls;
        slot.reads_per_s = reads_per_s;
        self.timers.push(Reverse((now_ns + world.patience_ns, id, Timer::Patience)));
        match way {
            Way::Stream(target) => {
                self.todo.push(Todo::Connect(Ticket(u64::from(id)), source, target));
            }
            Way::Datagrams(ear) => {
                let own = |it: &crate::engine::world::Listener| {
                    it.population == population && it.ear == ear
                };
                let Some(place) = world.listeners.iter().position(own) else { return };
                self.by_ear[place] = id;
                let Some(slot) = self.slot(id) else { return };
                slot.datagrams = Some(tandem::shard::settings::ListenerId(place as u16));
                slot.at = At::Login;
                self.call(id, |party, desk| party.opened(desk));
            }
        }
    }

    /// The carrier with that number, which is this thread's.
    pub(super) fn carrier(
        &mut self,
        population: usize,
        n: u32,
    ) -> Option<&mut crate::engine::worker::Carrier> {
        let threads = self.world.threads;
        if n as usize % threads != self.thread {
            return None;
        }
        self.carriers.get_mut(population)?.get_mut(n as usize / threads)
    }

    pub(super) fn became_ready(&mut self, id: u32) {
        let now_ns = self.now_ns;
        let Some(slot) = self.slot(id) else { return };
        if matches!(slot.at, At::Ready | At::Leaving) {
            return;
        }
        slot.at = At::Ready;
        slot.stood = true;
        slot.takes = slot.carrier.is_some();
        let (population, carrier, errand) =
            (slot.population as usize, slot.carrier, slot.errand.take());
        let began_ns = slot.began_ns;
        let Some(n) = carrier else { return };
        self.dials.under_way = self.dials.under_way.saturating_sub(1);
        self.ready += 1;
        if let Some(carrier) = self.carrier(population, n)
            && carrier.party == id
        {
            carrier.ready = true;
            if !std::mem::replace(&mut carrier.stood, true) && errand.is_none() {
                self.dials.pending = self.dials.pending.saturating_sub(1);
            }
        }
        if let Some(Errand { flow, intended_ns, leaves }) = errand {
            self.ledger.completed(flow, intended_ns, began_ns, now_ns);
            if leaves {
                self.not_ready(id);
                self.give(id, Order::Leave);
            }
        }
    }

    /// It takes no orders any more.
    pub(super) fn not_ready(&mut self, id: u32) {
        let Some(slot) = self.slot(id) else { return };
        let (population, carrier) = (slot.population as usize, slot.carrier);
        let Some(n) = carrier.filter(|_| std::mem::replace(&mut slot.takes, false)) else { return };
        self.ready = self.ready.saturating_sub(1);
        if let Some(carrier) = self.carrier(population, n)
            && carrier.party == id
        {
            carrier.ready = false;
        }
    }

    /// A connection is gone, or never stood.
    pub(super) fn lost(&mut self, id: u32, orderly: bool) {
        let why = if orderly { "closed by the far end" } else { "broken" };
        let before = self.slot(id).map(|slot| slot.at);
        if before.is_some_and(|at| at != At::Leaving) {
            self.fail(id, None, why);
        }
        self.call(id, |party, desk| party.gone(orderly, desk));
        let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::take) else { return };
        let Some(n) = slot.carrier else { return };
        let population = slot.population as usize;
        let stood = self.carrier(population, n).map(|carrier| {
            if carrier.party == id {
                carrier.party = NOBODY;
            }
            carrier.stood
        });
        // Before it was ready it counted as under way.
        let was_ready = slot.stood;
        if !was_ready {
            self.dials.under_way = self.dials.under_way.saturating_sub(1);
        }
        let leaving = self.shared.stand() == Stand::Leave;
        let Some(fault) = slot.fault.filter(|_| !leaving) else { return };
        if let Some(errand) = slot.errand.filter(|errand| errand.leaves) {
            self.ledger.bounced(errand.flow, fault.0);
            return;
        }
        let attempts = if stood == Some(false) { ATTEMPTS } else { ATTEMPTS_AGAIN };
        let attempt = if was_ready { 0 } else { slot.attempt + 1 };
        if attempt < attempts {
            let dial = Dial { n, attempt, errand: slot.errand };
            self.dials.again(population, dial, self.now_ns);
            return;
        }
        if let Some(errand) = slot.errand {
            self.ledger.bounced(errand.flow, fault.0);
        }
        if let Some(carrier) = self.carrier(population, n)
            && !std::mem::replace(&mut carrier.stood, true)
        {
            self.dials.pending = self.dials.pending.saturating_sub(1);
            self.dials.given_up += 1;
            self.dials.fault = Some(fault);
        }
    }

    /// Cuts a part of a population's connections at once; they are taken up again.
    pub(super) fn cut(&mut self, flow: u16, population: usize, part: f64, intended_ns: u64) {
        let mut lot = Lot::new(self.world.scenario.seed ^ intended_ns ^ self.thread as u64);
        for at in 0..self.carriers[population].len() {
            let carrier = self.carriers[population][at];
            if !carrier.ready || lot.unit() > part {
                continue;
            }
            let n = (at * self.world.threads + self.thread) as u32;
            let id = carrier.party;
            self.not_ready(id);
            let Some(slot) = self.slot(id) else { continue };
            slot.at = At::Leaving;
            if let Some(conn) = slot.conn {
                self.todo.push(Todo::Close(conn, Ending::Abort));
            }
            let errand = Errand { flow, intended_ns, leaves: false };
            self.ledger.sent(flow, 1, intended_ns, self.now_ns);
            self.dials.errand(population, n, errand);
        }
    }

    pub(super) fn tell_stood(&mut self) {
        if !self.stood_told && self.dials.pending == 0 {
            self.stood_told = true;
            let (given_up, fault) = (self.dials.given_up, self.dials.fault.take());
            let ready = self.ready as usize;
            drop(self.reports.send(Report::Stood { ready, given_up, fault }));
        }
    }
}
