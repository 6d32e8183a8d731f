//! A switch in a process, its partner, a name server, and clients, all on addresses of loopback that no other has.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tandem::cli::demo::client::{Client, Login, Trouble, now};
use tandem::cli::demo::dns::{self, Zone};
use tandem::cli::demo::edge::{Edge, Keys, Message, Partner, Setup};
use tandem::cli::demo::element::Element;
use tandem::control::authority::{Authority, Purpose};
use tandem::time::Wall;
use tandem::tls::{CertStore, Clock, Roots};

/// What a flow tells, or what did not hold.
pub(crate) type Seen = Result<String, Trouble>;

/// Who has an account; the partner's people are zoe, and one for each that needs another.
const USERS: &[&str] = &["bob", "ben", "eve"];
pub(crate) const LOCAL: &str = "fabrikam.example";
pub(crate) const FAR: &str = "contoso.example";

pub(crate) struct Stage {
    folder: tempfile::TempDir,
    authority: Authority,
    /// The switch's address; the partners' are the next ones.
    here: Ipv4Addr,
    node: Mutex<Option<Child>>,
    pub(crate) edge: Edge,
    /// The switch's domain, and the partner's.
    pub(crate) local: &'static str,
    pub(crate) far: &'static str,
}

impl Stage {
    pub(crate) fn new(flow: &str) -> Result<Self, Trouble> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let third = NEXT.fetch_add(1, Ordering::Relaxed);
        let second = u8::try_from(std::process::id() % 200).unwrap_or_default() + 20;
        let here = Ipv4Addr::new(127, second, third, 1);
        let now = now().0;
        let authority = Authority::new("flows", Wall(now - DAY), Wall(now + DAY)).map_err(words)?;
        let (local, far) = match flow {
            // The switch below the partner, above it, and beside it.
            "S1" => ("imp.cisco.example", "cisco.example"),
            "S2" => ("cisco.example", "foreign.cisco.example"),
            "S3" => ("cup.cisco.example", "foreign.cisco.example"),
            _ => (LOCAL, FAR),
        };
        let name = format!("edge.{far}");
        let names: &[&str] = match flow {
            // The one with the wrong name, and the one with two.
            "F12d" => &["contoso.example"],
            "T22" => &["edge.contoso.example", "edge.litware.example"],
            _ => &[&name],
        };
        let edge = edge(&authority, far, &name, names, at(here, 2))?;
        edge.user("zoe");
        edge.partner(partner(local, here));
        let (folder, node) = (tempfile::tempdir()?, Mutex::new(None));
        let stage = Self { folder, authority, here, node, edge, local, far };
        stage.furnish(flow)?;
        stage.people()?;
        stage.start()?;
        Ok(stage)
    }

    /// Accounts are made once, for keys cost time, and every stage gets a copy of that store.
    fn people(&self) -> Result<(), Trouble> {
        static MADE: Mutex<Vec<(OsString, Vec<u8>)>> = Mutex::new(Vec::new());
        static OTHERS: Mutex<Vec<(OsString, Vec<u8>)>> = Mutex::new(Vec::new());
        // Another domain has other people.
        let mut made = match self.local {
            LOCAL => MADE.lock().map_err(words)?,
            _ => OTHERS.lock().map_err(words)?,
        };
        if self.local != LOCAL {
            made.clear();
        }
        if made.is_empty() {
            self.start()?;
            let accounts: String =
                USERS.iter().map(|it| format!("{it}@{} {PASSWORD}\n", self.local)).collect();
            self.ctl(&["user", "import"], &accounts)?;
            self.ctl(&["stop"], "")?;
            if let Some(mut child) = self.node.lock().map_err(words)?.take() {
                child.wait()?;
            }
            let settings = ["pem", "toml"].map(Some);
            for entry in fs::read_dir(self.folder.path())? {
                let path = entry?.path();
                let kind = path.extension().and_then(OsStr::to_str);
                if path.is_file() && !settings.contains(&kind) && path != self.log() {
                    let name = path.file_name().unwrap_or_default().to_owned();
                    made.push((name, fs::read(&path)?));
                }
            }
        }
        for (name, bytes) in made.iter() {
            fs::write(self.folder.path().join(name), bytes)?;
        }
        Ok(())
    }

    fn furnish(&self, flow: &str) -> Result<(), Trouble> {
        let folder = self.folder.path();
        let Self { local, far, here, .. } = *self;
        let names = [&format!("imp1.{local}"), local];
        let issued = self.authority.issue(&names, Purpose::Both).map_err(words)?;
        fs::write(folder.join("certificate.pem"), issued.cert_pem)?;
        fs::write(folder.join("key.pem"), issued.key_pem)?;
        fs::write(folder.join("ca.pem"), self.authority.root_pem())?;
        let zones = vec![
            Zone::sip(far, &format!("edge.{far}"), at(here, 2), 5061),
            Zone::sip("new.example", "edge.new.example", at(here, 3), 5061),
            Zone::sip("litware.example", "edge.litware.example", at(self.here, 2), 5061),
            // A target that its owner may be right about, and nobody else can know.
            Zone::sip("evil.example", "edge.contoso.example", at(self.here, 2), 5061),
        ];
        let (nameserver, _) = dns::serve(zones)?;
        // As many as there are, but where the pace is what is looked at.
        let rate = if flow == "T21" { "" } else { "rate = 0\n" };
        let peers: String =
            [far, "litware.example", "evil.example"].map(|it| peer(it) + rate + "\n").concat();
        let config = format!(
            "[node]\nname = \"flows\"\nshards = 2\nstate = \".\"\n\n\
             [[domain]]\nname = \"{local}\"\nsip_name = \"imp1.{local}\"\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n\n\
             [[listen]]\naddress = \"{here}:5222\"\nparty = \"client\"\n\n\
             [[listen]]\naddress = \"{here}:5061\"\nparty = \"sip\"\n\n\
             [federation]\ndefault = \"deny\"\nnameserver = \"{nameserver}\"\n\n{peers}\
             [admin]\nhttp = \"{here}:5280\"\nsocket = \"ctl.sock\"\n\n\
             [accounts]\nscram_iterations = 4096\n\n\
             [trust]\nca_bundle = \"ca.pem\"\n"
        );
        Ok(fs::write(self.config(), config)?)
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("tandem.toml")
    }

    /// Changes the configuration and has it read again.
    pub(crate) fn reload(&self, change: impl FnOnce(String) -> String) -> Result<String, Trouble> {
        fs::write(self.config(), change(fs::read_to_string(self.config())?))?;
        self.ctl(&["reload"], "")
    }

    /// A new certificate for the switch, of the same names.
    pub(crate) fn renew(&self) -> Result<(), Trouble> {
        let names = [&format!("imp1.{}", self.local), self.local];
        let issued = self.authority.issue(&names, Purpose::Both).map_err(words)?;
        fs::write(self.folder.path().join("certificate.pem"), issued.cert_pem)?;
        Ok(fs::write(self.folder.path().join("key.pem"), issued.key_pem)?)
    }

    /// Starts the switch and waits until it is ready.
    pub(crate) fn start(&self) -> Result<(), Trouble> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .args(["run", "--while-stdin"])
            .arg(self.config())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(self.log())?)
            .spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| Trouble("no output".to_owned()))?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = lines.next();
        *self.node.lock().expect("nobody panics with it") = Some(child);
        if !matches!(ready, Some(Ok(_))) {
            return Err(self.explained(Trouble("the switch did not start".to_owned())));
        }
        // The pipe is kept empty; nobody listens any more.
        thread::spawn(move || lines.for_each(drop));
        Ok(())
    }

    /// Kills it, as the power does.
    pub(crate) fn kill(&self) -> Result<(), Trouble> {
        if let Some(mut child) = self.node.lock().expect("nobody panics with it").take() {
            child.kill()?;
            child.wait()?;
        }
        // A ring that is torn down may hold its listeners a moment longer than the process lived.
        let deadline = Instant::now() + PATIENCE;
        while [5061, 5222].iter().any(|&it| TcpListener::bind((self.here, it)).is_err()) {
            ensure(Instant::now() < deadline, "the ports are still taken")?;
            thread::yield_now();
        }
        Ok(())
    }

    /// The folder of the switch's state.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("tandem.db")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// `tandem ctl`, with lines for its stdin.
    pub(crate) fn ctl(&self, args: &[&str], input: &str) -> Result<String, Trouble> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .args(["ctl", "--socket"])
            .arg(self.folder.path().join("ctl.sock"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(said),
            false => {
                Err(Trouble(format!("ctl: {said}{}", String::from_utf8_lossy(&output.stderr))))
            }
        }
    }

    /// Logs a user in: roster and presence, as a person's client does.
    pub(crate) fn login(&self, user: &'static str) -> Result<Client, Trouble> {
        let clock = Clock::default();
        clock.set(now());
        let tls = CertStore::build(&[], now(), &clock).map_err(|_| Trouble("no TLS".to_owned()))?;
        let login = Login {
            server: SocketAddr::from((self.here, 5222)),
            domain: self.local,
            user,
            password: PASSWORD.to_owned(),
            resource: "desk",
            roots: Arc::new(Roots::from_pem(self.authority.root_pem().as_bytes()).0),
            tls: Arc::new(tls),
        };
        let mut client = Client::login(&login)?;
        client.patience = PATIENCE;
        client
            .send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq><presence/>")?;
        client.wait("the roster", |it| it.attribute("id") == "roster")?;
        client.wait("the own presence", |it| it.name == "presence")?;
        Ok(client)
    }

    /// One more partner, with a certificate for `names`.
    pub(crate) fn another(&self, domain: &str, names: &[&str]) -> Result<Edge, Trouble> {
        self.another_of(&self.authority, domain, names)
    }

    /// The same with another authority's certificate.
    pub(crate) fn another_of(
        &self,
        authority: &Authority,
        domain: &str,
        names: &[&str],
    ) -> Result<Edge, Trouble> {
        let edge = edge(authority, domain, &format!("edge.{domain}"), names, at(self.here, 3))?;
        edge.user("zoe");
        edge.partner(partner(self.local, self.here));
        Ok(edge)
    }

    /// What the partner holds against the switch fails the flow.
    pub(crate) fn faultless(&self) -> Result<(), Trouble> {
        match self.edge.faults().as_slice() {
            [] => Ok(()),
            all => Err(Trouble(format!("{} faults:\n{}", all.len(), all.join("\n")))),
        }
    }

    /// With the end of the switch's log, and the partner's complaints.
    pub(crate) fn explained(&self, trouble: Trouble) -> Trouble {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n    ");
        let faults = self.edge.faults().join("\n    ");
        let counts = self.edge.counts();
        let heard = self.edge.transcript().join("\n    ");
        Trouble(format!("{trouble}\n    {counts:?}\n    {heard}\n    {faults}\n    {end}"))
    }
}

