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
/// Octets of a stanza's id or addresses as written: answers repeat them, longer by their escapes.
pub const STANZA_ATTRIBUTE_OCTETS_MAX: usize = 4_096;
/// Depth of elements in a stanza.
pub const STANZA_DEPTH_MAX: u16 = 64;
/// Elements in what a server offers that we called and that has proven nothing yet.
pub const FEATURES_ELEMENTS_MAX: u32 = 512;
/// Elements in a stanza, itself included.
pub const STANZA_ELEMENTS_MAX: u32 = 65_536;
/// Attributes of one element.
pub const ATTRIBUTES_MAX: usize = 64;

// SIP messages.

/// Octets of a SIP message's start line and headers. Microsoft's routing data alone takes several KiB.
pub const SIP_HEAD_BYTES_MAX: usize = 32_768;
/// Octets of a whole SIP message.
pub const SIP_MESSAGE_BYTES_MAX: usize = 131_072;
/// Header fields of one SIP message.
pub const SIP_HEADERS_MAX: usize = 512;
/// Values of Via in one SIP message: each costs a look, and an answer repeats them all.
pub const SIP_VIAS_MAX: usize = 100;
/// Octets of a Call-ID, a tag or a branch: dialogs and transactions keep them.
pub const SIP_KEY_BYTES_MAX: usize = 1_024;

const _: () = assert!(SIP_HEAD_BYTES_MAX < SIP_MESSAGE_BYTES_MAX);

// Users.

/// Bound resources of one account.
pub const RESOURCES_MAX: usize = 10;
/// Users whose streams were ended within a login's time: their late comers are known by it.
pub const KICKED_MAX: usize = 1_024;
/// Receivers of directed presence that one resource's end is told to.
pub const DIRECTED_MAX: usize = 100;

/// Stanzas that wait for one user's record or for a change of it.
pub const GATE_STANZAS_MAX: usize = 256;
/// Of these places, kept for what the user does himself.
pub const GATE_OWN_MIN: usize = 64;
/// Octets of these.
pub const GATE_BYTES_MAX: usize = 1_048_576;
/// How long they wait before they go back.
pub const GATE_TIME_MAX: Duration = Duration::from_secs(5);
/// A record that nobody needs stays in memory for so long.
pub const RECORD_IDLE_TIME: Duration = Duration::from_secs(60);
/// Records of a shard that stay though nobody needs them.
pub const RECORDS_IDLE_MAX: usize = 10_000;
/// Watchers that a shard remembers for presentities, all sets together.
pub const WATCHERS_MAX: usize = 1_000_000;
/// Messages that wait in the store for one user.
pub const OFFLINE_MESSAGES_MAX: u32 = 1_000;
/// Octets of one of them; a longer one is not stored.
pub const STORED_MESSAGE_OCTETS_MAX: usize = 65_536;
/// Octets of a presence that is broadcast: it is told to many.
pub const PRESENCE_BYTES_MAX: usize = 16_384;
/// Of these, fetched at once.
pub const MESSAGES_FETCHED_MAX: u32 = 50;
/// More are fetched when no more than these were handed out and not acknowledged.
pub const MESSAGES_OUT_LOW: u32 = 25;
/// A stored message that its receiver did not take is offered again after this.
pub const MESSAGES_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Stored messages that resources of one shard were handed and have not acknowledged.
pub const STORED_OUT_MAX: u32 = 1_000_000;
/// Questions to the store that a shard has open.
pub const STORE_JOBS_MAX: u32 = 65_536;
// Rosters and privacy lists.

/// Items of one roster that clients see.
pub const ROSTER_ITEMS_MAX: usize = 1_000;
/// Octets of all of them as a client is told, which is one stanza.
pub const ROSTER_OCTETS_MAX: usize = 262_144;
/// Groups of one item.
pub const ITEM_GROUPS_MAX: usize = 32;
/// Octets of an item's name, and of each of its groups.
pub const ITEM_TEXT_OCTETS_MAX: usize = 1_023;
/// Requests of one user's contacts that wait for his answer; a further one is not kept.
pub const REQUESTS_MAX: usize = 100;
/// Of these, requests of one other domain.
pub const REQUESTS_OF_DOMAIN_MAX: usize = 25;
/// Octets of such a request as it is kept; of a longer one only the address is.
pub const REQUEST_OCTETS_MAX: usize = 4_096;
/// Addresses on one of a user's lists of blocked, allowed or denied.
pub const RULES_MAX: usize = 1_000;

