//! Between a user's home and the shard of a connection: requests, answers and their failures, as
//! records of the mesh, or directly where both are the same shard.
//!
//! Nothing recurses: what fails at once is told when the turn's events have been taken. The home's
//! half of a request is an [`Asked`]: who hears its answer, and until when, so that a record which is
//! lost leaves nobody waiting. Does **not** look into messages but for their first word.

use std::time::Duration;

use crate::limits::SIP_ANSWER_GRACE;
use crate::route::shard_of_domain;
use crate::shard::kernel::ShardId;
use crate::shard::post::{Record, put_text, take_text, take_u64};
use crate::shard::settings::ListenerId;
use crate::shard::sip::client::Wanted;
use crate::shard::sip::transport::Place;
use crate::shard::sip::{Ask, Asker, Class, Due, Failure, Heard, Outgoing, Txn};
use crate::shard::{Shard, Timer};
use crate::sip::Fault;
use crate::sip::transaction::LIFE;
use crate::sip::write;
use crate::sip::{Message, Method};
use crate::stdx::Key;
use crate::time::Moment;

/// A request of a user of this shard that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    asker: Asker,
    /// The shard of its way.
    way: ShardId,
    is_invite: bool,
    /// The final answer was heard; an INVITE's may come again.
    is_answered: bool,
    until: Moment,
}

/// What is told at the end of the turn.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Of(u64, Failure),
    /// It never had a number.
    Early(Asker, Failure),
    /// A peer of that domain of ours is back.
    Back(Box<str>, Box<str>),
}

impl Failure {
    const ALL: [Self; 6] = [
        Self::Timeout,
        Self::Unreachable,
        Self::Unresolved,
        Self::Denied,
        Self::Overload,
        Self::Stopping,
    ];
}

/// From a home: requests.
impl Shard {
    /// A request of a local user goes out; its answers come to the asker, never within this call.
    pub(in crate::shard) fn sip_send(&mut self, asker: Asker, out: Outgoing) -> Ask {
        let peer = self.settings.policy.sip(&out.far).map(|it| it.name(&out.far).to_owned());
        let failure = match peer {
            _ if self.stopping => Some(Failure::Stopping),
            None => Some(Failure::Denied),
            Some(_) if self.transport.asks.is_full() => Some(Failure::Overload),
            Some(_) => None,
        };
        if let Some(failure) = failure {
            self.counters.sip.unasked += 1;
            if asker != Asker::Nobody {
                self.transport.told.push_back(Told::Early(asker, failure));
            }
            return Ask(0);
        }
        let way = ShardId(shard_of_domain(&peer.unwrap_or_default(), self.settings.shards));
        let ask = self.enter_ask(asker, way, &out);
        self.counters.sip.asked += 1;
        if way == self.id {
            self.out_came(self.id, ask, out);
        } else {
            self.posts.record(way, Record::SipOut, |bytes| {
                bytes.extend_from_slice(&ask.to_le_bytes());
                bytes.push(u8::from(out.class == Class::New));
                bytes.extend_from_slice(&out.deadline.0.to_le_bytes());
                put_text(&out.near, bytes);
                put_text(&out.far, bytes);
                bytes.extend_from_slice(&out.text);
            });
        }
        Ask(ask)
    }

    fn enter_ask(&mut self, asker: Asker, way: ShardId, out: &Outgoing) -> u64 {
        let is_invite = out.text.starts_with(b"INVITE ");
        if asker == Asker::Nobody || out.text.starts_with(b"ACK ") {
            return 0;
        }
        let until = out.deadline + SIP_ANSWER_GRACE;
        let asked = Asked { asker, way, is_invite, is_answered: false, until };
        let Ok(key) = self.transport.asks.insert(asked) else { return 0 };
        self.timers.set(until, Timer::Sip(Due::Ask(key)));
        key.to_u64()
    }

    /// Nobody wants the answer to that INVITE any more.
    pub(in crate::shard) fn sip_cancel(&mut self, ask: Ask) {
        let Some(asked) = self.transport.asks.get(Key::from_u64(ask.0)) else { return };
        let way = asked.way;
        if way == self.id {
            self.client_cancel(self.id, ask.0);
        } else {
            let fields = |bytes: &mut Vec<u8>| bytes.extend_from_slice(&ask.0.to_le_bytes());
            self.posts.record(way, Record::SipCancel, fields);
        }
    }

