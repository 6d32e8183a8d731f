//! From a way to a connection: fixed targets or DNS, then one target after the other; TLS with the
//! target's name, and the judgement of what it shows before anything is sent.
//!
//! RFC 3263, 4; F12 of our rules. The order is `dns::Plan`'s. Does **not** try two at once.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::dns::{self, NoTarget, Permits, Plan, SipFound, Step};
use crate::limits::{
    BACKOFF_MIN, CONNECT_TIME_MAX, NEGOTIATE_TIME_MAX, RESOLVE_TIME_MAX, SIP_BACKOFF_MAX,
};
use crate::peer::Trouble;
use crate::peer::sip_identity::{is_server_of, may_target};
use crate::policy::{Identity, SipHost, Transport as Carrier};
use crate::shard::conn::{Conn, Role};
use crate::shard::kernel::{ConnId, Ending, Question, Ticket};
use crate::shard::outbox::Outbox;
use crate::shard::settings::{ListenerId, Party};
use crate::shard::sip::Failure;
use crate::shard::sip::conn::SipConn;
use crate::shard::sip::transport::Place;
use crate::shard::sip::way::Stage;
use crate::shard::ways::target_text;
use crate::shard::{Request, Shard};
use crate::stdx::Key;
use crate::time::Moment;
use crate::tls;

/// Tickets of SIP ways have this bit; generations never come so far.
const SIP_WAY: u64 = 1 << 63;

fn ticket(key: Key) -> Ticket {
    Ticket(key.to_u64() | SIP_WAY)
}

/// The SIP way of a ticket.
pub(in crate::shard) fn sip_way_of(ticket: Ticket) -> Option<Key> {
    (ticket.0 & SIP_WAY != 0).then(|| Key::from_u64(ticket.0 & !SIP_WAY))
}

impl Shard {
    /// Somebody waits and there is no connection: where is the peer?
    pub(super) fn sip_resolve(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        way.stage = Stage::Resolving;
        way.stage_deadline = now + RESOLVE_TIME_MAX + ANSWER_GRACE;
        way.trouble = None;
        let Some(peer) = self.settings.policy.sip(&way.far) else {
            way.stage = Stage::Idle;
            way.stage_deadline = Moment::NEVER;
            return self.way_fail(key, Failure::Denied);
        };
        if peer.targets().is_empty() {
            let rfc3263 = peer.rule.identity == Identity::Rfc5922;
            let domain = way.far.to_string();
            let question = Question::ResolveSip { ticket: ticket(key), domain, rfc3263 };
            return self.requests.push(Request::Ask(question));
        }
        let targets: Vec<_> = peer
            .targets()
            .iter()
            .map(|it| {
                let host = match &it.host {
                    SipHost::Name(name) => name.clone(),
                    SipHost::Address(address) => address.to_string(),
                };
                (dns::Kind::DirectTls, host, it.port)
            })
            .collect();
        way.width = targets.len();
        way.plan = Some(Plan::fixed(&targets));
        self.reach_next(key);
    }

    /// What DNS says: for a way, or for a connection whose request waits.
    pub(in crate::shard) fn sip_resolved(&mut self, ticket: Ticket, found: SipFound) {
        let Some(key) = sip_way_of(ticket) else {
            return self.unpark(ticket, |shard, conn| shard.sip_target_found(conn, found));
        };
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        if way.stage != Stage::Resolving {
            return;
        }
        let records = match found {
            SipFound::Records { records, .. } => records,
            SipFound::NotOffered | SipFound::Absent => {
                let why = "DNS has no SIP edge for the domain";
                return self.reach_fail(key, "dns", why.to_owned(), Failure::Unresolved);
            }
            SipFound::Failed => {
                let why = NoTarget::LookupFailed.to_string();
                return self.reach_fail(key, "dns", why, Failure::Unreachable);
            }
        };
        let far = way.far.clone();
        let peer = self.settings.policy.sip(&far);
        let usable: Vec<dns::Srv> = records
            .into_iter()
            .filter(|it| {
                let host = it.target.trim_end_matches('.').to_ascii_lowercase();
                peer.as_ref().is_some_and(|it| may_target(it, &far, &host))
            })
            .collect();
        if usable.is_empty() {
            let why = "the SRV target lies outside the SIP domain and is not configured";
            self.counters.sip.foreign_targets += 1;
            return self.reach_fail(key, "dns", why.to_owned(), Failure::Denied);
        }
        let random = &mut self.random;
        way.width = usable.len();
        way.plan = Some(Plan::sip(usable, &mut || random.number() as u32));
        self.reach_next(key);
    }

