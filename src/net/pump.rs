//! The pump under one shard: a turn of the engine, then a wait, again and again.
//!
//! All that the ring and the epoll twin have in common is here: the phases of a connection, their
//! deadlines, pausing at the descriptor limit, the mesh and the lanes. A connection's slot and
//! descriptor are given up only when nothing of it is out with the kernel, so a buffer under a
//! send stays where it is, and [`Event::Gone`] comes once.
//!
//! Does **not** interpret a byte.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::limits::{
    CONTROL_PER_TURN_MAX, CROSSINGS_PER_TURN_MAX, MESH_RECORDS_PER_TURN_MAX, MESH_RETRY,
    UNACKNOWLEDGED_TIMEOUT,
};
use crate::net::clock;
use crate::net::conns::{Conn, Phase};
use crate::net::driver::{Base, Driver, Lent};
use crate::net::lanes::{Crossing, Down};
use crate::net::mesh::Record;
use crate::shard::kernel::{ConnId, Engine, Event, Gone, Kernel, Next, Order, Read, ShardId};
use crate::time::{Moment, Now};

/// The pump of one shard over one driver.
pub(super) struct Pump<D> {
    pub(super) base: Base,
    pub(super) driver: D,
    pub(super) spin: Spin,
    /// Events that are owned and wait for the shard.
    pub(super) queue: VecDeque<Event<'static>>,
    /// What the last event lent.
    pub(super) lent: Option<Lent>,
    /// Octets that came along with a connection, while they are lent.
    pub(super) held: Vec<u8>,
    /// Connections whose `unread` is to be delivered.
    pub(super) unread: VecDeque<ConnId>,
    /// Connections whose far end closed in this turn.
    pub(super) ended: Vec<ConnId>,
    pub(super) deadlines: BinaryHeap<Reverse<(Moment, u32, u32)>>,
    pub(super) accept_again: Option<Moment>,
    pub(super) accept_told: Option<Moment>,
    /// Connections that found the lane to their shard full.
    pub(super) crossings: VecDeque<(ShardId, Crossing)>,
    pub(super) crossing: Option<Crossing>,
    pub(super) down: Option<Down>,
    pub(super) left: Budget,
    /// Producers with something to publish.
    pub(super) posted: Vec<bool>,
    /// The shard took everything there was.
    pub(super) drained: bool,
}

/// What a turn may still take of what other threads send.
pub(super) struct Budget {
    records: u32,
    crossings: u32,
    downs: u32,
}

const BUDGET: Budget = Budget {
    records: MESH_RECORDS_PER_TURN_MAX,
    crossings: CROSSINGS_PER_TURN_MAX,
    downs: CONTROL_PER_TURN_MAX,
};

/// What [`Kernel::next`] found, before anything is borrowed for it.
pub(super) enum Pick {
    Owned(Event<'static>),
    Lent { conn: ConnId, lent: Lent },
    Held { conn: ConnId },
    Record { from: usize, record: Record },
    Datagram { listener: usize, remote: SocketAddr, length: usize },
}

impl<D: Driver> Pump<D> {
    pub(super) fn new(base: Base, driver: D, spin_us: u32) -> Self {
        let shards = base.ends.producers.len();
        Self {
            base,
            driver,
            spin: Spin::new(spin_us),
            // These are bounded by the connections: each has at most one send, one end and one
            // crossing under way.
            queue: VecDeque::with_capacity(64),
            lent: None,
            held: Vec::new(),
            unread: VecDeque::with_capacity(16),
            ended: Vec::new(),
            deadlines: BinaryHeap::new(),
            accept_again: None,
            accept_told: None,
            crossings: VecDeque::with_capacity(16),
            crossing: None,
            down: None,
            left: BUDGET,
            posted: vec![false; shards],
            drained: true,
        }
    }

    /// Starts to accept.
    pub(super) fn open(&mut self) {
        self.base.accepting = true;
        self.driver.accept(&mut self.base);
    }

    /// One turn and the wait after it. True when the engine has finished.
    pub(super) fn turn<E: Engine>(&mut self, engine: &mut E) -> bool {
        let now = clock::now();
        self.begin(now);
        let Next { deadline, done } = engine.step(now, self);
        self.finish_turn();
        if !done {
            self.wait(deadline);
        }
        done
    }

