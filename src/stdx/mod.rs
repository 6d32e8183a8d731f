//! What std lacks: a seeded map, a slab with generations, a bounded queue, a timer wheel,
//! fields of what is kept.
//!
//! All of them are deterministic: no clock, no random state, no order that depends on an address in
//! memory. All of them have a bound or hold what the caller bounds.

mod bounded;
pub mod fields;
mod map;
mod slab;
#[cfg(test)]
pub(crate) mod table;
mod wheel;

pub use bounded::Bounded;
pub use map::{Entry, Map, Seeded};
pub use slab::{Key, Slab};
pub use wheel::Wheel;
