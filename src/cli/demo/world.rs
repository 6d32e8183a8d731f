//! The two switches of the demo: their folders, certificates, configurations and processes.
//!
//! Each is `tandem run` in a process of its own, as in service: same program, same way to start,
//! same way to end.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::ctl;
use crate::cli::demo::client::{Trouble, now};
use crate::cli::demo::write::private_file;
use crate::control::authority::{Authority, Purpose};
use crate::time::Wall;

/// A folder that goes away with the demo.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    /// A new one below the system's.
    pub(super) fn new() -> Result<Self, Trouble> {
        let mut mark = [0; 4];
        getrandom::fill(&mut mark).map_err(|it| Trouble(it.to_string()))?;
        let name = format!("tandem-demo-{:08x}", u32::from_be_bytes(mark));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A throw-away authority; valid for a month around now.
pub(super) fn authority() -> Result<Authority, Trouble> {
    const DAY: u64 = 86_400_000_000;
    let now = now().0;
    Authority::new("Tandem demo authority", Wall(now.saturating_sub(DAY)), Wall(now + 30 * DAY))
        .map_err(|it| Trouble(it.to_string()))
}

/// Where one switch is to be.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) domain: &'static str,
    pub(super) client: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) sip: SocketAddr,
    pub(super) admin: SocketAddr,
    folder: PathBuf,
}

impl Place {
    /// Free ports on loopback, and a folder.
    pub(super) fn find(domain: &'static str, below: &Path) -> Result<Self, Trouble> {
        // All four are held until all are known, so that they differ.
        let held: Vec<TcpListener> = (0..4)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()?;
        let mut addresses = held.iter().map(TcpListener::local_addr);
        let mut next = || addresses.next().ok_or_else(|| Trouble("no port".to_owned()));
        let (client, peer, sip, admin) = (next()??, next()??, next()??, next()??);
        Ok(Self { domain, client, peer, sip, admin, folder: below.join(domain) })
    }

    /// Writes certificate and configuration.
    pub(super) fn furnish(
        &self,
        authority: &Authority,
        nameserver: SocketAddr,
    ) -> Result<(), Trouble> {
        fs::create_dir(&self.folder)?;
        let names = [self.domain, &self.sip_name()];
        let issued =
            authority.issue(&names, Purpose::Both).map_err(|it| Trouble(it.to_string()))?;
        fs::write(self.folder.join("certificate.pem"), issued.cert_pem)?;
        private_file(&self.folder.join("key.pem"), issued.key_pem.as_bytes())?;
        fs::write(self.folder.join("ca.pem"), authority.root_pem())?;
        fs::write(self.config(), self.text(nameserver))?;
        Ok(())
    }

    /// What SIP partners know it by: a host directly in its domain.
    pub(super) fn sip_name(&self) -> String {
        format!("sip.{}", self.domain)
    }

    fn config(&self) -> PathBuf {
        self.folder.join("tandem.toml")
    }

    /// The control socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("ctl.sock")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn text(&self, nameserver: SocketAddr) -> String {
        let Self { domain, client, peer, sip, admin, .. } = self;
        let sip_name = self.sip_name();
        format!(
            "[node]\nname = \"{domain}\"\nshards = 2\nstate = \".\"\n\n\
             [[domain]]\nname = \"{domain}\"\nsip_name = \"{sip_name}\"\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n\n\
             [[listen]]\naddress = \"{client}\"\nparty = \"client\"\n\n\
             [[listen]]\naddress = \"{peer}\"\nparty = \"peer\"\n\n\
             [[listen]]\naddress = \"{sip}\"\nparty = \"sip\"\n\n\
             [federation]\ndefault = \"allow\"\nnameserver = \"{nameserver}\"\nprivate_addresses = true\n\n\
             [[peer]]\npattern = \"contoso.example\"\naction = \"allow\"\nprotocol = \"sip\"\nprivate_addresses = true\nrate = 200\n\n\
             [admin]\nhttp = \"{admin}\"\nsocket = \"ctl.sock\"\n\n\
             [trust]\nca_bundle = \"ca.pem\"\n"
        )
    }
}

/// A switch that runs.
pub(super) struct Switch {
    child: Child,
    socket: PathBuf,
    /// What it said when it was ready.
    pub(super) ready: String,
}

impl Switch {
    /// Starts it and waits until it is ready.
    pub(super) fn start(place: &Place) -> Result<Self, Trouble> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["run", "--while-stdin"])
            .arg(place.config())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(place.log())?)
            .spawn()?;
        let Some(stdout) = child.stdout.take() else { return Err(Trouble("no output".to_owned())) };
        let (said, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // After the first nobody listens, and the pipe is only kept empty.
                said.send(line).ok();
            }
        });
        match lines.recv_timeout(START) {
            Ok(ready) => Ok(Self { child, socket: place.socket(), ready }),
            Err(fault) => {
                if fault == RecvTimeoutError::Timeout {
                    child.kill().ok();
                }
                child.wait().ok();
                let log = fs::read_to_string(place.log()).unwrap_or_default();
                Err(Trouble(format!(
                    "the switch of {} did not start:\n{}",
                    place.domain,
                    log.trim_end()
                )))
            }
        }
    }

    /// Adds an account, as `tandem ctl user add` does.
    pub(super) fn add_user(&self, address: &str, password: &str) -> Result<(), Trouble> {
        ctl::add_user(&self.socket, address, password).map_err(Trouble)
    }
}

/// In order if it listens, else by force: nothing may be left running.
impl Drop for Switch {
    fn drop(&mut self) {
        let asked = ctl::stop(&self.socket).is_ok();
        let deadline = Instant::now() + if asked { STOP } else { Duration::ZERO };
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
                Ok(Some(_)) => return,
                _ => break,
            }
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A busy host may take a while to start two processes.
const START: Duration = Duration::from_secs(15);
/// For goodbyes.
const STOP: Duration = Duration::from_secs(5);