    /// Ends all connections and waits, not for long, until nothing is out. False if something
    /// still is: its memory must not be freed then.
    pub(super) fn shut_down(mut self) {
        self.base.accepting = false;
        self.accept_again = None;
        self.driver.accept(&mut self.base);
        for index in self.base.conns.indices() {
            self.end(index, Gone::Closed);
        }
        // Also what the last turn started, such as waking the others.
        self.driver.wait(&mut self.base, Some(Duration::ZERO));
        let until = clock::moment() + SHUT_DOWN_TIME;
        while self.base.conns.len() > 0 || !self.driver.is_idle() {
            let now = clock::now();
            if now.moment > until {
                // The kernel may still write to the driver's memory: better lost than freed.
                tracing::warn!(shard = self.base.ends.shard.0, "net_shut_down_late");
                std::mem::forget(self);
                return;
            }
            self.driver.wait(&mut self.base, Some(Duration::from_millis(10)));
            self.begin(now);
            while self.next().is_some() {}
            self.finish_turn();
        }
    }

    fn begin(&mut self, now: Now) {
        self.base.now = now;
        self.base.counters.turns += 1;
        self.left = BUDGET;
        self.base.datagrams.begin();
        self.drained = false;
        // What is seen of the mesh now was posted before what the other lanes show later, so a
        // connection never arrives behind a record that was posted after it was handed over.
        for consumer in self.base.ends.consumers.iter_mut().flatten() {
            consumer.look();
        }
        for id in std::mem::take(&mut self.ended) {
            if let Some(conn) = self.base.conns.get(id)
                && matches!(conn.phase, Phase::Open)
            {
                conn.phase = Phase::Draining;
                self.set_deadline(id.index, UNACKNOWLEDGED_TIMEOUT);
                self.settle(id.index);
            }
        }
        while let Some(&Reverse((when, index, generation))) = self.deadlines.peek()
            && when <= now.moment
        {
            self.deadlines.pop();
            self.fire(ConnId { index, generation });
        }
        if self.accept_again.is_some_and(|when| when <= now.moment) {
            self.accept_anew();
        }
        for _ in 0..self.crossings.len() {
            if let Some((to, crossing)) = self.crossings.pop_front() {
                self.cross(to, crossing);
            }
        }
    }

    fn finish_turn(&mut self) {
        self.release();
        for consumer in self.base.ends.consumers.iter_mut().flatten() {
            consumer.give_back();
        }
        for to in 0..self.posted.len() {
            let Some(Some(producer)) = self.base.ends.producers.get_mut(to) else { continue };
            let seen = self.posted[to] && producer.publish();
            self.posted[to] = producer.is_waiting();
            if seen {
                self.wake(ShardId(to as u16));
            }
        }
    }

    pub(super) fn wake(&mut self, to: ShardId) {
        if self.base.ends.hub.shards[usize::from(to.0)].is_to_ring() {
            self.base.counters.wakes += 1;
            self.driver.wake(&mut self.base, to);
        }
    }

    fn wait(&mut self, deadline: Moment) {
        let before = clock::moment();
        let busy = before.since(self.base.now.moment);
        self.base.counters.busy_ns += busy.as_nanos() as u64;
        let mut until = deadline.min(self.accept_again.unwrap_or(Moment::NEVER));
        if let Some(&Reverse((when, ..))) = self.deadlines.peek() {
            until = until.min(when);
        }
        if !self.crossings.is_empty() || self.posted.contains(&true) {
            until = until.min(before + MESH_RETRY);
        }
        let busy_again = !self.drained
            || !self.queue.is_empty()
            || !self.ended.is_empty()
            || !self.unread.is_empty()
            || self.base.datagrams.are_waiting()
            || until <= before;
        if busy_again || self.spin_for_work(before, until) {
            self.driver.wait(&mut self.base, Some(Duration::ZERO));
        } else {
            self.sleep(before, until);
        }
        let after = clock::moment();
        self.base.counters.waiting_ns += after.since(before).as_nanos() as u64;
    }

    fn sleep(&mut self, before: Moment, until: Moment) {
        self.base.ends.doorbell().lie_down();
        let time = if self.has_mail() {
            Some(Duration::ZERO)
        } else {
            (until != Moment::NEVER).then(|| until.since(before))
        };
        self.driver.wait(&mut self.base, time);
        self.base.ends.doorbell().get_up();
    }

    /// Looks whether another thread sent something.
    fn has_mail(&mut self) -> bool {
        let ends = &mut self.base.ends;
        let mut found = false;
        for consumer in ends.consumers.iter_mut().flatten() {
            found |= consumer.look();
        }
        if self.crossing.is_none() {
            self.crossing = ends.crossings_in.try_recv().ok();
        }
        if self.down.is_none() {
            self.down = ends.control.try_recv().ok();
        }
        found || self.crossing.is_some() || self.down.is_some()
    }

