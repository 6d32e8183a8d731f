//! Where a domain's XMPP server is: SRV records and addresses, from DNS.
//!
//! RFC 6120, 3.2 and XEP-0368: both services are asked at once, then the addresses of the targets,
//! or of the domain itself if there are no SRV records. That a domain does not exist, that it has
//! no such records, that the server failed and that it was silent are four answers, since only the
//! first two are the domain's own word. Answers are kept as long as their TTL says, within bounds.
//!
//! Does **not** choose: order, weights and what failed before are `dns`'s.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver as Hickory, TokioResolver};
use tokio::time::timeout;

use crate::limits::{
    DNS_ADDRESSES_MAX, DNS_CACHE_MAX, DNS_NEGATIVE_TTL_SECONDS_MAX, DNS_QUERY_MS_MAX, DNS_SRV_MAX,
    DNS_TTL_SECONDS_MAX,
};

/// Hosts whose addresses are asked for at the same time.
const HOSTS_AT_ONCE: usize = 8;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// NXDOMAIN: there is no such name.
    NoDomain,
    /// The name exists and has no such records.
    NoData,
    /// The name server refused, failed, or could not be reached.
    Failed(String),
    /// No answer in time.
    TimedOut,
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// Lower-case without the last dot; empty if the service is not offered (target `.`).
    pub target: String,
}

/// All that was found out about a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `_xmpps-server._tcp`: TLS from the first byte (XEP-0368).
    pub direct: Result<Vec<Srv>, Fault>,
    /// `_xmpp-server._tcp`: STARTTLS.
    pub starttls: Result<Vec<Srv>, Fault>,
    /// By host: the targets' addresses, or the domain's own if there is no SRV record at all.
    pub addresses: Vec<(String, Result<Vec<IpAddr>, Fault>)>,
}

/// Asks DNS and remembers.
pub struct Resolver {
    hickory: Result<TokioResolver, String>,
    query_max: Duration,
}

impl Resolver {
    /// With the system's name servers, or with `nameserver` alone. A system without a usable
    /// configuration still federates with domains that have fixed targets, so this is no error
    /// until somebody asks.
    pub fn new(nameserver: Option<SocketAddr>) -> Self {
        Self::with_query_max(nameserver, Duration::from_millis(DNS_QUERY_MS_MAX))
    }

    fn with_query_max(nameserver: Option<SocketAddr>, query_max: Duration) -> Self {
        let builder = match nameserver {
            Some(address) => {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                for it in &mut server.connections {
                    it.port = address.port();
                }
                let config = ResolverConfig::from_name_servers(vec![server]);
                Ok(Hickory::builder_with_config(config, TokioRuntimeProvider::default()))
            }
            None => TokioResolver::builder_tokio(),
        };
        let hickory = builder
            .and_then(|mut builder| {
                bound(builder.options_mut(), query_max);
                builder.build()
            })
            .map_err(|error| format!("the system's DNS configuration can't be used: {error}"));
        Self { hickory, query_max }
    }

    /// Looks `domain` (lower-case A-labels) up.
    pub async fn resolve(&self, domain: &str) -> Found {
        if let Ok(ip) = domain.trim_matches(['[', ']']).parse::<IpAddr>() {
            // An address is its own answer.
            let addresses = vec![(domain.to_owned(), Ok(vec![ip]))];
            return Found { direct: Err(Fault::NoData), starttls: Err(Fault::NoData), addresses };
        }
        let (mut direct, mut starttls) = tokio::join!(
            self.srv(format!("_xmpps-server._tcp.{domain}.")),
            self.srv(format!("_xmpp-server._tcp.{domain}.")),
        );
        // The more urgent ones of both services together stay.
        let rows = |it: &Result<Vec<Srv>, Fault>| it.as_ref().map_or(0, Vec::len);
        if rows(&direct) + rows(&starttls) > DNS_SRV_MAX {
            for it in [&mut direct, &mut starttls].into_iter().flatten() {
                it.truncate(DNS_SRV_MAX / 2);
            }
        }
        let hosts = hosts(domain, &direct, &starttls);
        let addresses = self.addresses(hosts).await;
        Found { direct, starttls, addresses }
    }

