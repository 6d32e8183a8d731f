//! For which domains does this certificate speak.
//!
//! Reads the names of a certificate's subjectAltName and compares them with a domain: RFC 9525, RFC 6120
//! section 13.7.1, RFC 4985 (SRVName). Both sides are lower-case A-labels, so comparing is plain equality,
//! but for the one wildcard that RFC 9525 leaves.
//!
//! A name that holds anything which no domain can hold (NUL, `@`, an octet outside ASCII, an empty label, a
//! trailing dot) counts as absent: the certificate keeps its other names. For XMPP the common name is **not**
//! looked at, at no time; for SIP alone, where there is no subjectAltName (RFC 5922, 7.1). IP addresses never
//! count. The xmppAddr of a person (`user@domain`) is **not** kept: certificates
//! of users are not accepted yet.

use std::fmt;

use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Class, FromDer, Oid, Tag};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::asn1_rs::oid;
use x509_parser::prelude::X509Certificate;

use crate::limits::TLS_NAMES_MAX;

/// What the far end is asked to speak for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A domain's server among servers.
    S2s,
    /// A domain's server toward its clients.
    C2s,
}

/// The names of one certificate, as lower-case A-labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// dNSName; a wildcard keeps its `*.`.
    dns: Vec<String>,
    /// SRVName for `_xmpp-server.`, without the service.
    srv_server: Vec<String>,
    /// SRVName for `_xmpp-client.`, without the service.
    srv_client: Vec<String>,
    /// xmppAddr that is a bare domain.
    xmpp: Vec<String>,
    /// URIs `sip:domain`, without the scheme (RFC 5922, 7.1).
    sip: Vec<String>,
    /// The subject's common name, if there is no subjectAltName.
    common: Option<String>,
}

impl Names {
    /// The names of `certificate`. One that can't be read has none.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        X509Certificate::from_der(certificate)
            .map(|(_, it)| Self::of_parsed(&it))
            .unwrap_or_default()
    }

    pub(crate) fn of_parsed(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        // Two subjectAltName extensions are an error there, and so no names here.
        let extension = match certificate.subject_alternative_name() {
            Ok(Some(extension)) => extension,
            Ok(None) => {
                let mut all = certificate.subject().iter_common_name();
                // Several are nobody's: which one counts is nowhere said.
                if let (Some(one), None) = (all.next(), all.next()) {
                    names.common = one.as_str().ok().and_then(host_name);
                }
                return names;
            }
            Err(_) => return names,
        };
        for name in extension.value.general_names.iter().take(TLS_NAMES_MAX) {
            match name {
                GeneralName::DNSName(dns) => names.dns.extend(dns_name(dns)),
                GeneralName::OtherName(oid, value) => names.add_other(oid, value),
                GeneralName::URI(uri) => names.sip.extend(sip_domain(uri)),
                _ => {}
            }
        }
        names
    }

    fn add_other(&mut self, oid: &Oid<'_>, value: &[u8]) {
        let Some((tag, text)) = explicit_text(value) else { return };
        if *oid == SRV_NAME && tag == Tag::Ia5String {
            // RFC 4985, 2: `_Service.Name`; no wildcard.
            let Some((service, name)) = text.split_once('.') else { return };
            let Some(name) = host_name(name) else { return };
            if service.eq_ignore_ascii_case("_xmpp-server") {
                self.srv_server.push(name);
            } else if service.eq_ignore_ascii_case("_xmpp-client") {
                self.srv_client.push(name);
            }
        } else if *oid == XMPP_ADDR && tag == Tag::Utf8String {
            // RFC 6120, 13.7.1.4: a JID, which may be written with U-labels.
            self.xmpp.extend(reference(text));
        }
    }

    /// Whether one of the names is `domain`'s.
    pub fn speak_for(&self, domain: &str, what: Use) -> bool {
        let Some(domain) = reference(domain) else { return false };
        let is_domain = |name: &String| *name == domain;
        let srv = match what {
            Use::S2s => &self.srv_server,
            Use::C2s => &self.srv_client,
        };
        self.dns.iter().any(|name| dns_matches(name, &domain))
            || srv.iter().any(is_domain)
            || self.xmpp.iter().any(is_domain)
    }

    /// The one name that a trusted proxy vouches for, in place of a certificate.
    pub fn vouched(name: &str) -> Self {
        Self { dns: host_name(name).into_iter().collect(), ..Self::default() }
    }

    /// Whether a host in SIP has this very name (lower-case A-labels): as dNSName, never by wildcard, or as
    /// common name where there is no subjectAltName.
    pub fn has_sip_host(&self, host: &str) -> bool {
        self.dns.iter().chain(&self.common).any(|it| it == host)
    }

    /// Whether it speaks for a SIP domain (lower-case A-labels) by RFC 5922, 7.1: URIs first, and what is a
    /// host's name only if there is no URI of SIP. Wildcards never count (7.2).
    pub fn has_sip_domain(&self, domain: &str) -> bool {
        if self.sip.is_empty() {
            return self.has_sip_host(domain);
        }
        self.sip.iter().any(|it| it == domain)
    }

    /// All that may be a SIP peer's name: hosts without wildcards, and domains of URIs.
    pub fn of_sip(&self) -> impl Iterator<Item = &str> {
        let hosts = self.dns.iter().chain(&self.common).filter(|it| !it.starts_with("*."));
        hosts.chain(&self.sip).map(String::as_str)
    }

    /// The dNSNames, wildcards with their `*.`.
    pub fn dns(&self) -> impl Iterator<Item = &str> {
        self.dns.iter().map(String::as_str)
    }

    /// Whether there is no name at all.
    pub fn is_empty(&self) -> bool {
        self.dns.is_empty()
            && self.srv_server.is_empty()
            && self.srv_client.is_empty()
            && self.xmpp.is_empty()
            && self.sip.is_empty()
    }
}

