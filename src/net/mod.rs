//! The kernel side: sockets, rings, clock, entropy; the only `unsafe` of the project.
//!
//! [`run`] starts a node's shards. Under each engine turns a pump (`pump.rs`), which speaks
//! through a driver: `ring.rs` (io_uring) or its twin `epoll.rs`. Shards reach each other through
//! `mesh.rs` and everybody else through `lanes.rs`. Read `pump.rs` first.
//!
//! Does **not** look into a byte that it carries.

pub mod clock;

mod buffers;
mod conns;
mod datagrams;
mod driver;
mod epoll;
mod lanes;
mod mesh;
mod node;
mod phases;
mod probe;
mod pump;
mod ring;
mod surface;
mod sys;

pub use lanes::{ControlHandle, Questions, Unsent};
pub use node::{Interface, Joiner, Plan, Running, StartError, abort_on_panic, run};
pub use probe::{Unusable, ring_usable};
