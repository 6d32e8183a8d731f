//! The kernel below the shards, made up: connections, mesh, control lane and virtual time.
//!
//! One queue of happenings ordered by time and number drives everything, so a seed repeats a run.
//! Connections have a send buffer, a receiver's buffer, latency and a way to cut octets; what the
//! documentation of `Kernel` promises is kept here to the letter, and what it forbids is a fault of
//! the run. TLS is **not** simulated: key exchange can't be repeated from a seed.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tandem::shard::Parcel;
use tandem::shard::kernel::{Answer, ConnId, Gone, Order, Read, ShardId, Ticket};
use tandem::shard::settings::ListenerId;
use tandem::time::Moment;

use crate::control::Control;
use crate::random::Random;

/// One way from end to end.
pub(crate) const LATENCY: Duration = Duration::from_millis(1);
/// The same as net's: nothing acknowledged for this long breaks a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that we ended is waited for this long.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
/// What the far end's kernel takes while nobody reads there.
const HOST_BUFFER: usize = 16_384;

/// How octets are cut on their way to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Whole,
    /// One octet at a time, large amounts in larger pieces.
    Single,
    Random,
}

/// An event that owns what it lends later.
#[derive(Debug)]
pub(crate) enum Heard {
    Accepted(ConnId, ListenerId, SocketAddr),
    Connected(ConnId, Ticket, SocketAddr),
    ConnectFailed(Ticket, &'static str),
    Received(ConnId, Vec<u8>),
    Sent(ConnId, Vec<u8>),
    Gone(ConnId, Gone, u64),
    Posted(ShardId, Vec<u8>),
    Arrived(ConnId, Box<Parcel>),
    Answered(Answer),
    Ordered(Order),
}

/// What will happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// Octets of a far end reach the shard's kernel.
    Up(usize, Vec<u8>),
    /// Its end of the stream of octets.
    Fin(usize),
    Reset(usize),
    /// Octets of the shard reach the far end's kernel.
    Down(usize),
    Linger(usize, ConnId),
    /// Perhaps nothing was acknowledged for too long.
    UserTimeout(usize),
    Posted(usize, usize, Vec<u8>),
    Arrive(usize, usize, Box<Parcel>),
    Connect(usize, Ticket, SocketAddr),
    Heard(usize, Heard),
}

/// One connection between a shard and a scripted far end.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) shard: usize,
    pub(crate) conn: Option<ConnId>,
    pub(crate) mode: Option<Read>,
    /// Octets for the shard that it did not ask for yet.
    pub(crate) up: VecDeque<u8>,
    pub(crate) up_fin: bool,
    pub(crate) broken: bool,
    /// The send that is out, and how much of it the kernel took.
    pub(crate) sending: Option<(Vec<u8>, usize)>,
    pub(crate) handed: u64,
    pub(crate) acknowledged: u64,
    /// The kernel's send buffer.
    pub(crate) down: VecDeque<u8>,
    down_due: bool,
    watched: bool,
    /// When something was acknowledged, or sent with nothing else out.
    pub(crate) progress: Moment,
    pub(crate) closing: bool,
    pub(crate) moving: Option<(usize, Box<Parcel>)>,
    /// The far end's kernel has these.
    host: VecDeque<u8>,
    // The far end's side.
    /// What the far end has read.
    pub(crate) inbound: Vec<u8>,
    pub(crate) reading: bool,
    /// Its cable is cut.
    pub(crate) silent: bool,
    /// It closes its side when the shard closes its own.
    pub(crate) polite: bool,
    pub(crate) saw_fin: bool,
    pub(crate) saw_reset: bool,
    pub(crate) send_buffer: usize,
    pub(crate) said_fin: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) inbox: VecDeque<Heard>,
    pub(crate) conns: Vec<(u32, Option<usize>)>,
    free: Vec<u32>,
    pub(crate) turns: u64,
}

