//! One thread of the generator: what it owns, and its turn.
//!
//! A turn takes what came, then what is due, then hands over what is to be sent, each connection
//! once. Close to the next event it looks again at once instead of sleeping. The rest is in
//! `conns.rs` (what happens on connections), `dials.rs` (making them) and `traffic.rs` (the
//! schedule).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use tandem::net::clock;
use tandem::shard::kernel::{ConnId, Ending, Engine, Kernel, Next, Read, Ticket};
use tandem::shard::settings::ListenerId;
use tandem::time::{Moment, Now};

use crate::engine::dials::Dials;
use crate::engine::host;
use crate::engine::traffic::Traffic;
use crate::engine::world::{Shared, World};
use crate::ledger::Ledger;
use crate::party::{Order, Party, Wish};
use crate::scenario::model::Kind;
use crate::sys;

/// A wait shorter than this is spun, since a sleeping core takes as long to wake.
const SPIN_NS: u64 = 50_000;
/// How long a thread sleeps at most, so that it sees what the others say.
const LOOK_NS: u64 = 10_000_000;
/// After its goodbye a thread waits so long for the far ends'.
const GOODBYE_NS: u64 = 5_000_000_000;
/// Spare buffers that are kept, and the size above which one is not.
const SPARES: usize = 4_096;
const SPARE_OCTETS: usize = 64 << 10;

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Connecting,
    Securing,
    Login,
    Ready,
    /// Told to end; nothing of it counts any more.
    Leaving,
}

impl At {
    /// The step that fails if it ends here.
    pub(super) fn step(self) -> &'static str {
        match self {
            Self::Connecting => "connect",
            Self::Securing => "tls",
            Self::Login => "login",
            Self::Ready | Self::Leaving => "connection",
        }
    }
}

/// Why a connection is made while the run goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand {
    pub(super) flow: u16,
    pub(super) intended_ns: u64,
    /// Ends once it is logged in.
    pub(super) leaves: bool,
}

/// A connection and who speaks on it.
pub(super) struct Slot {
    pub(super) party: Box<dyn Party>,
    pub(super) conn: Option<ConnId>,
    pub(super) at: At,
    /// It was ready once.
    pub(super) stood: bool,
    /// It takes orders now.
    pub(super) takes: bool,
    pub(super) pipe: Option<Box<rustls::Connection>>,
    pub(super) tls: Option<(Arc<rustls::ClientConfig>, String)>,
    /// To be sent, sealed where TLS stands.
    pub(super) out: Vec<u8>,
    pub(super) sending: bool,
    pub(super) dirty: bool,
    /// To be closed after what is to be sent; then closed.
    pub(super) closing: bool,
    pub(super) closed: bool,
    pub(super) population: u32,
    /// The carrier it is; above their number: a further connection; `None`: it came in.
    pub(super) carrier: Option<u32>,
    /// Its socket, if that is one for datagrams.
    pub(super) datagrams: Option<ListenerId>,
    pub(super) began_ns: u64,
    pub(super) tls_ns: u64,
    pub(super) wake_ns: u64,
    pub(super) reads_per_s: u64,
    pub(super) attempt: u32,
    pub(super) errand: Option<Errand>,
    pub(super) fault: Option<(&'static str, String)>,
}

/// A timer of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Wake,
    Patience,
    Read,
}

/// What is asked of the kernel once the event at hand is through.
pub(super) enum Todo {
    Connect(Ticket, Option<std::net::Ipv4Addr>, std::net::SocketAddr),
    Read(ConnId, Read),
    Close(ConnId, Ending),
}

/// What a thread tells.
pub(super) enum Report {
    /// Every carrier is ready or given up: how many of each, and why the last of these.
    Stood { ready: usize, given_up: usize, fault: Option<(&'static str, String)> },
    /// An interval.
    Part(Box<Part>),
    /// It is through.
    Done,
}

/// An interval of a thread.
pub(super) struct Part {
    pub(super) thread: usize,
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) ledger: Ledger,
    pub(super) cpu_ns: u64,
    pub(super) idle_ns: u64,
    pub(super) run_queue_ns: u64,
}

/// A carrier as its thread sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carrier {
    pub(super) party: u32,
    pub(super) ready: bool,
    /// It was ready once, or will not be.
    pub(super) stood: bool,
}