/// Nothing may be left running.
impl Drop for Stage {
    fn drop(&mut self) {
        self.kill().ok();
    }
}

fn edge(
    authority: &Authority,
    domain: &str,
    name: &str,
    names: &[&str],
    at: Ipv4Addr,
) -> Result<Edge, Trouble> {
    let issued = authority.issue(names, Purpose::Both).map_err(words)?;
    let keys = Keys {
        certificate: issued.cert_pem,
        key: issued.key_pem,
        roots: authority.root_pem().to_owned(),
    };
    Edge::start(&Setup {
        domain: domain.to_owned(),
        name: name.to_owned(),
        listen: (at, 5061).into(),
        keys: Some(keys),
        strict: true,
    })
}

fn partner(local: &str, here: Ipv4Addr) -> Partner {
    let address = (here, 5061).into();
    Partner { domain: local.to_owned(), name: format!("imp1.{local}"), address }
}

/// A rule for a partner, as it is added by hand.
pub(crate) fn peer(domain: &str) -> String {
    format!(
        "[[peer]]\npattern = \"{domain}\"\naction = \"allow\"\nprotocol = \"sip\"\nprivate_addresses = true\n"
    )
}

fn at(here: Ipv4Addr, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = here.octets();
    Ipv4Addr::new(a, b, c, last)
}

