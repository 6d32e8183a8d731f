//! The control thread: everything that may wait.
//!
//! One thread runs tokio and answers the shards: the store, DNS, password hashes and verdicts on
//! certificates (both on workers). It also keeps the signals, the reload, the shards' heartbeat,
//! the admin port and the control socket. It shares no state with a shard; they talk through
//! [`lanes::Lanes`]. Start with [`run`]; `node.rs` says what happens to a question.
//!
//! Nothing here is fast and nothing here can stop a shard: queues are bounded and a full one is
//! answered *unavailable*.

pub mod accounts;
pub mod authority;
pub mod lanes;
mod node;
pub mod notices;
pub mod passwords;
mod records;
mod reports;
pub mod resolver;
pub mod store;
pub mod workers;

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{MissedTickBehavior, interval};

pub(crate) use node::{Node, Phase};

use crate::admin::{ctl, http};
use crate::control::lanes::{FromShard, Lanes};
use crate::shard::settings::Settings;
use crate::tls;

/// How often every shard is asked for a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often certificates are looked at.
const CERTIFICATES: Duration = Duration::from_secs(60);
/// How often a full lane is tried again.
const RETRY: Duration = Duration::from_millis(5);
/// Questions taken in one go before everything else on the thread has its turn.
const QUESTIONS_AT_ONCE: usize = 64;

/// What a reload brought.
#[derive(Debug)]
pub struct Reloaded {
    /// The new snapshot; control gives it its version.
    pub settings: Settings,
    /// The authorities that peers' certificates are judged by.
    pub roots: Arc<tls::Roots>,
    /// For the operator: what changed, what takes effect only for new connections, what needs a
    /// restart.
    pub changes: Vec<String>,
}

/// Where settings come from: the configuration's files. Called on the control thread.
pub trait Source {
    /// Reads everything anew and checks it whole. The text of an error is for the operator; the
    /// old settings stay.
    fn reload(&mut self) -> Result<Reloaded, String>;
    /// Looks whether certificates changed; `None`: no. Comes once a minute.
    fn certificates(&mut self) -> Result<Option<Reloaded>, String>;
}

/// The control socket.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Where it is.
    pub path: std::path::PathBuf,
    /// 0600: the same user only; 0660: the group as well.
    pub mode: u32,
}

/// All that control needs to run.
pub struct Setup {
    /// The way to the shards.
    pub lanes: Box<dyn Lanes + Send>,
    /// What the shards were started with.
    pub settings: Arc<Settings>,
    /// Where newer ones come from.
    pub source: Box<dyn Source + Send>,
    /// Accounts; opened before, so that a fault ends the start.
    pub store: store::Store,
    /// Threads for costly work.
    pub workers: workers::Workers,
    /// A name server of one's own instead of the system's.
    pub nameserver: Option<SocketAddr>,
    /// The authorities that peers' certificates are judged by.
    pub roots: Arc<tls::Roots>,
    /// The admin port, bound before.
    pub admin: Option<TcpListener>,
    /// The control socket.
    pub ctl: Option<Socket>,
    /// How long an orderly stop may take.
    pub stop_within: Duration,
    /// SIGTERM, SIGINT and SIGHUP are control's. Off in tests, which share one process.
    pub signals: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every shard said goodbye to everybody.
    Orderly,
    /// The time was up, or a second signal came, before that many shards were done.
    Cut {
        /// Shards that had not ended.
        shards: usize,
    },
}

/// Runs control on this thread until the node has stopped.
pub fn run(setup: Setup) -> io::Result<Ending> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let ending = local.block_on(&runtime, serve(setup));
    // Connections to the admin port end here and now.
    drop(local);
    runtime.shutdown_background();
    ending
}

async fn serve(setup: Setup) -> io::Result<Ending> {
    let with_signals = setup.signals;
    let (admin, socket) = (setup.admin.as_ref().map(TcpListener::try_clone), setup.ctl.clone());
    let node = Rc::new(Node::new(setup));
    if let Some(listener) = admin {
        let listener = listener?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        spawn_local(http::serve(Rc::clone(&node), listener));
    }
    // Held to the end: its drop removes the socket's file.
    let _bound = match socket {
        Some(socket) => {
            let (listener, bound) = ctl::bind(&socket)?;
            spawn_local(ctl::serve(Rc::clone(&node), listener));
            Some(bound)
        }
        None => None,
    };
    if with_signals {
        spawn_local(watch_signals(Rc::clone(&node))?);
    }
    spawn_local(watch_certificates(Rc::clone(&node)));
    node.beat();
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = take(&node) => {}
            _ = beat.tick() => {
                node.beat();
                node.fire_notices(Instant::now());
            }
            () = tokio::time::sleep(RETRY), if node.has_backlog() => node.retry(),
            () = node.changed() => {}
        }
        if let Some(ending) = node.ending(Instant::now()) {
            return Ok(ending);
        }
        // The tasks of this thread have their turn, however many questions there are.
        yield_now().await;
    }
}

/// Takes what the shards sent, some at a time.
async fn take(node: &Rc<Node>) {
    let mut taken = 0;
    poll_fn(|cx| {
        while taken < QUESTIONS_AT_ONCE {
            match node.lanes.poll(cx) {
                Poll::Ready(FromShard::Asked(shard, question)) => node.asked(shard, question),
                Poll::Ready(FromShard::Ended(shard)) => node.ended(shard),
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
            taken += 1;
        }
        Poll::Ready(())
    })
    .await;
}

/// The signals are taken before the first await, so none is missed once this returns.
fn watch_signals(node: Rc<Node>) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => node.stop("SIGTERM"),
                _ = interrupt.recv() => node.stop("SIGINT"),
                _ = hang_up.recv() => {
                    let node = Rc::clone(&node);
                    // Its outcome is in the log.
                    spawn_local(async move { drop(node.reload("SIGHUP").await) });
                }
            }
        }
    })
}

#[expect(clippy::infinite_loop, reason = "ends with the control thread, which drops its tasks")]
async fn watch_certificates(node: Rc<Node>) {
    let mut tick = interval(CERTIFICATES);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once, and the certificates were just read.
    tick.tick().await;
    loop {
        tick.tick().await;
        node.reread_certificates();
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a child process tells its parent how far it is")]
mod tests;
