//! Runs a scenario: threads over Tandem's pump, connections, the schedule, and an account of every
//! second.
//!
//! [`run`] is the coordinator: it starts a `worker::Worker` for each thread, waits until all
//! connections stand, sets the time at which the first stage begins, adds up what the threads tell
//! of each second, waits for what is on its way, and has them say goodbye. Threads share a few
//! atomic numbers and nothing else.
//!
//! Does **not** judge a run or write anything.

mod conns;
mod dials;
mod host;
pub mod raw;
pub mod schedule;
mod sums;
mod traffic;
mod worker;
mod world;

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tandem::net::{self, Interface, Plan, Running, StartError, clock};

use crate::engine::raw::{Raw, SetupFault, Tick};
use crate::engine::sums::Sums;
use crate::engine::worker::{Report, Worker};
use crate::engine::world::{Shared, Stand, World};
use crate::ledger::Ledger;
use crate::scenario::model::Scenario;
use crate::sys;

/// From the moment all stand to the first stage: every thread hears of it.
const LEAD: Duration = Duration::from_millis(50);
/// Silence during set-up after which it has failed.
const SETUP_TIME: Duration = Duration::from_secs(120);
/// Of a hundred connections so many may be missing.
const MISSING_PER_CENT: usize = 1;
/// Two seconds in a row with a lateness above this end a run that is told so.
const LATE_NS: u64 = 1_000_000;
/// Octets in a receive buffer: several messages, and all that a slow reader takes at once.
const RECEIVE_BUFFER: u32 = 4_096;

/// How it runs on this host, beside the scenario.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Ring, epoll, or what can be had.
    pub interface: Interface,
    /// From the begin of a connect to the end of its login.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { interface: Interface::Auto, patience: Duration::from_secs(30) }
    }
}

/// Runs a scenario; `each` sees every second.
pub fn run(scenario: &Scenario, each: &mut dyn FnMut(&Tick)) -> Result<Raw, SetupFault> {
    run_with(scenario, Options::default(), each)
}

/// The same, as told.
pub fn run_with(
    scenario: &Scenario,
    options: Options,
    each: &mut dyn FnMut(&Tick),
) -> Result<Raw, SetupFault> {
    let run = ((unix_ms() / 7) ^ u64::from(std::process::id())) as u16;
    let world = Arc::new(World::new(scenario, run, options.patience)?);
    let running = start(&world, options)?;
    running.serve(each)
}