    /// On the way's shard: somebody's request.
    fn out_came(&mut self, home: ShardId, ask: u64, out: Outgoing) {
        let peer = self.settings.policy.sip(&out.far).map(|it| it.name(&out.far).to_owned());
        let Some(peer) = peer else { return self.tell_failure(home, ask, Failure::Denied) };
        let Outgoing { near, far, class, deadline, text } = out;
        let Some(key) = self.way_enter(&near, &peer, &far) else {
            return self.tell_failure(home, ask, Failure::Overload);
        };
        self.way_want(key, Wanted { home, ask, class, deadline, text, tries: 0 });
    }

    /// On the way's shard: an answer for who asked.
    pub(super) fn tell_response(&mut self, home: ShardId, ask: u64, response: &Message<'_>) {
        if ask == 0 {
            return;
        }
        if home == self.id {
            return self.ask_heard(ask, Heard::Response(*response));
        }
        self.posts.record(home, Record::SipAnswer, |bytes| {
            bytes.extend_from_slice(&ask.to_le_bytes());
            bytes.push(0);
            bytes.extend_from_slice(response.frame());
        });
    }

    /// On the way's shard: there is no answer.
    pub(super) fn tell_failure(&mut self, home: ShardId, ask: u64, failure: Failure) {
        self.counters.sip.failed += 1;
        if ask == 0 {
            return;
        }
        if home == self.id {
            return self.transport.told.push_back(Told::Of(ask, failure));
        }
        self.posts.record(home, Record::SipAnswer, |bytes| {
            bytes.extend_from_slice(&ask.to_le_bytes());
            // Failures are few: they fit behind the zero of an answer.
            bytes.push(1 + failure as u8);
        });
    }

    /// On the home shard: what came of a request.
    fn ask_heard(&mut self, ask: u64, heard: Heard<'_>) {
        let key = Key::from_u64(ask);
        let now = self.now.moment;
        #[cfg(test)]
        if self.transport.asks.contains(key) {
            self.transport.heard.push(match heard {
                Heard::Response(response) => response.status().to_string(),
                Heard::Failed(failure) => format!("{failure:?}"),
            });
        }
        let Some(asked) = self.transport.asks.get_mut(key) else { return };
        let status = match heard {
            Heard::Response(response) => response.status(),
            Heard::Failed(_) => 0,
        };
        if asked.is_answered && !(200..300).contains(&status) {
            return;
        }
        let asker = asked.asker;
        match status {
            100..200 => {}
            // RFC 6026, 8.4: it comes again until it is acknowledged.
            200..300 if asked.is_invite => {
                asked.is_answered = true;
                asked.until = now + LIFE;
                let until = asked.until;
                self.timers.set(until, Timer::Sip(Due::Ask(key)));
            }
            _ => {
                self.transport.asks.remove(key);
            }
        }
        self.sip_heard(asker, heard);
    }

    /// An answer is overdue: its record was lost.
    pub(super) fn ask_due(&mut self, key: Key) {
        let Some(asked) = self.transport.asks.get(key) else { return };
        if asked.until > self.now.moment {
            return;
        }
        if asked.is_answered {
            self.transport.asks.remove(key);
        } else {
            self.counters.sip.asks_overdue += 1;
            self.ask_heard(key.to_u64(), Heard::Failed(Failure::Timeout));
        }
    }

    /// Failures of this turn.
    pub(in crate::shard) fn tell_sip(&mut self) {
        while let Some(told) = self.transport.told.pop_front() {
            match told {
                Told::Back(near, peer) => self.watch_peer_back(&near, &peer),
                Told::Of(ask, failure) => self.ask_heard(ask, Heard::Failed(failure)),
                Told::Early(asker, failure) => {
                    #[cfg(test)]
                    self.transport.heard.push(format!("{failure:?}"));
                    self.sip_heard(asker, Heard::Failed(failure));
                }
            }
        }
    }

    /// A timer of SIP is due.
    pub(in crate::shard) fn sip_due(&mut self, due: Due) {
        match due {
            Due::Watched(key) => self.watched_due(key),
            Due::Watch(key) => self.watch_due(key),
            Due::Session(key) => self.session_due(key),
            Due::Restore => self.restore_again(),
            Due::Known => self.restore_known(),
            Due::Server(key) => self.server_due(key),
            Due::Client(key) => self.client_due(key),
            Due::Way(key) => self.sip_way_due(key),
            Due::Ask(key) => self.ask_due(key),
        }
    }

