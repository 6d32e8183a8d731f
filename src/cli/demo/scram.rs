//! SCRAM from the client's side (RFC 5802, RFC 7677), for the demo's own client.
//!
//! Written apart from the switch's side on purpose: two that share their code agree even where
//! both are wrong. Does **not** prepare the password: the demo's are plain ASCII.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

/// One login, after its first message.
pub(super) struct Scram {
    header: String,
    binding: Vec<u8>,
    first_bare: String,
    nonce: String,
    password: String,
    server_signature: Vec<u8>,
}

impl Scram {
    /// Begins. `exporter`: the channel binding of RFC 9266, for the -PLUS form.
    pub(super) fn new(user: &str, password: &str, nonce: &str, exporter: Option<[u8; 32]>) -> Self {
        // RFC 5802, 5.1: the characters that mean something.
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self {
            header: if exporter.is_some() { "p=tls-exporter,," } else { "n,," }.to_owned(),
            binding: exporter.map(Vec::from).unwrap_or_default(),
            first_bare: format!("n={user},r={nonce}"),
            nonce: nonce.to_owned(),
            password: password.to_owned(),
            server_signature: Vec::new(),
        }
    }

    /// The first message, in base64.
    pub(super) fn first(&self) -> String {
        STANDARD.encode(format!("{}{}", self.header, self.first_bare))
    }

    /// The proof, in base64; `None` if the challenge is no challenge or not for us.
    pub(super) fn prove(&mut self, challenge: &str) -> Option<String> {
        let challenge = String::from_utf8(STANDARD.decode(challenge).ok()?).ok()?;
        let field = |name: &str| challenge.split(',').find_map(|it| it.strip_prefix(name));
        let (nonce, salt) = (field("r=")?, STANDARD.decode(field("s=")?).ok()?);
        let iterations: u32 = field("i=")?.parse().ok()?;
        // RFC 5802, 5.1: the server's part is added to ours, so nobody can replay an old challenge.
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() || iterations < 4_096
        {
            return None;
        }
        let mut salted = [0; 32];
        pbkdf2::pbkdf2::<Hmac<Sha256>>(self.password.as_bytes(), &salt, iterations, &mut salted)
            .ok()?;
        let client_key = hmac(&salted, b"Client Key")?;
        let stored_key = Sha256::digest(&client_key);
        let binding = [self.header.as_bytes(), &self.binding].concat();
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(binding));
        let signed = format!("{},{challenge},{without_proof}", self.first_bare);
        let signature = hmac(&stored_key, signed.as_bytes())?;
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        self.server_signature = hmac(&hmac(&salted, b"Server Key")?, signed.as_bytes())?;
        Some(STANDARD.encode(format!("{without_proof},p={}", STANDARD.encode(proof))))
    }

    /// Whether the server has shown that it knows the account's keys too.
    pub(super) fn is_server_proven(&self, success: &str) -> bool {
        let wanted = format!("v={}", STANDARD.encode(&self.server_signature));
        !self.server_signature.is_empty()
            && STANDARD.decode(success).is_ok_and(|it| it == wanted.as_bytes())
    }
}

fn hmac(key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(data);
    Some(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, 3.
    #[test]
    fn the_example_of_the_rfc() {
        let mut scram = Scram::new("user", "pencil", "rOprNGfwEbeRWgbNEkqO", None);
        assert_eq!(scram.first(), STANDARD.encode("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"));
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let proof = scram.prove(&STANDARD.encode(challenge)).expect("a proof");
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(proof, STANDARD.encode(expected));
        assert!(
            scram.is_server_proven(
                &STANDARD.encode("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
            )
        );
        assert!(
            !scram.is_server_proven(
                &STANDARD.encode("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=")
            )
        );
    }
}
