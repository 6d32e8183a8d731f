//! `tandem run`: the node, in the foreground.

use std::path::Path;

use crate::cli::Exit;

pub(super) fn run(_path: &Path) -> Exit {
    Exit::Unavailable
}
