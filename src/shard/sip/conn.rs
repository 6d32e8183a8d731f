//! A connection that speaks SIP, whichever side opened it: framing, keep-alives, TLS, its end.
//!
//! Messages are cut by `sip::frame` and handed on one by one; one that has to wait (for a
//! certificate, for DNS, for another shard) stays where it lies and so does all behind it. A far end
//! proves itself before its first request is worked on. CRLFs between messages are swallowed and a
//! double one is answered (RFC 5626, 4.4.1). Does **not** send pings of its own.

use std::net::SocketAddr;
use std::time::Duration;

use crate::address::prepare_domain;
use crate::limits::{
    NEGOTIATE_TIME_MAX, SIP_FIRST_TIME_MAX, SIP_IDLE_MAX, SIP_MESSAGE_TIME_MAX,
    SIP_WAYS_PER_CONN_MAX,
};
use crate::peer::proxy;
use crate::policy::Transport as Carrier;
use crate::shard::conn::{Conn, Role};
use crate::shard::kernel::{ConnId, Ending, Question};
use crate::shard::outbox::Outbox;
use crate::shard::sip::inbound::Went;
use crate::shard::sip::transport::Place;
use crate::shard::{Request, Shard};
use crate::sip::Message;
use crate::sip::frame::{Framer, Limits, Next};
use crate::stdx::Key;
use crate::time::Moment;
use crate::tls;

/// What a connection of SIP has reached.
#[derive(Debug)]
pub(crate) struct SipConn {
    framer: Framer,
    pub(super) carrier: Carrier,
    /// We opened it, for this way.
    pub(super) ours: Option<Key>,
    /// Ways whose requests it carries.
    pub(super) ways: Vec<Key>,
    /// What its certificates show.
    pub(super) verdict: Option<Box<tls::Verdict>>,
    /// Whose it is, once that is shown, and the domain of ours that was spoken to first.
    pub(super) peer: Option<Box<str>>,
    pub(super) near: Option<Box<str>>,
    /// Domains that may be in the From of its requests, under the settings of that version.
    pub(super) cleared: Vec<Box<str>>,
    pub(super) version: u64,
    /// A header of the PROXY protocol comes first (version 2).
    pub(super) awaits_header: bool,
    /// The name that a trusted proxy found in the far end's certificate.
    pub(super) vouched: Option<Box<str>>,
    /// The domain whose SRV target is being asked for.
    pub(super) asking: Option<Box<str>>,
    /// Since when a part of a message lies here.
    partial: Moment,
    /// When a message last came or went.
    pub(super) busy: Moment,
    /// A message came.
    spoke: bool,
    /// We end it, since nobody needs it.
    retired: bool,
}

impl SipConn {
    pub(crate) fn new(carrier: Carrier, ours: Option<Key>, now: Moment) -> Self {
        Self {
            framer: Framer::default(),
            carrier,
            ours,
            ways: Vec::new(),
            verdict: None,
            peer: None,
            near: None,
            cleared: Vec::new(),
            version: 0,
            awaits_header: false,
            vouched: None,
            asking: None,
            partial: Moment::NEVER,
            busy: now,
            spoke: false,
            retired: false,
        }
    }

    /// As operators read it: direction, far end, our domain, state.
    pub(crate) fn row(&self) -> (&'static str, String, String, &'static str) {
        let text = |it: &Option<Box<str>>| it.as_deref().unwrap_or_default().to_owned();
        let state = if self.peer.is_some() { "open" } else { "opening" };
        let kind = if self.ours.is_some() { "sip-out" } else { "sip-in" };
        (kind, text(&self.peer), text(&self.near), state)
    }

    /// Carries that way's requests, if it does not carry too many ways'.
    pub(super) fn carries(&mut self, way: Key) -> bool {
        let room = self.ways.len() < SIP_WAYS_PER_CONN_MAX || self.ways.contains(&way);
        if room && !self.ways.contains(&way) {
            self.ways.push(way);
        }
        room
    }
}

