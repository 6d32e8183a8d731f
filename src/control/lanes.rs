//! What the control thread needs of the lanes to the shards; `net` supplies them.
//!
//! A lane is bounded both ways. Control never waits for one: what finds no room stays in a backlog
//! of control's own, in order, and is tried again.

use std::task::{Context, Poll};

use crate::shard::kernel::{Answer, Full, Order, Question, ShardId};

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
    /// A shard's thread has ended; comes once, after its last question.
    Ended(ShardId),
}

/// Both directions of all lanes, used on the control thread alone.
pub trait Lanes {
    /// How many shards there are.
    fn shards(&self) -> u16;
    /// Whether the lane to `shard` takes one more. Control is the only one that sends, so what
    /// holds now holds until the next [`Lanes::send`].
    fn has_room(&self, shard: ShardId) -> bool;
    /// Sends and wakes the shard if it sleeps. On [`Full`] the message is gone, so control asks
    /// [`Lanes::has_room`] first.
    fn send(&self, shard: ShardId, message: ToShard) -> Result<(), Full>;
    /// The next that came, of any shard; else the waker of `cx` is called when something comes.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<FromShard>;
}
