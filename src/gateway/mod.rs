//! Between SIP and XMPP: what a partner and a user are to each other, rule by rule; decisions and texts
//! only.

pub mod address;
pub mod watch;
pub mod watched;
