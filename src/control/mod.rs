//! The control thread: everything that may wait.
pub mod lanes;
pub mod notices;
pub mod passwords;
pub mod resolver;
pub mod store;
pub mod workers;
