//! What stands on one connection: octets in, octets out, and what it tells the run.
//!
//! A party knows no socket, no clock and no thread. The engine lends it a [`Desk`] at each call,
//! takes what it wants said, and does what it asks. So parties of all protocols run on one loop,
//! and are tested without any.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::ledger::Ledger;

/// What a party may do while it is called.
pub struct Desk<'a> {
    /// Who is called, to be told to others of this thread.
    pub me: PartyId,
    /// The thread, 0 up to their number.
    pub thread: usize,
    /// Nanoseconds since the run began, read for each delivery and each few orders.
    pub now_ns: u64,
    /// What is to be said on this connection, in clear; the engine seals and sends it.
    pub out: &'a mut Vec<u8>,
    /// The run's account.
    pub ledger: &'a mut Ledger,
    /// What the engine is asked to do after the call.
    pub wishes: &'a mut Vec<Wish>,
}

/// What a party asks of the engine.
#[derive(Debug)]
pub enum Wish {
    /// The login (stream, session, whatever this protocol needs first) is done: the party takes orders.
    Ready,
    /// TLS begins now on this connection, as client, for this server name; then [`Party::secured`].
    Secure(String),
    /// The same by a configuration of its own, which may have a certificate to show.
    SecureAs(Arc<rustls::ClientConfig>, String),
    /// TLS begins now, as the server, with this configuration; then [`Party::secured`].
    Accept(Arc<rustls::ServerConfig>),
    /// Call [`Party::due`] at this time (nanoseconds of the run) or soon after; one at a time, the
    /// earliest counts.
    Wake(u64),
    /// Another party of this thread shall hear an order at once.
    Tell(PartyId, Order),
    /// A further connection of this population is wanted, on this thread: [`Cast::dial`] with this
    /// number says where and how. It need not be below [`Cast::carriers`].
    Dial(usize),
    /// So many of the octets said and not yet claimed so are one datagram to this address.
    To(SocketAddr, usize),
    /// This user has this address from now on (a full JID that a server gave); others send to it.
    Known(usize, Arc<str>),
    /// The connection is to end, after what was said.
    Close,
    /// The step `name` failed for this reason; the engine counts it and closes.
    Fail(&'static str, String),
}

/// A party of this thread: dense, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartyId(pub u32);

/// What the schedule, or another party, wants of a party.
#[derive(Clone, Debug)]
pub enum Order {
    /// Sends one text of that flow to a user's address; the text begins with the mark.
    Message { flow: u16, pair: u32, to: Arc<str>, octets: usize, intended_ns: u64 },
    /// A new state of presence, whose status (or note) begins with the mark.
    Presence { flow: u16, pair: u32, octets: usize, intended_ns: u64 },
    /// Sets or removes a roster item.
    Roster { flow: u16, pair: u32, to: Arc<str>, intended_ns: u64 },
    /// SIP: SUBSCRIBE to a user, or refresh it.
    Subscribe {
        flow: u16,
        pair: u32,
        from: Arc<str>,
        to: Arc<str>,
        expires_s: u64,
        intended_ns: u64,
    },
    /// SIP: a session with one text and an end.
    Session { flow: u16, pair: u32, from: Arc<str>, to: Arc<str>, octets: usize, intended_ns: u64 },
    /// As `Message`, from one of many users who share this connection (s2s, SIP).
    MessageFrom {
        flow: u16,
        pair: u32,
        from: Arc<str>,
        to: Arc<str>,
        octets: usize,
        intended_ns: u64,
    },
    /// Looks at what others left for it in places that its cast shares (s2s).
    Heed,
    /// Ends in order: stream closed, BYE, whatever the protocol has.
    Leave,
}

/// A protocol's end of one connection.
pub trait Party: Send {
    /// The connection stands (and TLS, where that comes first).
    fn opened(&mut self, desk: &mut Desk<'_>);
    /// TLS that was wished for stands.
    fn secured(&mut self, desk: &mut Desk<'_>) {
        let _ = desk;
    }
    /// Octets in clear arrived, in any pieces; the party keeps what is not whole.
    fn received(&mut self, bytes: &[u8], desk: &mut Desk<'_>);
    /// A datagram arrived, where the party stands on a socket for these.
    fn datagram(&mut self, remote: SocketAddr, bytes: &[u8], desk: &mut Desk<'_>) {
        let _ = (remote, bytes, desk);
    }
    /// An order of the schedule; only after [`Wish::Ready`].
    fn order(&mut self, order: Order, desk: &mut Desk<'_>);
    /// A time it asked for has come.
    fn due(&mut self, desk: &mut Desk<'_>) {
        let _ = desk;
    }
    /// The connection is gone; `orderly` if the far end closed in order.
    fn gone(&mut self, orderly: bool, desk: &mut Desk<'_>) {
        let _ = (orderly, desk);
    }
}

/// Who speaks for a population, and over which connections. One is made for a run and shared by its
/// threads; `flows::cast` chooses which.
pub trait Cast: Send + Sync {
    /// How many connections are dialled before the run's first stage. Number `n` is the business of
    /// thread `n % threads`, all its life.
    fn carriers(&self) -> usize;
    /// The one that takes the orders for a user.
    fn carrier_of(&self, user: usize) -> usize;
    /// Where carrier (or further connection) `n` is dialled and who speaks on it; asked again for
    /// each attempt.
    fn dial(&self, n: usize) -> Call;
    /// Where connections and datagrams are taken.
    fn ears(&self) -> Vec<Ear> {
        Vec::new()
    }
    /// A connection came in on an ear (its place in [`Self::ears`]); or, on one for datagrams, a
    /// thread needs the party that answers there.
    fn accepted(&self, ear: usize, remote: SocketAddr) -> Option<Box<dyn Party>> {
        let _ = (ear, remote);
        None
    }
    /// What is still missing before the first stage although every carrier is ready, in words.
    fn unready(&self) -> Option<String> {
        None
    }
    /// The address of a user, as others write it before it is known better.
    fn address_of(&self, user: usize) -> Arc<str>;
    /// How many octets a second a carrier reads; 0: all there is.
    fn reads_per_s(&self, carrier: usize) -> u64 {
        let _ = carrier;
        0
    }
}

/// A connection to be made.
pub struct Call {
    /// Where.
    pub way: Way,
    /// From which address; `None`: the kernel's choice.
    pub source: Option<Ipv4Addr>,
    /// TLS from the first octet: configuration and server name.
    pub tls: Option<(Arc<rustls::ClientConfig>, String)>,
    /// Who speaks on it.
    pub party: Box<dyn Party>,
}

/// What a call stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A connection to there.
    Stream(SocketAddr),
    /// This thread's socket of an ear for datagrams (its place in [`Cast::ears`]).
    Datagrams(usize),
}

/// A listening socket; each thread has one of its own on the same address.
pub struct Ear {
    /// Where.
    pub at: SocketAddr,
    /// For datagrams.
    pub datagrams: bool,
    /// TLS from the first octet.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}
