//! The programs that are measured: how each is configured, provisioned and started.
//!
//! All are started fresh in a directory of their own, pinned, and ended by their own process.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::federation::{Federation, Places};
use crate::sip::{self, Sip};

mod peers;

/// The domain of all users.
pub(crate) const DOMAIN: &str = "load.example";
const PATIENCE: Duration = Duration::from_secs(30);
/// A hundred thousand rows of rosters take their time.
const LOADING: Duration = Duration::from_secs(300);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Subject {
    /// The bare relay on epoll.
    BareEpoll,
    /// The bare relay on the ring.
    BareUring,
    /// Tandem on the ring.
    TandemRing,
    /// Tandem on epoll.
    TandemEpoll,
    /// The server that takes logins by a script.
    Scripted,
    /// Prosody of Debian.
    Prosody,
    /// ejabberd of Debian.
    Ejabberd,
    /// Kamailio of Debian, each subscription in its file before it is answered.
    Kamailio,
    /// The same with subscriptions in memory alone.
    KamailioMemory,
}

impl Subject {
    /// As it stands in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BareEpoll => "bare-epoll",
            Self::BareUring => "bare-uring",
            Self::TandemRing => "tandem-ring",
            Self::TandemEpoll => "tandem-epoll",
            Self::Scripted => "scripted",
            Self::Prosody => "prosody",
            Self::Ejabberd => "ejabberd",
            Self::Kamailio => "kamailio",
            Self::KamailioMemory => "kamailio-memory",
        }
    }

    /// Whether it does without knowing XMPP or anybody.
    pub(crate) fn is_bare(self) -> bool {
        matches!(self, Self::BareEpoll | Self::BareUring | Self::Scripted)
    }

    /// Whether its users are known by SIP alone.
    pub(crate) fn is_sip(self) -> bool {
        matches!(self, Self::Kamailio | Self::KamailioMemory)
    }

    /// Whether it starts with the rosters that presence needs.
    pub(crate) fn has_rosters(self) -> bool {
        matches!(self, Self::Prosody | Self::Ejabberd)
    }
}

/// What a server is started with.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// The bar: each has users of its own, so that none finds what another left in a roster.
    pub bar: String,
    /// The directory of the run, with cert.pem and key.pem in it.
    pub dir: PathBuf,
    /// Cores, as taskset takes them.
    pub cores: String,
    /// Tandem's program.
    pub tandem: PathBuf,
    /// Users u0, u1, …
    pub users: usize,
    /// Tandem's shards.
    pub shards: usize,
    /// The first so many users are watched by all others; 0: nobody is.
    pub presentities: usize,
    /// Whether clients will want stream management.
    pub managed: bool,
    /// Octets that a denominator should say per login or presence; 0: not known yet.
    pub octets: usize,
    /// What is needed where SIP is spoken.
    pub sip: Option<Sip>,
    /// What is needed where servers talk to one another.
    pub federation: Option<Federation>,
    /// Foreign domains that Tandem has a rule for, each its own.
    pub domains: usize,
    /// A file with the names of the clients, one a line; otherwise they are the first users.
    pub names: Option<PathBuf>,
}

impl Stage {
    /// A directory and a program; nobody is there yet.
    pub(crate) fn of(dir: &Path, tandem: PathBuf) -> Self {
        Self {
            bar: String::new(),
            dir: dir.to_owned(),
            cores: "0".to_owned(),
            tandem,
            users: 0,
            shards: 1,
            presentities: 0,
            managed: false,
            octets: 0,
            sip: None,
            federation: None,
            domains: 0,
            names: None,
        }
    }
}

