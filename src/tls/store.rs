//! Our certificates by domain, and the settings of new sessions.
//!
//! Everything here is made from bytes at load time, checked then, and never changes: a reload makes a new store
//! and hands it to whoever opens sessions. A material that is not right in every point is refused with the one
//! thing that is wrong, so that the old store can stay.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, Error, InconsistentKeys, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::asn1_rs::FromDer;
use x509_parser::oid_registry::{
    OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512, OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519,
};
use x509_parser::prelude::X509Certificate;
use x509_parser::signature_algorithm::SignatureAlgorithm;

use super::Clock;
use super::chain::Der;
use super::faults::MaterialFault;
use super::identity::{Names, Use, reference};
use super::verifiers::{Always, KeyOnly};
use crate::limits::TLS_OWN_VALIDITY_SECONDS_MIN;
use crate::time::Wall;

/// A certificate with its key, as bytes, and what it is for.
#[derive(Clone, Copy)]
pub struct MaterialSource<'a> {
    /// PEM: our certificate first, then those above it, each issued by the next.
    pub chain_pem: &'a [u8],
    /// PEM: the private key; PKCS #8, PKCS #1 or SEC 1.
    pub key_pem: &'a [u8],
    /// The domains it has to speak for.
    pub domains: &'a [String],
}

impl fmt::Debug for MaterialSource<'_> {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaterialSource").field("domains", &self.domains).finish_non_exhaustive()
    }
}

/// A certificate of ours, checked, with the settings of the sessions that show it.
#[derive(Debug)]
pub struct Material {
    names: Names,
    not_before: u64,
    not_after: u64,
    /// Server, client.
    purposes: (bool, bool),
    end_point: Option<Vec<u8>>,
    /// By use, then whether ALPN is spoken.
    servers: [[Arc<ServerConfig>; 2]; 2],
    clients: [[Arc<ClientConfig>; 2]; 2],
}

impl Material {
    /// The certificate's names.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// From when to when it is valid, in seconds since 1970.
    pub fn validity(&self) -> (u64, u64) {
        (self.not_before, self.not_after)
    }

    /// Whether it may be shown by a server, and by a client (RFC 5280, 4.2.1.12): without the extension, by
    /// both.
    pub fn purposes(&self) -> (bool, bool) {
        self.purposes
    }

    /// RFC 5929, 4.1: the channel binding `tls-server-end-point`; a certificate signed with an algorithm
    /// that has no single hash (Ed25519) has none.
    pub fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }

    pub(super) fn server(&self, what: Use, with_alpn: bool) -> &Arc<ServerConfig> {
        let [c2s, s2s] = &self.servers;
        pick(if what == Use::C2s { c2s } else { s2s }, with_alpn)
    }

    fn load(
        source: &MaterialSource<'_>,
        now: Wall,
        workshop: &Workshop,
    ) -> Result<Self, MaterialFault> {
        let chain = read_chain(source.chain_pem)?;
        let key = match PrivateKeyDer::from_pem_slice(source.key_pem) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) => return Err(MaterialFault::NoKey),
            Err(why) => return Err(MaterialFault::BadPem(why.to_string())),
        };
        let Checked { names, not_before, not_after, purposes } =
            check_chain(&chain, now.0 / 1_000_000)?;
        for domain in source.domains {
            if !names.speak_for(domain, Use::S2s) && !names.speak_for(domain, Use::C2s) {
                let names = Box::new(names);
                return Err(MaterialFault::NotCovered { domain: domain.clone(), names });
            }
        }
        let end_point = chain.first().and_then(end_point);
        let key =
            CertifiedKey::from_der(chain, key, &workshop.provider).map_err(|it| match it {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    MaterialFault::KeyMismatch
                }
                other => MaterialFault::BadKey(other.to_string()),
            })?;
        let (servers, clients) = workshop
            .configs(&Arc::new(key))
            .map_err(|why| MaterialFault::BadKey(why.to_string()))?;
        Ok(Self { names, not_before, not_after, purposes, end_point, servers, clients })
    }
}

/// All certificates of ours: what a new session is made from.
#[derive(Debug)]
pub struct CertStore {
    by_name: BTreeMap<String, Arc<Material>>,
    materials: Vec<Arc<Material>>,
    anonymous: [[Arc<ClientConfig>; 2]; 2],
}

