//! The control thread: everything that may wait.

pub mod store;