/// A server that takes connections.
pub(crate) struct Running {
    child: Child,
    cores: String,
    command: Vec<String>,
    log: PathBuf,
    /// Where it takes plain connections.
    pub plain: SocketAddr,
    /// Where it takes TLS from the first byte.
    pub tls: SocketAddr,
    /// Where it takes SIP over plain TCP, if it was told to.
    pub sip: SocketAddr,
    /// Where it expects the edge of its partner.
    pub edge: SocketAddr,
    /// Where it meets other servers, if it was told to.
    pub places: Places,
    /// It has children, who are ended by itself.
    ends_itself: bool,
    /// Its counters, if it keeps any in a file.
    pub counters: Option<PathBuf>,
    /// A file for what the generator salts for its users.
    pub kept: PathBuf,
    /// Where it tells its metrics, if it does.
    metrics: Option<SocketAddr>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ends_itself {
            // SAFETY: no pointers; the child was not waited for, so the number is still its own.
            unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
            let end = Instant::now() + PATIENCE;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
                thread::sleep(Duration::from_millis(20));
            }
        }
        // It may have ended by itself; either way nobody is left.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Running {
    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process and starts another on what it stored.
    pub(crate) fn again(&mut self) -> Result<(), String> {
        let fault = |e: std::io::Error| e.to_string();
        self.child.kill().map_err(fault)?;
        self.child.wait().map_err(fault)?;
        // What a ring holds, the kernel gives up a moment after the process is gone.
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(self.tls).is_ok() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        self.child = spawn(&self.cores, &self.command, &self.log)?;
        wait_for(self.tls, &mut self.child)
    }

    /// What a pump of Tandem's has counted so far: deliveries of octets, and turns.
    pub(crate) fn turns(&self) -> Option<(f64, f64)> {
        let text = self.figures()?;
        Some((
            figure(&text, "tandem_net_receives_total ")?,
            figure(&text, "tandem_net_turns_total ")?,
        ))
    }

    /// Records that shards of Tandem's have put into the rings between them so far.
    pub(crate) fn crossings(&self) -> Option<f64> {
        figure(&self.figures()?, "tandem_net_mesh_posts_total ")
    }

    fn figures(&self) -> Option<String> {
        let mut stream = TcpStream::connect(self.metrics?).ok()?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// The most that the process ever had in memory, in octets.
    pub(crate) fn peak(&self) -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024.0)
    }
}

fn figure(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

/// What [`certificate`] makes, which decides what a handshake costs.
pub(crate) const KEY_TYPE: &str = "ecdsa-p256";

/// Makes the certificate that all servers show.
pub(crate) fn certificate(dir: &Path) -> Result<(), String> {
    let mut params =
        rcgen::CertificateParams::new([DOMAIN.to_owned()]).map_err(|e| e.to_string())?;
    // rcgen's own choice ends in the year 4096, which ejabberd's keeper of certificates dies of.
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2024, 1, 1), rcgen::date_time_ymd(2040, 1, 1));
    // rcgen's own choice of a key is P-256.
    let key = rcgen::KeyPair::generate().map_err(|e| e.to_string())?;
    let made = params.self_signed(&key).map_err(|e| e.to_string())?;
    write(&dir.join("cert.pem"), &made.pem())?;
    write(&dir.join("key.pem"), &key.serialize_pem())
}

