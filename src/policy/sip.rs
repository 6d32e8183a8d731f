//! What a rule says about a domain that speaks SIP, and which proxies speak for many domains.
//!
//! A SIP domain is named by a rule of its own: nothing is found out by asking DNS for both
//! protocols. A trusted edge (a proxy such as an Expressway) vouches for the domains it is
//! configured for and for no other; whether those may be talked to is still the rule's to say.
//! Does **not** judge certificates, look names up or connect.

use std::fmt;
use std::net::IpAddr;

use crate::policy::{Pattern, Policy, Rule};

/// The protocol of a foreign domain: one at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Xmpp,
    Sip(Box<SipRule>),
}

impl Protocol {
    /// What is settled about SIP, if the domain speaks it.
    pub fn sip(&self) -> Option<&SipRule> {
        match self {
            Self::Xmpp => None,
            Self::Sip(rule) => Some(rule),
        }
    }
}

/// Whose habits the far side has; decides every deviation from the RFCs and the state tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Profile {
    /// Lync 2010/2013, Skype for Business, Office 365: the default of SIP domains.
    Lync,
    /// Cisco Jabber.
    Jabber,
    /// Any other: the default of XMPP domains.
    #[default]
    Xmpp,
    /// IBM Sametime.
    Sametime,
    /// WebEx Messenger.
    Webex,
}

impl Profile {
    /// As it is written in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lync => "lync",
            Self::Jabber => "jabber",
            Self::Xmpp => "xmpp",
            Self::Sametime => "sametime",
            Self::Webex => "webex",
        }
    }
}

/// How a SIP domain is reached, believed and spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipRule {
    pub identity: Identity,
    /// The names of [`Identity::Fixed`], lower-case A-labels. The first one names the peer.
    pub names: Vec<String>,
    /// Fixed targets: no DNS is asked for SRV (order is the order of tries).
    pub targets: Vec<SipTarget>,
    pub transport: Transport,
    /// New requests a second, the far side's tolerance; 0 is unpaced.
    pub rate: u32,
    pub im: Im,
    pub pidf: Pidf,
}

/// Which name in the certificate proves a SIP peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The name of the SRV target, which is the SIP domain or one label below it.
    Microsoft,
    /// The configured names.
    Fixed,
    /// The SIP domain itself (RFC 5922).
    Rfc5922,
}

/// What carries SIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    Tls,
    Tcp,
    Udp,
}

impl Transport {
    /// As it is written in the configuration, and in `transport=` of a URI.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// RFC 3261, 19.1.2.
    pub fn port(self) -> u16 {
        if self == Self::Tls { 5061 } else { 5060 }
    }

    /// Datagrams, not a stream.
    pub fn is_datagram(self) -> bool {
        self == Self::Udp
    }
}

/// How instant messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Im {
    /// MESSAGE inside an INVITE dialog.
    Session,
    /// MESSAGE alone (RFC 3428).
    Page,
}

/// The dialect of the presence documents we send; all are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pidf {
    Microsoft,
    /// RFC 3863 with RFC 4480 and RFC 8048.
    Standard,
}

/// A place that the administrator fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipTarget {
    pub host: SipHost,
    pub port: u16,
}

/// A host by name (its addresses come from DNS) or by address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SipHost {
    /// Lower-case A-labels.
    Name(String),
    Address(IpAddr),
}

impl fmt::Display for SipTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            SipHost::Name(name) => write!(f, "{name}:{}", self.port),
            SipHost::Address(IpAddr::V6(it)) => write!(f, "[{it}]:{}", self.port),
            SipHost::Address(it) => write!(f, "{it}:{}", self.port),
        }
    }
}

/// A proxy that is believed for many domains, always over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Its name, which its certificate holds; lower-case A-labels.
    pub name: String,
    /// For whom it is believed; never [`Pattern::Any`] of a local domain, and no two edges overlap.
    pub speaks_for: Vec<Pattern>,
    /// Where it is, in the order of tries; its name on 5061 if nothing was written.
    pub targets: Vec<SipTarget>,
}

impl Edge {
    /// Whether it is believed for this domain.
    pub fn speaks_for(&self, domain: &str) -> bool {
        self.speaks_for.iter().any(|it| it.matches(domain))
    }
}

/// A SIP domain that may be talked to: its rule and the edge before it.
#[derive(Clone, Copy, Debug)]
pub struct SipPeer<'a> {
    pub profile: Profile,
    pub rule: &'a SipRule,
    pub edge: Option<&'a Edge>,
}

impl<'a> SipPeer<'a> {
    /// The name that all connections to the same far side share: the edge's, the first fixed name,
    /// else the domain.
    pub fn name(&self, domain: &'a str) -> &'a str {
        match (self.edge, self.rule.identity) {
            (Some(edge), _) => &edge.name,
            (None, Identity::Fixed) => self.rule.names.first().map_or(domain, String::as_str),
            (None, _) => domain,
        }
    }

    /// Fixed targets; if there are none, DNS is asked.
    pub fn targets(&self) -> &'a [SipTarget] {
        self.edge.map_or(&self.rule.targets, |it| &it.targets)
    }

    /// What carries the requests.
    pub fn transport(&self) -> Transport {
        if self.edge.is_some() { Transport::Tls } else { self.rule.transport }
    }

    /// Whether NAPTR and `_sips._tcp` are asked where Microsoft's record is absent: of all but Lync, whose
    /// edges publish no other.
    pub fn rfc3263(&self) -> bool {
        self.profile != Profile::Lync
    }

    /// Without TLS the source address is all the identity there is: whether it is a target's.
    pub fn is_target(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.targets()
            .iter()
            .any(|it| matches!(it.host, SipHost::Address(own) if own.to_canonical() == address))
    }
}

impl Policy {
    /// The trusted edge before a domain: the most specific pattern decides.
    pub fn edge(&self, domain: &str) -> Option<&Edge> {
        let matching = |edge: &'_ Edge| {
            edge.speaks_for.iter().filter(|it| it.matches(domain)).map(Pattern::precedence).min()
        };
        self.edges()
            .iter()
            .filter_map(|it| Some((matching(it)?, it)))
            .min_by_key(|it| it.0)
            .map(|it| it.1)
    }

    /// The edge of that name.
    pub fn edge_named(&self, name: &str) -> Option<&Edge> {
        self.edges().iter().find(|it| it.name == name)
    }

    /// A foreign domain (lower-case A-labels) that may be talked to and speaks SIP.
    pub fn sip(&self, domain: &str) -> Option<SipPeer<'_>> {
        let Rule { allow: true, protocol: Protocol::Sip(rule), profile, .. } =
            self.verdict(domain).0
        else {
            return None;
        };
        Some(SipPeer { profile: *profile, rule, edge: self.edge(domain) })
    }
}