    /// Somebody of this shard is still to be told.
    pub(in crate::shard) fn owes_sip(&self) -> bool {
        !self.transport.told.is_empty() || !self.sip.handled.is_empty()
    }
}

/// To a home and back: requests of partners.
impl Shard {
    /// A request goes to its user's home.
    pub(super) fn hand_home(&mut self, home: ShardId, txn: Txn, far: &str, request: &Message<'_>) {
        if home == self.id {
            return self.sip_request_read(txn, far, request);
        }
        self.post_request(home, txn, far, request.frame());
    }

    /// The same with an ACK that nobody has at hand as it was read.
    pub(super) fn hand_home_unread(&mut self, home: ShardId, far: &str, frame: &[u8]) {
        let txn = Txn { shard: self.id, key: 0 };
        if home == self.id {
            return self.sip_request_came(txn, far, frame);
        }
        self.post_request(home, txn, far, frame);
    }

    fn post_request(&mut self, home: ShardId, txn: Txn, far: &str, frame: &[u8]) {
        self.posts.record(home, Record::SipRequest, |bytes| {
            bytes.extend_from_slice(&txn.key.to_le_bytes());
            put_text(far, bytes);
            bytes.extend_from_slice(frame);
        });
    }

    /// Its caller has given up.
    pub(super) fn post_cancelled(&mut self, home: ShardId, txn: Txn) {
        if home == self.id {
            return self.sip_cancelled(txn);
        }
        let fields = |bytes: &mut Vec<u8>| bytes.extend_from_slice(&txn.key.to_le_bytes());
        self.posts.record(home, Record::SipCancelled, fields);
    }

    /// A whole response: a 1xx, a final one, or the 2xx of an INVITE again.
    pub(in crate::shard) fn sip_reply(&mut self, txn: Txn, text: Vec<u8>) {
        if txn.shard == self.id {
            return self.server_reply(txn.key, &text);
        }
        self.posts.record(txn.shard, Record::SipReply, |bytes| {
            bytes.extend_from_slice(&txn.key.to_le_bytes());
            bytes.extend_from_slice(&text);
        });
    }

    /// Whether the answer to a request that is in a dialog can be made from what its transaction has.
    pub(in crate::shard) fn sip_has_answer(&self, txn: Txn, request: &Message<'_>) -> bool {
        txn.shard == self.id && txn.key != 0 && request.to().is_ok_and(|it| it.tag().is_some())
    }

    /// 200 to a request of which [`Self::sip_has_answer`] was true.
    pub(in crate::shard) fn sip_ok(&mut self, txn: Txn) {
        self.server_ok(txn.key);
    }

    /// What there is of the answer to such a request, as a 100.
    pub(in crate::shard) fn sip_trying(&self, txn: Txn) -> Vec<u8> {
        self.server_trying(txn.key)
    }

    /// Refuses a request, with the headers that the fault has.
    pub(in crate::shard) fn sip_refuse(&mut self, txn: Txn, request: &Message<'_>, fault: &Fault) {
        if txn.key == 0 {
            return;
        }
        let tagged = request.to().is_ok_and(|it| it.tag().is_some());
        let tag = (!tagged).then(|| self.sip_token());
        let mut text = Vec::with_capacity(512);
        write::refusal(request, fault, tag.as_deref(), &mut text);
        self.sip_reply(txn, text);
    }

    /// A peer's datagram for the shard of its way; where its answer goes.
    pub(super) fn post_datagram(&mut self, to: ShardId, place: Place, far: &str, frame: &[u8]) {
        let Place::Datagram(listener, answer) = place else { return };
        self.posts.record(to, Record::SipDatagram, |bytes| {
            bytes.extend_from_slice(&u64::from(listener.0).to_le_bytes());
            put_text(&answer.to_string(), bytes);
            put_text(far, bytes);
            bytes.extend_from_slice(frame);
        });
    }

    /// A response for another shard of ours: it came on a socket or a connection of this one.
    pub(super) fn post_stray(&mut self, to: ShardId, frame: &[u8]) {
        self.posts.record(to, Record::SipStray, |bytes| bytes.extend_from_slice(frame));
    }
}

/// The mesh.
impl Shard {
    /// A peer that was away is back: homes take up what they had with its domains.
    pub(super) fn tell_peer_back(&mut self, near: &str, peer: &str) {
        self.counters.sip.peers_back += 1;
        for shard in (0..self.settings.shards).map(ShardId).filter(|it| *it != self.id) {
            self.posts.record(shard, Record::SipBack, |bytes| {
                put_text(near, bytes);
                put_text(peer, bytes);
            });
        }
        self.transport.told.push_back(Told::Back(near.into(), peer.into()));
    }