/// Octets of the addresses on one such list: it goes to a client in one stanza.
pub const RULES_BYTES_MAX: usize = 65_536;

// Services.

/// Octets of a contact card.
pub const VCARD_BYTES_MAX: usize = 65_536;
/// Octets of one element of private data.
pub const PRIVATE_BYTES_MAX: usize = 65_536;
/// Elements of private data that a user keeps.
pub const PRIVATE_ELEMENTS_MAX: usize = 64;
/// Octets of the name of such an element, its namespace included.
pub const PRIVATE_NAME_BYTES_MAX: usize = 512;
/// Questions of a shard whose answers wait for the store.
pub const LATER_MAX: u32 = 16_384;
/// Of these, of one asker; the next is told to wait.
pub const LATER_PER_ASKER_MAX: u32 = 32;
/// Stanzas that are held for a client which nobody looks at.
pub const HELD_STANZAS_MAX: usize = 256;
/// About as many octets: one more stanza may be added below that.
pub const HELD_BYTES_MAX: usize = 131_072;
/// How long such a question waits before it is answered with an error.
pub const LATER_TIME_MAX: Duration = Duration::from_secs(30);

// Outboxes.

/// Below this an outbox has room again: a paused reader goes on.
pub const OUTBOX_LOW_BYTES: usize = 65_536;
/// Above this, behind a send that is out, presence is held, the newest of each sender.
pub const OUTBOX_SLOW_BYTES: usize = 16_384;
/// Above this messages for a receiver go another way, and its own stream is not read.
pub const OUTBOX_HIGH_BYTES: usize = 262_144;
/// Never more than this: a stanza is added only below the high mark, and what a resumed session
/// held is within it too.
pub const OUTBOX_BYTES_MAX: usize = 1_048_576;
/// Sends to one connection that go out before we look whether they arrived: a look is a call of the
/// kernel, and what is not looked at keeps its buffer, which is out of the cache when it comes back.
pub const FLIGHTS_BEFORE_LOOK: usize = 4;
/// So many octets in them are looked for as well.
pub const FLIGHT_BYTES_BEFORE_LOOK: u64 = 16_384;
/// Octets of buffers that a shard keeps for the next sends.
pub const SEND_BUFFERS_BYTES_MAX: usize = 16_777_216;
/// Buffers that nobody took for so long go back to the allocator.
pub const TRIM_EVERY: Duration = Duration::from_secs(1);
/// A buffer that grew beyond this is given back to the allocator.
pub const SEND_BUFFER_KEEP_BYTES: usize = 4_096;

// Stream management (XEP-0198).

/// What we may add to a stanza: addresses and their escapes, a wrapper.
pub const STANZA_SLACK_BYTES: usize = 16_384;
/// Stanzas written to a client that it has not acknowledged; then no more is written.
pub const UNACKED_STANZAS_MAX: usize = 1_000;
/// The same in octets: a stanza is added only below this.
pub const UNACKED_HIGH_BYTES: usize = OUTBOX_BYTES_MAX - PEER_STANZA_BYTES_MAX - STANZA_SLACK_BYTES;
/// Octets of answers that may wait before a session that is resumed.
pub const RESUMING_WAITING_MAX: usize = 8_192;
/// Stanzas of a client that are not handed on yet; then it is not read.
pub const UNHANDLED_STANZAS_MAX: usize = 1_000;
/// Below this it is read again.
pub const UNHANDLED_STANZAS_LOW: usize = 500;
/// After so many stanzas a client is asked what it has handled.
pub const ASK_EVERY_STANZAS: u32 = 16;
/// After this time it is asked too.
pub const ASK_EVERY: Duration = Duration::from_secs(1);
/// Whoever was asked so lately is not asked again for a single stanza.
pub const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A session whose connection is lost waits this long for another.
pub const SESSION_TIME_MAX: Duration = Duration::from_secs(300);
/// A message that nobody has acknowledged after this time is stored.
pub const SPILL_AFTER: Duration = Duration::from_secs(1);
/// Ended sessions of a shard whose count is remembered, for clients that come too late.
pub const SESSIONS_REMEMBERED_MAX: usize = 1_024;