/// Everything but the shards.
pub(crate) struct Core {
    pub(crate) now: Moment,
    pub(crate) random: Random,
    pub(crate) cut: Cut,
    pub(crate) sides: Vec<Side>,
    pub(crate) wires: Vec<Wire>,
    pub(crate) queue: BTreeMap<(Moment, u64), Happening>,
    number: u64,
    pub(crate) control: Control,
    pub(crate) control_full: bool,
    pub(crate) mesh_full: bool,
    pub(crate) mesh_held: Vec<Vec<usize>>,
    pub(crate) mesh_max: usize,
    /// Who listens where: the name of a peer.
    pub(crate) listening: BTreeMap<SocketAddr, String>,
    /// Connections that shards made, by the peer's name.
    pub(crate) connected: Vec<(String, usize)>,
    /// What the switch did that it must not do.
    pub(crate) faults: Vec<String>,
}

impl Core {
    pub(crate) fn new(shards: usize, seed: u64, cut: Cut) -> Self {
        Self {
            now: Moment(1_000_000_000),
            random: Random::new(seed),
            cut,
            sides: (0..shards).map(|_| Side::default()).collect(),
            wires: Vec::new(),
            queue: BTreeMap::new(),
            number: 0,
            control: Control::of(shards),
            control_full: false,
            mesh_full: false,
            mesh_held: vec![vec![0; shards]; shards],
            mesh_max: 10_000,
            listening: BTreeMap::new(),
            connected: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(crate) fn later(&mut self, after: Duration, happening: Happening) {
        self.number += 1;
        self.queue.insert((self.now + after, self.number), happening);
    }

    pub(crate) fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// Lets the far end read, or not.
    pub(crate) fn set_reading(&mut self, wire: usize, reading: bool) {
        self.wires[wire].reading = reading;
        if reading {
            let w = &mut self.wires[wire];
            w.inbound.extend(w.host.drain(..));
            self.schedule_down(wire);
        }
    }

    /// The node dies: what its kernel had taken for the far ends may still come there.
    pub(crate) fn die(&mut self) {
        for wire in &mut self.wires {
            let alive = wire.conn.take().is_some() || wire.moving.take().is_some();
            if alive || !(wire.saw_fin || wire.saw_reset) {
                let taken = self.random.below(wire.down.len() as u64 + 1) as usize;
                wire.host.extend(wire.down.drain(..taken));
                if wire.reading && !wire.silent {
                    wire.inbound.extend(wire.host.drain(..));
                }
                (wire.saw_reset, wire.broken) = (true, true);
            }
            wire.down.clear();
            (wire.sending, wire.down_due, wire.watched) = (None, false, false);
        }
        self.queue.clear();
        for side in &mut self.sides {
            *side = Side { turns: side.turns, ..Side::default() };
        }
        for held in self.mesh_held.iter_mut().flatten() {
            *held = 0;
        }
        self.connected.clear();
        self.control.store.die(self.now, &mut self.random);
    }

    // What happens.

    pub(crate) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Up(wire, octets) => {
                let w = &mut self.wires[wire];
                if w.conn.is_some() && !w.silent && !w.closing {
                    w.up.extend(octets);
                    self.deliver_up(wire);
                }
            }
            Happening::Fin(wire) => {
                self.wires[wire].up_fin = true;
                self.deliver_up(wire);
            }
            Happening::Reset(wire) => {
                self.wires[wire].broken = true;
                self.notice(wire);
            }
            Happening::Down(wire) => self.deliver_down(wire),
            Happening::Linger(wire, conn) => {
                if self.wires[wire].conn == Some(conn) {
                    self.finish(wire, Gone::Closed);
                }
            }
            Happening::UserTimeout(wire) => {
                let w = &mut self.wires[wire];
                w.watched = false;
                if w.silent && self.now.since(w.progress) >= USER_TIMEOUT {
                    w.broken = true;
                    self.notice(wire);
                }
                self.watch(wire);
            }
            Happening::Posted(from, to, record) => {
                self.mesh_held[from][to] -= 1;
                self.sides[to].inbox.push_back(Heard::Posted(ShardId(from as u16), record));
            }
            Happening::Arrive(wire, to, parcel) => {
                let conn = self.allot(to, wire);
                self.sides[to].inbox.push_back(Heard::Arrived(conn, parcel));
            }
            Happening::Connect(shard, ticket, target) => match self.listening.get(&target).cloned()
            {
                None => self.hear(shard, Heard::ConnectFailed(ticket, "connection refused")),
                Some(name) => {
                    let wire = self.wire(shard);
                    let conn = self.allot(shard, wire);
                    self.connected.push((name, wire));
                    self.hear(shard, Heard::Connected(conn, ticket, target));
                }
            },
            Happening::Heard(shard, heard) => self.hear(shard, heard),
        }
    }

