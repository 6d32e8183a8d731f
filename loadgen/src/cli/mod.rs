//! The commands of scenarios and results.

pub mod run;