    /// A record of SIP from another shard.
    pub(in crate::shard) fn sip_posted(&mut self, from: ShardId, record: Record, rest: &[u8]) {
        let mut at = rest;
        match record {
            Record::SipRequest => {
                let Some(key) = take_u64(&mut at) else { return };
                let Some(far) = take_text(&mut at) else { return };
                self.sip_request_came(Txn { shard: from, key }, far, at);
            }
            Record::SipReply => {
                let Some(key) = take_u64(&mut at) else { return };
                self.server_reply(key, at);
            }
            Record::SipCancelled => {
                let Some(key) = take_u64(&mut at) else { return };
                self.sip_cancelled(Txn { shard: from, key });
            }
            Record::SipOut => {
                if let Some((ask, out)) = read_out(rest) {
                    self.out_came(from, ask, out);
                }
            }
            Record::SipCancel => {
                let Some(ask) = take_u64(&mut at) else { return };
                self.client_cancel(from, ask);
            }
            Record::SipAnswer => self.answer_came(at),
            Record::SipBack => {
                if let (Some(near), Some(peer)) = (take_text(&mut at), take_text(&mut at)) {
                    self.watch_peer_back(near, peer);
                }
            }
            Record::SipDatagram => {
                let (Some(listener), Some(answer)) = (take_u64(&mut at), take_text(&mut at)) else {
                    return;
                };
                let (Ok(listener), Ok(answer)) = (u16::try_from(listener), answer.parse()) else {
                    return;
                };
                let Some(far) = take_text(&mut at) else { return };
                self.datagram_came(Place::Datagram(ListenerId(listener), answer), far, at);
            }
            Record::SipStray => {
                self.with_read(rest, |shard, response| shard.client_response(&response));
            }
            _ => {}
        }
    }

    fn answer_came(&mut self, mut at: &[u8]) {
        let Some(ask) = take_u64(&mut at) else { return };
        match at.split_first() {
            Some((0, frame)) => {
                self.with_read(frame, |shard, response| {
                    shard.ask_heard(ask, Heard::Response(response));
                });
            }
            Some((code, _)) => {
                if let Some(failure) = Failure::ALL.get(usize::from(*code) - 1) {
                    self.ask_heard(ask, Heard::Failed(*failure));
                }
            }
            None => {}
        }
    }

    /// The mesh to that shard is full; true: the record is offered again.
    pub(in crate::shard) fn sip_unposted(&mut self, record: Record, rest: &[u8]) -> bool {
        match record {
            Record::SipOut => {
                let Some((ask, _)) = read_out(rest) else { return false };
                if ask != 0 {
                    self.transport.told.push_back(Told::Of(ask, Failure::Overload));
                }
                // An ACK or a BYE that nobody waits for.
                ask == 0
            }
            Record::SipRequest => {
                let mut at = rest;
                let (Some(key), Some(_)) = (take_u64(&mut at), take_text(&mut at)) else {
                    return false;
                };
                let refused = self.with_read(at, |shard, request| {
                    let new = request.to().is_ok_and(|to| to.tag().is_none());
                    // RFC 3261 warns of 503: only what makes something new is refused with it.
                    if key == 0 || !new || matches!(request.method(), Method::Ack) {
                        return false;
                    }
                    shard.counters.sip.overload += 1;
                    let txn = Txn { shard: shard.id, key };
                    shard.sip_refuse(txn, &request, &Fault::new(503));
                    true
                });
                refused != Some(true)
            }
            _ => true,
        }
    }
}

fn read_out(mut at: &[u8]) -> Option<(u64, Outgoing)> {
    let ask = take_u64(&mut at)?;
    let (class, mut at) = at.split_first()?;
    let class = if *class == 1 { Class::New } else { Class::InDialog };
    let deadline = Moment(take_u64(&mut at)?);
    let near = take_text(&mut at)?.into();
    let far = take_text(&mut at)?.into();
    Some((ask, Outgoing { near, far, class, deadline, text: at.to_vec() }))
}

/// What the home waits longer than the way, so that the way's word comes first.
const _: () = assert!(SIP_ANSWER_GRACE.as_millis() > Duration::from_secs(1).as_millis());
