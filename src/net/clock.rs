//! Both clocks and the kernel's entropy: read here and nowhere below.
//!
//! Does **not** keep wall time steady: it may jump, and nothing that waits looks at it.

use std::io;
use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::shard::kernel::Seeds;
use crate::time::{Moment, Now, Wall};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Both clocks, now.
pub fn now() -> Now {
    Now { moment: moment(), wall: wall() }
}

/// Monotonic time since the first look at this clock.
pub fn moment() -> Moment {
    Moment(u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn wall() -> Wall {
    // A clock before 1970 is broken; zero then is as good as anything.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Fresh randomness for one engine.
pub fn seeds() -> io::Result<Seeds> {
    let mut hash = [0; 8];
    let mut ids = [0; 32];
    getrandom::fill(&mut hash).map_err(|error| io::Error::other(error.to_string()))?;
    getrandom::fill(&mut ids).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Seeds { hash: u64::from_ne_bytes(hash), ids })
}

/// Whether somebody keeps the wall clock right (adjtimex); `None` if the kernel won't tell.
pub fn is_synchronised() -> Option<bool> {
    // SAFETY: all zeroes are a valid `timex`, and `modes` of zero asks without setting.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer describes `state`, which lives through the call.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    (result >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}
