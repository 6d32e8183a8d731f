//! `tandem-bench`: the denominators, and the bars measured against them.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod against;
mod bars;
mod count;
mod counting;
mod federation;
mod index;
mod page;
mod relay;
mod scan;
mod scripted;
mod servers;
mod sip;
#[cfg(test)]
mod tests;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Measures Tandem against the bare kernel and its peers.
#[derive(Parser)]
#[command(version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Passes bytes between paired connections unread.
    BareRelay(relay::Relay),
    /// Takes logins by a script and knows nobody.
    Scripted(scripted::Scripted),
    /// Measures bars, each on its own line.
    Bars(Box<bars::Bars>),
    /// Runs the load generator's scenarios against each server and keeps its reports.
    Against(against::Against),
    /// Counts instructions of the core and compares them with what was accepted.
    Count(count::Count),
    /// Makes the page of a run again from its file.
    Report(bars::Report),
}

fn main() -> ExitCode {
    let done = match Line::parse().command {
        Command::BareRelay(relay) => relay.run().map_err(|e| e.to_string()),
        Command::Scripted(scripted) => scripted.run().map_err(|e| e.to_string()),
        Command::Bars(bars) => bars.run(),
        Command::Against(against) => against.run(),
        Command::Count(count) => count.run(),
        Command::Report(report) => report.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Standard error may be closed; there is nobody left to tell.
            drop(writeln!(io::stderr(), "tandem-bench: {fault}"));
            ExitCode::FAILURE
        }
    }
}
