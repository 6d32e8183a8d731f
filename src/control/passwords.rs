//! From a password to SCRAM keys, and whether a password fits them (RFC 5802, 3).
//!
//! Costly by intent: runs on a worker. Passwords are prepared as OpaqueString (RFC 8265, 4.2).

use hmac::{Hmac, Mac};
use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::store::{HASHES, Keys};
use crate::limits::PASSWORD_BYTES_MAX;
use crate::xmpp::sasl::Hash;

/// Octets of a new salt.
const SALT_BYTES: usize = 16;

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

/// The password in its prepared form.
fn prepare(password: &str) -> Result<String, Malformed> {
    if password.is_empty() {
        return Err(Malformed::Empty);
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let prepared = OpaqueString::enforce(password).map_err(|_| Malformed::Forbidden)?;
    Ok(prepared.into_owned())
}

/// New keys for every hash, each with a salt of its own.
pub fn derive_all(password: &str, iterations: u32) -> Result<Vec<Keys>, Malformed> {
    let password = prepare(password)?;
    let mut all = Vec::with_capacity(HASHES.len());
    for hash in HASHES {
        let mut salt = vec![0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| Malformed::NoEntropy)?;
        all.push(derive(hash, password.as_bytes(), salt, iterations));
    }
    Ok(all)
}

/// Whether `password` is the one `keys` came from. Takes the same time for a wrong one.
pub fn check(password: &str, keys: &Keys) -> bool {
    let Ok(password) = prepare(password) else { return false };
    let found = derive(keys.hash, password.as_bytes(), keys.salt.clone(), keys.iterations);
    found.stored_key.ct_eq(&keys.stored_key).into()
}

/// Keys nobody has, so that an unknown user costs what a known one does.
pub fn nobody(iterations: u32) -> Keys {
    Keys {
        hash: HASHES[0],
        salt: vec![0; SALT_BYTES],
        iterations,
        stored_key: Vec::new(),
        server_key: Vec::new(),
    }
}

fn derive(hash: Hash, password: &[u8], salt: Vec<u8>, iterations: u32) -> Keys {
    let mut salted = [0; 64];
    let (stored_key, server_key) = match hash {
        Hash::Sha1 => {
            let salted = &mut salted[..20];
            pbkdf2::pbkdf2_hmac::<Sha1>(password, &salt, iterations, salted);
            let client = mac::<Hmac<Sha1>>(salted, b"Client Key");
            (Sha1::digest(client).to_vec(), mac::<Hmac<Sha1>>(salted, b"Server Key"))
        }
        Hash::Sha256 => {
            let salted = &mut salted[..32];
            pbkdf2::pbkdf2_hmac::<Sha256>(password, &salt, iterations, salted);
            let client = mac::<Hmac<Sha256>>(salted, b"Client Key");
            (Sha256::digest(client).to_vec(), mac::<Hmac<Sha256>>(salted, b"Server Key"))
        }
        Hash::Sha512 => {
            let salted = &mut salted[..64];
            pbkdf2::pbkdf2_hmac::<Sha512>(password, &salt, iterations, salted);
            let client = mac::<Hmac<Sha512>>(salted, b"Client Key");
            (Sha512::digest(client).to_vec(), mac::<Hmac<Sha512>>(salted, b"Server Key"))
        }
    };
    Keys { hash, salt, iterations, stored_key, server_key }
}

fn mac<M: Mac + hmac::digest::KeyInit>(key: &[u8], text: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length (RFC 2104, 2), so there is no way to fail.
    let Ok(mut mac) = <M as Mac>::new_from_slice(key) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn keys_prove_the_examples_of_the_rfcs() {
        // RFC 5802, 5 and RFC 7677, 3: user "user", password "pencil". The server's signature of
        // the example's AuthMessage comes from our ServerKey.
        let cases = [
            (
                Hash::Sha1,
                "QSXCR+Q6sek8bf92",
                "n=user,r=fyko+d2lbbFgONRv9qkxdawL,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,\
                 s=QSXCR+Q6sek8bf92,i=4096,c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j",
                "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
            (
                Hash::Sha256,
                "W22ZaJ0SNY7soEsUEjb6gQ==",
                "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF\
                 $k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2Ra\
                 TCAfuxFIlj)hNlF$k0",
                "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
        ];
        for (hash, salt, message, signature) in cases {
            let keys = derive(hash, b"pencil", STANDARD.decode(salt).unwrap(), 4_096);
            let made = match hash {
                Hash::Sha1 => mac::<Hmac<Sha1>>(&keys.server_key, message.as_bytes()),
                _ => mac::<Hmac<Sha256>>(&keys.server_key, message.as_bytes()),
            };
            assert_eq!(STANDARD.encode(made), signature, "{hash:?}");
        }
    }

    #[test]
    fn only_the_password_fits_its_keys() {
        for keys in derive_all("pencil", 10).unwrap() {
            assert!(check("pencil", &keys));
            assert!(!check("Pencil", &keys));
            assert!(!check("", &keys));
        }
        assert!(!check("pencil", &nobody(10)));
        assert_eq!(derive_all("", 10), Err(Malformed::Empty));
        assert_eq!(derive_all("a\u{7}b", 10), Err(Malformed::Forbidden));
        assert_eq!(derive_all(&"x".repeat(5_000), 10), Err(Malformed::TooLong));
        // RFC 8265, 4.2.2: other spaces are spaces.
        assert!(check("a\u{a0}b", &derive_all("a b", 10).unwrap()[0]));
    }
}
