//! The ways to SIP peers: what waits for a connection, how fast it may go, and which connection
//! takes it.
//!
//! One way per pair of a domain of ours and a peer; a peer may speak for many domains (an edge). All
//! its connections are on this shard, whichever side opened them, and carry requests both ways
//! (RFC 5923; 7.4 of the rules). What is in a dialog goes before what makes a new one; both are paced
//! (the far side's tolerance), answers are not held but count. A 503's Retry-After rests the line it
//! came on, or the peer if it has no other. How a connection is made is in `reach.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::limits::{SIP_PROBE_TIME_MAX, WAY_IDLE_MAX, WAY_QUEUE_TIME_MAX};
use crate::policy::Transport as Carrier;
use crate::shard::kernel::ConnId;
use crate::shard::sip::client::Wanted;
use crate::shard::sip::line::Line;
use crate::shard::sip::transport::Place;
use crate::shard::sip::way::{Item, Stage, Way};
use crate::shard::sip::{Class, Due, Failure};
use crate::shard::{Shard, Timer};
use crate::sip::transaction::{Branch, branch};
use crate::sip::write;
use crate::stdx::Key;
use crate::time::Moment;

impl Shard {
    /// The way of a pair, made if there is none.
    pub(super) fn way_enter(&mut self, near: &str, peer: &str, far: &str) -> Option<Key> {
        let pair = (Box::from(near), Box::from(peer));
        if let Some(key) = self.transport.pairs.get(&pair).copied() {
            if let Some(way) = self.transport.ways.get_mut(key).filter(|it| &*it.far != far) {
                way.far = far.into();
            }
            return Some(key);
        }
        let way = Way::new(near, peer, far, self.now.moment);
        let Ok(key) = self.transport.ways.insert(way) else {
            self.counters.ways_full += 1;
            return None;
        };
        self.transport.pairs.insert(pair, key);
        self.watch_sip_way(key);
        Some(key)
    }

    /// What a second may hold for the peer.
    fn rate_of(&self, far: &str) -> u32 {
        self.settings.policy.sip(far).map_or(1, |it| it.rule.rate)
    }

    /// A request for a peer.
    pub(super) fn way_want(&mut self, key: Key, wanted: Wanted) {
        let now = self.now.moment;
        let (home, ask, class) = (wanted.home, wanted.ask, wanted.class);
        let Some(way) = self.transport.ways.get_mut(key) else {
            return self.tell_failure(home, ask, Failure::Overload);
        };
        way.used = now;
        let rests = way.rest_until > now && class == Class::New;
        if rests {
            self.counters.sip.rested += 1;
            return self.tell_failure(home, ask, Failure::Overload);
        }
        let bytes = wanted.text.len();
        if wanted.text.starts_with(b"ACK ") {
            let until = now + WAY_QUEUE_TIME_MAX;
            if way.push(Class::InDialog, Item::Ack(wanted.text, until), bytes).is_err() {
                self.counters.sip.queue_full += 1;
            }
            return self.sip_way_on(key);
        }
        if class == Class::New {
            self.count_uri(key, &wanted.text);
        }
        let entered = self.client_enter(key, wanted);
        let pushed = entered.is_ok_and(|txn| {
            let way = self.transport.ways.get_mut(key);
            let full = way.is_none_or(|way| way.push(class, Item::Txn(txn), bytes).is_err());
            if full {
                self.client_end(txn);
            }
            !full
        });
        if !pushed {
            self.counters.sip.queue_full += 1;
            return self.tell_failure(home, ask, Failure::Overload);
        }
        self.sip_way_on(key);
    }

    /// A response whose connection is gone (RFC 3261, 18.2.2).
    pub(super) fn way_respond(&mut self, near: &str, peer: &str, text: &[u8]) {
        let until = self.now.moment + WAY_QUEUE_TIME_MAX;
        let pair = (Box::from(near), Box::from(peer));
        let key = self.transport.pairs.get(&pair).copied();
        let way = key.and_then(|key| self.transport.ways.get_mut(key));
        let item = Item::Response(text.to_vec(), until);
        match (key, way.map(|way| way.push(Class::InDialog, item, text.len()))) {
            (Some(key), Some(Ok(()))) => {
                self.counters.sip.replies_elsewhere += 1;
                self.sip_way_on(key);
            }
            _ => self.counters.sip.replies_lost += 1,
        }
    }

    /// Does what can be done now for those who wait.
    pub(super) fn sip_way_on(&mut self, key: Key) {
        self.sip_drain(key);
        let Some(way) = self.transport.ways.get(key) else { return };
        let wanted = way.is_wanted() || way.probe_until > self.now.moment;
        // Who lost a line for the first time and has something to say looks at once.
        let hurries = way.stage == Stage::BackingOff && way.failures <= 1 && way.is_wanted();
        let free = way.stage == Stage::Idle || (hurries && way.probe_until > self.now.moment);
        let idle = free && wanted && !self.stopping;
        if idle && !self.has_line(key) && !self.way_rests(key) {
            self.sip_resolve(key);
        }
        self.watch_sip_way(key);
    }