// Time.

/// What nobody acknowledged is looked at this often.
pub const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// Octets of answers that wait for room in other shards' rings.
pub const POSTS_KEPT_BYTES_MAX: usize = 16_777_216;
/// What found no room in another shard's ring is offered again after this.
pub const POST_AGAIN_AFTER: Duration = Duration::from_millis(1);
/// Nothing stays in flight longer: one budget per stanza, from the framer on.
pub const IN_FLIGHT_TIME_MAX: Duration = Duration::from_secs(40);
/// One try to hand a stanza to a receiver: the kernel breaks a connection that takes nothing.
pub const TRY_TIME_MAX: Duration = Duration::from_secs(30);
/// Nothing heard for this long: we ask.
pub const IDLE_BEFORE_PING: Duration = Duration::from_secs(60);
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
/// Of these, shown and not judged yet: each makes us look up a domain of the stranger's choice.
pub const PAIRS_UNPROVEN_MAX: usize = 4;
/// Verifications that wait for one authoritative server.
pub const VERIFIES_PER_WAY_MAX: usize = 256;

// SIP dialogs.

/// Dialogs of a shard's users with partners: some 1 KiB each.
pub const SIP_DIALOGS_MAX: usize = 200_000;
/// Requests of a shard that wait for the dialogs of before a restart to be loaded.
pub const SIP_RESTORING_MAX: usize = 4_096;
/// Contacts of a shard's users whose state is being asked for once, without a subscription.
pub const FETCHES_MAX: usize = 1_024;
/// Peers that a shard remembers without need: those that can't be reached, or that many requests wait
/// for, come on top.
pub const SIP_PEERS_MAX: usize = 1_024;
/// A subscription that is granted for less counts as granted for this: nobody refreshes faster.
pub const GRANTED_MIN: Duration = Duration::from_secs(60);
/// A user who was not seen for so long has his subscriptions refreshed no more.
pub const WATCH_UNSEEN_MAX: Duration = Duration::from_secs(30 * 86_400);
/// A login has subscriptions refreshed of which nothing was heard for this long.
pub const WATCH_STALE_AFTER: Duration = Duration::from_secs(600);
/// A subscription whose user's record can't be had is looked at again after this.
pub const WATCH_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// First pause after a failed SUBSCRIBE; doubles up to the next constant.
pub const WATCH_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
pub const WATCH_BACKOFF_MAX: Duration = Duration::from_secs(600);
/// The same where an administrator has to do something first.
pub const WATCH_HOLD_MIN: Duration = Duration::from_secs(3_600);
/// Longest pause of these.
pub const WATCH_HOLD_MAX: Duration = Duration::from_secs(86_400);
/// So often a peer that finds the asked time too short is obeyed in a row.
pub const WATCH_BRIEF_MAX: u32 = 2;
/// A dialog that ends sooner was none: what replaces it waits longer each time.
pub const WATCH_YOUNG: Duration = Duration::from_secs(60);
/// When a peer is back, a dialog is not refreshed sooner than this after something was heard in it.
pub const WATCH_FLAP: Duration = Duration::from_secs(5);
/// What was seen of a contact is shown for this long after its notifier ended the dialog, while a
/// new one is made.
pub const WATCH_GRACE: Duration = Duration::from_secs(40);

// SIP transactions and ways.