    pub(crate) fn hear(&mut self, shard: usize, heard: Heard) {
        self.sides[shard].inbox.push_back(heard);
    }

    pub(crate) fn wire(&mut self, shard: usize) -> usize {
        let send_buffer = match self.cut {
            Cut::Whole => 262_144,
            Cut::Single => 2_048,
            Cut::Random => 1 << (9 + self.random.below(9)),
        };
        self.wires.push(Wire {
            shard,
            conn: None,
            mode: None,
            up: VecDeque::new(),
            up_fin: false,
            broken: false,
            sending: None,
            handed: 0,
            acknowledged: 0,
            down: VecDeque::new(),
            down_due: false,
            watched: false,
            progress: self.now,
            closing: false,
            moving: None,
            host: VecDeque::new(),
            inbound: Vec::new(),
            reading: true,
            silent: false,
            polite: true,
            saw_fin: false,
            saw_reset: false,
            send_buffer,
            said_fin: false,
        });
        self.wires.len() - 1
    }

    pub(crate) fn allot(&mut self, shard: usize, wire: usize) -> ConnId {
        let side = &mut self.sides[shard];
        let index = side.free.pop().unwrap_or_else(|| {
            side.conns.push((0, None));
            (side.conns.len() - 1) as u32
        });
        let slot = &mut side.conns[index as usize];
        slot.0 += 1;
        slot.1 = Some(wire);
        let conn = ConnId { index, generation: slot.0 };
        let w = &mut self.wires[wire];
        (w.shard, w.conn, w.mode) = (shard, Some(conn), None);
        conn
    }

    pub(crate) fn release(&mut self, wire: usize) {
        let w = &mut self.wires[wire];
        if let Some(conn) = w.conn.take() {
            let side = &mut self.sides[w.shard];
            side.conns[conn.index as usize].1 = None;
            side.free.push(conn.index);
        }
    }

    fn piece(&mut self, there: usize) -> usize {
        match self.cut {
            Cut::Whole => there,
            Cut::Single if there <= 4_096 => 1.min(there),
            Cut::Single => 997,
            Cut::Random => {
                let most = 1 << self.random.below(12);
                (1 + self.random.below(most) as usize).min(there)
            }
        }
    }

    /// Gives the shard what it asked to read.
    pub(crate) fn deliver_up(&mut self, wire: usize) {
        let Some(conn) = self.wires[wire].conn else { return };
        if self.wires[wire].closing {
            self.wires[wire].up.clear();
        }
        while !self.wires[wire].up.is_empty() {
            let there = self.wires[wire].up.len();
            let w = &mut self.wires[wire];
            match w.mode {
                Some(Read::Once) => w.mode = None,
                Some(Read::Stream) => {}
                Some(Read::Pause) | None => break,
            }
            let shard = w.shard;
            let piece = self.piece(there);
            let octets: Vec<u8> = self.wires[wire].up.drain(..piece).collect();
            self.hear(shard, Heard::Received(conn, octets));
        }
        self.notice(wire);
    }

