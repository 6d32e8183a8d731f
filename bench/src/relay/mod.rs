//! The bare relay: passes bytes between paired connections unread. What it costs is the physical
//! limit on this machine, and the denominator of the bars. As a fan-out sender it passes what comes
//! from a few on to all others instead, and as the relay of a pattern it gives back the packets of SIP.
//!
//! Connections are paired in the order of accept, 2k with 2k+1, so that a client needs no word to
//! say whom it wants. One thread on one core; plain, or with rustls that decrypts, encrypts and
//! does nothing else. Does **not** take a pair's place again: a run starts with a fresh relay.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tandem_loadgen::sys;

mod epoll;
mod fan_epoll;
mod fan_uring;
mod pattern;
mod pattern_epoll;
mod pattern_uring;
mod uring;

use pattern::{Pattern, Sizes};

/// Turns between two writings of the counters, so that they cost nothing.
const TURNS_PER_WRITE: u64 = 64;

/// Which twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// epoll, recv and send.
    Epoll,
    /// A ring with multishot accept and recv, a buffer ring, one SEND per connection and turn.
    Uring,
}

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Relay {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// Which twin.
    #[arg(long, value_enum)]
    engine: Engine,
    /// Everything from whoever speaks goes to all who don't, instead of to a partner. The first
    /// bytes of a connection make it a sender and go nowhere. Plain only.
    #[arg(long, conflicts_with = "tls")]
    fan_out: bool,
    /// The packets of SIP messages instead: octets of what asks, is passed on, acknowledges and answers.
    /// Lines of many sessions come here, own connections of each to `--owns`. Plain only.
    #[arg(long, value_delimiter = ',', requires = "owns", conflicts_with_all = ["tls", "fan_out"])]
    sizes: Vec<usize>,
    /// Where own connections come.
    #[arg(long)]
    owns: Option<SocketAddr>,
    /// The own connections ask.
    #[arg(long)]
    back: bool,
    /// The core to stay on.
    #[arg(long)]
    core: Option<usize>,
    /// A directory with cert.pem and key.pem: TLS 1.3 from the first byte.
    #[arg(long)]
    tls: Option<PathBuf>,
    /// A file for the counters (u64: turns, messages), rewritten in place.
    #[arg(long)]
    counters: Option<PathBuf>,
}

impl Relay {
    /// Relays until the process is ended.
    pub(crate) fn run(&self) -> io::Result<()> {
        if let Some(core) = self.core {
            sys::pin(core)?;
        }
        sys::raise_descriptors()?;
        let listener = sys::listen(self.listen)?;
        let owns = self.owns.map(sys::listen).transpose()?;
        let tls = self.tls.as_deref().map(tls_config).transpose()?;
        let file = self.counters.as_ref().map(File::create).transpose()?;
        let counters = Counters { file, turns: 0, messages: 0 };
        if let (Some(owns), Some(sizes)) = (owns, Sizes::of(&self.sizes)) {
            let pattern = Pattern::new(sizes, self.back);
            return match self.engine {
                Engine::Epoll => pattern_epoll::run(&listener, &owns, pattern, counters),
                Engine::Uring => pattern_uring::run(&listener, &owns, pattern, counters),
            };
        }
        match self.engine {
            Engine::Epoll if self.fan_out => fan_epoll::run(&listener, counters),
            Engine::Uring if self.fan_out => fan_uring::run(&listener, counters),
            Engine::Epoll => epoll::run(&listener, tls.as_ref(), counters),
            Engine::Uring => uring::run(&listener, tls.as_ref(), counters),
        }
    }
}

/// Turns and messages, for messages per turn.
struct Counters {
    file: Option<File>,
    turns: u64,
    messages: u64,
}

impl Counters {
    fn turn(&mut self) -> io::Result<()> {
        self.turns += 1;
        let Some(file) = self.file.as_ref().filter(|_| self.turns.is_multiple_of(TURNS_PER_WRITE))
        else {
            return Ok(());
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.turns.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.messages.to_ne_bytes());
        file.write_all_at(&bytes, 0)
    }
}

/// TLS 1.3 with cert.pem and key.pem of a directory.
pub(crate) fn tls_config(dir: &Path) -> io::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(dir.join("cert.pem")).map_err(io::Error::other)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    // As the server that is measured: sessions are not resumed, so no tickets are made.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A session of one connection.
pub(crate) fn session(config: &Arc<ServerConfig>) -> io::Result<Box<ServerConnection>> {
    let mut session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    session.set_buffer_limit(None);
    Ok(Box::new(session))
}

/// Feeds ciphertext to a session and puts the text it gives into `clear`.
pub(crate) fn decrypt(
    tls: &mut ServerConnection,
    mut bytes: &[u8],
    clear: &mut Vec<u8>,
) -> io::Result<()> {
    use io::Read as _;
    clear.clear();
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let had = clear.len();
        clear.resize(had + state.plaintext_bytes_to_read(), 0);
        if clear.len() > had {
            tls.reader().read_exact(&mut clear[had..])?;
        }
    }
    Ok(())
}
