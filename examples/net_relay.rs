//! The pump with next to nothing on it: passes bytes between paired connections unread, like the
//! bare relay of `bench`, so that their difference is what the pump costs.
//!
//! `net_relay ADDRESS ring|epoll|auto CORE`. Connections are paired in the order of accept. Prints
//! the pump's counters when standard input ends.

#![expect(clippy::disallowed_types, reason = "the counters are looked at once, at the end")]

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Mutex};

use tandem::net::{Interface, Plan, run};
use tandem::shard::kernel::{
    ConnId, Ending, Engine, Event, Kernel, NetCounters, Next, Order, Read, ShardId,
};
use tandem::time::{Moment, Now};

#[derive(Default)]
struct Conn {
    id: Option<ConnId>,
    far: Option<ConnId>,
    outbox: Vec<u8>,
    spare: Vec<u8>,
    sending: bool,
    dirty: bool,
}

#[derive(Default)]
struct Relay {
    conns: Vec<Conn>,
    waiting: Option<ConnId>,
    dirty: Vec<u32>,
    counters: Arc<Mutex<NetCounters>>,
    turns: u64,
    stopping: bool,
}

impl Relay {
    fn at(&mut self, id: ConnId) -> &mut Conn {
        let index = id.index as usize;
        if self.conns.len() <= index {
            self.conns.resize_with(index + 1, Conn::default);
        }
        &mut self.conns[index]
    }

    fn accepted(&mut self, id: ConnId) {
        *self.at(id) = Conn { id: Some(id), ..Conn::default() };
        match self.waiting.take() {
            None => self.waiting = Some(id),
            Some(far) => {
                self.at(id).far = Some(far);
                self.at(far).far = Some(id);
            }
        }
    }

    fn touch(&mut self, id: ConnId) {
        let conn = self.at(id);
        if !std::mem::replace(&mut conn.dirty, true) {
            self.dirty.push(id.index);
        }
    }

    fn handle<K: Kernel>(&mut self, kernel: &mut K) {
        while let Some(event) = kernel.next() {
            match event {
                Event::Received { conn, bytes } => {
                    let Some(far) = self.at(conn).far else { continue };
                    self.at(far).outbox.extend_from_slice(bytes);
                    self.touch(far);
                }
                Event::Sent { conn, mut buffer } => {
                    buffer.clear();
                    let state = self.at(conn);
                    state.sending = false;
                    state.spare = buffer;
                    if !state.outbox.is_empty() {
                        self.touch(conn);
                    }
                }
                Event::Accepted { conn, .. } => {
                    self.accepted(conn);
                    kernel.read(conn, Read::Stream);
                }
                Event::Gone { conn, .. } => {
                    if let Some(far) = self.at(conn).far {
                        self.at(far).far = None;
                    }
                    *self.at(conn) = Conn::default();
                }
                Event::Ordered(Order::Stop) => {
                    self.stopping = true;
                    for conn in self.conns.iter().filter_map(|conn| conn.id) {
                        kernel.close(conn, Ending::Abort);
                    }
                }
                _ => {}
            }
        }
    }
}

impl Engine for Relay {
    fn step<K: Kernel>(&mut self, _: Now, kernel: &mut K) -> Next {
        self.handle(kernel);
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let conn = &mut self.conns[index as usize];
            conn.dirty = false;
            if let Some(id) = conn.id
                && !conn.sending
                && !conn.outbox.is_empty()
            {
                conn.sending = true;
                let empty = std::mem::take(&mut conn.spare);
                kernel.send(id, std::mem::replace(&mut conn.outbox, empty));
            }
        }
        self.dirty = dirty;
        self.turns += 1;
        if self.turns.is_multiple_of(1_024) || self.stopping {
            *self.counters.lock().expect("no panic before") = kernel.net_counters();
        }
        let done = self.stopping && self.conns.iter().all(|conn| conn.id.is_none());
        Next { deadline: Moment::NEVER, done }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, interface, core] = words.as_slice() else {
        return Err("net_relay ADDRESS ring|epoll|auto CORE".into());
    };
    let known = BTreeMap::from([
        ("ring", Interface::Ring),
        ("epoll", Interface::Epoll),
        ("auto", Interface::Auto),
    ]);
    let plan = Plan {
        cores: vec![core.parse()?],
        listeners: vec![address.parse()?],
        interface: *known.get(interface.as_str()).ok_or("ring, epoll or auto")?,
        ..Plan::default()
    };
    let counters = Arc::new(Mutex::new(NetCounters::default()));
    let shared = Arc::clone(&counters);
    let relay = move |_, _| Relay { counters: Arc::clone(&shared), ..Relay::default() };
    let running = run(&plan, relay)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    running.control.order(ShardId(0), Order::Stop).map_err(|_| "the lane is full")?;
    running.join();
    let counters = counters.lock().map_err(|error| error.to_string())?;
    writeln!(io::stdout(), "{counters:?}")?;
    Ok(())
}
