//! For which domains a SIP connection may speak.
//!
//! A connection has shown one thing: a certificate, a name that a trusted proxy vouches for, or, in
//! clear text, its source address. Every request's From domain is compared with that, by the policy
//! of that domain's rule: the name of the SRV target (Microsoft), configured names, the domain
//! itself (RFC 5922), or the trusted edge in front of it. Toward us and from us the same names count;
//! wildcards never do (RFC 5922, 7.2).
//!
//! Pure. Does **not** look up SRV records: who asks passes on what is known of them. Does **not** ask
//! whether the domain is one of ours: that is refused before.

use std::fmt;
use std::net::IpAddr;

use crate::policy::{Identity, Policy, SipHost, SipPeer, Transport};
use crate::tls::{ChainFault, Names, Verdict};

/// What a connection has shown of itself.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// A certificate, judged.
    Certificate(&'a Verdict),
    /// A trusted proxy terminated TLS and tells the name in the far end's certificate, which it
    /// verified.
    Vouched(&'a str),
    /// Clear text: where it comes from.
    Address(IpAddr),
}

/// Whether a connection may speak for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaks {
    Yes,
    /// The domain's SRV target decides, and it is not known: look it up and ask again.
    AskDns,
    No(Mismatch),
}

/// Why it may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// No rule allows SIP with the domain.
    NotAllowed,
    /// The chain is not believed.
    Chain(ChainFault),
    /// The certificate is somebody else's.
    Name {
        /// One of these was expected.
        wanted: Vec<String>,
        names: Box<Names>,
    },
    /// The SRV target lies outside the domain, or there is none.
    NoTarget,
    /// In clear text from an address that is not the peer's, or in clear text where TLS is due.
    Address,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed => f.write_str("no rule allows SIP with the domain"),
            Self::Chain(fault) => fault.fmt(f),
            Self::Name { wanted, names } => {
                let sip: Vec<&str> = names.of_sip().take(NAMES_SHOWN).collect();
                let has = if sip.is_empty() { names.to_string() } else { sip.join(", ") };
                write!(f, "the certificate has {has}; wanted is {}", wanted.join(" or "))
            }
            Self::NoTarget => f.write_str(
                "the domain has no SRV target of its own (the domain itself or LABEL.DOMAIN) to compare the certificate with",
            ),
            Self::Address => f.write_str("the source address is not one of the peer's targets"),
        }
    }
}

/// Whether the far end of a connection may speak for `domain` (lower-case A-labels), which is From's
/// in a request to us. `targets`: the hosts of the domain's SRV records, if they are known.
pub fn speaks_for(
    policy: &Policy,
    domain: &str,
    shown: Shown<'_>,
    targets: Option<&[String]>,
) -> Speaks {
    let Some(peer) = policy.sip(domain) else { return Speaks::No(Mismatch::NotAllowed) };
    let vouched;
    let names = match shown {
        Shown::Address(address) => {
            let is_clear = peer.transport() != Transport::Tls;
            return match is_clear && peer.is_target(address) {
                true => Speaks::Yes,
                false => Speaks::No(Mismatch::Address),
            };
        }
        // The rule expects an address; nothing says what to compare a certificate with.
        _ if peer.transport() != Transport::Tls => return Speaks::No(Mismatch::Address),
        Shown::Certificate(verdict) => match &verdict.chain {
            Ok(()) => &verdict.names,
            Err(fault) => return Speaks::No(Mismatch::Chain(fault.clone())),
        },
        Shown::Vouched(name) => {
            vouched = Names::vouched(name);
            &vouched
        }
    };
    let wanted = match wanted(&peer, domain, targets) {
        Wanted::Unknown => return Speaks::AskDns,
        Wanted::Nothing => return Speaks::No(Mismatch::NoTarget),
        Wanted::Domain if names.has_sip_domain(domain) => return Speaks::Yes,
        Wanted::Domain => vec![domain.to_owned()],
        Wanted::Hosts(hosts) => hosts,
    };
    let by_domain = peer.edge.is_none() && peer.rule.identity == Identity::Rfc5922;
    if !by_domain && wanted.iter().any(|it| names.has_sip_host(it)) {
        return Speaks::Yes;
    }
    Speaks::No(Mismatch::Name { wanted, names: Box::new(names.clone()) })
}

