//! The commands of scenarios and results.

pub(crate) mod run;
