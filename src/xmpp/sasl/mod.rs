//! SASL: mechanisms, failures, and what travels in `<auth/>`, `<challenge/>` and `<response/>`.
//!
//! Machines here have no random source: nonces come in as arguments. They never see a store either:
//! the caller asks it for credentials between two states.
//!
//! RFC 6120, 6; RFC 4616 (PLAIN); RFC 4422, A with XEP-0178 (EXTERNAL); RFC 5802 and 7677 (SCRAM).
//! Does **not** offer DIGEST-MD5, ANONYMOUS or GSSAPI.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::address::{Address, prepare_local};

pub mod scram;
pub mod scram_client;
#[cfg(test)]
mod scram_tests;

/// RFC 6120, 6.5: why a negotiation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SaslFault {
    /// The client gave up.
    Aborted,
    /// The account may not log in for now.
    AccountDisabled,
    /// The credentials are too old.
    CredentialsExpired,
    /// The mechanism needs TLS.
    EncryptionRequired,
    /// Not base64.
    IncorrectEncoding,
    /// Not allowed to act as that identity.
    InvalidAuthzid,
    /// A mechanism we did not offer.
    InvalidMechanism,
    /// Not what the mechanism says.
    MalformedRequest,
    /// The account asks for a stronger mechanism.
    MechanismTooWeak,
    /// Wrong credentials, for whatever reason.
    NotAuthorized,
    /// Our own trouble; trying again may help.
    TemporaryAuthFailure,
}

impl SaslFault {
    /// All of them, in the order of [`SaslFault::index`].
    pub const ALL: [Self; 11] = [
        Self::Aborted,
        Self::AccountDisabled,
        Self::CredentialsExpired,
        Self::EncryptionRequired,
        Self::IncorrectEncoding,
        Self::InvalidAuthzid,
        Self::InvalidMechanism,
        Self::MalformedRequest,
        Self::MechanismTooWeak,
        Self::NotAuthorized,
        Self::TemporaryAuthFailure,
    ];

    /// Place in [`SaslFault::ALL`], for counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The element inside `<failure/>`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::AccountDisabled => "account-disabled",
            Self::CredentialsExpired => "credentials-expired",
            Self::EncryptionRequired => "encryption-required",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::MalformedRequest => "malformed-request",
            Self::MechanismTooWeak => "mechanism-too-weak",
            Self::NotAuthorized => "not-authorized",
            Self::TemporaryAuthFailure => "temporary-auth-failure",
        }
    }

    /// The fault with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// What both sides may agree on. The order is ours of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// SCRAM with this hash, bound to the TLS channel if `plus`.
    Scram { hash: scram::Hash, plus: bool },
    /// RFC 4422, A: who you are, TLS has shown.
    External,
    /// RFC 4616: the password itself.
    Plain,
}

impl Mechanism {
    /// All of them, the one to be preferred first.
    pub const ALL: [Self; 8] = [
        Self::Scram { hash: scram::Hash::Sha512, plus: true },
        Self::Scram { hash: scram::Hash::Sha256, plus: true },
        Self::Scram { hash: scram::Hash::Sha1, plus: true },
        Self::Scram { hash: scram::Hash::Sha512, plus: false },
        Self::Scram { hash: scram::Hash::Sha256, plus: false },
        Self::Scram { hash: scram::Hash::Sha1, plus: false },
        Self::External,
        Self::Plain,
    ];

    /// As in `<mechanism/>`.
    pub fn name(self) -> &'static str {
        use scram::Hash::{Sha1, Sha256, Sha512};
        match self {
            Self::Scram { hash: Sha1, plus: false } => "SCRAM-SHA-1",
            Self::Scram { hash: Sha256, plus: false } => "SCRAM-SHA-256",
            Self::Scram { hash: Sha512, plus: false } => "SCRAM-SHA-512",
            Self::Scram { hash: Sha1, plus: true } => "SCRAM-SHA-1-PLUS",
            Self::Scram { hash: Sha256, plus: true } => "SCRAM-SHA-256-PLUS",
            Self::Scram { hash: Sha512, plus: true } => "SCRAM-SHA-512-PLUS",
            Self::External => "EXTERNAL",
            Self::Plain => "PLAIN",
        }
    }

    /// The mechanism with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Place in [`Mechanism::ALL`], for sets and counters.
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|&it| it == self).unwrap_or(0)
    }
}

/// RFC 6120, 6.4.2: the octets of a payload; `=` stands for none. Padding and spare bits must be
/// right, so that one payload has one written form.
pub fn decode(text: &str) -> Result<Vec<u8>, SaslFault> {
    if text == "=" {
        return Ok(Vec::new());
    }
    STANDARD.decode(text).map_err(|_| SaslFault::IncorrectEncoding)
}

/// RFC 6120, 6.4.2: a payload as text; `=` if it is empty.
pub fn encode(payload: &[u8]) -> String {
    if payload.is_empty() { "=".to_owned() } else { STANDARD.encode(payload) }
}

/// RFC 6120, 6.3.8: nobody acts for another one. Empty, or the user's own bare address.
pub fn check_authzid(authzid: &str, username: &str, domain: &str) -> Result<(), SaslFault> {
    if authzid.is_empty() {
        return Ok(());
    }
    let own = Address::of(Some(username), domain, None);
    match (Address::parse(authzid), own) {
        (Ok(asked), Ok(own)) if asked == own => Ok(()),
        _ => Err(SaslFault::InvalidAuthzid),
    }
}

