//! XMPP on the wire: bytes to words and back. Knows nothing of users.

pub mod dialback;
pub mod sasl;
