//! `tandem ctl`: talks to the running node.

use std::path::Path;

use crate::cli::{CtlArgs, Exit};

pub(super) fn ctl(_args: CtlArgs) -> Exit {
    Exit::Unavailable
}

/// Adds an account.
pub(super) fn add_user(_socket: &Path, _address: &str, _password: &str) -> Result<(), String> {
    Err("not yet".to_owned())
}

/// Ends the node.
pub(super) fn stop(_socket: &Path) -> Result<(), String> {
    Err("not yet".to_owned())
}
