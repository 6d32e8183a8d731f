//! The ways of this shard put to work: what waits for a stream, and what becomes of it.
//!
//! What a way may do next is `peer::way`'s; `targets.rs` finds whom to connect to, and what is said
//! then is in `peer_out.rs`.
//! RFC 6120, 3.2 and 10.4; XEP-0220, 2.1.1. `see-other-host` is **not** followed: it counts as a
//! target that failed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::dns;
use crate::limits::{DIALBACK_TIME_MAX, WAY_IDLE_MAX, WAY_QUEUE_TIME_MAX};
use crate::peer::{Input, Stage, Trouble, Verification, Waiting};
use crate::shard::conn::{Conn, Role};
use crate::shard::deliver::{Carry, Text};
use crate::shard::kernel::{ConnId, ShardId, Ticket};
use crate::shard::post::{Verdict, Verify};
use crate::shard::{Shard, Timer};
use crate::stdx::Key;
use crate::time::Moment;
use crate::xmpp::dialback::{self, Condition};
use crate::xmpp::fault::StanzaFault;

impl Shard {
    /// A stanza for another domain, written for its stream; this shard owns the way.
    pub(super) fn onto_way(&mut self, carry: &Carry<'_>) {
        let Text::Written(text) = carry.text else {
            unreachable!("whoever routes to a way writes for its stream")
        };
        if self.stopping {
            return self.bounce(carry, StanzaFault::RemoteServerTimeout);
        }
        let (near, far, now) = (carry.from.domain(), carry.to.domain(), self.now.moment);
        let Some(key) = self.ways.enter(near, far, now) else {
            self.counters.ways_full += 1;
            return self.bounce(carry, StanzaFault::ResourceConstraint);
        };
        let Some(way) = self.ways.get_mut(key) else { return };
        way.used = now;
        if let Some(id) = way.direct()
            && self.conns.outbox(id).is_some_and(|outbox| outbox.has_room())
        {
            return self.hand_to(id, carry);
        }
        let waiting = Waiting {
            from: carry.from.to_address(),
            to: carry.to.to_address(),
            kind: carry.kind,
            purpose: carry.purpose,
            origin: carry.origin,
            since: carry.since,
            deadline: carry.since + WAY_QUEUE_TIME_MAX,
            text: text.into(),
        };
        if way.queue.push(waiting).is_err() {
            self.counters.ways_full += 1;
            return self.bounce(carry, StanzaFault::ResourceConstraint);
        }
        self.way_on(key);
    }

    /// The stream of a way of this shard on which a stanza may go out at once: nothing waits for it,
    /// and there is room.
    pub(super) fn open_way(&mut self, near: &str, far: &str) -> Option<ConnId> {
        if self.stopping {
            return None;
        }
        let key = self.ways.find(near, far)?;
        let way = self.ways.get_mut(key)?;
        let id = way.direct()?;
        way.used = self.now.moment;
        self.conns.outbox(id).is_some_and(|outbox| outbox.has_room()).then_some(id)
    }

    /// A stream of some shard wants a key verified by the way this shard owns (XEP-0220, 2.2).
    pub(super) fn verify_asked(&mut self, from: ShardId, verify: Verify) {
        let Verify { ticket, near, far, stream_id, key } = verify;
        let now = self.now.moment;
        let way = if self.stopping { None } else { self.ways.enter(&near, &far, now) };
        let verification = Verification {
            asker: from.0,
            ticket: ticket.0,
            stream_id,
            key,
            deadline: now + DIALBACK_TIME_MAX,
            asked: false,
        };
        let taken = way.and_then(|key| {
            self.ways.get_mut(key)?.verify(verification).ok()?;
            Some(key)
        });
        match taken {
            Some(key) => self.way_on(key),
            None => {
                self.counters.ways_full += 1;
                let verdict = Verdict::Failed(Condition::ResourceConstraint);
                self.tell_verdict(from, ticket, &near, &far, verdict);
            }
        }
    }

    /// The peer has shown itself on an inbound stream: no way to it pauses any longer.
    pub(super) fn peer_heard(&mut self, near: &str, far: &str) {
        let Some(key) = self.ways.find(near, far) else { return };
        if let Some(way) = self.ways.get_mut(key) {
            way.peer_is_there();
        }
        self.way_on(key);
    }

    /// Does what can be done now for those who wait.
    pub(super) fn way_on(&mut self, key: Key) {
        let Some(way) = self.ways.get(key) else { return };
        match way.stage() {
            Stage::Idle if way.is_wanted() && !self.stopping => self.resolve(key),
            Stage::Usable(id) => {
                self.ask_keys(key, id);
                // Where this comes out of the connection's own frames, they go on themselves.
                if let Some(mut conn) = self.conns.take(id) {
                    self.way_prove(&mut conn);
                    self.conns.put_back(conn);
                }
            }
            Stage::Open(id) => {
                self.ask_keys(key, id);
                self.way_drain(key, id);
            }
            _ => {}
        }
        self.watch_way(key);
    }

