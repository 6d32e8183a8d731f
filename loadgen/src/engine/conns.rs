//! What happens on a thread's connections: bytes through TLS or plain to the party, what it says
//! back, and what it wishes.

use std::cmp::Reverse;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConnection};
use tandem::shard::kernel::{ConnId, Ending, Event, Gone, Read};
use tandem::shard::settings::ListenerId;

use crate::engine::worker::{At, NOBODY, Slot, Timer, Todo, Worker, spare};
use crate::engine::world::Stand;
use crate::party::{Desk, Order, Party, PartyId, Wish};

/// Octets that wait on one connection above which its far end counts as stalled.
const OUT_MAX: usize = 16 << 20;

impl Worker {
    pub(super) fn event(&mut self, event: Event<'_>) {
        self.worked = true;
        match event {
            Event::Received { conn, bytes } => self.received(conn, bytes),
            Event::Sent { conn, buffer } => self.sent(conn, buffer),
            Event::Connected { conn, ticket, .. } => self.connected(conn, ticket.0 as u32),
            Event::ConnectFailed { ticket, reason } => {
                let id = ticket.0 as u32;
                self.fail(id, Some("connect"), reason);
                self.lost(id, false);
            }
            Event::Gone { conn, why, .. } => {
                if let Some(id) = self.party_of(conn) {
                    if let Some(place) = self.by_conn.get_mut(conn.index as usize) {
                        place.1 = NOBODY;
                    }
                    self.lost(id, why == Gone::Closed);
                }
            }
            Event::Accepted { conn, listener, remote } => self.accepted(conn, listener, remote),
            Event::Datagram { listener, remote, bytes } => {
                self.tick();
                self.received = true;
                if let Some(id) = self.at_ear(listener, remote) {
                    self.call(id, |party, desk| party.datagram(remote, bytes, desk));
                }
            }
            Event::Posted { record, .. } => self.posted(record),
            Event::Arrived { .. } | Event::Answered(_) | Event::Ordered(_) => {}
        }
    }

    fn party_of(&self, conn: ConnId) -> Option<u32> {
        let &(generation, id) = self.by_conn.get(conn.index as usize)?;
        (generation == conn.generation && id != NOBODY).then_some(id)
    }

    fn seat(&mut self, conn: ConnId, id: u32) {
        let index = conn.index as usize;
        if self.by_conn.len() <= index {
            self.by_conn.resize(index + 1, (0, NOBODY));
        }
        self.by_conn[index] = (conn.generation, id);
    }

    pub(super) fn slot(&mut self, id: u32) -> Option<&mut Slot> {
        self.slots.get_mut(id as usize).and_then(Option::as_deref_mut)
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(id) = self.party_of(conn) else { return };
        self.tick();
        self.received = true;
        let now_ns = self.now_ns;
        let Some(slot) = self.slot(id) else { return };
        let octets = bytes.len() as u64;
        if let Some(pause_ns) = (octets * 1_000_000_000).checked_div(slot.reads_per_s) {
            self.timers.push(Reverse((now_ns + pause_ns, id, Timer::Read)));
        }
        let Some(slot) = self.slot(id) else { return };
        if slot.at == At::Leaving {
            return;
        }
        if slot.pipe.is_none() {
            self.call(id, |party, desk| party.received(bytes, desk));
            return;
        }
        let mut clear = std::mem::take(&mut self.clear_in);
        clear.clear();
        let opened = self.slot(id).map_or(Ok(false), |slot| open_sealed(slot, bytes, &mut clear));
        match opened {
            Err(reason) => {
                let step = self.slot(id).map_or("tls", |slot| match slot.at {
                    At::Ready => "connection",
                    _ => "tls",
                });
                self.mark_dirty(id);
                self.fail(id, Some(step), &reason);
            }
            Ok(stands) => {
                self.mark_dirty(id);
                if stands {
                    self.secured(id);
                }
                if !clear.is_empty() {
                    self.call(id, |party, desk| party.received(&clear, desk));
                }
            }
        }
        self.clear_in = clear;
    }