impl Shard {
    /// A partner connected.
    pub(in crate::shard) fn sip_accepted(
        &mut self,
        id: ConnId,
        carrier: Carrier,
        remote: SocketAddr,
        proxied: bool,
    ) {
        // Of a proxy's connection it is not known yet whose it is.
        if !proxied && !self.admits(remote) {
            return self.requests.push(Request::Close(id, Ending::Abort));
        }
        let mut sip = SipConn::new(carrier, None, self.now.moment);
        sip.awaits_header = proxied;
        let mut conn = Box::new(Conn::new(id, Role::Sip(Box::new(sip)), remote, self.now.moment));
        conn.is_stranger = !proxied;
        if carrier == Carrier::Tls && !proxied {
            let session = tls::Session::server(&self.settings.tls, tls::Use::S2s, None);
            conn.tls = Some(Box::new(session));
        }
        self.counters.accepted += 1;
        self.counters.sip.accepted += 1;
        let first = if carrier == Carrier::Tls { NEGOTIATE_TIME_MAX } else { SIP_FIRST_TIME_MAX };
        self.watch(&mut conn, self.now.moment + first);
        self.read_on(&conn);
        self.conns.insert(conn, Outbox::default());
    }

    /// Messages of a connection as far as they are whole; returns how many octets they took.
    pub(in crate::shard) fn sip_frames(&mut self, conn: &mut Conn, bytes: &[u8]) -> usize {
        let mut at = 0;
        if matches!(&conn.role, Role::Sip(sip) if sip.awaits_header) {
            match self.sip_header(conn, bytes) {
                Some(length) if conn.tls.is_some() => {
                    // What follows is TLS.
                    self.opened_up(conn, bytes.get(length..).unwrap_or_default());
                    return bytes.len();
                }
                Some(length) => at = length,
                None => return 0,
            }
        }
        while !conn.parked && !conn.is_closing() && conn.moving.is_none() && !self.choked(conn) {
            let rest = bytes.get(at..).unwrap_or_default();
            if let Some((went, length)) = self.sip_alike(conn, rest) {
                match went {
                    Went::On => at += length,
                    Went::Waits => break,
                }
                continue;
            }
            let Role::Sip(sip) = &mut conn.role else { break };
            match sip.framer.next(rest, &Limits::PEER) {
                Ok(Next::Incomplete) => break,
                Ok(Next::Blank(length)) => at += length,
                Ok(Next::Ping(length)) => {
                    at += length;
                    self.counters.sip.pings += 1;
                    self.write(conn.id, |out| out.extend_from_slice(b"\r\n"));
                }
                Ok(Next::Message { length, .. }) => {
                    let frame = rest.get(..length).unwrap_or_default();
                    match self.sip_message(conn, frame) {
                        Went::On => at += length,
                        // It is looked at again when what it waits for has come.
                        Went::Waits => {
                            let Role::Sip(sip) = &mut conn.role else { break };
                            sip.framer = Framer::default();
                            break;
                        }
                    }
                }
                Err(fault) => {
                    self.sip_unframed(conn, rest, &fault);
                    break;
                }
            }
        }
        self.sip_waits_for_rest(conn, at < bytes.len());
        at
    }

    /// What a balancer or a TLS terminator says of the connection behind it; how long it was.
    fn sip_header(&mut self, conn: &mut Conn, bytes: &[u8]) -> Option<usize> {
        let (length, header) = match proxy::read(bytes) {
            Ok(found) => found?,
            Err(fault) => {
                self.counters.sip.bad_proxy += 1;
                self.sip_conn_troubled(conn, "proxy", fault.text().to_owned());
                self.close(conn, Ending::Orderly);
                return None;
            }
        };
        conn.remote = header.source.unwrap_or(conn.remote);
        // Without a source the proxy speaks for itself, to see whether we live.
        if header.source.is_some() {
            conn.is_stranger = self.admits(conn.remote);
            if !conn.is_stranger {
                self.close(conn, Ending::Abort);
                return None;
            }
        }
        let Role::Sip(sip) = &mut conn.role else { return None };
        sip.awaits_header = false;
        sip.vouched =
            header.vouched().and_then(|it| prepare_domain(it).ok()).map(|it| (*it).into());
        if sip.carrier == Carrier::Tls {
            let session = tls::Session::server(&self.settings.tls, tls::Use::S2s, None);
            conn.tls = Some(Box::new(session));
        } else if let Some(name) = &sip.vouched {
            let names = tls::Names::vouched(name);
            self.sip_named(conn, &names);
        }
        Some(length)
    }

