//! From a password to what an account keeps, and whether a password fits it.
//!
//! Costly by intent: runs on a worker. The cryptography is `sasl`'s; here are the salts, the bounds
//! and the reasons that an operator reads.

use super::store::Keys;
use crate::limits::PASSWORD_BYTES_MAX;
use crate::xmpp::sasl::scram::{self, Credentials, Hash};

/// Octets of a new salt.
const SALT_BYTES: usize = 16;
/// Which keys a password in clear text is compared with.
pub(super) const CHECKED: Hash = Hash::Sha256;

/// Why a password can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    Empty,
    TooLong,
    /// It has characters that RFC 8265, 4.2 does not allow (controls, unassigned).
    Forbidden,
    /// The kernel gave no randomness.
    NoEntropy,
}

impl Malformed {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Empty => "the password is empty",
            Self::TooLong => "the password is too long",
            Self::Forbidden => "the password has characters that RFC 8265 does not allow",
            Self::NoEntropy => "the kernel gives no random bytes",
        }
    }
}

/// New keys for every hash, each with a salt of its own.
pub fn derive_all(password: &str, iterations: u32) -> Result<Vec<Keys>, Malformed> {
    if password.is_empty() {
        return Err(Malformed::Empty);
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let mut all = Vec::with_capacity(Hash::ALL.len());
    for hash in Hash::ALL {
        let mut salt = vec![0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| Malformed::NoEntropy)?;
        let keys = scram::derive(hash, password, &salt, iterations).ok_or(Malformed::Forbidden)?;
        all.push(Keys { hash, credentials: Credentials { salt, iterations, keys } });
    }
    Ok(all)
}

/// Whether `password` is the one that `credentials` (of [`CHECKED`]) came from. Nobody's take as
/// long as somebody's.
pub(super) fn check(password: &str, credentials: &Credentials) -> bool {
    scram::verify_plain(CHECKED, password, credentials).is_ok()
}

/// Credentials nobody has, so that an unknown user costs what a known one does.
pub(super) fn nobody(iterations: u32) -> Credentials {
    let keys = scram::Keys { stored_key: Vec::new(), server_key: Vec::new() };
    Credentials { salt: vec![0; SALT_BYTES], iterations, keys }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_fits_its_keys() {
        let all = derive_all("pencil", 10).unwrap();
        assert_eq!(all.len(), 3);
        let keys = all.iter().find(|it| it.hash == CHECKED).unwrap();
        assert!(check("pencil", &keys.credentials));
        assert!(!check("Pencil", &keys.credentials));
        assert!(!check("", &keys.credentials));
        assert!(!check("pencil", &nobody(10)));
        assert_eq!(derive_all("", 10).unwrap_err(), Malformed::Empty);
        assert_eq!(derive_all("a\u{7}b", 10).unwrap_err(), Malformed::Forbidden);
        assert_eq!(derive_all(&"x".repeat(5_000), 10).unwrap_err(), Malformed::TooLong);
    }
}
