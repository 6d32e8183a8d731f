//! Timers in a hierarchy of wheels.
//!
//! Seven wheels of 64 slots cover all of time in ticks of some 8 ms. A timer lies on the wheel of
//! the highest digit in which its tick differs from the present one, and comes down a wheel when
//! time reaches its slot: at most seven moves, so setting and firing cost the same for one timer and
//! for a million. A timer never fires early and at most one tick late.
//!
//! Nothing is cancelled here: the token carries a generation, and whoever gets it looks whether it
//! still means something. Does **not** keep order between timers of the same tick but that of `set`
//! among equals.

use crate::time::Moment;

/// A tick has 2^23 ns = 8.39 ms.
const TICK_BITS: u32 = 23;
const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// 7 x 6 bits hold every tick of 64 - 23 bits.
const LEVELS: usize = 7;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Timer<T> {
    tick: u64,
    next: u32,
    token: T,
}

#[derive(Clone, Copy)]
struct Slot {
    first: u32,
    last: u32,
}

const EMPTY: Slot = Slot { first: NONE, last: NONE };

/// Tokens that come due. 24 bytes for each token of eight.
pub struct Wheel<T> {
    timers: Vec<Timer<T>>,
    free: u32,
    len: usize,
    /// No later than the last `now`; no timer lies before it.
    tick: u64,
    occupied: [u64; LEVELS],
    slots: [[Slot; SLOTS]; LEVELS],
}

impl<T> std::fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wheel")
            .field("len", &self.len)
            .field("tick", &self.tick)
            .finish_non_exhaustive()
    }
}

impl<T: Copy> Wheel<T> {
    /// Without timers.
    pub fn new() -> Self {
        Self {
            timers: Vec::new(),
            free: NONE,
            len: 0,
            tick: 0,
            occupied: [0; LEVELS],
            slots: [[EMPTY; SLOTS]; LEVELS],
        }
    }

    /// How many timers wait, those included that no longer mean anything.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Hands out `token` once `at` has come; never, if that is [`Moment::NEVER`].
    pub fn set(&mut self, at: Moment, token: T) {
        if at == Moment::NEVER {
            return;
        }
        // Rounded up, so that nothing fires early; what is past is due now.
        let tick = (at.0 >> TICK_BITS) + u64::from(at.0.trailing_zeros() < TICK_BITS);
        let timer = Timer { tick: tick.max(self.tick), next: NONE, token };
        let index = if self.free == NONE {
            self.timers.push(timer);
            (self.timers.len() - 1) as u32
        } else {
            let index = self.free;
            self.free = self.timers[index as usize].next;
            self.timers[index as usize] = timer;
            index
        };
        assert!(index < NONE, "four billion timers");
        self.len += 1;
        self.link(index);
    }

    /// The next token that is due, in the order of ticks. Ask until there is none, or until the turn
    /// has done enough.
    pub fn pop_due(&mut self, now: Moment) -> Option<T> {
        let now = now.0 >> TICK_BITS;
        loop {
            let Some((level, tick)) = self.next_slot() else {
                self.tick = self.tick.max(now);
                return None;
            };
            if tick > now {
                // Still before the next slot, so every timer keeps its place.
                self.tick = self.tick.max(now);
                return None;
            }
            self.tick = tick;
            let slot = digit(tick, level);
            if level == 0 {
                return Some(self.unlink_first(slot));
            }
            let mut index = std::mem::replace(&mut self.slots[level][slot], EMPTY).first;
            self.occupied[level] &= !(1 << slot);
            while index != NONE {
                let next = self.timers[index as usize].next;
                self.link(index);
                index = next;
            }
        }
    }

