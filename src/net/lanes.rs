//! What shards share: doorbells, the lanes to and from the control thread, and the lane on which
//! connections cross.
//!
//! Who wakes whom. Each shard has a doorbell: an *asleep* flag and an eventfd. A sleeper sets the
//! flag, fences (SeqCst), looks at all its inboxes once more, and only then waits. A sender puts
//! its item in, fences (SeqCst), and looks at the flag. Of two SeqCst fences one comes first in
//! their total order: if the sleeper's, the sender sees the flag and rings; if the sender's, the
//! sleeper's last look sees the item. So no item is left with a sleeper that nobody rang.
//! The ringer takes the flag down with a swap, so one sleep costs one ring.
//!
//! Does **not** use a tokio primitive on a shard's side: control watches a descriptor.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::{fmt, io};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::limits::{CONTROL_LANE_MAX, CROSSINGS_MAX, QUESTIONS_MAX};
use crate::net::mesh::{self, Consumer, Padded, Producer};
use crate::net::sys;
use crate::shard::Parcel;
use crate::shard::kernel::{Answer, Order, Question, ShardId};

/// Wakes one thread.
#[derive(Debug)]
pub(super) struct Doorbell {
    asleep: Padded<AtomicBool>,
    pub(super) bell: OwnedFd,
    /// The ring of the shard, if it has one; kept open here so that its number is never reused
    /// while somebody may still ring it.
    pub(super) ring: OnceLock<OwnedFd>,
}

impl Doorbell {
    fn new() -> io::Result<Self> {
        let asleep = Padded(AtomicBool::new(false));
        Ok(Self { asleep, bell: sys::eventfd()?, ring: OnceLock::new() })
    }

    /// To be followed by one more look at all inboxes.
    pub(super) fn lie_down(&self) {
        self.asleep.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn get_up(&self) {
        self.asleep.0.store(false, Ordering::Relaxed);
    }

    /// True if the caller has to ring: it put something in before, and the owner sleeps.
    pub(super) fn is_to_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.0.load(Ordering::Relaxed) && self.asleep.0.swap(false, Ordering::Relaxed)
    }

    pub(super) fn ring_if_asleep(&self) {
        if self.is_to_ring() {
            sys::ring(&self.bell);
        }
    }
}

/// A connection on its way between shards.
#[derive(Debug)]
pub(super) struct Crossing {
    pub(super) fd: OwnedFd,
    pub(super) parcel: Box<Parcel>,
    /// Octets that were delivered after the shard let go of it.
    pub(super) unread: Vec<u8>,
}

/// What the control thread sends down.
#[derive(Debug)]
pub(super) enum Down {
    Answer(Answer),
    Order(Order),
}

/// Shared by all shards of a node and its control thread.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) shards: Vec<Doorbell>,
    control: Doorbell,
    /// Descriptors of connections, all shards together.
    pub(super) open: AtomicU64,
    pub(super) open_max: u64,
}

/// One shard's ends of everything shared.
pub(super) struct Ends {
    pub(super) shard: ShardId,
    pub(super) hub: Arc<Hub>,
    /// By shard; `None` at our own place.
    pub(super) producers: Vec<Option<Producer>>,
    pub(super) consumers: Vec<Option<Consumer>>,
    pub(super) crossings_out: Vec<SyncSender<Crossing>>,
    pub(super) crossings_in: Receiver<Crossing>,
    pub(super) control: Receiver<Down>,
    questions: SyncSender<(ShardId, Question)>,
}

impl Ends {
    pub(super) fn ask(&self, question: Question) -> Result<(), Box<Question>> {
        match self.questions.try_send((self.shard, question)) {
            Ok(()) => {}
            // Disconnected: control is gone, nobody answers, and the process is about to end.
            Err(TrySendError::Full((_, back)) | TrySendError::Disconnected((_, back))) => {
                return Err(Box::new(back));
            }
        }
        self.hub.control.ring_if_asleep();
        Ok(())
    }

    pub(super) fn doorbell(&self) -> &Doorbell {
        &self.hub.shards[usize::from(self.shard.0)]
    }
}

/// What a shard did not take.
#[derive(Debug)]
pub enum Unsent<T> {
    /// Its lane is full; the message comes back.
    Full(T),
    /// It has stopped.
    Gone,
}

/// The control thread's way to the shards.
#[derive(Clone)]
pub struct ControlHandle {
    hub: Arc<Hub>,
    lanes: Arc<[SyncSender<Down>]>,
}

impl fmt::Debug for ControlHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControlHandle({} shards)", self.lanes.len())
    }
}

