//! To be written.

/// What DNS said of a domain.
#[derive(Clone, Debug)]
pub struct Records {}

/// Why there are no records.
#[derive(Clone, Debug)]
pub struct LookupFault {}
