//! Who hears of whose presence, and how one change reaches all of them.
//!
//! The home of a user (the *presentity*, RFC 2778) knows his [`Audience`]: contacts that see his
//! presence, dealt to the shards where they are at home. A change of presence goes as one record to
//! each of these shards, which expands it over the [`Watchers`] it remembers. The set carries a
//! version: a record of another version is **not** expanded, the set is asked for anew.

mod audience;
pub mod availability;
mod rewrite;
mod watchers;

pub use audience::{Audience, Share};
pub use rewrite::rewritten;
pub use watchers::{Set, Watchers};