    /// The next thing to try, until one takes time.
    fn reach_next(&mut self, key: Key) {
        loop {
            let now = self.now.moment;
            let Some(way) = self.transport.ways.get_mut(key) else { return };
            let Some(plan) = way.plan.as_mut() else { return };
            match plan.step() {
                Step::Resolve(host) => {
                    way.stage = Stage::LookingUp;
                    if let Ok(address) = host.parse::<IpAddr>() {
                        self.reach_addressed(key, Some(&[address]));
                        continue;
                    }
                    way.stage_deadline = now + RESOLVE_TIME_MAX + ANSWER_GRACE;
                    let question = Question::Addresses { ticket: ticket(key), host };
                    self.requests.push(Request::Ask(question));
                }
                Step::Connect(target) => {
                    let address = SocketAddr::new(target.address, target.port);
                    way.stage = Stage::Connecting;
                    way.stage_deadline = now + CONNECT_TIME_MAX + ANSWER_GRACE;
                    way.target = Some(target);
                    let carrier = self.settings.policy.sip(&way.far).map(|it| it.transport());
                    if carrier == Some(Carrier::Udp) {
                        return self.reach_datagram(key, address);
                    }
                    self.requests.push(Request::Connect(ticket(key), address));
                }
                Step::Exhausted(why) => {
                    let failure = match why {
                        NoTarget::NotOffered | NoTarget::NoAddress | NoTarget::Forbidden => {
                            Failure::Unresolved
                        }
                        NoTarget::LookupFailed | NoTarget::AllTried => Failure::Unreachable,
                    };
                    let denied = way.trouble.as_ref().is_some_and(|it| it.step == "auth");
                    let failure = if denied { Failure::Denied } else { failure };
                    return self.reach_fail(key, "dns", why.to_string(), failure);
                }
            }
            return self.watch_sip_way(key);
        }
    }

    /// A host's addresses.
    pub(in crate::shard) fn reach_addresses(
        &mut self,
        key: Key,
        host: &str,
        addresses: Option<&[IpAddr]>,
    ) {
        let way = self.transport.ways.get(key).filter(|it| it.stage == Stage::LookingUp);
        let asked = way.and_then(|it| it.plan.as_ref()).and_then(Plan::asked);
        if asked == Some(host) {
            self.reach_addressed(key, addresses);
            self.reach_next(key);
        }
    }

    fn reach_addressed(&mut self, key: Key, addresses: Option<&[IpAddr]>) {
        let now = self.now.moment;
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        let Some(mut plan) = way.plan.take() else { return };
        way.width += addresses.map_or(0, |it| it.len().saturating_sub(1));
        let rule = self.settings.policy.verdict(&way.far).0;
        let fixed = self.settings.policy.sip(&way.far).is_some_and(|it| !it.targets().is_empty());
        // Whoever fixed a target meant it.
        let private = rule.private_addresses || fixed;
        let permits = Permits {
            is_own: &|address, port| self.settings.is_own(address, port),
            allows_private: &|_| private,
        };
        plan.resolved(addresses, &self.transport.failures, permits, now);
        if let Some(way) = self.transport.ways.get_mut(key) {
            way.plan = Some(plan);
        }
    }

    /// Datagrams need no connection, only a socket of ours.
    fn reach_datagram(&mut self, key: Key, address: SocketAddr) {
        let is_udp = |it: &crate::shard::settings::Listener| it.party == Party::Sip(Carrier::Udp);
        let listener = self.settings.listeners.iter().position(is_udp);
        let listener = listener.and_then(|it| u16::try_from(it).ok());
        let Some(listener) = listener else {
            let why = "no listener of ours takes datagrams";
            return self.reach_fail(key, "udp", why.to_owned(), Failure::Unreachable);
        };
        self.reached(key);
        let place = Place::Datagram(ListenerId(listener), address);
        self.line_enter(key, place, address, Carrier::Udp, true);
    }