pub(super) const NOBODY: u32 = u32::MAX;

/// The thread.
pub(super) struct Worker {
    pub(super) thread: usize,
    pub(super) world: Arc<World>,
    pub(super) shared: Arc<Shared>,
    pub(super) reports: Sender<Report>,
    pub(super) recycled: Receiver<Ledger>,
    pub(super) ledger: Ledger,
    pub(super) now_ns: u64,
    pub(super) slots: Vec<Option<Box<Slot>>>,
    pub(super) by_conn: Vec<(u32, u32)>,
    /// By population, then by number over the number of threads.
    pub(super) carriers: Vec<Vec<Carrier>>,
    /// Who answers on a listener for datagrams.
    pub(super) by_ear: Vec<u32>,
    pub(super) ready: u64,
    pub(super) wishes: Vec<Wish>,
    pub(super) clear_in: Vec<u8>,
    pub(super) clear_out: Vec<u8>,
    pub(super) spares: Vec<Vec<u8>>,
    pub(super) dirty: Vec<u32>,
    pub(super) todo: Vec<Todo>,
    pub(super) grams: Vec<(ListenerId, std::net::SocketAddr, Vec<u8>)>,
    pub(super) timers: BinaryHeap<Reverse<(u64, u32, Timer)>>,
    pub(super) dials: Dials,
    pub(super) traffic: Traffic,
    pub(super) stood_told: bool,
    /// The interval that runs: since when, and until when at most.
    from_ns: u64,
    cut_ns: u64,
    left_ns: Option<u64>,
    // Its own cost.
    looked_at_once: bool,
    ended_ns: u64,
    turn_ns: u64,
    idle_ns: u64,
    cpu_before_ns: u64,
    queue_before_ns: u64,
    /// Something happened in this turn.
    pub(super) worked: bool,
    pub(super) received: bool,
}

impl Worker {
    pub(super) fn new(
        thread: usize,
        world: Arc<World>,
        shared: Arc<Shared>,
        reports: Sender<Report>,
        recycled: Receiver<Ledger>,
    ) -> Self {
        sys::wake_on_time();
        let mut ledger = Ledger::new(&world.windows());
        ledger.run = world.run;
        for (flow, account) in world.scenario.flows.iter().zip(&mut ledger.flows) {
            account.supersedes = flow.kind == Kind::Presence;
        }
        if world.scenario.run.closed.is_some() {
            ledger.returned = Some(Vec::new());
        }
        let none = Carrier { party: NOBODY, ready: false, stood: false };
        let own = |carriers: usize| (carriers + world.threads - 1 - thread) / world.threads;
        let carriers = world.casts.iter().map(|c| vec![none; own(c.carriers())]).collect();
        let dials = Dials::new(&world, thread);
        let traffic = Traffic::new(&world, thread);
        Self {
            thread,
            ledger,
            now_ns: 0,
            slots: Vec::new(),
            by_conn: Vec::new(),
            carriers,
            by_ear: vec![NOBODY; world.listeners.len()],
            ready: 0,
            wishes: Vec::new(),
            clear_in: Vec::new(),
            clear_out: Vec::new(),
            spares: Vec::new(),
            dirty: Vec::new(),
            todo: Vec::new(),
            grams: Vec::new(),
            timers: BinaryHeap::new(),
            dials,
            traffic,
            stood_told: false,
            from_ns: 0,
            cut_ns: u64::MAX,
            left_ns: None,
            looked_at_once: false,
            ended_ns: 0,
            turn_ns: 0,
            idle_ns: 0,
            cpu_before_ns: sys::thread_cpu_ns(),
            queue_before_ns: host::run_queue_ns(),
            worked: false,
            received: false,
            world,
            shared,
            reports,
            recycled,
        }
    }

    /// Reads the clock anew.
    pub(super) fn tick(&mut self) {
        self.now_ns = clock::moment().0.saturating_sub(self.shared.epoch.0);
    }

    pub(super) fn start_ns(&self) -> u64 {
        self.shared.start_ns.load(Ordering::Relaxed)
    }

