//! SCRAM-SHA-1, the client's side, with the few rounds that scripted accounts have: the client of
//! `xmpp::sasl` refuses those, and an independent one checks the server's arithmetic as well.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha1::{Digest as _, Sha1};

/// Client-first-bare for a nonce.
pub(crate) fn first(user: &str, nonce: &str) -> String {
    format!("n={},r={nonce}", user.replace('=', "=3D").replace(',', "=2C"))
}

/// Client-final and what the server must answer to it.
pub(crate) fn last(first_bare: &str, server_first: &str, password: &str) -> (String, String) {
    let field = |name: &str| {
        server_first.split(',').find_map(|f| f.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    let salt = STANDARD.decode(field("s=")).expect("a salt");
    let rounds: u32 = field("i=").parse().expect("a number of rounds");
    let mut salted = [0_u8; 20];
    pbkdf2::pbkdf2_hmac::<Sha1>(password.as_bytes(), &salt, rounds, &mut salted);
    let client_key = mac(&salted, b"Client Key");
    let bare = format!("c=biws,r={}", field("r="));
    let text = format!("{first_bare},{server_first},{bare}");
    let signature = mac(&Sha1::digest(&client_key), text.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    let server = mac(&mac(&salted, b"Server Key"), text.as_bytes());
    (format!("{bare},p={}", STANDARD.encode(proof)), format!("v={}", STANDARD.encode(server)))
}

pub(crate) fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

pub(crate) fn decode(text: &str) -> String {
    String::from_utf8(STANDARD.decode(text).unwrap_or_default()).unwrap_or_default()
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("any length is a key");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}
