//! One connection's TLS: bytes in, bytes out.
//!
//! ```text
//! far end's bytes -- feed --> clear text         clear text -- seal --> bytes for the far end
//!                             (what rustls wants to say of itself)  -- pending_out --> bytes for the far end
//! ```
//!
//! A server session reads the client's greeting first and only then decides: by the name in it (SNI), else by
//! the stream's `to` that came before STARTTLS, which certificate to show; by the protocols in it, whether to
//! speak ALPN. rustls refuses a greeting whose protocols are all strange to it, we don't: there are clients
//! that offer `http/1.1` by habit.
//!
//! An idle session holds rustls' receive buffer of 4 KiB and its keys; a buffer that a large record made grow
//! shrinks again. Nothing here waits and nothing does I/O.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use rustls::server::{Accepted, Acceptor, ClientHello};
use rustls::{CipherSuite, ClientConnection, Connection, ProtocolVersion};
use rustls_pki_types::ServerName;

use super::chain::Der;
use super::faults::TlsFault;
use super::identity::Use;
use super::store::{CertStore, Material, alpn_of, end_point};
use crate::limits::TLS_RECORD_BYTES_MAX;

/// What came of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// The handshake was completed by these bytes.
    pub is_established_now: bool,
    /// The far end said `close_notify`: nothing more will come, and what follows was ignored.
    pub is_closed: bool,
}

/// One connection's TLS, server's or client's side. Some 1.3 KiB; box it to move it.
pub struct Session {
    stage: Stage,
    /// Ours, once it is chosen; servers only.
    material: Option<Arc<Material>>,
    is_established: bool,
    /// The receive buffer may have grown beyond its idle size.
    is_swollen: bool,
}

enum Stage {
    /// A server that waits for the client's greeting.
    Greeting { acceptor: Acceptor, choice: Choice },
    /// From the greeting on.
    Open(Connection),
    /// It failed before there was a connection; the alert, still to be sent.
    Failed(Vec<u8>),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Greeting { .. } => "greeting",
            Stage::Open(_) if self.is_established => "established",
            Stage::Open(_) => "handshake",
            Stage::Failed(_) => "failed",
        };
        f.debug_struct("Session").field("stage", &stage).finish_non_exhaustive()
    }
}

/// From what a server session takes its settings when it knows the greeting.
#[derive(Clone, Debug)]
struct Choice {
    store: Arc<CertStore>,
    what: Use,
    stream_to: Option<String>,
}

impl Session {
    /// The server's side. `stream_to` is the domain the stream named before STARTTLS, if it did.
    pub fn server(store: &Arc<CertStore>, what: Use, stream_to: Option<&str>) -> Self {
        let choice =
            Choice { store: Arc::clone(store), what, stream_to: stream_to.map(str::to_owned) };
        Self::at(Stage::Greeting { acceptor: Acceptor::default(), choice })
    }

    /// The client's side, toward `domain`: the domain of the address, never the SRV target (XEP-0368, 3). It
    /// shows the certificate of our domain `ours`, or none. `is_direct` says ALPN, as XEP-0368 wants it there
    /// and nobody expects it after STARTTLS. Its greeting is pending at once.
    pub fn client(
        store: &CertStore,
        what: Use,
        ours: Option<&str>,
        domain: &str,
        is_direct: bool,
    ) -> Result<Self, TlsFault> {
        let name = ServerName::try_from(domain.to_owned())
            .map_err(|_| TlsFault::Ours(format!("{domain} can't be a name in TLS")))?;
        let config = Arc::clone(store.client(ours, what, is_direct));
        let mut client = ClientConnection::new(config, name)?;
        // No bound here: the outbox has one, and it is asked before clear text is sealed.
        client.set_buffer_limit(None);
        Ok(Self::at(Stage::Open(Connection::Client(client))))
    }

    fn at(stage: Stage) -> Self {
        Self { stage, material: None, is_established: false, is_swollen: false }
    }

    /// A client with settings of its own.
    #[cfg(test)]
    pub(super) fn of_client(client: ClientConnection) -> Self {
        Self::at(Stage::Open(Connection::Client(client)))
    }