/// Requests of partners that a shard is answering: some 2 KiB each.
pub const SIP_SERVERS_MAX: u32 = 65_536;
/// Requests of ours that a shard's connections wait for: some 4 KiB each.
pub const SIP_CLIENTS_MAX: u32 = 65_536;
/// Requests that users of a shard wait for.
pub const SIP_ASKS_MAX: u32 = 131_072;
/// An INVITE that its home has not answered after this time is refused.
pub const SIP_INVITE_TIME_MAX: Duration = Duration::from_secs(180);
/// The home waits so much longer for an answer than its way.
pub const SIP_ANSWER_GRACE: Duration = Duration::from_secs(5);
/// Targets that one request is sent to, one after the other.
pub const SIP_TRIES_MAX: u8 = 3;
/// With less time left no other target is tried.
pub const SIP_TRY_TIME_MIN: Duration = Duration::from_secs(2);
/// Requests that wait for one peer.
pub const SIP_WAY_QUEUE_MAX: usize = 16_384;
/// Octets of these.
pub const SIP_WAY_QUEUE_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// This share of a peer's rate may go at once: with what is spread over the second behind it, no
/// second holds more than the rate.
pub const SIP_PACE_BURST_SHARE: u32 = 4;
/// The longest that a peer's Retry-After is obeyed.
pub const SIP_REST_MAX: Duration = Duration::from_secs(120);
/// Distinct URIs that new requests to one peer went to, when its operator is warned: an Edge blocks
/// who asks for more than 1,000.
pub const SIP_URIS_WARN: usize = 800;
/// The longest pause before a peer is tried again: one that is back is found within seconds.
pub const SIP_BACKOFF_MAX: Duration = Duration::from_secs(8);
/// A connection that has shown nothing yet gets this long for its first request.
pub const SIP_FIRST_TIME_MAX: Duration = Duration::from_secs(30);
/// The rest of a message that has begun comes within this time.
pub const SIP_MESSAGE_TIME_MAX: Duration = Duration::from_secs(20);
/// A connection without any traffic for this long is closed.
pub const SIP_IDLE_MAX: Duration = Duration::from_secs(600);
/// Ways whose requests one connection carries: domains of ours that it was used for.
pub const SIP_WAYS_PER_CONN_MAX: usize = 16;
/// Domains that one connection has proven to speak for, an edge's many.
pub const SIP_CLEARED_MAX: usize = 1_024;
/// A peer that was lost in the middle of things is looked for this long, whoever needs it.
pub const SIP_PROBE_TIME_MAX: Duration = Duration::from_secs(7_200);
/// Heads of texts that a shard remembers, so that the next of a dialog is not judged again: some 4 KiB
/// each. An even number.
pub const SIP_ALIKES_MAX: usize = 4_096;
/// Octets of one of these.
pub const SIP_ALIKE_BYTES_MAX: usize = 3_072;
/// Headers of one of these.
pub const SIP_ALIKE_LINES_MAX: usize = 64;
/// Domains whose SRV targets a shard remembers.
pub const SIP_TARGETS_KEPT_MAX: usize = 4_096;
/// They are believed at least so long.
pub const SIP_TARGETS_TIME_MIN: Duration = Duration::from_secs(30);
/// And at most so long.
pub const SIP_TARGETS_TIME_MAX: Duration = Duration::from_secs(3_600);

// Instant messages over SIP.

/// From an INVITE of ours to its final answer, and from a text to its outcome: below the 40 s of its
/// account, above the 10 s that Microsoft's clients may take.
pub const IM_ANSWER_TIME_MAX: Duration = Duration::from_secs(38);
/// So long after a text's time the answer to its MESSAGE is waited for no more.
pub const IM_OVERDUE_TIME: Duration = Duration::from_millis(1_500);
/// A dialog in which nothing is said ends, as those of Microsoft's clients do.
pub const IM_IDLE_TIME_MAX: Duration = Duration::from_secs(900);
/// Dialogs of one session that may be invited to; ours that end may be as many more.
pub const IM_LEGS_MAX: usize = 4;
/// Texts of one session that wait for its dialog.
pub const IM_TEXTS_WAITING_MAX: usize = 64;
/// From a text outside of any dialog to its outcome: its home waits a little longer than its way.
pub const PAGE_ANSWER_TIME_MAX: Duration = Duration::from_secs(34);
/// Octets of one text; what a partner takes is not known before it refuses.
pub const IM_TEXT_BYTES_MAX: usize = 65_536;
/// Sessions of a shard's users.
pub const IM_SESSIONS_MAX: u32 = 100_000;
/// Requests of those sessions whose answers are not known yet.
pub const IM_ASKS_MAX: u32 = 200_000;
/// Texts of partners whose outcome is not known yet; one more is told to wait.
pub const IM_GIVEN_MAX: usize = 65_536;
/// Answers to messages that are given again when the message comes again: of one dialog.
pub const IM_ANSWERS_MAX: usize = 32;
/// The same of a shard, for messages outside of any dialog.
pub const PAGE_ANSWERS_MAX: usize = 16_384;

