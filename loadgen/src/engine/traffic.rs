//! What a thread sends and when: the schedule's events, the closed loop's answers, the cuts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tandem::shard::kernel::{Kernel, ShardId};

use crate::engine::schedule::Schedule;
use crate::engine::worker::{Errand, NOBODY, Worker};
use crate::engine::world::World;
use crate::party::Order;
use crate::scenario::model::{Kind, Side};

/// Events sent before the thread looks what came.
const PER_TURN: usize = 512;
/// Events between two looks at the clock.
const PER_LOOK: usize = 16;
/// Pairs that are tried for one event when their connections are not there.
const TRIES: usize = 16;

/// A pair whose sender is on this thread.
struct Pair {
    number: u32,
    carrier: u32,
    from: Arc<str>,
    to: Arc<str>,
}

/// What a thread does of a flow.
struct Part {
    kind: Kind,
    from_side: Side,
    from: usize,
    pairs: Vec<Pair>,
    /// By pair number: the place in `pairs`.
    places: Vec<u32>,
    next: usize,
    size: usize,
    weight: f64,
    due: f64,
    expires_s: u64,
}

/// What a thread does.
pub(super) struct Traffic {
    parts: Vec<Part>,
    schedule: Schedule,
    generation: u64,
    cuts: Vec<(u64, u16)>,
    start_ns: u64,
    /// Credits of pairs whose sender is on another thread and found its lane full.
    unposted: Vec<(u16, u32)>,
    began: bool,
}

impl Traffic {
    pub(super) fn new(world: &World, thread: usize) -> Self {
        let mut weight = 0.0;
        let part = |(number, flow): (usize, &crate::scenario::model::Flow)| {
            let pairs = &world.pairs.flows[number];
            let cast = &world.casts[pairs.from];
            let mut places = vec![NOBODY; pairs.users.len()];
            let mut own = Vec::new();
            let none: Arc<str> = Arc::from("");
            for (pair, &(from, _)) in pairs.users.iter().enumerate() {
                let carrier = cast.carrier_of(from as usize);
                if carrier % world.threads == thread {
                    places[pair] = own.len() as u32;
                    let (from, to) = (Arc::clone(&none), Arc::clone(&none));
                    own.push(Pair { number: pair as u32, carrier: carrier as u32, from, to });
                }
            }
            let part = own.len() as f64 / pairs.users.len().max(1) as f64;
            weight += world.shares[number] * part;
            Part {
                kind: flow.kind,
                from_side: world.scenario.populations[pairs.from].side,
                from: pairs.from,
                next: 0,
                size: thread,
                weight: world.shares[number] * part,
                due: 0.0,
                expires_s: flow.expires_s,
                pairs: own,
                places,
            }
        };
        let parts: Vec<Part> = world.scenario.flows.iter().enumerate().map(part).collect();
        let seed = world.scenario.seed.wrapping_add(thread as u64 * 0x1_0001);
        let poisson = world.scenario.run.poisson.then_some(seed);
        let phase = (thread as f64 + 0.5) / world.threads as f64;
        let cutting = world.scenario.flows.iter().enumerate();
        let cutting = cutting.filter(|(_, flow)| flow.kind == Kind::Reconnect);
        let mut cuts: Vec<(u64, u16)> = cutting
            .flat_map(|(flow, _)| world.cuts.iter().map(move |&at| (at, flow as u16)))
            .collect();
        // The last is the next.
        cuts.sort_unstable_by(|a, b| b.cmp(a));
        Self {
            parts,
            schedule: Schedule::new(&world.pieces, weight, phase, poisson),
            generation: u64::MAX,
            cuts,
            start_ns: u64::MAX,
            unposted: Vec::new(),
            began: false,
        }
    }

    /// When the next event is, since the first stage began.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let cut_ns = self.cuts.last().map(|cut| cut.0);
        let next_ns = self.schedule.next_ns().filter(|_| self.began);
        match (cut_ns.filter(|_| self.began), next_ns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Which flow's turn it is: each gets its weight, spread evenly.
    fn choose(&mut self) -> usize {
        let (mut best, mut sum) = (0, 0.0);
        for at in 0..self.parts.len() {
            let part = &mut self.parts[at];
            part.due += part.weight;
            sum += part.weight;
            if self.parts[at].due > self.parts[best].due || self.parts[best].weight == 0.0 {
                best = at;
            }
        }
        self.parts[best].due -= sum;
        best
    }
}

impl Worker {
    /// The start is known, and not yet there: another thread's first message may come before this
    /// one begins.
    pub(super) fn know_start(&mut self) {
        let start_ns = self.start_ns();
        if self.traffic.start_ns == start_ns {
            return;
        }
        self.traffic.start_ns = start_ns;
        self.ledger.counted =
            self.world.counted.iter().map(|&(a, b)| (start_ns + a, start_ns + b)).collect();
        self.learn_addresses();
    }

