//! The commands of scenarios and results.

use std::process::ExitCode;

use clap::Subcommand;

pub(crate) mod compare;
pub(crate) mod run;
pub(crate) mod search;
pub(crate) mod selftest;

/// Commands that run more than once, or nothing but the generator's own server.
#[derive(Subcommand)]
pub(crate) enum More {
    /// Finds the highest rate that stays within an objective.
    Search(Box<search::Search>),
    /// What this host's generator can do, against its own server.
    Selftest(selftest::Selftest),
    /// The self-test's server alone: takes any password, passes messages on.
    Relay(selftest::Relay),
}

impl More {
    pub(crate) fn run(&self) -> Result<ExitCode, String> {
        match self {
            Self::Search(it) => it.run(),
            Self::Selftest(it) => it.run(),
            Self::Relay(it) => it.run(),
        }
    }
}
