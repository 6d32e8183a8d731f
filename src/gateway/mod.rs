//! Between SIP and XMPP.

pub mod address;
