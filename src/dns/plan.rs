//! The order of a domain's targets.

use std::net::IpAddr;

use super::{Answer, Failures, Kind, NoTarget, Permits, Srv, Step, Target};
use crate::limits::{DNS_ADDRESSES_MAX, DNS_SRV_MAX};
use crate::time::Moment;

/// RFC 6120, 3.2.2: the port without SRV.
const PORT_WITHOUT_SRV: u16 = 5269;

/// One domain's targets, from the first try to the last.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order in which they are tried.
    hosts: Vec<Host>,
    /// Addresses of hosts that are known, ready to be tried.
    ready: Vec<Target>,
    /// Ready ones that failed lately: tried when nothing else is left.
    late: Vec<Target>,
    /// The host that is being looked up.
    asked: Option<Host>,
    addresses_left: usize,
    /// What is said when nothing is left.
    end: NoTarget,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    kind: Kind,
    name: String,
    port: u16,
}

impl Plan {
    /// The plan for `domain` (A-labels) by the answers for both kinds. `random` chooses among the records of one
    /// priority.
    pub fn new(
        domain: &str,
        direct: Answer,
        starttls: Answer,
        random: &mut dyn FnMut() -> u32,
    ) -> Self {
        let absent_if_empty =
            |it| if it == Answer::Records(Vec::new()) { Answer::Absent } else { it };
        let (direct, starttls) = (absent_if_empty(direct), absent_if_empty(starttls));
        let is_absent = direct == Answer::Absent && starttls == Answer::Absent;
        let has_failed = direct == Answer::Failed || starttls == Answer::Failed;
        if is_absent {
            let name = domain.to_ascii_lowercase();
            return Self::of(
                vec![Host { kind: Kind::StartTls, name, port: PORT_WITHOUT_SRV }],
                NoTarget::NoAddress,
            );
        }
        let mut records: Vec<(Kind, Srv)> = Vec::new();
        let mut is_refused = false;
        // Half of the bound for each kind, so that one can't crowd out the other.
        for (kind, answer) in [(Kind::DirectTls, direct), (Kind::StartTls, starttls)] {
            let Answer::Records(mut list) = answer else { continue };
            is_refused |= list.iter().any(|it| it.target == ".");
            // Of too many, the best are kept.
            list.sort_by_key(|it| it.priority);
            let usable = list.into_iter().filter(|it| is_host(&it.target) && it.port != 0);
            records.extend(usable.take(DNS_SRV_MAX / 2).map(|it| (kind, it)));
        }
        let end = match (records.is_empty(), has_failed) {
            // One kind is refused or without use, of the other we know nothing.
            (true, true) => NoTarget::LookupFailed,
            (true, false) if is_refused => NoTarget::NotOffered,
            _ => NoTarget::NoAddress,
        };
        Self::of(by_weight(records, random), end)
    }

    /// The plan of a rule that names its targets: no SRV, in the order given.
    pub fn fixed(targets: &[(Kind, String, u16)]) -> Self {
        let host = |(kind, name, port): &(Kind, String, u16)| Host {
            kind: *kind,
            name: name.to_ascii_lowercase(),
            port: *port,
        };
        Self::of(targets.iter().take(DNS_SRV_MAX).map(host).collect(), NoTarget::NoAddress)
    }

    /// The plan of the SRV records that were found for a SIP domain, all of one service.
    pub fn sip(mut records: Vec<Srv>, random: &mut dyn FnMut() -> u32) -> Self {
        records.sort_by_key(|it| it.priority);
        let usable = records.into_iter().filter(|it| is_host(&it.target) && it.port != 0);
        let records = usable.take(DNS_SRV_MAX).map(|it| (Kind::DirectTls, it)).collect();
        Self::of(by_weight(records, random), NoTarget::NoAddress)
    }

    fn of(hosts: Vec<Host>, end: NoTarget) -> Self {
        Self {
            hosts,
            ready: Vec::new(),
            late: Vec::new(),
            asked: None,
            addresses_left: DNS_ADDRESSES_MAX,
            end,
        }
    }

