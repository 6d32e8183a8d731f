//! `tandem run`: the node, in the foreground.

use std::path::Path;

use crate::admin::Exit;

pub(super) fn run(_path: &Path) -> Exit {
    Exit::Unavailable
}
