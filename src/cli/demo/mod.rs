//! `tandem demo`: two domains in conversation, with no set-up.

use std::path::Path;

use crate::cli::Exit;

pub(super) fn demo(_once: bool) -> Exit {
    Exit::Failed
}

pub(super) fn write(_folder: &Path) -> Exit {
    Exit::Failed
}