    /// A message without an end is waited for, but not for ever.
    fn sip_waits_for_rest(&mut self, conn: &mut Conn, rest: bool) {
        let now = self.now.moment;
        let waits = rest && !conn.parked && !conn.choked && conn.moving.is_none();
        let Role::Sip(sip) = &mut conn.role else { return };
        if !waits {
            sip.partial = Moment::NEVER;
        } else if sip.partial == Moment::NEVER {
            sip.partial = now;
            let until = now + SIP_MESSAGE_TIME_MAX;
            if until < conn.deadline {
                self.watch(conn, until);
            }
        }
    }

    /// A message came on a connection.
    pub(super) fn sip_heard_of(&mut self, conn: &mut Conn) {
        if let Role::Sip(sip) = &mut conn.role {
            sip.busy = self.now.moment;
            sip.spoke = true;
            sip.framer = Framer::default();
        }
        self.counters.sip.received += 1;
    }

    /// One message.
    fn sip_message(&mut self, conn: &mut Conn, frame: &[u8]) -> Went {
        self.sip_heard_of(conn);
        self.with_index(|shard, index| {
            let Ok(message) = index.read(frame) else {
                shard.counters.sip.malformed += 1;
                return Went::On;
            };
            if message.is_request() {
                return shard.sip_request(conn, &message);
            }
            let is_known = matches!(&conn.role, Role::Sip(sip) if sip.peer.is_some());
            if let Some(message) = shard.sip_response(&message).filter(|_| is_known) {
                shard.sip_keep_answer(&message);
            }
            Went::On
        })
    }

