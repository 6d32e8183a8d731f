//! Time as the core sees it: it comes in as an argument, twice.
//!
//! Monotonic time drives timers, wall time stamps what people read. The core never asks a clock;
//! `net` reads both once a turn and the simulated world makes them up.

use std::ops::Add;
use std::time::Duration;

/// Monotonic time in nanoseconds since the process started. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

/// Wall time in microseconds since 1970-01-01 UTC. May jump; never drives a timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub u64);

/// Both clocks, read once at the start of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timers and deadlines.
    pub moment: Moment,
    /// For stamps, certificates and stored expiries.
    pub wall: Wall,
}

impl Moment {
    /// Later than anything that happens.
    pub const NEVER: Self = Self(u64::MAX);

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    /// Saturates at [`Moment::NEVER`].
    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}
