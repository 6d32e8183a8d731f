//! Unguessable octets from a seed: the core asks no kernel for them, so the simulated world can
//! repeat a run. In service the seed comes from the kernel's entropy, once per shard.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

#[derive(Debug)]
pub(crate) struct Random(ChaCha20Rng);

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// RFC 6120, 4.7.3: a stream id must be unguessable; dialback keys depend on it. 128 bits.
    pub(crate) fn id(&mut self) -> String {
        format!("{:016x}{:016x}", self.0.next_u64(), self.0.next_u64())
    }

    /// A SASL nonce: printable, without a comma (RFC 5802, 7).
    pub(crate) fn nonce(&mut self) -> String {
        self.id()
    }
}