    /// Keys of inbound streams go to who is said to have made them.
    fn ask_keys(&mut self, key: Key, id: ConnId) {
        let Some(way) = self.ways.get_mut(key) else { return };
        let (near, far) = (way.near.clone(), way.far.clone());
        let mut text = Vec::new();
        for it in way.ask() {
            dialback::verify_request(&mut text, &near, &far, &it.stream_id, &it.key);
        }
        if !text.is_empty() {
            self.write(id, |out| out.extend_from_slice(&text));
        }
    }

    /// What waits goes into the outbox, in its order, as far as there is room.
    pub(super) fn way_drain(&mut self, key: Key, id: ConnId) {
        while self.conns.outbox(id).is_some_and(|outbox| outbox.has_room()) {
            let Some(waiting) = self.ways.get_mut(key).and_then(|way| way.queue.take()) else {
                break;
            };
            self.with_waiting(&waiting, |shard, carry| shard.hand_to(id, carry));
        }
    }

    fn with_waiting(&mut self, waiting: &Waiting, work: impl FnOnce(&mut Self, &Carry<'_>)) {
        let carry = Carry {
            origin: waiting.origin,
            since: waiting.since,
            kind: waiting.kind,
            purpose: waiting.purpose,
            from: waiting.from.view(),
            to: waiting.to.view(),
            text: Text::Written(&waiting.text),
        };
        work(self, &carry);
    }

    /// No target is any good: who waits is told, and the next try is not at once.
    pub(super) fn give_up(&mut self, key: Key, fault: StanzaFault, condition: Condition) {
        let (now, dice) = (self.now.moment, self.random.number());
        let Some(way) = self.ways.get_mut(key) else { return };
        let Ok(pause) = way.give_up(now, dice) else { return };
        let trouble = way.trouble.take();
        let (near, far) = (way.near.clone(), way.far.clone());
        let (waiting, verifications) = way.clear();
        self.counters.peer_setup_failed += 1;
        let trouble = trouble.unwrap_or_else(|| Trouble {
            step: "stream",
            reason: "it ended".to_owned(),
            target: String::new(),
        });
        self.notice(
            "peer_setup_failed",
            vec![
                ("peer", far.clone()),
                ("local", near.clone()),
                ("dir", "out".to_owned()),
                ("step", trouble.step.to_owned()),
                ("reason", trouble.reason),
                ("next_try_s", pause.as_secs_f32().ceil().to_string()),
                ("target", trouble.target),
            ],
        );
        self.let_down(&near, &far, waiting, verifications, fault, condition);
        self.watch_way(key);
    }

    fn let_down(
        &mut self,
        near: &str,
        far: &str,
        waiting: Vec<Waiting>,
        verifications: Vec<Verification>,
        fault: StanzaFault,
        condition: Condition,
    ) {
        for it in waiting {
            self.with_waiting(&it, |shard, carry| shard.bounce(carry, fault));
        }
        for it in verifications {
            let verdict = Verdict::Failed(condition);
            self.tell_verdict(ShardId(it.asker), Ticket(it.ticket), near, far, verdict);
        }
    }

    /// The queue alone bounces; the stream lives on (XEP-0220, 2.4.2).
    pub(super) fn bounce_queue(&mut self, key: Key, fault: StanzaFault) {
        let Some(way) = self.ways.get_mut(key) else { return };
        let mut waiting = Vec::new();
        while let Some(it) = way.queue.take() {
            waiting.push(it);
        }
        for it in waiting {
            self.with_waiting(&it, |shard, carry| shard.bounce(carry, fault));
        }
    }

    /// To the stream that waits for a key's verdict: here, at the end of the turn's events, or on
    /// another shard.
    pub(super) fn tell_verdict(
        &mut self,
        asker: ShardId,
        ticket: Ticket,
        near: &str,
        far: &str,
        verdict: Verdict,
    ) {
        if asker == self.id {
            self.verdicts.push((ticket, near.to_owned(), far.to_owned(), verdict));
        } else {
            self.posts.verified(asker, ticket, near, far, verdict);
        }
    }

    /// The stream of a way is closing or gone, whoever's will it was.
    pub(super) fn way_gone(&mut self, conn: &Conn) {
        let Role::PeerOut(peer) = &conn.role else { return };
        let key = peer.key;
        let ended = peer.end;
        let Some(way) = self.ways.get_mut(key) else { return };
        let stage = way.stage();
        if stage.key() != Some(conn.id) {
            return;
        }
        match (stage, ended) {
            (Stage::Open(_), _) if way.trouble.is_some() => {
                // What has not been written keeps its place up to its deadline.
                let (now, dice) = (self.now.moment, self.random.number());
                if way.give_up(now, dice).is_ok() {
                    self.counters.peer_streams_lost += 1;
                }
                self.watch_way(key);
            }
            (Stage::Usable(_), None) if !way.is_wanted() => {
                // It served its verifications; that it ends is no failure.
                if way.handle(Input::Ended).is_ok() {
                    self.watch_way(key);
                }
            }
            (Stage::Open(_), _) | (_, Some(StreamEnd::Unwanted)) => {
                if way.handle(Input::Ended).is_ok() {
                    self.way_on(key);
                }
            }
            (_, Some(StreamEnd::Bounce(fault))) => {
                self.give_up(key, fault, Condition::RemoteConnectionFailed);
            }
            (_, None) => {
                if way.trouble.is_none() {
                    way.trouble = Some(Trouble {
                        step: peer.talk.step(),
                        reason: "the far end closed the connection".to_owned(),
                        target: target_text(way.target.as_ref()),
                    });
                }
                if peer.talk.step() == "dialback" {
                    // XEP-0220, 2.1.1: closed while we wait for the answer to our key.
                    let fault = StanzaFault::RemoteServerTimeout;
                    self.give_up(key, fault, Condition::RemoteConnectionFailed);
                } else {
                    self.target_failed(key);
                }
            }
        }
    }

    /// The set-up toward a peer failed in that step; no effect on other connections.
    pub(super) fn way_troubled(
        &mut self,
        conn: &Conn,
        step: &'static str,
        why: impl FnOnce() -> String,
    ) {
        match &conn.role {
            Role::PeerOut(peer) => {
                let Some(way) = self.ways.get_mut(peer.key) else { return };
                if way.stage().key() == Some(conn.id) {
                    let target = target_text(way.target.as_ref());
                    way.trouble = Some(Trouble { step, reason: why(), target });
                }
            }
            Role::PeerIn(peer) if !peer.is_proved() && !self.stopping => {
                self.counters.peer_setup_failed += 1;
                let fields = vec![
                    ("peer", peer.far()),
                    ("local", peer.near()),
                    ("dir", "in".to_owned()),
                    ("step", step.to_owned()),
                    ("reason", why()),
                    ("target", conn.remote.to_string()),
                ];
                self.notice("peer_setup_failed", fields);
            }
            Role::Sip(_) => {
                let why = why();
                self.sip_conn_troubled(conn, step, why);
            }
            Role::PeerIn(_) | Role::Login(_) | Role::Bound(_) => {}
        }
    }

    /// Something of a way may be overdue.
    pub(super) fn way_due(&mut self, ticket: Ticket) {
        let key = Key::from_u64(ticket.0);
        let now = self.now.moment;
        let Some(way) = self.ways.get_mut(key) else { return };
        if way.armed <= now {
            way.armed = Moment::NEVER;
        }
        let (near, far) = (way.near.clone(), way.far.clone());
        let (late, unanswered) = way.expire(now);
        let timeout = (StanzaFault::RemoteServerTimeout, Condition::RemoteServerTimeout);
        self.let_down(&near, &far, late, unanswered, timeout.0, timeout.1);
        let Some(way) = self.ways.get_mut(key) else { return };
        let is_due = way.stage_deadline <= now;
        let is_idle = !way.is_wanted() && now.since(way.used) >= WAY_IDLE_MAX;
        match way.stage() {
            // Only a pause can be over, and only here.
            Stage::BackingOff { .. } if is_due && way.handle(Input::Retry).is_err() => return,
            Stage::Resolving if is_due => {
                self.resolved(ticket, dns::Answer::Failed, dns::Answer::Failed);
            }
            Stage::LookingUp if is_due => self.looked_up(key, None),
            Stage::Connecting if is_due => self.connect_failed(ticket, "no answer in time"),
            Stage::Idle if is_idle => {
                self.ways.remove(key);
                return;
            }
            Stage::Open(id) if is_idle => {
                if let Some(mut conn) = self.conns.take(id) {
                    self.close_stream(&mut conn);
                    self.conns.put_back(conn);
                }
            }
            _ => {}
        }
        self.way_on(key);
    }

    /// Sets when to look after a way; like a connection it keeps one token in the wheel.
    pub(super) fn watch_way(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(way) = self.ways.get_mut(key) else { return };
        let mut deadline = way.next_deadline(now);
        if deadline <= now {
            // Not again in this turn, whatever is due: time has to move in between.
            deadline = now + DUE_PAUSE;
        }
        if deadline < way.armed {
            way.armed = deadline;
            self.timers.set(deadline, Timer::Way(Ticket(key.to_u64())));
        }
    }

    /// Everybody who waits is told; the streams themselves are closed with all others.
    pub(super) fn stop_ways(&mut self) {
        for key in self.ways.keys() {
            let Some(mut way) = self.ways.remove(key) else { continue };
            let (waiting, verifications) = way.clear();
            let fault = StanzaFault::RemoteServerTimeout;
            let condition = Condition::RemoteServerTimeout;
            self.let_down(&way.near, &way.far, waiting, verifications, fault, condition);
        }
    }
}

/// How a stream of ours ended, where that says more than that its target is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// Nobody needed it any more.
    Unwanted,
    /// Another target would not help: what waits bounces with this.
    Bounce(StanzaFault),
}

/// A target as operators read it.
pub(super) fn target_text(target: Option<&dns::Target>) -> String {
    target.map_or_else(String::new, |it| {
        let address = SocketAddr::new(it.address, it.port);
        if it.host.parse::<IpAddr>().is_ok() {
            address.to_string()
        } else {
            format!("{} ({address})", it.host)
        }
    })
}

/// A way that is due is looked at once, and again after this.
const DUE_PAUSE: Duration = Duration::from_millis(10);