    async fn srv(&self, name: String) -> Result<Vec<Srv>, Fault> {
        let resolver = self.hickory.as_ref().map_err(|it| Fault::Failed(it.clone()))?;
        let name = Name::from_ascii(&name).map_err(|it| Fault::Failed(it.to_string()))?;
        let answer = timeout(self.query_max, resolver.lookup(name, RecordType::SRV)).await;
        let lookup = answer.map_err(|_| Fault::TimedOut)?.map_err(|it| fault(&it))?;
        let mut found: Vec<Srv> = lookup
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(it) => Some(Srv {
                    priority: it.priority,
                    weight: it.weight,
                    port: it.port,
                    target: it.target.to_ascii().trim_end_matches('.').to_ascii_lowercase(),
                }),
                _ => None,
            })
            .collect();
        if found.is_empty() {
            return Err(Fault::NoData);
        }
        found.sort_by_key(|it| it.priority);
        found.truncate(DNS_SRV_MAX);
        Ok(found)
    }

    /// The addresses of `hosts`, some at a time, until there are enough.
    async fn addresses(
        &self,
        hosts: Vec<String>,
    ) -> Vec<(String, Result<Vec<IpAddr>, Fault>)> {
        let mut found = Vec::with_capacity(hosts.len());
        let mut room = DNS_ADDRESSES_MAX;
        for some in hosts.chunks(HOSTS_AT_ONCE) {
            let mut tasks = tokio::task::JoinSet::new();
            for (n, host) in some.iter().enumerate() {
                let (host, resolver, limit) =
                    (host.clone(), self.hickory.clone(), self.query_max);
                tasks.spawn(async move { (n, address_of(&resolver, &host, limit).await) });
            }
            let mut answers = tasks.join_all().await;
            // As they came is by chance; the order of the records is not.
            answers.sort_by_key(|(n, _)| *n);
            for (host, (_, mut answer)) in some.iter().zip(answers) {
                if let Ok(ips) = &mut answer {
                    ips.truncate(room);
                    room -= ips.len();
                }
                found.push((host.clone(), answer));
            }
            if room == 0 {
                break;
            }
        }
        found
    }
}

fn bound(options: &mut ResolverOpts, query_max: Duration) {
    // Two tries fit the time one query has.
    options.timeout = query_max / 2;
    options.attempts = 1;
    options.cache_size = DNS_CACHE_MAX;
    options.positive_max_ttl = Some(Duration::from_secs(DNS_TTL_SECONDS_MAX));
    options.negative_max_ttl = Some(Duration::from_secs(DNS_NEGATIVE_TTL_SECONDS_MAX));
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
}

async fn address_of(
    resolver: &Result<TokioResolver, String>,
    host: &str,
    limit: Duration,
) -> Result<Vec<IpAddr>, Fault> {
    let resolver = resolver.as_ref().map_err(|it| Fault::Failed(it.clone()))?;
    let name = Name::from_ascii(format!("{host}.")).map_err(|it| Fault::Failed(it.to_string()))?;
    let answer = timeout(limit, resolver.lookup_ip(name)).await;
    let lookup = answer.map_err(|_| Fault::TimedOut)?.map_err(|it| fault(&it))?;
    let found: Vec<IpAddr> = lookup.iter().take(DNS_ADDRESSES_MAX).collect();
    if found.is_empty() { Err(Fault::NoData) } else { Ok(found) }
}

/// Whose addresses are needed. RFC 6120, 3.2.1: with SRV records there is no way back to the
/// domain's own addresses, and also none while it is unknown whether there are SRV records.
fn hosts(
    domain: &str,
    direct: &Result<Vec<Srv>, Fault>,
    starttls: &Result<Vec<Srv>, Fault>,
) -> Vec<String> {
    let absent = |it: &Result<Vec<Srv>, Fault>| matches!(it, Err(Fault::NoDomain | Fault::NoData));
    if absent(direct) && absent(starttls) {
        return vec![domain.to_owned()];
    }
    let mut records: Vec<&Srv> = [direct, starttls].into_iter().flatten().flatten().collect();
    records.sort_by_key(|it| it.priority);
    let mut hosts: Vec<String> = Vec::with_capacity(records.len());
    for it in records {
        if !it.target.is_empty() && !hosts.contains(&it.target) {
            hosts.push(it.target.clone());
        }
    }
    hosts
}

fn fault(error: &NetError) -> Fault {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(it)) => match it.response_code {
            ResponseCode::NXDomain => Fault::NoDomain,
            _ => Fault::NoData,
        },
        NetError::Timeout => Fault::TimedOut,
        other => Fault::Failed(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
