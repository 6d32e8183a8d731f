//! The program: parses the command line and hands over.

use std::process::ExitCode;

use clap::Parser as _;
use tandem::cli::Cli;

/// Connections cost small allocations on every core; this one does not lock between them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().act().into()
}
