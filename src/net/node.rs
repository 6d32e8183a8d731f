//! Starting and stopping the shards of a node: listeners, threads, rings.
//!
//! All listeners are bound before any thread runs, and traffic starts when every shard stands. So
//! a start that fails has served nobody.
//!
//! Does **not** know what an engine does; it is done when it says so.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::Duration;
use std::{fmt, io, thread};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use crate::limits::{DESCRIPTORS_RESERVED, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS, SPIN_US_MAX};
use crate::net::conns::Conns;
use crate::net::datagrams::Datagrams;
use crate::net::driver::{Base, Driver};
use crate::net::epoll::EpollDriver;
use crate::net::lanes::{self, ControlHandle, Ends, Questions};
use crate::net::probe::{self, Unusable};
use crate::net::pump::Pump;
use crate::net::ring::RingDriver;
use crate::net::{clock, sys};
use crate::shard::kernel::{Engine, NetCounters, Seeds, ShardId};

/// Which interface of the kernel carries the traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// io_uring, inside a glommio executor per shard.
    Ring,
    /// epoll, on a plain thread per shard.
    Epoll,
    /// The ring if it may be used here, else epoll with a line in the log that says why.
    #[default]
    Auto,
}

/// How the node is to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Shards of the node, at least one.
    pub shards: u16,
    /// Cores to use, by number; empty: all this process may use. With fewer cores than shards
    /// some are shared.
    pub cores: Vec<usize>,
    /// A listener's place here is its `ListenerId`. Port 0 takes any free one.
    pub listeners: Vec<SocketAddr>,
    /// Which of them, by place, take datagrams instead of connections.
    pub datagrams: Vec<usize>,
    /// Ring or epoll.
    pub interface: Interface,
    /// Microseconds to spin before sleeping; 0 is off, more than the limit is the limit.
    pub spin_us: u32,
    /// Receive buffers of each shard's ring: rounded up to a power of two.
    pub receive_buffers: u16,
    /// Octets in one of them.
    pub receive_buffer_bytes: u32,
    /// Unsent octets a socket may hold before it takes no more (TCP_NOTSENT_LOWAT); the kernel's
    /// default if absent.
    pub not_sent_bytes: Option<u32>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            shards: 1,
            cores: Vec::new(),
            listeners: Vec::new(),
            datagrams: Vec::new(),
            interface: Interface::Auto,
            spin_us: 0,
            receive_buffers: RECEIVE_BUFFERS,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
            not_sent_bytes: None,
        }
    }
}

