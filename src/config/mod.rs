//! The configuration: as written in one TOML file, then checked, then what runs.
//!
//! [`load`] reads the file once and either gives everything the node needs to start, with no
//! question left open, or all that is wrong with it in one go. `tandem check config` and
//! `tandem run` take the same way, so what passes the check starts.
//!
//! Does **not** read `conf.d` folders and does **not** try whether ports are free.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::limits::SHARDS_MAX;
use crate::shard::settings::Settings;
use crate::time::Wall;
use crate::tls;

mod check;
mod file;
mod finding;
pub mod keys;
mod read;
mod summary;
#[cfg(test)]
mod tests;

pub use check::keep_scram_secret;
pub use file::Pump;
pub(crate) use file::not_toml;
pub use finding::{Finding, Findings, Severity};
pub(crate) use read::{At, Section, did_you_mean, in_words, printable, tables};
pub use summary::{pattern_text, rule_text};

/// Everything the node needs to start.
#[derive(Debug)]
pub struct Loaded {
    /// What the shards hold.
    pub settings: Arc<Settings>,
    pub node: Node,
    /// Where to listen: the address of each of `settings.listeners`, in the same order.
    pub addresses: Vec<SocketAddr>,
    /// Asked instead of the system's name servers.
    pub nameserver: Option<SocketAddr>,
    /// The SQLite file.
    pub store: PathBuf,
    pub admin: Admin,
    /// No dialback secret is configured, so this start's own is used.
    pub secret_is_drawn: bool,
    /// `error` to `trace`.
    pub log_level: &'static str,
    /// Authorities believed about other domains.
    pub roots: Arc<tls::Roots>,
    /// The clock inside `settings.tls`: whoever reads the real one sets it.
    pub clock: tls::Clock,
    /// Files whose change should cause a reload: this file, certificates, keys, secrets, bundle.
    pub watched: Vec<PathBuf>,
    /// What an operator should know; none of them errors.
    pub warnings: Findings,
}

/// The process itself. Fixed while it lives.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub pump: Pump,
    /// Busy waiting before a shard sleeps.
    pub spin: Duration,
    /// The folder for what outlives the process.
    pub state: PathBuf,
}

/// Where operators come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Loopback only.
    pub http: Option<SocketAddr>,
    pub socket: PathBuf,
}

/// What the host is like, as far as checks depend on it.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Cores this process may use.
    pub cores: u16,
    /// For certificates.
    pub now: Wall,
    /// The system's CA bundle, if there is one.
    pub bundle: Option<PathBuf>,
}

impl Environment {
    /// Asks the host.
    pub fn of_host() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the configuration is read outside the engine"
        )]
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let cores = core_affinity::get_core_ids().map_or(1, |it| it.len());
        Self {
            cores: u16::try_from(cores).unwrap_or(u16::MAX).clamp(1, SHARDS_MAX),
            now: Wall(u64::try_from(since.as_micros()).unwrap_or_default()),
            bundle: BUNDLES.iter().map(PathBuf::from).find(|it| it.is_file()),
        }
    }
}

/// Reads, checks and builds. `Err` holds at least one error.
pub fn load(path: &Path) -> Result<Loaded, Findings> {
    load_in(path, &Environment::of_host())
}

/// The same, on a host of the caller's making.
pub fn load_in(path: &Path, host: &Environment) -> Result<Loaded, Findings> {
    let source = match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => return Err(unreadable(path, "the configuration is not UTF-8 text", "")),
        Err(fault) => {
            let what = format!("the configuration can't be read: {}", in_words(&fault));
            let mend = "`tandem demo --write DIR` leaves one to start from";
            return Err(unreadable(path, &what, mend));
        }
    };
    let mut found = Findings::new(path, &source);
    let file = file::read(&source, &mut found);
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    check::check(path, folder, file, host, found)
}

fn unreadable(path: &Path, what: &str, mend: &str) -> Findings {
    let mut found = Findings::new(path, "");
    found.push(Finding::error("C0102", 0..0, what).mend(mend));
    found
}

/// Where Debian, Fedora and Alpine keep their authorities.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
