//! The SIP wire: octets to messages and back (RFC 3261, 7, 18.3, 25).
//!
//! In reading order: `frame` cuts a stream or a datagram into messages; `message` says in one pass
//! where the headers of one are; `header` and `uri` read a value when somebody asks for it; `check`
//! judges what every request must hold, and `alike` knows
//! one that is like a request which was judged; `write` writes what is our own and what is echoed; `dialog`
//! is what two parties remember; `sdp` and `multipart` read bodies. Knows **no** users, no connections
//! and no time.

mod alike;
mod chars;
mod check;
pub mod dialog;
pub mod fault;
pub mod frame;
pub mod header;
pub mod message;
pub mod method;
pub mod multipart;
pub mod name;
pub mod sdp;
mod span;
pub mod transaction;
pub mod uri;
pub mod write;

pub use alike::Alike;
pub use chars::unfold;
pub use fault::Fault;
pub use header::{NameAddr, Params, Via};
pub use message::{Index, Message};
pub use method::Method;
pub use name::Name;
pub use uri::Uri;