/// Why the node does not run.
#[derive(Debug)]
pub enum StartError {
    /// A listening address can't be had.
    Bind { address: SocketAddr, error: io::Error },
    /// The ring was asked for by name and can't be used here.
    Ring(Unusable),
    /// A shard did not come to stand.
    Shard { shard: ShardId, error: io::Error },
    /// Descriptors, memory or entropy are missing.
    Resources(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { address, error } => write!(f, "can't listen on {address}: {error}"),
            Self::Ring(unusable) => write!(f, "{unusable}"),
            Self::Shard { shard, error } => write!(f, "shard {} does not start: {error}", shard.0),
            Self::Resources(error) => write!(f, "can't start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A node that serves.
#[derive(Debug)]
pub struct Running {
    /// The way down to the shards.
    pub control: ControlHandle,
    /// The way up from them.
    pub questions: Questions,
    /// What is in use: never `Auto`.
    pub interface: Interface,
    /// What the listeners are bound to, in the plan's order.
    pub addresses: Vec<SocketAddr>,
    threads: Vec<Thread>,
}

#[derive(Debug)]
enum Thread {
    Plain(thread::JoinHandle<()>),
    Executor(ExecutorJoinHandle<()>),
}

impl Running {
    /// Waits until all shards are done. Not for the control thread's runtime: it blocks.
    pub fn join(self) {
        join(self.threads);
    }

    /// Parts of it, for a control thread that owns the lanes and somebody else who waits.
    pub fn split(self) -> (ControlHandle, Questions, Joiner) {
        (self.control, self.questions, Joiner(self.threads))
    }
}

/// Waits for the shards.
#[derive(Debug)]
pub struct Joiner(Vec<Thread>);

impl Joiner {
    /// Waits until all shards are done.
    pub fn join(self) {
        join(self.0);
    }
}

fn join(threads: Vec<Thread>) {
    for thread in threads {
        // A shard that panics takes the process with it, so there is no error to see here.
        match thread {
            Thread::Plain(handle) => drop(handle.join()),
            Thread::Executor(handle) => drop(handle.join()),
        }
    }
}

/// Starts a node: one engine per shard, each made on the shard's own thread by `engine`.
pub fn run<E, F>(plan: &Plan, engine: F) -> Result<Running, StartError>
where
    E: Engine + 'static,
    F: Fn(ShardId, Seeds) -> E + Send + Sync + 'static,
{
    assert!(plan.shards > 0, "a node has at least one shard");
    // The clock starts before anybody looks at it.
    clock::now();
    let interface = choose(plan.interface)?;
    let descriptors = sys::raise_descriptor_limit();
    let (addresses, sockets) = bind_all(plan, interface)?;
    let open_max = descriptors
        .saturating_sub(descriptors_in_use())
        .saturating_sub(DESCRIPTORS_RESERVED)
        .max(1);
    let (ends, control, questions) =
        lanes::build(plan.shards, open_max).map_err(StartError::Resources)?;
    let engine = Arc::new(engine);
    let (ready, standing) = channel();
    let mut go = Vec::new();
    let mut threads = Vec::new();
    let cores = cores(plan);
    for (ends, listeners) in ends.into_iter().zip(sockets) {
        let (start, started) = sync_channel(1);
        let shard = ends.shard;
        let place = cores[usize::from(shard.0) % cores.len()];
        let birth = Birth {
            ends,
            listeners,
            plan: plan.clone(),
            seeds: clock::seeds().map_err(StartError::Resources)?,
            ready: ready.clone(),
            started,
        };
        let thread = spawn(interface, place, birth, Arc::clone(&engine))
            .map_err(|error| StartError::Shard { shard, error })?;
        threads.push(thread);
        go.push(start);
    }
    drop(ready);
    for (shard, result) in standing.iter().take(usize::from(plan.shards)) {
        // The others see their `go` dropped and leave.
        result.map_err(|error| StartError::Shard { shard, error })?;
    }
    for start in go {
        // It fails only if the shard's thread is gone, and then so is the process.
        let _gone = start.send(());
    }
    Ok(Running { control, questions, interface, addresses, threads })
}

fn choose(wanted: Interface) -> Result<Interface, StartError> {
    match (wanted, wanted != Interface::Epoll) {
        (_, false) => Ok(Interface::Epoll),
        (_, true) => match (probe::ring_usable(), wanted) {
            (Ok(()), _) => Ok(Interface::Ring),
            (Err(unusable), Interface::Ring) => Err(StartError::Ring(unusable)),
            (Err(unusable), _) => {
                tracing::warn!(cause = %unusable, "net_interface: epoll instead of io_uring");
                Ok(Interface::Epoll)
            }
        },
    }
}

type Sockets = Vec<Vec<OwnedFd>>;

/// Every listener of every shard. The first of an address is bound without company, so that an
/// address in use is seen.
fn bind_all(plan: &Plan, interface: Interface) -> Result<(Vec<SocketAddr>, Sockets), StartError> {
    let nonblocking = interface == Interface::Epoll;
    let mut sockets: Sockets = (0..plan.shards).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for (place, &wanted) in plan.listeners.iter().enumerate() {
        let failed = |error| StartError::Bind { address: wanted, error };
        let datagrams = plan.datagrams.contains(&place);
        if wanted.port() != 0 {
            sys::check_free(wanted, datagrams).map_err(failed)?;
        }
        let mut address = wanted;
        for listeners in &mut sockets {
            let socket = if datagrams {
                sys::datagrams(address)
            } else {
                sys::listen(address, nonblocking, plan.not_sent_bytes)
            };
            let socket = socket.map_err(failed)?;
            address = sys::local(socket.as_raw_fd()).map_err(failed)?;
            listeners.push(socket);
        }
        addresses.push(address);
    }
    Ok((addresses, sockets))
}

fn descriptors_in_use() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(64, |entries| entries.count() as u64)
}

fn cores(plan: &Plan) -> Vec<Option<usize>> {
    let allowed: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let chosen: Vec<_> =
        plan.cores.iter().copied().filter(|core| allowed.contains(core)).map(Some).collect();
    if !chosen.is_empty() {
        return chosen;
    }
    let all: Vec<_> = allowed.into_iter().map(Some).collect();
    if all.is_empty() { vec![None] } else { all }
}

/// What a shard's thread starts with.
struct Birth {
    ends: Ends,
    listeners: Vec<OwnedFd>,
    plan: Plan,
    seeds: Seeds,
    ready: Sender<(ShardId, io::Result<()>)>,
    started: Receiver<()>,
}

fn spawn<E, F>(
    interface: Interface,
    core: Option<usize>,
    birth: Birth,
    engine: Arc<F>,
) -> io::Result<Thread>
where
    E: Engine + 'static,
    F: Fn(ShardId, Seeds) -> E + Send + Sync + 'static,
{
    let name = format!("shard-{}", birth.ends.shard.0);
    if interface == Interface::Epoll {
        let host = move || {
            let _guard = AbortOnPanic;
            if let Some(id) = core {
                core_affinity::set_for_current(core_affinity::CoreId { id });
            }
            if let Some((mut pump, mut engine)) =
                stand(birth, &*engine, |base, _| EpollDriver::new(base))
            {
                while !pump.turn(&mut engine) {}
                pump.shut_down();
            }
        };
        return thread::Builder::new().name(name).spawn(host).map(Thread::Plain);
    }
    let placement = core.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(&name)
        .io_memory(0)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .preempt_timer(PREEMPT_TIMER)
        .spawn(move || async move {
            let _guard = AbortOnPanic;
            if let Some((mut pump, mut engine)) = stand(birth, &*engine, RingDriver::new) {
                while !pump.turn(&mut engine) {
                    // Nothing else lives in this executor; it gets its due each 100 ms.
                    glommio::yield_if_needed().await;
                }
                pump.shut_down();
            }
        })
        .map(Thread::Executor)
        .map_err(|error| io::Error::other(error.to_string()))
}

/// Builds pump and engine on the shard's thread, says so, and waits for the others.
fn stand<E, F, D: Driver>(
    birth: Birth,
    engine: &F,
    driver: impl FnOnce(&Base, &Plan) -> io::Result<D>,
) -> Option<(Pump<D>, E)>
where
    E: Engine,
    F: Fn(ShardId, Seeds) -> E,
{
    let Birth { ends, listeners, plan, seeds, ready, started } = birth;
    let shard = ends.shard;
    let base = Base {
        ends,
        conns: Conns::default(),
        now: clock::now(),
        counters: NetCounters::default(),
        datagrams: Datagrams::new(&plan.datagrams, listeners.len()),
        listeners,
        accepting: false,
        not_sent_bytes: plan.not_sent_bytes,
    };
    let result = driver(&base, &plan);
    let (told, driver) = match result {
        Ok(driver) => (ready.send((shard, Ok(()))), Some(driver)),
        Err(error) => (ready.send((shard, Err(error))), None),
    };
    drop(ready);
    // Nobody listens any more, or another shard failed: the start was given up.
    if told.is_err() || started.recv().is_err() {
        return None;
    }
    let mut pump = Pump::new(base, driver?, plan.spin_us.min(SPIN_US_MAX));
    pump.open();
    Some((pump, engine(shard, seeds)))
}

/// Going on without a shard would lose messages in silence.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Makes a panic in any thread of the process end the process, after its message was printed.
pub fn abort_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        std::process::abort();
    }));
}

/// glommio's own rings carry next to nothing.
const EXECUTOR_RING_DEPTH: usize = 16;
const PREEMPT_TIMER: Duration = Duration::from_millis(100);
