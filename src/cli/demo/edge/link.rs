//! The edge's connections: plain TCP, or mutual TLS by rustls alone, without the switch's own use of
//! it.
//!
//! Sockets don't block: whoever waits asks all of them in turn. For loopback and a handful of
//! connections.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

/// A certificate with its key, and the authority that is believed.
#[derive(Clone, Debug)]
pub struct Keys {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Keys {
    /// From PEM texts. Both sides must show a certificate of that authority.
    pub fn new(certificate: &str, key: &str, authority: &str) -> Result<Self, String> {
        let text = |it: &dyn std::fmt::Display| it.to_string();
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificate.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|it| text(&it))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|it| text(&it))?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(root.map_err(|it| text(&it))?).map_err(|it| text(&it))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(roots);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|it| text(&it))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|it| text(&it))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|it| text(&it))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|it| text(&it))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|it| text(&it))?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

enum Tls {
    None,
    Server(Box<ServerConnection>),
    Client(Box<ClientConnection>),
}

/// One connection.
pub struct Link {
    socket: TcpStream,
    tls: Tls,
    /// Clear text that is not a message yet.
    pub inbox: Vec<u8>,
    /// The far end has closed it.
    pub closed: bool,
}

impl Link {
    /// One that came in.
    pub fn accepted(socket: TcpStream, keys: Option<&Keys>) -> Result<Self, String> {
        let tls = match keys {
            None => Tls::None,
            Some(keys) => {
                let session = ServerConnection::new(Arc::clone(&keys.server));
                Tls::Server(Box::new(session.map_err(|it| it.to_string())?))
            }
        };
        Self::over(socket, tls)
    }

    /// One to the switch, whose certificate must have that name.
    pub fn dial(to: SocketAddr, name: &str, keys: Option<&Keys>) -> Result<Self, String> {
        let socket = TcpStream::connect(to).map_err(|it| it.to_string())?;
        let tls = match keys {
            None => Tls::None,
            Some(keys) => {
                let name = ServerName::try_from(name.to_owned()).map_err(|it| it.to_string())?;
                let session = ClientConnection::new(Arc::clone(&keys.client), name);
                Tls::Client(Box::new(session.map_err(|it| it.to_string())?))
            }
        };
        Self::over(socket, tls)
    }

    fn over(socket: TcpStream, tls: Tls) -> Result<Self, String> {
        socket.set_nonblocking(true).map_err(|it| it.to_string())?;
        socket.set_nodelay(true).map_err(|it| it.to_string())?;
        Ok(Self { socket, tls, inbox: Vec::new(), closed: false })
    }

    /// The names in the certificate that the far end showed, as text of its DER.
    pub fn shows(&self, name: &str) -> bool {
        let chain = match &self.tls {
            Tls::None => return true,
            Tls::Server(it) => it.peer_certificates(),
            Tls::Client(it) => it.peer_certificates(),
        };
        let leaf = chain.and_then(<[_]>::first).map(AsRef::as_ref).unwrap_or_default();
        memchr::memmem::find(leaf, name.as_bytes()).is_some()
    }

    /// Sends text; what the socket does not take now is waited for.
    pub fn send(&mut self, text: &[u8]) -> Result<(), String> {
        match &mut self.tls {
            Tls::None => return self.write_all(text),
            Tls::Server(it) => it.writer().write_all(text).map_err(|it| it.to_string())?,
            Tls::Client(it) => it.writer().write_all(text).map_err(|it| it.to_string())?,
        }
        self.flush()
    }

    /// Takes what has come, without waiting.
    pub fn poll(&mut self) -> Result<(), String> {
        let mut buffer = [0; 16_384];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    self.closed = true;
                    break;
                }
                Ok(length) => self.take(buffer.get(..length).unwrap_or_default())?,
                Err(it) if it.kind() == io::ErrorKind::WouldBlock => break,
                Err(it) if it.kind() == io::ErrorKind::ConnectionReset => {
                    self.closed = true;
                    break;
                }
                Err(it) => return Err(it.to_string()),
            }
        }
        self.flush()
    }

    fn take(&mut self, mut octets: &[u8]) -> Result<(), String> {
        while !octets.is_empty() {
            let (read, more) = match &mut self.tls {
                Tls::None => {
                    self.inbox.extend_from_slice(octets);
                    return Ok(());
                }
                Tls::Server(it) => {
                    let read = it.read_tls(&mut octets);
                    let state = it.process_new_packets().map_err(|it| it.to_string());
                    (read, state.map(|_| drain(&mut it.reader(), &mut self.inbox)))
                }
                Tls::Client(it) => {
                    let read = it.read_tls(&mut octets);
                    let state = it.process_new_packets().map_err(|it| it.to_string());
                    (read, state.map(|_| drain(&mut it.reader(), &mut self.inbox)))
                }
            };
            read.map_err(|it| it.to_string())?;
            if let Err(why) = more {
                // What TLS has to say about it goes out first.
                self.flush().ok();
                self.closed = true;
                return Err(why);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        let mut out = Vec::new();
        match &mut self.tls {
            Tls::None => {}
            Tls::Server(it) => {
                while it.wants_write() {
                    it.write_tls(&mut out).map_err(|it| it.to_string())?;
                }
            }
            Tls::Client(it) => {
                while it.wants_write() {
                    it.write_tls(&mut out).map_err(|it| it.to_string())?;
                }
            }
        }
        self.write_all(&out)
    }

    fn write_all(&mut self, mut octets: &[u8]) -> Result<(), String> {
        while !octets.is_empty() {
            match self.socket.write(octets) {
                Ok(length) => octets = octets.get(length..).unwrap_or_default(),
                Err(it) if it.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(it) => {
                    self.closed = true;
                    return Err(it.to_string());
                }
            }
        }
        Ok(())
    }
}

fn drain(reader: &mut rustls::Reader<'_>, inbox: &mut Vec<u8>) {
    let mut buffer = [0; 4_096];
    // It ends with WouldBlock, when there is no more.
    while let Ok(length @ 1..) = reader.read(&mut buffer) {
        inbox.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
}
