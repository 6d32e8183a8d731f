//! To be written.

/// Someone, in neither protocol, normalised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {}
