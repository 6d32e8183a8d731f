//! What a run shall do, as plain values.

pub mod model;