const _: () = assert!(
    PAGE_ANSWER_TIME_MAX.as_millis() + SIP_ANSWER_GRACE.as_millis()
        < IN_FLIGHT_TIME_MAX.as_millis()
);
const _: () = assert!(
    IM_ANSWER_TIME_MAX.as_millis() + IM_OVERDUE_TIME.as_millis() < IN_FLIGHT_TIME_MAX.as_millis()
);

// net: the pump, the mesh and the lanes.

/// Connections that may wait in a listener's accept queue; the kernel caps it at somaxconn, so a
/// host that raises that (`tandem tune`) has nothing else to change.
pub const ACCEPT_BACKLOG_MAX: i32 = 65_535;
/// Octets of the longest datagram that is taken: as many as UDP can carry.
pub const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Datagrams taken from all sockets of a shard in a turn.
pub const DATAGRAMS_PER_TURN_MAX: u32 = 128;
/// Connections accepted from one listener and turn by the epoll twin.
pub const ACCEPTS_PER_TURN_MAX: u32 = 64;
/// How long accepting rests when no descriptor is left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Descriptors kept free for the store, lookups and the admin port.
pub const DESCRIPTORS_RESERVED: u64 = 64;
/// What we sent must be acknowledged after this time, or the connection breaks (RFC 5482).
pub const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);
/// After we shut our side down the far end has this long to close its own.
pub const LINGER: Duration = Duration::from_secs(5);
/// Receive buffers of a shard's ring. A power of two, at most 32,768.
pub const RECEIVE_BUFFERS: u16 = 512;
/// Octets in one of them.
pub const RECEIVE_BUFFER_BYTES: u32 = 2_048;
/// Octets the epoll twin receives at once.
pub const SCRATCH_BYTES: usize = 64 * 1_024;
/// The longest spin before a shard sleeps, in microseconds.
pub const SPIN_US_MAX: u32 = 50;
/// Octets of one mesh ring, per ordered pair of shards. A power of two.
pub const MESH_RING_BYTES: usize = 256 * 1_024;
/// Longer records go by pointer, so one of them can't fill a ring.
pub const MESH_INLINE_BYTES_MAX: usize = 16 * 1_024;
/// Octets of records by pointer that may be under way in one mesh ring.
pub const MESH_BOXED_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Octets that wait on the producer's side when a mesh ring is full.
pub const MESH_OVERFLOW_BYTES_MAX: usize = 1_024 * 1_024;
/// Records of other shards taken in one turn.
pub const MESH_RECORDS_PER_TURN_MAX: u32 = 4_096;
/// How long a shard with mesh records or connections to hand over that found no room may sleep.
pub const MESH_RETRY: Duration = Duration::from_millis(1);
/// Connections under way to one shard.
pub const CROSSINGS_MAX: usize = 1_024;
/// Connections of other shards taken in one turn.
pub const CROSSINGS_PER_TURN_MAX: u32 = 256;
/// Answers and orders waiting for one shard.
pub const CONTROL_LANE_MAX: usize = 4_096;
/// Answers and orders taken by a shard in one turn.
pub const CONTROL_PER_TURN_MAX: u32 = 256;
/// Questions of all shards waiting for the control thread.
pub const QUESTIONS_MAX: usize = 8_192;
// TLS.

/// Certificates of one peer chain that are looked at; a longer chain is not judged.
pub const TLS_CHAIN_CERTIFICATES_MAX: usize = 10;
/// Names of one certificate that are kept; what stands behind them counts as absent.
pub const TLS_NAMES_MAX: usize = 1_024;
/// Bytes of clear text that go into one TLS record (RFC 8446, 5.1).
pub const TLS_RECORD_BYTES_MAX: usize = 16_384;
/// Our own certificate must be good for at least this long when it is loaded, in seconds.
pub const TLS_OWN_VALIDITY_SECONDS_MIN: u64 = 3_600;

// DNS.

/// SRV records of one domain that are used, both services together.
pub const DNS_SRV_MAX: usize = 64;
/// Addresses of one domain that are tried, all hosts together.
pub const DNS_ADDRESSES_MAX: usize = 64;
/// NAPTR records of one SIP domain that are followed.
pub const DNS_NAPTR_MAX: usize = 8;
/// Targets whose failure is remembered by one shard.
pub const DNS_FAILURES_MAX: usize = 1_024;

/// Connections of one address that have not shown yet who they are, unless the operator says
/// otherwise: an office behind one address after a power cut.
pub const STRANGERS_PER_ADDRESS: u32 = 1_024;

