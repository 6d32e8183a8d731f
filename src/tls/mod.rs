//! TLS as bytes in, bytes out, and whose certificate it is.
//!
//! - [`Session`] is one connection's TLS: cipher text in, clear text out, and back. No socket, no waiting.
//! - [`CertStore`] is what new sessions are made from: our certificates by domain, immutable; a reload makes
//!   another one and live sessions keep theirs.
//! - [`judge`] says whether a peer's certificate is believed, after the handshake; [`Names`] says for whom it
//!   speaks.
//!
//! This is the one module of the switch that touches rustls; the provider is named explicitly, never the process's default.
//! TLS 1.3, and 1.2 with ECDHE and AEAD (RFC 7590). There is **no** early data, **no** renegotiation (rustls
//! has none) and **no** session resumption: with ECDSA a resumed handshake costs a server 96 us of 105, a ticket
//! 230 bytes, and one that outlives a reload of certificates would be one more thing to explain.

mod chain;
mod faults;
mod identity;
mod session;
mod store;
mod verifiers;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

pub use chain::{ChainFault, Der, Roots, Unproven, Usage, Verdict, judge};
pub use faults::{MaterialFault, TlsFault};
pub use identity::{Names, Use};
pub use session::{Fed, Session};
pub use store::{CertStore, Material, MaterialSource};

use crate::time::Wall;

/// The wall clock as rustls sees it, shared by all shards: set by one thread that may read the real one, once a
/// second; more often would only move its cache line between cores.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Moves the clock to `now`.
    pub fn set(&self, now: Wall) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    /// What it was set to last.
    pub fn now(&self) -> Wall {
        Wall(self.0.load(Ordering::Relaxed))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_micros(self.now().0)))
    }
}
