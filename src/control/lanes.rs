//! What the control thread needs of the lanes to the shards, and `net`'s lanes in that form.
//!
//! A lane is bounded both ways. Control never waits for one: what finds no room stays in a backlog
//! of control's own, in order, and is tried again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};
use std::thread;

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::net::{ControlHandle, Joiner, Questions, Unsent};
use crate::shard::kernel::{Answer, Order, Question, ShardId};

/// What goes to a shard.
#[derive(Debug)]
pub enum ToShard {
    Answered(Answer),
    Ordered(Order),
}

/// What comes from the shards.
#[derive(Debug)]
pub enum FromShard {
    /// A shard asks.
    Asked(ShardId, Question),
    /// A shard's thread has ended; comes once.
    Ended(ShardId),
}

/// Both directions of all lanes, used on the control thread alone.
pub trait Lanes {
    /// How many shards there are.
    fn shards(&self) -> u16;
    /// Sends and wakes the shard if it sleeps.
    fn send(&self, shard: ShardId, message: ToShard) -> Result<(), Unsent<ToShard>>;
    /// The next that came, of any shard; else the waker of `cx` is called when something comes.
    /// Called inside the control thread's runtime.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<FromShard>;
}

/// The lanes of a running node.
pub struct NetLanes {
    handle: ControlHandle,
    up: RefCell<Up>,
}

/// What comes up.
struct Up {
    /// Before the first poll, for only inside the runtime can it be watched.
    fresh: Option<Questions>,
    watched: Option<AsyncFd<Questions>>,
    /// Taken and not yet looked at; at most what the lane holds.
    taken: VecDeque<FromShard>,
    /// Hears once that all shards have ended.
    joined: UnboundedReceiver<()>,
}

impl NetLanes {
    /// Takes the parts of a node; a thread of its own waits for the shards' end.
    pub fn new(handle: ControlHandle, questions: Questions, joiner: Joiner) -> io::Result<Self> {
        let (tell, joined) = unbounded_channel();
        thread::Builder::new().name("tandem-join".into()).spawn(move || {
            joiner.join();
            // Control may have stopped waiting.
            tell.send(()).ok();
        })?;
        let taken = VecDeque::with_capacity(64);
        let up = Up { fresh: Some(questions), watched: None, taken, joined };
        Ok(Self { handle, up: RefCell::new(up) })
    }
}

impl Lanes for NetLanes {
    fn shards(&self) -> u16 {
        self.handle.shards()
    }

    fn send(&self, shard: ShardId, message: ToShard) -> Result<(), Unsent<ToShard>> {
        fn mapped<T>(unsent: Unsent<T>, wrap: impl FnOnce(T) -> ToShard) -> Unsent<ToShard> {
            match unsent {
                Unsent::Full(back) => Unsent::Full(wrap(back)),
                Unsent::Gone => Unsent::Gone,
            }
        }
        match message {
            ToShard::Answered(answer) => {
                self.handle.answer(shard, answer).map_err(|it| mapped(it, ToShard::Answered))
            }
            ToShard::Ordered(order) => {
                self.handle.order(shard, order).map_err(|it| mapped(it, ToShard::Ordered))
            }
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<FromShard> {
        let mut up = self.up.borrow_mut();
        loop {
            if let Some(it) = up.taken.pop_front() {
                return Poll::Ready(it);
            }
            if up.joined.poll_recv(cx) == Poll::Ready(Some(())) {
                let shards = self.handle.shards();
                up.taken.extend((0..shards).map(|n| FromShard::Ended(ShardId(n))));
                continue;
            }
            ready!(up.poll_questions(cx));
        }
    }
}

impl Up {
    /// Ready when questions may have been taken.
    fn poll_questions(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(questions) = self.fresh.take() {
            match questions.watch() {
                Ok(watched) => self.watched = Some(watched),
                Err(error) => {
                    // Without it nobody is ever answered; it can fail for want of memory only.
                    tracing::error!("event=lanes_failed text={:?}", error.to_string());
                    std::process::abort();
                }
            }
        }
        let Some(watched) = &mut self.watched else { return Poll::Pending };
        let Ok(mut guard) = ready!(watched.poll_read_ready_mut(cx)) else { return Poll::Pending };
        // In this order: a question that comes after the drain rings again.
        guard.clear_ready();
        let taken = &mut self.taken;
        guard
            .get_inner_mut()
            .drain(|shard, question| taken.push_back(FromShard::Asked(shard, question)));
        Poll::Ready(())
    }
}
