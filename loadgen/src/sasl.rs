//! The client's half of SASL: PLAIN (RFC 4616), SCRAM-SHA-1 (RFC 5802) and SCRAM-SHA-256 (RFC 7677).
//!
//! The salted password is kept per (salt, iterations, password): a population that shares a salt
//! costs one PBKDF2. Does **not** bind channels.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The mechanisms, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// RFC 4505: nobody in particular. Never chosen unless asked for.
    Anonymous,
    /// RFC 4616.
    Plain,
    /// RFC 5802.
    ScramSha1,
    /// RFC 7677.
    ScramSha256,
}

impl Mechanism {
    /// All that prove who one is, the strongest first.
    pub const ALL: [Self; 3] = [Self::ScramSha256, Self::ScramSha1, Self::Plain];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "ANONYMOUS",
            Self::Plain => "PLAIN",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
        }
    }

    fn hash(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::ScramSha256 => Sha256::digest(data).to_vec(),
            _ => Sha1::digest(data).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        // HMAC takes keys of any length.
        match self {
            Self::ScramSha256 => Hmac::<Sha256>::new_from_slice(key)
                .map(|m| m.chain_update(data).finalize().into_bytes().to_vec()),
            _ => Hmac::<Sha1>::new_from_slice(key)
                .map(|m| m.chain_update(data).finalize().into_bytes().to_vec()),
        }
        .unwrap_or_default()
    }

    fn salted(self, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
        match self {
            Self::ScramSha256 => {
                pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), salt, iterations)
                    .into()
            }
            _ => {
                pbkdf2::pbkdf2_hmac_array::<Sha1, 20>(password.as_bytes(), salt, iterations).into()
            }
        }
    }
}

/// Mechanism, salt, iterations, password.
type Key = (Mechanism, Vec<u8>, u32, String);

/// Salted passwords that were computed before.
#[derive(Default)]
pub struct Salted(BTreeMap<Key, Vec<u8>>);

impl Salted {
    /// Adds what an earlier run kept in a file, a line each: mechanism, salt, iterations, password,
    /// result. A file that isn't there adds nothing; a line that isn't one is passed over.
    pub fn load(&mut self, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_default();
        let entry = |line: &str| {
            let mut parts = line.split('\t');
            let name = parts.next()?;
            let mechanism = Mechanism::ALL.into_iter().find(|m| m.name() == name)?;
            let salt = BASE64.decode(parts.next()?).ok()?;
            let iterations = parts.next()?.parse().ok()?;
            let password = parts.next()?.to_owned();
            let salted = BASE64.decode(parts.next()?).ok()?;
            Some(((mechanism, salt, iterations, password), salted))
        };
        self.0.extend(text.lines().filter_map(entry));
    }

    /// Writes everything to a file.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let line = |((mechanism, salt, iterations, password), salted): (&Key, &Vec<u8>)| {
            let (salt, salted) = (BASE64.encode(salt), BASE64.encode(salted));
            format!("{}\t{salt}\t{iterations}\t{password}\t{salted}\n", mechanism.name())
        };
        fs::write(path, self.0.iter().map(line).collect::<String>())
    }
}

/// One exchange in progress.
pub struct Exchange {
    mechanism: Mechanism,
    password: String,
    first_bare: String,
    nonce: String,
    server_signature: Vec<u8>,
}

impl Exchange {
    /// Begins an exchange; also gives the initial response, in base64.
    pub fn begin(mechanism: Mechanism, user: &str, password: &str, nonce: u64) -> (Self, String) {
        let nonce = format!("{:032x}", u128::from(nonce).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c));
        let first_bare = format!("n={user},r={nonce}");
        let initial = match mechanism {
            // RFC 6120, 6.4.2: nothing to say initially is said by one sign.
            Mechanism::Anonymous => {
                let exchange = Self {
                    mechanism,
                    password: String::new(),
                    first_bare,
                    nonce,
                    server_signature: Vec::new(),
                };
                return (exchange, "=".to_owned());
            }
            Mechanism::Plain => format!("\0{user}\0{password}"),
            _ => format!("n,,{first_bare}"),
        };
        let exchange = Self {
            mechanism,
            password: password.to_owned(),
            first_bare,
            nonce,
            server_signature: Vec::new(),
        };
        (exchange, BASE64.encode(initial))
    }

    /// Answers the challenge; `None` if it is not what RFC 5802, 5.1 says.
    pub fn answer(&mut self, challenge: &[u8], kept: &mut Salted) -> Option<String> {
        let challenge = String::from_utf8(BASE64.decode(challenge).ok()?).ok()?;
        let part = |name: &str| challenge.split(',').find_map(|p| p.strip_prefix(name));
        let nonce = part("r=").filter(|n| n.starts_with(&self.nonce))?;
        let salt = BASE64.decode(part("s=")?).ok()?;
        let iterations: u32 = part("i=")?.parse().ok()?;
        let m = self.mechanism;
        let salted = kept
            .0
            .entry((m, salt, iterations, self.password.clone()))
            .or_insert_with_key(|(_, salt, _, _)| m.salted(&self.password, salt, iterations));
        let client_key = m.hmac(salted, b"Client Key");
        let final_bare = format!("c=biws,r={nonce}");
        let said = format!("{},{challenge},{final_bare}", self.first_bare);
        let signature = m.hmac(&m.hash(&client_key), said.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        self.server_signature = m.hmac(&m.hmac(salted, b"Server Key"), said.as_bytes());
        Some(BASE64.encode(format!("{final_bare},p={}", BASE64.encode(proof))))
    }

    /// Whether the server's last word proves that it knows the keys.
    pub fn proved(&self, last: &[u8]) -> bool {
        matches!(self.mechanism, Mechanism::Plain | Mechanism::Anonymous)
            || BASE64.decode(last).is_ok_and(|text| {
                text == format!("v={}", BASE64.encode(&self.server_signature)).as_bytes()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, 3 and RFC 5802, 5: the user is "user", the password "pencil".
    #[test]
    fn the_examples_of_the_documents() {
        let rows = [
            (
                Mechanism::ScramSha1,
                "fyko+d2lbbFgONRv9qkxdawL",
                "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                "p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
            (
                Mechanism::ScramSha256,
                "rOprNGfwEbeRWgbNEkqO",
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
        ];
        for (mechanism, nonce, challenge, proof, signature) in rows {
            let (mut exchange, _) = Exchange::begin(mechanism, "user", "pencil", 1);
            exchange.nonce = nonce.to_owned();
            exchange.first_bare = format!("n=user,r={nonce}");
            let mut kept = Salted::default();
            let answer = exchange.answer(BASE64.encode(challenge).as_bytes(), &mut kept).unwrap();
            let answer = String::from_utf8(BASE64.decode(answer).unwrap()).unwrap();
            assert!(answer.ends_with(proof), "{answer}");
            assert!(exchange.proved(BASE64.encode(signature).as_bytes()));
            assert!(!exchange.proved(BASE64.encode("v=AAAA").as_bytes()));
        }
    }
}