fn words(fault: impl std::fmt::Display) -> Trouble {
    Trouble(fault.to_string())
}

/// `what` is said if it does not hold.
pub(crate) fn ensure(holds: bool, what: impl Into<String>) -> Result<(), Trouble> {
    if holds { Ok(()) } else { Err(Trouble(what.into())) }
}

/// The status an answer must have.
pub(crate) fn status(answer: &Message, wanted: u16) -> Result<(), Trouble> {
    ensure(answer.status == wanted, format!("{wanted} was due, not\n{answer:?}"))
}

/// A text that must be in a message.
pub(crate) fn contains(message: &Message, wanted: &str) -> Result<(), Trouble> {
    let whole = String::from_utf8_lossy(&message.raw);
    ensure(whole.contains(wanted), format!("no \"{wanted}\" in\n{whole}"))
}

/// A presence of somebody, of a type; empty is available.
pub(crate) fn presence(from: &'static str, kind: &'static str) -> impl Fn(&Element) -> bool {
    let is_from = move |it: &str| it == from || it.starts_with(&format!("{from}/"));
    move |it| it.name == "presence" && is_from(it.attribute("from")) && it.attribute("type") == kind
}

/// A text of somebody.
pub(crate) fn text(wanted: &str) -> impl Fn(&Element) -> bool + use<> {
    let wanted = wanted.to_owned();
    move |it| it.name == "message" && it.child_text("body") == wanted
}

/// A chat of a client.
pub(crate) fn say(client: &mut Client, to: &str, id: &str, text: &str) -> Result<(), Trouble> {
    client.send(&format!("<message to='{to}' type='chat' id='{id}'><body>{text}</body></message>"))
}

/// The condition with which a stanza has come back.
pub(crate) fn bounce(client: &mut Client, id: &str) -> Result<String, Trouble> {
    let is_it = |it: &Element| it.attribute("id") == id && it.attribute("type") == "error";
    Ok(client.wait("the error", is_it)?.condition().to_owned())
}

/// The local part of an account's whole address.
pub(crate) fn local(user: &str) -> String {
    format!("{user}@{LOCAL}")
}

const DAY: u64 = 86_400_000_000;
const PASSWORD: &str = "flows-flow";
/// Longer than the 5 s that a presence may be held back, and a busy host's moods.
const PATIENCE: Duration = Duration::from_secs(10);