    /// What to do next. While a host is being looked up the answer stays the same.
    pub fn step(&mut self) -> Step {
        if let Some(target) = first(&mut self.ready) {
            self.end = NoTarget::AllTried;
            return Step::Connect(target);
        }
        if let Some(asked) = &self.asked {
            return Step::Resolve(asked.name.clone());
        }
        if let Some(host) = first(&mut self.hosts)
            && self.addresses_left > 0
        {
            let name = host.name.clone();
            self.asked = Some(host);
            return Step::Resolve(name);
        }
        if let Some(target) = first(&mut self.late) {
            self.end = NoTarget::AllTried;
            return Step::Connect(target);
        }
        Step::Exhausted(self.end)
    }

    /// The host whose addresses are being looked up.
    pub fn asked(&self) -> Option<&str> {
        self.asked.as_ref().map(|host| host.name.as_str())
    }

    /// The addresses of the host that was asked for; `None` if the lookup failed. Both families take turns,
    /// IPv6 first (RFC 8305, 4), in the order they came in.
    pub fn resolved(
        &mut self,
        addresses: Option<&[IpAddr]>,
        failures: &Failures,
        permits: Permits<'_>,
        now: Moment,
    ) {
        let Some(host) = self.asked.take() else { return };
        let Some(addresses) = addresses else {
            self.explain(NoTarget::LookupFailed);
            return;
        };
        for address in interleaved(addresses) {
            if self.addresses_left == 0 {
                return;
            }
            if !permits.allow(address, host.port) {
                self.explain(NoTarget::Forbidden);
                continue;
            }
            self.addresses_left -= 1;
            let target =
                Target { kind: host.kind, host: host.name.clone(), address, port: host.port };
            let has_failed = failures.has(address, host.port, now);
            if has_failed { &mut self.late } else { &mut self.ready }.push(target);
        }
    }

    /// Keeps the reason that says most: that something was tried says more than that something could not be.
    fn explain(&mut self, end: NoTarget) {
        if matches!(self.end, NoTarget::NoAddress) {
            self.end = end;
        }
    }
}

/// Takes the first; the lists are short by their bounds.
fn first<T>(list: &mut Vec<T>) -> Option<T> {
    (!list.is_empty()).then(|| list.remove(0))
}

/// RFC 2782: by priority; among equals one is drawn by weight, then the next of the others.
fn by_weight(mut records: Vec<(Kind, Srv)>, random: &mut dyn FnMut() -> u32) -> Vec<Host> {
    // Those without weight stand first, so that they keep a small chance.
    records.sort_by_key(|(_, it)| (it.priority, it.weight != 0));
    let mut hosts = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|it| it.1.priority) {
        let equals = records.iter().take_while(|it| it.1.priority == priority);
        let sum: u64 = equals.map(|it| u64::from(it.1.weight)).sum();
        let draw = u64::from(random()) % (sum + 1);
        let mut running = 0;
        let chosen = records.iter().position(|it| {
            running += u64::from(it.1.weight);
            running >= draw
        });
        let (kind, record) = records.remove(chosen.unwrap_or(0));
        let name = record.target.trim_end_matches('.').to_ascii_lowercase();
        hosts.push(Host { kind, name, port: record.port });
    }
    hosts
}

/// A target that can be asked for: labels in ASCII. `.` is none, and an SRV target in U-labels does not exist.
fn is_host(target: &str) -> bool {
    let name = target.strip_suffix('.').unwrap_or(target);
    let is_label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// IPv6 and IPv4 in turns, each address once.
fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut v6 = addresses.iter().filter(|it| it.is_ipv6());
    let mut v4 = addresses.iter().filter(|it| it.is_ipv4());
    let mut mixed: Vec<IpAddr> = Vec::new();
    loop {
        let pair = (v6.next(), v4.next());
        if pair == (None, None) {
            return mixed;
        }
        for address in [pair.0, pair.1].into_iter().flatten() {
            if !mixed.contains(address) && mixed.len() < DNS_ADDRESSES_MAX {
                mixed.push(*address);
            }
        }
    }
}