    /// The first stage begins.
    pub(super) fn begin_run(&mut self) {
        self.traffic.began = true;
        let Some(outstanding) = self.world.scenario.run.closed else { return };
        let now_ns = self.now_ns;
        for flow in 0..self.traffic.parts.len() {
            for place in 0..self.traffic.parts[flow].pairs.len() {
                for _ in 0..outstanding {
                    self.send_pair(flow, place, now_ns);
                }
            }
        }
    }

    /// Takes up what is known of addresses, if that changed.
    fn learn_addresses(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation == self.traffic.generation {
            return;
        }
        self.traffic.generation = generation;
        let world = Arc::clone(&self.world);
        for (flow, part) in self.traffic.parts.iter_mut().enumerate() {
            let pairs = &world.pairs.flows[flow];
            let users = |pair: &Pair| pairs.users[pair.number as usize];
            let froms = part.pairs.iter().map(|pair| (pairs.from, users(pair).0 as usize));
            let froms = self.shared.addresses(&world, froms);
            let tos = part.pairs.iter().map(|pair| (pairs.to, users(pair).1 as usize));
            let tos = self.shared.addresses(&world, tos);
            for ((pair, from), to) in part.pairs.iter_mut().zip(froms).zip(tos) {
                (pair.from, pair.to) = (from, to);
            }
        }
    }

    /// Sends what is due.
    pub(super) fn send_due(&mut self) {
        let start_ns = self.start_ns();
        if !self.traffic.began || self.now_ns < start_ns {
            return;
        }
        let end_ns = self.shared.end_ns.load(Ordering::Relaxed);
        self.learn_addresses();
        while let Some(&(at_ns, flow)) = self.traffic.cuts.last()
            && at_ns + start_ns <= self.now_ns
        {
            self.traffic.cuts.pop();
            self.worked = true;
            let population = self.traffic.parts[usize::from(flow)].from;
            let part = self.world.scenario.flows[usize::from(flow)].cut;
            self.cut(flow, population, part, at_ns + start_ns);
        }
        let owed = self.ledger.owed.wrapping_sub(self.ledger.settled);
        let mut others = None;
        for count in 0..PER_TURN {
            if count % PER_LOOK == PER_LOOK - 1 {
                self.tick();
            }
            let Some(at_ns) = self.traffic.schedule.next_ns() else { return };
            let intended_ns = start_ns + at_ns;
            if intended_ns > self.now_ns || intended_ns >= end_ns {
                return;
            }
            self.worked = true;
            self.traffic.schedule.advance();
            let flow = self.traffic.choose();
            // What the other threads know, looked at once a turn, and what this one added since.
            let others = *others.get_or_insert_with(|| self.shared.in_flight());
            let mine = self.ledger.owed.wrapping_sub(self.ledger.settled).wrapping_sub(owed);
            if others.wrapping_add(mine) >= self.world.scenario.run.in_flight_max {
                self.ledger.dropped(flow as u16);
                continue;
            }
            self.send_next(flow, intended_ns);
        }
    }

    /// The flow's next pair whose sender is there.
    fn send_next(&mut self, flow: usize, intended_ns: u64) {
        for _ in 0..TRIES {
            let part = &mut self.traffic.parts[flow];
            if part.pairs.is_empty() {
                return;
            }
            let place = part.next;
            part.next = if place + 1 == part.pairs.len() { 0 } else { place + 1 };
            if self.send_pair(flow, place, intended_ns) {
                return;
            }
        }
        self.ledger.dropped(flow as u16);
    }