    fn fire(&mut self) {
        while let Some(&Reverse((when, id, timer))) = self.timers.peek()
            && when <= self.now_ns
        {
            self.timers.pop();
            let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_deref_mut) else {
                continue;
            };
            self.worked = true;
            match timer {
                Timer::Wake if slot.wake_ns == when => {
                    slot.wake_ns = u64::MAX;
                    if slot.at != At::Leaving {
                        self.call(id, |party, desk| party.due(desk));
                    }
                }
                Timer::Wake => {}
                Timer::Patience if matches!(slot.at, At::Ready | At::Leaving) => {}
                Timer::Patience => self.fail(id, None, "timed out"),
                Timer::Read => {
                    if let Some(conn) = slot.conn {
                        self.todo.push(Todo::Read(conn, Read::Once));
                    }
                }
            }
        }
    }

    pub(super) fn perform<K: Kernel>(&mut self, kernel: &mut K) {
        for todo in self.todo.drain(..) {
            match todo {
                Todo::Connect(ticket, None, target) => kernel.connect(ticket, target),
                Todo::Connect(ticket, Some(source), target) => {
                    kernel.connect_from(ticket, source.into(), target);
                }
                Todo::Read(conn, how) => kernel.read(conn, how),
                Todo::Close(conn, ending) => kernel.close(conn, ending),
            }
        }
    }

    fn flush<K: Kernel>(&mut self, kernel: &mut K) {
        for (listener, remote, bytes) in self.grams.drain(..) {
            kernel.send_datagram(listener, remote, &bytes);
            spare(&mut self.spares, bytes);
        }
        for id in self.dirty.drain(..) {
            let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_deref_mut) else {
                continue;
            };
            slot.dirty = false;
            let Some(conn) = slot.conn else { continue };
            if !slot.sending && !slot.out.is_empty() && !slot.closed {
                slot.sending = true;
                kernel.send(conn, std::mem::take(&mut slot.out));
            }
            if slot.closing && !slot.closed && slot.out.is_empty() {
                slot.closed = true;
                kernel.close(conn, Ending::Orderly);
            }
        }
    }

    /// Begins, cuts and ends intervals as the shared times say.
    fn keep_time(&mut self) {
        if self.left_ns.is_some() {
            return;
        }
        let start_ns = self.start_ns();
        if start_ns == u64::MAX {
            return;
        }
        self.know_start();
        let leave_ns = self.shared.leave_ns.load(Ordering::Relaxed);
        if self.cut_ns == u64::MAX {
            if self.now_ns < start_ns.min(leave_ns) {
                return;
            }
            // What set-up brought comes with the first interval.
            self.from_ns = start_ns;
            self.cut_ns = self.next_cut();
            self.forget_set_up();
            self.begin_run();
        }
        loop {
            let cut_ns = self.next_cut().min(leave_ns);
            if self.now_ns < cut_ns {
                self.cut_ns = cut_ns;
                return;
            }
            self.report(cut_ns);
            if cut_ns == leave_ns {
                self.leave();
                return;
            }
        }
    }

    /// What set-up cost is no cost of the run.
    fn forget_set_up(&mut self) {
        self.cpu_before_ns = sys::thread_cpu_ns();
        self.queue_before_ns = host::run_queue_ns();
        self.idle_ns = 0;
        self.ledger.receive_lag.reset();
    }

    /// The next whole second, or the end of the stage if that comes first.
    fn next_cut(&self) -> u64 {
        let start_ns = self.start_ns();
        let at_ns = self.from_ns - start_ns;
        let second_ns = (at_ns / 1_000_000_000 + 1) * 1_000_000_000;
        let ends = self.world.pieces.iter().map(|piece| piece.to_ns);
        let stage_ns = ends.filter(|&end| end > at_ns).min().unwrap_or(u64::MAX);
        let end_ns = self.shared.end_ns.load(Ordering::Relaxed);
        let cut_ns = start_ns + second_ns.min(stage_ns);
        if end_ns > self.from_ns { cut_ns.min(end_ns) } else { cut_ns }
    }

    fn report(&mut self, to_ns: u64) {
        let flows = vec![0; self.world.scenario.flows.len()];
        let mut ledger = self.recycled.try_recv().unwrap_or_else(|_| Ledger::new(&flows));
        self.ledger.swap_interval(&mut ledger);
        let (cpu_ns, queue_ns) = (sys::thread_cpu_ns(), host::run_queue_ns());
        let part = Part {
            thread: self.thread,
            from_ns: self.from_ns,
            to_ns,
            ledger,
            cpu_ns: cpu_ns.saturating_sub(self.cpu_before_ns),
            idle_ns: std::mem::take(&mut self.idle_ns),
            run_queue_ns: queue_ns.saturating_sub(self.queue_before_ns),
        };
        (self.cpu_before_ns, self.queue_before_ns) = (cpu_ns, queue_ns);
        self.from_ns = to_ns;
        // Nobody listens only if the run was given up.
        drop(self.reports.send(Report::Part(Box::new(part))));
    }

    fn leave(&mut self) {
        self.left_ns = Some(self.now_ns);
        self.dials.clear();
        for id in 0..self.slots.len() as u32 {
            let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_deref_mut) else {
                continue;
            };
            let ready = slot.at == At::Ready;
            slot.at = At::Leaving;
            if ready {
                self.call(id, |party, desk| party.order(Order::Leave, desk));
            } else if let Some(conn) = slot.conn {
                self.todo.push(Todo::Close(conn, Ending::Abort));
            }
        }
    }

    fn is_through(&self) -> bool {
        self.left_ns.is_some_and(|left_ns| {
            self.by_conn.iter().all(|(_, id)| *id == NOBODY) || self.now_ns > left_ns + GOODBYE_NS
        })
    }

    fn deadline(&self) -> u64 {
        let mut until_ns = self.now_ns + LOOK_NS;
        if let Some(&Reverse((when, ..))) = self.timers.peek() {
            until_ns = until_ns.min(when);
        }
        until_ns = until_ns.min(self.cut_ns).min(self.dials.next_ns());
        if let Some(next_ns) = self.traffic.next_ns() {
            let next_ns = next_ns.saturating_add(self.start_ns());
            // Near to it there is no sleep.
            until_ns = until_ns.min(next_ns.saturating_sub(SPIN_NS));
        }
        until_ns
    }
}

