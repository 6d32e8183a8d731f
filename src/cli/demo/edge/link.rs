//! The partner's connections: TCP with mutual TLS, or without for tests.
//!
//! rustls with its own verifiers: whoever calls must show a certificate of the one authority, and whoever is called
//! must show the name that was looked for (RFC 5280, RFC 6125; Microsoft's rule is in `mod.rs`). A thread a
//! connection. Does **not** resume sessions or check revocation.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};
use x509_parser::extensions::GeneralName;

use crate::cli::demo::client::Trouble;

/// What TLS needs: the partner's certificate and whom it believes. PEM.
#[derive(Clone)]
pub struct Keys {
    /// The partner's own certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authority.
    pub roots: String,
}

impl std::fmt::Debug for Keys {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// Both sides' settings, made once.
#[derive(Clone)]
pub(super) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn new(keys: &Keys) -> Result<Self, Trouble> {
        let words = |it: &dyn std::fmt::Display| Trouble(format!("the partner's TLS: {it}"));
        let chain = || CertificateDer::pem_slice_iter(keys.certificate.as_bytes()).collect();
        let chain: Vec<_> =
            Result::<_, _>::map_err(chain(), |it: rustls::pki_types::pem::Error| words(&it))?;
        let key = || PrivateKeyDer::from_pem_slice(keys.key.as_bytes()).map_err(|it| words(&it));
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(keys.roots.as_bytes()) {
            roots.add(root.map_err(|it| words(&it))?).map_err(|it| words(&it))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|it| words(&it))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|it| words(&it))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)
            .map_err(|it| words(&it))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|it| words(&it))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)
            .map_err(|it| words(&it))?;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// One connection. It can be written to from any thread.
pub(super) struct Link {
    socket: TcpStream,
    tls: Option<Mutex<Connection>>,
    /// DNS names of the far end's certificate; empty without TLS.
    pub(super) names: Vec<String>,
    /// That certificate, DER.
    pub(super) certificate: Vec<u8>,
    dead: AtomicBool,
    /// Whether each octet goes out by itself.
    drips: AtomicBool,
}

impl Link {
    /// Calls `address` and expects `name` in the certificate there.
    pub(super) fn connect(
        address: SocketAddr,
        name: &str,
        tls: Option<&Tls>,
    ) -> Result<Self, Trouble> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        let tls = match tls {
            None => None,
            Some(tls) => {
                let name =
                    ServerName::try_from(name.to_owned()).map_err(|it| Trouble(it.to_string()))?;
                let made = ClientConnection::new(Arc::clone(&tls.client), name);
                Some(Connection::from(made.map_err(|it| Trouble(it.to_string()))?))
            }
        };
        Self::establish(socket, tls)
    }

    /// Takes a call.
    pub(super) fn accept(socket: TcpStream, tls: Option<&Tls>) -> Result<Self, Trouble> {
        let tls = match tls {
            None => None,
            Some(tls) => {
                let made = ServerConnection::new(Arc::clone(&tls.server));
                Some(Connection::from(made.map_err(|it| Trouble(it.to_string()))?))
            }
        };
        Self::establish(socket, tls)
    }

    fn establish(mut socket: TcpStream, mut tls: Option<Connection>) -> Result<Self, Trouble> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        if let Some(tls) = &mut tls {
            while tls.is_handshaking() {
                tls.complete_io(&mut socket)?;
            }
        }
        socket.set_read_timeout(None)?;
        let shown = tls.as_ref().and_then(|it| it.peer_certificates()?.first());
        let certificate = shown.map(|it| it.to_vec()).unwrap_or_default();
        let names = names(&certificate);
        Ok(Self {
            socket,
            tls: tls.map(Mutex::new),
            names,
            certificate,
            dead: AtomicBool::new(false),
            drips: AtomicBool::new(false),
        })
    }

    /// Sends octets as they are.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let size = if self.drips.load(Ordering::Relaxed) { 1 } else { RECORD };
        let mut socket = &self.socket;
        let Some(tls) = &self.tls else {
            return bytes.chunks(size).try_for_each(|it| socket.write_all(it));
        };
        let mut tls = tls.lock().unwrap_or_else(PoisonError::into_inner);
        // In pieces, for its buffer of clear text has an end.
        for piece in bytes.chunks(size) {
            tls.writer().write_all(piece)?;
            while tls.wants_write() {
                tls.write_tls(&mut socket)?;
            }
        }
        Ok(())
    }

    /// Waits for octets and adds them to `inbox`; false at the end.
    pub(super) fn read(&self, inbox: &mut Vec<u8>) -> io::Result<bool> {
        let before = inbox.len();
        let mut buffer = [0; 16_384];
        self.clear(&[], inbox)?;
        while inbox.len() == before {
            let len = (&self.socket).read(&mut buffer)?;
            if len == 0 {
                return Ok(false);
            }
            self.clear(buffer.get(..len).unwrap_or_default(), inbox)?;
        }
        Ok(true)
    }

    fn clear(&self, mut cipher: &[u8], inbox: &mut Vec<u8>) -> io::Result<()> {
        let Some(tls) = &self.tls else {
            inbox.extend_from_slice(cipher);
            return Ok(());
        };
        let mut tls = tls.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if !cipher.is_empty() {
                tls.read_tls(&mut cipher)?;
            }
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let at = inbox.len();
            inbox.resize(at + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(inbox.get_mut(at..).unwrap_or_default())?;
            while tls.wants_write() {
                tls.write_tls(&mut &self.socket)?;
            }
            if cipher.is_empty() {
                return Ok(());
            }
        }
    }

    /// Cuts it.
    pub(super) fn close(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.socket.shutdown(Shutdown::Both).ok();
    }

    /// From now on each octet goes out by itself, or no longer.
    pub(super) fn drip(&self, drips: bool) {
        self.drips.store(drips, Ordering::Relaxed);
    }

    /// Whether it can still carry something.
    pub(super) fn is_alive(&self) -> bool {
        !self.dead.load(Ordering::Relaxed)
    }
}

fn names(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = alternative.value.general_names.iter();
    names
        .filter_map(|it| match it {
            GeneralName::DNSName(name) => Some((*name).to_lowercase()),
            _ => None,
        })
        .collect()
}

/// What goes into one write: whole messages of this partner's, most of the time.
const RECORD: usize = 8_192;
/// For a handshake on loopback.
const PATIENCE: Duration = Duration::from_secs(5);
