//! Server transactions: a request that came, until it has its answer.
//!
//! What may follow what is `sip::transaction`'s. A response goes back where its request came from; if
//! that connection is gone, to one for the Via's sent-by (RFC 3261, 18.2.2), which is the peer's way.
//! The user's home answers; a transaction that it forgets is ended here. Refusals at the edge need
//! **no** transaction: they are the same each time (8.2.7).

use crate::limits::{SIP_INVITE_TIME_MAX, SIP_SERVERS_MAX};
use crate::shard::kernel::ShardId;
use crate::shard::sip::transport::Place;
use crate::shard::sip::{Due, Txn};
use crate::shard::{Shard, Timer};
use crate::sip::transaction::{
    Action, Input, Machine, Parts, ServerKey, Step, write_merge_key, write_server_key,
};
use crate::sip::write;
use crate::sip::{Message, Method};
use crate::stdx::Key;
use crate::time::Moment;

/// One of them.
#[derive(Debug)]
pub(super) struct ServerTxn {
    machine: Machine,
    place: Place,
    name: ServerKey,
    merge: Option<ServerKey>,
    /// The user's home.
    home: ShardId,
    /// The peer it came from, the domain of its From, and the domain of ours it is for, a line each.
    parties: Box<str>,
    /// A 100 of our own, from which any answer of ours can be made.
    trying: Vec<u8>,
    /// What was sent last.
    last: Vec<u8>,
    again: Moment,
    pause: (std::time::Duration, std::time::Duration),
    end: Moment,
    armed: Moment,
}

/// A request at hand, and what was found out about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming<'a> {
    pub(super) place: Place,
    /// Names the peer: transactions of others are not touched.
    pub(super) peer: &'a str,
    /// The domain of its From.
    pub(super) far: &'a str,
    /// The domain of ours it is for.
    pub(super) near: &'a str,
    /// Where its user is at home.
    pub(super) home: ShardId,
}

/// What is there of a request already.
pub(super) enum Known {
    /// Nothing; what its transaction is to be named.
    New(Names),
    /// It came again, or it is an ACK: its transaction took it.
    Absorbed,
    /// RFC 3261, 8.2.2.2.
    Merged,
    /// It can't be named: it is malformed.
    Unnamed,
}

/// What names the transaction of a request; the Via was looked at before.
pub(super) fn parts<'a>(request: &Message<'a>) -> Option<Parts<'a>> {
    let via = request.via().ok()?;
    let tag = |it: Result<crate::sip::NameAddr<'a>, _>| it.ok().and_then(|it| it.tag());
    let (cseq, _) = request.cseq().ok()?;
    Some(Parts {
        branch: via.branch(),
        host: via.host,
        port: via.port,
        method: request.method().as_bytes(),
        uri: request.uri(),
        from_tag: tag(request.from()).unwrap_or_default(),
        to_tag: tag(request.to()).unwrap_or_default(),
        call_id: request.call_id().ok()?.as_bytes(),
        cseq,
        via: via.value(),
    })
}

/// What names a transaction, and what it shares with merged requests if it may be one.
#[derive(Debug)]
pub(super) struct Names {
    own: ServerKey,
    merge: Option<ServerKey>,
}

impl Names {
    /// With the peer in front, so that nobody touches another's transaction.
    fn of(peer: &str, parts: &Parts<'_>) -> Self {
        let mut text = Vec::with_capacity(192);
        let mut written = |write: fn(&Parts<'_>, &mut Vec<u8>)| {
            text.clear();
            text.extend_from_slice(peer.as_bytes());
            text.push(b'\n');
            write(parts, &mut text);
            ServerKey::from(text.as_slice())
        };
        let own = written(write_server_key);
        Self { own, merge: parts.to_tag.is_empty().then(|| written(write_merge_key)) }
    }
}

impl Shard {
    /// Looks whether the request belongs to a transaction there is.
    pub(super) fn server_known(&mut self, peer: &str, request: &Message<'_>) -> Known {
        let Some(parts) = parts(request) else { return Known::Unnamed };
        let names = Names::of(peer, &parts);
        if let Some(key) = self.transport.server_keys.get(&names.own).copied() {
            match request.method() {
                Method::Ack => self.server_step(key, Input::Ack, Some(request.frame())),
                _ => {
                    self.counters.sip.repeated += 1;
                    self.server_step(key, Input::Request, None);
                }
            }
            return Known::Absorbed;
        }
        let is_first = !matches!(request.method(), Method::Ack);
        if let Some(merge) = names.merge.as_ref().filter(|_| is_first)
            && self.transport.merge_keys.contains_key(merge)
        {
            return Known::Merged;
        }
        Known::New(names)
    }

