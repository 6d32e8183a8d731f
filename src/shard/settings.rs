//! The configuration as the shards run it: an immutable snapshot, checked when it was read.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use crate::home::subscription::Denial;
use crate::policy::{Clients, Policy, Security, Transport};
use crate::tls;

/// Index into [`Settings::listeners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// One listening address as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub party: Party,
    /// For SIP: [`Security::Direct`] over TLS, else [`Security::Optional`].
    pub security: Security,
    /// From these addresses a PROXY protocol v2 header comes first, always; from no other.
    pub proxies: Vec<IpAddr>,
}

impl Listener {
    /// One without proxies before it.
    pub fn new(party: Party, security: Security) -> Self {
        Self { party, security, proxies: Vec::new() }
    }

    /// Whether a header of the PROXY protocol has to come first from this address.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|it| it.to_canonical() == address.to_canonical())
    }
}

/// Who connects to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// Users' XMPP clients.
    Client,
    /// XMPP servers of other domains.
    Peer,
    /// SIP servers of other domains.
    Sip(Transport),
}

/// One served domain.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Lower-case A-labels.
    pub name: String,
    /// Our FQDN toward SIP peers: in Contact, Record-Route and Via. Usually a host in the domain.
    pub sip_name: String,
    /// SASL PLAIN is offered under TLS.
    pub plain: bool,
    /// The -PLUS mechanisms are offered. Off for clients that know channel bindings of TLS 1.2 only
    /// and say so in a way that a server which offers others must refuse (RFC 5802, 6).
    pub channel_binding: bool,
    /// How the *no* of its users looks to those who asked to see them.
    pub denial: Denial,
}

/// The snapshot every shard holds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Counts up with each reload; part of status and metrics.
    pub version: u64,
    /// Shards of this node; fixed while the process lives.
    pub shards: u16,
    /// By [`ListenerId`].
    pub listeners: Vec<Listener>,
    /// Where this node listens: what DNS says is never believed to lead there.
    pub own_addresses: Vec<SocketAddr>,
    /// Served domains, sorted by name.
    pub domains: Vec<Domain>,
    /// Certificates, for both roles.
    pub tls: Arc<tls::CertStore>,
    /// Which foreign domains may be talked to, and how.
    pub policy: Arc<Policy>,
    /// How local clients are told apart where they show the same words in different ways.
    pub clients: Clients,
    /// Dialback secrets: the first is used, all are accepted (rotation). At least 32 octets each.
    pub dialback_secrets: Vec<Vec<u8>>,
    /// Connections of one address that have not shown yet who they are, over all shards; 0: no bound.
    pub strangers_per_address: u32,
    /// Hides whether an account exists: salts of unknown users derive from it.
    pub scram_secret: Vec<u8>,
    /// Iterations shown for unknown users; the same as new accounts get.
    pub scram_iterations: u32,
}

impl Settings {
    /// Whether this node itself listens there. One that listens everywhere is found under its
    /// loopback addresses; the addresses of its interfaces are not known here.
    pub fn is_own(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        self.own_addresses.iter().any(|own| {
            let ip = own.ip().to_canonical();
            own.port() == port && (ip == address || (ip.is_unspecified() && address.is_loopback()))
        })
    }

    /// The port under which partners reach us by that transport: that of the first such listener.
    pub fn sip_port(&self, transport: Transport) -> u16 {
        let ports = self.listeners.iter().zip(&self.own_addresses);
        ports
            .filter(|(it, address)| it.party == Party::Sip(transport) && address.port() != 0)
            .map(|(_, address)| address.port())
            .next()
            .unwrap_or_else(|| transport.port())
    }

    /// The served domain of that name (lower-case A-labels).
    pub fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.binary_search_by(|d| d.name.as_str().cmp(name)).ok().map(|i| &self.domains[i])
    }
}