    /// A connection that a SIP way asked for stands.
    pub(in crate::shard) fn sip_connected(&mut self, id: ConnId, key: Key, remote: SocketAddr) {
        let now = self.now.moment;
        let awaited = |it: &super::way::Way| {
            it.stage == Stage::Connecting
                && it.target.as_ref().is_some_and(|target| {
                    target.address.to_canonical() == remote.ip().to_canonical()
                        && target.port == remote.port()
                })
        };
        let way = self.transport.ways.get_mut(key).filter(|it| awaited(it));
        let Some(way) = way.filter(|_| !self.stopping) else {
            return self.requests.push(Request::Close(id, Ending::Abort));
        };
        let carrier = self.settings.policy.sip(&way.far).map_or(Carrier::Tls, |it| it.transport());
        way.stage = Stage::Securing(id);
        way.stage_deadline = Moment::NEVER;
        let near = way.near.to_string();
        let host = way.target.as_ref().map(|it| it.host.clone()).unwrap_or_default();
        let sip = SipConn::new(carrier, Some(key), now);
        let mut conn = Box::new(Conn::new(id, Role::Sip(Box::new(sip)), remote, now));
        self.watch(&mut conn, now + NEGOTIATE_TIME_MAX);
        self.conns.insert(conn, Outbox::default());
        let Some(mut conn) = self.conns.take(id) else { return };
        if carrier == Carrier::Tls {
            self.reach_greet(&mut conn, &near, &host);
            self.read_on(&conn);
        } else {
            self.reach_stands(&mut conn, key);
        }
        self.conns.put_back(conn);
    }

    /// Our side of TLS begins, with our certificate of the near domain and the target's name.
    fn reach_greet(&mut self, conn: &mut Conn, near: &str, host: &str) {
        let name = self.settings.domain(near).map_or(near, |it| it.sip_name.as_str());
        let store = &self.settings.tls;
        let ours = [name, near].into_iter().find(|it| store.find(it).is_some());
        match tls::Session::client(store, tls::Use::S2s, ours, host, false) {
            Ok(session) => {
                conn.tls = Some(Box::new(session));
                self.mark(conn.id);
            }
            Err(fault) => self.tls_failed(conn, &fault),
        }
    }

    /// Its chain is good: is it the peer?
    pub(super) fn reach_judged(&mut self, conn: &mut Conn, key: Key) {
        let Some(way) = self.transport.ways.get(key) else {
            return self.close(conn, Ending::Orderly);
        };
        let Role::Sip(sip) = &conn.role else { return };
        let host = way.target.as_ref().map(|it| it.host.clone()).unwrap_or_default();
        let Some(peer) = self.settings.policy.sip(&way.far) else {
            return self.close(conn, Ending::Orderly);
        };
        let Some(verdict) = &sip.verdict else { return };
        let Err(mismatch) = is_server_of(&peer, &way.far, &host, verdict) else {
            return self.reach_stands(conn, key);
        };
        self.counters.sip.uncovered += 1;
        self.sip_conn_troubled(conn, "auth", format!("toward {host}: {mismatch}"));
        self.close(conn, Ending::Orderly);
    }

    /// It carries requests from now on, and theirs too.
    fn reach_stands(&mut self, conn: &mut Conn, key: Key) {
        let Some(way) = self.transport.ways.get(key) else {
            return self.close(conn, Ending::Orderly);
        };
        let (near, peer) = (way.near.clone(), way.peer.clone());
        let Role::Sip(sip) = &mut conn.role else { return };
        sip.near = Some(near);
        sip.peer = Some(peer);
        sip.carries(key);
        let carrier = sip.carrier;
        self.transport.conn_ways.insert(conn.id, key);
        self.counters.sip.connected += 1;
        self.sip_settled(conn);
        self.reached(key);
        self.line_enter(key, Place::Conn(conn.id), conn.remote, carrier, true);
    }

