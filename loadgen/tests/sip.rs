//! Played SIP edges: against each other over all transports, against a Tandem that is started for
//! them, and against servers that misbehave.

#![expect(clippy::unwrap_used, reason = "a test's own stage ends it where it fails")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tandem_loadgen::engine::{self, raw::Raw};
use tandem_loadgen::ledger::{Counts, StepAccount};
use tandem_loadgen::played::certificates::Authority;
use tandem_loadgen::scenario::model::Scenario;
use tandem_loadgen::scenario::parse;

const DOMAIN: &str = "t.example";
const USERS: usize = 4;
const STAGES: &str = "[[stage]]\ntype = \"warmup\"\nrate = \"100/s\"\nfor = \"200ms\"\n\
    [[stage]]\ntype = \"hold\"\nrate = \"100/s\"\nfor = \"600ms\"\n[run]\ndrain = \"5s\"\n";

/// An address of its own for each test, so that they may run side by side.
fn own_ip(number: u8) -> Ipv4Addr {
    let pid = std::process::id();
    Ipv4Addr::new(127, (pid >> 8) as u8 | 1, pid as u8, number)
}

fn read(text: &str) -> Scenario {
    match parse(Path::new("test.toml"), text) {
        Ok(it) => it,
        Err(found) => panic!("{}", found.render(false)),
    }
}

/// Two edges that are each other's server.
fn two_edges(number: u8, transport: &str, kind: &str, more: &str) -> Scenario {
    let ip = own_ip(number);
    let edge = |name: &str, target: u16, listen: u16| {
        format!(
            "[[target]]\nname = \"{name}\"\naddress = \"{ip}:{target}\"\n\
             [[population]]\nname = \"{name}\"\nside = \"edge\"\ntarget = \"{name}\"\n\
             address = \"{name}%d@{name}.example\"\nusers = {USERS}\ntransport = \"{transport}\"\n\
             listen = \"{ip}:{listen}\"\n{more}"
        )
    };
    read(&format!(
        "name = \"two\"\n{}{}[[flow]]\nkind = \"{kind}\"\nfrom = \"a\"\nto = \"b\"\nwatchers = 2\n\
         presentities = 2\n{STAGES}",
        edge("a", 5062, 5061),
        edge("b", 5061, 5062),
    ))
}

/// How often each step went well, and what failed.
fn steps(raw: &Raw) -> String {
    let line = |(name, it): (&&str, &StepAccount)| format!("{name} {} {:?}; ", it.ok, it.failed);
    raw.total.steps.iter().map(line).collect()
}

/// What was sent came, once and in order.
fn all_came(raw: &Raw, log: &str) {
    for flow in &raw.total.flows {
        let it = &flow.counts;
        let odd = (it.duplicated, it.reordered, it.corrupt, it.dropped, it.bounced.len());
        let steps = steps(raw);
        assert_eq!(odd, (0, 0, 0, 0, 0), "{it:?} {steps}\n{log}");
        assert!(it.due > 0 && it.delivered + it.superseded == it.due, "{it:?} {steps}\n{log}");
    }
}

fn run(scenario: &Scenario) -> Raw {
    engine::run(scenario, &mut |_| {}).unwrap_or_else(|fault| panic!("{fault}"))
}

#[test]
fn edges_have_all_flows_over_all_transports() {
    let rows = [
        ("message", "", &["invite", "message"][..]),
        ("message", "pager = true\n", &["message"]),
        ("session", "", &["invite", "message", "bye"]),
        ("subscribe", "", &["subscribe_notify", "refresh"]),
        ("presence", "", &["subscribe_notify", "notify"]),
        ("options", "", &["options"]),
    ];
    for (number, transport) in [(21, "tcp"), (22, "tls"), (23, "udp")] {
        for (kind, more, steps) in rows {
            let raw = run(&two_edges(number, transport, kind, more));
            all_came(&raw, &format!("{transport} {kind} {more}"));
            for step in steps {
                let it = raw.total.steps.get(step);
                assert!(it.is_some_and(|it| it.ok > 0), "{transport} {kind} {step}");
            }
            assert!(
                !raw.total.steps.contains_key("check"),
                "{:?}",
                raw.total.steps["check"].failed
            );
        }
    }
}