/// A PLAIN message. The password is still to be checked: [`scram::verify_plain`].
pub struct Plain {
    /// Prepared: the local part of the address.
    pub username: String,
    /// As the client sent it.
    pub password: String,
}

impl Plain {
    /// RFC 4616, 2: authzid NUL authcid NUL password, for a user of `domain`.
    pub fn parse(message: &[u8], domain: &str) -> Result<Self, SaslFault> {
        let text = str::from_utf8(message).map_err(|_| SaslFault::MalformedRequest)?;
        let mut parts = text.split('\0');
        let (Some(authzid), Some(authcid), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SaslFault::MalformedRequest);
        };
        if authcid.is_empty() || password.is_empty() {
            return Err(SaslFault::MalformedRequest);
        }
        let username = prepare_local(authcid).map_err(|_| SaslFault::NotAuthorized)?;
        check_authzid(authzid, &username, domain)?;
        Ok(Self { username: username.into_owned(), password: password.to_owned() })
    }

    /// The message a client sends.
    pub fn write(username: &str, password: &str) -> Vec<u8> {
        [b"\0", username.as_bytes(), b"\0", password.as_bytes()].concat()
    }
}

/// XEP-0178, 3, accepting side: the payload is empty or the domain that the certificate was checked
/// for. Any other identity is refused.
pub fn check_external(payload: &[u8], proven_domain: &str) -> Result<(), SaslFault> {
    if payload.is_empty() {
        return Ok(());
    }
    let text = str::from_utf8(payload).map_err(|_| SaslFault::MalformedRequest)?;
    match Address::parse(text) {
        Ok(asked) if asked.full() == proven_domain => Ok(()),
        _ => Err(SaslFault::InvalidAuthzid),
    }
}

/// XEP-0178, 3, connecting side: the text of `<auth/>`. Our domain is named, since some servers
/// insist on it.
pub fn external_payload(own_domain: &str) -> String {
    encode(own_domain.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for (i, it) in SaslFault::ALL.into_iter().enumerate() {
            assert_eq!((SaslFault::parse(it.name()), it.index()), (Some(it), i));
        }
        for (i, it) in Mechanism::ALL.into_iter().enumerate() {
            assert_eq!((Mechanism::parse(it.name()), it.index()), (Some(it), i));
        }
        assert_eq!(Mechanism::parse("scram-sha-1"), None);
    }

    #[test]
    fn payloads_have_one_written_form() {
        for bad in
            ["a", "ab", "abc", "====", "YQ", "YQ=", "YR==", "YQ==YQ==", "YQ= =", " YQ==", "Y-_="]
        {
            assert_eq!(decode(bad), Err(SaslFault::IncorrectEncoding), "{bad}");
        }
        assert_eq!(decode("="), Ok(Vec::new()));
        assert_eq!(decode(""), Ok(Vec::new()));
        assert_eq!(decode("YQ=="), Ok(b"a".to_vec()));
        assert_eq!(encode(b""), "=");
        assert_eq!(encode(b"a"), "YQ==");
    }

    #[test]
    fn plain_messages() {
        let it = Plain::parse(b"\0Juliet\0r0m30", "example.com").ok();
        assert_eq!(
            it.map(|it| (it.username, it.password)),
            Some(("juliet".into(), "r0m30".into()))
        );
        let own = b"juliet@EXAMPLE.com\0juliet\0x";
        assert!(Plain::parse(own, "example.com").is_ok());
        let written = Plain::write("juliet", "x");
        assert!(Plain::parse(&written, "example.com").is_ok());
        for (message, why) in [
            (&b"romeo@example.com\0juliet\0x"[..], SaslFault::InvalidAuthzid),
            (b"juliet\0juliet\0x", SaslFault::InvalidAuthzid),
            (b"\0juliet", SaslFault::MalformedRequest),
            (b"\0juliet\0x\0", SaslFault::MalformedRequest),
            (b"\0\0x", SaslFault::MalformedRequest),
            (b"\0juliet\0", SaslFault::MalformedRequest),
            (b"\0juliet\0\xff", SaslFault::MalformedRequest),
            (b"\0juliet@example.com\0x", SaslFault::NotAuthorized),
        ] {
            assert_eq!(Plain::parse(message, "example.com").err(), Some(why), "{message:?}");
        }
    }

    #[test]
    fn external_names_the_proven_domain_or_none() {
        let payload = decode(&external_payload("example.net")).unwrap();
        assert_eq!(check_external(&payload, "example.net"), Ok(()));
        assert_eq!(check_external(b"", "example.net"), Ok(()));
        assert_eq!(check_external(b"Example.NET", "example.net"), Ok(()));
        assert_eq!(check_external(b"example.org", "example.net"), Err(SaslFault::InvalidAuthzid));
        assert_eq!(check_external(b"a@example.net", "example.net"), Err(SaslFault::InvalidAuthzid));
        assert_eq!(check_external(b"\xff", "example.net"), Err(SaslFault::MalformedRequest));
    }
}
