//! SCRAM, the client's side: for our own clients in the demo, the load generator and the tests.
//!
//! RFC 5802, RFC 7677. Checks the server's signature: a server that does not know the user's keys is
//! no server of his. Does **not** choose the mechanism.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::scram::{BindingKind, Hash, derive_keys, digest, hmac, is_nonce, xor};

// RFC 7677, 4: fewer rounds would be a downgrade.
const ITERATIONS_MIN: u32 = 4_096;
/// More would be an attack on the client's processor.
const ITERATIONS_MOST: u32 = 1_000_000;

/// What the server did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Not the grammar of RFC 5802, 7.
    Malformed,
    /// The server's nonce does not continue ours.
    NonceWrong,
    /// Too few or too many rounds.
    IterationsOutOfRange,
    /// Our password can't be prepared.
    PasswordInvalid,
    /// The server does not know our keys.
    SignatureWrong,
}

/// What the client says about channel binding.
pub enum Binding {
    /// `n`: it has none.
    Unable,
    /// `y`: it has, but saw no offer.
    NotOffered,
    /// `p=`: bound to these octets; for -PLUS mechanisms.
    Bound(BindingKind, Vec<u8>),
}

/// Waits for server-first.
pub struct WaitFirst {
    hash: Hash,
    password: String,
    nonce: String,
    bound: Vec<u8>,
    client_first_bare: String,
}

/// Starts an exchange: client-first, the message to send with `<auth/>`.
pub fn start(
    hash: Hash,
    binding: &Binding,
    username: &str,
    password: &str,
    nonce: &str,
) -> (String, WaitFirst) {
    let (header, octets) = match binding {
        Binding::Unable => ("n,,".to_owned(), &[][..]),
        Binding::NotOffered => ("y,,".to_owned(), &[][..]),
        Binding::Bound(kind, octets) => (format!("p={},,", kind.name()), octets.as_slice()),
    };
    let name = username.replace('=', "=3D").replace(',', "=2C");
    let client_first_bare = format!("n={name},r={nonce}");
    let message = format!("{header}{client_first_bare}");
    let wait = WaitFirst {
        hash,
        password: password.to_owned(),
        nonce: nonce.to_owned(),
        bound: [header.as_bytes(), octets].concat(),
        client_first_bare,
    };
    (message, wait)
}

impl WaitFirst {
    /// Client-final, the message to send with `<response/>`.
    pub fn server_first(self, message: &[u8]) -> Result<(String, WaitFinal), Fault> {
        let text = str::from_utf8(message).map_err(|_| Fault::Malformed)?;
        let mut attributes = text.split(',');
        let mut value = |name| attributes.next().and_then(|it| it.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(iterations)) = (value("r="), value("s="), value("i="))
        else {
            return Err(Fault::Malformed);
        };
        // Equal would mean that the server added nothing.
        if !nonce.starts_with(&self.nonce) || nonce == self.nonce || !is_nonce(nonce) {
            return Err(Fault::NonceWrong);
        }
        let salt = STANDARD.decode(salt).map_err(|_| Fault::Malformed)?;
        let iterations: u32 = iterations.parse().map_err(|_| Fault::Malformed)?;
        if !(ITERATIONS_MIN..=ITERATIONS_MOST).contains(&iterations) {
            return Err(Fault::IterationsOutOfRange);
        }
        let (client_key, server_key) = derive_keys(self.hash, &self.password, &salt, iterations)
            .ok_or(Fault::PasswordInvalid)?;
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(&self.bound));
        let auth_message = format!("{},{text},{without_proof}", self.client_first_bare);
        let stored_key = digest(self.hash, &client_key);
        let signature = hmac(self.hash, &stored_key, &[auth_message.as_bytes()]);
        let proof = STANDARD.encode(xor(&client_key, &signature));
        let expected = hmac(self.hash, &server_key, &[auth_message.as_bytes()]);
        Ok((format!("{without_proof},p={proof}"), WaitFinal { expected }))
    }
}

/// Waits for server-final.
pub struct WaitFinal {
    expected: Vec<u8>,
}

impl WaitFinal {
    /// Is it our server?
    pub fn server_final(self, message: &[u8]) -> Result<(), Fault> {
        let text = str::from_utf8(message).map_err(|_| Fault::Malformed)?;
        let value = text.strip_prefix("v=").ok_or(Fault::Malformed)?;
        let value = value.split(',').next().unwrap_or_default();
        let signature = STANDARD.decode(value).map_err(|_| Fault::Malformed)?;
        if bool::from(signature.ct_eq(&self.expected)) {
            Ok(())
        } else {
            Err(Fault::SignatureWrong)
        }
    }
}
