//! To be written.

pub mod authority;
