//! The control thread: everything that may wait.

pub mod authority;
pub mod store;