impl CertStore {
    /// Checks all of `sources`; the first is shown to who asks for a name we don't have. Returns the faults of
    /// all that are not right, each with its place in `sources`. Without any source only connecting is possible,
    /// and without a certificate.
    pub fn build(
        sources: &[MaterialSource<'_>],
        now: Wall,
        clock: &Clock,
    ) -> Result<Self, Vec<(usize, MaterialFault)>> {
        let workshop = Workshop::new(clock);
        let (mut materials, mut faults) = (Vec::new(), Vec::new());
        for (i, source) in sources.iter().enumerate() {
            match Material::load(source, now, &workshop) {
                Ok(material) => materials.push(Arc::new(material)),
                Err(fault) => faults.push((i, fault)),
            }
        }
        let anonymous = workshop
            .clients(None)
            .map_err(|why| vec![(sources.len(), MaterialFault::BadKey(why.to_string()))])?;
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut by_name = BTreeMap::new();
        // What the operator says goes before what a certificate happens to name as well.
        for (source, material) in sources.iter().zip(&materials) {
            for domain in source.domains.iter().filter_map(|it| reference(it)) {
                by_name.entry(domain).or_insert_with(|| Arc::clone(material));
            }
        }
        for material in &materials {
            for name in material.names.dns() {
                by_name.entry(name.to_owned()).or_insert_with(|| Arc::clone(material));
            }
        }
        Ok(Self { by_name, materials, anonymous })
    }

    /// The certificate to show to who asks for `domain`; the default one if we have no better.
    pub fn choose(&self, domain: Option<&str>) -> Option<&Arc<Material>> {
        domain.and_then(|it| self.find(it)).or_else(|| self.materials.first())
    }

    /// The certificate that covers `domain`.
    pub fn find(&self, domain: &str) -> Option<&Arc<Material>> {
        let domain = reference(domain)?;
        let wildcard =
            || domain.split_once('.').and_then(|(_, x)| self.by_name.get(&format!("*.{x}")));
        self.by_name.get(&domain).or_else(wildcard)
    }

    /// All certificates, for metrics and the operator.
    pub fn materials(&self) -> impl Iterator<Item = &Material> {
        self.materials.iter().map(AsRef::as_ref)
    }

    pub(super) fn client(
        &self,
        ours: Option<&str>,
        what: Use,
        with_alpn: bool,
    ) -> &Arc<ClientConfig> {
        let material = ours.and_then(|it| self.choose(Some(it)));
        let [c2s, s2s] = material.map_or(&self.anonymous, |it| &it.clients);
        pick(if what == Use::C2s { c2s } else { s2s }, with_alpn)
    }
}

fn pick<T>([without, with]: &[T; 2], with_alpn: bool) -> &T {
    if with_alpn { with } else { without }
}

/// What all settings have in common.
struct Workshop {
    provider: Arc<CryptoProvider>,
    verifier: Arc<KeyOnly>,
    clock: Arc<Clock>,
}

type Configs<T> = [[Arc<T>; 2]; 2];

impl Workshop {
    fn new(clock: &Clock) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(KeyOnly(Arc::clone(&provider)));
        Self { provider, verifier, clock: Arc::new(clock.clone()) }
    }

    fn configs(
        &self,
        key: &Arc<CertifiedKey>,
    ) -> Result<(Configs<ServerConfig>, Configs<ClientConfig>), Error> {
        let server = |what, with_alpn| self.server(key, what, with_alpn);
        let servers = [
            [server(Use::C2s, false)?, server(Use::C2s, true)?],
            [server(Use::S2s, false)?, server(Use::S2s, true)?],
        ];
        Ok((servers, self.clients(Some(key))?))
    }

    fn server(
        &self,
        key: &Arc<CertifiedKey>,
        what: Use,
        with_alpn: bool,
    ) -> Result<Arc<ServerConfig>, Error> {
        let builder =
            ServerConfig::builder_with_details(Arc::clone(&self.provider), self.clock() as _)
                .with_protocol_versions(&[&TLS13, &TLS12])?;
        // Clients prove themselves by SASL; asking them for a certificate only opens dialogs on their screens.
        let builder = match what {
            Use::S2s => builder.with_client_cert_verifier(Arc::clone(&self.verifier) as _),
            Use::C2s => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Always(Arc::clone(key))));
        config.alpn_protocols = alpn(what, with_alpn);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn clients(&self, key: Option<&Arc<CertifiedKey>>) -> Result<Configs<ClientConfig>, Error> {
        let client = |what, with_alpn| self.client(key, what, with_alpn);
        Ok([
            [client(Use::C2s, false)?, client(Use::C2s, true)?],
            [client(Use::S2s, false)?, client(Use::S2s, true)?],
        ])
    }

