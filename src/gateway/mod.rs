//! Between SIP and XMPP.

pub mod address;
pub mod watch;