    /// Spins a little before sleeping, if configured. True if there is something to do.
    fn spin_for_work(&mut self, before: Moment, until: Moment) -> bool {
        if self.spin.now_ns == 0 {
            return false;
        }
        // What the turn started must be under way, or there is nothing to spin for.
        self.driver.wait(&mut self.base, Some(Duration::ZERO));
        let end = (before + Duration::from_nanos(self.spin.now_ns)).min(until);
        loop {
            if self.driver.peek(&mut self.base) || self.has_mail() {
                self.spin.hit();
                return true;
            }
            if clock::moment() >= end {
                self.spin.miss();
                return false;
            }
            std::hint::spin_loop();
        }
    }

    pub(super) fn release(&mut self) {
        if let Some(lent) = self.lent.take() {
            self.driver.give_back(lent);
        }
    }

    pub(super) fn pick(&mut self) -> Option<Pick> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(Pick::Owned(event));
            }
            if let Some(happened) = self.driver.reap(&mut self.base) {
                if let Some(pick) = self.happen(happened) {
                    return Some(pick);
                }
                continue;
            }
            if let Some(pick) = self.pick_datagram() {
                return Some(pick);
            }
            if let Some(conn) = self.pick_unread() {
                return Some(Pick::Held { conn });
            }
            return self.pick_mail();
        }
    }

    fn pick_unread(&mut self) -> Option<ConnId> {
        while let Some(id) = self.unread.pop_front() {
            if let Some(conn) = self.base.conns.get(id)
                && matches!(conn.phase, Phase::Open)
                && conn.read != Read::Pause
                && !conn.unread.is_empty()
            {
                self.held = std::mem::take(&mut conn.unread);
                if conn.read == Read::Once {
                    conn.read = Read::Pause;
                }
                self.driver.arm(&mut self.base, id.index);
                return Some(id);
            }
        }
        None
    }

    /// From other threads: connections first, then records, see `begin`.
    fn pick_mail(&mut self) -> Option<Pick> {
        if self.left.crossings > 0 {
            let arriving =
                self.crossing.take().or_else(|| self.base.ends.crossings_in.try_recv().ok());
            if let Some(crossing) = arriving {
                self.left.crossings -= 1;
                return Some(Pick::Owned(self.arrive(crossing)));
            }
        }
        if self.left.records > 0 && self.left.crossings > 0 {
            for (from, consumer) in self.base.ends.consumers.iter_mut().enumerate() {
                if let Some(consumer) = consumer
                    && let Some(record) = consumer.take()
                {
                    self.left.records -= 1;
                    return Some(Pick::Record { from, record });
                }
            }
        }
        if self.left.downs > 0 {
            let down = self.down.take().or_else(|| self.base.ends.control.try_recv().ok());
            if let Some(down) = down {
                self.left.downs -= 1;
                return Some(Pick::Owned(self.come_down(down)));
            }
        }
        self.drained = self.left.records > 0 && self.left.crossings > 0 && self.left.downs > 0;
        None
    }

    fn come_down(&mut self, down: Down) -> Event<'static> {
        match down {
            Down::Answer(answer) => Event::Answered(answer),
            Down::Order(order) => {
                if matches!(order, Order::Stop) {
                    // Nobody new is let in while the shard says goodbye.
                    self.base.accepting = false;
                    self.accept_again = None;
                    self.driver.accept(&mut self.base);
                }
                Event::Ordered(order)
            }
        }
    }

    fn arrive(&mut self, crossing: Crossing) -> Event<'static> {
        self.base.counters.arrived += 1;
        let Crossing { fd, parcel, unread } = crossing;
        let mut arrived = Conn::new(fd, Phase::Open);
        arrived.unread = unread;
        let conn = self.base.conns.insert(arrived);
        Event::Arrived { conn, parcel }
    }
}

/// How long to spin before sleeping: longer while it helps, shorter while it does not.
pub(super) struct Spin {
    now_ns: u64,
    max_ns: u64,
}

impl Spin {
    const MIN_NS: u64 = 1_000;

    fn new(max_us: u32) -> Self {
        let max_ns = u64::from(max_us) * 1_000;
        Self { now_ns: max_ns, max_ns }
    }

    fn hit(&mut self) {
        self.now_ns = (self.now_ns * 2).min(self.max_ns);
    }

    fn miss(&mut self) {
        self.now_ns = (self.now_ns / 2).max(Self::MIN_NS.min(self.max_ns));
    }
}

/// Cancelled sends and receives come back within this time, or something is badly wrong.
const SHUT_DOWN_TIME: Duration = Duration::from_secs(2);
