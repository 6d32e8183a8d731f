//! The connections of a shard, as the pump sees them: descriptor, phase, and what is out with the
//! kernel for each.
//!
//! Does **not** touch a socket; `pump.rs` decides and the drivers do.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::net::sys::SockAddr;
use crate::shard::Parcel;
use crate::shard::kernel::{ConnId, Gone, Read, ShardId, Ticket};
use crate::time::Moment;

/// What a connection is at.
#[derive(Debug)]
pub(super) enum Phase {
    /// Asked for and not standing yet. The address stays where the kernel reads it.
    Connecting { ticket: Ticket, target: Box<Target> },
    /// In use.
    Open,
    /// The far end closed its side; a send that is out still ends.
    Draining,
    /// Our side closes: after the send that is out it is shut, then the far end has its time.
    Closing,
    /// On its way to another shard, after what is out.
    Moving { to: ShardId, parcel: Box<Parcel> },
    /// Over: everything that is out was cancelled; when the last of it is back, it is gone.
    Ending { why: Gone },
}

/// Where to connect to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) raw: SockAddr,
    pub(super) remote: SocketAddr,
    /// Why it came to nothing, if that is known before its result.
    pub(super) failed: Option<&'static str>,
}

/// The receive that is out with the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Armed {
    Idle,
    Once,
    Stream,
}

/// A socket as edges show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Edges of it are told.
    pub(super) watched: bool,
    /// It may hold something to read: no receive has found it empty since the last edge.
    pub(super) ready: bool,
    /// Its end or an error is there: only a receive that finds it empties the socket.
    pub(super) hung_up: bool,
    /// It is on the list of those that are read without an edge.
    pub(super) listed: bool,
}

/// A send that is out.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) buffer: Vec<u8>,
    /// Octets the kernel took.
    pub(super) done: u32,
    /// The kernel or the driver still works on it.
    pub(super) out: bool,
}

impl Sending {
    pub(super) fn rest(&self) -> &[u8] {
        self.buffer.get(self.done as usize..).unwrap_or_default()
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) fd: OwnedFd,
    pub(super) phase: Phase,
    /// What the shard wants.
    pub(super) read: Read,
    /// What the driver has out.
    pub(super) armed: Armed,
    /// The receive that is out is being called back.
    pub(super) cancelling: bool,
    /// The far end sends no more.
    pub(super) ended: bool,
    /// We send no more.
    pub(super) shut: bool,
    /// What the epoll twin knows of the socket; the ring driver does not use it.
    pub(super) seen: Seen,
    pub(super) sending: Option<Sending>,
    /// The phase ends at this time.
    pub(super) deadline: Moment,
    /// Octets that came along from another shard and were not delivered yet.
    pub(super) unread: Vec<u8>,
}

impl Conn {
    pub(super) fn new(fd: OwnedFd, phase: Phase) -> Self {
        Self {
            fd,
            phase,
            read: Read::Pause,
            armed: Armed::Idle,
            cancelling: false,
            ended: false,
            shut: false,
            seen: Seen::default(),
            sending: None,
            deadline: Moment::NEVER,
            unread: Vec::new(),
        }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Nothing of it is out with the kernel.
    pub(super) fn is_idle(&self) -> bool {
        self.armed == Armed::Idle && !self.sending.as_ref().is_some_and(|sending| sending.out)
    }
}

/// Puts a kind (four bits) and a connection into what the kernel hands back with an event. A
/// table can't grow past 28 bits, since descriptors don't.
pub(super) fn pack(kind: u8, id: ConnId) -> u64 {
    u64::from(kind) << 60 | u64::from(id.index & 0x0fff_ffff) << 32 | u64::from(id.generation)
}

/// The reverse of [`pack`].
pub(super) fn unpack(token: u64) -> (u8, ConnId) {
    let index = (token >> 32) as u32 & 0x0fff_ffff;
    ((token >> 60) as u8, ConnId { index, generation: token as u32 })
}

const _: () = assert!(size_of::<Slot>() <= 112, "idle connections hold one each");

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

/// The table: an index is used again, with another generation, after its connection is gone.
#[derive(Debug, Default)]
pub(super) struct Conns {
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: u32,
}

impl Conns {
    pub(super) fn insert(&mut self, conn: Conn) -> ConnId {
        self.open += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // Descriptors are 31 bits, so indices are too.
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.conn = Some(conn);
        ConnId { index, generation: slot.generation }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Conn> {
        let slot = self.slots.get_mut(index as usize)?;
        let conn = slot.conn.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.open -= 1;
        Some(conn)
    }

    /// The connection that is there now.
    pub(super) fn at(&mut self, index: u32) -> Option<&mut Conn> {
        self.slots.get_mut(index as usize)?.conn.as_mut()
    }

    /// The connection, if it is still the one meant.
    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.conn.as_mut() } else { None }
    }

    /// The id of what is at `index` now.
    pub(super) fn id(&self, index: u32) -> ConnId {
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.generation);
        ConnId { index, generation }
    }

    pub(super) fn len(&self) -> u32 {
        self.open
    }

    /// Indices of all connections.
    pub(super) fn indices(&self) -> Vec<u32> {
        let used = |(index, slot): (usize, &Slot)| slot.conn.as_ref().map(|_| index as u32);
        self.slots.iter().enumerate().filter_map(used).collect()
    }
}
