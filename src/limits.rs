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

// ---- control ----

/// Operations that wait for the store; more are answered *busy* at once.
pub const STORE_QUEUE_MAX: usize = 4_096;
/// Writes that share one commit. More wait for the next: an answer is never older than two commits.
pub const STORE_GROUP_MAX: usize = 512;
/// Rows of one page of a list.
pub const STORE_PAGE_MAX: usize = 1_000;
/// Accounts of one bulk operation, which is one transaction.
pub const STORE_BULK_MAX: usize = 256;
/// How long SQLite waits for another process (a backup, say) that holds the file, in milliseconds.
pub const STORE_BUSY_MS_MAX: u64 = 5_000;
/// Jobs that wait for a worker of one pool; more are answered *unavailable* at once.
pub const WORKER_QUEUE_MAX: usize = 256;
/// Questions of all shards that are being answered; more are answered *unavailable* at once.
pub const QUESTIONS_MAX: usize = 8_192;
/// Answers and orders that wait for room in the lane to one shard.
pub const LANE_BACKLOG_MAX: usize = 16_384;
/// Domains that are being looked up.
pub const RESOLVE_MAX: usize = 256;
/// Answers of DNS that are kept until their TTL ends.
pub const DNS_CACHE_MAX: u64 = 4_096;
/// The longest a DNS answer is kept whatever its TTL says, in seconds.
pub const DNS_TTL_SECONDS_MAX: u64 = 3_600;
/// The longest an answer that there is nothing is kept, in seconds.
pub const DNS_NEGATIVE_TTL_SECONDS_MAX: u64 = 60;
/// One query of DNS, in milliseconds, with its retries.
pub const DNS_QUERY_MS_MAX: u64 = 5_000;
/// Kinds of notices (event and peer) that are folded apart; further peers share one fold per event.
pub const NOTICE_KINDS_MAX: usize = 1_024;
/// Characters of one value in a log line; the rest is cut.
pub const NOTICE_VALUE_CHARS_MAX: usize = 256;
/// Connections to the admin port.
pub const ADMIN_CONNS_MAX: usize = 64;
/// How long a connection to the admin port may take for a request, in milliseconds.
pub const ADMIN_REQUEST_MS_MAX: u64 = 5_000;
/// Connections to the control socket.
pub const CTL_CONNS_MAX: usize = 16;
/// One request or answer line on the control socket: an import of [`STORE_BULK_MAX`] users must fit.
pub const CTL_LINE_BYTES_MAX: usize = 1_048_576;
/// Rows of streams in one answer on the control socket.
pub const CTL_STREAMS_MAX: usize = 1_000;
/// Series of one scrape.
pub const METRIC_SERIES_MAX: usize = 10_000;
/// Octets of a password that is set by an operator: nobody types more, and hashing has a price.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

const _: () = assert!(STORE_GROUP_MAX <= STORE_QUEUE_MAX);
// An address has 3,071 octets at most (RFC 7622, 3.1); few do, and a batch may be made smaller.
const _: () = assert!(STORE_BULK_MAX * (1_024 + PASSWORD_BYTES_MAX) <= CTL_LINE_BYTES_MAX);
