//! The engine: one core's worth of everything, put together, without a kernel.
//!
//! A shard takes events and `now`, decides, and hands back bytes and requests through the
//! [`kernel::Kernel`] it is given. `net` gives it a real one, the simulated world a scripted one.
//! Read `step.rs` first.

pub mod kernel;
pub mod settings;
pub mod report;

pub use report::{Notice, Report};

/// A connection on its way to another shard: everything about it but the descriptor.
#[derive(Debug)]
pub struct Parcel {}
