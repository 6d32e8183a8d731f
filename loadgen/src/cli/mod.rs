//! The commands of scenarios and results.

pub(crate) mod run;
pub(crate) mod search;
pub(crate) mod selftest;
