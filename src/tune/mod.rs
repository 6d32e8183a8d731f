//! What a host should be like for a node or for the load generator, and whether it is.
//!
//! The knobs are data: `tuning/*.toml`, built in. From it come the comparison with the host
//! ([`check()`]), and the same in other clothes ([`export`]): TuneD profile, sysctl.d, limits.d,
//! drop-in of the unit. Nothing here writes to the host; it does **not** yet apply or roll back.

mod advise;
mod check;
pub mod export;
mod host;
mod persisted;
mod probe;
mod profile;
mod read;
#[cfg(test)]
mod tests;
mod want;

pub use advise::{Advice, advise};
pub use check::{Found, Outcome, Report, Row, check};
pub use host::{Host, Unread, Virtual};
pub use persisted::Persisted;
pub use profile::{
    How, Kind, Knob, Profile, Role, Scope, Severity, Unknown, built_in, find, from_file, names,
};
pub use want::Want;