impl ControlHandle {
    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        u16::try_from(self.lanes.len()).unwrap_or(u16::MAX)
    }

    /// Answers a question of that shard.
    pub fn answer(&self, to: ShardId, answer: Answer) -> Result<(), Unsent<Answer>> {
        self.send(to, Down::Answer(answer)).map_err(|unsent| match unsent {
            Unsent::Full(Down::Answer(back)) => Unsent::Full(back),
            _ => Unsent::Gone,
        })
    }

    /// Gives that shard an order.
    pub fn order(&self, to: ShardId, order: Order) -> Result<(), Unsent<Order>> {
        self.send(to, Down::Order(order)).map_err(|unsent| match unsent {
            Unsent::Full(Down::Order(back)) => Unsent::Full(back),
            _ => Unsent::Gone,
        })
    }

    fn send(&self, to: ShardId, down: Down) -> Result<(), Unsent<Down>> {
        let index = usize::from(to.0);
        let lane = self.lanes.get(index).ok_or(Unsent::Gone)?;
        lane.try_send(down).map_err(|error| match error {
            TrySendError::Full(back) => Unsent::Full(back),
            TrySendError::Disconnected(_) => Unsent::Gone,
        })?;
        self.hub.shards[index].ring_if_asleep();
        Ok(())
    }
}

/// The questions of all shards, at the control thread's end.
pub struct Questions {
    hub: Arc<Hub>,
    lane: Receiver<(ShardId, Question)>,
}

impl fmt::Debug for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Questions")
    }
}

impl AsRawFd for Questions {
    /// Readable when there is something to drain; for tokio's `AsyncFd`.
    fn as_raw_fd(&self) -> RawFd {
        self.hub.control.bell.as_raw_fd()
    }
}

impl Questions {
    /// Has the control thread's runtime watch for questions. Called inside that runtime.
    pub fn watch(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is the doorbell's, which the hub owns and `self` keeps alive; it
        // is the same one each time it is asked for, and nobody closes it before.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }

    /// Takes all questions that are there. Afterwards the descriptor tells of the next one.
    /// (With `AsyncFd`: clear readiness, then drain.)
    pub fn drain(&mut self, mut take: impl FnMut(ShardId, Question)) {
        sys::silence(&self.hub.control.bell);
        self.hub.control.get_up();
        loop {
            while let Ok((from, question)) = self.lane.try_recv() {
                take(from, question);
            }
            self.hub.control.lie_down();
            match self.lane.try_recv() {
                Ok((from, question)) => {
                    self.hub.control.get_up();
                    take(from, question);
                }
                Err(_) => return,
            }
        }
    }
}

/// Makes everything that `shards` shards and their control thread share.
pub(super) fn build(
    shards: u16,
    open_max: u64,
) -> io::Result<(Vec<Ends>, ControlHandle, Questions)> {
    let count = usize::from(shards);
    let doorbells = (0..count).map(|_| Doorbell::new()).collect::<io::Result<_>>()?;
    let control = Doorbell::new()?;
    // Until the first drain control counts as asleep, so that the first question is heard.
    control.lie_down();
    let hub = Arc::new(Hub { shards: doorbells, control, open: AtomicU64::new(0), open_max });
    let (ask, lane) = sync_channel(QUESTIONS_MAX);
    let (crossings_out, crossings_in): (Vec<_>, Vec<_>) =
        (0..count).map(|_| sync_channel(CROSSINGS_MAX)).unzip();
    let (down, downs): (Vec<_>, Vec<_>) =
        (0..count).map(|_| sync_channel(CONTROL_LANE_MAX)).unzip();
    let mut producers: Vec<Vec<_>> = Vec::with_capacity(count);
    let mut consumers: Vec<Vec<_>> = (0..count).map(|_| Vec::with_capacity(count)).collect();
    for from in 0..count {
        let mut row = Vec::with_capacity(count);
        for (to, inbox) in consumers.iter_mut().enumerate() {
            let (producer, consumer) =
                if from == to { (None, None) } else { some_pair(mesh::ring()) };
            row.push(producer);
            inbox.push(consumer);
        }
        producers.push(row);
    }
    let ends = (0..shards)
        .zip(producers.into_iter().zip(consumers))
        .zip(crossings_in.into_iter().zip(downs))
        .map(|((index, (producers, consumers)), (crossings_in, control))| Ends {
            shard: ShardId(index),
            hub: Arc::clone(&hub),
            producers,
            consumers,
            crossings_out: crossings_out.clone(),
            crossings_in,
            control,
            questions: ask.clone(),
        })
        .collect();
    let handle = ControlHandle { hub: Arc::clone(&hub), lanes: down.into() };
    Ok((ends, handle, Questions { hub, lane }))
}

fn some_pair<A, B>((a, b): (A, B)) -> (Option<A>, Option<B>) {
    (Some(a), Some(b))
}
