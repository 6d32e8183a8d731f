//! What the shards last said of themselves, and asking all of them at once.
//!
//! A shard that does not answer in time is shown by its last report: a counter must not go back
//! because somebody was busy. When it last answered is its heartbeat.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout_at;

use crate::shard::Report;
use crate::shard::StreamRow;
use crate::shard::kernel::{ShardId, Ticket};

/// How a shard is.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    /// When it last answered; never, before the first time.
    pub(crate) answered: Option<Instant>,
    /// It has been asked since then.
    pub(crate) asked: bool,
    /// Its thread has ended.
    pub(crate) ended: bool,
    /// Its last report, without streams.
    pub(crate) report: Report,
}

/// All shards of this node.
pub(crate) struct Reports {
    next: Cell<u64>,
    shards: RefCell<Vec<Latest>>,
    waiting: RefCell<BTreeMap<u64, mpsc::Sender<Vec<StreamRow>>>>,
}

/// Somebody waits for the answers to one ticket.
pub(crate) struct Gathering<'a> {
    reports: &'a Reports,
    pub(crate) ticket: Ticket,
    answers: mpsc::Receiver<Vec<StreamRow>>,
}

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.reports.waiting.borrow_mut().remove(&self.ticket.0);
    }
}

impl Reports {
    pub(crate) fn new(shards: u16) -> Self {
        Self {
            next: Cell::new(1),
            shards: RefCell::new((0..shards).map(|_| Latest::default()).collect()),
            waiting: RefCell::default(),
        }
    }

    /// A ticket nobody waits for: a heartbeat.
    pub(crate) fn ticket(&self) -> Ticket {
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        Ticket(ticket)
    }

    /// A ticket whose answers are waited for.
    pub(crate) fn open(&self) -> Gathering<'_> {
        let ticket = self.ticket();
        let (to, answers) = mpsc::channel(self.shards.borrow().len().max(1));
        self.waiting.borrow_mut().insert(ticket.0, to);
        Gathering { reports: self, ticket, answers }
    }

    /// A shard has answered.
    pub(crate) fn take(&self, shard: ShardId, ticket: Ticket, mut report: Report, now: Instant) {
        let streams = std::mem::take(&mut report.streams);
        if let Some(latest) = self.shards.borrow_mut().get_mut(usize::from(shard.0)) {
            latest.answered = Some(now);
            latest.asked = false;
            latest.report = report;
        }
        if let Some(to) = self.waiting.borrow().get(&ticket.0) {
            // Who waited may have given up; a second answer of one shard finds no room.
            drop(to.try_send(streams));
        }
    }

    /// Marks a shard as asked; false if it still owes an answer or has ended.
    pub(crate) fn ask(&self, shard: ShardId) -> bool {
        let mut shards = self.shards.borrow_mut();
        let Some(latest) = shards.get_mut(usize::from(shard.0)) else { return false };
        let free = !latest.asked && !latest.ended;
        latest.asked = true;
        free
    }

    /// A shard's thread has ended.
    pub(crate) fn end(&self, shard: ShardId) {
        if let Some(latest) = self.shards.borrow_mut().get_mut(usize::from(shard.0)) {
            latest.ended = true;
        }
    }

    /// Shards that have not ended.
    pub(crate) fn alive(&self) -> Vec<ShardId> {
        let shards = self.shards.borrow();
        (0u16..).zip(shards.iter()).filter(|(_, it)| !it.ended).map(|(n, _)| ShardId(n)).collect()
    }

    /// Looks at each shard in order.
    pub(crate) fn each(&self, mut look: impl FnMut(ShardId, &Latest)) {
        for (n, it) in (0u16..).zip(self.shards.borrow().iter()) {
            look(ShardId(n), it);
        }
    }
}

impl Gathering<'_> {
    /// Waits until `shards` have answered, no longer than `within`; returns their streams and how
    /// many did answer.
    pub(crate) async fn wait(mut self, shards: usize, within: Duration) -> (Vec<StreamRow>, usize) {
        let deadline = tokio::time::Instant::now() + within;
        let mut rows = Vec::new();
        let mut answered = 0;
        while answered < shards {
            let Ok(Some(some)) = timeout_at(deadline, self.answers.recv()).await else { break };
            rows.extend(some);
            answered += 1;
        }
        (rows, answered)
    }
}
