//! What stands on one connection: octets in, octets out, and what it tells the run.
//!
//! A party knows no socket, no clock and no thread. The engine lends it a [`Desk`] at each call,
//! takes what it wants said, and does what it asks. So parties of all protocols run on one loop,
//! and are tested without any.

use std::sync::Arc;

use crate::ledger::Ledger;

/// What a party may do while it is called.
pub struct Desk<'a> {
    /// Nanoseconds since the run began, read once a turn.
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
    /// TLS begins now, as the server, with this configuration; then [`Party::secured`].
    Accept(Arc<rustls::ServerConfig>),
    /// Call [`Party::due`] at this time (nanoseconds of the run) or soon after; one at a time, the
    /// earliest counts.
    Wake(u64),
    /// Another party of this thread shall hear an order at once.
    Tell(PartyId, Order),
    /// A further connection is wanted: the population and user decide where and how.
    Dial(usize),
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
