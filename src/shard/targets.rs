//! From a domain to a connection: fixed targets or DNS, then one target after the other.
//!
//! The order is `dns::Plan`'s; what a try has come to is the way's. RFC 6120, 3.2. Targets are tried
//! one by one: both families at once (RFC 8305) is **not** here yet.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::dns::{self, NoTarget, Permits, Plan, Step};
use crate::limits::{CONNECT_TIME_MAX, RESOLVE_TIME_MAX};
use crate::peer::{Input, Stage, Trouble};
use crate::policy::{Rule, Security};
use crate::shard::kernel::{ConnId, Ending, Question, Ticket};
use crate::shard::sip::sip_way_of;
use crate::shard::ways::target_text;
use crate::shard::{Request, Shard};
use crate::stdx::Key;
use crate::xmpp::dialback::Condition;
use crate::xmpp::fault::StanzaFault;

impl Shard {
    /// Where is this domain's server? Fixed targets of a rule, or DNS.
    pub(super) fn resolve(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(way) = self.ways.get_mut(key) else { return };
        if way.handle(Input::Wanted).is_err() {
            return;
        }
        way.stage_deadline = now + RESOLVE_TIME_MAX + ANSWER_GRACE;
        way.trouble = None;
        let rule = self.settings.policy.verdict(&way.far).0;
        if rule.targets.is_empty() {
            let (ticket, domain) = (Ticket(key.to_u64()), way.far.clone());
            self.requests.push(Request::Ask(Question::Resolve { ticket, domain }));
        } else {
            let plan = fixed(rule);
            self.planned(key, plan);
        }
    }

    /// What the domain's SRV names have.
    pub(super) fn resolved(&mut self, ticket: Ticket, direct: dns::Answer, starttls: dns::Answer) {
        let key = Key::from_u64(ticket.0);
        let Some(way) = self.ways.get_mut(key) else { return };
        let random = &mut self.random;
        let plan = Plan::new(&way.far, direct, starttls, &mut || random.number() as u32);
        self.planned(key, plan);
    }

    fn planned(&mut self, key: Key, plan: Plan) {
        let Some(way) = self.ways.get_mut(key) else { return };
        if way.handle(Input::Planned).is_ok() {
            way.plan = Some(plan);
            self.next_target(key);
        }
    }

    /// A host's addresses.
    pub(super) fn addresses(&mut self, ticket: Ticket, host: &str, addresses: Option<&[IpAddr]>) {
        if let Some(key) = sip_way_of(ticket) {
            return self.reach_addresses(key, host, addresses);
        }
        let key = Key::from_u64(ticket.0);
        let asked = self.ways.get(key).and_then(|way| way.plan.as_ref()).and_then(Plan::asked);
        // Too late where they differ: the way has gone on to another host.
        if asked == Some(host) {
            self.looked_up(key, addresses);
        }
    }

    /// The answer came, or its time is over.
    pub(super) fn looked_up(&mut self, key: Key, addresses: Option<&[IpAddr]>) {
        self.addressed(key, addresses);
        if self.ways.get(key).is_some_and(|way| way.stage() == Stage::LookingUp) {
            self.next_target(key);
        }
    }

    fn addressed(&mut self, key: Key, addresses: Option<&[IpAddr]>) {
        let now = self.now.moment;
        let Some(way) = self.ways.get_mut(key).filter(|way| way.stage() == Stage::LookingUp) else {
            return;
        };
        let Some(mut plan) = way.plan.take() else { return };
        let rule = self.settings.policy.verdict(&way.far).0;
        // Whoever fixed a target meant it.
        let private = rule.private_addresses || !rule.targets.is_empty();
        let permits = Permits {
            is_own: &|address, port| self.settings.is_own(address, port),
            allows_private: &|_| private,
        };
        plan.resolved(addresses, &self.ways.failures, permits, now);
        if let Some(way) = self.ways.get_mut(key) {
            way.plan = Some(plan);
        }
    }

