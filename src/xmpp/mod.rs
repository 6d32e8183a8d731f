//! The XMPP wire: octets to stanzas and back (RFC 6120).
//!
//! In reading order: `frame` cuts a stream into its header, its elements and its end; `scan` proves
//! an element and says in one pass what is in it (`stanza`); `splice` hands it on as ranges of the
//! original; `write` writes what is our own. `read` looks deeper into what is proven, for the rare
//! paths, and `payload` reads what has content. `forged`, which alone knows addresses, finds children
//! that speak in another's name. Knows **no** users and no time.

mod boundary;
mod chars;
pub mod dialback;
pub mod fault;
pub mod forged;
pub mod frame;
pub mod header;
mod namespace;
pub mod payload;
pub mod read;
pub mod sasl;
mod scan;
mod scope;
pub mod sm;
pub mod splice;
pub mod stanza;
pub mod stream;
pub mod write;
