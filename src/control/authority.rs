//! A throw-away certificate authority, for the demo and for tests.
//!
//! Its key lives in memory and nowhere else. It is **not** for service: there is no revocation, no record of
//! what was issued, and serial numbers are random.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, SanType, date_time_ymd,
};

use crate::time::Wall;

/// What an issued certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Server and client authentication: some partners insist on both.
    Both,
    /// Server authentication only, as public authorities issue now.
    ServerOnly,
}

/// The kind of key of an issued certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256: small and fast.
    #[default]
    EcdsaP256,
    /// RSA of 2048 bits, for far ends that know nothing else.
    Rsa2048,
}

/// A certificate with its key, both as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate alone; the authority's own is not in it.
    pub cert_pem: String,
    /// Its private key, PKCS #8.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// The authority: a root, and what it needs to sign.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    validity: (Wall, Wall),
}

impl Authority {
    /// A new root called `name`. What it issues is valid as long as itself.
    pub fn new(name: &str, not_before: Wall, not_after: Wall) -> Result<Self, rcgen::Error> {
        let mut params = params(name, (not_before, not_after));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let root_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), root_pem, validity: (not_before, not_after) })
    }

    /// The root as PEM: what has to be trusted.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// A certificate for `domains` (A-labels; `*.` allowed; an IP address becomes one).
    pub fn issue(&self, domains: &[&str], purpose: Purpose) -> Result<Issued, rcgen::Error> {
        self.issue_with(domains, purpose, KeyKind::default())
    }

    /// The same with the kind of key to choose.
    pub fn issue_with(
        &self,
        domains: &[&str],
        purpose: Purpose,
        kind: KeyKind,
    ) -> Result<Issued, rcgen::Error> {
        let mut params = params(domains.first().unwrap_or(&"nobody"), self.validity);
        for domain in domains {
            params.subject_alt_names.push(match domain.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*domain).try_into()?),
            });
        }
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if purpose == Purpose::Both {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let key = match kind {
            KeyKind::EcdsaP256 => KeyPair::generate()?,
            KeyKind::Rsa2048 => KeyPair::generate_for(&PKCS_RSA_SHA256)?,
        };
        let cert_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { cert_pem, key_pem: key.serialize_pem() })
    }
}

fn params(name: &str, (not_before, not_after): (Wall, Wall)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // Whole seconds: certificates know no smaller ones.
    let at = |it: Wall| date_time_ymd(1970, 1, 1) + Duration::from_secs(it.0 / 1_000_000);
    (params.not_before, params.not_after) = (at(not_before), at(not_after));
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{CertStore, Clock, Der, MaterialSource, Roots, Usage, Use, judge};
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn what_it_issues_is_believed() {
        let (from, to) = (Wall(1_767_225_600_000_000), Wall(1_798_761_600_000_000));
        let now = Wall(from.0 + 1);
        let authority = Authority::new("Throw-away", from, to).unwrap();
        let (roots, unusable) = Roots::from_pem(authority.root_pem().as_bytes());
        assert_eq!((roots.len(), unusable), (1, 0));
        for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
            for purpose in [Purpose::Both, Purpose::ServerOnly] {
                let names = ["example.com", "*.example.com", "127.0.0.1"];
                let issued = authority.issue_with(&names, purpose, kind).unwrap();
                let der = Der::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
                for usage in [Usage::AsServer, Usage::AsClient] {
                    let verdict = judge(std::slice::from_ref(&der), &roots, now, usage);
                    assert_eq!(verdict.proves("example.com", Use::S2s), Ok(()));
                    assert_eq!(verdict.proves("chat.example.com", Use::C2s), Ok(()));
                    assert!(verdict.proves("example.net", Use::S2s).is_err());
                }
                let domains = ["example.com".to_owned()];
                let source = MaterialSource {
                    chain_pem: issued.cert_pem.as_bytes(),
                    key_pem: issued.key_pem.as_bytes(),
                    domains: &domains,
                };
                assert!(CertStore::build(&[source], now, &Clock::default()).is_ok());
            }
        }
    }
}
