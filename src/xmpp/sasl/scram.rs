//! SCRAM, the server's side: SHA-1, SHA-256 and SHA-512, each with its -PLUS form.
//!
//! ```text
//! Start --client-first--> NeedCredentials --from the store--> WaitFinal --client-final--> Success
//! ```
//! Every state is consumed by its input, so none can be used twice. A user who does not exist gets a
//! salt made from a secret of ours and then fails like one whose password is wrong: same messages,
//! same work, same fault.
//!
//! RFC 5802, RFC 7677; channel bindings by RFC 5929, 4 (tls-server-end-point) and RFC 9266
//! (tls-exporter). Does **not** do tls-unique, which TLS 1.3 lacks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::{SaslFault, check_authzid};
use crate::address::prepare_local;

/// RFC 9266, 2: what a TLS stack is asked for; no context, [`EXPORTER_BYTES`] of output.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// RFC 9266, 2: length of the exported value.
pub const EXPORTER_BYTES: usize = 32;

/// The hash inside a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hash {
    /// RFC 5802.
    Sha1,
    /// RFC 7677.
    Sha256,
    /// The same with SHA-512.
    Sha512,
}

/// Why an exchange failed. The wire is told less: see `From<Fault> for SaslFault`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Not the grammar of RFC 5802, 7.
    Malformed,
    /// An extension that must be understood, and is not.
    ExtensionMandatory,
    /// The client believes we have no channel binding although we offered it: someone between us
    /// took the offer away (RFC 5802, 6).
    Downgraded,
    /// A binding of another type than we have, or one without -PLUS, or -PLUS without one.
    BindingUnsupported,
    /// Bound to another channel than this one.
    BindingWrong,
    /// Not the nonce we gave.
    NonceWrong,
    /// Wants to act as somebody else.
    AuthzidWrong,
    /// The name can't be a local part.
    UsernameInvalid,
    /// Wrong password, or no such user.
    ProofWrong,
}

impl From<Fault> for SaslFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed | Fault::ExtensionMandatory => Self::MalformedRequest,
            Fault::AuthzidWrong => Self::InvalidAuthzid,
            Fault::Downgraded
            | Fault::BindingUnsupported
            | Fault::BindingWrong
            | Fault::NonceWrong
            | Fault::UsernameInvalid
            | Fault::ProofWrong => Self::NotAuthorized,
        }
    }
}

/// What the password was turned into.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Proves the client to us.
    pub stored_key: Vec<u8>,
    /// Proves us to the client.
    pub server_key: Vec<u8>,
}

/// What the store keeps of one user and one hash. Never the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Random, 16 octets in our accounts.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// See [`Keys`].
    pub keys: Keys,
}

/// How users look who do not exist.
pub struct Decoy<'a> {
    /// Of this installation; the same on all nodes, or two nodes would show different salts.
    pub secret: &'a [u8],
    /// As many as new accounts get.
    pub iterations: u32,
}

/// A type of channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BindingKind {
    /// RFC 9266: TLS 1.3, and 1.2 with extended master secret.
    TlsExporter,
    /// RFC 5929, 4: the hash of our certificate.
    TlsServerEndPoint,
}

impl BindingKind {
    /// Both, the better first.
    pub const ALL: [Self; 2] = [Self::TlsExporter, Self::TlsServerEndPoint];

    /// As in `p=` and in XEP-0440's feature.
    pub fn name(self) -> &'static str {
        match self {
            Self::TlsExporter => "tls-exporter",
            Self::TlsServerEndPoint => "tls-server-end-point",
        }
    }
}

/// The channel bindings of one TLS connection. Both empty: no -PLUS mechanism is offered.
#[derive(Clone, Default)]
pub struct Bindings {
    /// Exported with [`EXPORTER_LABEL`].
    pub tls_exporter: Option<Vec<u8>>,
    /// Hash of our certificate with the hash of its signature (SHA-256 for MD5 and SHA-1).
    pub tls_server_end_point: Option<Vec<u8>>,
}

impl Bindings {
    /// The value of one type.
    pub fn get(&self, kind: BindingKind) -> Option<&[u8]> {
        match kind {
            BindingKind::TlsExporter => self.tls_exporter.as_deref(),
            BindingKind::TlsServerEndPoint => self.tls_server_end_point.as_deref(),
        }
    }

    /// XEP-0440: the types to advertise.
    pub fn kinds(&self) -> impl Iterator<Item = BindingKind> {
        BindingKind::ALL.into_iter().filter(|&kind| self.get(kind).is_some())
    }
}

impl std::fmt::Debug for Credentials {
    /// Keys are never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// Waits for client-first.
pub struct Start {
    hash: Hash,
    plus: bool,
    plus_offered: bool,
    domain: String,
    bindings: Bindings,
}

impl Start {
    /// For the mechanism the client chose. `plus_offered` says whether our features held any -PLUS.
    pub fn new(
        hash: Hash,
        plus: bool,
        plus_offered: bool,
        domain: &str,
        bindings: Bindings,
    ) -> Self {
        Self { hash, plus, plus_offered, domain: domain.to_owned(), bindings }
    }

