//! `tandem demo`: two domains in conversation, with no set-up.
#![expect(clippy::disallowed_methods, reason = "a client beside the switch reads the clock itself")]

use std::path::Path;

use crate::cli::Exit;

mod client;
mod dns;
mod element;
mod scram;

pub(super) fn demo(_once: bool) -> Exit {
    Exit::Failed
}

pub(super) fn write(_folder: &Path) -> Exit {
    Exit::Failed
}