    /// The next thing to try, until one takes time.
    fn next_target(&mut self, key: Key) {
        loop {
            let now = self.now.moment;
            let Some(way) = self.ways.get_mut(key) else { return };
            let Some(plan) = way.plan.as_mut() else { return };
            match plan.step() {
                Step::Resolve(host) => {
                    if let Ok(address) = host.parse::<IpAddr>() {
                        self.addressed(key, Some(&[address]));
                        continue;
                    }
                    way.stage_deadline = now + RESOLVE_TIME_MAX + ANSWER_GRACE;
                    let ticket = Ticket(key.to_u64());
                    self.requests.push(Request::Ask(Question::Addresses { ticket, host }));
                }
                Step::Connect(target) => {
                    if way.handle(Input::Chosen).is_err() {
                        return;
                    }
                    way.stage_deadline = now + CONNECT_TIME_MAX + ANSWER_GRACE;
                    let address = SocketAddr::new(target.address, target.port);
                    way.target = Some(target);
                    self.requests.push(Request::Connect(Ticket(key.to_u64()), address));
                }
                Step::Exhausted(why) => return self.exhausted(key, why),
            }
            return self.watch_way(key);
        }
    }

    fn exhausted(&mut self, key: Key, why: NoTarget) {
        let Some(way) = self.ways.get_mut(key) else { return };
        if why != NoTarget::AllTried || way.trouble.is_none() {
            let reason = why.to_string();
            way.trouble = Some(Trouble { step: "dns", reason, target: String::new() });
        }
        match why {
            NoTarget::NotOffered | NoTarget::NoAddress | NoTarget::Forbidden => self.give_up(
                key,
                StanzaFault::RemoteServerNotFound,
                Condition::RemoteServerNotFound,
            ),
            NoTarget::LookupFailed => {
                self.give_up(key, StanzaFault::RemoteServerTimeout, Condition::RemoteServerTimeout)
            }
            NoTarget::AllTried => self.give_up(
                key,
                StanzaFault::RemoteServerTimeout,
                Condition::RemoteConnectionFailed,
            ),
        }
    }

    /// A connection that a way asked for stands.
    pub(super) fn connected(&mut self, id: ConnId, ticket: Ticket, remote: SocketAddr) {
        if let Some(key) = sip_way_of(ticket) {
            return self.sip_connected(id, key, remote);
        }
        let key = Key::from_u64(ticket.0);
        let awaited = self.ways.get(key).is_some_and(|way| {
            way.stage() == Stage::Connecting
                && way.target.as_ref().is_some_and(|target| {
                    target.address.to_canonical() == remote.ip().to_canonical()
                        && target.port == remote.port()
                })
        });
        if !awaited || self.stopping {
            self.requests.push(Request::Close(id, Ending::Abort));
            return;
        }
        if let Some(way) = self.ways.get_mut(key) {
            // The stage was looked at just now.
            if way.handle(Input::Connected(id)).is_err() {
                return;
            }
        }
        self.way_begin(key, id, remote);
    }

    /// It could not be made.
    pub(super) fn connect_failed(&mut self, ticket: Ticket, reason: &'static str) {
        if let Some(key) = sip_way_of(ticket) {
            return self.sip_connect_failed(key, reason);
        }
        let key = Key::from_u64(ticket.0);
        let Some(way) = self.ways.get_mut(key) else { return };
        if way.stage() == Stage::Connecting {
            way.trouble = Some(Trouble {
                step: "tcp",
                reason: reason.to_owned(),
                target: target_text(way.target.as_ref()),
            });
            self.target_failed(key);
        }
    }

    /// This target is no good: the next one.
    pub(super) fn target_failed(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(way) = self.ways.get_mut(key) else { return };
        if way.handle(Input::NextTarget).is_err() {
            return;
        }
        if let Some(target) = way.target.take() {
            self.ways.failures.note(target.address, target.port, now);
        }
        self.next_target(key);
    }
}

/// The plan of a rule's own targets.
fn fixed(rule: &Rule) -> Plan {
    let target = |it: &crate::policy::Target| {
        let kind = match it.security {
            Security::Direct => dns::Kind::DirectTls,
            Security::StartTls | Security::Optional => dns::Kind::StartTls,
        };
        (kind, it.address.ip().to_string(), it.address.port())
    };
    Plan::fixed(&rule.targets.iter().map(target).collect::<Vec<_>>())
}

/// Answers come within their own limits; past this much more they are not waited for.
const ANSWER_GRACE: Duration = Duration::from_secs(2);