    /// A new one. `None`: there are too many.
    pub(super) fn server_begin(
        &mut self,
        it: &Incoming<'_>,
        names: Names,
        request: &Message<'_>,
    ) -> Option<Txn> {
        let Names { own: name, merge } = names;
        // RFC 3261 warns of 503, so what makes something new finds less room than the rest.
        let is_new = merge.is_some();
        if is_new && self.transport.servers.len() >= SIP_SERVERS_MAX as usize / 8 * 7 {
            self.counters.sip.servers_full += 1;
            return None;
        }
        let is_invite = matches!(request.method(), Method::Invite);
        let Step { next, actions } = Machine::server(is_invite);
        let head = request.frame().len() - request.body().len();
        let mut trying = Vec::with_capacity((head + 32).min(TRYING_BYTES));
        write::response(request, 100, "Trying", None, &mut trying).end();
        let key = self.transport.servers.insert(ServerTxn {
            machine: next,
            place: it.place,
            name: ServerKey::clone(&name),
            merge: merge.as_ref().map(ServerKey::clone),
            home: it.home,
            parties: [it.peer, "\n", it.far, "\n", it.near].concat().into(),
            trying,
            last: Vec::new(),
            again: Moment::NEVER,
            pause: Default::default(),
            end: Moment::NEVER,
            armed: Moment::NEVER,
        });
        let Ok(key) = key else {
            self.counters.sip.servers_full += 1;
            return None;
        };
        self.transport.server_keys.insert(name, key);
        if let Some(merge) = merge {
            self.transport.merge_keys.insert(merge, key);
        }
        self.server_act(key, actions, None);
        Some(Txn { shard: self.id, key: key.to_u64() })
    }

    /// The home's answer.
    pub(super) fn server_reply(&mut self, key: u64, text: &[u8]) {
        let key = Key::from_u64(key);
        let Some(txn) = self.transport.servers.get(key) else {
            self.counters.sip.replies_late += u64::from(key.generation != 0);
            return;
        };
        let Some(status) = status_of(text) else { return };
        let is_invite = matches!(txn.machine, Machine::InviteServer(_));
        // RFC 4320, 4.1 and 4.2.
        if !is_invite && (matches!(status, 101..=199) || status == 408) {
            self.counters.sip.replies_late += 1;
            return;
        }
        self.server_step(key, Input::of_status(status), Some(text));
    }

    /// 200 to a request with a To-tag, which says nothing but what every answer says.
    pub(super) fn server_ok(&mut self, key: u64) {
        const OK: &[u8] = b"SIP/2.0 200 OK";
        let key = Key::from_u64(key);
        let Some(txn) = self.transport.servers.get(key) else {
            self.counters.sip.replies_late += u64::from(key.generation != 0);
            return;
        };
        let end = memchr::memchr(b'\r', &txn.trying).unwrap_or_default();
        let text = [OK, txn.trying.get(end..).unwrap_or_default()].concat();
        self.server_step(key, Input::Success, Some(&text));
    }

    /// What all answers to a request share, as a 100; empty if it has had its answer.
    pub(super) fn server_trying(&self, key: u64) -> Vec<u8> {
        self.transport.servers.get(Key::from_u64(key)).map_or_else(Vec::new, |it| it.trying.clone())
    }

    /// A CANCEL came (RFC 3261, 9.2): true if there is something to cancel.
    pub(super) fn server_cancel(&mut self, peer: &str, request: &Message<'_>) -> bool {
        let Some(parts) = parts(request) else { return false };
        let Names { own, .. } = Names::of(peer, &parts);
        let Some(key) = self.transport.server_keys.get(&own).copied() else { return false };
        let Some(txn) = self.transport.servers.get(key) else { return false };
        let home = txn.home;
        if txn.machine.is_open() && matches!(txn.machine, Machine::InviteServer(_)) {
            self.server_answer(key, 487);
            self.post_cancelled(home, Txn { shard: self.id, key: key.to_u64() });
        }
        true
    }

    /// An answer of our own.
    fn server_answer(&mut self, key: Key, status: u16) {
        let tag = self.sip_token();
        let Some(txn) = self.transport.servers.get(key) else { return };
        let trying = txn.trying.clone();
        let text = self.with_read(&trying, |_, it| {
            let mut text = Vec::new();
            write::response(&it, status, write::reason(status), Some(&tag), &mut text).end();
            text
        });
        if let Some(text) = text {
            self.server_step(key, Input::of_status(status), Some(&text));
        }
    }