    /// When to ask again. Exact within a wheel's digit: it may be early, never late.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.next_slot().map(|(_, tick)| Moment(tick << TICK_BITS))
    }

    /// The first slot with timers and the tick it begins with. A lower wheel is always sooner.
    fn next_slot(&self) -> Option<(usize, u64)> {
        for (level, &occupied) in self.occupied.iter().enumerate() {
            // Behind the present digit there is nothing: such timers have fired or moved down.
            if occupied != 0 {
                let slot = u64::from(occupied.trailing_zeros());
                let shift = DIGIT_BITS * level as u32;
                let above = self.tick >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
                return Some((level, above | slot << shift));
            }
        }
        None
    }

    /// Appends the timer to the slot that its tick asks for.
    fn link(&mut self, index: u32) {
        let timer = &mut self.timers[index as usize];
        timer.next = NONE;
        let differing = timer.tick ^ self.tick;
        let level = (differing | 1).ilog2() / DIGIT_BITS;
        let level = level as usize;
        let slot = digit(timer.tick, level);
        let place = &mut self.slots[level][slot];
        let last = std::mem::replace(&mut place.last, index);
        if last == NONE {
            place.first = index;
        } else {
            self.timers[last as usize].next = index;
        }
        self.occupied[level] |= 1 << slot;
    }

    fn unlink_first(&mut self, slot: usize) -> T {
        let place = &mut self.slots[0][slot];
        let index = place.first;
        let timer = self.timers[index as usize];
        place.first = timer.next;
        if timer.next == NONE {
            *place = EMPTY;
            self.occupied[0] &= !(1 << slot);
        }
        self.len -= 1;
        self.timers[index as usize].next = self.free;
        self.free = index;
        if self.len == 0 {
            // Nothing waits: the list of free places starts anew, a burst's memory goes back.
            self.timers.clear();
            self.timers.shrink_to(64);
            self.free = NONE;
        }
        timer.token
    }
}

impl<T: Copy> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

fn digit(tick: u64, level: usize) -> usize {
    (tick >> (DIGIT_BITS * level as u32)) as usize & (SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 1 << TICK_BITS;

    #[test]
    fn a_timer_has_24_bytes() {
        assert_eq!(size_of::<Timer<u64>>(), 24);
    }

    #[test]
    fn every_timer_fires_once_never_early_and_at_most_a_tick_late() {
        let mut dice = 11_u64;
        let mut roll = move || {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            dice >> 20
        };
        for start in [0, TICK * 63, 1 << 40, (1 << 59) - 5] {
            let mut wheel = Wheel::new();
            let mut waiting: Vec<Option<u64>> = Vec::new();
            let mut now = start;
            for _ in 0..4_000 {
                for _ in 0..roll() % 4 {
                    let at = now + roll() % (1 << (roll() % 44));
                    wheel.set(Moment(at), waiting.len());
                    waiting.push(Some(at));
                }
                // Small steps and leaps.
                now += roll() % (1 << (roll() % 40));
                let mut last = 0;
                while let Some(token) = wheel.pop_due(Moment(now)) {
                    let at = waiting[token].take().expect("once");
                    assert!(at <= now, "early");
                    assert!(at.div_ceil(TICK) >= last, "order of ticks");
                    last = at.div_ceil(TICK);
                }
                let soonest = waiting.iter().flatten().min();
                assert!(soonest.is_none_or(|&at| at + TICK > now), "late");
                match (wheel.next_deadline(), soonest) {
                    (Some(Moment(next)), Some(&at)) => {
                        assert!(next > now && next < at + TICK, "{next} {at} {now}");
                    }
                    (None, None) => {}
                    (next, soonest) => panic!("{next:?} {soonest:?}"),
                }
                assert_eq!(wheel.len(), waiting.iter().flatten().count());
                waiting.truncate(waiting.iter().rposition(Option::is_some).map_or(0, |it| it + 1));
            }
        }
    }

    #[test]
    fn never_is_never_and_the_end_of_time_is_reached() {
        let mut wheel = Wheel::new();
        wheel.set(Moment::NEVER, 'a');
        assert_eq!(wheel.next_deadline(), None);
        wheel.set(Moment(1 << 62), 'b');
        wheel.set(Moment(0), 'c');
        assert_eq!(wheel.next_deadline(), Some(Moment(0)));
        assert_eq!(wheel.pop_due(Moment(0)), Some('c'));
        assert_eq!(wheel.pop_due(Moment(1)), None);
        assert_eq!(wheel.pop_due(Moment(u64::MAX)), Some('b'));
        assert_eq!(wheel.pop_due(Moment(u64::MAX)), None);
    }
}
