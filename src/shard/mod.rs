//! The engine: one core's worth of everything, put together, without a kernel.
//!
//! A shard takes events and `now`, decides, and hands back bytes and requests through the
//! [`kernel::Kernel`] it is given. `net` gives it a real one, the simulated world a scripted one.
//! Read `step.rs` first: it is one turn. From there: `client.rs` is a client until it has a
//! resource, `bound.rs` its stanzas, `deliver.rs` the way to a local user, `ways.rs` the
//! ways to other XMPP domains, `peer_out.rs` and `peer_in.rs` the streams to and from them; `sip`
//! is all of it for domains that speak SIP.

mod account;
mod availability;
mod blocking;
mod bound;
mod buffers;
mod client;
mod conn;
mod copies;
mod counters;
mod deliver;
mod fanout;
mod gate;
mod idle;
pub mod kernel;
mod life;
mod login;
mod messages;
mod outbox;
mod peer_dialback;
mod peer_in;
mod peer_out;
#[cfg(test)]
mod peer_tests;
mod post;
mod presence;
mod random;
mod report;
mod rests;
mod resume;
mod roster;
mod rules;
mod services;
mod session;
pub mod settings;
mod sip;
mod sm;
mod spill;
mod step;
mod strangers;
mod subscribe;
mod table;
mod targets;
mod tell;
mod ways;

use std::sync::Arc;

pub use conn::Parcel;
pub use report::{Figure, Notice, Report, StreamRow};

use crate::address::Address;
use crate::home::Home;
use crate::limits::WATCHERS_MAX;
use crate::peer::Ways;
use crate::presence::Watchers;
use crate::shard::account::{Account, Handled, Outcomes};
use crate::shard::buffers::Buffers;
use crate::shard::counters::Counters;
use crate::shard::gate::{Gates, Job};
use crate::shard::idle::Held;
use crate::shard::kernel::{ConnId, Ending, NetCounters, Question, Read, ShardId, Ticket};
use crate::shard::messages::Rows;
use crate::shard::post::{Posts, Verdict};
use crate::shard::random::Random;
use crate::shard::services::Laters;
use crate::shard::session::Sessions;
use crate::shard::settings::{ListenerId, Settings};
use crate::shard::sip::{Sip, SipTransport};
use crate::shard::table::Table;
use crate::stdx::{Map, Wheel};
use crate::time::{Moment, Now};

/// The engine of one core. Owns its connections and its users; shares nothing.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    settings: Arc<Settings>,
    now: Now,
    conns: Table,
    strangers: strangers::Strangers,
    home: Home<ConnId>,
    /// What waits for users' records and for the store.
    gates: Gates,
    /// Stored messages that were handed out.
    rows: Rows,
    /// Users whose stored messages came back to be offered again.
    hungry: Vec<Address>,
    /// Rows of delivered messages that the store could not remove yet.
    unremoved: Vec<(Address, Vec<u64>)>,
    /// Who of this shard's users watches whom.
    watchers: Watchers<Place>,
    /// Audiences made so far: each gets the next number as its version.
    audiences: u64,
    /// Questions that wait for the store.
    laters: Laters,
    /// What is held for clients that nobody looks at.
    held: Map<ConnId, Held>,
    ways: Ways<ConnId>,
    /// Dialogs of this shard's users with SIP partners.
    sip: Sip,
    /// SIP between sockets and users' homes.
    transport: SipTransport,
    account: Account,
    /// Outcomes of other shards' stanzas, by shard, told at the end of the turn.
    outcomes: Vec<Outcomes>,
    /// Stanzas of this shard's managed streams whose accounts are closed, not noted there yet.
    handled: Vec<Handled>,
    /// Sessions of clients that count stanzas, with and without a connection (XEP-0198).
    sessions: Sessions,
    counters: Counters,
    timers: Wheel<Timer>,
    random: Random,
    /// Connections with something to flush or to close in this turn.
    dirty: Vec<ConnId>,
    /// Connections with stanzas that are not known to have arrived.
    owing: Vec<ConnId>,
    posts: Posts,
    /// Verdicts on keys that streams of this shard wait for, told when the turn's events are taken.
    verdicts: Vec<(Ticket, String, String, Verdict)>,
    requests: Vec<Request>,
    /// Buffers for the next sends.
    buffers: Buffers,
    /// Clear text of the connection at hand.
    plain: Vec<u8>,
    /// A normalised address that differs from its written form.
    scratch: String,
    stopping: bool,
    /// A trim of the buffers is set.
    trimming: bool,
    /// Users whose streams were ended lately, and when.
    kicked: Vec<(Address, Moment)>,
    /// When the outboxes that owe acknowledgements are looked at next.
    settle_at: Moment,
    /// What the pump counted, as of this turn.
    net: NetCounters,
}

/// Where a watcher's presence goes; true: he has rules, which must be asked.
type Place = (ConnId, bool);

/// What a timer of the wheel is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// Something of a connection may be overdue.
    Conn(ConnId),
    /// Something of a way may be overdue.
    Way(Ticket),
    /// Something of SIP is due.
    Sip(sip::Due),
    /// The store may owe an answer for too long.
    Job(Ticket),
    /// An answer that needs the store may be overdue.
    Later(Ticket),
    /// Forget users whose records nobody needs.
    Records,
    /// Offer stored messages again.
    Messages,
    /// Something of a session without a connection may be overdue.
    Session(u32),
    /// Look at what nobody acknowledged.
    Sweep,
    /// Give back buffers that nobody took lately.
    Trim,
}

/// What the kernel is asked at the end of the turn, in this order, after the sends.
#[derive(Debug)]
enum Request {
    Read(ConnId, Read),
    Close(ConnId, Ending),
    Connect(Ticket, std::net::SocketAddr),
    HandOver(ConnId, ShardId, Box<Parcel>),
    Datagram(ListenerId, std::net::SocketAddr, Vec<u8>),
    Ask(Question),
    /// Too many questions are open: this one is answered as if the store were away.
    Fail(Job),
}

impl Shard {
    /// `seed` must come from the kernel's entropy in service: stream ids, nonces and the order of
    /// hash tables derive from it.
    pub fn new(id: ShardId, settings: Arc<Settings>, seed: [u8; 32]) -> Self {
        let mut random = Random::new(seed);
        let outcomes = vec![Outcomes::default(); usize::from(settings.shards)];
        Self {
            id,
            now: Now::default(),
            conns: Table::default(),
            strangers: strangers::Strangers::default(),
            home: Home::new(random.number()),
            gates: Gates::new(random.number()),
            rows: Rows::new(),
            hungry: Vec::new(),
            unremoved: Vec::new(),
            watchers: Watchers::new(random.number(), WATCHERS_MAX),
            audiences: 0,
            laters: Laters::new(random.number()),
            held: Map::seeded(random.number()),
            ways: Ways::new(random.number()),
            account: Account::default(),
            outcomes,
            handled: Vec::new(),
            sessions: Sessions::new(random.number()),
            sip: Sip::new(random.number()),
            transport: SipTransport::new(|| random.number()),
            counters: Counters::default(),
            timers: Wheel::new(),
            random,
            dirty: Vec::new(),
            owing: Vec::new(),
            posts: Posts::default(),
            verdicts: Vec::new(),
            requests: Vec::new(),
            buffers: Buffers::default(),
            plain: Vec::new(),
            scratch: String::new(),
            stopping: false,
            trimming: false,
            kicked: Vec::new(),
            settle_at: Moment::NEVER,
            net: NetCounters::default(),
            settings,
        }
    }
}
