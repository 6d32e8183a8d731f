//! What played domains need beside their parties: certificates and names.
//!
//! Does **not** speak XMPP or SIP.

pub mod certificates;
pub mod names;
pub mod security;
