//! One transport connection of a client: plain or TLS, with what waits to be sent.
//!
//! Does **not** judge certificates: a generator loads servers with throw-away ones.

use std::io::{self, ErrorKind, Read as _, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// A connection.
pub struct Link {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    out: Vec<u8>,
    out_at: usize,
    /// Whether epoll was asked to tell of room.
    pub asks_for_room: bool,
    /// Whether the last read filled its buffer, so that more may be there.
    pub may_have_more: bool,
    /// Whether the last read found nothing.
    pub drained: bool,
}

impl Link {
    /// A link over a connected, non-blocking stream.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            tls: None,
            out: Vec::new(),
            out_at: 0,
            asks_for_room: false,
            may_have_more: false,
            drained: false,
        }
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// From here on the bytes are TLS.
    pub fn secure(&mut self, config: &Arc<ClientConfig>, name: &str) -> io::Result<()> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// Whether a TLS handshake is going on.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Puts bytes behind those that wait.
    pub fn queue(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes),
            None => {
                self.out.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Sends what there is room for; false if something still waits.
    pub fn flush(&mut self) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut OneSlice(&self.stream)) {
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(e) => return Err(e),
                }
            }
            return Ok(true);
        }
        while let Some(rest) = self.out.get(self.out_at..).filter(|r| !r.is_empty()) {
            match (&self.stream).write(rest) {
                Ok(count) => self.out_at += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.out_at = 0;
        Ok(true)
    }

    /// Sends no more, in TLS and in TCP; the far end may already be gone.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush()?;
        match self.stream.shutdown(Shutdown::Write) {
            Err(e) if e.kind() != ErrorKind::NotConnected => Err(e),
            _ => Ok(()),
        }
    }

    /// Reads once. `raw` is where the kernel puts bytes, `clear` where TLS puts text; `None` is
    /// the end of the stream.
    pub fn read<'a>(
        &mut self,
        raw: &'a mut [u8],
        clear: &'a mut Vec<u8>,
    ) -> io::Result<Option<&'a [u8]>> {
        self.may_have_more = false;
        self.drained = false;
        let count = match (&self.stream).read(raw) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.drained = true;
                return Ok(Some(&[]));
            }
            Err(e) => return Err(e),
        };
        self.may_have_more = count == raw.len();
        let mut bytes = raw.get(..count).unwrap_or_default();
        let Some(tls) = &mut self.tls else { return Ok(Some(bytes)) };
        clear.clear();
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let had = clear.len();
            clear.resize(had + state.plaintext_bytes_to_read(), 0);
            if let Some(room) = clear.get_mut(had..).filter(|r| !r.is_empty()) {
                tls.reader().read_exact(room)?;
            }
        }
        Ok(Some(clear))
    }
}

/// Hides writev from rustls: one record is one slice, and write is the cheaper call for it.
pub struct OneSlice<'a>(pub &'a TcpStream);

impl Write for OneSlice<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// TLS 1.3 for clients that believe any certificate.
pub fn tls_config(direct: bool) -> io::Result<Arc<ClientConfig>> {
    believing(direct, &[&rustls::version::TLS13])
}

/// The same for servers that may know no more than TLS 1.2.
pub fn any_tls_config(direct: bool) -> io::Result<Arc<ClientConfig>> {
    believing(direct, rustls::DEFAULT_VERSIONS)
}

fn believing(
    direct: bool,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believer(provider)))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    if direct {
        // XEP-0368, 4: the protocol id of client streams.
        config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    }
    Ok(Arc::new(config))
}

/// Believes any certificate of a server.
pub fn believer(provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Believer(provider))
}

#[derive(Debug)]
struct Believer(Arc<CryptoProvider>);

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