    /// Its only target asked to be left alone.
    fn way_rests(&self, key: Key) -> bool {
        let now = self.now.moment;
        self.transport.ways.get(key).is_some_and(|it| it.rest_until > now)
    }

    /// Some line could take something, now or when its outbox has drained.
    fn has_line(&self, key: Key) -> bool {
        let now = self.now.moment;
        let Some(way) = self.transport.ways.get(key) else { return false };
        way.lines.iter().any(|it| it.resting_until <= now)
    }

    /// The line for the next item, if one has room.
    fn free_line(&mut self, key: Key) -> Option<Line> {
        let now = self.now.moment;
        let way = self.transport.ways.get(key)?;
        let conns = &mut self.conns;
        way.lines
            .iter()
            .find(|it| {
                it.resting_until <= now
                    && match it.place {
                        Place::Conn(id) => conns.outbox(id).is_some_and(|it| it.has_room()),
                        Place::Datagram(..) => true,
                    }
            })
            .cloned()
    }

    /// What waits goes out, in its order, as far as pace and room let it.
    fn sip_drain(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(way) = self.transport.ways.get(key) else { return };
        if !way.is_wanted() || way.rest_until > now {
            return;
        }
        let rate = self.rate_of(&way.far);
        while let Some(line) = self.free_line(key) {
            let Some(way) = self.transport.ways.get_mut(key) else { return };
            if way.pace.next(rate, now) > now {
                return;
            }
            let from_dialog = !way.dialog.is_empty();
            let queue = if from_dialog { &mut way.dialog } else { &mut way.new };
            let Some(item) = queue.pop_front() else { return };
            let (went, back) = self.sip_item(&line, item);
            if let Some(back) = back {
                // The line took it not: it is as good as gone.
                let Some(way) = self.transport.ways.get_mut(key) else { return };
                let queue = if from_dialog { &mut way.dialog } else { &mut way.new };
                queue.push_front(back);
                way.lines.retain(|it| it.place != line.place);
                continue;
            }
            let Some(way) = self.transport.ways.get_mut(key) else { return };
            way.bytes = way.bytes.saturating_sub(went);
            way.pace.pay(rate, now);
        }
    }

    /// Puts one on a line: how many octets went, or the item if it could not.
    fn sip_item(&mut self, line: &Line, item: Item) -> (usize, Option<Item>) {
        match item {
            Item::Txn(txn) => {
                let length = self.transport.clients.get(txn).map_or(0, |it| it.text.len());
                let went = self.client_start(txn, line);
                (length, (!went).then_some(Item::Txn(txn)))
            }
            Item::Ack(text, until) => {
                let secret = self.random.number();
                let via = line.via(&branch(Branch { shard: self.id.0, key: 0, secret }));
                let mut out = Vec::with_capacity(text.len() + via.len() + 8);
                write::insert_via(&text, &via, &mut out);
                let went = self.put(line.place, &out);
                (text.len(), (!went).then_some(Item::Ack(text, until)))
            }
            Item::Response(text, until) => {
                let went = self.put(line.place, &text);
                (text.len(), (!went).then_some(Item::Response(text, until)))
            }
        }
    }

    /// An answer of ours went out on a connection: it counts where its peer is paced.
    pub(super) fn paid(&mut self, id: ConnId) {
        let now = self.now.moment;
        let Some(key) = self.transport.conn_ways.get(&id).copied() else { return };
        let Some(rate) = self.transport.ways.get(key).map(|it| self.rate_of(&it.far)) else {
            return;
        };
        if let Some(way) = self.transport.ways.get_mut(key) {
            way.pace.pay(rate, now);
        }
    }

    /// A connection proven to be the peer's carries requests from now on.
    pub(super) fn line_enter(
        &mut self,
        key: Key,
        place: Place,
        address: SocketAddr,
        carrier: Carrier,
        ours: bool,
    ) {
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        if way.lines.iter().any(|it| it.place == place) {
            return;
        }
        let name = self.settings.domain(&way.near).map_or(&*way.near, |it| it.sip_name.as_str());
        let port = self.settings.sip_port(carrier);
        let line = Line {
            place,
            address,
            carrier,
            sent_by: format!("{name}:{port}").into(),
            alias: ours,
            resting_until: Moment::default(),
        };
        way.lines.push(line);
        way.used = self.now.moment;
        way.probe_until = Moment::default();
        if !ours {
            way.failures = 0;
        }
        if way.stage == Stage::BackingOff {
            // The peer has come: nothing to wait for.
            way.stage = Stage::Idle;
            way.stage_deadline = Moment::NEVER;
        }
        if std::mem::take(&mut way.down) {
            let (near, peer) = (way.near.clone(), way.peer.clone());
            self.tell_peer_back(&near, &peer);
        }
        self.sip_way_on(key);
    }

