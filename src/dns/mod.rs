//! Which target of a domain is tried next: RFC 2782, RFC 6120 section 3.2, XEP-0368, RFC 8305.
//!
//! A [`Plan`] is made from the two SRV answers of a domain. Asked for its next [`step`](Plan::step) it names a
//! host whose addresses are wanted, or a target to connect to, or says that there is nothing left and why. Who
//! asks looks up, connects and reports; nothing here waits.
//!
//! - Records of direct TLS and of STARTTLS are one list, ordered by priority and chosen by weight (XEP-0368, 3).
//! - A target `.` says that its kind is not offered, and then nobody guesses (RFC 6120, 3.2.1).
//! - No SRV record of either kind: the domain itself, port 5269, STARTTLS. SRV records that can't be reached are
//!   **not** replaced by that guess.
//! - Never our own listeners; private addresses only where a rule says so. Both are asked of the caller.
//!
//! For SIP it is the same with other names; see [`SipFound`].
//!
//! Does **not** look up anything.

mod failures;
mod plan;
mod sip;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use failures::Failures;
pub use plan::Plan;
pub use sip::{Naptr, SipFound, SipService, next_service};

/// How TLS begins at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `_xmpps-server`: with the first byte.
    DirectTls,
    /// `_xmpp-server`: after `<starttls/>`.
    StartTls,
}

impl Kind {
    /// The SRV name to ask for `domain`, which is in A-labels.
    pub fn query(self, domain: &str) -> String {
        match self {
            Self::DirectTls => format!("_xmpps-server._tcp.{domain}."),
            Self::StartTls => format!("_xmpp-server._tcp.{domain}."),
        }
    }
}

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower goes first.
    pub priority: u16,
    /// Share among those of one priority.
    pub weight: u16,
    /// Port of the target.
    pub port: u16,
    /// The host; `.` if the service is not offered.
    pub target: String,
}

/// What came of one SRV question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There are records.
    Records(Vec<Srv>),
    /// The name server says there are none.
    Absent,
    /// There was no answer: a timeout, or the name server's failure.
    Failed,
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How TLS begins.
    pub kind: Kind,
    /// The host's name, for logs; the certificate is checked for the domain.
    pub host: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// What to do next for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look up A and AAAA of this host and report them by [`Plan::resolved`].
    Resolve(String),
    /// Connect to this target.
    Connect(Target),
    /// Nothing is left.
    Exhausted(NoTarget),
}

/// Why no target is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    /// The domain says that it has no such service: `remote-server-not-found`.
    NotOffered,
    /// No host has an address: `remote-server-not-found`.
    NoAddress,
    /// Name servers did not answer: `remote-server-timeout`.
    LookupFailed,
    /// There are addresses, but none that we may use: `remote-server-not-found`.
    Forbidden,
    /// All were tried: `remote-server-timeout`.
    AllTried,
}

impl fmt::Display for NoTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOffered => "the domain's SRV records say that it offers no XMPP federation",
            Self::NoAddress => "no host of the domain has an address",
            Self::LookupFailed => "the name servers did not answer",
            Self::Forbidden => {
                "the domain's addresses are our own, private without a rule, or not for unicast"
            }
            Self::AllTried => "all targets were tried",
        })
    }
}

/// Which addresses may be used; the caller knows the listeners and the rules.
#[derive(Clone, Copy)]
pub struct Permits<'a> {
    /// Whether this is one of our own listeners.
    pub is_own: &'a dyn Fn(IpAddr, u16) -> bool,
    /// Whether a rule allows this private address for the domain.
    pub allows_private: &'a dyn Fn(IpAddr) -> bool,
}

impl Permits<'_> {
    fn allow(&self, address: IpAddr, port: u16) -> bool {
        match scope(address) {
            Scope::Unusable => false,
            Scope::Private if !(self.allows_private)(address) => false,
            Scope::Private | Scope::Public => port != 0 && !(self.is_own)(address, port),
        }
    }
}

impl fmt::Debug for Permits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permits")
    }
}

/// From where an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// From anywhere.
    Public,
    /// Loopback, link-local and site networks: a stranger's DNS must not lead us there.
    Private,
    /// Unspecified, multicast, broadcast, reserved: no connection can lead there.
    Unusable,
}

/// The scope of `address`; one of IPv4 inside IPv6 has that of IPv4.
pub fn scope(address: IpAddr) -> Scope {
    match address.to_canonical() {
        IpAddr::V4(it) => scope_v4(it),
        IpAddr::V6(it) => scope_v6(it),
    }
}

fn scope_v4(address: Ipv4Addr) -> Scope {
    let [a, b, c, _] = address.octets();
    match (a, b) {
        // RFC 1122, 3.2.1.3 and RFC 1112, 4: "this" network, multicast, reserved, broadcast.
        (0 | 224..=255, _) => Scope::Unusable,
        // RFC 1918, 3; RFC 3927, 2.1; RFC 6598, 7 (carrier-grade translation).
        (10 | 127, _) | (172, 16..=31) | (192, 168) | (169, 254) | (100, 64..=127) => {
            Scope::Private
        }
        // RFC 2544, C.2.2 (benchmarks) and RFC 6890, 2.2.2 (protocol assignments).
        (198, 18..=19) => Scope::Private,
        (192, 0) if c == 0 => Scope::Private,
        _ => Scope::Public,
    }
}

fn scope_v6(address: Ipv6Addr) -> Scope {
    let segments = address.segments();
    let [first, second, ..] = segments;
    if address.is_loopback() {
        return Scope::Private;
    }
    if address.is_unspecified() || address.is_multicast() {
        return Scope::Unusable;
    }
    // RFC 6052, 2.1, RFC 3056, 2 and RFC 4291, 2.5.5.1: addresses of IPv4 in disguise have its scope.
    let [.., g, h] = segments;
    let inner =
        |high: u16, low: u16| scope_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    let [_, _, c, d, e, f, ..] = segments;
    match (first, second, c, d, e, f) {
        (0x64, 0xff9b, 0, 0, 0, 0) | (0, 0, 0, 0, 0, 0) => return inner(g, h),
        (0x2002, ..) => return inner(second, c),
        _ => {}
    }
    // RFC 4193, 3.1 (unique local), RFC 4291, 2.5.6 (link-local), RFC 3879, 4 (site-local).
    match first {
        0xfc00..=0xfdff | 0xfe80..=0xfeff => Scope::Private,
        _ => Scope::Public,
    }
}
