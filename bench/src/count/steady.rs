//! The proof that the steady path between local clients allocates nothing.
//!
//! *Steady* is: the same users go on doing what they do, each at least every 100 ms (who says and hears
//! nothing for that long gives his room back, and the next message takes it anew). In the first turns
//! buffers, maps and queues grow to what the work takes; from then on every turn of the shard is watched,
//! and not one may ask the allocator for anything, however long it goes on. Time moves, so the timers
//! of sweeps, trims and acknowledgements fire within. Watched is the shard with all floors below it;
//! what the kernel of tables and the users need is got outside of the turns. Does **not** watch logins,
//! a second shard, TLS or the floor of the real kernel.

use std::cell::RefCell;

use super::chat;
use super::world::Pace;

thread_local! {
    /// What each watched turn of this thread has asked for.
    static TURNS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// A watched turn is over.
pub(super) fn note(allocations: u64) {
    TURNS.with_borrow_mut(|turns| turns.push(allocations));
}

/// Turns that may grow something before the state is steady.
const GROWING: usize = 400;

/// What keeping one change of presence takes, however many hear of it.
const KEPT: u64 = 8;

/// Does the work and demands that no turn after the growing ones has allocated more than so often.
fn holds(what: &str, allowed: u64, work: impl FnOnce() -> Result<u64, String>) {
    TURNS.take();
    let done = work().unwrap_or_else(|e| panic!("{what}: {e}"));
    let turns = TURNS.take();
    assert!(turns.len() > 2 * GROWING, "{what}: {} turns prove nothing", turns.len());
    let steady = turns.get(GROWING..).unwrap_or_default();
    let late: Vec<(usize, u64)> =
        steady.iter().copied().enumerate().filter(|&(_, asked)| asked > allowed).collect();
    assert!(
        late.is_empty(),
        "{what}: of {} steady turns ({done} done) {} allocated, the first {:?}",
        steady.len(),
        late.len(),
        late.get(..late.len().min(20)),
    );
}

/// As many pairs as V1 has.
const MANY: usize = 500;

#[test]
fn a_message_alone_in_its_turn_allocates_nothing() {
    holds("message", 0, || chat::messages(64, 1, 20_000, false, Pace::Alone));
}

#[test]
fn messages_that_share_a_turn_allocate_nothing() {
    holds("message-busy", 0, || chat::messages(MANY, MANY, 900, false, Pace::Slow));
}

#[test]
fn messages_under_stream_management_allocate_nothing() {
    holds("message-managed", 0, || chat::messages(MANY, MANY, 900, true, Pace::Slow));
}

#[test]
fn a_delivery_of_a_presence_allocates_nothing() {
    for watchers in [10, 400] {
        holds("fan-out", KEPT, || chat::fan_out(watchers, 900));
    }
}

/// The proof is awake: what is allocated in a turn is seen.
#[test]
#[should_panic(expected = "1 allocated")]
fn an_allocation_in_a_steady_turn_is_seen() {
    holds("nothing", 0, || {
        for turn in 0..GROWING * 3 {
            super::counted(&mut || {
                if turn == GROWING * 2 {
                    drop(std::hint::black_box(Vec::<u8>::with_capacity(turn)));
                }
            });
        }
        Ok(0)
    });
}