    fn send_pair(&mut self, flow: usize, place: usize, intended_ns: u64) -> bool {
        let threads = self.world.threads;
        let part = &mut self.traffic.parts[flow];
        let Some(pair) = part.pairs.get(place) else { return false };
        let carriers = &self.carriers[part.from];
        let Some(&carrier) = carriers.get(pair.carrier as usize / threads) else { return false };
        let (number, n) = (pair.number, pair.carrier);
        if part.kind == Kind::Login {
            if carrier.party != NOBODY {
                return false;
            }
            let population = part.from;
            let errand = Errand { flow: flow as u16, intended_ns, leaves: true };
            self.ledger.sent(flow as u16, 1, intended_ns, self.now_ns);
            self.dials.errand(population, n, errand);
            self.dial();
            return true;
        }
        if !carrier.ready {
            return false;
        }
        let sizes = &self.world.sizes[flow];
        part.size = if part.size + 1 >= sizes.len() { 0 } else { part.size + 1 };
        let octets = sizes[part.size];
        let order = part.order(flow as u16, place, number, octets, intended_ns);
        self.give(carrier.party, order);
        true
    }

    /// Closed loop: what came makes room for the next of its pair, here or on another thread.
    pub(super) fn pass_on<K: Kernel>(&mut self, kernel: &mut K) {
        let Some(returned) = &mut self.ledger.returned else { return };
        if returned.is_empty() && self.traffic.unposted.is_empty() {
            return;
        }
        let mut credits = std::mem::take(returned);
        credits.append(&mut self.traffic.unposted);
        let open = self.shared.start_ns.load(Ordering::Relaxed) <= self.now_ns
            && self.now_ns < self.shared.end_ns.load(Ordering::Relaxed);
        let threads = self.world.threads;
        for (flow, number) in credits.drain(..).filter(|_| open) {
            let at = usize::from(flow);
            let pairs = &self.world.pairs.flows[at];
            let Some(&(from, _)) = pairs.users.get(number as usize) else { continue };
            let thread = self.world.casts[pairs.from].carrier_of(from as usize) % threads;
            if thread == self.thread {
                self.credit(at, number);
                continue;
            }
            let mut record = [0; 6];
            record[..2].copy_from_slice(&flow.to_be_bytes());
            record[2..].copy_from_slice(&number.to_be_bytes());
            if kernel.post(ShardId(thread as u16), &record).is_err() {
                self.traffic.unposted.push((flow, number));
            }
        }
        // What was answered within this loop came behind.
        if let Some(returned) = &mut self.ledger.returned
            && returned.is_empty()
        {
            *returned = credits;
        }
    }

    fn credit(&mut self, flow: usize, number: u32) {
        let place = self.traffic.parts.get(flow).and_then(|p| p.places.get(number as usize));
        if let Some(&place) = place.filter(|place| **place != NOBODY) {
            self.tick();
            self.send_pair(flow, place as usize, self.now_ns);
        }
    }

    /// Another thread passes a credit on.
    pub(super) fn posted(&mut self, record: &[u8]) {
        if let &[a, b, c, d, e, f] = record
            && self.now_ns < self.shared.end_ns.load(Ordering::Relaxed)
        {
            let flow = usize::from(u16::from_be_bytes([a, b]));
            self.credit(flow, u32::from_be_bytes([c, d, e, f]));
        }
    }
}

impl Part {
    fn order(&self, flow: u16, place: usize, pair: u32, octets: usize, intended_ns: u64) -> Order {
        let of = &self.pairs[place];
        let expires_s = self.expires_s;
        let client = self.from_side == Side::Client;
        match self.kind {
            Kind::Presence => Order::Presence { flow, pair, octets, intended_ns },
            Kind::Roster => Order::Roster { flow, pair, to: Arc::clone(&of.to), intended_ns },
            Kind::Message if client => {
                Order::Message { flow, pair, to: Arc::clone(&of.to), octets, intended_ns }
            }
            Kind::Subscribe => {
                let (from, to) = (Arc::clone(&of.from), Arc::clone(&of.to));
                Order::Subscribe { flow, pair, from, to, expires_s, intended_ns }
            }
            Kind::Session => {
                let (from, to) = (Arc::clone(&of.from), Arc::clone(&of.to));
                Order::Session { flow, pair, from, to, octets, intended_ns }
            }
            _ => {
                let (from, to) = (Arc::clone(&of.from), Arc::clone(&of.to));
                Order::MessageFrom { flow, pair, from, to, octets, intended_ns }
            }
        }
    }
}