#[test]
fn a_closed_loop_goes_round() {
    for kind in ["message", "options"] {
        let mut scenario = two_edges(24, "tcp", kind, "");
        scenario.run.closed = Some(2);
        let raw = run(&scenario);
        all_came(&raw, kind);
        assert!(raw.total.flows[0].counts.sent > 100, "{:?}", raw.total.flows[0].counts);
    }
}

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
    /// With a partner on an edge, over this transport and by this profile.
    fn start(number: u8, transport: &str, profile: &str) -> Self {
        let (pid, ip) = (std::process::id(), own_ip(number));
        let folder = std::env::temp_dir().join(format!("loadgen-sip-{pid}-{number}"));
        let certificates = folder.join("certificates");
        Authority::open(Some(&certificates)).unwrap().certificate(DOMAIN).unwrap();
        let names = if transport == "tls" { "names = [\"edge.example\"]\n" } else { "" };
        let config = format!(
            "[node]\nname = \"sip\"\nshards = 1\nstate = \".\"\n\n\
             [[domain]]\nname = \"{DOMAIN}\"\ncertificate = \"certificates/{DOMAIN}.crt\"\n\
             key = \"certificates/{DOMAIN}.key\"\nplain = true\n\n\
             [[listen]]\naddress = \"{ip}:5222\"\nparty = \"client\"\nsecurity = \"optional\"\n\n\
             [[listen]]\naddress = \"{ip}:5060\"\nparty = \"sip\"\nsecurity = \"{transport}\"\n\n\
             [[peer]]\npattern = \"edge.example\"\naction = \"allow\"\nprotocol = \"sip\"\n\
             profile = \"{profile}\"\ntransport = \"{transport}\"\ntargets = [\"{ip}:5070\"]\n\
             rate = 0\n{names}\n[federation]\ndefault = \"deny\"\nprivate_addresses = true\n\n\
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

    fn run(&self, transport: &str, pager: bool, flows: &str) -> Raw {
        let (ip, certificates) = (self.ip, self.folder.join("certificates"));
        let scenario = read(&format!(
            "name = \"gateway\"\n\
             [[target]]\nname = \"clients\"\naddress = \"{ip}:5222\"\ndomain = \"{DOMAIN}\"\n\
             [[target]]\nname = \"sip\"\naddress = \"{ip}:5060\"\ndomain = \"{DOMAIN}\"\n\
             [[population]]\nname = \"c\"\ntarget = \"clients\"\naddress = \"u%d@{DOMAIN}\"\n\
             users = {USERS}\npresence = true\n\
             [[population]]\nname = \"e\"\nside = \"edge\"\ntarget = \"sip\"\n\
             address = \"s%d@edge.example\"\nusers = {USERS}\ntransport = \"{transport}\"\n\
             listen = \"{ip}:5070\"\npager = {pager}\ncertificates = {certificates:?}\n\
             {flows}{STAGES}"
        ));
        match engine::run(&scenario, &mut |_| {}) {
            Ok(raw) => raw,
            Err(fault) => panic!("{fault}\n{}", self.log()),
        }
    }
}

const BOTH: &str = "[[flow]]\nkind = \"message\"\nfrom = \"e\"\nto = \"c\"\n\
    [[flow]]\nkind = \"message\"\nfrom = \"c\"\nto = \"e\"\n";

#[test]
fn messages_cross_a_gateway_both_ways() {
    let rows =
        [(31, "tcp", "lync"), (32, "tls", "lync"), (33, "udp", "webex"), (34, "tcp", "webex")];
    for (number, transport, profile) in rows {
        let server = Server::start(number, transport, profile);
        let raw = server.run(transport, profile == "webex", BOTH);
        all_came(&raw, &format!("{transport} {profile}\n{}", server.log()));
    }
}

#[test]
fn sessions_and_watchers_of_clients_come_to_their_ends() {
    let server = Server::start(35, "tcp", "lync");
    let flows = "[[flow]]\nname = \"s\"\nkind = \"session\"\nfrom = \"e\"\nto = \"c\"\nshare = 0.3\n\
        [[flow]]\nkind = \"subscribe\"\nfrom = \"e\"\nto = \"c\"\nwatchers = 2\n";
    let raw = server.run("tcp", false, flows);
    all_came(&raw, &server.log());
    assert!(raw.total.steps["refresh"].ok > 0, "{}", steps(&raw));
}

#[test]
fn presence_crosses_a_gateway_both_ways() {
    let server = Server::start(36, "tcp", "lync");
    let flows = "[[flow]]\nkind = \"presence\"\nfrom = \"e\"\nto = \"c\"\nwatchers = 2\n\
        presentities = 2\nshare = 0.1\n\
        [[flow]]\nkind = \"presence\"\nfrom = \"c\"\nto = \"e\"\nwatchers = 2\npresentities = 2\n\
        share = 0.1\n";
    let raw = server.run("tcp", false, flows);
    all_came(&raw, &server.log());
}

/// What became of everything when the far end does this with each connection.
fn against(number: u8, far: impl Fn(std::net::TcpStream) + Send + Copy + 'static) -> Raw {
    let mut scenario = two_edges(number, "tcp", "message", "pager = true\n");
    scenario.populations.truncate(1);
    let listener = TcpListener::bind(SocketAddr::from((own_ip(number), 5062))).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || far(stream));
        }
    });
    let mut nobody = scenario.populations[0].clone();
    nobody.name = "b".to_owned();
    nobody.side = tandem_loadgen::scenario::model::Side::Addressed;
    scenario.populations.push(nobody);
    scenario.run.drain_ns = 500_000_000;
    run(&scenario)
}