    /// Takes all of `cipher` in and appends the clear text to `plain`. After a fault `pending_out` has the alert,
    /// if there is one to send, and the session is at its end.
    pub fn feed(&mut self, mut cipher: &[u8], plain: &mut Vec<u8>) -> Result<Fed, TlsFault> {
        let is_greeting = matches!(self.stage, Stage::Greeting { .. });
        if is_greeting && !self.greet(&mut cipher)? {
            return Ok(Fed::default());
        }
        let Stage::Open(conn) = &mut self.stage else { return Err(TlsFault::NotEstablished) };
        let (fed_len, plain_len) = (cipher.len(), plain.len());
        // What came together with the greeting is in there already.
        let mut is_closed = is_greeting && open(conn, plain)?;
        while !cipher.is_empty() && !is_closed {
            // RFC 8446, 6.1: after `close_notify` nothing is read any more.
            let is_read = read(conn, &mut cipher)? > 0;
            is_closed = open(conn, plain)?;
            if !is_read && !is_closed {
                return Err(TlsFault::Malformed("a record without an end".to_owned()));
            }
        }
        if plain.len() == plain_len {
            // A part of a record, or the handshake.
            self.is_swollen = true;
        } else if self.is_swollen || fed_len > RECEIVE_IDLE_BYTES {
            shrink(conn);
            self.is_swollen = fed_len > RECEIVE_IDLE_BYTES;
        }
        let is_established_now = !self.is_established && !conn.is_handshaking();
        self.is_established |= is_established_now;
        Ok(Fed { is_established_now, is_closed })
    }

    /// Reads the client's greeting; `false` if it is not all there yet.
    fn greet(&mut self, cipher: &mut &[u8]) -> Result<bool, TlsFault> {
        let Stage::Greeting { acceptor, choice } = &mut self.stage else { return Ok(true) };
        while !cipher.is_empty() {
            if acceptor.read_tls(cipher).map_err(malformed)? == 0 {
                return Err(TlsFault::Malformed("a record without an end".to_owned()));
            }
            let accepted = match acceptor.accept() {
                Ok(None) => continue,
                Ok(Some(accepted)) => accepted,
                Err((why, mut alert)) => {
                    self.stage = Stage::Failed(said(|to| alert.write_all(to)));
                    return Err(why.into());
                }
            };
            let choice = choice.clone();
            return self.answer(accepted, &choice).map(|()| true);
        }
        Ok(false)
    }

    /// Chooses certificate and settings by the greeting, and opens the connection with them.
    fn answer(&mut self, accepted: Accepted, choice: &Choice) -> Result<(), TlsFault> {
        let hello = accepted.client_hello();
        let name = hello.server_name().or(choice.stream_to.as_deref());
        let ours = alpn_of(choice.what);
        let with_alpn = hello.alpn().is_some_and(|mut theirs| theirs.any(|it| it == ours));
        let Some(material) = choice.store.choose(name) else {
            self.stage = Stage::Failed(Vec::new());
            return Err(TlsFault::Ours("no certificate is configured".to_owned()));
        };
        let suites = suites(&hello);
        let config = Arc::clone(material.server(choice.what, with_alpn));
        self.material = Some(Arc::clone(material));
        match accepted.into_connection(config) {
            Ok(mut server) => {
                server.set_buffer_limit(None);
                self.stage = Stage::Open(Connection::Server(server));
                Ok(())
            }
            Err((why, mut alert)) => {
                self.stage = Stage::Failed(said(|to| alert.write_all(to)));
                Err(match TlsFault::from(why) {
                    TlsFault::Incompatible(why) => {
                        TlsFault::Incompatible(format!("{why}; the client has {suites}"))
                    }
                    other => other,
                })
            }
        }
    }

    /// Appends to `cipher` all of `plain` in records, up to 16 KiB of it in each, behind what was pending.
    pub fn seal(&mut self, plain: &[u8], cipher: &mut Vec<u8>) -> Result<(), TlsFault> {
        let Stage::Open(conn) = &mut self.stage else { return Err(TlsFault::NotEstablished) };
        if !self.is_established {
            return Err(TlsFault::NotEstablished);
        }
        let records = plain.len().div_ceil(TLS_RECORD_BYTES_MAX);
        cipher.reserve(plain.len() + records * RECORD_OVERHEAD_BYTES);
        conn.writer().write_all(plain).map_err(|why| TlsFault::Ours(why.to_string()))?;
        drain(conn, cipher);
        Ok(())
    }

    /// Appends what the session itself has to say: handshake, key updates, alerts.
    pub fn pending_out(&mut self, cipher: &mut Vec<u8>) {
        match &mut self.stage {
            Stage::Greeting { .. } => {}
            Stage::Open(conn) => drain(conn, cipher),
            Stage::Failed(alert) => cipher.append(alert),
        }
    }

    /// Says `close_notify`, once.
    pub fn close(&mut self, cipher: &mut Vec<u8>) {
        if let Stage::Open(conn) = &mut self.stage {
            conn.send_close_notify();
        }
        self.pending_out(cipher);
    }

