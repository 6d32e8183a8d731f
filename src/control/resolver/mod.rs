//! Where a domain's XMPP server or SIP edge is: SRV records and addresses, from DNS.
//!
//! RFC 6120, 3.2 and XEP-0368: both services are asked at once; SIP's are asked one after the other; hosts follow as the plan wants
//! them. That a name does not exist, that it has no such records, that the server failed and that
//! it was silent are four answers, since only the first two are the domain's own word. Answers are
//! kept as long as their TTL says, within bounds.
//!
//! Does **not** choose: order, weights, what failed before and which addresses are allowed are
//! `dns`'s.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Resolver as Hickory, TokioResolver};
use tokio::time::timeout;

use crate::dns::{Answer, Kind, Naptr, SipFound, SipService, Srv, next_service};
use crate::limits::{
    DNS_ADDRESSES_MAX, DNS_CACHE_MAX, DNS_NAPTR_MAX, DNS_NEGATIVE_TTL_SECONDS_MAX,
    DNS_QUERY_MS_MAX, DNS_SRV_MAX, DNS_TTL_SECONDS_MAX,
};

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

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDomain => write!(f, "there is no such name"),
            Self::NoData => write!(f, "the name has no such records"),
            Self::Failed(text) => write!(f, "the name server failed: {text}"),
            Self::TimedOut => write!(f, "the name server did not answer in time"),
        }
    }
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

    /// What both SRV names of `domain` (lower-case A-labels) have: direct TLS, STARTTLS.
    pub async fn services(&self, domain: &str) -> (Answer, Answer) {
        if domain.parse::<IpAddr>().is_ok() {
            // There is nothing to ask; the address is its own host.
            return (Answer::Absent, Answer::Absent);
        }
        let (mut direct, mut starttls) = tokio::join!(
            self.srv(Kind::DirectTls.query(domain)),
            self.srv(Kind::StartTls.query(domain)),
        );
        // The more urgent ones of both stay.
        let rows = |it: &Result<Vec<Srv>, Fault>| it.as_ref().map_or(0, Vec::len);
        if rows(&direct) + rows(&starttls) > DNS_SRV_MAX {
            for it in [&mut direct, &mut starttls].into_iter().flatten() {
                it.truncate(DNS_SRV_MAX / 2);
            }
        }
        (answer(domain, direct), answer(domain, starttls))
    }

    /// Where the SIP edge of `domain` (lower-case A-labels) is. With `rfc3263` NAPTR and `_sips._tcp`
    /// follow where Microsoft's record is absent.
    pub async fn sip(&self, domain: &str, rfc3263: bool) -> SipFound {
        if domain.parse::<IpAddr>().is_ok() {
            return SipFound::Absent;
        }
        let first = self.sip_srv(domain, SipService::Federation, None).await;
        if !rfc3263 || !matches!(first, SipFound::Absent | SipFound::NotOffered) {
            return first;
        }
        let named = match self.naptr(domain).await {
            Ok(found) => next_service(found),
            Err(Fault::NoDomain | Fault::NoData) => Vec::new(),
            Err(_) => return SipFound::Failed,
        };
        for name in named {
            match self.sip_srv(domain, SipService::Sips, Some(name)).await {
                SipFound::Absent => {}
                found => return found,
            }
        }
        match self.sip_srv(domain, SipService::Sips, None).await {
            // What Microsoft's record said stays said.
            SipFound::Absent => first,
            found => found,
        }
    }

    async fn sip_srv(&self, domain: &str, service: SipService, name: Option<String>) -> SipFound {
        let name = name.unwrap_or_else(|| service.query(domain));
        match self.srv_with_ttl(name).await {
            Ok((records, _)) if records.iter().all(|it| it.target == ".") => SipFound::NotOffered,
            Ok((records, seconds)) => SipFound::Records { service, records, seconds },
            Err(fault) => match answer(domain, Err(fault)) {
                Answer::Failed => SipFound::Failed,
                _ => SipFound::Absent,
            },
        }
    }

    async fn naptr(&self, domain: &str) -> Result<Vec<Naptr>, Fault> {
        let resolver = self.hickory.as_ref().map_err(|it| Fault::Failed(it.clone()))?;
        let name = Name::from_ascii(format!("{domain}."));
        let name = name.map_err(|it| Fault::Failed(it.to_string()))?;
        let lookup = self.limit(resolver.lookup(name, RecordType::NAPTR)).await?;
        let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
        let row = |record: &Record| match &record.data {
            RData::NAPTR(it) => Some(Naptr {
                order: it.order,
                preference: it.preference,
                flags: text(&it.flags),
                services: text(&it.services),
                replacement: it.replacement.to_ascii().to_ascii_lowercase(),
            }),
            _ => None,
        };
        Ok(lookup.answers().iter().filter_map(row).take(DNS_NAPTR_MAX).collect())
    }

    async fn srv(&self, name: String) -> Result<Vec<Srv>, Fault> {
        self.srv_with_ttl(name).await.map(|it| it.0)
    }

    /// The records, and for how many seconds they may be believed.
    async fn srv_with_ttl(&self, name: String) -> Result<(Vec<Srv>, u32), Fault> {
        let resolver = self.hickory.as_ref().map_err(|it| Fault::Failed(it.clone()))?;
        let name = Name::from_ascii(&name).map_err(|it| Fault::Failed(it.to_string()))?;
        let lookup = self.limit(resolver.lookup(name, RecordType::SRV)).await?;
        let mut found: Vec<Srv> = lookup
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(it) => Some(Srv {
                    priority: it.priority,
                    weight: it.weight,
                    port: it.port,
                    target: host_name(&it.target),
                }),
                _ => None,
            })
            .collect();
        if found.is_empty() {
            return Err(Fault::NoData);
        }
        found.sort_by_key(|it| it.priority);
        found.truncate(DNS_SRV_MAX);
        let most = u32::try_from(DNS_TTL_SECONDS_MAX).unwrap_or(u32::MAX);
        let seconds = lookup.answers().iter().map(|it| it.ttl).min().unwrap_or(0).min(most);
        Ok((found, seconds))
    }

    /// The addresses of `host`, both families, at most `DNS_ADDRESSES_MAX`.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Fault> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![ip]);
        }
        let resolver = self.hickory.as_ref().map_err(|it| Fault::Failed(it.clone()))?;
        let name = Name::from_ascii(format!("{}.", host.trim_end_matches('.')))
            .map_err(|it| Fault::Failed(it.to_string()))?;
        let lookup = self.limit(resolver.lookup_ip(name)).await?;
        let found: Vec<IpAddr> = lookup.iter().take(DNS_ADDRESSES_MAX).collect();
        if found.is_empty() { Err(Fault::NoData) } else { Ok(found) }
    }

    async fn limit<T>(
        &self,
        lookup: impl Future<Output = Result<T, NetError>>,
    ) -> Result<T, Fault> {
        let answer = timeout(self.query_max, lookup).await;
        answer.map_err(|_| Fault::TimedOut)?.map_err(|it| fault(&it))
    }
}

/// As `dns` has it: lower-case without the last dot, but `.` for *not offered* (RFC 2782).
fn host_name(name: &Name) -> String {
    if name.is_root() {
        return ".".into();
    }
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

fn answer(domain: &str, found: Result<Vec<Srv>, Fault>) -> Answer {
    match found {
        Ok(records) => Answer::Records(records),
        Err(Fault::NoDomain | Fault::NoData) => Answer::Absent,
        Err(fault @ (Fault::Failed(_) | Fault::TimedOut)) => {
            tracing::debug!("event=dns_failed domain={domain:?} text={:?}", fault.to_string());
            Answer::Failed
        }
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
