//! Threads for what costs milliseconds of CPU: password hashes and certificate chains.
//!
//! Two pools, so that a storm of logins does not hold back federation. Each queue is bounded and
//! a full one refuses at once; whoever asked answers *unavailable* instead of growing a line.

use std::cell::Cell;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tokio::sync::oneshot;

use crate::limits::WORKER_QUEUE_MAX;
use crate::shard::kernel::Unavailable;

type Job = Box<dyn FnOnce() + Send>;

/// One kind of work with its threads.
pub struct Pool {
    lanes: Vec<SyncSender<Job>>,
    next: Cell<usize>,
    refused: Cell<u64>,
}

impl Pool {
    /// Starts `threads` threads called `name`. They end when the pool is dropped and what was
    /// taken is done.
    pub fn start(name: &str, threads: usize) -> io::Result<Self> {
        Self::with_queue(name, threads, WORKER_QUEUE_MAX)
    }

    fn with_queue(name: &str, threads: usize, queue: usize) -> io::Result<Self> {
        let mut lanes = Vec::with_capacity(threads);
        for _ in 0..threads.max(1) {
            let (to, from) = sync_channel(queue);
            thread::Builder::new().name(name.to_owned()).spawn(move || work(&from))?;
            lanes.push(to);
        }
        Ok(Self { lanes, next: Cell::new(0), refused: Cell::new(0) })
    }

    /// Has `job` done by a worker. Refuses at once if all queues are full.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.push(Box::new(move || {
            // Who asked may be gone.
            drop(reply.send(job()));
        }))?;
        // A job that panicked answers nothing (in service the process has ended with it).
        answer.await.map_err(|_| Unavailable)
    }

    fn push(&self, job: Job) -> Result<(), Unavailable> {
        let start = self.next.get();
        self.next.set(start.wrapping_add(1));
        let mut job = job;
        for n in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get(start.wrapping_add(n) % self.lanes.len()) else {
                break;
            };
            match lane.try_send(job) {
                Ok(()) => return Ok(()),
                Err(
                    std::sync::mpsc::TrySendError::Full(back)
                    | std::sync::mpsc::TrySendError::Disconnected(back),
                ) => job = back,
            }
        }
        self.refused.set(self.refused.get() + 1);
        Err(Unavailable)
    }

    /// How many jobs found the queues full.
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }
}

fn work(from: &Receiver<Job>) {
    while let Ok(job) = from.recv() {
        job();
    }
}

/// Both pools.
pub struct Workers {
    /// PBKDF2: new accounts, and PLAIN.
    pub passwords: Pool,
    /// Verdicts on certificates.
    pub chains: Pool,
}

impl Workers {
    /// Starts one thread for each.
    pub fn start() -> io::Result<Self> {
        Ok(Self {
            passwords: Pool::start("tandem-hash", 1)?,
            chains: Pool::start("tandem-chain", 1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_refuses_at_once_and_counts() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pool = Pool::with_queue("test", 1, 1).unwrap();
        let (open, gate) = sync_channel::<()>(0);
        let (entered, inside) = sync_channel::<()>(0);
        pool.push(Box::new(move || {
            entered.send(()).unwrap();
            gate.recv().unwrap();
        }))
        .unwrap();
        inside.recv().unwrap();
        pool.push(Box::new(|| ())).unwrap();
        assert_eq!(runtime.block_on(pool.run(|| 1)), Err(Unavailable));
        assert_eq!(pool.refused(), 1);
        open.send(()).unwrap();
        // The queue drains; the worker takes work again.
        let mut answer = Err(Unavailable);
        while answer.is_err() {
            answer = runtime.block_on(pool.run(|| 2));
        }
        assert_eq!(answer, Ok(2));
    }
}
