//! What the ring and its epoll twin have to do; everything else is the pump's.
//!
//! A driver knows descriptors and what is out with the kernel. It does **not** know what a
//! connection is for, what its phases mean, or what the shard is told.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::net::conns::Conns;
use crate::net::datagrams::Datagrams;
use crate::net::lanes::Ends;
use crate::shard::kernel::{NetCounters, ShardId};
use crate::time::Now;

/// What pump and driver both use.
pub(super) struct Base {
    pub(super) ends: Ends,
    pub(super) conns: Conns,
    pub(super) now: Now,
    pub(super) counters: NetCounters,
    pub(super) listeners: Vec<OwnedFd>,
    /// What is known of those that take datagrams.
    pub(super) datagrams: Datagrams,
    /// Whether new connections are wanted at the moment.
    pub(super) accepting: bool,
    /// For outbound sockets; accepted ones inherit it.
    pub(super) not_sent_bytes: Option<u32>,
}

/// A delivery in the driver's memory, until it is given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lent {
    pub(super) buffer: u16,
    pub(super) length: u32,
}

/// What came of something.
#[derive(Debug)]
pub(super) enum Happened {
    Accepted {
        listener: usize,
        fd: OwnedFd,
        remote: SocketAddr,
    },
    AcceptFailed(io::Error),
    /// A listener that takes datagrams has some, or had.
    Readable {
        listener: usize,
    },
    Connected {
        index: u32,
        result: io::Result<()>,
    },
    Received {
        index: u32,
        lent: Lent,
    },
    /// The far end sends no more.
    Ended {
        index: u32,
    },
    Broken {
        index: u32,
    },
    /// All of the send that was out.
    Sent {
        index: u32,
    },
    /// Something that was out is back, with nothing to tell.
    Back {
        index: u32,
    },
}

/// How a send goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    Out,
    Broken,
}

pub(super) trait Driver {
    /// Sockets of this driver must not block, because it calls on them itself.
    const NONBLOCKING: bool;
    /// Makes the receive that is out what the connection's `read` says.
    fn arm(&mut self, base: &mut Base, index: u32);
    /// Starts the connection's `sending`.
    fn send(&mut self, base: &mut Base, index: u32) -> Progress;
    /// Starts to connect; [`Happened::Connected`] follows.
    fn connect(&mut self, base: &mut Base, index: u32);
    /// Calls back everything that is out for a connection.
    fn cancel(&mut self, base: &mut Base, index: u32);
    /// Called before the descriptor is closed or moved; nothing is out.
    fn forget(&mut self, base: &mut Base, index: u32);
    /// Starts or stops to accept, as `base.accepting` says.
    fn accept(&mut self, base: &mut Base);
    /// The next thing that happened, of those which are there.
    fn reap(&mut self, base: &mut Base) -> Option<Happened>;
    /// The octets of a delivery.
    fn bytes(&self, lent: Lent) -> &[u8];
    /// A delivery was read.
    fn give_back(&mut self, lent: Lent);
    /// Wakes another shard; it sleeps and its flag is down already.
    fn wake(&mut self, base: &mut Base, shard: ShardId);
    /// Hands over what was started, then waits for at least one thing to happen, but not longer
    /// than the time given.
    fn wait(&mut self, base: &mut Base, time: Option<Duration>);
    /// Something happened that a call of `reap` would show after a `wait` that does not wait.
    fn peek(&mut self, base: &mut Base) -> bool;
    /// Nothing but what connections have out is with the kernel.
    fn is_idle(&self) -> bool;
}
