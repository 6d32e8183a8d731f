//! What a shard asks of the world below it, and what it hears from there.
//!
//! The trait is the whole surface between the engine and the kernel: `net` implements it over an
//! io_uring ring and over epoll, the simulated world over virtual time. All calls return at once;
//! whatever takes time comes back as an [`Event`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::address::Address;
use crate::dns;
use crate::home::dialogs::{DialogChange, DialogKey, DialogRow};
use crate::home::record::{Change, Fetch, Fetched, List, Record};
use crate::shard::settings::{ListenerId, Settings};
use crate::time::{Moment, Now};
use crate::tls;
use crate::xmpp::sasl::scram;

/// A connection of this shard. The kernel side allots ids; a generation is never used twice for
/// one index, so an event for a connection that is gone can be told from one for its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Dense and small: the shard indexes its own table with it.
    pub index: u32,
    /// Differs each time the index is used anew.
    pub generation: u32,
}

/// A shard of this node, 0 up to the number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// Names an answer that is outstanding; chosen by the shard, opaque to everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How a connection is read from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// One delivery, then nothing until asked again. So a connection that may still move to
    /// another shard has no receive to cancel.
    Once,
    /// Every delivery as it comes (multishot).
    Stream,
    /// Nothing more; what was already delivered to the ring still comes.
    Pause,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// After what is being sent: our side is shut down, the far end gets five seconds to close.
    Orderly,
    /// At once.
    Abort,
}

/// Why a connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The far end closed its side in order, or we closed ours.
    Closed,
    /// Reset, timed out, or an error of the socket.
    Broken,
}