    fn reached(&mut self, key: Key) {
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        way.stage = Stage::Idle;
        way.stage_deadline = Moment::NEVER;
        way.trouble = None;
        if let Some(target) = way.target.take() {
            self.transport.failures.forget(target.address, target.port);
        }
    }

    /// A step toward a peer failed.
    pub(super) fn reach_troubled(&mut self, key: Key, id: ConnId, step: &'static str, why: String) {
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        if way.stage == Stage::Securing(id) {
            let target = target_text(way.target.as_ref());
            way.trouble = Some(Trouble { step, reason: why, target });
        }
    }

    /// A connection of ours is gone before it carried anything.
    pub(super) fn reach_gone(&mut self, key: Key, id: ConnId) {
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        if way.stage == Stage::Securing(id) {
            if way.trouble.is_none() {
                let reason = "the far end closed the connection".to_owned();
                let target = target_text(way.target.as_ref());
                way.trouble = Some(Trouble { step: "tls", reason, target });
            }
            self.reach_failed(key);
        }
    }

    /// It could not be made.
    pub(in crate::shard) fn sip_connect_failed(&mut self, key: Key, reason: &'static str) {
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        if way.stage == Stage::Connecting {
            let target = target_text(way.target.as_ref());
            way.trouble = Some(Trouble { step: "tcp", reason: reason.to_owned(), target });
            self.reach_failed(key);
        }
    }

    /// This target is no good: the next one.
    fn reach_failed(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        if let Some(target) = way.target.take() {
            self.transport.failures.note(target.address, target.port, now);
        }
        self.reach_next(key);
    }

    /// The next try is not at once, and later the more often it failed.
    pub(super) fn reach_pause(&mut self, key: Key) -> Option<Duration> {
        let (now, dice) = (self.now.moment, self.random.number());
        let way = self.transport.ways.get_mut(key)?;
        way.failures = way.failures.saturating_add(1);
        let doubled = BACKOFF_MIN * 2_u32.saturating_pow(way.failures.min(16) - 1);
        let pause = doubled.min(SIP_BACKOFF_MAX);
        // So that ways which failed together do not come back together.
        let pause = pause / 2 + pause.mul_f64((dice % 1_000) as f64 / 2_000.0);
        way.stage = Stage::BackingOff;
        way.stage_deadline = now + pause;
        Some(pause)
    }

    /// No target is any good: who waits is told, and the next try is not at once.
    fn reach_fail(&mut self, key: Key, step: &'static str, why: String, failure: Failure) {
        let Some(pause) = self.reach_pause(key) else { return };
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        way.down = true;
        let target = String::new();
        let trouble = way.trouble.take().unwrap_or(Trouble { step, reason: why, target });
        let fields = vec![
            ("peer", way.far.to_string()),
            ("local", way.near.to_string()),
            ("dir", "out".to_owned()),
            ("step", trouble.step.to_owned()),
            ("reason", trouble.reason),
            ("next_try_s", pause.as_secs_f32().ceil().to_string()),
            ("target", trouble.target),
        ];
        self.counters.peer_setup_failed += 1;
        self.notice("sip_setup_failed", fields);
        self.way_fail(key, failure);
        self.watch_sip_way(key);
    }

    /// The time of a stage is over.
    pub(super) fn sip_stage_due(&mut self, key: Key) {
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        match way.stage {
            Stage::Resolving => self.sip_resolved(ticket(key), SipFound::Failed),
            Stage::LookingUp => {
                self.reach_addressed(key, None);
                self.reach_next(key);
            }
            Stage::Connecting => self.sip_connect_failed(key, "no answer in time"),
            Stage::BackingOff | Stage::Idle | Stage::Securing(_) => {
                if way.stage == Stage::BackingOff {
                    way.stage = Stage::Idle;
                }
                way.stage_deadline = Moment::NEVER;
            }
        }
    }
}

/// Answers come within their own limits; past this much more they are not waited for.
const ANSWER_GRACE: Duration = Duration::from_secs(2);
