//! What is read at either end of a measured window, and what lies between two readings.
//!
//! Counts all threads of the server's process. Does **not** judge: whoever divides by a
//! denominator decides whether a window counts.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use crate::proc::{self, Usage};

/// The server that is watched; nothing of it need be known.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// Its process, whose CPU is read.
    pub pid: Option<u32>,
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// A file in which it keeps counters as u64: turns, messages.
    pub counters: Option<PathBuf>,
}

/// One reading.
pub struct Reading {
    at: Instant,
    done: u64,
    turns: u64,
    own: Usage,
    server: Option<Usage>,
    core: (u64, u64),
    counters: Vec<u64>,
}

/// What happened between two readings.
pub struct Span {
    /// How long it was.
    pub wall_ns: f64,
    /// What was done in it: messages delivered, logins.
    pub done: u64,
    /// What it cost the generator.
    pub generator: Value,
    /// What it cost the server; null if no process was named.
    pub server: Value,
}

impl Watched {
    /// Reads everything, beside what was done so far and in how many turns of the generator.
    pub fn read(&self, done: u64, turns: u64) -> io::Result<Reading> {
        let counters = self.counters.as_ref().and_then(|path| std::fs::read(path).ok());
        let counters = counters.unwrap_or_default();
        let counters = counters.as_chunks::<8>().0.iter().map(|c| u64::from_ne_bytes(*c)).collect();
        Ok(Reading {
            at: Instant::now(),
            done,
            turns,
            own: Usage::of(std::process::id())?,
            server: self.pid.map(Usage::of).transpose()?,
            core: self.core.map(proc::core_ticks).transpose()?.unwrap_or_default(),
            counters,
        })
    }
}

impl Reading {
    /// What happened since an earlier reading.
    pub fn since(&self, before: &Self) -> Span {
        let wall_ns = (self.at - before.at).as_nanos() as f64;
        let done = self.done - before.done;
        let each = |total: u64| total as f64 / (done as f64).max(1.0);
        let own = self.own.since(&before.own).cpu_ns();
        let turns = (self.turns - before.turns) as f64;
        let core = (self.core.0 - before.core.0) as f64;
        let core = core / ((self.core.1 - before.core.1) as f64).max(1.0);
        let counter = |i: usize| Some(self.counters.get(i)? - before.counters.get(i)?);
        let per_turn = counter(0).filter(|&t| t > 0).map(|t| done as f64 / t as f64);
        let server = self.server.as_ref().zip(before.server.as_ref()).map(|(now, then)| {
            let used = now.since(then);
            let shard = used.busiest();
            let (sleeps, preempted) = used.switches();
            json!({
                "cpu_ns_per_message": each(used.cpu_ns()),
                "busiest_thread": shard.name,
                "busiest_thread_cpu_ns_per_message": each(shard.cpu_ns),
                "busy": shard.cpu_ns as f64 / wall_ns,
                "busy_all_threads": used.cpu_ns() as f64 / wall_ns,
                "wanted_core": (shard.cpu_ns + shard.wait_ns) as f64 / wall_ns,
                "core_busy": core,
                "sleeps": sleeps, "preempted": preempted,
                "messages_per_turn": per_turn,
            })
        });
        Span {
            wall_ns,
            done,
            generator: json!({
                "cpu_ns_per_message": each(own),
                "busy": own as f64 / wall_ns,
                "messages_per_turn": done as f64 / turns.max(1.0),
                "late": false,
            }),
            server: json!(server),
        }
    }
}