/// Starts a server and waits until it takes connections.
pub(crate) fn start(subject: Subject, tls: bool, stage: &Stage) -> Result<Running, String> {
    let dir = stage.dir.join(format!("{}-{}", stage.bar, subject.name()));
    if stage.sip.is_some() && dir.exists() {
        // Dialogs of an edge that is no more would be work for nothing.
        fs::remove_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let (plain, secure) = (free_port("127.0.0.1")?, free_port("127.0.0.1")?);
    let (at, edge) = (free_port("127.0.0.1")?, free_port("127.0.0.5")?);
    let places = Places::free()?;
    let (mut metrics, mut ready) = (None, None);
    let (command, counters) = match subject {
        Subject::BareEpoll | Subject::BareUring if stage.sip.is_some() => {
            sip::pattern(subject, at, plain, &dir, stage)?
        }
        Subject::BareEpoll | Subject::BareUring => {
            let port = if tls { secure } else { plain };
            bare(subject, tls, port, &dir, stage)?
        }
        Subject::Scripted => (scripted(secure, stage)?, None),
        Subject::TandemRing | Subject::TandemEpoll => {
            let pump = if subject == Subject::TandemRing { "ring" } else { "epoll" };
            let admin = free_port("127.0.0.1")?;
            metrics = Some(admin);
            let of_sip = stage.sip.as_ref().map_or_else(String::new, |it| it.tandem(at, edge));
            (tandem(pump, [plain, secure, admin], &of_sip, places, &dir, stage)?, None)
        }
        Subject::Prosody => (peers::prosody(plain, secure, &dir, stage)?, None),
        Subject::Ejabberd => {
            ready = Some(dir.join("ready"));
            (peers::ejabberd(plain, secure, &dir, stage)?, None)
        }
        Subject::Kamailio | Subject::KamailioMemory => (sip::kamailio(subject, at, &dir)?, None),
    };
    let (log, kept) = (dir.join("output.log"), dir.join("salted.txt"));
    let child =
        spawn(&stage.cores, &command, &log).map_err(|e| format!("{}: {e}", subject.name()))?;
    let cores = stage.cores.clone();
    let ends_itself = subject.is_sip();
    let mut running = Running {
        child,
        cores,
        command,
        log,
        plain,
        tls: secure,
        sip: at,
        edge,
        places,
        ends_itself,
        counters,
        kept,
        metrics,
    };
    stands(subject, tls, stage, ready.as_deref(), &mut running)
        .map_err(|e| format!("{} {e}; see {}", subject.name(), dir.display()))?;
    if matches!(subject, Subject::TandemRing | Subject::TandemEpoll) {
        provision_tandem(&dir, stage)?;
    }
    Ok(running)
}

/// Waits until a server can be loaded.
fn stands(
    subject: Subject,
    tls: bool,
    stage: &Stage,
    ready: Option<&Path>,
    running: &mut Running,
) -> Result<(), String> {
    let door = if tls { running.tls } else { running.plain };
    match (&running.counters, subject) {
        // Its places are given in order, so nobody knocks.
        (Some(counters), _) if stage.sip.is_some() => {
            let counters = counters.clone();
            wait_until(|| counters.exists(), &mut running.child, PATIENCE)
        }
        _ if subject.is_sip() => wait_for(running.sip, &mut running.child),
        _ => wait_for(door, &mut running.child),
    }?;
    // Whoever makes accounts when it has started says when they are there.
    if let Some(ready) = ready {
        wait_until(|| ready.exists(), &mut running.child, LOADING)?;
    }
    if subject.is_bare() && stage.sip.is_none() {
        // The knock was a connection too: it gets a partner, so that pairs begin at an even place.
        drop(TcpStream::connect(door));
    }
    Ok(())
}

fn spawn(cores: &str, command: &[String], log: &Path) -> Result<Child, String> {
    let log = File::options().create(true).append(true).open(log).map_err(|e| e.to_string())?;
    pinned(cores, command)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(|e| e.to_string())?)
        .stderr(log)
        .spawn()
        .map_err(|e| e.to_string())
}

/// `taskset` replaces itself by the program, so the process id is the program's.
fn pinned(cores: &str, line: &[String]) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cores).args(line);
    command
}

pub(crate) fn bare(
    subject: Subject,
    tls: bool,
    port: SocketAddr,
    dir: &Path,
    stage: &Stage,
) -> Result<(Vec<String>, Option<PathBuf>), String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let counters = dir.join("counters");
    let engine = if subject == Subject::BareEpoll { "epoll" } else { "uring" };
    let mut line = vec![text(&own), "bare-relay".into(), "--engine".into(), engine.into()];
    line.extend(["--listen".into(), port.to_string(), "--counters".into(), text(&counters)]);
    if tls {
        line.extend(["--tls".into(), text(&stage.dir)]);
    }
    if stage.presentities > 0 {
        line.push("--fan-out".into());
    }
    Ok((line, Some(counters)))
}