    /// The end of a connection is seen when somebody reads, writes or waits for it.
    pub(crate) fn notice(&mut self, wire: usize) {
        let w = &self.wires[wire];
        if w.conn.is_none() || w.moving.is_some() && !w.broken {
            return;
        }
        let reads = matches!(w.mode, Some(Read::Once | Read::Stream));
        if w.broken && (reads || w.sending.is_some() || w.closing) {
            self.finish(wire, Gone::Broken);
        } else if w.up_fin && w.up.is_empty() && (reads || w.closing) {
            self.finish(wire, Gone::Closed);
        }
    }

    pub(crate) fn finish(&mut self, wire: usize, why: Gone) {
        let w = &mut self.wires[wire];
        let Some(conn) = w.conn else { return };
        let shard = w.shard;
        let buffer = w.sending.take();
        if let Some((to, parcel)) = w.moving.take() {
            // It broke on its way: it is seen where it arrives.
            self.release(wire);
            return self.later(Duration::from_micros(20), Happening::Arrive(wire, to, parcel));
        }
        let unacknowledged = w.handed - w.acknowledged;
        if let Some((buffer, _)) = buffer {
            self.hear(shard, Heard::Sent(conn, buffer));
        }
        self.hear(shard, Heard::Gone(conn, why, unacknowledged));
        let w = &mut self.wires[wire];
        w.down.clear();
        w.saw_fin = true;
        self.release(wire);
    }

    /// The kernel takes what has room in its send buffer.
    pub(crate) fn take_down(&mut self, wire: usize) {
        let w = &mut self.wires[wire];
        let Some((buffer, taken)) = &mut w.sending else { return };
        let room = w.send_buffer.saturating_sub(w.down.len());
        let end = buffer.len().min(*taken + room);
        w.down.extend(&buffer[*taken..end]);
        *taken = end;
        let whole = end == buffer.len();
        if whole {
            let (buffer, _) = w.sending.take().expect("it was there");
            let (shard, conn) = (w.shard, w.conn);
            match (conn, w.moving.take()) {
                (_, Some((to, parcel))) => {
                    self.release(wire);
                    self.later(Duration::from_micros(20), Happening::Arrive(wire, to, parcel));
                }
                (Some(conn), None) => self.hear(shard, Heard::Sent(conn, buffer)),
                (None, None) => {}
            }
        }
        self.schedule_down(wire);
        self.watch(wire);
    }

    /// As TCP_USER_TIMEOUT does.
    fn watch(&mut self, wire: usize) {
        let w = &mut self.wires[wire];
        if w.conn.is_some() && w.handed > w.acknowledged && !w.watched && !w.broken {
            w.watched = true;
            let at = (w.progress + USER_TIMEOUT).since(self.now).max(Duration::from_millis(1));
            self.later(at, Happening::UserTimeout(wire));
        }
    }

    pub(crate) fn schedule_down(&mut self, wire: usize) {
        let w = &mut self.wires[wire];
        if w.down_due || w.silent {
            return;
        }
        let window = w.reading || w.host.len() < HOST_BUFFER;
        let ended = w.closing && w.sending.is_none() && w.down.is_empty() && !w.saw_fin;
        if (!w.down.is_empty() && window) || ended {
            w.down_due = true;
            self.later(LATENCY, Happening::Down(wire));
        }
    }

    fn deliver_down(&mut self, wire: usize) {
        let there = self.wires[wire].down.len();
        let piece = if there == 0 { 0 } else { self.piece(there).max(there.min(64)) };
        let w = &mut self.wires[wire];
        w.down_due = false;
        if w.silent || w.broken {
            return;
        }
        let window = if w.reading { usize::MAX } else { HOST_BUFFER.saturating_sub(w.host.len()) };
        let count = piece.min(window);
        w.host.extend(w.down.drain(..count));
        w.acknowledged += count as u64;
        w.progress = self.now;
        if w.reading {
            w.inbound.extend(w.host.drain(..));
        }
        let ended = w.closing && w.sending.is_none() && w.down.is_empty();
        if ended && !w.saw_fin {
            w.saw_fin = true;
            if w.polite {
                self.say_fin(wire);
            }
        }
        self.take_down(wire);
        self.schedule_down(wire);
    }
}