    /// The outbox of a connection has drained: what waits may follow.
    pub(in crate::shard) fn line_has_room(&mut self, id: ConnId) {
        if self.transport.conn_ways.is_empty() {
            return;
        }
        if let Some(key) = self.transport.conn_ways.get(&id).copied() {
            self.sip_way_on(key);
        }
    }

    /// A connection is no good any more.
    ///
    /// `lost`: in the middle of things, so it may be a restart of the peer, and what it knew gone.
    pub(super) fn line_gone(&mut self, keys: &[Key], place: Place, lost: bool) {
        let until = self.now.moment + SIP_PROBE_TIME_MAX;
        self.client_line_lost(place);
        for key in keys {
            if let Some(way) = self.transport.ways.get_mut(*key) {
                way.lines.retain(|it| it.place != place);
                if lost && way.lines.is_empty() {
                    way.down = true;
                    way.probe_until = until;
                    if way.stage == Stage::Idle {
                        // Also a peer that takes us and hangs up is not run at.
                        self.reach_pause(*key);
                    }
                }
                self.sip_way_on(*key);
            }
        }
    }

    /// Everybody who waits hears why.
    pub(super) fn way_fail(&mut self, key: Key, failure: Failure) {
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        way.bytes = 0;
        let waiting: Vec<Item> = way.dialog.drain(..).chain(way.new.drain(..)).collect();
        for item in waiting {
            self.item_fails(item, failure);
        }
    }

    fn item_fails(&mut self, item: Item, failure: Failure) {
        match item {
            Item::Txn(txn) => self.client_fail(txn, failure),
            Item::Ack(..) => self.counters.sip.acks_lost += 1,
            Item::Response(..) => self.counters.sip.replies_lost += 1,
        }
    }

    /// Something of a way may be overdue.
    pub(super) fn sip_way_due(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        if way.armed <= now {
            way.armed = Moment::NEVER;
        }
        self.expire_items(key);
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        if way.stage_deadline <= now {
            self.sip_stage_due(key);
        }
        let Some(way) = self.transport.ways.get(key) else { return };
        let is_idle =
            !way.is_wanted() && now.since(way.used) >= WAY_IDLE_MAX && way.probe_until <= now;
        if is_idle && way.lines.is_empty() && matches!(way.stage, Stage::Idle) {
            let pair = (way.near.clone(), way.peer.clone());
            self.transport.ways.remove(key);
            self.transport.pairs.remove(&pair);
            return;
        }
        self.sip_way_on(key);
    }

    /// What has waited for too long.
    fn expire_items(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        let clients = &self.transport.clients;
        let mut late = Vec::new();
        let mut bytes = 0;
        for queue in [&mut way.dialog, &mut way.new] {
            let all = std::mem::take(queue);
            for item in all {
                let (until, length) = match &item {
                    Item::Txn(txn) => match clients.get(*txn) {
                        Some(it) => (it.deadline, it.text.len()),
                        None => continue,
                    },
                    Item::Ack(text, until) | Item::Response(text, until) => (*until, text.len()),
                };
                if until <= now {
                    late.push(item);
                } else {
                    bytes += length;
                    queue.push_back(item);
                }
            }
        }
        way.bytes = bytes;
        self.counters.sip.queue_late += late.len() as u64;
        for item in late {
            self.item_fails(item, Failure::Timeout);
        }
    }

    /// Sets when to look after a way; it keeps one token in the wheel.
    pub(super) fn watch_sip_way(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(rate) = self.transport.ways.get(key).map(|it| self.rate_of(&it.far)) else {
            return;
        };
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        let idle = way.used + WAY_IDLE_MAX;
        let mut deadline = way.stage_deadline.min(idle.max(now + LOOK_AGAIN));
        if way.is_wanted() {
            let next = way.pace.next(rate, now);
            // Paced, or held up: deadlines are looked at every so often.
            let soon = if next > now { next } else { now + LOOK_AGAIN };
            deadline = deadline.min(soon).min(now + LOOK_AGAIN);
        }
        let deadline = deadline.max(now + DUE_PAUSE);
        if deadline < way.armed {
            way.armed = deadline;
            self.timers.set(deadline, Timer::Sip(Due::Way(key)));
        }
    }

    /// Everybody who waits is told; the connections are closed with all others.
    pub(in crate::shard) fn stop_sip_ways(&mut self) {
        let keys: Vec<Key> = self.transport.ways.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.way_fail(key, Failure::Stopping);
        }
    }
}

/// A way with something in its queue is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// And never again in the same turn.
const DUE_PAUSE: Duration = Duration::from_millis(10);
