//! The one verdict over a peer's certificates, for every use there is.
//!
//! The handshake proves only that the peer holds the key of its certificate. Whether we believe the certificate
//! is decided here, once, afterwards, by a worker: plain data in, plain data out. First the chain (RFC 5280,
//! through webpki, which bounds its own work), then the names (`identity`).
//!
//! Public authorities no longer put client-auth into certificates, so a peer that acts as client may show one
//! for servers. Does **not** look at revocation yet.

use std::fmt;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage,
    RequiredEkuNotFoundContext,
};
use x509_parser::asn1_rs::FromDer;
use x509_parser::prelude::X509Certificate;

use super::identity::{Names, Use};
use crate::limits::TLS_CHAIN_CERTIFICATES_MAX;
use crate::time::Wall;

/// A certificate as its bytes came.
pub type Der = CertificateDer<'static>;

/// In which part the peer showed its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// We connected to it.
    AsServer,
    /// It connected to us.
    AsClient,
}

/// The authorities we trust.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
}

impl Roots {
    /// Reads all certificates of `pem`. Returns also how many could not be used: a system's bundle may hold
    /// some, and one strange root is no reason to trust none.
    pub fn from_pem(pem: &[u8]) -> (Self, usize) {
        let mut roots = Self::default();
        let unusable = roots.add_pem(pem);
        (roots, unusable)
    }

    /// Adds all certificates of `pem`; returns how many could not be used.
    pub fn add_pem(&mut self, pem: &[u8]) -> usize {
        let mut unusable = 0;
        for item in CertificateDer::pem_slice_iter(pem) {
            match item.as_ref().ok().and_then(|der| webpki::anchor_from_trusted_cert(der).ok()) {
                Some(anchor) => self.anchors.push(anchor.to_owned()),
                None => unusable += 1,
            }
        }
        unusable
    }

    /// How many authorities there are.
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }
}

/// What is known about a peer's certificate; stays with the stream for whoever asks why.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Whether the chain leads to an authority of ours and fits the usage.
    pub chain: Result<(), ChainFault>,
    /// The names, also those of a bad chain: they are worth nothing then, but explain much.
    pub names: Names,
    /// Up to when the peer's certificate is good, in seconds since 1970.
    pub not_after: Option<u64>,
}

impl Verdict {
    /// Whether the peer proved to be `domain`; if not, the one reason.
    pub fn proves(&self, domain: &str, what: Use) -> Result<(), Unproven> {
        self.chain.clone().map_err(Unproven::Chain)?;
        if self.names.speak_for(domain, what) {
            return Ok(());
        }
        Err(Unproven::Name { wanted: domain.to_owned(), names: Box::new(self.names.clone()) })
    }
}

/// Judges the certificates a peer showed (`chain`, its own first) at wall time `now`.
pub fn judge(chain: &[Der], roots: &Roots, now: Wall, usage: Usage) -> Verdict {
    let leaf = chain.first().and_then(|der| X509Certificate::from_der(der).ok()).map(|it| it.1);
    Verdict {
        chain: judge_chain(chain, roots, now, usage),
        names: leaf.as_ref().map(Names::of_parsed).unwrap_or_default(),
        not_after: leaf.and_then(|it| u64::try_from(it.validity().not_after.timestamp()).ok()),
    }
}

fn judge_chain(chain: &[Der], roots: &Roots, now: Wall, usage: Usage) -> Result<(), ChainFault> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(ChainFault::NoCertificate);
    };
    if chain.len() > TLS_CHAIN_CERTIFICATES_MAX {
        return Err(ChainFault::TooLong { certificates: chain.len() });
    }
    let end_entity =
        EndEntityCert::try_from(leaf).map_err(|it| ChainFault::Malformed(it.to_string()))?;
    let time = UnixTime::since_unix_epoch(Duration::from_micros(now.0));
    end_entity
        .verify_for_usage(
            aws_lc_rs::default_provider().signature_verification_algorithms.all,
            &roots.anchors,
            intermediates,
            time,
            Purposes(usage),
            None,
            None,
        )
        .map(|_| ())
        .map_err(|it| ChainFault::from_webpki(it, chain, usage))
}

/// Which extended key usages will do.
struct Purposes(Usage);

impl ExtendedKeyUsageValidator for Purposes {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose = purpose?.to_decoded_oid();
            let is_client = self.0 == Usage::AsClient && purpose == KeyUsage::CLIENT_AUTH_REPR;
            if is_client || purpose == KeyUsage::SERVER_AUTH_REPR {
                return Ok(());
            }
            present.push(purpose);
        }
        // RFC 5280, 4.2.1.12: without the extension the key may serve any purpose.
        if present.is_empty() {
            return Ok(());
        }
        let required = KeyUsage::server_auth();
        Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext {
            required,
            present,
        }))
    }
}

/// The one reason why a chain is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainFault {
    /// The peer showed none.
    NoCertificate,
    /// More certificates than we look at.
    TooLong {
        /// How many there were.
        certificates: usize,
    },
    /// Not a certificate that can be read.
    Malformed(String),
    /// Too old.
    Expired {
        /// When it ended, in seconds since 1970.
        not_after: u64,
        /// When it was judged.
        now: u64,
    },
    /// Too young.
    NotYetValid {
        /// When it begins, in seconds since 1970.
        not_before: u64,
        /// When it was judged.
        now: u64,
    },
    /// No authority of ours stands behind it.
    UnknownIssuer {
        /// Who issued the last certificate of the chain.
        issuer: String,
        /// Whether the peer's certificate is its own issuer.
        self_signed: bool,
    },
    /// Made for other purposes.
    WrongPurpose {
        /// What it is made for, in words.
        present: String,
        /// What was asked for.
        usage: Usage,
    },
    /// An authority's certificate used as a server's.
    AuthorityAsPeer,
    /// A signature in the chain is false.
    BadSignature,
    /// Checking it would cost more than we spend on a peer.
    TooCostly,
    /// Something else, in webpki's words.
    Other(String),
}

