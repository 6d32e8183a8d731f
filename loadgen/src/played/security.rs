//! TLS of played domains, as client and as server, with the certificate of each.
//!
//! Does **not** judge the far end's certificate: a generator loads servers with throw-away ones.
//! Sessions are never resumed, so that every handshake is a whole one.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};

use crate::link;
use crate::played::certificates::Authority;

/// The certificates of many domains, ready for handshakes.
pub struct Identities {
    provider: Arc<CryptoProvider>,
    keys: Arc<Vec<Arc<CertifiedKey>>>,
    clients: Vec<OnceLock<Arc<ClientConfig>>>,
    servers: Vec<OnceLock<Arc<ServerConfig>>>,
    by_name: Arc<HashMap<String, usize>>,
    alpn: Option<Vec<u8>>,
}

impl Identities {
    /// Of these domains; `alpn` where TLS comes first (XEP-0368).
    pub fn new(
        authority: &Authority,
        domains: &[String],
        alpn: Option<&[u8]>,
    ) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = |domain: &String| {
            let issued = authority.certificate(domain)?;
            CertifiedKey::from_der(vec![issued.certificate], issued.key, &provider)
                .map(Arc::new)
                .map_err(|e| format!("certificate of {domain}: {e}"))
        };
        let keys = domains.iter().map(key).collect::<Result<Vec<_>, String>>()?;
        let by_name = domains.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        Ok(Self {
            clients: keys.iter().map(|_| OnceLock::new()).collect(),
            servers: keys.iter().map(|_| OnceLock::new()).collect(),
            keys: Arc::new(keys),
            by_name: Arc::new(by_name),
            alpn: alpn.map(<[u8]>::to_vec),
            provider,
        })
    }

    /// A client that shows the domain's certificate if asked for one.
    pub fn client(&self, domain: usize) -> Result<Arc<ClientConfig>, String> {
        let (Some(kept), Some(key)) = (self.clients.get(domain), self.keys.get(domain)) else {
            return Err("no such domain".to_owned());
        };
        if let Some(config) = kept.get() {
            return Ok(Arc::clone(config));
        }
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(link::believer(Arc::clone(&self.provider)))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key))));
        config.resumption = Resumption::disabled();
        config.alpn_protocols.extend(self.alpn.clone());
        Ok(Arc::clone(kept.get_or_init(|| Arc::new(config))))
    }

    /// A server that shows the certificate of the name it is asked for, or that of `domain` if the
    /// far end names none; it asks for a certificate and takes any.
    pub fn server(&self, domain: usize) -> Result<Arc<ServerConfig>, String> {
        let Some(kept) = self.servers.get(domain) else { return Err("no such domain".to_owned()) };
        if let Some(config) = kept.get() {
            return Ok(Arc::clone(config));
        }
        let chosen = Chosen {
            keys: Arc::clone(&self.keys),
            by_name: Arc::clone(&self.by_name),
            default: domain,
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_client_cert_verifier(Arc::new(Taker(Arc::clone(&self.provider))))
            .with_cert_resolver(Arc::new(chosen));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols.extend(self.alpn.clone());
        Ok(Arc::clone(kept.get_or_init(|| Arc::new(config))))
    }

    /// The place of a domain.
    pub fn place(&self, domain: &str) -> Option<usize> {
        self.by_name.get(domain).copied()
    }
}

/// Which certificate a server shows.
#[derive(Debug)]
struct Chosen {
    keys: Arc<Vec<Arc<CertifiedKey>>>,
    by_name: Arc<HashMap<String, usize>>,
    default: usize,
}

impl ResolvesServerCert for Chosen {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.by_name.get(name));
        self.keys.get(named.copied().unwrap_or(self.default)).cloned()
    }
}

/// Takes any client certificate, and none.
#[derive(Debug)]
struct Taker(Arc<CryptoProvider>);

impl ClientCertVerifier for Taker {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
