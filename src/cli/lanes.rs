//! The lanes of `net` as control wants them.
//!
//! `net` gives a handle down and a descriptor that is readable when shards have asked something;
//! control wants to poll and to know beforehand whether there is room. What finds a lane full
//! stays here, one message a shard, and goes before the next.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll};
use std::thread;

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::control::lanes::{FromShard, Lanes, ToShard};
use crate::net::{ControlHandle, Joiner, Questions, Running};
use crate::shard::kernel::{Full, ShardId};

/// All lanes of a node that runs.
pub(super) struct NetLanes {
    control: ControlHandle,
    /// By shard: what found no room.
    kept: Vec<RefCell<Option<ToShard>>>,
    up: RefCell<Up>,
    /// Done once, when control begins to listen: everything stands then.
    ready: Cell<Option<Box<dyn FnOnce() + Send>>>,
}

struct Up {
    questions: Source,
    /// Taken from the lane but not by control yet; the oldest is the last.
    taken: Vec<FromShard>,
    /// Shards whose threads have ended.
    ended: UnboundedReceiver<ShardId>,
}

/// The descriptor can be watched only inside the runtime, which control makes.
enum Source {
    Unwatched(Questions),
    Watched(AsyncFd<Questions>),
    /// The runtime refused: nothing will come.
    Lost,
}

impl NetLanes {
    /// Takes the lanes over. `ready` is called when control begins to listen.
    pub(super) fn new(running: Running, ready: Box<dyn FnOnce() + Send>) -> std::io::Result<Self> {
        let (control, questions, joiner) = running.split();
        let shards = control.shards();
        let (told, ended) = unbounded_channel();
        thread::Builder::new().name("joiner".to_owned()).spawn(move || {
            Joiner::join(joiner);
            for shard in 0..shards {
                // Control may have ended before, when the time was up.
                told.send(ShardId(shard)).ok();
            }
        })?;
        let up = Up { questions: Source::Unwatched(questions), taken: Vec::new(), ended };
        Ok(Self {
            control,
            kept: (0..shards).map(|_| RefCell::default()).collect(),
            up: RefCell::new(up),
            ready: Cell::new(Some(ready)),
        })
    }

    /// Sends, or gives it back.
    fn try_send(&self, shard: ShardId, message: ToShard) -> Result<(), ToShard> {
        match message {
            ToShard::Answered(answer) => {
                self.control.answer(shard, answer).map_err(|it| ToShard::Answered(*it))
            }
            ToShard::Ordered(order) => {
                self.control.order(shard, order).map_err(|it| ToShard::Ordered(*it))
            }
        }
    }
}

impl Lanes for NetLanes {
    fn shards(&self) -> u16 {
        self.control.shards()
    }

    fn has_room(&self, shard: ShardId) -> bool {
        let Some(kept) = self.kept.get(usize::from(shard.0)) else { return false };
        let Some(message) = kept.take() else { return true };
        match self.try_send(shard, message) {
            Ok(()) => true,
            Err(message) => {
                kept.replace(Some(message));
                false
            }
        }
    }

    fn send(&self, shard: ShardId, message: ToShard) -> Result<(), Full> {
        if !self.has_room(shard) {
            return Err(Full);
        }
        if let Err(message) = self.try_send(shard, message) {
            let kept = self.kept.get(usize::from(shard.0)).ok_or(Full)?;
            kept.replace(Some(message));
        }
        Ok(())
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<FromShard> {
        if let Some(ready) = self.ready.take() {
            ready();
        }
        let up = &mut *self.up.borrow_mut();
        loop {
            if let Some(next) = up.taken.pop() {
                return Poll::Ready(next);
            }
            if up.fill(cx).is_pending() {
                break;
            }
        }
        match up.ended.poll_recv(cx) {
            Poll::Ready(Some(shard)) => Poll::Ready(FromShard::Ended(shard)),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Up {
    /// Takes what the shards asked; pending if that is nothing.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Source::Unwatched(_) = self.questions
            && let Source::Unwatched(questions) =
                std::mem::replace(&mut self.questions, Source::Lost)
        {
            #[expect(
                deprecated,
                reason = "its successor is unsafe, which lives in net only; Questions owns its descriptor for life"
            )]
            let watched = AsyncFd::new(questions);
            match watched {
                Ok(watched) => self.questions = Source::Watched(watched),
                Err(fault) => tracing::error!(%fault, "lanes_lost: the shards can't be heard"),
            }
        }
        let Source::Watched(watched) = &mut self.questions else { return Poll::Pending };
        match watched.poll_read_ready_mut(cx) {
            Poll::Ready(Ok(mut guard)) => {
                guard.clear_ready();
                let taken = &mut self.taken;
                guard
                    .get_inner_mut()
                    .drain(|shard, question| taken.push(FromShard::Asked(shard, question)));
                taken.reverse();
                Poll::Ready(())
            }
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}
