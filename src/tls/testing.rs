//! Helpers for this module's tests: a small authority, certificates of every kind, two sessions joined.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};

use super::{CertStore, Clock, Fed, MaterialSource, Roots, Session, TlsFault, Use};
use crate::time::Wall;

/// 2026-01-01 00:00:00 UTC.
pub(super) const TODAY: u64 = 1_767_225_600;
pub(super) const DAY: u64 = 86_400;

pub(super) fn wall(seconds: u64) -> Wall {
    Wall(seconds * 1_000_000)
}

/// What a test certificate is made of.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) sans: Vec<San>,
    pub(super) ekus: Vec<ExtendedKeyUsagePurpose>,
    pub(super) days: (i64, i64),
    pub(super) common_name: &'static str,
    pub(super) is_ca: bool,
}

/// A name in subjectAltName, in raw bytes, so that it can be wrong.
#[derive(Clone)]
pub(super) enum San {
    Dns(&'static [u8]),
    Srv(&'static str),
    Xmpp(&'static str),
}

impl Recipe {
    pub(super) fn new(sans: &[San]) -> Self {
        let ekus = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Self { sans: sans.to_vec(), ekus, days: (-10, 90), common_name: "test", is_ca: false }
    }
}

pub(super) struct Ca {
    key: KeyPair,
    params: CertificateParams,
    pub(super) pem: String,
}

/// A certificate as PEM, its own only, and its key.
pub(super) struct Made {
    pub(super) pem: String,
    pub(super) key_pem: String,
    pub(super) der: super::Der,
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name, (-100, 1_000));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { key, params, pem }
    }

    pub(super) fn roots(&self) -> Roots {
        Roots::from_pem(self.pem.as_bytes()).0
    }

    pub(super) fn make(&self, recipe: &Recipe) -> Made {
        let mut params = params(recipe.common_name, recipe.days);
        params.extended_key_usages.clone_from(&recipe.ekus);
        if recipe.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        if !recipe.sans.is_empty() {
            let content = sequence(&recipe.sans.iter().flat_map(general_name).collect::<Vec<u8>>());
            params
                .custom_extensions
                .push(CustomExtension::from_oid_content(&[2, 5, 29, 17], content));
        }
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Made { pem, key_pem: key.serialize_pem(), der }
    }
}

fn params(name: &str, (from, to): (i64, i64)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let at = |day: i64| {
        let seconds = TODAY.saturating_add_signed(day * DAY.cast_signed());
        date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    (params.not_before, params.not_after) = (at(from), at(to));
    params
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ ..=127) => bytes.push(short),
        _ => {
            bytes.push(0x82);
            bytes.extend_from_slice(&u16::try_from(content.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

fn sequence(content: &[u8]) -> Vec<u8> {
    tlv(0x30, content)
}

fn general_name(san: &San) -> Vec<u8> {
    let other = |last: u8, tag: u8, text: &str| {
        // 1.3.6.1.5.5.7.8.x
        let mut content = tlv(0x06, &[0x2b, 6, 1, 5, 5, 7, 8, last]);
        content.extend(tlv(0xa0, &tlv(tag, text.as_bytes())));
        tlv(0xa0, &content)
    };
    match san {
        San::Dns(name) => tlv(0x82, name),
        San::Srv(name) => other(7, 0x16, name),
        San::Xmpp(name) => other(5, 0x0c, name),
    }
}

pub(super) fn clock() -> Clock {
    let clock = Clock::default();
    clock.set(wall(TODAY));
    clock
}

/// A store with one certificate per entry.
pub(super) fn store(made: &[(&Made, &str)]) -> Arc<CertStore> {
    let domains: Vec<Vec<String>> = made.iter().map(|(_, it)| vec![(*it).to_owned()]).collect();
    let sources: Vec<MaterialSource<'_>> = made
        .iter()
        .zip(&domains)
        .map(|((made, _), domains)| MaterialSource {
            chain_pem: made.pem.as_bytes(),
            key_pem: made.key_pem.as_bytes(),
            domains,
        })
        .collect();
    Arc::new(CertStore::build(&sources, wall(TODAY), &clock()).unwrap())
}

/// Two sessions and the wires between them.
pub(super) struct Pair {
    pub(super) client: Session,
    pub(super) server: Session,
}

impl Pair {
    pub(super) fn new(client: Session, server: Session) -> Self {
        Self { client, server }
    }

    /// A pair for `domain` over one store.
    pub(super) fn of(store: &Arc<CertStore>, what: Use, ours: Option<&str>, domain: &str) -> Self {
        let client = Session::client(store, what, ours, domain, false).unwrap();
        Self::new(client, Session::server(store, what, None))
    }

    /// Runs the handshake in pieces of `piece` bytes.
    pub(super) fn shake_hands(&mut self, piece: usize) -> Result<(), TlsFault> {
        for _ in 0..10 {
            if self.client.is_established() && self.server.is_established() {
                return Ok(());
            }
            carry(&mut self.client, &mut self.server, piece)?;
            carry(&mut self.server, &mut self.client, piece)?;
        }
        panic!("the handshake does not end");
    }
}

/// Carries what `from` has pending to `to`.
pub(super) fn carry(from: &mut Session, to: &mut Session, piece: usize) -> Result<Fed, TlsFault> {
    let (mut wire, mut plain, mut fed) = (Vec::new(), Vec::new(), Fed::default());
    from.pending_out(&mut wire);
    for piece in wire.chunks(piece) {
        let now = to.feed(piece, &mut plain)?;
        fed.is_established_now |= now.is_established_now;
        fed.is_closed |= now.is_closed;
    }
    assert!(plain.is_empty());
    Ok(fed)
}