    /// A handshake is over.
    fn secured(&mut self, id: u32) {
        let now_ns = self.now_ns;
        let Some(slot) = self.slot(id) else { return };
        let began_ns = slot.tls_ns;
        let first = slot.at == At::Securing;
        if first {
            slot.at = At::Login;
        }
        self.ledger.step("tls", Duration::from_nanos(now_ns.saturating_sub(began_ns)));
        if first {
            self.call(id, |party, desk| party.opened(desk));
        } else {
            self.call(id, |party, desk| party.secured(desk));
        }
    }

    fn sent(&mut self, conn: ConnId, buffer: Vec<u8>) {
        if let Some(id) = self.party_of(conn)
            && let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_deref_mut)
        {
            slot.sending = false;
            if !slot.dirty && (!slot.out.is_empty() || slot.closing) {
                slot.dirty = true;
                self.dirty.push(id);
            }
        }
        spare(&mut self.spares, buffer);
    }

    fn connected(&mut self, conn: ConnId, id: u32) {
        self.tick();
        let now_ns = self.now_ns;
        self.seat(conn, id);
        let Some(slot) = self.slot(id) else {
            self.todo.push(Todo::Close(conn, Ending::Abort));
            return;
        };
        slot.conn = Some(conn);
        if slot.at == At::Leaving {
            self.todo.push(Todo::Close(conn, Ending::Abort));
            return;
        }
        let began_ns = slot.began_ns;
        let how = if slot.reads_per_s > 0 { Read::Once } else { Read::Stream };
        let tls = slot.tls.take();
        slot.at = if tls.is_some() { At::Securing } else { At::Login };
        self.todo.push(Todo::Read(conn, how));
        self.ledger.step("connect", Duration::from_nanos(now_ns.saturating_sub(began_ns)));
        match tls {
            Some((config, name)) => self.secure(id, config, &name),
            None => self.call(id, |party, desk| party.opened(desk)),
        }
    }

    fn accepted(&mut self, conn: ConnId, listener: ListenerId, remote: std::net::SocketAddr) {
        self.tick();
        let world = Arc::clone(&self.world);
        let party = world.listeners.get(usize::from(listener.0)).and_then(|it| {
            let party = world.casts[it.population].accepted(it.ear, remote)?;
            Some((party, it))
        });
        let Some((party, it)) = party.filter(|_| self.shared.stand() != Stand::Leave) else {
            self.todo.push(Todo::Close(conn, Ending::Abort));
            return;
        };
        let id = self.put(it.population, party);
        self.seat(conn, id);
        self.todo.push(Todo::Read(conn, Read::Stream));
        let now_ns = self.now_ns;
        let Some(slot) = self.slot(id) else { return };
        slot.conn = Some(conn);
        match &it.tls {
            Some(config) => {
                slot.at = At::Securing;
                slot.tls_ns = now_ns;
                match ServerConnection::new(Arc::clone(config)) {
                    Ok(tls) => slot.pipe = Some(pipe(tls.into())),
                    Err(e) => self.fail(id, Some("tls"), &e.to_string()),
                }
            }
            None => {
                slot.at = At::Login;
                self.call(id, |party, desk| party.opened(desk));
            }
        }
    }

    /// Who answers on a socket for datagrams of this thread.
    fn at_ear(&mut self, listener: ListenerId, remote: std::net::SocketAddr) -> Option<u32> {
        let place = usize::from(listener.0);
        let &id = self.by_ear.get(place)?;
        if id != NOBODY {
            return Some(id);
        }
        let world = Arc::clone(&self.world);
        let it = world.listeners.get(place)?;
        let party = world.casts[it.population].accepted(it.ear, remote)?;
        let id = self.put(it.population, party);
        self.by_ear[place] = id;
        let slot = self.slot(id)?;
        slot.datagrams = Some(listener);
        slot.at = At::Login;
        self.call(id, |party, desk| party.opened(desk));
        Some(id)
    }

    /// Gives a party a slot.
    pub(super) fn put(&mut self, population: usize, party: Box<dyn Party>) -> u32 {
        let id = self.slots.len() as u32;
        self.slots.push(Some(Box::new(Slot {
            party,
            conn: None,
            at: At::Connecting,
            stood: false,
            takes: false,
            pipe: None,
            tls: None,
            out: Vec::new(),
            sending: false,
            dirty: false,
            closing: false,
            closed: false,
            population: population as u32,
            carrier: None,
            datagrams: None,
            began_ns: self.now_ns,
            tls_ns: self.now_ns,
            wake_ns: u64::MAX,
            reads_per_s: 0,
            attempt: 0,
            errand: None,
            fault: None,
        })));
        id
    }

    fn mark_dirty(&mut self, id: u32) {
        if let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_deref_mut)
            && !slot.dirty
            && (!slot.out.is_empty() || slot.closing)
        {
            slot.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Calls a party and sees to what it said and wished.
    pub(super) fn call(&mut self, id: u32, f: impl FnOnce(&mut dyn Party, &mut Desk<'_>)) {
        let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        let plain = slot.pipe.is_none() && slot.datagrams.is_none();
        if slot.out.capacity() == 0
            && let Some(buffer) = self.spares.pop()
        {
            slot.out = buffer;
        }
        let out = if plain {
            &mut slot.out
        } else {
            self.clear_out.clear();
            &mut self.clear_out
        };
        let (me, thread, now_ns) = (PartyId(id), self.thread, self.now_ns);
        let (ledger, wishes) = (&mut self.ledger, &mut self.wishes);
        f(&mut *slot.party, &mut Desk { me, thread, now_ns, out, ledger, wishes });
        if let (Some(tls), false) = (&mut slot.pipe, self.clear_out.is_empty()) {
            // Into memory: it takes all there is.
            drop(tls.writer().write_all(&self.clear_out));
            seal(tls, &mut slot.out);
        }
        if slot.out.is_empty() {
            spare(&mut self.spares, std::mem::take(&mut slot.out));
        } else if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(id);
            if slot.out.len() > OUT_MAX {
                self.fail(id, Some("connection"), "the far end reads nothing");
            }
        }
        if !self.wishes.is_empty() {
            self.grant(id);
        }
    }

    fn grant(&mut self, id: u32) {
        let mut wishes = std::mem::take(&mut self.wishes);
        let mut claimed = 0;
        for wish in &wishes {
            if let Wish::To(remote, octets) = *wish {
                let listener = self.slot(id).and_then(|slot| slot.datagrams);
                let bytes = self.clear_out.get(claimed..claimed + octets);
                if let (Some(listener), Some(bytes)) = (listener, bytes) {
                    let mut buffer = self.spares.pop().unwrap_or_default();
                    buffer.extend_from_slice(bytes);
                    self.grams.push((listener, remote, buffer));
                }
                claimed += octets;
            }
        }
        for wish in wishes.drain(..) {
            self.grant_one(id, wish);
        }
        if self.wishes.is_empty() {
            self.wishes = wishes;
        }
    }

    fn grant_one(&mut self, id: u32, wish: Wish) {
        let now_ns = self.now_ns;
        let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        match wish {
            Wish::To(..) => {}
            Wish::Ready => self.became_ready(id),
            Wish::Secure(name) => {
                let config = Arc::clone(&self.world.tls);
                self.secure(id, config, &name);
            }
            Wish::SecureAs(config, name) => self.secure(id, config, &name),
            Wish::Accept(config) => {
                slot.tls_ns = now_ns;
                match ServerConnection::new(config) {
                    Ok(tls) => slot.pipe = Some(pipe(tls.into())),
                    Err(e) => self.fail(id, Some("tls"), &e.to_string()),
                }
            }
            Wish::Wake(when) => {
                if when < slot.wake_ns {
                    slot.wake_ns = when;
                    self.timers.push(Reverse((when, id, Timer::Wake)));
                }
            }
            Wish::Tell(other, order) => {
                if self.slot(other.0).is_some_and(|slot| slot.at != At::Leaving) {
                    self.call(other.0, |party, desk| party.order(order, desk));
                }
            }
            Wish::Dial(n) => {
                let population = slot.population as usize;
                self.dials.further(population, n, now_ns);
            }
            Wish::Known(user, address) => {
                self.shared.learn(slot.population as usize, user, address);
            }
            Wish::Close => self.finish(id),
            Wish::Fail(step, reason) => self.fail(id, Some(step), &reason),
        }
    }

    /// Ends a connection in order, after what is to be sent.
    fn finish(&mut self, id: u32) {
        let Some(slot) = self.slot(id) else { return };
        slot.closing = true;
        slot.at = At::Leaving;
        self.not_ready(id);
        let Some(slot) = self.slot(id) else { return };
        if let Some(tls) = &mut slot.pipe {
            tls.send_close_notify();
            seal(tls, &mut slot.out);
        }
        self.mark_dirty(id);
    }

    /// TLS begins as client.
    fn secure(&mut self, id: u32, config: Arc<ClientConfig>, name: &str) {
        let now_ns = self.now_ns;
        let Some(slot) = self.slot(id) else { return };
        slot.tls_ns = now_ns;
        let made = ServerName::try_from(name.to_owned())
            .map_err(|e| e.to_string())
            .and_then(|name| ClientConnection::new(config, name).map_err(|e| e.to_string()));
        match made {
            Ok(tls) => {
                let mut tls = pipe(tls.into());
                seal(&mut tls, &mut slot.out);
                slot.pipe = Some(tls);
                self.mark_dirty(id);
            }
            Err(reason) => self.fail(id, Some("tls"), &reason),
        }
    }

    /// Counts a failure by step and reason and ends the connection.
    pub(super) fn fail(&mut self, id: u32, step: Option<&'static str>, reason: &str) {
        let Some(slot) = self.slot(id) else { return };
        if slot.at == At::Leaving {
            return;
        }
        let step = step.unwrap_or_else(|| slot.at.step());
        slot.fault = Some((step, reason.to_owned()));
        slot.at = At::Leaving;
        if let Some(conn) = slot.conn {
            self.todo.push(Todo::Close(conn, Ending::Abort));
        }
        self.ledger.step_failed(step, reason);
        self.not_ready(id);
    }

    /// An order for somebody, if he takes any.
    pub(super) fn give(&mut self, id: u32, order: Order) {
        self.call(id, |party, desk| party.order(order, desk));
    }
}