fn scripted(at: SocketAddr, stage: &Stage) -> Result<Vec<String>, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut line = vec![text(&own), "scripted".into(), "--listen".into(), at.to_string()];
    line.extend(["--tls".into(), text(&stage.dir), "--domain".into(), DOMAIN.into()]);
    line.extend(["--octets".into(), stage.octets.to_string()]);
    Ok(line)
}

/// Tandem's command line and configuration: the one place that knows them.
fn tandem(
    pump: &str,
    [plain, tls, admin]: [SocketAddr; 3],
    of_sip: &str,
    places: Places,
    dir: &Path,
    stage: &Stage,
) -> Result<Vec<String>, String> {
    let state = dir.display();
    let shards = stage.shards;
    let known: String = (0..stage.domains)
        .map(|n| format!("[[peer]]\npattern = \"d{n}.known.example\"\naction = \"allow\"\n"))
        .collect();
    let (federation, [certificate, key]) = match stage.federation {
        Some(_) => places.tandem(&stage.dir)?,
        None => (
            "[federation]\ndefault = \"deny\"\n".to_owned(),
            ["cert.pem", "key.pem"].map(|name| stage.dir.join(name)),
        ),
    };
    let (certificate, key) = (certificate.display(), key.display());
    let config = format!(
        "[node]\nname = \"bench\"\nshards = {shards}\npump = \"{pump}\"\nstate = \"{state}\"\n\
         [[domain]]\nname = \"{DOMAIN}\"\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n\
         [[listen]]\naddress = \"{plain}\"\nparty = \"client\"\nsecurity = \"optional\"\n\
         [[listen]]\naddress = \"{tls}\"\nparty = \"client\"\nsecurity = \"direct\"\n\
         {of_sip}{known}{federation}\
         [admin]\nhttp = \"{admin}\"\nsocket = \"{state}/ctl.sock\"\n\
         [log]\nlevel = \"warn\"\n\
         [accounts]\nscram_iterations = 4096\n"
    );
    let path = dir.join("tandem.toml");
    write(&path, &config)?;
    Ok(vec![text(&stage.tandem), "run".into(), text(&path)])
}

/// Makes the users through the running node, as an administrator would.
fn provision_tandem(dir: &Path, stage: &Stage) -> Result<(), String> {
    let mut list = String::new();
    for user in 0..stage.users {
        list += &format!("u{user}@{DOMAIN} pw\n");
    }
    let path = dir.join("users.txt");
    write(&path, &list)?;
    // The listeners stand a moment before the control socket does.
    let socket = dir.join("ctl.sock");
    for _ in 0..500 {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let done = Command::new(&stage.tandem)
        .args(["ctl", "--socket"])
        .arg(dir.join("ctl.sock"))
        .args(["user", "import"])
        .stdin(File::open(&path).map_err(|e| e.to_string())?)
        .output()
        .map_err(|e| format!("tandem ctl: {e}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("tandem ctl user import: {}", String::from_utf8_lossy(&done.stderr)))
}

fn wait_for(address: SocketAddr, child: &mut Child) -> Result<(), String> {
    wait_until(|| TcpStream::connect(address).is_ok(), child, PATIENCE)
        .map_err(|e| format!("{e}, at {address}"))
}

fn wait_until(
    mut stands: impl FnMut() -> bool,
    child: &mut Child,
    patience: Duration,
) -> Result<(), String> {
    let end = Instant::now() + patience;
    while !stands() {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("ended with {status}"));
        }
        if Instant::now() > end {
            return Err("does not listen".to_owned());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A port that nobody listens on; another program may take it, and then the start fails.
pub(crate) fn free_port(on: &str) -> Result<SocketAddr, String> {
    std::net::TcpListener::bind((on, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|e| e.to_string())
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