/// Whether the server at `target`, to which we connected for `domain`, is the right one: before
/// anything is sent.
pub fn is_server_of(
    peer: &SipPeer<'_>,
    domain: &str,
    target: &str,
    verdict: &Verdict,
) -> Result<(), Mismatch> {
    verdict.chain.clone().map_err(Mismatch::Chain)?;
    let names = &verdict.names;
    let (wanted, is_right) = match (peer.edge, peer.rule.identity) {
        (Some(edge), _) => (vec![edge.name.clone()], names.has_sip_host(&edge.name)),
        (None, Identity::Fixed) => {
            let has_one = peer.rule.names.iter().any(|it| names.has_sip_host(it));
            (peer.rule.names.clone(), has_one)
        }
        (None, Identity::Microsoft) => (vec![target.to_owned()], names.has_sip_host(target)),
        (None, Identity::Rfc5922) => (vec![domain.to_owned()], names.has_sip_domain(domain)),
    };
    if is_right { Ok(()) } else { Err(Mismatch::Name { wanted, names: Box::new(names.clone()) }) }
}

/// Whether an SRV record may lead from `domain` to `target`: Microsoft's rule, that nobody else's
/// host can stand for a domain unless it was configured. With the other policies the certificate
/// says it all, whatever the host's name is.
pub fn may_target(peer: &SipPeer<'_>, domain: &str, target: &str) -> bool {
    peer.rule.identity != Identity::Microsoft || is_label_of(target, domain)
}

/// Whether a certificate may be of some peer that is allowed here. If not, a closed federation has
/// nothing to say to it.
pub fn is_of_somebody(policy: &Policy, names: &Names) -> bool {
    let is_fixed = |host: &str| {
        let rules = policy.rules().iter().filter(|it| it.1.allow);
        policy.edge_named(host).is_some()
            || rules.filter_map(|it| it.1.protocol.sip()).any(|it| {
                it.names.iter().any(|name| name == host)
                    || it.targets.iter().any(|t| matches!(&t.host, SipHost::Name(n) if n == host))
            })
    };
    names.of_sip().any(|name| {
        let parent = name.split_once('.').map(|it| it.1);
        is_fixed(name)
            || policy.sip(name).is_some()
            || parent.is_some_and(|it| policy.sip(it).is_some())
    })
}

/// What a certificate has to have.
enum Wanted {
    /// One of these hosts.
    Hosts(Vec<String>),
    /// The domain itself, by RFC 5922.
    Domain,
    /// DNS would say it.
    Unknown,
    /// DNS says that nothing will do.
    Nothing,
}

fn wanted(peer: &SipPeer<'_>, domain: &str, targets: Option<&[String]>) -> Wanted {
    match (peer.edge, peer.rule.identity) {
        (Some(edge), _) => Wanted::Hosts(vec![edge.name.clone()]),
        (None, Identity::Fixed) => Wanted::Hosts(peer.rule.names.clone()),
        (None, Identity::Rfc5922) => Wanted::Domain,
        (None, Identity::Microsoft) => {
            let named = |it: &crate::policy::SipTarget| match &it.host {
                SipHost::Name(name) => Some(name.clone()),
                SipHost::Address(_) => None,
            };
            let fixed: Vec<String> = peer.rule.targets.iter().filter_map(named).collect();
            if !fixed.is_empty() {
                return Wanted::Hosts(fixed);
            }
            let Some(targets) = targets else { return Wanted::Unknown };
            let own = targets.iter().filter(|it| is_label_of(it, domain));
            let own: Vec<String> = own.cloned().collect();
            if own.is_empty() { Wanted::Nothing } else { Wanted::Hosts(own) }
        }
    }
}

/// `domain` itself or `label.domain`.
fn is_label_of(host: &str, domain: &str) -> bool {
    host == domain
        || host.split_once('.').is_some_and(|(label, it)| !label.is_empty() && it == domain)
}

/// How many names a text for operators lists.
const NAMES_SHOWN: usize = 12;

#[cfg(test)]
#[path = "sip_identity_tests.rs"]
mod tests;