/// For people: the names with their kinds, cut after a dozen.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no names (a common name does not count)");
        }
        let dns = self.dns.iter().map(|it| ("", it));
        let srv_server = self.srv_server.iter().map(|it| ("_xmpp-server.", it));
        let srv_client = self.srv_client.iter().map(|it| ("_xmpp-client.", it));
        let xmpp = self.xmpp.iter().map(|it| ("xmppAddr:", it));
        let sip = self.sip.iter().map(|it| ("sip:", it));
        let all = dns.chain(srv_server).chain(srv_client).chain(xmpp).chain(sip);
        let mut left = 0_usize;
        for (i, (kind, name)) in all.enumerate() {
            match i {
                0 => write!(f, "{kind}{name}")?,
                1..NAMES_SHOWN => write!(f, ", {kind}{name}")?,
                _ => left += 1,
            }
        }
        if left > 0 { write!(f, " and {left} more") } else { Ok(()) }
    }
}

/// A dNSName as it is compared, wildcard included; `None` if it can't be one.
fn dns_name(name: &str) -> Option<String> {
    match name.strip_prefix("*.") {
        Some(parent) => host_name(parent).map(|parent| format!("*.{parent}")),
        None => host_name(name),
    }
}

/// RFC 9525, 6.3: `*` stands for exactly one whole label, the left-most.
fn dns_matches(name: &str, domain: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => domain.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => name == domain,
    }
}

/// Lower-case `name` if it is labels of letters, digits, `-` and `_` with single dots between them.
fn host_name(name: &str) -> Option<String> {
    let is_label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    (name.len() <= 253 && name.split('.').all(is_label)).then(|| name.to_ascii_lowercase())
}

/// The domain of a URI `sip:domain` (RFC 5922, 7.1: one with a user part identifies no domain; `sips` is not a
/// form of it). A port or parameters make it no domain either.
fn sip_domain(uri: &str) -> Option<String> {
    let (scheme, domain) = uri.split_once(':')?;
    if scheme.eq_ignore_ascii_case("sip") { host_name(domain) } else { None }
}

/// A domain as it is compared with names: U-labels become A-labels.
pub(crate) fn reference(domain: &str) -> Option<String> {
    if domain.is_ascii() {
        return host_name(domain);
    }
    idna::domain_to_ascii(domain).ok().as_deref().and_then(host_name)
}

/// The text inside `[0] EXPLICIT` of an otherName.
fn explicit_text(value: &[u8]) -> Option<(Tag, &str)> {
    let (rest, outer) = Any::from_der(value).ok()?;
    if !rest.is_empty() || outer.class() != Class::ContextSpecific || outer.tag() != Tag(0) {
        return None;
    }
    let (rest, inner) = Any::from_der(outer.data).ok()?;
    let text = std::str::from_utf8(inner.data).ok()?;
    (rest.is_empty() && inner.class() == Class::Universal).then_some((inner.tag(), text))
}

/// RFC 4985, 2: id-on-dnsSRV.
const SRV_NAME: Oid<'static> = oid!(1.3.6.1.5.5.7.8.7);
/// RFC 6120, 13.7.1.4: id-on-xmppAddr.
const XMPP_ADDR: Oid<'static> = oid!(1.3.6.1.5.5.7.8.5);
/// How many names a text for operators lists.
const NAMES_SHOWN: usize = 12;