// In front of SIP connections.

/// A header of the PROXY protocol: addresses, names and what a balancer adds take some hundred octets.
pub const PROXY_HEADER_BYTES_MAX: usize = 2_048;

// The gateway.

/// Multiparts within multiparts of a SIP body; what is deeper is of no use.
pub const BODY_DEPTH_MAX: usize = 5;
/// Parts of a SIP body, all its multiparts together; further ones are not looked at.
pub const BODY_PARTS_MAX: usize = 64;
/// Groups within groups of an RTF text; a deeper one is no text.
pub const RTF_DEPTH_MAX: usize = 64;
/// Elements and texts of a small document: isComposing, KeyboardActivity.
pub const GATEWAY_XML_EVENTS_MAX: usize = 256;
/// Elements and texts of a presence document.
pub const PIDF_EVENTS_MAX: usize = 16_384;
/// Elements open at once in one.
pub const PIDF_DEPTH_MAX: usize = 32;
/// Tuples of one.
pub const PIDF_TUPLES_MAX: usize = 128;
/// Octets of a note that is carried over; the rest is cut.
pub const NOTE_OCTETS_MAX: usize = 4_096;

// Written down, an octet may become six, and the addresses stand beside it.
const _: () = assert!(NOTE_OCTETS_MAX * 3 < PRESENCE_BYTES_MAX);

// The control thread.

/// Operations that wait for the store; more are answered *busy* at once.
pub const STORE_QUEUE_MAX: usize = 4_096;
/// Octets of the changes among these, those that are being committed included.
pub const STORE_QUEUE_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// Writes that share one commit. More wait for the next: an answer is never older than two commits.
pub const STORE_GROUP_MAX: usize = 512;
/// Rows of one page of a list.
pub const STORE_PAGE_MAX: usize = 1_000;
/// Accounts of one bulk operation, which is one transaction.
pub const STORE_BULK_MAX: usize = 256;
/// Messages of one answer.
pub const STORE_MESSAGES_MAX: u32 = 1_000;
/// SIP dialogs of one answer.
pub const STORE_DIALOGS_MAX: u32 = 1_000;
/// Octets of messages in one answer: the first goes beyond it if it must.
pub const STORE_FETCH_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// Statements that SQLite keeps prepared: more than there are.
pub const STORE_STATEMENTS_MAX: usize = 64;
/// How long SQLite waits for another process (a backup, say) that holds the file, in milliseconds.
pub const STORE_BUSY_MS_MAX: u64 = 5_000;
/// Jobs that wait for a worker of one pool; more are answered *unavailable* at once.
pub const WORKER_QUEUE_MAX: usize = 256;
/// Questions of all shards that are being answered; more are answered *unavailable* at once.
pub const QUESTIONS_OPEN_MAX: usize = 8_192;
/// Answers and orders that wait for room in the lane to one shard.
pub const LANE_BACKLOG_MAX: usize = 16_384;
/// Domains that are being looked up.
pub const RESOLVE_MAX: usize = 1_024;
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
const _: () = assert!(STORE_QUEUE_BYTES_MAX > 16 * PEER_STANZA_BYTES_MAX);
const _: () = assert!(STORE_FETCH_BYTES_MAX > PEER_STANZA_BYTES_MAX);
// An address has 3,071 octets at most (RFC 7622, 3.1); few do, and a batch may be made smaller.
const _: () = assert!(STORE_BULK_MAX * (1_024 + PASSWORD_BYTES_MAX) <= CTL_LINE_BYTES_MAX);

const _: () = assert!(CLIENT_STANZA_BYTES_MAX > STANZA_BYTES_FLOOR);
const _: () = assert!(PEER_STANZA_BYTES_MAX > STANZA_BYTES_FLOOR);
const _: () = assert!(OUTBOX_LOW_BYTES < OUTBOX_HIGH_BYTES);
const _: () = assert!(OUTBOX_BYTES_MAX <= 1_048_576);
const _: () =
    assert!(OUTBOX_HIGH_BYTES + PEER_STANZA_BYTES_MAX + STANZA_SLACK_BYTES <= OUTBOX_BYTES_MAX);
