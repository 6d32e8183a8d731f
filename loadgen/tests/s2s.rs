//! Played XMPP servers against a Tandem that is started for it: streams in and out, by certificate
//! and by dialback, presence both ways, and servers that misbehave.

#![expect(clippy::unwrap_used, reason = "a test's own stage ends it where it fails")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tandem_loadgen::engine::{self, raw::Raw};
use tandem_loadgen::measure::Watched;
use tandem_loadgen::played::certificates::Authority;
use tandem_loadgen::s2s_chat::{Plan, Way};
use tandem_loadgen::scenario::model::{Kind, Scenario, Tls};

const DOMAIN: &str = "t.example";
const USERS: usize = 6;

/// The program under test: named by the environment, beside this one, or built now.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("TANDEM") {
        return path.into();
    }
    let own = std::env::current_exe().unwrap();
    let beside = own.parent().and_then(Path::parent).unwrap().join("tandem");
    if !beside.exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(root).args(["build", "--package", "tandem", "--bin", "tandem"]);
        if own.to_string_lossy().contains("/release/") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    }
    beside
}

/// A server that ends with its standard input.
struct Server {
    child: Child,
    folder: PathBuf,
    ip: Ipv4Addr,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

impl Server {
    /// An address of its own for each test, so that they may run side by side.
    fn start(number: u8) -> Self {
        let pid = std::process::id();
        let ip = Ipv4Addr::new(127, (pid >> 8) as u8 | 1, pid as u8, number);
        let folder = std::env::temp_dir().join(format!("loadgen-s2s-{pid}-{number}"));
        let certificates = folder.join("certificates");
        Authority::open(Some(&certificates)).unwrap().certificate(DOMAIN).unwrap();
        let config = format!(
            "[node]\nname = \"s2s\"\nshards = 1\nstate = \".\"\n\n\
             [[domain]]\nname = \"{DOMAIN}\"\ncertificate = \"certificates/{DOMAIN}.crt\"\n\
             key = \"certificates/{DOMAIN}.key\"\nplain = true\n\n\
             [[listen]]\naddress = \"{ip}:5222\"\nparty = \"client\"\nsecurity = \"optional\"\n\n\
             [[listen]]\naddress = \"{ip}:5269\"\nparty = \"peer\"\nsecurity = \"starttls\"\n\n\
             [[listen]]\naddress = \"{ip}:5270\"\nparty = \"peer\"\nsecurity = \"direct\"\n\n\
             [federation]\ndefault = \"allow\"\nauth = \"dialback\"\nnameserver = \"{ip}:5300\"\n\
             private_addresses = true\n\n\
             [admin]\nhttp = \"{ip}:5280\"\nsocket = \"ctl.sock\"\n\n\
             [accounts]\nscram_iterations = 4096\n\n\
             [trust]\nca_bundle = \"certificates/ca.crt\"\n"
        );
        fs::write(folder.join("tandem.toml"), config).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut child = Command::new(program())
            .args(["run", "--while-stdin"])
            .arg(folder.join("tandem.toml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.next();
        let it = Self { child, folder, ip };
        assert!(matches!(ready, Some(Ok(_))), "{}", it.log());
        std::thread::spawn(move || lines.for_each(drop));
        it.people();
        it
    }

    fn people(&self) {
        let mut child = Command::new(program())
            .args(["ctl", "--socket"])
            .arg(self.folder.join("ctl.sock"))
            .args(["user", "import"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let users: String = (0..USERS).map(|n| format!("u{n}@{DOMAIN} pw\n")).collect();
        child.stdin.take().unwrap().write_all(users.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    fn plan(&self, tls: Tls, way: Way) -> Plan {
        Plan {
            servers: self.at(if tls == Tls::Direct { 5270 } else { 5269 }),
            clients: self.at(5222),
            domain: DOMAIN.to_owned(),
            tls,
            client_tls: Tls::None,
            users: "u%d".to_owned(),
            password: "pw".to_owned(),
            count: USERS,
            peers: USERS,
            played: "d%02d.load.example".to_owned(),
            domains: 3,
            listen: self.at(15_269),
            listen_dns: Some(self.at(5300)),
            certificates: Some(self.folder.join("certificates")),
            dialback: false,
            way,
            outstanding: 1,
            rate: Some(300.0),
            octets: 120,
            core: None,
            warmup: Duration::from_millis(200),
            window: Duration::from_millis(800),
            watched: Watched::default(),
        }
    }

    fn run(&self, scenario: &Scenario) -> Raw {
        match engine::run(scenario, &mut |_| {}) {
            Ok(raw) => raw,
            Err(fault) => panic!("{fault}\n{}", self.log()),
        }
    }
}

/// What was sent came, once and in order.
fn all_came(raw: &Raw, server: &Server) {
    for flow in &raw.total.flows {
        let it = &flow.counts;
        let odd = (it.duplicated, it.reordered, it.corrupt, it.dropped, it.bounced.len());
        let steps = &raw.total.steps;
        assert_eq!(odd, (0, 0, 0, 0, 0), "{it:?} {steps:?}\n{}", server.log());
        assert!(it.due > 0 && it.delivered + it.superseded == it.due, "{it:?} {steps:?}");
    }
}

#[test]
fn messages_go_both_ways_by_certificate_and_by_dialback() {
    let server = Server::start(11);
    for (tls, dialback) in [(Tls::StartTls, false), (Tls::StartTls, true), (Tls::Direct, false)] {
        let plan = Plan { dialback, ..server.plan(tls, Way::Both) };
        // Tandem remembers which of the ports a domain has.
        let plan = match (tls, dialback) {
            (Tls::Direct, _) => {
                Plan { played: "x%02d.load.example".to_owned(), listen: server.at(15_270), ..plan }
            }
            (_, true) => Plan { played: "b%02d.load.example".to_owned(), ..plan },
            _ => plan,
        };
        let raw = server.run(&plan.scenario());
        all_came(&raw, &server);
        let steps = &raw.total.steps;
        assert_eq!(steps["stream"].ok, 3, "{tls:?} {dialback}: {steps:?}");
        assert!(steps["inbound"].ok >= 3, "{tls:?} {dialback}: {steps:?}");
    }
}

#[test]
fn a_closed_loop_keeps_its_pairs_busy() {
    let server = Server::start(12);
    let plan = Plan { rate: None, ..server.plan(Tls::StartTls, Way::Both) };
    let result = tandem_loadgen::s2s_chat::run(&plan).unwrap();
    assert!(result["delivered_in_window"].as_u64().unwrap() > 100, "{result}");
    assert_eq!(result["sound"], true, "{result}");
    assert_eq!(result["account"]["sent"], result["account"]["delivered"]);
}

#[test]
fn presence_goes_both_ways_after_subscriptions() {
    let server = Server::start(13);
    let mut scenario = server.plan(Tls::StartTls, Way::Both).scenario();
    for flow in &mut scenario.flows {
        flow.kind = Kind::Presence;
        (flow.presentities, flow.watchers) = (2, 3);
    }
    for stage in &mut scenario.stages {
        stage.rate_per_s = 40.0;
    }
    let raw = server.run(&scenario);
    all_came(&raw, &server);
}

#[test]
fn a_domain_that_is_not_there_bounces() {
    let server = Server::start(14);
    let mut scenario = server.plan(Tls::StartTls, Way::Out).scenario();
    let mut other = scenario.populations[1].clone();
    other.name = "away".to_owned();
    other.address = "p%d@none.example".to_owned();
    other.domains = 1;
    other.users = 3;
    other.listen = None;
    other.listen_dns = None;
    scenario.flows[0].to = "away".to_owned();
    scenario.populations.push(other);
    let raw = server.run(&scenario);
    let it = &raw.total.flows[0].counts;
    assert_eq!(it.bounced.values().sum::<u64>(), it.due, "{it:?} {:?}", raw.total.steps);
    assert!(it.bounced.contains_key("remote-server-not-found"), "{it:?}");
}

/// A server that takes a connection and says this.
fn bad(text: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                drop(stream.write_all(text));
                drop(stream.read_to_end(&mut Vec::new()));
            });
        }
    });
    at
}

#[test]
fn servers_that_misbehave_end_the_set_up_with_their_kind() {
    let rows: [(&[u8], &str, &str); 3] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "stream", "garbage"),
        (b"<stream:stream id='1' version='1.0'><stream:features/>", "starttls", "not offered"),
        (
            b"<stream:stream id='1' version='1.0'><stream:features><starttls/></stream:features>\
              <proceed/>no TLS record",
            "stream",
            "garbage",
        ),
    ];
    for (text, step, reason) in rows {
        let at = bad(text);
        let plan = Plan {
            servers: at,
            clients: at,
            domain: DOMAIN.to_owned(),
            tls: Tls::StartTls,
            client_tls: Tls::None,
            users: "u%d".to_owned(),
            password: String::new(),
            count: 2,
            peers: 2,
            played: "d%d.load.example".to_owned(),
            domains: 2,
            listen: "127.0.0.1:0".parse().unwrap(),
            listen_dns: None,
            certificates: None,
            dialback: false,
            way: Way::In,
            outstanding: 1,
            rate: None,
            octets: 100,
            core: None,
            warmup: Duration::ZERO,
            window: Duration::from_millis(100),
            watched: Watched::default(),
        };
        let mut scenario = plan.scenario();
        scenario.flows[0].to = "peers".to_owned();
        scenario.populations.remove(0);
        let fault = engine::run(&scenario, &mut |_| {}).err().map(|f| (f.step, f.reason));
        let Some((at, why)) = fault else { panic!("no fault after {step}") };
        assert!(at == step && why.contains(reason), "{at}: {why}");
    }
}
