//! A throw-away authority and a certificate for every played domain, in memory or in a directory.
//!
//! `ca.crt` and `ca.key` are the authority: the server under test is told to trust the first.
//! `DOMAIN.crt` and `DOMAIN.key` are a domain's. What is there is used again, what is missing is
//! made. It is **not** for service: nothing is ever revoked, and the keys lie open.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate with its key.
#[derive(Debug)]
pub struct Issued {
    /// The certificate alone.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// The authority, and where what it issues is kept.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    directory: Option<PathBuf>,
}

impl Authority {
    /// The authority of a directory, made if there is none; without one it lives in memory alone.
    pub fn open(directory: Option<&Path>) -> Result<Self, String> {
        let params = root();
        let Some(directory) = directory else {
            let key = KeyPair::generate().map_err(said)?;
            let root_pem = params.self_signed(&key).map_err(said)?.pem();
            return Ok(Self { issuer: Issuer::new(params, key), root_pem, directory: None });
        };
        fs::create_dir_all(directory).map_err(|e| at(directory, &e))?;
        let (cert, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        let (root_pem, key) = if key.exists() && cert.exists() {
            let pem = fs::read_to_string(&key).map_err(|e| at(&key, &e))?;
            let kept = KeyPair::from_pem(&pem).map_err(|e| at(&key, &e))?;
            (fs::read_to_string(&cert).map_err(|e| at(&cert, &e))?, kept)
        } else {
            let made = KeyPair::generate().map_err(said)?;
            let root_pem = params.self_signed(&made).map_err(said)?.pem();
            write(&key, &made.serialize_pem(), 0o600)?;
            write(&cert, &root_pem, 0o644)?;
            (root_pem, made)
        };
        let directory = Some(directory.to_owned());
        Ok(Self { issuer: Issuer::new(params, key), root_pem, directory })
    }

    /// The authority's own certificate: what has to be trusted.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The certificate of a domain: the one that is kept, or a new one.
    pub fn certificate(&self, domain: &str) -> Result<Issued, String> {
        let Some(directory) = &self.directory else {
            let (cert, key) = self.make(domain).map_err(said)?;
            return issued(&cert, &key).map_err(|e| format!("{domain}: {e}"));
        };
        let cert = directory.join(format!("{domain}.crt"));
        let key = directory.join(format!("{domain}.key"));
        if !(cert.exists() && key.exists()) {
            let (cert_pem, key_pem) = self.make(domain).map_err(said)?;
            write(&key, &key_pem, 0o600)?;
            write(&cert, &cert_pem, 0o644)?;
            return issued(&cert_pem, &key_pem).map_err(|e| at(&cert, &e));
        }
        let cert_pem = fs::read_to_string(&cert).map_err(|e| at(&cert, &e))?;
        let key_pem = fs::read_to_string(&key).map_err(|e| at(&key, &e))?;
        issued(&cert_pem, &key_pem).map_err(|e| at(&cert, &e))
    }

    fn make(&self, domain: &str) -> Result<(String, String), rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = called(domain);
        params.subject_alt_names = vec![SanType::DnsName(domain.try_into()?)];
        (params.not_before, params.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A server for other servers is both (XEP-0178, 3).
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok((cert.pem(), key.serialize_pem()))
    }
}

fn root() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = called("Throw-away authority of a load generator");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
    params
}

fn called(name: &str) -> DistinguishedName {
    let mut it = DistinguishedName::new();
    it.push(DnType::CommonName, name);
    it
}

fn issued(cert: &str, key: &str) -> Result<Issued, rustls::pki_types::pem::Error> {
    Ok(Issued {
        certificate: CertificateDer::from_pem_slice(cert.as_bytes())?,
        key: PrivateKeyDer::from_pem_slice(key.as_bytes())?,
    })
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|e| at(path, &e))
}

fn at(path: &Path, e: &dyn std::fmt::Display) -> String {
    format!("{}: {e}", path.display())
}

fn said(e: rcgen::Error) -> String {
    e.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_what_was_made_and_its_authority_signs_on() {
        let directory = std::env::temp_dir().join(format!("played-{}", std::process::id()));
        let first = Authority::open(Some(&directory)).unwrap();
        let one = first.certificate("d0.example").unwrap();
        let second = Authority::open(Some(&directory)).unwrap();
        assert_eq!(first.root_pem(), second.root_pem());
        assert_eq!(second.certificate("d0.example").unwrap().certificate, one.certificate);
        let later = second.certificate("d1.example").unwrap();
        fs::remove_dir_all(&directory).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(first.root_pem().as_bytes()).unwrap()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            roots.into(),
            provider.into(),
        )
        .build()
        .unwrap();
        for (issued, name) in [(one, "d0.example"), (later, "d1.example")] {
            let now = rustls::pki_types::UnixTime::since_unix_epoch(
                std::time::Duration::from_secs(1_800_000_000),
            );
            let name = name.try_into().unwrap();
            use rustls::client::danger::ServerCertVerifier as _;
            verifier.verify_server_cert(&issued.certificate, &[], &name, &[], now).unwrap();
        }
    }
}