    fn server_step(&mut self, key: Key, input: Input, text: Option<&[u8]>) {
        let Some(txn) = self.transport.servers.get_mut(key) else { return };
        let Some(step) = txn.machine.handle(input, txn.place.is_reliable()) else { return };
        txn.machine = step.next;
        self.server_act(key, step.actions, text);
        if step.next == Machine::Terminated {
            self.server_end(key);
        }
    }

    fn server_act(&mut self, key: Key, actions: &'static [Action], text: Option<&[u8]>) {
        let now = self.now.moment;
        for action in actions {
            let Some(txn) = self.transport.servers.get_mut(key) else { return };
            match *action {
                Action::Send => {
                    let text = text.unwrap_or_default();
                    if txn.machine != Machine::Terminated {
                        txn.last = text.to_vec();
                    }
                    self.server_put(key, text);
                }
                Action::Repeat => {
                    let last = std::mem::take(&mut txn.last);
                    self.server_put(key, &last);
                    if let Some(txn) = self.transport.servers.get_mut(key) {
                        txn.last = last;
                    }
                }
                Action::Trying => {
                    txn.last = txn.trying.clone();
                    let trying = txn.last.clone();
                    self.server_put(key, &trying);
                }
                // The ACK of a 2xx, which is the user's.
                Action::Pass => {
                    let (home, [_, far, _]) = (txn.home, txn.parties().map(Box::<str>::from));
                    if let Some(frame) = text {
                        self.hand_home_unread(home, &far, frame);
                    }
                }
                Action::Again(pause, most) => {
                    txn.again = now + pause;
                    txn.pause = (pause, most);
                }
                Action::Quiet => txn.again = Moment::NEVER,
                Action::End(life) => txn.end = now + life,
                Action::Open => txn.end = now + SIP_INVITE_TIME_MAX,
                Action::Timeout => self.counters.sip.unanswered += 1,
                Action::Ack | Action::Lost => {}
            }
        }
        self.watch_server(key);
    }

    /// Back to where the request came from, or else to the peer's way.
    fn server_put(&mut self, key: Key, text: &[u8]) {
        let Some(txn) = self.transport.servers.get(key) else { return };
        let place = txn.place;
        if self.put(place, text) {
            if let Place::Conn(id) = place {
                self.paid(id);
            }
            return;
        }
        let Some(txn) = self.transport.servers.get(key) else { return };
        let [peer, _, near] = txn.parties().map(Box::<str>::from);
        self.way_respond(&near, &peer, text);
    }

    pub(super) fn server_due(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(txn) = self.transport.servers.get_mut(key) else { return };
        if txn.armed <= now {
            txn.armed = Moment::NEVER;
        }
        if txn.end <= now {
            if txn.machine.is_open() && matches!(txn.machine, Machine::InviteServer(_)) {
                // The home forgot it; its caller shall not ring for ever.
                self.counters.sip.unanswered += 1;
                txn.end = Moment::NEVER;
                return self.server_answer(key, 500);
            }
            return self.server_step(key, Input::End, None);
        }
        if txn.again <= now {
            let pause = (txn.pause.0 * 2).min(txn.pause.1);
            txn.pause.0 = pause;
            txn.again = now + pause;
            self.server_step(key, Input::Again, None);
        }
        self.watch_server(key);
    }

    fn watch_server(&mut self, key: Key) {
        let Some(txn) = self.transport.servers.get_mut(key) else { return };
        let deadline = txn.again.min(txn.end);
        if deadline < txn.armed {
            txn.armed = deadline;
            self.timers.set(deadline, Timer::Sip(Due::Server(key)));
        }
    }

    fn server_end(&mut self, key: Key) {
        let Some(txn) = self.transport.servers.remove(key) else { return };
        self.transport.server_keys.remove(&txn.name);
        if let Some(merge) = txn.merge {
            self.transport.merge_keys.remove(&merge);
        }
    }
}

impl ServerTxn {
    /// The peer, the far domain, the near one.
    fn parties(&self) -> [&str; 3] {
        let mut lines = self.parties.split('\n');
        [(); 3].map(|()| lines.next().unwrap_or_default())
    }
}

/// Most answers are no longer.
const TRYING_BYTES: usize = 1_024;

/// The status of a response as it is written.
pub(super) fn status_of(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
