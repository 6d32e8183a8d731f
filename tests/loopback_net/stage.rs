//! Small engines that a real pump drives, and what the tests say to them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tandem::net::{Interface, Plan, Running, run};
use tandem::shard::Parcel;
use tandem::shard::kernel::{ConnId, Ending, Engine, Event, Kernel, Next, Order, Read, ShardId};
use tandem::time::{Moment, Now};

pub(crate) const HIGH: usize = 256 * 1024;

#[derive(Default)]
pub(crate) struct Conn {
    pub(crate) outbox: Vec<u8>,
    pub(crate) sending: bool,
    pub(crate) paused: bool,
    pub(crate) closing: bool,
}

/// What the tests look at from outside.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) accepted: AtomicU64,
    pub(crate) gone: AtomicU64,
    pub(crate) arrived: AtomicU64,
    pub(crate) pauses: AtomicU64,
    pub(crate) posted: AtomicU64,
    pub(crate) accept_pauses: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Echoes. Read one shot at a time, a first delivery that begins with `M` moves the connection to
/// the next shard. A delivery that ends with `Q` is echoed and then closes it, one that ends with
/// `A` aborts it.
pub(crate) struct Echo {
    pub(crate) shard: ShardId,
    pub(crate) shards: u16,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) stopping: bool,
    pub(crate) dirty: Vec<ConnId>,
    pub(crate) first: Read,
}

impl Echo {
    pub(crate) fn received<K: Kernel>(&mut self, kernel: &mut K, id: ConnId, bytes: &[u8]) {
        let conn = self.conns.get_mut(&id).expect("bytes of a connection that stands");
        conn.outbox.extend_from_slice(bytes);
        self.dirty.push(id);
        if bytes.first() == Some(&b'M') && self.first == Read::Once {
            // What was delivered is echoed from here, and under way when the connection moves.
            let outbox = std::mem::take(&mut conn.outbox);
            kernel.send(id, outbox);
            let to = ShardId((self.shard.0 + 1) % self.shards);
            let remote = "127.0.0.1:1".parse().expect("an address");
            let parcel = Parcel::blank(remote).expect("a parcel");
            kernel.hand_over(id, to, Box::new(parcel));
            kernel.post(to, b"sent one over").expect("room in the mesh");
            self.conns.remove(&id);
            return;
        }
        match bytes.last() {
            Some(b'Q') => conn.closing = true,
            Some(b'A') => kernel.close(id, Ending::Abort),
            _ => {}
        }
        if self.first == Read::Once {
            kernel.read(id, Read::Stream);
        }
        if conn.outbox.len() > HIGH && !conn.paused {
            conn.paused = true;
            add(&self.seen.pauses);
            kernel.read(id, Read::Pause);
        }
    }

    pub(crate) fn flush<K: Kernel>(&mut self, kernel: &mut K) {
        for id in std::mem::take(&mut self.dirty) {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            if conn.sending {
                continue;
            }
            if !conn.outbox.is_empty() {
                conn.sending = true;
                kernel.send(id, std::mem::take(&mut conn.outbox));
                if conn.paused {
                    conn.paused = false;
                    kernel.read(id, Read::Stream);
                }
            }
            if conn.closing {
                kernel.close(id, Ending::Orderly);
            }
        }
    }

    pub(crate) fn open(&mut self, conn: ConnId) {
        assert!(self.conns.insert(conn, Conn::default()).is_none());
    }
}

impl Engine for Echo {
    fn step<K: Kernel>(&mut self, _: Now, kernel: &mut K) -> Next {
        // Bytes are lent from the kernel, so what follows from them is done with a copy.
        let mut copy = Vec::new();
        while let Some(event) = kernel.next() {
            match event {
                Event::Accepted { conn, .. } => {
                    add(&self.seen.accepted);
                    self.open(conn);
                    kernel.read(conn, self.first);
                }
                Event::Arrived { conn, .. } => {
                    add(&self.seen.arrived);
                    self.open(conn);
                    kernel.read(conn, Read::Stream);
                }
                Event::Received { conn, bytes } => {
                    assert!(!bytes.is_empty());
                    copy.clear();
                    copy.extend_from_slice(bytes);
                    self.received(kernel, conn, &copy);
                }
                Event::Sent { conn, .. } => {
                    let state = self.conns.get_mut(&conn).expect("a send of one that stands");
                    assert!(std::mem::take(&mut state.sending));
                    self.dirty.push(conn);
                }
                Event::Gone { conn, .. } => {
                    let state = self.conns.remove(&conn).expect("gone once");
                    assert!(!state.sending, "the buffer came back first");
                    add(&self.seen.gone);
                }
                Event::Datagram { listener, remote, bytes } => {
                    copy.clear();
                    copy.extend_from_slice(bytes);
                    kernel.send_datagram(listener, remote, &copy);
                }
                Event::Posted { record, .. } => {
                    assert_eq!(record, b"sent one over");
                    add(&self.seen.posted);
                }
                Event::Ordered(Order::Stop) => {
                    self.stopping = true;
                    for &conn in self.conns.keys() {
                        kernel.close(conn, Ending::Orderly);
                    }
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
        self.flush(kernel);
        let pauses = kernel.net_counters().accept_pauses;
        self.seen.accept_pauses.fetch_max(pauses, Ordering::Relaxed);
        Next { deadline: Moment::NEVER, done: self.stopping && self.conns.is_empty() }
    }
}

pub(crate) fn both(test: impl Fn(Interface)) {
    for interface in [Interface::Ring, Interface::Epoll] {
        eprintln!("over {interface:?}");
        test(interface);
    }
}

pub(crate) fn plan(interface: Interface, shards: u16) -> Plan {
    let any = "127.0.0.1:0".parse().expect("an address");
    Plan { shards, listeners: vec![any], interface, ..Plan::default() }
}

pub(crate) struct Node {
    pub(crate) running: Running,
    pub(crate) seen: Arc<Seen>,
    pub(crate) address: SocketAddr,
}

pub(crate) fn echo(plan: &Plan, first: Read) -> Node {
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    let shards = plan.shards;
    let running = run(plan, move |shard, _| Echo {
        shard,
        shards,
        conns: BTreeMap::new(),
        seen: Arc::clone(&shared),
        stopping: false,
        dirty: Vec::new(),
        first,
    })
    .expect("a node");
    let address = running.addresses[0];
    Node { running, seen, address }
}

impl Node {
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
        stream
    }

    pub(crate) fn stop(self) -> Arc<Seen> {
        for shard in 0..self.running.control.shards() {
            self.running.control.order(ShardId(shard), Order::Stop).expect("room in the lane");
        }
        self.running.join();
        self.seen
    }
}

/// Numbers that look random and are the same each time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// Bytes that follow from their place and are no command.
pub(crate) fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| (at * 7 % 61) as u8).collect()
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        thread::yield_now();
    }
}

pub(crate) fn exchange(stream: &mut TcpStream, sent: &[u8]) {
    let mut back = vec![0; sent.len()];
    stream.write_all(sent).expect("sent");
    stream.read_exact(&mut back).expect("an echo");
    assert!(back == sent);
}