    /// RFC 5802, 5.1: gs2 header, name and nonce of the client.
    pub fn client_first(self, message: &[u8]) -> Result<NeedCredentials, Fault> {
        let text = str::from_utf8(message).map_err(|_| Fault::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::Malformed);
        };
        let binding = self.binding(flag)?;
        let mut attributes = bare.split(',');
        let name = attributes.next().ok_or(Fault::Malformed)?;
        // RFC 5802, 5.1: `m` stands first if at all, and is reserved for what we can't know.
        if name.starts_with("m=") {
            return Err(Fault::ExtensionMandatory);
        }
        let name = unescape(name.strip_prefix("n=").ok_or(Fault::Malformed)?)?;
        let nonce =
            attributes.next().and_then(|it| it.strip_prefix("r=")).ok_or(Fault::Malformed)?;
        if !is_nonce(nonce) || !attributes.all(is_attribute) {
            return Err(Fault::Malformed);
        }
        let username = prepare_local(&name).map_err(|_| Fault::UsernameInvalid)?.into_owned();
        if !authzid.is_empty() {
            let authzid = unescape(authzid.strip_prefix("a=").ok_or(Fault::Malformed)?)?;
            check_authzid(&authzid, &username, &self.domain).map_err(|_| Fault::AuthzidWrong)?;
        }
        // RFC 5802, 7: cbind-input is the header with its commas, then the binding's octets.
        let mut bound = text.as_bytes().strip_suffix(bare.as_bytes()).unwrap_or_default().to_vec();
        bound.extend_from_slice(binding);
        Ok(NeedCredentials {
            hash: self.hash,
            username,
            client_nonce: nonce.to_owned(),
            client_first_bare: bare.to_owned(),
            bound,
        })
    }

    /// RFC 5802, 6: does the flag fit the mechanism and what we offered?
    fn binding(&self, flag: &str) -> Result<&[u8], Fault> {
        match (flag, self.plus) {
            ("n", false) => Ok(&[]),
            ("y", _) if self.plus_offered => Err(Fault::Downgraded),
            ("y", false) => Ok(&[]),
            ("n" | "y", true) => Err(Fault::BindingUnsupported),
            (flag, plus) => {
                let kind = flag.strip_prefix("p=").ok_or(Fault::Malformed)?;
                let kind = BindingKind::ALL.into_iter().find(|it| it.name() == kind);
                let value = kind.filter(|_| plus).and_then(|it| self.bindings.get(it));
                value.ok_or(Fault::BindingUnsupported)
            }
        }
    }
}

/// Waits for what the store knows of [`NeedCredentials::username`].
pub struct NeedCredentials {
    hash: Hash,
    username: String,
    client_nonce: String,
    client_first_bare: String,
    bound: Vec<u8>,
}

impl NeedCredentials {
    /// Prepared: the local part of the address.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Of which the credentials are needed.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Server-first, the message to send. `None` stands for a user who does not exist or has no
    /// credentials of this hash. `nonce` is fresh, printable and without a comma.
    pub fn answer(
        self,
        credentials: Option<Credentials>,
        decoy: &Decoy<'_>,
        nonce: &str,
    ) -> (String, WaitFinal) {
        debug_assert!(is_nonce(nonce));
        let known = credentials.is_some();
        let credentials = credentials.unwrap_or_else(|| self.decoy(decoy));
        let nonce = format!("{}{nonce}", self.client_nonce);
        let salt = STANDARD.encode(&credentials.salt);
        let server_first = format!("r={nonce},s={salt},i={}", credentials.iterations);
        let wait = WaitFinal {
            hash: self.hash,
            username: self.username,
            nonce,
            bound: self.bound,
            auth_message: format!("{},{server_first},", self.client_first_bare),
            keys: credentials.keys,
            known,
        };
        (server_first, wait)
    }

    fn decoy(&self, decoy: &Decoy<'_>) -> Credentials {
        let hash: &[u8] = match self.hash {
            Hash::Sha1 => b"1",
            Hash::Sha256 => b"256",
            Hash::Sha512 => b"512",
        };
        let mut salt = hmac(Hash::Sha256, decoy.secret, &[hash, b"\0", self.username.as_bytes()]);
        let key = hmac(self.hash, decoy.secret, &[&salt]);
        salt.truncate(16);
        let keys = Keys { stored_key: key.clone(), server_key: key };
        Credentials { salt, iterations: decoy.iterations, keys }
    }
}

/// Waits for client-final.
pub struct WaitFinal {
    hash: Hash,
    username: String,
    nonce: String,
    bound: Vec<u8>,
    auth_message: String,
    keys: Keys,
    known: bool,
}

/// The client has shown that it knows the password.
#[derive(Debug)]
pub struct Success {
    /// To be sent with `<success/>`.
    pub server_final: String,
    /// Prepared: the local part of the address.
    pub username: String,
}

