//! What a shard tells about itself: counters, the account, streams. Plain data for the control
//! thread to merge; nobody else reads a shard's memory.

/// A metric's name, its labels by name, its value. Counters end in `_total`.
pub type Figure = (&'static str, Vec<(&'static str, &'static str)>, u64);

/// A snapshot of one shard.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub shard: u16,
    /// The closed set of names stands in `counters.rs`; the control thread sums over shards.
    pub figures: Vec<Figure>,
    /// One row per stream, if asked for.
    pub streams: Vec<StreamRow>,
}

/// A stream as `tandem ctl streams` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRow {
    /// `c2s`, `s2s-in` or `s2s-out`.
    pub kind: &'static str,
    /// The far end: full JID of a client, domain of a peer, empty before it is known.
    pub far: String,
    /// Our domain.
    pub near: String,
    /// State in a word: `opening`, `securing`, `bound`, `open`...
    pub state: &'static str,
    /// Remote address and port.
    pub remote: String,
    /// TLS version and suite, or empty.
    pub tls: String,
    /// Seconds since the connection stood.
    pub age_seconds: u64,
    /// Octets waiting to be sent.
    pub outbox_bytes: u64,
}

/// One thing an operator should read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Stable id, such as `peer_setup_failed`.
    pub event: &'static str,
    /// `key=value` pairs after it; values of peers are escaped by whoever prints them.
    pub fields: Vec<(&'static str, String)>,
}