    fn client(
        &self,
        key: Option<&Arc<CertifiedKey>>,
        what: Use,
        with_alpn: bool,
    ) -> Result<Arc<ClientConfig>, Error> {
        let builder =
            ClientConfig::builder_with_details(Arc::clone(&self.provider), self.clock() as _)
                .with_protocol_versions(&[&TLS13, &TLS12])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(&self.verifier) as _);
        let mut config = match key {
            Some(key) => builder.with_client_cert_resolver(Arc::new(Always(Arc::clone(key)))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn(what, with_alpn);
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }
}

/// The protocol's name in ALPN (XEP-0368).
pub(super) fn alpn_of(what: Use) -> &'static [u8] {
    match what {
        Use::C2s => b"xmpp-client",
        Use::S2s => b"xmpp-server",
    }
}

fn alpn(what: Use, with_alpn: bool) -> Vec<Vec<u8>> {
    if with_alpn { vec![alpn_of(what).to_vec()] } else { Vec::new() }
}

fn read_chain(chain_pem: &[u8]) -> Result<Vec<Der>, MaterialFault> {
    let chain: Result<Vec<Der>, _> = CertificateDer::pem_slice_iter(chain_pem).collect();
    let chain = chain.map_err(|why| MaterialFault::BadPem(why.to_string()))?;
    if chain.is_empty() { Err(MaterialFault::NoCertificate) } else { Ok(chain) }
}

/// What the first certificate of a chain says.
struct Checked {
    names: Names,
    not_before: u64,
    not_after: u64,
    purposes: (bool, bool),
}

/// Order and validity of our own chain.
fn check_chain(chain: &[Der], now: u64) -> Result<Checked, MaterialFault> {
    let mut parsed: Vec<X509Certificate<'_>> = Vec::with_capacity(chain.len());
    for (i, der) in chain.iter().enumerate() {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|why| MaterialFault::BadCertificate { place: i + 1, why: why.to_string() })?;
        parsed.push(certificate);
    }
    for (i, (certificate, next)) in parsed.iter().zip(parsed.iter().skip(1)).enumerate() {
        if certificate.issuer().as_raw() != next.subject().as_raw() {
            let (issuer, next) = (certificate.issuer().to_string(), next.subject().to_string());
            return Err(MaterialFault::ChainOrder { place: i + 1, issuer, next });
        }
    }
    let mut first = None;
    for (i, certificate) in parsed.iter().enumerate() {
        let (place, validity) = (i + 1, certificate.validity());
        let not_before = u64::try_from(validity.not_before.timestamp()).unwrap_or(0);
        let not_after = u64::try_from(validity.not_after.timestamp()).unwrap_or(0);
        if now < not_before {
            return Err(MaterialFault::NotYetValid { place, not_before, not_after, now });
        }
        if now + TLS_OWN_VALIDITY_SECONDS_MIN > not_after {
            return Err(MaterialFault::Expired { place, not_before, not_after, now });
        }
        first.get_or_insert_with(|| Checked {
            names: Names::of_parsed(certificate),
            not_before,
            not_after,
            purposes: purposes(certificate),
        });
    }
    first.ok_or(MaterialFault::NoCertificate)
}

fn purposes(certificate: &X509Certificate<'_>) -> (bool, bool) {
    match certificate.extended_key_usage() {
        Ok(Some(it)) => {
            (it.value.any || it.value.server_auth, it.value.any || it.value.client_auth)
        }
        Ok(None) | Err(_) => (true, true),
    }
}

/// RFC 5929, 4.1: hashed by the hash of the certificate's signature, SHA-256 in place of MD5 and SHA-1. `None`
/// where the signature has no single hash of its own.
pub(super) fn end_point(certificate: &Der) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut algorithm = parsed.signature_algorithm.oid().clone();
    if algorithm == OID_SIG_ED25519 {
        return None;
    }
    if algorithm == OID_PKCS1_RSASSAPSS {
        let kind = SignatureAlgorithm::try_from(&parsed.signature_algorithm).ok()?;
        let SignatureAlgorithm::RSASSA_PSS(pss) = &kind else { return None };
        algorithm = pss.hash_algorithm_oid().to_owned();
    }
    let is_sha384 = [OID_PKCS1_SHA384WITHRSA, OID_SIG_ECDSA_WITH_SHA384, OID_NIST_HASH_SHA384];
    if is_sha384.contains(&algorithm) {
        return Some(Sha384::digest(certificate).to_vec());
    }
    let is_sha512 = [OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA512, OID_NIST_HASH_SHA512];
    if is_sha512.contains(&algorithm) {
        return Some(Sha512::digest(certificate).to_vec());
    }
    Some(Sha256::digest(certificate).to_vec())
}
