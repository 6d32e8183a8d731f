//! A SIP partner's words for scripts: messages as they are read by somebody else, and the calls of an
//! edge in the shapes that Microsoft's servers write. The scenes' edges speak through it.

pub mod call;
pub mod message;

pub use call::{Call, Identity};
pub use message::Message;
