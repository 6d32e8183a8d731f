//! To be written.
pub mod sasl;