/// Keeps a buffer for the next one who has something to say.
pub(super) fn spare(spares: &mut Vec<Vec<u8>>, mut buffer: Vec<u8>) {
    if spares.len() < SPARES && buffer.capacity() <= SPARE_OCTETS {
        buffer.clear();
        spares.push(buffer);
    }
}

impl Engine for Worker {
    fn step<K: Kernel>(&mut self, now: Now, kernel: &mut K) -> Next {
        let before_ns =
            std::mem::replace(&mut self.now_ns, now.moment.0.saturating_sub(self.shared.epoch.0));
        let began_ns = self.now_ns.max(before_ns);
        self.now_ns = began_ns;
        (self.worked, self.received) = (false, false);
        while let Some(event) = kernel.next() {
            self.event(event);
            if !self.todo.is_empty() {
                self.perform(kernel);
            }
        }
        if self.received {
            // What came has waited at most for the turn before.
            self.ledger.receive_lag.saturating_record(self.turn_ns.max(1));
        }
        self.fire();
        self.keep_time();
        self.dial();
        self.send_due();
        self.pass_on(kernel);
        self.perform(kernel);
        self.flush(kernel);
        let mine = &self.shared.numbers[self.thread];
        mine.owed.store(self.ledger.owed, Ordering::Relaxed);
        mine.settled.store(self.ledger.settled, Ordering::Relaxed);
        mine.ready.store(self.ready, Ordering::Relaxed);
        let unsent_ns =
            self.traffic.next_ns().map_or(u64::MAX, |at| at.saturating_add(self.start_ns()));
        mine.through_ns.store(began_ns.min(unsent_ns), Ordering::Release);
        self.tell_stood();
        let done = self.is_through();
        if done {
            drop(self.reports.send(Report::Done));
        }
        self.tick();
        self.turn_ns = self.now_ns.saturating_sub(began_ns);
        // It looked at once and found nothing: no work, though the core was busy.
        if self.looked_at_once && !self.worked {
            self.idle_ns += self.now_ns.saturating_sub(self.ended_ns);
        }
        self.ended_ns = self.now_ns;
        let until_ns = self.deadline();
        self.looked_at_once = until_ns <= self.now_ns;
        let deadline = Moment(self.shared.epoch.0) + Duration::from_nanos(until_ns);
        Next { deadline, done }
    }
}
