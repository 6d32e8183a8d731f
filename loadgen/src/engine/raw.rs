//! What a run hands out: each second, and at its end.

use crate::engine::schedule::Piece;
use crate::ledger::Ledger;

/// A second of the run (or less, at a stage's end), all threads together.
#[derive(Clone, Debug)]
pub struct Tick {
    /// From when, in nanoseconds since the first stage began.
    pub from_ns: u64,
    /// Until when.
    pub to_ns: u64,
    /// Which stage; `None`: what follows the last one, while the rest is waited for.
    pub stage: Option<usize>,
    /// Events the schedule had; 0 in a closed loop.
    pub asked: f64,
    /// What happened in it.
    pub part: Ledger,
    /// Due and neither come nor come back at its end.
    pub in_flight: u64,
    /// Connections that took orders at its end.
    pub connections: u64,
    /// By thread.
    pub threads: Vec<ThreadTick>,
    /// Part of all cores' time that the hypervisor gave to others.
    pub steal: f64,
}

/// A thread's second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ThreadTick {
    /// Part of the time that it worked; looking whether there is something is not work.
    pub busy: f64,
    /// Nanoseconds of CPU, looking included.
    pub cpu_ns: u64,
    /// Ready to run without a core.
    pub run_queue_ns: u64,
    /// Lateness: p50, p99, max.
    pub late_ns: [u64; 3],
    /// Receive lag, p99.
    pub receive_lag_p99_ns: u64,
}

/// A run that took place.
#[derive(Clone, Debug)]
pub struct Raw {
    /// When the first stage began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// The stages in time, as they were planned.
    pub pieces: Vec<Piece>,
    /// When the last stage ended, in nanoseconds since the first began: earlier than planned if the
    /// run was stopped.
    pub ended_ns: u64,
    /// Everything, set-up and drain included. What is [`crate::ledger::Counts::open`] here is lost.
    pub total: Ledger,
    /// By thread: of all stages together, lateness and lag of all samples.
    pub threads: Vec<ThreadTick>,
    /// Somebody asked for an end before the stages were over.
    pub interrupted: bool,
    /// It was late, and was told to stop then.
    pub aborted: bool,
    /// What carried the connections: `ring` or `epoll`.
    pub interface: &'static str,
    /// Wall clock against monotonic clock: how far they moved apart during the run.
    pub clock_step_ns: u64,
}

/// Why there was no run: the step that failed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupFault {
    /// `listen`, `limits`, `connect`, `tls`, `login`, `subscribe`, …
    pub step: String,
    /// In words, with the count of those that failed.
    pub reason: String,
}

impl std::fmt::Display for SetupFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.reason)
    }
}