fn pipe(mut tls: rustls::Connection) -> Box<rustls::Connection> {
    // Parties bound what they say; half a record refused would be an octet lost.
    match &mut tls {
        rustls::Connection::Client(client) => client.set_buffer_limit(None),
        rustls::Connection::Server(server) => server.set_buffer_limit(None),
    }
    Box::new(tls)
}

fn seal(tls: &mut rustls::Connection, out: &mut Vec<u8>) {
    while tls.wants_write() {
        // A vector takes everything.
        if tls.write_tls(out).is_err() {
            return;
        }
    }
}

/// Opens what came; true if the handshake ended with it.
fn open_sealed(slot: &mut Slot, mut bytes: &[u8], clear: &mut Vec<u8>) -> Result<bool, String> {
    let Some(tls) = &mut slot.pipe else { return Ok(false) };
    let was = tls.is_handshaking();
    let mut fault = None;
    while !bytes.is_empty() && fault.is_none() {
        if let Err(e) = tls.read_tls(&mut bytes) {
            return Err(e.to_string());
        }
        match tls.process_new_packets() {
            Ok(state) => {
                let had = clear.len();
                clear.resize(had + state.plaintext_bytes_to_read(), 0);
                if let Some(room) = clear.get_mut(had..).filter(|room| !room.is_empty()) {
                    tls.reader().read_exact(room).map_err(|e| e.to_string())?;
                }
            }
            Err(e) => fault = Some(e.to_string()),
        }
    }
    // An alert goes out, too.
    seal(tls, &mut slot.out);
    match fault {
        Some(reason) => Err(reason),
        None => Ok(was && !tls.is_handshaking()),
    }
}