fn settled(it: &Counts) -> u64 {
    it.delivered + it.bounced.values().sum::<u64>() + it.open() + it.dropped
}

#[test]
fn servers_that_refuse_stall_close_or_talk_nonsense_are_counted() {
    let raw = against(41, |stream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let mut stream = stream;
        loop {
            let head: Vec<String> = lines.by_ref().take_while(|it| !it.is_empty()).collect();
            if head.is_empty() {
                return;
            }
            let echoed = head.iter().skip(1).filter(|it| {
                ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|name| it.starts_with(name))
            });
            let mut text = "SIP/2.0 603 Decline\r\n".to_owned();
            echoed.for_each(|it| text += &format!("{it}\r\n"));
            text += "Content-Length: 0\r\n\r\n";
            drop(stream.write_all(text.as_bytes()));
            // The body's line ends where the next request begins.
        }
    });
    let it = &raw.total.flows[0].counts;
    assert!(it.bounced.get("603").is_some_and(|n| *n > 0), "{it:?} {}", steps(&raw));

    let raw = against(42, |mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let it = &raw.total.flows[0].counts;
    assert_eq!((it.open(), settled(it)), (it.due, it.due), "stalled: {it:?}");

    let raw = against(43, |mut stream| {
        drop(stream.read(&mut [0; 10]));
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    });
    let it = &raw.total.flows[0].counts;
    let failed = &raw.total.steps["sip"].failed;
    assert!(failed["garbage"] > 0 && it.bounced["503"] > 0, "{it:?} {failed:?}");
    assert_eq!(it.open(), 0, "{it:?}");

    let raw = against(44, |mut stream| drop(stream.read(&mut [0; 10])));
    let it = &raw.total.flows[0].counts;
    assert!(it.bounced["503"] > 0 && it.open() == 0, "{it:?} {}", steps(&raw));
}

#[test]
fn datagrams_that_get_lost_are_said_again() {
    let ip = own_ip(45);
    let mut scenario = two_edges(45, "udp", "options", "");
    scenario.populations.truncate(1);
    let mut nobody = scenario.populations[0].clone();
    nobody.name = "b".to_owned();
    nobody.side = tandem_loadgen::scenario::model::Side::Addressed;
    scenario.populations.push(nobody);
    let socket = UdpSocket::bind((ip, 5062)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    std::thread::spawn(move || {
        let mut seen = std::collections::HashSet::new();
        let mut room = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut room) {
            let text = String::from_utf8_lossy(&room[..length]).into_owned();
            // Only what comes again is answered.
            if !seen.insert(text.clone()) {
                let lines = text.lines().skip(1).filter(|it| {
                    ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|name| it.starts_with(name))
                });
                let echoed: String = lines.map(|it| format!("{it}\r\n")).collect();
                let answer = format!("SIP/2.0 200 OK\r\n{echoed}Content-Length: 0\r\n\r\n");
                drop(socket.send_to(answer.as_bytes(), from));
            }
        }
    });
    let raw = run(&scenario);
    all_came(&raw, "udp");
    let sent = raw.total.flows[0].counts.sent;
    assert_eq!(raw.total.steps["retransmission"].failed["ours"], sent);
}
