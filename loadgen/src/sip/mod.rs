//! The SIP side of a run: an edge of a partner, its connections, and what it says.
//!
//! Own reader and own templates, nothing of the switch's: it finds what it needs by byte search in
//! messages whose header names are written as RFC 3261 writes them (which all measured servers do),
//! and trusts what it was told. Does **not** speak TLS or UDP, and repeats nothing: TCP loses nothing.

pub mod chat;
mod contact;
pub mod dialog;
pub mod edge;
pub mod partner;
pub mod raw;
mod session;
pub mod stage;
pub mod text;
pub mod watch;