impl ChainFault {
    fn from_webpki(error: webpki::Error, chain: &[Der], usage: Usage) -> Self {
        use webpki::Error as E;
        match error {
            E::CertExpired { time, not_after } => {
                Self::Expired { not_after: not_after.as_secs(), now: time.as_secs() }
            }
            E::CertNotValidYet { time, not_before } => {
                Self::NotYetValid { not_before: not_before.as_secs(), now: time.as_secs() }
            }
            E::UnknownIssuer => unknown_issuer(chain),
            E::RequiredEkuNotFoundContext(it) => {
                Self::WrongPurpose { present: purposes(&it.present), usage }
            }
            E::EmptyEkuExtension => Self::WrongPurpose { present: purposes(&[]), usage },
            E::CaUsedAsEndEntity => Self::AuthorityAsPeer,
            E::InvalidSignatureForPublicKey => Self::BadSignature,
            E::MaximumSignatureChecksExceeded
            | E::MaximumPathBuildCallsExceeded
            | E::MaximumPathDepthExceeded
            | E::MaximumNameConstraintComparisonsExceeded => Self::TooCostly,
            E::BadDer | E::BadDerTime | E::TrailingData(_) => Self::Malformed(error.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

fn unknown_issuer(chain: &[Der]) -> ChainFault {
    let parse = |der: Option<&Der>| {
        der.and_then(|it| {
            X509Certificate::from_der(it).ok().map(|(_, cert)| cert.issuer().to_string())
        })
    };
    let own = chain.first().and_then(|it| X509Certificate::from_der(it).ok());
    ChainFault::UnknownIssuer {
        issuer: parse(chain.last()).unwrap_or_default(),
        self_signed: own.is_some_and(|(_, it)| it.issuer().as_raw() == it.subject().as_raw()),
    }
}

/// Extended key usages in words; at most a few, since a certificate may name thousands.
fn purposes(present: &[Vec<usize>]) -> String {
    let word = |oid: &Vec<usize>| match oid.as_slice() {
        [1, 3, 6, 1, 5, 5, 7, 3, 1] => "server auth".to_owned(),
        [1, 3, 6, 1, 5, 5, 7, 3, 2] => "client auth".to_owned(),
        [1, 3, 6, 1, 5, 5, 7, 3, 3] => "code signing".to_owned(),
        [1, 3, 6, 1, 5, 5, 7, 3, 4] => "email protection".to_owned(),
        [1, 3, 6, 1, 5, 5, 7, 3, 8] => "time stamping".to_owned(),
        [1, 3, 6, 1, 5, 5, 7, 3, 9] => "OCSP signing".to_owned(),
        [2, 5, 29, 37, 0] => "any".to_owned(),
        other => other.iter().map(usize::to_string).collect::<Vec<_>>().join("."),
    };
    if present.is_empty() {
        return "nothing".to_owned();
    }
    present.iter().take(8).map(word).collect::<Vec<_>>().join(", ")
}

/// Why a peer is not the domain it claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// Its chain is not believed.
    Chain(ChainFault),
    /// Its certificate is somebody else's.
    Name {
        /// The domain it should speak for.
        wanted: String,
        /// For whom it speaks.
        names: Box<Names>,
    },
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(fault) => fault.fmt(f),
            Self::Name { wanted, names } => {
                write!(f, "the certificate does not speak for {wanted}; it has {names}")
            }
        }
    }
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("the peer showed no certificate"),
            Self::TooLong { certificates } => write!(
                f,
                "the chain has {certificates} certificates; {TLS_CHAIN_CERTIFICATES_MAX} are looked at"
            ),
            Self::Malformed(why) => write!(f, "the certificate can't be read: {why}"),
            Self::Expired { not_after, now } => {
                write!(f, "a certificate expired on {}; now is {}", Utc(*not_after), Utc(*now))
            }
            Self::NotYetValid { not_before, now } => write!(
                f,
                "a certificate becomes valid on {}; now is {}",
                Utc(*not_before),
                Utc(*now)
            ),
            Self::UnknownIssuer { self_signed: true, .. } => {
                f.write_str("the certificate is self-signed and not among the trusted ones")
            }
            Self::UnknownIssuer { issuer, .. } => write!(f, "the issuer is not trusted: {issuer}"),
            Self::WrongPurpose { present, usage } => {
                let wanted = match usage {
                    Usage::AsServer => "server auth",
                    Usage::AsClient => "server auth or client auth",
                };
                write!(f, "the extended key usage lacks {wanted}; the certificate names {present}")
            }
            Self::AuthorityAsPeer => f.write_str(
                "the certificate is an authority's (CA:TRUE), which no server may use as its own",
            ),
            Self::BadSignature => f.write_str("a signature in the chain is false"),
            Self::TooCostly => {
                f.write_str("the chain branches so much that it is not worth checking")
            }
            Self::Other(why) => write!(f, "the chain is not valid: {why}"),
        }
    }
}

/// Seconds since 1970 as people read them.
pub(crate) struct Utc(pub(crate) u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        // Days to a civil date with years that begin in March, so that the leap day is the last.
        let z = days + 719_468;
        let (era, day_of_era) = (z / 146_097, z % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}