/// A run with its threads.
struct Coordinator {
    world: Arc<World>,
    shared: Arc<Shared>,
    reports: Receiver<Report>,
    sums: Sums,
    running: Running,
    through: usize,
    stood: usize,
    ready: usize,
    given_up: usize,
    fault: Option<(&'static str, String)>,
}

fn fault(step: &str, reason: String) -> SetupFault {
    SetupFault { step: step.to_owned(), reason }
}

fn start(world: &Arc<World>, options: Options) -> Result<Coordinator, SetupFault> {
    let threads = u16::try_from(world.threads).unwrap_or(u16::MAX);
    let at = |wanted: bool| {
        let all = world.listeners.iter().enumerate();
        all.filter(move |(_, it)| it.datagrams == wanted).map(|(place, _)| place)
    };
    let plan = Plan {
        shards: threads,
        cores: world.scenario.run.cores.clone(),
        listeners: world.listeners.iter().map(|it| it.at).collect(),
        datagrams: at(true).collect(),
        interface: options.interface,
        receive_buffer_bytes: RECEIVE_BUFFER,
        ..Plan::default()
    };
    enough_descriptors(world)?;
    let shared = Arc::new(Shared::new(clock::moment(), world.threads));
    let (tell, reports) = channel();
    let (returns, takers): (Vec<Sender<Ledger>>, Vec<_>) =
        (0..world.threads).map(|_| channel()).unzip();
    // Each thread takes its own end when it is made.
    let ends =
        Mutex::new(takers.into_iter().map(|end| Some((end, tell.clone()))).collect::<Vec<_>>());
    drop(tell);
    let (theirs, numbers) = (Arc::clone(world), Arc::clone(&shared));
    let running = net::run(&plan, move |shard, _| {
        let thread = usize::from(shard.0);
        let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
        let (recycled, reports) = ends
            .get_mut(thread)
            .and_then(Option::take)
            .unwrap_or_else(|| unreachable!("one engine for each shard"));
        Worker::new(thread, Arc::clone(&theirs), Arc::clone(&numbers), reports, recycled)
    })
    .map_err(|error| match error {
        StartError::Bind { .. } => fault("listen", error.to_string()),
        _ => fault("start", error.to_string()),
    })?;
    Ok(Coordinator {
        sums: Sums::new(world, returns),
        world: Arc::clone(world),
        shared,
        reports,
        running,
        through: 0,
        stood: 0,
        ready: 0,
        given_up: 0,
        fault: None,
    })
}

fn enough_descriptors(world: &World) -> Result<(), SetupFault> {
    let has = sys::raise_descriptors().map_err(|e| fault("limits", e.to_string()))?;
    let carriers = world.casts.iter().zip(&world.dialled).filter(|(_, dialled)| **dialled);
    let needs = carriers.map(|(cast, _)| cast.carriers() as u64).sum::<u64>() + 200;
    if needs > has {
        let reason = format!("needs {needs} descriptors, has {has}: raise the limit (ulimit -n)");
        return Err(fault("limits", reason));
    }
    Ok(())
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Coordinator {
    fn now_ns(&self) -> u64 {
        clock::moment().0.saturating_sub(self.shared.epoch.0)
    }

    fn serve(mut self, each: &mut dyn FnMut(&Tick)) -> Result<Raw, SetupFault> {
        if let Err(fault) = self.set_up() {
            self.say_goodbye(&mut |_| {});
            self.running.join();
            return Err(fault);
        }
        let end_ns = self.world.end_ns();
        let start_ns = self.now_ns() + LEAD.as_nanos() as u64;
        let started_unix_ms = unix_ms() + LEAD.as_millis() as u64;
        let wall = (SystemTime::now(), clock::moment());
        self.shared.end_ns.store(start_ns + end_ns, Ordering::Relaxed);
        self.shared.start_ns.store(start_ns, Ordering::Relaxed);
        self.shared.set_stand(Stand::Run);
        let (mut interrupted, mut aborted, mut late) = (false, false, 0);
        loop {
            let end_ns = self.shared.end_ns.load(Ordering::Relaxed);
            if self.now_ns() >= end_ns {
                break;
            }
            self.listen(Duration::from_millis(20), &mut |tick: &Tick| {
                let worst = tick.threads.iter().map(|t| t.late_ns[1]).max().unwrap_or(0);
                late = if worst > LATE_NS { late + 1 } else { 0 };
                each(tick);
            });
            let stop = sys::interrupted() || self.shared.stop.load(Ordering::Relaxed);
            let abort = late >= 2 && self.world.scenario.run.abort_if_late;
            if (stop || abort) && !interrupted && !aborted {
                (interrupted, aborted) = (stop, abort && !stop);
                let soon_ns = self.now_ns() + LEAD.as_nanos() as u64;
                self.shared.end_ns.store(end_ns.min(soon_ns), Ordering::Relaxed);
            }
        }
        let ended_ns = self.shared.end_ns.load(Ordering::Relaxed);
        let patience_ns = self.world.scenario.run.drain_ns;
        // A thread that was held up has still to send what was wanted before the end.
        while (self.shared.through_ns() < ended_ns || self.shared.in_flight() > 0)
            && self.now_ns() < ended_ns.saturating_add(patience_ns)
            && (interrupted || !sys::interrupted())
        {
            self.listen(Duration::from_millis(5), each);
        }
        self.say_goodbye(each);
        let real = wall.0.elapsed().unwrap_or_default();
        let clock_step_ns = real.abs_diff(clock::moment().since(wall.1)).as_nanos() as u64;
        let interface = if self.running.interface == Interface::Epoll { "epoll" } else { "ring" };
        let (total, threads) = self.sums.finish(ended_ns.saturating_sub(start_ns));
        self.running.join();
        Ok(Raw {
            started_unix_ms,
            pieces: self.world.pieces.clone(),
            ended_ns: ended_ns - start_ns,
            total,
            threads,
            interrupted,
            aborted,
            interface,
            clock_step_ns,
        })
    }

    /// Waits until everybody stands.
    fn set_up(&mut self) -> Result<(), SetupFault> {
        let (mut seen, mut since) = (String::new(), clock::moment());
        loop {
            self.listen(Duration::from_millis(10), &mut |_| {});
            if sys::interrupted() {
                return Err(fault("interrupted", "before the first stage".to_owned()));
            }
            let all = self.stood == self.world.threads;
            if all && self.given_up > 0 {
                self.judge_missing()?;
            }
            let missing = self.world.casts.iter().find_map(|cast| cast.unready());
            if all && missing.is_none() {
                return Ok(());
            }
            let state = format!("{} {missing:?}", self.shared.ready());
            if state != seen {
                (seen, since) = (state, clock::moment());
            }
            if clock::moment().since(since) > SETUP_TIME {
                let ready = self.shared.ready();
                let reason = missing.unwrap_or_else(|| format!("{ready} connections are ready"));
                let secs = SETUP_TIME.as_secs();
                return Err(fault("set-up", format!("nothing new for {secs} s: {reason}")));
            }
        }
    }

    fn judge_missing(&self) -> Result<(), SetupFault> {
        let wanted = self.ready + self.given_up;
        if self.given_up * 100 <= wanted * MISSING_PER_CENT {
            return Ok(());
        }
        let (step, reason) =
            self.fault.clone().unwrap_or_else(|| ("connect", "for an unknown reason".to_owned()));
        Err(fault(step, format!("{} of {wanted} connections failed: {reason}", self.given_up)))
    }

    fn listen(&mut self, time: Duration, each: &mut dyn FnMut(&Tick)) {
        let mut first = self.reports.recv_timeout(time);
        loop {
            match first {
                Ok(Report::Part(part)) => self.sums.take(*part, &self.shared, each),
                Ok(Report::Done) => self.through += 1,
                Ok(Report::Stood { ready, given_up, fault }) => {
                    self.stood += 1;
                    self.ready += ready;
                    self.given_up += given_up;
                    self.fault = self.fault.take().or(fault);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
            first = self.reports.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        }
    }

    fn say_goodbye(&mut self, each: &mut dyn FnMut(&Tick)) {
        let leave_ns = self.now_ns() + LEAD.as_nanos() as u64;
        // A run that never began has no interval to report.
        let start_ns = self.shared.start_ns.load(Ordering::Relaxed).min(leave_ns);
        self.shared.start_ns.store(start_ns, Ordering::Relaxed);
        self.shared.end_ns.fetch_min(leave_ns, Ordering::Relaxed);
        self.shared.leave_ns.store(leave_ns, Ordering::Relaxed);
        self.shared.set_stand(Stand::Leave);
        while self.through < self.world.threads {
            self.listen(Duration::from_millis(20), each);
        }
    }
}
