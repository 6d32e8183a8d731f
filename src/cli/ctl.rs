//! `tandem ctl`: talks to the running node.

use crate::cli::{CtlArgs, Exit};

pub(super) fn ctl(_args: CtlArgs) -> Exit {
    Exit::Unavailable
}