const _: () = assert!(UNHANDLED_STANZAS_LOW < UNHANDLED_STANZAS_MAX);
// Written down, an octet of an address may become six, and each has an element around it.
const _: () = assert!(RULES_BYTES_MAX * 6 + RULES_MAX * 32 < PEER_STANZA_BYTES_MAX);
// The largest answer of ours fits behind what may wait before it.
const _: () = assert!(ROSTER_OCTETS_MAX + STANZA_SLACK_BYTES <= PEER_STANZA_BYTES_MAX);
const _: () = assert!(WAY_QUEUE_TIME_MAX.as_secs() < IN_FLIGHT_TIME_MAX.as_secs());
const _: () =
    assert!(GATE_TIME_MAX.as_secs() + LATER_TIME_MAX.as_secs() < IN_FLIGHT_TIME_MAX.as_secs());
const _: () = assert!(VCARD_BYTES_MAX < CLIENT_STANZA_BYTES_MAX);
const _: () = assert!(OPENING_TIME_MAX.as_secs() < LOGIN_TIME_MAX.as_secs());
const _: () = assert!(MESH_RING_BYTES.is_power_of_two());
const _: () = assert!(MESH_INLINE_BYTES_MAX * 4 <= MESH_RING_BYTES);
const _: () = assert!(MESH_OVERFLOW_BYTES_MAX > MESH_INLINE_BYTES_MAX);
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());

// SIP: watchers of local users.

/// What a SUBSCRIBE is granted at the most, in seconds: how long a partner is blind at the worst.
pub const WATCHED_EXPIRES_MAX: u32 = 7_200;
/// A SUBSCRIBE that asks for less is refused with 423.
pub const WATCHED_EXPIRES_FLOOR: u32 = 60;
/// Between two documents for one watcher (RFC 3856, 6.10).
pub const WATCHED_PACE: Duration = Duration::from_secs(5);
/// First pause before a NOTIFY that failed is sent again; doubles up to the next constant.
pub const WATCHED_AGAIN_MIN: Duration = Duration::from_secs(30);
/// Longest pause of ours.
pub const WATCHED_AGAIN_MAX: Duration = Duration::from_secs(600);
/// All tries of one NOTIFY: what the peer's pace may take, and timer F.
pub const WATCHED_NOTIFY_TIME_MAX: Duration = Duration::from_secs(120);
/// A watcher of whom there are too many shall come again after so many seconds.
pub const WATCHED_GIVE_UP_SECONDS: u32 = 3_600;
/// Dialogs between one user and one watcher; the oldest makes room.
pub const WATCHED_PER_PAIR_MAX: usize = 8;
/// A watcher on whom the user has not decided after this time is given up.
pub const WATCHED_PENDING_TIME_MAX: Duration = Duration::from_secs(7 * 86_400);
/// NOTIFYs of one shard that are under way to one SIP domain; the others wait, and say what is true
/// when they go.
pub const WATCHED_OUT_MAX: usize = 256;
/// Octets of one dialog's route set, addresses and ids.
pub const WATCHED_DIALOG_BYTES_MAX: usize = 16_384;
/// A user is unknown for so long after a start, unless a client of his is back.
pub const RESTORE_UNKNOWN_TIME: Duration = Duration::from_secs(60);
/// Dialogs of one page.
pub const RESTORE_PAGE: u32 = 500;
/// A page that could not be had is asked for again after this.
pub const RESTORE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A watcher whose user's record could not be had is told after this.
pub const WATCHED_STORE_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// After an account was removed or got another password, it is looked up again after this.
pub const WATCHED_DOUBT_TIME: Duration = Duration::from_secs(1);

const _: () = assert!(WATCHED_EXPIRES_FLOOR < 3_600 && WATCHED_EXPIRES_MAX >= 7_200);

// Configuration.

/// Shards of one node; ids keep a few bits for them.
pub const SHARDS_MAX: u16 = 64;

// Tuning.

/// Connections that a tuning profile may be for.
pub const TUNE_CONNECTIONS_MAX: u32 = 50_000_000;
/// Octets of a file of the host that are read.
pub const TUNE_FILE_BYTES_MAX: u64 = 1 << 20;
/// TuneD profiles that include each other.
pub const TUNE_INCLUDES_MAX: usize = 8;
/// Files that one pattern of sysfs may mean: one per processor, and more.
pub const TUNE_MATCHES_MAX: usize = 4_096;