    /// Whether the handshake is done.
    pub fn is_established(&self) -> bool {
        self.is_established
    }

    /// RFC 9266: the channel binding `tls-exporter`. Only TLS 1.3 has one: under 1.2 it would need the extended
    /// master secret, which rustls does not tell of.
    pub fn exporter(&self) -> Option<[u8; 32]> {
        let conn =
            self.conn().filter(|it| it.protocol_version() == Some(ProtocolVersion::TLSv1_3))?;
        conn.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok()
    }

    /// RFC 5929, 4: the channel binding `tls-server-end-point`, over the certificate the server showed.
    pub fn end_point(&self) -> Option<Vec<u8>> {
        match &self.material {
            Some(material) => material.end_point().map(<[u8]>::to_vec),
            None => end_point(self.peer_certificates().first()?),
        }
    }

    /// What the peer showed, its own certificate first; empty if it showed nothing. To be judged.
    pub fn peer_certificates(&self) -> &[Der] {
        self.conn().and_then(|it| it.peer_certificates()).unwrap_or_default()
    }

    /// The certificate of ours that a server session shows.
    pub fn material(&self) -> Option<&Arc<Material>> {
        self.material.as_ref()
    }

    /// The application protocol both agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.conn().and_then(|it| it.alpn_protocol())
    }

    /// The name the client asked for; server's side only.
    pub fn sni(&self) -> Option<&str> {
        match self.conn() {
            Some(Connection::Server(server)) => server.server_name(),
            _ => None,
        }
    }

    /// As people write it: `TLSv1.3`.
    pub fn version(&self) -> Option<&'static str> {
        match self.conn()?.protocol_version()? {
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            _ => None,
        }
    }

    /// The suite's registered name.
    pub fn suite(&self) -> Option<&'static str> {
        suite_name(self.conn()?.negotiated_cipher_suite()?.suite())
    }

    fn conn(&self) -> Option<&Connection> {
        if let Stage::Open(conn) = &self.stage { Some(conn) } else { None }
    }
}

/// RFC 8446, 5.2: header, inner type and tag of a record; 1.2 has an explicit nonce in place of the type.
const RECORD_OVERHEAD_BYTES: usize = 5 + 8 + 16;
/// How much rustls wants to read at once, and keeps.
const RECEIVE_IDLE_BYTES: usize = 4_096;
/// How many suites a text for operators lists.
const SUITES_SHOWN: usize = 24;

/// Decrypts what is there; says whether the far end closed.
fn open(conn: &mut Connection, plain: &mut Vec<u8>) -> Result<bool, TlsFault> {
    let state = conn.process_new_packets()?;
    let mut left = state.plaintext_bytes_to_read();
    let mut reader = conn.reader();
    while left > 0 {
        let Ok(chunk) = reader.fill_buf() else { break };
        let taken = chunk.len();
        plain.extend_from_slice(chunk);
        reader.consume(taken);
        left = left.saturating_sub(taken);
    }
    Ok(state.peer_has_closed())
}

fn read(conn: &mut Connection, cipher: &mut &[u8]) -> Result<usize, TlsFault> {
    conn.read_tls(cipher).map_err(malformed)
}

fn malformed(why: io::Error) -> TlsFault {
    TlsFault::Malformed(why.to_string())
}

/// Moves what is to be sent. A `Vec` takes everything, so there is nothing to report.
fn drain(conn: &mut Connection, cipher: &mut Vec<u8>) {
    while conn.wants_write() {
        if conn.write_tls(cipher).is_err() {
            return;
        }
    }
}

/// What `write` says into a new buffer.
fn said(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A `Vec` takes everything.
    if write(&mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

/// Lets rustls fit its receive buffer to what is in it: it does so before each read, also one that brings nothing.
fn shrink(conn: &mut Connection) {
    struct Dry;
    impl Read for Dry {
        fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    // It fails, being dry; the buffer was fitted before.
    drop(conn.read_tls(&mut Dry));
}

/// The suites a client offers, for the text that says why there is none in common.
fn suites(hello: &ClientHello<'_>) -> String {
    let offered = hello.cipher_suites().iter().take(SUITES_SHOWN);
    let names = offered.map(|it| suite_name(*it).map_or_else(|| format!("{it:?}"), str::to_owned));
    names.collect::<Vec<_>>().join(" ")
}

fn suite_name(suite: CipherSuite) -> Option<&'static str> {
    suite.as_str()
}
