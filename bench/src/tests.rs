//! The denominators under the generator that loads them: what they do has to be sound, or else
//! nothing that is divided by them means anything.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use serde_json::{Value, json};
use tandem_loadgen::login::After;
use tandem_loadgen::measure::Watched;
use tandem_loadgen::population::{Names, Population, Tls, Wanted};
use tandem_loadgen::sip::raw;
use tandem_loadgen::{fanout, logins, run};

use crate::{Command, Line, servers};

/// Starts a denominator in a thread that ends with the process.
fn start(line: &[&str]) -> SocketAddr {
    let at = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap();
    let address = at.to_string();
    let head = ["tandem-bench", line[0], "--listen", &address];
    let command = Line::parse_from(head.iter().chain(&line[1..])).command;
    std::thread::spawn(move || match command {
        Command::BareRelay(relay) => relay.run().unwrap(),
        Command::Scripted(scripted) => scripted.run().unwrap(),
        _ => {}
    });
    while TcpStream::connect(at).is_err() {
        std::thread::yield_now();
    }
    at
}

fn wanted(at: SocketAddr, count: usize, domain: Option<&str>) -> Wanted {
    Wanted {
        targets: vec![at],
        count,
        tls: if domain.is_some() { Tls::Direct } else { Tls::None },
        domain: domain.map(str::to_owned),
        names: Names::Prefix("u".to_owned()),
        password: "pw".to_owned(),
        mechanism: None,
        after: After::default(),
    }
}

#[test]
fn a_bare_sender_gives_every_watcher_every_change_once() {
    for engine in ["epoll", "uring"] {
        let at = start(&["bare-relay", "--engine", engine, "--fan-out"]);
        for together in [false, true] {
            let plan = fanout::Plan {
                presentities: 3,
                in_flight: 2,
                together,
                bytes: 300,
                raw: true,
                warmup: Duration::ZERO,
                window: Duration::from_millis(100),
                watched: Watched::default(),
            };
            let population = Population::open(&wanted(at, 23, None)).unwrap();
            let result = fanout::run(population, &plan).unwrap();
            assert_eq!(result["sound"], json!(true), "{engine}: {result}");
            assert_eq!(result["account"]["delivered"], result["account"]["expected"]);
            assert!(result["account"]["changes"].as_u64() > Some(2), "{engine}: {result}");
        }
    }
}

#[test]
fn a_relay_under_tls_takes_what_goes_one_way() {
    let dir = tempfile::tempdir().unwrap();
    servers::certificate(dir.path()).unwrap();
    for engine in ["epoll", "uring"] {
        let at = start(&["bare-relay", "--engine", engine, "--tls", path(dir.path())]);
        // The knock had a place: it gets its partner.
        drop(TcpStream::connect(at));
        let plan = run::Plan {
            outstanding: 2,
            rate: None,
            bytes: 300,
            shuffle: None,
            warmup: Duration::ZERO,
            window: Duration::from_millis(100),
            watched: Watched::default(),
            managed: false,
            one_way: true,
        };
        let population =
            Population::open(&Wanted { tls: Tls::Direct, ..wanted(at, 20, None) }).unwrap();
        let result = run::run(population, &plan).unwrap();
        assert_eq!(result["sound"], json!(true), "{engine}: {result}");
        assert!(result["account"]["delivered"].as_u64() > Some(20), "{engine}: {result}");
    }
}

#[test]
fn the_relay_of_sip_packets_gives_each_session_its_own_in_either_direction() {
    for (engine, back) in [("epoll", false), ("uring", false), ("epoll", true), ("uring", true)] {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap();
        let (lines, owns) = (free(), free());
        let dir = tempfile::tempdir().unwrap();
        let counters = dir.path().join("counters");
        let (at, to) = (lines.to_string(), owns.to_string());
        let head = ["tandem-bench", "bare-relay", "--engine", engine, "--listen", &at];
        let rest = ["--owns", &to, "--sizes", "850,410,34,310", "--counters", path(&counters)];
        let back_too: &[&str] = if back { &["--back"] } else { &[] };
        let Command::BareRelay(relay) =
            Line::parse_from(head.iter().chain(&rest).chain(back_too)).command
        else {
            unreachable!("that is the relay's line")
        };
        std::thread::spawn(move || relay.run().unwrap());
        while !counters.exists() {
            std::thread::yield_now();
        }
        let plan = raw::Plan {
            edge: "127.0.0.1:0".parse().unwrap(),
            sip: lines,
            lines: 2,
            back,
            sizes: raw::Sizes { request: 850, pass: 410, ack: 34, answer: 310 },
            warmup: Duration::ZERO,
            window: Duration::from_millis(100),
            watched: Watched::default(),
        };
        let population = Population::open(&wanted(owns, 23, None)).unwrap();
        let result = raw::run(population, &plan).unwrap();
        assert_eq!(result["sound"], json!(true), "{engine}: {result}");
        assert!(result["account"]["done"].as_u64() > Some(23), "{engine}: {result}");
    }
}

#[test]
fn a_scripted_server_takes_logins_and_says_as_much_as_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    servers::certificate(dir.path()).unwrap();
    let at = start(&["scripted", "--tls", path(dir.path()), "--octets", "2000"]);
    let plan = logins::Plan {
        concurrent: 4,
        once: true,
        kept: Some(dir.path().join("salted")),
        warmup: Duration::ZERO,
        window: Duration::from_secs(60),
        watched: Watched::default(),
    };
    let result = logins::run(&wanted(at, 20, Some("load.example")), &plan).unwrap();
    assert_eq!(result["sound"], json!(true), "{result}");
    assert_eq!(result["delivered_in_window"], json!(20), "{result}");
    let octets = result["octets_in_each"].as_f64().unwrap();
    assert!((octets - 2000.0).abs() < 10.0, "{result}");
    let kept = std::fs::read_to_string(dir.path().join("salted")).unwrap();
    assert_eq!(kept.lines().count(), 1, "one salt, one password");
    // A wrong password is not taken, so the proof is looked at.
    let wrong = Wanted { password: "no".to_owned(), ..wanted(at, 1, Some("load.example")) };
    assert_eq!(logins::run(&wrong, &plan).unwrap_or(Value::Null)["sound"], json!(false));
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