    /// A response, on whichever connection; as it was read, if it is sound.
    pub(super) fn sip_response<'m>(&mut self, response: &Message<'m>) -> Option<Message<'m>> {
        // RFC 3261, 18.1.2: a malformed one is dropped.
        let Ok(response) = response.checked() else {
            self.counters.sip.malformed += 1;
            return None;
        };
        self.client_response(&response);
        Some(response)
    }

    /// The boundary is lost: what can be said is said, and the connection ends.
    fn sip_unframed(
        &mut self,
        conn: &mut Conn,
        bytes: &[u8],
        fault: &crate::sip::frame::FrameFault,
    ) {
        self.counters.sip.unframed += 1;
        let place = Place::Conn(conn.id);
        if let Some(head) = fault.head.and_then(|head| bytes.get(..head)) {
            self.unreadable_at(place, head, &fault.fault);
        } else if fault.fault.status == 513 {
            // Its end is not to be had; its beginning has what an answer needs.
            let start = bytes.get(..SALVAGE_BYTES).unwrap_or(bytes);
            let end = start.windows(2).rposition(|it| it == b"\r\n").map_or(0, |it| it + 2);
            let head = [start.get(..end).unwrap_or_default(), b"\r\n"].concat();
            self.unreadable_at(place, &head, &fault.fault);
        }
        self.close(conn, Ending::Orderly);
    }

    /// TLS stands: whose certificate is it?
    pub(in crate::shard) fn sip_secured(&mut self, conn: &mut Conn) {
        let Role::Sip(sip) = &conn.role else { return };
        let usage = if sip.ours.is_some() { tls::Usage::AsServer } else { tls::Usage::AsClient };
        let chain = conn.tls.as_ref().map(|tls| tls.peer_certificates().to_vec());
        let chain = chain.unwrap_or_default();
        if chain.is_empty() {
            // Mutual TLS is what federation rests on.
            self.counters.sip.no_certificate += 1;
            self.sip_conn_troubled(conn, "tls", "the far end showed no certificate".to_owned());
            return self.close(conn, Ending::Orderly);
        }
        self.watch(conn, self.now.moment + SIP_FIRST_TIME_MAX);
        let ticket = Self::ticket_of(conn.id);
        self.park(conn, Question::Judge { ticket, chain, usage });
    }

    /// What the chain shows.
    pub(in crate::shard) fn sip_judged(&mut self, conn: &mut Conn, verdict: tls::Verdict) {
        let Role::Sip(sip) = &mut conn.role else { return };
        let ours = sip.ours;
        if let Err(fault) = &verdict.chain {
            let why = format!("{fault}; the certificate has {}", verdict.names);
            self.counters.sip.bad_chain += 1;
            self.sip_conn_troubled(conn, "auth", why);
            return self.close(conn, Ending::Orderly);
        }
        let names = verdict.names.clone();
        sip.verdict = Some(Box::new(verdict));
        match ours {
            Some(way) => self.reach_judged(conn, way),
            None => self.sip_named(conn, &names),
        }
    }

    /// Something is wrong with a connection, and its operator should read it.
    pub(in crate::shard) fn sip_conn_troubled(
        &mut self,
        conn: &Conn,
        step: &'static str,
        why: String,
    ) {
        let Role::Sip(sip) = &conn.role else { return };
        if self.stopping {
            return;
        }
        if let Some(way) = sip.ours {
            return self.reach_troubled(way, conn.id, step, why);
        }
        self.counters.peer_setup_failed += 1;
        let (_, peer, local, _) = sip.row();
        let fields = vec![
            ("peer", peer),
            ("local", local),
            ("dir", "in".to_owned()),
            ("step", step.to_owned()),
            ("reason", why),
            ("target", conn.remote.to_string()),
        ];
        self.notice("sip_setup_failed", fields);
    }

    /// It arrived on the shard where its peer's connections are; the request that brought it here
    /// lies in its tail.
    pub(in crate::shard) fn sip_arrived(&mut self, conn: &mut Conn) {
        if let Role::Sip(sip) = &mut conn.role {
            sip.busy = self.now.moment;
        }
        self.counters.sip.moved += 1;
    }

    /// It has shown whose it is: read as a stream from now on.
    pub(super) fn sip_settled(&mut self, conn: &mut Conn) {
        if !conn.streaming {
            self.stream_from_now(conn);
            self.watch(conn, self.now.moment + SIP_IDLE_MAX / 8);
        }
    }

    /// Our side is closing, or the connection is gone.
    pub(in crate::shard) fn sip_gone(&mut self, conn: &Conn) {
        let Role::Sip(sip) = &conn.role else { return };
        let place = Place::Conn(conn.id);
        self.transport.conn_ways.remove(&conn.id);
        let ways = sip.ways.clone();
        let idle = self.now.moment.since(conn.heard);
        let lost = !sip.retired && !self.stopping && idle < SIP_IDLE_MAX / 2;
        self.line_gone(&ways, place, lost);
        if let Some(way) = sip.ours {
            self.reach_gone(way, conn.id);
        }
    }

    /// It is of no use any more.
    pub(super) fn drop_line(&mut self, id: ConnId) {
        if let Some(mut conn) = self.conns.take(id) {
            self.close(&mut conn, Ending::Orderly);
            self.conns.put_back(conn);
        }
    }

    /// Something of a connection is overdue: its proof, the rest of a message, any traffic at all.
    pub(in crate::shard) fn sip_overdue(&mut self, conn: &mut Conn) {
        let now = self.now.moment;
        let Role::Sip(sip) = &conn.role else { return };
        let partial = sip.partial;
        if partial != Moment::NEVER && now.since(partial) >= SIP_MESSAGE_TIME_MAX {
            self.counters.sip.read_timeouts += 1;
            return self.close(conn, Ending::Orderly);
        }
        let handshakes = conn.tls.as_ref().is_some_and(|tls| !tls.is_established());
        if !conn.streaming && (handshakes || conn.parked || !sip.spoke || sip.ours.is_some()) {
            self.counters.login_timeouts += 1;
            self.sip_conn_troubled(conn, "tls", "no answer in time".to_owned());
            return self.close(conn, Ending::Orderly);
        }
        let heard = now.since(conn.heard).min(now.since(sip.busy));
        if heard >= SIP_IDLE_MAX {
            self.counters.sip.idle_closed += 1;
            if let Role::Sip(sip) = &mut conn.role {
                sip.retired = true;
            }
            return self.close(conn, Ending::Orderly);
        }
        let mut next = now + (SIP_IDLE_MAX - heard).max(LOOK_AGAIN);
        if partial != Moment::NEVER {
            next = next.min((partial + SIP_MESSAGE_TIME_MAX).max(now + LOOK_AGAIN));
        }
        self.watch(conn, next);
    }
}

/// So much of a head without an end is read for the answer.
const SALVAGE_BYTES: usize = 8_192;
/// A connection is not looked after more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