impl WaitFinal {
    /// RFC 5802, 5.1: channel binding, nonce and proof.
    pub fn client_final(self, message: &[u8]) -> Result<Success, Fault> {
        let text = str::from_utf8(message).map_err(|_| Fault::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Fault::Malformed)?;
        let mut attributes = without_proof.split(',');
        let mut value = |name| attributes.next().and_then(|it| it.strip_prefix(name));
        let (Some(bound), Some(nonce)) = (value("c="), value("r=")) else {
            return Err(Fault::Malformed);
        };
        if !attributes.all(is_attribute) {
            return Err(Fault::Malformed);
        }
        if STANDARD.decode(bound).map_err(|_| Fault::Malformed)? != self.bound {
            return Err(Fault::BindingWrong);
        }
        if nonce != self.nonce {
            return Err(Fault::NonceWrong);
        }
        let proof = STANDARD.decode(proof).map_err(|_| Fault::Malformed)?;
        let auth_message = [self.auth_message.as_bytes(), without_proof.as_bytes()];
        let signature = hmac(self.hash, &self.keys.stored_key, &auth_message);
        if proof.len() != signature.len() {
            return Err(Fault::Malformed);
        }
        let client_key = xor(&proof, &signature);
        let proven = digest(self.hash, &client_key).ct_eq(&self.keys.stored_key);
        if !(bool::from(proven) & self.known) {
            return Err(Fault::ProofWrong);
        }
        let signature = hmac(self.hash, &self.keys.server_key, &auth_message);
        let server_final = format!("v={}", STANDARD.encode(signature));
        Ok(Success { server_final, username: self.username })
    }
}

/// RFC 5802, 3: the keys of a password. Slow on purpose: never on a shard. `None` if the password
/// can't be prepared (RFC 8265, 4.2), as an empty one can't.
pub fn derive(hash: Hash, password: &str, salt: &[u8], iterations: u32) -> Option<Keys> {
    let client_and_server = derive_keys(hash, password, salt, iterations)?;
    let stored_key = digest(hash, &client_and_server.0);
    Some(Keys { stored_key, server_key: client_and_server.1 })
}

/// ClientKey and ServerKey.
pub(super) fn derive_keys(
    hash: Hash,
    password: &str,
    salt: &[u8],
    iterations: u32,
) -> Option<(Vec<u8>, Vec<u8>)> {
    let password = OpaqueString::enforce(password).ok()?;
    let password = password.as_bytes();
    let mut salted = vec![0; hash.bytes()];
    match hash {
        Hash::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, iterations, &mut salted),
        Hash::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut salted),
        Hash::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut salted),
    }
    Some((hmac(hash, &salted, &[b"Client Key"]), hmac(hash, &salted, &[b"Server Key"])))
}

/// Does `password` belong to these credentials? As slow as [`derive()`].
pub fn verify_plain(
    hash: Hash,
    password: &str,
    credentials: &Credentials,
) -> Result<(), SaslFault> {
    let keys = derive(hash, password, &credentials.salt, credentials.iterations);
    let stored_key = &credentials.keys.stored_key;
    match keys {
        Some(keys) if bool::from(keys.stored_key.ct_eq(stored_key)) => Ok(()),
        _ => Err(SaslFault::NotAuthorized),
    }
}

impl Hash {
    /// All three, the strongest first.
    pub const ALL: [Self; 3] = [Self::Sha512, Self::Sha256, Self::Sha1];

    /// Length of a digest.
    pub fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

pub(super) fn digest(hash: Hash, data: &[u8]) -> Vec<u8> {
    match hash {
        Hash::Sha1 => Sha1::digest(data).to_vec(),
        Hash::Sha256 => Sha256::digest(data).to_vec(),
        Hash::Sha512 => Sha512::digest(data).to_vec(),
    }
}

pub(super) fn hmac(hash: Hash, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    fn run<M: Mac + hmac::digest::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = <M as Mac>::new_from_slice(key).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().to_vec()
    }
    match hash {
        Hash::Sha1 => run::<Hmac<Sha1>>(key, parts),
        Hash::Sha256 => run::<Hmac<Sha256>>(key, parts),
        Hash::Sha512 => run::<Hmac<Sha512>>(key, parts),
    }
}

pub(super) fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

/// RFC 5802, 7: printable, no comma, not empty.
pub(super) fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// RFC 5802, 7: an optional extension, to be ignored.
fn is_attribute(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|it| it.is_ascii_alphabetic() && it != b'm')
        && bytes.next() == Some(b'=')
        && bytes.next().is_some()
}

/// RFC 5802, 5.1: `=2C` is a comma, `=3D` an equals sign, and there are no others.
fn unescape(saslname: &str) -> Result<String, Fault> {
    let mut pieces = saslname.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (c, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(Fault::Malformed),
        };
        name.push(c);
        name.push_str(rest);
    }
    if name.is_empty() || name.contains('\0') { Err(Fault::Malformed) } else { Ok(name) }
}
