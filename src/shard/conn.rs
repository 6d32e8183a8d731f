//! One connection as the engine sees it: the reading half, TLS, and what its stream has reached.
//!
//! Holds no buffer while idle: `tail` has octets only between the halves of a frame.

use std::net::SocketAddr;

use crate::address::Address;
use crate::shard::client::Login;
use crate::shard::kernel::{ConnId, Ending, ShardId};
use crate::shard::peer_in::PeerIn;
use crate::shard::peer_out::PeerOut;
use crate::shard::sip::SipConn;
use crate::time::Moment;
use crate::tls;
use crate::xmpp::frame::Framer;
use crate::xmpp::sm::SessionId;

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) role: Role,
    pub(crate) framer: Framer,
    /// An unfinished frame, in clear text.
    pub(crate) tail: Vec<u8>,
    pub(crate) tls: Option<Box<tls::Session>>,
    pub(crate) remote: SocketAddr,
    /// It counts among those of its address that have not shown who they are.
    pub(crate) is_stranger: bool,
    pub(crate) opened: Moment,
    /// When something was last heard.
    pub(crate) heard: Moment,
    /// When to look after it next. The wheel may hold an earlier token: it is set anew then.
    pub(crate) deadline: Moment,
    pub(crate) armed: Moment,
    /// An answer of the control thread is awaited: frames wait in `tail`.
    pub(crate) parked: bool,
    /// It is to move to this shard, where this is done.
    pub(crate) moving: Option<Box<(ShardId, Arrival)>>,
    /// Its own outbox is full, or too much of what it sent is not handed on: it is not read until
    /// that is better.
    pub(crate) choked: bool,
    /// It moves or has proven who it is: from then on it is read as a stream.
    pub(crate) streaming: bool,
    /// The far end said what it had to say and closed its stream, or we ours.
    pub(crate) closing: Option<Ending>,
    /// The closing was handed to the kernel: `Gone` follows.
    pub(crate) closed: bool,
}

/// What the connection is for.
#[derive(Debug)]
pub(crate) enum Role {
    /// A client that has no resource yet.
    Login(Box<Login>),
    /// A client with a resource.
    Bound(Box<Bound>),
    /// A peer connected to us.
    PeerIn(Box<PeerIn>),
    /// We connected to a peer.
    PeerOut(Box<PeerOut>),
    /// A SIP peer, whichever side connected.
    Sip(Box<SipConn>),
}

/// A client that has bound a resource.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Its full address.
    pub(crate) address: Address,
    /// `xml:lang` of its stream header, inherited by its stanzas (RFC 6120, 4.7.4).
    pub(crate) lang: Option<Box<str>>,
    /// Another resource of the user gets copies of what this one says (XEP-0280).
    pub(crate) copied: bool,
    /// The number of its session, where stanzas are counted (XEP-0198); else 0.
    pub(crate) stream: u32,
    /// Its user blocks somebody: what it sends is looked at.
    pub(crate) blocks: bool,
}

/// What a client wants that moves to its home shard.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A resource; the `id` of its request.
    Bind(String),
    /// Its session, of which it has handled so many stanzas (XEP-0198, 5).
    Resume(SessionId, u32),
    /// A SIP peer's connection; its first request lies in its tail.
    Sip,
}

impl Conn {
    pub(crate) fn new(id: ConnId, role: Role, remote: SocketAddr, now: Moment) -> Self {
        Self {
            id,
            role,
            framer: Framer::default(),
            tail: Vec::new(),
            tls: None,
            remote,
            is_stranger: false,
            opened: now,
            heard: now,
            deadline: Moment::NEVER,
            armed: Moment::NEVER,
            parked: false,
            moving: None,
            choked: false,
            streaming: false,
            closing: None,
            closed: false,
        }
    }

    /// Nothing about it waits for a send to be done.
    pub(crate) fn is_at_ease(&self) -> bool {
        self.streaming && !self.choked && self.closing.is_none() && self.moving.is_none()
    }

    /// What it says is not listened to any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }
}

/// A connection on its way to another shard: everything about it but the descriptor.
#[derive(Debug)]
pub struct Parcel {
    pub(crate) conn: Box<Conn>,
    pub(crate) outbox: crate::shard::outbox::Outbox,
    /// What is done where the connection arrives.
    pub(crate) arrival: Arrival,
}

impl Parcel {
    /// One with a nameless connection in it, for stand-ins of the engine that test `net`.
    #[doc(hidden)]
    pub fn blank(remote: SocketAddr) -> Option<Self> {
        let address = Address::parse("nobody@invalid").ok()?;
        let (copied, blocks) = (false, false);
        let bound = Bound { address, lang: None, copied, stream: 0, blocks };
        let role = Role::Bound(Box::new(bound));
        let id = ConnId { index: 0, generation: 0 };
        let conn = Box::new(Conn::new(id, role, remote, Moment::default()));
        Some(Self { conn, outbox: Default::default(), arrival: Arrival::Bind(String::new()) })
    }
}
