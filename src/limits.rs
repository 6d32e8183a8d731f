//! Every bound of the switch, and how the bounds relate.
//!
//! A number that costs memory, time or fairness stands here; a number that a protocol fixes stands
//! beside its machine with its section. Units are in the names.
//!
//! Long on purpose: one list, so that what a peer can cost us is computed on one page.

use std::time::Duration;

// Streams, before login (assurance: limits hold before parsing and before login).

/// Octets a client or peer may send before it has proven who it is.
pub const PRELOGIN_OCTETS_MAX: u64 = 8_192;
/// First-level elements before that.
pub const PRELOGIN_ELEMENTS_MAX: u32 = 32;
/// Depth of elements before that.
pub const PRELOGIN_DEPTH_MAX: u16 = 8;
/// From accept to the stream header, TLS included.
pub const OPENING_TIME_MAX: Duration = Duration::from_secs(5);
/// From accept to a bound resource or a proven domain.
pub const LOGIN_TIME_MAX: Duration = Duration::from_secs(15);
/// Failed logins on one stream before it is closed (RFC 6120, 6.4.6 asks for 2 to 5).
pub const LOGIN_ATTEMPTS_MAX: u8 = 3;

// Stanzas.

/// Octets of a stanza from a client.
pub const CLIENT_STANZA_BYTES_MAX: usize = 262_144;
/// Octets of a stanza from a peer.
pub const PEER_STANZA_BYTES_MAX: usize = 524_288;
/// RFC 6120, 13.12: a limit below this is not allowed.
const STANZA_BYTES_FLOOR: usize = 10_000;
/// Depth of elements in a stanza.
pub const STANZA_DEPTH_MAX: u16 = 64;
/// Elements in a stanza, itself included.
pub const STANZA_ELEMENTS_MAX: u32 = 65_536;
/// Attributes of one element.
pub const ATTRIBUTES_MAX: usize = 64;

// Users.

/// Bound resources of one account.
pub const RESOURCES_MAX: usize = 10;
/// Receivers of directed presence that one resource's end is told to.
pub const DIRECTED_MAX: usize = 100;

// Outboxes.

/// Below this an outbox has room again: a paused reader goes on.
pub const OUTBOX_LOW_BYTES: usize = 65_536;
/// Above this messages for a receiver go another way, and its own stream is not read.
pub const OUTBOX_HIGH_BYTES: usize = 262_144;
/// Never more than this: a stanza is added only below the high mark.
pub const OUTBOX_BYTES_MAX: usize = OUTBOX_HIGH_BYTES + PEER_STANZA_BYTES_MAX + 4_096;
/// Buffers a shard keeps for the next sends.
pub const SEND_BUFFERS_MAX: usize = 1_024;
/// A buffer that grew beyond this is given back to the allocator.
pub const SEND_BUFFER_KEEP_BYTES: usize = 16_384;

// Time.

/// What nobody acknowledged is looked at this often.
pub const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// Nothing stays in flight longer: one budget per stanza, from the framer on.
pub const IN_FLIGHT_TIME_MAX: Duration = Duration::from_secs(40);
/// Nothing heard for this long: we ask.
pub const IDLE_BEFORE_PING: Duration = Duration::from_secs(60);
/// Nothing heard for this long after that: the stream is dead.
pub const PING_ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// After `</stream:stream>` the far end gets this long for its own.
pub const STREAM_CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

// Ways to other domains.

/// Octets waiting for one domain pair.
pub const WAY_QUEUE_BYTES_MAX: usize = 1_048_576;
/// Stanzas waiting for one domain pair.
pub const WAY_QUEUE_STANZAS_MAX: usize = 10_000;
/// A stanza waits this long for a stream, then it bounces.
pub const WAY_QUEUE_TIME_MAX: Duration = Duration::from_secs(30);
/// Domain pairs a shard keeps at a time.
pub const WAYS_MAX: usize = 20_000;
/// DNS, per question.
pub const RESOLVE_TIME_MAX: Duration = Duration::from_secs(6);
/// TCP connect, per address.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// TLS and stream negotiation, per target.
pub const NEGOTIATE_TIME_MAX: Duration = Duration::from_secs(10);
/// We wait this long for the answer to a dialback key (ours, or one we verify).
pub const DIALBACK_TIME_MAX: Duration = Duration::from_secs(20);
/// First pause after all targets failed; doubles up to the next constant.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A way without traffic for this long is forgotten.
pub const WAY_IDLE_MAX: Duration = Duration::from_secs(600);
/// Domain pairs proven on one inbound stream.
pub const PAIRS_PER_STREAM_MAX: usize = 64;
/// Verifications that wait for one authoritative server.
pub const VERIFIES_PER_WAY_MAX: usize = 256;

const _: () = assert!(CLIENT_STANZA_BYTES_MAX > STANZA_BYTES_FLOOR);
const _: () = assert!(PEER_STANZA_BYTES_MAX > STANZA_BYTES_FLOOR);
const _: () = assert!(OUTBOX_LOW_BYTES < OUTBOX_HIGH_BYTES);
const _: () = assert!(OUTBOX_BYTES_MAX <= 1_048_576);
const _: () = assert!(WAY_QUEUE_TIME_MAX.as_secs() < IN_FLIGHT_TIME_MAX.as_secs());
const _: () = assert!(OPENING_TIME_MAX.as_secs() < LOGIN_TIME_MAX.as_secs());