/// What a shard hears. Bytes are only lent.
#[derive(Debug)]
pub enum Event<'a> {
    /// A connection came in. Nothing is read until [`Kernel::read`] asks for it.
    Accepted { conn: ConnId, listener: ListenerId, remote: SocketAddr },
    /// A connection that [`Kernel::connect`] asked for stands.
    Connected { conn: ConnId, ticket: Ticket, remote: SocketAddr },
    /// It could not be made; `reason` is for the operator.
    ConnectFailed { ticket: Ticket, reason: &'static str },
    /// Bytes arrived.
    Received { conn: ConnId, bytes: &'a [u8] },
    /// The bytes of the last [`Kernel::send`] are with the kernel, or the connection failed under
    /// them; the buffer comes back in either case, always before [`Event::Gone`].
    Sent { conn: ConnId, buffer: Vec<u8> },
    /// The last event of a connection. Comes exactly once, also after [`Kernel::close`].
    /// `unacknowledged`: octets of all that was sent which the far end's kernel had not
    /// acknowledged when the socket ended.
    Gone { conn: ConnId, why: Gone, unacknowledged: u64 },
    /// A datagram came on a listener.
    Datagram { listener: ListenerId, remote: SocketAddr, bytes: &'a [u8] },
    /// A record of another shard.
    Posted { from: ShardId, record: &'a [u8] },
    /// A connection that another shard handed over; nothing is read until asked.
    Arrived { conn: ConnId, parcel: Box<crate::shard::Parcel> },
    /// The control thread answers a question.
    Answered(Answer),
    /// The control thread orders something.
    Ordered(Order),
}

/// What a shard asks of the control thread.
#[derive(Debug)]
pub enum Question {
    /// The SCRAM keys of an account for one hash.
    Credentials { ticket: Ticket, user: Address, hash: scram::Hash },
    /// Is this the account's password? The costly derivation runs on a worker.
    Password { ticket: Ticket, user: Address, password: String },
    /// The record of a user, with all that was committed before.
    Load { ticket: Ticket, user: Address },
    /// Keeps changes of a user, all or none; those of one user in the order of the questions.
    Commit { ticket: Ticket, user: Address, changes: Vec<Change> },
    /// Something of a user that is not part of the record, with all that was asked for before.
    Fetch { ticket: Ticket, user: Address, what: Fetch },
    /// Keeps changes of SIP dialogs, all or none; those of one shard in the order of the questions.
    Keep { ticket: Ticket, changes: Vec<DialogChange> },
    /// The dialogs of this shard's users behind `after`, in the order of their keys, with all that
    /// was asked for before.
    Dialogs { ticket: Ticket, after: Option<DialogKey>, count: u32 },
    /// What came of an [`Order::Rule`]; the text is for the operator.
    Done { ticket: Ticket, done: Result<(), &'static str> },
    /// Where is this domain's XMPP server?
    Resolve { ticket: Ticket, domain: String },
    /// Where is this domain's SIP edge? `rfc3263`: NAPTR and `_sips._tcp` may say it, too.
    ResolveSip { ticket: Ticket, domain: String, rfc3263: bool },
    /// Which addresses does this host have?
    Addresses { ticket: Ticket, host: String },
    /// Whose certificate chain is this? The costly verification runs on a worker.
    Judge { ticket: Ticket, chain: Vec<tls::Der>, usage: tls::Usage },
    /// The answer to [`Order::Report`].
    Report { ticket: Ticket, report: Box<crate::shard::Report> },
    /// Something an operator should read, at most once per kind and minute.
    Tell(crate::shard::Notice),
}

/// The control thread's answers.
#[derive(Debug)]
pub enum Answer {
    /// `None`: no such account, or it has no keys for that hash.
    Credentials { ticket: Ticket, credentials: Result<Option<scram::Credentials>, Unavailable> },
    /// True: the password is the account's.
    Password { ticket: Ticket, good: Result<bool, Unavailable> },
    /// `None`: there is no such account.
    Loaded { ticket: Ticket, record: Result<Option<Box<Record>>, Unavailable> },
    /// They are on the disk; or nothing of them is.
    Committed { ticket: Ticket, done: Result<(), Unavailable> },
    /// What was asked for.
    Fetched { ticket: Ticket, found: Result<Fetched, Unavailable> },
    /// They are on the disk; or nothing of them is.
    Kept { ticket: Ticket, done: Result<(), Unavailable> },
    /// Maybe fewer than were asked for; none: there are no more.
    Dialogs { ticket: Ticket, rows: Result<Vec<DialogRow>, Unavailable> },
    /// What DNS says about the domain's SIP edge.
    ResolvedSip { ticket: Ticket, found: dns::SipFound },
    /// What the domain's two SRV names have.
    Resolved { ticket: Ticket, direct: dns::Answer, starttls: dns::Answer },
    /// Both families, at most 64; `None`: the name servers did not answer. The host comes back, so
    /// that a late answer is not taken for that of another host.
    Addresses { ticket: Ticket, host: String, addresses: Option<Vec<IpAddr>> },
    /// What the chain shows.
    Judged { ticket: Ticket, verdict: Box<tls::Verdict> },
}

/// The store or a worker cannot answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// The control thread's orders.
#[derive(Debug)]
pub enum Order {
    /// A new configuration: replaces the old one, touches no established stream.
    Settings(Arc<Settings>),
    /// Say goodbye to everybody; the shard is done when its last connection is gone.
    Stop,
    /// Counters, and the list of streams if asked.
    Report { ticket: Ticket, streams: bool },
    /// End the streams of an account that was removed or whose password changed.
    Kick { user: Address },
    /// Puts a person or a domain on one of a user's lists, or takes it off; only the home shard of
    /// the user is told. [`Question::Done`] says what came of it.
    Rule { ticket: Ticket, user: Address, list: List, rule: Address, add: bool },
}

/// No room: a bounded lane is full. The caller answers for what it could not hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What stands on a kernel: the shard in service, smaller things in tests.
pub trait Engine {
    /// One turn. `now` is read once, when the turn starts.
    fn step<K: Kernel>(&mut self, now: Now, kernel: &mut K) -> Next;
}

/// What the engine wants after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The next turn is at this time at the latest; [`Moment::NEVER`]: when something comes.
    pub deadline: Moment,
    /// It was told to stop and is finished.
    pub done: bool,
}

/// What the engine stands on.
pub trait Kernel {
    /// The next event of this turn; `None` when there is nothing more to take now.
    fn next(&mut self) -> Option<Event<'_>>;
    /// Sets how a connection is read.
    fn read(&mut self, conn: ConnId, how: Read);
    /// Sends `bytes`, all of them. At most one send per connection is out: the next may follow
    /// [`Event::Sent`].
    fn send(&mut self, conn: ConnId, bytes: Vec<u8>);
    /// The same by somebody who has a use for the buffer now: a kernel side that was rid of all
    /// octets at once gives it back, and then [`Event::Sent`] does **not** follow.
    fn send_now(&mut self, conn: ConnId, bytes: Vec<u8>) -> Option<Vec<u8>> {
        self.send(conn, bytes);
        None
    }
    /// Ends a connection; [`Event::Gone`] follows.
    fn close(&mut self, conn: ConnId, ending: Ending);
    /// Octets of all sends that the far end's kernel has not acknowledged yet, those included that
    /// a send which is out still holds.
    fn unacknowledged(&mut self, conn: ConnId) -> u64;
    /// Connects to `target`; [`Event::Connected`] or [`Event::ConnectFailed`] follows within the
    /// connect timeout of `limits`.
    fn connect(&mut self, ticket: Ticket, target: SocketAddr);
    /// The same from a chosen address of this host, the port left to the kernel. A kernel that
    /// cannot choose connects from any.
    fn connect_from(&mut self, ticket: Ticket, source: IpAddr, target: SocketAddr) {
        let _ = source;
        self.connect(ticket, target);
    }
    /// Sends a datagram from the socket of a listener. One that finds no room is lost, as any may be.
    fn send_datagram(&mut self, listener: ListenerId, remote: SocketAddr, bytes: &[u8]) {
        let _ = (listener, remote, bytes);
    }
    /// Puts a record into another shard's mesh ring.
    fn post(&mut self, to: ShardId, record: &[u8]) -> Result<(), Full>;
    /// Moves a connection that has no receive armed to another shard, after the send that may be
    /// out. Its id here is dead from now on and no event for it follows.
    fn hand_over(&mut self, conn: ConnId, to: ShardId, parcel: Box<crate::shard::Parcel>);
    /// Asks the control thread; the question comes back if the lane is full.
    fn ask(&mut self, question: Question) -> Result<(), Box<Question>>;
    /// What the pump under this shard has counted so far.
    fn net_counters(&self) -> NetCounters {
        NetCounters::default()
    }
}

/// Randomness for one engine, drawn by the kernel side so that a simulated world can repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// For hash tables keyed by what peers choose.
    pub hash: u64,
    /// For stream ids, nonces and back-off.
    pub ids: [u8; 32],
}

/// What a pump counts. All but the open connections only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Connections of this shard at this moment.
    pub open: u64,
    /// Connections that came in.
    pub accepts: u64,
    /// Times that accepting stopped for want of descriptors.
    pub accept_pauses: u64,
    /// Connections that were asked for and stood.
    pub connects: u64,
    /// Deliveries of bytes.
    pub receives: u64,
    /// Octets delivered.
    pub received_bytes: u64,
    /// Sends handed to the kernel, without the rests of partial ones.
    pub sends: u64,
    /// Octets the kernel took.
    pub sent_bytes: u64,
    /// Sends whose bytes the kernel did not take at once.
    pub sends_partial: u64,
    /// Datagrams delivered.
    pub datagrams_in: u64,
    /// Datagrams the kernel took.
    pub datagrams_out: u64,
    /// Datagrams that were too long, or for which the kernel had no room.
    pub datagrams_lost: u64,
    /// Turns of the engine.
    pub turns: u64,
    /// Calls into the kernel to submit or wait.
    pub enters: u64,
    /// Nanoseconds spent in turns.
    pub busy_ns: u64,
    /// Nanoseconds spent between turns, submission of what the turn asked for included.
    pub waiting_ns: u64,
    /// Receives that found no buffer and were armed again.
    pub buffers_short: u64,
    /// Records put into the mesh.
    pub mesh_posts: u64,
    /// Records that found their ring full and waited on our side.
    pub mesh_overflows: u64,
    /// Records refused because the waiting list was full too.
    pub mesh_full: u64,
    /// Other shards woken.
    pub wakes: u64,
    /// Connections handed to other shards.
    pub handed_over: u64,
    /// Connections taken over from other shards.
    pub arrived: u64,
}

impl NetCounters {
    /// By metric name.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("tandem_net_open", self.open),
            ("tandem_net_accepts_total", self.accepts),
            ("tandem_net_accept_pauses_total", self.accept_pauses),
            ("tandem_net_connects_total", self.connects),
            ("tandem_net_receives_total", self.receives),
            ("tandem_net_received_bytes_total", self.received_bytes),
            ("tandem_net_sends_total", self.sends),
            ("tandem_net_sent_bytes_total", self.sent_bytes),
            ("tandem_net_sends_partial_total", self.sends_partial),
            ("tandem_net_datagrams_in_total", self.datagrams_in),
            ("tandem_net_datagrams_out_total", self.datagrams_out),
            ("tandem_net_datagrams_lost_total", self.datagrams_lost),
            ("tandem_net_turns_total", self.turns),
            ("tandem_net_enters_total", self.enters),
            ("tandem_net_busy_nanoseconds_total", self.busy_ns),
            ("tandem_net_waiting_nanoseconds_total", self.waiting_ns),
            ("tandem_net_buffers_short_total", self.buffers_short),
            ("tandem_net_mesh_posts_total", self.mesh_posts),
            ("tandem_net_mesh_overflows_total", self.mesh_overflows),
            ("tandem_net_mesh_full_total", self.mesh_full),
            ("tandem_net_wakes_total", self.wakes),
            ("tandem_net_handed_over_total", self.handed_over),
            ("tandem_net_arrived_total", self.arrived),
        ]
        .into_iter()
    }
}
