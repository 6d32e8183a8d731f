//! To be written.

// ---- tls ----

/// Certificates of one peer chain that are looked at; a longer chain is not judged.
pub const TLS_CHAIN_CERTIFICATES_MAX: usize = 10;
/// Names of one certificate that are kept; what stands behind them counts as absent.
pub const TLS_NAMES_MAX: usize = 1_024;
/// Bytes of clear text that go into one TLS record (RFC 8446, 5.1).
pub const TLS_RECORD_BYTES_MAX: usize = 16_384;
/// Our own certificate must be good for at least this long when it is loaded, in seconds.
pub const TLS_OWN_VALIDITY_SECONDS_MIN: u64 = 3_600;

// ---- dns ----

/// SRV records of one domain that are used, both services together.
pub const DNS_SRV_MAX: usize = 64;
/// Addresses of one domain that are tried, all hosts together.
pub const DNS_ADDRESSES_MAX: usize = 64;
/// Targets whose failure is remembered by one shard.
pub const DNS_FAILURES_MAX: usize = 1_024;
