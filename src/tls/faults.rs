//! What can go wrong with TLS, by whose fault it is, in words for operators.

use std::fmt;

use super::chain::Utc;
use super::identity::Names;

/// Why a session ended. The alert, where there is one, is among the session's pending bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// Bytes that are not TLS, or were changed on the way.
    Malformed(String),
    /// TLS, but against its rules.
    Misbehaved(String),
    /// No version, suite, group or protocol in common.
    Incompatible(String),
    /// The far end refused us, with this alert.
    Refused(String),
    /// The far end can't prove that it holds the key of its certificate.
    Unproven(String),
    /// Clear text was given before the handshake was done, or after the end: our own mistake.
    NotEstablished,
    /// Something of ours failed: no certificate, no randomness.
    Ours(String),
}

impl From<rustls::Error> for TlsFault {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error as E;
        let text = error.to_string();
        match error {
            E::InvalidMessage(_) | E::DecryptError | E::PeerSentOversizedRecord => {
                Self::Malformed(text)
            }
            E::InappropriateMessage { .. }
            | E::InappropriateHandshakeMessage { .. }
            | E::NoCertificatesPresented
            | E::PeerMisbehaved(_) => Self::Misbehaved(text),
            E::PeerIncompatible(_) | E::NoApplicationProtocol => Self::Incompatible(text),
            E::AlertReceived(alert) => Self::Refused(format!("{alert:?}")),
            E::InvalidCertificate(_) => Self::Unproven(text),
            E::HandshakeNotComplete => Self::NotEstablished,
            _ => Self::Ours(text),
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "not TLS, or damaged: {why}"),
            Self::Misbehaved(why) => write!(f, "against the rules of TLS: {why}"),
            Self::Incompatible(why) => write!(f, "nothing in common: {why}"),
            Self::Refused(alert) => write!(f, "the far end refused with alert {alert}"),
            Self::Unproven(why) => {
                write!(f, "the far end does not hold the key of its certificate: {why}")
            }
            Self::NotEstablished => f.write_str("the TLS session is not established"),
            Self::Ours(why) => write!(f, "our side failed: {why}"),
        }
    }
}

impl std::error::Error for TlsFault {}

/// Why our own certificate and key can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaterialFault {
    /// No `CERTIFICATE` block in the chain file.
    NoCertificate,
    /// No private key block in the key file.
    NoKey,
    /// A block of PEM that can't be read.
    BadPem(String),
    /// The certificate at this place (the first is 1) can't be read.
    BadCertificate {
        /// Its place in the file.
        place: usize,
        /// Why not.
        why: String,
    },
    /// The key can't be used.
    BadKey(String),
    /// The key is not the one of the first certificate.
    KeyMismatch,
    /// The certificate at this place was not issued by the next one.
    ChainOrder {
        /// Its place in the file; the first is 1.
        place: usize,
        /// Whom it names as its issuer.
        issuer: String,
        /// Who stands at the next place.
        next: String,
    },
    /// A domain to serve is not among the names.
    NotCovered {
        /// The domain.
        domain: String,
        /// The names there are.
        names: Box<Names>,
    },
    /// Over, or within the hour.
    Expired {
        /// Its place in the file; the first is 1.
        place: usize,
        /// First second of validity since 1970.
        not_before: u64,
        /// Last second of validity since 1970.
        not_after: u64,
        /// When it was loaded.
        now: u64,
    },
    /// Not begun.
    NotYetValid {
        /// Its place in the file; the first is 1.
        place: usize,
        /// First second of validity since 1970.
        not_before: u64,
        /// Last second of validity since 1970.
        not_after: u64,
        /// When it was loaded.
        now: u64,
    },
}

impl fmt::Display for MaterialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("there is no certificate in the file"),
            Self::NoKey => f.write_str("there is no private key in the file"),
            Self::BadPem(why) => write!(f, "the file is not readable PEM: {why}"),
            Self::BadCertificate { place, why } => {
                write!(f, "certificate {place} can't be read: {why}")
            }
            Self::BadKey(why) => write!(f, "the private key can't be used: {why}"),
            Self::KeyMismatch => {
                f.write_str("the private key does not belong to the first certificate of the file")
            }
            Self::ChainOrder { place, issuer, next } => write!(
                f,
                "the chain is out of order: certificate {place} was issued by {issuer}, but {next} follows"
            ),
            Self::NotCovered { domain, names } => {
                write!(f, "the certificate does not cover {domain}; it has {names}")
            }
            Self::Expired { place, not_before, not_after, now } => write!(
                f,
                "certificate {place} is valid from {} to {}; now is {}, and an hour must be left",
                Utc(*not_before),
                Utc(*not_after),
                Utc(*now)
            ),
            Self::NotYetValid { place, not_before, not_after, now } => write!(
                f,
                "certificate {place} is valid from {} to {}; now is {}",
                Utc(*not_before),
                Utc(*not_after),
                Utc(*now)
            ),
        }
    }
}

impl std::error::Error for MaterialFault {}
